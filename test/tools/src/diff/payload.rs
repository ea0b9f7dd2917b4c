//! Bytes to write, made from a seed: the same on both sides without being sent.

use super::op::Fill;

/// Fills `buf` for `seed`. Seed 0 gives zeros; any other gives bytes that are never all zero in
/// eight, so that a hole never looks like data.
pub fn fill(seed: u64, buf: &mut [u8]) {
    if seed == 0 {
        buf.fill(0);
        return;
    }
    let mut x = seed | 1;
    for chunk in buf.chunks_mut(8) {
        // splitmix64 (Steele, Lea, Flood 2014).
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let word = ((z ^ (z >> 31)) | 1).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// A reusable buffer whose slices start on a page, as O_DIRECT demands.
#[derive(Default)]
pub struct AlignedBuf {
    raw: Vec<u8>,
}

/// Alignment that satisfies every block device in use.
const ALIGN: usize = 4096;

impl AlignedBuf {
    pub fn get(&mut self, len: usize) -> &mut [u8] {
        if self.raw.len() < len + ALIGN {
            self.raw.resize(len + ALIGN, 0);
        }
        let skip = self.raw.as_ptr().align_offset(ALIGN);
        &mut self.raw[skip..skip + len]
    }

    pub fn filled(&mut self, f: Fill) -> &[u8] {
        let buf = self.get(f.len as usize);
        fill(f.seed, buf);
        buf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_is_reproducible_and_aligned() {
        let mut a = AlignedBuf::default();
        let x = a.filled(Fill { seed: 7, len: 100 }).to_vec();
        assert_eq!(a.filled(Fill { seed: 7, len: 100 }), x);
        assert_eq!(a.get(4096).as_ptr() as usize % ALIGN, 0);
        assert!(a.filled(Fill { seed: 0, len: 9 }).iter().all(|b| *b == 0));
    }
}
