//! Reads with every cache of every layer dropped first. Needs root (/proc/sys/vm/drop_caches).

use crate::fixture::{self, COLD_BYTES, COLD_FILES};
use crate::meter::{timed, Random, Tally};
use crate::{sys, Job};
use std::ffi::CString;
use std::io::Result;

/// Random reads before the caches are dropped again.
const RANDOM_READS: u64 = 4000;
/// Passes at most, whatever the time asked for: each costs two drops of all caches.
const PASSES_MAX: usize = 8;

/// Repeats drop + pass until the passes add up to the time asked for.
fn passes(job: &Job, mut pass: impl FnMut() -> Result<(u64, u64)>) -> Result<Tally> {
    let mut sum = Tally::default();
    for _ in 0..PASSES_MAX {
        sys::drop_caches()?;
        let one = timed(&mut pass)?;
        sum.ops += one.ops;
        sum.bytes += one.bytes;
        sum.spent += one.spent;
        if sum.spent >= job.seconds {
            break;
        }
    }
    Ok(sum)
}

/// One file from end to end in 1 MiB reads.
pub fn sequential(job: &Job) -> Result<Tally> {
    let path = fixture::cold(&job.dir);
    let mut buffer = vec![0_u8; 1 << 20];
    passes(job, || {
        let fd = sys::open(&path, libc::O_RDONLY)?;
        for at in 0..COLD_BYTES >> 20 {
            sys::pread(&fd, &mut buffer, at << 20)?;
        }
        Ok((COLD_BYTES >> 20, COLD_BYTES))
    })
}

/// 4 KiB reads at random places of one file.
pub fn random(job: &Job) -> Result<Tally> {
    let path = fixture::cold(&job.dir);
    let mut buffer = [0_u8; 4096];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    passes(job, || {
        let fd = sys::open(&path, libc::O_RDONLY)?;
        for _ in 0..RANDOM_READS {
            sys::pread(&fd, &mut buffer, random.below(COLD_BYTES / 4096) * 4096)?;
        }
        Ok((RANDOM_READS, RANDOM_READS * 4096))
    })
}

/// open + read(16 KiB) + close of 2000 files.
pub fn small(job: &Job) -> Result<Tally> {
    let paths: Vec<CString> = (0..COLD_FILES)
        .map(|i| fixture::cold_file(&job.dir, i))
        .collect();
    let mut buffer = [0_u8; 16384];
    passes(job, || {
        for path in &paths {
            let fd = sys::open(path, libc::O_RDONLY)?;
            sys::pread(&fd, &mut buffer, 0)?;
        }
        Ok((paths.len() as u64, paths.len() as u64 * 16384))
    })
}
