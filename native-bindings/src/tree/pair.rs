//! Pairs what the walk has found on one side only: objects under another name, and objects that were
//! replaced under the same name.
//!
//! An object of A has at most one partner object in B and the other way round, whatever its names.

use super::job::{failure, Failure};
use super::judge::{convertible, judge_pair, Seen, Verdict};
use super::side::{present, Facts, NONE};
use super::walk::Walk;
use crate::replay::error::Done;
use std::collections::HashMap;
use std::os::fd::AsRawFd;

/// Objects with several names: which of A is which of B.
#[derive(Default)]
pub struct Links {
    of_a: HashMap<u64, u64>,
    of_b: HashMap<u64, u64>,
}

impl Links {
    /// Takes two objects as one; false when one of them is taken as another already.
    pub fn join(&mut self, a: &Facts, b: &Facts) -> bool {
        if a.is_dir() || a.nlink <= 1 && b.nlink <= 1 {
            return true;
        }
        match (self.of_a.get(&a.ino), self.of_b.get(&b.ino)) {
            (None, None) => {
                self.of_a.insert(a.ino, b.ino);
                self.of_b.insert(b.ino, a.ino);
                true
            }
            (Some(known), Some(back)) => *known == b.ino && *back == a.ino,
            _ => false,
        }
    }
}

/// By inode number and kind.
type Unpaired = HashMap<(u64, u32), Vec<u32>>;

/// The failure names what cannot be read.
pub fn match_moved(walk: &mut Walk) -> Result<(), Failure> {
    if walk.options.identity {
        let mut unpaired = unpaired(walk);
        // Directories first, parents before children: they say where the others are to be looked for.
        let taken = places(walk);
        for dirs in [true, false] {
            for where_to in [Where::Along, Where::Leaving, Where::Any] {
                by_identity(walk, &mut unpaired, &taken, (dirs, where_to))?;
            }
        }
        by_name(walk)?;
    }
    Ok(())
}

fn unpaired(walk: &Walk) -> Unpaired {
    let mut map = Unpaired::new();
    for (at, entry) in walk.found.b.entries.iter().enumerate() {
        if entry.partner == NONE {
            map.entry((entry.facts.ino, entry.facts.kind)).or_default().push(at as u32);
        }
    }
    map
}

/// Names of B that have no partner, by their places.
type Places = HashMap<(u32, Box<[u8]>), u32>;

fn places(walk: &Walk) -> Places {
    let mut places = HashMap::new();
    for (at, entry) in walk.found.b.entries.iter().enumerate().skip(1) {
        if entry.partner == NONE {
            places.insert((entry.parent, entry.name.clone()), at as u32);
        }
    }
    places
}

/// Which of several names an object has moved to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// The same name in the same directory, which has moved.
    Along,
    /// Any, when nothing has taken the old name's place: that is how a rename leaves it.
    Leaving,
    Any,
}

fn by_identity(
    walk: &mut Walk,
    unpaired: &mut Unpaired,
    taken: &Places,
    (dirs, where_to): (bool, Where),
) -> Result<(), Failure> {
    for a in 1..walk.found.a.count() {
        let entry = walk.found.a.get(a);
        if entry.partner != NONE || entry.facts.is_dir() != dirs {
            continue;
        }
        let Some(left) = unpaired.get_mut(&(entry.facts.ino, entry.facts.kind)) else {
            continue;
        };
        let b = &walk.found.b;
        left.retain(|at| b.get(*at).partner == NONE);
        // Moved along with its directory, or else by itself.
        let parent = walk.found.a.get(entry.parent).partner;
        if where_to == Where::Leaving && taken.contains_key(&(parent, entry.name.clone())) {
            continue;
        }
        let expected = |at: &&u32| {
            let other = b.get(**at);
            where_to != Where::Along || other.parent == parent && other.name == entry.name
        };
        let fits = |at: &&u32| b.facts(**at).same_object(&entry.facts);
        if let Some(b) = left.iter().filter(expected).find(fits).copied() {
            join(walk, a, b)?;
        }
    }
    Ok(())
}

/// What stands where something else of the same kind stood.
fn by_name(walk: &mut Walk) -> Result<(), Failure> {
    let places = places(walk);
    for a in 1..walk.found.a.count() {
        let entry = walk.found.a.get(a);
        let parent = walk.found.a.get(entry.parent).partner;
        if entry.partner != NONE || parent == NONE {
            continue;
        }
        let Some(b) = places.get(&(parent, entry.name.clone())).copied() else {
            continue;
        };
        let same_kind = entry.facts.kind == walk.found.b.facts(b).kind;
        if !same_kind {
            continue;
        }
        match replaced(walk, a, b) {
            Ok(true) => join(walk, a, b)?,
            Ok(false) => {}
            Err(fault) => return Err(failure(walk.found.b.path(b), &fault)),
        }
    }
    Ok(())
}

/// Whether one can take the place of the other.
fn replaced(walk: &mut Walk, a: u32, b: u32) -> Done<bool> {
    let (dir_a, name_a) = walk.found.a.place(a)?;
    let (dir_b, name_b) = walk.found.b.place(b)?;
    let a = Seen { dir: dir_a.as_raw_fd(), name: &name_a, facts: walk.found.a.facts(a) };
    let b = Seen { dir: dir_b.as_raw_fd(), name: &name_b, facts: walk.found.b.facts(b) };
    Ok(present(convertible(a, b))?.unwrap_or(false) && walk.links.join(a.facts, b.facts))
}

fn join(walk: &mut Walk, a: u32, b: u32) -> Result<(), Failure> {
    let (options, job) = (walk.options, walk.job);
    let found = &mut walk.found;
    let (fa, fb) = (*found.a.facts(a), *found.b.facts(b));
    walk.links.join(&fa, &fb);
    let judged = judge_pair(options, job, (&mut found.a, &mut found.b), (a, b));
    let verdict = match present(judged) {
        Ok(verdict) => verdict.unwrap_or_else(Verdict::default),
        Err(fault) => return Err(failure(found.b.path(b), &fault)),
    };
    walk.join(a, b, verdict);
    Ok(())
}
