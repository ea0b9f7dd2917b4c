//! A lock between processes that the kernel gives back when its holder dies.

use super::error::{system, JsError};
use crate::interceptor::errno::{check, Errno};
use napi_derive::napi;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;

/// Locks a file, made where there is none. The descriptor that closing gives it back with; none: somebody
/// else has it.
#[napi]
pub fn lock_file(path: String) -> Result<Option<i32>, JsError> {
    let open = File::options().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = open.map_err(|e| system("opening a lock", e))?;
    // SAFETY: plain call on an open descriptor.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(Some(file.into_raw_fd())),
        Err(Errno(libc::EWOULDBLOCK)) => Ok(None),
        Err(e) => Err(system("locking", e)),
    }
}
