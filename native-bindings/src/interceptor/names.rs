//! Looking up: names to objects, attributes, link targets, and forgetting them again.

use super::attr::{stat_at, to_attr, to_statx, Stat};
use super::errno::{check_len, Errno, Res};
use super::handle::{CName, FileHandle};
use super::table::{raw, Access, Inode};
use super::volume::{Volume, Worker};
use crate::record::Oid;
use crate::transport::abi::{AttrOut, EntryOut, ForgetIn, StatfsOut, StatxOut};
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::ffi::CStr;
use std::sync::Arc;

impl Volume {
    /// Finds `name` in a directory and counts a lookup of it.
    pub fn look_up(
        &self,
        parent: &Arc<Inode>,
        dir: i32,
        name: &CName,
        bytes: &[u8],
    ) -> Res<(Arc<Inode>, Stat)> {
        let st = stat_at(dir, name.as_c())?;
        self.check_device(&st)?;
        let handle = FileHandle::of(dir, name.as_c())?;
        Ok((self.know(parent, bytes, &st, handle, 1), st))
    }

    /// The inode of an object found as `name` in `parent`.
    pub(super) fn know(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
        st: &Stat,
        handle: FileHandle,
        lookups: u64,
    ) -> Arc<Inode> {
        let kind = u32::from(st.stx_mode) & libc::S_IFMT;
        let inode = self.table.enter(handle.oid(st.stx_ino), handle, kind, lookups);
        self.name(&inode, parent, name);
        inode
    }

    /// The inode of an object that a scan found; counts a lookup.
    pub fn adopt(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
        oid: Oid,
        handle: FileHandle,
        kind: u32,
    ) -> Arc<Inode> {
        let inode = self.table.enter(oid, handle, kind, 1);
        self.name(&inode, parent, name);
        inode
    }

    fn name(&self, inode: &Inode, parent: &Arc<Inode>, name: &[u8]) {
        self.absent.forget(parent.oid, name);
        let mut binding = inode.binding.lock();
        let known = binding.parent.as_ref().is_some_and(|p| Arc::ptr_eq(p, parent));
        if !(known && *binding.name == *name) {
            self.table.rebind(&mut binding, Some(parent), name);
        }
    }

    /// A volume is one file system.
    fn check_device(&self, st: &Stat) -> Res<()> {
        if (st.stx_dev_major, st.stx_dev_minor) == self.dev {
            Ok(())
        } else {
            Err(Errno(libc::EXDEV))
        }
    }

    pub(super) fn op_lookup(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let bytes = r.name()?;
        let name = CName::new(bytes)?;
        let parent = self.inode(r.header.nodeid);
        let dir = self.dir_fd(&parent)?;
        match self.look_up(&parent, raw(&dir), &name, bytes) {
            Ok((inode, st)) => w.out.push(&self.entry(&inode, &st)),
            Err(Errno(libc::ENOENT)) => {
                // The kernel remembers that the name is not there.
                w.out.push(&EntryOut { entry_valid: self.valid_s(), ..Default::default() });
            }
            Err(e) => return Err(e),
        }
        Ok(Reply::Done)
    }

    pub(super) fn op_forget(&self, r: &Request) -> Res<Reply> {
        let arg: ForgetIn = r.arg()?;
        self.forget(r.header.nodeid, arg.nlookup);
        Ok(Reply::None)
    }

    pub(super) fn op_batch_forget(&self, r: &Request) -> Res<Reply> {
        for one in r.forgets()? {
            self.forget(one.nodeid, one.nlookup);
        }
        Ok(Reply::None)
    }

    fn forget(&self, nodeid: u64, n: u64) {
        if nodeid != crate::transport::abi::ROOT_ID {
            self.table.forget(&self.table.get(nodeid), n);
        }
    }

    pub(super) fn op_getattr(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let st = self.stat(&self.inode(r.header.nodeid))?;
        self.push_attr(w, &st);
        Ok(Reply::Done)
    }

    /// The answer of GETATTR and SETATTR.
    pub(super) fn push_attr(&self, w: &mut Worker, st: &Stat) {
        w.out.push(&AttrOut {
            attr_valid: self.valid_s(),
            attr_valid_nsec: 0,
            dummy: 0,
            attr: to_attr(st),
        });
    }

    pub(super) fn op_statx(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let st = self.stat(&self.inode(r.header.nodeid))?;
        w.out.push(&StatxOut {
            attr_valid: self.valid_s(),
            attr_valid_nsec: 0,
            flags: 0,
            spare: [0; 2],
            stat: to_statx(&st),
        });
        Ok(Reply::Done)
    }

    pub(super) fn op_readlink(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let inode = self.inode(r.header.nodeid);
        let fd = self.table.descriptor(&inode, Access::Path)?;
        w.out.fill(libc::PATH_MAX as usize, |buf| {
            // SAFETY: the buffer is valid for its length.
            check_len(unsafe {
                libc::readlinkat(raw(&fd), c"".as_ptr(), buf.as_mut_ptr().cast(), buf.len())
            })
        })?;
        Ok(Reply::Done)
    }

    pub(super) fn op_statfs(&self, w: &mut Worker) -> Res<Reply> {
        w.out.push(&statfs_of(self.mount_fd())?);
        Ok(Reply::Done)
    }
}

/// What STATFS tells of the file system of an open descriptor.
pub fn statfs_of(fd: i32) -> Res<StatfsOut> {
    // SAFETY: all zero is a valid statfs buffer; the descriptor is open.
    let s = unsafe {
        let mut s: libc::statfs = std::mem::zeroed();
        super::errno::check(libc::fstatfs(fd, &mut s))?;
        s
    };
    Ok(StatfsOut {
        blocks: s.f_blocks,
        bfree: s.f_bfree,
        bavail: s.f_bavail,
        files: s.f_files,
        ffree: s.f_ffree,
        bsize: s.f_bsize as u32,
        namelen: s.f_namelen as u32,
        frsize: s.f_frsize as u32,
        padding: 0,
        spare: [0; 6],
    })
}

/// The target of the symbolic link `name` below an open directory, or of an open link itself when the
/// name is empty.
pub fn read_link(dir: i32, name: &CStr) -> Res<Vec<u8>> {
    let mut target = vec![0; libc::PATH_MAX as usize];
    // SAFETY: a valid string and buffer.
    let n = check_len(unsafe {
        libc::readlinkat(dir, name.as_ptr(), target.as_mut_ptr().cast(), target.len())
    })?;
    target.truncate(n);
    Ok(target)
}
