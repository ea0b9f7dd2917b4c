//! Runs one operation on one side and describes what happened.
//!
//! A side is a root directory with a pool of open descriptors and a pool of mappings. Both
//! sides of a worker receive exactly the same operations.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::op::{At, MapSlot, Op, Slot, Target};
use super::outcome::{Attrs, Outcome, View};
use super::payload::AlignedBuf;
use crate::sys::map::Mapping;
use crate::sys::{attr, cstr, file, name, process, Errno, SysResult};

/// A mapping with its own descriptor, to ask for the file's size.
pub(super) struct Mapped {
    pub map: Mapping,
    pub fd: OwnedFd,
    pub off: i64,
}

pub struct Side {
    root: OwnedFd,
    slots: Vec<Option<OwnedFd>>,
    pub(super) maps: Vec<Option<Mapped>>,
    pub(super) buf: AlignedBuf,
    /// Compare the exact answers of SEEK_DATA and SEEK_HOLE.
    pub(super) seek_exact: bool,
    /// Asked for in every view: the birth time on the right, where it tells inodes apart. On
    /// the left it would turn every stat into a request of another kind.
    stat_mask: u32,
}

impl Side {
    pub fn new(root: OwnedFd, seek_exact: bool, is_right: bool) -> Side {
        let birth = if is_right { attr::STATX_BTIME } else { 0 };
        Side {
            root,
            slots: Vec::new(),
            maps: Vec::new(),
            buf: AlignedBuf::default(),
            seek_exact,
            stat_mask: attr::STATX_BASIC | birth,
        }
    }

    pub fn root(&self) -> RawFd {
        self.root.as_raw_fd()
    }

    /// The descriptor in a slot; -1, hence EBADF, when the slot is empty.
    pub(super) fn fd(&self, slot: Slot) -> RawFd {
        match self.slots.get(slot as usize) {
            Some(Some(fd)) => fd.as_raw_fd(),
            _ => -1,
        }
    }

    pub(super) fn base(&self, at: &At) -> RawFd {
        at.base.map_or(self.root.as_raw_fd(), |slot| self.fd(slot))
    }

    pub(super) fn owned(&self, slot: Slot) -> SysResult<&OwnedFd> {
        match self.slots.get(slot as usize) {
            Some(Some(fd)) => Ok(fd),
            _ => Err(libc::EBADF),
        }
    }

    pub(super) fn mapped(&self, map: MapSlot) -> SysResult<&Mapped> {
        match self.maps.get(map as usize) {
            Some(Some(m)) => Ok(m),
            _ => Err(libc::EINVAL),
        }
    }

    /// Runs `op`, then takes the attributes that the operation asks for or `probe` demands.
    pub fn run(&mut self, op: &Op, probe: bool) -> Outcome {
        let mut out = Outcome::new(Err(libc::EINVAL));
        let result = self.dispatch(op, &mut out);
        out.result = result;
        let timed = matches!(op, Op::Utimens { .. });
        let seen = matches!(op, Op::SeekMap { .. });
        // Whose capabilities these are decides whether they can be judged, see `limits`.
        let seen_for = op.concerns_capability();
        if (probe && !seen)
            || seen_for
            || (result.is_ok() && (timed || matches!(op, Op::Open { .. })))
        {
            if let Some(target) = op.subject() {
                let set = matches!(op, Op::Utimens { atime, .. } if atime.1 != libc::UTIME_OMIT);
                self.view("subject", &target, set && result.is_ok(), &mut out);
                if let (true, Target::Path { at, .. }) = (probe, &target) {
                    self.view("directory", &parent(at), false, &mut out);
                }
            }
        }
        out
    }

    fn dispatch(&mut self, op: &Op, out: &mut Outcome) -> Result<i64, Errno> {
        match op {
            Op::Open { at, flags, mode, slot } => self.open(at, *flags, *mode, *slot),
            Op::Close { slot } => self.close(*slot),
            Op::LinkTmpfile { from, to } => {
                let old = crate::sys::proc_fd(self.fd(*from))?;
                let new = cstr(to.path.as_slice())?;
                let flags = libc::AT_SYMLINK_FOLLOW;
                done(name::linkat(libc::AT_FDCWD, &old, self.base(to), &new, flags))
            }
            Op::Umask { mask } => {
                process::umask(*mask);
                Ok(0)
            }
            Op::Read { .. }
            | Op::Pread { .. }
            | Op::Write { .. }
            | Op::Pwrite { .. }
            | Op::Writev { .. }
            | Op::Seek { .. }
            | Op::SeekMap { .. }
            | Op::Ftruncate { .. }
            | Op::Truncate { .. }
            | Op::Fallocate { .. }
            | Op::CopyRange { .. }
            | Op::Fsync { .. }
            | Op::Syncfs { .. }
            | Op::MapOpen { .. }
            | Op::MapStore { .. }
            | Op::MapLoad { .. }
            | Op::Msync { .. }
            | Op::MapClose { .. } => self.data_op(op, out),
            Op::Mkdir { .. }
            | Op::Rmdir { .. }
            | Op::Unlink { .. }
            | Op::Symlink { .. }
            | Op::Readlink { .. }
            | Op::Link { .. }
            | Op::Rename { .. }
            | Op::Mknod { .. }
            | Op::Readdir { .. }
            | Op::ReaddirChurn { .. } => self.dir_op(op, out),
            _ => self.attr_op(op, out),
        }
    }

    fn open(&mut self, at: &At, flags: i32, mode: u32, slot: Slot) -> Result<i64, Errno> {
        let fd = file::openat(self.base(at), &cstr(at.path.as_slice())?, flags, mode)?;
        let slot = slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(fd);
        Ok(0)
    }

    fn close(&mut self, slot: Slot) -> Result<i64, Errno> {
        match self.slots.get_mut(slot as usize).and_then(Option::take) {
            Some(_) => Ok(0),
            None => Err(libc::EBADF),
        }
    }

    pub(super) fn fstat(&self, fd: RawFd) -> SysResult<attr::Stat> {
        attr::statx(fd, c"", libc::AT_EMPTY_PATH, self.stat_mask)
    }

    /// Takes attributes; the access time only where nothing can have moved it since it was set.
    pub(super) fn view(&self, label: &str, target: &Target, atime: bool, out: &mut Outcome) {
        let s = match target {
            Target::Fd(slot) => self.fstat(self.fd(*slot)),
            Target::Path { at, follow } => cstr(at.path.as_slice()).and_then(|p| {
                let flags = if *follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                attr::statx(self.base(at), &p, flags, self.stat_mask)
            }),
        };
        let result = s.map(|s| {
            let mut a = Attrs::of(&s);
            a.atime = atime.then_some(s.atime);
            a
        });
        out.views.push(View { label: label.to_owned(), result });
    }
}

/// The directory that holds the last component of a path.
fn parent(at: &At) -> Target {
    let path = at.path.as_slice();
    let path = match path.iter().rposition(|b| *b == b'/') {
        Some(i) => path[..i].into(),
        None => b".".as_slice().into(),
    };
    Target::Path { at: At { base: at.base, path }, follow: true }
}

pub(super) fn done(r: SysResult<()>) -> Result<i64, Errno> {
    r.map(|()| 0)
}
