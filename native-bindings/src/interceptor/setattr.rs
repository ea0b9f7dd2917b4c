//! SETATTR in all its forms: mode, owner, size, times.

use super::attr::{atime, mtime, stat_fd, Stat};
use super::errno::{check, Errno, Res};
use super::handle::proc_path;
use super::table::{raw, Access, EffectLocks, Inode};
use super::volume::{Volume, Worker};
use crate::record::{valid, Encoder, Header, Op, FLAG_KILLPRIV, RECORD_HEADER};
use crate::transport::abi as k;
use crate::transport::abi::SetattrIn;
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

fn wanted(arg: &SetattrIn) -> u32 {
    let pairs = [
        (k::FATTR_MODE, valid::MODE),
        (k::FATTR_UID, valid::UID),
        (k::FATTR_GID, valid::GID),
        (k::FATTR_SIZE, valid::SIZE),
        (k::FATTR_ATIME, valid::ATIME),
        (k::FATTR_MTIME, valid::MTIME),
    ];
    pairs.into_iter().filter(|(fattr, _)| arg.valid & fattr != 0).fold(0, |v, (_, bit)| v | bit)
}

/// The record; `after` gives the values that the effect left, never "now".
fn encode(
    buf: &mut [u8],
    header: &Header,
    valid: u32,
    arg: &SetattrIn,
    st: Option<&Stat>,
) -> usize {
    let mut h = *header;
    let (mut mode, mut uid, mut gid, mut size) = (arg.mode, arg.uid, arg.gid, arg.size);
    let (mut at, mut mt) = Default::default();
    if let Some(st) = st {
        h.time = mtime(st);
        h.mode = u32::from(st.stx_mode);
        (mode, uid, gid, size) = (h.mode, st.stx_uid, st.stx_gid, st.stx_size);
        (at, mt) = (atime(st), mtime(st));
    }
    let mut e = Encoder::new(buf, &h);
    e.u32(valid).u32(mode).u32(uid).u32(gid).u64(size).time(at).time(mt);
    e.finish()
}

impl Volume {
    /// Captures what a change of data left that failed half-way for want of space: times and privileges
    /// are changed before space is asked for, and an allocation may keep what it got. Call under the
    /// effect lock.
    pub(super) fn capture_failed(
        &self,
        w: &mut Worker,
        r: &Request,
        inode: &Arc<Inode>,
        fd: &Arc<OwnedFd>,
        error: Errno,
    ) -> Res<()> {
        let moves = matches!(error.0, libc::ENOSPC | libc::EDQUOT | libc::EIO);
        if !moves || inode.is_gone() {
            return Ok(());
        }
        let st = stat_fd(raw(fd))?;
        let header = w.header(&r.header, Op::Setattr, inode.oid);
        let valid = valid::MODE | valid::SIZE | valid::MTIME;
        let arg = SetattrIn::default();
        let fill = |buf: &mut [u8]| encode(buf, &header, valid, &arg, Some(&st));
        self.bind(w, inode);
        match w.writer.append(RECORD_HEADER + 64, self.options.ring_wait, fill) {
            Some(seq) => w.past.stamp(seq, self.history.get().map(|h| &**h)),
            None => self.note_uncaptured(),
        }
        self.saw(inode, &st);
        Ok(())
    }

    pub(super) fn op_setattr(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: SetattrIn = r.arg()?;
        let inode = self.inode(r.header.nodeid);
        let sizes = arg.valid & k::FATTR_SIZE != 0;
        let access = match () {
            _ if sizes => Access::Write,
            // fchmod(2) refuses O_PATH descriptors.
            _ if arg.valid & k::FATTR_MODE != 0 => Access::Read,
            _ => Access::Path,
        };
        let fd = self.table.descriptor(&inode, access)?;
        let valid = wanted(&arg);
        let kill = arg.valid & k::FATTR_KILL_SUIDGID != 0;
        if valid == 0 {
            // "Clear privileges", which the backing file system does in the operation that follows; or a
            // chown(2) that names no owner, which cannot be told from it.
            self.push_attr(w, &stat_fd(raw(&fd))?);
            return Ok(Reply::Done);
        }
        let mut header = w.header(&r.header, Op::Setattr, inode.oid);
        if kill {
            header.flags |= FLAG_KILLPRIV;
        }
        let _inside = self.gate.enter();
        let captured = !inode.is_gone();
        let slot = match captured {
            true => {
                let objects = [Some(&inode), None];
                Some(self.reserve(w, RECORD_HEADER + 64, objects, |buf| {
                    encode(buf, &header, valid, &arg, None)
                })?)
            }
            false => None,
        };
        // An owner who is not root loses set-group-id as a writer does.
        let gives = arg.valid & (k::FATTR_UID | k::FATTR_GID) != 0 && r.header.uid != 0;
        self.become_writer(w, &r.header, raw(&fd), gives || (kill && sizes))?;
        let locks = EffectLocks::new([Some(&inode), None, None, None]);
        if captured {
            if let Err(e) = self.past_of_setattr(w, &inode, &fd, &arg) {
                return Err(self.refused(w, slot, e));
            }
        }
        if sizes && self.codes.get().is_some() {
            let size = stat_fd(raw(&fd))?.stx_size;
            self.before_change(&inode, arg.size.min(size), size);
        }
        let (done, result) = apply(&inode, &fd, &arg);
        let st = stat_fd(raw(&fd));
        match (slot, &st) {
            (Some(slot), Ok(st)) if done != 0 => {
                self.bind(w, &inode);
                self.publish(w, slot, |buf| encode(buf, &header, done, &arg, Some(st)));
            }
            (Some(slot), _) => w.writer.abort(slot),
            (None, _) => {}
        }
        drop(locks);
        result?;
        let st = st?;
        self.saw(&inode, &st);
        self.push_attr(w, &st);
        Ok(Reply::Done)
    }
}

/// Does what is wanted, step by step; says which steps took effect before one failed.
fn apply(inode: &Arc<Inode>, fd: &Arc<OwnedFd>, arg: &SetattrIn) -> (u32, Res<()>) {
    let mut done = 0;
    let owner = arg.valid & (k::FATTR_UID | k::FATTR_GID);
    if owner != 0 {
        let uid = if owner & k::FATTR_UID != 0 { arg.uid } else { u32::MAX };
        let gid = if owner & k::FATTR_GID != 0 { arg.gid } else { u32::MAX };
        // SAFETY: a valid string.
        let rc =
            check(unsafe { libc::fchownat(raw(fd), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) });
        if let Err(e) = rc {
            return (done, Err(e));
        }
        done |= wanted(&SetattrIn { valid: owner, ..*arg });
        // A change of owner clears set-uid and set-gid: the mode is part of the effect.
        if inode.kind != libc::S_IFLNK {
            done |= valid::MODE;
        }
    }
    if arg.valid & k::FATTR_MODE != 0 {
        if let Err(e) = set_mode(inode, fd, arg.mode & 0o7777) {
            return (done, Err(e));
        }
        done |= valid::MODE;
    }
    if arg.valid & k::FATTR_SIZE != 0 {
        if let Err(e) = set_size(fd, arg) {
            return (done, Err(e));
        }
        done |= valid::SIZE;
    }
    if arg.valid & (k::FATTR_ATIME | k::FATTR_MTIME) != 0 {
        if let Err(e) = set_times(fd, arg) {
            return (done, Err(e));
        }
        done |= wanted(&SetattrIn { valid: arg.valid & (k::FATTR_ATIME | k::FATTR_MTIME), ..*arg });
    }
    (done, Ok(()))
}

/// fchmod(2) refuses the O_PATH descriptors that a special file has: then the way leads through /proc.
fn set_mode(inode: &Inode, fd: &OwnedFd, mode: u32) -> Res<()> {
    if inode.is_regular() || inode.is_dir() {
        // SAFETY: plain call on an open descriptor.
        let rc = check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) });
        if rc != Err(Errno(libc::EBADF)) {
            return rc.map(|_| ());
        }
    }
    let path = proc_path(fd);
    // SAFETY: a valid string.
    check(unsafe { libc::chmod(path.as_ptr(), mode) })?;
    Ok(())
}

/// ftruncate(2) and O_TRUNC always change mtime, truncate(2) only when the size changes: the one that was
/// called. O_TRUNC and truncate(2) to nothing look the same here; O_TRUNC is meant far more often.
fn set_size(fd: &OwnedFd, arg: &SetattrIn) -> Res<()> {
    let size = arg.size as i64;
    // SAFETY: plain calls, a valid string.
    check(unsafe {
        if arg.valid & k::FATTR_FH != 0 || size == 0 {
            libc::ftruncate(fd.as_raw_fd(), size)
        } else {
            libc::truncate(proc_path(fd).as_ptr(), size)
        }
    })?;
    Ok(())
}

fn set_times(fd: &Arc<OwnedFd>, arg: &SetattrIn) -> Res<()> {
    let one = |set: u32, now: u32, sec: u64, nsec: u32| libc::timespec {
        tv_sec: sec as i64,
        tv_nsec: if arg.valid & now != 0 {
            libc::UTIME_NOW
        } else if arg.valid & set != 0 {
            i64::from(nsec)
        } else {
            libc::UTIME_OMIT
        },
    };
    let times = [
        one(k::FATTR_ATIME, k::FATTR_ATIME_NOW, arg.atime, arg.atimensec),
        one(k::FATTR_MTIME, k::FATTR_MTIME_NOW, arg.mtime, arg.mtimensec),
    ];
    // SAFETY: a valid string and array.
    check(unsafe { libc::utimensat(raw(fd), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) })?;
    Ok(())
}
