//! The read-only tree that the warm and cold workloads use. `prepare` writes it straight to the
//! backing directory before the target is mounted, so that slow creates do not eat the run.

use crate::sys;
use std::ffi::CString;
use std::io::Result;
use std::path::{Path, PathBuf};

/// 100 directories of 1000 empty files: stat and readdir.
pub const STAT_DIRECTORIES: usize = 100;
pub const STAT_FILES: usize = 1000;
/// Warm small files of 4 KiB.
pub const SMALL_FILES: usize = 2000;
/// Cold small files of 16 KiB.
pub const COLD_FILES: usize = 2000;
pub const CACHED_BYTES: u64 = 64 << 20;
pub const COLD_BYTES: u64 = 256 << 20;

pub fn stat_directory(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("fixture/stat/d{index:03}"))
}

pub fn stat_file(dir: &Path, directory: usize, index: usize) -> CString {
    sys::c_path(&stat_directory(dir, directory).join(format!("f{index:04}")))
}

pub fn small_file(dir: &Path, index: usize) -> CString {
    sys::c_path(&dir.join(format!("fixture/small/f{index:04}")))
}

pub fn cold_file(dir: &Path, index: usize) -> CString {
    sys::c_path(&dir.join(format!("fixture/coldsmall/f{index:04}")))
}

pub fn cached(dir: &Path) -> CString {
    sys::c_path(&dir.join("fixture/cached"))
}

pub fn cold(dir: &Path) -> CString {
    sys::c_path(&dir.join("fixture/cold"))
}

fn write_file(path: &CString, bytes: u64) -> Result<()> {
    let fd = sys::open(path, libc::O_WRONLY | libc::O_CREAT)?;
    // Not all alike, so that no layer below can take it for a hole or a duplicate.
    let mut chunk = vec![0_u8; bytes.min(1 << 20) as usize];
    let mut at = 0;
    while at < bytes {
        let stamp = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for (i, word) in chunk.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&stamp.wrapping_mul(i as u64 + 1).to_ne_bytes());
        }
        sys::pwrite(&fd, &chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

pub fn prepare(dir: &Path) -> Result<()> {
    for directory in 0..STAT_DIRECTORIES {
        std::fs::create_dir_all(stat_directory(dir, directory))?;
        for index in 0..STAT_FILES {
            sys::open(
                &stat_file(dir, directory, index),
                libc::O_WRONLY | libc::O_CREAT,
            )?;
        }
    }
    for name in ["small", "coldsmall"] {
        std::fs::create_dir_all(dir.join("fixture").join(name))?;
    }
    for index in 0..SMALL_FILES {
        write_file(&small_file(dir, index), 4096)?;
    }
    for index in 0..COLD_FILES {
        write_file(&cold_file(dir, index), 16384)?;
    }
    write_file(&cached(dir), CACHED_BYTES)?;
    write_file(&cold(dir), COLD_BYTES)
}
