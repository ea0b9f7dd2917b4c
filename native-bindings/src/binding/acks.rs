//! Acknowledgement by replicas, as the control plane sets it.

use super::error::{fail, JsError};
use super::registry;
use crate::capture::acks::{ClassState, Policy};
use crate::capture::limits::ACK_CLASSES_MAX;
use napi::bindgen_prelude::{BigInt, Buffer};
use napi_derive::napi;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[napi(object)]
pub struct AckClass {
    pub mode: u32,
    pub wait_ms: u32,
    pub refuse_late: bool,
    pub position: BigInt,
}

#[napi(object)]
pub struct AckRule {
    pub path: Buffer,
    pub class: u32,
}

#[napi(object)]
pub struct AckPolicy {
    pub points: u32,
    pub close: bool,
    pub rules: Vec<AckRule>,
    pub classes: Vec<AckClass>,
}

#[napi]
pub fn set_ack_policy(handle: u32, policy: AckPolicy) -> Result<(), JsError> {
    let known = policy.classes.len();
    let fits = (1..=ACK_CLASSES_MAX).contains(&known);
    if !fits || policy.rules.iter().any(|rule| rule.class as usize >= known) {
        return Err(fail("EINVAL", format!("1 to {ACK_CLASSES_MAX} classes, not {known}")));
    }
    let class = |c: &AckClass| ClassState {
        mode: c.mode,
        wait: Duration::from_millis(u64::from(c.wait_ms)),
        refuse_late: c.refuse_late,
        position: c.position.get_u64().1,
    };
    registry::get(handle)?.volume.acks.set(Policy {
        points: policy.points,
        close: policy.close,
        rules: policy.rules.iter().map(|rule| (rule.path.as_ref().into(), rule.class)).collect(),
        classes: policy.classes.iter().map(class).collect(),
    });
    Ok(())
}

#[napi]
pub fn acknowledged(handle: u32, class: u32, seq: BigInt) -> Result<(), JsError> {
    registry::get(handle)?.volume.acks.advance(class as usize, seq.get_u64().1);
    Ok(())
}

#[napi]
pub fn slow_writers(handle: u32, on: bool) -> Result<(), JsError> {
    registry::get(handle)?.volume.acks.slow(on);
    Ok(())
}

/// Changes are held for so long at most; 0: not any more. For milliseconds.
#[napi]
pub fn hold_changes(handle: u32, max_ms: u32) -> Result<(), JsError> {
    let most = (max_ms > 0).then(|| Duration::from_millis(u64::from(max_ms)));
    registry::get(handle)?.volume.acks.hold(most);
    Ok(())
}

/// Milliseconds for which changes will be held at most; 0: they are not.
#[napi]
pub fn changes_held_ms(handle: u32) -> Result<u32, JsError> {
    let left = registry::get(handle)?.volume.acks.held_for();
    Ok(left.map_or(0, |left| left.as_millis().max(1) as u32))
}

#[napi(object)]
pub struct AckReport {
    pub late: BigInt,
    pub close_refused: bool,
}

#[napi]
pub fn ack_report(handle: u32) -> Result<AckReport, JsError> {
    let open = registry::get(handle)?;
    let acks = &open.volume.acks;
    Ok(AckReport {
        late: acks.late.load(Ordering::Relaxed).into(),
        close_refused: acks.close_refused(),
    })
}
