//! What can differ between two moments, told by the log alone: whatever has changed has an entry.
//!
//! A directory has to be looked into if a name in it has changed, if an object in it has, or if it leads
//! to such a directory at either moment. All of the last kind are above another one now, or were before a
//! rename, which has changed a name in the directory that was above: so what is above now is enough, if
//! it is climbed for every directory that changed something *until now*, not until the later moment.
//!
//! Invariant: what is not named here does not differ. Where the log cannot tell in which directories a
//! changed object is (it had several names, or was kept by an earlier version), it says nothing of
//! directories; all have to be listed then.

use super::limits::{CHANGED_MAX, CLIMB_MAX};
use super::log::Entry;
use super::object::{decode_attr, Above, Kept};
use super::place::{kind_of, oid_of, ATTR, NAME, POINT};
use super::History;
use crate::interceptor::attr::{stat_fd, Stat};
use crate::interceptor::errno::{check, Errno, Res};
use crate::interceptor::handle::FileHandle;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Inode numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub objects: HashSet<u64>,
    /// What has to be looked into; `None`: any directory.
    pub directories: Option<HashSet<u64>>,
}

struct Search {
    after: u64,
    up_to: u64,
    root: u64,
    objects: HashSet<u64>,
    /// Directories of which a name has changed.
    renamed: HashSet<u64>,
    /// Directories above what has changed.
    above: HashSet<Above>,
    /// Where everything is, is known.
    placed: bool,
}

impl History {
    /// What can differ between the moments `after` and `up_to` (`None`: now) of the tree below `root`;
    /// `None`: too much, or that is not kept.
    pub fn changed(&self, root: &File, after: u64, up_to: Option<u64>) -> Res<Option<Changed>> {
        // What had not reached the disk when the machine went down may be missing.
        if !self.shows(after) || after < self.power_lost_before() {
            return Ok(None);
        }
        let root_st = stat_fd(root.as_raw_fd())?;
        let mut search = Search {
            after,
            up_to: up_to.unwrap_or(u64::MAX),
            root: root_st.stx_ino,
            objects: HashSet::new(),
            renamed: HashSet::new(),
            above: HashSet::new(),
            placed: true,
        };
        let current = self.log.current();
        for segment in self.log.segments() {
            let older = || self.log.newest(&segment).is_some_and(|newest| newest <= after);
            if segment.number < current && older() {
                continue;
            }
            for entry in self.log.entries(&segment, 0).iter().filter(|e| e.is_complete()) {
                search.see(entry)?;
                if search.objects.len() + search.renamed.len() > CHANGED_MAX {
                    return Ok(None);
                }
            }
        }
        if !self.shows(after) {
            return Ok(None);
        }
        let directories = search.directories(root.as_raw_fd(), &root_st)?;
        Ok(Some(Changed { objects: search.objects, directories }))
    }
}

impl Search {
    fn see(&mut self, entry: &Entry) -> Res<()> {
        let (place, stamp) = (entry.place(), entry.stamp());
        let kind = kind_of(place);
        // What is under way comes after everything.
        let stamp = if stamp == 0 { u64::MAX } else { stamp };
        let Some(oid) = oid_of(place).filter(|_| stamp > self.after && kind != POINT) else {
            return Ok(());
        };
        let within = stamp <= self.up_to || stamp == u64::MAX;
        if within {
            self.objects.insert(oid.ino);
        }
        match kind {
            NAME => drop(self.renamed.insert(oid.ino)),
            ATTR => self.place(oid.ino, within, decode_attr(entry.payload())?),
            _ => {}
        }
        Ok(())
    }

    fn place(&mut self, ino: u64, within: bool, kept: Kept) {
        let is_dir = u32::from(kept.st.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
        if !within && !is_dir {
            return;
        }
        if !is_dir && kept.st.stx_nlink > 1 {
            self.placed = false;
        }
        match kept.above {
            Some(above) => drop(self.above.insert(above)),
            None if ino == self.root => {}
            None => self.placed = false,
        }
    }

    fn directories(&self, root: RawFd, root_st: &Stat) -> Res<Option<HashSet<u64>>> {
        if !self.placed {
            return Ok(None);
        }
        let mut all = HashSet::from([self.root]);
        for Above { handle, .. } in &self.above {
            if !climb(root, root_st, handle, &mut all)? {
                return Ok(None);
            }
        }
        all.extend(self.above.iter().map(|above| above.ino));
        all.extend(&self.renamed);
        Ok(Some(all))
    }
}

/// Adds a directory and those above it; false when they are not of one file system.
fn climb(root: RawFd, root_st: &Stat, handle: &FileHandle, known: &mut HashSet<u64>) -> Res<bool> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let mut fd = match handle.open(root, flags) {
        Ok(fd) => fd,
        // It is gone: that has changed the name that led to it.
        Err(Errno(libc::ESTALE | libc::ENOENT)) => return Ok(true),
        Err(e) => return Err(e),
    };
    for _ in 0..CLIMB_MAX {
        let st = stat_fd(fd.as_raw_fd())?;
        if st.stx_nlink == 0 {
            return Ok(true);
        }
        let device = |st: &Stat| (st.stx_dev_major, st.stx_dev_minor);
        if device(&st) != device(root_st) {
            return Ok(false);
        }
        if !known.insert(st.stx_ino) {
            return Ok(true);
        }
        // SAFETY: a valid string; the result is checked.
        let up = check(unsafe { libc::openat(fd.as_raw_fd(), c"..".as_ptr(), flags) })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        fd = unsafe { OwnedFd::from_raw_fd(up) };
    }
    Ok(false)
}
