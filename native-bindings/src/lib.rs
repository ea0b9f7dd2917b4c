//! The data plane of holdfast: everything that happens between a system call and its reply, and
//! the replay of it.
//!
//! The data's way: `transport` (requests of the kernel) → `interceptor` (dummy functions) →
//! `capture` (ring, gate) → `record` (frames) → JavaScript journals them → `replay`. Between two hosts
//! frames go over a `link`.
//! `binding` is the only part that knows JavaScript.

// Its functions are called by JavaScript only, which unit tests do not have.
#[cfg(not(test))]
mod binding;
mod boot;
pub mod capture;
pub mod codes;
pub mod fill;
pub mod heap;
pub mod history;
pub mod interceptor;
pub mod link;
pub mod read_behind;
pub mod record;
pub mod replay;
pub mod scan;
pub mod transport;
pub mod tree;
pub mod write_behind;
