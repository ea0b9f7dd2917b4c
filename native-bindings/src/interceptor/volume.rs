//! What the dummy functions of one volume share, and what one request thread carries along.

use super::attr::{stat_fd, Stat};
use super::creds::Creds;
use super::errno::{Errno, Res};
use super::handle::FileHandle;
use super::table::{Access, Inode, Table};
use crate::capture::acks::point;
use crate::capture::{Acks, Gate, Reserved, Ring, SlotWriter, StoredHandle};
use crate::codes::CodeStore;
use crate::history::log::Author;
use crate::history::past::Past;
use crate::history::History;
use crate::record::{Encoder, Header, Oid, Op, Time, BIND_INTERVAL_BYTES, RECORD_HEADER};
use crate::transport::abi::{EntryOut, InHeader, OPCODES};
use crate::transport::reply::Output;
use parking_lot::Mutex;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Seconds for which the kernel may keep names and attributes when nobody else changes the tree.
pub const FOREVER_S: u64 = 1 << 31;
/// The same when others may change the backing directory.
const SHARED_S: u64 = 1;
/// Descriptors a process keeps free for everything else.
const DESCRIPTORS_SPARE: usize = 1024;
/// Directory streams kept between two READDIR requests.
pub(super) const STREAMS_MAX: usize = 64;
/// Scheduling priority of request threads (nice value).
const REQUEST_NICE: i32 = -15;
/// How long a command name of a process is believed.
const COMM_TTL_NS: u64 = 1_000_000_000;

/// How a volume behaves.
#[derive(Clone, Debug)]
pub struct VolumeOptions {
    /// Nobody changes the backing directory behind the mount.
    pub exclusive: bool,
    /// The kernel collects writes (opt-in).
    pub writeback: bool,
    /// How long a writer waits for ring space before ENOSPC.
    pub ring_wait: Duration,
}

/// Counters of one volume.
pub struct Counters {
    pub ops: [AtomicU64; OPCODES],
    pub mutations: AtomicU64,
    pub failures: AtomicU64,
    pub panics: AtomicU32,
    /// Effects of which not all could be captured: a re-capture has to find them.
    pub uncaptured: AtomicU32,
    pub last_fsync_ns: AtomicU64,
}

/// An open directory between two requests: directory, where its position is, descriptor.
pub(super) type Stream = (Oid, u64, OwnedFd);

/// A protected tree.
pub struct Volume {
    _tree: OwnedFd,
    root_fd: File,
    pub root: Arc<Inode>,
    /// Device of the backing file system: what is on another is not part of the volume.
    pub dev: (u32, u32),
    pub table: Table,
    pub ring: Arc<Ring>,
    pub gate: Gate,
    pub acks: Acks,
    /// The connection, for telling the kernel to forget; while the volume is mounted.
    pub notifier: Mutex<Option<OwnedFd>>,
    pub options: VolumeOptions,
    /// Binding records older than this generation must be repeated.
    bind_generation: AtomicU32,
    bind_mark: AtomicU64,
    pub counters: Counters,
    pub(super) streams: Mutex<Vec<Stream>>,
    pub scan: crate::scan::ScanState,
    /// Codes of what the files hold, once somebody asks for them.
    pub codes: OnceLock<Arc<CodeStore>>,
    /// What things were before they changed, if that is kept.
    pub history: OnceLock<Arc<History>>,
    /// Removals that went through the mount, when others can remove as well.
    pub absent: crate::scan::Absent,
}

/// One thread's part: its slots, identity and buffers.
pub struct Worker {
    pub writer: SlotWriter,
    pub creds: Creds,
    pub out: Output,
    /// What the request's change found there.
    pub past: Past,
    /// Another thread takes this one's place meanwhile: it may wait for as long as a group is held.
    pub may_wait: bool,
    comm: CommCache,
}

impl Worker {
    /// For the calling thread, which becomes a request thread for good.
    pub fn new(ring: Arc<Ring>) -> Res<Self> {
        // A caller waits for each request: on a busy machine it shall not wait in line twice.
        // SAFETY: plain call on the calling thread; failure costs speed only.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, REQUEST_NICE) };
        Ok(Self {
            writer: SlotWriter::new(ring),
            creds: Creds::for_this_thread()?,
            out: Output::with_capacity(4096),
            past: Past::default(),
            may_wait: false,
            comm: CommCache::default(),
        })
    }

    /// The fixed part of a record about `oid`, caused by the request.
    pub fn header(&mut self, r: &InHeader, op: Op, oid: Oid) -> Header {
        let comm = self.comm.of(r.pid);
        self.past.author = Author { uid: r.uid, gid: r.gid, pid: r.pid, op: op as u8, comm };
        Header {
            seq: 0,
            clock: 0,
            op,
            flags: 0,
            uid: r.uid,
            gid: r.gid,
            pid: r.pid,
            comm,
            oid,
            time: Time::UNKNOWN,
            mode: 0,
        }
    }
}

/// Command names of callers, so that not every request reads /proc.
struct CommCache {
    entries: Box<[(u32, u64, [u8; 16]); 64]>,
}

impl Default for CommCache {
    fn default() -> Self {
        Self { entries: Box::new([(0, 0, [0; 16]); 64]) }
    }
}

fn coarse_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: ts is a valid out-pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

impl CommCache {
    fn of(&mut self, pid: u32) -> [u8; 16] {
        if pid == 0 {
            return [0; 16];
        }
        let now = coarse_ns();
        let entry = &mut self.entries[pid as usize % 64];
        if entry.0 != pid || now > entry.1 {
            let mut comm = [0; 16];
            if let Ok(text) = std::fs::read(format!("/proc/{pid}/comm")) {
                let n = text.len().saturating_sub(1).min(15);
                comm[..n].copy_from_slice(&text[..n]);
            }
            *entry = (pid, now + COMM_TTL_NS, comm);
        }
        entry.2
    }
}

fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid pointers; raising the soft limit to the hard one is always allowed.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    (limit.rlim_max as usize / 2).saturating_sub(DESCRIPTORS_SPARE).clamp(64, 8192)
}

impl Volume {
    /// Opens the backing directory below `tree` (a detached copy of its mount).
    pub fn open(
        tree: OwnedFd,
        root_fd: File,
        ring: Arc<Ring>,
        options: VolumeOptions,
    ) -> Res<Self> {
        let st = stat_fd(root_fd.as_raw_fd())?;
        let handle = FileHandle::of(root_fd.as_raw_fd(), c"")?;
        // Handles must not only exist but open.
        handle.open(root_fd.as_raw_fd(), libc::O_PATH)?;
        let table = Table::new(root_fd.as_raw_fd(), descriptor_limit());
        let root = table.enter(handle.oid(st.stx_ino), handle, libc::S_IFDIR, 1);
        Ok(Self {
            _tree: tree,
            root_fd,
            root,
            dev: (st.stx_dev_major, st.stx_dev_minor),
            table,
            ring,
            gate: Gate::default(),
            acks: Acks::default(),
            notifier: Mutex::default(),
            absent: crate::scan::Absent::new(!options.exclusive),
            options,
            bind_generation: AtomicU32::new(1),
            bind_mark: AtomicU64::new(0),
            counters: Counters {
                ops: [const { AtomicU64::new(0) }; OPCODES],
                mutations: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                panics: AtomicU32::new(0),
                uncaptured: AtomicU32::new(0),
                last_fsync_ns: AtomicU64::new(0),
            },
            streams: Mutex::default(),
            scan: crate::scan::ScanState::default(),
            codes: OnceLock::new(),
            history: OnceLock::new(),
        })
    }

    /// `[from, to)` of the file is about to change. Under its effect lock, before the change.
    pub fn before_change(&self, inode: &Inode, from: u64, to: u64) {
        if let Some(codes) = self.codes.get() {
            codes.invalidate(inode.oid, from, to);
        }
    }

    /// The root of the backing directory, for a reader of its own.
    pub fn root_file(&self) -> std::io::Result<File> {
        self.root_fd.try_clone()
    }

    /// A descriptor on the backing mount.
    pub fn mount_fd(&self) -> RawFd {
        self.root_fd.as_raw_fd()
    }

    /// The inode of a node id; 1 is the root.
    pub fn inode(&self, nodeid: u64) -> Arc<Inode> {
        if nodeid == crate::transport::abi::ROOT_ID {
            self.root.clone()
        } else {
            self.table.get(nodeid)
        }
    }

    /// What the kernel calls an object.
    pub fn nodeid(&self, inode: &Arc<Inode>) -> u64 {
        if Arc::ptr_eq(inode, &self.root) {
            crate::transport::abi::ROOT_ID
        } else {
            inode.nodeid()
        }
    }

    /// A directory's descriptor, for operations on names in it.
    pub fn dir_fd(&self, inode: &Arc<Inode>) -> Res<Arc<OwnedFd>> {
        self.table.descriptor(inode, Access::Read)
    }

    /// Attributes of an object.
    pub fn stat(&self, inode: &Arc<Inode>) -> Res<Stat> {
        if inode.has_descriptor() {
            return stat_fd(self.table.descriptor(inode, Access::Path)?.as_raw_fd());
        }
        // Not worth a cached descriptor.
        let fd = inode.handle.open(self.mount_fd(), libc::O_PATH | libc::O_NOFOLLOW)?;
        stat_fd(fd.as_raw_fd())
    }

    /// How long the kernel may keep what it learns, seconds.
    pub fn valid_s(&self) -> u64 {
        if self.options.exclusive {
            FOREVER_S
        } else {
            SHARED_S
        }
    }

    /// The answer that tells the kernel of an object.
    pub fn entry(&self, inode: &Arc<Inode>, st: &Stat) -> EntryOut {
        EntryOut {
            nodeid: self.nodeid(inode),
            generation: inode.oid.gen,
            entry_valid: self.valid_s(),
            attr_valid: self.valid_s(),
            entry_valid_nsec: 0,
            attr_valid_nsec: 0,
            attr: super::attr::to_attr(st),
        }
    }

    /// Reserves a slot and makes it an intent: from here on the operation may leave a record.
    ///
    /// `objects` are those that the record names: they are bound before, so that recovery of the intent
    /// and a reader of the record know them. Errors: ENOSPC when the ring is full.
    pub fn reserve(
        &self,
        w: &mut Worker,
        record_max: usize,
        objects: [Option<&Arc<Inode>>; 2],
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Res<Reserved> {
        let handles = objects.map(|o| o.map_or(StoredHandle::default(), |i| i.handle.stored()));
        let slot = w
            .writer
            .reserve(record_max, handles, self.options.ring_wait, fill)
            .ok_or(Errno(libc::ENOSPC))?;
        for inode in objects.into_iter().flatten() {
            self.bind(w, inode);
        }
        w.writer.arm(&slot);
        Ok(slot)
    }

    /// Gives the effect its record. Call under the effect locks.
    pub fn publish(
        &self,
        w: &mut Worker,
        slot: Reserved,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> u64 {
        self.counters.mutations.fetch_add(1, Ordering::Relaxed);
        let (past, history) = (&mut w.past, self.history.get());
        w.writer.publish_as(slot, fill, |seq| past.stamp(seq, history.map(|h| &**h)))
    }

    /// The current generation of bindings.
    pub fn bind_generation(&self) -> u32 {
        let captured = self.ring.captured_bytes();
        let mark = self.bind_mark.load(Ordering::Relaxed);
        if captured >= mark + BIND_INTERVAL_BYTES
            && self
                .bind_mark
                .compare_exchange(mark, captured, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        {
            self.rebind_all();
        }
        self.bind_generation.load(Ordering::Acquire)
    }

    /// Something happened and its record found no room: the control plane sees to a re-capture.
    pub fn note_uncaptured(&self) {
        self.counters.uncaptured.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on every object is bound anew before its next record.
    pub fn rebind_all(&self) {
        self.bind_generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Says in the journal by what name the object is found, unless that was said already.
    ///
    /// The binding lock is held over the record's seq, and renames hold it over theirs: so the name is
    /// right at that place of the order.
    pub fn bind(&self, w: &mut Worker, inode: &Arc<Inode>) {
        let generation = self.bind_generation();
        loop {
            if inode.bound.load(Ordering::Acquire) == generation {
                return;
            }
            let parent = inode.binding.lock().parent.clone();
            if let Some(p) = &parent {
                self.bind(w, p);
            }
            let binding = inode.binding.lock();
            let same = match (&parent, &binding.parent) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            if !same {
                continue;
            }
            let is_root = Arc::ptr_eq(inode, &self.root);
            if parent.is_some() || is_root {
                let parent_oid = parent.map_or(Oid::NONE, |p| p.oid);
                let header = own_header(Op::Bind, inode.oid);
                let wait = self.options.ring_wait;
                let len = RECORD_HEADER + 18 + binding.name.len() + 8;
                w.writer.append(len, wait, |buf| {
                    let mut e = Encoder::new(buf, &header);
                    e.oid(parent_oid).name(&binding.name);
                    e.finish()
                });
            }
            inode.bound.store(generation, Ordering::Release);
            return;
        }
    }

    /// The record that is being published says where the object is: no BIND is needed.
    pub fn set_bound(&self, inode: &Inode) {
        inode.bound.store(self.bind_generation.load(Ordering::Acquire), Ordering::Release);
    }

    /// Becomes the caller for a change of a file's data; `kill`: it lacks CAP_FSETID.
    pub fn become_writer(&self, w: &mut Worker, r: &InHeader, fd: RawFd, kill: bool) -> Res<()> {
        let gid = if kill {
            let st = stat_fd(fd)?;
            super::creds::writer_gid(r, u32::from(st.stx_mode), st.stx_gid)
        } else {
            r.gid
        };
        w.creds.assume(r.uid, gid, kill);
        Ok(())
    }

    /// Remembers the change time that an effect of ours left, to tell changes of others; and up to
    /// where replicas have to be before a close of the object returns.
    pub fn saw(&self, inode: &Inode, st: &Stat) {
        if self.acks.points() & point::CLOSE != 0 {
            inode.changed.fetch_max(self.ring.captured_seq(), Ordering::AcqRel);
        }
        if !self.options.exclusive {
            inode.ctime_seen.store(super::attr::ctime_ns(st), Ordering::Relaxed);
        }
    }
}

/// A header of a record that no caller caused.
pub fn own_header(op: Op, oid: Oid) -> Header {
    Header {
        seq: 0,
        clock: 0,
        op,
        flags: 0,
        uid: 0,
        gid: 0,
        pid: 0,
        comm: [0; 16],
        oid,
        time: Time::UNKNOWN,
        mode: 0,
    }
}
