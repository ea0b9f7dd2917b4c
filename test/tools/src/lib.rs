//! Independent judges for holdfast: a differential tester (`fsdiff`), a tree comparison
//! (`treecmp`) and a load with a verifiable log (`fsload`).
//!
//! The crate shares no code with the product, so that an error in the product cannot hide in
//! its own test. Everything goes through Linux system calls on directory descriptors; names are
//! bytes. Where a FUSE mount may differ from the file system below it is data, not code: see
//! [`diff::limits`].
//!
//! - [`sys`]: checked wrappers over the system calls; the only module with `unsafe`.
//! - [`tree`]: bit-for-bit comparison of two trees, as a library.
//! - [`diff`]: random operations, executed on two trees and compared one by one.
//! - [`load`]: concurrent load with an acknowledgement log and a model that replays it.

pub mod args;
pub mod bytes;
pub mod diff;
pub mod load;
pub mod sys;
pub mod tree;
