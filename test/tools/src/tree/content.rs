//! File content: which bytes differ, and where the data lies.

use std::os::fd::RawFd;

use crate::sys::{file, SysResult};

/// Bytes compared at a time.
const CHUNK: usize = 1 << 20;

/// A run of data, `[start, end)`.
pub type Extent = (u64, u64);

/// The first difference in content.
pub struct Mismatch {
    pub offset: u64,
    pub left: u8,
    pub right: u8,
}

/// Two buffers, reused from file to file.
#[derive(Default)]
pub struct Buffers {
    left: Vec<u8>,
    right: Vec<u8>,
}

/// Where data continues at or after `pos`; `size` when nothing follows.
fn next_data(fd: RawFd, pos: u64, size: u64) -> SysResult<u64> {
    match file::lseek(fd, pos as i64, libc::SEEK_DATA) {
        Ok(n) => Ok((n as u64).clamp(pos, size)),
        Err(libc::ENXIO) => Ok(size),
        Err(libc::EINVAL) => Ok(pos),
        Err(e) => Err(e),
    }
}

/// Compares `[0, size)` of two files, skipping what is a hole in both.
pub fn first_mismatch(
    left: RawFd,
    right: RawFd,
    size: u64,
    bufs: &mut Buffers,
) -> SysResult<Option<Mismatch>> {
    let mut pos = 0;
    while pos < size {
        if size > CHUNK as u64 {
            pos = next_data(left, pos, size)?.min(next_data(right, pos, size)?);
        }
        let len = CHUNK.min((size - pos) as usize);
        if bufs.left.len() < len {
            bufs.left.resize(len, 0);
            bufs.right.resize(len, 0);
        }
        let (a, b) = (&mut bufs.left[..len], &mut bufs.right[..len]);
        // A short read leaves stale bytes: fill what is missing with bytes that differ.
        let got = file::pread_full(left, a, pos as i64)?;
        a[got..].fill(0x55);
        let got = file::pread_full(right, b, pos as i64)?;
        b[got..].fill(0xaa);
        if a != b {
            let i = a.iter().zip(b.iter()).position(|(x, y)| x != y).unwrap_or(0);
            return Ok(Some(Mismatch { offset: pos + i as u64, left: a[i], right: b[i] }));
        }
        pos += len as u64;
    }
    Ok(None)
}

/// The data extents of a file, rounded outward to `granularity` and merged.
pub fn data_extents(fd: RawFd, size: u64, granularity: u64) -> SysResult<Vec<Extent>> {
    let g = granularity.max(1);
    let mut extents: Vec<Extent> = Vec::new();
    let mut pos = 0;
    while pos < size {
        let start = next_data(fd, pos, size)?;
        if start >= size {
            break;
        }
        let end = match file::lseek(fd, start as i64, libc::SEEK_HOLE) {
            Ok(n) => (n as u64).clamp(start + 1, size),
            Err(libc::EINVAL | libc::ENXIO) => size,
            Err(e) => return Err(e),
        };
        let (from, to) = (start / g * g, end.div_ceil(g) * g);
        match extents.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => extents.push((from, to)),
        }
        pos = end;
    }
    Ok(extents)
}
