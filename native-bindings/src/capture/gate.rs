//! The gate: holds new mutations while a cut is taken.
//!
//! Every dummy function that changes something passes the gate before its real operation. A closed
//! gate lets those inside finish and keeps the others waiting. It opens by `release`, or by itself
//! when the deadline passes: each waiter looks at the deadline, so no coordinator is needed.
//!
//! Stores to mappings (writepage requests), FLUSH, RELEASE and FORGET never pass the gate: holding a
//! writepage would block the next store to that page.

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    /// The gate opens by itself at this instant.
    deadline: Option<Instant>,
    closed_at: Option<Instant>,
}

/// One gate per volume.
#[derive(Default)]
pub struct Gate {
    closed: AtomicBool,
    inside: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
}

/// Inside the gate as long as it lives.
pub struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Gate {
    /// Passes the gate, waiting while it is closed.
    pub fn enter(&self) -> Inside<'_> {
        loop {
            self.inside.fetch_add(1, Ordering::SeqCst);
            if !self.closed.load(Ordering::SeqCst) {
                return Inside(self);
            }
            self.leave();
            let mut s = self.state.lock();
            if self.closed.load(Ordering::SeqCst) {
                match s.deadline {
                    Some(d) if Instant::now() < d => {
                        self.changed.wait_until(&mut s, d);
                    }
                    _ => self.open(&mut s),
                }
            }
        }
    }

    fn leave(&self) {
        if self.inside.fetch_sub(1, Ordering::SeqCst) == 1 && self.closed.load(Ordering::SeqCst) {
            let _s = self.state.lock();
            self.changed.notify_all();
        }
    }

    fn open(&self, s: &mut State) {
        self.closed.store(false, Ordering::SeqCst);
        s.deadline = None;
        self.changed.notify_all();
    }

    /// Closes the gate for at most `max` and waits for the mutations inside to finish.
    ///
    /// Returns false, with the gate open again, when they did not finish within `max` or the gate was
    /// closed already.
    pub fn hold(&self, max: Duration) -> bool {
        let mut s = self.state.lock();
        let expired = s.deadline.is_some_and(|d| Instant::now() >= d);
        if self.closed.load(Ordering::SeqCst) && !expired {
            return false;
        }
        let now = Instant::now();
        s.deadline = Some(now + max);
        s.closed_at = Some(now);
        self.closed.store(true, Ordering::SeqCst);
        while self.inside.load(Ordering::SeqCst) > 0 {
            if self.changed.wait_until(&mut s, now + max).timed_out() {
                self.open(&mut s);
                return false;
            }
        }
        true
    }

    /// Opens the gate; the time it was closed, or `None` when the watchdog opened it before.
    pub fn release(&self) -> Option<Duration> {
        let mut s = self.state.lock();
        let since = s.closed_at.take();
        let in_time =
            self.closed.load(Ordering::SeqCst) && s.deadline.is_some_and(|d| Instant::now() < d);
        self.open(&mut s);
        since.filter(|_| in_time).map(|t| t.elapsed())
    }

    /// Closed just now; a mutation would have to wait.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub fn is_held(&self) -> bool {
        let s = self.state.lock();
        self.closed.load(Ordering::SeqCst) && s.deadline.is_some_and(|d| Instant::now() < d)
    }
}
