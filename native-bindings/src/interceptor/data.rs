//! File data: READ, WRITE, FALLOCATE, COPY_FILE_RANGE, LSEEK.

use super::attr::{mtime, stat_fd};
use super::errno::{check, check_len, Errno, Res};
use super::table::{raw, Access, EffectLocks, Inode};
use super::volume::{Volume, Worker};
use crate::codes::read_at;
use crate::record::{Encoder, Header, Op, Time, FLAG_KILLPRIV, FLAG_MAPPED, RECORD_HEADER};
use crate::transport::abi::{
    CopyFileRangeIn, FallocateIn, LseekIn, LseekOut, ReadIn, WriteIn, WriteOut, WRITE_CACHE,
    WRITE_KILL_SUIDGID,
};
use crate::transport::device::IO_BYTES_MAX;
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Most bytes that one COPY_FILE_RANGE request copies; the application gets a short count and goes on.
const COPY_BYTES_MAX: u64 = 64 << 20;

/// Bytes in front of a write's payload: record header and offset.
pub const WRITE_PAYLOAD_AT: usize = RECORD_HEADER + 8;

/// A record whose payload is in place: a write's, or an image of data's.
pub fn encode_write(buf: &mut [u8], header: &Header, offset: u64, len: usize) -> usize {
    let mut e = Encoder::new(buf, header);
    e.u64(offset).payload_in_place(len);
    e.finish()
}

/// Writes all of `bytes`, or as much as there is room for; fails only when nothing was written.
fn pwrite_all(fd: i32, bytes: &[u8], offset: u64) -> Res<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        // SAFETY: valid buffer of that length.
        let n = check_len(unsafe {
            libc::pwrite(fd, rest.as_ptr().cast(), rest.len(), (offset as usize + done) as i64)
        });
        match n {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno(libc::EINTR)) => {}
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// How many bytes of a write to an append-only file of `size` bytes stand in it already. The kernel
/// asked nobody at the open: EPERM is given here, for everything that does not append.
fn appended_from(arg: &WriteIn, len: usize, size: u64) -> Res<usize> {
    let collected = arg.write_flags & WRITE_CACHE != 0;
    let appends = collected || arg.flags as i32 & libc::O_APPEND != 0;
    if !appends || arg.offset > size || (arg.offset < size && !collected) {
        return Err(Errno(libc::EPERM));
    }
    let there = (size - arg.offset) as usize;
    if there > 0 && there >= len {
        return Err(Errno(libc::EPERM));
    }
    Ok(there)
}

/// lseek for data or a hole; `None` when there is none up to the end.
pub fn seek(fd: i32, at: u64, whence: i32) -> Res<Option<u64>> {
    // SAFETY: plain call; nobody uses the position of this descriptor.
    let n = unsafe { libc::lseek(fd, at as i64, whence) };
    match n {
        n if n >= 0 => Ok(Some(n as u64)),
        _ if Errno::last() == Errno(libc::ENXIO) => Ok(None),
        _ => Err(Errno::last()),
    }
}

/// Where an open file has data between two places, in order.
pub fn data_of(fd: i32, from: u64, to: u64) -> Res<Vec<(u64, u64)>> {
    let mut out = Vec::new();
    let mut at = from;
    while at < to {
        let Some(data) = seek(fd, at, libc::SEEK_DATA)?.filter(|data| *data < to) else { break };
        let end = seek(fd, data, libc::SEEK_HOLE)?.map_or(to, |hole| hole.min(to));
        out.push((data, end));
        at = end.max(data + 1);
    }
    Ok(out)
}

impl Volume {
    pub(super) fn op_read(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: ReadIn = r.arg()?;
        let inode = self.inode(r.header.nodeid);
        let fd = self.table.descriptor(&inode, Access::Read)?;
        let size = (arg.size as usize).min(IO_BYTES_MAX);
        w.out.fill(size, |buf| read_at(raw(&fd), buf, arg.offset))?;
        Ok(Reply::Done)
    }

    /// Reads what is in the page cache; `None` when the disk would have to be asked.
    pub fn read_cached(
        &self,
        r: &Request,
        out: &mut crate::transport::reply::Output,
    ) -> Option<()> {
        let arg: ReadIn = r.arg().ok()?;
        let inode = self.inode(r.header.nodeid);
        let fd = self.table.descriptor(&inode, Access::Read).ok()?;
        let size = (arg.size as usize).min(IO_BYTES_MAX);
        let whole = out.fill(size, |buf| {
            let iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
            // SAFETY: valid buffer of that length.
            let n = check_len(unsafe {
                libc::preadv2(raw(&fd), &iov, 1, arg.offset as i64, libc::RWF_NOWAIT)
            })?;
            Ok::<usize, Errno>(n)
        });
        match whole {
            Ok(n) if n == size => Some(()),
            // Short: at the end of the file, or the rest is not cached.
            Ok(n) => {
                let end = stat_fd(raw(&fd)).ok()?.stx_size;
                (arg.offset + n as u64 >= end).then_some(())
            }
            Err(_) => None,
        }
    }

    pub(super) fn op_write(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: WriteIn = r.arg()?;
        let bytes = r.rest;
        let inode = self.inode(r.header.nodeid);
        let fd = self.table.descriptor(&inode, Access::Write)?;
        let mapped = arg.write_flags & WRITE_CACHE != 0;
        let kill = arg.write_flags & WRITE_KILL_SUIDGID != 0;
        let mut header = w.header(&r.header, Op::Write, inode.oid);
        header.flags = if kill { FLAG_KILLPRIV } else { 0 } | if mapped { FLAG_MAPPED } else { 0 };
        // A writepage is never held: that would block the next store to the page. What it changes is on
        // one side of a cut all the same.
        let _inside = (!mapped).then(|| self.gate.enter());
        let _side = self.history.get().filter(|_| mapped).map(|h| h.cut.read());
        if mapped {
            w.creds.own();
        } else {
            self.become_writer(w, &r.header, raw(&fd), kill)?;
        }
        if inode.is_append_only() {
            let size = stat_fd(raw(&fd))?.stx_size;
            let there = appended_from(&arg, bytes.len(), size)?;
            if there > 0 {
                // The kernel collects appends, and writes whole pages back.
                let tail = bytes[there..].to_vec();
                let rest =
                    Request { header: r.header, fixed: r.fixed, rest: &tail, in_place: false };
                let n = self.captured_write(
                    w,
                    &rest,
                    &WriteIn { offset: size, ..arg },
                    header,
                    &inode,
                    &fd,
                )?;
                w.out.push(&WriteOut { size: (there + n) as u32, padding: 0 });
                return Ok(Reply::Done);
            }
        }
        let n = if inode.is_gone() {
            pwrite_all(raw(&fd), bytes, arg.offset)?
        } else {
            self.captured_write(w, r, &arg, header, &inode, &fd)?
        };
        if arg.flags as i32 & libc::O_DSYNC != 0 && !mapped {
            let all = arg.flags as i32 & libc::O_SYNC == libc::O_SYNC;
            self.make_durable(&inode, &fd, !all)?;
        }
        w.out.push(&WriteOut { size: n as u32, padding: 0 });
        Ok(Reply::Done)
    }

    fn captured_write(
        &self,
        w: &mut Worker,
        r: &Request,
        arg: &WriteIn,
        header: Header,
        inode: &Arc<Inode>,
        fd: &Arc<OwnedFd>,
    ) -> Res<usize> {
        let bytes = r.rest;
        let objects = [Some(inode), None];
        let slot = self.reserve(w, WRITE_PAYLOAD_AT + bytes.len() + 8, objects, |buf| {
            if !r.in_place {
                buf[WRITE_PAYLOAD_AT..WRITE_PAYLOAD_AT + bytes.len()].copy_from_slice(bytes);
            }
            encode_write(buf, &header, arg.offset, bytes.len())
        })?;
        let locks = EffectLocks::new([Some(inode), None, None, None]);
        let end = arg.offset + bytes.len() as u64;
        if let Err(e) = self.past_of_range(w, inode, fd, Some((arg.offset, end))) {
            return Err(self.refused(w, Some(slot), e));
        }
        self.before_change(inode, arg.offset, end);
        let n = match pwrite_all(raw(fd), bytes, arg.offset) {
            Ok(n) => n,
            Err(e) => {
                w.writer.abort(slot);
                self.capture_failed(w, r, inode, fd, e)?;
                return Err(e);
            }
        };
        let st = stat_fd(raw(fd))?;
        self.bind(w, inode);
        let done = Header { time: mtime(&st), mode: u32::from(st.stx_mode), ..header };
        self.publish(w, slot, |buf| encode_write(buf, &done, arg.offset, n));
        drop(locks);
        self.saw(inode, &st);
        Ok(n)
    }

    pub(super) fn op_fallocate(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: FallocateIn = r.arg()?;
        let inode = self.inode(r.header.nodeid);
        let fd = self.table.descriptor(&inode, Access::Write)?;
        let mut header = w.header(&r.header, Op::Fallocate, inode.oid);
        // The request does not say whether the caller may keep set-uid: only root may.
        let kill = r.header.uid != 0;
        header.flags = if kill { FLAG_KILLPRIV } else { 0 };
        let encode = |buf: &mut [u8], time: Time, mode: u32, size: u64| {
            let mut e = Encoder::new(buf, &Header { time, mode, ..header });
            e.u32(arg.mode).u64(arg.offset).u64(arg.length).u64(size);
            e.finish()
        };
        let _inside = self.gate.enter();
        let objects = [Some(&inode), None];
        let slot =
            self.reserve(w, RECORD_HEADER + 32, objects, |buf| encode(buf, Time::UNKNOWN, 0, 0))?;
        self.become_writer(w, &r.header, raw(&fd), kill)?;
        let locks = EffectLocks::new([Some(&inode), None, None, None]);
        let (mode, offset, len) = (arg.mode as i32, arg.offset as i64, arg.length as i64);
        let moves = mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0;
        let end = match moves {
            true => stat_fd(raw(&fd))?.stx_size.saturating_add(arg.length),
            false => arg.offset.saturating_add(arg.length),
        };
        if !inode.is_gone() {
            let changed = if moves { (arg.offset, u64::MAX) } else { (arg.offset, end) };
            let keeps = mode & !(libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_UNSHARE_RANGE) == 0;
            let changed = if keeps { None } else { Some(changed) };
            if let Err(e) = self.past_of_range(w, &inode, &fd, changed) {
                return Err(self.refused(w, Some(slot), e));
            }
        }
        self.before_change(&inode, arg.offset, end);
        // SAFETY: plain call.
        if let Err(e) = check(unsafe { libc::fallocate(raw(&fd), mode, offset, len) }) {
            w.writer.abort(slot);
            self.capture_failed(w, r, &inode, &fd, e)?;
            let cut_short = matches!(e.0, libc::ENOSPC | libc::EDQUOT | libc::EIO);
            if cut_short && mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
                self.note_uncaptured(); // a part of the range may be zero now
            }
            return Err(e);
        }
        let st = stat_fd(raw(&fd))?;
        if inode.is_gone() {
            w.writer.abort(slot);
        } else {
            self.bind(w, &inode);
            self.publish(w, slot, |buf| {
                encode(buf, mtime(&st), u32::from(st.stx_mode), st.stx_size)
            });
        }
        drop(locks);
        self.saw(&inode, &st);
        Ok(Reply::Done)
    }

    pub(super) fn op_copy(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: CopyFileRangeIn = r.arg()?;
        let source = self.inode(r.header.nodeid);
        let target = self.inode(arg.nodeid_out);
        let from = self.table.descriptor(&source, Access::Read)?;
        let to = self.table.descriptor(&target, Access::Write)?;
        let mut header = w.header(&r.header, Op::Copy, target.oid);
        let kill = r.header.uid != 0;
        header.flags = if kill { FLAG_KILLPRIV } else { 0 };
        let encode = |buf: &mut [u8], time: Time, mode: u32, len: u64| {
            let mut e = Encoder::new(buf, &Header { time, mode, ..header });
            e.oid(source.oid).u64(arg.off_in).u64(arg.off_out).u64(len);
            e.finish()
        };
        let _inside = self.gate.enter();
        let objects = [Some(&target), Some(&source)];
        self.become_writer(w, &r.header, raw(&to), kill)?;
        let slot = self.reserve(w, RECORD_HEADER + 48, objects, |buf| {
            encode(buf, Time::UNKNOWN, 0, arg.len.min(COPY_BYTES_MAX))
        })?;
        let locks = EffectLocks::new([Some(&source), Some(&target), None, None]);
        let (mut off_in, mut off_out) = (arg.off_in as i64, arg.off_out as i64);
        let most = arg.len.min(COPY_BYTES_MAX);
        if !target.is_gone() {
            let changed = Some((arg.off_out, arg.off_out.saturating_add(most)));
            if let Err(e) = self.past_of_range(w, &target, &to, changed) {
                return Err(self.refused(w, Some(slot), e));
            }
        }
        self.before_change(&target, arg.off_out, arg.off_out.saturating_add(most));
        // SAFETY: valid pointers to the offsets.
        let done = check_len(unsafe {
            let len = arg.len.min(COPY_BYTES_MAX) as usize;
            libc::copy_file_range(raw(&from), &mut off_in, raw(&to), &mut off_out, len, 0)
        });
        let n = match done {
            Ok(n) if n > 0 && !target.is_gone() => n,
            other => {
                w.writer.abort(slot);
                if let Err(e) = other {
                    self.capture_failed(w, r, &target, &to, e)?;
                }
                w.out.push(&WriteOut { size: other? as u32, padding: 0 });
                return Ok(Reply::Done);
            }
        };
        let st = stat_fd(raw(&to))?;
        self.bind(w, &target);
        let same = Arc::ptr_eq(&source, &target);
        let nameless =
            source.is_gone() || source.tmpfile.load(std::sync::atomic::Ordering::Acquire);
        if same || nameless || self.scan.unsettled() {
            // The source cannot be read at the replay, or is not known to be the same there: the bytes
            // themselves are captured.
            w.writer.abort(slot);
            let header = Header { time: mtime(&st), mode: u32::from(st.stx_mode), ..header };
            self.capture_range(w, &header, raw(&to), arg.off_out, n as u64)
                .inspect_err(|_| self.note_uncaptured())?;
        } else {
            self.bind(w, &source);
            self.publish(w, slot, |buf| encode(buf, mtime(&st), u32::from(st.stx_mode), n as u64));
        }
        drop(locks);
        self.saw(&target, &st);
        w.out.push(&WriteOut { size: n as u32, padding: 0 });
        Ok(Reply::Done)
    }

    /// Captures bytes of a file as they are now, as WRITE records. Call under its effect lock.
    fn capture_range(
        &self,
        w: &mut Worker,
        header: &Header,
        fd: i32,
        offset: u64,
        len: u64,
    ) -> Res<()> {
        let header = Header { op: Op::Write, ..*header };
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let piece = (end - at).min(IO_BYTES_MAX as u64) as usize;
            let mut got = 0;
            let slot = self.reserve(w, WRITE_PAYLOAD_AT + piece + 8, [None, None], |buf| {
                let data = &mut buf[WRITE_PAYLOAD_AT..WRITE_PAYLOAD_AT + piece];
                // SAFETY: valid buffer of that length.
                let n = unsafe { libc::pread(fd, data.as_mut_ptr().cast(), piece, at as i64) };
                got = n.max(0) as usize;
                encode_write(buf, &header, at, got)
            })?;
            if got == 0 {
                w.writer.abort(slot);
                return Err(Errno(libc::EIO));
            }
            let at_now = at;
            self.publish(w, slot, |buf| encode_write(buf, &header, at_now, got));
            at += got as u64;
        }
        Ok(())
    }

    pub(super) fn op_lseek(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: LseekIn = r.arg()?;
        let inode = self.inode(r.header.nodeid);
        let fd = self.table.descriptor(&inode, Access::Read)?;
        // SAFETY: plain call; nobody uses the position of this descriptor.
        let at = unsafe { libc::lseek(raw(&fd), arg.offset as i64, arg.whence as i32) };
        if at < 0 {
            return Err(Errno::last());
        }
        w.out.push(&LseekOut { offset: at as u64 });
        Ok(Reply::Done)
    }
}
