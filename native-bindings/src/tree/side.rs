//! One of the two trees: its entries as far as they matter, and its directories, opened when needed.
//!
//! Invariant: a parent's index is below its children's, until a restore moves things; the root is 0.
//! For the side that is restored, parent and name of an entry are where it is now.

use super::limits::OPEN_DIRS_MAX;
use crate::replay::error::{Done, Fault};
use crate::replay::sys::{self, check, Name};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

pub const ROOT: u32 = 0;
pub const NONE: u32 = u32::MAX;

pub type Stamp = (i64, u32);

/// What stat says of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// S_IFMT of the mode.
    pub kind: u32,
    /// The other bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u32,
    pub size: u64,
    pub rdev: u64,
    pub mtime: Stamp,
    pub ctime: Stamp,
    /// None where the file system does not say.
    pub btime: Option<Stamp>,
}

impl Facts {
    pub fn is_dir(&self) -> bool {
        self.kind == libc::S_IFDIR
    }

    pub fn is_regular(&self) -> bool {
        self.kind == libc::S_IFREG
    }

    pub fn is_link(&self) -> bool {
        self.kind == libc::S_IFLNK
    }

    pub fn is_device(&self) -> bool {
        matches!(self.kind, libc::S_IFCHR | libc::S_IFBLK)
    }

    /// Whether two sides of one volume speak of the same object: its number may have been given anew.
    pub fn same_object(&self, other: &Self) -> bool {
        let born = match (self.btime, other.btime) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        self.ino == other.ino && self.kind == other.kind && born
    }

    /// Of the object under a name, or of the directory itself when it is empty.
    pub fn of(dir: RawFd, name: *const libc::c_char) -> Done<Self> {
        // SAFETY: a zeroed statx is a valid value and out-pointer.
        let mut x: libc::statx = unsafe { std::mem::zeroed() };
        let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
        let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
        // SAFETY: name is terminated, x a valid out-pointer.
        check("stat", || unsafe { libc::statx(dir, name, flags, mask, &mut x) }.into())?;
        let stamp = |t: libc::statx_timestamp| (t.tv_sec, t.tv_nsec);
        let born = x.stx_mask & libc::STATX_BTIME != 0 && stamp(x.stx_btime) != (0, 0);
        Ok(Self {
            kind: u32::from(x.stx_mode) & libc::S_IFMT,
            mode: u32::from(x.stx_mode) & 0o7777,
            uid: x.stx_uid,
            gid: x.stx_gid,
            dev: libc::makedev(x.stx_dev_major, x.stx_dev_minor),
            ino: x.stx_ino,
            nlink: x.stx_nlink,
            size: x.stx_size,
            rdev: libc::makedev(x.stx_rdev_major, x.stx_rdev_minor),
            mtime: stamp(x.stx_mtime),
            ctime: stamp(x.stx_ctime),
            btime: born.then(|| stamp(x.stx_btime)),
        })
    }
}

/// `None` when there is nothing under the name.
pub fn present<T>(got: Done<T>) -> Done<Option<T>> {
    match got {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.is(libc::ENOENT) || e.is(libc::ENOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

pub struct Entry {
    pub parent: u32,
    pub name: Box<[u8]>,
    pub facts: Facts,
    /// The same object on the other side; NONE when there is none.
    pub partner: u32,
}

pub struct Side {
    pub entries: Vec<Entry>,
    root: Rc<OwnedFd>,
    open: HashMap<u32, Rc<OwnedFd>>,
}

impl Side {
    pub fn open(root: &Path) -> Done<Self> {
        let opened = File::open(root).map_err(|e| Fault::Sys {
            call: "open",
            errno: e.raw_os_error().unwrap_or(libc::EIO),
        })?;
        let root = Rc::new(OwnedFd::from(opened));
        let facts = Facts::of(root.as_raw_fd(), sys::EMPTY.as_ptr())?;
        if !facts.is_dir() {
            return Err(Fault::Sys { call: "open", errno: libc::ENOTDIR });
        }
        let entry = Entry { parent: ROOT, name: Box::default(), facts, partner: ROOT };
        Ok(Self { entries: vec![entry], root, open: HashMap::new() })
    }

    pub fn get(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    pub fn facts(&self, at: u32) -> &Facts {
        &self.entries[at as usize].facts
    }

    pub fn count(&self) -> u32 {
        self.entries.len() as u32
    }

    pub fn add(&mut self, parent: u32, name: &[u8], facts: Facts) -> u32 {
        self.entries.push(Entry { parent, name: name.into(), facts, partner: NONE });
        self.count() - 1
    }

    /// Relative to the root, without a leading slash; empty for the root.
    pub fn path(&self, at: u32) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = at;
        while at != ROOT {
            names.push(&self.get(at).name);
            at = self.get(at).parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    pub fn depth(&self, at: u32) -> u32 {
        let (mut at, mut depth) = (at, 0);
        while at != ROOT {
            at = self.get(at).parent;
            depth += 1;
        }
        depth
    }

    pub fn is_below(&self, at: u32, dir: u32) -> bool {
        let mut at = at;
        loop {
            if at == dir {
                return true;
            }
            if at == ROOT {
                return false;
            }
            at = self.get(at).parent;
        }
    }

    pub fn root_fd(&self) -> RawFd {
        self.root.as_raw_fd()
    }

    /// A directory's descriptor; it stays right when the directory is moved.
    pub fn dir(&mut self, at: u32) -> Done<Rc<OwnedFd>> {
        let mut way = Vec::new();
        let mut up = at;
        while up != ROOT && !self.open.contains_key(&up) {
            way.push(up);
            up = self.get(up).parent;
        }
        let mut fd = match self.open.get(&up) {
            Some(fd) => fd.clone(),
            None => self.root.clone(),
        };
        while let Some(next) = way.pop() {
            let name = Name::component(&self.get(next).name)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            fd = Rc::new(sys::openat(fd.as_raw_fd(), name.c(), flags, 0)?);
            if self.open.len() >= OPEN_DIRS_MAX {
                self.open.clear();
            }
            self.open.insert(next, fd.clone());
        }
        Ok(fd)
    }

    /// The directory in which an entry is, and its name there.
    pub fn place(&mut self, at: u32) -> Done<(Rc<OwnedFd>, Name)> {
        if at == ROOT {
            return Ok((self.root.clone(), Name::here()));
        }
        let name = Name::component(&self.get(at).name)?;
        let parent = self.get(at).parent;
        Ok((self.dir(parent)?, name))
    }

    /// Names the object of an entry, whatever it is; good for stat, xattrs, owner, mode and times.
    pub fn object(&mut self, at: u32) -> Done<OwnedFd> {
        let (dir, name) = self.place(at)?;
        sys::openat(dir.as_raw_fd(), name.c(), libc::O_PATH, 0)
    }
}
