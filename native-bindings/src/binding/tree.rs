//! Comparing and restoring trees: jobs with threads of their own, read in batches.

use super::error::{errno_name, fail, system, JsError};
use crate::tree::{Change, Failure, Item, Job, Options, Outcome, Progress};
use napi::bindgen_prelude::{AsyncTask, BigInt, BigUint64Array, Buffer};
use napi::{Env, Task};
use napi_derive::napi;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

static JOBS: LazyLock<Mutex<HashMap<u32, Arc<Job>>>> = LazyLock::new(Mutex::default);

#[napi(object)]
pub struct JsTreeOptions {
    pub a: Buffer,
    pub b: Buffer,
    pub scope: Vec<Buffer>,
    pub identity: bool,
    pub thorough: bool,
    pub quick: bool,
    pub ranges: bool,
    pub only: Option<BigUint64Array>,
    pub within: Option<BigUint64Array>,
    pub restore: bool,
    pub private: bool,
}

#[napi(object)]
pub struct JsTreeChange {
    pub kind: String,
    pub path: Buffer,
    pub from: Option<Buffer>,
    /// S_IFMT.
    pub object: u32,
    pub what: Vec<String>,
    pub size: BigInt,
    pub mtime_ns: BigInt,
    /// Pairs: from, to.
    pub ranges: BigUint64Array,
    pub linked: bool,
}

#[napi(object)]
pub struct JsTreeFailure {
    pub path: Buffer,
    pub code: String,
    pub message: String,
}

#[napi(object)]
pub struct JsTreeProgress {
    pub seen: f64,
    pub done: f64,
    pub total: f64,
    pub bytes: f64,
    pub total_bytes: f64,
}

#[napi(object)]
pub struct JsTreeOutcome {
    pub stopped: Option<JsTreeFailure>,
    pub failures: f64,
}

#[napi(object)]
pub struct JsTreeBatch {
    pub changes: Vec<JsTreeChange>,
    pub failures: Vec<JsTreeFailure>,
    pub progress: JsTreeProgress,
    pub outcome: Option<JsTreeOutcome>,
}

fn path(bytes: &Buffer) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// Starts a comparison, or a restore; returns the job.
#[napi]
pub fn start_tree(options: JsTreeOptions) -> Result<u32, JsError> {
    let job = Job::start(Options {
        a: path(&options.a),
        b: path(&options.b),
        scope: options.scope.iter().map(|name| name.to_vec()).collect(),
        identity: options.identity,
        thorough: options.thorough,
        quick: options.quick,
        ranges: options.ranges,
        only: options.only.map(|only| only.iter().copied().collect()),
        within: options.within.map(|within| within.iter().copied().collect()),
        restore: options.restore,
        private: options.private,
    });
    let job = job.map_err(|e| system("starting a thread", e))?;
    let mut jobs = JOBS.lock();
    let handle = (1..).find(|n| !jobs.contains_key(n)).unwrap_or(0);
    jobs.insert(handle, Arc::new(job));
    Ok(handle)
}

fn job(handle: u32) -> Result<Arc<Job>, JsError> {
    let found = JOBS.lock().get(&handle).cloned();
    found.ok_or_else(|| fail("BAD_HANDLE", format!("there is no tree job {handle}")))
}

pub struct NextBatch(Arc<Job>);

impl Task for NextBatch {
    type Output = (Vec<Item>, Option<Outcome>, Progress);
    type JsValue = JsTreeBatch;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        let (items, outcome) = self.0.next();
        Ok((items, outcome, self.0.progress()))
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> napi::Result<JsTreeBatch> {
        let (items, outcome, progress) = output;
        let (mut changes, mut failures) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::Change(change) => changes.push(change.into()),
                Item::Failure(failure) => failures.push(failure.into()),
            }
        }
        let outcome = outcome.map(|outcome| JsTreeOutcome {
            stopped: outcome.stopped.map(JsTreeFailure::from),
            failures: outcome.failures as f64,
        });
        Ok(JsTreeBatch { changes, failures, progress: progress.into(), outcome })
    }
}

/// What a job has found since the last call; waits shortly for it, on a thread of the pool.
#[napi(ts_return_type = "Promise<JsTreeBatch>")]
pub fn next_tree(handle: u32) -> Result<AsyncTask<NextBatch>, JsError> {
    Ok(AsyncTask::new(NextBatch(job(handle)?)))
}

/// A job ends soon; it is read to its end all the same.
#[napi]
pub fn cancel_tree(handle: u32) -> Result<(), JsError> {
    job(handle)?.cancel();
    Ok(())
}

/// Forgets a job; one that has not ended is cancelled.
#[napi]
pub fn close_tree(handle: u32) {
    if let Some(job) = JOBS.lock().remove(&handle) {
        job.cancel();
    }
}

impl From<Failure> for JsTreeFailure {
    fn from(failure: Failure) -> Self {
        let code = match failure.errno {
            libc::ECANCELED => "ECANCELED",
            libc::EEXIST => "EEXIST",
            libc::ENOTEMPTY => "ENOTEMPTY",
            errno => errno_name(errno),
        };
        Self { path: failure.path.into(), code: code.to_owned(), message: failure.message }
    }
}

impl From<Progress> for JsTreeProgress {
    fn from(p: Progress) -> Self {
        Self {
            seen: p.seen as f64,
            done: p.done as f64,
            total: p.total as f64,
            bytes: p.bytes as f64,
            total_bytes: p.total_bytes as f64,
        }
    }
}

impl From<Change> for JsTreeChange {
    fn from(change: Change) -> Self {
        let (seconds, nanoseconds) = change.mtime;
        let mtime = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        let ranges: Vec<u64> = change.ranges.iter().flat_map(|(from, to)| [*from, *to]).collect();
        Self {
            kind: change.kind.as_str().to_owned(),
            path: change.path.into(),
            from: (!change.from.is_empty()).then(|| change.from.into()),
            object: change.object,
            what: change.what.names().into_iter().map(str::to_owned).collect(),
            size: change.size.into(),
            mtime_ns: mtime.into(),
            ranges: ranges.into(),
            linked: change.linked,
        }
    }
}
