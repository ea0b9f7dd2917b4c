//! Reads records without copying. Every length is checked: a record may come from a damaged disk.

use super::{Header, Oid, Op, Time, RECORD_ALIGN, RECORD_BYTES_MAX, RECORD_HEADER};

/// What is wrong with bytes that should be a record or a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the structure says.
    Truncated { need: usize, have: usize },
    /// A length that no writer produces.
    BadLength(usize),
    /// The checksum differs: bytes were changed after they were written.
    BadChecksum { seq: u64 },
    /// Not a frame at all.
    BadMagic,
    /// A version this reader does not know.
    BadVersion(u8),
    /// An operation this reader does not know.
    BadOp { seq: u64, op: u8 },
    /// The chain value of the header does not match the header.
    BadChain,
    /// The records do not match what the frame's header says of them.
    BadFrame(&'static str),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated { need, have } => {
                write!(f, "truncated: needs {need} bytes, has {have}")
            }
            Self::BadLength(n) => write!(f, "impossible length {n}"),
            Self::BadChecksum { seq } => write!(f, "checksum of record {seq} differs"),
            Self::BadMagic => write!(f, "not a holdfast frame (magic)"),
            Self::BadVersion(v) => write!(f, "version {v}; this reader knows version 1"),
            Self::BadOp { seq, op } => write!(f, "record {seq} has unknown operation {op}"),
            Self::BadChain => write!(f, "chain value does not match the frame header"),
            Self::BadFrame(why) => write!(f, "frame and records disagree: {why}"),
        }
    }
}

impl std::error::Error for DecodeError {}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

pub(super) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// The little-endian word at byte `at`.
pub fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut v = [0; 8];
    v.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(v)
}

/// A record in somebody else's memory; header fields are read on demand.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    op: Op,
}

impl<'a> RecordView<'a> {
    /// Reads the record at the start of `bytes`; lengths are checked, the checksum is not.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() < RECORD_HEADER {
            return Err(DecodeError::Truncated { need: RECORD_HEADER, have: bytes.len() });
        }
        let len = u32_at(bytes, 0) as usize;
        if !(RECORD_HEADER..=RECORD_BYTES_MAX).contains(&len) || len % RECORD_ALIGN != 0 {
            return Err(DecodeError::BadLength(len));
        }
        if bytes.len() < len {
            return Err(DecodeError::Truncated { need: len, have: bytes.len() });
        }
        let bytes = &bytes[..len];
        let parts = u16_at(bytes, 26) as usize + u32_at(bytes, 28) as usize;
        if RECORD_HEADER + parts > len {
            return Err(DecodeError::BadLength(RECORD_HEADER + parts));
        }
        let op = Op::from_u8(bytes[24])
            .ok_or(DecodeError::BadOp { seq: u64_at(bytes, 8), op: bytes[24] })?;
        Ok(Self { bytes, op })
    }

    /// Compares the checksum.
    pub fn verify(&self) -> Result<(), DecodeError> {
        if crc32c::crc32c(&self.bytes[8..]) == u32_at(self.bytes, 4) {
            Ok(())
        } else {
            Err(DecodeError::BadChecksum { seq: self.seq() })
        }
    }

    /// Checksum, fields and length are as they have to be.
    pub fn is_sound(&self) -> bool {
        let content = RECORD_HEADER + u16_at(self.bytes, 26) as usize + self.payload().len();
        let tight = self.bytes.len() - content < RECORD_ALIGN;
        let mut c = self.fields();
        tight && self.verify().is_ok() && Fields::read(self.op, &mut c).is_ok() && c.is_at_end()
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn seq(&self) -> u64 {
        u64_at(self.bytes, 8)
    }

    pub fn op(&self) -> Op {
        self.op
    }

    pub fn flags(&self) -> u8 {
        self.bytes[25]
    }

    pub fn oid(&self) -> Oid {
        Oid { ino: u64_at(self.bytes, 64), gen: u64_at(self.bytes, 72) }
    }

    /// The object's mtime after the effect.
    pub fn time(&self) -> Time {
        Time { sec: u64_at(self.bytes, 80) as i64, nsec: u32_at(self.bytes, 88) }
    }

    /// The object's st_mode after the effect; 0 when not known.
    pub fn mode(&self) -> u32 {
        u32_at(self.bytes, 92)
    }

    pub fn header(&self) -> Header {
        let b = self.bytes;
        let mut comm = [0; 16];
        comm.copy_from_slice(&b[48..64]);
        Header {
            seq: self.seq(),
            clock: u64_at(b, 16),
            op: self.op,
            flags: b[25],
            uid: u32_at(b, 32),
            gid: u32_at(b, 36),
            pid: u32_at(b, 40),
            comm,
            oid: self.oid(),
            time: self.time(),
            mode: self.mode(),
        }
    }

    pub fn fields(&self) -> Cursor<'a> {
        let len = u16_at(self.bytes, 26) as usize;
        Cursor::new(&self.bytes[RECORD_HEADER..RECORD_HEADER + len])
    }

    pub fn payload(&self) -> Bytes<'a> {
        let at = RECORD_HEADER + u16_at(self.bytes, 26) as usize;
        &self.bytes[at..at + u32_at(self.bytes, 28) as usize]
    }

    /// The fields of this record, typed.
    pub fn decode(&self) -> Result<Fields<'a>, DecodeError> {
        let mut c = self.fields();
        Fields::read(self.op, &mut c)
    }
}

/// Bytes of a record.
pub type Bytes<'a> = &'a [u8];

/// Reads fields front to back.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(n).ok_or(DecodeError::BadLength(n))?;
        let out = self
            .bytes
            .get(self.at..end)
            .ok_or(DecodeError::Truncated { need: end, have: self.bytes.len() })?;
        self.at = end;
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16_at(self.take(2)?, 0))
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32_at(self.take(4)?, 0))
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64_at(self.take(8)?, 0))
    }

    pub fn oid(&mut self) -> Result<Oid, DecodeError> {
        Ok(Oid { ino: self.u64()?, gen: self.u64()? })
    }

    pub fn time(&mut self) -> Result<Time, DecodeError> {
        Ok(Time { sec: self.u64()? as i64, nsec: self.u32()? })
    }

    pub fn name(&mut self) -> Result<Bytes<'a>, DecodeError> {
        let len = self.u16()? as usize;
        self.take(len)
    }
}

/// The fields of MKNOD, MKDIR and SYMLINK.
#[derive(Clone, Copy, Debug)]
pub struct Creation<'a> {
    pub parent: Oid,
    pub pmtime: Time,
    pub rdev: u32,
    pub requested_mode: u32,
    pub umask: u32,
    pub uid: u32,
    pub gid: u32,
    pub name: Bytes<'a>,
}

/// The typed fields of a record (docs/FORMAT.md, table of operations).
#[derive(Clone, Copy, Debug)]
pub enum Fields<'a> {
    Bind {
        parent: Oid,
        name: Bytes<'a>,
    },
    Mknod(Creation<'a>),
    Mkdir(Creation<'a>),
    Symlink(Creation<'a>),
    Link {
        parent: Oid,
        pmtime: Time,
        name: Bytes<'a>,
    },
    Unlink {
        parent: Oid,
        pmtime: Time,
        links: u32,
        name: Bytes<'a>,
    },
    Rmdir {
        parent: Oid,
        pmtime: Time,
        links: u32,
        name: Bytes<'a>,
    },
    Rename {
        old_parent: Oid,
        old_pmtime: Time,
        new_parent: Oid,
        new_pmtime: Time,
        flags: u32,
        replaced: Oid,
        replaced_links: u32,
        old_name: Bytes<'a>,
        new_name: Bytes<'a>,
    },
    Tmpfile {
        parent: Oid,
        requested_mode: u32,
        umask: u32,
        uid: u32,
        gid: u32,
    },
    Write {
        offset: u64,
    },
    Setattr {
        valid: u32,
        mode: u32,
        uid: u32,
        gid: u32,
        size: u64,
        atime: Time,
        mtime: Time,
    },
    Setxattr {
        flags: u32,
        name: Bytes<'a>,
    },
    Removexattr {
        name: Bytes<'a>,
    },
    Fallocate {
        mode: u32,
        offset: u64,
        len: u64,
        size_after: u64,
    },
    Copy {
        source: Oid,
        source_offset: u64,
        offset: u64,
        len: u64,
    },
    Setflags {
        flags: u32,
    },
    Setxflags {
        fsxattr: Bytes<'a>,
    },
    Gone,
    Marker {
        name: Bytes<'a>,
    },
    Image {
        uid: u32,
        gid: u32,
        rdev: u32,
        links: u32,
        size: u64,
        fsflags: u32,
    },
    ImageData {
        offset: u64,
    },
    ImageHole {
        offset: u64,
        len: u64,
    },
    ImageLater {
        offset: u64,
        len: u64,
    },
    ImageDir {
        range: u8,
        after: Bytes<'a>,
        up_to: Bytes<'a>,
    },
    ImageEntry {
        parent: Oid,
        pmtime: Time,
        present: bool,
        name: Bytes<'a>,
    },
    ScanBegin {
        kind: u8,
    },
    ScanEnd {
        kind: u8,
    },
    /// Codes of the segments that `[offset, offset + len)` covers; `offset` begins one.
    Codes {
        offset: u64,
        len: u64,
    },
}

fn creation<'a>(c: &mut Cursor<'a>) -> Result<Creation<'a>, DecodeError> {
    Ok(Creation {
        parent: c.oid()?,
        pmtime: c.time()?,
        rdev: c.u32()?,
        requested_mode: c.u32()?,
        umask: c.u32()?,
        uid: c.u32()?,
        gid: c.u32()?,
        name: c.name()?,
    })
}

impl<'a> Fields<'a> {
    fn read(op: Op, c: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            Op::Bind => Self::Bind { parent: c.oid()?, name: c.name()? },
            Op::Mknod => Self::Mknod(creation(c)?),
            Op::Mkdir => Self::Mkdir(creation(c)?),
            Op::Symlink => Self::Symlink(creation(c)?),
            Op::Link => Self::Link { parent: c.oid()?, pmtime: c.time()?, name: c.name()? },
            Op::Unlink | Op::Rmdir => {
                let (parent, pmtime, links, name) = (c.oid()?, c.time()?, c.u32()?, c.name()?);
                if op == Op::Unlink {
                    Self::Unlink { parent, pmtime, links, name }
                } else {
                    Self::Rmdir { parent, pmtime, links, name }
                }
            }
            Op::Rename => Self::Rename {
                old_parent: c.oid()?,
                old_pmtime: c.time()?,
                new_parent: c.oid()?,
                new_pmtime: c.time()?,
                flags: c.u32()?,
                replaced: c.oid()?,
                replaced_links: c.u32()?,
                old_name: c.name()?,
                new_name: c.name()?,
            },
            Op::Tmpfile => Self::Tmpfile {
                parent: c.oid()?,
                requested_mode: c.u32()?,
                umask: c.u32()?,
                uid: c.u32()?,
                gid: c.u32()?,
            },
            Op::Write => Self::Write { offset: c.u64()? },
            Op::Setattr => Self::Setattr {
                valid: c.u32()?,
                mode: c.u32()?,
                uid: c.u32()?,
                gid: c.u32()?,
                size: c.u64()?,
                atime: c.time()?,
                mtime: c.time()?,
            },
            Op::Setxattr => Self::Setxattr { flags: c.u32()?, name: c.name()? },
            Op::Removexattr => Self::Removexattr { name: c.name()? },
            Op::Fallocate => Self::Fallocate {
                mode: c.u32()?,
                offset: c.u64()?,
                len: c.u64()?,
                size_after: c.u64()?,
            },
            Op::Copy => Self::Copy {
                source: c.oid()?,
                source_offset: c.u64()?,
                offset: c.u64()?,
                len: c.u64()?,
            },
            Op::Setflags => Self::Setflags { flags: c.u32()? },
            Op::Setxflags => Self::Setxflags { fsxattr: c.take(28)? },
            Op::Gone => Self::Gone,
            Op::Marker => Self::Marker { name: c.name()? },
            Op::Image => Self::Image {
                uid: c.u32()?,
                gid: c.u32()?,
                rdev: c.u32()?,
                links: c.u32()?,
                size: c.u64()?,
                fsflags: c.u32()?,
            },
            Op::ImageData => Self::ImageData { offset: c.u64()? },
            Op::ImageHole => Self::ImageHole { offset: c.u64()?, len: c.u64()? },
            Op::ImageDir => Self::ImageDir { range: c.u8()?, after: c.name()?, up_to: c.name()? },
            Op::ImageEntry => Self::ImageEntry {
                parent: c.oid()?,
                pmtime: c.time()?,
                present: c.u8()? != 0,
                name: c.name()?,
            },
            Op::ScanBegin => Self::ScanBegin { kind: c.u8()? },
            Op::ScanEnd => Self::ScanEnd { kind: c.u8()? },
            Op::Codes => Self::Codes { offset: c.u64()?, len: c.u64()? },
            Op::ImageLater => Self::ImageLater { offset: c.u64()?, len: c.u64()? },
        })
    }
}

/// The payload of IMAGE: link target, then xattrs.
pub struct ImagePayload<'a> {
    pub target: Bytes<'a>,
    xattrs: Cursor<'a>,
    left: u16,
}

impl<'a> ImagePayload<'a> {
    pub fn parse(payload: Bytes<'a>) -> Result<Self, DecodeError> {
        let mut c = Cursor::new(payload);
        let len = c.u32()? as usize;
        let target = c.take(len)?;
        let left = c.u16()?;
        Ok(Self { target, xattrs: c, left })
    }

    /// The next xattr: name and value.
    pub fn next_xattr(&mut self) -> Result<Option<(Bytes<'a>, Bytes<'a>)>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let name = self.xattrs.name()?;
        let len = self.xattrs.u32()? as usize;
        Ok(Some((name, self.xattrs.take(len)?)))
    }
}

/// The payload of IMAGE_DIR: entries.
pub struct ImageDir<'a> {
    entries: Cursor<'a>,
    left: u32,
}

impl<'a> ImageDir<'a> {
    pub fn parse(payload: Bytes<'a>) -> Result<Self, DecodeError> {
        let mut c = Cursor::new(payload);
        let left = c.u32()?;
        Ok(Self { entries: c, left })
    }

    /// The next entry: object, st_mode, name.
    pub fn next_entry(&mut self) -> Result<Option<(Oid, u32, Bytes<'a>)>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        Ok(Some((self.entries.oid()?, self.entries.u32()?, self.entries.name()?)))
    }
}

/// Walks the records of a frame's body.
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match RecordView::parse(self.rest) {
            Ok(view) => {
                self.rest = &self.rest[view.bytes().len()..];
                Some(Ok(view))
            }
            Err(e) => {
                self.rest = &[];
                Some(Err(e))
            }
        }
    }
}
