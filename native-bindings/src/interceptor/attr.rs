//! Attributes: statx(2) of the backing object, and the kernel's forms of it.

use super::errno::{check, Res};
use crate::record::Time;
use crate::transport::abi::{Attr, Statx, SxTime};
use std::ffi::CStr;
use std::os::fd::RawFd;

/// Attributes of a backing object.
pub type Stat = libc::statx;

const MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME;

/// Attributes of `name` below `dir`, or of `dir` itself when the name is empty. Never follows links.
pub fn stat_at(dir: RawFd, name: &CStr) -> Res<Stat> {
    // SAFETY: all zero is a valid statx buffer.
    let mut st: Stat = unsafe { std::mem::zeroed() };
    let empty = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_STATX_SYNC_AS_STAT | empty;
    // SAFETY: valid string and out-pointer.
    check(unsafe { libc::statx(dir, name.as_ptr(), flags, MASK, &mut st) })?;
    Ok(st)
}

/// Attributes of an open object.
pub fn stat_fd(fd: RawFd) -> Res<Stat> {
    stat_at(fd, c"")
}

/// `dev_t` in the kernel's 32-bit form.
pub fn encode_dev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The reverse of `encode_dev`.
pub fn decode_dev(dev: u32) -> libc::dev_t {
    let major = (dev & 0xf_ff00) >> 8;
    let minor = (dev & 0xff) | ((dev >> 12) & 0xf_ff00);
    libc::makedev(major, minor)
}

pub fn mtime(st: &Stat) -> Time {
    Time { sec: st.stx_mtime.tv_sec, nsec: st.stx_mtime.tv_nsec }
}

pub fn atime(st: &Stat) -> Time {
    Time { sec: st.stx_atime.tv_sec, nsec: st.stx_atime.tv_nsec }
}

/// Change time in ns since the epoch.
pub fn ctime_ns(st: &Stat) -> u64 {
    (st.stx_ctime.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(u64::from(st.stx_ctime.tv_nsec))
}

/// The kernel's `fuse_attr`.
pub fn to_attr(st: &Stat) -> Attr {
    Attr {
        ino: st.stx_ino,
        size: st.stx_size,
        blocks: st.stx_blocks,
        atime: st.stx_atime.tv_sec as u64,
        mtime: st.stx_mtime.tv_sec as u64,
        ctime: st.stx_ctime.tv_sec as u64,
        atimensec: st.stx_atime.tv_nsec,
        mtimensec: st.stx_mtime.tv_nsec,
        ctimensec: st.stx_ctime.tv_nsec,
        mode: u32::from(st.stx_mode),
        nlink: st.stx_nlink,
        uid: st.stx_uid,
        gid: st.stx_gid,
        rdev: encode_dev(st.stx_rdev_major, st.stx_rdev_minor),
        blksize: st.stx_blksize,
        flags: 0,
    }
}

fn sx(t: &libc::statx_timestamp) -> SxTime {
    SxTime { tv_sec: t.tv_sec, tv_nsec: t.tv_nsec, reserved: 0 }
}

/// The kernel's `fuse_statx`, with birth time.
pub fn to_statx(st: &Stat) -> Statx {
    Statx {
        mask: st.stx_mask & MASK,
        blksize: st.stx_blksize,
        attributes: st.stx_attributes,
        nlink: st.stx_nlink,
        uid: st.stx_uid,
        gid: st.stx_gid,
        mode: st.stx_mode,
        ino: st.stx_ino,
        size: st.stx_size,
        blocks: st.stx_blocks,
        attributes_mask: st.stx_attributes_mask,
        atime: sx(&st.stx_atime),
        btime: sx(&st.stx_btime),
        ctime: sx(&st.stx_ctime),
        mtime: sx(&st.stx_mtime),
        rdev_major: st.stx_rdev_major,
        rdev_minor: st.stx_rdev_minor,
        dev_major: st.stx_dev_major,
        dev_minor: st.stx_dev_minor,
        ..Default::default()
    }
}
