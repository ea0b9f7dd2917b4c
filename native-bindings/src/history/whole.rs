//! Whole files: clones where the file system can make them, else copies of their data with the same holes.
//!
//! A copy has a name of its own until its entry in the log gives it the one by which it is found. What has
//! such a name when the history is opened belongs to nobody.

use super::History;
use crate::interceptor::data::data_of;
use crate::interceptor::errno::{check, check_len, Errno, Res};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// FICLONE of linux/fs.h.
const FICLONE: libc::c_ulong = 0x4004_9409;
/// How the name of a copy ends that has no entry yet.
pub(super) const UNNAMED: &str = ".new";

/// A copy that has no entry yet; without one, it goes.
pub(super) struct WholeCopy {
    pub path: PathBuf,
    /// What it takes, as far as that is known to be its own.
    pub bytes: u64,
}

impl Drop for WholeCopy {
    fn drop(&mut self) {
        // With an entry it has another name.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl History {
    /// Copies an open file. ENOSPC, when no room can be made.
    pub(super) fn copy_whole(&self, fd: RawFd, size: u64) -> Res<WholeCopy> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if self.has_no_room() {
            return Err(Errno(libc::ENOSPC));
        }
        let needed = blocks_of(fd)?;
        if needed > self.settings.bytes_max {
            return Err(Errno(libc::ENOSPC));
        }
        while !self.has_room(needed) {
            self.make_room()?;
        }
        let name = format!("{}{UNNAMED}", COUNT.fetch_add(1, Ordering::Relaxed));
        let path = self.directory.join("whole").join(name);
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut copy = WholeCopy { path, bytes: 0 };
        // SAFETY: both descriptors are open.
        if unsafe { libc::ioctl(new.as_raw_fd(), FICLONE, fd) } == 0 {
            return Ok(copy);
        }
        self.make_room_in(&new, needed)?;
        new.set_len(size)?;
        for (from, end) in data_of(fd, 0, size)? {
            copy.bytes += self.copy_range(fd, &new, from, end)?;
        }
        Ok(copy)
    }

    /// Makes the room that a copy takes before it is begun; frees nothing if all of it would not do.
    fn make_room_in(&self, new: &File, needed: u64) -> Res<()> {
        loop {
            let free = free_in(new)?;
            if free >= needed {
                return Ok(());
            }
            if free.saturating_add(self.bytes()) < needed {
                return Err(Errno(libc::ENOSPC));
            }
            self.make_room()?;
        }
    }

    /// Copies `[from, end)`. Where there is no room after all, it makes some and goes on from there.
    fn copy_range(&self, fd: RawFd, new: &File, from: u64, end: u64) -> Res<u64> {
        let (to, mut at) = (new.as_raw_fd(), from as i64);
        // SAFETY: plain call; nobody else has the new file.
        unsafe { libc::lseek(to, at, libc::SEEK_SET) };
        while (at as u64) < end {
            let rest = (end - at as u64) as usize;
            // Not copy_file_range(2): it may be another file system. SAFETY: a valid offset.
            match check_len(unsafe { libc::sendfile(to, fd, &mut at, rest) }) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno(libc::ENOSPC | libc::EDQUOT)) => self.make_room()?,
                Err(e) => return Err(e),
            }
        }
        Ok(at as u64 - from)
    }
}

fn blocks_of(fd: RawFd) -> Res<u64> {
    Ok(crate::interceptor::attr::stat_fd(fd)?.stx_blocks * 512)
}

/// Bytes that the file system of a file has left.
fn free_in(file: &File) -> Res<u64> {
    // SAFETY: all zero is a valid buffer; the descriptor is open.
    let st = unsafe {
        let mut st: libc::statvfs = std::mem::zeroed();
        check(libc::fstatvfs(file.as_raw_fd(), &mut st))?;
        st
    };
    Ok(st.f_bfree as u64 * st.f_frsize as u64)
}

pub(super) fn allocated(m: &std::fs::Metadata) -> u64 {
    m.blocks() * 512
}
