//! What a journal costs in memory: write-behind of its file, read-behind, and the heap.

use super::error::{system, JsError};
use crate::{heap, read_behind, write_behind};
use napi_derive::napi;
use std::path::Path;

#[napi]
pub struct WriteBehind(write_behind::WriteBehind);

#[napi]
impl WriteBehind {
    /// `path`: the file, as text: it is the journal's own name.
    #[napi(constructor)]
    pub fn new(path: String) -> Result<Self, JsError> {
        let started = write_behind::WriteBehind::start(Path::new(&path));
        started.map(Self).map_err(|e| system("starting the write-behind of the journal", e))
    }

    #[napi]
    pub fn kick(&self) {
        self.0.kick();
    }
}

/// `path`: of a journal's file that this process reads.
#[napi]
pub fn forget_read(path: String) {
    // Its failure costs memory, not data: nobody is to stop for it.
    let _ = read_behind::forget_read(Path::new(&path));
}

/// Free memory of this process that stays, in bytes for each arena of the allocator.
#[napi]
pub fn keep_heap(bytes: u32) {
    heap::keep(bytes);
}
