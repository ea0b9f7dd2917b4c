//! Where a FUSE mount legitimately differs, as data. Everything not listed here must agree.
//!
//! | limit | rule | because |
//! |---|---|---|
//! | `collapse-insert` | the families collapse and insert run on the left only and must be refused with EOPNOTSUPP | `fuse_file_fallocate` (Linux 6.18) knows KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE only and answers before the server sees the call |
//! | `sealed` | while some object is immutable or append-only: access, or an open for writing that truncates nothing, may succeed on the left or be EACCES where it is EPERM on the right; EACCES, and for a rename ENOTDIR or EISDIR, on the left may be EPERM on the right; mmap may succeed where it is EACCES on the right | a FUSE inode never carries S_IMMUTABLE or S_APPEND, so the kernel's own checks (`inode_permission`, `may_delete`, `do_mmap`) pass or come in another order; an open does not reach the server; what does is refused there |
//!
//! A limit is in force when its probe fails on the left and succeeds on the right. With
//! `--strict` no limit is in force.
//!
//! Not generated at all, because no rule could compare them:
//!
//! - FIEMAP, FICLONE, FIDEDUPERANGE: a FUSE mount does not forward them.
//! - O_DIRECT at misaligned offsets or lengths: a FUSE mount has no alignment to demand, the
//!   file system below answers EINVAL or falls back to buffered I/O.
//! - chown(-1, -1), which clears set-user-id natively: `fuse_do_setattr` (Linux 6.18) sends
//!   FATTR_KILL_SUIDGID only along with an owner or a group.
//! - truncate(2) to nothing: a FUSE server cannot tell it from O_TRUNC, which moves the mtime and
//!   clears set-id of an empty file where truncate(2) does not. (ftruncate and O_TRUNC are.)
//! - Writing through a descriptor that was open when its file became immutable or append-only: a
//!   server without opens cannot tell it from one opened later, and refuses both.
//! - inotify, leases, and locks (kernel-local; tested elsewhere).
//! - Offsets beyond 64 MiB: `s_maxbytes` of the mount is larger than that of ext4.
//!
//! Compared by a weaker rule, on every file system:
//!
//! - mtime: both "during the run", or both exactly equal. Explicit times always lie outside.
//! - mtime of a file with mapped stores: undecided until the next explicit time with no mapping
//!   of it open; the kernel moves it at the first store natively, at write-back on FUSE.
//! - mtime of a FIFO that was written to: what goes through it never reaches the server.
//! - security.capability of a file with mapped stores: undecided until it is set again with no
//!   mapping of it open. A write removes it, a mapped store does not; a FUSE server writes
//!   mapped pages back by writing.
//! - atime: only straight after utimensat. ctime: never (it cannot be set).
//! - size of directories, st_blocks, st_blksize, inode numbers, order of readdir: never.
//! - SEEK_DATA and SEEK_HOLE: the answer is checked against the content (`--seek-exact` demands
//!   equal answers), on the left not for files with mapped stores: FUSE does not write those
//!   back before it asks the server.
//! - copy_file_range: repeated until the length is copied or nothing more comes; the sum counts.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::op::Op;
use super::outcome::Outcome;
use crate::sys::{attr, errno_name, file, name, Errno, SysResult};

/// What a limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// These families run on the left only and must fail with this errno.
    Refused { families: &'static [&'static str], errno: Errno },
    /// Differences in who refuses, while some object is immutable or append-only.
    Sealed,
}

/// One legitimate difference.
pub struct Limit {
    pub name: &'static str,
    pub rule: Rule,
    /// Succeeds where the kernel behaves as on a native file system.
    probe: fn(RawFd) -> SysResult<()>,
}

pub const LIMITS: &[Limit] = &[
    Limit {
        name: "collapse-insert",
        rule: Rule::Refused { families: &["collapse", "insert"], errno: libc::EOPNOTSUPP },
        probe: probe_collapse,
    },
    Limit { name: "sealed", rule: Rule::Sealed, probe: probe_sealed },
];

const PROBE_NAME: &CStr = c"~probe";

/// Runs `body` on a new file and removes it.
fn with_file(root: RawFd, body: impl Fn(&OwnedFd) -> SysResult<()>) -> SysResult<()> {
    let fd = file::openat(root, PROBE_NAME, libc::O_CREAT | libc::O_RDWR, 0o600)?;
    let tried = body(&fd);
    name::unlinkat(root, PROBE_NAME, 0)?;
    tried
}

fn probe_collapse(root: RawFd) -> SysResult<()> {
    with_file(root, |fd| {
        let fd = fd.as_raw_fd();
        file::pwrite(fd, &[1; 3 * 65536], 0)?;
        file::fallocate(fd, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 65536)
    })
}

/// Native: an immutable file is not writable, says access, even for root.
fn probe_sealed(root: RawFd) -> SysResult<()> {
    with_file(root, |fd| {
        let fd = fd.as_raw_fd();
        let old = attr::get_flags(fd)?;
        attr::set_flags(fd, old | attr::FLAG_IMMUTABLE)?;
        let answer = name::faccessat(root, PROBE_NAME, libc::W_OK, 0);
        attr::set_flags(fd, old)?;
        match answer {
            Err(libc::EPERM) => Ok(()),
            _ => Err(libc::EINVAL),
        }
    })
}

/// The limits in force between these two roots.
pub fn in_force(left: RawFd, right: RawFd) -> Vec<&'static Limit> {
    LIMITS.iter().filter(|l| (l.probe)(left).is_err() && (l.probe)(right).is_ok()).collect()
}

/// Whether the two outcomes may differ in their result while some object is sealed.
pub fn sealed_allows(op: &Op, left: &Outcome, right: &Outcome) -> bool {
    let access = match op {
        Op::Access { .. } => true,
        Op::Open { flags, .. } => flags & (libc::O_TRUNC | libc::O_PATH) == 0,
        _ => false,
    };
    let renames = matches!(op, Op::Rename { .. });
    match (left.result, right.result) {
        (Err(libc::EACCES), Err(libc::EPERM)) => true,
        (Err(libc::ENOTDIR | libc::EISDIR), Err(libc::EPERM)) => renames,
        (Ok(_), Err(libc::EPERM)) => access,
        (Ok(_), Err(libc::EACCES)) => matches!(op, Op::MapOpen { .. }),
        _ => false,
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.rule {
            Rule::Refused { families, errno } => {
                let (families, e) = (families.join(", "), errno_name(errno));
                write!(f, "{}: {families} must be refused with {e} on the left", self.name)
            }
            Rule::Sealed => write!(
                f,
                "{}: immutable and append-only objects may be refused by another check",
                self.name
            ),
        }
    }
}
