//! The log of before-images: segments of memory-mapped, fully allocated files.
//!
//! A dummy function adds an entry before its real operation and *stamps* it with the seq of its record
//! after. So what a dead process leaves is either stamped, or belongs to an operation that may have
//! happened; no system call is needed for either, and nothing that was added is lost with the process.
//! Entries never move. A segment goes as a whole, when nothing in it is needed any more.
//!
//! Invariant: an entry whose state is COMPLETE was so before its operation began.

use super::limits::{SEGMENT_BYTES, SEGMENT_HEADER};
use super::segment::{floor_of, payload_at, position, EntryHead, Segment};
pub use super::segment::{Author, Cause, Entry, FLAG_HOLE};
use super::segment::{COMPLETE, ENTRY_HEAD, LOSING, VOID, WRITING};
use crate::interceptor::errno::{Errno, Res};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

struct Cursor {
    /// None before the first entry: a history that never keeps anything takes no space.
    segment: Option<Arc<Segment>>,
    at: usize,
    /// All that the index does not have yet, in the order of the log.
    queue: VecDeque<Entry>,
    /// Changes under way of which something could not be kept.
    losing: usize,
}

pub struct Log {
    directory: PathBuf,
    uuid: [u8; 16],
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    cursor: Mutex<Cursor>,
    /// Entries before it are of processes that are gone.
    own_from: AtomicU64,
    floor: AtomicU64,
    unproven: AtomicU64,
    /// Most bytes of all segments.
    limit: AtomicU64,
}

fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.seg"))
}

/// What `open` found.
pub struct Found {
    pub is_new: bool,
    /// The machine went down since the last segment was begun, and the history had not ended orderly.
    pub power_lost: bool,
    pub floor: u64,
    /// A change may have happened of which something was not kept: it has no seq yet.
    pub was_losing: bool,
    /// Views before this seq may lack what an earlier loss of power took.
    pub unproven: u64,
}

/// Views of the history in a directory, open or not, are possible from this seq on; `None`: there is none.
pub fn floor_in(directory: &Path) -> Res<Option<u64>> {
    let mut floor = None;
    for number in numbers_in(directory)? {
        floor = floor.max(floor_of(&segment_path(directory, number)));
    }
    Ok(floor)
}

fn numbers_in(directory: &Path) -> Res<Vec<u32>> {
    let mut numbers: Vec<u32> = std::fs::read_dir(directory)?
        .flatten()
        .filter_map(|e| {
            let name = e.file_name();
            u32::from_str_radix(name.to_str()?.strip_suffix(".seg")?, 16).ok()
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Log {
    /// Opens the log in a directory, or makes one. EINVAL for another volume's or version's.
    pub fn open(directory: &Path, uuid: [u8; 16]) -> Res<(Self, Found)> {
        let numbers = numbers_in(directory)?;
        let is_new = numbers.is_empty();
        let mut segments = BTreeMap::new();
        for number in numbers {
            let path = segment_path(directory, number);
            segments.insert(number, Arc::new(Segment::open(&path, number, &uuid)?));
        }
        let last = segments.values().next_back().cloned();
        let boot = crate::boot::boot_id();
        let ended = last.as_ref().is_some_and(|s| s.take_clean());
        let power_lost = !ended && last.as_ref().is_some_and(|s| s.head().boot_id != boot);
        let noted = |s: &Arc<Segment>| s.head().floor.load(Ordering::Acquire);
        let floor = segments.values().map(|s| noted(s) & !LOSING).max().unwrap_or(0);
        let unproven = segments.values().map(|s| s.head().unproven.load(Ordering::Acquire)).max();
        let unproven = unproven.unwrap_or(0);
        let told = segments.values().rev().find(|s| s.is_adopted());
        let was_losing = told.is_some_and(|s| noted(s) & LOSING != 0);
        let cursor =
            Cursor { segment: last, at: SEGMENT_HEADER, queue: VecDeque::new(), losing: 0 };
        let log = Self {
            directory: directory.to_owned(),
            uuid,
            segments: RwLock::new(segments),
            cursor: Mutex::new(cursor),
            own_from: AtomicU64::new(0),
            floor: AtomicU64::new(floor),
            unproven: AtomicU64::new(unproven),
            limit: AtomicU64::new(u64::MAX),
        };
        Ok((log, Found { is_new, power_lost, floor, was_losing, unproven }))
    }

    pub fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments.read().get(&number).cloned()
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().values().cloned().collect()
    }

    pub fn bytes(&self) -> u64 {
        self.segments.read().len() as u64 * SEGMENT_BYTES as u64
    }

    /// The entry at a location that the index keeps; `None` when its segment is gone.
    pub fn entry_at(&self, location: &[u8]) -> Option<Entry> {
        let number = u32::from_be_bytes(location.get(..4)?.try_into().ok()?);
        let at = u32::from_be_bytes(location.get(4..8)?.try_into().ok()?);
        let segment = self.segment(number)?;
        Some(Entry { segment, at })
    }

    /// Entries of one segment from an offset on, in order; ends where the log ends.
    pub fn entries(&self, segment: &Arc<Segment>, from: usize) -> Vec<Entry> {
        entries_of(segment, from).collect()
    }

    /// Where the next entry goes in the last segment, after all that are there: for `open`. `torn`: behind
    /// the last entry there may be others, in front of which one is missing; they would be read as entries
    /// once the gap is filled.
    pub fn resume(&self, end: usize, torn: bool) {
        let mut cursor = self.cursor.lock();
        cursor.at = end;
        if let Some(segment) = cursor.segment.as_ref().filter(|_| torn) {
            segment.clear_from(end);
        }
        let number = cursor.segment.as_ref().map_or(0, |s| s.number);
        self.own_from.store(position(number, end as u32), Ordering::Release);
    }

    /// Adds an entry. `fill` writes its payload, at most `room` bytes, and says how long it is and its
    /// flags; when it fails, so does this, and nothing is added.
    ///
    /// Errors: ENOSPC when no further segment can be made; E2BIG for what no segment holds.
    pub fn add(
        &self,
        place: &[u8],
        cause: Cause,
        room: usize,
        fill: impl FnOnce(&mut [u8], &Entry) -> Res<(usize, u16)>,
    ) -> Res<Entry> {
        let entry = self.reserve(place.len(), room)?;
        // SAFETY: the entry is ours until it is complete; room for it was reserved.
        unsafe {
            let at = entry.segment.at(entry.at as usize);
            let head = at.cast::<EntryHead>();
            (*head).low = cause.low;
            (*head).clock = cause.clock_ns.unwrap_or_else(now_ns);
            (*head).author = cause.author;
            std::ptr::copy_nonoverlapping(place.as_ptr(), at.add(ENTRY_HEAD), place.len());
            let payload = std::slice::from_raw_parts_mut(at.add(payload_at(place.len())), room);
            match fill(payload, &entry) {
                Ok((len, flags)) => {
                    (*head).payload_len = len.min(room) as u32;
                    (*head).flags = flags;
                    (*head).crc = entry.crc();
                    (*head).state.store(COMPLETE, Ordering::Release);
                    Ok(entry)
                }
                Err(e) => {
                    (*head).state.store(VOID, Ordering::Release);
                    Err(e)
                }
            }
        }
    }

    fn reserve(&self, place_len: usize, room: usize) -> Res<Entry> {
        let len = (payload_at(place_len) + room + 15) & !15;
        let mut cursor = self.cursor.lock();
        let segment = self.with_room(&mut cursor, len)?;
        let entry = Entry { segment, at: cursor.at as u32 };
        // SAFETY: the space behind the last entry is zero and nobody else's.
        unsafe {
            let head = entry.segment.at(cursor.at).cast::<EntryHead>();
            (*head).place_len = place_len as u16;
            (*head).payload_len = 0;
            (*head).state.store(WRITING, Ordering::Relaxed);
            (*head).stamp.store(0, Ordering::Relaxed);
            (*head).len.store(len as u32, Ordering::Release);
        }
        cursor.at += len;
        cursor.queue.push_back(entry.clone());
        Ok(entry)
    }

    /// No segment is made that would take more than this in all.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Release);
    }

    /// seq of the newest change in a segment that is full; `None` while one of them is under way.
    pub fn newest(&self, segment: &Arc<Segment>) -> Option<u64> {
        let known = segment.newest.load(Ordering::Acquire);
        if known > 0 {
            return Some(known);
        }
        let own_from = self.own_from.load(Ordering::Acquire);
        let mut newest = 0;
        for entry in self.entries(segment, 0).into_iter().filter(|e| !e.is_void()) {
            match entry.stamp() {
                // Nobody will ever complete or stamp it.
                0 if entry.position() < own_from => entry.void(),
                0 => return None,
                stamp => newest = newest.max(stamp),
            }
        }
        segment.newest.store(newest, Ordering::Release);
        Some(newest)
    }

    /// The segment that is filled, with room for so many bytes. E2BIG: an empty one has less.
    fn with_room(&self, cursor: &mut Cursor, len: usize) -> Res<Arc<Segment>> {
        // Not ENOSPC: to free segments does not help.
        if SEGMENT_HEADER + len + ENTRY_HEAD > SEGMENT_BYTES {
            return Err(Errno(libc::E2BIG));
        }
        if let Some(segment) = &cursor.segment {
            if cursor.at + len + ENTRY_HEAD <= SEGMENT_BYTES {
                return Ok(segment.clone());
            }
        }
        let segment = self.grow(cursor.losing > 0)?;
        (cursor.segment, cursor.at) = (Some(segment.clone()), SEGMENT_HEADER);
        Ok(segment)
    }

    /// Makes sure of room for so many bytes.
    pub fn prepare(&self, len: usize) -> Res<()> {
        self.with_room(&mut self.cursor.lock(), len).map(|_| ())
    }

    /// A further segment. Called with the cursor held: nobody else makes one.
    fn grow(&self, losing: bool) -> Res<Arc<Segment>> {
        let (count, last) = {
            let segments = self.segments.read();
            (segments.len(), segments.keys().next_back().copied().unwrap_or(0))
        };
        if (count + 1) as u64 * SEGMENT_BYTES as u64 > self.limit.load(Ordering::Acquire) {
            return Err(Errno(libc::ENOSPC));
        }
        let number = last + 1;
        let path = segment_path(&self.directory, number);
        let segment = Arc::new(Segment::open(&path, number, &self.uuid)?);
        let head = segment.head();
        head.floor.store(self.noted(losing), Ordering::Release);
        head.unproven.store(self.unproven.load(Ordering::Acquire), Ordering::Release);
        segment.adopt();
        // Older segments may go from now on, and with them what they say of the floor.
        segment.sync().inspect_err(|_| {
            let _ = std::fs::remove_file(&path);
        })?;
        self.segments.write().insert(number, segment.clone());
        Ok(segment)
    }

    pub fn queue<T>(&self, f: impl FnOnce(&mut VecDeque<Entry>) -> T) -> T {
        f(&mut self.cursor.lock().queue)
    }

    /// Where the next entry will stand, as `Entry::position`. What was read before this call has nothing of
    /// the effect of an entry at or behind it; of all earlier changes of an object, but the last one, the
    /// entries are found after it: see `View::layers`.
    pub fn end(&self) -> u64 {
        let cursor = self.cursor.lock();
        cursor.segment.as_ref().map_or(0, |s| position(s.number, cursor.at as u32))
    }

    /// The segment that is being filled.
    pub fn current(&self) -> u32 {
        self.cursor.lock().segment.as_ref().map_or(0, |s| s.number)
    }

    fn noted(&self, losing: bool) -> u64 {
        self.floor.load(Ordering::Acquire) | if losing { LOSING } else { 0 }
    }

    /// Views before `floor` are not possible from now on; outlives the machine.
    pub fn set_floor(&self, floor: u64) {
        self.note_floor(floor);
        self.sync_floor();
    }

    /// The same, which outlives the process only.
    pub fn note_floor(&self, floor: u64) {
        self.note(floor, |_| {});
    }

    /// A change that begins to lose the moments before it, or one (`false`) that has got its seq, or
    /// failed. Outlives the process only.
    pub fn note_losing(&self, begins: bool, floor: u64) {
        self.note(floor, |losing| {
            *losing = if begins { *losing + 1 } else { losing.saturating_sub(1) };
        });
    }

    fn note(&self, floor: u64, count: impl FnOnce(&mut usize)) {
        // Segments go from the oldest on; the one that is filled stays.
        let mut cursor = self.cursor.lock();
        self.floor.fetch_max(floor, Ordering::AcqRel);
        count(&mut cursor.losing);
        if let Some(current) = &cursor.segment {
            current.head().floor.store(self.noted(cursor.losing > 0), Ordering::Release);
        }
    }

    /// Writes what is noted of the floor to the disk.
    pub fn sync_floor(&self) {
        let current = self.cursor.lock().segment.clone();
        if let Some(current) = current {
            let _ = current.sync();
        }
    }

    /// The machine had gone down: views before `seq` may lack something, for as long as there are any.
    pub fn outlive(&self, seq: u64) {
        self.unproven.fetch_max(seq, Ordering::AcqRel);
        let current = self.cursor.lock().segment.clone();
        if let Some(current) = &current {
            current.head().unproven.fetch_max(seq, Ordering::AcqRel);
            current.adopt();
            let _ = current.sync();
        }
    }

    pub fn unproven(&self) -> u64 {
        self.unproven.load(Ordering::Acquire)
    }

    /// Deletes a segment; who reads it keeps its memory.
    pub fn remove(&self, number: u32) {
        self.segments.write().remove(&number);
        let _ = std::fs::remove_file(segment_path(&self.directory, number));
    }

    /// Marks an orderly end: all of the history is on the disk, or an error. Nothing may be added any more.
    pub fn mark_clean(&self) -> Res<()> {
        self.segments().iter().try_for_each(|segment| segment.sync())?;
        let current = self.cursor.lock().segment.clone();
        current.map_or(Ok(()), |segment| segment.mark_clean())
    }

    /// Writes the newest segments to the disk.
    pub fn sync(&self) {
        let newest: Vec<_> = self.segments.read().values().rev().take(2).cloned().collect();
        for segment in newest {
            let _ = segment.sync();
        }
    }
}

/// Entries of one segment from an offset on, in order; ends where the log ends.
pub fn entries_of(segment: &Arc<Segment>, from: usize) -> impl Iterator<Item = Entry> + '_ {
    let mut at = from.max(SEGMENT_HEADER);
    std::iter::from_fn(move || {
        while at + ENTRY_HEAD <= SEGMENT_BYTES {
            let head = segment.entry_head(at);
            let len = head.len.load(Ordering::Acquire) as usize;
            if len < ENTRY_HEAD || len % 16 != 0 || at + len > SEGMENT_BYTES {
                break;
            }
            let used = payload_at(head.place_len as usize) + head.payload_len as usize;
            let here = at;
            at += len;
            if used <= len {
                return Some(Entry { segment: segment.clone(), at: here as u32 });
            }
        }
        None
    })
}

pub fn now_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: ts is a valid out-pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}
