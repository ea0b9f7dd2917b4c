//! Checksums; replay is bound here too.

use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

#[napi]
pub fn crc32c(bytes: Buffer, seed: u32) -> u32 {
    crc32c::crc32c_append(seed, bytes.as_ref())
}
