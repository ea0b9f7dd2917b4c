//! What JavaScript sees: the functions of src/lib/native.ts, one to one. All `#[napi]` is here.
//!
//! Volumes live in a registry and are addressed by number, so that every thread of the process can call
//! them. No function here runs between a request and its reply.

mod acks;
mod cut;
mod drain;
mod error;
mod fill;
mod history;
mod link;
mod lock;
mod registry;
mod replay;
mod stats;
mod tree;
mod volume;
mod write_behind;
