//! Reads that the kernel's caches can answer. A first, untimed pass over everything fills them.

use crate::fixture::{self, CACHED_BYTES, SMALL_FILES, STAT_DIRECTORIES, STAT_FILES};
use crate::meter::{measure, timed, Tally};
use crate::{sys, Job};
use std::ffi::CString;
use std::io::Result;

/// lstat of 100,000 files by full path.
pub fn stat(job: &Job) -> Result<Tally> {
    let paths: Vec<CString> = (0..STAT_DIRECTORIES)
        .flat_map(|d| (0..STAT_FILES).map(move |i| fixture::stat_file(&job.dir, d, i)))
        .collect();
    let pass = || {
        for path in &paths {
            sys::lstat(path)?;
        }
        Ok((paths.len() as u64, 0))
    };
    pass()?;
    measure(job, || timed(pass))
}

/// Reads 100 directories of 1000 entries; one operation is one entry. Two passes warm it, since
/// FUSE keeps a directory's entries from the second reading on.
pub fn readdir(job: &Job) -> Result<Tally> {
    let paths: Vec<CString> = (0..STAT_DIRECTORIES)
        .map(|d| sys::c_path(&fixture::stat_directory(&job.dir, d)))
        .collect();
    let mut buffer = vec![0_u8; 32 << 10];
    let mut pass = || {
        let mut entries = 0;
        for path in &paths {
            let fd = sys::open(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
            loop {
                match sys::getdents(&fd, &mut buffer)? {
                    0 => break,
                    n => entries += n,
                }
            }
        }
        Ok((entries, 0))
    };
    pass()?;
    pass()?;
    measure(job, || timed(&mut pass))
}

/// Reads a cached file from end to end in blocks.
pub fn read(job: &Job, block: usize) -> Result<Tally> {
    let fd = sys::open(&fixture::cached(&job.dir), libc::O_RDONLY)?;
    let mut buffer = vec![0_u8; block];
    let mut pass = || {
        let blocks = CACHED_BYTES / block as u64;
        for index in 0..blocks {
            if sys::pread(&fd, &mut buffer, index * block as u64)? != block {
                return Err(std::io::Error::other("short read"));
            }
        }
        Ok((blocks, CACHED_BYTES))
    };
    pass()?;
    measure(job, || timed(&mut pass))
}

/// open + read(4 KiB) + close of 2000 small files.
pub fn openread(job: &Job) -> Result<Tally> {
    let paths: Vec<CString> = (0..SMALL_FILES)
        .map(|i| fixture::small_file(&job.dir, i))
        .collect();
    let mut buffer = [0_u8; 4096];
    let mut pass = || {
        for path in &paths {
            let fd = sys::open(path, libc::O_RDONLY)?;
            sys::pread(&fd, &mut buffer, 0)?;
        }
        Ok((paths.len() as u64, paths.len() as u64 * 4096))
    };
    pass()?;
    measure(job, || timed(&mut pass))
}
