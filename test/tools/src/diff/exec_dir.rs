//! Runs operations on names and directories.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};

use super::exec::{done, Side};
use super::op::{At, Op};
use super::outcome::Outcome;
use crate::bytes::Bytes;
use crate::sys::dir::{self, Entry};
use crate::sys::{cstr, file, name, Errno, SysResult};

/// Names made and removed while a directory is being read start so.
pub const CHURN_PREFIX: &[u8] = b"~churn";
/// Small enough that a directory takes many calls, large enough for one longest name.
const CHURN_BUF: usize = 512;

impl Side {
    pub(super) fn dir_op(&mut self, op: &Op, out: &mut Outcome) -> Result<i64, Errno> {
        let c = |at: &At| cstr(at.path.as_slice());
        match op {
            Op::Mkdir { at, mode } => done(name::mkdirat(self.base(at), &c(at)?, *mode)),
            Op::Rmdir { at } => done(name::unlinkat(self.base(at), &c(at)?, libc::AT_REMOVEDIR)),
            Op::Unlink { at } => done(name::unlinkat(self.base(at), &c(at)?, 0)),
            Op::Symlink { target, at } => {
                done(name::symlinkat(&cstr(target.as_slice())?, self.base(at), &c(at)?))
            }
            Op::Readlink { at } => {
                let target = name::readlinkat(self.base(at), &c(at)?)?;
                let n = target.len() as i64;
                out.bytes = Some(target);
                Ok(n)
            }
            Op::Link { from, to, follow } => {
                let flags = if *follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
                done(name::linkat(self.base(from), &c(from)?, self.base(to), &c(to)?, flags))
            }
            Op::Rename { from, to, flags } => {
                done(name::renameat2(self.base(from), &c(from)?, self.base(to), &c(to)?, *flags))
            }
            Op::Mknod { at, mode, dev } => done(name::mknodat(self.base(at), &c(at)?, *mode, *dev)),
            Op::Readdir { at } => {
                let fd = open_dir(self.base(at), &c(at)?)?;
                let entries = dir::read_all(fd.as_raw_fd())?;
                keep(entries, out);
                Ok(0)
            }
            Op::ReaddirChurn { at, extra } => {
                let fd = open_dir(self.base(at), &c(at)?)?;
                let entries = churn(fd.as_raw_fd(), *extra)?;
                keep(entries, out);
                Ok(0)
            }
            _ => Err(libc::ENOSYS),
        }
    }
}

fn open_dir(base: RawFd, path: &CStr) -> SysResult<std::os::fd::OwnedFd> {
    file::openat(base, path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK, 0)
}

/// Sorts the entries into the outcome; a name met twice breaks readdir's promise.
fn keep(entries: Vec<Entry>, out: &mut Outcome) {
    let mut names: Vec<(Bytes, u8)> = entries
        .into_iter()
        .filter(|(n, _)| !n.starts_with(CHURN_PREFIX))
        .map(|(n, kind)| (Bytes(n), kind))
        .collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|p| p[0].0 == p[1].0) {
        out.broken = Some(format!("readdir returns {:?} twice", pair[0].0));
    }
    out.names = Some(names);
}

/// Reads a directory in small steps; between steps names appear, disappear and are renamed.
/// Names that exist throughout must be returned exactly once (POSIX readdir).
fn churn(fd: RawFd, extra: u16) -> SysResult<Vec<Entry>> {
    let mut buf = [0u8; CHURN_BUF];
    let mut all = Vec::new();
    let mut left = extra;
    let name_of = |i: u16, suffix: &str| {
        let mut n = CHURN_PREFIX.to_vec();
        n.extend_from_slice(format!("{i}{suffix}").as_bytes());
        cstr(&n)
    };
    while let Some(mut some) = dir::read_some(fd, &mut buf)? {
        all.append(&mut some);
        if left > 0 {
            let (a, b) = (name_of(left, "")?, name_of(left, ".b")?);
            if left.is_multiple_of(2) {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_NONBLOCK;
                drop(file::openat(fd, &a, flags, 0o600)?);
            } else {
                name::mkdirat(fd, &a, 0o700)?;
            }
            name::renameat2(fd, &a, fd, &b, 0)?;
            if left != extra {
                remove(fd, &name_of(left + 1, ".b")?);
            }
            left -= 1;
        }
    }
    for i in 1..=extra {
        remove(fd, &name_of(i, ".b")?);
    }
    Ok(all)
}

fn remove(fd: RawFd, name: &CStr) {
    if name::unlinkat(fd, name, 0).is_err() {
        // Not a file, or not there any more: the second answer does not matter either.
        let _ = name::unlinkat(fd, name, libc::AT_REMOVEDIR);
    }
}
