//! Places: what a before-image is of. The key of the index is a place, followed by the seq of the change.
//!
//! Layout, big-endian so that keys of one object stand together and in order: ino, gen, kind, then
//! nothing (attributes, extended attributes, a whole file), or a name and a zero byte, or the level and
//! the number of a block.

use super::limits::BLOCK_BYTES;
use crate::record::Oid;

pub const ATTR: u8 = 1;
pub const XATTR: u8 = 2;
pub const NAME: u8 = 3;
pub const DATA: u8 = 4;
pub const WHOLE: u8 = 5;
/// A point that is to stay readable: a snapshot.
pub const POINT: u8 = 6;

/// Bytes of a key behind its place.
pub const SEQ_BYTES: usize = 8;
const HEAD: usize = 17;

/// A place, as the bytes that a key begins with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub Vec<u8>);

impl Place {
    fn head(oid: Oid, kind: u8, room: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + room + SEQ_BYTES);
        bytes.extend_from_slice(&oid.ino.to_be_bytes());
        bytes.extend_from_slice(&oid.gen.to_be_bytes());
        bytes.push(kind);
        bytes
    }

    pub fn attr(oid: Oid) -> Self {
        Self(Self::head(oid, ATTR, 0))
    }

    pub fn xattr(oid: Oid) -> Self {
        Self(Self::head(oid, XATTR, 0))
    }

    pub fn whole(oid: Oid) -> Self {
        Self(Self::head(oid, WHOLE, 0))
    }

    pub fn point() -> Self {
        Self(Self::head(Oid::NONE, POINT, 0))
    }

    pub fn name(dir: Oid, name: &[u8]) -> Self {
        let mut bytes = Self::head(dir, NAME, name.len() + 1);
        bytes.extend_from_slice(name);
        bytes.push(0);
        Self(bytes)
    }

    /// In front of all names of a directory, and behind them.
    pub fn names(dir: Oid) -> (Self, Self) {
        (Self(Self::head(dir, NAME, 0)), Self(Self::head(dir, DATA, 0)))
    }

    pub fn block(oid: Oid, level: usize, number: u64) -> Self {
        let mut bytes = Self::head(oid, DATA, 9);
        bytes.push(level as u8);
        bytes.extend_from_slice(&number.to_be_bytes());
        Self(bytes)
    }

    /// The key of a change at `seq`.
    pub fn key(&self, seq: u64) -> Vec<u8> {
        key(&self.0, seq)
    }
}

/// The key of a change at `seq` of the place with these bytes.
pub fn key(place: &[u8], seq: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(place.len() + SEQ_BYTES);
    key.extend_from_slice(place);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// The place and the seq of a key.
pub fn split(key: &[u8]) -> Option<(&[u8], u64)> {
    let (place, seq) = key.split_at_checked(key.len().checked_sub(SEQ_BYTES)?)?;
    Some((place, u64::from_be_bytes(seq.try_into().ok()?)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The object of a place.
pub fn oid_of(place: &[u8]) -> Option<Oid> {
    Some(Oid { ino: u64_at(place, 0)?, gen: u64_at(place, 8)? })
}

pub fn kind_of(place: &[u8]) -> u8 {
    place.get(16).copied().unwrap_or(0)
}

/// The name of a place of that kind.
pub fn name_of(place: &[u8]) -> Option<&[u8]> {
    place.get(HEAD..)?.strip_suffix(&[0])
}

/// Bytes `from..to` of the file, of a place of that kind.
pub fn block_of(place: &[u8]) -> Option<(u64, u64)> {
    let size = *BLOCK_BYTES.get(*place.get(HEAD)? as usize)?;
    let number = u64_at(place, HEAD + 1)?;
    Some((number.checked_mul(size)?, (number + 1).checked_mul(size)?))
}

/// One block: its level and number, and the bytes `from..to` of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub level: usize,
    pub number: u64,
    pub from: u64,
    pub to: u64,
}

/// The fewest blocks that cover `[from, to)`.
pub fn blocks(from: u64, to: u64) -> impl Iterator<Item = Block> {
    let small = BLOCK_BYTES[0];
    let mut at = from / small * small;
    let end = to.div_ceil(small) * small;
    std::iter::from_fn(move || {
        if at >= end || from >= to {
            return None;
        }
        let fits = |level: &usize| {
            let size = BLOCK_BYTES[*level];
            at % size == 0 && end - at >= size
        };
        let level = (0..BLOCK_BYTES.len()).rev().find(fits).unwrap_or(0);
        let size = BLOCK_BYTES[level];
        let block = Block { level, number: at / size, from: at, to: at + size };
        at += size;
        Some(block)
    })
}

/// The blocks that contain this one, itself included.
pub fn around(block: Block) -> impl Iterator<Item = (usize, u64)> {
    (block.level..BLOCK_BYTES.len()).map(move |level| (level, block.from / BLOCK_BYTES[level]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OID: Oid = Oid { ino: 7, gen: 9 };

    #[test]
    fn keys_stand_in_the_order_of_kinds_names_and_seqs() {
        let keys = [
            Place::attr(OID).key(u64::MAX),
            Place::name(OID, b"a").key(5),
            Place::name(OID, b"a").key(6),
            Place::name(OID, b"a\x01").key(1),
            Place::name(OID, b"ab").key(1),
            Place::block(OID, 0, 1).key(9),
            Place::block(OID, 0, 256).key(1),
            Place::block(OID, 1, 0).key(1),
            Place::whole(OID).key(0),
        ];
        assert!(keys.windows(2).all(|w| w[0] < w[1]));
        let (place, seq) = split(&keys[2]).unwrap();
        assert_eq!((name_of(place), seq, oid_of(place)), (Some(&b"a"[..]), 6, Some(OID)));
        let (place, _) = split(&keys[7]).unwrap();
        assert_eq!(block_of(place), Some((0, 64 << 10)));
    }

    #[test]
    fn blocks_cover_a_range_with_as_few_as_fit() {
        let all: Vec<_> = blocks((64 << 10) - 1, (2 << 20) + 1).collect();
        assert_eq!((all[0].level, all[0].from), (0, 60 << 10));
        assert_eq!(all.iter().filter(|b| b.level == 1).count(), 15);
        assert_eq!(all.iter().filter(|b| b.level == 2).count(), 1);
        assert_eq!(all.last().map(|b| b.to), Some((2 << 20) + 4096));
        assert!(all.windows(2).all(|w| w[0].to == w[1].from));
        assert_eq!(blocks(5, 5).count(), 0);
        assert_eq!(blocks(0, 1).count(), 1);
        assert_eq!(around(all[0]).collect::<Vec<_>>(), [(0, 15), (1, 0), (2, 0)]);
    }
}
