//! File attribute ioctls (chattr, lsattr, project ids). All others are ENOTTY, as on most files.

use super::attr::{mtime, stat_fd};
use super::errno::{check, Errno, Res};
use super::table::{raw, Access, EffectLocks};
use super::volume::{Volume, Worker};
use crate::record::{Encoder, Header, Op, Time, RECORD_HEADER};
use crate::transport::abi::{IoctlIn, IoctlOut};
use crate::transport::device::invalidate_attributes;
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::os::fd::AsRawFd;

pub const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
pub const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
pub const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
pub const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
const FS_IOC_GETVERSION: u32 = 0x8008_7601;

fn length(cmd: u32) -> Res<usize> {
    match cmd {
        FS_IOC_GETFLAGS | FS_IOC_SETFLAGS | FS_IOC_GETVERSION => Ok(4),
        FS_IOC_FSGETXATTR | FS_IOC_FSSETXATTR => Ok(28),
        _ => Err(Errno(libc::ENOTTY)),
    }
}

impl Volume {
    pub(super) fn op_ioctl(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: IoctlIn = r.arg()?;
        let len = length(arg.cmd)?;
        let inode = self.inode(r.header.nodeid);
        if !inode.is_regular() && !inode.is_dir() {
            return Err(Errno(libc::ENOTTY));
        }
        let fd = self.table.descriptor(&inode, Access::Read)?;
        let mut value = [0u8; 28];
        let out = IoctlOut::default();
        if matches!(arg.cmd, FS_IOC_GETFLAGS | FS_IOC_FSGETXATTR | FS_IOC_GETVERSION) {
            // SAFETY: the kernel writes at most `len` bytes for these commands.
            check(unsafe {
                libc::ioctl(raw(&fd), libc::c_ulong::from(arg.cmd), value.as_mut_ptr())
            })?;
            w.out.push(&out);
            w.out.extend(&value[..len.min(arg.out_size as usize)]);
            return Ok(Reply::Done);
        }
        let given = r.rest.get(..len).ok_or(Errno(libc::EINVAL))?;
        value[..len].copy_from_slice(given);
        let op = if len == 4 { Op::Setflags } else { Op::Setxflags };
        let header = w.header(&r.header, op, inode.oid);
        let encode = |buf: &mut [u8], time: Time, mode: u32| {
            let mut e = Encoder::new(buf, &Header { time, mode, ..header });
            e.raw(&value[..len]);
            e.finish()
        };
        let _inside = self.gate.enter();
        let objects = [Some(&inode), None];
        let slot =
            self.reserve(w, RECORD_HEADER + 40, objects, |buf| encode(buf, Time::UNKNOWN, 0))?;
        w.creds.assume(r.header.uid, r.header.gid, false);
        let locks = EffectLocks::new([Some(&inode), None, None, None]);
        if let Err(e) = self.past_of_attr(w, &inode, &fd, false) {
            return Err(self.refused(w, Some(slot), e));
        }
        // SAFETY: the kernel reads at most `len` bytes for these commands.
        let done =
            check(unsafe { libc::ioctl(raw(&fd), libc::c_ulong::from(arg.cmd), value.as_ptr()) });
        if let Err(e) = done {
            w.writer.abort(slot);
            return Err(e);
        }
        let st = stat_fd(raw(&fd))?;
        if inode.is_gone() {
            w.writer.abort(slot);
        } else {
            self.bind(w, &inode);
            self.publish(w, slot, |buf| encode(buf, mtime(&st), u32::from(st.stx_mode)));
        }
        drop(locks);
        self.saw(&inode, &st);
        // Of an ioctl the kernel does not know that it has moved the ctime.
        if let Some(fd) = self.notifier.lock().as_ref() {
            let _ = invalidate_attributes(fd.as_raw_fd(), r.header.nodeid);
        }
        // What is open now could still do what the new flags forbid.
        self.table.close_descriptor(&inode);
        w.out.push(&out);
        Ok(Reply::Done)
    }
}
