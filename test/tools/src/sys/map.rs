//! Shared mappings, touched only through the kernel.
//!
//! A load or store beyond the end of a file, or on a mount whose daemon died, raises SIGBUS.
//! Copying between the mapping and a memfd with pread/pwrite takes the same page faults but
//! reports EFAULT instead, so a broken mount is a finding and not the end of the tester.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{check_int, errno, own, SysResult};

/// A MAP_SHARED mapping, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    addr: *mut libc::c_void,
    len: usize,
    /// The memfd that carries bytes in and out.
    carrier: OwnedFd,
}

impl Mapping {
    pub fn new(fd: RawFd, off: i64, len: usize, writable: bool) -> SysResult<Mapping> {
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: the name is a valid C string.
        let carrier =
            own(unsafe { libc::memfd_create(c"map".as_ptr(), libc::MFD_CLOEXEC) }.into())?;
        // SAFETY: a fresh mapping at an address the kernel chooses.
        let addr =
            unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, off) };
        if addr == libc::MAP_FAILED {
            return Err(errno());
        }
        Ok(Mapping { addr, len, carrier })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores `bytes` at `at` in the mapping.
    pub fn store(&self, at: usize, bytes: &[u8]) -> SysResult<usize> {
        let len = self.clip(at, bytes.len());
        let fd = self.carrier.as_raw_fd();
        super::file::pwrite(fd, &bytes[..len], 0)?;
        // SAFETY: at + len lies inside the mapping; a fault there is EFAULT, not a signal.
        let n = unsafe { libc::pread(fd, self.addr.byte_add(at), len, 0) };
        super::check(n as _).map(|n| n as usize)
    }

    /// Loads `len` bytes at `at` from the mapping.
    pub fn load(&self, at: usize, len: usize) -> SysResult<Vec<u8>> {
        let len = self.clip(at, len);
        let fd = self.carrier.as_raw_fd();
        // SAFETY: at + len lies inside the mapping; a fault there is EFAULT, not a signal.
        let n = unsafe { libc::pwrite(fd, self.addr.byte_add(at), len, 0) };
        let n = super::check(n as _)? as usize;
        let mut buf = vec![0u8; n];
        super::file::pread_full(fd, &mut buf, 0)?;
        Ok(buf)
    }

    pub fn msync(&self, flags: i32) -> SysResult<()> {
        // SAFETY: the range is this mapping.
        check_int(unsafe { libc::msync(self.addr, self.len, flags) })
    }

    fn clip(&self, at: usize, len: usize) -> usize {
        len.min(self.len.saturating_sub(at))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping and nothing refers to it any more.
        unsafe { libc::munmap(self.addr, self.len) };
    }
}
