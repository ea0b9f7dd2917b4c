//! Plans operations on file content.

use rand::Rng;

use super::catalogue::Kind;
use super::gen::{Effect, Gen, Held, Plan};
use super::op::{Fill, Op, Slot};

const PAGE: u64 = 4096;
/// Sizes stay below this, except for one in a few thousand operations.
const USUAL_END: u64 = 256 << 10;
const RARE_END: u64 = 8 << 20;

impl Gen {
    /// A length: mostly small, sometimes pages, rarely large.
    fn length(&mut self) -> u32 {
        match self.rng.random_range(0..10_000) {
            0..4000 => self.rng.random_range(1..512),
            4000..7000 => self.rng.random_range(1..8192),
            7000..9000 => self.rng.random_range(1..=8) * PAGE as u32,
            9000..9900 => self.rng.random_range(1..65536),
            9900..9985 => self.rng.random_range(1..262_144),
            9985..9999 => self.rng.random_range(1..1 << 20),
            _ => self.rng.random_range(0..4 << 20),
        }
    }

    /// An offset: mostly inside the file, sometimes behind its end.
    fn offset(&mut self, size: u64) -> u64 {
        let near = size.max(1);
        match self.rng.random_range(0..2000) {
            0..1000 => self.rng.random_range(0..near),
            1000..1400 => self.rng.random_range(0..near) / PAGE * PAGE,
            1400..1600 => size,
            1600..1900 => self.rng.random_range(0..near + 16384),
            1900..1999 => self.rng.random_range(0..USUAL_END),
            _ => self.rng.random_range(0..RARE_END),
        }
    }

    fn fill(&mut self, len: u32) -> Fill {
        let seed = if self.chance(5) { 0 } else { self.rng.random() };
        Fill { seed, len }
    }

    /// A file to read from or write to; now and then a descriptor that is no good for it.
    fn data_slot(&mut self, w: usize, write: bool) -> Option<Slot> {
        if self.one_in(50) {
            return self.pick_slot(w, |h| !h.retired);
        }
        let fit =
            |h: &Held| h.kind == Kind::File && if write { h.writable() } else { h.readable() };
        self.pick_slot(w, fit)
    }

    fn slot_size(&self, w: usize, slot: Slot) -> (u64, bool) {
        self.held(w, slot).map_or((0, false), |h| (h.size, h.direct()))
    }

    /// Offset and length for a descriptor, aligned where it was opened with O_DIRECT.
    fn range(&mut self, w: usize, slot: Slot) -> (u64, u32) {
        let (size, direct) = self.slot_size(w, slot);
        let (off, len) = (self.offset(size), self.length());
        if direct {
            (off / PAGE * PAGE, len.div_ceil(PAGE as u32) * PAGE as u32)
        } else {
            (off, len)
        }
    }
}

pub fn read(g: &mut Gen, w: usize) -> Plan {
    let slot = g.data_slot(w, false)?;
    if g.slot_size(w, slot).1 {
        return None;
    }
    let len = g.length();
    Some((Op::Read { slot, len }, Effect::None))
}

pub fn pread(g: &mut Gen, w: usize) -> Plan {
    let slot = g.data_slot(w, false)?;
    let (off, len) = g.range(w, slot);
    Some((Op::Pread { slot, off: off as i64, len }, Effect::None))
}

pub fn write(g: &mut Gen, w: usize) -> Plan {
    let slot = g.data_slot(w, true)?;
    if g.slot_size(w, slot).1 {
        return pwrite(g, w);
    }
    let len = if g.one_in(100) { 0 } else { g.length() };
    Some((Op::Write { slot, fill: g.fill(len) }, Effect::None))
}

pub fn pwrite(g: &mut Gen, w: usize) -> Plan {
    let slot = g.data_slot(w, true)?;
    let (off, len) = g.range(w, slot);
    let off = if g.one_in(300) { -1 } else { off as i64 };
    Some((Op::Pwrite { slot, off, fill: g.fill(len) }, Effect::None))
}

pub fn writev(g: &mut Gen, w: usize) -> Plan {
    let slot = g.data_slot(w, true)?;
    let (size, direct) = g.slot_size(w, slot);
    if direct {
        return None;
    }
    let n = g.rng.random_range(1..6);
    let lens = (0..n).map(|_| g.length().min(65536)).collect();
    let off = g.chance(60).then(|| g.offset(size) as i64);
    Some((Op::Writev { slot, off, lens, seed: g.rng.random() }, Effect::None))
}

pub fn seek(g: &mut Gen, w: usize) -> Plan {
    let slot = g.pick_slot(w, |h| h.kind == Kind::File)?;
    let (size, _) = g.slot_size(w, slot);
    let whence = g.choose(&[libc::SEEK_SET, libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END]);
    let off = match whence {
        libc::SEEK_SET => g.offset(size) as i64,
        _ => g.rng.random_range(-2000..2000),
    };
    Some((Op::Seek { slot, off, whence }, Effect::None))
}

pub fn seek_map(g: &mut Gen, w: usize) -> Plan {
    let slot = g.pick_slot(w, |h| h.kind == Kind::File && !h.is_path())?;
    let (size, _) = g.slot_size(w, slot);
    let whence = g.choose(&[libc::SEEK_DATA, libc::SEEK_HOLE]);
    Some((Op::SeekMap { slot, off: g.offset(size) as i64, whence }, Effect::None))
}

fn new_size(g: &mut Gen, size: u64) -> i64 {
    match g.rng.random_range(0..20) {
        0 => -1,
        1..4 => 0,
        4..6 => size as i64,
        _ => g.offset(size + 8192) as i64,
    }
}

pub fn ftruncate(g: &mut Gen, w: usize) -> Plan {
    let slot = g.data_slot(w, true)?;
    let (size, _) = g.slot_size(w, slot);
    Some((Op::Ftruncate { slot, len: new_size(g, size) }, Effect::None))
}

pub fn truncate(g: &mut Gen, w: usize) -> Plan {
    let kinds: &[Kind] =
        if g.one_in(20) { &[Kind::Dir, Kind::Symlink, Kind::Fifo] } else { &[Kind::File] };
    let node = g.pick_node(w, kinds)?;
    let len = g.offset(20_000) as i64;
    // To nothing: see `limits`.
    let len = len.max(1);
    Some((Op::Truncate { at: g.at(w, node), len }, Effect::None))
}

pub fn fallocate(g: &mut Gen, w: usize) -> Plan {
    let mode = g.choose(&[0, libc::FALLOC_FL_KEEP_SIZE]);
    let slot = g.data_slot(w, true)?;
    allocate_at(g, w, slot, mode)
}

pub fn punch(g: &mut Gen, w: usize) -> Plan {
    let slot = g.data_slot(w, true)?;
    // Without KEEP_SIZE the kernel refuses.
    let keep = if g.one_in(30) { 0 } else { libc::FALLOC_FL_KEEP_SIZE };
    allocate_at(g, w, slot, libc::FALLOC_FL_PUNCH_HOLE | keep)
}

pub fn zero_range(g: &mut Gen, w: usize) -> Plan {
    let slot = g.data_slot(w, true)?;
    let keep = g.choose(&[0, libc::FALLOC_FL_KEEP_SIZE]);
    allocate_at(g, w, slot, libc::FALLOC_FL_ZERO_RANGE | keep)
}

fn allocate_at(g: &mut Gen, w: usize, slot: Slot, mode: i32) -> Plan {
    let (off, len) = g.range(w, slot);
    let len = if g.one_in(100) { 0 } else { i64::from(len) };
    Some((Op::Fallocate { slot, mode, off: off as i64, len }, Effect::None))
}

/// Collapse and insert want whole blocks well inside the file; one in six gets it wrong.
fn shift_range(g: &mut Gen, w: usize, mode: i32) -> Plan {
    let fit = |h: &Held| h.kind == Kind::File && h.writable() && h.size > 3 * PAGE;
    let slot = g.pick_slot(w, fit)?;
    let blocks = g.slot_size(w, slot).0 / PAGE;
    let first = g.rng.random_range(0..blocks);
    let most = (blocks - first).max(2);
    let (mut off, mut len) = (first * PAGE, g.rng.random_range(1..most) * PAGE);
    if g.one_in(12) {
        off += 100;
    }
    if g.one_in(12) {
        len += 512;
    }
    Some((Op::Fallocate { slot, mode, off: off as i64, len: len as i64 }, Effect::None))
}

pub fn collapse(g: &mut Gen, w: usize) -> Plan {
    shift_range(g, w, libc::FALLOC_FL_COLLAPSE_RANGE)
}

pub fn insert(g: &mut Gen, w: usize) -> Plan {
    shift_range(g, w, libc::FALLOC_FL_INSERT_RANGE)
}

pub fn copy_range(g: &mut Gen, w: usize) -> Plan {
    let from = g.data_slot(w, false)?;
    let appends = |h: &Held| h.flags & libc::O_APPEND != 0;
    let to = match g.chance(20) {
        true => from,
        false if g.one_in(20) => g.data_slot(w, true)?,
        false => g.pick_slot(w, |h| h.kind == Kind::File && h.writable() && !appends(h))?,
    };
    // Natively the copy may go through the descriptors as they are, aligned or EINVAL.
    if g.slot_size(w, from).1 || g.slot_size(w, to).1 {
        return None;
    }
    let ((a, len), (b, _)) = (g.range(w, from), g.range(w, to));
    let op = Op::CopyRange { from, from_off: a as i64, to, to_off: b as i64, len };
    Some((op, Effect::None))
}

pub fn fsync(g: &mut Gen, w: usize) -> Plan {
    let slot = g.pick_slot(w, |_| true)?;
    Some((Op::Fsync { slot, data_only: g.chance(50) }, Effect::None))
}

pub fn syncfs(g: &mut Gen, w: usize) -> Plan {
    let slot = g.pick_slot(w, |h| !h.is_path())?;
    Some((Op::Syncfs { slot }, Effect::None))
}
