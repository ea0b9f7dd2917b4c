//! Codes: a checksum per segment of a file, by which two copies are compared without moving them.
//!
//! A code says what the segment's bytes are, whether a hole or written zeros, and however far the file
//! goes: so growing a file changes no code. BLAKE3 (blake3-team/blake3), cut to 126 bits: equal codes
//! mean equal bytes, also where somebody would like them to differ.

mod store;
mod sweep;

pub use store::CodeStore;
pub use sweep::{start_sweep, SweepState};

use crate::record::{u64_at, CODE_BYTES, SEGMENT_BYTES};

/// Bits that `store` needs for itself.
const STATE_MASK: u64 = 3;

/// The checksum of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code([u64; 2]);

impl Code {
    /// Of a segment's bytes; zeros at the end count as not there.
    pub fn of(bytes: &[u8]) -> Self {
        debug_assert!(bytes.len() as u64 <= SEGMENT_BYTES);
        let hash = blake3::hash(without_zeros_at_end(bytes));
        let b = hash.as_bytes();
        Self([u64_at(b, 0), u64_at(b, 8) & !STATE_MASK])
    }

    pub fn bytes(self) -> [u8; CODE_BYTES] {
        let mut out = [0; CODE_BYTES];
        out[..8].copy_from_slice(&self.0[0].to_le_bytes());
        out[8..].copy_from_slice(&self.0[1].to_le_bytes());
        out
    }
}

fn without_zeros_at_end(bytes: &[u8]) -> &[u8] {
    let mut end = bytes.len();
    while end >= 8 && bytes[end - 8..end] == [0; 8] {
        end -= 8;
    }
    while end > 0 && bytes[end - 1] == 0 {
        end -= 1;
    }
    &bytes[..end]
}

/// The segments that `[from, to)` touches.
pub fn segments(from: u64, to: u64) -> std::ops::Range<u64> {
    from / SEGMENT_BYTES..to.div_ceil(SEGMENT_BYTES)
}

/// Reads up to `buf.len()` bytes; fewer at the end of the file.
pub fn read_at(fd: i32, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let rest = &mut buf[done..];
        // SAFETY: valid buffer of that length.
        let n = unsafe {
            let at = (offset as usize + done) as i64;
            libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), at)
        };
        match n {
            0 => break,
            n if n > 0 => done += n as usize,
            _ => {
                let e = std::io::Error::last_os_error();
                if e.kind() != std::io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
        }
    }
    Ok(done)
}

/// Bytes that the file system holds: an upper bound of what a tree on it can.
pub fn fs_used_bytes(fd: i32) -> u64 {
    // SAFETY: all zero is a valid buffer; the descriptor is open.
    let s = unsafe {
        let mut s: libc::statvfs = std::mem::zeroed();
        libc::fstatvfs(fd, &mut s);
        s
    };
    (s.f_blocks - s.f_bfree.min(s.f_blocks)) * s.f_frsize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_do_not_tell_zeros_from_nothing() {
        assert_eq!(Code::of(b""), Code::of(&[0; 4096]));
        assert_eq!(Code::of(b"abc"), Code::of(b"abc\0\0\0\0\0\0\0\0\0\0"));
        assert_ne!(Code::of(b"abc"), Code::of(b"\0abc"));
        assert_ne!(Code::of(&[1; 65536]), Code::of(&[1; 65535]));
    }

    #[test]
    fn codes_name_the_segments_a_range_touches() {
        assert_eq!(segments(0, 0), 0..0);
        assert_eq!(segments(0, 1), 0..1);
        assert_eq!(segments(65535, 65537), 0..2);
        assert_eq!(segments(65536, 131072), 1..2);
    }
}
