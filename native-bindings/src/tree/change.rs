//! The differences of two trees as a list, in the order of paths.

use super::judge::What;
use super::side::{Facts, Side, NONE};
use super::walk::Pairing;
use std::collections::{HashMap, HashSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Deleted,
    Created,
    /// Also changed, when `what` says so.
    Renamed,
    /// Content, and perhaps metadata.
    Changed,
    Metadata,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Created => "created",
            Self::Renamed => "renamed",
            Self::Changed => "changed",
            Self::Metadata => "metadata",
        }
    }
}

/// One difference. Paths are relative to the roots; bytes, not text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: Kind,
    /// In side B; of what was deleted, in side A.
    pub path: Vec<u8>,
    /// In side A, of what was renamed.
    pub from: Vec<u8>,
    /// S_IFMT.
    pub object: u32,
    pub what: What,
    /// In side B; of what was deleted, in side A.
    pub size: u64,
    pub mtime: (i64, u32),
    pub ranges: Vec<(u64, u64)>,
    /// Created: a further name of an object that has another.
    pub linked: bool,
}

fn change(kind: Kind, path: Vec<u8>, facts: &Facts) -> Change {
    Change {
        kind,
        path,
        from: Vec::new(),
        object: facts.kind,
        what: What::default(),
        size: facts.size,
        mtime: facts.mtime,
        ranges: Vec::new(),
        linked: false,
    }
}

/// Whether a paired entry of B is under another name than in A.
pub fn is_moved(a: &Side, b: &Side, at: u32) -> bool {
    let (new, old) = (b.get(at), a.get(b.get(at).partner));
    at != 0 && (new.name != old.name || a.get(old.parent).partner != new.parent)
}

/// All differences; directories before what is in them.
pub fn changes(found: &mut Pairing) -> Vec<Change> {
    let mut all = of_b(found);
    of_a(found, &mut all);
    all.sort_by_cached_key(order);
    all
}

/// Bytes of the path with the separator below all others: a directory's tree stays together.
fn order(change: &Change) -> (Vec<u8>, Kind) {
    (change.path.iter().map(|b| if *b == b'/' { 0 } else { *b }).collect(), change.kind)
}

fn of_b(found: &mut Pairing) -> Vec<Change> {
    let mut all = Vec::new();
    // Names that are new, of objects that have several; what has more than those had one before, or has it
    // where nobody looks: in a directory without changes, or outside of what is compared.
    let several = |facts: &Facts| !facts.is_dir() && facts.nlink > 1;
    let mut fresh: HashMap<u64, u64> = HashMap::new();
    for entry in found.b.entries.iter().filter(|e| e.partner == NONE && several(&e.facts)) {
        *fresh.entry(entry.facts.ino).or_default() += 1;
    }
    let mut named: HashSet<u64> = HashSet::new();
    let mut is_further = |facts: &Facts| {
        let has_other = u64::from(facts.nlink) > fresh.get(&facts.ino).copied().unwrap_or(0);
        several(facts) && (!named.insert(facts.ino) || has_other)
    };
    for at in 0..found.b.count() {
        let entry = found.b.get(at);
        if entry.partner == NONE {
            let mut created = change(Kind::Created, found.b.path(at), &entry.facts);
            created.linked = is_further(&entry.facts);
            all.push(created);
            continue;
        }
        let verdict = &mut found.verdicts[at as usize];
        let moved = is_moved(&found.a, &found.b, at);
        let kind = match (moved, verdict.what) {
            (true, _) => Kind::Renamed,
            (false, what) if what.is_empty() => continue,
            (false, what) if what.is_content() => Kind::Changed,
            _ => Kind::Metadata,
        };
        let mut one = change(kind, found.b.path(at), &entry.facts);
        one.what = verdict.what;
        one.ranges = std::mem::take(&mut verdict.ranges);
        if moved {
            one.from = found.a.path(entry.partner);
        }
        all.push(one);
    }
    all
}

/// What is gone. Something else of its kind in its place is one change, not two.
fn of_a(found: &mut Pairing, all: &mut Vec<Change>) {
    let mut created: HashMap<Vec<u8>, usize> = HashMap::new();
    for (i, each) in all.iter().enumerate().filter(|(_, each)| each.kind == Kind::Created) {
        created.insert(each.path.clone(), i);
    }
    for at in 1..found.a.count() {
        if found.a.get(at).partner != NONE {
            continue;
        }
        let path = found.a.path(at);
        let facts = *found.a.facts(at);
        match created.get(&path).filter(|i| all[**i].object == facts.kind && !facts.is_dir()) {
            Some(i) => {
                let one = &mut all[*i];
                one.kind = Kind::Changed;
                one.what.add(What::TARGET, facts.is_link());
                one.what.add(What::DEVICE, facts.is_device());
                one.what.add(What::LINKS, !facts.is_link() && !facts.is_device());
                one.what.add(What::SIZE, facts.size != one.size);
            }
            None => all.push(change(Kind::Deleted, path, &facts)),
        }
    }
}
