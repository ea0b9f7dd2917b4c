//! Runs operations on attributes.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use super::exec::{done, Side};
use super::op::{At, Op, Target};
use super::outcome::{Attrs, Outcome, View};
use crate::bytes::Bytes;
use crate::sys::attr::{self, Object};
use crate::sys::{cstr, file, name, Errno, SysResult};

impl Side {
    pub(super) fn attr_op(&mut self, op: &Op, out: &mut Outcome) -> Result<i64, Errno> {
        match op {
            Op::Chmod { on, mode } => match on {
                Target::Fd(slot) => done(name::fchmod(self.fd(*slot), *mode)),
                Target::Path { at, follow } => {
                    let p = cstr(at.path.as_slice())?;
                    done(name::fchmodat(self.base(at), &p, *mode, nofollow(*follow)))
                }
            },
            Op::Chown { on, uid, gid } => match on {
                Target::Fd(slot) => done(name::fchown(self.fd(*slot), *uid, *gid)),
                Target::Path { at, follow } => {
                    let p = cstr(at.path.as_slice())?;
                    done(name::fchownat(self.base(at), &p, *uid, *gid, nofollow(*follow)))
                }
            },
            Op::Utimens { on, atime, mtime } => match on {
                Target::Fd(slot) => done(name::futimens(self.fd(*slot), *atime, *mtime)),
                Target::Path { at, follow } => {
                    let p = cstr(at.path.as_slice())?;
                    done(name::utimensat(self.base(at), &p, *atime, *mtime, nofollow(*follow)))
                }
            },
            Op::SetXattr { .. }
            | Op::GetXattr { .. }
            | Op::ListXattr { .. }
            | Op::RemoveXattr { .. } => self.xattr_op(op, out),
            Op::Stat { on } => {
                self.view("object", on, false, out);
                result_of(out)
            }
            Op::Statx { on } => self.statx(on, out),
            Op::Statfs { slot } => {
                let s = attr::fstatfs(self.fd(*slot))?;
                Ok(s.name_max | s.fragment << 16)
            }
            Op::Access { at, mode, flags } => {
                let p = cstr(at.path.as_slice())?;
                done(name::faccessat(self.base(at), &p, *mode, *flags))
            }
            Op::GetFlags { at } => {
                let fd = self.open_for_ioctl(at)?;
                attr::get_flags(fd.as_raw_fd()).map(|f| i64::from(f & attr::FLAGS_USER))
            }
            Op::SetFlags { at, mask, bits } => {
                let fd = self.open_for_ioctl(at)?;
                let old = attr::get_flags(fd.as_raw_fd())?;
                done(attr::set_flags(fd.as_raw_fd(), (old & !mask) | bits))
            }
            Op::GetProject { at } => {
                let fd = self.open_for_ioctl(at)?;
                attr::get_fsxattr(fd.as_raw_fd()).map(|x| x.projid.into())
            }
            Op::SetProject { at, projid } => {
                let fd = self.open_for_ioctl(at)?;
                let mut x = attr::get_fsxattr(fd.as_raw_fd())?;
                x.projid = *projid;
                done(attr::set_fsxattr(fd.as_raw_fd(), &x))
            }
            _ => Err(libc::ENOSYS),
        }
    }

    fn xattr_op(&mut self, op: &Op, out: &mut Outcome) -> Result<i64, Errno> {
        let (on, path) = match op {
            Op::SetXattr { on, .. }
            | Op::GetXattr { on, .. }
            | Op::ListXattr { on }
            | Op::RemoveXattr { on, .. } => (on, self.path_of(on)?),
            _ => return Err(libc::ENOSYS),
        };
        let object = match on {
            Target::Fd(slot) => Object::Fd(self.fd(*slot)),
            Target::Path { at, follow } => Object::Path(self.base(at), &path, *follow),
        };
        match op {
            Op::SetXattr { name, value, flags, .. } => {
                let name = cstr(name.as_slice())?;
                done(attr::setxattr(object, &name, value.as_slice(), *flags))
            }
            Op::GetXattr { name, .. } => {
                let value = attr::getxattr(object, &cstr(name.as_slice())?)?;
                let n = value.len() as i64;
                out.bytes = Some(value);
                Ok(n)
            }
            Op::ListXattr { .. } => {
                let names = attr::listxattr(object)?;
                out.names = Some(names.into_iter().map(|n| (Bytes(n), 0)).collect());
                Ok(0)
            }
            Op::RemoveXattr { name, .. } => {
                done(attr::removexattr(object, &cstr(name.as_slice())?))
            }
            _ => Err(libc::ENOSYS),
        }
    }

    fn statx(&self, on: &Target, out: &mut Outcome) -> Result<i64, Errno> {
        let mask = attr::STATX_BASIC | attr::STATX_BTIME;
        let path = self.path_of(on)?;
        let s = match on {
            Target::Fd(slot) => attr::statx(self.fd(*slot), c"", libc::AT_EMPTY_PATH, mask),
            Target::Path { at, follow } => {
                attr::statx(self.base(at), &path, nofollow(*follow), mask)
            }
        };
        let result = s.map(|s| {
            let mut a = Attrs::of(&s);
            a.has_btime = Some(s.btime.is_some());
            a
        });
        out.views.push(View { label: "object".to_owned(), result });
        result_of(out)
    }

    fn path_of(&self, on: &Target) -> SysResult<CString> {
        match on {
            Target::Fd(_) => Ok(CString::default()),
            Target::Path { at, .. } => cstr(at.path.as_slice()),
        }
    }

    fn open_for_ioctl(&self, at: &At) -> SysResult<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW;
        file::openat(self.base(at), &cstr(at.path.as_slice())?, flags, 0)
    }
}

fn nofollow(follow: bool) -> i32 {
    if follow {
        0
    } else {
        libc::AT_SYMLINK_NOFOLLOW
    }
}

fn result_of(out: &Outcome) -> Result<i64, Errno> {
    match out.views.last().map(|v| &v.result) {
        Some(Err(e)) => Err(*e),
        _ => Ok(0),
    }
}
