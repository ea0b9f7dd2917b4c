//! Creations: MKNOD (regular files too), MKDIR, SYMLINK, LINK, TMPFILE.

use super::attr::{decode_dev, mtime, stat_fd, Stat};
use super::errno::{check, Errno, Res};
use super::handle::{CName, FileHandle};
use super::table::{raw, Access, EffectLocks, Inode};
use super::volume::{Volume, Worker};
use crate::record::{Encoder, Header, Op, Time, RECORD_HEADER};
use crate::transport::abi::{CreateIn, LinkIn, MkdirIn, MknodIn, OpenOut, FOPEN_KEEP_CACHE};
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// What a creation asks for.
struct Wanted<'a> {
    op: Op,
    name: &'a [u8],
    /// With type.
    mode: u32,
    rdev: u32,
    umask: u32,
    target: &'a [u8],
}

/// The record of a creation; `made` is what came of it, once that is known.
fn encode(
    buf: &mut [u8],
    header: &Header,
    wanted: &Wanted,
    parent: &Inode,
    pmtime: Time,
    made: Option<(&Inode, &Stat)>,
) -> usize {
    let mut header = *header;
    let mut owner = (header.uid, header.gid);
    if let Some((inode, st)) = made {
        header.oid = inode.oid;
        header.time = mtime(st);
        header.mode = u32::from(st.stx_mode);
        owner = (st.stx_uid, st.stx_gid);
    }
    let mut e = Encoder::new(buf, &header);
    e.oid(parent.oid).time(pmtime).u32(wanted.rdev).u32(wanted.mode).u32(wanted.umask);
    e.u32(owner.0).u32(owner.1).name(wanted.name).payload().raw(wanted.target);
    e.finish()
}

impl Volume {
    pub(super) fn op_mknod(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: MknodIn = r.arg()?;
        let mode = if arg.mode & libc::S_IFMT == 0 { arg.mode | libc::S_IFREG } else { arg.mode };
        let wanted = Wanted {
            op: Op::Mknod,
            name: r.name()?,
            mode,
            rdev: arg.rdev,
            umask: arg.umask,
            target: b"",
        };
        self.create(w, r, &wanted)
    }

    pub(super) fn op_mkdir(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: MkdirIn = r.arg()?;
        let wanted = Wanted {
            op: Op::Mkdir,
            name: r.name()?,
            mode: (arg.mode & 0o7777) | libc::S_IFDIR,
            rdev: 0,
            umask: arg.umask,
            target: b"",
        };
        self.create(w, r, &wanted)
    }

    pub(super) fn op_symlink(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let (name, target) = r.two_names()?;
        let mode = libc::S_IFLNK | 0o777;
        let wanted = Wanted { op: Op::Symlink, name, mode, rdev: 0, umask: 0, target };
        self.create(w, r, &wanted)
    }

    fn create(&self, w: &mut Worker, r: &Request, wanted: &Wanted) -> Res<Reply> {
        let name = CName::new(wanted.name)?;
        let parent = self.inode(r.header.nodeid);
        let dir = self.dir_fd(&parent)?;
        let header = w.header(&r.header, wanted.op, Default::default());
        let _inside = self.gate.enter();
        let len = RECORD_HEADER + 64 + wanted.name.len() + wanted.target.len() + 8;
        let objects = [Some(&parent), None];
        let slot = self.reserve(w, len, objects, |buf| {
            encode(buf, &header, wanted, &parent, Time::UNKNOWN, None)
        })?;
        w.creds.assume(r.header.uid, r.header.gid, false);
        w.creds.umask(wanted.umask);
        let locks = EffectLocks::new([Some(&parent), None, None, None]);
        if let Err(e) = self.past_of_new_name(w, &parent, &dir, wanted.name) {
            return Err(self.refused(w, Some(slot), e));
        }
        let fd = match make(raw(&dir), &name, wanted) {
            Ok(fd) => fd,
            Err(e) => {
                w.writer.abort(slot);
                return Err(e);
            }
        };
        let (inode, st) = self.made(&parent, wanted.name, &name, raw(&dir), fd)?;
        if let Some(history) = self.history.get() {
            history.born(inode.oid);
        }
        self.bind(w, &parent);
        let pst = stat_fd(raw(&dir))?;
        {
            let _binding = inode.binding.lock();
            self.set_bound(&inode);
            self.publish(w, slot, |buf| {
                encode(buf, &header, wanted, &parent, mtime(&pst), Some((&inode, &st)))
            });
        }
        drop(locks);
        self.saw(&inode, &st);
        self.saw(&parent, &pst);
        w.out.push(&self.entry(&inode, &st));
        Ok(Reply::Done)
    }

    /// Takes a fresh object into the table.
    fn made(
        &self,
        parent: &Arc<Inode>,
        bytes: &[u8],
        name: &CName,
        dir: i32,
        fd: Option<OwnedFd>,
    ) -> Res<(Arc<Inode>, Stat)> {
        match fd {
            Some(fd) => {
                let st = stat_fd(fd.as_raw_fd())?;
                let handle = FileHandle::of(fd.as_raw_fd(), c"")?;
                let inode = self.know(parent, bytes, &st, handle, 1);
                self.table.keep(&inode, fd, Access::Write);
                Ok((inode, st))
            }
            None => self.look_up(parent, dir, name, bytes),
        }
    }

    pub(super) fn op_link(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: LinkIn = r.arg()?;
        let bytes = r.name()?;
        let name = CName::new(bytes)?;
        let parent = self.inode(r.header.nodeid);
        let inode = self.inode(arg.oldnodeid);
        let dir = self.dir_fd(&parent)?;
        let fd = self.table.descriptor(&inode, Access::Path)?;
        let header = w.header(&r.header, Op::Link, inode.oid);
        let encode = |buf: &mut [u8], time: Time, mode: u32, pmtime: Time| {
            let mut e = Encoder::new(buf, &Header { time, mode, ..header });
            e.oid(parent.oid).time(pmtime).name(bytes);
            e.finish()
        };
        let _inside = self.gate.enter();
        let len = RECORD_HEADER + 40 + bytes.len() + 8;
        let objects = [Some(&inode), Some(&parent)];
        let unknown = Time::UNKNOWN;
        let slot = self.reserve(w, len, objects, |buf| encode(buf, unknown, 0, unknown))?;
        w.creds.assume(r.header.uid, r.header.gid, false);
        let locks = EffectLocks::new([Some(&parent), Some(&inode), None, None]);
        let kept = self
            .past_of_new_name(w, &parent, &dir, bytes)
            .and_then(|()| self.past_of_attr(w, &inode, &fd, false));
        if let Err(e) = kept {
            return Err(self.refused(w, Some(slot), e));
        }
        self.scan.note_entry(&parent);
        // SAFETY: valid strings; AT_EMPTY_PATH links the object of the descriptor.
        let done = check(unsafe {
            let (from, to) = (c"".as_ptr(), name.as_ptr());
            libc::linkat(raw(&fd), from, raw(&dir), to, libc::AT_EMPTY_PATH)
        });
        if let Err(e) = done {
            w.writer.abort(slot);
            return Err(e);
        }
        self.absent.forget(parent.oid, bytes);
        let st = stat_fd(raw(&fd))?;
        let pst = stat_fd(raw(&dir))?;
        self.bind(w, &parent);
        self.bind(w, &inode);
        if inode.tmpfile.swap(false, Ordering::AcqRel) {
            self.table.unpin(&inode);
        }
        {
            let mut binding = inode.binding.lock();
            self.table.rebind(&mut binding, Some(&parent), bytes);
            self.set_bound(&inode);
            self.publish(w, slot, |buf| {
                encode(buf, mtime(&st), u32::from(st.stx_mode), mtime(&pst))
            });
        }
        drop(locks);
        self.saw(&inode, &st);
        self.saw(&parent, &pst);
        self.table.enter(inode.oid, inode.handle, inode.kind, 1);
        w.out.push(&self.entry(&inode, &st));
        Ok(Reply::Done)
    }

    pub(super) fn op_tmpfile(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: CreateIn = r.arg()?;
        let parent = self.inode(r.header.nodeid);
        let dir = self.dir_fd(&parent)?;
        let header = w.header(&r.header, Op::Tmpfile, Default::default());
        let encode = |buf: &mut [u8], made: Option<(&Inode, &Stat)>| {
            let mut h = header;
            let mut owner = (h.uid, h.gid);
            if let Some((inode, st)) = made {
                h.oid = inode.oid;
                h.time = mtime(st);
                h.mode = u32::from(st.stx_mode);
                owner = (st.stx_uid, st.stx_gid);
            }
            let mut e = Encoder::new(buf, &h);
            e.oid(parent.oid).u32(arg.mode).u32(arg.umask).u32(owner.0).u32(owner.1);
            e.finish()
        };
        let _inside = self.gate.enter();
        let objects = [Some(&parent), None];
        let slot = self.reserve(w, RECORD_HEADER + 40, objects, |buf| encode(buf, None))?;
        w.creds.assume(r.header.uid, r.header.gid, false);
        w.creds.umask(arg.umask);
        let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: a valid string; the result is checked.
        let fd = check(unsafe { libc::openat(raw(&dir), c".".as_ptr(), flags, arg.mode & 0o7777) });
        let fd = match fd {
            // SAFETY: a fresh descriptor that nobody else owns.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Err(e) => {
                w.writer.abort(slot);
                return Err(e);
            }
        };
        let st = stat_fd(fd.as_raw_fd())?;
        let handle = FileHandle::of(fd.as_raw_fd(), c"")?;
        let inode = self.table.enter(handle.oid(st.stx_ino), handle, libc::S_IFREG, 1);
        inode.tmpfile.store(true, Ordering::Release);
        self.table.pin(&inode);
        self.table.keep(&inode, fd, Access::Write);
        let locks = EffectLocks::new([Some(&inode), None, None, None]);
        self.bind(w, &parent);
        self.set_bound(&inode);
        self.publish(w, slot, |buf| encode(buf, Some((&inode, &st))));
        drop(locks);
        w.out.push(&self.entry(&inode, &st));
        w.out.push(&OpenOut { fh: 0, open_flags: FOPEN_KEEP_CACHE, backing_id: 0 });
        Ok(Reply::Done)
    }
}

/// The real operation; a regular file stays open for what will be written to it.
fn make(dir: i32, name: &CName, wanted: &Wanted) -> Res<Option<OwnedFd>> {
    let mode = wanted.mode & 0o7777;
    match wanted.mode & libc::S_IFMT {
        libc::S_IFREG => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_NOFOLLOW;
            // SAFETY: a valid string; the result is checked.
            let fd =
                check(unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CLOEXEC, mode) })?;
            // SAFETY: a fresh descriptor that nobody else owns.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        // SAFETY: valid strings in all three.
        libc::S_IFDIR => check(unsafe { libc::mkdirat(dir, name.as_ptr(), mode) })?,
        libc::S_IFLNK => {
            let target = std::ffi::CString::new(wanted.target).map_err(|_| Errno(libc::EINVAL))?;
            // SAFETY: as above.
            check(unsafe { libc::symlinkat(target.as_ptr(), dir, name.as_ptr()) })?
        }
        _ => {
            let dev = decode_dev(wanted.rdev);
            // SAFETY: as above.
            check(unsafe { libc::mknodat(dir, name.as_ptr(), wanted.mode, dev) })?
        }
    };
    Ok(None)
}
