//! File handles: how an object is found again without keeping a descriptor open.
//!
//! A handle (name_to_handle_at(2)) names an inode and its generation for as long as it exists, across
//! renames, restarts and boots.

use super::errno::{check, Errno, Res};
use crate::capture::StoredHandle;
use crate::record::Oid;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Longest handle that is supported; ext4 8, XFS 12, btrfs 20 bytes.
pub const HANDLE_BYTES_MAX: usize = 24;

/// A file handle of the backing file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle {
    kind: i32,
    len: u8,
    bytes: [u8; HANDLE_BYTES_MAX],
}

#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    data: [u8; HANDLE_BYTES_MAX],
}

impl FileHandle {
    /// The handle of `name` below `dir`, or of `dir` itself when the name is empty.
    ///
    /// Errors: ENOENT; EOPNOTSUPP when the file system has no handles; EOVERFLOW when they are longer
    /// than this supports.
    pub fn of(dir: RawFd, name: &CStr) -> Res<Self> {
        let mut raw = RawHandle { bytes: HANDLE_BYTES_MAX as u32, kind: 0, data: [0; 24] };
        let mut mount_id: libc::c_int = 0;
        let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
        // SAFETY: raw has the layout of struct file_handle with room for `bytes` bytes.
        check(unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                dir,
                name.as_ptr(),
                &mut raw as *mut RawHandle,
                &mut mount_id as *mut libc::c_int,
                flags,
            ) as libc::c_int
        })?;
        Ok(Self { kind: raw.kind, len: raw.bytes as u8, bytes: raw.data })
    }

    /// Opens the object; `mount` is a descriptor on the backing mount. ESTALE when it is gone.
    pub fn open(&self, mount: RawFd, flags: i32) -> Res<OwnedFd> {
        let mut raw = RawHandle { bytes: u32::from(self.len), kind: self.kind, data: self.bytes };
        // SAFETY: raw has the layout of struct file_handle.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                mount,
                &mut raw as *mut RawHandle,
                flags | libc::O_CLOEXEC,
            ) as libc::c_int
        })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Identity of the object: its inode number, and a generation made from the handle (FNV-1a), which
    /// differs from that of every other object that had the number.
    pub fn oid(&self, ino: u64) -> Oid {
        let mut h: u64 = 0xcbf2_9ce4_8422_2325 ^ self.kind as u64;
        for b in &self.bytes[..self.len as usize] {
            h = (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
        Oid { ino, gen: h }
    }

    pub fn stored(&self) -> StoredHandle {
        let mut s = StoredHandle { kind: self.kind, len: u32::from(self.len), bytes: [0; 32] };
        s.bytes[..HANDLE_BYTES_MAX].copy_from_slice(&self.bytes);
        s
    }

    pub fn from_stored(s: &StoredHandle) -> Option<Self> {
        if s.len == 0 || s.len as usize > HANDLE_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; HANDLE_BYTES_MAX];
        bytes.copy_from_slice(&s.bytes[..HANDLE_BYTES_MAX]);
        Some(Self { kind: s.kind, len: s.len as u8, bytes })
    }
}

/// A name as a C string on the stack; FUSE names are at most 1024 bytes.
pub struct CName {
    buf: [u8; 1025],
    len: usize,
}

impl CName {
    /// Errors: ENAMETOOLONG; EINVAL for bytes that cannot be in a name.
    pub fn new(name: &[u8]) -> Res<Self> {
        if name.len() > 1024 {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        if name.contains(&0) || name.contains(&b'/') {
            return Err(Errno(libc::EINVAL));
        }
        let mut buf = [0; 1025];
        buf[..name.len()].copy_from_slice(name);
        Ok(Self { buf, len: name.len() })
    }

    pub fn as_c(&self) -> &CStr {
        // SAFETY: the bytes up to len have no zero (checked), the byte at len is zero.
        unsafe { CStr::from_bytes_with_nul_unchecked(&self.buf[..=self.len]) }
    }

    pub fn as_ptr(&self) -> *const libc::c_char {
        self.buf.as_ptr().cast()
    }
}

/// The path under which the process reaches one of its own descriptors.
pub fn proc_path(fd: &impl AsRawFd) -> std::ffi::CString {
    // A formatted number has no zero byte.
    std::ffi::CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}
