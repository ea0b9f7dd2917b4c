//! What ends a link, in the words that people read.

use std::fmt;
use std::io;

/// Why a link ended that should not have.
#[derive(Debug, Clone)]
pub struct LinkError {
    /// Name of the errno, or `TLS`, `TIMEOUT`, `CLOSED`, `BROKEN`.
    pub code: &'static str,
    pub message: String,
}

impl LinkError {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The peer did what the protocol does not have, or somebody did between the two.
    pub fn tls(message: impl fmt::Display) -> Self {
        Self::new("TLS", message.to_string())
    }

    /// A failed system call: `read ECONNRESET`.
    pub fn system(call: &str, error: &io::Error) -> Self {
        let code = match error.raw_os_error() {
            Some(libc::ECONNRESET) => "ECONNRESET",
            Some(libc::EPIPE) => "EPIPE",
            Some(libc::ETIMEDOUT) => "ETIMEDOUT",
            Some(libc::EHOSTUNREACH) => "EHOSTUNREACH",
            Some(libc::ENETUNREACH) => "ENETUNREACH",
            Some(libc::EMFILE) => "EMFILE",
            _ => return Self::new("ESYSTEM", format!("{call}: {error}")),
        };
        Self::new(code, format!("{call} {code}"))
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LinkError {}

impl From<rustls::Error> for LinkError {
    fn from(error: rustls::Error) -> Self {
        Self::tls(error)
    }
}
