//! Cuts: holding I/O, and naming the instant at which it was held.

use super::error::{c_path, fail, system, JsError};
use super::registry;
use super::volume::going_down;
use crate::capture::gate::Hold;
use crate::capture::meeting::{Meeting, Met};
use crate::capture::SlotWriter;
use crate::history::History;
use crate::interceptor::errno::Errno;
use crate::interceptor::volume::own_header;
use crate::interceptor::Volume;
use crate::record::{Encoder, Oid, Op, RECORD_HEADER};
use napi::bindgen_prelude::{BigInt, Buffer};
use napi_derive::napi;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MARKER_NAME_BYTES_MAX: usize = 1024;

fn monotonic_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: ts is a valid out-pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

#[napi(object)]
pub struct HoldResult {
    pub start_ns: BigInt,
    pub seq: BigInt,
    /// Ends it.
    pub hold: u32,
}

#[napi]
pub fn hold(handle: u32, max_ms: u32) -> Result<HoldResult, JsError> {
    let open = registry::get(handle)?;
    let hold = open.volume.gate.hold(Duration::from_millis(u64::from(max_ms)));
    let Hold(hold) = hold.ok_or_else(|| no_rest(max_ms))?;
    let seq = open.volume.ring.captured_seq();
    Ok(HoldResult { start_ns: monotonic_ns().into(), seq: seq.into(), hold })
}

#[napi]
pub fn release(handle: u32, hold: u32) -> Result<BigInt, JsError> {
    let open = registry::get(handle)?;
    match open.volume.gate.release(Hold(hold)) {
        Some(held) => Ok((held.as_nanos() as u64).into()),
        None => Err(expired()),
    }
}

#[napi]
pub fn marker(handle: u32, name: String) -> Result<BigInt, JsError> {
    let open = registry::get(handle)?;
    let wait = open.volume.options.ring_wait;
    Ok(append_marker(&open.volume, &name, wait)?.into())
}

#[napi(object)]
pub struct CutOptions {
    /// Name of the marker.
    pub name: String,
    /// Longest time that I/O is held.
    pub max_hold_ms: u32,
    /// Where other volumes meet this one; none: it is alone.
    pub meeting: Option<Buffer>,
    /// Longest wait for them, before anything is held.
    pub gather_ms: u32,
    /// CLOCK_MONOTONIC, ns: I/O is held from then on, not before; none: as soon as all have come. CUT_LATE
    /// when it is over, or farther away than `gather_ms`.
    pub start_ns: Option<BigInt>,
    /// I/O is not released before; none: once the marker is set.
    pub until_ns: Option<BigInt>,
    /// False: a marker and no more, the history does not keep what is there. Else it does.
    pub keep: Option<bool>,
}

impl CutOptions {
    fn history<'v>(&self, v: &'v Volume) -> Option<&'v Arc<History>> {
        v.history.get().filter(|_| self.keep.unwrap_or(true))
    }
}

/// Instants on CLOCK_MONOTONIC. From `rest` to `release` nothing has happened on the volume.
#[napi(object)]
pub struct Cut {
    pub seq: BigInt,
    pub closed_ns: BigInt,
    pub rest_ns: BigInt,
    pub release_ns: BigInt,
}

fn at(ns: &BigInt) -> u64 {
    ns.get_u64().1
}

/// Until an instant of CLOCK_MONOTONIC; at once when it is over.
fn sleep_until(ns: u64) {
    let at = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: a valid instant; interrupted, it is called again.
    let sleep = || unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &at, std::ptr::null_mut())
    };
    while sleep() == libc::EINTR {}
}

/// Holds I/O, here and wherever the meeting is joined, marks the instant and releases; where the meeting
/// asks for that, not before whoever ordered it says so.
#[napi]
pub fn take_cut(handle: u32, options: CutOptions) -> Result<Cut, JsError> {
    let open = registry::get(handle)?;
    let join = |path: &Buffer| {
        let path = Path::new(OsStr::from_bytes(path.as_ref()));
        Meeting::open(path).map_err(|e| system("joining the others of the cut", e))
    };
    let meeting = options.meeting.as_ref().map(join).transpose()?;
    let cut = hold_together(&open.volume, &options, meeting.as_ref());
    if let (Err(_), Some(meeting)) = (&cut, &meeting) {
        meeting.fail();
    }
    cut
}

/// Ahead of all ordinary threads, as long as it lives: what is on hold must not wait for a busy CPU.
/// Where that is not allowed, it does.
struct Ahead;

impl Ahead {
    fn now() -> Self {
        Self::policy(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1);
        Self
    }

    fn policy(policy: libc::c_int, sched_priority: libc::c_int) {
        let param = libc::sched_param { sched_priority };
        // SAFETY: a valid parameter; 0 is the calling thread.
        unsafe { libc::sched_setscheduler(0, policy, &param) };
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        Self::policy(libc::SCHED_OTHER, 0);
    }
}

fn hold_together(v: &Volume, o: &CutOptions, meeting: Option<&Meeting>) -> Result<Cut, JsError> {
    let _ahead = Ahead::now();
    if let Some(history) = o.history(v) {
        history.prepare_point().map_err(|e| system("making room in the history", e))?;
    }
    let gather = Instant::now() + Duration::from_millis(u64::from(o.gather_ms));
    match meeting.map_or(Met::All, |m| m.gather(gather)) {
        Met::All => {}
        Met::Failed => return Err(others()),
        Met::Late => return Err(fail("CUT_LATE", "a volume of the cut did not come")),
    }
    if let Some(start) = o.start_ns.as_ref().map(at) {
        let now = monotonic_ns();
        if now > start {
            return Err(fail("CUT_LATE", "the instant that was agreed on is over"));
        }
        if start - now > u64::from(o.gather_ms) * 1_000_000 {
            return Err(fail("CUT_LATE", "the instant that was agreed on is too far away"));
        }
        sleep_until(start);
    }
    let max = Duration::from_millis(u64::from(o.max_hold_ms));
    let deadline = Instant::now() + max;
    let closed = monotonic_ns();
    let hold = v.gate.hold(max).ok_or_else(|| no_rest(o.max_hold_ms))?;
    let rest = monotonic_ns();
    let marked = match meeting.map_or(Met::All, |m| m.rest(deadline)) {
        Met::All => mark(v, o, deadline),
        Met::Failed | Met::Late => Err(others()),
    };
    let stayed = match meeting.filter(|_| marked.is_ok()) {
        Some(meeting) => meeting.stay(deadline),
        None => Met::All,
    };
    if let (Ok(_), Some(until)) = (&marked, &o.until_ns) {
        let left = deadline.saturating_duration_since(Instant::now());
        sleep_until(at(until).min(monotonic_ns() + left.as_nanos() as u64));
    }
    let release = monotonic_ns();
    let in_time = v.gate.release(hold).is_some();
    let seq = marked?;
    let good = match stayed {
        Met::All if in_time => Ok(()),
        Met::Failed => Err(others()),
        Met::All | Met::Late => Err(expired()),
    };
    if let (Err(_), Some(history)) = (&good, o.history(v)) {
        history.give_up_point(seq);
    }
    good?;
    Ok(Cut {
        seq: seq.into(),
        closed_ns: closed.into(),
        rest_ns: rest.into(),
        release_ns: release.into(),
    })
}

/// Marks the instant, and has the history keep what is there.
fn mark(v: &Volume, o: &CutOptions, deadline: Instant) -> Result<u64, JsError> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let Some(history) = o.history(v) else {
        return append_marker(v, &o.name, left());
    };
    // Stored pages that no gate holds come before the marker or after it, as a whole.
    let _no_side = history.cut.try_write_for(left()).ok_or_else(|| no_rest(o.max_hold_ms))?;
    let seq = append_marker(v, &o.name, left())?;
    history.set_point(seq).map_err(|e| system("keeping the moment in the history", e))?;
    Ok(seq)
}

/// Has the pages of a file that were stored to through mappings written, and waits for it. For a process
/// that is not the volume's daemon.
#[napi]
pub fn write_out(path: Buffer) -> Result<(), JsError> {
    let path = c_path(&path, "path")?;
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: a terminated path; the result is checked.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    if fd < 0 {
        return Err(system("opening a mapped file", Errno::last()));
    }
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: plain numbers.
    if unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, all) } < 0 {
        return Err(system("writing out a mapped file", Errno::last()));
    }
    Ok(())
}

fn append_marker(v: &Volume, name: &str, wait: Duration) -> Result<u64, JsError> {
    if name.len() > MARKER_NAME_BYTES_MAX {
        let limit = format!("a marker's name is at most {MARKER_NAME_BYTES_MAX} bytes");
        return Err(fail("EINVAL", limit));
    }
    // What comes to the ring after its last record would wait there for the next start.
    if v.scan.is_stopped() {
        return Err(going_down());
    }
    let header = own_header(Op::Marker, Oid::NONE);
    let mut writer = SlotWriter::new(v.ring.clone());
    let seq = writer.append(RECORD_HEADER + 16 + name.len(), wait, |buf| {
        let mut e = Encoder::new(buf, &header);
        e.name(name.as_bytes());
        e.finish()
    });
    // A reader may start here: everything is bound anew.
    v.rebind_all();
    seq.ok_or_else(|| fail("ENOSPC", "the capture ring is full"))
}

fn no_rest(max_ms: u32) -> JsError {
    fail("HOLD_TIMEOUT", format!("I/O did not come to rest within {max_ms} ms"))
}

fn expired() -> JsError {
    fail("HOLD_EXPIRED", "the watchdog had released I/O already")
}

fn others() -> JsError {
    fail("CUT_OTHERS", "another volume of the cut has given up")
}
