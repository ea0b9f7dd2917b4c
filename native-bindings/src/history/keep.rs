//! The history's housekeeping: a thread that moves entries to the index, writes the log to the disk, and
//! frees what is no longer wanted.
//!
//! Space is freed from the oldest end only. What is wanted is set by the control plane (snapshots, age);
//! when the limit is met, or the disk is full, the oldest moments go whether they are wanted or not, and
//! those in use last: see `Full`.

use super::limits::{INDEX_BATCH, INDEX_PAUSE, NO_ROOM_PAUSE, SYNC_INTERVAL};
use super::log::Entry;
use super::place::{kind_of, WHOLE};
use super::segment::Segment;
use super::whole::{allocated, UNNAMED};
use super::{Full, History};
use crate::interceptor::errno::{Errno, Res};
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

impl History {
    /// Starts the housekeeping; it ends with `close`.
    pub fn start(self: &Arc<Self>) -> Res<std::thread::JoinHandle<()>> {
        let history = self.clone();
        let run = move || history.keep_house();
        Ok(std::thread::Builder::new().name("holdfast-hist".into()).spawn(run)?)
    }

    fn keep_house(&self) {
        let mut synced = Instant::now();
        let mut dirty = false;
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            let moved = {
                let _house = self.house.lock();
                let moved = self.index_some();
                self.free_unwanted();
                moved
            };
            dirty |= moved > 0 || self.undurable.swap(false, Ordering::AcqRel);
            if dirty && (stopping || synced.elapsed() >= SYNC_INTERVAL) {
                self.sync();
                (synced, dirty) = (Instant::now(), false);
            }
            if moved == INDEX_BATCH {
                continue;
            }
            if stopping {
                // Without the mark, the next start takes a new boot of the machine for a loss of power.
                let _ = self.leave_clean();
                return;
            }
            let mut woken = self.woken.lock();
            if !*woken {
                self.wake.wait_for(&mut woken, INDEX_PAUSE);
            }
            *woken = false;
        }
    }

    fn sync(&self) {
        let mut durable = self.durable.lock();
        let floor = self.floor();
        self.log.sync();
        *durable = (floor, Instant::now());
    }

    fn leave_clean(&self) -> Res<()> {
        self.index.sync()?;
        let whole = self.directory.join("whole");
        for file in std::fs::read_dir(&whole)?.flatten() {
            File::open(file.path())?.sync_data()?;
        }
        File::open(&whole)?.sync_all()?;
        File::open(&self.directory)?.sync_all()?;
        self.log.mark_clean()
    }

    /// Ends the housekeeping; nothing may be added any more.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Release);
        self.kick();
    }

    /// Moves entries from memory to the index; returns how many.
    fn index_some(&self) -> usize {
        let done = |e: &Entry| e.is_void() || (e.is_complete() && e.stamp() != 0);
        let batch: Vec<Entry> = self
            .log
            .queue(|q| q.iter().take(INDEX_BATCH).take_while(|e| done(e)).cloned().collect());
        let Some(last) = batch.last() else {
            return 0;
        };
        let taken = self.index.take_over(&batch, last.end()).is_ok();
        self.stuck.store(!taken, Ordering::Release);
        if !taken {
            // It stays in memory, and in the log; when the disk has room again, it goes on.
            return 0;
        }
        self.log.queue(|q| q.drain(..batch.len()).for_each(drop));
        self.overdue.store(false, Ordering::Release);
        batch.len()
    }

    /// The seq from which on everything has to stay: what is wanted, what is looked at.
    fn needed_from(&self) -> u64 {
        let oldest = self.moments.lock().oldest().unwrap_or(u64::MAX);
        self.wanted.load(Ordering::Acquire).min(oldest)
    }

    /// Frees the segments in which nothing is needed.
    fn free_unwanted(&self) {
        // What is below the floor is of no use, whoever wants it.
        self.free_up_to(self.needed_from().max(self.floor()), usize::MAX);
    }

    /// Frees at most `most` segments whose changes all came up to `seq`; returns how many.
    fn free_up_to(&self, seq: u64, most: usize) -> usize {
        let current = self.log.current();
        let mut freed = 0;
        for segment in self.log.segments() {
            if freed == most || segment.number >= current {
                break;
            }
            match self.log.newest(&segment) {
                Some(newest) if newest <= seq => self.free(segment, newest),
                _ => break,
            }
            freed += 1;
        }
        freed
    }

    /// Frees a segment, whether the index has it or not. Its room comes first: the index may need some
    /// to forget it. What it could not forget is below the floor, where nobody looks.
    fn free(&self, segment: Arc<Segment>, newest: u64) {
        let noted = self.durable.lock().0;
        if newest > noted {
            self.raise_floor(newest);
        }
        let number = segment.number;
        let entries = self.log.entries(&segment, 0);
        for entry in entries.iter().filter(|e| kind_of(e.place()) == WHOLE) {
            self.remove_whole(entry);
        }
        self.log.queue(|q| {
            let others = q.iter().position(|e| e.segment.number != number).unwrap_or(q.len());
            q.drain(..others).for_each(drop);
        });
        let keys = self.index.drop_from_memory(&entries);
        drop((entries, segment));
        self.log.remove(number);
        let _ = self.index.forget(&keys);
    }

    /// No moment before `seq` can be looked at from now on; outlives the machine.
    pub(crate) fn raise_floor(&self, seq: u64) {
        let mut durable = self.durable.lock();
        self.floor.fetch_max(seq, Ordering::AcqRel);
        self.log.set_floor(seq);
        *durable = (self.floor(), Instant::now());
        self.forget_lost_point();
    }

    /// Nothing has to be kept for a snapshot that cannot be looked at.
    pub(super) fn forget_lost_point(&self) {
        let floor = self.floor();
        let lost = |point: u64| (point < floor).then_some(0);
        let _ = self.point.fetch_update(Ordering::AcqRel, Ordering::Acquire, lost);
    }

    /// From `seq` on it is about another tree: nothing that is kept tells of it.
    pub fn begin_anew(&self, seq: u64) {
        let entries = self.log.segments().into_iter().flat_map(|s| self.log.entries(&s, 0));
        // Of another order of changes, perhaps, in which seqs were higher.
        let kept = entries.filter(|e| e.is_complete());
        let newest = kept.map(|e| e.stamp()).max().unwrap_or(0);
        self.raise_floor(seq.max(newest));
    }

    fn remove_whole(&self, entry: &Entry) {
        let path = self.whole_path(entry);
        let bytes = std::fs::metadata(&path).map_or(0, |m| allocated(&m));
        if std::fs::remove_file(path).is_ok() {
            let sub = |n: u64| Some(n.saturating_sub(bytes));
            let _ = self.whole_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, sub);
            self.share_limit();
        }
    }

    /// Counts the bytes of whole files, and removes copies that were under way when the process died.
    pub(super) fn count_whole(&self) {
        let files = std::fs::read_dir(self.directory.join("whole")).into_iter().flatten().flatten();
        let mut bytes = 0;
        for file in files {
            if file.file_name().as_encoded_bytes().ends_with(UNNAMED.as_bytes()) {
                let _ = std::fs::remove_file(file.path());
            } else {
                bytes += file.metadata().map_or(0, |m| allocated(&m));
            }
        }
        self.whole_bytes.store(bytes, Ordering::Release);
        self.share_limit();
    }

    pub(super) fn add_whole(&self, bytes: u64) {
        self.whole_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.share_limit();
    }

    /// Is there room for a whole file?
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.settings.bytes_max
    }

    /// Whole files and the log have one limit.
    fn share_limit(&self) {
        let whole = self.whole_bytes.load(Ordering::Acquire);
        self.log.set_limit(self.settings.bytes_max.saturating_sub(whole));
    }

    /// The oldest moment that is being looked at and can be.
    fn looked_at(&self) -> Option<u64> {
        self.moments.lock().looked_at(self.floor())
    }

    /// Has a change to fail of which something finds no room?
    pub(super) fn refuses(&self) -> bool {
        self.settings.full == Full::Refuse && self.looked_at().is_some()
    }

    /// Makes room by letting the oldest moments go, those that are looked at last. ENOSPC when there is
    /// none to be made.
    pub(super) fn make_room(&self) -> Res<()> {
        let _house = self.house.lock();
        while self.index_some() > 0 {}
        let unused = self.looked_at().unwrap_or(u64::MAX);
        if self.free_up_to(unused, 1) > 0 {
            return Ok(());
        }
        if !self.refuses() {
            if self.free_up_to(u64::MAX, 1) > 0 {
                return Ok(());
            }
            // To look again at every change would slow down everything.
            let until = self.began.elapsed() + NO_ROOM_PAUSE;
            self.no_room_until.store(until.as_millis() as u64, Ordering::Release);
        }
        Err(Errno(libc::ENOSPC))
    }

    pub(super) fn has_no_room(&self) -> bool {
        let until = self.no_room_until.load(Ordering::Acquire);
        if until == 0 {
            return false;
        }
        let over = self.began.elapsed().as_millis() as u64 >= until;
        if over {
            self.no_room_until.store(0, Ordering::Release);
        }
        !over
    }

    /// A before-image could not be kept: as soon as the change is made, no moment before it can be read.
    /// `low` is the least seq that it can get; `first`: the first one of its change.
    ///
    /// That is noted, and on the disk, before the change is made; but where all that could be looked at
    /// was given up a moment ago, it reaches the disk with the log: see docs/decisions/0010.
    pub(super) fn lose(&self, low: u64, first: bool) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        if !first {
            return;
        }
        self.losing.fetch_add(1, Ordering::AcqRel);
        let mut durable = self.durable.lock();
        let point = self.point.swap(0, Ordering::AcqRel);
        self.floor.fetch_max(low, Ordering::AcqRel);
        self.log.note_losing(true, low);
        if point >= durable.0 || durable.1.elapsed() >= SYNC_INTERVAL {
            self.log.sync_floor();
            *durable = (low, Instant::now());
        } else {
            self.undurable.store(true, Ordering::Release);
        }
    }

    /// A change that lost something has got its seq; 0: it failed, and nothing is lost.
    pub(super) fn end_loss(&self, seq: u64) {
        self.floor.fetch_max(seq, Ordering::AcqRel);
        self.log.note_losing(false, seq);
        self.losing.fetch_sub(1, Ordering::AcqRel);
        self.undurable.store(true, Ordering::Release);
    }
}
