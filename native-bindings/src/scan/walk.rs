//! Re-capture, baseline, comparison and repair: walks the tree and captures all that may differ from what
//! a reader of the journal knows.
//!
//! After a power loss the journal may lack the last changes and the tree may have lost some that the
//! journal has. Objects changed (by ctime) since the last checkpoint, and those that the journal names
//! since then, are captured whole; all else was durable in both before the checkpoint. Applications work
//! on meanwhile: images and live changes share one order.

use super::code::{code_data, Pace};
use super::count::start_count;
use super::fill::image_later;
use super::image::{bracket, image_data, image_dir, image_meta, image_object, list, Entry};
use super::{ScanState, KIND_BASELINE, KIND_REPAIR, KIND_VERIFY};
use crate::interceptor::attr::{ctime_ns, stat_fd};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::table::{raw, Inode};
use crate::interceptor::{Volume, Worker};
use crate::record::{Oid, Op, FLAG_COMPARE};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// What a scan writes down of the data of regular files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanData {
    /// All of it.
    Whole,
    /// Codes instead: for a tree that was the volume's before.
    Codes,
    /// Nothing of large files, of which the reader is brought the data as it asks for it.
    Later,
}

/// What a scan looks at.
pub struct ScanOptions {
    /// KIND_RECAPTURE, KIND_BASELINE, KIND_VERIFY or KIND_REPAIR.
    pub kind: u8,
    /// Objects changed at or after this time (ns since the epoch); 0: all.
    pub changed_since_ns: u64,
    /// These in any case, and of their data these ranges; all of it where none is named.
    pub objects: HashMap<Oid, Vec<(u64, u64)>>,
    pub data: ScanData,
    /// Most bytes read in a second; 0: no limit.
    pub bytes_per_s: u64,
}

/// Starts a scan in a thread of its own. EBUSY when one runs, ECANCELED when the volume goes down.
pub fn start_scan(v: &Arc<Volume>, options: ScanOptions) -> Res<()> {
    let s = &v.scan;
    s.begin()?;
    for counter in [&s.objects, &s.imaged, &s.bytes, &s.errors, &s.total_objects, &s.total_bytes] {
        counter.store(0, Ordering::Relaxed);
    }
    s.counted.store(false, Ordering::Relaxed);
    let number = s.number.fetch_add(1, Ordering::AcqRel) + 1;
    let baseline = options.kind == KIND_BASELINE;
    let volume = v.clone();
    let run = move || {
        let kind = options.kind;
        let result = Worker::new(volume.ring.clone()).and_then(|mut w| {
            bracket(&volume, &mut w, Op::ScanBegin, kind)?;
            if kind == KIND_BASELINE {
                // A reader that begins here knows no object yet.
                volume.rebind_all();
            }
            Walk::new(&volume, &options).run(&mut w)?;
            bracket(&volume, &mut w, Op::ScanEnd, kind)
        });
        if result.is_err() {
            ScanState::count(&volume.scan.errors, 1);
        }
        volume.scan.end();
    };
    if let Err(e) = std::thread::Builder::new().name("holdfast-scan".into()).spawn(run) {
        s.end();
        return Err(Errno::from(e));
    }
    if baseline {
        // Without it the walk has no known end, and goes on all the same.
        let _ = start_count(v, number);
    }
    Ok(())
}

struct Walk<'a> {
    v: &'a Arc<Volume>,
    options: &'a ScanOptions,
    /// Objects looked at: a reader knows them.
    done: HashSet<Oid>,
    /// Objects of a repair that have not been met.
    left: usize,
    pace: Pace,
}

impl<'a> Walk<'a> {
    fn new(v: &'a Arc<Volume>, options: &'a ScanOptions) -> Self {
        let (left, pace) = (options.objects.len(), Pace::new(options.bytes_per_s));
        Self { v, options, done: HashSet::new(), left, pace }
    }

    /// Flags of the records: whether a reader is to make its tree so, or to say whether it is.
    fn flags(&self) -> u8 {
        if self.options.kind == KIND_VERIFY {
            FLAG_COMPARE
        } else {
            0
        }
    }

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

    /// The directories in the queue, and all that is below them.
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
            if self.v.scan.is_stopped() {
                return Err(Errno(libc::ECANCELED));
            }
            if self.options.kind == KIND_REPAIR && self.left == 0 {
                queue.drain(..).for_each(|dir| {
                    self.v.table.forget(&dir, u64::from(!Arc::ptr_eq(&dir, &self.v.root)));
                });
            }
        }
        Ok(())
    }

    fn wanted(&self, oid: Oid, ctime: u64) -> bool {
        self.options.changed_since_ns == 0
            || ctime >= self.options.changed_since_ns
            || self.options.objects.contains_key(&oid)
    }

    /// An object of a repair is on its way.
    fn met(&mut self, oid: Oid) {
        self.left -= usize::from(self.left > 0 && self.options.objects.contains_key(&oid));
    }

    /// One object that is no directory.
    fn object(&mut self, w: &mut Worker, inode: &Arc<Inode>) -> Res<()> {
        let (v, kind) = (self.v, self.options.kind);
        self.met(inode.oid);
        match self.options.objects.get(&inode.oid).filter(|ranges| !ranges.is_empty()) {
            Some(ranges) => {
                image_object(v, w, inode, None)?;
                let regular = inode.is_regular();
                ranges
                    .iter()
                    .filter(|_| regular)
                    .try_for_each(|(from, to)| image_data(v, w, inode, *from, *to))
            }
            None if kind == KIND_VERIFY || self.options.data == ScanData::Codes => {
                self.metadata(w, inode)?;
                match inode.is_regular() {
                    true => {
                        let known = kind != KIND_VERIFY;
                        if known {
                            v.scan.fills.note(inode);
                        }
                        code_data(v, w, inode, self.flags(), known, &mut self.pace)
                    }
                    false => Ok(()),
                }
            }
            None if self.options.data == ScanData::Later && inode.is_regular() => {
                image_later(v, w, inode)
            }
            None => image_object(v, w, inode, Some((0, u64::MAX))),
        }
    }

    fn metadata(&mut self, w: &mut Worker, inode: &Arc<Inode>) -> Res<()> {
        self.v.bind(w, inode);
        let _lock = inode.effect.lock();
        ScanState::count(&self.v.scan.imaged, 1);
        image_meta(self.v, w, inode, self.flags())
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
            // A reader that does not know an object needs the name of it, too.
            let named = |e: &Entry| self.options.objects.contains_key(&e.oid);
            let changed = self.wanted(dir.oid, ctime_ns(&st))
                || self.options.kind == KIND_REPAIR && entries.iter().any(named);
            if changed {
                image_dir(v, w, dir, &entries, &st, self.flags())?;
            }
            (entries, changed)
        };
        if changed {
            self.met(dir.oid);
            self.metadata(w, dir)?;
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
            let result = self.object(w, &inode);
            v.table.forget(&inode, 1);
            match result {
                Ok(()) | Err(Errno(libc::ESTALE | libc::ENOENT)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
