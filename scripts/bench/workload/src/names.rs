//! Operations on names and metadata: create, rename, unlink, chmod, mkdir.

use crate::meter::{measure, measure_threads, timed, Tally};
use crate::{sys, Job};
use std::ffi::CString;
use std::io::Result;
use std::path::{Path, PathBuf};

/// Files per directory, and names per batch.
const PER_DIRECTORY: usize = 1000;

fn names(dir: &Path, prefix: &str) -> Vec<CString> {
    (0..PER_DIRECTORY)
        .map(|i| sys::c_path(&dir.join(format!("{prefix}{i:04}"))))
        .collect()
}

fn touch_all(paths: &[CString]) -> Result<()> {
    for path in paths {
        sys::open(path, libc::O_WRONLY | libc::O_CREAT)?;
    }
    Ok(())
}

fn unlink_all(paths: &[CString]) -> Result<()> {
    paths.iter().try_for_each(sys::unlink)
}

fn fresh_directory(job: &Job, name: &str) -> Result<PathBuf> {
    let dir = job.dir.join(name);
    sys::mkdir(&sys::c_path(&dir))?;
    Ok(dir)
}

/// open(O_CREAT|O_EXCL) + write(4 KiB) + close, into fresh directories of 1000 files. The files
/// are removed after all threads are done, so that no removal falls into another's timed part.
pub fn create(job: &Job) -> Result<Tally> {
    let block = [0xa5_u8; 4096];
    let made = std::sync::Mutex::new(Vec::<(PathBuf, Vec<CString>)>::new());
    let tally = measure_threads(job, |index| {
        let mut serial = 0;
        let (block, made) = (&block, &made);
        Ok(move || {
            let dir = fresh_directory(job, &format!("create{index}-{serial}"))?;
            serial += 1;
            let paths = names(&dir, "f");
            let tally = timed(|| {
                for path in &paths {
                    let fd = sys::open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)?;
                    sys::pwrite(&fd, block, 0)?;
                }
                Ok((paths.len() as u64, paths.len() as u64 * 4096))
            })?;
            made.lock()
                .unwrap_or_else(|e| e.into_inner())
                .push((dir, paths));
            Ok(tally)
        })
    })?;
    for (dir, paths) in made.into_inner().unwrap_or_else(|e| e.into_inner()) {
        unlink_all(&paths)?;
        sys::rmdir(&sys::c_path(&dir))?;
    }
    Ok(tally)
}

/// Renames 1000 files of one directory to new names and back.
pub fn rename(job: &Job) -> Result<Tally> {
    let dir = fresh_directory(job, "rename")?;
    let (mut from, mut to) = (names(&dir, "a"), names(&dir, "b"));
    touch_all(&from)?;
    let tally = measure(job, || {
        let tally = timed(|| {
            for (from, to) in from.iter().zip(&to) {
                sys::rename(from, to)?;
            }
            Ok((from.len() as u64, 0))
        })?;
        std::mem::swap(&mut from, &mut to);
        Ok(tally)
    })?;
    unlink_all(&from)?;
    sys::rmdir(&sys::c_path(&dir))?;
    Ok(tally)
}

/// Unlinks empty files; making them anew is not timed.
pub fn unlink(job: &Job) -> Result<Tally> {
    let dir = fresh_directory(job, "unlink")?;
    let paths = names(&dir, "f");
    let tally = measure(job, || {
        touch_all(&paths)?;
        timed(|| {
            unlink_all(&paths)?;
            Ok((paths.len() as u64, 0))
        })
    })?;
    sys::rmdir(&sys::c_path(&dir))?;
    Ok(tally)
}

/// chmod of 1000 files, each time to a mode that differs.
pub fn chmod(job: &Job) -> Result<Tally> {
    let dir = fresh_directory(job, "chmod")?;
    let paths = names(&dir, "f");
    touch_all(&paths)?;
    let mut mode = 0o600;
    let tally = measure(job, || {
        mode ^= 0o044;
        timed(|| {
            for path in &paths {
                sys::chmod(path, mode)?;
            }
            Ok((paths.len() as u64, 0))
        })
    })?;
    unlink_all(&paths)?;
    sys::rmdir(&sys::c_path(&dir))?;
    Ok(tally)
}

/// Makes directories; removing them is not timed.
pub fn mkdir(job: &Job) -> Result<Tally> {
    let dir = fresh_directory(job, "mkdir")?;
    let paths = names(&dir, "d");
    let tally = measure(job, || {
        let tally = timed(|| {
            paths.iter().try_for_each(sys::mkdir)?;
            Ok((paths.len() as u64, 0))
        })?;
        paths.iter().try_for_each(sys::rmdir)?;
        Ok(tally)
    })?;
    sys::rmdir(&sys::c_path(&dir))?;
    Ok(tally)
}
