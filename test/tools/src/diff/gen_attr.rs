//! Plans operations on attributes: mode, owner, times, extended attributes, ACLs, flags.

use rand::Rng;

use super::catalogue::{Kind, NodeId};
use super::gen::{Effect, Gen, Plan};
use super::gen_name::ANY;
use super::op::{Op, Target};
use super::worker::USERS;
use crate::bytes::Bytes;
use crate::sys::attr;
use crate::sys::name::Time;

const FILE_DIR: &[Kind] = &[Kind::File, Kind::Dir];
const KEEP: u32 = u32::MAX;

impl Gen {
    /// An object by path or, in a quarter of cases, by descriptor.
    fn target(&mut self, w: usize, kinds: &[Kind]) -> Option<(Target, Option<NodeId>)> {
        if self.chance(25) {
            if let Some(slot) = self.pick_slot(w, |h| !h.is_path() || h.size % 5 == 0) {
                return Some((Target::Fd(slot), self.held(w, slot).and_then(|h| h.node)));
            }
        }
        let node = self.pick_node(w, kinds)?;
        let link = self.tree.get(node).is_some_and(|n| n.kind == Kind::Symlink);
        let follow = if link { self.chance(25) } else { self.chance(80) };
        Some((Target::Path { at: self.at(w, node), follow }, Some(node)))
    }

    fn kind_of(&self, node: Option<NodeId>) -> Kind {
        node.and_then(|n| self.tree.get(n)).map_or(Kind::File, |n| n.kind)
    }
}

pub fn chmod(g: &mut Gen, w: usize) -> Plan {
    let kinds = if g.one_in(20) { ANY } else { FILE_DIR };
    let (mut on, node) = g.target(w, kinds)?;
    if let Target::Path { follow, .. } = &mut on {
        *follow = g.chance(95);
    }
    let mode = if g.kind_of(node) == Kind::Dir { g.dir_mode() } else { g.mode() };
    Some((Op::Chmod { on, mode }, Effect::None))
}

pub fn chown(g: &mut Gen, w: usize) -> Plan {
    let (on, _) = g.target(w, ANY)?;
    let anyone = [0, 1000, 1001, 1002, 65534, KEEP];
    let groups = [0, 1000, 1001, 2000, 3000, KEEP];
    let (uid, gid) = if w > 0 && g.chance(80) {
        (KEEP, g.choose(USERS[(w - 1) % USERS.len()].groups))
    } else {
        (g.choose(&anyone), g.choose(&groups))
    };
    if uid == KEEP && gid == KEEP {
        return None;
    }
    Some((Op::Chown { on, uid, gid }, Effect::None))
}

pub fn utimens(g: &mut Gen, w: usize) -> Plan {
    let (on, _) = g.target(w, ANY)?;
    let one = |g: &mut Gen| -> Time {
        // Explicit times stay far from the present, see `compare::Rules`.
        let nsec = g.rng.random_range(0..1_000_000_000);
        match g.rng.random_range(0..10) {
            0..2 => (0, libc::UTIME_NOW),
            2..4 => (0, libc::UTIME_OMIT),
            4 => (0, 0),
            5 => (-1_000_000, nsec),
            6 => (i64::from(i32::MAX), nsec),
            7 => (5_000_000_000, nsec),
            8 if g.one_in(4) => (1_000_000_000, 1_000_000_000),
            _ => (g.rng.random_range(1..1_500_000_000), nsec),
        }
    };
    let (atime, mtime) = (one(g), one(g));
    Some((Op::Utimens { on, atime, mtime }, Effect::None))
}

fn xattr_name(g: &mut Gen, w: usize) -> Vec<u8> {
    let user: [&[u8]; 5] = [b"user.a", b"user.b", b"user.c", b"user.dd", b"user.\xff\n"];
    match g.rng.random_range(0..100) {
        0 => b"bogus.x".to_vec(),
        1 => b"user.".to_vec(),
        2 => [b"user.", [b'n'; 250].as_slice()].concat(),
        3..6 => b"security.holdfast".to_vec(),
        6..18 if w == 0 => g.choose(&[b"trusted.x".as_slice(), b"trusted.overlay.y"]).to_vec(),
        _ => g.choose(&user).to_vec(),
    }
}

fn xattr_target(g: &mut Gen, w: usize) -> Option<(Target, Option<NodeId>)> {
    let kinds = if g.chance(5) { ANY } else { FILE_DIR };
    g.target(w, kinds)
}

pub fn setxattr(g: &mut Gen, w: usize) -> Plan {
    let (on, node) = xattr_target(g, w)?;
    let mut name = xattr_name(g, w);
    let known = node.and_then(|n| g.tree.get(n)).map(|n| n.xattrs.clone()).unwrap_or_default();
    let mut flags = g.choose(&[0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE]);
    if flags == libc::XATTR_REPLACE && g.chance(85) {
        match known.is_empty() {
            true => flags = 0,
            false => name = known[g.rng.random_range(0..known.len())].clone(),
        }
    }
    let len = match g.rng.random_range(0..100) {
        0..80 => g.rng.random_range(0..48),
        80..99 => g.rng.random_range(0..300),
        _ => g.rng.random_range(0..2000),
    };
    let value: Vec<u8> = (0..len).map(|_| g.rng.random()).collect();
    let effect = match node {
        Some(node) => Effect::Xattr { node, name: name.clone(), set: true },
        None => Effect::None,
    };
    Some((Op::SetXattr { on, name: Bytes(name), value: Bytes(value), flags }, effect))
}

/// An attribute that is probably there.
fn known_xattr(g: &mut Gen, w: usize) -> Option<(Target, Option<NodeId>, Vec<u8>)> {
    for _ in 0..8 {
        let (on, node) = g.target(w, FILE_DIR)?;
        let names = node.and_then(|n| g.tree.get(n)).map(|n| n.xattrs.clone()).unwrap_or_default();
        if !names.is_empty() {
            return Some((on, node, names[g.rng.random_range(0..names.len())].clone()));
        }
    }
    let (on, node) = xattr_target(g, w)?;
    Some((on, node, xattr_name(g, w)))
}

pub fn getxattr(g: &mut Gen, w: usize) -> Plan {
    let (on, _, name) = known_xattr(g, w)?;
    Some((Op::GetXattr { on, name: Bytes(name) }, Effect::None))
}

pub fn listxattr(g: &mut Gen, w: usize) -> Plan {
    let (on, _) = g.target(w, ANY)?;
    Some((Op::ListXattr { on }, Effect::None))
}

pub fn removexattr(g: &mut Gen, w: usize) -> Plan {
    let (on, node, name) = known_xattr(g, w)?;
    let effect = match node {
        Some(node) => Effect::Xattr { node, name: name.clone(), set: false },
        None => Effect::None,
    };
    Some((Op::RemoveXattr { on, name: Bytes(name) }, effect))
}

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// A valid ACL in the kernel's binary form (linux/posix_acl_xattr.h), version 2.
fn acl_blob(g: &mut Gen) -> Vec<u8> {
    let mut entries: Vec<(u16, u16, u32)> = Vec::new();
    let perm = |g: &mut Gen| g.choose(&[7u16, 7, 6, 5, 4, 0]);
    entries.push((0x01, 7, KEEP));
    let mut named = false;
    for uid in [1000, 1001, 1002] {
        if g.chance(35) {
            entries.push((0x02, perm(g), uid));
            named = true;
        }
    }
    entries.push((0x04, perm(g), KEEP));
    for gid in [1000, 2000, 3000] {
        if g.chance(25) {
            entries.push((0x08, perm(g), gid));
            named = true;
        }
    }
    if named || g.chance(20) {
        entries.push((0x10, g.choose(&[7, 7, 5, 4]), KEEP));
    }
    entries.push((0x20, perm(g), KEEP));
    let mut blob = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        blob.extend_from_slice(&tag.to_le_bytes());
        blob.extend_from_slice(&perm.to_le_bytes());
        blob.extend_from_slice(&id.to_le_bytes());
    }
    blob
}

pub fn acl_set(g: &mut Gen, w: usize) -> Plan {
    let default = g.chance(45);
    let kinds: &[Kind] = if default && g.chance(95) { &[Kind::Dir] } else { FILE_DIR };
    let node = g.pick_node(w, kinds)?;
    let on = Target::Path { at: g.at(w, node), follow: true };
    let name = if default { ACL_DEFAULT } else { ACL_ACCESS };
    let mut value = acl_blob(g);
    if g.one_in(20) {
        value.truncate(g.rng.random_range(0..value.len()));
    }
    let effect = Effect::Xattr { node, name: name.to_vec(), set: true };
    Some((Op::SetXattr { on, name: name.into(), value: Bytes(value), flags: 0 }, effect))
}

pub fn acl_get(g: &mut Gen, w: usize) -> Plan {
    let (on, _) = g.target(w, FILE_DIR)?;
    let name = g.choose(&[ACL_ACCESS, ACL_DEFAULT]);
    Some((Op::GetXattr { on, name: name.into() }, Effect::None))
}

/// A version 2 capability blob: CAP_NET_BIND_SERVICE or CAP_NET_RAW, permitted and effective.
pub fn caps_set(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, &[Kind::File])?;
    let on = Target::Path { at: g.at(w, node), follow: true };
    let name = super::op::CAPABILITY.to_vec();
    let mut value = (0x0200_0000u32 | 1).to_le_bytes().to_vec();
    value.extend_from_slice(&g.choose(&[1u32 << 10, 1 << 13]).to_le_bytes());
    value.extend_from_slice(&[0; 12]);
    let effect = Effect::Xattr { node, name: name.clone(), set: true };
    Some((Op::SetXattr { on, name: Bytes(name), value: Bytes(value), flags: 0 }, effect))
}

pub fn flags_get(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, FILE_DIR)?;
    Some((Op::GetFlags { at: g.at(w, node) }, Effect::None))
}

pub fn flags_set(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, FILE_DIR)?;
    let mask = attr::FLAG_NODUMP | attr::FLAG_NOATIME;
    let bits = g.choose(&[0, attr::FLAG_NODUMP, attr::FLAG_NOATIME, mask]);
    Some((Op::SetFlags { at: g.at(w, node), mask, bits }, Effect::None))
}

/// Makes an object immutable or append-only for a few operations.
pub fn seal(g: &mut Gen, w: usize) -> Plan {
    // What a mapping holds could not be written back any more, see `limits`.
    let kinds = if g.any_mapped() { &[Kind::Dir][..] } else { FILE_DIR };
    let node = g.pick_node(w, kinds)?;
    let bits = g.seal_bits();
    let op = Op::SetFlags { at: g.at(w, node), mask: bits, bits };
    Some((op, if w == 0 { Effect::Seal { node, bits } } else { Effect::None }))
}

pub fn project_get(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, FILE_DIR)?;
    Some((Op::GetProject { at: g.at(w, node) }, Effect::None))
}

pub fn project_set(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, FILE_DIR)?;
    let projid = g.choose(&[0, 0, 7, 4711]);
    Some((Op::SetProject { at: g.at(w, node), projid }, Effect::None))
}

pub fn stat(g: &mut Gen, w: usize) -> Plan {
    let (on, _) = g.target(w, ANY)?;
    Some((Op::Stat { on }, Effect::None))
}

pub fn statx(g: &mut Gen, w: usize) -> Plan {
    let (on, _) = g.target(w, ANY)?;
    Some((Op::Statx { on }, Effect::None))
}

pub fn statfs(g: &mut Gen, w: usize) -> Plan {
    let slot = g.pick_slot(w, |_| true)?;
    Some((Op::Statfs { slot }, Effect::None))
}

pub fn access(g: &mut Gen, w: usize) -> Plan {
    let node = g.pick_node(w, ANY)?;
    let mode = g.choose(&[libc::F_OK, libc::R_OK, libc::W_OK, libc::X_OK, libc::R_OK | libc::W_OK]);
    let flags = g.choose(&[0, 0, libc::AT_EACCESS, libc::AT_SYMLINK_NOFOLLOW]);
    Some((Op::Access { at: g.at(w, node), mode, flags }, Effect::None))
}

pub fn umask(g: &mut Gen, _: usize) -> Plan {
    let mask = g.choose(&[0o022, 0o022, 0o002, 0o000, 0o077, 0o027]);
    Some((Op::Umask { mask }, Effect::None))
}
