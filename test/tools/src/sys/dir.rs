//! Directory reading with getdents64 itself, so that buffer size and position are ours.

use std::os::fd::RawFd;

use super::{check, SysResult};

/// Name and d_type of one entry.
pub type Entry = (Vec<u8>, u8);

/// One getdents64 call; `.` and `..` are dropped. None at the end of the directory.
pub fn read_some(fd: RawFd, buf: &mut [u8]) -> SysResult<Option<Vec<Entry>>> {
    // SAFETY: buf is writable for its length.
    let n = check(unsafe { libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), buf.len()) })?
        as usize;
    if n == 0 {
        return Ok(None);
    }
    let mut entries = Vec::new();
    let mut rest = &buf[..n];
    // struct linux_dirent64: d_ino u64, d_off i64, d_reclen u16, d_type u8, d_name.
    while rest.len() >= 19 {
        let len = u16::from_ne_bytes([rest[16], rest[17]]) as usize;
        if len < 19 || len > rest.len() {
            return Err(libc::EIO);
        }
        let raw = &rest[19..len];
        let end = raw.iter().position(|b| *b == 0).unwrap_or(raw.len());
        let name = &raw[..end];
        if name != b"." && name != b".." {
            entries.push((name.to_vec(), rest[18]));
        }
        rest = &rest[len..];
    }
    Ok(Some(entries))
}

/// The whole directory from the descriptor's position, in the kernel's order.
pub fn read_all(fd: RawFd) -> SysResult<Vec<Entry>> {
    let mut buf = vec![0u8; 32768];
    let mut all = Vec::new();
    while let Some(mut some) = read_some(fd, &mut buf)? {
        all.append(&mut some);
    }
    Ok(all)
}
