//! What can go wrong in replay, with a stable code, the record it happened at, and what to do.

use crate::record::{DecodeError, Op};
use std::fmt;

/// Stable classes of error; `as_str` is what crosses to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayCode {
    /// The frame or the state belongs to another volume.
    ForeignVolume,
    /// Frames are missing between the position and this frame.
    Gap,
    /// The frame does not continue the frame applied last: two histories.
    Fork,
    /// The bytes are not what was journaled, or say something no writer says.
    Corrupt,
    /// The target lacks what the journal says, or has what it must not have.
    Diverged,
    /// A system call failed; `errno` says how. Applying the frame again continues.
    Io,
    /// The target's file system cannot do what the record asks for.
    Unsupported,
    /// Another replay uses the state directory.
    Busy,
    /// The target or the state directory cannot be used.
    Target,
    /// The state directory is of another version, of another target, or damaged.
    State,
    /// The replay thread died.
    Internal,
}

impl ReplayCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForeignVolume => "REPLAY_FOREIGN_VOLUME",
            Self::Gap => "REPLAY_GAP",
            Self::Fork => "REPLAY_FORK",
            Self::Corrupt => "REPLAY_CORRUPT",
            Self::Diverged => "REPLAY_DIVERGED",
            Self::Io => "REPLAY_IO",
            Self::Unsupported => "REPLAY_UNSUPPORTED",
            Self::Busy => "REPLAY_BUSY",
            Self::Target => "REPLAY_TARGET",
            Self::State => "REPLAY_STATE",
            Self::Internal => "REPLAY_INTERNAL",
        }
    }

    /// What the operator can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::ForeignVolume => "give the frames and the state directory of the same volume",
            Self::Gap => "send the frames from the position on, or resync",
            Self::Fork => "the histories differ from here on: fence one of them and resync",
            Self::Corrupt => "send the frame again; if it stays so, verify the journal",
            Self::Diverged => {
                "the target was changed by others or is not a copy of the base: resync"
            }
            Self::Io => "remove the cause and apply the same frame again",
            Self::Unsupported => "use a target on the kind of file system that the source has",
            Self::Busy => "close the other replay first",
            Self::Target => "choose a directory and a state directory side by side on one mount",
            Self::State => "remove the state directory and resync",
            Self::Internal => "open the replay again; it continues where it was",
        }
    }
}

/// An error of replay. Nothing is half done after it: applying the same frame again continues.
#[derive(Clone, Debug)]
pub struct ReplayError {
    pub code: ReplayCode,
    /// The record it happened at; 0 when it is not about one.
    pub seq: u64,
    /// What was being done: the record's operation, or "open", "frame", "close".
    pub op: &'static str,
    /// Where, relative to the target, as far as known; bytes, not text.
    pub path: Vec<u8>,
    pub errno: Option<i32>,
    pub message: String,
}

impl ReplayError {
    pub(super) fn new(code: ReplayCode, op: &'static str, message: impl Into<String>) -> Self {
        Self { code, seq: 0, op, path: Vec::new(), errno: None, message: message.into() }
    }

    pub(super) fn of_fault(fault: &Fault, seq: u64, op: &'static str, path: Vec<u8>) -> Self {
        Self { code: fault.code(), seq, op, path, errno: fault.errno(), message: fault.to_string() }
    }

    pub(super) fn of_decode(e: &DecodeError) -> Self {
        let mut out = Self::new(ReplayCode::Corrupt, "frame", e.to_string());
        if let DecodeError::BadChecksum { seq } | DecodeError::BadOp { seq, .. } = e {
            out.seq = *seq;
        }
        out
    }

    pub fn hint(&self) -> &'static str {
        self.code.hint()
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.op)?;
        if self.seq != 0 {
            write!(f, " (record {})", self.seq)?;
        }
        if !self.path.is_empty() {
            write!(f, " {}", self.path.escape_ascii())?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ReplayError {}

/// A failure inside one record, before its place is known.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Sys {
        call: &'static str,
        errno: i32,
    },
    /// The object's handle no longer opens: it is gone from the target.
    Stale,
    Diverged(&'static str),
    Corrupt(&'static str),
    Unsupported(&'static str),
}

pub(crate) type Done<T = ()> = Result<T, Fault>;

impl Fault {
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Sys { errno, .. } => Some(*errno),
            Self::Stale => Some(libc::ESTALE),
            _ => None,
        }
    }

    pub fn is(&self, wanted: i32) -> bool {
        matches!(self, Self::Sys { errno, .. } if *errno == wanted)
    }

    fn code(&self) -> ReplayCode {
        match self {
            Self::Stale | Self::Diverged(_) => ReplayCode::Diverged,
            Self::Corrupt(_) => ReplayCode::Corrupt,
            Self::Unsupported(_) => ReplayCode::Unsupported,
            Self::Sys { errno, .. } => match *errno {
                libc::ENOENT
                | libc::EEXIST
                | libc::ENOTDIR
                | libc::EISDIR
                | libc::ENOTEMPTY
                | libc::ELOOP
                | libc::ENODATA
                | libc::ESTALE => ReplayCode::Diverged,
                libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY => ReplayCode::Unsupported,
                _ => ReplayCode::Io,
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sys { call, errno } => {
                write!(f, "{call}: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::Stale => f.write_str("the object is gone from the target"),
            Self::Diverged(why) | Self::Corrupt(why) | Self::Unsupported(why) => f.write_str(why),
        }
    }
}

impl From<DecodeError> for Fault {
    fn from(e: DecodeError) -> Self {
        match e {
            DecodeError::Truncated { .. } => {
                Self::Corrupt("fields are shorter than the operation's")
            }
            _ => Self::Corrupt("fields cannot be read"),
        }
    }
}

/// Name of an operation, for messages.
pub(super) fn op_name(op: Op) -> &'static str {
    match op {
        Op::Bind => "BIND",
        Op::Mknod => "MKNOD",
        Op::Mkdir => "MKDIR",
        Op::Symlink => "SYMLINK",
        Op::Link => "LINK",
        Op::Unlink => "UNLINK",
        Op::Rmdir => "RMDIR",
        Op::Rename => "RENAME",
        Op::Tmpfile => "TMPFILE",
        Op::Write => "WRITE",
        Op::Setattr => "SETATTR",
        Op::Setxattr => "SETXATTR",
        Op::Removexattr => "REMOVEXATTR",
        Op::Fallocate => "FALLOCATE",
        Op::Copy => "COPY",
        Op::Setflags => "SETFLAGS",
        Op::Setxflags => "SETXFLAGS",
        Op::Gone => "GONE",
        Op::Marker => "MARKER",
        Op::Image => "IMAGE",
        Op::ImageData => "IMAGE_DATA",
        Op::ImageHole => "IMAGE_HOLE",
        Op::ImageLater => "IMAGE_LATER",
        Op::ImageDir => "IMAGE_DIR",
        Op::ImageEntry => "IMAGE_ENTRY",
        Op::ScanBegin => "SCAN_BEGIN",
        Op::ScanEnd => "SCAN_END",
        Op::Codes => "codes",
    }
}
