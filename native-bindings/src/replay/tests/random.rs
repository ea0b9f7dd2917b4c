//! Random operations on a source tree.

use super::source::{Source, Tried};
use super::tree::cstr;
use crate::record::{valid, Oid, Op, Time};
use crate::replay::seal;
use rand::seq::IndexedRandom;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

fn last() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn done(r: i32) -> Tried {
    if r == 0 {
        Ok(())
    } else {
        Err(last())
    }
}

#[derive(Default)]
struct Paths {
    dirs: Vec<PathBuf>,
    files: Vec<PathBuf>,
    others: Vec<PathBuf>,
}

/// Who does what to which tree.
pub struct Chaos {
    pub source: Source,
    pub rng: ChaCha8Rng,
    paths: Paths,
    /// Open files without names.
    nameless: Vec<(OwnedFd, Oid, bool)>,
    sealed: Vec<PathBuf>,
    since_walk: usize,
    /// Leave out what forces a checkpoint, for tests that count on speed.
    pub light: bool,
    /// Leave out what needs the contents of other objects, as capture does while it scans.
    pub scanning: bool,
    /// Only what `cp -a` copies.
    pub base: bool,
    pub done: u64,
}

impl Chaos {
    pub fn new(source: Source, rng: ChaCha8Rng) -> Self {
        Self {
            source,
            rng,
            paths: Paths::default(),
            nameless: Vec::new(),
            sealed: Vec::new(),
            since_walk: usize::MAX,
            light: false,
            scanning: false,
            base: false,
            done: 0,
        }
    }

    fn walk(&mut self) {
        let mut p = Paths::default();
        let mut stack = vec![PathBuf::new()];
        while let Some(dir) = stack.pop() {
            for e in fs::read_dir(self.source.path(&dir)).unwrap() {
                let e = e.unwrap();
                let rel = dir.join(e.file_name());
                let t = e.file_type().unwrap();
                if t.is_dir() {
                    stack.push(rel);
                } else if t.is_file() {
                    p.files.push(rel);
                } else {
                    p.others.push(rel);
                }
            }
            p.dirs.push(dir);
        }
        self.paths = p;
        self.since_walk = 0;
    }

    fn exists(&self, rel: &Path) -> bool {
        fs::symlink_metadata(self.source.path(rel)).is_ok()
    }

    fn dir(&mut self) -> PathBuf {
        let d = self.paths.dirs.choose(&mut self.rng).cloned().unwrap_or_default();
        let is_dir = fs::symlink_metadata(self.source.path(&d)).is_ok_and(|m| m.is_dir());
        if is_dir {
            d
        } else {
            PathBuf::new()
        }
    }

    fn new_name(&mut self) -> PathBuf {
        let dir = self.dir();
        let n = self.rng.random_range(0..400);
        let mut name = match self.rng.random_range(0..8) {
            0 => vec![0xff, 0xfe, b'\n', b'%'],
            1 => vec![b'n'; 240],
            2 => "übung ".into(),
            _ => b"f".to_vec(),
        };
        name.extend_from_slice(n.to_string().as_bytes());
        dir.join(std::ffi::OsString::from_vec(name))
    }

    fn file(&mut self) -> Option<PathBuf> {
        let f = self.paths.files.choose(&mut self.rng)?.clone();
        let ok = fs::symlink_metadata(self.source.path(&f)).is_ok_and(|m| m.is_file());
        ok.then_some(f)
    }

    fn any(&mut self) -> Option<PathBuf> {
        let list = match self.rng.random_range(0..4) {
            0 => &self.paths.dirs,
            1 => &self.paths.others,
            _ => &self.paths.files,
        };
        let rel = list.choose(&mut self.rng)?.clone();
        (self.exists(&rel) && !rel.as_os_str().is_empty()).then_some(rel)
    }

    fn who(&mut self) -> (u32, u32, u32) {
        let id = *[0, 1000, 1001, 70000].choose(&mut self.rng).unwrap();
        let gid = *[0, 1000, 50, 70001].choose(&mut self.rng).unwrap();
        (id, gid, *[0o022, 0, 0o077, 0o027].choose(&mut self.rng).unwrap())
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let n = self.rng.random_range(1..=max);
        let mut b = vec![0; n];
        self.rng.fill(&mut b[..]);
        b
    }

    fn offset(&mut self) -> u64 {
        let page = self.rng.random_range(0..64u64) * 4096;
        if self.rng.random_bool(0.5) {
            page
        } else {
            page + self.rng.random_range(0..4096)
        }
    }

    /// One operation, if it is not refused.
    pub fn step(&mut self) {
        if self.since_walk > 150 {
            self.walk();
        }
        self.since_walk += 1;
        let before = self.source.journal.records.len();
        let kind = self.rng.random_range(0..100);
        let _refused: Tried = match kind {
            0..=17 => self.create(),
            18..=21 => self.link(),
            22..=29 => self.remove(),
            30..=39 => self.rename(),
            40..=43 => self.nameless(),
            44..=61 => self.contents(),
            62..=71 if self.base => Ok(()),
            68..=71 if self.scanning || self.light => Ok(()),
            62..=67 => self.allocate(),
            68..=71 => self.copy(),
            72..=83 => self.attributes(),
            84..=93 => self.xattr(),
            94..=97 if !self.base => self.flags(),
            94..=97 => Ok(()),
            98 => {
                self.source.renew();
                Ok(())
            }
            _ => {
                let head = super::journal::Head::new(Op::Marker, Oid::NONE);
                self.source.journal.add(head, |e| {
                    e.name(b"marker").payload().raw(b"{}");
                });
                Ok(())
            }
        };
        self.done += u64::from(self.source.journal.records.len() > before);
    }

    fn create(&mut self) -> Tried {
        let rel = self.new_name();
        let who = self.who();
        let perm = *[0o644, 0o600, 0o777, 0o4755, 0o2775, 0o1777].choose(&mut self.rng).unwrap();
        let rdev = self.rng.random_range(0..0xfff) | (self.rng.random_range(0..0xfffu32) << 20);
        match self.rng.random_range(0..20) {
            0..=4 => self.source.create(&rel, libc::S_IFDIR | perm, 0, who, b""),
            5..=6 => {
                let target = self.bytes(200).iter().map(|b| b | 1).collect::<Vec<_>>();
                self.source.create(&rel, libc::S_IFLNK | 0o777, 0, who, &target)
            }
            7 => self.source.create(&rel, libc::S_IFIFO | perm, 0, who, b""),
            8 => self.source.create(&rel, libc::S_IFSOCK | perm, 0, who, b""),
            9 => self.source.create(&rel, libc::S_IFCHR | perm, rdev, who, b""),
            10 => self.source.create(&rel, libc::S_IFBLK | perm, rdev, who, b""),
            _ => self.source.create(&rel, libc::S_IFREG | perm, 0, who, b""),
        }?;
        if fs::symlink_metadata(self.source.path(&rel)).is_ok_and(|m| m.is_dir()) {
            self.paths.dirs.push(rel);
        } else if fs::symlink_metadata(self.source.path(&rel)).is_ok_and(|m| m.is_file()) {
            self.paths.files.push(rel);
        } else {
            self.paths.others.push(rel);
        }
        Ok(())
    }

    fn link(&mut self) -> Tried {
        let (Some(from), to) = (self.any(), self.new_name()) else {
            return Ok(());
        };
        if self.source.stat(&from).st_mode & libc::S_IFMT == libc::S_IFDIR {
            return Ok(());
        }
        self.source.link(&from, &to)?;
        self.paths.files.push(to);
        Ok(())
    }

    fn remove(&mut self) -> Tried {
        let Some(rel) = self.any() else {
            return Ok(());
        };
        let meta = fs::symlink_metadata(self.source.path(&rel)).unwrap();
        if meta.is_file() && self.nameless.len() < 8 && self.rng.random_bool(0.3) {
            if let Ok((fd, oid)) = self.source.open(&rel) {
                self.source.remove(&rel)?;
                if crate::replay::sys::fstat(fd.as_raw_fd()).unwrap().st_nlink == 0 {
                    self.nameless.push((fd, oid, false));
                }
                return Ok(());
            }
        }
        let (oid, st) = (self.source.oid(&rel), self.source.stat(&rel));
        self.source.remove(&rel)?;
        let gone = st.st_nlink == 1 || st.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if gone && self.rng.random_bool(0.7) {
            self.source.gone(oid);
        }
        Ok(())
    }

    fn rename(&mut self) -> Tried {
        let Some(from) = self.any() else {
            return Ok(());
        };
        let onto = if self.rng.random_bool(0.5) { self.any() } else { None };
        let to = match onto {
            Some(to) => to,
            None => self.new_name(),
        };
        let flags = match self.rng.random_range(0..10) {
            0..=1 => libc::RENAME_EXCHANGE,
            2 => libc::RENAME_NOREPLACE,
            3 if !self.scanning && !self.light => libc::RENAME_WHITEOUT,
            _ => 0,
        };
        self.source.rename(&from, &to, flags)?;
        self.since_walk += 20;
        Ok(())
    }

    /// Files without a name: TMPFILE, writes to them and to unlinked ones, their end.
    fn nameless(&mut self) -> Tried {
        if self.nameless.len() < 4 && !self.scanning && self.rng.random_bool(0.5) {
            let (dir, who) = (self.dir(), self.who());
            let (fd, oid) = self.source.tmpfile(&dir, 0o640, who)?;
            self.nameless.push((fd, oid, true));
            return Ok(());
        }
        if self.nameless.is_empty() {
            return Ok(());
        }
        let i = self.rng.random_range(0..self.nameless.len());
        let (bytes, at) = (self.bytes(9000), self.offset());
        let to = self.new_name();
        let (fd, oid, linkable) = self.nameless.swap_remove(i);
        match self.rng.random_range(0..4) {
            0 if linkable => {
                if self.source.link_tmpfile(&fd, &to).is_ok() {
                    self.paths.files.push(to);
                } else {
                    self.nameless.push((fd, oid, linkable));
                }
                Ok(())
            }
            1 => {
                drop(fd);
                self.source.gone(oid);
                Ok(())
            }
            _ => {
                let done = self.source.write(&fd, oid, at, &bytes, false);
                self.nameless.push((fd, oid, linkable));
                done
            }
        }
    }

    fn contents(&mut self) -> Tried {
        let Some(rel) = self.file() else {
            return Ok(());
        };
        let (at, kill) = (self.offset(), self.rng.random_bool(0.5));
        let big = self.rng.random_bool(0.05);
        let bytes = self.bytes(if big { 1 << 20 } else { 20_000 });
        if self.sealed.contains(&rel) {
            return self.append(&rel, &bytes);
        }
        let (fd, oid) = self.source.open(&rel)?;
        if self.rng.random_bool(0.2) {
            return self.source.truncate(&fd, oid, at, kill);
        }
        self.source.write(&fd, oid, at, &bytes, kill)
    }

    /// An append-only file takes appends.
    fn append(&mut self, rel: &Path, bytes: &[u8]) -> Tried {
        use std::io::Write;
        let oid = self.source.known(rel);
        let f = File::options().append(true).open(self.source.path(rel));
        let mut f = f.map_err(|e| e.raw_os_error().unwrap())?;
        let at = f.metadata().unwrap().len();
        f.write_all(bytes).unwrap();
        self.source.wrote(&f.into(), oid, at, bytes, false);
        Ok(())
    }

    fn allocate(&mut self) -> Tried {
        let Some(rel) = self.file() else {
            return Ok(());
        };
        let (fd, oid) = self.source.open(&rel)?;
        let keep = libc::FALLOC_FL_KEEP_SIZE as u32;
        let (at, len) = (self.offset(), self.rng.random_range(1..40_000));
        let block = self.rng.random_range(0..8u64) * 4096;
        // Refused calls may have side effects (times, capabilities) that no record tells.
        let size = self.source.stat(&rel).st_size as u64;
        let shift = if self.light || size <= block + 8192 { 6 } else { 8 };
        match self.rng.random_range(0..shift) {
            0 => self.source.fallocate(&fd, oid, 0, at, len),
            1 => self.source.fallocate(&fd, oid, keep, at, len),
            2 | 3 => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE as u32 | keep;
                self.source.fallocate(&fd, oid, mode, at, len)
            }
            4 => self.source.fallocate(&fd, oid, libc::FALLOC_FL_ZERO_RANGE as u32, at, len),
            5 => {
                let mode = libc::FALLOC_FL_ZERO_RANGE as u32 | keep;
                self.source.fallocate(&fd, oid, mode, at, len)
            }
            6 => {
                let mode = libc::FALLOC_FL_COLLAPSE_RANGE as u32;
                self.source.fallocate(&fd, oid, mode, block, 4096)
            }
            _ => {
                let mode = libc::FALLOC_FL_INSERT_RANGE as u32;
                self.source.fallocate(&fd, oid, mode, block, 8192)
            }
        }
    }

    fn copy(&mut self) -> Tried {
        let (Some(a), Some(b)) = (self.file(), self.file()) else {
            return Ok(());
        };
        let ((f, fo), (t, to)) = (self.source.open(&a)?, self.source.open(&b)?);
        let (from, at) = (self.offset(), self.offset());
        let len = self.rng.random_range(1..50_000);
        // Nothing to copy is not an effect, but some file systems have changed the time by then.
        if fo == to && from.abs_diff(at) < len || self.source.stat(&a).st_size as u64 <= from {
            return Ok(());
        }
        self.source.copy((&f, fo, from), (&t, to, at), len)
    }

    fn attributes(&mut self) -> Tried {
        let rel = match self.any() {
            Some(rel) if self.rng.random_bool(0.9) => rel,
            _ => PathBuf::new(),
        };
        let link = self.source.stat(&rel).st_mode & libc::S_IFMT == libc::S_IFLNK;
        let mode = self.rng.random_range(0..0o10000u32);
        let (uid, gid, _) = self.who();
        let t = Time {
            sec: self.rng.random_range(-1000..2_000_000_000),
            nsec: self.rng.random_range(0..1_000_000_000),
        };
        let what = self.rng.random_range(0..4);
        let v = match what {
            0 if !link => valid::MODE,
            1 => valid::UID | valid::GID,
            2 => valid::GID,
            _ => valid::MTIME | valid::ATIME,
        };
        let effect = |p: &Path| {
            let c = cstr(p);
            // SAFETY: c is terminated, ts has two elements.
            done(unsafe {
                match v {
                    valid::MODE => libc::chmod(c.as_ptr(), mode),
                    valid::GID => libc::lchown(c.as_ptr(), u32::MAX, gid),
                    v if v & valid::UID != 0 => libc::lchown(c.as_ptr(), uid, gid),
                    _ => {
                        let one = libc::timespec { tv_sec: t.sec, tv_nsec: i64::from(t.nsec) };
                        let ts = [one, one];
                        let flag = libc::AT_SYMLINK_NOFOLLOW;
                        libc::utimensat(libc::AT_FDCWD, c.as_ptr(), ts.as_ptr(), flag)
                    }
                }
            })
        };
        self.source.meta(&rel, Op::Setattr, effect, |e| {
            e.u32(v).u32(mode).u32(uid).u32(gid).u64(0).time(t).time(t);
        })
    }

    fn acl(&mut self) -> Vec<u8> {
        let mut out = 2u32.to_le_bytes().to_vec();
        let perm = |r: &mut ChaCha8Rng| r.random_range(0..8u16);
        let entries = [
            (1u16, perm(&mut self.rng), u32::MAX),
            (2, perm(&mut self.rng), 1000),
            (4, perm(&mut self.rng), u32::MAX),
            (8, perm(&mut self.rng), 50),
            (16, perm(&mut self.rng), u32::MAX),
            (32, perm(&mut self.rng), u32::MAX),
        ];
        for (tag, perm, id) in entries {
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&perm.to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    }

    fn xattr(&mut self) -> Tried {
        let rel = match self.any() {
            Some(rel) if self.rng.random_bool(0.9) => rel,
            _ => PathBuf::new(),
        };
        let t = fs::symlink_metadata(self.source.path(&rel)).unwrap().file_type();
        let plain = !t.is_symlink() && !t.is_fifo() && !t.is_socket();
        let caps = [1, 0, 0, 2, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
        let (name, value): (&str, Vec<u8>) = match self.rng.random_range(0..6) {
            0 if t.is_dir() && !self.light => ("system.posix_acl_default", self.acl()),
            1 if plain => ("system.posix_acl_access", self.acl()),
            2 if t.is_file() => ("security.capability", caps),
            3 if plain => ("user.one", self.bytes(50)),
            4 => ("trusted.two", self.bytes(200)),
            _ => ("trusted.\u{e9}", self.bytes(10)),
        };
        let c = std::ffi::CString::new(name).unwrap();
        if self.rng.random_bool(0.3) {
            let effect = |p: &Path| {
                // SAFETY: strings are terminated.
                done(unsafe { libc::lremovexattr(cstr(p).as_ptr(), c.as_ptr()) })
            };
            return self.source.meta(&rel, Op::Removexattr, effect, |e| {
                e.name(name.as_bytes());
            });
        }
        let effect = |p: &Path| {
            let (v, n) = (value.as_ptr().cast(), value.len());
            // SAFETY: strings are terminated, value is valid for its length.
            done(unsafe { libc::lsetxattr(cstr(p).as_ptr(), c.as_ptr(), v, n, 0) })
        };
        self.source.meta(&rel, Op::Setxattr, effect, |e| {
            e.u32(0).name(name.as_bytes()).payload().raw(&value);
        })
    }

    fn flags(&mut self) -> Tried {
        if let Some(rel) = self.sealed.pop().filter(|_| self.rng.random_bool(0.5)) {
            return if self.exists(&rel) { self.set_flags(&rel, 0) } else { Ok(()) };
        }
        let Some(rel) = self.file() else {
            return Ok(());
        };
        let rel = match self.rng.random_range(0..4) {
            0 if !self.light => self.dir(),
            _ => rel,
        };
        if rel.as_os_str().is_empty() {
            return Ok(());
        }
        let value = *[0x10, 0x20, 0x40, 0xC0, 0].choose(&mut self.rng).unwrap();
        if value & seal::SEALS != 0 {
            self.sealed.push(rel.clone());
        }
        self.set_flags(&rel, value)
    }

    fn set_flags(&mut self, rel: &Path, value: u32) -> Tried {
        let Ok(f) = File::open(self.source.path(rel)) else {
            return Ok(());
        };
        let now = seal::get_flags(f.as_raw_fd()).map_err(|e| e.errno().unwrap())?;
        let value = now & !0xFF | value;
        let effect =
            |_: &Path| seal::set_flags(f.as_raw_fd(), value).map_err(|e| e.errno().unwrap());
        self.source.meta(rel, Op::Setflags, effect, |e| {
            e.u32(value);
        })
    }

    /// Everything that would keep the tree from being compared or removed.
    pub fn settle(&mut self) {
        for (fd, oid, _) in std::mem::take(&mut self.nameless) {
            drop(fd);
            self.source.gone(oid);
        }
    }
}
