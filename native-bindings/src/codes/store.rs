//! The codes that are known, with a valid flag each: a mapped table of fixed size.
//!
//! A cache: any entry may be missing, and the segment is read then. What must never happen is an entry
//! that is valid and wrong. So a change takes the flag away *before* it happens, under the object's
//! effect lock; a code is begun under that lock too, its bytes are read without it, and it becomes valid
//! only if no change came in between. The file outlives the process; after a power loss, when the disk
//! may have kept old entries beside new data, all of it is forgotten. Layout: docs/FORMAT.md, section 6.

use super::{segments, Code, STATE_MASK};
use crate::boot::boot_id;
use crate::interceptor::errno::{check, Errno};
use crate::record::{u64_at, Oid, SEGMENT_BYTES};
use parking_lot::Mutex;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: u64 = u64::from_le_bytes(*b"HFCODES1");
const HEADER_BYTES: usize = 4096;
const ENTRY_WORDS: usize = 4;
const ENTRY_BYTES: usize = ENTRY_WORDS * 8;
/// Entries looked at for one key; beyond it one of them makes room.
const PROBES: u64 = 8;
/// Fewest and most entries: 2 MiB to 2 GiB on the disk; only what is used takes up memory.
const ENTRIES_MIN: u64 = 1 << 16;
const ENTRIES_MAX: u64 = 1 << 26;

/// Words of the header.
const AT_MAGIC: usize = 0;
const AT_BOOT: usize = 1;
const AT_UUID: usize = 3;
const AT_ENTRIES: usize = 5;
const AT_CLOSED: usize = 6;

/// What an entry's last word says in its two lowest bits.
const COMPUTING: u64 = 1;
const VALID: u64 = 3;

/// A code that is being computed; its number tells it from the one computed before.
#[derive(Clone, Copy)]
pub struct Begun {
    at: usize,
    word: u64,
}

pub struct CodeStore {
    map: *mut u8,
    len: usize,
    file: File,
    mask: u64,
    /// Held by whoever puts a key into an entry.
    insert: Mutex<u64>,
    /// Codes that changes have made invalid since start: the sweep has something to do.
    invalidated: AtomicU64,
    valid: AtomicU64,
}

// SAFETY: the mapping is only reached through atomics.
unsafe impl Send for CodeStore {}
// SAFETY: as above.
unsafe impl Sync for CodeStore {}

fn mix(x: u64) -> u64 {
    // The finaliser of splitmix64 (Steele, Lea, Flood 2014).
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The two words of a key; never both zero, which is an entry that was never used.
fn key(oid: Oid, segment: u64) -> (u64, u64) {
    (oid.ino | 1 << 63, mix(oid.gen) ^ mix(segment.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// As long as this, without holes: a store to a mapping cannot report a full disk, it kills.
fn allocate(file: &File, len: usize) -> std::io::Result<()> {
    file.set_len(len as u64)?;
    // SAFETY: plain call on an open descriptor.
    match check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as i64) }) {
        Err(Errno(e)) if e != libc::EOPNOTSUPP => Err(std::io::Error::from_raw_os_error(e)),
        _ => Ok(()),
    }
}

/// Entries for this many bytes of data, with room to spare.
fn entries_for(bytes: u64) -> u64 {
    (bytes / SEGMENT_BYTES * 2).next_power_of_two().clamp(ENTRIES_MIN, ENTRIES_MAX)
}

impl CodeStore {
    /// Opens the table or makes it; codes of before a power loss, of another volume, or in a table too
    /// small for `data_bytes` by far are forgotten. `keep`: nobody can have changed a file since the last
    /// process with the table open has ended. ENOSPC where the table does not fit. After an error there
    /// is no table: what changes now would not be noticed in it.
    pub fn open(path: &Path, uuid: [u8; 16], data_bytes: u64, keep: bool) -> std::io::Result<Self> {
        Self::open_at(boot_id(), path, uuid, data_bytes, keep).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }

    fn open_at(
        boot: [u8; 16],
        path: &Path,
        uuid: [u8; 16],
        data_bytes: u64,
        keep: bool,
    ) -> std::io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let wanted = entries_for(data_bytes);
        let bytes = |entries: u64| HEADER_BYTES + entries as usize * ENTRY_BYTES;
        let head = Self::read_header(&file);
        let fits = head.is_some_and(|h| {
            keep && h[AT_MAGIC] == MAGIC
                && h[AT_UUID..AT_UUID + 2] == words(&uuid)
                && (h[AT_CLOSED] == 1 || h[AT_BOOT..AT_BOOT + 2] == words(&boot))
                && h[AT_ENTRIES].is_power_of_two()
                && h[AT_ENTRIES] >= wanted / 4
                && file.metadata().is_ok_and(|m| m.len() == bytes(h[AT_ENTRIES]) as u64)
        });
        let entries = head.filter(|_| fits).map_or(wanted, |h| h[AT_ENTRIES]);
        if !fits {
            file.set_len(0)?;
        }
        let len = bytes(entries);
        allocate(&file, len)?;
        // SAFETY: a fresh shared mapping of a file that we own; checked below.
        let map = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if map == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the mapping; entries are looked up at random, read-ahead would only cost memory.
        unsafe { libc::madvise(map, len, libc::MADV_RANDOM) };
        let store = Self {
            map: map.cast(),
            len,
            file,
            mask: entries - 1,
            insert: Mutex::new(0),
            invalidated: AtomicU64::new(u64::from(!fits)),
            valid: AtomicU64::new(0),
        };
        let put = |at: usize, v: u64| store.word(at).store(v, Ordering::Release);
        put(AT_CLOSED, 0);
        for (i, w) in words(&uuid).into_iter().enumerate() {
            put(AT_UUID + i, w);
        }
        for (i, w) in words(&boot).into_iter().enumerate() {
            put(AT_BOOT + i, w);
        }
        put(AT_ENTRIES, entries);
        put(AT_MAGIC, MAGIC);
        // A power loss from here on must find the flag down.
        store.file.sync_data()?;
        Ok(store)
    }

    fn read_header(file: &File) -> Option<[u64; 8]> {
        let mut bytes = [0; 64];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).ok()?;
        Some(std::array::from_fn(|i| u64_at(&bytes, i * 8)))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!((at + 1) * 8 <= self.len);
        // SAFETY: aligned and inside the mapping; only reached through atomics.
        unsafe { &*self.map.cast::<AtomicU64>().add(at) }
    }

    /// First word of entry `i`.
    fn entry(&self, i: u64) -> usize {
        HEADER_BYTES / 8 + (i & self.mask) as usize * ENTRY_WORDS
    }

    fn find(&self, (k0, k1): (u64, u64)) -> Option<usize> {
        let home = mix(k0 ^ k1.rotate_left(32));
        (0..PROBES).map(|i| self.entry(home.wrapping_add(i))).find(|at| {
            self.word(at + 1).load(Ordering::Relaxed) == k1
                && self.word(*at).load(Ordering::Acquire) == k0
        })
    }

    /// The code of a segment, if it is known to be right.
    pub fn get(&self, oid: Oid, segment: u64) -> Option<Code> {
        let at = self.find(key(oid, segment))?;
        let last = self.word(at + 3).load(Ordering::Acquire);
        let first = self.word(at + 2).load(Ordering::Acquire);
        // Unchanged in between, or it is being replaced.
        let same = self.word(at + 3).load(Ordering::Acquire) == last;
        (same && last & STATE_MASK == VALID).then_some(Code([first, last & !STATE_MASK]))
    }

    /// `[from, to)` is about to change. Under the object's effect lock, before the change.
    pub fn invalidate(&self, oid: Oid, from: u64, to: u64) {
        if to <= from {
            return;
        }
        let range = segments(from, to);
        if range.end - range.start > self.mask / 4 {
            return self.invalidate_object(oid);
        }
        for segment in range {
            if let Some(at) = self.find(key(oid, segment)) {
                self.clear(at);
            }
        }
    }

    /// All segments of the object, wherever they are.
    pub fn invalidate_object(&self, oid: Oid) {
        let (k0, _) = key(oid, 0);
        for i in 0..=self.mask {
            let at = self.entry(i);
            if self.word(at).load(Ordering::Relaxed) == k0 {
                self.clear(at);
            }
        }
    }

    fn clear(&self, at: usize) {
        let word = self.word(at + 3);
        if word.load(Ordering::Relaxed) & STATE_MASK != 0 {
            let before = word.swap(0, Ordering::AcqRel);
            if before & STATE_MASK == VALID {
                self.valid.fetch_sub(1, Ordering::Relaxed);
            }
            self.invalidated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A code is going to be computed. Under the object's effect lock.
    pub fn begin(&self, oid: Oid, segment: u64) -> Begun {
        let (k0, k1) = key(oid, segment);
        let mut count = self.insert.lock();
        *count += 1;
        let word = *count << 2 | COMPUTING;
        let at = self.find((k0, k1)).unwrap_or_else(|| {
            let home = mix(k0 ^ k1.rotate_left(32));
            let entries = (0..PROBES).map(|i| self.entry(home.wrapping_add(i)));
            let free = entries
                .clone()
                .find(|at| self.word(at + 3).load(Ordering::Relaxed) & STATE_MASK == 0);
            let at = free.unwrap_or_else(|| self.entry(home.wrapping_add(*count % PROBES)));
            self.clear(at);
            self.word(at + 1).store(k1, Ordering::Relaxed);
            self.word(at).store(k0, Ordering::Release);
            at
        });
        let before = self.word(at + 3).swap(word, Ordering::AcqRel);
        if before & STATE_MASK == VALID {
            self.valid.fetch_sub(1, Ordering::Relaxed);
        }
        Begun { at, word }
    }

    /// The code is this, unless the segment was changed since `begin`.
    pub fn complete(&self, begun: Begun, code: Code) {
        // Nobody begins the same one anew meanwhile.
        let _one = self.insert.lock();
        let last = self.word(begun.at + 3);
        if last.load(Ordering::Acquire) != begun.word {
            return;
        }
        self.word(begun.at + 2).store(code.0[0], Ordering::Release);
        let done = code.0[1] | VALID;
        if last.compare_exchange(begun.word, done, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.valid.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Rises with every code that a change has made invalid.
    pub fn invalidated(&self) -> u64 {
        self.invalidated.load(Ordering::Relaxed)
    }

    /// Codes made valid by this process, less those that changed since.
    pub fn valid(&self) -> u64 {
        self.valid.load(Ordering::Relaxed)
    }

    /// Everything is on the disk: the codes are good after a power loss as well.
    pub fn close(&self) -> std::io::Result<()> {
        // SAFETY: the mapping.
        unsafe { libc::msync(self.map.cast(), self.len, libc::MS_SYNC) };
        self.word(AT_CLOSED).store(1, Ordering::Release);
        self.file.sync_data()
    }
}

impl Drop for CodeStore {
    fn drop(&mut self) {
        // SAFETY: a mapping of this length that nothing else refers to.
        unsafe { libc::munmap(self.map.cast(), self.len) };
    }
}

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    [u64_at(bytes, 0), u64_at(bytes, 8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: [u8; 16] = [7; 16];

    fn open(name: &str, boot: [u8; 16]) -> CodeStore {
        let path = std::env::temp_dir().join(format!("codes-{name}-{}", std::process::id()));
        CodeStore::open_at(boot, &path, [1; 16], 1 << 30, true).unwrap()
    }

    fn remove(name: &str) {
        let path = std::env::temp_dir().join(format!("codes-{name}-{}", std::process::id()));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn all_of_the_table_has_blocks() {
        use std::os::unix::fs::MetadataExt;
        let path = std::env::temp_dir().join(format!("codes-blocks-{}", std::process::id()));
        File::create(&path).unwrap().set_len(HEADER_BYTES as u64).unwrap();
        for _ in 0..2 {
            let store = CodeStore::open_at(BOOT, &path, [1; 16], 1 << 30, true).unwrap();
            let meta = store.file.metadata().unwrap();
            assert!(meta.blocks() * 512 >= store.len as u64, "{} blocks", meta.blocks());
        }
        remove("blocks");
    }

    #[test]
    fn code_store_knows_what_was_completed_and_not_changed() {
        let store = open("basic", BOOT);
        let oid = Oid { ino: 5, gen: 6 };
        let code = Code::of(b"x");
        assert_eq!(store.get(oid, 0), None);
        store.complete(store.begin(oid, 0), code);
        assert_eq!(store.get(oid, 0), Some(code));
        assert_eq!(store.get(oid, 1), None);
        store.invalidate(oid, 10, 11);
        assert_eq!(store.get(oid, 0), None);
        let begun = store.begin(oid, 0);
        store.invalidate(oid, 0, 1);
        store.complete(begun, code);
        assert_eq!(store.get(oid, 0), None, "changed while it was computed");
        let begun = store.begin(oid, 0);
        let later = store.begin(oid, 0);
        store.complete(begun, code);
        assert_eq!(store.get(oid, 0), None, "begun anew meanwhile");
        store.complete(later, code);
        assert_eq!(store.get(oid, 0), Some(code));
        store.invalidate_object(oid);
        assert_eq!(store.get(oid, 0), None);
        remove("basic");
    }

    #[test]
    fn code_store_survives_the_process_and_forgets_at_a_power_loss() {
        let oid = Oid { ino: 5, gen: 6 };
        let code = Code::of(b"x");
        let store = open("power", BOOT);
        store.complete(store.begin(oid, 3), code);
        drop(store);
        let store = open("power", BOOT);
        assert_eq!(store.get(oid, 3), Some(code), "killed");
        drop(store);
        let store = open("power", [8; 16]);
        assert_eq!(store.get(oid, 3), None, "another boot");
        store.complete(store.begin(oid, 3), code);
        store.close().unwrap();
        drop(store);
        let store = open("power", [9; 16]);
        assert_eq!(store.get(oid, 3), Some(code), "closed in order before");
        remove("power");
    }

    #[test]
    fn code_store_may_forget_but_never_lies() {
        let store = open("crowd", BOOT);
        let code = |i: u64| Code::of(&i.to_le_bytes());
        for i in 1..200_000 {
            store.complete(store.begin(Oid { ino: i, gen: 1 }, i % 3), code(i));
        }
        let known = (1..200_000).filter(|i| {
            let got = store.get(Oid { ino: *i, gen: 1 }, i % 3);
            assert!(got.is_none() || got == Some(code(*i)));
            got.is_some()
        });
        assert!(known.count() > 25_000);
        remove("crowd");
    }
}
