//! File contents: WRITE, FALLOCATE, COPY, and the size half of SETATTR.

use super::apply::Record;
use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::objects::{Obj, IMAGE_CAPS, UNPRIVILEGED, WATCHED, WATCHED_BEFORE};
use super::sys::{self, check};
use crate::record::{Fields, FLAG_KILLPRIV};

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

const COLLAPSE: u32 = libc::FALLOC_FL_COLLAPSE_RANGE as u32;
const INSERT: u32 = libc::FALLOC_FL_INSERT_RANGE as u32;
const UNSHARE: u32 = libc::FALLOC_FL_UNSHARE_RANGE as u32;
const ZERO: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;
const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;

impl Engine {
    pub(super) fn apply_write(&mut self, r: &Record, offset: u64) -> Done {
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        self.before_contents(obj)?;
        let fd = self.fd(obj, Access::Write)?;
        self.stale_codes(r.oid, offset, offset + r.view.payload().len() as u64);
        sys::pwrite_all(fd, r.view.payload(), offset)?;
        self.kill_privileges(obj, fd, r)
    }

    /// The application changes an object's contents by itself: what images said of it is over.
    pub(super) fn before_contents(&mut self, obj: Obj) -> Done {
        if self.objects.get(obj).flags & (WATCHED | WATCHED_BEFORE | IMAGE_CAPS) != 0 {
            self.before_change(obj)?;
            self.image_caps_done(obj)?;
        }
        Ok(())
    }

    /// The writer lacked CAP_FSETID, we have it: set-uid and set-gid go as the header says.
    ///
    /// (security.capability is removed by the kernel, whoever writes.)
    pub(super) fn kill_privileges(&mut self, obj: Obj, fd: i32, r: &Record) -> Done {
        if r.view.flags() & FLAG_KILLPRIV == 0 || self.objects.get(obj).flags & UNPRIVILEGED != 0 {
            return Ok(());
        }
        let mode = sys::fstat(fd)?.st_mode;
        let wanted = match r.mode {
            0 if mode & libc::S_IXGRP != 0 => mode & !SET_ID,
            0 => mode & !libc::S_ISUID,
            known => known,
        };
        if mode & SET_ID != 0 && (mode ^ wanted) & 0o7777 != 0 {
            sys::chmod_fd(fd, wanted & 0o7777)?;
        }
        self.note_mode(obj, wanted);
        Ok(())
    }

    /// Remembers whether the object can have privileges to lose.
    pub(super) fn note_mode(&mut self, obj: Obj, mode: u32) {
        let flags = &mut self.objects.get_mut(obj).flags;
        if mode & SET_ID == 0 {
            *flags |= UNPRIVILEGED;
        } else {
            *flags &= !UNPRIVILEGED;
        }
    }

    pub(super) fn apply_fallocate(&mut self, r: &Record) -> Done {
        let Fields::Fallocate { mode, offset, len, size_after } = r.fields else {
            return Ok(());
        };
        let Some(obj) = self.object(r.oid)? else {
            return Ok(());
        };
        self.before_contents(obj)?;
        if mode & (COLLAPSE | INSERT) != 0 {
            if self.needs.get(r.oid).is_some() || self.needs.foretold(self.seq) {
                // What lacks moves along; what was brought has perhaps been moved at the source.
                self.need(r.oid, (offset, u64::MAX))?;
            }
            self.stale_codes(r.oid, offset, size_after.saturating_add(len));
            return self.shift(r, obj, (mode, offset, len), size_after);
        }
        self.stale_codes(r.oid, offset, offset.saturating_add(len));
        let fd = self.fd(obj, Access::Write)?;
        match sys::fallocate(fd, mode, offset, len) {
            Err(e) if e.is(libc::EOPNOTSUPP) => self.stand_in(fd, mode, offset, len)?,
            r => r?,
        }
        if !self.forgives_unknown() {
            let size = sys::fstat(fd)?.st_size as u64;
            if size != size_after {
                return Err(Fault::Diverged("the file's size differs after fallocate"));
            }
        }
        self.kill_privileges(obj, fd, r)
    }

    /// The same visible result where the file system lacks the call.
    fn stand_in(&mut self, fd: i32, mode: u32, offset: u64, len: u64) -> Done {
        let size = sys::fstat(fd)?.st_size as u64;
        let end = offset.saturating_add(len);
        if mode & !(ZERO | KEEP_SIZE | UNSHARE) != 0 {
            return Err(Fault::Unsupported("fallocate in this mode"));
        }
        if mode & ZERO != 0 {
            let last = if mode & KEEP_SIZE != 0 { end.min(size) } else { end };
            write_zeros(fd, offset, last)?;
        } else if mode & KEEP_SIZE == 0 && end > size {
            sys::ftruncate(fd, end)?;
        }
        Ok(())
    }

    /// COLLAPSE_RANGE and INSERT_RANGE: not repeatable, so the size tells whether it was done, and
    /// the state before and after is made durable for the sake of power losses.
    fn shift(
        &mut self,
        r: &Record,
        obj: Obj,
        (mode, at, len): (u32, u64, u64),
        after: u64,
    ) -> Done {
        let fd = self.fd(obj, Access::Write)?;
        let size = sys::fstat(fd)?.st_size as u64;
        if size == after && self.lenient() {
            return self.kill_privileges(obj, fd, r);
        }
        let expected =
            if mode & COLLAPSE != 0 { size.checked_sub(len) } else { size.checked_add(len) };
        if expected != Some(after) {
            if self.forgives_unknown() && !self.in_doubt {
                return self.pass_over(r.oid);
            }
            return Err(Fault::Diverged("the file's size differs before fallocate"));
        }
        self.checkpoint_now()?;
        sys::fallocate(fd, mode, at, len)?;
        self.kill_privileges(obj, fd, r)?;
        self.state.header.set_effect_seq(self.seq);
        self.checkpoint_now()
    }

    pub(super) fn apply_copy(&mut self, r: &Record) -> Done {
        let Fields::Copy { source, source_offset, offset, len } = r.fields else {
            return Ok(());
        };
        let (Some(obj), Some(from)) = (self.object(r.oid)?, self.object(source)?) else {
            return Ok(());
        };
        self.before_contents(obj)?;
        let to_fd = self.fd(obj, Access::Write)?;
        let from_fd = self.fd(from, Access::Any)?;
        self.stale_codes(r.oid, offset, offset.saturating_add(len));
        if self.needs.get(source).is_some() || self.needs.foretold(self.seq) {
            // Perhaps of these very bytes.
            self.need(r.oid, (offset, offset.saturating_add(len)))?;
        }
        match copy_range(from_fd, source_offset, to_fd, offset, len) {
            // The source is not what it was: an image of it is still to come.
            Err(Fault::Diverged(_)) if self.forgives_unknown() => self.pass_over(r.oid)?,
            r => r?,
        }
        if from != obj {
            self.watch(from)?;
        }
        self.kill_privileges(obj, to_fd, r)
    }
}

/// Zeros as data.
pub(super) fn write_zeros(fd: i32, mut at: u64, end: u64) -> Done {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while at < end {
        let n = (end - at).min(ZEROS.len() as u64);
        sys::pwrite_all(fd, &ZEROS[..n as usize], at)?;
        at += n;
    }
    Ok(())
}

fn copy_range(from: i32, mut from_at: u64, to: i32, mut to_at: u64, mut len: u64) -> Done {
    while len > 0 {
        let (mut a, mut b) = (from_at as i64, to_at as i64);
        // SAFETY: a and b are valid in/out pointers.
        let got = check("copy_file_range", || unsafe {
            libc::copy_file_range(from, &mut a, to, &mut b, len as usize, 0) as i64
        });
        let n = match got {
            Ok(0) => return Err(Fault::Diverged("the source of a copy is too short")),
            Ok(n) => n as u64,
            Err(e) if e.is(libc::EXDEV) || e.is(libc::EOPNOTSUPP) || e.is(libc::EINVAL) => {
                return copy_by_hand(from, from_at, to, to_at, len);
            }
            Err(e) => return Err(e),
        };
        (from_at, to_at, len) = (from_at + n, to_at + n, len - n);
    }
    Ok(())
}

fn copy_by_hand(from: i32, mut from_at: u64, to: i32, mut to_at: u64, mut len: u64) -> Done {
    let mut buf = vec![0u8; 256 << 10];
    while len > 0 {
        let want = len.min(buf.len() as u64) as usize;
        // SAFETY: buf is valid for `want` bytes.
        let n = check("pread", || unsafe {
            libc::pread(from, buf.as_mut_ptr().cast(), want, from_at as i64) as i64
        })? as usize;
        if n == 0 {
            return Err(Fault::Diverged("the source of a copy is too short"));
        }
        sys::pwrite_all(to, &buf[..n], to_at)?;
        (from_at, to_at, len) = (from_at + n as u64, to_at + n as u64, len - n as u64);
    }
    Ok(())
}
