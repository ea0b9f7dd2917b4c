//! Where the members of one cut meet: a page of shared memory, made by whoever orders the cut.
//!
//! First all *gather*, with I/O going on, so that none holds it while another is still on its way. Then
//! each closes its gate and says that it is *at rest*; from the instant at which the last one has, until
//! the first one releases, nothing happens on any of them. No message is needed in between, and whoever
//! ordered the cut may die: every wait has an end of its own.
//!
//! Where whoever ordered it has something to do while all are at rest (`staying`), they stay so until it
//! says `released`, or until their own deadline.
//!
//! Layout, little-endian words of 4 bytes: magic, version, members, gathered, at rest, failed, staying,
//! released. The file lies on a tmpfs and is gone after the cut.

use super::limits::{MEETING_POLL, STAYING_POLL};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

const MAGIC: u32 = u32::from_le_bytes(*b"HFMT");
const VERSION: u32 = 2;
const BYTES: usize = 4096;

/// How a wait for the others ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// All are there; or, of those who stay, that they may go on.
    All,
    /// One of them has given up.
    Failed,
    /// The time was over first.
    Late,
}

#[repr(C)]
struct Page {
    magic: AtomicU32,
    version: AtomicU32,
    members: AtomicU32,
    gathered: AtomicU32,
    at_rest: AtomicU32,
    failed: AtomicU32,
    staying: AtomicU32,
    released: AtomicU32,
}

pub struct Meeting {
    page: *const Page,
}

// SAFETY: the page is reached through atomics only.
unsafe impl Send for Meeting {}
// SAFETY: as above.
unsafe impl Sync for Meeting {}

impl Drop for Meeting {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`.
        unsafe { libc::munmap(self.page.cast_mut().cast(), BYTES) };
    }
}

impl Meeting {
    /// EINVAL for what is no such file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() < BYTES as u64 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping of a file that is long enough.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), BYTES, prot, flags, file.as_raw_fd(), 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let meeting = Self { page: page.cast() };
        let known = meeting.page().magic.load(Ordering::Acquire) == MAGIC
            && meeting.page().version.load(Ordering::Acquire) == VERSION;
        if known {
            Ok(meeting)
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped as long as self lives; aligned to a page.
        unsafe { &*self.page }
    }

    /// Waits until all are about to close their gates.
    pub fn gather(&self, until: Instant) -> Met {
        self.arrive(&self.page().gathered, until)
    }

    /// Says that I/O is at rest here, and waits until it is everywhere.
    pub fn rest(&self, until: Instant) -> Met {
        self.arrive(&self.page().at_rest, until)
    }

    /// Waits, at rest, until whoever ordered the cut has released it; at once when it does not ask for that.
    /// It may be a program that knows no futex: the word is looked at.
    pub fn stay(&self, until: Instant) -> Met {
        let page = self.page();
        if page.staying.load(Ordering::SeqCst) == 0 {
            return Met::All;
        }
        loop {
            if page.failed.load(Ordering::SeqCst) != 0 {
                return Met::Failed;
            }
            if page.released.load(Ordering::SeqCst) != 0 {
                return Met::All;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.fail();
                return Met::Late;
            }
            wait(&page.released, 0, left.min(STAYING_POLL));
        }
    }

    /// Nobody is to wait any more.
    pub fn fail(&self) {
        let page = self.page();
        page.failed.store(1, Ordering::SeqCst);
        wake(&page.gathered);
        wake(&page.at_rest);
        wake(&page.released);
    }

    fn arrive(&self, word: &AtomicU32, until: Instant) -> Met {
        let page = self.page();
        if word.fetch_add(1, Ordering::SeqCst) + 1 >= page.members.load(Ordering::Acquire) {
            wake(word);
        }
        loop {
            if page.failed.load(Ordering::SeqCst) != 0 {
                return Met::Failed;
            }
            let there = word.load(Ordering::SeqCst);
            if there >= page.members.load(Ordering::Acquire) {
                return Met::All;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.fail();
                return Met::Late;
            }
            // `fail` may come between the look at it and the wait.
            wait(word, there, left.min(MEETING_POLL));
        }
    }
}

/// futex(2), shared between processes.
fn wait(word: &AtomicU32, seen: u32, max: std::time::Duration) {
    let time = libc::timespec {
        tv_sec: max.as_secs() as libc::time_t,
        tv_nsec: i64::from(max.subsec_nanos()),
    };
    // SAFETY: a valid word and a valid timeout; every outcome leads to another look.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &time) };
}

fn wake(word: &AtomicU32) {
    // SAFETY: a valid word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn file(members: u32) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!(
            "holdfast-meeting-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut bytes = vec![0; BYTES];
        for (i, word) in [MAGIC, VERSION, members].into_iter().enumerate() {
            bytes[i * 4..i * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn write_word(path: &Path, at: u64, value: u32) {
        use std::os::unix::fs::FileExt;
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&value.to_le_bytes(), at).unwrap();
    }

    #[test]
    fn who_stays_goes_on_when_released_or_failed_or_late() {
        const STAYING: u64 = 24;
        const RELEASED: u64 = 28;
        let path = file(1);
        let meeting = Meeting::open(&path).unwrap();
        assert_eq!(meeting.stay(soon()), Met::All, "nobody asks for it");
        write_word(&path, STAYING, 1);
        let late = meeting.stay(Instant::now() + Duration::from_millis(20));
        assert_eq!(late, Met::Late);
        assert_eq!(meeting.stay(soon()), Met::Failed);
        let path = file(1);
        write_word(&path, STAYING, 1);
        let other = path.clone();
        let staying = std::thread::spawn(move || Meeting::open(&other).unwrap().stay(soon()));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!staying.is_finished());
        write_word(&path, RELEASED, 1);
        assert_eq!(staying.join().unwrap(), Met::All);
        std::fs::remove_file(path).unwrap();
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn all_meet_twice_and_none_before_the_last() {
        let path = file(3);
        let order = std::sync::Arc::new(AtomicU32::new(0));
        let members: Vec<_> = (0..3)
            .map(|n| {
                let (path, order) = (path.clone(), order.clone());
                std::thread::spawn(move || {
                    let meeting = Meeting::open(&path).unwrap();
                    std::thread::sleep(Duration::from_millis(20 * n));
                    assert_eq!(meeting.gather(soon()), Met::All);
                    order.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(meeting.rest(soon()), Met::All);
                    assert_eq!(order.load(Ordering::SeqCst), 3);
                })
            })
            .collect();
        members.into_iter().for_each(|m| m.join().unwrap());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn who_fails_or_is_late_ends_the_wait_of_all() {
        let path = file(2);
        let other = path.clone();
        let waiting = std::thread::spawn(move || Meeting::open(&other).unwrap().rest(soon()));
        std::thread::sleep(Duration::from_millis(20));
        let meeting = Meeting::open(&path).unwrap();
        meeting.fail();
        assert_eq!(waiting.join().unwrap(), Met::Failed);
        assert_eq!(meeting.gather(soon()), Met::Failed);
        let alone = file(2);
        let late = Meeting::open(&alone).unwrap();
        assert_eq!(late.gather(Instant::now() + Duration::from_millis(10)), Met::Late);
        assert_eq!(late.rest(soon()), Met::Failed);
        std::fs::remove_file(&path).unwrap_or_default();
        std::fs::write(&path, [0; BYTES]).unwrap();
        assert!(Meeting::open(&path).is_err(), "not such a file");
        std::fs::remove_file(path).unwrap();
    }
}
