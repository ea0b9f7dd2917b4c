//! Which moments have to stay readable: those that are looked at, and the newest snapshot.
//!
//! Invariant: in mode `snapshots` nothing is kept while `point` is 0. It becomes 0 only when nobody looks at
//! anything, the control plane knows of no snapshot, and it has heard of every cut: all of that, and
//! `point`, is looked at and set under one mutex.

use super::{limits, History};
use crate::interceptor::errno::{Errno, Res};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

#[derive(Default)]
pub(super) struct Moments {
    /// Moments that are being looked at, and how often.
    pins: BTreeMap<u64, usize>,
    /// Cuts of which the control plane need not know yet, and until when it may hear of them.
    unheard: BTreeMap<u64, Instant>,
    no_snapshots: bool,
    /// The control plane has said what there is.
    told: bool,
}

impl Moments {
    fn is_unused(&mut self) -> bool {
        let now = Instant::now();
        self.unheard.retain(|_, until| *until > now);
        self.pins.is_empty() && self.unheard.is_empty() && self.no_snapshots
    }

    /// The oldest moment that has to stay.
    pub fn oldest(&self) -> Option<u64> {
        let first = |seq: Option<&u64>| seq.copied().unwrap_or(u64::MAX);
        let oldest = first(self.pins.keys().next()).min(first(self.unheard.keys().next()));
        (oldest != u64::MAX).then_some(oldest)
    }

    /// The oldest moment from `floor` on that is being looked at.
    pub fn looked_at(&self, floor: u64) -> Option<u64> {
        self.pins.range(floor..).next().map(|(seq, _)| *seq)
    }
}

impl History {
    /// A view of `seq` begins: it stays readable, if that is possible. ERANGE when it is not any more.
    pub fn pin(&self, seq: u64) -> Res<()> {
        *self.moments.lock().pins.entry(seq).or_insert(0) += 1;
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
        let mut moments = self.moments.lock();
        if let Some(n) = moments.pins.get_mut(&seq) {
            *n -= 1;
            if *n == 0 {
                moments.pins.remove(&seq);
            }
        }
        self.rest_if_unused(&mut moments);
        drop(moments);
        self.kick();
    }

    /// What snapshots there are (`newest` 0: none), and the oldest seq that is to be kept. For the first
    /// time, call it before anything changes.
    pub fn set_wanted(&self, newest: u64, oldest: u64) {
        let mut moments = self.moments.lock();
        moments.unheard.retain(|seq, _| *seq > newest);
        let is_first = !std::mem::replace(&mut moments.told, true);
        let newest = if self.is_kept(newest, is_first) { newest } else { 0 };
        moments.no_snapshots = newest == 0;
        self.point.fetch_max(newest, Ordering::AcqRel);
        self.rest_if_unused(&mut moments);
        // Not later: it is what keeps a cut from now on that was unheard of until now.
        self.wanted.store(oldest, Ordering::Release);
        drop(moments);
        self.kick();
    }

    /// Has everything been kept since this snapshot? For one that is lost nothing has to be.
    fn is_kept(&self, newest: u64, is_first: bool) -> bool {
        if newest == 0 || newest < self.floor() {
            return false;
        }
        // Whatever has changed while the history rested: the snapshot must not pass for one that is kept.
        let missed = self.rests() && !is_first;
        if missed {
            self.pass_by(newest + 1);
        }
        !missed
    }

    fn rest_if_unused(&self, moments: &mut Moments) {
        if moments.is_unused() {
            self.point.store(0, Ordering::Release);
        }
    }

    /// A snapshot at `seq` begins, which the control plane does not know yet.
    pub(super) fn await_word(&self, seq: u64) {
        let mut moments = self.moments.lock();
        if self.rests() {
            // Nothing was kept of what happened before. I/O is on hold: nothing is flushed now.
            self.pass_by(seq);
        }
        moments.unheard.insert(seq, Instant::now() + limits::UNHEARD_MAX);
        moments.no_snapshots = false;
    }

    /// The control plane will not hear of this cut: it has failed.
    pub fn give_up_point(&self, seq: u64) {
        self.moments.lock().unheard.remove(&seq);
    }
}
