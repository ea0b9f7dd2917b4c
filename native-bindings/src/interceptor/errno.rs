//! The one place where system errors become the errno that an application sees.

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Result of a dummy function.
pub type Res<T> = Result<T, Errno>;

impl Errno {
    /// The calling thread's errno.
    pub fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<std::io::Error> for Errno {
    fn from(e: std::io::Error) -> Self {
        Self(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

/// The result of a system call: -1 is the errno. A call that a signal interrupted is an error too;
/// the request threads take no signals.
pub fn check(rc: libc::c_int) -> Res<libc::c_int> {
    if rc < 0 {
        Err(Errno::last())
    } else {
        Ok(rc)
    }
}

/// As `check`, for calls that return a length or an offset.
pub fn check_len(rc: libc::ssize_t) -> Res<usize> {
    usize::try_from(rc).map_err(|_| Errno::last())
}
