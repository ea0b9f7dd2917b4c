//! Two trees side by side: what is on one side only, and what may differ on both.
//!
//! Equal files leave no entry behind: memory grows with directories, hard links and differences. A
//! directory that is on one side only is listed whole, for what was in it may be elsewhere now.

use super::job::{failure, Failure, Shared};
use super::judge::{convertible, judge, Seen, Verdict};
use super::pair::{match_moved, Links};
use super::side::{present, Facts, Side, NONE, ROOT};
use super::Options;
use crate::replay::error::Done;
use crate::replay::sys::{self, listing, Listed, Name};
use std::cmp::Ordering;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

/// Both trees, as far as they differ.
pub struct Pairing {
    pub a: Side,
    pub b: Side,
    /// For every entry of `b` that has a partner: what differs.
    pub verdicts: Vec<Verdict>,
}

enum Todo {
    Both(u32, u32),
    OnlyA(u32),
    OnlyB(u32),
}

pub struct Walk<'a> {
    pub options: &'a Options,
    pub job: &'a Shared,
    pub found: Pairing,
    pub links: Links,
    todo: Vec<Todo>,
}

/// Walks, and pairs what has moved. The failure names the directory that cannot be read.
pub fn walk(options: &Options, job: &Shared) -> Result<Pairing, Failure> {
    let open = |root: &std::path::Path| {
        use std::os::unix::ffi::OsStrExt;
        Side::open(root).map_err(|e| failure(root.as_os_str().as_bytes().to_vec(), &e))
    };
    let found = Pairing { a: open(&options.a)?, b: open(&options.b)?, verdicts: Vec::new() };
    let todo = vec![Todo::Both(ROOT, ROOT)];
    let mut walk = Walk { options, job, found, links: Links::default(), todo };
    walk.judge_root().map_err(|e| failure(Vec::new(), &e))?;
    while let Some(todo) = walk.todo.pop() {
        let done = match todo {
            Todo::Both(a, b) => walk.both(a, b),
            Todo::OnlyA(a) => walk.only(true, a),
            Todo::OnlyB(b) => walk.only(false, b),
        };
        if let Err(fault) = done {
            let path = match todo {
                Todo::Both(_, b) | Todo::OnlyB(b) => walk.found.b.path(b),
                Todo::OnlyA(a) => walk.found.a.path(a),
            };
            return Err(failure(path, &fault));
        }
    }
    match_moved(&mut walk)?;
    Ok(walk.found)
}

/// A directory, opened, with its names in order.
struct Listing {
    fd: Rc<OwnedFd>,
    names: Vec<Listed>,
}

impl Walk<'_> {
    fn judge_root(&mut self) -> Done {
        let verdict = if self.options.scope.is_empty() {
            let here = Name::here();
            let (a, b) = (&self.found.a, &self.found.b);
            let of_a = Seen { dir: a.root_fd(), name: &here, facts: a.facts(ROOT) };
            let of_b = Seen { dir: b.root_fd(), name: &here, facts: b.facts(ROOT) };
            judge(self.options, self.job, of_a, of_b)?
        } else {
            Verdict::default()
        };
        self.found.verdicts.push(verdict);
        Ok(())
    }

    /// The names of a directory; of one on the way to the scope, only the next.
    fn list(&mut self, of_a: bool, at: u32, depth: Option<usize>) -> Done<Listing> {
        let side = if of_a { &mut self.found.a } else { &mut self.found.b };
        let fd = side.dir(at)?;
        let mut names = listing(fd.as_raw_fd())?;
        if let Some(depth) = depth {
            names.retain(|each| each.name == self.options.scope[depth]);
        }
        names.sort_unstable_by(|x, y| x.name.cmp(&y.name));
        self.job.add_seen(names.len() as u64);
        Ok(Listing { fd, names })
    }

    /// How far on the way to the scope a directory is; `None` within it.
    fn way(&self, of_a: bool, at: u32) -> Option<usize> {
        if self.options.scope.is_empty() {
            return None;
        }
        let side = if of_a { &self.found.a } else { &self.found.b };
        let depth = side.depth(at) as usize;
        (depth < self.options.scope.len()).then_some(depth)
    }

    fn both(&mut self, a: u32, b: u32) -> Done {
        self.job.check_canceled()?;
        let way = self.way(false, b);
        let mut left = self.list(true, a, way)?;
        let mut right = self.list(false, b, way)?;
        let (fd_a, fd_b) = (left.fd, right.fd);
        let (mut names_a, mut names_b) =
            (left.names.drain(..).peekable(), right.names.drain(..).peekable());
        loop {
            let order = match (names_a.peek(), names_b.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(x), Some(y)) => x.name.cmp(&y.name),
            };
            let x = if order.is_le() { names_a.next() } else { None };
            let y = if order.is_ge() { names_b.next() } else { None };
            match (x, y) {
                (Some(x), Some(y)) => self.pair((&fd_a, a, &x), (&fd_b, b, &y), way)?,
                (Some(x), None) => self.one(true, &fd_a, a, &x.name)?,
                (None, Some(y)) => self.one(false, &fd_b, b, &y.name)?,
                (None, None) => {}
            }
        }
    }

    /// A name that is on both sides.
    fn pair(
        &mut self,
        (fd_a, dir_a, x): (&OwnedFd, u32, &Listed),
        (fd_b, dir_b, y): (&OwnedFd, u32, &Listed),
        way: Option<usize>,
    ) -> Done {
        if self.cannot_differ(x, y) {
            return Ok(());
        }
        let name = Name::component(&x.name)?;
        let facts_a = present(Facts::of(fd_a.as_raw_fd(), name.c()))?;
        let facts_b = present(Facts::of(fd_b.as_raw_fd(), name.c()))?;
        let (Some(fa), Some(fb)) = (facts_a, facts_b) else {
            self.add_one(true, dir_a, &x.name, facts_a);
            self.add_one(false, dir_b, &x.name, facts_b);
            return Ok(());
        };
        let a = Seen { dir: fd_a.as_raw_fd(), name: &name, facts: &fa };
        let b = Seen { dir: fd_b.as_raw_fd(), name: &name, facts: &fb };
        let on_the_way = way.is_some_and(|depth| depth + 1 < self.options.scope.len());
        if !self.same(a, b, on_the_way)? {
            self.add_one(true, dir_a, &x.name, Some(fa));
            self.add_one(false, dir_b, &x.name, Some(fb));
            return Ok(());
        }
        let verdict = match on_the_way {
            true => Verdict::default(),
            false => match present(judge(self.options, self.job, a, b))? {
                Some(verdict) => verdict,
                // It has just gone.
                None => return Ok(()),
            },
        };
        let several = fa.nlink > 1 || fb.nlink > 1;
        if verdict.what.is_empty() && !fa.is_dir() && !several {
            return Ok(());
        }
        let i = self.add(true, dir_a, &x.name, fa);
        let j = self.add(false, dir_b, &x.name, fb);
        self.join(i, j, verdict);
        let mounted = fa.dev != self.found.a.facts(ROOT).dev;
        let looks = fa.ino != fb.ino || self.leads(fa.ino);
        if fa.is_dir() && looks && !mounted && fb.dev == self.found.b.facts(ROOT).dev {
            self.todo.push(Todo::Both(i, j));
        }
        Ok(())
    }

    /// Told by the directory alone, where it is known what can differ.
    fn cannot_differ(&self, x: &Listed, y: &Listed) -> bool {
        let Some(only) = self.options.only.as_ref().filter(|_| self.options.identity) else {
            return false;
        };
        let equal = match x.kind {
            libc::DT_UNKNOWN => false,
            libc::DT_DIR => !self.leads(x.ino),
            _ => true,
        };
        equal && x.ino == y.ino && x.kind == y.kind && !only.contains(&x.ino)
    }

    /// May something differ in a directory that both sides have?
    fn leads(&self, ino: u64) -> bool {
        self.options.within.as_ref().is_none_or(|within| within.contains(&ino))
    }

    /// Whether two objects under one name are one, or can be taken as one.
    fn same(&mut self, a: Seen, b: Seen, on_the_way: bool) -> Done<bool> {
        if a.facts.kind != b.facts.kind {
            return Ok(false);
        }
        if on_the_way {
            return Ok(true);
        }
        let one = match self.options.identity {
            true => a.facts.same_object(b.facts),
            false => present(convertible(a, b))?.unwrap_or(false),
        };
        Ok(one && self.links.join(a.facts, b.facts))
    }

    fn one(&mut self, of_a: bool, dir: &OwnedFd, at: u32, name: &[u8]) -> Done {
        let facts = present(Facts::of(dir.as_raw_fd(), Name::component(name)?.c()))?;
        self.add_one(of_a, at, name, facts);
        Ok(())
    }

    /// Something that is on one side only, as far as names go.
    fn add_one(&mut self, of_a: bool, dir: u32, name: &[u8], facts: Option<Facts>) {
        let Some(facts) = facts else {
            return;
        };
        let at = self.add(of_a, dir, name, facts);
        let root = if of_a { self.found.a.facts(ROOT) } else { self.found.b.facts(ROOT) };
        if facts.is_dir() && facts.dev == root.dev {
            self.todo.push(if of_a { Todo::OnlyA(at) } else { Todo::OnlyB(at) });
        }
    }

    fn add(&mut self, of_a: bool, dir: u32, name: &[u8], facts: Facts) -> u32 {
        if of_a {
            return self.found.a.add(dir, name, facts);
        }
        self.found.verdicts.push(Verdict::default());
        self.found.b.add(dir, name, facts)
    }

    pub fn join(&mut self, a: u32, b: u32, verdict: Verdict) {
        debug_assert!(self.found.a.get(a).partner == NONE && self.found.b.get(b).partner == NONE);
        self.found.a.entries[a as usize].partner = b;
        self.found.b.entries[b as usize].partner = a;
        self.found.verdicts[b as usize] = verdict;
    }

    /// A directory of one side: everything in it is on one side.
    fn only(&mut self, of_a: bool, at: u32) -> Done {
        self.job.check_canceled()?;
        let way = self.way(of_a, at);
        let Some(list) = present(self.list(of_a, at, way))? else {
            return Ok(());
        };
        for each in &list.names {
            self.one(of_a, &list.fd, at, &each.name)?;
        }
        Ok(())
    }
}

/// The facts of an object that a descriptor names.
pub fn facts_of(object: &OwnedFd) -> Done<Facts> {
    Facts::of(object.as_raw_fd(), sys::EMPTY.as_ptr())
}
