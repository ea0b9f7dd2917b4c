//! What replay keeps of what it is about to change, for the history of the replica.
//!
//! Before-images carry the seq of the record that makes the change, the objects are those of the target.
//! A record that is applied again after a death may keep some of them again: what was kept first is the
//! state before the record, and is what the history shows. Times that are still to be written (`times`)
//! count as written.
//!
//! While a baseline is on its way, or the target is known to lack something, the target is not what its
//! source was: nothing is kept, and no moment before the end of it can be looked at.

use super::apply::Record;
use super::compare::is_comparison;
use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::handle::Handle;
use super::objects::{Obj, UNNAMED};
use super::sys::{Name, Stamp};
use super::{BASELINE_AWAITED, BASELINE_OWN};
use crate::capture::StoredHandle;
use crate::history::log::{Author, Cause};
use crate::history::object::{has_xattrs, Led};
use crate::history::past::{Keeper, Past};
use crate::history::History;
use crate::interceptor::attr::{stat_at, stat_fd, Stat};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::handle::FileHandle;
use crate::record::{valid, Fields, Oid};
use std::ffi::CStr;
use std::os::fd::RawFd;
use std::sync::Arc;

const MOVES: u32 = (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) as u32;
/// Modes of fallocate(2) that change no byte.
const ALLOCATES: u32 = (libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_UNSHARE_RANGE) as u32;

/// The history that a replay writes.
pub(super) struct Keeping {
    pub history: Arc<History>,
    past: Past,
    /// Objects whose attributes the record being applied has kept.
    told: Vec<Oid>,
    /// The last record passed by: nothing is kept of those up to it.
    passed: u64,
}

impl Keeping {
    pub fn new(history: Arc<History>) -> Self {
        Self { history, past: Past::default(), told: Vec::new(), passed: 0 }
    }
}

/// What becomes of an object's extended attributes.
#[derive(Clone, Copy)]
enum Xattrs {
    Stay,
    /// Those that are there may change: ACLs, file capabilities.
    MayGo,
    Change,
}

/// An object of the target, as the history names it.
struct Known {
    oid: Oid,
    handle: FileHandle,
    st: Stat,
}

impl Known {
    fn of(handle: &Handle, mut st: Stat, pending: Option<Stamp>) -> Done<Self> {
        if let Some((sec, nsec)) = pending {
            (st.stx_mtime.tv_sec, st.stx_mtime.tv_nsec) = (sec, nsec);
        }
        let len = u32::from(handle.len);
        let stored = StoredHandle { kind: handle.kind, len, bytes: handle.bytes };
        let handle = FileHandle::from_stored(&stored)
            .ok_or(Fault::Unsupported("a history of objects with so long file handles"))?;
        Ok(Self { oid: handle.oid(st.stx_ino), handle, st })
    }

    fn kind(&self) -> u32 {
        u32::from(self.st.stx_mode) & libc::S_IFMT
    }

    fn led(&self) -> Led {
        Led { oid: self.oid, handle: self.handle, kind: self.kind() }
    }
}

fn fault(e: Errno) -> Fault {
    Fault::Sys { call: "history", errno: e.0 }
}

impl Engine {
    /// The target is not what its source was, until a baseline or a repair has ended.
    fn resyncing(&self) -> bool {
        let own = BASELINE_AWAITED | BASELINE_OWN;
        self.state.header.scans() & own != 0 || self.lacking() > 0
    }

    pub(super) fn keeps(&self) -> bool {
        self.keeping.is_some() && !self.resyncing()
    }

    /// A frame begins.
    pub(super) fn past_of_frame(&mut self) {
        let resyncing = self.resyncing();
        let Some(keeping) = &mut self.keeping else { return };
        if keeping.passed != 0 && !resyncing {
            // The history begins there: that has to outlive the machine.
            keeping.history.raise_floor(keeping.passed);
            keeping.passed = 0;
        }
    }

    /// The tree of `last` is there.
    pub(super) fn past_reaches(&mut self, last: u64) {
        if let Some(keeping) = &self.keeping {
            keeping.history.set_reached(last);
        }
    }

    fn keep(&mut self, keep: impl FnOnce(&mut Keeper) -> Res<()>) -> Done {
        let exactly = self.lenient().then_some(self.seq);
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        let (history, past) = (&*keeping.history, &mut keeping.past);
        let kept = keep(&mut Keeper { history, past, low: self.seq, exactly });
        keeping.past.stamp(self.seq, Some(&keeping.history));
        kept.map_err(fault)
    }

    /// What a record is about to change. Names that an image takes or gives are kept where that happens
    /// (`facts`).
    pub(super) fn past_of_record(&mut self, r: &Record) -> Done {
        let resyncing = self.resyncing();
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        keeping.told.clear();
        if resyncing {
            // Of the whole frame: a part of it is no moment to look at.
            if keeping.passed < self.frame_last {
                keeping.history.pass_by(self.frame_last);
                keeping.passed = self.frame_last;
            }
            return Ok(());
        }
        let header = r.view.header();
        let (uid, gid, pid, comm) = (header.uid, header.gid, header.pid, header.comm);
        keeping.past.author = Author { uid, gid, pid, op: header.op as u8, comm };
        keeping.past.clock_ns = Some(header.clock);
        if is_comparison(r) {
            return Ok(());
        }
        match self.past_of_fields(r) {
            // The effect tells what that means.
            Err(Fault::Stale) => Ok(()),
            done => done,
        }
    }

    fn past_of_fields(&mut self, r: &Record) -> Done {
        match r.fields {
            Fields::Mknod(c) | Fields::Mkdir(c) | Fields::Symlink(c) => {
                self.past_of_new_name(c.parent, c.name)
            }
            Fields::Link { parent, name, .. } => {
                self.past_of_new_name(parent, name)?;
                self.past_of_attr(r.oid)
            }
            Fields::Unlink { parent, name, .. } | Fields::Rmdir { parent, name, .. } => {
                self.past_of_name(parent, name, true)
            }
            Fields::Rename { old_parent, new_parent, flags, old_name, new_name, .. } => {
                self.past_of_name(old_parent, old_name, false)?;
                self.past_of_name(new_parent, new_name, flags & libc::RENAME_EXCHANGE == 0)
            }
            Fields::ImageEntry { parent, .. } => self.past_of_attr(parent),
            Fields::ImageDir { .. } | Fields::Setflags { .. } | Fields::Setxflags { .. } => {
                self.past_of_attr(r.oid)
            }
            Fields::Setxattr { .. } | Fields::Removexattr { .. } => {
                self.past_of_file(r.oid, Xattrs::Change, None)
            }
            Fields::Setattr { valid: v, size, .. } => {
                let shapes = valid::MODE | valid::UID | valid::GID | valid::SIZE;
                let range = (v & valid::SIZE != 0).then_some((size, u64::MAX));
                let xattrs = if v & shapes != 0 { Xattrs::MayGo } else { Xattrs::Stay };
                self.past_of_file(r.oid, xattrs, range)
            }
            Fields::Write { offset } | Fields::ImageData { offset } => {
                let end = offset + r.view.payload().len() as u64;
                self.past_of_file(r.oid, Xattrs::MayGo, Some((offset, end)))
            }
            Fields::ImageHole { offset, len } | Fields::Copy { offset, len, .. } => {
                self.past_of_file(r.oid, Xattrs::MayGo, Some((offset, offset.saturating_add(len))))
            }
            Fields::Fallocate { mode, offset, len, .. } => {
                let end = if mode & MOVES != 0 { u64::MAX } else { offset.saturating_add(len) };
                let range = (mode & !ALLOCATES != 0).then_some((offset, end));
                self.past_of_file(r.oid, Xattrs::MayGo, range)
            }
            Fields::Marker { name } => {
                self.past_of_marker(name);
                Ok(())
            }
            Fields::Image { size, .. } => {
                self.past_of_file(r.oid, Xattrs::Change, Some((size, u64::MAX)))
            }
            _ => Ok(()),
        }
    }

    /// A moment that the source has named can be found by that name.
    fn past_of_marker(&mut self, name: &[u8]) {
        let Some(Keeping { history, past, .. }) = &self.keeping else { return };
        let cause = Cause { author: past.author, low: self.seq, clock_ns: past.clock_ns };
        // Without room it has no name here: no reason to stop.
        let _ = history.name_point(self.seq, name, cause);
    }

    /// An object of the map as it is; `None` when it is not known, or in no tree yet.
    fn known(&mut self, oid: Oid) -> Done<Option<(Known, RawFd)>> {
        let Some(obj) = self.objects.find(oid) else { return Ok(None) };
        self.known_obj(obj)
    }

    fn known_obj(&mut self, obj: Obj) -> Done<Option<(Known, RawFd)>> {
        let object = *self.objects.get(obj);
        if object.flags & UNNAMED != 0 {
            return Ok(None);
        }
        let fd = self.fd(obj, Access::Any)?;
        let st = stat_fd(fd).map_err(fault)?;
        let known = Known::of(&object.handle, st, self.pending_time(obj))?;
        Ok(Some((known, fd)))
    }

    fn tell(&mut self, known: &Known, at: (RawFd, &CStr)) -> Done {
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        if keeping.told.contains(&known.oid) {
            return Ok(());
        }
        keeping.told.push(known.oid);
        self.keep(|keeper| keeper.attr_told(known.oid, &known.st, at))
    }

    fn past_of_attr(&mut self, oid: Oid) -> Done {
        match self.known(oid)? {
            Some((known, fd)) => self.tell(&known, (fd, c"")),
            None => Ok(()),
        }
    }

    /// Attributes, extended ones if they can change along, and bytes of a file; to `u64::MAX`: all that
    /// follow.
    fn past_of_file(&mut self, oid: Oid, xattrs: Xattrs, range: Option<(u64, u64)>) -> Done {
        let Some((known, fd)) = self.known(oid)? else { return Ok(()) };
        self.tell(&known, (fd, c""))?;
        let change = match xattrs {
            Xattrs::Change => true,
            Xattrs::MayGo => has_xattrs(&fd),
            Xattrs::Stay => false,
        };
        if change {
            self.keep(|keeper| keeper.xattrs(known.oid, &fd))?;
        }
        match range.filter(|_| known.kind() == libc::S_IFREG) {
            Some((from, u64::MAX)) => {
                self.identity.become_caller(0, 0, 0)?; // a file may be made for it
                self.keep(|keeper| keeper.range(known.oid, fd, from, u64::MAX))
            }
            Some((from, to)) => self.keep(|keeper| keeper.data(known.oid, fd, from, to)),
            None => Ok(()),
        }
    }

    fn past_of_new_name(&mut self, parent: Oid, name: &[u8]) -> Done {
        if self.lenient() {
            return self.past_of_name(parent, name, true);
        }
        let Some((dir, fd)) = self.known(parent)? else { return Ok(()) };
        self.tell(&dir, (fd, c""))?;
        self.keep(|keeper| keeper.name(dir.oid, name, None))
    }

    /// What a name leads to; `goes`: the object loses it, with the last one everything.
    fn past_of_name(&mut self, parent: Oid, name: &[u8], goes: bool) -> Done {
        let Some(obj) = self.objects.find(parent) else { return Ok(()) };
        self.past_of_entry(obj, &Name::component(name)?, goes)
    }

    pub(super) fn past_of_entry(&mut self, parent: Obj, name: &Name, goes: bool) -> Done {
        if !self.keeps() {
            return Ok(());
        }
        match self.known_obj(parent)? {
            Some((dir, fd)) => self.past_at(dir, fd, name, goes),
            None => Ok(()),
        }
    }

    /// The same below an open directory.
    pub(super) fn past_of_entry_at(&mut self, dir: RawFd, name: &Name, goes: bool) -> Done {
        if !self.keeps() {
            return Ok(());
        }
        let handle = Handle::of_fd(dir)?;
        let pending = self.objects.find_handle(&handle).and_then(|obj| self.pending_time(obj));
        let known = Known::of(&handle, stat_fd(dir).map_err(fault)?, pending)?;
        self.past_at(known, dir, name, goes)
    }

    fn past_at(&mut self, dir: Known, fd: RawFd, name: &Name, goes: bool) -> Done {
        self.tell(&dir, (fd, c""))?;
        let st = match stat_at(fd, name.as_c_str()) {
            Err(Errno(libc::ENOENT)) => {
                return self.keep(|keeper| keeper.name(dir.oid, name.bytes(), None));
            }
            st => st.map_err(fault)?,
        };
        let handle = Handle::of_name(fd, name)?;
        let pending = self.objects.find_handle(&handle).and_then(|obj| self.pending_time(obj));
        let found = Known::of(&handle, st, pending)?;
        self.keep(|keeper| keeper.name(dir.oid, name.bytes(), Some(&found.led())))?;
        self.past_of_found(&found, fd, name, goes)
    }

    fn past_of_found(&mut self, found: &Known, dir: RawFd, name: &Name, goes: bool) -> Done {
        self.tell(found, (dir, name.as_c_str()))?;
        let is_dir = found.kind() == libc::S_IFDIR;
        if !goes || (found.st.stx_nlink > 1 && !is_dir) {
            return Ok(());
        }
        self.identity.become_caller(0, 0, 0)?;
        let (oid, kind) = (found.oid, found.kind());
        self.keep(|keeper| keeper.all_but_attr(oid, dir, name.as_c_str(), kind))
    }

    /// An object that gets one more name, or another place.
    pub(super) fn past_of_object(&mut self, obj: Obj) -> Done {
        if !self.keeps() {
            return Ok(());
        }
        match self.known_obj(obj)? {
            Some((known, fd)) => self.tell(&known, (fd, c"")),
            None => Ok(()),
        }
    }

    /// Where the history begins that this replay continues.
    pub(super) fn past_begins(&mut self) {
        let header = &self.state.header;
        let reached = header.place().seq;
        // Of a frame that was begun, the record after that may have had its effect.
        let begun = self.in_doubt && header.effect_chain() != header.place().chain;
        let touched = header.effect_seq().max(reached) + u64::from(begun);
        if let Some(keeping) = &self.keeping {
            keeping.history.replay_begins(reached, touched);
        }
    }

    /// A target that may be anything: the history has to begin anew.
    pub(super) fn past_restarts(&mut self) {
        if let Some(keeping) = &self.keeping {
            keeping.history.begin_anew(self.state.header.place().seq);
        }
    }
}
