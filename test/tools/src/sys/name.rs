//! Calls on names and inodes: create, remove, link, rename, mode, owner, times, access.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::{check, check_int, SysResult};

/// Seconds and nanoseconds; `UTIME_NOW` and `UTIME_OMIT` travel in the nanoseconds.
pub type Time = (i64, i64);

pub fn mkdirat(dir: RawFd, path: &CStr, mode: u32) -> SysResult<()> {
    // SAFETY: path is a valid C string for the length of the call.
    check_int(unsafe { libc::mkdirat(dir, path.as_ptr(), mode) })
}

pub fn unlinkat(dir: RawFd, path: &CStr, flags: i32) -> SysResult<()> {
    // SAFETY: path is a valid C string for the length of the call.
    check_int(unsafe { libc::unlinkat(dir, path.as_ptr(), flags) })
}

pub fn symlinkat(target: &CStr, dir: RawFd, path: &CStr) -> SysResult<()> {
    // SAFETY: both are valid C strings for the length of the call.
    check_int(unsafe { libc::symlinkat(target.as_ptr(), dir, path.as_ptr()) })
}

pub fn readlinkat(dir: RawFd, path: &CStr) -> SysResult<Vec<u8>> {
    let mut buf = vec![0u8; libc::PATH_MAX as usize + 1];
    // SAFETY: path is a valid C string and buf is writable for its length.
    let n =
        check(unsafe { libc::readlinkat(dir, path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) }
            as _)?;
    buf.truncate(n as usize);
    Ok(buf)
}

pub fn linkat(from: RawFd, old: &CStr, to: RawFd, new: &CStr, flags: i32) -> SysResult<()> {
    // SAFETY: both are valid C strings for the length of the call.
    check_int(unsafe { libc::linkat(from, old.as_ptr(), to, new.as_ptr(), flags) })
}

pub fn renameat2(from: RawFd, old: &CStr, to: RawFd, new: &CStr, flags: u32) -> SysResult<()> {
    // SAFETY: both are valid C strings for the length of the call.
    check(unsafe {
        libc::syscall(libc::SYS_renameat2, from, old.as_ptr(), to, new.as_ptr(), flags)
    })
    .map(drop)
}

pub fn mknodat(dir: RawFd, path: &CStr, mode: u32, dev: u64) -> SysResult<()> {
    // SAFETY: path is a valid C string for the length of the call.
    check_int(unsafe { libc::mknodat(dir, path.as_ptr(), mode, dev) })
}

/// fchmodat2, which honours AT_SYMLINK_NOFOLLOW (Linux 6.6).
pub fn fchmodat(dir: RawFd, path: &CStr, mode: u32, flags: i32) -> SysResult<()> {
    const SYS_FCHMODAT2: libc::c_long = 452;
    let r = if flags == 0 {
        // SAFETY: path is a valid C string for the length of the call.
        unsafe { libc::syscall(libc::SYS_fchmodat, dir, path.as_ptr(), mode) }
    } else {
        // SAFETY: as above.
        unsafe { libc::syscall(SYS_FCHMODAT2, dir, path.as_ptr(), mode, flags) }
    };
    check(r).map(drop)
}

pub fn fchmod(fd: RawFd, mode: u32) -> SysResult<()> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fchmod(fd, mode) })
}

pub fn fchownat(dir: RawFd, path: &CStr, uid: u32, gid: u32, flags: i32) -> SysResult<()> {
    // SAFETY: path is a valid C string for the length of the call.
    check_int(unsafe { libc::fchownat(dir, path.as_ptr(), uid, gid, flags) })
}

pub fn fchown(fd: RawFd, uid: u32, gid: u32) -> SysResult<()> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fchown(fd, uid, gid) })
}

fn timespecs(atime: Time, mtime: Time) -> [libc::timespec; 2] {
    [
        libc::timespec { tv_sec: atime.0, tv_nsec: atime.1 },
        libc::timespec { tv_sec: mtime.0, tv_nsec: mtime.1 },
    ]
}

pub fn utimensat(dir: RawFd, path: &CStr, atime: Time, mtime: Time, flags: i32) -> SysResult<()> {
    let ts = timespecs(atime, mtime);
    // SAFETY: path is a valid C string, ts an array of two.
    check_int(unsafe { libc::utimensat(dir, path.as_ptr(), ts.as_ptr(), flags) })
}

pub fn futimens(fd: RawFd, atime: Time, mtime: Time) -> SysResult<()> {
    let ts = timespecs(atime, mtime);
    // SAFETY: ts is an array of two.
    check_int(unsafe { libc::futimens(fd, ts.as_ptr()) })
}

/// faccessat2: the kernel's own answer, without libc's emulation of flags.
pub fn faccessat(dir: RawFd, path: &CStr, mode: i32, flags: i32) -> SysResult<()> {
    // SAFETY: path is a valid C string for the length of the call.
    check(unsafe { libc::syscall(libc::SYS_faccessat2, dir, path.as_ptr(), mode, flags) }).map(drop)
}
