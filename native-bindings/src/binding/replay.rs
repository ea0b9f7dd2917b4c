//! Replay, and checksums.

use super::error::{fail, JsError};
use crate::replay::{Position, ReplayError, ReplayOptions, Replayer, Start};
use napi::bindgen_prelude::{BigInt, Buffer};
use napi_derive::napi;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

type Open = Arc<Mutex<Option<Replayer>>>;

static REPLAYS: LazyLock<Mutex<HashMap<u32, Open>>> = LazyLock::new(Mutex::default);

#[napi(object)]
pub struct JsReplayOptions {
    pub target: Buffer,
    pub uuid: Buffer,
    pub state: String,
    pub start: Option<JsReplayStart>,
}

#[napi(object)]
pub struct JsReplayStart {
    pub seq: BigInt,
    pub chain: Buffer,
    pub scans: u32,
}

#[napi(object)]
pub struct ReplayPosition {
    pub applied_seq: BigInt,
    pub applied_chain: Buffer,
    pub records: BigInt,
    pub bytes: BigInt,
    pub objects: f64,
    pub scans: u32,
}

impl From<Position> for ReplayPosition {
    fn from(p: Position) -> Self {
        Self {
            applied_seq: p.applied_seq.into(),
            applied_chain: p.applied_chain.to_vec().into(),
            records: p.records.into(),
            bytes: p.bytes.into(),
            objects: p.objects as f64,
            scans: p.scans as u32,
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
    let target = PathBuf::from(std::ffi::OsString::from_vec(options.target.to_vec()));
    let state_dir = PathBuf::from(options.state);
    let start = match options.start {
        None => Start::default(),
        Some(s) => Start {
            seq: s.seq.get_u64().1,
            chain: s.chain.as_ref().try_into().map_err(|_| fail("EINVAL", "chain: 8 bytes"))?,
            scans: u64::from(s.scans),
        },
    };
    let options = ReplayOptions { target, uuid, state_dir, start };
    let replayer = Replayer::open(options).map_err(refused)?;
    let mut replays = REPLAYS.lock();
    let handle = replays.keys().max().map_or(1, |n| n + 1);
    replays.insert(handle, Arc::new(Mutex::new(Some(replayer))));
    Ok(handle)
}

#[napi]
pub fn replay_frame(handle: u32, frame: Buffer) -> Result<ReplayPosition, JsError> {
    match get(handle)?.lock().as_mut() {
        Some(replayer) => Ok(replayer.apply_frame(frame.as_ref()).map_err(refused)?.into()),
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

#[napi]
pub fn close_replay(handle: u32, finish: bool) -> Result<ReplayPosition, JsError> {
    let replayer = get(handle)?.lock().take();
    REPLAYS.lock().remove(&handle);
    match replayer {
        Some(replayer) => Ok(replayer.close(finish).map_err(refused)?.into()),
        None => Err(fail("BAD_HANDLE", "the replay was closed")),
    }
}

#[napi]
pub fn crc32c(bytes: Buffer, seed: u32) -> u32 {
    crc32c::crc32c_append(seed, bytes.as_ref())
}
