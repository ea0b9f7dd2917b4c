//! The TCP socket of a link: blocking for the two threads, never for the thread of JavaScript.

use super::error::LinkError;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

pub struct Socket(OwnedFd);

impl Socket {
    /// Another descriptor of the connected socket `fd`; who has the first one closes it, without a word to
    /// the peer.
    pub fn take_over(fd: RawFd) -> Result<Self, LinkError> {
        // SAFETY: plain calls on a number; what is no descriptor is refused. The new one is ours alone.
        unsafe {
            let own = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
            if own < 0 {
                return Err(LinkError::system("taking over a socket", &io::Error::last_os_error()));
            }
            let socket = Self(OwnedFd::from_raw_fd(own));
            let flags = libc::fcntl(own, libc::F_GETFL);
            if flags < 0 || libc::fcntl(own, libc::F_SETFL, flags & !libc::O_NONBLOCK) < 0 {
                return Err(LinkError::system("taking over a socket", &io::Error::last_os_error()));
            }
            Ok(socket)
        }
    }

    /// Waits for bytes; 0: the peer sends no more.
    pub fn read(&self, into: &mut [u8]) -> Result<usize, LinkError> {
        self.receive(into, 0).map(|got| got.unwrap_or(0))
    }

    /// What is there already, if anything.
    pub fn read_now(&self, into: &mut [u8]) -> Result<Option<usize>, LinkError> {
        self.receive(into, libc::MSG_DONTWAIT)
    }

    /// Waits until `deadline` at most.
    pub fn read_until(&self, into: &mut [u8], deadline: Instant) -> Result<usize, LinkError> {
        loop {
            self.wait(libc::POLLIN, deadline)?;
            if let Some(got) = self.read_now(into)? {
                return Ok(got);
            }
        }
    }

    fn receive(&self, into: &mut [u8], flags: i32) -> Result<Option<usize>, LinkError> {
        // SAFETY: writes at most `into.len()` bytes to it.
        let call = || unsafe {
            libc::recv(self.0.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), flags)
        };
        retried("read", call)
    }

    /// Sends some of it; waits until there is room for some.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        self.send(bytes, 0).map(|sent| sent.unwrap_or(0))
    }

    /// Sends what there is room for.
    pub fn write_now(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        self.send(bytes, libc::MSG_DONTWAIT).map(|sent| sent.unwrap_or(0))
    }

    /// Sends all of it, until `deadline` at most.
    pub fn write_until(&self, bytes: &[u8], deadline: Instant) -> Result<(), LinkError> {
        let mut left = bytes;
        while !left.is_empty() {
            self.wait(libc::POLLOUT, deadline)?;
            left = &left[self.write_now(left)?..];
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8], flags: i32) -> Result<Option<usize>, LinkError> {
        let flags = flags | libc::MSG_NOSIGNAL;
        // SAFETY: reads `bytes.len()` bytes from it.
        let call =
            || unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        retried("write", call)
    }

    fn wait(&self, events: i16, deadline: Instant) -> Result<(), LinkError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LinkError::new("TIMEOUT", "no answer in time"));
            }
            let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events, revents: 0 };
            let ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
            // SAFETY: one valid pollfd.
            let found = unsafe { libc::poll(&mut poll, 1, ms) };
            if found > 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if found < 0 && error.kind() != io::ErrorKind::Interrupted {
                return Err(LinkError::system("poll", &error));
            }
        }
    }

    /// The peer is told that nothing more comes.
    pub fn end(&self) {
        self.shutdown(libc::SHUT_WR);
    }

    /// Ends it both ways: who waits in `read` or `write` returns.
    pub fn close(&self) {
        self.shutdown(libc::SHUT_RDWR);
    }

    fn shutdown(&self, how: i32) {
        // SAFETY: plain call on an open descriptor. It fails when the peer has ended it already.
        unsafe { libc::shutdown(self.0.as_raw_fd(), how) };
    }
}

/// None: it would have to wait.
fn retried(name: &str, mut call: impl FnMut() -> isize) -> Result<Option<usize>, LinkError> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(Some(count));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Ok(None),
            _ => return Err(LinkError::system(name, &error)),
        }
    }
}
