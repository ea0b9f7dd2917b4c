//! The log of acknowledgements: a header, then one 32-byte entry per returned operation.
//!
//! Entries are appended with one write each after the operation returned and before the
//! thread's next one, so the file's order is an order of completion. Each entry also says how
//! many entries existed when its operation began: those operations had returned before, which
//! is what makes a cut across threads (or volumes) checkable.
//!
//! Entry, little endian: thread u32, status u32, op u64, seen u64, zero u32, CRC-32C u32.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: &[u8; 8] = b"HFLOAD\0\x01";
const HEADER: usize = 32;
const ENTRY: usize = 32;

/// Status of an entry: the operation returned OK.
pub const OK: u32 = 0;
/// The thread ended before it began this operation; nothing is in flight.
pub const STOPPED: u32 = u32::MAX;

/// What is needed to repeat the sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    pub seed: u64,
    pub threads: u32,
    /// Share of operations that are fsync, in thousandths.
    pub fsync_permille: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub thread: u32,
    /// [`OK`], [`STOPPED`], or the errno with which the operation came back: in flight.
    pub status: u32,
    /// Number of the operation in its thread, from 1.
    pub op: u64,
    /// Entries that existed when the operation began.
    pub seen: u64,
}

/// The log while the load runs; shared by all threads.
pub struct Writer {
    file: File,
    written: AtomicU64,
}

impl Writer {
    /// Creates the log; an existing one is not overwritten.
    pub fn create(path: &Path, setup: Setup) -> std::io::Result<Writer> {
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&setup.seed.to_le_bytes());
        header.extend_from_slice(&setup.threads.to_le_bytes());
        header.extend_from_slice(&setup.fsync_permille.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        seal(&mut header);
        file.write_all(&header)?;
        Ok(Writer { file, written: AtomicU64::new(0) })
    }

    /// Entries so far; a lower bound that is right when an operation begins.
    pub fn seen(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub fn append(&self, e: Entry) -> std::io::Result<()> {
        let mut raw = Vec::with_capacity(ENTRY);
        raw.extend_from_slice(&e.thread.to_le_bytes());
        raw.extend_from_slice(&e.status.to_le_bytes());
        raw.extend_from_slice(&e.op.to_le_bytes());
        raw.extend_from_slice(&e.seen.to_le_bytes());
        raw.extend_from_slice(&[0; 4]);
        seal(&mut raw);
        (&self.file).write_all(&raw)?;
        self.written.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

fn seal(raw: &mut Vec<u8>) {
    let sum = crc32c::crc32c(raw);
    raw.extend_from_slice(&sum.to_le_bytes());
}

/// A log read back.
pub struct Log {
    pub setup: Setup,
    /// In file order.
    pub entries: Vec<Entry>,
}

/// How far one thread came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Operations `1..=acked` returned OK.
    pub acked: u64,
    /// Operation `acked + 1` may have happened.
    pub in_flight: bool,
    /// With which errno it came back, when it did.
    pub errno: Option<i32>,
}

impl Log {
    /// Reads a log. An incomplete last entry (the load was killed) is dropped.
    pub fn read(path: &Path) -> Result<Log, String> {
        let mut raw = Vec::new();
        File::open(path).and_then(|mut f| f.read_to_end(&mut raw)).map_err(|e| e.to_string())?;
        if raw.len() < HEADER || &raw[..8] != MAGIC || !sealed(&raw[..HEADER]) {
            return Err("not an acknowledgement log of version 1".into());
        }
        let setup = Setup {
            seed: u64_at(&raw, 8),
            threads: u32_at(&raw, 16),
            fsync_permille: u32_at(&raw, 20),
        };
        let mut entries = Vec::new();
        for (i, e) in raw[HEADER..].chunks_exact(ENTRY).enumerate() {
            if !sealed(e) {
                return Err(format!("entry {i} has a wrong checksum"));
            }
            entries.push(Entry {
                thread: u32_at(e, 0),
                status: u32_at(e, 4),
                op: u64_at(e, 8),
                seen: u64_at(e, 16),
            });
        }
        Ok(Log { setup, entries })
    }

    /// Checks the order within each thread and sums it up.
    pub fn progress(&self) -> Result<Vec<Progress>, String> {
        let start = Progress { in_flight: true, ..Progress::default() };
        let mut all = vec![start; self.setup.threads as usize];
        for e in &self.entries {
            let p = all.get_mut(e.thread as usize).ok_or("entry of an unknown thread")?;
            if e.op != p.acked + 1 || p.errno.is_some() || !p.in_flight {
                return Err(format!("thread {}: entry {} follows {}", e.thread, e.op, p.acked));
            }
            match e.status {
                OK => p.acked = e.op,
                STOPPED => p.in_flight = false,
                errno => p.errno = Some(errno as i32),
            }
        }
        Ok(all)
    }
}

fn sealed(raw: &[u8]) -> bool {
    let at = raw.len() - 4;
    crc32c::crc32c(&raw[..at]) == u32_at(raw, at)
}

fn u32_at(raw: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([raw[i], raw[i + 1], raw[i + 2], raw[i + 3]])
}

fn u64_at(raw: &[u8], i: usize) -> u64 {
    u64::from(u32_at(raw, i)) | u64::from(u32_at(raw, i + 4)) << 32
}
