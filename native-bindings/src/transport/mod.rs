//! Transport: requests of the kernel in, replies out.
//!
//! `abi` is the kernel's FUSE interface as data; `request` and `reply` are its messages, the same for
//! both ways they travel: `device` reads /dev/fuse, `uring` uses FUSE over io_uring where the kernel
//! has it; `plain` serves file systems that capture nothing. `mount` makes the mount itself.

pub mod abi;
pub mod device;
pub mod mount;
pub mod plain;
pub mod reply;
pub mod request;
pub mod uring;
