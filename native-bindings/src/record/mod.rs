//! Records and frames, version 1, as docs/FORMAT.md specifies them.
//!
//! Invariant: what `encode` writes `decode` reads back, and both agree with the golden vectors in
//! `test/vectors/` that the TypeScript codec reads too.

mod decode;
mod encode;
mod frame;

pub use decode::{
    u64_at, Bytes, Creation, Cursor, DecodeError, Fields, ImageDir, ImagePayload, RecordView,
    Records,
};
pub use encode::{crc_of_sealed, seal, Encoder};
pub use frame::{chain_of, seal_frame, seal_frame_with, FrameHeader, FrameView};

/// Bytes in front of the fields of a record.
pub const RECORD_HEADER: usize = 96;
/// Where in it the operation is.
pub const OP_AT: usize = 24;
/// Bytes in front of the body of a frame.
pub const FRAME_HEADER: usize = 80;
/// Version of both formats.
pub const FORMAT_VERSION: u8 = 1;
/// Longest record: a write of 1 MiB and its fields.
pub const RECORD_BYTES_MAX: usize = (1 << 20) + (128 << 10);
/// Lengths of records are multiples of it.
pub const RECORD_ALIGN: usize = 8;
/// Longest frame body.
pub const FRAME_BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes of records after which the association of names and objects is repeated.
pub const BIND_INTERVAL_BYTES: u64 = 64 << 20;
/// Nanoseconds value that says "time not known".
pub const TIME_UNKNOWN: u32 = u32::MAX;

/// The writer lacked CAP_FSETID: the effect clears set-uid and set-gid.
pub const FLAG_KILLPRIV: u8 = 1;
/// A store to a shared mapping; the writer is not known.
pub const FLAG_MAPPED: u8 = 2;
/// Made by recovery or a scan, not by an application's call.
pub const FLAG_RECOVERED: u8 = 4;
/// An image to compare the target with, not to make it so.
pub const FLAG_COMPARE: u8 = 8;

/// Segments of a file: what one code stands for. The last one of a file may be shorter.
pub const SEGMENT_BYTES: u64 = 64 << 10;
/// Bytes of one code.
pub const CODE_BYTES: usize = 16;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    Bind = 1,
    Mknod = 2,
    Mkdir = 3,
    Symlink = 4,
    Link = 5,
    Unlink = 6,
    Rmdir = 7,
    Rename = 8,
    Tmpfile = 9,
    Write = 10,
    Setattr = 11,
    Setxattr = 12,
    Removexattr = 13,
    Fallocate = 14,
    Copy = 15,
    Setflags = 16,
    Setxflags = 17,
    Gone = 18,
    Marker = 19,
    Image = 32,
    ImageData = 33,
    ImageHole = 34,
    ImageDir = 35,
    ImageEntry = 36,
    ScanBegin = 37,
    ScanEnd = 38,
    Codes = 39,
    ImageLater = 40,
}

impl Op {
    /// The operation of a code, or `None` for a code that version 1 does not have.
    pub fn from_u8(code: u8) -> Option<Self> {
        use Op::*;
        const ALL: [Op; 28] = [
            Bind,
            Mknod,
            Mkdir,
            Symlink,
            Link,
            Unlink,
            Rmdir,
            Rename,
            Tmpfile,
            Write,
            Setattr,
            Setxattr,
            Removexattr,
            Fallocate,
            Copy,
            Setflags,
            Setxflags,
            Gone,
            Marker,
            Image,
            ImageData,
            ImageHole,
            ImageDir,
            ImageEntry,
            ScanBegin,
            ScanEnd,
            Codes,
            ImageLater,
        ];
        ALL.into_iter().find(|op| *op as u8 == code)
    }
}

/// Identity of a backing object: inode number and a generation derived from its file handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Oid {
    pub ino: u64,
    pub gen: u64,
}

impl Oid {
    /// No object.
    pub const NONE: Oid = Oid { ino: 0, gen: 0 };

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// A point in time as file systems keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

impl Time {
    /// "Not known": a reader leaves the object's time alone.
    pub const UNKNOWN: Time = Time { sec: 0, nsec: TIME_UNKNOWN };

    pub fn is_known(self) -> bool {
        self.nsec != TIME_UNKNOWN
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub seq: u64,
    pub clock: u64,
    pub op: Op,
    pub flags: u8,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub comm: [u8; 16],
    pub oid: Oid,
    pub time: Time,
    pub mode: u32,
}

/// Length of a record with these parts, padding included.
pub const fn record_len(fields: usize, payload: usize) -> usize {
    (RECORD_HEADER + fields + payload + 7) & !7
}

/// Valid bits of SETATTR.
pub mod valid {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 2;
    pub const GID: u32 = 4;
    pub const SIZE: u32 = 8;
    pub const ATIME: u32 = 16;
    pub const MTIME: u32 = 32;
}

#[cfg(test)]
mod tests;
