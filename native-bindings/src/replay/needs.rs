//! What the target is known to lack: objects and ranges whose image is asked for from the source.
//!
//! Noted where a comparison finds a difference, dropped where an image or a removal makes it
//! meaningless. Kept in the object map's file, so that nothing noted is forgotten by dying.

use super::engine::Engine;
use super::error::Done;
use super::limits::NEEDS_MAX;
use super::map_log::Entry;
use crate::record::Oid;
use std::collections::HashMap;

/// In a range's place: the object's metadata and, of a directory, its names.
pub const OBJECT: (u64, u64) = (u64::MAX, u64::MAX);

/// What one object lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Record that found it last.
    pub seq: u64,
    pub object: bool,
    /// Bytes, in the order they were found; adjacent ones are one.
    pub ranges: Vec<(u64, u64)>,
}

#[derive(Default)]
pub struct Needs {
    of: HashMap<Oid, Need>,
    /// The last record that a fill was ahead of.
    settled_after: u64,
}

impl Needs {
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Objects that lack something.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// A fill tells what is true after record `seq`.
    pub fn settles(&mut self, seq: u64) {
        self.settled_after = seq.max(self.settled_after);
    }

    pub fn settled_after(&self) -> u64 {
        self.settled_after
    }

    /// A fill has perhaps told already what record `seq` does.
    pub fn foretold(&self, seq: u64) -> bool {
        seq <= self.settled_after
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Oid, &Need)> {
        self.of.iter()
    }

    pub fn get(&self, oid: Oid) -> Option<&Need> {
        self.of.get(&oid)
    }

    pub fn add(&mut self, oid: Oid, (from, to): (u64, u64), seq: u64) {
        let need = self.of.entry(oid).or_default();
        need.seq = seq;
        if (from, to) == OBJECT {
            need.object = true;
            return;
        }
        match need.ranges.last_mut() {
            Some((first, end)) if from >= *first && from <= *end => *end = to.max(*end),
            _ => need.ranges.push((from, to)),
        }
    }

    pub fn met(&mut self, oid: Oid, (from, to): (u64, u64)) {
        let Some(need) = self.of.get_mut(&oid) else {
            return;
        };
        if (from, to) == OBJECT {
            need.object = false;
        } else {
            let parts = need.ranges.iter().flat_map(|(a, b)| {
                [(*a, (*b).min(from)), ((*a).max(to), *b)].into_iter().filter(|(a, b)| a < b)
            });
            need.ranges = parts.collect();
        }
        if !need.object && need.ranges.is_empty() {
            self.of.remove(&oid);
        }
    }

    pub fn forget(&mut self, oid: Oid) {
        self.of.remove(&oid);
    }

    /// What no record since `seq` has found is not true any more.
    pub fn forget_before(&mut self, seq: u64) {
        self.of.retain(|_, need| need.seq >= seq);
    }
}

impl Engine {
    /// The target lacks this.
    pub(super) fn need(&mut self, oid: Oid, range: (u64, u64)) -> Done {
        let seq = self.seq;
        // Whatever a fill has brought is not enough.
        self.fills.missed(oid, range);
        self.state.log(&Entry::Need { seq, oid, from: range.0, to: range.1 })?;
        self.needs.add(oid, range, seq);
        Ok(())
    }

    /// An image has told this.
    pub(super) fn need_met(&mut self, oid: Oid, range: (u64, u64)) -> Done {
        if self.needs.get(oid).is_none() {
            return Ok(());
        }
        self.state.log(&Entry::NeedMet { oid, from: range.0, to: range.1 })?;
        self.needs.met(oid, range);
        Ok(())
    }

    /// What lacks, as far as one list goes.
    pub fn need_list(&self) -> super::NeedList {
        let mut list = Vec::new();
        for (oid, need) in self.needs.iter() {
            if need.object {
                list.push((*oid, OBJECT));
            }
            list.extend(self.fills.left(*oid, need).into_iter().map(|range| (*oid, range)));
            if list.len() >= NEEDS_MAX {
                break;
            }
        }
        list
    }

    /// The object is gone.
    pub(super) fn need_nothing(&mut self, oid: Oid) -> Done {
        if self.needs.get(oid).is_none() {
            return Ok(());
        }
        self.state.log(&Entry::NeedMet { oid, from: OBJECT.0, to: OBJECT.1 })?;
        self.state.log(&Entry::NeedMet { oid, from: 0, to: u64::MAX })?;
        self.needs.forget(oid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_shrink_by_what_is_met() {
        let oid = Oid { ino: 1, gen: 1 };
        let mut needs = Needs::default();
        needs.add(oid, (0, 10), 5);
        needs.add(oid, (10, 20), 6);
        assert_eq!(needs.get(oid).unwrap().ranges, [(0, 20)]);
        needs.add(oid, OBJECT, 7);
        needs.met(oid, (5, 8));
        assert_eq!(needs.get(oid).unwrap().ranges, [(0, 5), (8, 20)]);
        needs.met(oid, OBJECT);
        needs.met(oid, (0, u64::MAX));
        assert!(needs.is_empty());
        needs.add(oid, (0, 1), 8);
        needs.forget_before(8);
        assert_eq!(needs.len(), 1);
        needs.forget_before(9);
        assert!(needs.is_empty());
    }
}
