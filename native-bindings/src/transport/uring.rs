//! Requests by way of FUSE over io_uring (Linux 6.14).
//!
//! The kernel keeps a queue per CPU and hands a request to the queue of the caller's CPU; one thread
//! per queue, bound to that CPU, answers it there. That spares the wake-up of another CPU, which is
//! what most of a /dev/fuse round trip costs (docs/decisions/0001-transport.md).
//!
//! A queue's thread never waits for a disk or for somebody else: such requests go to a pool of waiting
//! threads, and come back to the queue's thread, by way of an eventfd, to be committed. FORGET and
//! INTERRUPT still come over /dev/fuse, which `device` reads with one thread.

use super::abi::{self, InHeader, OutHeader, ReadIn, WriteIn};
use super::device::IO_BYTES_MAX;
use super::reply::Reply;
use super::request::{pod_bytes, read_pod, Request};
use crate::interceptor::errno::{check, Errno, Res};
use crate::interceptor::{Volume, Worker};
use io_uring::{cqueue, opcode, squeue, types, IoUring};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Requests of one queue that can be under way, those that wait for a disk included.
const DEPTH: usize = 16;
/// Threads that wait for disks, at the least: as many as requests can be under way, so that those which wait
/// for long keep no other from its turn.
const WAITERS_MAX: usize = 64;
/// user_data of the eventfd's poll.
const EVENT: u64 = u64::MAX;

const CMD_REGISTER: u32 = 1;
const CMD_COMMIT_AND_FETCH: u32 = 2;
const IN_OUT: usize = 128;
const OP_IN: usize = 128;
/// in_out, op_in, then flags, commit_id, payload_sz, padding, reserved.
const HEADER: usize = IN_OUT + OP_IN + 32;
const COMMIT_ID_AT: usize = IN_OUT + OP_IN + 8;
const PAYLOAD_SZ_AT: usize = IN_OUT + OP_IN + 16;

/// Lets the kernel offer FUSE over io_uring; it is off by default. False when it cannot.
pub fn enable() -> bool {
    const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";
    match std::fs::read(SWITCH) {
        Ok(v) if v.first() == Some(&b'Y') => true,
        Ok(_) => std::fs::write(SWITCH, "Y").is_ok(),
        Err(_) => false,
    }
}

/// Memory that the kernel and we exchange one request through.
struct Entry {
    header: *mut u8,
    payload: *mut u8,
    iov: Box<[libc::iovec; 2]>,
}

// SAFETY: plain memory of the queue; at any time either the kernel, the queue's thread or one waiting
// thread uses an entry.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    fn header(&self) -> &[u8] {
        // SAFETY: see the type; the memory lives as long as the queue.
        unsafe { std::slice::from_raw_parts(self.header, HEADER) }
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        debug_assert!(at + bytes.len() <= HEADER);
        // SAFETY: within the header's memory, which nobody else uses while the request is answered.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.header.add(at), bytes.len()) };
    }

    fn number(&self, at: usize) -> u64 {
        let mut v = [0; 8];
        v.copy_from_slice(&self.header()[at..at + 8]);
        u64::from_ne_bytes(v)
    }

    fn request(&self) -> Res<Request<'_>> {
        let header = self.header();
        let h: InHeader = read_pod(header)?;
        let fixed = abi::fixed_len(h.opcode).min(OP_IN);
        let len = (self.number(PAYLOAD_SZ_AT) as u32 as usize).min(IO_BYTES_MAX);
        // SAFETY: the payload is IO_BYTES_MAX long.
        let rest = unsafe { std::slice::from_raw_parts(self.payload, len) };
        Ok(Request { header: h, fixed: &header[IN_OUT..IN_OUT + fixed], rest, in_place: false })
    }

    /// Puts the answer where the kernel takes it from.
    fn answer(&self, unique: u64, result: Res<Reply>, w: &mut Worker, in_payload: Option<usize>) {
        let (error, len) = match (result, in_payload) {
            (Err(Errno(e)), _) => (-e, 0),
            (Ok(_), Some(len)) => (0, len),
            (Ok(_), None) => {
                let bytes = w.out.bytes();
                let len = bytes.len().min(IO_BYTES_MAX);
                // SAFETY: the payload is IO_BYTES_MAX long and the request in it was answered.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.payload, len) };
                (0, len)
            }
        };
        let out = OutHeader { len: (16 + len) as u32, error, unique };
        self.put(0, pod_bytes(&out));
        self.put(PAYLOAD_SZ_AT, &(len as u32).to_ne_bytes());
    }
}

/// What the thread of a queue shares with waiting threads.
struct Queue {
    entries: Vec<Entry>,
    /// Entries answered by waiting threads, to be committed by the queue's thread.
    done: Mutex<Vec<usize>>,
    event: OwnedFd,
    memory: (*mut u8, usize),
}

// SAFETY: see `Entry`; the mapping is only unmapped when the queue is dropped.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`.
        unsafe { libc::munmap(self.memory.0.cast(), self.memory.1) };
    }
}

impl Queue {
    fn new() -> Res<Self> {
        let each = IO_BYTES_MAX + 4096;
        let len = each * DEPTH;
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let base: *mut u8 = base.cast();
        // SAFETY: plain call; the result is checked.
        let event = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        let entries = (0..DEPTH)
            .map(|i| {
                // SAFETY: within the mapping.
                let (header, payload) = unsafe { (base.add(i * each), base.add(i * each + 4096)) };
                let iov = Box::new([
                    libc::iovec { iov_base: header.cast(), iov_len: HEADER },
                    libc::iovec { iov_base: payload.cast(), iov_len: IO_BYTES_MAX },
                ]);
                Entry { header, payload, iov }
            })
            .collect();
        // SAFETY: a fresh descriptor that nobody else owns.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        Ok(Self { entries, done: Mutex::default(), event, memory: (base, len) })
    }

    fn finish(&self, entry: usize) {
        self.done.lock().push(entry);
        let one: u64 = 1;
        // SAFETY: an eventfd takes 8 bytes.
        unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

type Job = (Arc<Queue>, usize);

/// Threads for requests that wait.
struct Pool {
    state: Mutex<PoolState>,
    wake: Condvar,
}

#[derive(Default)]
struct PoolState {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    ended: bool,
}

/// The queues of one connection.
pub struct Uring {
    volume: Arc<Volume>,
    device: RawFd,
    pool: Pool,
    waiters_max: usize,
    running: Mutex<usize>,
    ended: Condvar,
}

type Ring = IoUring<squeue::Entry128, cqueue::Entry>;

/// A ring of which only the calling thread submits; it runs completions when it waits for them.
fn new_ring() -> Res<Ring> {
    let build = |single: bool| {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(DEPTH as u32 * 4);
        if single {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        builder.build(DEPTH as u32 * 2)
    };
    build(true).or_else(|_| build(false)).map_err(Errno::from)
}

fn possible_cpus() -> usize {
    // "0-1" or "0-3,8-11": the last number says how many queues the kernel makes.
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<usize>().ok());
    last.map_or(1, |n| n + 1)
}

fn bind_to_cpu(cpu: usize) {
    // SAFETY: a zeroed set is valid; a CPU that is offline is refused, then the thread runs anywhere.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set);
    }
}

fn command(queue: &Queue, device: RawFd, qid: usize, entry: usize, op: u32) -> squeue::Entry128 {
    let e = &queue.entries[entry];
    let mut cmd = [0u8; 80];
    if op == CMD_COMMIT_AND_FETCH {
        cmd[8..16].copy_from_slice(&e.number(COMMIT_ID_AT).to_ne_bytes());
    }
    cmd[16..18].copy_from_slice(&(qid as u16).to_ne_bytes());
    let sqe = opcode::UringCmd80::new(types::Fd(device), op).cmd(cmd).build();
    let mut sqe = sqe.user_data(entry as u64);
    if op == CMD_REGISTER {
        set_address(&mut sqe, e.iov.as_ptr() as u64, 2);
    }
    sqe
}

/// REGISTER passes its buffers in `addr` and `len`, which the crate's builder does not offer.
fn set_address(sqe: &mut squeue::Entry128, addr: u64, len: u32) {
    let p: *mut u8 = (sqe as *mut squeue::Entry128).cast();
    // SAFETY: struct io_uring_sqe has addr at 16 and len at 24 (include/uapi/linux/io_uring.h); the
    // entry is 128 bytes of plain data.
    unsafe {
        std::ptr::write_unaligned(p.add(16).cast::<u64>(), addr);
        std::ptr::write_unaligned(p.add(24).cast::<u32>(), len);
    }
}

impl Uring {
    /// Starts the queues; they end when the file system is unmounted. `device` stays open meanwhile.
    pub fn start(volume: Arc<Volume>, device: RawFd) -> Res<Arc<Self>> {
        let cpus = possible_cpus();
        let uring = Arc::new(Self {
            volume,
            device,
            pool: Pool { state: Mutex::default(), wake: Condvar::new() },
            waiters_max: WAITERS_MAX.max(cpus * DEPTH),
            running: Mutex::new(0),
            ended: Condvar::new(),
        });
        for cpu in 0..cpus {
            let (uring, queue) = (uring.clone(), Arc::new(Queue::new()?));
            *uring.running.lock() += 1;
            let run = move || {
                bind_to_cpu(cpu);
                let ready =
                    Worker::new(uring.volume.ring.clone()).and_then(|w| Ok((w, new_ring()?)));
                if let Ok((mut w, ring)) = ready {
                    let _ = uring.serve(ring, &queue, cpu, &mut w);
                }
                *uring.running.lock() -= 1;
                uring.ended.notify_all();
            };
            std::thread::Builder::new()
                .name(format!("holdfast-cpu{cpu}"))
                .spawn(run)
                .map_err(Errno::from)?;
        }
        Ok(uring)
    }

    /// Waits until all threads have ended.
    pub fn join(&self) {
        {
            let mut running = self.running.lock();
            while *running > 0 {
                self.ended.wait(&mut running);
            }
        }
        let mut s = self.pool.state.lock();
        s.ended = true;
        self.pool.wake.notify_all();
        while s.threads > 0 {
            self.pool.wake.wait(&mut s);
        }
    }

    fn serve(
        self: &Arc<Self>,
        mut ring: Ring,
        queue: &Arc<Queue>,
        qid: usize,
        w: &mut Worker,
    ) -> Res<()> {
        let event = types::Fd(queue.event.as_raw_fd());
        let watch = || -> squeue::Entry128 {
            opcode::PollAdd::new(event, libc::POLLIN as u32).build().user_data(EVENT).into()
        };
        let mut out: Vec<squeue::Entry128> = (0..DEPTH)
            .map(|i| command(queue, self.device, qid, i, CMD_REGISTER))
            .chain([watch()])
            .collect();
        let mut done: Vec<(u64, i32)> = Vec::with_capacity(DEPTH * 4);
        loop {
            for sqe in out.drain(..) {
                // SAFETY: all memory that the entries name lives as long as the queue.
                while unsafe { ring.submission().push(&sqe) }.is_err() {
                    ring.submit().map_err(Errno::from)?;
                }
            }
            match ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
                Err(e) => return Err(e.into()),
            }
            done.extend(ring.completion().map(|c| (c.user_data(), c.result())));
            for (data, result) in done.drain(..) {
                if data == EVENT {
                    let mut n = [0u8; 8];
                    // SAFETY: an eventfd gives 8 bytes.
                    unsafe { libc::read(queue.event.as_raw_fd(), n.as_mut_ptr().cast(), 8) };
                    let finished = std::mem::take(&mut *queue.done.lock());
                    let commit = |i| command(queue, self.device, qid, i, CMD_COMMIT_AND_FETCH);
                    out.extend(finished.into_iter().map(commit));
                    out.push(watch());
                } else if result < 0 {
                    return Ok(()); // unmounted
                } else if self.handle(queue, data as usize, w) {
                    out.push(command(queue, self.device, qid, data as usize, CMD_COMMIT_AND_FETCH));
                }
            }
        }
    }

    /// Answers a request, or gives it to a waiting thread (then false).
    fn handle(self: &Arc<Self>, queue: &Arc<Queue>, index: usize, w: &mut Worker) -> bool {
        let entry = &queue.entries[index];
        let Ok(request) = entry.request() else {
            return true;
        };
        if request.header.opcode == abi::READ {
            // SAFETY: a READ has no payload of its own, so the entry's is free for the answer.
            unsafe { w.out.lend(entry.payload, IO_BYTES_MAX) };
            let cached = self.volume.read_cached(&request, &mut w.out);
            let len = w.out.take_back();
            if cached.is_some() {
                self.volume.count(abi::READ);
                entry.answer(request.header.unique, Ok(Reply::Done), w, Some(len));
                return true;
            }
        }
        if matches!(request.header.opcode, abi::FSYNC | abi::FSYNCDIR) {
            // The drain wakes up while the request finds its thread.
            self.volume.ring.want_flush(self.volume.ring.captured_seq());
        }
        if self.may_wait(&request) && self.hand_over(queue, index) {
            return false;
        }
        self.answer(entry, &request, w);
        true
    }

    fn answer(&self, entry: &Entry, request: &Request, w: &mut Worker) {
        let reads = matches!(request.header.opcode, abi::READ | abi::READDIR | abi::READDIRPLUS);
        if reads && read_pod::<ReadIn>(request.fixed).is_ok_and(|a| a.size as usize <= IO_BYTES_MAX)
        {
            // SAFETY: these requests have no payload of their own.
            unsafe { w.out.lend(entry.payload, IO_BYTES_MAX) };
            let result = self.volume.serve(w, request);
            let len = w.out.take_back();
            entry.answer(request.header.unique, result, w, Some(len));
        } else {
            let result = self.volume.serve(w, request);
            entry.answer(request.header.unique, result, w, None);
        }
    }

    /// Requests that wait for a disk or for somebody else.
    fn may_wait(&self, r: &Request) -> bool {
        if self.volume.waits_for_replicas(r) {
            return true;
        }
        match r.header.opcode {
            abi::FSYNC | abi::FSYNCDIR | abi::SYNCFS | abi::COPY_FILE_RANGE | abi::READ => true,
            abi::LOOKUP | abi::GETATTR | abi::STATX | abi::READDIR | abi::READDIRPLUS => false,
            abi::WRITE => {
                read_pod::<WriteIn>(r.fixed).is_ok_and(|a| a.flags as i32 & libc::O_DSYNC != 0)
                    || self.volume.gate.is_closed()
                    || self.volume.ring.is_full()
            }
            _ => self.volume.gate.is_closed() || self.volume.ring.is_full(),
        }
    }

    fn hand_over(self: &Arc<Self>, queue: &Arc<Queue>, index: usize) -> bool {
        let mut s = self.pool.state.lock();
        if s.jobs.len() >= s.idle {
            let most = self.waiters_max;
            if s.threads >= most && s.idle == 0 && s.jobs.len() > most * DEPTH {
                return false;
            }
            if s.threads < most {
                let uring = self.clone();
                let spawned = std::thread::Builder::new()
                    .name("holdfast-wait".into())
                    .spawn(move || uring.wait_for_jobs());
                match spawned {
                    Ok(_) => s.threads += 1,
                    Err(_) if s.threads == 0 => return false,
                    Err(_) => {}
                }
            }
        }
        s.jobs.push_back((queue.clone(), index));
        self.pool.wake.notify_one();
        true
    }

    fn wait_for_jobs(&self) {
        // A thread starts with the affinity of the one that made it.
        // SAFETY: a set of all ones is valid: all CPUs there are.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            (0..libc::CPU_SETSIZE as usize).for_each(|cpu| libc::CPU_SET(cpu, &mut set));
            libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set);
        }
        let worker = Worker::new(self.volume.ring.clone());
        let mut s = self.pool.state.lock();
        let Ok(mut w) = worker else {
            s.threads -= 1;
            return;
        };
        w.may_wait = true;
        loop {
            if let Some((queue, index)) = s.jobs.pop_front() {
                drop(s);
                let entry = &queue.entries[index];
                if let Ok(request) = entry.request() {
                    self.answer(entry, &request, &mut w);
                }
                queue.finish(index);
                s = self.pool.state.lock();
            } else if s.ended {
                break;
            } else {
                s.idle += 1;
                self.pool.wake.wait(&mut s);
                s.idle -= 1;
            }
        }
        s.threads -= 1;
        drop(s);
        self.pool.wake.notify_all();
    }
}
