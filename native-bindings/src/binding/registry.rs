//! Open volumes by number.

use super::error::{fail, JsError};
use crate::codes::SweepState;
use crate::interceptor::Volume;
use crate::transport::device::Session;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

/// A volume and what belongs to it outside the data path.
pub struct Open {
    pub volume: Arc<Volume>,
    pub name: String,
    pub mountpoint: CString,
    pub workers: usize,
    /// FUSE over io_uring may be used.
    pub uring: bool,
    pub queues: Mutex<Option<Arc<crate::transport::uring::Uring>>>,
    pub session: Mutex<Option<Arc<Session>>>,
    /// The thread that computes codes.
    pub sweep: Mutex<Option<(Arc<SweepState>, std::thread::JoinHandle<()>)>>,
    /// Threads that capture in the background (recovery of intents).
    pub background: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// What is kept of its past.
    pub kept: Option<Arc<super::history::Kept>>,
    pub stopped: std::sync::atomic::AtomicBool,
}

static OPEN: LazyLock<Mutex<HashMap<u32, Arc<Open>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A number that nothing open has: whatever is addressed by a handle is one thing only.
pub fn number() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn add(open: Open) -> u32 {
    let handle = number();
    OPEN.lock().insert(handle, Arc::new(open));
    handle
}

pub fn get(handle: u32) -> Result<Arc<Open>, JsError> {
    OPEN.lock()
        .get(&handle)
        .cloned()
        .ok_or_else(|| fail("BAD_HANDLE", format!("no open volume has handle {handle}")))
}

pub fn remove(handle: u32) -> Option<Arc<Open>> {
    OPEN.lock().remove(&handle)
}
