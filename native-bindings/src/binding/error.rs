//! Errors for JavaScript: a stable code, and a text that says what and where.

use crate::interceptor::errno::Errno;
use napi::bindgen_prelude::Buffer;
use std::ffi::CString;

/// An error with a code that JavaScript can look at.
pub type JsError = napi::Error<String>;

/// The code is `code`, the text says what was being done.
pub fn fail(code: &str, what: impl std::fmt::Display) -> JsError {
    napi::Error::new(code.to_owned(), what.to_string())
}

/// A failed system call: the code is the errno's name where it has one here.
pub fn system(what: &str, e: impl Into<Errno>) -> JsError {
    let e: Errno = e.into();
    fail(errno_name(e.0), format!("{what}: {e}"))
}

/// A path from JavaScript. EINVAL for what no path can be.
pub fn c_path(bytes: &Buffer, what: &str) -> Result<CString, JsError> {
    CString::new(bytes.as_ref()).map_err(|_| fail("EINVAL", format!("{what} has a zero byte")))
}

/// Names of the errnos that are told apart by callers.
pub fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EINVAL => "EINVAL",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::EOVERFLOW => "EOVERFLOW",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ESTALE => "ESTALE",
        libc::EDQUOT => "EDQUOT",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        _ => "ESYSTEM",
    }
}
