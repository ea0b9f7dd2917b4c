//! Owner, mode, times, xattrs (ACLs among them) and flags: read, and made what they are to be.

use super::limits::XATTR_BYTES_MAX;
use super::side::Facts;
use crate::replay::apply_meta::CHANGEABLE_FLAGS;
use crate::replay::error::Done;
use crate::replay::seal::{get_flags, set_flags, SEALS};
use crate::replay::sys::{self, check, Name, ProcPath};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an object of the other side is, besides its content.
pub struct Wanted {
    pub facts: Facts,
    pub xattrs: Xattrs,
    /// Where the file system has any.
    pub flags: Option<u32>,
    pub project: Option<u32>,
}

impl Wanted {
    /// `readable` only for files and directories.
    pub fn of(object: &OwnedFd, readable: Option<&OwnedFd>) -> Done<Self> {
        let facts = Facts::of(object.as_raw_fd(), sys::EMPTY.as_ptr())?;
        let flags = readable.and_then(fs_flags);
        let project = readable.and_then(project);
        Ok(Self { facts, xattrs: xattrs(object)?, flags, project })
    }
}

/// `struct fsxattr`: xflags, extsize, nextents, projid, cowextsize, padding.
type RawFsxattr = [u32; 7];
const PROJECT: usize = 3;
/// _IOR('X', 31, struct fsxattr)
const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
/// _IOW('X', 32, struct fsxattr)
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;

/// chattr's flags; `None` where there are none.
pub fn fs_flags(file: &OwnedFd) -> Option<u32> {
    get_flags(file.as_raw_fd()).ok()
}

fn raw_fsxattr(file: &OwnedFd) -> Done<RawFsxattr> {
    let mut raw = RawFsxattr::default();
    check("FS_IOC_FSGETXATTR", || {
        // SAFETY: raw has the size that the request says.
        unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR as _, raw.as_mut_ptr()) }.into()
    })?;
    Ok(raw)
}

/// The project that a file's space counts for; `None` where there are none.
pub fn project(file: &OwnedFd) -> Option<u32> {
    raw_fsxattr(file).ok().map(|raw| raw[PROJECT])
}

fn set_project(file: &OwnedFd, wanted: u32) -> Done {
    let mut raw = raw_fsxattr(file)?;
    if raw[PROJECT] == wanted {
        return Ok(());
    }
    raw[PROJECT] = wanted;
    check("FS_IOC_FSSETXATTR", || {
        // SAFETY: raw has the size that the request says.
        unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSSETXATTR as _, raw.as_ptr()) }.into()
    })?;
    Ok(())
}

/// All xattrs of an object that any descriptor names; none where the file system has none.
pub fn xattrs(object: &OwnedFd) -> Done<Xattrs> {
    let path = ProcPath::of(object.as_raw_fd());
    // SAFETY: path is terminated; no memory is written for a length of 0.
    let asked =
        check("listxattr", || unsafe { libc::listxattr(path.c(), std::ptr::null_mut(), 0) as i64 });
    match asked {
        Ok(0) => return Ok(Xattrs::new()),
        Err(e) if e.is(libc::EOPNOTSUPP) => return Ok(Xattrs::new()),
        other => other?,
    };
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let n = check("listxattr", || {
        // SAFETY: names is valid for its length, path is terminated.
        unsafe { libc::listxattr(path.c(), names.as_mut_ptr().cast(), names.len()) as i64 }
    })?;
    let mut value = vec![0u8; XATTR_BYTES_MAX];
    let mut all = Xattrs::new();
    for name in names[..n as usize].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let attribute = Name::attribute(name)?;
        let got = check("getxattr", || {
            let (p, len) = (value.as_mut_ptr().cast(), value.len());
            // SAFETY: value is valid for its length, path and name are terminated.
            unsafe { libc::getxattr(path.c(), attribute.c(), p, len) as i64 }
        });
        match got {
            Ok(n) => drop(all.insert(name.to_vec(), value[..n as usize].to_vec())),
            Err(e) if e.is(libc::ENODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

fn set_xattrs(object: &OwnedFd, wanted: &Xattrs) -> Done {
    let path = ProcPath::of(object.as_raw_fd());
    let now = xattrs(object)?;
    for name in now.keys().filter(|name| !wanted.contains_key(*name)) {
        let name = Name::attribute(name)?;
        // SAFETY: path and name are terminated.
        match check("removexattr", || unsafe { libc::removexattr(path.c(), name.c()) }.into()) {
            // XFS lists an ACL by two names.
            Err(e) if e.is(libc::ENODATA) => {}
            done => drop(done?),
        }
    }
    for (name, value) in wanted.iter().filter(|(name, value)| now.get(*name) != Some(value)) {
        let name = Name::attribute(name)?;
        check("setxattr", || {
            let (p, len) = (value.as_ptr().cast(), value.len());
            // SAFETY: path and name are terminated, value is valid for its length.
            unsafe { libc::setxattr(path.c(), name.c(), p, len, 0) }.into()
        })?;
    }
    Ok(())
}

/// Lifts what forbids changes; whether there was any.
pub fn lift_seals(file: &OwnedFd) -> Done<bool> {
    match fs_flags(file) {
        Some(flags) if flags & SEALS != 0 => {
            set_flags(file.as_raw_fd(), flags & !SEALS)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Makes everything of an object but its content what is wanted, and changes nothing else. The time
/// comes after all that would move it, flags that forbid changes come last.
pub fn make_equal(object: &OwnedFd, readable: Option<&OwnedFd>, wanted: &Wanted) -> Done {
    let fd = object.as_raw_fd();
    let look = || Facts::of(fd, sys::EMPTY.as_ptr());
    let now = look()?;
    let want = &wanted.facts;
    if (now.uid, now.gid) != (want.uid, want.gid) {
        sys::chown_fd(fd, want.uid, want.gid)?;
    }
    // A change of owner has taken capabilities and set-id bits away; an ACL sets the mode.
    set_xattrs(object, &wanted.xattrs)?;
    if !want.is_link() && look()?.mode != want.mode {
        sys::chmod_fd(fd, want.mode)?;
    }
    if let (Some(file), Some(wanted)) = (readable, wanted.project) {
        match set_project(file, wanted) {
            // No projects here, and none is asked for.
            Err(_) if wanted == 0 => {}
            done => done?,
        }
    }
    let flags = match (readable, wanted.flags) {
        (Some(file), Some(wanted)) => fs_flags(file).map(|now| {
            (file.as_raw_fd(), now, now & !CHANGEABLE_FLAGS | wanted & CHANGEABLE_FLAGS)
        }),
        _ => None,
    };
    if let Some((file, now, wanted)) = flags.filter(|(_, now, to)| (now ^ to) & !SEALS != 0) {
        set_flags(file, wanted & !SEALS | now & SEALS)?;
    }
    if look()?.mtime != want.mtime {
        sys::utimens_fd(fd, None, Some(want.mtime))?;
    }
    match flags.filter(|(_, now, to)| (now ^ to) & SEALS != 0) {
        Some((file, _, wanted)) => set_flags(file, wanted),
        None => Ok(()),
    }
}
