//! Codes of a file's segments instead of its bytes: by them a reader finds what it lacks.

use super::image::{header, state};
use super::ScanState;
use crate::codes::{read_at, segments, Code};
use crate::interceptor::attr::stat_fd;
use crate::interceptor::data::seek;
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::table::{raw, Access, Inode};
use crate::interceptor::{Volume, Worker};
use crate::record::{Encoder, Op, CODE_BYTES, RECORD_HEADER, SEGMENT_BYTES};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes read under one hold of the effect lock.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Codes in one record.
const CODES_MAX: u64 = 4096;

/// How fast a scan may read.
pub struct Pace {
    bytes_per_s: u64,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    /// 0: as fast as it goes.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, begun: Instant::now(), bytes: 0 }
    }

    /// Sleeps as long as `bytes` more are too many.
    pub fn take(&mut self, bytes: u64, stop: impl Fn() -> bool) {
        self.bytes += bytes;
        if self.bytes_per_s == 0 {
            return;
        }
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_s as f64);
        while self.begun.elapsed() < due && !stop() {
            let left = due.saturating_sub(self.begun.elapsed());
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// What one hold of the lock has found.
enum Piece {
    End,
    Hole { len: u64 },
    Codes { len: u64, codes: Vec<Code>, read: u64 },
}

/// Captures the codes of a regular file, and its holes of at least a segment.
///
/// `known`: codes that are valid are taken for granted; else everything is read. The effect lock is
/// taken piece by piece; each piece is true at its place in the order.
pub fn code_data(
    v: &Volume,
    w: &mut Worker,
    inode: &Arc<Inode>,
    flags: u8,
    known: bool,
    pace: &mut Pace,
) -> Res<()> {
    let mut at = 0;
    let mut buf = vec![0; SEGMENT_BYTES as usize];
    while !v.scan.is_stopped() {
        let fd = v.table.descriptor(inode, Access::Read)?;
        let lock = inode.effect.lock();
        let st = stat_fd(raw(&fd))?;
        let piece = next_piece(v, inode, raw(&fd), at, st.stx_size, known, &mut buf)?;
        let read = match piece {
            Piece::End => return Ok(()),
            Piece::Hole { len } => {
                let h = header(Op::ImageHole, inode.oid, Some(&st), flags);
                state(v, w, RECORD_HEADER + 24, |buf| {
                    let mut e = Encoder::new(buf, &h);
                    e.u64(at).u64(len);
                    e.finish()
                })?;
                at += len;
                0
            }
            Piece::Codes { len, codes, read } => {
                let h = header(Op::Codes, inode.oid, Some(&st), flags);
                state(v, w, RECORD_HEADER + 24 + codes.len() * CODE_BYTES, |buf| {
                    let mut e = Encoder::new(buf, &h);
                    e.u64(at).u64(len).payload();
                    for code in &codes {
                        e.raw(&code.bytes());
                    }
                    e.finish()
                })?;
                at += len;
                read
            }
        };
        drop(lock);
        ScanState::count(&v.scan.bytes, read);
        pace.take(read, || v.scan.is_stopped());
    }
    Err(Errno(libc::ECANCELED))
}

/// What comes at `at`, which begins a segment: a hole that fills segments, or codes of some.
fn next_piece(
    v: &Volume,
    inode: &Inode,
    fd: i32,
    at: u64,
    size: u64,
    known: bool,
    buf: &mut [u8],
) -> Res<Piece> {
    if at >= size {
        return Ok(Piece::End);
    }
    let data = seek(fd, at, libc::SEEK_DATA)?.unwrap_or(size).min(size);
    if data == size {
        return Ok(Piece::Hole { len: size - at });
    }
    let hole = data / SEGMENT_BYTES * SEGMENT_BYTES;
    if hole > at {
        return Ok(Piece::Hole { len: hole - at });
    }
    let end = seek(fd, data, libc::SEEK_HOLE)?.unwrap_or(size).min(size);
    let mut codes = Vec::new();
    let mut read = 0;
    for segment in segments(at, end) {
        if read >= READ_BYTES_MAX || codes.len() as u64 >= CODES_MAX {
            break;
        }
        let store = v.codes.get();
        if let Some(code) = store.filter(|_| known).and_then(|s| s.get(inode.oid, segment)) {
            codes.push(code);
            continue;
        }
        let begun = store.map(|s| s.begin(inode.oid, segment));
        let n = read_at(fd, buf, segment * SEGMENT_BYTES).map_err(Errno::from)?;
        let code = Code::of(&buf[..n]);
        if let (Some(store), Some(begun)) = (store, begun) {
            store.complete(begun, code);
        }
        codes.push(code);
        read += SEGMENT_BYTES;
    }
    let len = (codes.len() as u64 * SEGMENT_BYTES).min(size - at);
    Ok(Piece::Codes { len, codes, read })
}
