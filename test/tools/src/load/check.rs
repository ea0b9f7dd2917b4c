//! Verifies a tree against the log: exactly what was acknowledged, and at most the one
//! operation in flight per thread on top.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use super::ack::{Entry, Log, Progress, Setup};
use super::cell::{Cell, CELL};
use super::durable;
use super::model::{Model, OWN, SHARED};
use super::observe::{self, xattr_op, Seen, SeenFile};
use super::plan::{LoadOp, Planner};
use crate::sys::{errno_name, file};

/// Complaints kept per thread.
const COMPLAINTS_MAX: usize = 10;
/// How many operations behind the newest trace the state of a prefix is searched.
const PREFIX_SEARCH_MAX: u64 = 3000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// After a crash of the daemon: every acknowledged operation.
    Exact,
    /// After a power loss: every operation before a returned fsync.
    Durable,
    /// The same where the loss was simulated by XFS's shutdown ioctl, see `durable`.
    DurableRacy,
    /// A snapshot or a lagging replica: some prefix per thread, consistent among the threads.
    Prefix,
}

/// The state in which a thread was found: operations `low..=high` lead to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub low: u64,
    pub high: u64,
}

#[derive(Debug, Default)]
pub struct Report {
    pub lines: Vec<String>,
    pub wrong: Vec<String>,
}

/// Checks the tree at `dir` against the log.
pub fn check(dir: &[u8], log: &Path, mode: Mode) -> Result<Report, String> {
    let log = Log::read(log)?;
    let progress = log.progress()?;
    let root = file::open_root(dir).map_err(errno_name)?;
    let root = root.as_raw_fd();
    let mut report = Report { wrong: observe::common(root)?, ..Report::default() };
    if matches!(mode, Mode::Durable | Mode::DurableRacy) {
        // Neighbouring cells of one unsynced write may be torn apart, common files are not kept.
        report.wrong.clear();
    }
    let mut found = Vec::new();
    for (t, p) in progress.iter().enumerate() {
        found.push(one_thread(root, t as u32, log.setup, *p, mode, &mut report)?);
    }
    if mode == Mode::Prefix {
        report.wrong.extend(consistent_cut(&log.entries, &found));
    }
    Ok(report)
}

fn one_thread(
    root: RawFd,
    t: u32,
    setup: Setup,
    p: Progress,
    mode: Mode,
    report: &mut Report,
) -> Result<Option<Found>, String> {
    let seen = observe::thread(root, t)?;
    let mut complaints = seen.foreign.clone();
    let found = match mode {
        Mode::Exact => exact(&seen, t, setup, p, &mut complaints),
        Mode::Prefix => prefix(&seen, t, setup, p, &mut complaints),
        Mode::Durable | Mode::DurableRacy => {
            let racy = mode == Mode::DurableRacy;
            complaints.extend(durable::complaints(&seen, t, setup, p, racy));
            None
        }
    };
    let at = match found {
        Some(f) if f.low == f.high => format!(", found at {}", f.low),
        Some(f) => format!(", found at {}..={}", f.low, f.high),
        None => String::new(),
    };
    let flight = match (p.in_flight, p.errno) {
        (false, _) => "stopped".to_owned(),
        (true, Some(e)) => format!("in flight: {}", errno_name(e)),
        (true, None) => "in flight: no answer".to_owned(),
    };
    report.lines.push(format!("thread {t}: {} acknowledged, {flight}{at}", p.acked));
    let more = complaints.len().saturating_sub(COMPLAINTS_MAX);
    complaints.truncate(COMPLAINTS_MAX);
    if more > 0 {
        complaints.push(format!("… and {more} more"));
    }
    report.wrong.extend(complaints.into_iter().map(|c| format!("thread {t}: {c}")));
    Ok(found)
}

/// The model after `ops` operations, and the planner that knows the next.
pub fn replay(t: u32, setup: Setup, ops: u64) -> (Model, Planner) {
    let mut planner = Planner::new(setup.seed, t, setup.fsync_permille);
    let mut model = Model::new(t);
    for op in 1..=ops {
        let what = planner.next(op, &model);
        model.apply(op, &what);
    }
    (model, planner)
}

/// The operations of a thread that touch one file, for looking at a complaint.
pub fn history(log: &Path, t: u32, file: u64) -> Result<Vec<String>, String> {
    let log = Log::read(log)?;
    let p = log.progress()?.get(t as usize).copied().ok_or("no such thread")?;
    let mut planner = Planner::new(log.setup.seed, t, log.setup.fsync_permille);
    let mut model = Model::new(t);
    let mut lines = Vec::new();
    for op in 1..=p.acked + u64::from(p.in_flight) {
        let what = planner.next(op, &model);
        let names = model.files.get(&file).map(|f| f.names.clone()).unwrap_or_default();
        let named = |d: &u64, n: &String| names.iter().any(|(dir, name)| dir == d && name == n);
        let concerns = match &what {
            LoadOp::Create { .. } => op == file,
            LoadOp::Write { file: f, .. }
            | LoadOp::Append { file: f, .. }
            | LoadOp::Truncate { file: f, .. }
            | LoadOp::Link { file: f, .. }
            | LoadOp::SetXattr { file: f, .. }
            | LoadOp::RemoveXattr { file: f, .. }
            | LoadOp::Chmod { file: f, .. }
            | LoadOp::Fsync { file: f } => *f == file,
            LoadOp::Rename { dir, name, to_dir, to_name } => {
                named(dir, name) || named(to_dir, to_name)
            }
            LoadOp::Unlink { dir, name } => named(dir, name),
            LoadOp::FsyncDir { dir } => names.iter().any(|(d, _)| d == dir),
            _ => false,
        };
        if concerns {
            let cells = model.files.get(&file).map_or(0, |f| f.cells.len());
            let state = if op > p.acked { "in flight" } else { "acknowledged" };
            lines.push(format!("{op} {what:?}, {cells} cells before, {state}"));
        }
        model.apply(op, &what);
    }
    Ok(lines)
}

fn exact(
    seen: &Seen,
    t: u32,
    setup: Setup,
    p: Progress,
    complaints: &mut Vec<String>,
) -> Option<Found> {
    let (before, mut planner) = replay(t, setup, p.acked);
    let wrong = differences(&before, seen);
    if wrong.is_empty() {
        return Some(Found { low: p.acked, high: p.acked });
    }
    if p.in_flight {
        let op = p.acked + 1;
        let what = planner.next(op, &before);
        let mut after = before.clone();
        after.apply(op, &what);
        // POSIX does not promise that a write cut off by a crash is all or nothing.
        let mut parts = (1..what.written_cells()).map(|n| {
            let mut m = before.clone();
            m.apply_part(op, &what, n);
            m
        });
        if differences(&after, seen).is_empty() || parts.any(|m| differences(&m, seen).is_empty()) {
            return Some(Found { low: op, high: op });
        }
        complaints.push(format!("in flight was operation {op} {what:?}"));
    }
    complaints.extend(wrong);
    None
}

fn prefix(
    seen: &Seen,
    t: u32,
    setup: Setup,
    p: Progress,
    complaints: &mut Vec<String>,
) -> Option<Found> {
    let newest = seen.newest();
    let last = p.acked + u64::from(p.in_flight);
    if newest > last {
        complaints.push(format!("a trace of operation {newest}, but only {last} began"));
        return None;
    }
    let (mut model, mut planner) = replay(t, setup, newest);
    let mut at = newest;
    let mut nearest: Option<Vec<String>> = None;
    loop {
        let wrong = differences(&model, seen);
        if wrong.is_empty() {
            break;
        }
        if nearest.as_ref().is_none_or(|n| wrong.len() < n.len()) {
            nearest = Some(wrong);
        }
        if at >= last || at - newest > PREFIX_SEARCH_MAX {
            complaints.push(format!("no state from operation {newest} to {at} matches; nearest:"));
            complaints.extend(nearest.unwrap_or_default());
            return None;
        }
        at += 1;
        let what = planner.next(at, &model);
        model.apply(at, &what);
    }
    let low = at;
    while at < last {
        let what: LoadOp = planner.next(at + 1, &model);
        if !what.changes_nothing() {
            break;
        }
        at += 1;
    }
    Some(Found { low, high: at })
}

/// An operation that is there implies every operation that had returned before it began.
fn consistent_cut(entries: &[Entry], found: &[Option<Found>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (t, f) in found.iter().enumerate() {
        let Some(f) = f else { continue };
        let is_last = |e: &&Entry| e.thread as usize == t && e.op == f.low;
        let Some(last) = entries.iter().find(is_last) else { continue };
        let before = entries.iter().take(last.seen as usize).filter(|e| e.status == 0);
        let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
        before.for_each(|e| {
            newest.insert(e.thread as usize, e.op);
        });
        for (other, op) in newest {
            if let Some(Some(o)) = found.get(other) {
                if o.high < op {
                    wrong.push(format!(
                        "not one cut: thread {t} includes operation {}, which began after \
                         operation {op} of thread {other} had returned, but that thread stands \
                         at {}",
                        f.low, o.high
                    ));
                }
            }
        }
    }
    wrong
}

/// Everything in which the tree is not what the model says.
pub fn differences(m: &Model, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected_dirs = Vec::new();
    let mut inode_of: BTreeMap<u64, u64> = BTreeMap::new();
    let mut count = 0;
    for (id, d) in &m.dirs {
        let path = m.dir_path(*id);
        for (name, file_id) in &d.files {
            count += 1;
            let path = format!("{path}/{name}");
            let Some(f) = seen.files.get(&path) else {
                wrong.push(format!("{path} is missing"));
                continue;
            };
            if *inode_of.entry(*file_id).or_insert(f.ino) != f.ino {
                wrong.push(format!("{path} is not the same file as its other names"));
            }
            if let Some(model) = m.files.get(file_id) {
                let complaint = file_difference(m.thread, *file_id, model, f);
                wrong.extend(complaint.map(|c| format!("{path}: {c}")));
            }
        }
        if *id != OWN && *id != SHARED {
            expected_dirs.push(path);
        }
    }
    if seen.files.len() > count {
        let known = |p: &&String| {
            let (dir, name) = p.rsplit_once('/').unwrap_or(("", p));
            m.dirs.iter().any(|(id, d)| d.files.contains_key(name) && m.dir_path(*id) == dir)
        };
        let extra = seen.files.keys().filter(|p| !known(p));
        wrong.extend(extra.map(|p| format!("{p} should not exist")));
    }
    expected_dirs.sort();
    let mut dirs = seen.dirs.clone();
    dirs.sort();
    if dirs != expected_dirs {
        wrong.push(format!("directories {dirs:?}, expected {expected_dirs:?}"));
    }
    wrong
}

fn file_difference(
    thread: u32,
    id: u64,
    m: &super::model::FileModel,
    f: &SeenFile,
) -> Option<String> {
    if f.size != (m.cells.len() * CELL) as u64 {
        return Some(format!("size {}, expected {}", f.size, m.cells.len() * CELL));
    }
    if f.cells.len() != m.cells.len() {
        return Some(format!("only {} cells of {} can be read", f.cells.len(), m.cells.len()));
    }
    for (i, (c, want)) in f.cells.iter().zip(&m.cells).enumerate() {
        if !cell_is(thread, id, i, c, *want) {
            let shown = match c {
                Cell::Written(o) => format!("{o:?}"),
                other => format!("{other:?}"),
            };
            return Some(format!("at {}: {shown}, expected operation {want}", i * CELL));
        }
    }
    if f.mode != m.mode {
        return Some(format!("mode {:o}, expected {:o}", f.mode, m.mode));
    }
    if f.nlink as usize != m.names.len() {
        return Some(format!("{} links, expected {}", f.nlink, m.names.len()));
    }
    let xattrs: BTreeMap<String, Option<u64>> =
        f.xattrs.iter().map(|(k, v)| (k.clone(), xattr_op(v))).collect();
    let want: BTreeMap<String, Option<u64>> =
        m.xattrs.iter().map(|(k, op)| (format!("user.k{k}"), Some(*op))).collect();
    (xattrs != want).then(|| format!("attributes {xattrs:?}, expected {want:?}"))
}

/// Whether cell `i` of a file is what operation `op` wrote there; 0 for zeros.
pub fn cell_is(thread: u32, file: u64, i: usize, c: &Cell, op: u64) -> bool {
    match c {
        Cell::Zero => op == 0,
        Cell::Torn => false,
        Cell::Written(o) => {
            o.thread == thread && o.file == file && o.op == op && o.offset == (i * CELL) as u64
        }
    }
}
