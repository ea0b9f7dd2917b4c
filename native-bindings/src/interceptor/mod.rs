//! The interceptor: a dummy function in front of every file system call.
//!
//! Each mutating dummy function goes: gate → intent → real operation on the backing directory →
//! capture (seq) → reply. One file per family of operations; `volume` holds what they share,
//! `dispatch` finds the function of a request.
//!
//! Lock order: effect locks of inodes by address, then one binding lock, then a shard of the table or
//! an inode's descriptor slot. Effect locks are held across the real operation and its seq, nothing
//! else is; no lock is held while a reply is written.

mod ack;
pub mod attr;
mod create;
pub mod creds;
pub mod data;
pub mod dir;
mod dispatch;
pub mod errno;
pub mod handle;
pub mod ioctl;
pub mod names;
mod past;
mod remove;
mod rename;
mod setattr;
mod sync;
pub mod table;
pub mod volume;
pub mod xattr;

pub use volume::{Volume, VolumeOptions, Worker};
