//! Moments that are looked at: they stay readable, if that is possible.

use super::{limits, History};
use crate::interceptor::errno::{Errno, Res};
use std::time::Instant;

impl History {
    /// A view of `seq` begins: it stays readable, if that is possible. ERANGE when it is not any more.
    pub fn pin(&self, seq: u64) -> Res<()> {
        *self.pins.lock().entry(seq).or_insert(0) += 1;
        if !self.shows(seq) {
            self.unpin(seq);
            return Err(Errno(libc::ERANGE));
        }
        let end = Instant::now() + limits::SETTLE_MAX;
        while !self.index.is_settled(seq) {
            if Instant::now() > end {
                self.unpin(seq);
                return Err(Errno(libc::ETIMEDOUT));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn unpin(&self, seq: u64) {
        let mut pins = self.pins.lock();
        if let Some(n) = pins.get_mut(&seq) {
            *n -= 1;
            if *n == 0 {
                pins.remove(&seq);
            }
        }
        drop(pins);
        self.rest_if_unused();
        self.kick();
    }
}
