//! What a before-image holds: attributes, extended attributes, what a name led to; and their bytes.

use crate::interceptor::attr::Stat;
use crate::interceptor::errno::{check_len, Errno, Res};
use crate::interceptor::handle::{proc_path, FileHandle, HANDLE_BYTES_MAX};
use crate::interceptor::xattr;
use crate::record::Oid;
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes of attributes, in front of a link's target.
pub const STAT_BYTES: usize = 144;
/// Bytes that tell of the directory above, at most.
pub const ABOVE_BYTES_MAX: usize = 16 + HANDLE_BYTES_MAX;

/// The directory in which an object is found; of several, one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Above {
    pub ino: u64,
    pub handle: FileHandle,
}

/// Attributes, as they were kept.
pub struct Kept<'a> {
    pub st: Stat,
    /// Of a symbolic link.
    pub target: &'a [u8],
    /// `None`: that is not known, or it is the root.
    pub above: Option<Above>,
}

struct Writer<'a>(&'a mut [u8], usize);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        if let Some(to) = self.0.get_mut(self.1..self.1 + bytes.len()) {
            to.copy_from_slice(bytes);
        }
        self.1 += bytes.len();
        self
    }

    fn u16(&mut self, v: u16) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    fn u32(&mut self, v: u32) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    fn u64(&mut self, v: u64) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    fn time(&mut self, t: &libc::statx_timestamp) -> &mut Self {
        self.u64(t.tv_sec as u64).u32(t.tv_nsec)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Res<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Errno(libc::EIO))?;
        self.0 = rest;
        Ok(head)
    }

    fn u16(&mut self) -> Res<u16> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into().map_err(|_| Errno(libc::EIO))?))
    }

    fn u32(&mut self) -> Res<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Errno(libc::EIO))?))
    }

    fn u64(&mut self) -> Res<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Errno(libc::EIO))?))
    }

    fn time(&mut self) -> Res<libc::statx_timestamp> {
        // SAFETY: all zero is a valid timestamp.
        let mut t: libc::statx_timestamp = unsafe { std::mem::zeroed() };
        t.tv_sec = self.u64()? as i64;
        t.tv_nsec = self.u32()?;
        Ok(t)
    }
}

/// Attributes, the target of a symbolic link, and the directory above. Returns the length.
pub fn encode_attr(buf: &mut [u8], st: &Stat, target: &[u8], above: Option<&Above>) -> usize {
    let mut w = Writer(buf, 0);
    w.u64(st.stx_ino).u64(st.stx_size).u64(st.stx_blocks).u64(st.stx_attributes);
    w.u64(st.stx_attributes_mask).u32(u32::from(st.stx_mode)).u32(st.stx_nlink);
    w.u32(st.stx_uid).u32(st.stx_gid).u32(st.stx_blksize).u32(st.stx_mask);
    w.u32(st.stx_rdev_major).u32(st.stx_rdev_minor).u32(st.stx_dev_major).u32(st.stx_dev_minor);
    w.time(&st.stx_atime).time(&st.stx_btime).time(&st.stx_ctime).time(&st.stx_mtime);
    w.u32(target.len() as u32 + 1);
    w.put(&[0; STAT_BYTES][..STAT_BYTES.saturating_sub(w.1)]);
    w.put(target);
    if let Some(Above { ino, handle }) = above {
        let stored = handle.stored();
        let used = &stored.bytes[..stored.len as usize];
        w.u64(*ino).u32(stored.kind as u32).u32(stored.len).put(used);
    }
    w.1
}

fn decode_above(bytes: &[u8]) -> Res<Option<Above>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut r = Reader(bytes);
    let ino = r.u64()?;
    let mut stored = crate::capture::StoredHandle { kind: r.u32()? as i32, ..Default::default() };
    stored.len = r.u32()?;
    let used = r.take(stored.len as usize)?;
    stored.bytes.get_mut(..used.len()).ok_or(Errno(libc::EIO))?.copy_from_slice(used);
    let handle = FileHandle::from_stored(&stored).ok_or(Errno(libc::EIO))?;
    Ok(Some(Above { ino, handle }))
}

/// The reverse.
pub fn decode_attr(bytes: &[u8]) -> Res<Kept<'_>> {
    let mut r = Reader(bytes);
    // SAFETY: all zero is a valid statx buffer.
    let mut st: Stat = unsafe { std::mem::zeroed() };
    (st.stx_ino, st.stx_size, st.stx_blocks) = (r.u64()?, r.u64()?, r.u64()?);
    (st.stx_attributes, st.stx_attributes_mask) = (r.u64()?, r.u64()?);
    (st.stx_mode, st.stx_nlink) = (r.u32()? as u16, r.u32()?);
    (st.stx_uid, st.stx_gid, st.stx_blksize, st.stx_mask) =
        (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    (st.stx_rdev_major, st.stx_rdev_minor) = (r.u32()?, r.u32()?);
    (st.stx_dev_major, st.stx_dev_minor) = (r.u32()?, r.u32()?);
    (st.stx_atime, st.stx_btime) = (r.time()?, r.time()?);
    (st.stx_ctime, st.stx_mtime) = (r.time()?, r.time()?);
    let target_end = r.u32()? as usize;
    let rest = bytes.get(STAT_BYTES..).unwrap_or_default();
    // 0: written by version 1, which kept nothing else.
    let split = if target_end == 0 { rest.len() } else { target_end - 1 };
    let (target, above) = rest.split_at_checked(split).ok_or(Errno(libc::EIO))?;
    Ok(Kept { st, target, above: decode_above(above)? })
}

/// What a name led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led {
    pub oid: Oid,
    pub handle: FileHandle,
    /// S_IFMT of its mode.
    pub kind: u32,
}

pub const LED_BYTES: usize = 64;

/// What a name led to, or that there was no such name. Returns the length.
pub fn encode_led(buf: &mut [u8], led: Option<&Led>) -> usize {
    let Some(led) = led else {
        return 0;
    };
    let stored = led.handle.stored();
    let mut w = Writer(buf, 0);
    w.u64(led.oid.ino).u64(led.oid.gen).u32(led.kind).u32(stored.kind as u32).u32(stored.len);
    w.put(&stored.bytes);
    w.1
}

pub fn decode_led(bytes: &[u8]) -> Res<Option<Led>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut r = Reader(bytes);
    let oid = Oid { ino: r.u64()?, gen: r.u64()? };
    let kind = r.u32()?;
    let mut stored = crate::capture::StoredHandle { kind: r.u32()? as i32, ..Default::default() };
    stored.len = r.u32()?;
    stored.bytes.copy_from_slice(r.take(32)?);
    let handle = FileHandle::from_stored(&stored).ok_or(Errno(libc::EIO))?;
    Ok(Some(Led { oid, handle, kind }))
}

/// Extended attributes of an open object of any kind, as names and values.
pub fn read_xattrs(fd: &impl AsRawFd) -> Res<Vec<(Vec<u8>, Vec<u8>)>> {
    // The descriptor may be an O_PATH one, which f*xattr(2) refuse.
    let path = proc_path(fd);
    xattr::read_xattrs(
        |buf| {
            // SAFETY: a valid string and buffer.
            check_len(unsafe { libc::listxattr(path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) })
        },
        |name, buf| {
            // SAFETY: valid strings and buffer.
            check_len(unsafe {
                let (to, room) = (buf.as_mut_ptr().cast(), buf.len());
                libc::getxattr(path.as_ptr(), name.as_ptr(), to, room)
            })
        },
    )
}

/// Does the object have extended attributes at all? Cheaper than reading them.
pub fn has_xattrs(fd: &impl AsRawFd) -> bool {
    // SAFETY: no buffer is given; only the length is asked for.
    let n = unsafe { libc::flistxattr(fd.as_raw_fd(), std::ptr::null_mut(), 0) };
    // EBADF: an O_PATH descriptor; then it has to be looked at.
    n > 0 || (n < 0 && Errno::last() == Errno(libc::EBADF))
}

/// Does the file have capabilities? A write takes them away.
pub fn has_capabilities(fd: &OwnedFd) -> bool {
    let name = c"security.capability";
    // SAFETY: a valid string; only the length is asked for.
    unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) > 0 }
}

pub fn encode_xattrs(all: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let len: usize = all.iter().map(|(n, v)| 6 + n.len() + v.len()).sum();
    let mut bytes = vec![0; 4 + len];
    let mut w = Writer(&mut bytes, 0);
    w.u32(all.len() as u32);
    for (name, value) in all {
        w.u16(name.len() as u16).put(name).u32(value.len() as u32).put(value);
    }
    bytes
}

pub fn decode_xattrs(bytes: &[u8]) -> Res<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut r = Reader(bytes);
    let count = r.u32()?;
    let mut out = Vec::new();
    for _ in 0..count {
        let len = r.u16()? as usize;
        let name = r.take(len)?.to_vec();
        let len = r.u32()? as usize;
        out.push((name, r.take(len)?.to_vec()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let st = crate::interceptor::attr::stat_at(libc::AT_FDCWD, c"/").unwrap();
        let mut buf = [0; STAT_BYTES + 6 + ABOVE_BYTES_MAX];
        let len = encode_attr(&mut buf, &st, b"target", None);
        assert_eq!(len, STAT_BYTES + 6);
        assert_eq!(decode_attr(&buf[..len]).unwrap().above, None);
        let root = std::fs::File::open("/proc/self/exe").unwrap();
        let handle = FileHandle::of(root.as_raw_fd(), c"").ok();
        let above = handle.map(|handle| Above { ino: 7, handle });
        let len = encode_attr(&mut buf, &st, b"target", above.as_ref());
        let Kept { st: back, target, above: found } = decode_attr(&buf[..len]).unwrap();
        assert_eq!((target, found), (&b"target"[..], above));
        buf[128..132].fill(0);
        assert_eq!(decode_attr(&buf[..STAT_BYTES + 6]).unwrap().target, b"target");
        assert_eq!((back.stx_ino, back.stx_mode), (st.stx_ino, st.stx_mode));
        assert_eq!(back.stx_ctime.tv_nsec, st.stx_ctime.tv_nsec);
        assert_eq!(back.stx_mtime.tv_sec, st.stx_mtime.tv_sec);
        let all = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), vec![])];
        assert_eq!(decode_xattrs(&encode_xattrs(&all)).unwrap(), all);
        assert_eq!(decode_led(&[]).unwrap(), None);
        assert!(decode_led(&[1]).is_err() && decode_attr(&[0; 9]).is_err());
    }
}
