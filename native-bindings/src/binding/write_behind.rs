//! Write-behind of the journal's file.

use super::error::{system, JsError};
use crate::write_behind;
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
