//! Calls on open files: open, read, write, seek, size, allocation, copying, durability.

use std::ffi::CStr;
use std::os::fd::{OwnedFd, RawFd};

use super::{check, check_int, own, SysResult};

pub fn openat(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> SysResult<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: path is a valid C string for the length of the call.
    own(unsafe {
        libc::syscall(libc::SYS_openat, dir, path.as_ptr(), flags | libc::O_LARGEFILE, mode)
    })
}

/// Opens a directory by absolute or relative path, as the root of everything that follows.
pub fn open_root(path: &[u8]) -> SysResult<OwnedFd> {
    openat(libc::AT_FDCWD, &super::cstr(path)?, libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

pub fn read(fd: RawFd, buf: &mut [u8]) -> SysResult<usize> {
    // SAFETY: buf is writable for its length.
    check(unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) } as _).map(|n| n as usize)
}

pub fn pread(fd: RawFd, buf: &mut [u8], off: i64) -> SysResult<usize> {
    // SAFETY: buf is writable for its length.
    check(unsafe { libc::pread(fd, buf.as_mut_ptr().cast(), buf.len(), off) } as _)
        .map(|n| n as usize)
}

/// Reads until `buf` is full or the file ends.
pub fn pread_full(fd: RawFd, buf: &mut [u8], off: i64) -> SysResult<usize> {
    let mut done = 0;
    while done < buf.len() {
        match pread(fd, &mut buf[done..], off + done as i64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

pub fn write(fd: RawFd, buf: &[u8]) -> SysResult<usize> {
    // SAFETY: buf is readable for its length.
    check(unsafe { libc::write(fd, buf.as_ptr().cast(), buf.len()) } as _).map(|n| n as usize)
}

pub fn pwrite(fd: RawFd, buf: &[u8], off: i64) -> SysResult<usize> {
    // SAFETY: buf is readable for its length.
    check(unsafe { libc::pwrite(fd, buf.as_ptr().cast(), buf.len(), off) } as _).map(|n| n as usize)
}

/// Splits `buf` at `lens` into one writev; with an offset it is pwritev.
pub fn writev(fd: RawFd, buf: &[u8], lens: &[u32], off: Option<i64>) -> SysResult<usize> {
    let mut vecs = Vec::with_capacity(lens.len());
    let mut rest = buf;
    for &len in lens {
        let (head, tail) = rest.split_at((len as usize).min(rest.len()));
        vecs.push(libc::iovec { iov_base: head.as_ptr() as *mut _, iov_len: head.len() });
        rest = tail;
    }
    let n = match off {
        // SAFETY: each vector lies inside buf; the kernel only reads them.
        None => unsafe { libc::writev(fd, vecs.as_ptr(), vecs.len() as i32) },
        // SAFETY: as above.
        Some(off) => unsafe { libc::pwritev(fd, vecs.as_ptr(), vecs.len() as i32, off) },
    };
    check(n as _).map(|n| n as usize)
}

pub fn lseek(fd: RawFd, off: i64, whence: i32) -> SysResult<i64> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::lseek(fd, off, whence) })
}

pub fn ftruncate(fd: RawFd, len: i64) -> SysResult<()> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::ftruncate(fd, len) })
}

/// truncate(2), following symbolic links, through `/proc/self/fd`.
pub fn truncateat(dir: RawFd, path: &CStr, len: i64) -> SysResult<()> {
    let p = super::proc_path(dir, path)?;
    // SAFETY: p is a valid C string for the length of the call.
    check_int(unsafe { libc::truncate(p.as_ptr(), len) })
}

pub fn fallocate(fd: RawFd, mode: i32, off: i64, len: i64) -> SysResult<()> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fallocate(fd, mode, off, len) })
}

/// One copy_file_range call at explicit offsets.
pub fn copy_file_range(
    from: RawFd,
    from_off: i64,
    to: RawFd,
    to_off: i64,
    len: usize,
) -> SysResult<usize> {
    let (mut a, mut b) = (from_off, to_off);
    // SAFETY: both offsets are valid for reading and writing.
    check(unsafe { libc::copy_file_range(from, &mut a, to, &mut b, len, 0) } as _)
        .map(|n| n as usize)
}

pub fn fsync(fd: RawFd) -> SysResult<()> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fsync(fd) })
}

pub fn fdatasync(fd: RawFd) -> SysResult<()> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fdatasync(fd) })
}

pub fn syncfs(fd: RawFd) -> SysResult<()> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::syncfs(fd) })
}
