//! Everything about one object except its content: read once per side, then compared.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{Mtime, Options};
use crate::bytes::escape;
use crate::sys::attr::{self, Object as On, Stat};
use crate::sys::{errno_name, file, name, Errno, SysResult};

/// One side of a pair.
pub struct Object {
    pub stat: Stat,
    /// Regular files and directories stay open until compared.
    pub fd: Option<OwnedFd>,
    target: Option<Vec<u8>>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    flags: u32,
    projid: u32,
}

impl Object {
    pub fn read(dir: RawFd, path: &CStr, opt: &Options) -> Result<Object, (&'static str, Errno)> {
        // The birth time is needed for `Mtime::Window` alone, and is a request more on a mount.
        let birth = if matches!(opt.mtime, Mtime::Window { .. }) { attr::STATX_BTIME } else { 0 };
        let (flags, mask) = (libc::AT_SYMLINK_NOFOLLOW, attr::STATX_BASIC | birth);
        let stat = attr::statx(dir, path, flags, mask).map_err(|e| ("stat", e))?;
        let mut object =
            Object { stat, fd: None, target: None, xattrs: Vec::new(), flags: 0, projid: 0 };
        match stat.kind() {
            libc::S_IFLNK => {
                let target = name::readlinkat(dir, path).map_err(|e| ("readlink", e))?;
                object.target = Some(target);
            }
            libc::S_IFREG | libc::S_IFDIR => {
                let fd = open_quietly(dir, path).map_err(|e| ("open", e))?;
                if opt.wants("flags") {
                    object.flags = attr::get_flags(fd.as_raw_fd()).unwrap_or(0) & attr::FLAGS_USER;
                }
                if opt.wants("projid") {
                    object.projid = attr::get_fsxattr(fd.as_raw_fd()).map_or(0, |x| x.projid);
                }
                object.fd = Some(fd);
            }
            _ => {}
        }
        if opt.wants("xattr") {
            // By descriptor where there is one: a path through /proc costs five times as much.
            let on = match &object.fd {
                Some(fd) => On::Fd(fd.as_raw_fd()),
                None => On::Path(dir, path, false),
            };
            object.xattrs = read_xattrs(on).map_err(|e| ("xattr", e))?;
        }
        Ok(object)
    }

    /// Calls `report(field, left, right)` for each attribute that differs.
    pub fn compare(
        &self,
        other: &Object,
        opt: &Options,
        report: &mut dyn FnMut(&'static str, String, String),
    ) {
        let (a, b) = (&self.stat, &other.stat);
        let mut check = |field: &'static str, differs: bool, l: String, r: String| {
            if differs && opt.wants(field) {
                report(field, l, r);
            }
        };
        let oct = |m: u32| format!("{:04o}", m & 0o7777);
        check("mode", (a.mode ^ b.mode) & 0o7777 != 0, oct(a.mode), oct(b.mode));
        check("uid", a.uid != b.uid, a.uid.to_string(), b.uid.to_string());
        check("gid", a.gid != b.gid, a.gid.to_string(), b.gid.to_string());
        check("rdev", a.rdev != b.rdev, format!("{:#x}", a.rdev), format!("{:#x}", b.rdev));
        check("nlink", a.nlink != b.nlink, a.nlink.to_string(), b.nlink.to_string());
        // The size of a directory is the file system's own affair.
        let sizes = !a.is_dir() && a.size != b.size;
        check("size", sizes, a.size.to_string(), b.size.to_string());
        let time = |t: (i64, u32)| format!("{}.{:09}", t.0, t.1);
        check("mtime", !mtime_agrees(&opt.mtime, a, b), time(a.mtime), time(b.mtime));
        if opt.ctime {
            check("ctime", a.ctime != b.ctime, time(a.ctime), time(b.ctime));
        }
        if opt.ino {
            check("ino", a.ino != b.ino, a.ino.to_string(), b.ino.to_string());
        }
        let text = |t: &Option<Vec<u8>>| t.as_deref().map(escape).unwrap_or_default();
        let (l, r) = (text(&self.target), text(&other.target));
        check("target", self.target != other.target, l, r);
        let hex = |v: u32| format!("{v:#x}");
        check("flags", self.flags != other.flags, hex(self.flags), hex(other.flags));
        let projids = self.projid != other.projid;
        check("projid", projids, self.projid.to_string(), other.projid.to_string());
        if self.xattrs != other.xattrs {
            let caps = !opt.uncertain_caps.contains(&b.identity());
            let known = |x: &&(Vec<u8>, Vec<u8>)| caps || x.0 != b"security.capability";
            let kept = |x: &Xattrs| x.iter().filter(known).cloned().collect::<Vec<_>>();
            compare_xattrs(&kept(&self.xattrs), &kept(&other.xattrs), &mut check);
        }
    }
}

fn mtime_agrees(rule: &Mtime, a: &Stat, b: &Stat) -> bool {
    match rule {
        Mtime::Ignore => true,
        Mtime::Exact => a.mtime == b.mtime,
        Mtime::Window { from, to, skip } => {
            let inside = |t: (i64, u32)| t.0 >= *from && t.0 <= *to;
            a.mtime == b.mtime
                || (inside(a.mtime) && inside(b.mtime))
                || (b.is_file() && skip.contains(&b.identity()))
        }
    }
}

type Xattrs = [(Vec<u8>, Vec<u8>)];

fn compare_xattrs(
    a: &Xattrs,
    b: &Xattrs,
    check: &mut dyn FnMut(&'static str, bool, String, String),
) {
    let show = |name: &[u8], value: Option<&Vec<u8>>| match value {
        Some(v) if v.len() > 64 => format!("{}=({} bytes)", escape(name), v.len()),
        Some(v) => format!("{}=\"{}\"", escape(name), escape(v)),
        None => format!("{} absent", escape(name)),
    };
    let find =
        |list: &Xattrs, name: &[u8]| -> Option<usize> { list.iter().position(|(n, _)| n == name) };
    for (name, value) in a {
        let other = find(b, name).map(|i| &b[i].1);
        if other != Some(value) {
            check("xattr", true, show(name, Some(value)), show(name, other));
        }
    }
    for (name, value) in b {
        if find(a, name).is_none() {
            check("xattr", true, show(name, None), show(name, Some(value)));
        }
    }
}

fn read_xattrs(on: On) -> SysResult<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match attr::listxattr(on) {
        Ok(names) => names,
        Err(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut all = Vec::with_capacity(names.len());
    for n in names {
        match attr::getxattr(on, &crate::sys::cstr(&n)?) {
            Ok(value) => all.push((n, value)),
            // A listed name that cannot be read is a finding of its own, so keep it visible.
            Err(e) => all.push((n, format!("unreadable: {}", errno_name(e)).into_bytes())),
        }
    }
    Ok(all)
}

/// Opens without changing the access time where that is allowed.
fn open_quietly(dir: RawFd, path: &CStr) -> SysResult<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW;
    match file::openat(dir, path, flags | libc::O_NOATIME, 0) {
        Err(libc::EPERM | libc::EINVAL) => file::openat(dir, path, flags, 0),
        other => other,
    }
}
