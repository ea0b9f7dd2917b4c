//! Object images: what an object is now, captured under its effect lock, in one order with live changes.
//!
//! Three users: recovery of intents (`intents`), the re-capture after a power loss (`walk`), and changes
//! made behind the mount (`outside`).

mod image;
mod intents;
mod outside;
mod walk;

pub use intents::recover_intents;
pub use outside::recapture_paths;
pub use walk::{start_scan, ScanOptions};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Kinds of SCAN_BEGIN and SCAN_END.
pub const KIND_INTENTS: u8 = 0;
pub const KIND_RECAPTURE: u8 = 1;

/// Progress of a scan, for status.
#[derive(Default)]
pub struct ScanState {
    pub running: AtomicBool,
    /// The volume is going down: give up.
    pub stop: AtomicBool,
    pub objects: AtomicU64,
    pub imaged: AtomicU64,
    pub bytes: AtomicU64,
    pub errors: AtomicU64,
}

impl ScanState {
    fn count(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
