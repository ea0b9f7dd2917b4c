//! Names as facts: makes a record's result true on a target that may be ahead of it or damaged.
//!
//! Used for the one record that a dying process may have applied, inside scans, and in the window
//! after a power loss. Nothing that somebody may still claim is deleted: an object that loses its
//! last name is parked in the staging area under its oid. Every function here can be repeated.

use super::apply::Record;
use super::apply_names::created_type;
use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::handle::Handle;
use super::map_log::Entry;
use super::objects::{Obj, HOLLOW, UNNAMED};
use super::seal;
use super::sys::{self, Name};
use crate::record::{Creation, Fields, Oid};
use std::os::fd::{AsRawFd, RawFd};

/// What is under a name.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub handle: Handle,
    pub mode: u32,
    pub links: u64,
}

impl Found {
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

pub(super) fn look_up(dir: RawFd, name: &Name) -> Done<Option<Found>> {
    let handle = match Handle::of_name(dir, name) {
        Err(e) if e.is(libc::ENOENT) => return Ok(None),
        r => r?,
    };
    let st = sys::fstatat(dir, name)?;
    Ok(Some(Found { handle, mode: st.st_mode, links: st.st_nlink as u64 }))
}

impl Engine {
    /// The object if it is known, exists, and is of this type.
    fn alive_as(&mut self, oid: Oid, mode: u32) -> Done<Option<Obj>> {
        let kind = (mode & libc::S_IFMT) >> 12;
        let found = self.alive(oid)?;
        Ok(found.filter(|o| kind == 0 || u32::from(self.objects.get(*o).kind) == kind))
    }

    /// The object if it is known and still exists.
    pub(super) fn alive(&mut self, oid: Oid) -> Done<Option<Obj>> {
        match self.objects.find(oid) {
            Some(obj) if self.is_alive(obj)? => Ok(Some(obj)),
            _ => Ok(None),
        }
    }

    fn is_this(&self, oid: Oid, found: &Option<Found>) -> bool {
        let known = self.objects.find(oid);
        matches!((known, found), (Some(o), Some(f)) if self.objects.get(o).handle == f.handle)
    }

    /// Takes away whatever has this name; what may still be claimed is parked.
    pub(super) fn displace(&mut self, parent: Obj, name: &Name, found: &Found) -> Done {
        self.past_of_entry(parent, name, true)?;
        let owner = self.objects.find_handle(&found.handle);
        if let Some(obj) = owner {
            self.hollow_unname(obj, parent, name)?;
        }
        let dir = self.fd(parent, Access::Any)?;
        let gone = |r: Done| match r {
            Err(e) if e.is(libc::ENOENT) => Ok(()),
            r => r,
        };
        if !found.is_dir() && (found.links > 1 || owner.is_none()) {
            return gone(self.insist(found, |_| sys::unlinkat(dir, name, false)));
        }
        let parked = match owner {
            Some(obj) => Self::staging_name(self.objects.get(obj).oid)?,
            None => {
                let hex: String = found.handle.bytes().iter().map(|b| format!("{b:02x}")).collect();
                Name::component(format!("u{hex}").as_bytes())?
            }
        };
        gone(
            self.insist(found, |e| {
                sys::renameat2(dir, name, e.state.parked.as_raw_fd(), &parked, 0)
            }),
        )
    }

    /// Does `f`; if an immutable or append-only flag forbids it, the flag is lifted for that time. An
    /// object that nobody has named loses it.
    pub(super) fn insist(&mut self, found: &Found, f: impl Fn(&Self) -> Done) -> Done {
        match f(self) {
            Err(e) if e.is(libc::EPERM) => {
                if let Some(obj) = self.objects.find_handle(&found.handle) {
                    return self.unsealed(&[obj], |engine| f(engine));
                }
                let kind = found.mode & libc::S_IFMT;
                if kind != libc::S_IFREG && kind != libc::S_IFDIR {
                    return Err(e);
                }
                let fd = found.handle.open(self.root.as_raw_fd(), libc::O_RDONLY)?;
                let flags = seal::get_flags(fd.as_raw_fd())?;
                seal::set_flags(fd.as_raw_fd(), flags & !seal::SEALS)?;
                f(self)
            }
            r => r,
        }
    }

    /// Gives an existing object this name, which is free: from the staging area, or as one more
    /// link; a directory is moved from where it is.
    pub(super) fn put(&mut self, obj: Obj, parent: Obj, name: &Name) -> Done {
        self.past_of_entry(parent, name, true)?;
        self.past_of_object(obj)?;
        let object = *self.objects.get(obj);
        let staged = Self::staging_name(object.oid)?;
        let dir = self.fd(parent, Access::Any)?;
        for area in [self.state.parked.as_raw_fd(), self.state.unnamed.as_raw_fd()] {
            match sys::renameat2(area, &staged, dir, name, 0) {
                Err(e) if e.is(libc::ENOENT) => continue,
                Err(e) if e.is(libc::EPERM) => {
                    let found = look_up(area, &staged)?.ok_or(Fault::Stale)?;
                    self.insist(&found, |_| sys::renameat2(area, &staged, dir, name, 0))?;
                }
                Err(e) if object.is_dir() && e.is(libc::EINVAL) => {
                    self.park_dir(parent)?;
                    sys::renameat2(area, &staged, dir, name, 0)?;
                }
                r => r?,
            }
            if object.flags & UNNAMED != 0 {
                self.mark_named(obj)?;
            }
            return self.hollow_name(obj, parent, name);
        }
        let fd = self.fd(obj, Access::Any)?;
        if object.is_dir() {
            let (up, from) = self.locate_dir(obj)?;
            self.past_of_entry_at(up.as_raw_fd(), &from, false)?;
            match sys::renameat2(up.as_raw_fd(), &from, dir, name, 0) {
                Err(e) if e.is(libc::EINVAL) => {
                    self.park_dir(parent)?;
                    sys::renameat2(up.as_raw_fd(), &from, dir, name, 0)?;
                }
                r => r?,
            }
            return Ok(());
        }
        let this = Found { handle: object.handle, mode: u32::from(object.kind) << 12, links: 1 };
        self.insist(&this, |_| sys::link_fd(fd, dir, name))?;
        if object.flags & UNNAMED != 0 {
            self.mark_named(obj)?;
        }
        self.hollow_name(obj, parent, name)
    }

    /// Where a directory is now: its parent and its name there.
    fn locate_dir(&mut self, obj: Obj) -> Done<(std::os::fd::OwnedFd, Name)> {
        let fd = self.fd(obj, Access::Any)?;
        let ino = sys::fstat(fd)?.st_ino;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let up = sys::openat(fd, c"..".as_ptr(), flags, 0)?;
        for (name, entry_ino) in sys::entries(up.as_raw_fd())? {
            if entry_ino == ino {
                let name = Name::component(&name)?;
                return Ok((up, name));
            }
        }
        Err(Fault::Stale)
    }

    /// Takes a directory out of the tree, so that something above it can be moved into it.
    fn park_dir(&mut self, obj: Obj) -> Done {
        let (up, name) = self.locate_dir(obj)?;
        self.past_of_entry_at(up.as_raw_fd(), &name, false)?;
        let parked = Self::staging_name(self.objects.get(obj).oid)?;
        sys::renameat2(up.as_raw_fd(), &name, self.state.parked.as_raw_fd(), &parked, 0)
    }

    /// The entry `name` of `parent` is the object `oid`, of this type. What is not known is made
    /// empty (a stand-in, for a link or a device) or, if a fitting object is there, taken for it.
    pub(super) fn place(&mut self, oid: Oid, mode: u32, parent: Obj, name: &Name) -> Done<Obj> {
        let dir = self.fd(parent, Access::Any)?;
        let Some(found) = look_up(dir, name)? else {
            return self.place_new(oid, mode, parent, name);
        };
        if let Some(obj) = self.alive_as(oid, mode)? {
            if found.handle == self.objects.get(obj).handle {
                self.hollow_name(obj, parent, name)?;
                return Ok(obj);
            }
            self.displace(parent, name, &found)?;
            self.put(obj, parent, name)?;
            return Ok(obj);
        }
        let fits = (found.mode ^ mode) & libc::S_IFMT == 0;
        if fits && self.objects.find_handle(&found.handle).is_none() {
            return self.take_for(oid, found.handle, found.mode, parent, name);
        }
        self.displace(parent, name, &found)?;
        self.make_stand_in(oid, mode, parent, name)
    }

    /// As `place`, where nothing has the name.
    pub(super) fn place_new(&mut self, oid: Oid, mode: u32, parent: Obj, name: &Name) -> Done<Obj> {
        match self.alive_as(oid, mode)? {
            Some(obj) => {
                self.put(obj, parent, name)?;
                Ok(obj)
            }
            None => self.make_stand_in(oid, mode, parent, name),
        }
    }

    fn make_stand_in(&mut self, oid: Oid, mode: u32, parent: Obj, name: &Name) -> Done<Obj> {
        self.past_of_entry(parent, name, true)?;
        let dir = self.fd(parent, Access::Any)?;
        self.identity.become_caller(0, 0, 0)?;
        let (kind, bits) = (mode & libc::S_IFMT, mode & 0o777);
        match kind {
            libc::S_IFDIR => sys::mkdirat(dir, name, 0o700)?,
            libc::S_IFLNK => sys::symlinkat(c"?", dir, name)?,
            libc::S_IFREG if self.fds_to_come > 0 => {
                // Its image is among the next: it finds the descriptor.
                self.fds_to_come -= 1;
                let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOATIME;
                let fd = sys::openat(dir, name.c(), flags, bits)?;
                let handle = Handle::of_fd(fd.as_raw_fd())?;
                let obj = self.take_for(oid, handle, kind, parent, name)?;
                self.keep_fd(obj, fd, true)?;
                return Ok(obj);
            }
            libc::S_IFREG | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK => {
                sys::mknodat(dir, name, kind | bits, 0)?;
            }
            _ => return Err(Fault::Corrupt("an object without a type")),
        }
        let handle = Handle::of_name(dir, name)?;
        self.take_for(oid, handle, kind, parent, name)
    }

    /// Binds what is under the name. The names of a link or device that may turn out to be another
    /// are kept, and logged before the binding: an interrupted attempt is repeated until both are.
    fn take_for(
        &mut self,
        oid: Oid,
        handle: Handle,
        mode: u32,
        parent: Obj,
        name: &Name,
    ) -> Done<Obj> {
        if self.objects.find(oid).is_some() {
            self.forget(oid)?;
        }
        let kind = mode & libc::S_IFMT;
        let fixed = matches!(kind, libc::S_IFLNK | libc::S_IFCHR | libc::S_IFBLK);
        let hollow = fixed && self.scanning();
        if hollow {
            let parent = self.objects.get(parent).oid;
            self.note_hollow(oid, parent, name)?;
        }
        let obj = self.bind(oid, handle, mode, 0)?;
        if hollow {
            self.objects.get_mut(obj).flags |= HOLLOW;
        }
        Ok(obj)
    }

    /// BIND where the target may be ahead or damaged: the name is this object's. What is not there is
    /// passed over, an image will tell.
    pub(super) fn bind_fact(&mut self, r: &Record, parent: Obj, name: &Name) -> Done {
        let dir = self.fd(parent, Access::Any)?;
        let found = look_up(dir, name)?;
        if let Some(obj) = self.alive(r.oid)? {
            return self.link_fact(obj, parent, name);
        }
        match found {
            Some(f) if self.objects.find_handle(&f.handle).is_none() => {
                let fits = r.mode == 0 || (r.mode ^ f.mode) & libc::S_IFMT == 0;
                if fits {
                    self.take_for(r.oid, f.handle, f.mode, parent, name)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A creation in a directory that goes later; the object may leave it before that.
    pub(super) fn create_astray(&mut self, r: &Record, c: &Creation) -> Done {
        if self.alive(r.oid)?.is_some() {
            return Ok(());
        }
        let (parked, area) = (Self::staging_name(r.oid)?, self.state.parked.as_raw_fd());
        match look_up(area, &parked)? {
            Some(f) if f.is_dir() => return Ok(()),
            Some(_) => sys::unlinkat(area, &parked, false)?,
            None => {}
        }
        self.make(r, c, area, &parked)
    }

    pub(super) fn create_fact(
        &mut self,
        r: &Record,
        c: &Creation,
        parent: Obj,
        name: &Name,
    ) -> Done {
        let kind = created_type(r.view.op(), c.requested_mode);
        let dir = self.fd(parent, Access::Any)?;
        let found = look_up(dir, name)?;
        if let Some(obj) = self.alive(r.oid)? {
            if !self.is_this(r.oid, &found) {
                if let Some(f) = &found {
                    self.displace(parent, name, f)?;
                }
                self.put(obj, parent, name)?;
            }
            return self.settle_fact(r, c, dir, name);
        }
        if let Some(f) = &found {
            let unbound = self.objects.find_handle(&f.handle).is_none();
            // After a power loss it may be a later directory's, with its entries, of which the map did not
            // reach the disk: that is parked, and what is known of its entries is found by handle.
            if kind == libc::S_IFDIR && f.is_dir() && unbound && !self.redoing() {
                self.bind(r.oid, f.handle, f.mode, 0)?;
                return self.settle_fact(r, c, dir, name);
            }
            // Made by the interrupted attempt, or by a later record that will be applied again.
            self.displace(parent, name, f)?;
        }
        self.make(r, c, dir, name)?;
        self.watch(parent)
    }

    fn settle_fact(&mut self, r: &Record, c: &Creation, dir: RawFd, name: &Name) -> Done {
        self.settle_named(r, c, dir, name)?;
        if let Some(obj) = self.objects.find(r.oid) {
            if r.mode != 0 {
                self.note_mode(obj, r.mode);
            }
            self.touch(obj, r.time)?;
        }
        Ok(())
    }

    pub(super) fn link_fact(&mut self, obj: Obj, parent: Obj, name: &Name) -> Done {
        let dir = self.fd(parent, Access::Any)?;
        let found = look_up(dir, name)?;
        let object = *self.objects.get(obj);
        if let Some(f) = &found {
            if f.handle == object.handle {
                if object.flags & UNNAMED != 0 {
                    self.mark_named(obj)?;
                }
                return Ok(());
            }
            self.displace(parent, name, f)?;
        }
        self.put(obj, parent, name)
    }

    /// `links`: the names that the object has left at the source.
    pub(super) fn unlink_fact(
        &mut self,
        (oid, links): (Oid, u32),
        parent: Obj,
        name: &Name,
        dir: bool,
    ) -> Done {
        let at = self.fd(parent, Access::Any)?;
        let Some(found) = look_up(at, name)? else {
            return Ok(());
        };
        let owner = self.objects.find_handle(&found.handle);
        if self.is_this(oid, &Some(found)) {
            if links > 0 && found.links == 1 {
                // Its other names have not been met here yet: they will claim it.
                return self.displace(parent, name, &found);
            }
            if let Some(obj) = owner {
                self.hollow_unname(obj, parent, name)?;
            }
            return match sys::unlinkat(at, name, dir) {
                Err(e) if dir && e.is(libc::ENOTEMPTY) => self.displace(parent, name, &found),
                r => r,
            };
        }
        // What nobody has claimed was made by a record that is applied again.
        if owner.is_none() {
            return self.displace(parent, name, &found);
        }
        Ok(())
    }

    pub(super) fn rename_fact(
        &mut self,
        r: &Record,
        (old, old_name): (Obj, &Name),
        (new, new_name): (Obj, &Name),
    ) -> Done {
        let Fields::Rename { flags, replaced, .. } = r.fields else {
            return Ok(());
        };
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        if exchange {
            self.learn(replaced, 0, &[(new, new_name), (old, old_name)])?;
        }
        match self.learn(r.oid, r.mode, &[(old, old_name), (new, new_name)])? {
            Some(obj) => self.move_fact(obj, flags, replaced, (old, old_name), (new, new_name))?,
            None if !self.forgives_unknown() => {
                return Err(Fault::Diverged("the renamed object is under neither name"));
            }
            None => {
                self.skipped += 1;
                if self.scanning() && r.mode & libc::S_IFMT != 0 {
                    // An image of it is still to come: it finds the name in place.
                    self.place(r.oid, r.mode, new, new_name)?;
                }
            }
        }
        if exchange {
            if let Some(other) = self.alive(replaced)? {
                self.hollow_unname(other, new, new_name)?;
                let mode = u32::from(self.objects.get(other).kind) << 12;
                self.place(replaced, mode, old, old_name)?;
            }
        }
        // Where the renamed object is not known any more, the other still has to make room.
        let to = self.fd(new, Access::Any)?;
        let at_new = look_up(to, new_name)?;
        if let Some(f) = at_new.filter(|_| self.is_this(replaced, &at_new)) {
            self.displace(new, new_name, &f)?;
        }
        if flags & libc::RENAME_WHITEOUT != 0 {
            self.leave_whiteout(self.objects.get(old).oid, old_name)?;
        }
        Ok(())
    }

    /// A rename of which one directory is not known: a scan has not come to it yet.
    pub(super) fn rename_past_scan(
        &mut self,
        r: &Record,
        old_name: &Name,
        new_name: &Name,
    ) -> Done {
        let Fields::Rename { old_parent, new_parent, flags, replaced, .. } = r.fields else {
            return Ok(());
        };
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        if let Some(new) = self.alive(new_parent)? {
            return self.arrive(r.oid, r.mode, new, new_name);
        }
        let Some(old) = self.alive(old_parent)? else {
            return Ok(());
        };
        match self.objects.find(replaced).filter(|_| exchange) {
            Some(other) => {
                let mode = u32::from(self.objects.get(other).kind) << 12;
                self.arrive(replaced, mode, old, old_name)
            }
            None => {
                let dir = self.fd(old, Access::Any)?;
                match look_up(dir, old_name)? {
                    Some(found) => self.displace(old, old_name, &found),
                    None => Ok(()),
                }
            }
        }
    }

    /// RENAME_WHITEOUT leaves a device 0:0 under the old name.
    pub(super) fn leave_whiteout(&mut self, parent: Oid, name: &Name) -> Done {
        let Some(parent) = self.alive(parent)? else {
            return Ok(());
        };
        let dir = self.fd(parent, Access::Any)?;
        match sys::mknodat(dir, name, libc::S_IFCHR, 0) {
            Err(e) if e.is(libc::EEXIST) => Ok(()),
            r => r,
        }
    }

    /// An object comes to a name out of what is not known yet.
    fn arrive(&mut self, oid: Oid, mode: u32, parent: Obj, name: &Name) -> Done {
        if mode & libc::S_IFMT != 0 && self.scanning() {
            self.place(oid, mode, parent, name)?;
        } else if let Some(obj) = self.alive(oid)? {
            self.link_fact(obj, parent, name)?;
        }
        Ok(())
    }

    /// A known object leaves its old name and has the new one.
    fn move_fact(
        &mut self,
        obj: Obj,
        flags: u32,
        replaced: Oid,
        (old, old_name): (Obj, &Name),
        (new, new_name): (Obj, &Name),
    ) -> Done {
        let oid = self.objects.get(obj).oid;
        let (from, to) = (self.fd(old, Access::Any)?, self.fd(new, Access::Any)?);
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let (at_old, at_new) = (look_up(from, old_name)?, look_up(to, new_name)?);
        let both = exchange && self.is_this(oid, &at_old) && self.is_this(replaced, &at_new);
        let swapped = match both.then(|| sys::renameat2(from, old_name, to, new_name, flags)) {
            // One is above the other, here.
            Some(Err(e)) if e.is(libc::EINVAL) => false,
            Some(done) => done.map(|()| true)?,
            None => false,
        };
        if self.is_this(oid, &at_new) {
            // Done before; the old name may be left where an object was given both.
            if let Some(f) = at_old.filter(|_| !exchange) {
                if self.is_this(oid, &at_old) {
                    sys::unlinkat(from, old_name, false)?;
                } else if self.objects.find_handle(&f.handle).is_none() {
                    self.displace(old, old_name, &f)?;
                }
            }
        } else if !swapped {
            if let Some(f) = at_new {
                self.displace(new, new_name, &f)?;
            }
            let whiteout = flags & libc::RENAME_WHITEOUT;
            let moved = match self.is_this(oid, &at_old) {
                true => sys::renameat2(from, old_name, to, new_name, whiteout),
                false => Err(Fault::Stale),
            };
            match moved {
                // It is elsewhere, or above the directory that it is to be in.
                Err(Fault::Stale) => self.put(obj, new, new_name)?,
                Err(e) if e.is(libc::EINVAL) => self.put(obj, new, new_name)?,
                r => r?,
            }
        }
        self.hollow_unname(obj, old, old_name)?;
        self.hollow_name(obj, new, new_name)
    }

    /// The object, or the unclaimed one of its type under the first of the names that has one.
    fn learn(&mut self, oid: Oid, mode: u32, names: &[(Obj, &Name)]) -> Done<Option<Obj>> {
        if let Some(obj) = self.alive(oid)? {
            return Ok(Some(obj));
        }
        for (parent, name) in names {
            let dir = self.fd(*parent, Access::Any)?;
            if let Some(f) = look_up(dir, name)? {
                let fits = mode == 0 || (f.mode ^ mode) & libc::S_IFMT == 0;
                if fits && self.objects.find_handle(&f.handle).is_none() {
                    return self.take_for(oid, f.handle, f.mode, *parent, name).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn note_hollow(&mut self, oid: Oid, parent: Oid, name: &Name) -> Done {
        let name = name.bytes().to_vec();
        self.state.log(&Entry::HollowName { oid, parent, name: name.clone() })?;
        let names = self.hollow.entry(oid).or_default();
        if !names.contains(&(parent, name.clone())) {
            names.push((parent, name));
        }
        Ok(())
    }

    /// A stand-in has one more name.
    pub(super) fn hollow_name(&mut self, obj: Obj, parent: Obj, name: &Name) -> Done {
        if self.objects.get(obj).flags & HOLLOW == 0 {
            return Ok(());
        }
        let (oid, parent) = (self.objects.get(obj).oid, self.objects.get(parent).oid);
        self.note_hollow(oid, parent, name)
    }

    /// A stand-in loses a name.
    pub(super) fn hollow_unname(&mut self, obj: Obj, parent: Obj, name: &Name) -> Done {
        if self.objects.get(obj).flags & HOLLOW == 0 {
            return Ok(());
        }
        let (oid, parent) = (self.objects.get(obj).oid, self.objects.get(parent).oid);
        let name = name.bytes().to_vec();
        if let Some(names) = self.hollow.get_mut(&oid) {
            names.retain(|n| *n != (parent, name.clone()));
        }
        self.state.log(&Entry::HollowUnname { oid, parent, name })
    }
}
