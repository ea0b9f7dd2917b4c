//! Comparison: whether the target is what images and codes say, instead of making it so.
//!
//! Records with the COMPARE flag change nothing at the target. What differs is named, and becomes a
//! need. CODES without the flag belong to a baseline for a tree that was the volume's before: there
//! too, what differs becomes a need. A difference is true for its place in the order; the target is
//! exactly there when it is looked at.

use super::apply::Record;
use super::apply_meta::CHANGEABLE_FLAGS;
use super::apply_names::libc_dev;
use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::facts::look_up;
use super::needs::OBJECT;
use super::objects::Obj;
use super::seal;
use super::sys::{self, Name};
use crate::codes::{read_at, segments, Code};
use crate::record::{Fields, ImageDir, ImagePayload, Oid, CODE_BYTES, FLAG_COMPARE, SEGMENT_BYTES};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Differences that are kept until they are taken; beyond it they are only counted.
const DIFFERENCES_MAX: usize = 10_000;
/// Names of the directory compared last that are kept, for the paths of what differs in it.
const NAMES_MAX: usize = 1 << 17;

/// One thing that the target has otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub seq: u64,
    /// Relative to the target, starting with `/`; bytes, not text.
    pub path: Vec<u8>,
    /// Which parts: "missing", "extra", "data", "holes", "mode", …, joined by commas.
    pub what: String,
    /// The bytes that differ, where it is data.
    pub range: (u64, u64),
}

/// A comparison of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The record that ended it.
    pub seq: u64,
    pub differences: u64,
}

/// What the engine keeps for comparisons.
#[derive(Default)]
pub struct Comparison {
    /// First record of the comparison under way that this process has seen from its beginning.
    begun: Option<u64>,
    pub count: u64,
    list: Vec<Difference>,
    pub verified: Option<Verified>,
    dir: Oid,
    names: HashMap<Oid, Vec<u8>>,
    buf: Vec<u8>,
    sweep: Sweep,
}

/// Where the computing of codes in idle times is.
#[derive(Default)]
struct Sweep {
    object: usize,
    segment: u64,
    /// The store's count of invalidations when this walk began, and whether it has ended.
    seen: u64,
    done: bool,
}

pub(super) fn is_comparison(r: &Record) -> bool {
    r.view.flags() & FLAG_COMPARE != 0
}

impl Engine {
    pub fn take_differences(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.comparison.list)
    }

    pub(super) fn begin_comparison(&mut self) {
        self.comparison.begun = Some(self.seq);
        self.comparison.count = 0;
        self.comparison.list.clear();
    }

    /// What earlier comparisons have found and this one has not is over.
    pub(super) fn end_comparison(&mut self) -> Done {
        self.comparison.names = HashMap::new();
        if let Some(begun) = self.comparison.begun.take() {
            self.state.log(&super::map_log::Entry::NeedsBefore { seq: begun })?;
            self.needs.forget_before(begun);
            let differences = self.comparison.count;
            self.comparison.verified = Some(Verified { seq: self.seq, differences });
        }
        Ok(())
    }

    fn differs(&mut self, oid: Oid, what: &str, range: (u64, u64), name: &[u8]) {
        self.comparison.count += 1;
        self.note(oid, what, range, name);
    }

    fn note(&mut self, oid: Oid, what: &str, range: (u64, u64), name: &[u8]) {
        if self.comparison.list.len() >= DIFFERENCES_MAX {
            return;
        }
        let dir = self.comparison.dir;
        let path = match self.comparison.names.get(&oid).cloned() {
            _ if !name.is_empty() => self.path_of(oid, name),
            Some(name) => self.path_of(dir, &name),
            None => self.path_of(oid, b""),
        };
        let path = if path.is_empty() { b"/".to_vec() } else { path };
        let adjacent = self.comparison.list.last_mut().filter(|last| {
            range.0 < range.1 && last.range.1 == range.0 && last.path == path && last.what == what
        });
        match adjacent {
            Some(last) => last.range.1 = range.1,
            None => {
                let what = what.to_owned();
                self.comparison.list.push(Difference { seq: self.seq, path, what, range });
            }
        }
    }

    /// An IMAGE to compare with.
    pub(super) fn compare_image(&mut self, r: &Record) -> Done {
        let Fields::Image { uid, gid, rdev, links, size, fsflags } = r.fields else {
            return Ok(());
        };
        if links == 0 {
            // It lost its last name between the list of its directory and its image.
            return Ok(());
        }
        let kind = r.mode & libc::S_IFMT;
        let found = self.alive(r.oid)?;
        let same = found.filter(|o| u32::from(self.objects.get(*o).kind) << 12 == kind);
        let Some(obj) = same else {
            self.differs(r.oid, if found.is_some() { "type" } else { "missing" }, (0, 0), b"");
            self.need(r.oid, OBJECT)?;
            return match kind == libc::S_IFREG {
                true => self.need(r.oid, (0, u64::MAX)),
                false => Ok(()),
            };
        };
        let fd = self.fd(obj, Access::Any)?;
        let st = sys::fstat(fd)?;
        let mtime = self.pending_time(obj).unwrap_or((st.st_mtime, st.st_mtime_nsec as u32));
        let mut what = Vec::new();
        let mut check = |name, differs: bool| {
            if differs {
                what.push(name);
            }
        };
        let (link, regular) = (kind == libc::S_IFLNK, kind == libc::S_IFREG);
        check("mode", !link && (st.st_mode ^ r.mode) & 0o7777 != 0);
        check("owner", (st.st_uid, st.st_gid) != (uid, gid));
        check("size", regular && st.st_size as u64 != size);
        check("links", kind != libc::S_IFDIR && st.st_nlink as u64 != u64::from(links));
        check("mtime", r.time.is_known() && mtime != (r.time.sec, r.time.nsec));
        let device = matches!(kind, libc::S_IFCHR | libc::S_IFBLK);
        check("device", device && st.st_rdev != libc_dev(rdev));
        let image = ImagePayload::parse(r.view.payload())?;
        if link {
            check("target", sys::readlinkat(fd, sys::EMPTY.as_ptr())? != image.target);
        }
        if regular || kind == libc::S_IFDIR {
            let flags = seal::get_flags(fd).unwrap_or(0);
            check("flags", (flags ^ fsflags) & CHANGEABLE_FLAGS != 0);
        }
        check("xattrs", !self.has_xattrs(obj, image)?);
        if what.is_empty() {
            return Ok(());
        }
        let what = what.join(",");
        self.differs(r.oid, &what, (0, 0), b"");
        self.need(r.oid, OBJECT)
    }

    fn has_xattrs(&mut self, obj: Obj, mut image: ImagePayload) -> Done<bool> {
        let mut left: HashSet<Vec<u8>> = self.xattr_names(obj)?.into_iter().collect();
        while let Some((name, value)) = image.next_xattr()? {
            if !left.remove(name) {
                return Ok(false);
            }
            let name = Name::attribute(name)?;
            if self.get_xattr(obj, &name)?.as_deref() != Some(value) {
                return Ok(false);
            }
        }
        Ok(left.is_empty())
    }

    /// An IMAGE_DIR to compare with. Objects that the journal has not named before are known from now on.
    pub(super) fn compare_dir(
        &mut self,
        r: &Record,
        range: u8,
        after: &[u8],
        up_to: &[u8],
    ) -> Done {
        if range & 1 != 0 {
            self.comparison.dir = r.oid;
            self.comparison.names.clear();
        }
        let Some(dir) = self.alive(r.oid)?.filter(|d| self.objects.get(*d).is_dir()) else {
            // Its image, which follows, says so.
            return Ok(());
        };
        let mut present = self.names_within(dir, range, after, up_to)?;
        let mut list = ImageDir::parse(r.view.payload())?;
        let mut differs = false;
        while let Some((oid, mode, name)) = list.next_entry()? {
            self.fds.next_turn();
            if self.comparison.names.len() < NAMES_MAX {
                self.comparison.names.insert(oid, name.to_vec());
            }
            let there = present.remove(name);
            let what = match there {
                true => self.compare_entry(dir, oid, mode, &Name::component(name)?)?,
                false => Some("missing"),
            };
            if let Some(what) = what {
                self.differs(r.oid, what, (0, 0), name);
                differs = true;
            }
        }
        for name in present {
            self.differs(r.oid, "extra", (0, 0), &name);
            differs = true;
        }
        match differs {
            true => self.need(r.oid, OBJECT),
            false => Ok(()),
        }
    }

    fn compare_entry(
        &mut self,
        dir: Obj,
        oid: Oid,
        mode: u32,
        name: &Name,
    ) -> Done<Option<&'static str>> {
        let fd = self.fd(dir, Access::Any)?;
        let Some(found) = look_up(fd, name)? else {
            return Ok(Some("missing"));
        };
        if (found.mode ^ mode) & libc::S_IFMT != 0 {
            return Ok(Some("type"));
        }
        if let Some(obj) = self.alive(oid)? {
            let same = self.objects.get(obj).handle == found.handle;
            return Ok((!same).then_some("another object"));
        }
        if self.objects.find_handle(&found.handle).is_some() {
            return Ok(Some("another object"));
        }
        if self.objects.find(oid).is_some() {
            // The journal's object has gone from here, and this one was put in its place.
            return Ok(Some("another object"));
        }
        self.bind(oid, found.handle, found.mode, 0)?;
        Ok(None)
    }

    /// An IMAGE_HOLE to compare with: nothing is stored there.
    pub(super) fn compare_hole(&mut self, r: &Record, offset: u64, len: u64) -> Done {
        let Some(obj) = self.alive(r.oid)?.filter(|o| self.objects.get(*o).is_regular()) else {
            return Ok(());
        };
        let fd = self.fd(obj, Access::Any)?;
        let end = offset.saturating_add(len);
        let mut at = offset;
        let (mut stored, mut zeros) = (None, true);
        while at < end {
            // SAFETY: plain call; nobody uses the position of this descriptor.
            let data = unsafe { libc::lseek(fd, at as i64, libc::SEEK_DATA) };
            if data < 0 || data as u64 >= end {
                break;
            }
            stored.get_or_insert(data as u64);
            let segment = data as u64 / SEGMENT_BYTES;
            if self.code_of(fd, segment)? != Code::of(b"") {
                let range = (segment * SEGMENT_BYTES, ((segment + 1) * SEGMENT_BYTES).min(end));
                self.differs(r.oid, "data", range, b"");
                self.need(r.oid, range)?;
                zeros = false;
            }
            at = (segment + 1) * SEGMENT_BYTES;
        }
        if let Some(from) = stored.filter(|_| zeros) {
            // Told, and no difference: what a file system allocates ahead of writes, and fills with zeros,
            // depends on when it did so.
            self.note(r.oid, "holes", (from, end), b"");
        }
        Ok(())
    }

    fn code_of(&mut self, fd: i32, segment: u64) -> Done<Code> {
        let buf = &mut self.comparison.buf;
        buf.resize(SEGMENT_BYTES as usize, 0);
        let n = read_at(fd, buf, segment * SEGMENT_BYTES).map_err(|e| Fault::Sys {
            call: "pread",
            errno: e.raw_os_error().unwrap_or(libc::EIO),
        })?;
        Ok(Code::of(&buf[..n]))
    }

    /// Reads a segment and keeps its code.
    fn compute(&mut self, obj: Obj, fd: i32, segment: u64) -> Done<Code> {
        let key = self.code_key(obj);
        let begun = self.codes.as_ref().map(|s| s.begin(key, segment));
        let code = self.code_of(fd, segment)?;
        if let (Some(store), Some(begun)) = (&self.codes, begun) {
            store.complete(begun, code);
        }
        Ok(code)
    }

    /// CODES: compares segments. A comparison reads them; a baseline trusts the codes that are valid.
    pub(super) fn apply_codes(&mut self, r: &Record, offset: u64, len: u64) -> Done {
        let range = segments(offset, offset.saturating_add(len));
        let codes = r.view.payload().chunks_exact(CODE_BYTES);
        if offset % SEGMENT_BYTES != 0 || codes.len() as u64 != range.end - range.start {
            return Err(Fault::Corrupt("codes and the range they are for do not agree"));
        }
        let comparing = is_comparison(r);
        let found = match comparing {
            true => self.alive(r.oid)?,
            false => self.object(r.oid)?,
        };
        let Some(obj) = found.filter(|o| self.objects.get(*o).is_regular()) else {
            return Ok(());
        };
        let fd = self.fd(obj, Access::Any)?;
        for (segment, code) in range.zip(codes) {
            let known = self.codes.as_ref().filter(|_| !comparing);
            let own = match known.and_then(|s| s.get(self.code_key(obj), segment)) {
                Some(code) => code,
                None => self.compute(obj, fd, segment)?,
            };
            if own.bytes() != code {
                let at = segment * SEGMENT_BYTES;
                let bytes = (at, (at + SEGMENT_BYTES).min(offset + len));
                if comparing {
                    self.differs(r.oid, "data", bytes, b"");
                }
                self.need(r.oid, (at, at + SEGMENT_BYTES))?;
            }
        }
        Ok(())
    }

    /// Bytes of the object are about to change.
    pub(super) fn stale_codes(&self, oid: Oid, from: u64, to: u64) {
        if let (Some(codes), Some(obj)) = (&self.codes, self.objects.find(oid)) {
            codes.invalidate(self.code_key(obj), from, to);
        }
    }

    /// What the codes of a file are kept under: the file of the target itself. What is made anew for the
    /// same object of the source, after a reset that goes back, has none of the old one's.
    fn code_key(&self, obj: Obj) -> Oid {
        let handle = &self.objects.get(obj).handle;
        Oid { ino: handle.hash(), gen: handle.front() }
    }

    /// Computes codes that are missing, for about this long; false when none is.
    pub fn compute_codes(&mut self, most: Duration) -> Done<bool> {
        let Some(invalidated) = self.codes.as_ref().map(|s| s.invalidated()) else {
            return Ok(false);
        };
        let sweep = &mut self.comparison.sweep;
        if sweep.done && sweep.seen == invalidated {
            return Ok(false);
        }
        if sweep.done || sweep.object == 0 && sweep.segment == 0 {
            *sweep = Sweep { seen: invalidated, ..Sweep::default() };
        }
        let end = Instant::now() + most;
        while Instant::now() < end {
            let at = self.comparison.sweep.object;
            match self.objects.at(at).copied() {
                None if at >= self.objects.slots() => {
                    let sweep = &mut self.comparison.sweep;
                    (sweep.done, sweep.object, sweep.segment) = (true, 0, 0);
                    return Ok(self.codes.as_ref().is_some_and(|s| s.invalidated() != sweep.seen));
                }
                Some(object) if object.is_regular() => {
                    self.fds.next_turn();
                    match self.codes_of_object(at, end) {
                        // Gone, or not to be opened now.
                        Ok(true) | Err(Fault::Stale) | Err(Fault::Sys { .. }) => {}
                        Ok(false) => continue,
                        Err(e) => return Err(e),
                    }
                }
                _ => {}
            }
            self.comparison.sweep.object += 1;
            self.comparison.sweep.segment = 0;
        }
        Ok(true)
    }

    /// Goes on with one file; true when it has all its codes.
    fn codes_of_object(&mut self, at: usize, end: Instant) -> Done<bool> {
        let obj = Obj(at as u32);
        let fd = self.fd(obj, Access::Any)?;
        let key = self.code_key(obj);
        let size = sys::fstat(fd)?.st_size as u64;
        let first = self.comparison.sweep.segment;
        for segment in first..segments(0, size).end {
            if self.codes.as_ref().is_some_and(|s| s.get(key, segment).is_none()) {
                self.compute(obj, fd, segment)?;
                if Instant::now() >= end {
                    self.comparison.sweep.segment = segment + 1;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
