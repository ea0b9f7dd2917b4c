//! Replay, and checksums.

use super::error::{c_path, fail, system, JsError};
use crate::record::FrameView;
use crate::replay::{
    Difference, Position, ReplayError, ReplayOptions, Replayer, Start, BASELINE_AWAITED,
    BASELINE_OWN,
};
use crate::transport::mount::{clone_tree, detach, guard};
use napi::bindgen_prelude::{BigInt, BigUint64Array, Buffer};
use napi_derive::napi;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

type Open = Arc<Mutex<Option<Replayer>>>;

static REPLAYS: LazyLock<Mutex<HashMap<u32, Open>>> = LazyLock::new(Mutex::default);

#[napi(object)]
pub struct JsReplayOptions {
    pub target: Buffer,
    pub uuid: Buffer,
    pub state: String,
    pub beneath: Option<Buffer>,
    pub start: Option<JsReplayStart>,
    pub restart: Option<bool>,
    pub compare: Option<bool>,
    /// Handle of the history that is written.
    pub history: Option<u32>,
}

#[napi(object)]
pub struct JsReplayStart {
    pub seq: BigInt,
    pub chain: Buffer,
    pub baseline: bool,
}

#[napi(object)]
pub struct ReplayPosition {
    pub applied_seq: BigInt,
    pub applied_chain: Buffer,
    pub records: BigInt,
    pub bytes: BigInt,
    pub objects: f64,
    pub baseline: bool,
    pub needs: f64,
    pub differences: f64,
    pub verified: Option<JsVerified>,
    pub codes_left: bool,
}

#[napi(object)]
pub struct JsVerified {
    pub seq: BigInt,
    pub differences: f64,
}

#[napi(object)]
pub struct JsDifference {
    pub seq: BigInt,
    pub path: Buffer,
    pub what: String,
    pub from: BigInt,
    pub to: BigInt,
}

impl From<Position> for ReplayPosition {
    fn from(p: Position) -> Self {
        Self {
            applied_seq: p.applied_seq.into(),
            applied_chain: p.applied_chain.to_vec().into(),
            records: p.records.into(),
            bytes: p.bytes.into(),
            objects: p.objects as f64,
            baseline: p.scans & (BASELINE_AWAITED | BASELINE_OWN) != 0,
            needs: p.needs as f64,
            differences: p.differences as f64,
            verified: p
                .verified
                .map(|v| JsVerified { seq: v.seq.into(), differences: v.differences as f64 }),
            codes_left: p.codes_left,
        }
    }
}

impl From<Difference> for JsDifference {
    fn from(d: Difference) -> Self {
        Self {
            seq: d.seq.into(),
            path: d.path.into(),
            what: d.what,
            from: d.range.0.into(),
            to: d.range.1.into(),
        }
    }
}

fn refused(e: ReplayError) -> JsError {
    fail(e.code.as_str(), format!("{e}; {}", e.hint()))
}

fn get(handle: u32) -> Result<Open, JsError> {
    let open = REPLAYS.lock().get(&handle).cloned();
    open.ok_or_else(|| fail("BAD_HANDLE", format!("no open replay has handle {handle}")))
}

#[napi]
pub fn open_replay(options: JsReplayOptions) -> Result<u32, JsError> {
    let uuid = options.uuid.as_ref().try_into();
    let uuid = uuid.map_err(|_| fail("EINVAL", "uuid must be 16 bytes"))?;
    let mut target = path_of(&options.target);
    let mut state_dir = PathBuf::from(options.state);
    let tree = match options.beneath {
        None => None,
        Some(directory) => {
            let directory = c_path(&directory, "beneath")?;
            let (tree, _) = clone_tree(&directory)
                .map_err(|e| system("opening the directory of the replica", e))?;
            let base = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
            (target, state_dir) = (base.join(target), base.join(state_dir));
            Some(tree)
        }
    };
    let restart = options.restart == Some(true);
    let compare = options.compare == Some(true);
    let start = match options.start {
        None => Start::default(),
        Some(s) => Start {
            seq: s.seq.get_u64().1,
            chain: s.chain.as_ref().try_into().map_err(|_| fail("EINVAL", "chain: 8 bytes"))?,
            scans: if s.baseline { BASELINE_AWAITED } else { 0 },
        },
    };
    let history = options.history.map(super::history::of_replica).transpose()?;
    let options = ReplayOptions { target, uuid, state_dir, start, restart, compare, history };
    let replayer = Replayer::open(options).map_err(refused)?;
    // The paths are resolved; the tree lives on with what was opened in it.
    drop(tree);
    let mut replays = REPLAYS.lock();
    let handle = replays.keys().max().map_or(1, |n| n + 1);
    replays.insert(handle, Arc::new(Mutex::new(Some(replayer))));
    Ok(handle)
}

fn path_of(bytes: &Buffer) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()))
}

/// Keeps others from changing a replica's tree by its path.
#[napi]
pub fn guard_tree(path: Buffer) -> Result<(), JsError> {
    guard(&c_path(&path, "path")?).map_err(|e| system("guarding the tree", e))
}

/// Ends that.
#[napi]
pub fn unguard_tree(path: Buffer) -> Result<(), JsError> {
    detach(&c_path(&path, "path")?, true).map_err(|e| system("ending the guard of the tree", e))
}

#[napi]
pub fn replay_frame(handle: u32, frame: Buffer) -> Result<ReplayPosition, JsError> {
    match get(handle)?.lock().as_mut() {
        Some(replayer) => Ok(replayer.apply_frame(frame.as_ref()).map_err(refused)?.into()),
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

/// Takes the body of a `fill` message.
#[napi]
pub fn replay_fill(handle: u32, body: Buffer) -> Result<ReplayPosition, JsError> {
    match get(handle)?.lock().as_mut() {
        Some(replayer) => Ok(replayer.fill(body.as_ref()).map_err(refused)?.into()),
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

/// Where the replay is: what was applied before it was opened, at first.
#[napi]
pub fn replay_position(handle: u32) -> Result<ReplayPosition, JsError> {
    match get(handle)?.lock().as_ref() {
        Some(replayer) => Ok(replayer.position().into()),
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

/// Computes codes that are missing, for about that long.
#[napi]
pub fn replay_codes(handle: u32, max_ms: u32) -> Result<ReplayPosition, JsError> {
    let most = Duration::from_millis(u64::from(max_ms));
    match get(handle)?.lock().as_mut() {
        Some(replayer) => Ok(replayer.compute_codes(most).map_err(refused)?.into()),
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

/// The differences found since the last call.
#[napi]
pub fn replay_differences(handle: u32) -> Result<Vec<JsDifference>, JsError> {
    match get(handle)?.lock().as_mut() {
        Some(replayer) => {
            let list = replayer.take_differences().map_err(refused)?;
            Ok(list.into_iter().map(JsDifference::from).collect())
        }
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

/// What the target lacks, as words: ino, gen, from, to; no range (from not below to) is the object itself.
#[napi]
pub fn replay_needs(handle: u32) -> Result<BigUint64Array, JsError> {
    match get(handle)?.lock().as_mut() {
        Some(replayer) => {
            let list = replayer.needs().map_err(refused)?;
            let words = list.iter().flat_map(|(oid, (from, to))| [oid.ino, oid.gen, *from, *to]);
            Ok(BigUint64Array::new(words.collect()))
        }
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

/// A power loss has put effects in doubt that only a comparison can prove right.
#[napi]
pub fn replay_doubt(handle: u32) -> Result<bool, JsError> {
    match get(handle)?.lock().as_ref() {
        Some(replayer) => Ok(replayer.doubt().is_some()),
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

#[napi]
pub fn close_replay(handle: u32, finish: bool) -> Result<ReplayPosition, JsError> {
    let replayer = get(handle)?.lock().take();
    REPLAYS.lock().remove(&handle);
    match replayer {
        Some(replayer) => Ok(replayer.close(finish).map_err(refused)?.into()),
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

/// A frame from elsewhere is whole, as far as its own bytes can prove that.
#[napi]
pub fn frame_is_sound(bytes: Buffer) -> bool {
    FrameView::is_sound(bytes.as_ref())
}

#[napi]
pub fn crc32c(bytes: Buffer, seed: u32) -> u32 {
    crc32c::crc32c_append(seed, bytes.as_ref())
}
