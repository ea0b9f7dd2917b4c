//! fsfloor: a FUSE server that does nothing. It answers every request at once from the request
//! itself, so a benchmark against it measures the kernel's part and the round trip alone.
//!
//! `fsfloor MOUNTPOINT [--threads N]` mounts, prints `ready`, and serves until it is unmounted.
//!
//! It keeps no names: a name that the kernel has forgotten is gone. Only workloads that make
//! their own files can run on it (writes, create, rename, unlink, chmod, mkdir). Each thread
//! reads its own clone of /dev/fuse and answers in place. The ABI is the kernel's
//! `include/uapi/linux/fuse.h`, version 7.38; numbers below are from there.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, IoSlice, Read, Result, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

const MAX_WRITE: usize = 1 << 20;
const HEADER: usize = 40;
const DIRECTORY_BIT: u64 = 1 << 40;
const FOREVER: u64 = 1_000_000;
/// FUSE_DEV_IOC_CLONE: _IOR(229, 0, uint32_t).
const CLONE: libc::c_ulong = 0x8004_e500;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const RMDIR: u32 = 11;
const RENAME: u32 = 12;
const OPEN: u32 = 14;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const INIT: u32 = 26;
const CREATE: u32 = 35;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const RENAME2: u32 = 45;

/// ASYNC_READ, ATOMIC_O_TRUNC, BIG_WRITES, PARALLEL_DIROPS, MAX_PAGES, HANDLE_KILLPRIV_V2.
const INIT_FLAGS: u32 = 1 | 1 << 3 | 1 << 5 | 1 << 18 | 1 << 22 | 1 << 28;

/// Little writer of the kernel's structures, in native byte order.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
    /// struct fuse_attr.
    fn attr(&mut self, node: u64, mode: u32, size: u64) -> &mut Self {
        self.u64(node).u64(size).u64(0).u64(0).u64(0).u64(0);
        self.u32(0)
            .u32(0)
            .u32(0)
            .u32(mode)
            .u32(1)
            .u32(0)
            .u32(0)
            .u32(0)
            .u32(4096)
            .u32(0)
    }
    /// struct fuse_entry_out.
    fn entry(&mut self, node: u64, mode: u32) -> &mut Self {
        self.u64(node)
            .u64(0)
            .u64(FOREVER)
            .u64(FOREVER)
            .u32(0)
            .u32(0)
            .attr(node, mode, 0)
    }
    fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn mode_of(node: u64) -> u32 {
    if node == 1 || node & DIRECTORY_BIT != 0 {
        libc::S_IFDIR | 0o755
    } else {
        libc::S_IFREG | 0o644
    }
}

fn init(request: &[u8], out: &mut Body) {
    out.u32(7).u32(u32_at(request, HEADER + 4).min(38));
    out.u32(u32_at(request, HEADER + 8)).u32(INIT_FLAGS);
    // max_background 64, congestion_threshold 48 as two u16 in one word.
    out.u32(64 | 48 << 16).u32(MAX_WRITE as u32).u32(1);
    // max_pages 256, map_alignment 0; flags2 and the unused rest.
    out.u32((MAX_WRITE / 4096) as u32).u32(0).zeros(28);
}

/// chmod keeps what was asked; a size that was not asked for is told as 0.
fn setattr(request: &[u8], node: u64, out: &mut Body) {
    const VALID_MODE: u32 = 1;
    const VALID_SIZE: u32 = 1 << 3;
    let valid = u32_at(request, HEADER);
    let asked = u32_at(request, HEADER + 68);
    let mode = if valid & VALID_MODE != 0 {
        asked
    } else {
        mode_of(node)
    };
    let size = if valid & VALID_SIZE != 0 {
        u64_at(request, HEADER + 16)
    } else {
        0
    };
    out.u64(FOREVER).u32(0).u32(0).attr(node, mode, size);
}

/// The answer's errno (0 = none), or None when the request takes no answer.
fn answer(request: &[u8], next: &AtomicU64, out: &mut Body) -> Option<i32> {
    let node = u64_at(request, 16);
    match u32_at(request, 4) {
        INIT => init(request, out),
        LOOKUP => return Some(libc::ENOENT),
        GETATTR => {
            out.u64(FOREVER).u32(0).u32(0).attr(node, mode_of(node), 0);
        }
        SETATTR => setattr(request, node, out),
        MKDIR => {
            let node = next.fetch_add(1, Ordering::Relaxed) | DIRECTORY_BIT;
            out.entry(node, mode_of(node));
        }
        CREATE => {
            let node = next.fetch_add(1, Ordering::Relaxed);
            out.entry(node, mode_of(node)).zeros(16);
        }
        OPEN => {
            out.zeros(16);
        }
        WRITE => {
            out.u32(u32_at(request, HEADER + 16)).u32(0);
        }
        STATFS => {
            out.zeros(80);
        }
        UNLINK | RMDIR | RENAME | RENAME2 | RELEASE | FSYNC => {}
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        _ => return Some(libc::ENOSYS),
    }
    Some(0)
}

/// Serves one descriptor until the mount is gone.
fn serve(mut device: &File, next: &AtomicU64) -> Result<()> {
    let mut request = vec![0_u8; MAX_WRITE + 8192];
    let mut out = Body::default();
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            // ENOENT: the request was interrupted before it was read.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EAGAIN)) => continue,
            Err(e) => return Err(e),
        };
        out.0.clear();
        let Some(errno) = answer(&request[..length], next, &mut out) else {
            continue;
        };
        let mut header = Body::default();
        header
            .u32(16 + out.0.len() as u32)
            .u32((-errno) as u32)
            .u64(u64_at(&request, 8));
        // ENOENT here: the caller was interrupted meanwhile; nobody waits for the answer.
        let _ = device.write_vectored(&[IoSlice::new(&header.0), IoSlice::new(&out.0)]);
    }
}

fn open_device() -> Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse")
}

fn clone_device(first: &File) -> Result<File> {
    let clone = open_device()?;
    let source = first.as_raw_fd() as u32;
    // SAFETY: the ioctl reads one u32 from the pointer, which lives through the call.
    if unsafe { libc::ioctl(clone.as_raw_fd(), CLONE as _, &source) } < 0 {
        return Err(Error::last_os_error());
    }
    Ok(clone)
}

fn mount(device: &File, mountpoint: &str) -> Result<()> {
    let bad = |_| Error::other("NUL in the mountpoint's name");
    let target = CString::new(mountpoint).map_err(bad)?;
    let options = CString::new(format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    ))
    .map_err(bad)?;
    // SAFETY: all strings are NUL-terminated and outlive the call.
    let r = unsafe {
        libc::mount(
            c"fsfloor".as_ptr(),
            target.as_ptr(),
            c"fuse".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    if r < 0 {
        return Err(Error::last_os_error());
    }
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (mountpoint, threads) = match args.as_slice() {
        [dir] => (dir, 2),
        [dir, flag, count] if flag == "--threads" => (
            dir,
            count.parse().map_err(|_| Error::other("bad --threads"))?,
        ),
        _ => return Err(Error::other("usage: fsfloor MOUNTPOINT [--threads N]")),
    };
    let device = open_device()?;
    mount(&device, mountpoint)?;
    let next = Arc::new(AtomicU64::new(2));
    let workers: Vec<_> = (1..threads)
        .map(|_| {
            // A clone answers only once INIT is done; it may wait in read until then.
            let (clone, next) = (clone_device(&device)?, next.clone());
            Ok(std::thread::spawn(move || serve(&clone, &next)))
        })
        .collect::<Result<_>>()?;
    println!("ready");
    serve(&device, &next)?;
    for worker in workers {
        worker
            .join()
            .map_err(|_| Error::other("a worker panicked"))??;
    }
    Ok(())
}
