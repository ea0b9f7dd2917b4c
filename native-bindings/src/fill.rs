//! The body of a `fill` message: what a range of a file is at its source, and when. Little endian:
//! ino u64, gen u64, offset u64, length u64, through u64, mtime (s i64, ns u32), kind u32, crc32c u32 of
//! all but itself, zero u32; then the bytes. docs/PROTOCOL.md.

use crate::record::Oid;

pub const FILL_HEAD_BYTES: usize = 64;
const CRC_AT: usize = 56;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillKind {
    /// These bytes; where they end before the range does, the file has ended.
    Data = 0,
    /// Nothing is stored, or the file has ended.
    Hole = 1,
    /// The object does not exist any more.
    Gone = 2,
}

/// All but the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillHead {
    pub kind: FillKind,
    pub oid: Oid,
    pub offset: u64,
    pub len: u64,
    /// What the source had captured by then: all changes of the range up to it are in it, and none after it.
    pub through: u64,
    pub mtime: (i64, u32),
}

impl FillHead {
    /// Writes the head in front of `bytes` bytes that are there already.
    pub fn write(&self, buf: &mut [u8], bytes: usize) {
        let words = [self.oid.ino, self.oid.gen, self.offset, self.len, self.through];
        for (at, word) in words.into_iter().chain([self.mtime.0 as u64]).enumerate() {
            buf[at * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        buf[48..52].copy_from_slice(&self.mtime.1.to_le_bytes());
        buf[52..56].copy_from_slice(&(self.kind as u32).to_le_bytes());
        buf[CRC_AT..FILL_HEAD_BYTES].fill(0);
        let crc = crc32c::crc32c(&buf[..FILL_HEAD_BYTES + bytes]);
        buf[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// A body and its bytes; `None` for what is none, or was changed on its way.
    pub fn read(body: &[u8]) -> Option<(Self, &[u8])> {
        let (head, bytes) = body.split_at_checked(FILL_HEAD_BYTES)?;
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default());
        let crc = crc32c::crc32c(&head[..CRC_AT]);
        let crc = crc32c::crc32c_append(crc, &[0; FILL_HEAD_BYTES - CRC_AT]);
        let kind = match half(52) {
            0 => FillKind::Data,
            1 => FillKind::Hole,
            2 => FillKind::Gone,
            _ => return None,
        };
        let read = Self {
            kind,
            oid: Oid { ino: word(0), gen: word(8) },
            offset: word(16),
            len: word(24),
            through: word(32),
            mtime: (word(40) as i64, half(48)),
        };
        let most = if kind == FillKind::Data { read.len } else { 0 };
        let sound = crc32c::crc32c_append(crc, bytes) == half(CRC_AT)
            && half(60) == 0
            && bytes.len() as u64 <= most
            && read.offset.checked_add(read.len).is_some();
        sound.then_some((read, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_as_it_was_written_and_not_when_a_bit_has_turned() {
        let head = FillHead {
            kind: FillKind::Data,
            oid: Oid { ino: 1 << 40, gen: u64::MAX },
            offset: 4096,
            len: 3,
            through: 77,
            mtime: (-1, 999_999_999),
        };
        let mut body = vec![0xaa; FILL_HEAD_BYTES + 3];
        body[FILL_HEAD_BYTES..].copy_from_slice(b"abc");
        head.write(&mut body, 3);
        assert_eq!(FillHead::read(&body), Some((head, &b"abc"[..])));
        for bit in 0..body.len() * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FillHead::read(&body), None, "bit {bit}");
            body[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(FillHead::read(&body[..body.len() - 1]), None);
        assert_eq!(FillHead::read(b"short"), None);
    }
}
