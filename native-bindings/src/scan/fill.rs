//! Fills: data that a baseline has left out, read where it lies when a replica asks for it.
//!
//! The journal would hold every byte of a baseline once more, and so would the replica's log. A fill
//! goes past both: it says what a range is at this moment, and what had been captured by then. To a
//! replica it must come before any record that is captured later (docs/PROTOCOL.md, fill).

use super::image::{header, image_object, state};
use crate::codes::read_at;
use crate::fill::{FillHead, FillKind, FILL_HEAD_BYTES};
use crate::interceptor::attr::{mtime, stat_fd};
use crate::interceptor::data::seek;
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::handle::FileHandle;
use crate::interceptor::table::{raw, Access, Inode};
use crate::interceptor::{Volume, Worker};
use crate::record::{Encoder, Oid, Op, RECORD_HEADER};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// A file of at least this size is filled; the data of smaller ones costs less than asking for it.
const FILL_FILE_BYTES_MIN: u64 = 128 << 10;
/// Files that are remembered, about 70 bytes each; what more there are is written to the journal.
const FILLS_MAX: usize = 1 << 20;

/// Where the files are that replicas may ask for.
#[derive(Default)]
pub struct Fills {
    of: Mutex<HashMap<Oid, FileHandle>>,
}

impl Fills {
    /// Remembers the file; false: there are too many.
    pub fn note(&self, inode: &Inode) -> bool {
        let mut of = self.of.lock();
        let room = of.len() < FILLS_MAX;
        if room {
            of.insert(inode.oid, inode.handle);
        }
        room
    }

    pub fn has(&self, oid: Oid) -> bool {
        self.of.lock().contains_key(&oid)
    }

    /// Nobody asks for them any more.
    pub fn forget(&self) {
        *self.of.lock() = HashMap::new();
    }
}

/// Captures a regular file, and of a large one not the data.
pub(super) fn image_later(v: &Volume, w: &mut Worker, inode: &Arc<Inode>) -> Res<()> {
    let fd = v.table.descriptor(inode, Access::Read)?;
    let size = stat_fd(raw(&fd))?.stx_size;
    drop(fd);
    if size < FILL_FILE_BYTES_MIN || !v.scan.fills.note(inode) {
        return image_object(v, w, inode, Some((0, u64::MAX)));
    }
    image_object(v, w, inode, None)?;
    let fd = v.table.descriptor(inode, Access::Read)?;
    let _lock = inode.effect.lock();
    let st = stat_fd(raw(&fd))?;
    let h = header(Op::ImageLater, inode.oid, Some(&st), 0);
    state(v, w, RECORD_HEADER + 24, |buf| {
        let mut e = Encoder::new(buf, &h);
        e.u64(0).u64(st.stx_size);
        e.finish()
    })?;
    Ok(())
}

/// Reads what is at the beginning of `[from, to)` of the object as the body of a fill: data as far as
/// `buf` and the file go, or a hole. Returns its length.
///
/// Errors: ENOENT where the object is not among those that may be asked for.
pub fn read_fill(v: &Volume, oid: Oid, (from, to): (u64, u64), buf: &mut [u8]) -> Res<usize> {
    let handle = v.scan.fills.of.lock().get(&oid).copied().ok_or(Errno(libc::ENOENT))?;
    let inode = v.table.enter(oid, handle, libc::S_IFREG, 1);
    let read = read_range(v, &inode, (from, to), buf);
    v.table.forget(&inode, 1);
    let (head, bytes) = match read {
        Err(Errno(libc::ESTALE | libc::ENOENT)) => {
            let through = v.ring.captured_seq();
            let kind = FillKind::Gone;
            (FillHead { kind, oid, offset: from, len: to - from, through, mtime: (0, 0) }, 0)
        }
        read => read?,
    };
    head.write(buf, bytes);
    Ok(FILL_HEAD_BYTES + bytes)
}

fn read_range(
    v: &Volume,
    inode: &Arc<Inode>,
    (from, to): (u64, u64),
    buf: &mut [u8],
) -> Res<(FillHead, usize)> {
    let fd = v.table.descriptor(inode, Access::Read)?;
    let room = buf.get_mut(FILL_HEAD_BYTES..).filter(|room| !room.is_empty());
    let room = room.ok_or(Errno(libc::EINVAL))?;
    let _lock = inode.effect.lock();
    let st = stat_fd(raw(&fd))?;
    let time = mtime(&st);
    let end = to.min(st.stx_size);
    let data = match from < end {
        true => seek(raw(&fd), from, libc::SEEK_DATA)?.unwrap_or(end).min(end),
        false => end,
    };
    let mut head = FillHead {
        kind: FillKind::Hole,
        oid: inode.oid,
        offset: from,
        // Behind the end of the file nothing is.
        len: if data >= end { to - from } else { data - from },
        through: 0,
        mtime: (time.sec, time.nsec),
    };
    let mut bytes = 0;
    if data == from && from < end {
        let hole = seek(raw(&fd), from, libc::SEEK_HOLE)?.unwrap_or(end).min(end);
        let want = (hole - from).min(room.len() as u64) as usize;
        bytes = read_at(raw(&fd), &mut room[..want], from).map_err(Errno::from)?;
        let ends = from + bytes as u64 >= end && end < to;
        head.kind = FillKind::Data;
        head.len = if ends { to - from } else { bytes as u64 };
    }
    // Whoever has changed the object until now has its record: the effect lock covers both.
    head.through = v.ring.captured_seq();
    Ok((head, bytes))
}
