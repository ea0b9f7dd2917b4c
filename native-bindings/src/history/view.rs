//! The frozen view: a read-only file system that shows a tree as it was at one seq.
//!
//! Every answer is made of what is there now and of the first before-image after the seq; the latter is
//! looked for last, so that a change in between is noticed. Nothing that is shown ever changes: the
//! kernel may keep all of it.
//!
//! Invariant: what was answered before stays true; when the history can no longer prove that, every
//! answer is EIO.

use super::object::{decode_attr, decode_xattrs, read_xattrs, Led};
use super::place::Place;
use super::view_data::Known;
use super::view_dir::Listing;
use super::{limits, History};
use crate::interceptor::attr::{stat_fd, to_attr, to_statx, Stat};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::handle::FileHandle;
use crate::interceptor::names::{read_link, statfs_of};
use crate::interceptor::table::{Access, Inode, Table};
use crate::interceptor::volume::FOREVER_S;
use crate::interceptor::xattr::{give_bytes, give_names};
use crate::record::Oid;
use crate::transport::abi as k;
use crate::transport::abi::{AttrOut, EntryOut, GetxattrIn, StatfsOut, StatxOut};
use crate::transport::device::{negotiate, Wishes};
use crate::transport::mount::{attach, detach, open_device};
use crate::transport::plain::{Plain, Server};
use crate::transport::reply::{Output, Reply};
use crate::transport::request::Request;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

/// Descriptors that one view keeps open.
const DESCRIPTORS_MAX: usize = 1024;

/// A tree as of one seq.
pub struct View {
    pub(super) history: Arc<History>,
    pub seq: u64,
    root_fd: File,
    /// What is on another device is not part of the volume.
    dev: (u32, u32),
    pub(super) root: Arc<Inode>,
    pub(super) table: Table,
    pub(super) known: Mutex<HashMap<Oid, Arc<Known>>>,
    pub(super) listings: Mutex<Vec<(Oid, Arc<Listing>)>>,
}

/// A mounted view.
pub struct Mounted {
    pub view: Arc<View>,
    mountpoint: CString,
    threads: Mutex<Option<Plain>>,
}

impl View {
    /// A view of the tree whose root `root_fd` is; the history keeps what it needs as long as it lives.
    /// ERANGE: the history does not reach back to `seq`.
    pub fn open(history: Arc<History>, root_fd: File, seq: u64) -> Res<Self> {
        let st = stat_fd(root_fd.as_raw_fd())?;
        let handle = FileHandle::of(root_fd.as_raw_fd(), c"")?;
        let table = Table::new(root_fd.as_raw_fd(), DESCRIPTORS_MAX);
        let root = table.enter(handle.oid(st.stx_ino), handle, libc::S_IFDIR, 1);
        history.pin(seq)?;
        let (known, listings) = Default::default();
        let dev = (st.stx_dev_major, st.stx_dev_minor);
        Ok(Self { history, seq, root_fd, dev, root, table, known, listings })
    }

    /// Mounts it, read-only.
    pub fn mount(self, mountpoint: CString, source: &str, flags: libc::c_ulong) -> Res<Mounted> {
        let view = Arc::new(self);
        let device = open_device()?;
        let root = view.attr(&view.root)?;
        let flags = flags | libc::MS_RDONLY;
        attach(&device, &mountpoint, source, u32::from(root.stx_mode), flags)?;
        let wishes = Wishes { exclusive: true, walked: true, ..Wishes::default() };
        let started = negotiate(&device, wishes)
            .and_then(|_| Plain::start(view.clone(), device, limits::VIEW_THREADS));
        match started {
            Ok(threads) => Ok(Mounted { view, mountpoint, threads: Mutex::new(Some(threads)) }),
            Err(e) => {
                let _ = detach(&mountpoint, true);
                Err(e)
            }
        }
    }

    pub(super) fn is_ours(&self, st: &Stat) -> bool {
        (st.stx_dev_major, st.stx_dev_minor) == self.dev
    }

    pub(super) fn mount_fd(&self) -> RawFd {
        self.root_fd.as_raw_fd()
    }

    pub(super) fn inode(&self, nodeid: u64) -> Arc<Inode> {
        match nodeid {
            k::ROOT_ID => self.root.clone(),
            nodeid => self.table.get(nodeid),
        }
    }

    /// The object as it is now; `None` when it is gone.
    pub(super) fn live(&self, handle: &FileHandle, flags: i32) -> Res<Option<OwnedFd>> {
        let fd = match handle.open(self.mount_fd(), flags) {
            Ok(fd) => fd,
            Err(Errno(libc::ESTALE | libc::ENOENT)) => return Ok(None),
            Err(e) => return Err(e),
        };
        // Still open somewhere, without a name: what becomes of it is not kept.
        let gone = stat_fd(fd.as_raw_fd())?.stx_nlink == 0;
        Ok((!gone).then_some(fd))
    }

    /// The same, open for reading; kept open.
    pub(super) fn live_open(&self, inode: &Arc<Inode>) -> Res<Option<Arc<OwnedFd>>> {
        match self.table.descriptor(inode, Access::Read) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno(libc::ESTALE | libc::ENOENT)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn attr(&self, inode: &Inode) -> Res<Stat> {
        let live = match self.live(&inode.handle, libc::O_PATH | libc::O_NOFOLLOW)? {
            Some(fd) => Some(stat_fd(fd.as_raw_fd())?),
            None => None,
        };
        match self.history.first_after(&Place::attr(inode.oid), self.seq)? {
            Some(entry) => Ok(decode_attr(entry.payload())?.st),
            None => live.ok_or(Errno(libc::ESTALE)),
        }
    }

    /// Knows an object that a name leads to, and counts a lookup of it.
    pub(super) fn enter(&self, led: &Led) -> Arc<Inode> {
        self.table.enter(led.oid, led.handle, led.kind, 1)
    }

    /// Attributes of an object of which somebody has just been told what they are now.
    pub(super) fn attr_told(&self, inode: &Inode, now: Option<Stat>) -> Res<Stat> {
        let Some(now) = now else { return self.attr(inode) };
        match self.history.first_after(&Place::attr(inode.oid), self.seq)? {
            Some(entry) => Ok(decode_attr(entry.payload())?.st),
            None => Ok(now),
        }
    }

    pub(super) fn entry(&self, inode: &Arc<Inode>, now: Option<Stat>) -> Res<EntryOut> {
        let st = self.attr_told(inode, now)?;
        let is_root = Arc::ptr_eq(inode, &self.root);
        Ok(EntryOut {
            nodeid: if is_root { k::ROOT_ID } else { inode.nodeid() },
            generation: inode.oid.gen,
            entry_valid: FOREVER_S,
            attr_valid: FOREVER_S,
            entry_valid_nsec: 0,
            attr_valid_nsec: 0,
            attr: to_attr(&st),
        })
    }

    fn op_getattr(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let st = self.attr(&self.inode(r.header.nodeid))?;
        let attr = to_attr(&st);
        out.push(&AttrOut { attr_valid: FOREVER_S, attr_valid_nsec: 0, dummy: 0, attr });
        Ok(Reply::Done)
    }

    fn op_statx(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let stat = to_statx(&self.attr(&self.inode(r.header.nodeid))?);
        let (attr_valid, attr_valid_nsec, flags, spare) = (FOREVER_S, 0, 0, [0; 2]);
        out.push(&StatxOut { attr_valid, attr_valid_nsec, flags, spare, stat });
        Ok(Reply::Done)
    }

    /// A link's target never changes; it goes with its link.
    fn op_readlink(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let inode = self.inode(r.header.nodeid);
        if let Some(fd) = self.live(&inode.handle, libc::O_PATH | libc::O_NOFOLLOW)? {
            out.extend(&read_link(fd.as_raw_fd(), c"")?);
            return Ok(Reply::Done);
        }
        let place = Place::attr(inode.oid);
        let entry = self.history.first_after(&place, self.seq)?.ok_or(Errno(libc::ESTALE))?;
        out.extend(decode_attr(entry.payload())?.target);
        Ok(Reply::Done)
    }

    fn xattrs(&self, inode: &Inode) -> Res<Vec<(Vec<u8>, Vec<u8>)>> {
        let live = match self.live(&inode.handle, libc::O_PATH | libc::O_NOFOLLOW)? {
            Some(fd) => read_xattrs(&fd)?,
            None => Vec::new(),
        };
        match self.history.first_after(&Place::xattr(inode.oid), self.seq)? {
            Some(entry) => decode_xattrs(entry.payload()),
            None => Ok(live),
        }
    }

    fn op_getxattr(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let arg: GetxattrIn = r.arg()?;
        let name = r.name()?;
        let all = self.xattrs(&self.inode(r.header.nodeid))?;
        let found = all.iter().find(|(n, _)| n == name).ok_or(Errno(libc::ENODATA))?;
        give_bytes(out, arg.size, &found.1)
    }

    fn op_listxattr(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let arg: GetxattrIn = r.arg()?;
        let mut names = Vec::new();
        for (name, _) in self.xattrs(&self.inode(r.header.nodeid))? {
            names.extend_from_slice(&name);
            names.push(0);
        }
        give_names(out, r, arg.size, &names)
    }

    fn op_statfs(&self, out: &mut Output) -> Res<Reply> {
        let all = statfs_of(self.mount_fd())?;
        out.push(&StatfsOut { bfree: 0, bavail: 0, ffree: 0, ..all });
        Ok(Reply::Done)
    }

    fn forget(&self, nodeid: u64, n: u64) {
        if nodeid == k::ROOT_ID {
            return;
        }
        let inode = self.table.get(nodeid);
        self.table.forget(&inode, n);
        if self.table.find(inode.oid).is_none() {
            self.known.lock().remove(&inode.oid);
        }
    }

    fn op_batch_forget(&self, r: &Request) -> Res<Reply> {
        for one in r.forgets()? {
            self.forget(one.nodeid, one.nlookup);
        }
        Ok(Reply::None)
    }

    fn dispatch(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        match r.header.opcode {
            k::LOOKUP => self.op_lookup(out, r),
            k::FORGET => {
                let arg: k::ForgetIn = r.arg()?;
                self.forget(r.header.nodeid, arg.nlookup);
                Ok(Reply::None)
            }
            k::BATCH_FORGET => self.op_batch_forget(r),
            k::GETATTR => self.op_getattr(out, r),
            k::STATX => self.op_statx(out, r),
            k::READLINK => self.op_readlink(out, r),
            k::READ => self.op_read(out, r),
            k::LSEEK => self.op_lseek(out, r),
            k::READDIR => self.op_readdir(out, r, false),
            k::READDIRPLUS => self.op_readdir(out, r, true),
            k::STATFS => self.op_statfs(out),
            k::GETXATTR => self.op_getxattr(out, r),
            k::LISTXATTR => self.op_listxattr(out, r),
            k::RELEASE | k::RELEASEDIR | k::DESTROY | k::FSYNC | k::SYNCFS => Ok(Reply::Done),
            k::INTERRUPT => Ok(Reply::None),
            k::SETATTR | k::MKNOD | k::MKDIR | k::SYMLINK | k::LINK | k::UNLINK | k::RMDIR => {
                Err(Errno(libc::EROFS))
            }
            k::RENAME | k::RENAME2 | k::WRITE | k::SETXATTR | k::REMOVEXATTR | k::TMPFILE => {
                Err(Errno(libc::EROFS))
            }
            k::IOCTL => Err(Errno(libc::ENOTTY)),
            // Refused once, the kernel then opens, closes and checks permissions without asking.
            _ => Err(Errno(libc::ENOSYS)),
        }
    }
}

impl Server for View {
    fn serve(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let answer = self.dispatch(out, r);
        // Looked at last: what was read may have been let go of meanwhile. That something is not there
        // (ENODATA, ENXIO) is told from what was read, too.
        let proven = self.history.shows(self.seq) && !self.history.is_closed();
        match answer {
            Ok(Reply::None) => Ok(Reply::None),
            answer if proven => answer,
            _ => Err(Errno(libc::EIO)),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.history.unpin(self.seq);
    }
}

impl Mounted {
    /// Ends it, and waits until `end` for its threads. EBUSY while somebody uses it, unless it is `lazy`.
    pub fn unmount(&self, lazy: bool, end: Instant) -> Res<()> {
        let mut threads = self.threads.lock();
        if threads.is_none() {
            return Ok(());
        }
        match detach(&self.mountpoint, lazy) {
            Ok(()) => {}
            // Somebody else unmounted it already.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(e) => return Err(e.into()),
        }
        if let Some(threads) = threads.take() {
            // Detached lazily, it may be in use for long: the threads end with the last use.
            if !lazy {
                threads.join(end);
            }
        }
        Ok(())
    }
}
