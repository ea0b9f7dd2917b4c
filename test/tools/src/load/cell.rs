//! Self-describing content: files consist of 64-byte cells that say who wrote them and where.
//!
//! Layout, little endian: magic u32, thread u32, file u64, op u64, offset u64, filler 24 bytes
//! derived from the former, unused u32 (zero), CRC-32C of all before u32. A cell of zeros is a
//! hole.

/// Bytes in a cell. Every write, truncation and file size is a multiple of it.
pub const CELL: usize = 64;
const MAGIC: u32 = 0x4c6c_6543;
/// The offset of the checksum.
const SUM_AT: usize = CELL - 4;

/// Who wrote a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub thread: u32,
    pub file: u64,
    pub op: u64,
    pub offset: u64,
}

/// What stands in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Zero,
    Written(Origin),
    /// Neither zeros nor a cell with a right checksum: torn or foreign.
    Torn,
}

pub fn encode(o: &Origin, out: &mut [u8]) {
    out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[4..8].copy_from_slice(&o.thread.to_le_bytes());
    out[8..16].copy_from_slice(&o.file.to_le_bytes());
    out[16..24].copy_from_slice(&o.op.to_le_bytes());
    out[24..32].copy_from_slice(&o.offset.to_le_bytes());
    crate::diff::payload::fill(o.op ^ o.offset.rotate_left(32) | 1, &mut out[32..56]);
    out[56..SUM_AT].fill(0);
    let sum = crc32c::crc32c(&out[..SUM_AT]);
    out[SUM_AT..CELL].copy_from_slice(&sum.to_le_bytes());
}

/// The cells of one write.
pub fn encode_run(first: Origin, cells: usize) -> Vec<u8> {
    let mut buf = vec![0u8; cells * CELL];
    for (i, out) in buf.chunks_mut(CELL).enumerate() {
        encode(&Origin { offset: first.offset + (i * CELL) as u64, ..first }, out);
    }
    buf
}

pub fn decode(cell: &[u8]) -> Cell {
    if cell.iter().all(|b| *b == 0) {
        return Cell::Zero;
    }
    let u32_at =
        |i: usize| cell.get(i..i + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let u64_at = |i: usize| Some(u64::from(u32_at(i)?) | u64::from(u32_at(i + 4)?) << 32);
    let read = || {
        let good = u32_at(0)? == MAGIC && u32_at(SUM_AT)? == crc32c::crc32c(&cell[..SUM_AT]);
        let o =
            Origin { thread: u32_at(4)?, file: u64_at(8)?, op: u64_at(16)?, offset: u64_at(24)? };
        good.then_some(o)
    };
    read().map_or(Cell::Torn, Cell::Written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_round_trips_and_one_flipped_bit_shows() {
        let o = Origin { thread: 3, file: 9, op: 1 << 40, offset: 640 };
        let mut buf = encode_run(o, 2);
        assert_eq!(decode(&buf[..CELL]), Cell::Written(o));
        assert_eq!(decode(&buf[CELL..]), Cell::Written(Origin { offset: 704, ..o }));
        buf[40] ^= 1;
        assert_eq!(decode(&buf[..CELL]), Cell::Torn);
        assert_eq!(decode(&[0; CELL]), Cell::Zero);
    }
}
