//! Writes and durable writes.

use crate::meter::{measure, measure_threads, timed, Random, Tally};
use crate::{sys, Job};
use std::ffi::CString;
use std::io::Result;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Bytes that an "existing" file holds before the run, and that a "new" one may grow to.
const FILE_BYTES: u64 = 64 << 20;
/// Writes between two looks at the clock.
const BATCH: u64 = 32;

/// One write workload, told by its name: `seqwrite4k-wronly-new` and the like.
pub struct Write {
    random: bool,
    block: u64,
    flags: i32,
    existing: bool,
}

impl Write {
    pub fn parse(name: &str) -> Option<Self> {
        if name == "seqwrite1m" {
            return Some(Self {
                random: false,
                block: 1 << 20,
                flags: libc::O_WRONLY,
                existing: false,
            });
        }
        let mut parts = name.split('-');
        let random = match parts.next()? {
            "seqwrite4k" => false,
            "randwrite4k" => true,
            _ => return None,
        };
        let flags = match parts.next()? {
            "wronly" => libc::O_WRONLY,
            "rdwr" => libc::O_RDWR,
            _ => return None,
        };
        let existing = match parts.next()? {
            "existing" => true,
            "new" => false,
            _ => return None,
        };
        Some(Self {
            random,
            block: 4096,
            flags,
            existing,
        })
    }
}

/// An "existing" file that was there before the run, and stays.
pub fn prefill(job: &Job) -> Result<()> {
    (0..job.threads).try_for_each(|index| fill(&written(job, index)))
}

fn written(job: &Job, index: usize) -> CString {
    sys::c_path(&job.dir.join(format!("write{index}")))
}

fn is_filled(path: &CString) -> bool {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    std::fs::metadata(path).is_ok_and(|meta| meta.len() == FILE_BYTES)
}

fn fill(path: &CString) -> Result<()> {
    let fd = sys::open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)?;
    let chunk = vec![0x5a_u8; 1 << 20];
    for at in 0..FILE_BYTES >> 20 {
        sys::pwrite(&fd, &chunk, at << 20)?;
    }
    sys::fsync(&fd)
}

/// Writes of one block; a new file starts over, as a newly created file, once it is full.
struct Writer<'a> {
    spec: &'a Write,
    path: CString,
    fd: OwnedFd,
    block: Vec<u8>,
    random: Random,
    at: u64,
    /// A new file is written at random by visiting its blocks in a scattered order.
    stride: u64,
}

impl<'a> Writer<'a> {
    fn new(spec: &'a Write, path: CString, index: usize) -> Result<Self> {
        if spec.existing && !is_filled(&path) {
            fill(&path)?;
        }
        let create = if spec.existing {
            0
        } else {
            libc::O_CREAT | libc::O_TRUNC
        };
        let fd = sys::open(&path, spec.flags | create)?;
        Ok(Self {
            spec,
            path,
            fd,
            block: vec![0xa5; spec.block as usize],
            random: Random(0x9e37_79b9_7f4a_7c15 + index as u64),
            at: 0,
            stride: 7919,
        })
    }

    fn next_block(&mut self) -> u64 {
        let blocks = FILE_BYTES / self.spec.block;
        let n = self.at % blocks;
        self.at += 1;
        match (self.spec.random, self.spec.existing) {
            (false, _) => n,
            (true, true) => self.random.below(blocks),
            (true, false) => n * self.stride % blocks,
        }
    }

    fn batch(&mut self) -> Result<Tally> {
        let blocks = FILE_BYTES / self.spec.block;
        if !self.spec.existing && self.at > 0 && self.at.is_multiple_of(blocks) {
            sys::unlink(&self.path)?;
            self.fd = sys::open(&self.path, self.spec.flags | libc::O_CREAT | libc::O_EXCL)?;
        }
        timed(|| {
            for _ in 0..BATCH {
                let at = self.next_block() * self.spec.block;
                sys::pwrite(&self.fd, &self.block, at)?;
            }
            Ok((BATCH, BATCH * self.spec.block))
        })
    }
}

pub fn write(job: &Job, spec: &Write) -> Result<Tally> {
    let path = |index: usize| written(job, index);
    let stays = spec.existing && is_filled(&path(0));
    let tally = measure_threads(job, |index| {
        let mut writer = Writer::new(spec, path(index), index)?;
        Ok(move || writer.batch())
    })?;
    for index in (0..job.threads).filter(|_| !stays) {
        sys::unlink(&path(index))?;
    }
    Ok(tally)
}

/// write(4 KiB) + fsync, in turn, over an existing file.
pub fn fsync(job: &Job) -> Result<Tally> {
    let path = sys::c_path(&job.dir.join("fsync"));
    fill(&path)?;
    let fd = sys::open(&path, libc::O_WRONLY)?;
    let block = [0xa5_u8; 4096];
    let mut at = 0;
    let tally = measure(job, || {
        timed(|| {
            sys::pwrite(&fd, &block, at % FILE_BYTES)?;
            sys::fsync(&fd)?;
            at += 4096;
            Ok((1, 4096))
        })
    })?;
    drop(fd);
    sys::unlink(&path)?;
    Ok(tally)
}
