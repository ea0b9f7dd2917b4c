//! Extended attributes and POSIX ACLs.

use super::attr::{mtime, stat_fd};
use super::errno::{check, check_len, Errno, Res};
use super::handle::proc_path;
use super::table::{raw, Access, EffectLocks, Inode};
use super::volume::{Volume, Worker};
use crate::record::{Encoder, Header, Op, Time, FLAG_KILLPRIV, RECORD_HEADER};
use crate::transport::abi::{GetxattrIn, GetxattrOut, SetxattrIn, SETXATTR_ACL_KILL_SGID};
use crate::transport::reply::{Output, Reply};
use crate::transport::request::Request;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Longest value or list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// How the attributes of an object are reached: f*xattr(2) refuse the O_PATH descriptors that links and
/// special files have; then the way leads through /proc.
pub struct Target {
    fd: Arc<OwnedFd>,
    path: Option<CString>,
}

impl Target {
    pub fn of(v: &Volume, inode: &Arc<Inode>) -> Res<Self> {
        let direct = inode.is_regular() || inode.is_dir();
        let access = if direct { Access::Read } else { Access::Path };
        let fd = v.table.descriptor(inode, access)?;
        let path = (!direct).then(|| proc_path(&fd));
        Ok(Self { fd, path })
    }

    pub fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    pub fn get(&self, name: &CStr, buf: &mut [u8]) -> Res<usize> {
        let (p, n) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: valid strings and buffer.
        check_len(unsafe {
            match &self.path {
                Some(path) => libc::getxattr(path.as_ptr(), name.as_ptr(), p, n),
                None => libc::fgetxattr(self.raw(), name.as_ptr(), p, n),
            }
        })
    }

    pub fn list(&self, buf: &mut [u8]) -> Res<usize> {
        let (p, n) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: valid strings and buffer.
        check_len(unsafe {
            match &self.path {
                Some(path) => libc::listxattr(path.as_ptr(), p, n),
                None => libc::flistxattr(self.raw(), p, n),
            }
        })
    }

    fn set(&self, name: &CStr, value: &[u8], flags: i32) -> Res<()> {
        let (p, n) = (value.as_ptr().cast(), value.len());
        // SAFETY: valid strings and buffer.
        check(unsafe {
            match &self.path {
                Some(path) => libc::setxattr(path.as_ptr(), name.as_ptr(), p, n, flags),
                None => libc::fsetxattr(self.raw(), name.as_ptr(), p, n, flags),
            }
        })?;
        Ok(())
    }

    fn remove(&self, name: &CStr) -> Res<()> {
        // SAFETY: valid strings.
        check(unsafe {
            match &self.path {
                Some(path) => libc::removexattr(path.as_ptr(), name.as_ptr()),
                None => libc::fremovexattr(self.raw(), name.as_ptr()),
            }
        })?;
        Ok(())
    }
}

fn c_name(bytes: &[u8]) -> Res<CString> {
    CString::new(bytes).map_err(|_| Errno(libc::EINVAL))
}

/// The answer of LISTXATTR: those of these names, each with a zero byte, that the caller may see; or
/// how long they are, when there is no `room`.
pub fn give_names(out: &mut Output, r: &Request, room: u32, names: &[u8]) -> Res<Reply> {
    // We see all names; a caller without privilege does not see trusted ones.
    let visible = |name: &&[u8]| r.header.uid == 0 || !name.starts_with(b"trusted.");
    let names: Vec<u8> =
        names.split_inclusive(|b| *b == 0).filter(visible).flatten().copied().collect();
    give_bytes(out, room, &names)
}

/// The answer of GETXATTR and LISTXATTR: the bytes, or how many they are when there is no `room`.
pub fn give_bytes(out: &mut Output, room: u32, bytes: &[u8]) -> Res<Reply> {
    if room == 0 {
        out.push(&GetxattrOut { size: bytes.len() as u32, padding: 0 });
    } else if bytes.len() > room as usize {
        return Err(Errno(libc::ERANGE));
    } else {
        out.extend(bytes);
    }
    Ok(Reply::Done)
}

/// All names and values, by a way to list names and one to get a value.
pub fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Res<usize>,
    get: impl Fn(&CStr, &mut [u8]) -> Res<usize>,
) -> Res<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; XATTR_BYTES_MAX];
    let n = match list(&mut names) {
        Ok(n) => n,
        Err(Errno(libc::EOPNOTSUPP)) => 0,
        Err(e) => return Err(e),
    };
    let mut all = Vec::new();
    for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; XATTR_BYTES_MAX];
        match get(&c_name(name)?, &mut value) {
            Ok(n) => {
                value.truncate(n);
                all.push((name.to_vec(), value));
            }
            Err(Errno(libc::ENODATA)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

impl Volume {
    pub(super) fn op_getxattr(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: GetxattrIn = r.arg()?;
        let name = c_name(r.name()?)?;
        let target = Target::of(self, &self.inode(r.header.nodeid))?;
        if arg.size == 0 {
            let n = target.get(&name, &mut [])?;
            w.out.push(&GetxattrOut { size: n as u32, padding: 0 });
        } else {
            w.out.fill(arg.size as usize, |buf| target.get(&name, buf))?;
        }
        Ok(Reply::Done)
    }

    pub(super) fn op_listxattr(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: GetxattrIn = r.arg()?;
        let target = Target::of(self, &self.inode(r.header.nodeid))?;
        let mut buf = vec![0; XATTR_BYTES_MAX];
        let n = target.list(&mut buf)?;
        give_names(&mut w.out, r, arg.size, &buf[..n])
    }

    pub(super) fn op_setxattr(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: SetxattrIn = r.arg()?;
        let (bytes, rest) = r.name_and_rest()?;
        let value = rest.get(..arg.size as usize).ok_or(Errno(libc::EIO))?;
        let kill = arg.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0;
        let flags = arg.flags as i32;
        self.change_xattr(w, r, Op::Setxattr, bytes, value, flags, kill)
    }

    pub(super) fn op_removexattr(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        self.change_xattr(w, r, Op::Removexattr, r.name()?, b"", 0, false)
    }

    #[allow(clippy::too_many_arguments)]
    fn change_xattr(
        &self,
        w: &mut Worker,
        r: &Request,
        op: Op,
        bytes: &[u8],
        value: &[u8],
        flags: i32,
        kill: bool,
    ) -> Res<Reply> {
        let name = c_name(bytes)?;
        let inode = self.inode(r.header.nodeid);
        let target = Target::of(self, &inode)?;
        let mut header = w.header(&r.header, op, inode.oid);
        if kill {
            header.flags |= FLAG_KILLPRIV;
        }
        let encode = |buf: &mut [u8], time: Time, mode: u32| {
            let mut e = Encoder::new(buf, &Header { time, mode, ..header });
            if op == Op::Setxattr {
                e.u32(flags as u32);
            }
            e.name(bytes).payload().raw(value);
            e.finish()
        };
        let _inside = self.gate.enter();
        let len = RECORD_HEADER + 16 + bytes.len() + value.len() + 8;
        let objects = [Some(&inode), None];
        let slot = self.reserve(w, len, objects, |buf| encode(buf, Time::UNKNOWN, 0))?;
        w.creds.assume(r.header.uid, r.header.gid, kill);
        let locks = EffectLocks::new([Some(&inode), None, None, None]);
        if let Err(e) = self.past_of_attr(w, &inode, &target.fd, true) {
            return Err(self.refused(w, Some(slot), e));
        }
        let done = match op {
            Op::Setxattr => target.set(&name, value, flags),
            _ => target.remove(&name),
        };
        if let Err(e) = done {
            w.writer.abort(slot);
            return Err(e);
        }
        let st = stat_fd(raw(&target.fd))?;
        if inode.is_gone() {
            w.writer.abort(slot);
        } else {
            self.bind(w, &inode);
            self.publish(w, slot, |buf| encode(buf, mtime(&st), u32::from(st.stx_mode)));
        }
        drop(locks);
        self.saw(&inode, &st);
        Ok(Reply::Done)
    }
}
