//! Names of the side that is restored: what stands in the way is exchanged, never lost.
//!
//! Invariant: `a` and `names` say what is where, after every call that succeeded. A name that they do
//! not know is never overwritten: it came while the restore ran.

use super::restore::Restore;
use super::side::Side;
use crate::replay::error::Done;
use crate::replay::sys::{self, Name};
use std::os::fd::AsRawFd;

/// Names that a restore uses for a moment; the process id follows.
pub const TEMPORARY: &str = ".holdfast-restore-";

impl Restore<'_, '_> {
    pub fn temporary(&mut self) -> Vec<u8> {
        self.temporaries += 1;
        format!("{TEMPORARY}{}-{}", std::process::id(), self.temporaries).into_bytes()
    }

    /// Moves an object to its place. An object that is wanted elsewhere, or a directory, changes places
    /// with it; a file that nobody wants is replaced.
    pub fn settle(&mut self, object: u32, parent: u32, name: &[u8]) -> Done {
        let occupant = self.names.get(&(parent, name.into())).copied();
        match occupant {
            None => self.rename(object, parent, name, libc::RENAME_NOREPLACE)?,
            Some(other) if other == object => return Ok(()),
            Some(other) if self.replaceable(other) && !self.a.facts(object).is_dir() => {
                self.rename(object, parent, name, 0)?;
                self.gone.insert(other);
            }
            Some(other) if self.a.is_below(object, other) => {
                let aside = self.temporary();
                self.rename(other, parent, &aside, libc::RENAME_NOREPLACE)?;
                self.put(other, parent, &aside);
                return self.settle(object, parent, name);
            }
            Some(other) => {
                self.rename(object, parent, name, libc::RENAME_EXCHANGE)?;
                let old = (self.a.get(object).parent, self.a.get(object).name.clone());
                self.put(object, parent, name);
                self.put(other, old.0, &old.1);
                self.names.insert((parent, name.into()), object);
                return Ok(());
            }
        }
        self.put(object, parent, name);
        Ok(())
    }

    /// Nobody wants it, and a rename can replace it.
    fn replaceable(&self, at: u32) -> bool {
        self.is_doomed(at) && !self.a.facts(at).is_dir()
    }

    fn rename(&mut self, object: u32, parent: u32, name: &[u8], flags: u32) -> Done {
        let to_name = Name::component(name)?;
        let old = self.a.get(object).parent;
        let mut involved = vec![object, old, parent];
        involved.extend(self.names.get(&(parent, name.into())));
        self.lifting(&involved, |me| {
            let (from, from_name) = me.a.place(object)?;
            let to = me.a.dir(parent)?;
            sys::renameat2(from.as_raw_fd(), &from_name, to.as_raw_fd(), &to_name, flags)
        })?;
        self.touched.extend([old, parent]);
        Ok(())
    }

    /// Notes where an object is now.
    fn put(&mut self, object: u32, parent: u32, name: &[u8]) {
        let entry = &mut self.a.entries[object as usize];
        let old = (entry.parent, std::mem::replace(&mut entry.name, name.into()));
        entry.parent = parent;
        if self.names.get(&old) == Some(&object) {
            self.names.remove(&old);
        }
        self.names.insert((parent, name.into()), object);
    }
}

/// Removes what restores that were killed have left in a directory. Those that live are left alone.
pub fn remove_leftovers(side: &Side, way: &[Vec<u8>]) {
    let tidy = || -> Done {
        let mut dir = sys::openat(side.root_fd(), c".".as_ptr(), libc::O_RDONLY, 0)?;
        for name in way {
            let name = Name::component(name)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            dir = sys::openat(dir.as_raw_fd(), name.c(), flags, 0)?;
        }
        for each in sys::listing(dir.as_raw_fd())? {
            if is_leftover(&each.name) && each.kind != libc::DT_DIR {
                sys::unlinkat(dir.as_raw_fd(), &Name::component(&each.name)?, false)?;
            }
        }
        Ok(())
    };
    // The directory may not be there, which the restore itself finds out.
    let _ = tidy();
}

/// A temporary name of a process that is not there any more.
fn is_leftover(name: &[u8]) -> bool {
    let text = std::str::from_utf8(name).ok().and_then(|text| text.strip_prefix(TEMPORARY));
    let pid = text.and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid.parse::<i32>());
    match pid {
        // SAFETY: signal 0 only asks whether the process exists.
        Some(Ok(pid)) if pid > 0 => unsafe { libc::kill(pid, 0) != 0 },
        _ => false,
    }
}
