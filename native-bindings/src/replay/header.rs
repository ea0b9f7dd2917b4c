//! The header of the state directory: the position, mapped, so that advancing it costs a store.
//!
//! Layout, version 1, in docs/FORMAT.md section 3. Invariant: what dies with the process is nothing;
//! stores are made in the order in which a reader must find them, and a position of several words
//! becomes valid by the store of one.

use super::error::{Done, Fault};
use super::handle::Handle;
use super::limits::{HANDLE_BYTES_MAX, UNSEALED_MAX};
use super::sys;
use super::Start;
use crate::record::Oid;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

pub const MAGIC: [u8; 4] = *b"HFRS";
pub const VERSION: u8 = 1;
pub const HEADER_BYTES: usize = 512;
const FILE_BYTES: usize = 4096;

const AT_STATE: usize = 5;
const AT_UUID: usize = 8;
const AT_BOOT: usize = 24;
const AT_ROOT: usize = 40;
const AT_ACTIVE: usize = 80;
const AT_SLOTS: usize = 88;
const SLOT_BYTES: usize = 32;
const AT_EFFECT_SEQ: usize = 152;
const AT_EFFECT_CHAIN: usize = 160;
const AT_CEILING: usize = 168;
const AT_SCANS: usize = 176;
const AT_MAP: usize = 184;
const AT_SYNCED: usize = 200;
const SYNCED_BYTES: usize = 64;
const AT_SYNCED_CRC: usize = AT_SYNCED + SYNCED_BYTES;
const AT_UNSEALED: usize = 280;
const UNSEALED_BYTES: usize = 24;

/// Where replay is, at the end of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub seq: u64,
    pub chain: [u8; 8],
    pub records: u64,
    pub bytes: u64,
}

/// A moment whose effects are all on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub place: Place,
    /// Inside the frame after `place`: the last record that had its effect, and that frame's chain.
    pub effect_seq: u64,
    pub effect_chain: [u8; 8],
    pub scans: u64,
    pub map: MapEnd,
}

/// Which file holds the object map, and how long it is: one word, so that both change together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapEnd {
    pub generation: u16,
    pub len: u64,
}

impl MapEnd {
    fn from_word(w: u64) -> Self {
        Self { generation: (w >> 48) as u16, len: w & ((1 << 48) - 1) }
    }

    fn word(self) -> u64 {
        u64::from(self.generation) << 48 | self.len
    }
}

/// The mapped header.
pub struct Header {
    map: *mut u8,
    file: File,
}

// SAFETY: the mapping is owned by this value alone and moves with it.
unsafe impl Send for Header {}

impl Header {
    pub fn open(file: File) -> Done<Self> {
        sys::ftruncate(file.as_raw_fd(), FILE_BYTES as u64)?;
        match sys::fallocate(file.as_raw_fd(), 0, 0, FILE_BYTES as u64) {
            Err(e) if e.is(libc::EOPNOTSUPP) => {}
            r => r?,
        }
        // SAFETY: a fresh shared mapping of a file that we own; checked below.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                FILE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(sys::fault("mmap"));
        }
        Ok(Self { map: p.cast(), file })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at & 7 == 0 && at + 8 <= FILE_BYTES);
        // SAFETY: aligned, inside the mapping, and only reached through atomics of this thread.
        unsafe { &*self.map.add(at).cast::<AtomicU64>() }
    }

    fn get(&self, at: usize) -> u64 {
        u64::from_le(self.word(at).load(Ordering::Acquire))
    }

    fn set(&self, at: usize, v: u64) {
        #[cfg(test)]
        super::tests::crash::point();
        self.word(at).store(v.to_le(), Ordering::Release);
    }

    fn get_bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        debug_assert!(at + N <= FILE_BYTES);
        // SAFETY: inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(self.map.add(at), out.as_mut_ptr(), N) };
        out
    }

    fn set_bytes(&self, at: usize, bytes: &[u8]) {
        debug_assert!(at + bytes.len() <= FILE_BYTES);
        // SAFETY: inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.add(at), bytes.len()) };
    }

    fn chain_at(&self, at: usize) -> [u8; 8] {
        self.get_bytes(at)
    }

    /// Nothing was ever written here, or its writer died before it was done.
    pub fn is_blank(&self) -> bool {
        self.word(0).load(Ordering::Acquire) == 0
    }

    /// Makes a new header; the magic comes last, so that half a header is a blank one.
    pub fn create(&self, uuid: [u8; 16], boot: [u8; 16], root: &Handle, start: &Start) {
        self.set_bytes(0, &[0; FILE_BYTES]);
        self.set_bytes(AT_UUID, &uuid);
        self.set_bytes(AT_BOOT, &boot);
        self.set_root(root);
        let place = Place { seq: start.seq, chain: start.chain, ..Place::default() };
        let (effect_seq, effect_chain, scans) = (start.seq, start.chain, start.scans);
        let map = MapEnd::default();
        let begin = Checkpoint { place, effect_seq, effect_chain, scans, map };
        self.rewind(&begin, 0);
        self.set_checkpoint(&begin);
        let mut first = [0; 8];
        first[..4].copy_from_slice(&MAGIC);
        first[4] = VERSION;
        first[6..8].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        self.word(0).store(u64::from_ne_bytes(first), Ordering::Release);
    }

    pub fn magic_version(&self) -> ([u8; 4], u8) {
        (self.get_bytes(0), self.get_bytes::<1>(4)[0])
    }

    pub fn is_closed(&self) -> bool {
        self.get_bytes::<1>(AT_STATE)[0] == 1
    }

    pub fn set_closed(&self, closed: bool) {
        self.set_bytes(AT_STATE, &[u8::from(closed)]);
    }

    pub fn uuid(&self) -> [u8; 16] {
        self.get_bytes(AT_UUID)
    }

    pub fn boot(&self) -> [u8; 16] {
        self.get_bytes(AT_BOOT)
    }

    pub fn set_boot(&self, boot: [u8; 16]) {
        self.set_bytes(AT_BOOT, &boot);
    }

    fn set_root(&self, root: &Handle) {
        self.set_bytes(AT_ROOT, &root.kind.to_le_bytes());
        self.set_bytes(AT_ROOT + 4, &u32::from(root.len).to_le_bytes());
        self.set_bytes(AT_ROOT + 8, &root.bytes);
    }

    pub fn root(&self) -> Option<Handle> {
        let kind = i32::from_le_bytes(self.get_bytes(AT_ROOT));
        let len = u32::from_le_bytes(self.get_bytes(AT_ROOT + 4)) as usize;
        let bytes: [u8; HANDLE_BYTES_MAX] = self.get_bytes(AT_ROOT + 8);
        Handle::new(kind, bytes.get(..len)?)
    }

    fn place_at(&self, at: usize) -> Place {
        Place {
            seq: self.get(at),
            chain: self.chain_at(at + 8),
            records: self.get(at + 16),
            bytes: self.get(at + 24),
        }
    }

    fn set_place_at(&self, at: usize, p: &Place) {
        self.set(at, p.seq);
        self.set_bytes(at + 8, &p.chain);
        self.set(at + 16, p.records);
        self.set(at + 24, p.bytes);
    }

    pub fn place(&self) -> Place {
        self.place_at(AT_SLOTS + SLOT_BYTES * (self.get(AT_ACTIVE) as usize & 1))
    }

    /// The frame up to `p` is applied, times included.
    pub fn set_place(&self, p: &Place) {
        let other = (self.get(AT_ACTIVE) & 1) ^ 1;
        self.set_place_at(AT_SLOTS + SLOT_BYTES * other as usize, p);
        self.set(AT_ACTIVE, other);
    }

    /// Last record that had its effect.
    pub fn effect_seq(&self) -> u64 {
        self.get(AT_EFFECT_SEQ)
    }

    pub fn set_effect_seq(&self, seq: u64) {
        self.set(AT_EFFECT_SEQ, seq);
    }

    /// Chain value of the frame being applied; zero or the place's own when there is none.
    pub fn effect_chain(&self) -> [u8; 8] {
        self.chain_at(AT_EFFECT_CHAIN)
    }

    pub fn set_effect_chain(&self, chain: [u8; 8]) {
        self.set(AT_EFFECT_CHAIN, u64::from_le_bytes(chain));
    }

    /// Records up to here may have touched the disk before a power loss; 0: none is in doubt.
    pub fn ceiling(&self) -> u64 {
        self.get(AT_CEILING)
    }

    pub fn set_ceiling(&self, seq: u64) {
        self.set(AT_CEILING, seq);
    }

    /// Scans that have begun and not ended, one bit per kind.
    pub fn scans(&self) -> u64 {
        self.get(AT_SCANS)
    }

    pub fn set_scans(&self, kinds: u64) {
        self.set(AT_SCANS, kinds);
    }

    pub fn map_end(&self) -> MapEnd {
        MapEnd::from_word(self.get(AT_MAP))
    }

    pub fn set_map_end(&self, end: MapEnd) {
        self.set(AT_MAP, end.word());
    }

    /// The state of this moment, for when it has reached the disk.
    pub fn now(&self) -> Checkpoint {
        Checkpoint {
            place: self.place(),
            effect_seq: self.effect_seq(),
            effect_chain: self.effect_chain(),
            scans: self.scans(),
            map: self.map_end(),
        }
    }

    fn synced_crc(&self) -> u64 {
        u64::from(crc32c::crc32c(&self.get_bytes::<SYNCED_BYTES>(AT_SYNCED)))
    }

    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let at = AT_SYNCED;
        (self.get(AT_SYNCED_CRC) == self.synced_crc()).then(|| Checkpoint {
            place: self.place_at(at),
            effect_seq: self.get(at + 32),
            effect_chain: self.chain_at(at + 40),
            scans: self.get(at + 48),
            map: MapEnd::from_word(self.get(at + 56)),
        })
    }

    pub fn set_checkpoint(&self, c: &Checkpoint) {
        let at = AT_SYNCED;
        self.set_place_at(at, &c.place);
        self.set(at + 32, c.effect_seq);
        self.set_bytes(at + 40, &c.effect_chain);
        self.set(at + 48, c.scans);
        self.set(at + 56, c.map.word());
        self.set(AT_SYNCED_CRC, self.synced_crc());
    }

    /// Back to a checkpoint: what came after it is applied again.
    pub fn rewind(&self, c: &Checkpoint, ceiling: u64) {
        self.set_ceiling(ceiling);
        self.set_scans(c.scans);
        self.set_effect_chain(c.effect_chain);
        self.set_effect_seq(c.effect_seq);
        self.set_place(&c.place);
    }

    /// Goes on from another place of the journal; what is known of the objects stays.
    pub fn restart(&self, start: &Start) {
        let place = Place { seq: start.seq, chain: start.chain, ..Place::default() };
        let (effect_seq, effect_chain, scans) = (start.seq, start.chain, start.scans);
        let map = self.map_end();
        let begin = Checkpoint { place, effect_seq, effect_chain, scans, map };
        self.rewind(&begin, 0);
        self.set_checkpoint(&begin);
    }

    /// Objects whose attribute flags are lifted for the record being applied.
    pub fn unsealed(&self) -> Vec<(Oid, u32)> {
        (0..UNSEALED_MAX)
            .map(|i| AT_UNSEALED + i * UNSEALED_BYTES)
            .filter(|at| self.get(at + 16) >> 32 == 1)
            .map(|at| {
                let oid = Oid { ino: self.get(at), gen: self.get(at + 8) };
                (oid, self.get(at + 16) as u32)
            })
            .collect()
    }

    pub fn set_unsealed(&self, i: usize, lifted: Option<(Oid, u32)>) {
        debug_assert!(i < UNSEALED_MAX);
        let at = AT_UNSEALED + i * UNSEALED_BYTES;
        match lifted {
            Some((oid, flags)) => {
                self.set(at, oid.ino);
                self.set(at + 8, oid.gen);
                self.set(at + 16, 1 << 32 | u64::from(flags));
            }
            None => self.set(at + 16, 0),
        }
    }

    pub fn sync(&self) -> Done {
        self.file.sync_data().map_err(|e| Fault::Sys {
            call: "fdatasync",
            errno: e.raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

impl Drop for Header {
    fn drop(&mut self) {
        // SAFETY: a mapping of this length that nothing else refers to.
        unsafe { libc::munmap(self.map.cast(), FILE_BYTES) };
    }
}
