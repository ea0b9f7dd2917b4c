//! How much a baseline has before it: objects and bytes of the tree, counted while the walk is under
//! way. It reads no data, so it is done long before the walk; until then nothing is known of the end.
//!
//! Counts as the walk does (a directory as an entry and as itself, data without holes, an object of
//! several names once), so that its numbers end where the walk's do, changes meanwhile apart.

use crate::interceptor::attr::{stat_at, stat_fd, Stat};
use crate::interceptor::dir::read_entries;
use crate::interceptor::errno::{check, Errno, Res};
use crate::interceptor::handle::CName;
use crate::interceptor::Volume;
use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Bytes of a block of `stx_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Starts counting in a thread of its own, for scan `number`; `counted` tells when the totals are
/// good. A tree that cannot be counted has no known size.
pub fn start_count(v: &Arc<Volume>, number: u64) -> Res<()> {
    let v = v.clone();
    let run = move || {
        let mut count = Count { v: &v, number, linked: HashSet::new(), objects: 0, bytes: 0 };
        let top = v.dir_fd(&v.root).and_then(|root| open(root.as_raw_fd(), c"."));
        let Ok(()) = top.and_then(|top| count.below(top)) else {
            return;
        };
        if count.is_wanted() {
            v.scan.total_objects.store(count.objects, Ordering::Relaxed);
            v.scan.total_bytes.store(count.bytes, Ordering::Relaxed);
            v.scan.counted.store(true, Ordering::Release);
        }
    };
    std::thread::Builder::new().name("holdfast-count".into()).spawn(run).map_err(Errno::from)?;
    Ok(())
}

fn device_of(st: &Stat) -> (u32, u32) {
    (st.stx_dev_major, st.stx_dev_minor)
}

fn open(dir: i32, name: &CStr) -> Res<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a valid string.
    let fd = check(unsafe { libc::openat(dir, name.as_ptr(), flags) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

struct Count<'a> {
    v: &'a Volume,
    /// The scan that it counts for.
    number: u64,
    /// Objects of several names that were met.
    linked: HashSet<u64>,
    objects: u64,
    bytes: u64,
}

impl Count<'_> {
    fn is_wanted(&self) -> bool {
        let scan = &self.v.scan;
        !scan.is_stopped() && scan.number.load(Ordering::Acquire) == self.number
    }

    /// All below `top`, depth first: as many descriptors as the tree is deep.
    fn below(&mut self, top: OwnedFd) -> Res<()> {
        let device = device_of(&stat_fd(top.as_raw_fd())?);
        let mut path = vec![(self.directory(&top, device)?, top)];
        while let Some((left, dir)) = path.last_mut() {
            if !self.is_wanted() {
                return Err(Errno(libc::ECANCELED));
            }
            let Some(name) = left.pop() else {
                path.pop();
                continue;
            };
            // Removed or moved meanwhile: the walk does not see it either.
            let Ok(fd) = open(dir.as_raw_fd(), name.as_c()) else {
                continue;
            };
            let more = self.directory(&fd, device)?;
            path.push((more, fd));
        }
        Ok(())
    }

    /// Counts what is in one directory; returns the directories in it.
    fn directory(&mut self, dir: &OwnedFd, device: (u32, u32)) -> Res<Vec<CName>> {
        let mut dirs = Vec::new();
        self.objects += 1;
        let mut buf = vec![0; 64 << 10];
        loop {
            let more = read_entries(dir.as_raw_fd(), &mut buf, |e| {
                if e.name == b"." || e.name == b".." {
                    return Ok(true);
                }
                let name = CName::new(e.name)?;
                let Ok(st) = stat_at(dir.as_raw_fd(), name.as_c()) else {
                    return Ok(true);
                };
                if device_of(&st) != device {
                    return Ok(true);
                }
                self.objects += 1;
                match u32::from(st.stx_mode) & libc::S_IFMT {
                    libc::S_IFDIR => dirs.push(name),
                    libc::S_IFREG if st.stx_nlink == 1 || self.linked.insert(st.stx_ino) => {
                        self.bytes += st.stx_size.min(st.stx_blocks * BLOCK_BYTES);
                    }
                    _ => {}
                }
                Ok(true)
            })?;
            if !more {
                return Ok(dirs);
            }
        }
    }
}
