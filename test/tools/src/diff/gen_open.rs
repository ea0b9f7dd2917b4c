//! Plans opening and closing of descriptors and mappings.

use rand::Rng;

use super::catalogue::{Kind, NodeId};
use super::gen::{Effect, Gen, Held, Plan};
use super::gen_name::ANY;
use super::op::Op;

/// Opening a FIFO must not wait for its other end; on files the flag means nothing.
const ALWAYS: i32 = libc::O_NONBLOCK;
/// Largest mapping, in pages.
const MAP_PAGES_MAX: u32 = 64;

impl Gen {
    fn access(&mut self) -> i32 {
        let list = [libc::O_RDWR, libc::O_RDWR, libc::O_RDWR, libc::O_WRONLY, libc::O_RDONLY];
        self.choose(&list)
    }

    fn extra_flags(&mut self) -> i32 {
        let mut flags = ALWAYS;
        let mut maybe = |g: &mut Gen, percent, flag| {
            if g.chance(percent) {
                flags |= flag;
            }
        };
        maybe(self, 10, libc::O_NOFOLLOW);
        maybe(self, 2, libc::O_NOATIME);
        if self.chance(4) {
            // Never with O_APPEND: the position would be as unaligned as the file's end.
            flags |= libc::O_DIRECT;
        } else if self.chance(12) {
            flags |= libc::O_APPEND;
        }
        if self.one_in(100) {
            flags |= self.choose(&[libc::O_SYNC, libc::O_DSYNC]);
        }
        flags & !self.flags_off
    }

    pub fn mode(&mut self) -> u32 {
        let usual = [0o666, 0o644, 0o664, 0o777, 0o755, 0o640, 0o600];
        let rare = [0o4755, 0o6755, 0o2755, 0o2644, 0o1644, 0o444, 0, 0o111];
        if self.chance(85) {
            self.choose(&usual)
        } else {
            self.choose(&rare)
        }
    }

    pub fn dir_mode(&mut self) -> u32 {
        let usual = [0o777, 0o775, 0o755, 0o1777, 0o2775, 0o3777];
        let rare = [0o700, 0o711, 0o555, 0o6777];
        if self.chance(88) {
            self.choose(&usual)
        } else {
            self.choose(&rare)
        }
    }
}

fn held(node: Option<NodeId>, kind: Kind, flags: i32) -> Held {
    Held { node, kind, flags, size: 0, tmpfile: false, id: None, retired: false }
}

pub fn open_create(g: &mut Gen, w: usize) -> Plan {
    let p = g.new_place(w);
    let mut flags = g.access() | g.extra_flags() | libc::O_CREAT;
    if g.chance(30) {
        flags |= libc::O_EXCL;
    }
    if g.chance(15) {
        flags |= libc::O_TRUNC;
    }
    let (mode, slot) = (g.mode(), g.free_slot(w));
    let known = g.tree.lookup(p.parent, &p.name).and_then(|n| g.tree.get(n)).map(|n| n.kind);
    let kind = known.unwrap_or(Kind::File);
    if kind == Kind::Device {
        return None;
    }
    // Through a symbolic link the file comes to be elsewhere, where a listing will find it.
    let create = matches!(kind, Kind::File).then_some((p.parent, p.name));
    let held = held(None, kind, flags);
    Some((Op::Open { at: p.at, flags, mode, slot }, Effect::Open { held, create }))
}

fn open_node(g: &mut Gen, w: usize, node: NodeId, flags: i32) -> Plan {
    let kind = g.tree.get(node)?.kind;
    let (at, slot) = (g.at(w, node), g.free_slot(w));
    let kind = if kind == Kind::Symlink && flags & libc::O_PATH == 0 { Kind::File } else { kind };
    let held = held(Some(node), kind, flags);
    Some((Op::Open { at, flags, mode: 0, slot }, Effect::Open { held, create: None }))
}

pub fn open_existing(g: &mut Gen, w: usize) -> Plan {
    let kinds: &[Kind] = match g.rng.random_range(0..30) {
        0 => &[Kind::Symlink],
        1 => &[Kind::Fifo, Kind::Socket],
        _ => &[Kind::File],
    };
    let node = g.pick_node(w, kinds)?;
    let mut flags = g.access() | g.extra_flags();
    if g.chance(8) {
        flags |= libc::O_TRUNC;
    }
    if g.one_in(60) {
        flags |= libc::O_DIRECTORY;
    }
    if g.one_in(60) {
        flags |= libc::O_CREAT;
    }
    open_node(g, w, node, flags)
}

/// Device nodes are opened by a family of their own: a mount without `dev` refuses them.
pub fn open_device(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, &[Kind::Device])?;
    open_node(g, w, node, libc::O_RDONLY | ALWAYS)
}

pub fn open_dir(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, &[Kind::Dir])?;
    let access = if g.one_in(20) { libc::O_RDWR } else { libc::O_RDONLY };
    open_node(g, w, node, access | libc::O_DIRECTORY | ALWAYS)
}

pub fn open_path(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, ANY)?;
    let nofollow = if g.chance(60) { libc::O_NOFOLLOW } else { 0 };
    open_node(g, w, node, libc::O_PATH | nofollow)
}

pub fn tmpfile(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, &[Kind::Dir])?;
    let mut flags = libc::O_TMPFILE | g.choose(&[libc::O_RDWR, libc::O_RDWR, libc::O_WRONLY]);
    if g.chance(12) {
        flags |= libc::O_EXCL;
    }
    let (at, mode, slot) = (g.at(w, node), g.mode(), g.free_slot(w));
    let held = Held { tmpfile: true, ..held(None, Kind::File, flags) };
    Some((Op::Open { at, flags, mode, slot }, Effect::Open { held, create: None }))
}

pub fn link_tmpfile(g: &mut Gen, w: usize) -> Plan {
    let linkable = |h: &Held| h.tmpfile && h.flags & libc::O_EXCL == 0;
    let from = match g.chance(90) {
        true => g.pick_slot(w, linkable)?,
        false => g.pick_slot(w, |h| h.kind == Kind::File)?,
    };
    let p = g.new_place(w);
    let effect = Effect::Create { parent: p.parent, name: p.name, kind: Kind::File };
    Some((Op::LinkTmpfile { from, to: p.at }, effect))
}

pub fn close(g: &mut Gen, w: usize) -> Plan {
    // A few stay open for long, so that files are used after unlink and rename.
    let slot = g.pick_slot(w, |_| true)?;
    if g.pools[w].slots.iter().filter(|s| s.is_some()).count() < 6 {
        return None;
    }
    Some((Op::Close { slot }, Effect::None))
}

pub fn map_open(g: &mut Gen, w: usize) -> Plan {
    let write = g.chance(75);
    let fit =
        |h: &Held| h.kind == Kind::File && h.readable() && (h.writable() || !write) && h.size > 0;
    let slot = if g.one_in(30) { g.pick_slot(w, |_| true)? } else { g.pick_slot(w, fit)? };
    let map = match g.pools[w].maps.iter().position(Option::is_none) {
        Some(i) => i as u16,
        None => return None,
    };
    let pages = g.held(w, slot)?.size.div_ceil(4096).clamp(1, 16 * u64::from(MAP_PAGES_MAX));
    let first = g.rng.random_range(0..pages) / 2;
    let len = g.rng.random_range(1..=MAP_PAGES_MAX.min((pages - first) as u32 + 1)) * 4096;
    Some((Op::MapOpen { slot, map, off: first as i64 * 4096, len, write }, Effect::None))
}

pub fn map_store(g: &mut Gen, w: usize) -> Plan {
    let map = g.pick_map(w, |m| m.write)?;
    let (at, fill) = map_range(g, w, map)?;
    Some((Op::MapStore { map, at, fill }, Effect::None))
}

pub fn map_load(g: &mut Gen, w: usize) -> Plan {
    let map = g.pick_map(w, |_| true)?;
    let (at, fill) = map_range(g, w, map)?;
    Some((Op::MapLoad { map, at, len: fill.len }, Effect::None))
}

fn map_range(g: &mut Gen, w: usize, map: u16) -> Option<(u32, super::op::Fill)> {
    let len = g.pools[w].maps.get(map as usize)?.as_ref()?.len;
    let at = g.rng.random_range(0..len);
    let fill = super::op::Fill { seed: g.rng.random(), len: g.rng.random_range(1..9000) };
    Some((at, fill))
}

pub fn msync(g: &mut Gen, w: usize) -> Plan {
    let map = g.pick_map(w, |_| true)?;
    let flags = g.choose(&[libc::MS_SYNC, libc::MS_ASYNC, libc::MS_SYNC | libc::MS_INVALIDATE]);
    Some((Op::Msync { map, flags }, Effect::None))
}

pub fn map_close(g: &mut Gen, w: usize) -> Plan {
    let map = g.pick_map(w, |_| true)?;
    Some((Op::MapClose { map }, Effect::None))
}
