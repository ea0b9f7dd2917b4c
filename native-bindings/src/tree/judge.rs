//! What of an object differs between the two sides.

use super::attributes::{fs_flags, project, xattrs};
use super::content::{differing, Found};
use super::job::Shared;
use super::limits::REPLACED_WHOLE_BYTES;
use super::side::{Facts, Side};
use super::Options;
use crate::replay::apply_meta::CHANGEABLE_FLAGS;
use crate::replay::error::Done;
use crate::replay::sys::{self, Name};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Parts of an object, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What(pub u16);

impl What {
    pub const DATA: What = What(1);
    pub const SIZE: What = What(1 << 1);
    pub const TARGET: What = What(1 << 2);
    pub const DEVICE: What = What(1 << 3);
    pub const MODE: What = What(1 << 4);
    pub const OWNER: What = What(1 << 5);
    pub const MTIME: What = What(1 << 6);
    pub const XATTRS: What = What(1 << 7);
    pub const FLAGS: What = What(1 << 8);
    /// Its names are grouped otherwise: it is, or was, a hard link of something else.
    pub const LINKS: What = What(1 << 9);
    pub const PROJECT: What = What(1 << 10);

    const NAMES: [(What, &'static str); 11] = [
        (Self::DATA, "data"),
        (Self::SIZE, "size"),
        (Self::TARGET, "target"),
        (Self::DEVICE, "device"),
        (Self::MODE, "mode"),
        (Self::OWNER, "owner"),
        (Self::MTIME, "mtime"),
        (Self::XATTRS, "xattrs"),
        (Self::FLAGS, "flags"),
        (Self::LINKS, "links"),
        (Self::PROJECT, "project"),
    ];

    pub fn add(&mut self, part: What, differs: bool) {
        if differs {
            self.0 |= part.0;
        }
    }

    pub fn has(self, part: What) -> bool {
        self.0 & part.0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// More than metadata.
    pub fn is_content(self) -> bool {
        let content = [Self::DATA, Self::SIZE, Self::TARGET, Self::DEVICE, Self::LINKS];
        content.into_iter().any(|part| self.has(part))
    }

    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(part, _)| self.has(*part)).map(|(_, name)| *name).collect()
    }
}

#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub what: What,
    /// Differing bytes of side B, where they were asked for.
    pub ranges: Vec<(u64, u64)>,
}

/// An entry of one side, for a moment.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub dir: RawFd,
    pub name: &'a Name,
    pub facts: &'a Facts,
}

impl Seen<'_> {
    fn open(&self, flags: i32) -> Done<OwnedFd> {
        sys::openat(self.dir, self.name.c(), flags, 0)
    }

    /// For reading; nobody's access time moves.
    pub fn read(&self) -> Done<OwnedFd> {
        self.open(libc::O_RDONLY | libc::O_NOATIME | libc::O_NONBLOCK)
    }

    pub fn target(&self) -> Done<Vec<u8>> {
        sys::readlinkat(self.dir, self.name.c())
    }
}

/// Nothing has happened to the object between the two: its change time says so.
fn untouched(o: &Options, a: &Facts, b: &Facts) -> bool {
    o.identity
        && !o.thorough
        && a.ino == b.ino
        && a.ctime == b.ctime
        && a.mtime == b.mtime
        && (a.size == b.size || a.is_dir())
}

/// Whether two objects under one name can be made equal without making a new one.
pub fn convertible(a: Seen, b: Seen) -> Done<bool> {
    Ok(match b.facts.kind {
        libc::S_IFLNK => a.target()? == b.target()?,
        _ if b.facts.is_device() => a.facts.rdev == b.facts.rdev,
        _ => true,
    })
}

/// What of a pair differs; they are of one kind.
pub fn judge(o: &Options, job: &Shared, a: Seen, b: Seen) -> Done<Verdict> {
    let (fa, fb) = (a.facts, b.facts);
    let mut verdict = Verdict::default();
    if untouched(o, fa, fb) {
        return Ok(verdict);
    }
    let what = &mut verdict.what;
    what.add(What::MODE, !fa.is_link() && fa.mode != fb.mode);
    what.add(What::OWNER, (fa.uid, fa.gid) != (fb.uid, fb.gid));
    what.add(What::MTIME, fa.mtime != fb.mtime);
    what.add(What::DEVICE, fa.is_device() && fa.rdev != fb.rdev);
    if fa.is_link() {
        what.add(What::TARGET, a.target()? != b.target()?);
    }
    let (oa, ob) = (a.open(libc::O_PATH)?, b.open(libc::O_PATH)?);
    what.add(What::XATTRS, xattrs(&oa)? != xattrs(&ob)?);
    if fa.is_regular() || fa.is_dir() {
        let (oa, ob) = (a.read()?, b.read()?);
        if let (Some(a), Some(b)) = (fs_flags(&oa), fs_flags(&ob)) {
            what.add(What::FLAGS, (a ^ b) & CHANGEABLE_FLAGS != 0);
        }
        if let (Some(a), Some(b)) = (project(&oa), project(&ob)) {
            what.add(What::PROJECT, a != b);
        }
        if fa.is_regular() {
            data(o, job, (&oa, fa), (&ob, fb), &mut verdict)?;
        }
    }
    Ok(verdict)
}

type OpenFile<'a> = (&'a OwnedFd, &'a Facts);

fn data(o: &Options, job: &Shared, a: OpenFile, b: OpenFile, verdict: &mut Verdict) -> Done {
    let ((fd_a, fa), (fd_b, fb)) = (a, b);
    let sized = fa.size != fb.size;
    verdict.what.add(What::SIZE, sized);
    if o.quick && !o.thorough && !sized && fa.mtime == fb.mtime {
        return Ok(());
    }
    // A restore looks at large files when it patches them.
    let deferred = o.restore && fb.size > REPLACED_WHOLE_BYTES;
    if deferred || sized && !o.ranges {
        verdict.what.add(What::DATA, true);
        return Ok(());
    }
    let (fd_a, fd_b) = (fd_a.as_raw_fd(), fd_b.as_raw_fd());
    let wanted = if o.ranges { Found::All } else { Found::First };
    verdict.ranges = differing(job, (fd_a, fa.size), (fd_b, fb.size), wanted)?;
    verdict.what.add(What::DATA, sized || !verdict.ranges.is_empty());
    if !o.ranges {
        verdict.ranges.clear();
    }
    Ok(())
}

/// Judges a pair by its places in the two sides.
pub fn judge_pair(
    o: &Options,
    job: &Shared,
    sides: (&mut Side, &mut Side),
    pair: (u32, u32),
) -> Done<Verdict> {
    let (dir_a, name_a) = sides.0.place(pair.0)?;
    let (dir_b, name_b) = sides.1.place(pair.1)?;
    let a = Seen { dir: dir_a.as_raw_fd(), name: &name_a, facts: sides.0.facts(pair.0) };
    let b = Seen { dir: dir_b.as_raw_fd(), name: &name_b, facts: sides.1.facts(pair.1) };
    judge(o, job, a, b)
}
