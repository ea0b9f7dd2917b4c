//! The capture ring: shared memory that outlives the process.
//!
//! The ring is a file on tmpfs, fully allocated, mapped shared. It is divided into chunks; each
//! capturing thread fills a chunk of its own front to back with *slots* (no lock, no contention)
//! and takes a free one when it is full. Between two requests a thread lets its chunk rest, where one
//! that finds none free takes it over: a few chunks serve any number of threads. A slot carries its seq; the index, in private memory,
//! tells where the slot of a seq is. So threads never wait for each other, and the drain still
//! sees one total order.
//!
//! Invariant: a slot that is PUBLISHED holds a complete record whose effect happened; a slot that
//! is INTENT may have happened. A chunk is reused only when all its records are journaled.

use super::limits::{CHUNK_BYTES, FRAME_POOL_BYTES, RESTING_POLL, RING_BYTES_MIN};
use super::writer::Resting;
use crate::record::{FRAME_HEADER, RECORD_BYTES_MAX};
use parking_lot::{Condvar, Mutex};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::io::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub(super) const CONTROL_BYTES: usize = 4096;
/// Bytes of a chunk before its first slot.
pub(super) const CHUNK_HEADER: usize = 64;
/// Slot header; behind it space for a frame header, then the record.
pub(super) const SLOT_HEADER: usize = 112;
pub(super) const RECORD_AT: usize = SLOT_HEADER + FRAME_HEADER;
/// Longest slot; a chunk must have this much room before a request is read into it.
pub const SLOT_BYTES_MAX: usize = RECORD_AT + RECORD_BYTES_MAX;

const MAGIC: [u8; 4] = *b"HFRG";
const VERSION: u32 = 1;

pub(super) const EMPTY: u32 = 0;
pub(super) const INTENT: u32 = 1;
pub(super) const PUBLISHED: u32 = 2;
pub(super) const VOID: u32 = 3;
/// Prepared, its operation has not begun.
pub(super) const RESERVED: u32 = 4;

/// Index entry of a seq that was handed out but never published (the process died in between).
pub(super) const HOLE: u64 = u64::MAX;

#[repr(C)]
pub(super) struct Control {
    magic: [u8; 4],
    version: u32,
    uuid: [u8; 16],
    ring_bytes: u64,
    chunk_bytes: u64,
    pub(super) next_seq: AtomicU64,
    pub(super) clean: AtomicU32,
    boot_id: [u8; 36],
}

#[repr(C)]
pub(super) struct SlotHeader {
    pub(super) state: AtomicU32,
    /// Length of the whole slot, a multiple of 16.
    pub(super) len: u32,
    pub(super) seq: u64,
    /// Wall clock at publication, ns.
    pub(super) time: u64,
    pub(super) record_len: u32,
    _pad: u32,
    /// File handles of the objects an intent is about.
    pub(super) handles: [super::writer::StoredHandle; 2],
}

const _: () = assert!(std::mem::size_of::<SlotHeader>() == SLOT_HEADER);

/// Whose ring it is.
#[derive(Clone, Copy, Debug)]
pub struct RingIdentity {
    pub uuid: [u8; 16],
}

/// A mapping of the ring file with the frame pool behind it, one contiguous range.
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping is plain memory; access to its parts is ordered by the atomics in it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are those of the mmap made in `map`.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

impl Mapping {
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// State shared by capturing threads, the drain and waiting fsyncs.
pub struct Ring {
    pub(super) map: std::sync::Arc<Mapping>,
    _file: File,
    pub(super) path: PathBuf,
    pub(super) chunks: usize,
    /// Slots of a chunk that are reserved, or published and not journaled yet.
    pub(super) outstanding: Vec<AtomicU32>,
    /// A thread fills this chunk.
    pub(super) in_use: Vec<AtomicBool>,
    free: Mutex<Vec<usize>>,
    freed: Condvar,
    /// Chunks of threads that have no request at the moment.
    resting: Mutex<Vec<Weak<Resting>>>,
    /// Threads that wait for a chunk.
    starving: AtomicU32,
    pub(super) index: Vec<AtomicU64>,
    pub(super) pending_bytes: AtomicU64,
    pub(super) captured_bytes: AtomicU64,
    pub(super) captured_at: AtomicU64,
    pub(super) journaled_bytes: AtomicU64,
    pub(super) journaled_at: AtomicU64,
    pub(super) journaled: AtomicU64,
    /// An fsync wants everything up to this seq to be durable.
    pub(super) flush_wanted: AtomicU64,
    /// Somebody waits for replicas to have everything up to this seq: it is to be journaled at once.
    pub(super) ship_wanted: AtomicU64,
    pub(super) drain: Mutex<super::drain::DrainState>,
    pub(super) signal: Mutex<super::drain::Signal>,
    pub(super) wake_drain: Condvar,
    pub(super) drain_waits: AtomicBool,
    /// The drain is woken when this many bytes are pending.
    pub(super) wake_bytes: AtomicU64,
    pub(super) flushed: Condvar,
    pub waits: AtomicU64,
    pub refusals: AtomicU64,
}

/// What `open` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Created,
    Clean,
    ToRecover,
}

fn boot_id() -> [u8; 36] {
    let mut id = [0; 36];
    if let Ok(text) = std::fs::read("/proc/sys/kernel/random/boot_id") {
        let n = text.len().min(36);
        id[..n].copy_from_slice(&text[..n]);
    }
    id
}

fn map(file: &File, ring_bytes: usize) -> io::Result<Mapping> {
    let len = ring_bytes + FRAME_POOL_BYTES;
    // SAFETY: a fresh anonymous mapping, over whose start the file is mapped below.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mapping = Mapping { base: base.cast(), len };
    // SAFETY: replaces the first ring_bytes of our own mapping.
    let at = unsafe {
        libc::mmap(
            base,
            ring_bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_FIXED,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(mapping)
}

impl Ring {
    /// Opens the ring of a volume, or makes and fully allocates it.
    ///
    /// A ring of another boot is not believed: tmpfs does not survive a boot, so it can only be a
    /// copy. Errors: EINVAL for a ring of another volume or version, ENOSPC when tmpfs is too small.
    pub fn open(path: &Path, bytes: usize, id: &RingIdentity) -> io::Result<(Self, Found)> {
        let bytes = bytes.max(RING_BYTES_MIN) / CHUNK_BYTES * CHUNK_BYTES + CONTROL_BYTES;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)?;
        let have = file.metadata()?.len() as usize;
        let (mapping, found) = if have > CONTROL_BYTES {
            let mapping = map(&file, have)?;
            (mapping, Self::check(have, id))
        } else {
            (map(&file, bytes.max(have))?, Ok(Found::Created))
        };
        // An existing ring keeps its size; its control block decides.
        let ring_bytes = if have > CONTROL_BYTES { have } else { bytes };
        let mut found = found?;
        if found != Found::Created {
            found = Self::read_control(&mapping, ring_bytes, id)?;
        }
        if found == Found::Created {
            file.set_len(ring_bytes as u64)?;
            // SAFETY: plain call on an open file.
            let rc = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, ring_bytes as i64) };
            if rc != 0 {
                let e = io::Error::last_os_error();
                let _ = std::fs::remove_file(path);
                return Err(e);
            }
            let _ = std::fs::remove_file(super::intents::path_beside(path));
            Self::write_control(&mapping, ring_bytes, id);
        }
        let chunks = (ring_bytes - CONTROL_BYTES) / CHUNK_BYTES;
        let index_len = (ring_bytes / 256).next_power_of_two();
        let ring = Self {
            map: std::sync::Arc::new(mapping),
            _file: file,
            path: path.to_owned(),
            chunks,
            outstanding: (0..chunks).map(|_| AtomicU32::new(0)).collect(),
            in_use: (0..chunks).map(|_| AtomicBool::new(false)).collect(),
            free: Mutex::new((0..chunks).rev().collect()),
            freed: Condvar::new(),
            resting: Mutex::default(),
            starving: AtomicU32::new(0),
            index: (0..index_len).map(|_| AtomicU64::new(0)).collect(),
            pending_bytes: AtomicU64::new(0),
            captured_bytes: AtomicU64::new(0),
            captured_at: AtomicU64::new(0),
            journaled_bytes: AtomicU64::new(0),
            journaled_at: AtomicU64::new(0),
            journaled: AtomicU64::new(0),
            flush_wanted: AtomicU64::new(0),
            ship_wanted: AtomicU64::new(0),
            drain: Mutex::new(super::drain::DrainState::default()),
            signal: Mutex::new(super::drain::Signal::default()),
            wake_drain: Condvar::new(),
            drain_waits: AtomicBool::new(false),
            wake_bytes: AtomicU64::new(u64::MAX),
            flushed: Condvar::new(),
            waits: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        };
        Ok((ring, found))
    }

    fn check(have: usize, _id: &RingIdentity) -> io::Result<Found> {
        if (have - CONTROL_BYTES) % CHUNK_BYTES != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "ring file has an odd size"));
        }
        Ok(Found::ToRecover)
    }

    fn read_control(map: &Mapping, bytes: usize, id: &RingIdentity) -> io::Result<Found> {
        // SAFETY: the mapping starts with the control block; it is page aligned.
        let c = unsafe { &*map.base.cast::<Control>() };
        if c.magic == [0; 4] {
            return Ok(Found::Created); // died before the control block was written
        }
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        if c.magic != MAGIC {
            return Err(bad("not a holdfast ring"));
        }
        if c.version != VERSION {
            return Err(bad("ring of an unknown format version"));
        }
        if c.uuid != id.uuid {
            return Err(bad("ring of another volume"));
        }
        if c.ring_bytes != bytes as u64 || c.chunk_bytes != CHUNK_BYTES as u64 {
            return Err(bad("ring with another geometry"));
        }
        if c.boot_id != boot_id() {
            return Ok(Found::Created);
        }
        Ok(if c.clean.load(Ordering::Acquire) == 1 { Found::Clean } else { Found::ToRecover })
    }

    fn write_control(map: &Mapping, bytes: usize, id: &RingIdentity) {
        // SAFETY: exclusive access, nobody else has this mapping yet; chunk starts are in range.
        unsafe {
            for chunk in 0..(bytes - CONTROL_BYTES) / CHUNK_BYTES {
                let at = map.base.add(CONTROL_BYTES + chunk * CHUNK_BYTES);
                std::ptr::write_bytes(at, 0, CHUNK_HEADER + SLOT_HEADER);
            }
            let c = map.base.cast::<Control>();
            (*c).version = VERSION;
            (*c).uuid = id.uuid;
            (*c).ring_bytes = bytes as u64;
            (*c).chunk_bytes = CHUNK_BYTES as u64;
            (*c).next_seq = AtomicU64::new(1);
            (*c).clean = AtomicU32::new(0);
            (*c).boot_id = boot_id();
            (*c).magic = MAGIC;
        }
    }

    pub(super) fn control(&self) -> &Control {
        // SAFETY: the mapping starts with an initialised control block.
        unsafe { &*self.map.base.cast::<Control>() }
    }

    /// The memory of the ring and the frame pool, for the binding to show to JavaScript.
    pub fn mapping(&self) -> std::sync::Arc<Mapping> {
        self.map.clone()
    }

    pub(super) fn chunk_at(&self, chunk: usize) -> *mut u8 {
        debug_assert!(chunk < self.chunks);
        // SAFETY: chunk < chunks, so the result lies in the mapping.
        unsafe { self.map.base.add(CONTROL_BYTES + chunk * CHUNK_BYTES) }
    }

    pub(super) fn frame_pool_at(&self) -> usize {
        CONTROL_BYTES + self.chunks * CHUNK_BYTES
    }

    pub(super) fn offset_of(&self, p: *const u8) -> u64 {
        p as u64 - self.map.base as u64
    }

    pub(super) fn chunk_of(&self, offset: u64) -> usize {
        (offset as usize - CONTROL_BYTES) / CHUNK_BYTES
    }

    /// Takes a free chunk, or `None` when the ring is full. The newest freed one is taken first: its
    /// memory is most likely still in the cache.
    pub(super) fn take_chunk(&self) -> Option<usize> {
        let chunk = self.free.lock().pop()?;
        self.start_chunk(chunk);
        Some(chunk)
    }

    /// A chunk that is free, or that a resting thread has begun, waiting up to `wait` for one; and the
    /// offset of its next slot.
    pub(super) fn wait_chunk(&self, wait: Duration) -> Option<(usize, usize)> {
        if let Some(begun) = self.take_resting() {
            return Some(begun);
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.kick_drain();
        self.starving.fetch_add(1, Ordering::SeqCst);
        let deadline = Instant::now() + wait;
        let mut free = self.free.lock();
        let found = loop {
            if let Some(chunk) = free.pop() {
                drop(free);
                self.start_chunk(chunk);
                break Some((chunk, CHUNK_HEADER));
            }
            if let Some(begun) = self.take_resting() {
                break Some(begun);
            }
            let now = Instant::now();
            if now >= deadline {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                break None;
            }
            // Bounded: a thread that rests looks for who starves without a lock.
            self.freed.wait_until(&mut free, deadline.min(now + RESTING_POLL));
        };
        self.starving.fetch_sub(1, Ordering::SeqCst);
        found
    }

    /// The place where a new writer leaves its chunk between two requests.
    pub(super) fn new_resting(&self) -> Arc<Resting> {
        let place = Arc::default();
        let mut all = self.resting.lock();
        all.retain(|p| p.strong_count() > 0);
        all.push(Arc::downgrade(&place));
        place
    }

    /// Somebody rests: if others wait for a chunk, they may have it.
    pub(super) fn offer_resting(&self) {
        if self.starving.load(Ordering::SeqCst) > 0 {
            let _free = self.free.lock();
            self.freed.notify_one();
        }
    }

    fn take_resting(&self) -> Option<(usize, usize)> {
        let all = self.resting.lock();
        all.iter().find_map(|place| place.upgrade()?.lock().take())
    }

    fn start_chunk(&self, chunk: usize) {
        self.in_use[chunk].store(true, Ordering::Release);
        // SAFETY: the chunk is ours alone now; its first slot header lies in the mapping.
        unsafe {
            let first = self.chunk_at(chunk).add(CHUNK_HEADER).cast::<SlotHeader>();
            (*first).state.store(EMPTY, Ordering::Release);
        }
    }

    /// The thread that filled it is done with a chunk; it is free once it is journaled.
    pub(super) fn leave_chunk(&self, chunk: usize) {
        self.in_use[chunk].store(false, Ordering::SeqCst);
        self.reclaim(chunk);
    }

    /// Frees the chunk when nobody fills it and everything in it is journaled.
    pub(super) fn reclaim(&self, chunk: usize) {
        let mut free = self.free.lock();
        if !self.in_use[chunk].load(Ordering::SeqCst)
            && self.outstanding[chunk].load(Ordering::SeqCst) == 0
            && !free.contains(&chunk)
        {
            // SAFETY: the chunk's first slot header lies in the mapping; nobody uses the chunk.
            unsafe {
                let first = self.chunk_at(chunk).add(CHUNK_HEADER).cast::<SlotHeader>();
                (*first).state.store(EMPTY, Ordering::Release);
            }
            free.push(chunk);
            drop(free);
            self.freed.notify_all();
        }
    }

    pub(super) fn remove_free(&self, chunks: &[bool]) {
        self.free.lock().retain(|c| !chunks[*c]);
    }

    /// No chunk is to be had: a capture may have to wait.
    pub fn is_full(&self) -> bool {
        let rests = |place: &Weak<Resting>| place.upgrade().is_some_and(|p| p.lock().is_some());
        self.free.lock().is_empty() && !self.resting.lock().iter().any(rests)
    }

    /// Few chunks are free: none to keep for a request that is yet to come.
    pub(super) fn is_short(&self) -> bool {
        self.free.lock().len() <= self.chunks / 4
    }

    pub fn bytes(&self) -> u64 {
        (self.chunks * CHUNK_BYTES) as u64
    }

    pub fn used_bytes(&self) -> u64 {
        ((self.chunks - self.free.lock().len()) * CHUNK_BYTES) as u64
    }

    /// seq of the last captured record.
    pub fn captured_seq(&self) -> u64 {
        self.control().next_seq.load(Ordering::Acquire) - 1
    }

    pub fn journaled_seq(&self) -> u64 {
        self.journaled.load(Ordering::Acquire)
    }

    pub fn captured_at(&self) -> u64 {
        self.captured_at.load(Ordering::Relaxed)
    }

    pub fn journaled_at(&self) -> u64 {
        self.journaled_at.load(Ordering::Relaxed)
    }

    pub fn captured_bytes(&self) -> u64 {
        self.captured_bytes.load(Ordering::Relaxed)
    }

    pub fn journaled_bytes(&self) -> u64 {
        self.journaled_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn index_of(&self, seq: u64) -> &AtomicU64 {
        &self.index[seq as usize & (self.index.len() - 1)]
    }

    /// Marks the ring as empty and orderly left, and removes its file.
    pub fn remove(&self) {
        self.control().clean.store(1, Ordering::Release);
        let _ = std::fs::remove_file(&self.path);
        self.intents_recovered();
    }
}
