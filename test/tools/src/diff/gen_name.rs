//! Plans operations on names: create, remove, link, rename, list. And makes up names.

use rand::Rng;

use super::catalogue::{Kind, NodeId, ROOT};
use super::gen::{Effect, Gen, Plan};
use super::op::{At, Op};
use crate::bytes::Bytes;

/// Usual depth of the tree, and the depth one in a few hundred directories may reach.
const DEPTH_USUAL: usize = 5;
const DEPTH_MAX: usize = 40;

pub const ANY: &[Kind] =
    &[Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::Device];
const NOT_DIR: &[Kind] = &[Kind::File, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::Device];

/// A place where a name may come to be.
pub struct Place {
    pub parent: NodeId,
    pub name: Vec<u8>,
    pub at: At,
}

impl Gen {
    /// A name: usually short, sometimes odd bytes, of greatest length, or too long.
    pub fn make_name(&mut self) -> Vec<u8> {
        let r: u32 = self.rng.random_range(0..1000);
        let odd = |g: &mut Gen, len: usize| -> Vec<u8> {
            let byte = |g: &mut Gen| match g.rng.random_range(1..=255u8) {
                b'/' => b'\n',
                b => b,
            };
            let mut name: Vec<u8> = (0..len).map(|_| byte(g)).collect();
            name[0] = b'%';
            name
        };
        match r {
            0..5 => {
                let n = self.rng.random_range(256..300);
                odd(self, n)
            }
            5..25 => odd(self, 255),
            25..80 => {
                let n = self.rng.random_range(2..40);
                odd(self, n)
            }
            80..90 => b" new\nline ".to_vec(),
            90..400 => format!("{}", self.rng.random_range(0..30)).into_bytes(),
            _ => format!("f{}", self.rng.random_range(0..2000)).into_bytes(),
        }
    }

    fn pick_parent(&mut self, worker: usize) -> NodeId {
        for _ in 0..4 {
            let dir = match self.chance(12) {
                true => ROOT,
                false => self.pick_node(worker, &[Kind::Dir]).unwrap_or(ROOT),
            };
            let depth = self.tree.depth(dir);
            if depth < DEPTH_USUAL || (depth < DEPTH_MAX && self.chance(3)) {
                return dir;
            }
        }
        ROOT
    }

    /// A new name in most cases, one that exists in a few.
    pub fn new_place(&mut self, worker: usize) -> Place {
        let parent = self.pick_parent(worker);
        let mut name = self.make_name();
        let taken = self.tree.get(parent).map(|n| n.children.clone()).unwrap_or_default();
        if !taken.is_empty() && self.chance(7) {
            let id = self.choose(&taken);
            name = self.tree.get(id).map(|n| n.name.clone()).unwrap_or(name);
        } else {
            for _ in 0..3 {
                if self.tree.lookup(parent, &name).is_none() {
                    break;
                }
                name = self.make_name();
            }
        }
        let at = self.at_child(worker, parent, &name);
        Place { parent, name, at }
    }

    fn at_child(&mut self, worker: usize, parent: NodeId, name: &[u8]) -> At {
        let mut at = self.at(worker, parent);
        if at.path.0 == b"." {
            at.path.0.clear();
        } else {
            at.path.0.push(b'/');
        }
        at.path.0.extend_from_slice(name);
        at
    }

    /// The path of a node, from the root or from an open directory above it, rarely decorated.
    pub fn at(&mut self, worker: usize, node: NodeId) -> At {
        let mut at = At { base: None, path: Bytes(b".".to_vec()) };
        if let Some(path) = self.tree.path_below(ROOT, node) {
            at.path = Bytes(path);
        }
        if self.chance(20) {
            let dirs = |h: &super::gen::Held| h.kind == Kind::Dir && h.node.is_some();
            if let Some(slot) = self.pick_slot(worker, dirs) {
                let base = self.held(worker, slot).and_then(|h| h.node);
                if let Some(path) = base.and_then(|b| self.tree.path_below(b, node)) {
                    at = At { base: Some(slot), path: Bytes(path) };
                }
            }
        }
        let dir = self.tree.get(node).is_some_and(|n| n.kind == Kind::Dir);
        match self.rng.random_range(0..150) {
            0 => at.path.0.splice(0..0, b"./".iter().copied()).for_each(drop),
            1 if dir => at.path.0.push(b'/'),
            2 if dir => at.path.0.extend_from_slice(b"/."),
            3 if self.one_in(4) => at.path.0.push(b'/'),
            _ => {}
        }
        at
    }
}

pub fn mkdir(g: &mut Gen, w: usize) -> Plan {
    let p = g.new_place(w);
    let mode = g.choose(&[0o777, 0o777, 0o755, 0o775, 0o1777, 0o2775, 0o700, 0o6755]);
    let effect = Effect::Create { parent: p.parent, name: p.name, kind: Kind::Dir };
    Some((Op::Mkdir { at: p.at, mode }, effect))
}

pub fn rmdir(g: &mut Gen, w: usize) -> Plan {
    for _ in 0..6 {
        let node = g.pick_node(w, &[Kind::Dir])?;
        if g.tree.get(node).is_some_and(|n| n.children.is_empty()) || g.one_in(12) {
            return Some((Op::Rmdir { at: g.at(w, node) }, Effect::Remove(node)));
        }
    }
    if g.one_in(10) {
        let node = g.pick_node(w, NOT_DIR)?;
        return Some((Op::Rmdir { at: g.at(w, node) }, Effect::None));
    }
    None
}

pub fn unlink(g: &mut Gen, w: usize) -> Plan {
    let kinds = if g.one_in(40) { ANY } else { NOT_DIR };
    let node = g.pick_node(w, kinds)?;
    Some((Op::Unlink { at: g.at(w, node) }, Effect::Remove(node)))
}

pub fn symlink(g: &mut Gen, w: usize) -> Plan {
    let p = g.new_place(w);
    let siblings = g.tree.get(p.parent).map(|n| n.children.clone()).unwrap_or_default();
    // Targets never climb: an operation through a link must not leave the tree.
    let target = match g.rng.random_range(0..20) {
        0 => b"/nonexistent-holdfast/x".to_vec(),
        1 => p.name.clone(),
        2 => {
            let len = g.rng.random_range(256..4095);
            (0..len).map(|i| if i % 200 == 199 { b'/' } else { b'l' }).collect()
        }
        3..6 => b"dangling".to_vec(),
        _ if siblings.is_empty() => b"dangling".to_vec(),
        _ => {
            let id = g.choose(&siblings);
            let node = g.tree.get(id)?;
            let below = node.children.first().and_then(|c| g.tree.get(*c));
            match below {
                Some(c) if p.name.len().is_multiple_of(2) => {
                    [&node.name, &b"/"[..], &c.name].concat()
                }
                _ => node.name.clone(),
            }
        }
    };
    if target.starts_with(b"..") {
        return None;
    }
    let effect = Effect::Create { parent: p.parent, name: p.name, kind: Kind::Symlink };
    Some((Op::Symlink { target: Bytes(target), at: p.at }, effect))
}

pub fn readlink(g: &mut Gen, w: usize) -> Plan {
    let kinds: &[Kind] = if g.one_in(15) { ANY } else { &[Kind::Symlink] };
    let node = g.pick_node(w, kinds)?;
    Some((Op::Readlink { at: g.at(w, node) }, Effect::None))
}

pub fn link(g: &mut Gen, w: usize) -> Plan {
    let kinds = if g.one_in(30) { ANY } else { NOT_DIR };
    let node = g.pick_node(w, kinds)?;
    let p = g.new_place(w);
    let follow = g.chance(20);
    let mut kind = g.tree.get(node)?.kind;
    if follow && kind == Kind::Symlink {
        kind = Kind::File;
    }
    let from = g.at(w, node);
    let effect = Effect::Create { parent: p.parent, name: p.name, kind };
    Some((Op::Link { from, to: p.at, follow }, effect))
}

pub fn mknod(g: &mut Gen, w: usize) -> Plan {
    let p = g.new_place(w);
    let device = libc::makedev;
    let mut kinds = vec![
        (libc::S_IFIFO, 0, Kind::Fifo),
        (libc::S_IFSOCK, 0, Kind::Socket),
        (libc::S_IFREG, 0, Kind::File),
    ];
    if w == 0 || g.one_in(10) {
        // 240 to 254 are for local use; nothing answers there.
        let (major, minor) = (g.rng.random_range(240..254), g.rng.random_range(0..1000));
        kinds.push((libc::S_IFCHR, device(1, 3), Kind::Device));
        kinds.push((libc::S_IFCHR, device(major, minor), Kind::Device));
        kinds.push((libc::S_IFBLK, device(major, minor), Kind::Device));
    }
    let (kind_bits, dev, kind) = g.choose(&kinds);
    let mode = kind_bits | g.choose(&[0o666, 0o644, 0o600, 0o4755]);
    let effect = Effect::Create { parent: p.parent, name: p.name, kind };
    Some((Op::Mknod { at: p.at, mode, dev }, effect))
}

fn rename_to(g: &mut Gen, w: usize, flags: u32, replace: u32) -> Plan {
    let node = g.pick_node(w, ANY)?;
    let kind = g.tree.get(node)?.kind;
    let place = if g.chance(replace) {
        let kinds: &[Kind] = if kind == Kind::Dir { &[Kind::Dir] } else { NOT_DIR };
        let victim = g.pick_node(w, kinds)?;
        let v = g.tree.get(victim)?.clone();
        Place { parent: v.parent, name: v.name, at: g.at(w, victim) }
    } else {
        g.new_place(w)
    };
    let inside = kind == Kind::Dir && g.tree.path_below(node, place.parent).is_some();
    if inside && !g.one_in(20) {
        return None;
    }
    let from = g.at(w, node);
    let whiteout = flags & libc::RENAME_WHITEOUT != 0;
    let effect = Effect::Move { node, parent: place.parent, name: place.name, whiteout };
    Some((Op::Rename { from, to: place.at, flags }, effect))
}

pub fn rename(g: &mut Gen, w: usize) -> Plan {
    rename_to(g, w, 0, 25)
}

pub fn rename_noreplace(g: &mut Gen, w: usize) -> Plan {
    rename_to(g, w, libc::RENAME_NOREPLACE, 10)
}

pub fn rename_whiteout(g: &mut Gen, w: usize) -> Plan {
    let more = if g.one_in(8) { libc::RENAME_NOREPLACE } else { 0 };
    rename_to(g, w, libc::RENAME_WHITEOUT | more, 15)
}

pub fn rename_exchange(g: &mut Gen, w: usize) -> Plan {
    let (a, b) = (g.pick_node(w, ANY)?, g.pick_node(w, ANY)?);
    let inside = g.tree.path_below(a, b).is_some() || g.tree.path_below(b, a).is_some();
    if inside && !g.one_in(20) {
        return None;
    }
    let (from, to) = (g.at(w, a), g.at(w, b));
    let flags = libc::RENAME_EXCHANGE;
    Some((Op::Rename { from, to, flags }, Effect::Exchange(a, b)))
}

pub fn rename_into_self(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, &[Kind::Dir])?;
    let from = g.at(w, node);
    let to = g.at_child(w, node, b"inside");
    Some((Op::Rename { from, to, flags: 0 }, Effect::None))
}

pub fn readdir(g: &mut Gen, w: usize) -> Plan {
    let node = if g.one_in(6) { ROOT } else { g.pick_node(w, &[Kind::Dir])? };
    Some((Op::Readdir { at: g.at(w, node) }, Effect::Listed(node)))
}

pub fn readdir_churn(g: &mut Gen, w: usize) -> Plan {
    let node = if g.one_in(3) { ROOT } else { g.pick_node(w, &[Kind::Dir])? };
    let extra = g.rng.random_range(1..12);
    Some((Op::ReaddirChurn { at: g.at(w, node), extra }, Effect::Listed(node)))
}
