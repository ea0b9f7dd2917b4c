//! Requests of a file system that captures nothing: threads that read, answer, and read again.

use super::abi::{self, InHeader};
use super::device::{read_request, send, IO_BYTES_MAX};
use super::mount::clone_device;
use super::reply::{Output, Reply};
use super::request::{read_pod, Request};
use crate::interceptor::errno::{Errno, Res};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked for the end of a thread.
const JOIN_LOOK: Duration = Duration::from_millis(1);

/// What answers the requests.
pub trait Server: Send + Sync + 'static {
    /// Answers one request; the reply's bytes go to `out`.
    fn serve(&self, out: &mut Output, r: &Request) -> Res<Reply>;
}

/// The threads of one connection.
pub struct Plain {
    threads: Vec<JoinHandle<()>>,
}

impl Plain {
    /// Starts the threads; they end when the file system is unmounted.
    pub fn start(server: Arc<impl Server>, device: OwnedFd, threads: usize) -> Res<Self> {
        let mut started = Vec::new();
        for _ in 0..threads {
            let channel = clone_device(&device)?;
            let server = server.clone();
            let thread = std::thread::Builder::new()
                .name("holdfast-view".into())
                .spawn(move || run(&*server, &channel))?;
            started.push(thread);
        }
        Ok(Self { threads: started })
    }

    /// Waits until the threads have ended, but not longer than until `end`: somebody else may still have
    /// the file system mounted. Then they are left to themselves, and end with its last use.
    pub fn join(self, end: Instant) {
        for thread in self.threads {
            while !thread.is_finished() {
                if Instant::now() >= end {
                    return;
                }
                std::thread::sleep(JOIN_LOOK);
            }
        }
    }
}

fn run(server: &impl Server, channel: &OwnedFd) {
    let mut buf = vec![0u8; IO_BYTES_MAX + 4096];
    let mut out = Output::with_capacity(IO_BYTES_MAX);
    loop {
        match read_request(channel.as_raw_fd(), &mut buf) {
            Ok(n) => answer(server, channel, &buf[..n], &mut out),
            Err(Errno(libc::EINTR | libc::EAGAIN | libc::ENOENT)) => {}
            Err(_) => return,
        }
    }
}

fn answer(server: &impl Server, channel: &OwnedFd, msg: &[u8], out: &mut Output) {
    let Ok(header) = read_pod::<InHeader>(msg) else {
        return;
    };
    let rest = &msg[40..];
    let (fixed, rest) = rest.split_at(abi::fixed_len(header.opcode).min(rest.len()));
    let request = Request { header, fixed, rest, in_place: false };
    out.clear();
    // A panic stays inside.
    let result = catch_unwind(AssertUnwindSafe(|| server.serve(out, &request)))
        .unwrap_or(Err(Errno(libc::EIO)));
    let fd = channel.as_raw_fd();
    let sent = match result {
        Ok(Reply::None) => Ok(()),
        Ok(Reply::Done) => send(fd, header.unique, 0, out.bytes()),
        Err(Errno(e)) => send(fd, header.unique, e, &[]),
    };
    if let Err(Errno(e)) = sent {
        // The kernel refused the reply: tell the caller rather than let it wait for ever.
        let _ = send(fd, header.unique, e, &[]);
    }
}
