//! From a request to its dummy function.

use super::errno::{Errno, Res};
use super::volume::{Volume, Worker};
use crate::transport::abi as k;
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;

impl Volume {
    /// Answers one request. The reply's bytes are in `w.out`; a panic stays inside and becomes EIO.
    pub fn serve(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        w.out.clear();
        self.count(r.header.opcode);
        let result = catch_unwind(AssertUnwindSafe(|| self.acknowledged(w, r)));
        let result = result.unwrap_or_else(|_| {
            self.counters.panics.fetch_add(1, Ordering::Relaxed);
            Err(Errno(libc::EIO))
        });
        w.past.settle(self.history.get().map(|h| &**h));
        w.writer.rest();
        if result.is_err() {
            w.out.clear();
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Counts a request that was answered without `serve`.
    pub fn count(&self, opcode: u32) {
        if let Some(n) = self.counters.ops.get(opcode as usize) {
            n.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn dispatch(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        match r.header.opcode {
            k::LOOKUP => self.op_lookup(w, r),
            k::FORGET => self.op_forget(r),
            k::BATCH_FORGET => self.op_batch_forget(r),
            k::GETATTR => self.op_getattr(w, r),
            k::STATX => self.op_statx(w, r),
            k::SETATTR => self.op_setattr(w, r),
            k::READLINK => self.op_readlink(w, r),
            k::SYMLINK => self.op_symlink(w, r),
            k::MKNOD => self.op_mknod(w, r),
            k::MKDIR => self.op_mkdir(w, r),
            k::TMPFILE => self.op_tmpfile(w, r),
            k::LINK => self.op_link(w, r),
            k::UNLINK => self.op_unlink(w, r),
            k::RMDIR => self.op_rmdir(w, r),
            k::RENAME => self.op_rename(w, r),
            k::RENAME2 => self.op_rename2(w, r),
            k::READ => self.op_read(w, r),
            k::WRITE => self.op_write(w, r),
            k::FALLOCATE => self.op_fallocate(w, r),
            k::COPY_FILE_RANGE => self.op_copy(w, r),
            k::LSEEK => self.op_lseek(w, r),
            k::FSYNC => self.op_fsync(w, r),
            k::FSYNCDIR => self.op_fsync(w, r),
            // Refused once, the kernel closes without asking; see `ack`.
            k::FLUSH if self.acks.answers_close() => Ok(Reply::Done),
            k::SYNCFS => self.op_syncfs(w),
            k::READDIR => self.op_readdir(w, r, false),
            k::READDIRPLUS => self.op_readdir(w, r, true),
            k::STATFS => self.op_statfs(w),
            k::GETXATTR => self.op_getxattr(w, r),
            k::LISTXATTR => self.op_listxattr(w, r),
            k::SETXATTR => self.op_setxattr(w, r),
            k::REMOVEXATTR => self.op_removexattr(w, r),
            k::IOCTL => self.op_ioctl(w, r),
            k::RELEASE | k::RELEASEDIR | k::DESTROY => Ok(Reply::Done),
            k::INTERRUPT => Ok(Reply::None),
            // Refused on purpose, once: the kernel then opens and closes without asking, keeps locks
            // itself, checks permissions itself, and makes files with MKNOD.
            _ => Err(Errno(libc::ENOSYS)),
        }
    }
}
