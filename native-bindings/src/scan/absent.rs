//! Names that the journal knows to be gone, in volumes whose backing directory others can change.
//!
//! A watcher hears of every removal, also of ours, and cannot tell them apart: a name that is not there
//! says nothing about who took it away. So the removals that went through the mount are remembered, as
//! many as a watcher may be behind.

use crate::record::Oid;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Names remembered; of an older removal its state is captured once more.
const NAMES_MAX: usize = 1 << 16;

#[derive(Default)]
struct Names {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

/// Nothing is remembered where nobody else can change the directory.
pub struct Absent {
    names: Option<Mutex<Names>>,
    hasher: RandomState,
}

impl Absent {
    pub fn new(watched: bool) -> Self {
        Self { names: watched.then(Mutex::default), hasher: RandomState::new() }
    }

    fn key(&self, parent: Oid, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    /// The journal has the removal of this name.
    pub fn note(&self, parent: Oid, name: &[u8]) {
        let Some(names) = &self.names else { return };
        let key = self.key(parent, name);
        let mut n = names.lock();
        if n.known.insert(key) {
            n.order.push_back(key);
        }
        while n.order.len() > NAMES_MAX {
            if let Some(oldest) = n.order.pop_front() {
                n.known.remove(&oldest);
            }
        }
    }

    /// The name exists, by whomever.
    pub fn forget(&self, parent: Oid, name: &[u8]) {
        if let Some(names) = &self.names {
            names.lock().known.remove(&self.key(parent, name));
        }
    }

    pub fn knows(&self, parent: Oid, name: &[u8]) -> bool {
        self.names.as_ref().is_some_and(|n| n.lock().known.contains(&self.key(parent, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_name_is_known_until_it_exists_again() {
        let absent = Absent::new(true);
        let (a, b) = (Oid { ino: 1, gen: 1 }, Oid { ino: 2, gen: 1 });
        absent.note(a, b"x");
        assert!(absent.knows(a, b"x") && !absent.knows(a, b"y") && !absent.knows(b, b"x"));
        absent.forget(a, b"x");
        assert!(!absent.knows(a, b"x"));
        for n in 0..2 * NAMES_MAX {
            absent.note(b, &n.to_ne_bytes());
        }
        assert!(!absent.knows(b, &0usize.to_ne_bytes()), "the oldest are forgotten");
        assert!(absent.knows(b, &(2 * NAMES_MAX - 1).to_ne_bytes()));
        let off = Absent::new(false);
        off.note(a, b"x");
        assert!(!off.knows(a, b"x"));
    }
}
