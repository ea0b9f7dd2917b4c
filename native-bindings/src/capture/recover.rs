//! Recovery: what a dead process left in the ring.
//!
//! Published records newer than the journal go to the drain as if nothing had happened. An intent
//! that was not published may or may not have happened: the caller re-captures its objects, and says
//! so with `intents_recovered`. Until then they are kept (`intents`), for this process may die as well.

use super::intents;
use super::limits::CHUNK_BYTES;
use super::ring::{
    Ring, SlotHeader, CHUNK_HEADER, EMPTY, HOLE, INTENT, PUBLISHED, RECORD_AT, SLOT_BYTES_MAX,
};
use super::writer::StoredHandle;
use std::sync::atomic::Ordering;

/// An operation of which nobody knows whether it happened.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The record as far as it was known.
    pub record: Vec<u8>,
    pub handles: [StoredHandle; 2],
}

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    pub pending: u64,
    pub intents: Vec<Intent>,
}

impl Ring {
    /// Reads all chunks; `last` is the last seq that the journal has. Call before any capture.
    ///
    /// Errors: those of the file in which the intents are kept.
    pub fn recover(&self, last: u64) -> std::io::Result<Recovered> {
        let kept = intents::path_beside(&self.path);
        let mut out = Recovered { intents: intents::load(&kept)?, ..Recovered::default() };
        let mut highest = last;
        let mut busy = vec![false; self.chunks];
        for (chunk, busy) in busy.iter_mut().enumerate() {
            self.walk(chunk, |head, offset, record| match head.state.load(Ordering::Acquire) {
                PUBLISHED if head.seq > last => {
                    self.index_of(head.seq).store(offset, Ordering::Release);
                    self.outstanding[chunk].fetch_add(1, Ordering::SeqCst);
                    self.pending_bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
                    highest = highest.max(head.seq);
                    out.pending += 1;
                    *busy = true;
                }
                INTENT => {
                    out.intents.push(Intent { record: record.to_vec(), handles: head.handles })
                }
                _ => {}
            });
        }
        // A number handed out but never published: its intent is re-captured behind everything.
        for seq in last + 1..=highest {
            let entry = self.index_of(seq);
            if entry.load(Ordering::Acquire) == 0 {
                entry.store(HOLE, Ordering::Release);
            }
        }
        self.control().next_seq.store(highest + 1, Ordering::SeqCst);
        // Chunks with pending records are free when these are journaled; intents were copied out.
        self.remove_free(&busy);
        if !out.intents.is_empty() {
            intents::save(&kept, &out.intents)?;
        }
        Ok(out)
    }

    /// Was this seq, which the journal does not have yet, given to a record? After `recover`.
    pub fn was_published(&self, seq: u64) -> bool {
        self.index_of(seq).load(Ordering::Acquire) != HOLE
    }

    /// The objects of all intents were captured.
    pub fn intents_recovered(&self) {
        let _ = std::fs::remove_file(intents::path_beside(&self.path));
    }

    fn walk(&self, chunk: usize, mut see: impl FnMut(&SlotHeader, u64, &[u8])) {
        let start = self.chunk_at(chunk);
        let mut at = CHUNK_HEADER;
        while at + RECORD_AT <= CHUNK_BYTES {
            // SAFETY: at is within the chunk; slot lengths are checked before use.
            unsafe {
                let slot = start.add(at);
                let head = &*slot.cast::<SlotHeader>();
                if head.state.load(Ordering::Acquire) == EMPTY {
                    return;
                }
                let len = head.len as usize;
                let record_len = head.record_len as usize;
                if len > SLOT_BYTES_MAX + 16
                    || at + len > CHUNK_BYTES
                    || RECORD_AT + record_len > len
                {
                    return;
                }
                let record = std::slice::from_raw_parts(slot.add(RECORD_AT), record_len);
                see(head, self.offset_of(slot), record);
                at += len;
            }
        }
    }
}
