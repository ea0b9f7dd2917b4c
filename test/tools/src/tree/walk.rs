//! Walks two trees side by side, directory by directory, in name order.

use std::cmp::Ordering;
use std::os::fd::{AsRawFd, RawFd};

use super::content::{data_extents, first_mismatch, Buffers};
use super::links::{Links, Seen};
use super::names::Names;
use super::object::Object;
use super::{CompareError, Difference, Options, Summary};
use crate::sys::{cstr, errno_name, Errno, SysResult};

/// Compares the trees below two open directories and reports each difference.
pub fn compare(
    left: RawFd,
    right: RawFd,
    opt: &Options,
    report: &mut dyn FnMut(Difference),
) -> Result<Summary, CompareError> {
    let mut walk = Walk {
        opt,
        report,
        links: Links::default(),
        bufs: Buffers::default(),
        path: b".".to_vec(),
        seen: Summary::default(),
    };
    walk.pair(left, right, b".")?;
    Ok(walk.seen)
}

struct Walk<'a> {
    opt: &'a Options,
    report: &'a mut dyn FnMut(Difference),
    links: Links,
    bufs: Buffers,
    path: Vec<u8>,
    seen: Summary,
}

impl Walk<'_> {
    fn differ(&mut self, field: &'static str, left: String, right: String) {
        if self.opt.wants(field) {
            self.seen.differences += 1;
            (self.report)(Difference { field, path: self.path.clone(), left, right });
        }
    }

    fn fail<T>(&self, op: &'static str, r: SysResult<T>) -> Result<T, CompareError> {
        r.map_err(|errno| CompareError { op, path: self.path.clone(), errno })
    }

    /// One name that exists on both sides.
    fn pair(&mut self, left: RawFd, right: RawFd, name: &[u8]) -> Result<(), CompareError> {
        self.seen.objects += 1;
        let c = self.fail("name", cstr(name))?;
        let (a, b) = match (Object::read(left, &c, self.opt), Object::read(right, &c, self.opt)) {
            (Ok(a), Ok(b)) => (a, b),
            (a, b) => {
                let show = |r: &Result<Object, (&str, Errno)>| match r {
                    Ok(_) => "readable".to_owned(),
                    Err((op, e)) => format!("{op}: {}", errno_name(*e)),
                };
                self.differ("type", show(&a), show(&b));
                return Ok(());
            }
        };
        if a.stat.kind() != b.stat.kind() {
            let show = |k: u32| kind_name(k).to_owned();
            self.differ("type", show(a.stat.kind()), show(b.stat.kind()));
            return Ok(());
        }
        if !a.stat.is_dir() && (a.stat.nlink > 1 || b.stat.nlink > 1) && self.opt.wants("links") {
            let id = |o: &Object| (o.stat.dev, o.stat.ino);
            let nlink = a.stat.nlink.min(b.stat.nlink);
            match self.links.meet(id(&a), id(&b), nlink) {
                Seen::First => {}
                Seen::Again => return Ok(()),
                Seen::Differs => {
                    let show = |o: &Object| format!("inode {}", o.stat.ino);
                    self.differ("links", show(&a), show(&b));
                }
            }
        }
        let mut found = Vec::new();
        a.compare(&b, self.opt, &mut |field, l, r| found.push((field, l, r)));
        for (field, l, r) in found {
            self.differ(field, l, r);
        }
        if let (Some(fa), Some(fb)) = (&a.fd, &b.fd) {
            if a.stat.is_dir() {
                self.directory(fa.as_raw_fd(), fb.as_raw_fd())?;
            } else {
                let size = a.stat.size.min(b.stat.size);
                self.content(fa.as_raw_fd(), fb.as_raw_fd(), size)?;
            }
        }
        Ok(())
    }

    fn content(&mut self, left: RawFd, right: RawFd, size: u64) -> Result<(), CompareError> {
        self.seen.bytes += size;
        // Before anything is read: allocated but unwritten space is data to ext4 while it is cached.
        if self.opt.holes {
            let g = self.opt.hole_granularity;
            let a = self.fail("seek", data_extents(left, size, g))?;
            let b = self.fail("seek", data_extents(right, size, g))?;
            if a != b {
                self.differ("holes", format!("{a:?}"), format!("{b:?}"));
            }
        }
        if self.opt.wants("data") {
            let found = first_mismatch(left, right, size, &mut self.bufs);
            if let Some(m) = self.fail("read", found)? {
                let show = |b: u8| format!("{b:#04x}@{}", m.offset);
                self.differ("data", show(m.left), show(m.right));
            }
        }
        Ok(())
    }

    fn directory(&mut self, left: RawFd, right: RawFd) -> Result<(), CompareError> {
        let a = self.fail("readdir left", Names::read(left))?;
        let b = self.fail("readdir right", Names::read(right))?;
        let (mut i, mut j) = (0, 0);
        let base = self.path.len();
        loop {
            let (l, r) = (a.get(i), b.get(j));
            let order = match (l, r) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(x), Some(y)) => x.cmp(y),
            };
            let Some(name) = (if order == Ordering::Greater { r } else { l }) else {
                return Ok(());
            };
            i += usize::from(order != Ordering::Greater);
            j += usize::from(order != Ordering::Less);
            if base == 1 && self.opt.exclude.iter().any(|e| e == name) {
                continue;
            }
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            match order {
                Ordering::Equal => self.pair(left, right, name)?,
                Ordering::Less => self.differ("missing", "present".into(), "absent".into()),
                Ordering::Greater => self.differ("missing", "absent".into(), "present".into()),
            }
            self.path.truncate(base);
        }
    }
}

fn kind_name(kind: u32) -> &'static str {
    match kind {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "symlink",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        libc::S_IFCHR => "char device",
        libc::S_IFBLK => "block device",
        _ => "unknown type",
    }
}
