//! Acknowledgement by replicas: who waits for them, up to where they are, and for how long.
//!
//! The control plane (daemon/acks.ts) sorts paths into *classes* by what has to be at which replicas,
//! and moves one position per class: everything up to it is there. `interceptor/ack.rs` says which
//! requests wait, and for which classes.
//!
//! Invariant: a wait ends at its class's deadline, the control plane alive or not; without
//! replicas that are waited for, a request costs one relaxed load.

use super::limits::{ACK_CLASSES_MAX, APPLICATION_HOLD_MAX, SLOW_WAIT_MAX};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where requests wait: bits of `Policy::points`.
pub mod point {
    /// fsync, fdatasync, writes of O_SYNC and O_DSYNC files.
    pub const FSYNC: u32 = 1;
    pub const RENAME: u32 = 2;
    pub const CLOSE: u32 = 4;
    pub const EVERY_OP: u32 = 8;
    /// An asynchronous replica lags too far behind: changes wait a little.
    pub const SLOW: u32 = 16;
    /// The volume's group is frozen, and is to hold applications: changes wait.
    pub const HELD: u32 = 32;
    /// What is no matter of `Policy`.
    pub const OWN: u32 = SLOW | HELD;
}

const MODE_WAIT: u32 = 1;
const MODE_REFUSE: u32 = 2;

/// What holds for the paths of one class.
#[derive(Clone, Copy, Debug)]
pub struct ClassState {
    /// 0 nobody waits, 1 requests wait, 2 they fail with EIO.
    pub mode: u32,
    /// Longest wait of one request.
    pub wait: Duration,
    /// What a wait that took that long becomes: EIO, or success.
    pub refuse_late: bool,
    /// Everything up to here is where it has to be.
    pub position: u64,
}

/// What the control plane wants.
#[derive(Debug, Default)]
pub struct Policy {
    pub points: u32,
    /// FLUSH is answered, so that the kernel goes on sending it.
    pub close: bool,
    /// (path below the root, with its leading slash; class). The rest is of class 0.
    pub rules: Vec<(Box<[u8]>, u32)>,
    pub classes: Vec<ClassState>,
}

#[derive(Default)]
struct Class {
    mode: AtomicU32,
    wait_ms: AtomicU32,
    refuse_late: AtomicBool,
    position: AtomicU64,
}

/// One per volume.
#[derive(Default)]
pub struct Acks {
    points: AtomicU32,
    close: AtomicBool,
    close_refused: AtomicBool,
    /// Counts policies: a wait that meets a new one looks anew what it waits for.
    generation: AtomicU64,
    rules: RwLock<Vec<(Box<[u8]>, u32)>>,
    /// Bits of the classes in use.
    in_use: AtomicU32,
    classes: [Class; ACK_CLASSES_MAX],
    /// Until when changes are held at most, while `point::HELD` is set.
    held_until: Mutex<Option<Instant>>,
    lock: Mutex<()>,
    changed: Condvar,
    eased: Condvar,
    /// Goes with `held_until`.
    released: Condvar,
    /// Waits that ended by their own deadline.
    pub late: AtomicU64,
}

impl Acks {
    /// Bits of `point` at which requests wait now.
    pub fn points(&self) -> u32 {
        self.points.load(Ordering::Relaxed)
    }

    /// FLUSH is wanted. Once it was refused, the kernel sends none until the next mount.
    pub fn answers_close(&self) -> bool {
        let close = self.close.load(Ordering::Relaxed);
        if !close {
            self.close_refused.store(true, Ordering::Relaxed);
        }
        close
    }

    pub fn close_refused(&self) -> bool {
        self.close_refused.load(Ordering::Relaxed)
    }

    /// From now on this holds, also for requests that wait. The policy has at least one class, and its
    /// rules name only classes that it has.
    pub fn set(&self, mut policy: Policy) {
        // The longest prefix wins.
        policy.rules.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        let guard = self.lock.lock();
        let mut rules = self.rules.write();
        for (class, state) in self.classes.iter().zip(&policy.classes) {
            class.mode.store(state.mode, Ordering::SeqCst);
            class.wait_ms.store(state.wait.as_millis() as u32, Ordering::SeqCst);
            class.refuse_late.store(state.refuse_late, Ordering::SeqCst);
            class.position.store(state.position, Ordering::SeqCst);
        }
        let bits = u32::MAX >> (ACK_CLASSES_MAX - policy.classes.len().clamp(1, ACK_CLASSES_MAX));
        self.in_use.store(bits, Ordering::SeqCst);
        *rules = policy.rules;
        self.close.store(policy.close, Ordering::SeqCst);
        // What `slow` and `hold` change at the same time must not be lost.
        self.points.fetch_or(policy.points & !point::OWN, Ordering::SeqCst);
        self.points.fetch_and(policy.points | point::OWN, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
        drop((rules, guard));
        self.changed.notify_all();
    }

    /// Everything up to `seq` is where the class has to have it.
    pub fn advance(&self, class: usize, seq: u64) {
        let Some(class) = self.classes.get(class) else {
            return;
        };
        if class.position.fetch_max(seq, Ordering::SeqCst) < seq {
            drop(self.lock.lock());
            self.changed.notify_all();
        }
    }

    /// Changes are slowed down, or not any more.
    pub fn slow(&self, on: bool) {
        if on {
            self.points.fetch_or(point::SLOW, Ordering::SeqCst);
        } else {
            self.points.fetch_and(!point::SLOW, Ordering::SeqCst);
            drop(self.lock.lock());
            self.eased.notify_all();
        }
    }

    /// Changes are held from now on, for so long at most; `None`: not any more.
    pub fn hold(&self, most: Option<Duration>) {
        let mut until = self.held_until.lock();
        *until = most.map(|most| Instant::now() + most.min(APPLICATION_HOLD_MAX));
        if until.is_some() {
            self.points.fetch_or(point::HELD, Ordering::SeqCst);
        } else {
            self.points.fetch_and(!point::HELD, Ordering::SeqCst);
        }
        drop(until);
        self.released.notify_all();
    }

    /// How long changes will be held at most; `None`: they are not.
    pub fn held_for(&self) -> Option<Duration> {
        let until = (*self.held_until.lock())?;
        until.checked_duration_since(Instant::now())
    }

    /// Waits while changes are held: until that ends, or its time is over, the control plane alive or not.
    pub fn wait_while_held(&self) {
        let mut until = self.held_until.lock();
        while let Some(deadline) = *until {
            if !self.released.wait_until(&mut until, deadline).timed_out() {
                continue;
            }
            // A longer hold may have begun meanwhile.
            if until.is_some_and(|until| until <= Instant::now()) {
                *until = None;
                self.points.fetch_and(!point::HELD, Ordering::SeqCst);
                self.released.notify_all();
            }
        }
    }

    /// Waits until changes are slowed down no more, but not long.
    pub fn ease(&self) {
        let deadline = Instant::now() + SLOW_WAIT_MAX;
        let mut guard = self.lock.lock();
        while self.points.load(Ordering::SeqCst) & point::SLOW != 0 {
            if self.eased.wait_until(&mut guard, deadline).timed_out() {
                return;
            }
        }
    }

    /// All paths are of one class.
    pub fn is_uniform(&self) -> bool {
        self.rules.read().is_empty()
    }

    /// Bits of all classes: what holds for an object of which nobody knows where it is.
    pub fn all_classes(&self) -> u32 {
        self.in_use.load(Ordering::SeqCst)
    }

    /// Bit of the class of a path: slashes in front of all its names, none for the root.
    pub fn class_of(&self, path: &[u8]) -> u32 {
        let rules = self.rules.read();
        let covers = |prefix: &[u8]| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
        };
        rules.iter().find(|(prefix, _)| covers(prefix)).map_or(1, |(_, class)| 1 << class)
    }

    fn each(&self, bits: u32) -> impl Iterator<Item = &Class> {
        self.classes.iter().enumerate().filter(move |(i, _)| bits >> i & 1 != 0).map(|(_, c)| c)
    }

    /// A request of these classes would fail for want of replicas.
    pub fn refuses(&self, bits: u32) -> bool {
        self.each(bits).any(|class| class.mode.load(Ordering::SeqCst) == MODE_REFUSE)
    }

    /// Waits until everything up to `seq` is where the classes that `scope` names have to have it. EIO
    /// when a lost replica is to be reason enough.
    pub fn wait(&self, seq: u64, scope: impl Fn() -> u32) -> Result<(), i32> {
        let begun = Instant::now();
        loop {
            let generation = self.generation.load(Ordering::SeqCst);
            let bits = scope();
            let mut guard = self.lock.lock();
            while self.generation.load(Ordering::SeqCst) == generation {
                let Some(deadline) = self.deadline(bits, seq, begun)? else {
                    return Ok(());
                };
                self.changed.wait_until(&mut guard, deadline);
            }
        }
    }

    /// Until when to wait for the first of these classes that is not there; `None`: for none.
    fn deadline(&self, bits: u32, seq: u64, begun: Instant) -> Result<Option<Instant>, i32> {
        let mut first: Option<Instant> = None;
        for class in self.each(bits) {
            match class.mode.load(Ordering::SeqCst) {
                MODE_WAIT if class.position.load(Ordering::SeqCst) < seq => {}
                MODE_REFUSE => return Err(libc::EIO),
                _ => continue,
            }
            let wait = Duration::from_millis(u64::from(class.wait_ms.load(Ordering::SeqCst)));
            let deadline = begun + wait;
            if Instant::now() < deadline {
                first = Some(first.map_or(deadline, |f| f.min(deadline)));
                continue;
            }
            self.late.fetch_add(1, Ordering::Relaxed);
            if class.refuse_late.load(Ordering::SeqCst) {
                return Err(libc::EIO);
            }
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(mode: u32, wait_ms: u64, refuse_late: bool, position: u64) -> ClassState {
        ClassState { mode, wait: Duration::from_millis(wait_ms), refuse_late, position }
    }

    fn acks(classes: Vec<ClassState>) -> Acks {
        let acks = Acks::default();
        let rules = [("/a", 1), ("/a/b", 0), ("/ledger", 1)]
            .into_iter()
            .filter(|(_, class)| *class < classes.len() as u32)
            .map(|(path, class)| (path.as_bytes().into(), class))
            .collect();
        acks.set(Policy { points: point::FSYNC, close: false, rules, classes });
        acks
    }

    #[test]
    fn the_longest_prefix_of_whole_names_wins() {
        let acks = acks(vec![class(0, 0, false, 0), class(1, 0, false, 0)]);
        for (path, bit) in [
            ("", 1),
            ("/a", 2),
            ("/a/x", 2),
            ("/a/b", 1),
            ("/a/b/c", 1),
            ("/ab", 1),
            ("/ledger2", 1),
            ("/ledger/x", 2),
            ("/x/ledger", 1),
        ] {
            assert_eq!(acks.class_of(path.as_bytes()), bit, "{path}");
        }
        assert_eq!(acks.all_classes(), 3);
    }

    #[test]
    fn a_wait_ends_by_its_deadline_or_by_what_it_waits_for() {
        let acks = acks(vec![class(1, 30, false, 5), class(1, 30, true, 5)]);
        assert_eq!(acks.wait(5, || 3), Ok(()));
        assert_eq!(acks.wait(6, || 1), Ok(()), "late, and none the worse");
        assert_eq!(acks.wait(6, || 2), Err(libc::EIO));
        assert_eq!(acks.late.load(Ordering::Relaxed), 2);
        acks.advance(1, 6);
        assert_eq!(acks.wait(6, || 2), Ok(()));
        acks.advance(1, 4);
        assert_eq!(acks.wait(6, || 2), Ok(()), "a position never falls");
    }

    #[test]
    fn a_new_policy_reaches_who_waits() {
        let acks = acks(vec![class(1, 60_000, true, 0)]);
        std::thread::scope(|s| {
            let waiter = s.spawn(|| acks.wait(9, || acks.class_of(b"/a")));
            std::thread::sleep(Duration::from_millis(30));
            let rules = vec![(b"/a".as_slice().into(), 1)];
            let classes = vec![class(1, 60_000, true, 0), class(0, 0, false, 0)];
            acks.set(Policy { points: point::FSYNC, close: false, rules, classes });
            assert_eq!(waiter.join().ok(), Some(Ok(())));
        });
        let classes = vec![class(2, 60_000, true, 99)];
        acks.set(Policy { classes, ..Default::default() });
        assert_eq!(acks.wait(1, || 1), Err(libc::EIO));
        assert!(acks.refuses(1));
    }

    #[test]
    fn slow_changes_go_on() {
        let acks = acks(vec![class(0, 0, false, 0)]);
        acks.slow(true);
        assert_ne!(acks.points() & point::SLOW, 0);
        let begun = Instant::now();
        acks.ease();
        assert!(begun.elapsed() >= SLOW_WAIT_MAX);
        acks.slow(false);
        acks.ease();
        assert_eq!(acks.points() & point::SLOW, 0);
    }

    #[test]
    fn held_changes_go_on_when_the_hold_ends_or_its_time_is_over() {
        let acks = acks(vec![class(0, 0, false, 0)]);
        acks.hold(Some(Duration::from_millis(50)));
        acks.set(Policy { classes: vec![class(0, 0, false, 0)], ..Default::default() });
        assert_ne!(acks.points() & point::HELD, 0, "a policy does not end it");
        let begun = Instant::now();
        acks.wait_while_held();
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!((acks.points() & point::HELD, acks.held_for()), (0, None));

        acks.hold(Some(Duration::from_secs(60)));
        std::thread::scope(|s| {
            let waiter = s.spawn(|| acks.wait_while_held());
            std::thread::sleep(Duration::from_millis(30));
            // Anew, and longer than what the waiter knows.
            acks.hold(Some(Duration::from_secs(600)));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!waiter.is_finished());
            acks.hold(None);
            assert!(waiter.join().is_ok());
        });
        assert_eq!(acks.points() & point::HELD, 0);
        acks.wait_while_held();
    }
}
