//! The bytes of files: which differ, and making one file's bytes the other's.
//!
//! Invariant: a hole of one side is never read; after `patch` or `fill` what is a hole in the source
//! is one in the target, as far as its file system keeps holes.

use super::job::Shared;
use super::limits::{BLOCK_BYTES, CHUNK_BYTES, COPY_BYTES_MAX, LAST_BLOCK_BYTES_MAX, RANGES_MAX};
use super::limits::{HOLE_BYTES_MIN, SMALL_FILE_BYTES};
use crate::codes::read_at;
use crate::replay::error::{Done, Fault};
use crate::replay::sys::{check, fallocate, fault, ftruncate, pwrite_all};
use std::os::fd::RawFd;

/// How much a comparison tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    First,
    All,
}

/// A file and its size.
pub type Sized = (RawFd, u64);
pub type Ranges = Vec<(u64, u64)>;

/// A stretch that is data, or a hole, on each side: `[from, to)`.
struct Stretch {
    from: u64,
    to: u64,
    a: bool,
    b: bool,
}

/// Where data is at or after `at`, and where it ends: an empty stretch at `end` when there is none.
fn data_from(fd: RawFd, at: u64, end: u64) -> Done<(u64, u64)> {
    let seek = |whence, at: u64| {
        check("lseek", || {
            // SAFETY: plain call; nobody uses the position of this descriptor.
            unsafe { libc::lseek(fd, at as i64, whence) }
        })
    };
    if at >= end {
        return Ok((end, end));
    }
    let from = match seek(libc::SEEK_DATA, at) {
        Ok(from) => (from as u64).min(end),
        Err(e) if e.is(libc::ENXIO) => return Ok((end, end)),
        // No holes are kept here: all is data.
        Err(e) if e.is(libc::EINVAL) || e.is(libc::EOPNOTSUPP) => return Ok((at, end)),
        Err(e) => return Err(e),
    };
    if from >= end {
        return Ok((end, end));
    }
    match seek(libc::SEEK_HOLE, from) {
        Ok(to) => Ok((from, (to as u64).clamp(from + 1, end))),
        Err(e) if e.is(libc::ENXIO) => Ok((from, end)),
        Err(e) => Err(e),
    }
}

/// Calls `f` with the stretches of `[0, end)`; those that are holes on both sides are left out.
fn stretches(
    job: &Shared,
    a: RawFd,
    b: RawFd,
    end: u64,
    mut f: impl FnMut(Stretch) -> Done<bool>,
) -> Done {
    let (mut at, mut in_a, mut in_b) = (0, (0, 0), (0, 0));
    while at < end {
        job.check_canceled()?;
        if in_a.1 <= at {
            in_a = data_from(a, at, end)?;
        }
        if in_b.1 <= at {
            in_b = data_from(b, at, end)?;
        }
        let edge = |(from, to): (u64, u64)| if from > at { from } else { to };
        let covers = |(from, to): (u64, u64)| from <= at && at < to;
        let bound = at + CHUNK_BYTES as u64;
        let both_holes = !covers(in_a) && !covers(in_b);
        let next = edge(in_a).min(edge(in_b)).max(at + 1);
        let to = if both_holes { next } else { next.min(bound) }.min(end);
        if !both_holes && !f(Stretch { from: at, to, a: covers(in_a), b: covers(in_b) })? {
            return Ok(());
        }
        at = to;
    }
    Ok(())
}

#[derive(Default)]
struct Buffers {
    a: Vec<u8>,
    b: Vec<u8>,
}

impl Buffers {
    /// Reads a stretch of both; what is a hole, or not there any more, is zeros.
    fn read(&mut self, a: RawFd, b: RawFd, s: &Stretch) -> Done<(&[u8], &[u8])> {
        let len = (s.to - s.from) as usize;
        for (fd, buf, is_data) in [(a, &mut self.a, s.a), (b, &mut self.b, s.b)] {
            buf.clear();
            buf.resize(len, 0);
            if is_data {
                read_at(fd, buf, s.from).map_err(|e| Fault::Sys {
                    call: "read",
                    errno: e.raw_os_error().unwrap_or(libc::EIO),
                })?;
            }
        }
        Ok((&self.a, &self.b))
    }
}

/// Runs of blocks that differ in two buffers of one length that begin at `from`; blocks are those of
/// the file.
fn runs(a: &[u8], b: &[u8], from: u64, mut f: impl FnMut(usize, usize) -> Done) -> Done {
    if a == b {
        return Ok(());
    }
    let (mut at, mut begun) = (0, None);
    while at < a.len() {
        let block_end = (from + at as u64) / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES;
        let to = ((block_end - from) as usize).min(a.len());
        match (begun, a[at..to] != b[at..to]) {
            (None, true) => begun = Some(at),
            (Some(begin), false) => {
                f(begin, at)?;
                begun = None;
            }
            _ => {}
        }
        at = to;
    }
    match begun {
        Some(begin) => f(begin, a.len()),
        None => Ok(()),
    }
}

fn note(ranges: &mut Ranges, from: u64, to: u64) {
    let full = ranges.len() >= RANGES_MAX;
    match ranges.last_mut() {
        Some(last) if last.1 == from || full => last.1 = to,
        _ => ranges.push((from, to)),
    }
}

/// Bytes of `b` that `a` has otherwise, in blocks of 4 KiB; what `b` has beyond the end of `a` counts.
pub fn differing(job: &Shared, a: Sized, b: Sized, wanted: Found) -> Done<Ranges> {
    let mut ranges = Ranges::new();
    let mut buffers = Buffers::default();
    stretches(job, a.0, b.0, a.1.min(b.1), |s| {
        let (x, y) = buffers.read(a.0, b.0, &s)?;
        runs(x, y, s.from, |from, to| {
            note(&mut ranges, s.from + from as u64, s.from + to as u64);
            Ok(())
        })?;
        Ok(wanted == Found::All || ranges.is_empty())
    })?;
    if b.1 > a.1 {
        note(&mut ranges, a.1, b.1);
    }
    Ok(ranges)
}

/// Makes the bytes of `to` those of `from`; only what differs is written.
pub fn patch(job: &Shared, to: Sized, from: Sized) -> Done {
    let target = to.0;
    if to.1 != from.1 {
        ftruncate(target, from.1)?;
    }
    let mut buffers = Buffers::default();
    // Neighbouring stretches are punched at once; up to the end means the last block, too.
    let mut hole: Option<(u64, u64)> = None;
    let mut make_hole = |next: Option<(u64, u64)>| match (hole, next) {
        (Some(last), Some(next)) if last.1 == next.0 => {
            hole = Some((last.0, next.1));
            Ok(())
        }
        (last, next) => {
            hole = next;
            last.map_or(Ok(()), |(begin, to)| {
                let last = if to == from.1 { LAST_BLOCK_BYTES_MAX } else { 1 };
                punch(target, begin, to.next_multiple_of(last))
            })
        }
    };
    stretches(job, target, from.0, from.1, |s| {
        job.add_bytes(s.to - s.from);
        if !s.b {
            make_hole(Some((s.from, s.to)))?;
            return Ok(true);
        }
        let (old, new) = buffers.read(target, from.0, &s)?;
        if s.a {
            runs(old, new, s.from, |begin, end| {
                pwrite_all(target, &new[begin..end], s.from + begin as u64)
            })?;
        } else {
            pwrite_all(target, new, s.from)?;
        }
        Ok(true)
    })?;
    make_hole(None)
}

/// Makes a range a hole; zeros where the file system has no holes.
fn punch(fd: RawFd, from: u64, to: u64) -> Done {
    let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
    match fallocate(fd, mode, from, to - from) {
        Err(e) if e.is(libc::EOPNOTSUPP) => {
            let zeros = vec![0; CHUNK_BYTES];
            let mut at = from;
            while at < to {
                let n = (to - at).min(CHUNK_BYTES as u64);
                pwrite_all(fd, &zeros[..n as usize], at)?;
                at += n;
            }
            Ok(())
        }
        done => done,
    }
}

/// Fills an empty file with the bytes of another: by the kernel where it can, which shares blocks then.
pub fn fill(job: &Shared, to: RawFd, from: Sized) -> Done {
    let mut buffer = Vec::new();
    if fill_small(job, to, from, &mut buffer)? {
        return Ok(());
    }
    ftruncate(to, from.1)?;
    let mut by_kernel = true;
    let mut at = 0;
    while at < from.1 {
        let (begin, end) = data_from(from.0, at, from.1)?;
        at = begin;
        while at < end {
            job.check_canceled()?;
            let n = match by_kernel.then(|| kernel_copy(to, from.0, at, end)).transpose()? {
                Some(Some(n)) => n,
                _ => {
                    by_kernel = false;
                    copy_once(to, from.0, at, end, &mut buffer)?
                }
            };
            // The file has become shorter: what is not there is left a hole.
            if n == 0 {
                return Ok(());
            }
            at += n;
            job.add_bytes(n);
        }
    }
    Ok(())
}

/// A small file in which no block is all zeros has no hole: it is read and written, and that is all.
fn fill_small(job: &Shared, to: RawFd, from: Sized, buffer: &mut Vec<u8>) -> Done<bool> {
    if from.1 > SMALL_FILE_BYTES {
        return Ok(false);
    }
    buffer.resize(from.1 as usize, 0);
    let n = read_at(from.0, buffer, 0).map_err(|_| fault("read"))?;
    let may_be_hole = |block: &[u8]| block.iter().all(|b| *b == 0);
    if n < buffer.len() || buffer.chunks(HOLE_BYTES_MIN).any(may_be_hole) {
        return Ok(false);
    }
    if n > 0 {
        pwrite_all(to, buffer, 0)?;
        job.add_bytes(from.1);
    }
    Ok(true)
}

/// `None` where the kernel does not copy between these files.
fn kernel_copy(to: RawFd, from: RawFd, at: u64, end: u64) -> Done<Option<u64>> {
    let (mut source, mut target) = (at as i64, at as i64);
    let len = (end - at).min(COPY_BYTES_MAX as u64) as usize;
    let got = check("copy_file_range", || {
        // SAFETY: both offsets are valid in- and out-pointers.
        unsafe { libc::copy_file_range(from, &mut source, to, &mut target, len, 0) as i64 }
    });
    match got {
        // Some file systems say so where there is data all the same.
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(n as u64)),
        Err(e) => match e {
            Fault::Sys { errno: libc::ENOSPC | libc::EDQUOT | libc::EIO | libc::EFBIG, .. } => {
                Err(e)
            }
            _ => Ok(None),
        },
    }
}

fn copy_once(to: RawFd, from: RawFd, at: u64, end: u64, buffer: &mut Vec<u8>) -> Done<u64> {
    buffer.resize((end - at).min(CHUNK_BYTES as u64) as usize, 0);
    let n = read_at(from, buffer, at).map_err(|_| fault("read"))?;
    pwrite_all(to, &buffer[..n], at)?;
    Ok(n as u64)
}
