//! Breaks the right tree on purpose: proof that the tester sees what it claims to see.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, RawFd};

use super::catalogue::{Catalogue, Kind, ROOT};
use crate::sys::attr::{self, Identity, Object};
use crate::sys::{cstr, file, name, SysResult};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Data,
    Mode,
    Mtime,
    Xattr,
    Name,
    Link,
}

impl Damage {
    pub const ALL: [(&'static str, Damage); 6] = [
        ("data", Damage::Data),
        ("mode", Damage::Mode),
        ("mtime", Damage::Mtime),
        ("xattr", Damage::Xattr),
        ("name", Damage::Name),
        ("link", Damage::Link),
    ];

    pub fn parse(text: &str) -> Option<Damage> {
        Damage::ALL.iter().find(|(n, _)| *n == text).map(|(_, d)| *d)
    }
}

/// Damages the first file that allows it; the path that was damaged, or None.
pub fn apply(
    damage: Damage,
    right: RawFd,
    tree: &Catalogue,
    undecided: &HashSet<Identity>,
) -> Option<Vec<u8>> {
    let mut files: Vec<_> = tree.of_kind(Kind::File).to_vec();
    files.sort_unstable();
    files
        .into_iter()
        .filter_map(|id| tree.path_below(ROOT, id))
        .find(|path| matches!(damage_file(damage, right, path, undecided), Ok(true)))
}

fn damage_file(
    damage: Damage,
    right: RawFd,
    path: &[u8],
    undecided: &HashSet<Identity>,
) -> SysResult<bool> {
    let c = cstr(path)?;
    let mask = attr::STATX_BASIC | attr::STATX_BTIME;
    let s = attr::statx(right, &c, libc::AT_SYMLINK_NOFOLLOW, mask)?;
    if !s.is_file() || s.size == 0 {
        return Ok(false);
    }
    match damage {
        Damage::Data => {
            let fd = file::openat(right, &c, libc::O_RDWR | libc::O_NOFOLLOW, 0)?;
            let mut byte = [0u8];
            let last = s.size as i64 - 1;
            file::pread(fd.as_raw_fd(), &mut byte, last)?;
            file::pwrite(fd.as_raw_fd(), &[byte[0] ^ 1], last)?;
            restore_mtime(right, &c, &s)?;
        }
        Damage::Mode => name::fchmodat(right, &c, (s.mode ^ 0o4) & 0o7777, 0)?,
        Damage::Mtime => {
            // Where the time is not compared, the damage would rightly go unseen.
            if undecided.contains(&s.identity()) {
                return Ok(false);
            }
            name::utimensat(right, &c, (0, libc::UTIME_OMIT), (77, 7), 0)?;
        }
        Damage::Xattr => attr::setxattr(Object::Path(right, &c, false), c"user.sab", b"x", 0)?,
        Damage::Name => {
            let other = cstr(&[path, b"~"].concat())?;
            name::renameat2(right, &c, right, &other, libc::RENAME_NOREPLACE)?;
        }
        Damage::Link => {
            // The same name, mode, owner and bytes, but an inode of its own.
            if s.nlink < 2 {
                return Ok(false);
            }
            return split_link(right, path, &s).map(|()| true);
        }
    }
    Ok(true)
}

fn restore_mtime(right: RawFd, c: &std::ffi::CStr, s: &attr::Stat) -> SysResult<()> {
    let old = (s.mtime.0, s.mtime.1.into());
    name::utimensat(right, c, (0, libc::UTIME_OMIT), old, libc::AT_SYMLINK_NOFOLLOW)
}

fn split_link(right: RawFd, path: &[u8], s: &attr::Stat) -> SysResult<()> {
    let c = cstr(path)?;
    let tmp = cstr(b"~split")?;
    let from = file::openat(right, &c, libc::O_RDONLY, 0)?;
    let to = file::openat(right, &tmp, libc::O_CREAT | libc::O_RDWR, 0o600)?;
    file::ftruncate(to.as_raw_fd(), s.size as i64)?;
    file::copy_file_range(from.as_raw_fd(), 0, to.as_raw_fd(), 0, s.size as usize)?;
    name::fchown(to.as_raw_fd(), s.uid, s.gid)?;
    name::fchmod(to.as_raw_fd(), s.mode & 0o7777)?;
    name::renameat2(right, &tmp, right, &c, 0)?;
    restore_mtime(right, &c, s)
}
