//! Checked wrappers over the Linux system calls the tools use: a result or an errno.
//!
//! Paths are always relative to a directory descriptor. This is the only module tree with
//! `unsafe`; everything above it works on descriptors, bytes and errno values.

pub mod attr;
pub mod dir;
pub mod file;
pub mod map;
pub mod name;
pub mod process;

use std::ffi::{CStr, CString};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A positive errno value.
pub type Errno = i32;
pub type SysResult<T> = Result<T, Errno>;

/// The errno of the call that just failed on this thread.
pub fn errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn check(r: libc::c_long) -> SysResult<i64> {
    if r < 0 {
        Err(errno())
    } else {
        Ok(r)
    }
}

fn check_int(r: libc::c_int) -> SysResult<()> {
    check(r.into()).map(drop)
}

fn own(r: libc::c_long) -> SysResult<OwnedFd> {
    let fd = check(r)?;
    // SAFETY: the kernel just returned this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A C string; a name with a NUL byte cannot reach the kernel and is ENOENT here.
pub fn cstr(bytes: &[u8]) -> SysResult<CString> {
    CString::new(bytes).map_err(|_| libc::ENOENT)
}

/// The same object through `/proc/self/fd`, for calls that have no `*at` form.
pub fn proc_path(dir: RawFd, path: &CStr) -> SysResult<CString> {
    if dir == libc::AT_FDCWD {
        return Ok(path.to_owned());
    }
    let mut p = format!("/proc/self/fd/{dir}/").into_bytes();
    p.extend_from_slice(path.to_bytes());
    cstr(&p)
}

/// The object behind a descriptor, as a path.
pub fn proc_fd(fd: RawFd) -> SysResult<CString> {
    cstr(format!("/proc/self/fd/{fd}").as_bytes())
}

/// `ENOENT` for 2, and so on; unknown values as a number.
pub fn errno_name(e: Errno) -> String {
    const NAMES: &[(Errno, &str)] = &[
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EINTR, "EINTR"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::E2BIG, "E2BIG"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENFILE, "ENFILE"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::EFBIG, "EFBIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::ESPIPE, "ESPIPE"),
        (libc::EROFS, "EROFS"),
        (libc::EMLINK, "EMLINK"),
        (libc::EPIPE, "EPIPE"),
        (libc::ERANGE, "ERANGE"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ENOTEMPTY, "ENOTEMPTY"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENODATA, "ENODATA"),
        (libc::EOVERFLOW, "EOVERFLOW"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EDQUOT, "EDQUOT"),
        (libc::ESTALE, "ESTALE"),
        (libc::ENOTCONN, "ENOTCONN"),
        (libc::ECONNABORTED, "ECONNABORTED"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
    ];
    match NAMES.iter().find(|(n, _)| *n == e) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("errno {e}"),
    }
}
