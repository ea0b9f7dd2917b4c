//! Re-capture and baseline: walks the tree and captures all that may differ from what a reader of the
//! journal knows.
//!
//! After a power loss the journal may lack the last changes and the tree may have lost some that the
//! journal has. Objects changed (by ctime) since the last checkpoint, and those that the journal names
//! since then, are captured whole; all else was durable in both before the checkpoint. Applications work
//! on meanwhile: images and live changes share one order.

use super::image::{bracket, image_dir, image_object, list};
use super::{ScanState, KIND_BASELINE};
use crate::interceptor::attr::{ctime_ns, stat_fd};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::table::{raw, Inode};
use crate::interceptor::{Volume, Worker};
use crate::record::{Oid, Op};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// What a scan looks at.
pub struct ScanOptions {
    /// KIND_RECAPTURE or KIND_BASELINE.
    pub kind: u8,
    /// Objects changed at or after this time (ns since the epoch); 0: all.
    pub changed_since_ns: u64,
    pub objects: HashSet<Oid>,
}

/// Starts a scan in a thread of its own. EBUSY when one runs.
pub fn start_scan(v: &Arc<Volume>, options: ScanOptions) -> Res<()> {
    if v.scan.running.swap(true, Ordering::AcqRel) {
        return Err(Errno(libc::EBUSY));
    }
    for counter in [&v.scan.objects, &v.scan.imaged, &v.scan.bytes, &v.scan.errors] {
        counter.store(0, Ordering::Relaxed);
    }
    let volume = v.clone();
    let run = move || {
        let kind = options.kind;
        let result = Worker::new(volume.ring.clone()).and_then(|mut w| {
            bracket(&volume, &mut w, Op::ScanBegin, kind)?;
            if kind == KIND_BASELINE {
                // A reader that begins here knows no object yet.
                volume.rebind_all();
            }
            Walk { v: &volume, options: &options, done: HashSet::new() }.run(&mut w)?;
            bracket(&volume, &mut w, Op::ScanEnd, kind)
        });
        if result.is_err() {
            ScanState::count(&volume.scan.errors, 1);
        }
        volume.scan.running.store(false, Ordering::Release);
        volume.scan.entered.lock().clear();
    };
    std::thread::Builder::new().name("holdfast-scan".into()).spawn(run).map_err(Errno::from)?;
    Ok(())
}

struct Walk<'a> {
    v: &'a Arc<Volume>,
    options: &'a ScanOptions,
    /// Objects looked at: a reader knows them.
    done: HashSet<Oid>,
}

impl Walk<'_> {
    fn run(&mut self, w: &mut Worker) -> Res<()> {
        let root = self.v.root.clone();
        self.below(w, VecDeque::from([root.clone()]))?;
        // What was moved from where the walk had not been to where it had.
        loop {
            let entered = std::mem::take(&mut *self.v.scan.entered.lock());
            if entered.is_empty() {
                return Ok(());
            }
            for (oid, handle) in entered {
                self.done.remove(&oid);
                let dir = match oid == root.oid {
                    true => root.clone(),
                    false => self.v.table.enter(oid, handle, libc::S_IFDIR, 1),
                };
                self.below(w, VecDeque::from([dir]))?;
            }
        }
    }

    fn below(&mut self, w: &mut Worker, mut queue: VecDeque<Arc<Inode>>) -> Res<()> {
        while let Some(dir) = queue.pop_front() {
            let result = self.dir(w, &dir, &mut queue);
            self.v.table.forget(&dir, u64::from(!Arc::ptr_eq(&dir, &self.v.root)));
            match result {
                Ok(()) => {}
                // Removed while we walk: its removal is a record of its own.
                Err(Errno(libc::ESTALE | libc::ENOENT)) => {}
                Err(e) => return Err(e),
            }
            if self.v.scan.stop.load(Ordering::Relaxed) {
                return Err(Errno(libc::ECANCELED));
            }
        }
        Ok(())
    }

    fn wanted(&self, oid: Oid, ctime: u64) -> bool {
        self.options.changed_since_ns == 0
            || ctime >= self.options.changed_since_ns
            || self.options.objects.contains(&oid)
    }

    /// One directory and what is in it; its directories go to the queue. Objects that were looked at
    /// before are known to a reader by now.
    fn dir(
        &mut self,
        w: &mut Worker,
        dir: &Arc<Inode>,
        queue: &mut VecDeque<Arc<Inode>>,
    ) -> Res<()> {
        let v = self.v;
        let again = !self.done.insert(dir.oid);
        if again {
            return Ok(());
        }
        v.bind(w, dir);
        let fd = v.dir_fd(dir)?;
        let (entries, changed) = {
            let _lock = dir.effect.lock();
            let st = stat_fd(raw(&fd))?;
            let entries = list(v, raw(&fd))?;
            let changed = self.wanted(dir.oid, ctime_ns(&st));
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
            if self.done.contains(&e.oid) {
                continue;
            }
            if !is_dir {
                self.done.insert(e.oid);
                if !self.wanted(e.oid, e.ctime_ns) {
                    continue;
                }
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
}
