//! Images: IMAGE, IMAGE_DATA, IMAGE_HOLE, IMAGE_DIR, IMAGE_ENTRY and the scans around them.
//!
//! Images state what is, so all of it can be repeated. A symbolic link or a device cannot become
//! another in place: until its image comes, its names are kept track of (`facts`), then the real
//! one takes them over.

use super::apply::Record;
use super::apply_data::write_zeros;
use super::apply_meta::CAPABILITY;
use super::apply_names::libc_dev;
use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::facts::look_up;
use super::handle::Handle;
use super::limits::DESCRIPTORS_MAX;
use super::map_log::Entry;
use super::needs::OBJECT;
use super::objects::{Obj, HOLLOW, IMAGE_CAPS};
use super::seal;
use super::sys::{self, Name};
use super::{BASELINE_AWAITED, BASELINE_OWN};
use crate::record::{Fields, ImageDir, ImagePayload, Oid};
use crate::scan::{KIND_BASELINE, KIND_VERIFY};
use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::AsRawFd;

/// The largest block of the file systems we know.
const BLOCK_BYTES_MAX: u64 = 64 << 10;

impl Engine {
    pub(super) fn apply_image(&mut self, r: &Record) -> Done {
        let Fields::Image { uid, gid, rdev, size, fsflags, .. } = r.fields else {
            return Ok(());
        };
        let Some(mut obj) = self.object(r.oid)? else {
            return Ok(());
        };
        let kind = r.mode & libc::S_IFMT;
        if u32::from(self.objects.get(obj).kind) << 12 != kind {
            if self.forgives_unknown() {
                // Taken for the wrong one by its name; the directory's image will tell.
                self.forget(r.oid)?;
                return Err(Fault::Stale);
            }
            return Err(Fault::Diverged("the object is of another type"));
        }
        let image = ImagePayload::parse(r.view.payload())?;
        if matches!(kind, libc::S_IFLNK | libc::S_IFCHR | libc::S_IFBLK) {
            obj = self.fill(obj, r, image.target, rdev)?;
        }
        let sealable = kind == libc::S_IFREG || kind == libc::S_IFDIR;
        let fd = self.fd(obj, Access::Any)?;
        if sealable {
            let now = seal::get_flags(fd).unwrap_or(0);
            if now & seal::SEALS != 0 {
                seal::set_flags(fd, now & !seal::SEALS)?;
            }
        }
        let st = sys::fstat(fd)?;
        let written_next = st.st_size == 0 && self.written_next == (r.oid, size);
        if kind == libc::S_IFREG && st.st_size as u64 != size && !written_next {
            self.before_change(obj)?;
            let (from, to) = (size.min(st.st_size as u64), size.max(st.st_size as u64));
            self.stale_codes(r.oid, from, to);
            sys::ftruncate(self.fd(obj, Access::Write)?, size)?;
        }
        if (st.st_uid, st.st_gid) != (uid, gid) {
            sys::chown_fd(self.fd(obj, Access::Any)?, uid, gid)?;
        }
        self.settle_mode(obj, r.mode)?;
        self.image_xattrs(obj, image)?;
        self.settle_mode(obj, r.mode)?;
        if sealable {
            let fd = self.fd(obj, Access::Any)?;
            match self.set_changeable_flags(fd, fsflags) {
                // A file system without flags: the source had none either, or cannot be matched.
                Err(e) if e.is(libc::ENOTTY) && fsflags == 0 => {}
                r => r?,
            }
        }
        if kind == libc::S_IFREG {
            self.need_met(r.oid, (size, u64::MAX))?;
        }
        self.need_met(r.oid, OBJECT)
    }

    /// The object has exactly these extended attributes.
    fn image_xattrs(&mut self, obj: Obj, mut image: ImagePayload) -> Done {
        let mut told: HashSet<&[u8]> = HashSet::new();
        let mut caps = None;
        let mut changes = Vec::new();
        while let Some((name, value)) = image.next_xattr()? {
            told.insert(name);
            changes.push((name, value));
        }
        for name in self.xattr_names(obj)? {
            if !told.contains(&name[..]) {
                match self.remove_xattr(obj, &Name::attribute(&name)?) {
                    // Two names of one attribute: the other one took it along.
                    Err(e) if e.is(libc::ENODATA) => {}
                    r => r?,
                }
            }
        }
        for (name, value) in changes {
            let attribute = Name::attribute(name)?;
            if self.get_xattr(obj, &attribute)?.as_deref() != Some(value) {
                self.set_xattr(obj, &attribute, value)?;
            }
            if name == CAPABILITY {
                caps = Some(value.to_vec());
            }
        }
        let oid = self.objects.get(obj).oid;
        match caps {
            Some(value) if self.objects.get(obj).is_regular() => {
                self.state.log(&Entry::Caps { oid, value: value.clone() })?;
                self.objects.get_mut(obj).flags |= IMAGE_CAPS;
                self.caps.insert(oid, value);
                Ok(())
            }
            _ => self.image_caps_done(obj),
        }
    }

    /// The capability is from now on what the application's own records make it.
    pub(super) fn image_caps_done(&mut self, obj: Obj) -> Done {
        if self.objects.get(obj).flags & IMAGE_CAPS == 0 {
            return Ok(());
        }
        let oid = self.objects.get(obj).oid;
        self.state.log(&Entry::CapsDone { oid })?;
        self.caps.remove(&oid);
        self.objects.get_mut(obj).flags &= !IMAGE_CAPS;
        Ok(())
    }

    /// Writing the image's data made the kernel remove what the image has set.
    fn restore_caps(&mut self, obj: Obj) -> Done {
        if self.objects.get(obj).flags & IMAGE_CAPS == 0 {
            return Ok(());
        }
        let oid = self.objects.get(obj).oid;
        match self.caps.get(&oid).cloned() {
            Some(value) => self.set_xattr(obj, &Name::attribute(CAPABILITY)?, &value),
            None => Ok(()),
        }
    }

    pub(super) fn apply_image_data(&mut self, r: &Record, offset: u64) -> Done {
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        self.before_change(obj)?;
        let end = offset + r.view.payload().len() as u64;
        self.stale_codes(r.oid, offset, end);
        let fd = self.fd(obj, Access::Write)?;
        sys::pwrite_all(fd, r.view.payload(), offset)?;
        self.need_met(r.oid, (offset, end))?;
        self.restore_caps(obj)
    }

    pub(super) fn apply_image_hole(&mut self, r: &Record, offset: u64, len: u64) -> Done {
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        if len == 0 {
            return Ok(());
        }
        self.before_change(obj)?;
        let fd = self.fd(obj, Access::Write)?;
        let end = offset.saturating_add(len);
        self.stale_codes(r.oid, offset, end);
        self.need_met(r.oid, (offset, end))?;
        self.punch(fd, offset, len)?;
        self.restore_caps(obj)
    }

    /// Nothing is stored there any more.
    pub(super) fn punch(&self, fd: i32, offset: u64, len: u64) -> Done {
        let punch = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
        // A hole to the end has no last block either: part of a block would only be zeroed.
        let end = offset.saturating_add(len);
        let size = sys::fstat(fd)?.st_size as u64;
        let len = if end >= size { end.next_multiple_of(BLOCK_BYTES_MAX) - offset } else { len };
        match sys::fallocate(fd, punch, offset, len) {
            Err(e) if e.is(libc::EOPNOTSUPP) => write_zeros(fd, offset, end.min(size)),
            r => r,
        }
    }

    /// The bytes are not in the journal: a target whose baseline this is lacks them; others were whole.
    pub(super) fn apply_image_later(&mut self, r: &Record, offset: u64, len: u64) -> Done {
        if !self.compares || self.state.header.scans() & BASELINE_OWN == 0 {
            return Ok(());
        }
        match self.object(r.oid)? {
            Some(_) => self.need(r.oid, (offset, offset.saturating_add(len))),
            None => Ok(()),
        }
    }

    pub(super) fn apply_image_dir(
        &mut self,
        r: &Record,
        range: u8,
        after: &[u8],
        up_to: &[u8],
    ) -> Done {
        let Some(dir) = self.object(r.oid)? else {
            return Ok(());
        };
        if !self.objects.get(dir).is_dir() {
            return Err(Fault::Diverged("the object is of another type"));
        }
        let mut present = self.names_within(dir, range, after, up_to)?;
        let mut list = ImageDir::parse(r.view.payload())?;
        self.fds_to_come = DESCRIPTORS_MAX / 2;
        while let Some((oid, mode, name)) = list.next_entry()? {
            self.fds.next_turn();
            let there = present.remove(name);
            let name = Name::component(name)?;
            if there {
                self.place(oid, mode, dir, &name)?;
            } else {
                self.place_new(oid, mode, dir, &name)?;
            }
        }
        self.fds_to_come = 0;
        for name in present {
            self.fds.next_turn();
            self.take_away(dir, &Name::component(&name)?)?;
        }
        Ok(())
    }

    /// The names in a directory that an image of this range is about.
    pub(super) fn names_within(
        &mut self,
        dir: Obj,
        range: u8,
        after: &[u8],
        up_to: &[u8],
    ) -> Done<HashSet<Vec<u8>>> {
        let within =
            |name: &[u8]| (range & 1 != 0 || name > after) && (range & 2 != 0 || name <= up_to);
        let entries = sys::entries(self.fd(dir, Access::Any)?)?;
        Ok(entries.into_iter().map(|(name, _)| name).filter(|name| within(name)).collect())
    }

    fn take_away(&mut self, parent: Obj, name: &Name) -> Done {
        let fd = self.fd(parent, Access::Any)?;
        match look_up(fd, name)? {
            Some(found) => self.displace(parent, name, &found),
            None => Ok(()),
        }
    }

    pub(super) fn apply_image_entry(
        &mut self,
        r: &Record,
        parent: Oid,
        present: bool,
        name: &[u8],
    ) -> Done {
        let Some(parent) = self.directory(parent)? else {
            return Ok(());
        };
        let name = Name::component(name)?;
        if present {
            self.place(r.oid, r.mode, parent, &name).map(drop)
        } else {
            self.take_away(parent, &name)
        }
    }

    /// Gives a link or a device its contents; returns the object that it is then.
    fn fill(&mut self, obj: Obj, r: &Record, target: &[u8], rdev: u32) -> Done<Obj> {
        let object = *self.objects.get(obj);
        let area = self.state.unnamed.as_raw_fd();
        let fresh = area_name('n', r.oid)?;
        let fits = self.is_alive(obj)? && {
            let fd = self.fd(obj, Access::Any)?;
            if r.mode & libc::S_IFMT == libc::S_IFLNK {
                sys::readlinkat(fd, sys::EMPTY.as_ptr())? == target
            } else {
                sys::fstat(fd)?.st_rdev == libc_dev(rdev)
            }
        };
        if fits {
            if object.flags & HOLLOW != 0 {
                self.filled(obj)?;
            }
            if self.in_doubt || object.flags & HOLLOW != 0 {
                remove_if_there(area, &fresh)?;
            }
            return Ok(obj);
        }
        if object.flags & HOLLOW == 0 {
            return Err(match self.is_alive(obj)? {
                true => Fault::Diverged("the link or device is another one"),
                false => Fault::Stale,
            });
        }
        // An interrupted attempt has left it under some of the names already: go on with that one.
        if look_up(area, &fresh)?.is_none() {
            self.identity.become_caller(0, 0, 0)?;
            if r.mode & libc::S_IFMT == libc::S_IFLNK {
                let target = CString::new(target)
                    .map_err(|_| Fault::Corrupt("a link target contains NUL"))?;
                sys::symlinkat(&target, area, &fresh)?;
            } else {
                sys::mknodat(area, &fresh, r.mode & libc::S_IFMT | 0o600, libc_dev(rdev))?;
            }
        }
        let handle = Handle::of_name(area, &fresh)?;
        for (parent, name) in self.hollow.get(&r.oid).cloned().unwrap_or_default() {
            if let Some(dir) = self.objects.find(parent) {
                self.take_over(dir, &Name::component(&name)?, &object.handle, r.oid)?;
            }
        }
        self.take_over_parked(&object.handle, r.oid)?;
        let obj = self.bind(r.oid, handle, r.mode, 0)?;
        self.filled(obj)?;
        remove_if_there(area, &fresh)?;
        Ok(obj)
    }

    /// The name of the stand-in becomes the real object's; the directory keeps its time.
    fn take_over(&mut self, dir: Obj, name: &Name, old: &Handle, oid: Oid) -> Done {
        let fd = self.fd(dir, Access::Any)?;
        let is_old = look_up(fd, name)?.is_some_and(|f| f.handle == *old);
        if !is_old {
            return Ok(());
        }
        self.past_of_entry(dir, name, true)?;
        let (sec, nsec) = match self.pending_time(dir) {
            Some(t) => t,
            None => {
                let st = sys::fstat(fd)?;
                (st.st_mtime, st.st_mtime_nsec as u32)
            }
        };
        self.state.log(&Entry::DirTime {
            seq: self.seq,
            oid: self.objects.get(dir).oid,
            sec,
            nsec,
        })?;
        self.touch_stamp(dir, (sec, nsec))?;
        match self.replace_with_fresh(fd, name, oid) {
            Err(e) if e.is(libc::EPERM) => {
                self.unsealed(&[dir], |engine| engine.replace_with_fresh(fd, name, oid))
            }
            r => r,
        }
    }

    fn take_over_parked(&mut self, old: &Handle, oid: Oid) -> Done {
        let parked = self.state.parked.as_raw_fd();
        let name = Self::staging_name(oid)?;
        if look_up(parked, &name)?.is_some_and(|f| f.handle == *old) {
            self.replace_with_fresh(parked, &name, oid)?;
        }
        Ok(())
    }

    fn replace_with_fresh(&mut self, dir: i32, name: &Name, oid: Oid) -> Done {
        let area = self.state.unnamed.as_raw_fd();
        let (fresh, link) = (area_name('n', oid)?, area_name('l', oid)?);
        remove_if_there(area, &link)?;
        sys::linkat(area, &fresh, area, &link)?;
        sys::renameat2(area, &link, dir, name, 0)
    }

    fn filled(&mut self, obj: Obj) -> Done {
        let oid = self.objects.get(obj).oid;
        self.state.log(&Entry::Filled { oid })?;
        self.objects.get_mut(obj).flags &= !HOLLOW;
        self.hollow.remove(&oid);
        Ok(())
    }

    pub(super) fn apply_scan_begin(&mut self, kind: u8) -> Done {
        if kind == KIND_VERIFY {
            if self.compares {
                self.begin_comparison();
            }
            return Ok(());
        }
        let header = &self.state.header;
        let mut scans = header.scans() | 1 << kind;
        if kind == KIND_BASELINE && scans & BASELINE_AWAITED != 0 {
            scans = scans & !BASELINE_AWAITED | BASELINE_OWN;
        }
        header.set_scans(scans);
        Ok(())
    }

    pub(super) fn apply_scan_end(&mut self, kind: u8) -> Done {
        if kind == KIND_VERIFY {
            return self.end_comparison();
        }
        let own = if kind == KIND_BASELINE { BASELINE_OWN } else { 0 };
        let left = self.state.header.scans() & !(1 << kind | own);
        if left == 0 {
            self.purge_parked()?;
            self.state.log(&Entry::ScansDone)?;
            for oid in self.hollow.keys().chain(self.caps.keys()) {
                if let Some(obj) = self.objects.find(*oid) {
                    self.objects.get_mut(obj).flags &= !(HOLLOW | IMAGE_CAPS);
                }
            }
            self.hollow.clear();
            self.caps.clear();
        }
        self.state.header.set_scans(left);
        Ok(())
    }
}

fn area_name(prefix: char, oid: Oid) -> Done<Name> {
    Name::component(format!("{prefix}{:016x}-{:016x}", oid.ino, oid.gen).as_bytes())
}

fn remove_if_there(dir: i32, name: &Name) -> Done {
    match sys::unlinkat(dir, name, false) {
        Err(e) if e.is(libc::ENOENT) => Ok(()),
        r => r,
    }
}
