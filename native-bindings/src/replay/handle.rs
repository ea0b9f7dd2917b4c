//! File handles: a name for an object that survives renames and restarts.

use super::error::{Done, Fault};
use super::limits::HANDLE_BYTES_MAX;
use super::sys::{check, Name, EMPTY};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The handle of one object of the target's file system.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    pub kind: i32,
    pub len: u8,
    pub bytes: [u8; HANDLE_BYTES_MAX],
}

/// `struct file_handle` with room for the longest handle we keep.
#[repr(C)]
struct Raw {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_BYTES_MAX],
}

impl Handle {
    pub const NONE: Handle = Handle { kind: 0, len: 0, bytes: [0; HANDLE_BYTES_MAX] };

    pub fn new(kind: i32, handle: &[u8]) -> Option<Self> {
        let mut bytes = [0; HANDLE_BYTES_MAX];
        bytes.get_mut(..handle.len())?.copy_from_slice(handle);
        Some(Self { kind, len: handle.len() as u8, bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// Its first bytes.
    pub fn front(&self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[..8]);
        u64::from_le_bytes(word)
    }

    pub fn hash(&self) -> u64 {
        let mut h = self.len as u64;
        for part in self.bytes.chunks_exact(8) {
            let mut word = [0; 8];
            word.copy_from_slice(part);
            h = (h.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        h ^ (h >> 29)
    }

    fn read(dir: RawFd, name: *const libc::c_char, flags: i32) -> Done<(Self, u64)> {
        let mut raw =
            Raw { bytes: HANDLE_BYTES_MAX as u32, kind: 0, handle: [0; HANDLE_BYTES_MAX] };
        let mut mount: i32 = 0;
        // SAFETY: raw is a file_handle with HANDLE_BYTES_MAX bytes of room, name is terminated.
        let got = check("name_to_handle_at", || unsafe {
            let raw: *mut Raw = &mut raw;
            libc::syscall(libc::SYS_name_to_handle_at, dir, name, raw, &mut mount, flags)
        });
        match got {
            Err(e) if e.is(libc::EOPNOTSUPP) || e.is(libc::EOVERFLOW) => Err(Fault::Unsupported(
                "the target's file system has no file handles of at most 32 bytes",
            )),
            Err(e) => Err(e),
            Ok(_) => {
                let mut handle = Self::NONE;
                handle.kind = raw.kind;
                handle.len = raw.bytes as u8;
                handle.bytes[..raw.bytes as usize]
                    .copy_from_slice(&raw.handle[..raw.bytes as usize]);
                Ok((handle, mount as u64))
            }
        }
    }

    /// The handle of the object under a name; a symbolic link is not followed.
    pub fn of_name(dir: RawFd, name: &Name) -> Done<Self> {
        Self::read(dir, name.c(), 0).map(|(h, _)| h)
    }

    /// The handle of an open object.
    pub fn of_fd(fd: RawFd) -> Done<Self> {
        Self::read(fd, EMPTY.as_ptr(), libc::AT_EMPTY_PATH).map(|(h, _)| h)
    }

    /// The identity of the mount that an open object is reached through.
    pub fn mount_of(fd: RawFd) -> Done<u64> {
        Self::read(fd, EMPTY.as_ptr(), libc::AT_EMPTY_PATH).map(|(_, mount)| mount)
    }

    /// Opens the object; `Stale` when it no longer exists. `mount` is any descriptor on its mount.
    pub fn open(&self, mount: RawFd, flags: i32) -> Done<OwnedFd> {
        let mut raw = Raw { bytes: u32::from(self.len), kind: self.kind, handle: self.bytes };
        let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        // SAFETY: raw is a file_handle with its bytes.
        let got = check("open_by_handle_at", || unsafe {
            let raw: *mut Raw = &mut raw;
            libc::syscall(libc::SYS_open_by_handle_at, mount, raw, flags)
        });
        match got {
            // SAFETY: the kernel gave us this descriptor.
            Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
            Err(e) if e.is(libc::ESTALE) || e.is(libc::ENOENT) => Err(Fault::Stale),
            Err(e) => Err(e),
        }
    }
}
