//! Reading what a replica asks for.

use super::error::JsError;
use super::registry;
use crate::interceptor::Volume;
use crate::record::Oid;
use crate::scan::read_fill as read;
use napi::bindgen_prelude::{AsyncTask, BigUint64Array, Buffer};
use napi::{Env, Task};
use napi_derive::napi;
use std::sync::Arc;

pub struct ReadFill {
    volume: Arc<Volume>,
    oid: Oid,
    range: (u64, u64),
    into: Buffer,
}

impl Task for ReadFill {
    type Output = u32;
    type JsValue = u32;

    fn compute(&mut self) -> napi::Result<u32> {
        let length = read(&self.volume, self.oid, self.range, &mut self.into);
        let length =
            length.map_err(|e| napi::Error::from_reason(format!("reading a file: {e}")))?;
        Ok(length as u32)
    }

    fn resolve(&mut self, _env: Env, length: u32) -> napi::Result<u32> {
        Ok(length)
    }
}

/// Whether an object (ino, gen) is among those that fills can be read of.
#[napi]
pub fn can_fill(handle: u32, ino_gen: BigUint64Array) -> Result<bool, JsError> {
    let oid = Oid { ino: ino_gen[0], gen: ino_gen[1] };
    Ok(registry::get(handle)?.volume.scan.fills.has(oid))
}

/// Reads the beginning of a range (ino, gen, from, to) as the body of a `fill` message, on a thread of
/// the pool; gives the body's length.
#[napi(ts_return_type = "Promise<number>")]
pub fn read_fill(
    handle: u32,
    range: BigUint64Array,
    into: Buffer,
) -> Result<AsyncTask<ReadFill>, JsError> {
    let volume = registry::get(handle)?.volume.clone();
    let (oid, range) = (Oid { ino: range[0], gen: range[1] }, (range[2], range[3]));
    Ok(AsyncTask::new(ReadFill { volume, oid, range, into }))
}
