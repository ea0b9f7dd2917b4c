//! Names: BIND, MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, TMPFILE, GONE.
//!
//! The strict half: the target is where the record left off, one or two calls do it. When it may be
//! ahead (`Engine::lenient`) the other half, `facts`, makes the result true whatever is there.

use super::apply::Record;
use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::handle::Handle;
use super::objects::{Obj, UNNAMED};
use super::sys::{self, Name};
use crate::record::{Creation, Fields, Oid, Op};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The kernel's 32-bit device number (`new_encode_dev`) as libc's.
pub(super) fn libc_dev(rdev: u32) -> u64 {
    let major = (rdev & 0xfff00) >> 8;
    let minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00);
    libc::makedev(major, minor)
}

/// Type bits of what a creation record makes.
pub(super) fn created_type(op: Op, requested_mode: u32) -> u32 {
    match op {
        Op::Mkdir => libc::S_IFDIR,
        Op::Symlink => libc::S_IFLNK,
        _ if requested_mode & libc::S_IFMT == 0 => libc::S_IFREG,
        _ => requested_mode & libc::S_IFMT,
    }
}

impl Engine {
    pub(super) fn apply_bind(&mut self, r: &Record, parent: Oid, name: &[u8]) -> Done {
        if parent.is_none() && name.is_empty() {
            let handle = Handle::of_fd(self.root.as_raw_fd())?;
            return self.bind(r.oid, handle, libc::S_IFDIR, 0).map(drop);
        }
        let Some(parent) = self.directory(parent)? else {
            return Ok(());
        };
        let name = Name::component(name)?;
        if self.forgives_unknown() {
            return self.bind_fact(r, parent, &name);
        }
        let dir = self.fd(parent, Access::Any)?;
        let handle = Handle::of_name(dir, &name)?;
        if let Some(known) = self.objects.find(r.oid) {
            if self.objects.get(known).handle == handle {
                return Ok(());
            }
            if self.is_alive(known)? {
                return Err(Fault::Diverged("the name leads to another object"));
            }
        }
        let mode = sys::fstatat(dir, &name)?.st_mode;
        let obj = self.bind(r.oid, handle, mode, 0)?;
        self.found_by_name(obj);
        Ok(())
    }

    /// Whether the object still exists at the target, whatever its names.
    pub(super) fn is_alive(&mut self, obj: Obj) -> Done<bool> {
        match self.fd(obj, Access::Any) {
            Ok(fd) => Ok(sys::fstat(fd)?.st_nlink > 0),
            Err(Fault::Stale) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) fn apply_create(&mut self, r: &Record, c: &Creation) -> Done {
        let Some(parent) = self.directory(c.parent)? else {
            return if self.redoing() { self.create_astray(r, c) } else { Ok(()) };
        };
        let name = Name::component(c.name)?;
        if self.lenient() {
            return self.create_fact(r, c, parent, &name);
        }
        let dir = self.fd(parent, Access::Any)?;
        self.make(r, c, dir, &name)?;
        self.watch(parent)
    }

    /// Makes the object under the caller's identity, corrects what differs, and binds it.
    pub(super) fn make(&mut self, r: &Record, c: &Creation, dir: RawFd, name: &Name) -> Done {
        let kind = created_type(r.view.op(), c.requested_mode);
        self.identity.become_caller(c.uid, c.gid, c.umask)?;
        let mode = c.requested_mode & 0o7777;
        if kind == libc::S_IFREG {
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOATIME;
            let fd = sys::openat(dir, name.c(), flags, mode)?;
            return self.settle_new(r, c.uid, c.gid, fd, 0);
        }
        match kind {
            libc::S_IFDIR => sys::mkdirat(dir, name, mode)?,
            libc::S_IFLNK => {
                let target = CString::new(r.view.payload())
                    .map_err(|_| Fault::Corrupt("a link target contains NUL"))?;
                sys::symlinkat(&target, dir, name)?;
            }
            _ => sys::mknodat(dir, name, kind | mode, libc_dev(c.rdev))?,
        }
        self.settle_named(r, c, dir, name)
    }

    /// Owner, mode and time of a new object that is no regular file.
    pub(super) fn settle_named(
        &mut self,
        r: &Record,
        c: &Creation,
        dir: RawFd,
        name: &Name,
    ) -> Done {
        let st = sys::fstatat(dir, name)?;
        let handle = Handle::of_name(dir, name)?;
        let owned = (st.st_uid, st.st_gid) == (c.uid, c.gid);
        let fits = r.mode == 0 || (st.st_mode ^ r.mode) & 0o7777 == 0;
        let link = st.st_mode & libc::S_IFMT == libc::S_IFLNK;
        if !owned || !fits && !link {
            let fd = sys::openat(dir, name.c(), libc::O_PATH, 0)?;
            if !owned {
                sys::chown_fd(fd.as_raw_fd(), c.uid, c.gid)?;
            }
            if !link && r.mode != 0 {
                sys::chmod_fd(fd.as_raw_fd(), r.mode & 0o7777)?;
            }
        }
        if r.time.is_known() {
            sys::utimens_at(dir, name, (r.time.sec, r.time.nsec))?;
        }
        let obj = self.bind(r.oid, handle, st.st_mode, 0)?;
        self.drop_pending(obj);
        Ok(())
    }

    /// Owner and mode of a new regular file; its descriptor is kept, for it will be written to.
    fn settle_new(&mut self, r: &Record, uid: u32, gid: u32, fd: OwnedFd, flags: u8) -> Done {
        let n = fd.as_raw_fd();
        let st = sys::fstat(n)?;
        let owned = (st.st_uid, st.st_gid) == (uid, gid);
        if !owned {
            sys::chown_fd(n, uid, gid)?;
        }
        let wanted = if r.mode == 0 { st.st_mode } else { r.mode };
        if (st.st_mode ^ wanted) & 0o7777 != 0 || !owned && wanted & 0o6000 != 0 {
            sys::chmod_fd(n, wanted & 0o7777)?;
        }
        let obj = self.bind(r.oid, Handle::of_fd(n)?, libc::S_IFREG, flags)?;
        self.note_mode(obj, wanted);
        self.close_fd(obj);
        self.keep_fd(obj, fd, true).map(drop)
    }

    pub(super) fn apply_tmpfile(&mut self, r: &Record) -> Done {
        let Fields::Tmpfile { parent, requested_mode, umask, uid, gid } = r.fields else {
            return Ok(());
        };
        let parent = self.directory(parent)?;
        let name = Self::staging_name(r.oid)?;
        let unnamed = self.state.unnamed.as_raw_fd();
        if self.lenient() {
            if !self.in_doubt && self.alive(r.oid)?.is_some() {
                return Ok(());
            }
            match sys::unlinkat(unnamed, &name, false) {
                Err(e) if e.is(libc::ENOENT) => {}
                r => r?,
            }
        }
        let dir = match parent {
            Some(parent) => {
                self.watch(parent)?;
                self.fd(parent, Access::Any)?
            }
            // A scan has not come to it yet.
            None => unnamed,
        };
        self.identity.become_caller(uid, gid, umask)?;
        let mode = requested_mode & 0o7777;
        let flags = libc::O_RDWR | libc::O_NOATIME;
        let fd = match sys::openat(dir, c".".as_ptr(), flags | libc::O_TMPFILE, mode) {
            Err(e) if e.is(libc::EOPNOTSUPP) => {
                let create = flags | libc::O_CREAT | libc::O_EXCL;
                sys::openat(unnamed, name.c(), create, mode)?
            }
            other => {
                let fd = other?;
                sys::link_fd(fd.as_raw_fd(), unnamed, &name)?;
                fd
            }
        };
        self.settle_new(r, uid, gid, fd, UNNAMED)
    }

    pub(super) fn apply_link(&mut self, r: &Record, parent: Oid, name: &[u8]) -> Done {
        let (Some(parent), known) = (self.directory(parent)?, self.object(r.oid)?) else {
            return Ok(());
        };
        let name = Name::component(name)?;
        let Some(obj) = known else {
            if self.scanning() && r.mode & libc::S_IFMT != 0 {
                // An image of it is still to come: it finds the name in place.
                self.place(r.oid, r.mode, parent, &name)?;
            }
            return Ok(());
        };
        if self.lenient() {
            return self.link_fact(obj, parent, &name);
        }
        if self.objects.get(obj).flags & UNNAMED != 0 {
            return self.name_unnamed(obj, parent, &name);
        }
        let dir = self.fd(parent, Access::Any)?;
        let fd = self.fd(obj, Access::Any)?;
        sys::link_fd(fd, dir, &name)
    }

    /// An object of the staging area gets its first name.
    pub(super) fn name_unnamed(&mut self, obj: Obj, parent: Obj, name: &Name) -> Done {
        let dir = self.fd(parent, Access::Any)?;
        let object = *self.objects.get(obj);
        let staged = Self::staging_name(object.oid)?;
        let unnamed = self.state.unnamed.as_raw_fd();
        sys::renameat2(unnamed, &staged, dir, name, libc::RENAME_NOREPLACE)?;
        self.mark_named(obj)
    }

    pub(super) fn mark_named(&mut self, obj: Obj) -> Done {
        let object = *self.objects.get(obj);
        self.state.log(&super::map_log::Entry::Bind {
            oid: object.oid,
            handle: object.handle,
            kind: object.kind,
            flags: 0,
        })?;
        self.objects.get_mut(obj).flags &= !UNNAMED;
        Ok(())
    }

    pub(super) fn apply_unlink(
        &mut self,
        r: &Record,
        parent: Oid,
        links: u32,
        name: &[u8],
    ) -> Done {
        let Some(parent) = self.directory(parent)? else {
            return if links == 0 { self.remove(r.oid) } else { Ok(()) };
        };
        let name = Name::component(name)?;
        let is_dir = r.view.op() == Op::Rmdir;
        if !self.lenient() && links != 0 && self.objects.find(r.oid).is_none() {
            let dir = self.fd(parent, Access::Any)?;
            self.bind_name(r.oid, dir, &name)?;
        }
        self.before_losing_name(r.oid, links == 0)?;
        let dir = self.fd(parent, Access::Any)?;
        if self.lenient() {
            self.unlink_fact((r.oid, links), parent, &name, is_dir)?;
        } else {
            sys::unlinkat(dir, &name, is_dir)?;
        }
        if links == 0 {
            self.remove(r.oid)?;
        }
        Ok(())
    }

    /// What a redo after a power loss needs before a name goes, the object's last one or not.
    fn before_losing_name(&mut self, oid: Oid, last: bool) -> Done {
        match self.objects.find(oid) {
            Some(obj) if !last => self.before_unnaming(obj),
            // What was made in a directory that is gone is gone, too.
            Some(obj) if !self.objects.get(obj).is_dir() => self.before_change(obj),
            _ => Ok(()),
        }
    }

    /// Associates an object with the one of this name.
    pub(super) fn bind_name(&mut self, oid: Oid, dir: RawFd, name: &Name) -> Done<Obj> {
        let handle = Handle::of_name(dir, name)?;
        let mode = sys::fstatat(dir, name)?.st_mode;
        let obj = self.bind(oid, handle, mode, 0)?;
        self.found_by_name(obj);
        Ok(obj)
    }

    pub(super) fn apply_rename(&mut self, r: &Record) -> Done {
        let Fields::Rename {
            old_parent,
            new_parent,
            flags,
            replaced,
            replaced_links,
            old_name,
            new_name,
            ..
        } = r.fields
        else {
            return Ok(());
        };
        let (old_name, new_name) = (Name::component(old_name)?, Name::component(new_name)?);
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        if flags & libc::RENAME_WHITEOUT != 0 {
            // What the rename leaves behind belongs to the caller; its time is not recorded.
            let header = r.view.header();
            self.identity.become_caller(header.uid, header.gid, 0)?;
        }
        let goes = !replaced.is_none() && !exchange && replaced_links == 0;
        let (Some(old), Some(new)) = (self.directory(old_parent)?, self.directory(new_parent)?)
        else {
            self.rename_past_scan(r, &old_name, &new_name)?;
            if flags & libc::RENAME_WHITEOUT != 0 {
                self.leave_whiteout(old_parent, &old_name)?;
            }
            return if goes { self.remove(replaced) } else { Ok(()) };
        };
        if !self.lenient() {
            let (from, to) = (self.fd(old, Access::Any)?, self.fd(new, Access::Any)?);
            if self.objects.find(r.oid).is_none() {
                self.bind_name(r.oid, from, &old_name)?;
            }
            if !replaced.is_none() && !goes && self.objects.find(replaced).is_none() {
                self.bind_name(replaced, to, &new_name)?;
            }
        }
        self.before_losing_name(r.oid, false)?;
        self.before_losing_name(replaced, goes)?;
        if self.lenient() {
            self.rename_fact(r, (old, &old_name), (new, &new_name))?;
        } else {
            let (from, to) = (self.fd(old, Access::Any)?, self.fd(new, Access::Any)?);
            sys::renameat2(from, &old_name, to, &new_name, flags)?;
        }
        if goes {
            self.remove(replaced)?;
        }
        Ok(())
    }

    pub(super) fn apply_gone(&mut self, r: &Record) -> Done {
        if let Some(obj) = self.objects.find(r.oid) {
            let staged = Self::staging_name(r.oid)?;
            if self.objects.get(obj).flags & UNNAMED != 0 {
                self.before_change(obj)?;
                match sys::unlinkat(self.state.unnamed.as_raw_fd(), &staged, false) {
                    Err(e) if e.is(libc::ENOENT) => {}
                    r => r?,
                }
            }
        }
        self.forget(r.oid)
    }
}
