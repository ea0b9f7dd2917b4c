//! The sweep: computes in the background the codes that changes have made invalid.
//!
//! A thread of the lowest priority that walks the tree, once after a while with changes, and reads the
//! segments without a code at a limited rate. What changes while it is read stays without one. While a
//! scan runs (a baseline, a comparison) it waits: somebody waits for that.

use super::{read_at, segments, Code, CodeStore};
use crate::interceptor::attr::stat_fd;
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::table::{raw, Inode};
use crate::interceptor::Volume;
use crate::record::SEGMENT_BYTES;
use crate::scan::{list, Pace};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How fast it reads.
const BYTES_PER_S: u64 = 128 << 20;
/// How often it looks whether it has to end, or something has changed.
const POLL: Duration = Duration::from_millis(100);
const IDLE_NICE: i32 = 19;
/// Walks take at most one part in so many of the time, however large the tree is.
const WALK_SHARE: u32 = 10;

/// Progress of the sweep, for status.
#[derive(Default)]
pub struct SweepState {
    pub stop: AtomicBool,
    /// A walk is under way.
    pub running: AtomicBool,
    /// Walks that came to their end.
    pub passes: AtomicU64,
}

/// Starts the sweep. `pause`: between the end of a walk and the next.
pub fn start_sweep(
    v: &Arc<Volume>,
    codes: &Arc<CodeStore>,
    state: &Arc<SweepState>,
    pause: Duration,
) -> Res<std::thread::JoinHandle<()>> {
    let (v, codes, state) = (v.clone(), codes.clone(), state.clone());
    let run = move || {
        // SAFETY: plain calls on the calling thread; failure costs speed only.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, IDLE_NICE);
            // IOPRIO_WHO_PROCESS, IOPRIO_CLASS_IDLE.
            libc::syscall(libc::SYS_ioprio_set, 1, 0, 3 << 13);
        }
        let mut seen = None;
        let mut ended: Option<(Instant, Duration)> = None;
        while !state.stop.load(Ordering::Relaxed) {
            let now = codes.invalidated();
            let due = ended.is_none_or(|(at, took)| at.elapsed() >= pause.max(took * WALK_SHARE));
            if due && seen != Some(now) {
                state.running.store(true, Ordering::Release);
                let begun = Instant::now();
                let result = pass(&v, &codes, &state);
                state.running.store(false, Ordering::Release);
                // Where it failed it goes again, after the pause.
                if result.is_ok() {
                    seen = Some(now);
                    state.passes.fetch_add(1, Ordering::Release);
                }
                ended = Some((Instant::now(), begun.elapsed()));
            }
            std::thread::sleep(POLL);
        }
    };
    std::thread::Builder::new().name("holdfast-codes".into()).spawn(run).map_err(Errno::from)
}

fn pass(v: &Arc<Volume>, codes: &CodeStore, state: &SweepState) -> Res<()> {
    let mut pace = Pace::new(BYTES_PER_S);
    let mut queue = VecDeque::from([v.root.clone()]);
    let mut result = Ok(());
    while let Some(dir) = queue.pop_front() {
        if result.is_ok() {
            result = match directory(v, codes, state, &dir, &mut queue, &mut pace) {
                Err(Errno(libc::ESTALE | libc::ENOENT)) => Ok(()),
                r => r,
            };
        }
        v.table.forget(&dir, u64::from(!Arc::ptr_eq(&dir, &v.root)));
    }
    result
}

fn directory(
    v: &Arc<Volume>,
    codes: &CodeStore,
    state: &SweepState,
    dir: &Arc<Inode>,
    queue: &mut VecDeque<Arc<Inode>>,
    pace: &mut Pace,
) -> Res<()> {
    let fd = v.dir_fd(dir)?;
    for e in list(v, raw(&fd))? {
        if state.stop.load(Ordering::Relaxed) {
            return Err(Errno(libc::ECANCELED));
        }
        match e.mode & libc::S_IFMT {
            libc::S_IFDIR => queue.push_back(v.table.enter(e.oid, e.handle, libc::S_IFDIR, 1)),
            libc::S_IFREG => {
                let inode = v.table.enter(e.oid, e.handle, libc::S_IFREG, 1);
                let result = file(v, codes, state, &inode, pace);
                v.table.forget(&inode, 1);
                match result {
                    Ok(()) | Err(Errno(libc::ESTALE | libc::ENOENT | libc::EPERM)) => {}
                    Err(e) => return Err(e),
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn file(
    v: &Volume,
    codes: &CodeStore,
    state: &SweepState,
    inode: &Inode,
    pace: &mut Pace,
) -> Res<()> {
    let flags = libc::O_RDONLY | libc::O_NOATIME | libc::O_NONBLOCK;
    // Not through the cache of descriptors: the applications need it.
    let fd = inode.handle.open(v.mount_fd(), flags)?;
    let size = stat_fd(fd.as_raw_fd())?.stx_size;
    let mut buf = vec![0; SEGMENT_BYTES.min(size) as usize];
    for segment in segments(0, size) {
        if codes.get(inode.oid, segment).is_some() {
            continue;
        }
        let stop = || state.stop.load(Ordering::Relaxed);
        if v.scan.is_running() {
            while v.scan.is_running() && !stop() {
                std::thread::sleep(POLL);
            }
            *pace = Pace::new(BYTES_PER_S); // else it would make up for the time
        }
        if stop() {
            return Err(Errno(libc::ECANCELED));
        }
        let begun = {
            let _lock = inode.effect.lock();
            codes.begin(inode.oid, segment)
        };
        let n = read_at(fd.as_raw_fd(), &mut buf, segment * SEGMENT_BYTES).map_err(Errno::from)?;
        codes.complete(begun, Code::of(&buf[..n]));
        pace.take(n as u64, stop);
    }
    Ok(())
}
