//! Attributes: statx, statfs, extended attributes, inode flags, project ids.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::{check, check_int, proc_path, SysResult};

pub const STATX_BASIC: u32 = libc::STATX_BASIC_STATS;
pub const STATX_BTIME: u32 = libc::STATX_BTIME;

/// An inode through all its names, and not the next one with the same number: the number and
/// the time of birth.
pub type Identity = (u64, (i64, u32));

/// What statx tells, times as (seconds, nanoseconds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u32,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub btime: Option<(i64, u32)>,
}

impl Stat {
    /// Needs the birth time to have been asked for.
    pub fn identity(&self) -> Identity {
        (self.ino, self.btime.unwrap_or_default())
    }

    /// The file type bits (`S_IFREG`, …).
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }
}

/// statx; `flags` as AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH.
pub fn statx(dir: RawFd, path: &CStr, flags: i32, mask: u32) -> SysResult<Stat> {
    // SAFETY: statx is plain data, for which all zeros is valid.
    let mut s: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: path is a valid C string and s is writable.
    check_int(unsafe { libc::statx(dir, path.as_ptr(), flags, mask, &mut s) })?;
    let time = |t: libc::statx_timestamp| (t.tv_sec, t.tv_nsec);
    Ok(Stat {
        dev: libc::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        mode: s.stx_mode.into(),
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: libc::makedev(s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blksize: s.stx_blksize,
        atime: time(s.stx_atime),
        mtime: time(s.stx_mtime),
        ctime: time(s.stx_ctime),
        btime: (s.stx_mask & STATX_BTIME != 0).then(|| time(s.stx_btime)),
    })
}

pub fn lstat(dir: RawFd, path: &CStr) -> SysResult<Stat> {
    statx(dir, path, libc::AT_SYMLINK_NOFOLLOW, STATX_BASIC)
}

pub fn fstat(fd: RawFd) -> SysResult<Stat> {
    statx(fd, c"", libc::AT_EMPTY_PATH, STATX_BASIC)
}

/// The fields of statfs that do not depend on how full the file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    pub name_max: i64,
    pub fragment: i64,
    pub free_bytes: u64,
    pub total_bytes: u64,
}

pub fn fstatfs(fd: RawFd) -> SysResult<StatFs> {
    // SAFETY: statfs is plain data, for which all zeros is valid.
    let mut s: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: s is writable.
    check_int(unsafe { libc::fstatfs(fd, &mut s) })?;
    Ok(StatFs {
        name_max: s.f_namelen,
        fragment: s.f_frsize,
        free_bytes: s.f_bavail.saturating_mul(s.f_bsize as u64),
        total_bytes: s.f_blocks.saturating_mul(s.f_bsize as u64),
    })
}

/// What an attribute call acts on.
#[derive(Clone, Copy, Debug)]
pub enum Object<'a> {
    Fd(RawFd),
    /// Directory, path, whether a final symbolic link is followed.
    Path(RawFd, &'a CStr, bool),
}

pub fn setxattr(on: Object, name: &CStr, value: &[u8], flags: i32) -> SysResult<()> {
    let (v, len) = (value.as_ptr().cast(), value.len());
    match on {
        // SAFETY: name is a valid C string, value readable for its length.
        Object::Fd(fd) => check_int(unsafe { libc::fsetxattr(fd, name.as_ptr(), v, len, flags) }),
        Object::Path(dir, path, follow) => {
            let p = proc_path(dir, path)?;
            let call = if follow { libc::setxattr } else { libc::lsetxattr };
            // SAFETY: as above, and p is a valid C string.
            check_int(unsafe { call(p.as_ptr(), name.as_ptr(), v, len, flags) })
        }
    }
}

pub fn getxattr(on: Object, name: &CStr) -> SysResult<Vec<u8>> {
    sized(|buf| {
        let (v, len) = (buf.as_mut_ptr().cast(), buf.len());
        match on {
            // SAFETY: name is a valid C string, buf writable for its length.
            Object::Fd(fd) => check(unsafe { libc::fgetxattr(fd, name.as_ptr(), v, len) } as _),
            Object::Path(dir, path, follow) => {
                let p = proc_path(dir, path)?;
                let call = if follow { libc::getxattr } else { libc::lgetxattr };
                // SAFETY: as above, and p is a valid C string.
                check(unsafe { call(p.as_ptr(), name.as_ptr(), v, len) } as _)
            }
        }
    })
}

/// The attribute names, sorted.
pub fn listxattr(on: Object) -> SysResult<Vec<Vec<u8>>> {
    let raw = sized(|buf| {
        let (v, len) = (buf.as_mut_ptr().cast(), buf.len());
        match on {
            // SAFETY: buf is writable for its length.
            Object::Fd(fd) => check(unsafe { libc::flistxattr(fd, v, len) } as _),
            Object::Path(dir, path, follow) => {
                let p = proc_path(dir, path)?;
                let call = if follow { libc::listxattr } else { libc::llistxattr };
                // SAFETY: as above, and p is a valid C string.
                check(unsafe { call(p.as_ptr(), v, len) } as _)
            }
        }
    })?;
    let mut names: Vec<Vec<u8>> =
        raw.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

pub fn removexattr(on: Object, name: &CStr) -> SysResult<()> {
    match on {
        // SAFETY: name is a valid C string.
        Object::Fd(fd) => check_int(unsafe { libc::fremovexattr(fd, name.as_ptr()) }),
        Object::Path(dir, path, follow) => {
            let p = proc_path(dir, path)?;
            let call = if follow { libc::removexattr } else { libc::lremovexattr };
            // SAFETY: p and name are valid C strings.
            check_int(unsafe { call(p.as_ptr(), name.as_ptr()) })
        }
    }
}

/// Runs a call that fills a buffer: small first, then the 64 KiB the kernel allows at most.
fn sized(mut call: impl FnMut(&mut [u8]) -> SysResult<i64>) -> SysResult<Vec<u8>> {
    let mut buf = vec![0u8; 512];
    let n = match call(&mut buf) {
        Err(libc::ERANGE) => {
            buf = vec![0u8; 65536];
            call(&mut buf)?
        }
        other => other?,
    };
    buf.truncate(n as usize);
    Ok(buf)
}

const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: libc::c_ulong = 0x4008_6602;
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;

pub const FLAG_IMMUTABLE: u32 = 0x10;
pub const FLAG_APPEND: u32 = 0x20;
pub const FLAG_NODUMP: u32 = 0x40;
pub const FLAG_NOATIME: u32 = 0x80;
/// FS_FL_USER_MODIFIABLE and the project-inherit bit: what chattr can change.
pub const FLAGS_USER: u32 = 0x2003_80ff;

/// `struct fsxattr`: xflags, extsize, nextents, projid, cowextsize, padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FsXattr {
    pub xflags: u32,
    pub extsize: u32,
    pub nextents: u32,
    pub projid: u32,
    pub cowextsize: u32,
    pad: [u8; 8],
}

pub fn get_flags(fd: RawFd) -> SysResult<u32> {
    let mut v: libc::c_long = 0;
    // SAFETY: v is writable; the kernel writes 32 bits of it.
    check_int(unsafe { libc::ioctl(fd, FS_IOC_GETFLAGS, &mut v) })?;
    Ok(v as u32)
}

pub fn set_flags(fd: RawFd, flags: u32) -> SysResult<()> {
    let v: libc::c_long = flags.into();
    // SAFETY: v is readable.
    check_int(unsafe { libc::ioctl(fd, FS_IOC_SETFLAGS, &v) })
}

pub fn get_fsxattr(fd: RawFd) -> SysResult<FsXattr> {
    let mut v = FsXattr::default();
    // SAFETY: v is writable and has the layout of struct fsxattr.
    check_int(unsafe { libc::ioctl(fd, FS_IOC_FSGETXATTR, &mut v) })?;
    Ok(v)
}

pub fn set_fsxattr(fd: RawFd, v: &FsXattr) -> SysResult<()> {
    // SAFETY: v is readable and has the layout of struct fsxattr.
    check_int(unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR, v) })
}
