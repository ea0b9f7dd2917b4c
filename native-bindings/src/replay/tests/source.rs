//! The test's own capture: does real operations on a source tree and writes down the records.

use super::journal::{Head, Journal};
use super::tree::cstr;
use crate::record::{valid, Encoder, Oid, Op, Time, FLAG_KILLPRIV};
use crate::replay::handle::Handle;
use crate::replay::identity::Identity;
use crate::replay::sys::{self, Name};
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A refused operation leaves no record, as in real capture.
pub type Tried = Result<(), i32>;

fn errno<T>(r: Result<T, crate::replay::error::Fault>) -> Result<T, i32> {
    r.map_err(|f| f.errno().unwrap_or(libc::EIO))
}

fn io<T>(r: std::io::Result<T>) -> Result<T, i32> {
    r.map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))
}

pub struct Source {
    pub root: PathBuf,
    pub journal: Journal,
    pub identity: Identity,
    bound: HashSet<Oid>,
    /// Images leave out the data of files.
    pub later: bool,
}

pub fn oid_of(handle: &Handle, ino: u64) -> Oid {
    Oid { ino, gen: handle.hash() | 1 }
}

pub fn times(st: &libc::stat) -> Time {
    Time { sec: st.st_mtime, nsec: st.st_mtime_nsec as u32 }
}

/// A directory and a name in it.
pub struct Entry {
    pub dir: OwnedFd,
    pub name: Name,
}

impl Source {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            journal: Journal::default(),
            identity: Identity::of_this_thread().unwrap(),
            bound: HashSet::new(),
            later: false,
        }
    }

    pub fn path(&self, rel: &Path) -> PathBuf {
        if rel.as_os_str().is_empty() {
            self.root.clone()
        } else {
            self.root.join(rel)
        }
    }

    pub fn entry(&self, rel: &Path) -> Entry {
        let dir = File::open(self.path(rel.parent().unwrap())).unwrap();
        Entry {
            dir: dir.into(),
            name: Name::component(rel.file_name().unwrap().as_bytes()).unwrap(),
        }
    }

    pub fn stat(&self, rel: &Path) -> libc::stat {
        // SAFETY: a zeroed stat is a valid out-pointer.
        unsafe {
            let mut st = std::mem::zeroed();
            let c = cstr(&self.path(rel));
            assert_eq!(libc::lstat(c.as_ptr(), &mut st), 0, "{rel:?}");
            st
        }
    }

    pub fn oid(&self, rel: &Path) -> Oid {
        let st = self.stat(rel);
        let handle = if rel.as_os_str().is_empty() {
            Handle::of_fd(File::open(&self.root).unwrap().as_raw_fd()).unwrap()
        } else {
            let e = self.entry(rel);
            Handle::of_name(e.dir.as_raw_fd(), &e.name).unwrap()
        };
        oid_of(&handle, st.st_ino)
    }

    pub fn oid_fd(&self, fd: &OwnedFd) -> Oid {
        let st = sys::fstat(fd.as_raw_fd()).unwrap();
        oid_of(&Handle::of_fd(fd.as_raw_fd()).unwrap(), st.st_ino)
    }

    /// The object under this path, announced if it was not before.
    pub fn known(&mut self, rel: &Path) -> Oid {
        let oid = self.oid(rel);
        if self.bound.contains(&oid) {
            return oid;
        }
        let mut head = Head::new(Op::Bind, oid);
        head.mode = self.stat(rel).st_mode;
        if rel.as_os_str().is_empty() {
            self.journal.add(head, |e| {
                e.oid(Oid::NONE).name(b"");
            });
        } else {
            let parent = self.known(rel.parent().unwrap());
            self.journal.add(head, |e| {
                e.oid(parent).name(rel.file_name().unwrap().as_bytes());
            });
        }
        self.bound.insert(oid);
        oid
    }

    /// As after a mount, a marker or 64 MiB: every association is told again when it is needed.
    pub fn renew(&mut self) {
        self.bound.clear();
    }

    /// A record has said where the object is.
    pub fn now_bound(&mut self, oid: Oid) {
        self.bound.insert(oid);
    }

    /// What was before is not in the journal.
    pub fn start_journal(&mut self) {
        self.journal = Journal::default();
        self.bound.clear();
    }

    pub fn head(&self, op: Op, rel: &Path, oid: Oid) -> Head {
        let st = self.stat(rel);
        Head { op, oid, time: times(&st), mode: st.st_mode, flags: 0 }
    }

    pub fn head_fd(&self, op: Op, fd: &OwnedFd, oid: Oid) -> Head {
        let st = sys::fstat(fd.as_raw_fd()).unwrap();
        Head { op, oid, time: times(&st), mode: st.st_mode, flags: 0 }
    }

    pub fn mtime(&self, rel: &Path) -> Time {
        times(&self.stat(rel))
    }

    fn parent(rel: &Path) -> &Path {
        rel.parent().unwrap()
    }

    /// mknod, mkdir and symlink under somebody's identity.
    pub fn create(
        &mut self,
        rel: &Path,
        mode: u32,
        rdev: u32,
        who: (u32, u32, u32),
        target: &[u8],
    ) -> Tried {
        let parent = self.known(Self::parent(rel));
        let e = self.entry(rel);
        let (uid, gid, umask) = who;
        errno(self.identity.become_caller(uid, gid, umask))?;
        let kind = mode & libc::S_IFMT;
        let dev = crate::replay::apply_names::libc_dev(rdev);
        let done = match kind {
            libc::S_IFDIR => sys::mkdirat(e.dir.as_raw_fd(), &e.name, mode & 0o7777),
            libc::S_IFLNK => {
                let c = std::ffi::CString::new(target).unwrap();
                sys::symlinkat(&c, e.dir.as_raw_fd(), &e.name)
            }
            _ => sys::mknodat(e.dir.as_raw_fd(), &e.name, mode, dev),
        };
        errno(self.identity.become_caller(0, 0, 0))?;
        errno(done)?;
        let st = self.stat(rel);
        let oid = self.oid(rel);
        self.bound.insert(oid);
        let op = match kind {
            libc::S_IFDIR => Op::Mkdir,
            libc::S_IFLNK => Op::Symlink,
            _ => Op::Mknod,
        };
        let (head, pmtime) = (self.head(op, rel, oid), self.mtime(Self::parent(rel)));
        self.journal.add(head, |b| {
            b.oid(parent).time(pmtime).u32(rdev).u32(mode).u32(umask);
            b.u32(st.st_uid).u32(st.st_gid).name(e.name.bytes());
            b.payload().raw(target);
        });
        Ok(())
    }

    pub fn link(&mut self, rel: &Path, to: &Path) -> Tried {
        let (oid, parent) = (self.known(rel), self.known(Self::parent(to)));
        let (a, b) = (self.entry(rel), self.entry(to));
        errno(sys::linkat(a.dir.as_raw_fd(), &a.name, b.dir.as_raw_fd(), &b.name))?;
        self.linked(to, oid, parent);
        Ok(())
    }

    fn linked(&mut self, to: &Path, oid: Oid, parent: Oid) {
        let (head, pmtime) = (self.head(Op::Link, to, oid), self.mtime(Self::parent(to)));
        self.journal.add(head, |b| {
            b.oid(parent).time(pmtime).name(to.file_name().unwrap().as_bytes());
        });
    }

    pub fn remove(&mut self, rel: &Path) -> Tried {
        let st = self.stat(rel);
        let is_dir = st.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let (oid, parent) = (self.known(rel), self.known(Self::parent(rel)));
        let e = self.entry(rel);
        let op = if is_dir { Op::Rmdir } else { Op::Unlink };
        let head = self.head(op, rel, oid);
        errno(sys::unlinkat(e.dir.as_raw_fd(), &e.name, is_dir))?;
        let left = if is_dir { 0 } else { st.st_nlink as u32 - 1 };
        let pmtime = self.mtime(Self::parent(rel));
        self.journal.add(head, |b| {
            b.oid(parent).time(pmtime).u32(left).name(e.name.bytes());
        });
        Ok(())
    }

    pub fn gone(&mut self, oid: Oid) {
        self.journal.add(Head::new(Op::Gone, oid), |_| ());
    }

    pub fn rename(&mut self, from: &Path, to: &Path, flags: u32) -> Tried {
        let there = std::fs::symlink_metadata(self.path(to)).is_ok();
        let (oid, p1, p2) =
            (self.known(from), self.known(Self::parent(from)), self.known(Self::parent(to)));
        let replaced = if there { self.known(to) } else { Oid::NONE };
        if replaced == oid {
            return Err(libc::EEXIST);
        }
        let links = if there {
            let st = self.stat(to);
            let is_dir = st.st_mode & libc::S_IFMT == libc::S_IFDIR;
            let left = if is_dir { 0 } else { st.st_nlink as u32 - 1 };
            if flags & libc::RENAME_EXCHANGE != 0 {
                st.st_nlink as u32
            } else {
                left
            }
        } else {
            0
        };
        let (a, b) = (self.entry(from), self.entry(to));
        let before = (self.mtime(Self::parent(from)), self.mtime(Self::parent(to)));
        if let Err(e) =
            sys::renameat2(a.dir.as_raw_fd(), &a.name, b.dir.as_raw_fd(), &b.name, flags)
        {
            // ext4 refuses some renames (a whiteout, onto a full directory) only after a change.
            for (dir, time) in [(Self::parent(from), before.0), (Self::parent(to), before.1)] {
                if self.mtime(dir) != time {
                    self.told_path_time(dir);
                }
            }
            return errno(Err(e));
        }
        let head = self.head(Op::Rename, to, oid);
        let (t1, t2) = (self.mtime(Self::parent(from)), self.mtime(Self::parent(to)));
        self.journal.add(head, |w| {
            w.oid(p1).time(t1).oid(p2).time(t2).u32(flags).oid(replaced).u32(links);
            w.name(a.name.bytes()).name(b.name.bytes());
        });
        if flags & libc::RENAME_EXCHANGE != 0 && p1 != p2 {
            // XFS changes the time of a directory that gets another parent; the record tells only
            // that of the first object.
            let time = self.mtime(from);
            self.meta(
                from,
                Op::Setattr,
                |_| Ok(()),
                |e| {
                    e.u32(valid::MTIME).u32(0).u32(0).u32(0).u64(0).time(time).time(time);
                },
            )?;
        }
        if flags & libc::RENAME_WHITEOUT != 0 {
            // The record does not tell the whiteout's time.
            let time = self.mtime(from);
            self.meta(
                from,
                Op::Setattr,
                |_| Ok(()),
                |e| {
                    e.u32(valid::MTIME).u32(0).u32(0).u32(0).u64(0).time(time).time(time);
                },
            )?;
        }
        Ok(())
    }

    /// An object without a name; the caller links it or lets it go.
    pub fn tmpfile(
        &mut self,
        dir: &Path,
        mode: u32,
        who: (u32, u32, u32),
    ) -> Result<(OwnedFd, Oid), i32> {
        let parent = self.known(dir);
        let d: OwnedFd = File::open(self.path(dir)).unwrap().into();
        errno(self.identity.become_caller(who.0, who.1, who.2))?;
        let fd = sys::openat(d.as_raw_fd(), c".".as_ptr(), libc::O_RDWR | libc::O_TMPFILE, mode);
        errno(self.identity.become_caller(0, 0, 0))?;
        let fd = errno(fd)?;
        let oid = self.oid_fd(&fd);
        let st = sys::fstat(fd.as_raw_fd()).unwrap();
        let head = self.head_fd(Op::Tmpfile, &fd, oid);
        self.journal.add(head, |b| {
            b.oid(parent).u32(mode).u32(who.2).u32(st.st_uid).u32(st.st_gid);
        });
        self.bound.insert(oid);
        Ok((fd, oid))
    }

    pub fn link_tmpfile(&mut self, fd: &OwnedFd, to: &Path) -> Tried {
        let parent = self.known(Self::parent(to));
        let e = self.entry(to);
        errno(sys::link_fd(fd.as_raw_fd(), e.dir.as_raw_fd(), &e.name))?;
        let oid = self.oid_fd(fd);
        self.linked(to, oid, parent);
        Ok(())
    }

    /// Announces and opens a regular file for the operations on contents below.
    pub fn open(&mut self, rel: &Path) -> Result<(OwnedFd, Oid), i32> {
        let oid = self.known(rel);
        let f = io(File::options().read(true).write(true).open(self.path(rel)))?;
        Ok((f.into(), oid))
    }

    pub fn write(
        &mut self,
        fd: &OwnedFd,
        oid: Oid,
        offset: u64,
        bytes: &[u8],
        kill: bool,
    ) -> Tried {
        let f = File::from(io(fd.try_clone())?);
        io(f.write_all_at(bytes, offset))?;
        self.wrote(fd, oid, offset, bytes, kill);
        Ok(())
    }

    /// Writes down a WRITE whose effect was made elsewhere.
    pub fn wrote(&mut self, fd: &OwnedFd, oid: Oid, offset: u64, bytes: &[u8], kill: bool) {
        if kill {
            self.kill_set_id(fd);
        }
        let mut head = self.head_fd(Op::Write, fd, oid);
        head.flags = if kill { FLAG_KILLPRIV } else { 0 };
        self.journal.add(head, |b| {
            b.u64(offset).payload().raw(bytes);
        });
    }

    /// What the kernel does when the writer lacks CAP_FSETID; we have it.
    fn kill_set_id(&self, fd: &OwnedFd) {
        let mode = sys::fstat(fd.as_raw_fd()).unwrap().st_mode;
        let mut kept = mode & !libc::S_ISUID;
        if mode & libc::S_IXGRP != 0 {
            kept &= !libc::S_ISGID;
        }
        if kept != mode {
            sys::chmod_fd(fd.as_raw_fd(), kept & 0o7777).unwrap();
        }
    }

    pub fn truncate(&mut self, fd: &OwnedFd, oid: Oid, size: u64, kill: bool) -> Tried {
        errno(sys::ftruncate(fd.as_raw_fd(), size))?;
        if kill {
            self.kill_set_id(fd);
        }
        let mut head = self.head_fd(Op::Setattr, fd, oid);
        head.flags = if kill { FLAG_KILLPRIV } else { 0 };
        self.journal.add(head, |b| {
            b.u32(valid::SIZE).u32(0).u32(0).u32(0).u64(size);
            b.time(Time::UNKNOWN).time(Time::UNKNOWN);
        });
        Ok(())
    }

    pub fn fallocate(&mut self, fd: &OwnedFd, oid: Oid, mode: u32, at: u64, len: u64) -> Tried {
        if let Err(e) = sys::fallocate(fd.as_raw_fd(), mode, at, len) {
            // ext4 refuses some modes only after it has changed the time.
            self.told_time(fd, oid);
            return errno(Err(e));
        }
        let size = sys::fstat(fd.as_raw_fd()).unwrap().st_size as u64;
        let head = self.head_fd(Op::Fallocate, fd, oid);
        self.journal.add(head, |b| {
            b.u32(mode).u64(at).u64(len).u64(size);
        });
        Ok(())
    }

    pub fn copy(
        &mut self,
        from: (&OwnedFd, Oid, u64),
        to: (&OwnedFd, Oid, u64),
        len: u64,
    ) -> Tried {
        let (mut a, mut b) = (from.2 as i64, to.2 as i64);
        let (f, t) = (from.0.as_raw_fd(), to.0.as_raw_fd());
        // SAFETY: a and b are valid in/out pointers.
        let n = unsafe { libc::copy_file_range(f, &mut a, t, &mut b, len as usize, 0) };
        if n <= 0 {
            return Err(libc::EINVAL);
        }
        let head = self.head_fd(Op::Copy, to.0, to.1);
        self.journal.add(head, |e| {
            e.oid(from.1).u64(from.2).u64(to.2).u64(n as u64);
        });
        Ok(())
    }

    fn told_path_time(&mut self, rel: &Path) {
        let time = self.mtime(rel);
        let _ = self.meta(
            rel,
            Op::Setattr,
            |_| Ok(()),
            |e| {
                e.u32(valid::MTIME).u32(0).u32(0).u32(0).u64(0).time(time).time(time);
            },
        );
    }

    fn told_time(&mut self, fd: &OwnedFd, oid: Oid) {
        let head = self.head_fd(Op::Setattr, fd, oid);
        self.journal.add(head, |e| {
            e.u32(valid::MTIME).u32(0).u32(0).u32(0).u64(0);
            e.time(head.time).time(head.time);
        });
    }

    /// A record about an object with a name, whose effect `f` has.
    pub fn meta(
        &mut self,
        rel: &Path,
        op: Op,
        f: impl FnOnce(&Path) -> Tried,
        fields: impl FnOnce(&mut Encoder),
    ) -> Tried {
        let oid = self.known(rel);
        f(&self.path(rel))?;
        let head = self.head(op, rel, oid);
        self.journal.add(head, fields);
        Ok(())
    }
}

impl Source {
    /// Fails with what differs and with the last records about the first of it.
    pub fn assert_same(&self, b: &Path, what: &str) {
        self.assert_same_but(b, what, "nothing");
    }

    /// The same, with one kind of difference left out.
    pub fn assert_same_but(&self, b: &Path, what: &str, but: &str) {
        let mut found = super::tree::differing(&self.root, b);
        found.retain(|(_, text)| !text.contains(but));
        if found.is_empty() {
            return;
        }
        for (_, text) in found.iter().take(20) {
            println!("{text}");
        }
        let mut paths: Vec<_> = found.iter().map(|(rel, _)| rel).collect();
        paths.dedup();
        for rel in paths.iter().take(4) {
            let oid = self.oid(rel);
            println!("about {oid:?}:");
            let mut bytes = oid.ino.to_le_bytes().to_vec();
            bytes.extend_from_slice(&oid.gen.to_le_bytes());
            let about = |r: &&Vec<u8>| r.windows(16).any(|w| w == bytes);
            let about: Vec<_> = self.journal.records.iter().filter(about).collect();
            for r in about.iter().rev().take(12).rev() {
                let view = crate::record::RecordView::parse(r).unwrap();
                let text = format!("{:?}", view.decode().unwrap()).replace("110, 110, ", "");
                println!("{} {:?} {:?} {text}", view.seq(), view.oid(), view.time());
            }
        }
        // For a name that is too much: what was said of that name.
        if let Some((_, text)) = found.iter().find(|(_, text)| text.contains(" has ")) {
            let name = text.rsplit(' ').next().unwrap_or_default().as_bytes();
            println!("name {}", name.escape_ascii());
            for r in
                self.journal.records.iter().filter(|r| r.windows(name.len()).any(|w| w == name))
            {
                let view = crate::record::RecordView::parse(r).unwrap();
                println!("{} {:?} {:?}", view.seq(), view.oid(), view.decode().unwrap());
            }
        }
        panic!("{what}: {} differences", found.len());
    }
}

/// Prints what the journal says about the object of a record.
pub fn explain(frames: &[Vec<u8>], seq: u64) {
    let views = || {
        let frames = frames.iter().map(|f| crate::record::FrameView::parse(f).unwrap());
        frames.flat_map(|f| f.records().map(|r| r.unwrap()))
    };
    let Some(oid) = views().find(|v| v.seq() == seq).map(|v| v.oid()) else {
        return;
    };
    let mut bytes = oid.ino.to_le_bytes().to_vec();
    bytes.extend_from_slice(&oid.gen.to_le_bytes());
    for v in views().filter(|v| v.bytes().windows(16).any(|w| w == bytes)) {
        let text = format!("{:?}", v.decode().unwrap()).replace("110, 110, ", "");
        println!("{} {:?} {text}", v.seq(), v.oid());
    }
}
