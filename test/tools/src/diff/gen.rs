//! Picks the next operation, and learns from what it did.
//!
//! Everything random comes from one seeded generator, and everything learnt comes from the right
//! side, so a seed and the behaviour of the reference file system determine the sequence.

use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::catalogue::{Catalogue, Kind, NodeId, ROOT};
use super::families::{self, Family, Profile};
use super::op::{At, MapSlot, Op, Slot, Step, Target};
use super::outcome::Outcome;
use crate::bytes::Bytes;
use crate::sys::attr::{self, Identity};

/// Open descriptors per worker and side.
const SLOTS: usize = 16;
/// Mappings per worker and side.
const MAPS: usize = 4;
/// The tree is kept around this many objects.
const OBJECTS_FEW: usize = 80;
const OBJECTS_MANY: usize = 400;

/// What a descriptor can do.
#[derive(Clone, Debug)]
pub struct Held {
    pub node: Option<NodeId>,
    pub kind: Kind,
    pub flags: i32,
    pub size: u64,
    pub tmpfile: bool,
    /// The right-side inode.
    pub id: Option<Identity>,
    /// It was open for writing when the object became immutable or append-only, see `limits`.
    pub retired: bool,
}

impl Held {
    pub fn is_path(&self) -> bool {
        self.flags & libc::O_PATH != 0
    }
    pub fn readable(&self) -> bool {
        !self.is_path() && self.flags & libc::O_ACCMODE != libc::O_WRONLY
    }
    pub fn writable(&self) -> bool {
        !self.is_path() && !self.retired && self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
    pub fn direct(&self) -> bool {
        self.flags & libc::O_DIRECT != 0
    }
}

#[derive(Clone, Debug)]
pub struct HeldMap {
    pub id: Option<Identity>,
    pub len: u32,
    pub write: bool,
}

#[derive(Default)]
pub struct Pool {
    pub slots: Vec<Option<Held>>,
    pub maps: Vec<Option<HeldMap>>,
}

/// What to change in the picture when the operation succeeds.
#[derive(Clone, Debug)]
pub enum Effect {
    None,
    Create { parent: NodeId, name: Vec<u8>, kind: Kind },
    Remove(NodeId),
    Move { node: NodeId, parent: NodeId, name: Vec<u8>, whiteout: bool },
    Exchange(NodeId, NodeId),
    Open { held: Held, create: Option<(NodeId, Vec<u8>)> },
    Xattr { node: NodeId, name: Vec<u8>, set: bool },
    Listed(NodeId),
    Seal { node: NodeId, bits: u32 },
    Unseal(NodeId),
}

pub type Plan = Option<(Op, Effect)>;

/// An immutable or append-only object that is to be freed again.
#[derive(Clone, Debug)]
struct Sealed {
    node: NodeId,
    bits: u32,
    due: u64,
}

pub struct Gen {
    pub rng: ChaCha8Rng,
    pub tree: Catalogue,
    pub pools: Vec<Pool>,
    families: Vec<&'static Family>,
    profile: Profile,
    weights: Vec<u32>,
    sealed: Vec<Sealed>,
    /// A sealed object whose name was lost from the picture may stay sealed to the end.
    lost_sealed: bool,
    index: u64,
    /// Open flags never used.
    pub flags_off: i32,
}

/// A step and what it stands for.
pub struct Planned {
    pub step: Step,
    pub family: &'static str,
    effect: Effect,
}

impl Gen {
    pub fn new(seed: u64, workers: usize, profile: Profile, skip: &[String]) -> Gen {
        let off = |name: &str, flag| if skip.iter().any(|s| s == name) { flag } else { 0 };
        let pool = || Pool { slots: vec![None; SLOTS], maps: vec![None; MAPS] };
        Gen {
            rng: ChaCha8Rng::seed_from_u64(seed),
            tree: Catalogue::default(),
            pools: (0..workers).map(|_| pool()).collect(),
            families: families::enabled(profile, skip),
            profile,
            weights: Vec::new(),
            sealed: Vec::new(),
            lost_sealed: false,
            index: 0,
            flags_off: off("direct", libc::O_DIRECT)
                | off("append", libc::O_APPEND)
                | off("sync-flags", libc::O_SYNC | libc::O_DSYNC),
        }
    }

    pub fn next_step(&mut self) -> Planned {
        self.index += 1;
        if self.index % 64 == 1 {
            self.weigh();
        }
        if let Some(i) = self.sealed.iter().position(|s| s.due <= self.index) {
            let s = self.sealed.swap_remove(i);
            if let Some(path) = self.tree.path_below(ROOT, s.node) {
                let at = At { base: None, path: Bytes(path) };
                let op = Op::SetFlags { at, mask: s.bits, bits: 0 };
                return self.planned(0, op, "unseal", Effect::Unseal(s.node));
            }
            self.lost_sealed = true;
        }
        loop {
            let worker = self.pick_worker();
            let family = self.pick_family();
            if family.root_only && worker != 0 {
                continue;
            }
            if let Some((op, effect)) = (family.plan)(self, worker) {
                return self.planned(worker, op, family.name, effect);
            }
        }
    }

    fn planned(&mut self, worker: usize, op: Op, family: &'static str, effect: Effect) -> Planned {
        let probe = self.chance(30);
        let step = Step { worker: worker as u16, op, probe, left_only: false };
        Planned { step, family, effect }
    }

    fn pick_worker(&mut self) -> usize {
        match self.pools.len() {
            1 => 0,
            n if self.chance(70) => self.rng.random_range(1..n),
            _ => 0,
        }
    }

    fn weigh(&mut self) {
        let n = self.tree.len();
        self.weights = self
            .families
            .iter()
            .map(|f| {
                let w = f.weight(self.profile) * 10;
                match f.growth {
                    1 if n > OBJECTS_MANY => w / 4,
                    1 if n < OBJECTS_FEW => w * 3,
                    -1 if n > OBJECTS_MANY => w * 3,
                    -1 if n < OBJECTS_FEW => w / 4,
                    _ => w,
                }
            })
            .collect();
    }

    fn pick_family(&mut self) -> &'static Family {
        let total: u32 = self.weights.iter().sum();
        let mut at = self.rng.random_range(0..total.max(1));
        for (f, w) in self.families.iter().zip(&self.weights) {
            if at < *w {
                return f;
            }
            at -= w;
        }
        self.families[0]
    }

    /// True in `percent` of cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// True once in `n` cases.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    /// A descriptor was closed besides the plan.
    pub fn learn_closed(&mut self, step: Step, right: &Outcome) {
        self.learn(&Planned { step, family: "close", effect: Effect::None }, right);
    }

    /// Learns from the outcome on the right side.
    pub fn learn(&mut self, planned: &Planned, right: &Outcome) {
        let worker = planned.step.worker as usize;
        if right.result.is_err() {
            self.lost_sealed |= matches!(planned.effect, Effect::Unseal(_));
            return;
        }
        let seen = right.subject();
        let size = seen.and_then(|a| a.size);
        match planned.effect.clone() {
            Effect::None => {}
            Effect::Create { parent, name, kind } => {
                self.tree.add(parent, &name, kind, worker as u16);
            }
            Effect::Remove(node) => self.tree.remove(node),
            Effect::Move { node, parent, name, whiteout } => {
                let old = self.tree.get(node).map(|n| (n.parent, n.name.clone()));
                self.tree.relocate(node, parent, &name);
                if let (true, Some((parent, name))) = (whiteout, old) {
                    self.tree.add(parent, &name, Kind::Device, worker as u16);
                }
            }
            Effect::Exchange(a, b) => self.tree.exchange(a, b),
            Effect::Open { mut held, create } => {
                if let Some((parent, name)) = create {
                    let known = self.tree.lookup(parent, &name);
                    held.node = Some(known.unwrap_or_else(|| {
                        self.tree.add(parent, &name, Kind::File, worker as u16)
                    }));
                }
                held.size = size.unwrap_or(0);
                held.id = seen.map(|a| a.id);
                // A symbolic link may have led to anything.
                if let Some(a) = seen.filter(|_| !held.is_path()) {
                    held.kind = Kind::of_mode(a.mode);
                }
                if let Op::Open { slot, .. } = planned.step.op {
                    self.pools[worker].slots[slot as usize] = Some(held);
                }
            }
            Effect::Xattr { node, name, set } => {
                if let Some(n) = self.tree.get_mut(node) {
                    n.xattrs.retain(|x| *x != name);
                    if set {
                        n.xattrs.push(name);
                    }
                }
            }
            Effect::Listed(dir) => {
                let names = right.names.iter().flatten();
                self.tree.listed(dir, names.map(|(n, k)| (n.as_slice(), *k)));
            }
            Effect::Seal { node, bits } => {
                let due = self.index + self.rng.random_range(5..40);
                self.sealed.push(Sealed { node, bits, due });
                let id = seen.map(|a| a.id);
                let held = self.pools.iter_mut().flat_map(|p| p.slots.iter_mut()).flatten();
                held.filter(|h| id.is_none() || h.id.is_none() || h.id == id)
                    .for_each(|h| h.retired = true);
            }
            Effect::Unseal(_) => {}
        }
        self.learn_slots(&planned.step.op, worker, size, seen.map(|a| a.id));
    }

    fn learn_slots(&mut self, op: &Op, worker: usize, size: Option<u64>, id: Option<Identity>) {
        let pool = &mut self.pools[worker];
        match op {
            Op::Close { slot } => pool.slots[*slot as usize] = None,
            Op::MapOpen { map, len, write, .. } => {
                pool.maps[*map as usize] = Some(HeldMap { id, len: *len, write: *write });
            }
            Op::MapStore { map, .. } => {
                if let Some(Some(m)) = pool.maps.get_mut(*map as usize) {
                    m.id = id.or(m.id);
                }
            }
            Op::MapClose { map } => pool.maps[*map as usize] = None,
            _ => {}
        }
        if let (Some(size), Some(Target::Fd(slot))) = (size, op.subject()) {
            if let Some(Some(held)) = pool.slots.get_mut(slot as usize) {
                held.size = size;
            }
        }
    }

    /// Whether some object is immutable or append-only at present.
    pub fn any_sealed(&self) -> bool {
        self.lost_sealed || !self.sealed.is_empty()
    }

    /// Whether some worker holds a writable mapping of anything.
    pub fn any_mapped(&self) -> bool {
        self.pools.iter().flat_map(|p| &p.maps).flatten().any(|m| m.write)
    }

    /// Whether some worker still holds a writable mapping of this right-side inode.
    pub fn is_mapped(&self, id: Identity) -> bool {
        let mut maps = self.pools.iter().flat_map(|p| &p.maps).flatten();
        maps.any(|m| m.write && m.id.is_none_or(|m| m == id))
    }

    /// An existing object of one of these kinds; users prefer what they made themselves, and
    /// sealed objects are picked often while they last.
    pub fn pick_node(&mut self, worker: usize, kinds: &[Kind]) -> Option<NodeId> {
        if !self.sealed.is_empty() && self.chance(8) {
            let i = self.rng.random_range(0..self.sealed.len());
            let node = self.sealed[i].node;
            if self.tree.get(node).is_some_and(|n| kinds.contains(&n.kind)) {
                return Some(node);
            }
        }
        let total: usize = kinds.iter().map(|k| self.tree.of_kind(*k).len()).sum();
        if total == 0 {
            return None;
        }
        let mut found = None;
        let tries = if self.pools.len() > 1 { 4 } else { 1 };
        for _ in 0..tries {
            let mut i = self.rng.random_range(0..total);
            for k in kinds {
                let list = self.tree.of_kind(*k);
                if i < list.len() {
                    found = Some(list[i]);
                    break;
                }
                i -= list.len();
            }
            let owner = found.and_then(|f| self.tree.get(f)).map(|n| n.owner);
            if worker == 0 || owner == Some(worker as u16) {
                break;
            }
        }
        found
    }

    /// A slot for which `ok` holds.
    pub fn pick_slot(&mut self, worker: usize, ok: impl Fn(&Held) -> bool) -> Option<Slot> {
        let slots = &self.pools[worker].slots;
        let fit: Vec<Slot> = (0..slots.len())
            .filter(|i| slots[*i].as_ref().is_some_and(&ok))
            .map(|i| i as Slot)
            .collect();
        (!fit.is_empty()).then(|| self.choose(&fit))
    }

    pub fn held(&self, worker: usize, slot: Slot) -> Option<&Held> {
        self.pools[worker].slots.get(slot as usize).and_then(Option::as_ref)
    }

    /// An empty slot, or any: opening into a used one closes what it held.
    pub fn free_slot(&mut self, worker: usize) -> Slot {
        let slots = &self.pools[worker].slots;
        match slots.iter().position(Option::is_none) {
            Some(i) => i as Slot,
            None => self.rng.random_range(0..slots.len()) as Slot,
        }
    }

    pub fn pick_map(&mut self, worker: usize, ok: impl Fn(&HeldMap) -> bool) -> Option<MapSlot> {
        let maps = &self.pools[worker].maps;
        let fit: Vec<MapSlot> = (0..maps.len())
            .filter(|i| maps[*i].as_ref().is_some_and(&ok))
            .map(|i| i as MapSlot)
            .collect();
        (!fit.is_empty()).then(|| self.choose(&fit))
    }

    /// Flags that make an object refuse changes.
    pub fn seal_bits(&mut self) -> u32 {
        self.choose(&[attr::FLAG_IMMUTABLE, attr::FLAG_APPEND])
    }
}
