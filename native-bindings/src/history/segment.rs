//! Segments of the log, and the entries in them, as they lie in memory and on the disk.

use super::limits::SEGMENT_BYTES;
use crate::interceptor::errno::{check, Errno, Res};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

const MAGIC: [u8; 4] = *b"HFHL";
/// 2: attributes may tell where their object is. 3: a header may have a mark of an orderly end. What older
/// versions have is read as it is.
const VERSION: u32 = 3;
const OLDEST_VERSION: u32 = 1;

pub(super) const WRITING: u32 = 0;
pub(super) const COMPLETE: u32 = 1;
pub(super) const VOID: u32 = 2;

/// The block was a hole.
pub const FLAG_HOLE: u16 = 1;

/// In a floor: a change is under way of which something could not be kept, so that no view before it is
/// possible. Its seq is not known yet, but not below the floor.
pub(super) const LOSING: u64 = 1 << 63;

/// Who changed what the entry is the before-image of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Author {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub op: u8,
    pub comm: [u8; 16],
}

/// What an entry is added for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cause {
    pub author: Author,
    /// The change's seq is not below this.
    pub low: u64,
    /// When the change was made, ns since the epoch; `None`: now.
    pub clock_ns: Option<u64>,
}

#[repr(C)]
pub(super) struct SegmentHead {
    magic: [u8; 4],
    version: u32,
    uuid: [u8; 16],
    /// Views before this seq are not possible; with `LOSING`.
    pub floor: AtomicU64,
    pub boot_id: [u8; 16],
    /// Views before this seq may lack what was not written when the machine went down.
    pub unproven: AtomicU64,
    /// 1: nothing was added since all of the history was written to the disk.
    pub clean: AtomicU64,
}

#[repr(C)]
pub struct EntryHead {
    /// Of the whole entry, a multiple of 16; 0: the log ends here.
    pub(super) len: AtomicU32,
    pub(super) state: AtomicU32,
    /// seq of the change; 0: it is under way.
    pub(super) stamp: AtomicU64,
    /// The change's seq is not below this.
    pub(super) low: u64,
    /// Wall clock, ns since the epoch.
    pub(super) clock: u64,
    pub(super) crc: u32,
    pub(super) payload_len: u32,
    pub(super) place_len: u16,
    pub(super) flags: u16,
    pub(super) author: Author,
}

pub(super) const ENTRY_HEAD: usize = std::mem::size_of::<EntryHead>();

/// Views of the log of which this is a segment are possible from this seq on; `None` when it is none.
pub(super) fn floor_of(path: &Path) -> Option<u64> {
    let mut head = [0; FLOOR_AT + 8];
    File::open(path).ok()?.read_exact(&mut head).ok()?;
    let floor = head[FLOOR_AT..].try_into().ok()?;
    (head[..4] == MAGIC).then_some(u64::from_le_bytes(floor) & !LOSING)
}

const FLOOR_AT: usize = std::mem::offset_of!(SegmentHead, floor);

/// A mapped segment.
pub struct Segment {
    pub number: u32,
    base: *mut u8,
    file: File,
    /// seq of its newest change, once it is full and all of it is stamped; 0: not known.
    pub(super) newest: AtomicU64,
}

// SAFETY: plain memory; who reads an entry has seen that it is complete.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`.
        unsafe { libc::munmap(self.base.cast(), SEGMENT_BYTES) };
    }
}

impl Segment {
    pub(super) fn head(&self) -> &SegmentHead {
        // SAFETY: the mapping starts with the header.
        unsafe { &*self.base.cast::<SegmentHead>() }
    }

    /// Opens a segment, or makes one. EINVAL for another volume's or version's.
    ///
    /// One without a header belongs to no boot of the machine until it is adopted: that its file is
    /// there and its header is not may mean that the power was lost.
    pub(super) fn open(path: &Path, number: u32, uuid: &[u8; 16]) -> Res<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)?;
        if file.metadata()?.len() < SEGMENT_BYTES as u64 {
            // SAFETY: plain call on an open file.
            let done =
                check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, SEGMENT_BYTES as i64) });
            if let Err(e) = done {
                let _ = std::fs::remove_file(path);
                return Err(e);
            }
        }
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping of a file that is long enough.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), SEGMENT_BYTES, prot, flags, file.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let segment = Self { number, base: base.cast(), file, newest: AtomicU64::new(0) };
        if segment.head().magic == [0; 4] {
            // SAFETY: nobody else has the mapping yet.
            unsafe {
                let head = segment.base.cast::<SegmentHead>();
                (*head).version = VERSION;
                (*head).uuid = *uuid;
                (*head).magic = MAGIC;
            }
        }
        let head = segment.head();
        let known = (OLDEST_VERSION..=VERSION).contains(&head.version);
        if head.magic != MAGIC || !known || head.uuid != *uuid {
            return Err(Errno(libc::EINVAL));
        }
        // SAFETY: nobody else has the mapping yet.
        unsafe { (*segment.base.cast::<SegmentHead>()).version = VERSION };
        Ok(segment)
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.head().boot_id != [0; 16]
    }

    pub(super) fn mark_clean(&self) -> Res<()> {
        self.head().clean.store(1, Ordering::Release);
        self.sync()
    }

    /// Takes the mark of an orderly end away, so that it says nothing of what is added from now on.
    /// Returns whether there was one. While nobody else reads the boot id.
    pub(super) fn take_clean(&self) -> bool {
        if self.head().clean.swap(0, Ordering::AcqRel) != 1 {
            return false;
        }
        self.adopt();
        self.sync().is_ok()
    }

    /// What lies from `offset` on is no entry, whatever a loss of power left there. Before anything is
    /// added behind it.
    pub(super) fn clear_from(&self, offset: usize) {
        let rest = SEGMENT_BYTES.saturating_sub(offset);
        // SAFETY: within the mapping; nobody reads behind the last entry.
        let rest = unsafe { std::slice::from_raw_parts_mut(self.base.add(offset), rest) };
        // What is zero already needs no write to the disk.
        for page in rest.chunks_mut(4096).filter(|page| page.iter().any(|b| *b != 0)) {
            page.fill(0);
        }
    }

    /// It goes on in this boot of the machine. While nobody else reads that.
    pub(super) fn adopt(&self) {
        // SAFETY: the mapping starts with the header; nobody reads this field after `open`.
        unsafe { (*self.base.cast::<SegmentHead>()).boot_id = crate::boot::boot_id() };
    }

    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < SEGMENT_BYTES);
        // SAFETY: within the mapping.
        unsafe { self.base.add(offset) }
    }

    pub(super) fn entry_head(&self, offset: usize) -> &EntryHead {
        // SAFETY: offsets of entries are multiples of 16 with room for a head before the end.
        unsafe { &*self.at(offset).cast::<EntryHead>() }
    }

    /// Writes what was added to the disk.
    pub fn sync(&self) -> Res<()> {
        // SAFETY: plain call on an open file.
        check(unsafe { libc::fdatasync(self.file.as_raw_fd()) })?;
        Ok(())
    }
}

/// An entry in a segment.
#[derive(Clone)]
pub struct Entry {
    pub segment: Arc<Segment>,
    pub at: u32,
}

impl Entry {
    pub(super) fn head(&self) -> &EntryHead {
        self.segment.entry_head(self.at as usize)
    }

    fn bytes(&self, from: usize, len: usize) -> &[u8] {
        // SAFETY: lengths were checked when the entry was made or found; complete entries never change.
        unsafe { std::slice::from_raw_parts(self.segment.at(self.at as usize + from), len) }
    }

    pub fn place(&self) -> &[u8] {
        self.bytes(ENTRY_HEAD, self.head().place_len as usize)
    }

    pub fn payload(&self) -> &[u8] {
        let from = payload_at(self.head().place_len as usize);
        self.bytes(from, self.head().payload_len as usize)
    }

    pub fn is_hole(&self) -> bool {
        self.head().flags & FLAG_HOLE != 0
    }

    /// 0 while the change is under way.
    pub fn stamp(&self) -> u64 {
        self.head().stamp.load(Ordering::Acquire)
    }

    pub fn low(&self) -> u64 {
        self.head().low
    }

    pub fn clock_ns(&self) -> u64 {
        self.head().clock
    }

    pub fn author(&self) -> Author {
        self.head().author
    }

    pub fn set_stamp(&self, seq: u64) {
        self.head().stamp.store(seq, Ordering::Release);
    }

    /// Is it the before-image of a change after `seq`?
    pub fn is_after(&self, seq: u64) -> bool {
        match self.stamp() {
            0 => self.low() > seq,
            stamp => stamp > seq,
        }
    }

    /// The same, once everything that was under way when somebody began to look at `seq` has its seq. What
    /// still has none gets a later one, even if it took its `low` before and was only then added.
    pub fn is_after_settled(&self, seq: u64) -> bool {
        let stamp = self.stamp();
        stamp == 0 || stamp > seq
    }

    /// It was never complete, and whoever was to complete it is gone.
    pub(super) fn void(&self) {
        self.set_stamp(0);
        self.head().state.store(VOID, Ordering::Release);
    }

    /// Its place in the log, in the order of the log.
    pub(super) fn position(&self) -> u64 {
        position(self.segment.number, self.at)
    }

    fn state(&self) -> u32 {
        self.head().state.load(Ordering::Acquire)
    }

    pub fn is_complete(&self) -> bool {
        self.state() == COMPLETE
    }

    pub fn is_void(&self) -> bool {
        self.state() == VOID
    }

    /// Where it is, as the index keeps it.
    pub fn location(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.segment.number.to_be_bytes());
        bytes[4..].copy_from_slice(&self.at.to_be_bytes());
        bytes
    }

    /// Where the entry behind it begins.
    pub fn end(&self) -> [u8; 8] {
        Entry { segment: self.segment.clone(), at: self.end_at() }.location()
    }

    /// The same, in its segment.
    pub(super) fn end_at(&self) -> u32 {
        self.at + self.head().len.load(Ordering::Acquire)
    }

    pub(super) fn crc(&self) -> u32 {
        let head = self.head();
        let mut crc = crc32c::crc32c(&head.low.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &head.flags.to_le_bytes());
        crc = crc32c::crc32c_append(crc, self.place());
        crc32c::crc32c_append(crc, self.payload())
    }

    /// Its bytes are those that were added: false after a power loss that caught it half written.
    pub fn is_whole(&self) -> bool {
        self.is_complete() && self.head().crc == self.crc()
    }
}

pub(super) fn position(number: u32, at: u32) -> u64 {
    u64::from(number) << 32 | u64::from(at)
}

pub(super) fn payload_at(place_len: usize) -> usize {
    (ENTRY_HEAD + place_len + 15) & !15
}
