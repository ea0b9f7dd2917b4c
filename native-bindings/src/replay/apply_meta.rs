//! Attributes: SETATTR, SETXATTR, REMOVEXATTR, SETFLAGS, SETXFLAGS.

use super::apply::Record;
use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::objects::Obj;
use super::seal;
use super::sys::{self, check, Name, ProcPath, Stamp};
use crate::record::{valid, Fields, Time};

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Flags that FS_IOC_SETFLAGS may change on one of the file systems we know (the low eight, NOCOMP,
/// JOURNAL_DATA, NOTAIL, DIRSYNC, TOPDIR, NOCOW, DAX, PROJINHERIT); the others describe how the file
/// system keeps the object (extents, index, inline data) and stay as they are at the target.
pub(crate) const CHANGEABLE_FLAGS: u32 = 0x2283_C4FF;

impl Engine {
    pub(super) fn apply_setattr(&mut self, r: &Record) -> Done {
        let Fields::Setattr { valid: v, mode, uid, gid, size, atime, .. } = r.fields else {
            return Ok(());
        };
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        if v & valid::SIZE != 0 {
            self.before_contents(obj)?;
            let fd = self.fd(obj, Access::Write)?;
            if self.codes.is_some() {
                let now = sys::fstat(fd)?.st_size as u64;
                self.stale_codes(r.oid, size.min(now), now);
            }
            sys::ftruncate(fd, size)?;
            self.kill_privileges(obj, fd, r)?;
        }
        if v & (valid::UID | valid::GID) != 0 {
            self.image_caps_done(obj)?;
            let fd = self.fd(obj, Access::Any)?;
            let uid = if v & valid::UID != 0 { uid } else { u32::MAX };
            let gid = if v & valid::GID != 0 { gid } else { u32::MAX };
            sys::chown_fd(fd, uid, gid)?;
        }
        let wanted = if r.mode != 0 { r.mode } else { mode };
        if v & valid::MODE != 0 {
            let fd = self.fd(obj, Access::Any)?;
            sys::chmod_fd(fd, wanted & 0o7777)?;
            self.note_mode(obj, wanted);
        } else if v & (valid::UID | valid::GID) != 0 {
            self.settle_mode(obj, r.mode)?;
        }
        if v & valid::ATIME != 0 && atime.is_known() {
            let fd = self.fd(obj, Access::Any)?;
            sys::utimens_fd(fd, stamp(atime), None)?;
        }
        Ok(())
    }

    /// The kernel may have changed the mode along with something else: it becomes the recorded one.
    pub(super) fn settle_mode(&mut self, obj: Obj, recorded: u32) -> Done {
        if recorded == 0 || recorded & libc::S_IFMT == libc::S_IFLNK {
            return Ok(());
        }
        let fd = self.fd(obj, Access::Any)?;
        if (sys::fstat(fd)?.st_mode ^ recorded) & 0o7777 != 0 {
            sys::chmod_fd(fd, recorded & 0o7777)?;
        }
        self.note_mode(obj, recorded);
        Ok(())
    }

    pub(super) fn apply_setxattr(&mut self, r: &Record, name: &[u8]) -> Done {
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        if name == CAPABILITY {
            self.image_caps_done(obj)?;
        }
        if name == DEFAULT_ACL {
            self.before_change(obj)?;
        }
        let value = r.view.payload();
        self.set_xattr(obj, &Name::attribute(name)?, value)?;
        if name == ACCESS_ACL {
            self.settle_mode(obj, r.mode)?;
        }
        Ok(())
    }

    pub(super) fn apply_removexattr(&mut self, r: &Record, name: &[u8]) -> Done {
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        if name == CAPABILITY {
            self.image_caps_done(obj)?;
        }
        if name == DEFAULT_ACL {
            self.before_change(obj)?;
        }
        match self.remove_xattr(obj, &Name::attribute(name)?) {
            Err(e) if e.is(libc::ENODATA) && self.lenient() => Ok(()),
            r => r,
        }
    }

    /// Whether the object's descriptor is a real one; else it is reached by its path in /proc.
    fn has_real_fd(&self, obj: Obj) -> bool {
        let o = self.objects.get(obj);
        o.is_dir() || o.is_regular()
    }

    pub(super) fn set_xattr(&mut self, obj: Obj, name: &Name, value: &[u8]) -> Done {
        let real = self.has_real_fd(obj);
        let fd = self.fd(obj, Access::Any)?;
        let (v, n) = (value.as_ptr().cast(), value.len());
        let path = ProcPath::of(fd);
        check("setxattr", || {
            // SAFETY: name and path are terminated, value is valid for its length.
            unsafe {
                if real {
                    libc::fsetxattr(fd, name.c(), v, n, 0)
                } else {
                    libc::setxattr(path.c(), name.c(), v, n, 0)
                }
            }
            .into()
        })?;
        Ok(())
    }

    pub(super) fn remove_xattr(&mut self, obj: Obj, name: &Name) -> Done {
        let real = self.has_real_fd(obj);
        let fd = self.fd(obj, Access::Any)?;
        let path = ProcPath::of(fd);
        check("removexattr", || {
            // SAFETY: name and path are terminated.
            unsafe {
                if real {
                    libc::fremovexattr(fd, name.c())
                } else {
                    libc::removexattr(path.c(), name.c())
                }
            }
            .into()
        })?;
        Ok(())
    }

    /// All xattrs of an object; `None` where the file system has none.
    pub(super) fn xattr_names(&mut self, obj: Obj) -> Done<Vec<Vec<u8>>> {
        let real = self.has_real_fd(obj);
        let fd = self.fd(obj, Access::Any)?;
        let path = ProcPath::of(fd);
        let mut buf = vec![0u8; 64 << 10];
        let got = check("listxattr", || {
            let (p, n) = (buf.as_mut_ptr().cast(), buf.len());
            // SAFETY: buf is valid for its length, path is terminated.
            unsafe {
                if real {
                    libc::flistxattr(fd, p, n) as i64
                } else {
                    libc::listxattr(path.c(), p, n) as i64
                }
            }
        });
        let n = match got {
            Ok(n) => n as usize,
            Err(e) if e.is(libc::EOPNOTSUPP) => 0,
            Err(e) => return Err(e),
        };
        let names = buf[..n].split(|b| *b == 0).filter(|s| !s.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    pub(super) fn get_xattr(&mut self, obj: Obj, name: &Name) -> Done<Option<Vec<u8>>> {
        let real = self.has_real_fd(obj);
        let fd = self.fd(obj, Access::Any)?;
        let path = ProcPath::of(fd);
        let mut buf = vec![0u8; 64 << 10];
        let got = check("getxattr", || {
            let (p, n) = (buf.as_mut_ptr().cast(), buf.len());
            // SAFETY: buf is valid for its length, name and path are terminated.
            unsafe {
                if real {
                    libc::fgetxattr(fd, name.c(), p, n) as i64
                } else {
                    libc::getxattr(path.c(), name.c(), p, n) as i64
                }
            }
        });
        match got {
            Ok(n) => {
                buf.truncate(n as usize);
                Ok(Some(buf))
            }
            Err(e) if e.is(libc::ENODATA) || e.is(libc::EOPNOTSUPP) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn apply_setflags(&mut self, r: &Record, flags: u32) -> Done {
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        self.before_sealing(obj)?;
        let fd = self.fd(obj, Access::Any)?;
        self.set_changeable_flags(fd, flags)
    }

    /// New entries inherit flags; and an immutable object would refuse its time.
    fn before_sealing(&mut self, obj: Obj) -> Done {
        if self.objects.get(obj).is_dir() {
            self.before_change(obj)?;
        }
        self.flush_time(obj)
    }

    /// Sets the flags; those that describe the file system's own way stay as they are here.
    pub(super) fn set_changeable_flags(&mut self, fd: i32, flags: u32) -> Done {
        let now = seal::get_flags(fd)?;
        let wanted = now & !CHANGEABLE_FLAGS | flags & CHANGEABLE_FLAGS;
        if wanted == now {
            return Ok(());
        }
        seal::set_flags(fd, wanted)
    }

    pub(super) fn apply_setxflags(&mut self, r: &Record, fsxattr: &[u8]) -> Done {
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        self.before_sealing(obj)?;
        let fd = self.fd(obj, Access::Any)?;
        let mut raw = [0u8; 28];
        if fsxattr.len() != raw.len() {
            return Err(Fault::Corrupt("struct fsxattr has 28 bytes"));
        }
        raw.copy_from_slice(fsxattr);
        // _IOW('X', 32, struct fsxattr)
        const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
        check("FS_IOC_FSSETXATTR", || {
            // SAFETY: raw has the size that the request says.
            unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR as _, raw.as_ptr()) }.into()
        })?;
        Ok(())
    }
}

pub(super) fn stamp(t: Time) -> Option<Stamp> {
    t.is_known().then_some((t.sec, t.nsec))
}
