//! Opening, mounting, holding and closing volumes.

use super::error::{c_path, fail, system, JsError};
use super::registry::{self, Open};
use crate::capture::ring::Found;
use crate::capture::{Ring, RingIdentity};
use crate::codes::{fs_used_bytes, start_sweep, CodeStore, SweepState};
use crate::interceptor::errno::Errno;
use crate::interceptor::{Volume, VolumeOptions, Worker};
use crate::record::Oid;
use crate::scan::{
    recapture_paths as recapture, recover_intents, start_scan as scan, ScanData, ScanOptions,
    KIND_BASELINE, KIND_RECAPTURE, KIND_REPAIR, KIND_VERIFY,
};
use crate::transport::abi;
use crate::transport::device::{negotiate, Session, Wishes};
use crate::transport::mount::{attach, clone_tree, detach, flags_of, open_device, tune};
use crate::transport::uring::{self, Uring};
use napi::bindgen_prelude::{BigInt, BigUint64Array, Buffer};
use napi_derive::napi;
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

#[napi(object)]
pub struct OpenVolumeOptions {
    pub uuid: Buffer,
    pub name: String,
    pub backing: Buffer,
    pub mountpoint: Buffer,
    pub ring_path: String,
    pub ring_bytes: f64,
    pub epoch: u32,
    pub last_seq: BigInt,
    pub last_chain: Buffer,
    pub last_clock: BigInt,
    pub writeback: bool,
    pub workers: u32,
    pub ring_wait_ms: u32,
    pub exclusive: bool,
    pub transport: Option<String>,
    pub history: Option<super::history::HistoryOptions>,
}

#[napi(object)]
pub struct OpenVolumeResult {
    pub handle: u32,
    pub ring: String,
    pub pending_records: f64,
    pub intents: u32,
}

fn exact<const N: usize>(bytes: &Buffer, what: &str) -> Result<[u8; N], JsError> {
    bytes.as_ref().try_into().map_err(|_| fail("EINVAL", format!("{what} must be {N} bytes")))
}

fn u64_of(n: &BigInt) -> u64 {
    n.get_u64().1
}

#[napi]
pub fn open_volume(options: OpenVolumeOptions) -> Result<OpenVolumeResult, JsError> {
    let uuid = exact::<16>(&options.uuid, "uuid")?;
    let chain = exact::<8>(&options.last_chain, "lastChain")?;
    let backing = c_path(&options.backing, "backing")?;
    let mountpoint = c_path(&options.mountpoint, "mountpoint")?;
    let last = u64_of(&options.last_seq);

    let (tree, root) =
        clone_tree(&backing).map_err(|e| system("opening the backing directory", e))?;
    let ring_path = std::path::Path::new(&options.ring_path);
    let (ring, found) = Ring::open(ring_path, options.ring_bytes as usize, &RingIdentity { uuid })
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => {
                fail("RING_FOREIGN", format!("{}: {e}", options.ring_path))
            }
            _ => system(&format!("opening the capture ring {}", options.ring_path), e),
        })?;
    ring.start_drain(uuid, options.epoch, last, chain, u64_of(&options.last_clock));
    let recovered = match found {
        Found::Created => Default::default(),
        Found::Clean | Found::ToRecover => {
            ring.recover(last).map_err(|e| system("recovering the capture ring", e))?
        }
    };
    let ring = Arc::new(ring);
    let volume = Volume::open(
        tree,
        root,
        ring.clone(),
        VolumeOptions {
            exclusive: options.exclusive,
            writeback: options.writeback,
            ring_wait: Duration::from_millis(u64::from(options.ring_wait_ms)),
        },
    )
    .map_err(|e| match e {
        Errno(libc::EOPNOTSUPP | libc::EOVERFLOW) => fail(
            "NO_FILE_HANDLES",
            "the file system of the backing directory has no usable file handles",
        ),
        e => system("opening the backing directory", e),
    })?;
    let volume = Arc::new(volume);
    let kept = match &options.history {
        Some(history) => Some(super::history::open(history, uuid, &volume, last)?),
        None => None,
    };
    let intents = recovered.intents.len() as u32;
    let mut background = Vec::new();
    if intents > 0 {
        // In a thread: a full ring needs the drain, which starts after this function.
        let volume = volume.clone();
        volume.scan.begin().map_err(|e| system("recovering what a crash interrupted", e))?;
        background.push(std::thread::spawn(move || {
            let result = Worker::new(volume.ring.clone())
                .and_then(|mut w| recover_intents(&volume, &mut w, &recovered.intents));
            match result {
                Ok(()) => volume.ring.intents_recovered(),
                Err(_) => {
                    volume.scan.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
            volume.scan.end();
        }));
    }
    let handle = registry::add(Open {
        volume,
        name: options.name,
        mountpoint,
        workers: options.workers as usize,
        uring: options.transport.as_deref() != Some("device"),
        queues: Default::default(),
        session: Default::default(),
        sweep: Default::default(),
        background: background.into(),
        kept,
        stopped: AtomicBool::new(false),
    });
    Ok(OpenVolumeResult {
        handle,
        ring: match found {
            Found::Created => "created",
            Found::Clean => "clean",
            Found::ToRecover => "recovered",
        }
        .to_owned(),
        pending_records: recovered.pending as f64,
        intents,
    })
}

/// Mount flags that the volume takes over from the mount of its backing directory.
const INHERITED: libc::c_ulong =
    libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// Device number of the newest mount at a mountpoint, from /proc/self/mountinfo (never by stat: the
/// daemon does not touch its own mount).
pub(super) fn mounted_device(mountpoint: &CString) -> Option<(u32, u32)> {
    let text = std::fs::read("/proc/self/mountinfo").ok()?;
    let escaped: Vec<u8> = mountpoint
        .as_bytes()
        .iter()
        .flat_map(|b| match b {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{b:03o}").into_bytes(),
            b => vec![*b],
        })
        .collect();
    let line = text
        .split(|b| *b == b'\n')
        .rev()
        .find(|line| line.split(|b| *b == b' ').nth(4) == Some(&escaped))?;
    let dev = std::str::from_utf8(line.split(|b| *b == b' ').nth(2)?).ok()?;
    let (major, minor) = dev.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A daemon with a session of its own is a scheduling group of its own (autogroup, sched(7)), which on a
/// busy machine gets no more than any other, however short its turns are: callers would wait for it in line.
fn raise_priority() {
    // SAFETY: plain calls.
    let leads_session = unsafe { libc::getsid(0) == libc::getpid() };
    if leads_session {
        // Absent without autogroups; failure costs speed only.
        let _ = std::fs::write("/proc/self/autogroup", "-15");
    }
}

#[napi]
pub fn mount_volume(handle: u32) -> Result<(), JsError> {
    let open = registry::get(handle)?;
    raise_priority();
    let v = &open.volume;
    let device = open_device().map_err(|e| system("opening /dev/fuse", e))?;
    let root = v.stat(&v.root).map_err(|e| system("reading the backing directory", e))?;
    let source = format!("holdfast:{}", open.name);
    let flags = flags_of(v.mount_fd()) & INHERITED;
    attach(&device, &open.mountpoint, &source, u32::from(root.stx_mode), flags)
        .map_err(|e| system("mounting", e))?;
    let started = (|| -> Result<_, Errno> {
        let uring = open.uring && uring::enable();
        let (writeback, exclusive) = (v.options.writeback, v.options.exclusive);
        let wishes = Wishes { writeback, exclusive, uring, walked: false };
        let agreed = negotiate(&device, wishes)?;
        let over_uring = u64::from(agreed.flags2) << 32 & abi::init::OVER_IO_URING != 0;
        // Over io_uring only FORGET and INTERRUPT come to the device.
        let readers = if over_uring { 1 } else { open.workers };
        *v.notifier.lock() = device.try_clone().ok();
        let session = Session::new(v.clone(), device, readers);
        session.start()?;
        let queues = match over_uring {
            true => Some(Uring::start(v.clone(), session.device.as_raw_fd())?),
            false => None,
        };
        Ok((session, queues))
    })();
    match started {
        Ok((session, queues)) => {
            *open.session.lock() = Some(session);
            *open.queues.lock() = queues;
        }
        Err(e) => {
            *v.notifier.lock() = None;
            let _ = detach(&open.mountpoint, true);
            return Err(system("starting the FUSE connection", e));
        }
    }
    if let Some((major, minor)) = mounted_device(&open.mountpoint) {
        tune(major, minor);
    }
    Ok(())
}

#[napi]
pub fn unmount_volume(handle: u32, force: bool) -> Result<(), JsError> {
    let open = registry::get(handle)?;
    let session = open.session.lock().clone();
    // Whoever is held has asked before, and is answered.
    open.volume.gate.open_for_good();
    open.volume.acks.hold(None);
    if session.is_some() {
        match detach(&open.mountpoint, force) {
            Ok(()) => {}
            // Somebody else unmounted it already.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(e) => return Err(system("unmounting", e)),
        }
    }
    *open.volume.notifier.lock() = None;
    open.volume.scan.stop();
    if let Some((state, thread)) = open.sweep.lock().take() {
        state.stop.store(true, Ordering::Relaxed);
        let _ = thread.join();
    }
    if let Some(session) = session {
        session.join();
    }
    if let Some(queues) = open.queues.lock().take() {
        queues.join();
    }
    for thread in std::mem::take(&mut *open.background.lock()) {
        let _ = thread.join();
    }
    open.volume.scan.wait_for_end();
    if let Some(kept) = &open.kept {
        kept.close();
    }
    if let Some(codes) = open.volume.codes.get() {
        // Without it the codes are computed again after a power loss.
        let _ = codes.close();
    }
    *open.session.lock() = None;
    open.stopped.store(true, Ordering::Release);
    open.volume.ring.stop_drain();
    Ok(())
}

#[napi]
pub fn close_volume(handle: u32) -> Result<(), JsError> {
    let open = registry::get(handle)?;
    let ring = &open.volume.ring;
    if ring.is_empty() {
        ring.remove();
    }
    registry::remove(handle);
    Ok(())
}

#[napi]
pub fn sync_backing(handle: u32) -> Result<(), JsError> {
    let open = registry::get(handle)?;
    open.volume.sync_backing().map_err(|e| system("syncing the backing file system", e))
}

#[napi(object)]
pub struct JsScanOptions {
    pub kind: String,
    pub changed_since_ns: BigInt,
    pub objects: BigUint64Array,
    pub data: String,
    pub bytes_per_s: f64,
}

/// Words that name one range of one object: ino, gen, from, to.
const RANGE_WORDS: usize = 4;

#[napi]
pub fn start_scan(handle: u32, options: JsScanOptions) -> Result<(), JsError> {
    let open = registry::get(handle)?;
    let mut objects: HashMap<Oid, Vec<(u64, u64)>> = HashMap::new();
    for range in options.objects.chunks_exact(RANGE_WORDS) {
        let ranges = objects.entry(Oid { ino: range[0], gen: range[1] }).or_default();
        if range[2] < range[3] {
            ranges.push((range[2], range[3]));
        }
    }
    let kind = match options.kind.as_str() {
        "recapture" => KIND_RECAPTURE,
        "baseline" => KIND_BASELINE,
        "verify" => KIND_VERIFY,
        "repair" => KIND_REPAIR,
        other => return Err(fail("EINVAL", format!("no scan is called {other}"))),
    };
    let data = match options.data.as_str() {
        "whole" => ScanData::Whole,
        "codes" => ScanData::Codes,
        "later" => ScanData::Later,
        other => return Err(fail("EINVAL", format!("no scan writes down {other}"))),
    };
    let options = ScanOptions {
        kind,
        changed_since_ns: u64_of(&options.changed_since_ns),
        objects,
        data,
        bytes_per_s: options.bytes_per_s.max(0.0) as u64,
    };
    scan(&open.volume, options).map_err(|e| match e {
        Errno(libc::ECANCELED) => going_down(),
        e => system("starting the scan", e),
    })
}

pub(super) fn going_down() -> JsError {
    fail("VOLUME_NOT_RUNNING", "the volume is being unmounted")
}

#[napi(object)]
pub struct CodeOptions {
    pub path: String,
    pub uuid: Buffer,
    pub keep: bool,
    pub sweep_pause_ms: u32,
}

/// Gives the volume codes, kept in this file and computed in the background from now on. Idempotent.
#[napi]
pub fn open_codes(handle: u32, options: CodeOptions) -> Result<(), JsError> {
    let uuid = exact::<16>(&options.uuid, "uuid")?;
    let open = registry::get(handle)?;
    let v = &open.volume;
    let mut sweep = open.sweep.lock();
    if sweep.is_some() {
        return Ok(());
    }
    let used = fs_used_bytes(v.mount_fd());
    let store = CodeStore::open(options.path.as_ref(), uuid, used, options.keep)
        .map_err(|e| system("opening the codes", e))?;
    let store = v.codes.get_or_init(|| Arc::new(store)).clone();
    let state = Arc::new(SweepState::default());
    let pause = Duration::from_millis(u64::from(options.sweep_pause_ms));
    let thread = start_sweep(v, &store, &state, pause).map_err(|e| system("computing codes", e))?;
    *sweep = Some((state, thread));
    Ok(())
}

/// A replica may hold other bytes than the volume: until that is over, records do not refer to bytes.
#[napi]
pub fn set_differing(handle: u32, differing: bool) -> Result<(), JsError> {
    let open = registry::get(handle)?;
    let scan = &open.volume.scan;
    scan.differing.store(differing, Ordering::Release);
    if !differing && !scan.is_running() {
        scan.fills.forget();
    }
    Ok(())
}

#[napi]
pub fn recapture_paths(handle: u32, paths: Vec<Buffer>, settled: bool) -> Result<u32, JsError> {
    let open = registry::get(handle)?;
    let Some(session) = open.session.lock().clone() else {
        return Err(fail("NOT_MOUNTED", "the volume is not mounted"));
    };
    let paths: Vec<&[u8]> = paths.iter().map(AsRef::as_ref).collect();
    // A capturing thread takes on an identity of its own; this one must not.
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut w = Worker::new(open.volume.ring.clone())?;
            recapture(&open.volume, &mut w, session.device.as_raw_fd(), &paths, settled)
        })
        .join()
        .unwrap_or(Err(Errno(libc::EIO)))
    })
    .map_err(|e| system("capturing changes made behind the mount", e))
}
