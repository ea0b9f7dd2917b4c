//! Write-behind for the journal's file: what was appended is written out soon, and then leaves the
//! page cache.
//!
//! The journal is written once and read seldom. Left to itself the kernel keeps all of it cached at
//! the cost of the applications' own data, collects it dirty until an fsync has to wait for it, and
//! takes new memory for every page, which in a virtual machine may be slower than the disk. Pages
//! that are mapped (LMDB's own, near the root) stay.
//!
//! Neighbour: `src/capture/drain-worker.ts` says when something was appended.

use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

#[derive(Default)]
struct State {
    due: bool,
    ended: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

pub struct WriteBehind {
    shared: Shared,
    thread: Option<JoinHandle<()>>,
}

impl WriteBehind {
    /// Starts a thread for the file at `path`, which must exist.
    pub fn start(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let shared = Shared::default();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("holdfast-behind".into())
            .spawn(move || follow(&file, &theirs))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Something was appended. Never waits for the disk.
    pub fn kick(&self) {
        self.shared.0.lock().due = true;
        self.shared.1.notify_one();
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        self.shared.0.lock().ended = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(file: &File, (state, wake): &(Mutex<State>, Condvar)) {
    loop {
        {
            let mut s = state.lock();
            while !s.due && !s.ended {
                wake.wait(&mut s);
            }
            if s.ended {
                return;
            }
            s.due = false;
        }
        // Begins to write what is dirty, and drops what an earlier round has written.
        // SAFETY: plain call on an open descriptor. Its failure costs memory, not data.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::{Duration, Instant};

    fn cached_pages(file: &File, len: usize) -> usize {
        // SAFETY: maps and unmaps `len` bytes of an open file; the vector has a byte per page.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            );
            assert_ne!(at, libc::MAP_FAILED);
            let mut pages = vec![0u8; len / 4096];
            assert_eq!(libc::mincore(at, len, pages.as_mut_ptr()), 0);
            libc::munmap(at, len);
            pages.iter().filter(|&&p| p & 1 != 0).count()
        }
    }

    #[test]
    fn what_was_appended_is_written_and_leaves_the_cache() {
        const BYTES: usize = 8 << 20;
        let path = std::env::current_dir().unwrap().join("target/write-behind.tmp");
        let mut file =
            File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(path.canonicalize().unwrap()).unwrap_or_default();
        file.write_all(&vec![7; BYTES]).unwrap();
        let before = cached_pages(&file, BYTES);
        let behind =
            WriteBehind::start(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while cached_pages(&file, BYTES) * 2 > before {
            assert!(Instant::now() < deadline, "{before} pages are still cached");
            behind.kick();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
