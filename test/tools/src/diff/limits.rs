//! Where a FUSE mount legitimately differs, as data. Everything not listed here must agree.
//!
//! | limit | families | rule |
//! |---|---|---|
//! | `collapse-insert` | collapse, insert | `fuse_file_fallocate` (Linux 6.18) refuses every mode but KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE before the server sees it: EOPNOTSUPP, and the file is unchanged. |
//!
//! A limit is in force when a probe on the left shows its errno and the same probe on the right
//! succeeds. Its families then run on the left only and must be refused with exactly that errno.
//! With `--strict` no limit is in force.
//!
//! Not generated at all, because no rule could compare them:
//!
//! - FIEMAP, FICLONE, FIDEDUPERANGE: a FUSE mount does not forward them.
//! - O_DIRECT at misaligned offsets or lengths: a FUSE mount has no alignment to demand, the
//!   file system below answers EINVAL or falls back to buffered I/O.
//! - inotify, leases, and locks (kernel-local; tested elsewhere).
//! - Offsets beyond 64 MiB: `s_maxbytes` of the mount is larger than that of ext4.
//!
//! Compared by a weaker rule:
//!
//! - mtime: both "during the run", or both exactly equal. Explicit times always lie outside.
//! - mtime of a file with mapped stores: undecided until the next explicit time with no mapping
//!   of it open; the kernel moves it at the first store natively, at write-back on FUSE.
//! - atime: only straight after utimensat. ctime: never (it cannot be set).
//! - size of directories, st_blocks, st_blksize, inode numbers, order of readdir: never.
//! - SEEK_DATA and SEEK_HOLE: the answer is checked against the content (`--seek-exact` demands
//!   equal answers).
//! - copy_file_range: repeated until the length is copied or nothing more comes; the sum counts.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};

use crate::sys::{errno_name, file, name, Errno, SysResult};

/// One legitimate difference.
pub struct Limit {
    pub name: &'static str,
    /// Families that run on the left only while the limit is in force.
    pub families: &'static [&'static str],
    pub errno: Errno,
    /// Succeeds where the feature exists.
    probe: fn(RawFd) -> SysResult<()>,
}

pub const LIMITS: &[Limit] = &[Limit {
    name: "collapse-insert",
    families: &["collapse", "insert"],
    errno: libc::EOPNOTSUPP,
    probe: probe_collapse,
}];

const PROBE_NAME: &CStr = c"~probe";

fn probe_collapse(root: RawFd) -> SysResult<()> {
    let fd = file::openat(root, PROBE_NAME, libc::O_CREAT | libc::O_RDWR, 0o600)?;
    let fd = fd.as_raw_fd();
    let tried = file::pwrite(fd, &[1; 3 * 65536], 0)
        .and_then(|_| file::fallocate(fd, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 65536));
    name::unlinkat(root, PROBE_NAME, 0)?;
    tried
}

/// The limits in force between these two roots.
pub fn in_force(left: RawFd, right: RawFd) -> Vec<&'static Limit> {
    let refused = |l: &&Limit| (l.probe)(left) == Err(l.errno) && (l.probe)(right).is_ok();
    LIMITS.iter().filter(refused).collect()
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (families, e) = (self.families.join(", "), errno_name(self.errno));
        write!(f, "{}: {families} must be refused with {e} on the left", self.name)
    }
}
