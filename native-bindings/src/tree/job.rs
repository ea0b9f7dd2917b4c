//! A comparison or a restore under way: a thread of its own, what it tells, and how it is stopped.
//!
//! Whoever started it reads items until the outcome is there; a reader that goes away cancels it.

use super::change::{changes, Change};
use super::limits::{BATCH_ITEMS_MAX, BATCH_WAIT_MS, FAILURES_TOLD_MAX, QUEUE_ITEMS_MAX};
use super::restore::Restore;
use super::walk::walk;
use super::Options;
use crate::replay::error::{Done, Fault};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError, SyncSender};
use std::sync::Arc;
use std::time::Duration;

/// What could not be done, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Relative to the roots; bytes, not text.
    pub path: Vec<u8>,
    pub errno: i32,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Change(Change),
    Failure(Failure),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Names that were looked at.
    pub seen: u64,
    /// Objects made equal, of those that are to be.
    pub done: u64,
    pub total: u64,
    /// Bytes copied or compared for that.
    pub bytes: u64,
    pub total_bytes: u64,
}

/// How a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What ended it before its end.
    pub stopped: Option<Failure>,
    /// Things that were left undone.
    pub failures: u64,
}

/// What the thread of a job and its owner share.
#[derive(Default)]
pub struct Shared {
    canceled: AtomicBool,
    seen: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl Shared {
    pub fn check_canceled(&self) -> Done {
        match self.canceled.load(Relaxed) {
            true => Err(Fault::Sys { call: "cancel", errno: libc::ECANCELED }),
            false => Ok(()),
        }
    }

    pub fn add_seen(&self, names: u64) {
        self.seen.fetch_add(names, Relaxed);
    }

    pub fn add_done(&self) {
        self.done.fetch_add(1, Relaxed);
    }

    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub fn set_total(&self, objects: u64, bytes: u64) {
        self.total.store(objects, Relaxed);
        self.total_bytes.store(bytes, Relaxed);
    }

    pub fn progress(&self) -> Progress {
        Progress {
            seen: self.seen.load(Relaxed),
            done: self.done.load(Relaxed),
            total: self.total.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            total_bytes: self.total_bytes.load(Relaxed),
        }
    }
}

/// What ends a job at once: going on would fail everywhere, or is not wanted.
pub fn is_final(fault: &Fault) -> bool {
    [libc::ECANCELED, libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::ENOTCONN]
        .into_iter()
        .any(|errno| fault.is(errno))
}

pub fn failure(path: Vec<u8>, fault: &Fault) -> Failure {
    Failure { path, errno: fault.errno().unwrap_or(libc::EIO), message: fault.to_string() }
}

/// Where the thread of a job tells what it finds.
pub struct Told<'a> {
    pub shared: &'a Shared,
    out: &'a SyncSender<Item>,
    pub failures: u64,
}

impl Told<'_> {
    pub fn change(&self, change: Change) -> Done {
        self.send(Item::Change(change))
    }

    /// Notes what is left undone and lets the job go on, unless that makes no sense.
    pub fn failed(&mut self, path: Vec<u8>, fault: Fault) -> Result<(), Failure> {
        let failure = failure(path, &fault);
        if is_final(&fault) {
            return Err(failure);
        }
        self.failures += 1;
        if self.failures > FAILURES_TOLD_MAX {
            return Ok(());
        }
        self.send(Item::Failure(failure.clone())).map_err(|_| failure)
    }

    fn send(&self, item: Item) -> Done {
        if self.out.send(item).is_err() {
            self.shared.canceled.store(true, Relaxed);
        }
        self.shared.check_canceled()
    }
}

/// A job as its owner has it.
pub struct Job {
    shared: Arc<Shared>,
    items: Mutex<Option<Receiver<Item>>>,
    outcome: Arc<Mutex<Option<Outcome>>>,
}

impl Job {
    pub fn start(options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let outcome = Arc::new(Mutex::new(None));
        let (out, items) = sync_channel(QUEUE_ITEMS_MAX);
        let (theirs, ended) = (shared.clone(), outcome.clone());
        std::thread::Builder::new().name("holdfast-tree".to_owned()).spawn(move || {
            let work = std::panic::AssertUnwindSafe(|| run(&options, &theirs, &out));
            let end = std::panic::catch_unwind(work).unwrap_or_else(|_| Outcome {
                stopped: Some(Failure {
                    path: Vec::new(),
                    errno: libc::EIO,
                    message: "a defect: the thread of the job has died".to_owned(),
                }),
                failures: 0,
            });
            // Whoever sees the end of the items finds the outcome.
            *ended.lock() = Some(end);
        })?;
        Ok(Self { shared, items: Mutex::new(Some(items)), outcome })
    }

    /// Items as they come, waiting shortly for the first; the outcome when there are no more.
    pub fn next(&self) -> (Vec<Item>, Option<Outcome>) {
        let slot = self.items.lock();
        let mut batch = Vec::new();
        let Some(items) = slot.as_ref() else {
            return (batch, self.outcome.lock().clone());
        };
        match items.recv_timeout(Duration::from_millis(BATCH_WAIT_MS)) {
            Ok(first) => batch.push(first),
            Err(RecvTimeoutError::Timeout) => return (batch, None),
            Err(RecvTimeoutError::Disconnected) => return (batch, self.outcome.lock().clone()),
        }
        while batch.len() < BATCH_ITEMS_MAX {
            match items.try_recv() {
                Ok(item) => batch.push(item),
                Err(_) => break,
            }
        }
        (batch, None)
    }

    pub fn progress(&self) -> Progress {
        self.shared.progress()
    }

    /// It ends soon, at a place from where it can go on.
    pub fn cancel(&self) {
        self.shared.canceled.store(true, Relaxed);
    }
}

/// The whole job, on the thread that calls it.
pub fn run(options: &Options, shared: &Shared, out: &SyncSender<Item>) -> Outcome {
    let mut told = Told { shared, out, failures: 0 };
    let stopped = work(options, &mut told).err();
    Outcome { stopped, failures: told.failures }
}

fn work(options: &Options, told: &mut Told) -> Result<(), Failure> {
    let mut pairing = walk(options, told.shared)?;
    if options.restore {
        return Restore::new(options, told, pairing).run();
    }
    for change in changes(&mut pairing) {
        told.change(change).map_err(|fault| failure(Vec::new(), &fault))?;
    }
    Ok(())
}
