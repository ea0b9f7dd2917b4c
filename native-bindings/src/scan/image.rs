//! Images of one object: metadata and xattrs, file data with its holes, directory entries.

use super::ScanState;
use crate::codes::read_at;
use crate::interceptor::attr::{encode_dev, mtime, stat_fd, Stat};
use crate::interceptor::data::{encode_write, seek, WRITE_PAYLOAD_AT};
use crate::interceptor::dir::read_entries;
use crate::interceptor::errno::{check, Errno, Res};
use crate::interceptor::handle::{CName, FileHandle};
use crate::interceptor::ioctl::FS_IOC_GETFLAGS;
use crate::interceptor::names::read_link;
use crate::interceptor::table::{raw, Access, Inode};
use crate::interceptor::volume::own_header;
use crate::interceptor::xattr::{read_xattrs, Target};
use crate::interceptor::{Volume, Worker};
use crate::record::{Encoder, Header, Oid, Op, Time, FLAG_RECOVERED, RECORD_HEADER};
use std::sync::Arc;

/// Data that one IMAGE_DATA record holds at most.
const IMAGE_DATA_BYTES: u64 = 1 << 20;
/// Entries of a directory image are split over records of about this size.
const IMAGE_DIR_BYTES: usize = 512 << 10;
/// xattrs that fit into one IMAGE record; larger sets follow as SETXATTR records.
const IMAGE_XATTR_BYTES: usize = 512 << 10;

/// An entry of a directory.
pub struct Entry {
    pub name: Vec<u8>,
    pub oid: Oid,
    pub mode: u32,
    pub handle: FileHandle,
    pub ctime_ns: u64,
}

/// `flags`: of the record, in addition.
pub(super) fn header(op: Op, oid: Oid, st: Option<&Stat>, flags: u8) -> Header {
    let mut h = Header { flags: FLAG_RECOVERED | flags, ..own_header(op, oid) };
    if let Some(st) = st {
        h.time = mtime(st);
        h.mode = u32::from(st.stx_mode);
    }
    h
}

/// Publishes a record that states a fact.
pub(super) fn state(
    v: &Volume,
    w: &mut Worker,
    len: usize,
    fill: impl Fn(&mut [u8]) -> usize,
) -> Res<u64> {
    // A scan is in no hurry: it waits for ring space as long as the journal takes frames at all.
    loop {
        if let Some(seq) = w.writer.append(len, v.options.ring_wait, &fill) {
            return Ok(seq);
        }
        if v.scan.is_stopped() {
            return Err(Errno(libc::ECANCELED));
        }
    }
}

/// Publishes up to `want` bytes of a file as a record, read to where they stay; how many there were.
fn state_read(
    v: &Volume,
    w: &mut Worker,
    fd: i32,
    header: &Header,
    offset: u64,
    want: usize,
) -> Res<usize> {
    let len = WRITE_PAYLOAD_AT + want + 8;
    let encode = |n: usize| move |buf: &mut [u8]| encode_write(buf, header, offset, n);
    loop {
        let none = Default::default();
        let Some(mut slot) = w.writer.reserve(len, none, v.options.ring_wait, encode(want)) else {
            // As in `state`.
            if v.scan.is_stopped() {
                return Err(Errno(libc::ECANCELED));
            }
            continue;
        };
        let room = &mut slot.record_mut()[WRITE_PAYLOAD_AT..WRITE_PAYLOAD_AT + want];
        return match read_at(fd, room, offset).map_err(Errno::from) {
            Ok(n) if n > 0 => {
                w.writer.publish(slot, encode(n));
                Ok(n)
            }
            none => {
                w.writer.abort(slot);
                none
            }
        };
    }
}

/// Captures what the object is now: metadata, and the data of a regular file in `ranges`.
///
/// The effect lock is taken piece by piece, so that writers wait for one piece at most.
pub fn image_object(
    v: &Volume,
    w: &mut Worker,
    inode: &Arc<Inode>,
    data: Option<(u64, u64)>,
) -> Res<()> {
    v.bind(w, inode);
    {
        let _lock = inode.effect.lock();
        image_meta(v, w, inode, 0)?;
    }
    ScanState::count(&v.scan.imaged, 1);
    match data {
        Some((from, to)) if inode.is_regular() => image_data(v, w, inode, from, to),
        _ => Ok(()),
    }
}

/// Metadata and xattrs. Call under the effect lock.
pub(super) fn image_meta(v: &Volume, w: &mut Worker, inode: &Arc<Inode>, flags: u8) -> Res<()> {
    let target = Target::of(v, inode)?;
    let st = stat_fd(target.raw())?;
    let link = match inode.kind {
        libc::S_IFLNK => read_link(target.raw(), c"")?,
        _ => Vec::new(),
    };
    let xattrs = read_xattrs(|buf| target.list(buf), |name, buf| target.get(name, buf))?;
    let size: usize = xattrs.iter().map(|(n, x)| n.len() + x.len() + 8).sum();
    let inline = size <= IMAGE_XATTR_BYTES;
    let fsflags = file_flags(inode, target.raw());
    let h = header(Op::Image, inode.oid, Some(&st), flags);
    let len = RECORD_HEADER + 64 + link.len() + if inline { size } else { 0 };
    state(v, w, len, |buf| {
        let mut e = Encoder::new(buf, &h);
        e.u32(st.stx_uid).u32(st.stx_gid).u32(encode_dev(st.stx_rdev_major, st.stx_rdev_minor));
        e.u32(st.stx_nlink).u64(st.stx_size).u32(fsflags);
        e.payload().u32(link.len() as u32).raw(&link);
        let listed: &[_] = if inline { &xattrs } else { &[] };
        e.u16(listed.len() as u16);
        for (name, value) in listed {
            e.name(name).u32(value.len() as u32).raw(value);
        }
        e.finish()
    })?;
    if !inline {
        for (name, value) in &xattrs {
            let h = header(Op::Setxattr, inode.oid, Some(&st), flags);
            let len = RECORD_HEADER + 32 + name.len() + value.len();
            state(v, w, len, |buf| {
                let mut e = Encoder::new(buf, &h);
                e.u32(0).name(name).payload().raw(value);
                e.finish()
            })?;
        }
    }
    Ok(())
}

/// chattr flags, or 0 where the object or the file system has none.
fn file_flags(inode: &Inode, fd: i32) -> u32 {
    let mut flags: u32 = 0;
    if inode.is_regular() || inode.is_dir() {
        // SAFETY: this command writes one int.
        unsafe { libc::ioctl(fd, libc::c_ulong::from(FS_IOC_GETFLAGS), &mut flags) };
    }
    flags
}

pub(super) fn image_data(
    v: &Volume,
    w: &mut Worker,
    inode: &Arc<Inode>,
    from: u64,
    to: u64,
) -> Res<()> {
    let mut at = from;
    while !v.scan.is_stopped() {
        let fd = v.table.descriptor(inode, Access::Read)?;
        let _lock = inode.effect.lock();
        let st = stat_fd(raw(&fd))?;
        let end = to.min(st.stx_size);
        if at >= end {
            return Ok(());
        }
        let data = seek(raw(&fd), at, libc::SEEK_DATA)?.unwrap_or(end).min(end);
        if data > at {
            let h = header(Op::ImageHole, inode.oid, Some(&st), 0);
            let (hole, len) = (at, data - at);
            state(v, w, RECORD_HEADER + 24, |buf| {
                let mut e = Encoder::new(buf, &h);
                e.u64(hole).u64(len);
                e.finish()
            })?;
            at = data;
            continue;
        }
        let hole = seek(raw(&fd), at, libc::SEEK_HOLE)?.unwrap_or(end).min(end);
        let want = (hole - at).min(IMAGE_DATA_BYTES) as usize;
        let h = header(Op::ImageData, inode.oid, Some(&st), 0);
        let offset = at;
        let n = state_read(v, w, raw(&fd), &h, offset, want)?;
        if n == 0 {
            return Ok(());
        }
        ScanState::count(&v.scan.bytes, n as u64);
        at += n as u64;
    }
    Err(Errno(libc::ECANCELED))
}

/// All entries of a directory, sorted by name; entries on other file systems are left out.
pub fn list(v: &Volume, dir: i32) -> Res<Vec<Entry>> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a valid string; the descriptor is closed below.
    let fd = check(unsafe { libc::openat(dir, c".".as_ptr(), flags) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    let fd = Arc::new(fd);
    let mut entries = Vec::new();
    let mut buf = vec![0; 64 << 10];
    loop {
        let more = read_entries(raw(&fd), &mut buf, |e| {
            if e.name != b"." && e.name != b".." {
                match entry(v, dir, e.name) {
                    Ok(entry) => entries.push(entry),
                    Err(Errno(libc::ENOENT | libc::EXDEV | libc::ESTALE)) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(true)
        })?;
        if !more {
            break;
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// One entry of a directory.
pub fn entry(v: &Volume, dir: i32, name: &[u8]) -> Res<Entry> {
    let c = CName::new(name)?;
    let st = crate::interceptor::attr::stat_at(dir, c.as_c())?;
    if (st.stx_dev_major, st.stx_dev_minor) != v.dev {
        return Err(Errno(libc::EXDEV));
    }
    let handle = FileHandle::of(dir, c.as_c())?;
    Ok(Entry {
        name: name.to_vec(),
        oid: handle.oid(st.stx_ino),
        mode: u32::from(st.stx_mode),
        handle,
        ctime_ns: crate::interceptor::attr::ctime_ns(&st),
    })
}

/// Captures the entries of a directory. Call under its effect lock.
pub fn image_dir(
    v: &Volume,
    w: &mut Worker,
    inode: &Arc<Inode>,
    entries: &[Entry],
    st: &Stat,
    flags: u8,
) -> Res<()> {
    let h = header(Op::ImageDir, inode.oid, Some(st), flags);
    let mut rest = entries;
    let mut after: &[u8] = b"";
    let mut first = true;
    while first || !rest.is_empty() {
        let mut size = 0;
        let n = rest
            .iter()
            .position(|e| {
                size += 22 + e.name.len();
                size > IMAGE_DIR_BYTES
            })
            .unwrap_or(rest.len());
        let (part, tail) = rest.split_at(n);
        let last = tail.is_empty();
        let up_to: &[u8] = if last { b"" } else { part.last().map_or(b"", |e| &e.name) };
        let range = u8::from(first) | if last { 2 } else { 0 };
        let len = RECORD_HEADER + 32 + after.len() + up_to.len() + size + 64;
        state(v, w, len, |buf| {
            let mut e = Encoder::new(buf, &h);
            e.u8(range).name(after).name(up_to).payload().u32(part.len() as u32);
            for x in part {
                e.oid(x.oid).u32(x.mode).name(&x.name);
            }
            e.finish()
        })?;
        after = up_to;
        rest = tail;
        first = false;
    }
    Ok(())
}

/// Captures one name: which object it is, or that it does not exist.
pub fn image_entry(
    v: &Volume,
    w: &mut Worker,
    parent: &Arc<Inode>,
    pmtime: Time,
    name: &[u8],
    found: Option<&Entry>,
) -> Res<()> {
    let mut h = header(Op::ImageEntry, found.map_or(Oid::NONE, |e| e.oid), None, 0);
    h.mode = found.map_or(0, |e| e.mode);
    state(v, w, RECORD_HEADER + 48 + name.len(), |buf| {
        let mut e = Encoder::new(buf, &h);
        e.oid(parent.oid).time(pmtime).u8(u8::from(found.is_some())).name(name);
        e.finish()
    })?;
    Ok(())
}

/// The beginning or the end of a scan.
pub fn bracket(v: &Volume, w: &mut Worker, op: Op, kind: u8) -> Res<()> {
    let h = header(op, Oid::NONE, None, 0);
    state(v, w, RECORD_HEADER + 8, |buf| {
        let mut e = Encoder::new(buf, &h);
        e.u8(kind);
        e.finish()
    })?;
    Ok(())
}
