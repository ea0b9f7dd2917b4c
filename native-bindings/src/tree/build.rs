//! New objects of the side that is restored.
//!
//! A file is complete, metadata included, before it gets its name; where nobody looks meanwhile
//! (`private`), it is made under its own name and recognised as unfinished by its time, set last.

use super::attributes::Wanted;
use super::content::fill;
use super::restore::{several, Restore};
use super::side::{Facts, NONE};
use super::walk::facts_of;
use crate::replay::error::{Done, Fault};
use crate::replay::sys::{self, Name};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Until everything is there nobody else gets in.
const NEW_DIR_MODE: u32 = 0o700;
const NEW_FILE_MODE: u32 = 0o600;

impl Restore<'_, '_> {
    /// Makes an object of B in a directory of A, under its name; returns it.
    pub fn make(&mut self, at: u32, parent: u32) -> Done<u32> {
        let (name, facts) = (self.b.get(at).name.clone(), *self.b.facts(at));
        let occupied = self.names.contains_key(&(parent, name.clone()));
        let other = self.links.get(&facts.ino).copied().filter(|_| several(&facts));
        let exposed = facts.is_regular() && other.is_none() && !self.options.private;
        let own = if occupied || exposed { self.temporary() } else { name.to_vec() };
        let object = self.a.add(parent, &own, facts);
        self.a.entries[object as usize].partner = at;
        let made = self.lifting(&[parent], |me| match other {
            Some(other) => me.link(other, object),
            None => me.create(at, object),
        });
        if let Err(fault) = made {
            self.a.entries[object as usize].partner = NONE;
            self.gone.insert(object);
            return Err(fault);
        }
        self.touched.insert(parent);
        self.names.insert((parent, own.as_slice().into()), object);
        if own != *name {
            if let Err(fault) = self.settle(object, parent, &name) {
                self.abandon(object);
                return Err(fault);
            }
        }
        if several(&facts) {
            self.links.entry(facts.ino).or_insert(object);
        }
        Ok(object)
    }

    /// One more name of an object.
    fn link(&mut self, other: u32, object: u32) -> Done {
        self.lifting(&[other], |me| {
            let (from, from_name) = me.a.place(other)?;
            let (to, to_name) = me.a.place(object)?;
            sys::linkat(from.as_raw_fd(), &from_name, to.as_raw_fd(), &to_name)
        })
    }

    fn create(&mut self, at: u32, object: u32) -> Done {
        let facts = *self.b.facts(at);
        let (dir, name) = self.a.place(object)?;
        let dir = dir.as_raw_fd();
        if facts.is_dir() {
            return sys::mkdirat(dir, &name, NEW_DIR_MODE);
        }
        let source = self.source(at)?;
        let wanted = self.wanted(at, source.as_ref())?;
        let file = match facts.kind {
            libc::S_IFREG => Some(new_file(dir, &name, first_mode(&wanted))?),
            libc::S_IFLNK => {
                sys::symlinkat(&self.target(at)?, dir, &name)?;
                None
            }
            kind => {
                sys::mknodat(dir, &name, kind | NEW_FILE_MODE, facts.rdev)?;
                None
            }
        };
        let filled = match (&file, &source) {
            (Some(file), Some(source)) => self.fill(file, source),
            _ => Ok(()),
        };
        let done = filled.and_then(|()| self.equalize(object, file.as_ref(), &wanted));
        if done.is_err() {
            let _ = sys::unlinkat(dir, &name, false);
        }
        done
    }

    fn fill(&mut self, file: &OwnedFd, source: &OwnedFd) -> Done {
        let Facts { size, .. } = facts_of(source)?;
        fill(self.told.shared, file.as_raw_fd(), (source.as_raw_fd(), size))
    }

    fn target(&mut self, at: u32) -> Done<CString> {
        let (dir, name) = self.b.place(at)?;
        let target = sys::readlinkat(dir.as_raw_fd(), name.c())?;
        CString::new(target).map_err(|_| Fault::Corrupt("a symbolic link's target contains NUL"))
    }

    /// Removes what did not get its name.
    fn abandon(&mut self, object: u32) {
        let facts = *self.a.facts(object);
        if let Ok((dir, name)) = self.a.place(object) {
            let _ = sys::unlinkat(dir.as_raw_fd(), &name, facts.is_dir());
        }
        self.a.entries[object as usize].partner = NONE;
        self.gone.insert(object);
    }
}

/// The mode that a file has until it is complete: its own, where that lets nobody in who is to stay out,
/// whatever owner and group it has until then.
fn first_mode(wanted: &Wanted) -> u32 {
    let mode = wanted.facts.mode & 0o777;
    let (owner, group, others) = (mode >> 6, mode >> 3 & 7, mode & 7);
    match group == others && owner & others == others && wanted.xattrs.is_empty() {
        true => mode | NEW_FILE_MODE,
        false => NEW_FILE_MODE,
    }
}

/// Empty, for writing.
fn new_file(dir: RawFd, name: &Name, mode: u32) -> Done<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    sys::openat(dir, name.c(), flags, mode)
}
