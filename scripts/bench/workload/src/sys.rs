//! The system calls that are measured, each a thin checked wrapper: no buffering, no retries.

use std::ffi::CString;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The path as the system call wants it. Built outside timed parts where that is possible.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn checked(result: i64, what: &str) -> Result<i64> {
    if result < 0 {
        let cause = Error::last_os_error();
        return Err(Error::new(cause.kind(), format!("{what}: {cause}")));
    }
    Ok(result)
}

pub fn open(path: &CString, flags: i32) -> Result<OwnedFd> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644) };
    checked(i64::from(fd), "open")?;
    // SAFETY: the call has just returned this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes all of `bytes` at `offset`; a short write is an error.
pub fn pwrite(fd: &OwnedFd, bytes: &[u8], offset: u64) -> Result<()> {
    // SAFETY: pointer and length are those of a live slice.
    let n = unsafe {
        libc::pwrite(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            offset as libc::off_t,
        )
    };
    if checked(n as i64, "pwrite")? as usize != bytes.len() {
        return Err(Error::other("pwrite: short"));
    }
    Ok(())
}

/// Reads at `offset` and returns how many bytes came.
pub fn pread(fd: &OwnedFd, bytes: &mut [u8], offset: u64) -> Result<usize> {
    // SAFETY: pointer and length are those of a live, exclusively borrowed slice.
    let n = unsafe {
        libc::pread(
            fd.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            offset as libc::off_t,
        )
    };
    Ok(checked(n as i64, "pread")? as usize)
}

pub fn fsync(fd: &OwnedFd) -> Result<()> {
    // SAFETY: plain call on an owned descriptor.
    checked(i64::from(unsafe { libc::fsync(fd.as_raw_fd()) }), "fsync").map(drop)
}

pub fn rename(from: &CString, to: &CString) -> Result<()> {
    // SAFETY: both paths are NUL-terminated and outlive the call.
    checked(
        i64::from(unsafe { libc::rename(from.as_ptr(), to.as_ptr()) }),
        "rename",
    )
    .map(drop)
}

pub fn unlink(path: &CString) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    checked(i64::from(unsafe { libc::unlink(path.as_ptr()) }), "unlink").map(drop)
}

pub fn chmod(path: &CString, mode: u32) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    checked(
        i64::from(unsafe { libc::chmod(path.as_ptr(), mode) }),
        "chmod",
    )
    .map(drop)
}

pub fn mkdir(path: &CString) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    checked(
        i64::from(unsafe { libc::mkdir(path.as_ptr(), 0o755) }),
        "mkdir",
    )
    .map(drop)
}

pub fn rmdir(path: &CString) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    checked(i64::from(unsafe { libc::rmdir(path.as_ptr()) }), "rmdir").map(drop)
}

pub fn lstat(path: &CString) -> Result<libc::stat> {
    let mut out = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `path` is NUL-terminated; `out` is large enough for one stat.
    let r = unsafe { libc::lstat(path.as_ptr(), out.as_mut_ptr()) };
    checked(i64::from(r), "lstat")?;
    // SAFETY: the call succeeded, so it has filled `out`.
    Ok(unsafe { out.assume_init() })
}

/// One getdents64 into `buffer`; returns the number of entries it held, 0 at the end.
pub fn getdents(fd: &OwnedFd, buffer: &mut [u8]) -> Result<u64> {
    // SAFETY: pointer and length are those of a live, exclusively borrowed slice.
    let n = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    let filled = checked(n, "getdents64")? as usize;
    let (mut at, mut entries) = (0, 0);
    while at + 18 < filled {
        // linux_dirent64: d_reclen is the u16 at byte 16.
        let length = u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]) as usize;
        if length == 0 {
            return Err(Error::other("getdents64: empty entry"));
        }
        at += length;
        entries += 1;
    }
    Ok(entries)
}

/// Drops page, dentry and inode caches of every file system, on all layers of a stack: twice,
/// since inodes of a lower layer come free only when the upper layer has let go of them.
pub fn drop_caches() -> Result<()> {
    for _ in 0..2 {
        // SAFETY: plain call without arguments.
        unsafe { libc::sync() };
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}
