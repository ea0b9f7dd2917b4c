//! Object images: what an object is now, captured under its effect lock, in one order with live changes.
//!
//! Three users: recovery of intents (`intents`), the re-capture after a power loss (`walk`), and changes
//! made behind the mount (`outside`).

mod absent;
mod code;
mod count;
mod fill;
mod image;
mod intents;
mod outside;
mod walk;

pub use absent::Absent;
pub use code::Pace;
pub use fill::{read_fill, Fills};
pub use image::list;
pub use intents::recover_intents;
pub use outside::recapture_paths;
pub use walk::{start_scan, ScanData, ScanOptions};

use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::handle::FileHandle;
use crate::interceptor::table::Inode;
use crate::record::Oid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often the end of a scan is looked for.
const END_POLL: Duration = Duration::from_millis(1);

/// Kinds of SCAN_BEGIN and SCAN_END.
pub const KIND_INTENTS: u8 = 0;
pub const KIND_RECAPTURE: u8 = 1;
/// All of the tree, for a replica that has none of it.
pub const KIND_BASELINE: u8 = 2;
/// Everything, to compare with.
pub const KIND_VERIFY: u8 = 3;
/// What a replica has found to differ.
pub const KIND_REPAIR: u8 = 4;

/// Progress of a scan, for status.
#[derive(Default)]
pub struct ScanState {
    running: AtomicBool,
    /// The volume is going down: give up.
    stop: AtomicBool,
    /// A replica may hold other bytes than the volume, here and there.
    pub differing: AtomicBool,
    pub objects: AtomicU64,
    pub imaged: AtomicU64,
    pub bytes: AtomicU64,
    pub errors: AtomicU64,
    /// Scans started: which one a count belongs to.
    pub number: AtomicU64,
    /// What there is to be scanned: for a baseline, once it is `counted`.
    pub total_objects: AtomicU64,
    pub total_bytes: AtomicU64,
    pub counted: AtomicBool,
    /// Directories that something was moved or linked into meanwhile, perhaps from where the walk
    /// has not been: what a reader passed over, the walk has to show again.
    pub entered: Mutex<HashMap<Oid, FileHandle>>,
    /// Files whose data is brought to replicas as they ask for it.
    pub fills: Fills,
    /// Directories in which others have changed something since it was last quiet.
    pub foreign: Mutex<HashMap<Oid, FileHandle>>,
}

impl ScanState {
    /// A scan may write to the ring from now on: EBUSY when one does already, ECANCELED after `stop`.
    pub fn begin(&self) -> Res<()> {
        if self.running.swap(true, Ordering::SeqCst) {
            return Err(Errno(libc::EBUSY));
        }
        // The walk has been nowhere yet.
        self.entered.lock().clear();
        // Either `stop` is seen here, or `wait_for_end` sees that one runs.
        if self.stop.load(Ordering::SeqCst) {
            self.end();
            return Err(Errno(libc::ECANCELED));
        }
        Ok(())
    }

    /// It writes nothing any more.
    pub fn end(&self) {
        self.entered.lock().clear();
        self.running.store(false, Ordering::SeqCst);
    }

    /// The volume goes down: a scan that runs gives up, and none begins.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// After `stop`: from here on no scan writes to the ring.
    pub fn wait_for_end(&self) {
        while self.running.load(Ordering::SeqCst) {
            std::thread::sleep(END_POLL);
        }
    }

    /// Whether one is under way.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Whether it is to give up.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// An object is about to get a name in `dir`. Call under the directory's effect lock, before the
    /// operation: a walk that takes the note then waits for its end.
    pub fn note_entry(&self, dir: &Inode) {
        if self.running.load(Ordering::Acquire) {
            self.entered.lock().insert(dir.oid, dir.handle);
        }
    }

    /// Some reader of the journal may lack the bytes of a file, or have others: a record must not refer to
    /// them. Ask under the effect lock of the object that changes: one that is imaged later has it all.
    pub fn unsettled(&self) -> bool {
        self.running.load(Ordering::Acquire) || self.differing.load(Ordering::Acquire)
    }

    fn count(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
