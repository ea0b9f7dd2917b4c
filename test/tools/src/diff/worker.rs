//! Who runs the operations: this process as root, or forked processes under other identities.
//!
//! A worker has a pool of descriptors per side and runs one step at a time, first on the right
//! (the reference), then on the left. A forked worker receives steps over a socket pair, as a
//! 4-byte length and a postcard message, and answers with both outcomes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use super::exec::Side;
use super::op::Step;
use super::outcome::Outcome;
use crate::sys::{file, process};

/// Who a worker is. Groups overlap, so that group permissions and group chown have cases.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'static [u32],
}

pub const ROOT: Identity = Identity { uid: 0, gid: 0, groups: &[] };
pub const USERS: [Identity; 3] = [
    Identity { uid: 1000, gid: 1000, groups: &[1000, 2000] },
    Identity { uid: 1001, gid: 1001, groups: &[1001, 2000, 3000] },
    Identity { uid: 1002, gid: 1002, groups: &[1002, 1000, 3000] },
];

/// Both outcomes of a step; the left one stands alone when only it was to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    pub left: Outcome,
    pub right: Outcome,
}

pub struct Worker {
    left: Side,
    right: Side,
}

impl Worker {
    pub fn new(left: &[u8], right: &[u8], seek_exact: bool) -> Result<Worker, String> {
        let open = |p: &[u8], is_right| {
            file::open_root(p)
                .map(|fd| Side::new(fd, seek_exact, is_right))
                .map_err(|e| format!("{}: {}", crate::bytes::escape(p), crate::sys::errno_name(e)))
        };
        Ok(Worker { left: open(left, false)?, right: open(right, true)? })
    }

    pub fn run(&mut self, step: &Step) -> Reply {
        if step.left_only {
            let left = self.left.run(&step.op, false);
            let right = Outcome::new(left.result);
            return Reply { left, right };
        }
        let mut right = self.right.run(&step.op, step.probe);
        let mut left = self.left.run(&step.op, step.probe);
        if left.bytes == right.bytes {
            (left.bytes, right.bytes) = (None, None);
        }
        Reply { left, right }
    }

    fn serve(mut self, mut socket: UnixStream) -> std::io::Result<()> {
        loop {
            let message = receive(&mut socket)?;
            if message.is_empty() {
                return Ok(());
            }
            let step: Step = postcard::from_bytes(&message).map_err(std::io::Error::other)?;
            send(&mut socket, &self.run(&step))?;
        }
    }
}

/// A worker in this process or in one of its own.
pub enum Host {
    Local(Box<Worker>),
    Forked { pid: libc::pid_t, socket: UnixStream },
}

impl Host {
    /// Forks a worker that becomes `who`. The roots are opened before, as root.
    pub fn fork(worker: Worker, who: Identity) -> Result<Host, String> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| e.to_string())?;
        let pid = process::fork_child(move || {
            let ready = process::die_with_parent()
                .and_then(|()| process::become_user(who.uid, who.gid, who.groups));
            match ready.map(|()| worker.serve(theirs)) {
                Ok(Ok(())) => 0,
                _ => 1,
            }
        })
        .map_err(|e| format!("fork: {}", crate::sys::errno_name(e)))?;
        Ok(Host::Forked { pid, socket: ours })
    }

    pub fn run(&mut self, step: &Step) -> Result<Reply, String> {
        match self {
            Host::Local(worker) => Ok(worker.run(step)),
            Host::Forked { socket, .. } => {
                send(socket, step).map_err(|e| format!("worker: {e}"))?;
                let message = receive(socket).map_err(|e| format!("worker: {e}"))?;
                postcard::from_bytes(&message).map_err(|e| format!("worker: {e}"))
            }
        }
    }

    /// Closes every descriptor and mapping of the worker and waits for its end.
    pub fn finish(self) {
        if let Host::Forked { pid, mut socket } = self {
            // An error means that it is gone already; waiting tells the same.
            let _ = socket.write_all(&0u32.to_le_bytes());
            let _ = process::wait(pid);
        }
    }
}

fn send<T: Serialize>(socket: &mut UnixStream, value: &T) -> std::io::Result<()> {
    let body = postcard::to_stdvec(value).map_err(std::io::Error::other)?;
    let mut message = (body.len() as u32).to_le_bytes().to_vec();
    message.extend_from_slice(&body);
    socket.write_all(&message)
}

fn receive(socket: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let mut len = [0u8; 4];
    socket.read_exact(&mut len)?;
    let mut body = vec![0u8; u32::from_le_bytes(len) as usize];
    socket.read_exact(&mut body)?;
    Ok(body)
}
