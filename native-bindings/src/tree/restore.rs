//! Makes side A what side B is, with the fewest changes.
//!
//! The order: names (new objects are complete before they get theirs; what is renamed is renamed),
//! content and metadata of what stays, then deletions, then directories, deepest first, for their
//! times. Whatever kills it, the same restore begun again ends with the same tree: nothing is
//! remembered but what is in the trees. The same object stays the same object: it is patched in place.

use super::attributes::{lift_seals, make_equal, Wanted};
use super::change::is_moved;
use super::content::patch;
use super::job::{failure, Failure, Told};
use super::judge::{Verdict, What};
use super::limits::REPLACED_WHOLE_BYTES;
use super::place::remove_leftovers;
use super::side::{Facts, Side, NONE, ROOT};
use super::walk::{facts_of, Pairing};
use super::Options;
use crate::replay::error::{Done, Fault};
use crate::replay::seal::{set_flags, SEALS};
use crate::replay::sys;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};

/// A restore under way. Entries of `a` are what is there now, new objects among them.
pub struct Restore<'r, 't> {
    pub options: &'r Options,
    pub told: &'r mut Told<'t>,
    pub a: Side,
    pub b: Side,
    pub verdicts: Vec<Verdict>,
    /// For every entry of `b`, its object in `a`; NONE: it could not be made.
    pub made: Vec<u32>,
    /// What is under a name in `a` now, as far as it is not equal anyway.
    pub names: HashMap<(u32, Box<[u8]>), u32>,
    /// Objects with several names, by their number in `b`: one of their entries in `a`.
    pub links: HashMap<u64, u32>,
    /// Directories of `a` in which names were changed, and objects whose seals were lifted.
    pub touched: HashSet<u32>,
    pub lifted: HashSet<u32>,
    /// Entries of `a` that are not there any more.
    pub gone: HashSet<u32>,
    /// Files of `a` that are to be sealed at last.
    to_seal: Vec<(u32, u32)>,
    /// Entries of `a` from here on are new.
    first_new: u32,
    pub temporaries: u64,
    /// Side B has said that it knows no flags and projects.
    flagless: bool,
}

impl<'r, 't> Restore<'r, 't> {
    pub fn new(options: &'r Options, told: &'r mut Told<'t>, found: Pairing) -> Self {
        let Pairing { a, b, verdicts } = found;
        let made = b.entries.iter().map(|entry| entry.partner).collect();
        let place = |(at, entry): (usize, &super::side::Entry)| {
            ((entry.parent, entry.name.clone()), at as u32)
        };
        let names = a.entries.iter().enumerate().skip(1).map(place).collect();
        let paired = b.entries.iter().filter(|e| e.partner != NONE && several(&e.facts));
        let links = paired.map(|entry| (entry.facts.ino, entry.partner)).collect();
        Self {
            options,
            told,
            first_new: a.count(),
            a,
            b,
            verdicts,
            made,
            names,
            links,
            touched: HashSet::new(),
            lifted: HashSet::new(),
            gone: HashSet::new(),
            to_seal: Vec::new(),
            temporaries: 0,
            flagless: false,
        }
    }

    /// Everything. What fails is told and left undone; the failure that comes back has ended it.
    pub fn run(mut self) -> Result<(), Failure> {
        self.count();
        self.require_scope()?;
        for at in 1..self.b.count() {
            let done = self.name(at);
            self.settled(at, done)?;
        }
        for at in 1..self.b.count() {
            if !self.b.facts(at).is_dir() && self.made[at as usize] < self.first_new {
                let done = self.content(at);
                self.settled(at, done)?;
            }
        }
        self.deletions()?;
        self.seals()?;
        for at in (0..self.b.count()).rev() {
            if self.b.facts(at).is_dir() {
                let done = self.directory(at);
                self.settled(at, done)?;
            }
        }
        if self.options.private {
            let done = sys::syncfs(self.a.root_fd()).map(|()| false);
            self.settled(ROOT, done)?;
        }
        Ok(())
    }

    /// What is to be done, for who looks at the progress.
    fn count(&self) {
        let (mut objects, mut bytes) = (0, 0);
        for at in 0..self.b.count() {
            let (entry, verdict) = (self.b.get(at), &self.verdicts[at as usize]);
            let new = entry.partner == NONE;
            if new || !verdict.what.is_empty() || is_moved(&self.a, &self.b, at) {
                objects += 1;
            }
            if entry.facts.is_regular() && (new || verdict.what.has(What::DATA)) {
                bytes += entry.facts.size;
            }
        }
        objects += self.a.entries.iter().filter(|entry| entry.partner == NONE).count() as u64;
        self.told.shared.set_total(objects, bytes);
    }

    /// A path that is not in B is no reason to delete what is in A; and what a killed restore of a
    /// single file has left beside it goes.
    fn require_scope(&mut self) -> Result<(), Failure> {
        let scope = &self.options.scope;
        let Some((_, way)) = scope.split_last() else {
            return Ok(());
        };
        let missing = |at: &u32| {
            let entry = self.a.get(*at);
            let depth = self.a.depth(*at) as usize;
            let beside = self.b.entries.iter().any(|other| {
                other.partner == NONE
                    && other.name == entry.name
                    && other.parent == { self.a.get(entry.parent).partner }
            });
            entry.partner == NONE && depth <= scope.len() && !beside
        };
        if let Some(at) = (1..self.a.count()).find(missing) {
            let fault = Fault::Sys { call: "restore", errno: libc::ENOENT };
            return Err(failure(self.a.path(at), &fault));
        }
        remove_leftovers(&self.a, way);
        Ok(())
    }

    /// Counts, or tells what is left undone.
    fn settled(&mut self, at: u32, done: Done<bool>) -> Result<(), Failure> {
        match done {
            Ok(true) => self.told.shared.add_done(),
            Ok(false) => {}
            Err(fault) => self.told.failed(self.b.path(at), fault)?,
        }
        Ok(())
    }

    /// Gives an object of B its name in A; true when something was done that is whole now.
    fn name(&mut self, at: u32) -> Done<bool> {
        self.told.shared.check_canceled()?;
        let parent = self.made[self.b.get(at).parent as usize];
        if parent == NONE {
            // Its directory could not be made, which was told.
            self.made[at as usize] = NONE;
            self.told.failures += 1;
            return Ok(false);
        }
        let object = self.made[at as usize];
        if object == NONE {
            self.made[at as usize] = self.make(at, parent)?;
            return Ok(!self.b.facts(at).is_dir());
        }
        if !is_moved_now(&self.a, &self.b, at, parent, object) {
            return Ok(false);
        }
        let name = self.b.get(at).name.clone();
        self.settle(object, parent, &name)?;
        Ok(self.verdicts[at as usize].what.is_empty())
    }

    /// Patches what is the same object, or stands in its place.
    fn content(&mut self, at: u32) -> Done<bool> {
        let (object, what) = (self.made[at as usize], self.verdicts[at as usize].what);
        if object == NONE || what.is_empty() && !self.lifted.contains(&object) {
            return Ok(false);
        }
        self.told.shared.check_canceled()?;
        let (old, new) = (*self.a.facts(object), *self.b.facts(at));
        let replaced = self.options.identity && !old.same_object(&new);
        let small = new.is_regular() && new.size <= REPLACED_WHOLE_BYTES;
        if replaced && small && what.has(What::DATA) && old.nlink <= 1 && new.nlink <= 1 {
            self.replace(at, object)?;
        } else {
            self.lifting(&[object], |me| me.patch(at, object))?;
        }
        Ok(true)
    }

    /// As whoever saves by renaming a new file over the old one: readers see one or the other.
    fn replace(&mut self, at: u32, object: u32) -> Done {
        let parent = self.a.get(object).parent;
        self.a.entries[object as usize].partner = NONE;
        match self.make(at, parent) {
            Ok(made) => {
                self.made[at as usize] = made;
                Ok(())
            }
            Err(fault) => {
                // The old one stays, and is not taken for something to delete.
                self.a.entries[object as usize].partner = at;
                Err(fault)
            }
        }
    }

    fn patch(&mut self, at: u32, object: u32) -> Done {
        let (to_dir, to_name) = self.a.place(object)?;
        let regular = self.b.facts(at).is_regular();
        let open = |flags| sys::openat(to_dir.as_raw_fd(), to_name.c(), flags, 0);
        let file = match regular {
            true => Some(open(libc::O_RDWR | libc::O_NONBLOCK)?),
            false => None,
        };
        let from = self.source(at)?;
        if let (Some(to), Some(from)) = (&file, &from) {
            if self.verdicts[at as usize].what.has(What::DATA) {
                let now = facts_of(to)?.size;
                let wanted = facts_of(from)?.size;
                let sized = ((to.as_raw_fd(), now), (from.as_raw_fd(), wanted));
                patch(self.told.shared, sized.0, sized.1)?;
            }
        }
        self.attributes(at, object, file.as_ref(), from.as_ref())
    }

    /// Side B's file or directory, opened for reading; `None` for other objects.
    pub fn source(&mut self, at: u32) -> Done<Option<OwnedFd>> {
        let facts = *self.b.facts(at);
        if !facts.is_regular() && !facts.is_dir() {
            return Ok(None);
        }
        let (dir, name) = self.b.place(at)?;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOATIME;
        sys::openat(dir.as_raw_fd(), name.c(), flags, 0).map(Some)
    }

    /// What an object is to be, besides its content. Seals of files come when all names are as they are
    /// to be.
    pub fn wanted(&mut self, at: u32, source: Option<&OwnedFd>) -> Done<Wanted> {
        let readable = source.filter(|_| !self.flagless);
        let mut wanted = match source {
            Some(source) => Wanted::of(source, readable)?,
            None => Wanted::of(&self.b.object(at)?, None)?,
        };
        self.flagless |= readable.is_some() && wanted.flags.is_none() && wanted.project.is_none();
        if !wanted.facts.is_dir() {
            if let Some(flags) = wanted.flags.filter(|flags| flags & SEALS != 0) {
                self.to_seal.push((at, flags));
                wanted.flags = Some(flags & !SEALS);
            }
        }
        Ok(wanted)
    }

    fn attributes(
        &mut self,
        at: u32,
        object: u32,
        file: Option<&OwnedFd>,
        source: Option<&OwnedFd>,
    ) -> Done {
        let wanted = self.wanted(at, source)?;
        self.equalize(object, file, &wanted)
    }

    pub fn equalize(&mut self, object: u32, file: Option<&OwnedFd>, wanted: &Wanted) -> Done {
        match file {
            Some(file) => make_equal(file, Some(file), wanted),
            None => make_equal(&self.a.object(object)?, None, wanted),
        }
    }

    /// What is not in B any more, deepest first.
    fn deletions(&mut self) -> Result<(), Failure> {
        let doomed = |at: &u32| self.is_doomed(*at);
        let mut all: Vec<(u32, u32)> =
            (1..self.first_new).filter(doomed).map(|at| (self.a.depth(at), at)).collect();
        all.sort_unstable_by(|x, y| y.cmp(x));
        for (_, at) in all {
            let parent = self.a.get(at).parent;
            let done = self.lifting(&[at, parent], |me| {
                me.told.shared.check_canceled()?;
                let (dir, name) = me.a.place(at)?;
                sys::unlinkat(dir.as_raw_fd(), &name, me.a.facts(at).is_dir())
            });
            match done {
                Err(fault) if !fault.is(libc::ENOENT) => {
                    self.told.failed(self.a.path(at), fault)?;
                }
                _ => {
                    self.touched.insert(parent);
                    self.told.shared.add_done();
                }
            }
        }
        Ok(())
    }

    fn seals(&mut self) -> Result<(), Failure> {
        for (at, flags) in std::mem::take(&mut self.to_seal) {
            let done = self.seal(at, flags).map(|()| false);
            self.settled(at, done)?;
        }
        Ok(())
    }

    fn seal(&mut self, at: u32, flags: u32) -> Done {
        let (dir, name) = self.a.place(self.made[at as usize])?;
        let file = sys::openat(dir.as_raw_fd(), name.c(), libc::O_RDONLY, 0)?;
        set_flags(file.as_raw_fd(), flags)
    }

    fn directory(&mut self, at: u32) -> Done<bool> {
        let object = self.made[at as usize];
        if object == NONE {
            return Ok(false);
        }
        let new = object >= self.first_new;
        let told = new || !self.verdicts[at as usize].what.is_empty();
        let disturbed = self.touched.contains(&object) || self.lifted.contains(&object);
        // What leads to the scope is none of our business.
        let outside = (self.b.depth(at) as usize) < self.options.scope.len();
        if !told && (!disturbed || outside) {
            return Ok(false);
        }
        let file = self.a.dir(object)?;
        let file = file.try_clone().map_err(|_| sys::fault("dup"))?;
        let source = self.source(at)?;
        self.lifting(&[object], |me| me.attributes(at, object, Some(&file), source.as_ref()))?;
        Ok(told)
    }

    /// Does it; where flags of these objects forbid it, lifts them and does it again.
    pub fn lifting<T>(&mut self, objects: &[u32], f: impl Fn(&mut Self) -> Done<T>) -> Done<T> {
        let fault = match f(self) {
            Err(fault) if fault.is(libc::EPERM) => fault,
            other => return other,
        };
        let mut lifted = false;
        for at in objects {
            let facts = *self.a.facts(*at);
            if !facts.is_regular() && !facts.is_dir() || self.gone.contains(at) {
                continue;
            }
            let (dir, name) = self.a.place(*at)?;
            let file = sys::openat(dir.as_raw_fd(), name.c(), libc::O_RDONLY, 0)?;
            if lift_seals(&file)? {
                self.lifted.insert(*at);
                lifted = true;
            }
        }
        if lifted {
            f(self)
        } else {
            Err(fault)
        }
    }

    pub fn is_doomed(&self, at: u32) -> bool {
        self.a.get(at).partner == NONE && !self.gone.contains(&at)
    }
}

pub fn several(facts: &Facts) -> bool {
    !facts.is_dir() && facts.nlink > 1
}

fn is_moved_now(a: &Side, b: &Side, at: u32, parent: u32, object: u32) -> bool {
    let now = a.get(object);
    now.parent != parent || now.name != b.get(at).name
}
