//! The system calls of replay, each once, with their failures as faults.
//!
//! Invariant: no call here follows a symbolic link or resolves more than one component; the only
//! paths are single names relative to a directory descriptor, and `/proc/self/fd/N`.

use super::error::{Done, Fault};
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A file name that is one component, terminated, without allocation.
pub struct Name {
    bytes: [u8; 256],
    len: u8,
}

impl Name {
    /// A name below a directory; anything that could lead elsewhere is corrupt.
    pub fn component(name: &[u8]) -> Done<Self> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(Fault::Corrupt("a name is not a single component"));
        }
        Self::terminated(name)
    }

    /// The directory itself.
    pub fn here() -> Self {
        let mut bytes = [0; 256];
        bytes[0] = b'.';
        Self { bytes, len: 1 }
    }

    /// The name of an extended attribute.
    pub fn attribute(name: &[u8]) -> Done<Self> {
        if name.is_empty() {
            return Err(Fault::Corrupt("an attribute without a name"));
        }
        Self::terminated(name)
    }

    fn terminated(name: &[u8]) -> Done<Self> {
        if name.len() > 255 || name.contains(&0) {
            return Err(Fault::Corrupt("a name is too long or contains NUL"));
        }
        let mut bytes = [0; 256];
        bytes[..name.len()].copy_from_slice(name);
        Ok(Self { bytes, len: name.len() as u8 })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    pub fn c(&self) -> *const libc::c_char {
        self.bytes.as_ptr().cast()
    }

    pub fn as_c_str(&self) -> &CStr {
        // There is always a zero behind the name.
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// `/proc/self/fd/N`: reaches an object through a descriptor that allows no I/O.
pub struct ProcPath([u8; 32]);

impl ProcPath {
    pub fn of(fd: RawFd) -> Self {
        let mut path = [0u8; 32];
        // 31 bytes hold "/proc/self/fd/" and any descriptor; the rest stays zero.
        let _ = write!(&mut path[..31], "/proc/self/fd/{fd}");
        Self(path)
    }

    pub fn c(&self) -> *const libc::c_char {
        self.0.as_ptr().cast()
    }
}

pub const EMPTY: &CStr = c"";

pub fn fault(call: &'static str) -> Fault {
    Fault::Sys { call, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
}

/// Turns the result of a system call into a value; retries what a signal interrupted.
pub fn check(call: &'static str, mut f: impl FnMut() -> i64) -> Done<i64> {
    #[cfg(test)]
    super::tests::crash::point();
    loop {
        let got = f();
        if got >= 0 {
            return Ok(got);
        }
        let e = fault(call);
        if !e.is(libc::EINTR) {
            return Err(e);
        }
    }
}

pub fn openat(dir: RawFd, name: *const libc::c_char, flags: i32, mode: u32) -> Done<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: name is a terminated string that outlives the call.
    let fd = check("open", || unsafe { libc::openat(dir, name, flags, mode) }.into())?;
    // SAFETY: the kernel gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub fn fstat(fd: RawFd) -> Done<libc::stat> {
    // SAFETY: a zeroed stat is a valid value and out-pointer.
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: st is a valid out-pointer.
    check("fstat", || unsafe { libc::fstat(fd, &mut st) }.into())?;
    Ok(st)
}

pub fn fstatat(dir: RawFd, name: &Name) -> Done<libc::stat> {
    // SAFETY: a zeroed stat is a valid value and out-pointer.
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: st is a valid out-pointer, name is terminated.
    check("stat", || {
        unsafe { libc::fstatat(dir, name.c(), &mut st, libc::AT_SYMLINK_NOFOLLOW) }.into()
    })?;
    Ok(st)
}

pub fn mknodat(dir: RawFd, name: &Name, mode: u32, rdev: u64) -> Done {
    // SAFETY: name is terminated.
    check("mknod", || unsafe { libc::mknodat(dir, name.c(), mode, rdev) }.into())?;
    Ok(())
}

pub fn mkdirat(dir: RawFd, name: &Name, mode: u32) -> Done {
    // SAFETY: name is terminated.
    check("mkdir", || unsafe { libc::mkdirat(dir, name.c(), mode) }.into())?;
    Ok(())
}

pub fn symlinkat(target: &CStr, dir: RawFd, name: &Name) -> Done {
    // SAFETY: both strings are terminated.
    check("symlink", || unsafe { libc::symlinkat(target.as_ptr(), dir, name.c()) }.into())?;
    Ok(())
}

/// Gives the open object (of any type, also an O_TMPFILE one) one more name.
pub fn link_fd(fd: RawFd, dir: RawFd, name: &Name) -> Done {
    // SAFETY: both strings are terminated.
    check("link", || {
        unsafe { libc::linkat(fd, EMPTY.as_ptr(), dir, name.c(), libc::AT_EMPTY_PATH) }.into()
    })?;
    Ok(())
}

pub fn linkat(old: RawFd, from: &Name, new: RawFd, to: &Name) -> Done {
    // SAFETY: both names are terminated.
    check("link", || unsafe { libc::linkat(old, from.c(), new, to.c(), 0) }.into())?;
    Ok(())
}

pub fn unlinkat(dir: RawFd, name: &Name, is_dir: bool) -> Done {
    let flags = if is_dir { libc::AT_REMOVEDIR } else { 0 };
    let call = if is_dir { "rmdir" } else { "unlink" };
    // SAFETY: name is terminated.
    check(call, || unsafe { libc::unlinkat(dir, name.c(), flags) }.into())?;
    Ok(())
}

pub fn renameat2(old: RawFd, from: &Name, new: RawFd, to: &Name, flags: u32) -> Done {
    // SAFETY: both names are terminated.
    check("rename", || unsafe { libc::renameat2(old, from.c(), new, to.c(), flags) }.into())?;
    Ok(())
}

pub fn pwrite_all(fd: RawFd, mut bytes: &[u8], mut offset: u64) -> Done {
    while !bytes.is_empty() {
        let at = i64::try_from(offset).map_err(|_| Fault::Corrupt("an offset beyond any file"))?;
        // SAFETY: the buffer is valid for its length.
        let n = check("pwrite", || unsafe {
            libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), at) as i64
        })? as usize;
        if n == 0 {
            return Err(Fault::Sys { call: "pwrite", errno: libc::EIO });
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}

/// Begins to write the range to the disk, so that a later sync has less to wait for.
pub fn write_soon(fd: RawFd, offset: u64, len: u64) {
    // SAFETY: no pointers; that it fails is no loss.
    unsafe {
        libc::sync_file_range(fd, offset as i64, len as i64, libc::SYNC_FILE_RANGE_WRITE);
    }
}

pub fn ftruncate(fd: RawFd, size: u64) -> Done {
    let size = i64::try_from(size).map_err(|_| Fault::Corrupt("a size beyond any file"))?;
    // SAFETY: no pointers.
    check("ftruncate", || unsafe { libc::ftruncate(fd, size) }.into())?;
    Ok(())
}

pub fn fallocate(fd: RawFd, mode: u32, offset: u64, len: u64) -> Done {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return Err(Fault::Corrupt("a range beyond any file"));
    };
    // SAFETY: no pointers.
    check("fallocate", || unsafe { libc::fallocate(fd, mode as i32, offset, len) }.into())?;
    Ok(())
}

/// Works on any descriptor, also one that only names the object.
pub fn chown_fd(fd: RawFd, uid: u32, gid: u32) -> Done {
    // SAFETY: the path is a terminated empty string.
    check("chown", || {
        unsafe { libc::fchownat(fd, EMPTY.as_ptr(), uid, gid, libc::AT_EMPTY_PATH) }.into()
    })?;
    Ok(())
}

/// Works on any descriptor but one of a symbolic link, which has no mode of its own.
pub fn chmod_fd(fd: RawFd, mode: u32) -> Done {
    let path = ProcPath::of(fd);
    // SAFETY: no pointers.
    match check("chmod", || unsafe { libc::fchmod(fd, mode) }.into()) {
        Err(e) if e.is(libc::EBADF) => {
            // SAFETY: path is terminated.
            check("chmod", || unsafe { libc::chmod(path.c(), mode) }.into())?;
            Ok(())
        }
        r => r.map(drop),
    }
}

/// One time of a pair for utimensat; `None` leaves it.
fn timespec(t: Option<(i64, u32)>) -> libc::timespec {
    let (tv_sec, tv_nsec) = match t {
        Some((sec, nsec)) => (sec, i64::from(nsec)),
        None => (0, libc::UTIME_OMIT),
    };
    libc::timespec { tv_sec, tv_nsec }
}

pub type Stamp = (i64, u32);

pub fn utimens_fd(fd: RawFd, atime: Option<Stamp>, mtime: Option<Stamp>) -> Done {
    let times = [timespec(atime), timespec(mtime)];
    // SAFETY: times has two elements, the path is a terminated empty string.
    check("utimensat", || {
        unsafe { libc::utimensat(fd, EMPTY.as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) }.into()
    })?;
    Ok(())
}

pub fn utimens_at(dir: RawFd, name: &Name, mtime: Stamp) -> Done {
    let times = [timespec(None), timespec(Some(mtime))];
    // SAFETY: times has two elements, name is terminated.
    check("utimensat", || {
        unsafe { libc::utimensat(dir, name.c(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) }.into()
    })?;
    Ok(())
}

pub fn readlinkat(dir: RawFd, name: *const libc::c_char) -> Done<Vec<u8>> {
    let mut out = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: out is valid for its length, name is terminated.
    let n = check("readlink", || unsafe {
        libc::readlinkat(dir, name, out.as_mut_ptr().cast(), out.len()) as i64
    })?;
    out.truncate(n as usize);
    Ok(out)
}

pub fn syncfs(fd: RawFd) -> Done {
    // SAFETY: no pointers.
    check("syncfs", || unsafe { libc::syncfs(fd) }.into())?;
    Ok(())
}

/// The names in a directory, without "." and "..", with their inode numbers.
pub fn entries(dir: RawFd) -> Done<Vec<(Vec<u8>, u64)>> {
    Ok(listing(dir)?.into_iter().map(|each| (each.name, each.ino)).collect())
}

/// One name in a directory, as the directory tells it.
pub struct Listed {
    pub name: Vec<u8>,
    pub ino: u64,
    /// DT_*, which may be DT_UNKNOWN.
    pub kind: u8,
}

/// The same with the kinds of the objects.
pub fn listing(dir: RawFd) -> Done<Vec<Listed>> {
    // A descriptor of its own: reading moves the position.
    let fd = openat(dir, c".".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut out = Vec::new();
    let mut buf = vec![0u8; 64 << 10];
    loop {
        // SAFETY: buf is valid for its length.
        let n = check("getdents", || unsafe {
            libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buf.as_mut_ptr(), buf.len())
        })? as usize;
        if n == 0 {
            return Ok(out);
        }
        let mut at = 0;
        while at + 19 <= n {
            let mut ino = [0; 8];
            ino.copy_from_slice(&buf[at..at + 8]);
            let len = u16::from_le_bytes([buf[at + 16], buf[at + 17]]) as usize;
            let name = &buf[at + 19..at + len];
            let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
            let name = &name[..end];
            if name != b"." && name != b".." {
                let ino = u64::from_ne_bytes(ino);
                out.push(Listed { name: name.to_vec(), ino, kind: buf[at + 18] });
            }
            at += len;
        }
    }
}
