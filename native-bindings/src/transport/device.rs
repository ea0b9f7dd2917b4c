//! Requests by way of /dev/fuse.
//!
//! A few threads read, each on its own clone of the connection; a write's data is read from the kernel
//! straight to where its record will stand in the ring. A thread that is about to wait (an fsync, a
//! closed gate, a full ring) lets a spare one read in its place, so few threads suffice and none of the
//! others' requests waits.

use super::abi::{self, InHeader, InitIn, InitOut, OutHeader};
use super::mount::clone_device;
use super::reply::Reply;
use super::request::{pod_bytes, read_pod, Request};
use crate::interceptor::data::WRITE_PAYLOAD_AT;
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::{Volume, Worker};
use parking_lot::{Condvar, Mutex};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Longest data of one request.
pub const IO_BYTES_MAX: usize = 1 << 20;
/// Threads that read at the same time, at most.
pub const READERS_MAX: usize = 4;
/// Threads in all: this many requests can wait for a disk at once.
pub const THREADS_MAX: usize = 64;
/// Header and argument of a WRITE request.
const WRITE_HEAD: usize = 80;

/// How a request thread tells that it is about to wait.
pub struct Crew {
    state: Mutex<CrewState>,
    called: Condvar,
    ended: Condvar,
    /// Threads that read at the same time.
    wanted: usize,
}

#[derive(Default)]
struct CrewState {
    reading: usize,
    /// Threads that rest, and how many of them were called to read.
    parked: usize,
    called: usize,
    threads: usize,
    ended: bool,
}

impl Crew {
    fn new(wanted: usize) -> Self {
        Self { state: Mutex::default(), called: Condvar::new(), ended: Condvar::new(), wanted }
    }
}

/// What threads of one connection share.
pub struct Session {
    pub volume: Arc<Volume>,
    pub device: OwnedFd,
    crew: Crew,
}

/// How a file system wants the kernel to work with it.
#[derive(Clone, Copy, Default)]
pub struct Wishes {
    /// The kernel collects writes.
    pub writeback: bool,
    /// Nobody else changes the tree.
    pub exclusive: bool,
    pub uring: bool,
    /// It is there to be walked: attributes come with names even where nobody has asked for any yet.
    pub walked: bool,
}

/// Answers INIT: agrees with the kernel on how to work. Returns what was agreed.
pub fn negotiate(device: &OwnedFd, wishes: Wishes) -> Res<InitOut> {
    let mut buf = vec![0u8; 8192];
    let (header, n) = loop {
        match read_request(device.as_raw_fd(), &mut buf) {
            Ok(n) if n >= 40 => break (read_pod::<InHeader>(&buf)?, n),
            Ok(_) => return Err(Errno(libc::EPROTO)),
            Err(Errno(libc::EINTR | libc::EAGAIN | libc::ENOENT)) => {}
            Err(e) => return Err(e),
        }
    };
    if header.opcode != abi::INIT {
        return Err(Errno(libc::EPROTO));
    }
    let init: InitIn = read_pod(&buf[40..n.max(104)])?;
    if init.major != abi::KERNEL_VERSION || init.minor < 31 {
        return Err(Errno(libc::EPROTONOSUPPORT));
    }
    use abi::init as f;
    let offered = u64::from(init.flags) | u64::from(init.flags2) << 32;
    let mut wanted = f::ASYNC_READ | f::BIG_WRITES | f::DONT_MASK | f::HAS_IOCTL_DIR;
    wanted |= f::DO_READDIRPLUS | f::ASYNC_DIO | f::NO_OPEN_SUPPORT;
    if !wishes.walked {
        wanted |= f::READDIRPLUS_AUTO;
    }
    wanted |= f::PARALLEL_DIROPS | f::POSIX_ACL | f::MAX_PAGES | f::CACHE_SYMLINKS;
    wanted |= f::NO_OPENDIR_SUPPORT | f::HANDLE_KILLPRIV_V2 | f::SETXATTR_EXT | f::INIT_EXT;
    wanted |= if wishes.exclusive { f::EXPLICIT_INVAL_DATA } else { f::AUTO_INVAL_DATA };
    if wishes.writeback {
        wanted |= f::WRITEBACK_CACHE;
    }
    if wishes.uring {
        wanted |= f::OVER_IO_URING;
    }
    let agreed = wanted & offered;
    let out = InitOut {
        major: abi::KERNEL_VERSION,
        minor: abi::KERNEL_MINOR_VERSION,
        max_readahead: init.max_readahead.max(IO_BYTES_MAX as u32),
        flags: agreed as u32,
        max_background: 128,
        congestion_threshold: 96,
        max_write: IO_BYTES_MAX as u32,
        time_gran: 1,
        max_pages: (IO_BYTES_MAX / 4096) as u16,
        flags2: (agreed >> 32) as u32,
        ..Default::default()
    };
    send(device.as_raw_fd(), header.unique, 0, pod_bytes(&out))?;
    Ok(out)
}

pub(super) fn read_request(fd: RawFd, buf: &mut [u8]) -> Res<usize> {
    // SAFETY: valid buffer of that length.
    let n = unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) };
    usize::try_from(n).map_err(|_| Errno::last())
}

/// Sends a reply; that the request was interrupted or the connection ended meanwhile is no error.
pub fn send(fd: RawFd, unique: u64, error: i32, bytes: &[u8]) -> Res<()> {
    let head = OutHeader { len: (16 + bytes.len()) as u32, error: -error, unique };
    let head = pod_bytes(&head);
    let iov = [
        libc::iovec { iov_base: head.as_ptr() as *mut _, iov_len: head.len() },
        libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() },
    ];
    // SAFETY: both buffers are valid for their lengths; the kernel only reads them.
    if unsafe { libc::writev(fd, iov.as_ptr(), 2) } < 0 {
        let e = Errno::last();
        if e != Errno(libc::ENOENT) && e != Errno(libc::ENODEV) {
            return Err(e);
        }
    }
    Ok(())
}

/// Tells the kernel to drop what it cached of an object's data and attributes.
pub fn invalidate_inode(fd: RawFd, nodeid: u64) -> Res<()> {
    let out = abi::NotifyInvalInodeOut { ino: nodeid, off: 0, len: 0 };
    send(fd, 0, -abi::NOTIFY_INVAL_INODE, pod_bytes(&out))
}

/// Tells the kernel to drop what it cached of an object's attributes; its pages stay. Waits for nobody.
pub fn invalidate_attributes(fd: RawFd, nodeid: u64) -> Res<()> {
    let out = abi::NotifyInvalInodeOut { ino: nodeid, off: -1, len: 0 };
    send(fd, 0, -abi::NOTIFY_INVAL_INODE, pod_bytes(&out))
}

/// Tells the kernel to drop a name.
pub fn invalidate_entry(fd: RawFd, parent: u64, name: &[u8]) -> Res<()> {
    let out = abi::NotifyInvalEntryOut { parent, namelen: name.len() as u32, flags: 0 };
    let mut bytes = pod_bytes(&out).to_vec();
    bytes.extend_from_slice(name);
    bytes.push(0);
    send(fd, 0, -abi::NOTIFY_INVAL_ENTRY, &bytes)
}

impl Session {
    pub fn new(volume: Arc<Volume>, device: OwnedFd, readers: usize) -> Arc<Self> {
        let cpus = std::thread::available_parallelism().map_or(2, |n| n.get());
        let wanted = if readers == 0 { cpus.clamp(2, READERS_MAX) } else { readers };
        Arc::new(Self { volume, device, crew: Crew::new(wanted) })
    }

    /// Starts the request threads. They end when the file system is unmounted.
    pub fn start(self: &Arc<Self>) -> Res<()> {
        for _ in 0..self.crew.wanted {
            self.spawn()?;
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>) -> Res<()> {
        let channel = clone_device(&self.device)?;
        let session = self.clone();
        {
            let mut s = self.crew.state.lock();
            s.threads += 1;
            s.reading += 1;
        }
        std::thread::Builder::new()
            .name("holdfast-req".into())
            .spawn(move || session.run(channel))
            .map_err(Errno::from)?;
        Ok(())
    }

    /// Waits until all request threads have ended.
    pub fn join(&self) {
        let mut s = self.crew.state.lock();
        while s.threads > 0 {
            self.crew.ended.wait(&mut s);
        }
    }

    fn run(self: Arc<Self>, channel: OwnedFd) {
        if let Ok(mut w) = Worker::new(self.volume.ring.clone()) {
            self.read_requests(&channel, &mut w);
        }
        let mut s = self.crew.state.lock();
        s.threads -= 1;
        s.ended = true;
        self.crew.called.notify_all();
        self.crew.ended.notify_all();
    }

    fn read_requests(self: &Arc<Self>, channel: &OwnedFd, w: &mut Worker) {
        let mut own = vec![0u8; IO_BYTES_MAX + WRITE_HEAD];
        loop {
            // Data of a write goes straight into the ring if there is room.
            let place = w.writer.peek();
            let n = match place {
                Some(record) => {
                    // SAFETY: the slot has room for the longest record, of which the request's head
                    // takes the place of the last bytes in front of the payload.
                    let buf = unsafe {
                        let at = record.add(WRITE_PAYLOAD_AT - WRITE_HEAD);
                        std::slice::from_raw_parts_mut(at, IO_BYTES_MAX + WRITE_HEAD)
                    };
                    let n = read_request(channel.as_raw_fd(), buf);
                    if let Ok(n) = n {
                        let is_write = n >= WRITE_HEAD && buf[4..8] == abi::WRITE.to_ne_bytes();
                        let copied = if is_write { WRITE_HEAD } else { n };
                        own[..copied].copy_from_slice(&buf[..copied]);
                        if is_write {
                            let data = &buf[WRITE_HEAD..n];
                            self.answer(channel, w, &own[..WRITE_HEAD], Some(data));
                            continue;
                        }
                    }
                    n
                }
                None => read_request(channel.as_raw_fd(), &mut own),
            };
            match n {
                Ok(n) => self.answer(channel, w, &own[..n], None),
                Err(Errno(libc::EINTR | libc::EAGAIN | libc::ENOENT)) => {}
                Err(_) => return,
            }
        }
    }

    fn answer(
        self: &Arc<Self>,
        channel: &OwnedFd,
        w: &mut Worker,
        msg: &[u8],
        data: Option<&[u8]>,
    ) {
        let Ok(header) = read_pod::<InHeader>(msg) else {
            return;
        };
        let rest = &msg[40..];
        let fixed_len = abi::fixed_len(header.opcode).min(rest.len());
        let (fixed, rest) = rest.split_at(fixed_len);
        let request =
            Request { header, fixed, rest: data.unwrap_or(rest), in_place: data.is_some() };
        let waits = self.may_wait(&request);
        if waits {
            self.stand_aside();
        }
        w.may_wait = waits;
        let result = self.volume.serve(w, &request);
        let sent = match result {
            Ok(Reply::None) => Ok(()),
            Ok(Reply::Done) => send(channel.as_raw_fd(), header.unique, 0, w.out.bytes()),
            Err(Errno(e)) => send(channel.as_raw_fd(), header.unique, e, &[]),
        };
        if let Err(Errno(e)) = sent {
            // The kernel refused the reply: tell the caller rather than let it wait for ever.
            let _ = send(channel.as_raw_fd(), header.unique, e, &[]);
        }
        if waits {
            self.step_back_in();
        }
    }

    /// Requests that wait for a disk or for somebody else.
    fn may_wait(&self, r: &Request) -> bool {
        if self.volume.waits_for_replicas(r) {
            return true;
        }
        match r.header.opcode {
            abi::FSYNC | abi::FSYNCDIR | abi::SYNCFS | abi::COPY_FILE_RANGE | abi::READ => true,
            abi::WRITE => {
                let sync = read_pod::<abi::WriteIn>(r.fixed)
                    .is_ok_and(|a| a.flags as i32 & libc::O_DSYNC != 0);
                sync || !r.in_place || self.volume.gate.is_closed()
            }
            _ => self.volume.gate.is_closed(),
        }
    }

    /// This thread stops reading for a while; if it was the last one, another takes over.
    fn stand_aside(self: &Arc<Self>) {
        let spawn = {
            let mut s = self.crew.state.lock();
            s.reading -= 1;
            if s.reading > 0 || s.ended {
                false
            } else if s.parked > s.called {
                s.called += 1;
                s.reading += 1;
                self.crew.called.notify_one();
                false
            } else {
                s.threads < THREADS_MAX
            }
        };
        if spawn {
            // Out of threads or descriptors: requests wait until one of the threads is back.
            let _ = self.spawn();
        }
    }

    /// Reads again, or rests until it is called.
    fn step_back_in(&self) {
        let mut s = self.crew.state.lock();
        if s.reading < self.crew.wanted || s.ended {
            s.reading += 1;
            return;
        }
        s.parked += 1;
        while s.called == 0 && !s.ended {
            self.crew.called.wait(&mut s);
        }
        s.parked -= 1;
        match s.called {
            0 => s.reading += 1,
            _ => s.called -= 1, // whoever called counted this thread in
        }
    }
}
