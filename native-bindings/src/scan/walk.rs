//! Re-capture: walks the tree and captures all that may differ from what the journal says.
//!
//! After a power loss the journal may lack the last changes and the tree may have lost some that the
//! journal has. Objects changed (by ctime) since the last checkpoint, and those that the journal names
//! since then, are captured whole; all else was durable in both before the checkpoint. Applications work
//! on meanwhile: images and live changes share one order.

use super::image::{bracket, image_dir, image_object, list};
use super::{ScanState, KIND_RECAPTURE};
use crate::interceptor::attr::{ctime_ns, stat_fd};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::table::{raw, Inode};
use crate::interceptor::{Volume, Worker};
use crate::record::{Oid, Op};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// What a re-capture looks at.
pub struct ScanOptions {
    /// Objects changed at or after this time (ns since the epoch); 0: all.
    pub changed_since_ns: u64,
    pub objects: HashSet<Oid>,
}

/// Starts a re-capture in a thread of its own. EBUSY when one runs.
pub fn start_scan(v: &Arc<Volume>, options: ScanOptions) -> Res<()> {
    if v.scan.running.swap(true, Ordering::AcqRel) {
        return Err(Errno(libc::EBUSY));
    }
    for counter in [&v.scan.objects, &v.scan.imaged, &v.scan.bytes, &v.scan.errors] {
        counter.store(0, Ordering::Relaxed);
    }
    let volume = v.clone();
    let run = move || {
        let result = Worker::new(volume.ring.clone()).and_then(|mut w| {
            bracket(&volume, &mut w, Op::ScanBegin, KIND_RECAPTURE)?;
            walk(&volume, &mut w, &options)?;
            bracket(&volume, &mut w, Op::ScanEnd, KIND_RECAPTURE)
        });
        if result.is_err() {
            ScanState::count(&volume.scan.errors, 1);
        }
        volume.scan.running.store(false, Ordering::Release);
    };
    std::thread::Builder::new().name("holdfast-scan".into()).spawn(run).map_err(Errno::from)?;
    Ok(())
}

fn walk(v: &Volume, w: &mut Worker, options: &ScanOptions) -> Res<()> {
    let mut queue = VecDeque::from([v.root.clone()]);
    while let Some(dir) = queue.pop_front() {
        let result = walk_dir(v, w, &dir, options, &mut queue);
        v.table.forget(&dir, u64::from(!Arc::ptr_eq(&dir, &v.root)));
        match result {
            Ok(()) => {}
            // Removed while we walk: its removal is a record of its own.
            Err(Errno(libc::ESTALE | libc::ENOENT)) => {}
            Err(e) => return Err(e),
        }
        if v.scan.stop.load(Ordering::Relaxed) {
            return Err(Errno(libc::ECANCELED));
        }
    }
    Ok(())
}

fn walk_dir(
    v: &Volume,
    w: &mut Worker,
    dir: &Arc<Inode>,
    options: &ScanOptions,
    queue: &mut VecDeque<Arc<Inode>>,
) -> Res<()> {
    let wanted = |oid: Oid, ctime: u64| {
        options.changed_since_ns == 0
            || ctime >= options.changed_since_ns
            || options.objects.contains(&oid)
    };
    v.bind(w, dir);
    let fd = v.dir_fd(dir)?;
    let (entries, changed) = {
        let _lock = dir.effect.lock();
        let st = stat_fd(raw(&fd))?;
        let entries = list(v, raw(&fd))?;
        let changed = wanted(dir.oid, ctime_ns(&st));
        if changed {
            image_dir(v, w, dir, &entries, &st)?;
        }
        (entries, changed)
    };
    if changed {
        image_object(v, w, dir, None)?;
    }
    ScanState::count(&v.scan.objects, 1 + entries.len() as u64);
    for e in &entries {
        let is_dir = e.mode & libc::S_IFMT == libc::S_IFDIR;
        if !is_dir && !wanted(e.oid, e.ctime_ns) {
            continue;
        }
        let inode = v.adopt(dir, &e.name, e.oid, e.handle, e.mode & libc::S_IFMT);
        if changed {
            v.set_bound(&inode);
        }
        if is_dir {
            queue.push_back(inode);
            continue;
        }
        let result = image_object(v, w, &inode, Some((0, u64::MAX)));
        v.table.forget(&inode, 1);
        match result {
            Ok(()) | Err(Errno(libc::ESTALE | libc::ENOENT)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
