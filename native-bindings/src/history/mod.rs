//! History: before-images, from which any kept moment of a tree is read.
//!
//! Whoever is about to change an object adds what is there to the `log`, under the object's lock, and
//! stamps it with the seq of the change (`past`). A view of seq S reads "the first before-image after S,
//! else what is there now" (`view`), and looks for before-images *after* it has read what is there: so
//! it never shows half a change. `index` finds them, `keep` lets go of what is no longer needed.
//!
//! Mode `snapshots` keeps the first change of every place after the newest snapshot; mode `continuous`
//! every change.

pub mod changed;
pub mod index;
pub mod keep;
pub mod limits;
pub mod log;
pub mod object;
pub mod past;
mod pins;
pub mod place;
pub mod points;
pub mod segment;
#[cfg(test)]
mod tests;
pub mod versions;
pub mod view;
mod view_data;
mod view_dir;
mod whole;

use crate::interceptor::errno::{Errno, Res};
use crate::record::Oid;
use index::Index;
use log::{Cause, Entry, Log};
use parking_lot::{Condvar, Mutex, RwLock};
use pins::Moments;
use place::Place;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Snapshots,
    Continuous,
}

/// What happens when a before-image finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The oldest moments go, those in use at last and loudly: applications never notice.
    Drop,
    /// Moments in use stay: the change fails with ENOSPC.
    Refuse,
}

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub mode: Mode,
    pub full: Full,
    /// Most bytes of the log.
    pub bytes_max: u64,
}

pub struct History {
    directory: PathBuf,
    pub settings: Settings,
    pub(crate) log: Log,
    pub(crate) index: Index,
    /// The newest snapshot; 0: there is none. Who sets it holds `moments`; who only takes it away because
    /// it is lost need not.
    point: AtomicU64,
    /// Views before it are not possible.
    floor: AtomicU64,
    /// What has to be known to let the history rest.
    moments: Mutex<Moments>,
    /// What is to be kept if possible: the oldest seq of it.
    wanted: AtomicU64,
    /// Held (shared) by a change that no gate holds, from its look at `point` to its seq.
    pub cut: RwLock<()>,
    /// Bytes of whole files.
    whole_bytes: AtomicU64,
    /// Before-images that found no room.
    pub lost: AtomicU64,
    /// Objects made since the newest snapshot; some may be missing.
    newborn: Mutex<HashSet<Oid>>,
    /// Changes under way of which something found no room.
    losing: AtomicU64,
    /// Until when no room is looked for again, ms since `began`; 0: there was room.
    no_room_until: AtomicU64,
    began: Instant,
    /// The index could not take over what it was given: it has no room.
    stuck: AtomicBool,
    /// Somebody has waited for the index in vain, and it has taken over nothing since.
    overdue: AtomicBool,
    /// The floor that is on the disk, and since when.
    durable: Mutex<(u64, Instant)>,
    /// A floor is noted that is not on the disk.
    undurable: AtomicBool,
    is_new: AtomicBool,
    power_lost: bool,
    /// On a replica: the last seq whose tree is there.
    reached: AtomicU64,
    stop: AtomicBool,
    woken: Mutex<bool>,
    wake: Condvar,
    /// One thread at a time moves entries to the index, or frees segments.
    house: Mutex<()>,
}

impl History {
    /// Opens the history of a volume, or begins one. `next` is the seq of the next change; `unproven`
    /// says of a seq below it that its change was never published, so that it may have any seq from
    /// `next` on.
    pub fn open(
        directory: &Path,
        uuid: [u8; 16],
        settings: Settings,
        next: u64,
        unproven: impl Fn(u64) -> bool,
    ) -> Res<Self> {
        let stamp = |entry: &Entry| match entry.stamp() {
            0 => next,
            stamp if stamp >= next || unproven(stamp) => next,
            stamp => stamp,
        };
        let history = Self::open_stamped(directory, uuid, settings, next, stamp)?;
        if history.power_lost {
            history.log.outlive(next);
        }
        Ok(history)
    }

    /// Opens the history of a replica, or begins one: a replay knows the seq of a change before it makes
    /// it. Where it begins, and what it reaches, the replay says (`replay_begins`).
    pub fn open_for_replay(directory: &Path, uuid: [u8; 16], settings: Settings) -> Res<Self> {
        let stamp = |entry: &Entry| match entry.stamp() {
            0 => entry.low(),
            stamp => stamp,
        };
        Self::open_stamped(directory, uuid, settings, 0, stamp)
    }

    fn open_stamped(
        directory: &Path,
        uuid: [u8; 16],
        settings: Settings,
        next: u64,
        stamp: impl Fn(&Entry) -> u64,
    ) -> Res<Self> {
        std::fs::create_dir_all(directory.join("whole"))?;
        let (log, found) = Log::open(directory, uuid)?;
        let indexes = directory.join("index");
        if found.power_lost || found.is_new {
            // It was not flushed: the log has it all.
            let _ = std::fs::remove_dir_all(&indexes);
        }
        let index = Index::open(&indexes)?;
        let floor = match () {
            () if found.is_new => next.saturating_sub(1),
            // Of that change nothing is known but that it has no seq below `next`.
            () if found.was_losing => found.floor.max(next),
            () => found.floor,
        };
        let began = Instant::now();
        let history = Self {
            directory: directory.to_owned(),
            settings,
            log,
            index,
            point: AtomicU64::new(0),
            floor: AtomicU64::new(floor),
            moments: Mutex::default(),
            wanted: AtomicU64::new(0),
            cut: RwLock::default(),
            whole_bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            newborn: Mutex::default(),
            losing: AtomicU64::new(0),
            no_room_until: AtomicU64::new(0),
            began,
            stuck: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            durable: Mutex::new((0, began)),
            undurable: AtomicBool::new(false),
            is_new: AtomicBool::new(found.is_new),
            power_lost: found.power_lost,
            reached: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            woken: Mutex::new(false),
            wake: Condvar::new(),
            house: Mutex::default(),
        };
        history.log.set_floor(history.floor());
        history.recover(stamp)?;
        history.count_whole();
        Ok(history)
    }

    /// What the index lacks: entries of operations that were under way get the first seq that theirs can
    /// have (`stamp`). After a power loss that is the whole log: it goes to the index batch by batch, and
    /// only where that has no room to memory.
    fn recover(&self, stamp: impl Fn(&Entry) -> u64) -> Res<()> {
        let (number, offset) = self.index.cursor()?;
        let (mut end, mut has_room) = (limits::SEGMENT_HEADER, true);
        for segment in self.log.segments().into_iter().filter(|s| s.number >= number) {
            let from = if segment.number == number { offset as usize } else { 0 };
            let entries = self.log.entries(&segment, from);
            end = entries.last().map_or(from.max(limits::SEGMENT_HEADER), |e| e.end_at() as usize);
            for batch in entries.chunks(limits::INDEX_BATCH) {
                batch.iter().for_each(|entry| self.recover_one(entry, &stamp));
                has_room =
                    has_room && self.index.take_over(batch, batch[batch.len() - 1].end()).is_ok();
                if !has_room {
                    batch.iter().filter(|e| e.is_complete()).for_each(|e| self.index.add(e));
                    self.log.queue(|q| q.extend(batch.iter().cloned()));
                }
            }
        }
        self.log.resume(end, self.power_lost);
        let newest = self.index.all_of(&self.log, &Place::point().0)?;
        if let Some((seq, _)) = newest.last() {
            self.point.fetch_max(*seq, Ordering::AcqRel);
        }
        self.forget_lost_point();
        Ok(())
    }

    fn recover_one(&self, entry: &Entry, stamp: impl Fn(&Entry) -> u64) {
        if entry.is_void() {
            return;
        }
        if entry.is_whole() {
            entry.set_stamp(stamp(entry));
            return;
        }
        // Its operation never began; what it was to keep may lie there half copied.
        let _ = std::fs::remove_file(self.whole_path(entry));
        entry.void();
    }

    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    pub fn point(&self) -> u64 {
        self.point.load(Ordering::Acquire)
    }

    /// Moments before this seq may lack what the machine had not written when it went down.
    pub fn power_lost_before(&self) -> u64 {
        self.log.unproven()
    }

    pub fn bytes(&self) -> u64 {
        self.log.bytes() + self.whole_bytes.load(Ordering::Relaxed)
    }

    /// Can what is there at `seq` be relied on?
    pub fn shows(&self, seq: u64) -> bool {
        // What is under way comes after all that can be looked at, whatever seq it gets.
        self.losing.load(Ordering::Acquire) == 0 && seq >= self.floor()
    }

    /// Its volume has stopped: what is there now is no longer what views rest on.
    pub fn is_closed(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// A replay of which this is the history has applied `reached`; what it changed after that, up to
    /// `touched`, a new history does not know.
    pub fn replay_begins(&self, reached: u64, touched: u64) {
        if self.is_new.swap(false, Ordering::AcqRel) {
            // Where it begins has to be known from now on, whatever is kept.
            let _ = self.prepare_point();
            self.raise_floor(touched);
        }
        if self.power_lost {
            self.log.outlive(touched + 1);
        }
        self.reached.store(reached, Ordering::Release);
    }

    /// The last seq whose tree is there, on a replica.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    pub fn set_reached(&self, seq: u64) {
        self.reached.store(seq, Ordering::Release);
    }

    /// Nothing is kept of changes up to `seq`: what is before cannot be looked at. Outlives the process,
    /// the machine only after a `raise_floor`, or when the log is written to the disk.
    pub fn pass_by(&self, seq: u64) {
        self.floor.fetch_max(seq, Ordering::AcqRel);
        self.log.note_floor(seq);
    }

    /// Makes sure that `set_point` takes no time.
    pub fn prepare_point(&self) -> Res<()> {
        loop {
            match self.log.prepare(limits::CUT_ROOM) {
                Err(Errno(libc::ENOSPC | libc::EDQUOT)) => self.make_room()?,
                Err(e) => return Err(e),
                Ok(()) => break,
            }
        }
        // It is worth a try again.
        self.no_room_until.store(0, Ordering::Release);
        Ok(())
    }

    /// A snapshot at `seq`: from now on the state there is kept. Call while nothing changes. It is kept
    /// until `set_wanted` has named it, or a later one, and then does not any more; or for a limited time.
    pub fn set_point(&self, seq: u64) -> Res<()> {
        self.await_word(seq);
        let cause = Cause { low: seq, ..Cause::default() };
        let kept = self.keep_now(&Place::point(), cause, 0, |_, _| Ok((0, 0)));
        let entry = kept.inspect_err(|_| self.give_up_point(seq))?;
        entry.set_stamp(seq);
        {
            let _moments = self.moments.lock();
            self.point.fetch_max(seq, Ordering::AcqRel);
        }
        self.newborn.lock().clear();
        Ok(())
    }

    /// Does a change of this place have to keep what is there?
    pub(crate) fn needs(&self, place: &Place) -> Res<bool> {
        match self.settings.mode {
            Mode::Continuous => Ok(true),
            Mode::Snapshots => match self.point() {
                0 => Ok(false),
                _ if self.is_newborn(place) => Ok(false),
                point => {
                    let is_after = Entry::is_after;
                    Ok(self.index.first_after(&self.log, &place.0, point, is_after)?.is_none())
                }
            },
        }
    }

    fn is_newborn(&self, place: &Place) -> bool {
        place::oid_of(&place.0).is_some_and(|oid| self.newborn.lock().contains(&oid))
    }

    /// An object that did not exist before: no snapshot shows it, whatever becomes of it. Call while it
    /// cannot be that one is taken.
    pub fn born(&self, oid: Oid) {
        if self.settings.mode == Mode::Snapshots && self.point() != 0 {
            let mut newborn = self.newborn.lock();
            if newborn.len() < limits::NEWBORN_MAX {
                newborn.insert(oid);
            }
        }
    }

    /// Is nothing kept at the moment, whatever changes?
    pub fn rests(&self) -> bool {
        self.settings.mode == Mode::Snapshots && self.point() == 0
    }

    /// Adds a before-image. ENOSPC without a try where there was no room a moment ago.
    pub(crate) fn keep(
        &self,
        place: &Place,
        cause: Cause,
        room: usize,
        fill: impl Fn(&mut [u8], &Entry) -> Res<(usize, u16)>,
    ) -> Res<Entry> {
        match self.has_no_room() {
            true => Err(Errno(libc::ENOSPC)),
            false => self.keep_now(place, cause, room, fill),
        }
    }

    pub(super) fn keep_now(
        &self,
        place: &Place,
        cause: Cause,
        room: usize,
        fill: impl Fn(&mut [u8], &Entry) -> Res<(usize, u16)>,
    ) -> Res<Entry> {
        loop {
            let ready = self.wait_for_index();
            match ready.and_then(|()| self.log.add(&place.0, cause, room, &fill)) {
                Ok(entry) => {
                    self.index.add(&entry);
                    return Ok(entry);
                }
                Err(Errno(libc::ENOSPC | libc::EDQUOT)) => self.make_room()?,
                Err(e) => return Err(e),
            }
        }
    }

    /// ENOSPC: the index has no room. ETIMEDOUT: something has been under way for too long, in front of all
    /// that has come since; no room that is made helps against that, nor does it to wait again and again.
    fn wait_for_index(&self) -> Res<()> {
        let full = || self.log.queue(|q| q.len()) >= limits::QUEUE_MAX;
        let end = Instant::now() + limits::QUEUE_WAIT_MAX;
        while full() {
            if self.stuck.load(Ordering::Acquire) {
                return Err(Errno(libc::ENOSPC));
            }
            if self.overdue.load(Ordering::Acquire) || Instant::now() > end {
                self.overdue.store(true, Ordering::Release);
                return Err(Errno(libc::ETIMEDOUT));
            }
            self.kick();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(())
    }

    /// The before-image of a place for a moment that is pinned.
    pub fn first_after(&self, place: &Place, seq: u64) -> Res<Option<Entry>> {
        self.index.first_after(&self.log, &place.0, seq, Entry::is_after_settled)
    }

    pub fn has(&self, place: &Place, seq: u64) -> Res<bool> {
        self.index.has(&place.0, seq)
    }

    /// Those of all places in `[from, to)`.
    pub(crate) fn each_after(
        &self,
        from: &Place,
        to: &Place,
        seq: u64,
    ) -> Res<BTreeMap<Vec<u8>, Entry>> {
        self.index.each_after(&self.log, (&from.0, &to.0), seq)
    }

    /// The file in which a whole file is kept.
    pub(crate) fn whole_path(&self, entry: &Entry) -> PathBuf {
        self.directory.join("whole").join(format!("{:08x}-{:08x}", entry.segment.number, entry.at))
    }

    pub(crate) fn kick(&self) {
        *self.woken.lock() = true;
        self.wake.notify_all();
    }
}
