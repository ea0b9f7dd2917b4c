//! Cuts: holding I/O, and naming the instant at which it was held.

use super::error::{c_path, fail, system, JsError};
use super::registry;
use super::volume::going_down;
use crate::capture::meeting::{Meeting, Met};
use crate::capture::SlotWriter;
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
}

#[napi]
pub fn hold(handle: u32, max_ms: u32) -> Result<HoldResult, JsError> {
    let open = registry::get(handle)?;
    if !open.volume.gate.hold(Duration::from_millis(u64::from(max_ms))) {
        return Err(no_rest(max_ms));
    }
    let seq = open.volume.ring.captured_seq();
    Ok(HoldResult { start_ns: monotonic_ns().into(), seq: seq.into() })
}

#[napi]
pub fn release(handle: u32) -> Result<BigInt, JsError> {
    let open = registry::get(handle)?;
    match open.volume.gate.release() {
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
}

/// Instants on CLOCK_MONOTONIC. From `rest` to `release` nothing has happened on the volume.
#[napi(object)]
pub struct Cut {
    pub seq: BigInt,
    pub closed_ns: BigInt,
    pub rest_ns: BigInt,
    pub release_ns: BigInt,
}

/// Holds I/O, here and wherever the meeting is joined, marks the instant and releases.
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
    let gather = Instant::now() + Duration::from_millis(u64::from(o.gather_ms));
    match meeting.map_or(Met::All, |m| m.gather(gather)) {
        Met::All => {}
        Met::Failed => return Err(others()),
        Met::Late => return Err(fail("CUT_LATE", "a volume of the cut did not come")),
    }
    let max = Duration::from_millis(u64::from(o.max_hold_ms));
    let deadline = Instant::now() + max;
    let closed = monotonic_ns();
    if !v.gate.hold(max) {
        return Err(no_rest(o.max_hold_ms));
    }
    let rest = monotonic_ns();
    let marked = match meeting.map_or(Met::All, |m| m.rest(deadline)) {
        Met::All => append_marker(v, &o.name, deadline.saturating_duration_since(Instant::now())),
        Met::Failed | Met::Late => Err(others()),
    };
    let release = monotonic_ns();
    let in_time = v.gate.release().is_some();
    let seq = marked?;
    if !in_time {
        return Err(expired());
    }
    Ok(Cut {
        seq: seq.into(),
        closed_ns: closed.into(),
        rest_ns: rest.into(),
        release_ns: release.into(),
    })
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
