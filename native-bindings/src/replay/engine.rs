//! The replay's inner state and what every operation uses: objects, descriptors, bindings, policy.
//!
//! Runs on one thread only. Strict by default: what the target lacks is a divergence. Where the
//! target may already be ahead of the record (the one record that was interrupted, a scan that is
//! repairing the tree, the window after a power loss) records are applied as *facts* (`facts`).

use super::checkpoints::Watched;
use super::compare::Comparison;
use super::descriptors::Descriptors;
use super::error::{Done, Fault, ReplayError};
use super::fill::Fills;
use super::handle::Handle;
use super::identity::Identity;
use super::limits::{MAP_COMPACT_BYTES_MIN, MAP_COMPACT_BYTES_PER_OBJECT};
use super::map_log::Entry;
use super::needs::{Needs, OBJECT};
use super::objects::{Obj, Object, Objects, HOLLOW, IMAGE_CAPS, NO_SLOT, UNNAMED};
use super::past::Keeping;
use super::state::{self, HollowNames, Living, State};
use super::sys::{self, Name, Stamp};
use super::times::PendingTimes;
use super::{Doubt, Position, ReplayOptions};
use crate::codes::{fs_used_bytes, CodeStore};
use crate::record::Oid;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Instant;

/// What the kernel adds to the path of a directory that was removed.
const DELETED: &[u8] = b" (deleted)";

/// What a descriptor is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Attributes, or a directory's entries.
    Any,
    /// A regular file's contents.
    Write,
}

/// Everything that replay keeps between records.
pub(super) struct Engine {
    pub uuid: [u8; 16],
    pub root: OwnedFd,
    pub state: State,
    pub objects: Objects,
    pub fds: Descriptors,
    pub times: PendingTimes,
    pub identity: Identity,
    /// Stand-ins and their names, inside scans.
    pub hollow: HashMap<Oid, HollowNames>,
    /// security.capability values told by images, inside scans.
    pub caps: HashMap<Oid, Vec<u8>>,
    /// Directory times of a record that was interrupted.
    pub dir_times: Vec<(u64, Oid, Stamp)>,
    /// What the target is known to lack.
    pub needs: Needs,
    /// What was brought of it, and is not certainly on the disk.
    pub fills: Fills,
    pub comparison: Comparison,
    /// Codes of what the target's files hold; `None` where they cannot be kept.
    pub codes: Option<CodeStore>,
    /// Comparisons and codes are looked at.
    pub compares: bool,
    /// The next record may have had its effect already.
    pub in_doubt: bool,
    /// The record being applied.
    pub seq: u64,
    pub unsealed_count: usize,
    /// So many of the files made by the image of a directory keep their descriptors.
    pub fds_to_come: usize,
    /// The next record of the frame writes this object's data up to here.
    pub written_next: (Oid, u64),
    pub watched: Watched,
    /// Records passed over because their object is not known in a repair.
    pub skipped: u64,
    pub last_checkpoint: Instant,
    pub since_checkpoint: (u64, u64),
    /// The history, if one is written.
    pub keeping: Option<Keeping>,
    /// The last seq of the frame being applied.
    pub frame_last: u64,
}

impl Engine {
    pub fn open(options: &ReplayOptions) -> Result<Self, ReplayError> {
        let ReplayOptions { target, uuid, state_dir, start, restart, compare, history } = options;
        let uuid = *uuid;
        let root = state::open_dir(target).map_err(state::open_error)?;
        let identity = Identity::of_this_thread().map_err(state::open_error)?;
        let (state, memory) = State::open(state_dir, &root, uuid, start, *restart)?;
        let codes = compare.then(|| open_codes(state_dir, uuid, &root)).flatten();
        let in_doubt = !state.was_closed;
        let mut engine = Self {
            uuid,
            root,
            objects: memory.objects,
            fds: Descriptors::new(),
            times: PendingTimes::default(),
            identity,
            hollow: memory.hollow,
            caps: memory.caps,
            dir_times: memory.dir_times,
            needs: memory.needs,
            fills: Fills::default(),
            comparison: Comparison::default(),
            codes,
            compares: *compare,
            in_doubt,
            seq: 0,
            unsealed_count: 0,
            fds_to_come: 0,
            written_next: (Oid::NONE, 0),
            watched: Watched::default(),
            skipped: 0,
            last_checkpoint: Instant::now(),
            since_checkpoint: (0, 0),
            keeping: history.clone().map(Keeping::new),
            frame_last: 0,
            state,
        };
        engine.past_begins();
        if *restart || engine.state.fresh {
            engine.past_restarts();
        }
        engine.restore_seals().map_err(state::open_error)?;
        // The base may have been copied a moment ago: a redo from here needs it on the disk.
        if engine.state.fresh || engine.state.header.checkpoint().is_none() {
            engine.checkpoint_now().map_err(state::open_error)?;
        }
        Ok(engine)
    }

    /// Ends the use of the state in good order; a frame that failed half way stays half way.
    pub fn close(&mut self) -> Result<Position, ReplayError> {
        let fault = |f| ReplayError::of_fault(&f, 0, "close", Vec::new());
        if self.in_doubt {
            self.state.checkpoint_now().map_err(fault)?;
        } else {
            self.flush_times().map_err(fault)?;
            self.wanted().map_err(fault)?;
            self.state.close().map_err(fault)?;
            if let Some(codes) = &self.codes {
                // Without it the codes are computed again after a power loss.
                let _ = codes.close();
            }
        }
        Ok(self.position())
    }

    pub fn doubt(&self) -> Option<Doubt> {
        let header = &self.state.header;
        let ceiling = header.ceiling();
        (ceiling != 0).then(|| Doubt {
            from_seq: header.effect_seq() + 1,
            to_seq: if ceiling == u64::MAX { 0 } else { ceiling },
        })
    }

    pub fn scanning(&self) -> bool {
        self.state.header.scans() != 0
    }

    /// Within the records that a power loss has put in doubt.
    pub fn redoing(&self) -> bool {
        self.seq <= self.state.header.ceiling()
    }

    /// The target may be ahead of the record, or be under repair: apply facts.
    pub fn lenient(&self) -> bool {
        self.in_doubt || self.forgives_unknown()
    }

    /// The target is not what its source was before this record: something lacks, or is ahead.
    pub fn lacks_any(&self) -> bool {
        !self.needs.is_empty() || self.needs.foretold(self.seq)
    }

    /// A record about an object that is not known is passed over.
    pub fn forgives_unknown(&self) -> bool {
        self.scanning() || self.redoing() || self.lacks_any()
    }

    /// The object of a record; `None` when the record is to be passed over.
    pub fn object(&mut self, oid: Oid) -> Done<Option<Obj>> {
        if let Some(obj) = self.objects.find(oid) {
            return Ok(Some(obj));
        }
        if self.objects.is_removed(oid) {
            return Ok(None);
        }
        if self.forgives_unknown() {
            self.pass_over(oid)?;
            return Ok(None);
        }
        Err(Fault::Diverged("the journal never said where this object is"))
    }

    /// A record about an object that is not known, or gone, changes nothing. An image of it is still to
    /// come; where no scan is to bring it, it is asked for.
    pub fn pass_over(&mut self, oid: Oid) -> Done {
        self.skipped += 1;
        if self.scanning() || self.redoing() {
            return Ok(());
        }
        self.need(oid, OBJECT)?;
        self.need(oid, (0, u64::MAX))
    }

    /// The directory that a record makes or takes names in; unlike other objects it cannot be gone.
    pub fn directory(&mut self, oid: Oid) -> Done<Option<Obj>> {
        let mut found = self.objects.find(oid);
        if self.forgives_unknown() {
            // One that was removed behind our back counts as not known.
            found = self.alive(oid)?;
        }
        match found {
            Some(obj) if self.objects.get(obj).is_dir() => Ok(Some(obj)),
            Some(_) => Err(Fault::Diverged("the parent is not a directory")),
            None if self.forgives_unknown() => {
                self.pass_over(oid)?;
                Ok(None)
            }
            None => Err(Fault::Diverged("the directory is not at the target")),
        }
    }

    /// An open descriptor of the object; it stays open until the next record.
    pub fn fd(&mut self, obj: Obj, access: Access) -> Done<RawFd> {
        let object = *self.objects.get(obj);
        if object.slot != NO_SLOT {
            if let Some((fd, writable)) = self.fds.get(object.slot) {
                if access == Access::Any || writable || !object.is_regular() {
                    return Ok(fd);
                }
            }
            self.close_fd(obj);
        }
        let (fd, writable) = self.open_object(&object)?;
        if access == Access::Write && !writable && object.is_regular() {
            // Once more, for the errno: immutable, or being executed.
            let mount = self.root.as_raw_fd();
            object.handle.open(mount, libc::O_RDWR | libc::O_NONBLOCK)?;
        }
        self.keep_fd(obj, fd, writable)
    }

    fn open_object(&self, object: &Object) -> Done<(OwnedFd, bool)> {
        let mount = self.root.as_raw_fd();
        if object.is_dir() {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME;
            return Ok((object.handle.open(mount, flags)?, false));
        }
        if !object.is_regular() {
            return Ok((object.handle.open(mount, libc::O_PATH)?, false));
        }
        let flags = libc::O_NOATIME | libc::O_NONBLOCK;
        match object.handle.open(mount, libc::O_RDWR | flags) {
            Ok(fd) => Ok((fd, true)),
            // Immutable, append-only, or being executed: attributes can still be had.
            Err(e) if e.is(libc::EPERM) || e.is(libc::ETXTBSY) => {
                Ok((object.handle.open(mount, libc::O_RDONLY | flags)?, false))
            }
            Err(e) => Err(e),
        }
    }

    /// Puts a descriptor into the cache; the one that makes room has its time written.
    pub fn keep_fd(&mut self, obj: Obj, fd: OwnedFd, writable: bool) -> Done<RawFd> {
        if let Some(victim) = self.fds.victim() {
            let slot = self.objects.get(victim).slot;
            if let Some((fd, _)) = self.fds.get(slot) {
                self.flush_time_through(victim, fd)?;
            }
            self.close_fd(victim);
        }
        let number = fd.as_raw_fd();
        let slot = self.fds.keep(fd, obj, writable);
        self.objects.get_mut(obj).slot = slot;
        Ok(number)
    }

    pub fn close_fd(&mut self, obj: Obj) {
        let object = self.objects.get_mut(obj);
        let slot = std::mem::replace(&mut object.slot, NO_SLOT);
        if slot != NO_SLOT {
            self.fds.close(slot);
        }
    }

    /// From now on `oid` is this object of the target. Logged before anything relies on it.
    pub fn bind(&mut self, oid: Oid, handle: Handle, mode: u32, flags: u8) -> Done<Obj> {
        let kind = ((mode & libc::S_IFMT) >> 12) as u8;
        if let Some(obj) = self.objects.find(oid) {
            let object = self.objects.get(obj);
            if object.handle == handle && object.kind == kind && object.flags & UNNAMED == flags {
                return Ok(obj);
            }
            self.detach(obj);
        }
        if let Some(obj) = self.objects.find_handle(&handle) {
            self.detach(obj);
        }
        self.state.log(&Entry::Bind { oid, handle, kind, flags })?;
        Ok(self.objects.add(oid, handle, kind, flags))
    }

    /// Takes the object out of the map, with all that hangs on it.
    fn detach(&mut self, obj: Obj) -> Object {
        self.drop_pending(obj);
        self.close_fd(obj);
        let object = self.objects.take(obj);
        if object.flags & HOLLOW != 0 {
            self.hollow.remove(&object.oid);
        }
        if object.flags & IMAGE_CAPS != 0 {
            self.caps.remove(&object.oid);
        }
        object
    }

    /// The object has no names left: records about it change nothing.
    pub fn remove(&mut self, oid: Oid) -> Done {
        self.state.log(&Entry::Removed { oid })?;
        if let Some(obj) = self.objects.find(oid) {
            self.detach(obj);
        }
        self.need_nothing(oid)?;
        self.objects.remember_removed(oid);
        Ok(())
    }

    /// Nothing about this object comes any more.
    pub fn forget(&mut self, oid: Oid) -> Done {
        let known = self.objects.find(oid);
        if known.is_none() && !self.objects.is_removed(oid) {
            return Ok(());
        }
        self.state.log(&Entry::Forgotten { oid })?;
        if let Some(obj) = known {
            self.detach(obj);
        }
        self.objects.forget_removed(oid);
        Ok(())
    }

    /// Rewrites the object map's file when most of it is history.
    pub fn compact_map(&mut self) -> Done {
        let live = (self.objects.len() + self.objects.removed_len()) as u64;
        if self.state.map_len() <= MAP_COMPACT_BYTES_MIN.max(live * MAP_COMPACT_BYTES_PER_OBJECT) {
            return Ok(());
        }
        self.state.compact(&Living {
            objects: &self.objects,
            hollow: &self.hollow,
            caps: &self.caps,
            dir_times: &self.dir_times,
            needs: &self.needs,
        })
    }

    /// The name an object has in the staging area.
    pub fn staging_name(oid: Oid) -> Done<Name> {
        Name::component(format!("{:016x}-{:016x}", oid.ino, oid.gen).as_bytes())
    }

    /// Where an object is, for messages only.
    pub fn path_of(&mut self, oid: Oid, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        if let Some(obj) = self.objects.find(oid) {
            if let Ok(fd) = self.fd(obj, Access::Any) {
                let link = sys::ProcPath::of(fd);
                let root = sys::ProcPath::of(self.root.as_raw_fd());
                path = sys::readlinkat(libc::AT_FDCWD, link.c()).unwrap_or_default();
                let base = sys::readlinkat(libc::AT_FDCWD, root.c()).unwrap_or_default();
                let gone = sys::fstat(fd).is_ok_and(|st| st.st_nlink == 0);
                if let Some(end) = path.len().checked_sub(DELETED.len()).filter(|_| gone) {
                    if path.ends_with(DELETED) {
                        path.truncate(end);
                    }
                }
                if path.starts_with(&base) {
                    path.drain(..base.len());
                }
            }
        }
        if !name.is_empty() {
            if !path.ends_with(b"/") && !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }
}

/// The codes beside the replay's state. Whoever changes the target while no replay watches is not
/// noticed by them, only by a comparison, which reads everything.
fn open_codes(state_dir: &Path, uuid: [u8; 16], root: &OwnedFd) -> Option<CodeStore> {
    let used = fs_used_bytes(root.as_raw_fd());
    CodeStore::open(&state_dir.join("codes"), uuid, used, true).ok()
}
