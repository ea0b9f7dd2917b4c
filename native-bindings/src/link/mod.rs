//! A link between two hosts: TLS 1.3 over a socket that is connected already.
//!
//! After the handshake each direction has a thread that blocks. One fills memory that JavaScript has handed
//! over, as much of it as has come; one encrypts and writes the pieces that JavaScript has handed over, or
//! JavaScript's own thread does where that is little and does not wait. Either tells when it is done:
//! few, large events.
//!
//! Invariant: memory of JavaScript is touched between its handing over and the event that answers that, or
//! `Closed`, and at no other time. Nothing is read from the socket beyond one buffer as long as there is
//! no memory to fill: the peer is held by TCP.
//!
//! Locks: `sender` is held while its thread waits for the socket, so JavaScript's thread only tries it; `state`
//! is held for moments, and nothing is called under it.
//!
//! Neighbours: `src/replication/link.ts` makes a stream of it; `tls` is what rustls does for both directions.

mod error;
mod handshake;
mod memory;
mod reader;
mod sender;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

pub use error::LinkError;
pub use handshake::Identity;
pub use memory::Span;

use memory::Pieces;
use parking_lot::{Condvar, Mutex};
use reader::Reader;
use sender::Sender;
use socket::Socket;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Of a thread; the handshake takes the most of it.
const STACK_BYTES: usize = 512 << 10;

/// What a link tells.
#[derive(Debug)]
pub enum Event {
    /// The handshake is done: fingerprint of the peer.
    Secured(String),
    /// The memory to fill holds so many bytes.
    Read(usize),
    /// What was handed over to be written is with the kernel.
    Written,
    /// The peer sends no more.
    Ended,
    /// It is of no use any more, and is to be closed.
    Failed(LinkError),
    /// The last event: both threads have let go of everything.
    Closed,
}

pub type Listener = dyn Fn(Event) + Send + Sync;

/// What is written together.
struct Job {
    pieces: Pieces,
    /// Nothing comes after it.
    end: bool,
}

#[derive(Default)]
struct State {
    closed: bool,
    target: Option<Span>,
    job: Option<Job>,
    /// rustls has something to say to the peer.
    answer: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    to_read: Condvar,
    to_write: Condvar,
    /// None until the handshake is done.
    sender: Mutex<Option<Sender>>,
    /// The threads own it.
    socket: Weak<Socket>,
}

pub struct Link {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Link {
    /// Takes over the connected socket `fd` and begins the handshake, which ends within `longest`.
    pub fn start(
        fd: RawFd,
        identity: Identity,
        longest: Duration,
        listener: Arc<Listener>,
    ) -> Result<Self, LinkError> {
        let socket = Arc::new(Socket::take_over(fd)?);
        let deadline = Instant::now() + longest;
        let shared = Arc::new(Shared { socket: Arc::downgrade(&socket), ..Shared::default() });
        let theirs = shared.clone();
        let thread = thread("holdfast-link", move || {
            let mut writer = None;
            guarded(&*listener, || {
                let secured = handshake::secure(&socket, &identity, deadline)?;
                let fingerprint = secured.fingerprint.clone();
                let (reader, sender) = sender::pair(secured, &socket);
                *theirs.sender.lock() = Some(sender);
                writer = Some(start_writer(&theirs, &socket, &listener)?);
                listener(Event::Secured(fingerprint));
                read(&theirs, reader, &*listener)
            });
            theirs.wait_until_closed();
            if let Some(writer) = writer {
                let _ = writer.join();
            }
            drop(socket);
            listener(Event::Closed);
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Memory to fill; `Read` answers. One at a time.
    pub fn read(&self, memory: Span) {
        self.shared.state.lock().target = Some(memory);
        self.shared.to_read.notify_one();
    }

    /// Writes it all, and with `end` that nothing comes after it. True: it is with the kernel; false:
    /// `Written` will say so. One at a time.
    pub fn write(&self, spans: Vec<Span>, end: bool) -> Result<bool, LinkError> {
        let mut pieces = Pieces::new(spans);
        if self.write_at_once(&mut pieces, end)? {
            return Ok(true);
        }
        self.shared.state.lock().job = Some(Job { pieces, end });
        self.shared.to_write.notify_one();
        Ok(false)
    }

    /// Not worth waking a thread for. False: what of it is not encrypted yet, or not sent, is the thread's.
    fn write_at_once(&self, pieces: &mut Pieces, end: bool) -> Result<bool, LinkError> {
        if pieces.left() > tls::PLAIN_MAX {
            return Ok(false);
        }
        let Some(socket) = self.shared.socket.upgrade() else { return Ok(false) };
        let Some(mut guard) = self.shared.sender.try_lock() else { return Ok(false) };
        let Some(sender) = guard.as_mut() else { return Ok(false) };
        sender.fill(pieces)?;
        if end {
            sender.end()?;
        }
        sender.send_now(&socket)
    }

    /// Ends it both ways, whatever is under way; `Closed` follows soon. Idempotent.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.to_read.notify_all();
        self.shared.to_write.notify_all();
        if let Some(socket) = self.shared.socket.upgrade() {
            socket.close();
        }
    }

    /// Gives the stack of its thread back, which has ended, or does so at once after `Closed`. Idempotent.
    pub fn join(&self) {
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Link {
    /// Memory of JavaScript goes after it: no thread is to have it then.
    fn drop(&mut self) {
        self.close();
        self.join();
    }
}

impl Shared {
    /// None: it is closed.
    fn next_target(&self) -> Option<Span> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(target) = state.target.take() {
                return Some(target);
            }
            self.to_read.wait(&mut state);
        }
    }

    /// What is to be written; `Some(None)`: what rustls has to say. None: it is closed.
    fn next_job(&self) -> Option<Option<Job>> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            let answer = std::mem::take(&mut state.answer);
            let job = state.job.take();
            if answer || job.is_some() {
                return Some(job);
            }
            self.to_write.wait(&mut state);
        }
    }

    fn wait_until_closed(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            self.to_read.wait(&mut state);
        }
    }

    fn answer(&self) {
        self.state.lock().answer = true;
        self.to_write.notify_one();
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LinkError> {
    let started = Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body);
    started.map_err(|e| LinkError::system("starting a thread", &e))
}

fn start_writer(
    shared: &Arc<Shared>,
    socket: &Arc<Socket>,
    listener: &Arc<Listener>,
) -> Result<JoinHandle<()>, LinkError> {
    let (shared, socket, listener) = (shared.clone(), socket.clone(), listener.clone());
    thread("holdfast-send", move || guarded(&*listener, || write(&shared, &socket, &*listener)))
}

/// Tells of what has ended the work; a panic, too, ends this link only.
fn guarded(listener: &Listener, work: impl FnOnce() -> Result<(), LinkError>) {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => listener(Event::Failed(error)),
        Err(_) => {
            listener(Event::Failed(LinkError::new("BROKEN", "a thread of the link panicked")))
        }
    }
}

/// Until the peer sends no more, or the link is closed.
fn read(shared: &Shared, mut reader: Reader, listener: &Listener) -> Result<(), LinkError> {
    while let Some(mut target) = shared.next_target() {
        // SAFETY: it was handed over, and is nobody else's until `Read`.
        let memory = unsafe { target.as_mut_slice() };
        match reader.fill(memory, &|| shared.answer()) {
            Ok(0) => {
                listener(Event::Ended);
                return Ok(());
            }
            Ok(bytes) => listener(Event::Read(bytes)),
            // By its own side.
            Err(_) if shared.state.lock().closed => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Until the link is closed.
fn write(shared: &Shared, socket: &Socket, listener: &Listener) -> Result<(), LinkError> {
    while let Some(job) = shared.next_job() {
        let mut guard = shared.sender.lock();
        let Some(sender) = guard.as_mut() else { continue };
        let told = job.is_some();
        match sender.work(job.map(|Job { pieces, end }| (pieces, end)), socket) {
            Ok(()) if told => listener(Event::Written),
            Ok(()) => {}
            Err(_) if shared.state.lock().closed => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
