//! Frames for the drain.

use super::error::{fail, JsError};
use super::registry;
use napi::bindgen_prelude::{BigInt, BufferSlice};
use napi::Env;
use napi_derive::napi;
use std::time::Duration;

#[napi(object)]
pub struct FrameSpan {
    pub first_seq: BigInt,
    pub last_seq: BigInt,
    /// Where the frame stands in the ring's buffer.
    pub offset: f64,
    pub length: u32,
}

#[napi(object)]
pub struct TakeSpans {
    pub frames: Vec<FrameSpan>,
    pub flush_wanted: bool,
    pub stopped: bool,
}

/// The memory of the ring and its frame pool. Ask once per thread: two buffers of one memory are two
/// owners to the engine.
#[napi]
pub fn ring_buffer(env: Env, handle: u32) -> Result<BufferSlice<'static>, JsError> {
    let map = registry::get(handle)?.volume.ring.mapping();
    let (base, len) = (map.base(), map.len());
    // SAFETY: the mapping stays as long as `map`, which the finalizer drops.
    unsafe { BufferSlice::from_external(&env, base, len, map, |_, map| drop(map)) }
        .map_err(|e| fail("BUFFER", e))
}

#[napi]
pub fn take_spans(
    handle: u32,
    max_bytes: f64,
    wait_ms: u32,
    linger_ms: u32,
) -> Result<TakeSpans, JsError> {
    let open = registry::get(handle)?;
    let wait = Duration::from_millis(u64::from(wait_ms));
    let linger = Duration::from_millis(u64::from(linger_ms));
    let taken = open.volume.ring.take(max_bytes as usize, wait, linger);
    let span = |f: &crate::capture::drain::TakenFrame| FrameSpan {
        first_seq: f.first_seq.into(),
        last_seq: f.last_seq.into(),
        offset: f.offset as f64,
        length: f.len as u32,
    };
    Ok(TakeSpans {
        frames: taken.frames.iter().map(span).collect(),
        flush_wanted: taken.flush_wanted,
        stopped: taken.stopped,
    })
}

#[napi]
pub fn call_drain(handle: u32) -> Result<(), JsError> {
    registry::get(handle)?.volume.ring.call_drain();
    Ok(())
}

#[napi]
pub fn committed(handle: u32, seq: BigInt) -> Result<(), JsError> {
    registry::get(handle)?.volume.ring.committed_up_to(seq.get_u64().1);
    Ok(())
}

#[napi]
pub fn journaled(handle: u32, seq: BigInt) -> Result<(), JsError> {
    registry::get(handle)?.volume.ring.journaled_up_to(seq.get_u64().1);
    Ok(())
}

#[napi]
pub fn journal_failed(handle: u32, errno: i32) -> Result<(), JsError> {
    registry::get(handle)?.volume.ring.journal_failed(errno);
    Ok(())
}
