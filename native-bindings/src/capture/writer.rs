//! Slots: how one thread puts records into the ring.

use super::limits::CHUNK_BYTES;
use super::ring::{
    Ring, SlotHeader, CHUNK_HEADER, EMPTY, INTENT, PUBLISHED, RECORD_AT, RESERVED, SLOT_BYTES_MAX,
    VOID,
};
use crate::record::{RECORD_BYTES_MAX, RECORD_HEADER};
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// A file handle as an intent keeps it, so that recovery finds the object again.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct StoredHandle {
    pub kind: i32,
    pub len: u32,
    pub bytes: [u8; 32],
}

/// Where a thread keeps its chunk while it has no request: (chunk, offset of the next slot). A thread
/// that finds no free chunk takes it from here, so that any number of threads shares a few chunks.
pub(super) type Resting = Mutex<Option<(usize, usize)>>;

/// Room for the bindings of the objects of one operation, kept behind its slot, so that they need no
/// other chunk while it is half done.
const BINDINGS_ROOM: usize = 64 << 10;

/// Fills chunks of the ring; one per capturing thread.
pub struct SlotWriter {
    ring: Arc<Ring>,
    chunk: Option<usize>,
    /// Offset of the next slot in the chunk.
    at: usize,
    resting: Arc<Resting>,
    /// seq of the last record published; who wants to know of a request's sets it to 0 before.
    pub last_seq: u64,
}

/// A reserved slot: an intent that becomes a record (`publish`) or nothing (`abort`).
#[derive(Debug)]
#[must_use]
pub struct Reserved {
    slot: *mut u8,
    chunk: usize,
    len: usize,
}

impl Reserved {
    /// What `reserve` has filled, for a payload that is read into its place.
    pub fn record_mut(&mut self) -> &mut [u8] {
        // SAFETY: the slot is ours until it is published or aborted; both take it away from here.
        unsafe { std::slice::from_raw_parts_mut(self.slot.add(RECORD_AT), self.len - RECORD_AT) }
    }
}

fn now_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: ts is a valid out-pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// Length of a slot whose record is `record_len` long.
fn slot_len(record_len: usize) -> usize {
    (RECORD_AT + record_len + 15) & !15
}

impl SlotWriter {
    pub fn new(ring: Arc<Ring>) -> Self {
        let resting = ring.new_resting();
        Self { ring, chunk: None, at: 0, resting, last_seq: 0 }
    }

    /// Between two requests: others may take the chunk. What `peek` gave is no longer valid.
    pub fn rest(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            *self.resting.lock() = Some((chunk, self.at));
            self.ring.offer_resting();
        }
    }

    fn resume(&mut self) {
        if self.chunk.is_none() {
            if let Some((chunk, at)) = self.resting.lock().take() {
                (self.chunk, self.at) = (Some(chunk), at);
            }
        }
    }

    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Memory where the next slot's record will stand, with room for the longest record; `None` when
    /// the ring is nearly full: whoever waits for a request would keep a chunk from one that is being
    /// served. The memory stays valid until the slot is reserved, or `rest`.
    pub fn peek(&mut self) -> Option<*mut u8> {
        if self.ring.is_short() {
            return None;
        }
        self.ensure(SLOT_BYTES_MAX + BINDINGS_ROOM, None).then(|| self.record_at())
    }

    fn record_at(&self) -> *mut u8 {
        // SAFETY: `ensure` made sure of the room.
        unsafe { self.slot_at().add(RECORD_AT) }
    }

    fn slot_at(&self) -> *mut u8 {
        let chunk = self.chunk.unwrap_or(0);
        // SAFETY: at is within the chunk.
        unsafe { self.ring.chunk_at(chunk).add(self.at) }
    }

    /// Makes sure of a chunk with so much room. Without `wait`, only a free one will do.
    fn ensure(&mut self, room: usize, wait: Option<Duration>) -> bool {
        self.resume();
        loop {
            if let Some(chunk) = self.chunk {
                if self.at + room + std::mem::size_of::<SlotHeader>() <= CHUNK_BYTES {
                    return true;
                }
                self.chunk = None;
                self.ring.leave_chunk(chunk);
            }
            let taken = match (self.ring.take_chunk(), wait) {
                (Some(chunk), _) => Some((chunk, CHUNK_HEADER)),
                (None, Some(wait)) => self.ring.wait_chunk(wait),
                (None, None) => None,
            };
            let Some((chunk, at)) = taken else {
                return false;
            };
            (self.chunk, self.at) = (Some(chunk), at);
        }
    }

    /// Reserves a slot for a record of at most `record_max` bytes and prepares the intent; `arm` makes it
    /// one.
    ///
    /// `fill` writes the record as far as it is known. Returns `None` when the ring stayed full for
    /// `wait`. A payload that was read to `peek()` is in place if no other slot was reserved since.
    pub fn reserve(
        &mut self,
        record_max: usize,
        handles: [StoredHandle; 2],
        wait: Duration,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<Reserved> {
        debug_assert!((RECORD_HEADER..=RECORD_BYTES_MAX).contains(&record_max));
        if !self.ensure(slot_len(record_max) + BINDINGS_ROOM, Some(wait)) {
            return None;
        }
        let slot = self.slot_at();
        let chunk = self.chunk.unwrap_or(0);
        // SAFETY: the slot and the next slot's header lie in our chunk, which nobody else writes;
        // the state word of the next slot is cleared before this one becomes visible to recovery.
        unsafe {
            let record = std::slice::from_raw_parts_mut(slot.add(RECORD_AT), record_max);
            let record_len = fill(record);
            let len = slot_len(record_len);
            let head = slot.cast::<SlotHeader>();
            (*head).len = len as u32;
            (*head).record_len = record_len as u32;
            (*head).seq = 0;
            (*head).handles = handles;
            let next = slot.add(len).cast::<SlotHeader>();
            (*next).state.store(EMPTY, Ordering::Relaxed);
            (*head).state.store(RESERVED, Ordering::Release);
            // Counted from now on: a chunk that is left meanwhile must not be reused.
            self.ring.outstanding[chunk].fetch_add(1, Ordering::SeqCst);
            self.at += len;
            Some(Reserved { slot, chunk, len })
        }
    }

    /// The real operation comes next: what was reserved may have happened from now on.
    pub fn arm(&self, reserved: &Reserved) {
        // SAFETY: the slot is ours until it is published.
        let head = unsafe { &*reserved.slot.cast::<SlotHeader>() };
        head.state.store(INTENT, Ordering::Release);
    }

    /// The operation failed: leaves nothing.
    pub fn abort(&mut self, reserved: Reserved) {
        // SAFETY: the slot is ours until it is published.
        let head = unsafe { &*reserved.slot.cast::<SlotHeader>() };
        let last = self.chunk == Some(reserved.chunk)
            && reserved.slot as usize + reserved.len == self.slot_at() as usize;
        if last {
            head.state.store(EMPTY, Ordering::Release);
            self.at -= reserved.len;
        } else {
            head.state.store(VOID, Ordering::Release);
        }
        if self.ring.outstanding[reserved.chunk].fetch_sub(1, Ordering::SeqCst) == 1
            && self.chunk != Some(reserved.chunk)
        {
            self.ring.reclaim(reserved.chunk);
        }
    }

    /// The effect happened: completes the record and gives it its place in the order. Returns its seq.
    ///
    /// `fill` writes the record again, now with everything known; it must not be longer than the
    /// intent. Call under the lock of the object, so that seq order is effect order.
    pub fn publish(&mut self, reserved: Reserved, fill: impl FnOnce(&mut [u8]) -> usize) -> u64 {
        self.publish_as(reserved, fill, |_| ())
    }

    /// The same; `stamp` is told the seq before anybody else can see it.
    pub fn publish_as(
        &mut self,
        reserved: Reserved,
        fill: impl FnOnce(&mut [u8]) -> usize,
        stamp: impl FnOnce(u64),
    ) -> u64 {
        let ring = &self.ring;
        // SAFETY: the slot is ours until its state is PUBLISHED.
        unsafe {
            let head = reserved.slot.cast::<SlotHeader>();
            let room = reserved.len - RECORD_AT;
            let record = std::slice::from_raw_parts_mut(reserved.slot.add(RECORD_AT), room);
            let record_len = fill(record);
            debug_assert!(record_len <= room);
            (*head).record_len = record_len as u32;
            let now = now_ns();
            (*head).time = now;
            let seq = ring.control().next_seq.fetch_add(1, Ordering::SeqCst);
            stamp(seq);
            (*head).seq = seq;
            (*head).state.store(PUBLISHED, Ordering::Release);
            ring.index_of(seq).store(ring.offset_of(reserved.slot), Ordering::Release);
            ring.captured_at.store(now, Ordering::Relaxed);
            ring.captured_bytes.fetch_add(record_len as u64, Ordering::Relaxed);
            let pending = ring.pending_bytes.fetch_add(record_len as u64, Ordering::Relaxed);
            if ring.drain_waits.load(Ordering::Relaxed)
                && pending + record_len as u64 >= ring.wake_bytes.load(Ordering::Relaxed)
            {
                ring.kick_drain();
            }
            self.last_seq = seq;
            seq
        }
    }

    /// Reserves and publishes in one step: records that state a fact and have no effect of their own.
    pub fn append(
        &mut self,
        record_max: usize,
        wait: Duration,
        fill: impl Fn(&mut [u8]) -> usize,
    ) -> Option<u64> {
        let none = [StoredHandle::default(); 2];
        let reserved = self.reserve(record_max, none, wait, &fill)?;
        Some(self.publish(reserved, &fill))
    }
}

impl Drop for SlotWriter {
    fn drop(&mut self) {
        self.resume();
        if let Some(chunk) = self.chunk.take() {
            self.ring.leave_chunk(chunk);
        }
    }
}
