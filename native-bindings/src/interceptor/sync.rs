//! Durability: FSYNC, FSYNCDIR, and writes of O_SYNC and O_DSYNC files.

use super::errno::{check, Errno, Res};
use super::table::{raw, Access, Inode};
use super::volume::{Volume, Worker};
use crate::transport::abi::{FsyncIn, FSYNC_FDATASYNC};
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

impl Volume {
    pub(super) fn op_fsync(&self, _w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: FsyncIn = r.arg()?;
        let inode = self.inode(r.header.nodeid);
        let fd = self.table.descriptor(&inode, Access::Read)?;
        self.make_durable(&inode, &fd, arg.fsync_flags & FSYNC_FDATASYNC != 0)?;
        Ok(Reply::Done)
    }

    /// Backing file and journal become durable side by side; both are when this returns.
    pub(super) fn make_durable(
        &self,
        inode: &Arc<Inode>,
        fd: &Arc<OwnedFd>,
        data_only: bool,
    ) -> Res<()> {
        let start = Instant::now();
        // Everything this caller was told of has a seq already.
        let seq = self.ring.captured_seq();
        let captured = !inode.is_gone();
        if captured {
            self.ring.want_flush(seq);
        }
        // SAFETY: plain calls on an open descriptor.
        check(unsafe {
            if data_only {
                libc::fdatasync(raw(fd))
            } else {
                libc::fsync(raw(fd))
            }
        })?;
        if captured {
            self.ring.wait_flushed(seq).map_err(Errno)?;
        }
        self.counters.last_fsync_ns.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn op_syncfs(&self, w: &mut Worker) -> Res<Reply> {
        w.creds.own();
        let seq = self.ring.captured_seq();
        self.ring.want_flush(seq);
        self.sync_backing()?;
        self.ring.wait_flushed(seq).map_err(Errno)?;
        Ok(Reply::Done)
    }

    /// syncfs(2) on the backing file system.
    pub fn sync_backing(&self) -> Res<()> {
        // SAFETY: plain call on an open descriptor.
        check(unsafe { libc::syncfs(self.mount_fd()) })?;
        Ok(())
    }
}
