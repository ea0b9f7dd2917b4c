//! The gate: holds new mutations while a cut is taken.
//!
//! Every dummy function that changes something passes the gate before its real operation. A closed
//! gate lets those inside finish and keeps the others waiting. It opens by `release`, or by itself
//! when the deadline passes: each waiter looks at the deadline, so no coordinator is needed.
//!
//! A hold has an owner: nobody opens the gate that somebody else has closed, and nobody takes another one's
//! hold for his own.
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
    /// Of the last hold.
    hold: Hold,
}

/// One closing of the gate; only who has it can open that again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold(pub u32);

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
    /// `None` when they did not finish within `max`, with the gate open again, or when the gate was
    /// closed already: that stays as it is.
    pub fn hold(&self, max: Duration) -> Option<Hold> {
        let mut s = self.state.lock();
        let expired = s.deadline.is_some_and(|d| Instant::now() >= d);
        if self.closed.load(Ordering::SeqCst) && !expired {
            return None;
        }
        let now = Instant::now();
        s.deadline = Some(now + max);
        s.closed_at = Some(now);
        s.hold = Hold(s.hold.0.wrapping_add(1));
        let hold = s.hold;
        self.closed.store(true, Ordering::SeqCst);
        while self.inside.load(Ordering::SeqCst) > 0 {
            if self.changed.wait_until(&mut s, now + max).timed_out() {
                // It may be another one's by now: the watchdog opened ours.
                if s.hold == hold {
                    self.open(&mut s);
                }
                return None;
            }
        }
        (s.hold == hold && self.closed.load(Ordering::SeqCst)).then_some(hold)
    }

    /// Opens the gate; the time it was closed, or `None` when the watchdog opened it before.
    pub fn release(&self, hold: Hold) -> Option<Duration> {
        let mut s = self.state.lock();
        if s.hold != hold {
            return None;
        }
        let since = s.closed_at.take();
        let in_time =
            self.closed.load(Ordering::SeqCst) && s.deadline.is_some_and(|d| Instant::now() < d);
        self.open(&mut s);
        since.filter(|_| in_time).map(|t| t.elapsed())
    }

    /// Opens the gate, whoever has closed it: it is not needed any more.
    pub fn open_for_good(&self) {
        let mut s = self.state.lock();
        s.closed_at = None;
        self.open(&mut s);
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

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn only_its_owner_ends_a_hold() {
        let gate = Gate::default();
        let cut = gate.hold(LONG).expect("nobody is inside");
        assert_eq!(gate.hold(LONG), None, "it is closed already");
        let other = Hold(cut.0.wrapping_sub(1));
        assert_eq!(gate.release(other), None);
        assert!(gate.is_held(), "it stays closed");
        assert!(gate.release(cut).is_some());
        let next = gate.hold(LONG).expect("it is open");
        assert_eq!(gate.release(cut), None, "a hold is not taken for an earlier one");
        assert!(gate.is_held());
        gate.open_for_good();
        assert_eq!(gate.release(next), None);
    }

    #[test]
    fn a_hold_that_is_over_is_no_proof() {
        let gate = Gate::default();
        let short = gate.hold(Duration::from_millis(5)).expect("nobody is inside");
        std::thread::sleep(Duration::from_millis(10));
        drop(gate.enter());
        assert_eq!(gate.release(short), None);
        let inside = gate.enter();
        assert_eq!(gate.hold(Duration::from_millis(5)), None, "somebody does not come out");
        drop(inside);
        assert!(gate.hold(LONG).is_some());
    }
}
