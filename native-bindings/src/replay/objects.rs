//! The object map: which object of the target is which object of the journal.
//!
//! One entry is 64 bytes, the two indexes add 4 to 8 bytes each: a million objects take about
//! 80 MB. Only `bindings` changes the map, because every change is also logged.

use super::handle::Handle;
use super::limits::REMOVED_MAX;
use crate::record::Oid;
use std::collections::HashSet;

/// Index of an object in the map; valid until the object is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Obj(pub u32);

/// No descriptor, no pending time.
pub const NO_SLOT: u16 = u16::MAX;
pub const NO_PENDING: u32 = u32::MAX;

/// Made by TMPFILE and without a name yet: it lives in the staging area.
pub const UNNAMED: u8 = 1;
/// A record since the last checkpoint depends on its state (`checkpoints`) …
pub const WATCHED: u8 = 2;
/// … or one that the running checkpoint covers.
pub const WATCHED_BEFORE: u8 = 32;
/// Known to have neither set-uid nor set-gid.
pub const UNPRIVILEGED: u8 = 4;
/// Found by a name of the base, and not on the disk in the map's file yet (`checkpoints`).
pub const FOUND_BY_NAME: u8 = 64;
/// A stand-in for a symbolic link or a device whose image has not come yet.
pub const HOLLOW: u8 = 8;
/// Its security.capability was told by an image and must survive the image's data.
pub const IMAGE_CAPS: u8 = 16;

/// One object of the target.
#[derive(Clone, Copy)]
pub struct Object {
    pub oid: Oid,
    pub handle: Handle,
    pub pending: u32,
    pub slot: u16,
    /// Type bits of st_mode, shifted right by 12.
    pub kind: u8,
    pub flags: u8,
}

impl Object {
    pub fn is_dir(&self) -> bool {
        u32::from(self.kind) == libc::S_IFDIR >> 12
    }

    pub fn is_regular(&self) -> bool {
        u32::from(self.kind) == libc::S_IFREG >> 12
    }
}

fn hash_oid(oid: Oid) -> u64 {
    let h = (oid.ino ^ oid.gen.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    h ^ (h >> 32)
}

/// Open-addressing index from a hash to a position in the list; keys live in the list.
#[derive(Default)]
struct Index {
    slots: Vec<u32>,
    len: usize,
}

const FREE: u32 = u32::MAX;

impl Index {
    fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                FREE => return None,
                i if is(i) => return Some(i),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn insert(&mut self, hash: u64, i: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 8 > self.slots.len() * 7 {
            let room = (self.slots.len() * 2).max(64);
            let old = std::mem::replace(&mut self.slots, vec![FREE; room]);
            for i in old.into_iter().filter(|i| *i != FREE) {
                self.put(hash_of(i), i);
            }
        }
        self.put(hash, i);
        self.len += 1;
    }

    fn put(&mut self, hash: u64, i: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != FREE {
            at = (at + 1) & mask;
        }
        self.slots[at] = i;
    }

    /// Removes and closes the hole, so that no search stops too early.
    fn remove(&mut self, hash: u64, i: u32, hash_of: impl Fn(u32) -> u64) {
        if self.slots.is_empty() {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != i {
            if self.slots[at] == FREE {
                return;
            }
            at = (at + 1) & mask;
        }
        self.len -= 1;
        let mut next = (at + 1) & mask;
        while self.slots[next] != FREE {
            let home = hash_of(self.slots[next]) as usize & mask;
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(at) & mask) {
                self.slots[at] = self.slots[next];
                at = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[at] = FREE;
    }
}

/// All objects of the target that the journal has named.
#[derive(Default)]
pub struct Objects {
    list: Vec<Object>,
    unused: Vec<u32>,
    by_oid: Index,
    by_handle: Index,
    removed: HashSet<Oid>,
    /// More objects were removed than are remembered.
    removed_overflow: bool,
}

impl Objects {
    pub fn len(&self) -> usize {
        self.list.len() - self.unused.len()
    }

    pub fn get(&self, obj: Obj) -> &Object {
        &self.list[obj.0 as usize]
    }

    /// Places in the list, unused ones included.
    pub fn slots(&self) -> usize {
        self.list.len()
    }

    /// The object at a place of the list.
    pub fn at(&self, place: usize) -> Option<&Object> {
        self.list.get(place).filter(|o| !o.oid.is_none())
    }

    pub fn get_mut(&mut self, obj: Obj) -> &mut Object {
        &mut self.list[obj.0 as usize]
    }

    pub fn find(&self, oid: Oid) -> Option<Obj> {
        let is = |i: u32| self.list[i as usize].oid == oid;
        self.by_oid.find(hash_oid(oid), is).map(Obj)
    }

    pub fn find_handle(&self, handle: &Handle) -> Option<Obj> {
        let is = |i: u32| self.list[i as usize].handle == *handle;
        self.by_handle.find(handle.hash(), is).map(Obj)
    }

    /// Adds an object whose oid and handle are both new.
    pub fn add(&mut self, oid: Oid, handle: Handle, kind: u8, flags: u8) -> Obj {
        let object = Object { oid, handle, pending: NO_PENDING, slot: NO_SLOT, kind, flags };
        let i = match self.unused.pop() {
            Some(i) => {
                self.list[i as usize] = object;
                i
            }
            None => {
                self.list.push(object);
                (self.list.len() - 1) as u32
            }
        };
        let list = &self.list;
        self.by_oid.insert(hash_oid(oid), i, |i| hash_oid(list[i as usize].oid));
        self.by_handle.insert(handle.hash(), i, |i| list[i as usize].handle.hash());
        self.removed.remove(&oid);
        Obj(i)
    }

    /// Takes an object out; its descriptor and pending time must have been dropped before.
    pub fn take(&mut self, obj: Obj) -> Object {
        let object = self.list[obj.0 as usize];
        let list = &self.list;
        self.by_oid.remove(hash_oid(object.oid), obj.0, |i| hash_oid(list[i as usize].oid));
        self.by_handle.remove(object.handle.hash(), obj.0, |i| list[i as usize].handle.hash());
        let slot = &mut self.list[obj.0 as usize];
        slot.oid = Oid::NONE;
        slot.handle = Handle::NONE;
        self.unused.push(obj.0);
        object
    }

    /// Remembers that the object has no names left, so that records about it are passed over.
    pub fn remember_removed(&mut self, oid: Oid) {
        if self.removed.len() < REMOVED_MAX {
            self.removed.insert(oid);
        } else {
            self.removed_overflow = true;
        }
    }

    pub fn forget_removed(&mut self, oid: Oid) -> bool {
        self.removed.remove(&oid)
    }

    /// Whether the object may be one that was removed.
    pub fn is_removed(&self, oid: Oid) -> bool {
        self.removed_overflow || self.removed.contains(&oid)
    }

    pub fn removed_len(&self) -> usize {
        self.removed.len()
    }

    pub fn removed(&self) -> impl Iterator<Item = Oid> + '_ {
        self.removed.iter().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.list.iter().filter(|o| !o.oid.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_map_entry_stays_small() {
        assert_eq!(std::mem::size_of::<Object>(), 64);
    }

    #[test]
    fn object_map_agrees_with_a_model() {
        let mut map = Objects::default();
        let mut model = std::collections::HashMap::new();
        let mut x = 88172645463325252u64;
        for _ in 0..20_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let oid = Oid { ino: x % 512 + 1, gen: 7 };
            let handle = Handle::new(1, &oid.ino.to_le_bytes()).unwrap();
            match map.find(oid) {
                Some(obj) => {
                    assert!(model.remove(&oid.ino).is_some());
                    map.take(obj);
                }
                None => {
                    assert!(model.insert(oid.ino, ()).is_none());
                    map.add(oid, handle, 8, 0);
                }
            }
            assert_eq!(map.len(), model.len());
            assert_eq!(map.find(oid).is_some(), model.contains_key(&oid.ino));
            assert_eq!(map.find(oid), map.find_handle(&handle));
        }
    }
}
