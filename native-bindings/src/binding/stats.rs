//! Counters of a volume, for status and metrics.

use super::error::{errno_name, JsError};
use super::registry;
use crate::transport::abi::{opcode_name, OPCODES};
use napi::bindgen_prelude::BigInt;
use napi_derive::napi;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

#[napi(object)]
pub struct VolumeStats {
    pub state: String,
    pub captured_seq: BigInt,
    pub journaled_seq: BigInt,
    pub captured_at: BigInt,
    pub journaled_at: BigInt,
    pub captured_bytes: BigInt,
    pub journaled_bytes: BigInt,
    pub ring_bytes: f64,
    pub ring_used_bytes: f64,
    pub requests: BigInt,
    pub mutations: BigInt,
    pub failures: BigInt,
    pub ring_waits: BigInt,
    pub ring_refusals: BigInt,
    pub inodes: u32,
    pub open_descriptors: u32,
    pub last_fsync_ns: BigInt,
    pub scanning: bool,
    pub scan_objects: BigInt,
    pub scan_imaged: BigInt,
    pub scan_bytes: BigInt,
    pub scan_errors: BigInt,
    pub scan_counted: bool,
    pub scan_total_objects: BigInt,
    pub scan_total_bytes: BigInt,
    pub ops: HashMap<String, f64>,
    pub held: bool,
    pub journal_error: Option<String>,
    pub panics: u32,
    pub uncaptured: u32,
    /// Codes that are valid, made so by this process; walks of the sweep; `null` without codes.
    pub codes: Option<CodeStats>,
}

#[napi(object)]
pub struct CodeStats {
    pub valid: f64,
    pub passes: f64,
    pub running: bool,
}

fn read(counter: &AtomicU64) -> BigInt {
    counter.load(Ordering::Relaxed).into()
}

#[napi]
pub fn volume_stats(handle: u32) -> Result<VolumeStats, JsError> {
    let open = registry::get(handle)?;
    let v = &open.volume;
    let (ring, c, scan) = (&v.ring, &v.counters, &v.scan);
    let mut ops = HashMap::new();
    let mut requests = 0;
    for code in 0..OPCODES {
        let n = c.ops[code].load(Ordering::Relaxed);
        if n > 0 {
            requests += n;
            ops.insert(opcode_name(code as u32).to_lowercase(), n as f64);
        }
    }
    let state = match (open.stopped.load(Ordering::Acquire), open.session.lock().is_some()) {
        (true, _) => "stopped",
        (false, true) => "mounted",
        (false, false) => "open",
    };
    let error = ring.journal_error();
    let sweep = open.sweep.lock().as_ref().map(|(state, _)| state.clone());
    let codes = sweep.zip(v.codes.get()).map(|(sweep, store)| CodeStats {
        valid: store.valid() as f64,
        passes: sweep.passes.load(Ordering::Acquire) as f64,
        running: sweep.running.load(Ordering::Acquire),
    });
    Ok(VolumeStats {
        state: state.to_owned(),
        captured_seq: ring.captured_seq().into(),
        journaled_seq: ring.journaled_seq().into(),
        captured_at: ring.captured_at().into(),
        journaled_at: ring.journaled_at().into(),
        captured_bytes: ring.captured_bytes().into(),
        journaled_bytes: ring.journaled_bytes().into(),
        ring_bytes: ring.bytes() as f64,
        ring_used_bytes: ring.used_bytes() as f64,
        requests: requests.into(),
        mutations: read(&c.mutations),
        failures: read(&c.failures),
        ring_waits: read(&ring.waits),
        ring_refusals: read(&ring.refusals),
        inodes: v.table.len() as u32,
        open_descriptors: v.table.descriptors() as u32,
        last_fsync_ns: read(&c.last_fsync_ns),
        scanning: scan.is_running(),
        scan_objects: read(&scan.objects),
        scan_imaged: read(&scan.imaged),
        scan_bytes: read(&scan.bytes),
        scan_errors: read(&scan.errors),
        scan_counted: scan.counted.load(Ordering::Acquire),
        scan_total_objects: read(&scan.total_objects),
        scan_total_bytes: read(&scan.total_bytes),
        ops,
        held: v.gate.is_held(),
        journal_error: (error != 0).then(|| errno_name(error).to_owned()),
        panics: c.panics.load(Ordering::Relaxed),
        uncaptured: c.uncaptured.load(Ordering::Relaxed),
        codes,
    })
}
