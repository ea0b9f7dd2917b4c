//! Drain: published records in seq order, packed into chained frames.
//!
//! Small records are copied together into the frame pool; a large write becomes a frame where it
//! stands in the ring, without a copy.

use super::limits::{DIRECT_FRAME_PAYLOAD, FLUSH_WAIT_MAX, FRAME_POOL_BYTES, FRAME_TARGET_BYTES};
use super::ring::{Ring, SlotHeader, HOLE, RECORD_AT};
use crate::record::{
    crc_of_sealed, seal, seal_frame, seal_frame_with, FrameHeader, Op, FRAME_HEADER, OP_AT,
    RECORD_BYTES_MAX,
};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Where the drain stands.
#[derive(Default)]
pub struct DrainState {
    uuid: [u8; 16],
    epoch: u32,
    /// seq of the next record to take.
    next: u64,
    chain: [u8; 8],
    clock: u64,
    /// Taken, not journaled: (last seq, chunk, records, bytes, time of the last).
    taken: VecDeque<(u64, usize, u32, u64, u64)>,
}

/// What wakes the drain and the fsyncs that wait for it.
#[derive(Default)]
pub struct Signal {
    stopping: bool,
    /// There is something for the drain besides records.
    called: bool,
    /// errno for which the journal takes no frames; 0: it does.
    error: i32,
}

/// A frame, as a range of the ring's mapping.
#[derive(Clone, Copy, Debug)]
pub struct TakenFrame {
    pub first_seq: u64,
    pub last_seq: u64,
    pub offset: usize,
    pub len: usize,
}

/// What one `take` brought.
#[derive(Debug, Default)]
pub struct Taken {
    pub frames: Vec<TakenFrame>,
    pub flush_wanted: bool,
    pub stopped: bool,
}

impl Ring {
    /// Tells the drain where the journal ends. Call once, before the first capture.
    pub fn start_drain(&self, uuid: [u8; 16], epoch: u32, last: u64, chain: [u8; 8], clock: u64) {
        let mut d = self.drain.lock();
        d.uuid = uuid;
        d.epoch = epoch;
        d.next = last + 1;
        d.chain = chain;
        d.clock = clock;
        self.journaled.store(last, Ordering::Release);
        self.journaled_at.store(clock, Ordering::Relaxed);
        self.control().next_seq.fetch_max(last + 1, Ordering::SeqCst);
    }

    pub(super) fn kick_drain(&self) {
        let _signal = self.signal.lock();
        self.wake_drain.notify_one();
    }

    /// No more records will come: `take` reports `stopped` once the ring is empty.
    pub fn stop_drain(&self) {
        self.signal.lock().stopping = true;
        self.wake_drain.notify_one();
    }

    /// Ends the wait of a `take`, or of the next one.
    pub fn call_drain(&self) {
        self.signal.lock().called = true;
        self.wake_drain.notify_one();
    }

    /// Waits up to `wait` for `max` bytes, an fsync, a call or the end; takes what is there. Once there
    /// is a record, it waits for further ones up to `linger` only.
    ///
    /// The frames stay valid until the next `take`; at most one take is under way.
    pub fn take(&self, max: usize, wait: Duration, linger: Duration) -> Taken {
        let max = max.max(1);
        let mut deadline = Instant::now() + wait;
        // Then nothing is gained by being woken for the first record.
        let mut lingers = linger >= wait;
        let mut out = Taken::default();
        let next = self.next();
        {
            let mut s = self.signal.lock();
            let first = if lingers { max as u64 } else { 1 };
            self.wake_bytes.store(first, Ordering::Relaxed);
            self.drain_waits.store(true, Ordering::SeqCst);
            loop {
                out.flush_wanted = self.flush_wanted.load(Ordering::SeqCst) > self.journaled_seq();
                let enough = self.pending_bytes.load(Ordering::Relaxed) >= max as u64;
                let ship = self.ship_wanted.load(Ordering::SeqCst) >= next;
                if enough || ship || out.flush_wanted || s.stopping || s.called {
                    break;
                }
                if !lingers && self.captured_seq() >= next {
                    lingers = true;
                    self.wake_bytes.store(max as u64, Ordering::Relaxed);
                    deadline = deadline.min(Instant::now() + linger);
                }
                if self.wake_drain.wait_until(&mut s, deadline).timed_out() {
                    break;
                }
            }
            self.drain_waits.store(false, Ordering::SeqCst);
            s.called = false;
            out.stopped = s.stopping;
        }
        self.pack(max, &mut out);
        out.stopped = out.stopped && out.frames.is_empty() && self.captured_seq() < self.next();
        out
    }

    fn next(&self) -> u64 {
        self.drain.lock().next
    }

    /// The slot of `seq`, waiting out the instant between its number and its publication.
    fn slot_of(&self, seq: u64) -> Option<u64> {
        if seq > self.captured_seq() {
            return None;
        }
        let entry = self.index_of(seq);
        for spin in 0u32.. {
            match entry.load(Ordering::Acquire) {
                0 if spin < 64 => std::hint::spin_loop(),
                0 if spin < 4096 => std::thread::yield_now(),
                0 => return None,
                at => return Some(at),
            }
        }
        None
    }

    fn pack(&self, max: usize, out: &mut Taken) {
        let mut d = self.drain.lock();
        let pool = self.frame_pool_at();
        let mut at = 0; // bytes of the pool used
        let mut total = 0;
        let mut open: Option<OpenFrame> = None;
        while total < max {
            let seq = d.next;
            let Some(offset) = self.slot_of(seq) else {
                break;
            };
            if offset == HOLE {
                self.index_of(seq).store(0, Ordering::Release);
                d.next += 1;
                match open.as_mut() {
                    Some(frame) => frame.last = seq,
                    // A hole alone makes no frame: the next record's frame starts with it.
                    None => open = Some(OpenFrame::new(at, seq, seq)),
                }
                continue;
            }
            // SAFETY: the index points to a published slot of the mapping; it stays until journaled.
            let (head, record) = unsafe {
                let slot = self.map.base().add(offset as usize);
                let head = &*slot.cast::<SlotHeader>();
                let len = head.record_len as usize;
                (head, std::slice::from_raw_parts_mut(slot.add(RECORD_AT), len))
            };
            let len = record.len();
            let starts_with_hole = open.as_ref().is_some_and(|f| f.records == 0);
            let direct = len >= DIRECT_FRAME_PAYLOAD && !starts_with_hole;
            let pool_end = open.as_ref().map_or(at, |f| f.at + FRAME_HEADER + f.body);
            if !direct && pool_end + FRAME_TARGET_BYTES + RECORD_BYTES_MAX > FRAME_POOL_BYTES {
                break; // the pool is used up; the rest comes with the next take
            }
            d.clock = head.time.max(d.clock + 1);
            self.index_of(seq).store(0, Ordering::Release);
            if direct {
                if let Some(frame) = open.take() {
                    at = self.close_frame(&mut d, frame, out);
                }
                seal(record, seq, d.clock);
                let crc = crc_of_sealed(record);
                // SAFETY: in front of the record is space for the frame header (RECORD_AT).
                let bytes = unsafe {
                    let start = record.as_mut_ptr().sub(FRAME_HEADER);
                    std::slice::from_raw_parts_mut(start, FRAME_HEADER + len)
                };
                let h = d.frame_header(1, seq, seq);
                d.chain = seal_frame_with(bytes, &h, crc);
                let offset = self.offset_of(bytes.as_ptr()) as usize;
                out.frames.push(TakenFrame {
                    first_seq: seq,
                    last_seq: seq,
                    offset,
                    len: bytes.len(),
                });
            } else {
                if open.as_ref().is_some_and(|f| f.body + len > FRAME_TARGET_BYTES && f.body > 0) {
                    if let Some(frame) = open.take() {
                        at = self.close_frame(&mut d, frame, out);
                    }
                }
                let frame = open.get_or_insert_with(|| OpenFrame::new(at, seq, seq));
                let to = pool + frame.at + FRAME_HEADER + frame.body;
                // SAFETY: the check above keeps the pool's use below its size; the pool is the drain's alone.
                let copy = unsafe {
                    let p = self.map.base().add(to);
                    std::ptr::copy_nonoverlapping(record.as_ptr(), p, len);
                    std::slice::from_raw_parts_mut(p, len)
                };
                seal(copy, seq, d.clock);
                frame.body += len;
                frame.records += 1;
                frame.last = seq;
                // A reader that goes by frames can stop at a marker.
                if copy[OP_AT] == Op::Marker as u8 {
                    if let Some(frame) = open.take() {
                        at = self.close_frame(&mut d, frame, out);
                    }
                }
            }
            total += len + FRAME_HEADER;
            d.next += 1;
            let chunk = self.chunk_of(offset);
            d.note_taken(seq, chunk, len as u64, head.time);
        }
        if let Some(frame) = open {
            self.close_frame(&mut d, frame, out);
        }
    }

    /// Seals a frame of the pool; returns where the next one may start.
    fn close_frame(&self, d: &mut DrainState, frame: OpenFrame, out: &mut Taken) -> usize {
        let offset = self.frame_pool_at() + frame.at;
        let len = FRAME_HEADER + frame.body;
        // SAFETY: the range lies in the frame pool, which is the drain's alone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.map.base().add(offset), len) };
        let h = d.frame_header(frame.records, frame.first, frame.last);
        d.chain = seal_frame(bytes, &h);
        out.frames.push(TakenFrame { first_seq: frame.first, last_seq: frame.last, offset, len });
        (frame.at + len + 63) & !63
    }

    /// Everything up to `seq` is in the journal and outlives the process: frees ring memory.
    pub fn committed_up_to(&self, seq: u64) {
        let mut d = self.drain.lock();
        while let Some(&(last, chunk, records, bytes, time)) = d.taken.front() {
            if last > seq {
                break;
            }
            d.taken.pop_front();
            self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.journaled_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.journaled_at.store(time, Ordering::Relaxed);
            if self.outstanding[chunk].fetch_sub(records, Ordering::SeqCst) == records {
                self.reclaim(chunk);
            }
        }
    }

    /// Nothing is left that the journal has not committed.
    pub fn is_empty(&self) -> bool {
        let d = self.drain.lock();
        d.taken.is_empty() && d.next > self.captured_seq()
    }

    /// Everything up to `seq` outlives the machine: wakes fsyncs. The ring keeps it until it is
    /// committed.
    pub fn journaled_up_to(&self, seq: u64) {
        self.journaled.fetch_max(seq, Ordering::SeqCst);
        self.signal.lock().error = 0;
        self.flushed.notify_all();
    }

    /// The journal takes no frames (errno), or does again (0).
    pub fn journal_failed(&self, errno: i32) {
        self.signal.lock().error = errno;
        self.flushed.notify_all();
    }

    pub fn journal_error(&self) -> i32 {
        self.signal.lock().error
    }

    /// Asks for durability up to `seq` without waiting.
    pub fn want_flush(&self, seq: u64) {
        if self.journaled_seq() >= seq || self.flush_wanted.fetch_max(seq, Ordering::SeqCst) >= seq
        {
            return; // done, or asked for by somebody else
        }
        // Locked for a moment, so that the drain does not miss it between its look and its wait.
        drop(self.signal.lock());
        self.wake_drain.notify_one();
    }

    /// Asks for everything up to `seq` to be journaled at once, durable or not: replicas get it then.
    pub fn want_ship(&self, seq: u64) {
        if self.ship_wanted.fetch_max(seq, Ordering::SeqCst) >= seq {
            return; // asked for by somebody else
        }
        // Locked for a moment, as above.
        drop(self.signal.lock());
        self.wake_drain.notify_one();
    }

    /// Waits until everything up to `seq` is durable in the journal, or fails with its errno.
    pub fn wait_flushed(&self, seq: u64) -> Result<(), i32> {
        let deadline = Instant::now() + FLUSH_WAIT_MAX;
        let mut s = self.signal.lock();
        loop {
            if self.journaled_seq() >= seq {
                return Ok(());
            }
            if s.error != 0 {
                return Err(s.error);
            }
            if self.flushed.wait_until(&mut s, deadline).timed_out() {
                return Err(libc::EIO);
            }
        }
    }
}

struct OpenFrame {
    /// Offset in the frame pool.
    at: usize,
    body: usize,
    records: u32,
    first: u64,
    last: u64,
}

impl OpenFrame {
    fn new(at: usize, first: u64, last: u64) -> Self {
        Self { at, body: 0, records: 0, first, last }
    }
}

impl DrainState {
    fn frame_header(&self, records: u32, first_seq: u64, last_seq: u64) -> FrameHeader {
        FrameHeader {
            uuid: self.uuid,
            epoch: self.epoch,
            records,
            first_seq,
            last_seq,
            clock: self.clock,
            prev_chain: self.chain,
        }
    }

    fn note_taken(&mut self, seq: u64, chunk: usize, bytes: u64, time: u64) {
        match self.taken.back_mut() {
            // Runs in one chunk are one entry, but never across what one `journaled` may end.
            Some(t) if t.1 == chunk && t.3 < FRAME_TARGET_BYTES as u64 / 4 && t.0 + 1 == seq => {
                t.0 = seq;
                t.2 += 1;
                t.3 += bytes;
                t.4 = time;
            }
            _ => self.taken.push_back((seq, chunk, 1, bytes, time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{RingIdentity, SlotWriter};
    use crate::record::{Encoder, Header, Oid, Time, RECORD_HEADER};
    use std::sync::Arc;

    /// Longer than any test may take.
    const FOREVER: Duration = Duration::from_secs(3600);

    fn header() -> Header {
        Header {
            seq: 0,
            clock: 0,
            op: Op::Gone,
            flags: 0,
            uid: 0,
            gid: 0,
            pid: 0,
            comm: [0; 16],
            oid: Oid { ino: 1, gen: 1 },
            time: Time { sec: 0, nsec: crate::record::TIME_UNKNOWN },
            mode: 0,
        }
    }

    #[test]
    fn the_first_record_ends_a_long_wait_and_begins_a_short_one() {
        let path = std::env::temp_dir().join(format!("holdfast-drain-{}", std::process::id()));
        let (ring, _) = Ring::open(&path, 1, &RingIdentity { uuid: [1; 16] }).unwrap();
        let ring = Arc::new(ring);
        ring.start_drain([1; 16], 1, 0, [0; 8], 0);
        let theirs = ring.clone();
        let linger = Duration::from_millis(2);
        let drain = std::thread::spawn(move || theirs.take(1 << 20, FOREVER, linger));
        let mut writer = SlotWriter::new(ring.clone());
        let fill = |buf: &mut [u8]| Encoder::new(buf, &header()).finish();
        assert_eq!(writer.append(RECORD_HEADER, FOREVER, fill), Some(1));
        let taken = drain.join().unwrap();
        assert_eq!(taken.frames.iter().map(|f| f.last_seq).max(), Some(1));
        // What is there already does not wait for more either.
        writer.append(RECORD_HEADER, FOREVER, fill);
        assert_eq!(ring.take(1 << 20, FOREVER, linger).frames.len(), 1);
        drop(writer);
        ring.remove();
    }
}
