//! The state directory: position, object map and staging area of one replay.
//!
//! It lies on the target's mount, beside the target. `header` is the position, `map.N` the object
//! map, `unnamed/` holds objects that TMPFILE made, `parked/` objects that lost their last name
//! inside a scan. Format: docs/FORMAT.md section 3.

use super::error::{Done, Fault, ReplayCode, ReplayError};
use super::handle::Handle;
use super::header::{Checkpoint, Header, MapEnd, MAGIC, VERSION};
use super::limits::{
    AHEAD_SEQS_MAX, LOCK_PAUSE, LOCK_TRIES, MAP_COMPACT_BYTES_MIN, MAP_COMPACT_BYTES_PER_OBJECT,
};
use super::map_log::{self, Entry, MapLog};
use super::needs::{Needs, OBJECT};
use super::objects::Objects;
use super::sys::{self, Name, Stamp};
use super::Start;
use crate::interceptor::attr::stat_fd;
use crate::record::Oid;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::JoinHandle;

/// Names of a stand-in: directory and name in it.
pub type HollowNames = Vec<(Oid, Vec<u8>)>;

/// What the object map's file says.
#[derive(Default)]
pub struct Memory {
    pub objects: Objects,
    pub hollow: HashMap<Oid, HollowNames>,
    pub caps: HashMap<Oid, Vec<u8>>,
    /// Directory times that the record with this seq must leave behind.
    pub dir_times: Vec<(u64, Oid, Stamp)>,
    pub needs: Needs,
}

/// What of it is still true, for writing it anew.
pub struct Living<'a> {
    pub objects: &'a Objects,
    pub hollow: &'a HashMap<Oid, HollowNames>,
    pub caps: &'a HashMap<Oid, Vec<u8>>,
    pub dir_times: &'a [(u64, Oid, Stamp)],
    pub needs: &'a Needs,
}

/// The open state directory.
pub struct State {
    pub header: Header,
    log: MapLog,
    map: MapEnd,
    /// Where the map ended when it was last written anew.
    compacted: MapEnd,
    pub dir: OwnedFd,
    pub unnamed: OwnedFd,
    pub parked: OwnedFd,
    in_flight: Option<(JoinHandle<Done>, Checkpoint)>,
    /// The checkpoint before the last: certainly on the disk, because the last one wrote it there.
    durable_seq: u64,
    /// Made just now.
    pub fresh: bool,
    /// Made just now, or closed by its last user.
    pub was_closed: bool,
}

fn target_error(message: &str) -> ReplayError {
    ReplayError::new(ReplayCode::Target, "open", message)
}

fn state_error(message: impl Into<String>) -> ReplayError {
    ReplayError::new(ReplayCode::State, "open", message)
}

pub fn open_error(fault: Fault) -> ReplayError {
    ReplayError::of_fault(&fault, 0, "open", Vec::new())
}

fn boot_id() -> [u8; 16] {
    #[cfg_attr(not(test), allow(unused_mut))]
    let mut id = crate::boot::boot_id();
    #[cfg(test)]
    {
        id[0] ^= super::tests::crash::boots();
    }
    id
}

fn booted_at() -> (i64, u32) {
    #[cfg(test)]
    return super::tests::crash::booted_at();
    #[cfg(not(test))]
    crate::boot::booted_at()
}

/// Opens a directory by path; a symbolic link as the last component is refused.
pub fn open_dir(path: &Path) -> Done<OwnedFd> {
    let c = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Fault::Corrupt("a path contains NUL"))?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME;
    sys::openat(libc::AT_FDCWD, c.as_ptr(), flags, 0)
}

/// Whether `inner` is `outer` or lies below it.
fn lies_in(inner: &OwnedFd, outer: &OwnedFd) -> Done<bool> {
    let goal = sys::fstat(outer.as_raw_fd())?;
    let mut at = inner.try_clone().map_err(|_| sys::fault("dup"))?;
    loop {
        let here = sys::fstat(at.as_raw_fd())?;
        if (here.st_dev, here.st_ino) == (goal.st_dev, goal.st_ino) {
            return Ok(true);
        }
        let up = sys::openat(at.as_raw_fd(), c"..".as_ptr(), libc::O_PATH, 0)?;
        let above = sys::fstat(up.as_raw_fd())?;
        if (here.st_dev, here.st_ino) == (above.st_dev, above.st_ino) {
            return Ok(false);
        }
        at = up;
    }
}

fn check_places(target: &OwnedFd, dir: &OwnedFd) -> Result<(), ReplayError> {
    let (t, d) = (target.as_raw_fd(), dir.as_raw_fd());
    // SAFETY: a zeroed statfs is a valid value and out-pointer.
    let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: fs is a valid out-pointer.
    sys::check("fstatfs", || unsafe { libc::fstatfs(t, &mut fs) }.into()).map_err(open_error)?;
    if fs.f_type == 0x6573_5546 {
        return Err(target_error(
            "the target lies on a FUSE mount; replay onto the backing directory",
        ));
    }
    let (ts, ds) = (sys::fstat(t).map_err(open_error)?, sys::fstat(d).map_err(open_error)?);
    let mounts =
        (Handle::mount_of(t).map_err(open_error)?, Handle::mount_of(d).map_err(open_error)?);
    if ts.st_dev != ds.st_dev || mounts.0 != mounts.1 {
        return Err(target_error("the state directory is not on the target's mount"));
    }
    if lies_in(dir, target).map_err(open_error)? || lies_in(target, dir).map_err(open_error)? {
        return Err(target_error("the state directory and the target must not contain each other"));
    }
    Ok(())
}

fn subdir(dir: &OwnedFd, name: &[u8]) -> Done<OwnedFd> {
    let name = Name::component(name)?;
    match sys::mkdirat(dir.as_raw_fd(), &name, 0o700) {
        Err(e) if e.is(libc::EEXIST) => {}
        r => r?,
    }
    sys::openat(dir.as_raw_fd(), name.c(), libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

fn open_file(dir: &OwnedFd, name: &str) -> Done<File> {
    let name = Name::component(name.as_bytes())?;
    let flags = libc::O_RDWR | libc::O_CREAT;
    sys::openat(dir.as_raw_fd(), name.c(), flags, 0o600).map(File::from)
}

/// One replay per state directory. Asks for a while: a process that this one starts has the lock,
/// too, until it runs its program.
fn lock(file: &File) -> Result<(), ReplayError> {
    for _ in 0..LOCK_TRIES {
        // SAFETY: no pointers.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(ReplayError::new(ReplayCode::Busy, "open", "another replay uses the state directory"))
}

fn map_name(generation: u16) -> String {
    format!("map.{generation}")
}

impl State {
    /// Opens or makes the state directory of a replay onto `target`.
    pub fn open(
        path: &Path,
        target: &OwnedFd,
        uuid: [u8; 16],
        start: &Start,
        restart: bool,
    ) -> Result<(Self, Memory), ReplayError> {
        if let Err(e) = std::fs::DirBuilder::new().create(path) {
            if e.kind() != std::io::ErrorKind::AlreadyExists {
                let mut out = state_error(format!("cannot make the state directory: {e}"));
                out.errno = e.raw_os_error();
                return Err(out);
            }
        }
        let dir = open_dir(path).map_err(open_error)?;
        check_places(target, &dir)?;
        let file = open_file(&dir, "header").map_err(open_error)?;
        lock(&file)?;
        let header = Header::open(file).map_err(open_error)?;
        let root = Handle::of_fd(target.as_raw_fd()).map_err(open_error)?;
        let boot = boot_id();
        let fresh = header.is_blank();
        if fresh {
            header.create(uuid, boot, &root, start);
        }
        check_header(&header, uuid, &root)?;
        let mut after_power_loss = false;
        if header.boot() != boot && !header.is_closed() {
            let safe =
                header.checkpoint().ok_or_else(|| state_error("the last checkpoint is damaged"))?;
            // An empty checkpoint is before the first frame, whose seq is not known yet.
            let ceiling = match safe.effect_seq.max(safe.place.seq) {
                0 => u64::MAX,
                seq => seq + AHEAD_SEQS_MAX,
            };
            header.rewind(&safe, ceiling);
            after_power_loss = true;
        }
        let (mut memory, garbage) = load(&dir, &header, after_power_loss)?;
        if restart && !fresh {
            header.restart(start);
            memory.dir_times.clear();
            memory.needs = Needs::default();
        }
        let end = header.map_end();
        let log = open_file(&dir, &map_name(end.generation)).map_err(open_error)?;
        let mut state = Self {
            log: MapLog::new(log, end.len),
            map: end,
            compacted: end,
            unnamed: subdir(&dir, b"unnamed").map_err(open_error)?,
            parked: subdir(&dir, b"parked").map_err(open_error)?,
            dir,
            in_flight: None,
            durable_seq: header.checkpoint().map_or(0, |c| c.place.seq),
            fresh,
            was_closed: fresh || header.is_closed(),
            header,
        };
        state.remove_old_maps().map_err(open_error)?;
        if garbage || after_power_loss || (restart && !fresh) {
            let living = Living {
                objects: &memory.objects,
                hollow: &memory.hollow,
                caps: &memory.caps,
                dir_times: &memory.dir_times,
                needs: &memory.needs,
            };
            state.compact(&living).map_err(open_error)?;
        }
        state.header.set_boot(boot);
        state.header.set_closed(false);
        state.header.sync().map_err(open_error)?;
        Ok((state, memory))
    }

    fn remove_old_maps(&self) -> Done {
        let keep = map_name(self.map.generation);
        for (name, _) in sys::entries(self.dir.as_raw_fd())? {
            if name.starts_with(b"map.") && name != keep.as_bytes() {
                sys::unlinkat(self.dir.as_raw_fd(), &Name::component(&name)?, false)?;
            }
        }
        Ok(())
    }

    /// Writes the map anew without what is no longer true.
    pub fn compact(&mut self, memory: &Living) -> Done {
        let next = self.map.generation.wrapping_add(1);
        let file = open_file(&self.dir, &map_name(next))?;
        sys::ftruncate(file.as_raw_fd(), 0)?;
        let mut log = MapLog::new(file, 0);
        for o in memory.objects.iter() {
            log.append(&Entry::Bind {
                oid: o.oid,
                handle: o.handle,
                kind: o.kind,
                flags: o.flags & super::objects::UNNAMED,
            })?;
        }
        for oid in memory.objects.removed() {
            log.append(&Entry::Removed { oid })?;
        }
        for (oid, names) in memory.hollow {
            for (parent, name) in names {
                log.append(&Entry::HollowName { oid: *oid, parent: *parent, name: name.clone() })?;
            }
        }
        for (oid, value) in memory.caps {
            log.append(&Entry::Caps { oid: *oid, value: value.clone() })?;
        }
        for (seq, oid, (sec, nsec)) in memory.dir_times {
            log.append(&Entry::DirTime { seq: *seq, oid: *oid, sec: *sec, nsec: *nsec })?;
        }
        for (oid, need) in memory.needs.iter() {
            let object = need.object.then_some(OBJECT);
            for (from, to) in need.ranges.iter().copied().chain(object) {
                log.append(&Entry::Need { seq: need.seq, oid: *oid, from, to })?;
            }
        }
        if memory.needs.settled_after() > 0 {
            log.append(&Entry::Settles { seq: memory.needs.settled_after() })?;
        }
        log.sync()?;
        let old = self.map.generation;
        self.map = MapEnd { generation: next, len: log.len() };
        self.log = log;
        self.compacted = self.map;
        self.header.set_map_end(self.map);
        if let Some(mut c) = self.header.checkpoint() {
            // The map may know more than the checkpoint needs, never less.
            c.map = self.map;
            self.header.set_checkpoint(&c);
        }
        self.header.sync()?;
        sys::unlinkat(self.dir.as_raw_fd(), &Name::component(map_name(old).as_bytes())?, false)
    }

    /// Appends to the object map; effective before this returns, whatever happens to the process.
    pub fn log(&mut self, entry: &Entry) -> Done {
        self.map.len = self.log.append(entry)?;
        self.header.set_map_end(self.map);
        Ok(())
    }

    /// Makes the object map durable, without the position.
    pub fn sync_map(&self) -> Done {
        self.log.sync()
    }

    pub fn map_len(&self) -> u64 {
        self.map.len
    }

    /// Starts to make all effects so far durable, in the background.
    pub fn start_checkpoint(&mut self) -> Done {
        if self.in_flight.is_some() {
            return Ok(());
        }
        let dir = self.dir.try_clone().map_err(|_| sys::fault("dup"))?;
        let moment = self.header.now();
        let thread = std::thread::Builder::new()
            .name("replay-sync".into())
            .spawn(move || sys::syncfs(dir.as_raw_fd()))
            .map_err(|_| sys::fault("clone"))?;
        self.in_flight = Some((thread, moment));
        Ok(())
    }

    pub fn checkpoint_runs(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Takes note of a checkpoint that has ended; true when one has. Waits for it if asked to.
    pub fn end_checkpoint(&mut self, wait: bool) -> Done<bool> {
        match self.in_flight.take() {
            Some((thread, mut moment)) if wait || thread.is_finished() => {
                if moment.map.generation != self.map.generation {
                    moment.map = self.compacted;
                }
                let done =
                    thread.join().unwrap_or(Err(Fault::Sys { call: "syncfs", errno: libc::EIO }));
                done?;
                // What the header said before has been synced together with everything else.
                self.durable_seq = self.header.checkpoint().map_or(0, |c| c.place.seq);
                self.header.set_checkpoint(&moment);
                Ok(true)
            }
            other => {
                self.in_flight = other;
                Ok(false)
            }
        }
    }

    /// The last user is done: nothing is in doubt when the state is opened again.
    pub fn close(&mut self) -> Done {
        self.checkpoint_now()?;
        self.header.set_closed(true);
        self.header.sync()
    }

    /// Makes all effects so far durable and returns when they are.
    pub fn checkpoint_now(&mut self) -> Done {
        self.end_checkpoint(true)?;
        let moment = self.header.now();
        sys::syncfs(self.dir.as_raw_fd())?;
        self.header.set_checkpoint(&moment);
        self.header.sync()?;
        self.durable_seq = moment.place.seq;
        Ok(())
    }

    pub fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// The journal starts here for this replay: nothing before it is to be waited for.
    pub fn starts_after(&mut self, seq: u64) {
        self.durable_seq = self.durable_seq.max(seq);
    }
}

fn check_header(header: &Header, uuid: [u8; 16], root: &Handle) -> Result<(), ReplayError> {
    let (magic, version) = header.magic_version();
    if magic != MAGIC {
        return Err(state_error("not a replay state (magic)"));
    }
    if version != VERSION {
        return Err(state_error(format!(
            "state of version {version}; this replay reads version {VERSION}"
        )));
    }
    if header.uuid() != uuid {
        return Err(ReplayError::new(
            ReplayCode::ForeignVolume,
            "open",
            "the state belongs to another volume",
        ));
    }
    if header.root() != Some(*root) {
        return Err(state_error("the state belongs to another target directory"));
    }
    Ok(())
}

impl Memory {
    fn learn(&mut self, entry: Entry) {
        match entry {
            Entry::Bind { oid, handle, kind, flags } => {
                for old in [self.objects.find(oid), self.objects.find_handle(&handle)] {
                    if let Some(obj) = old.filter(|o| !self.objects.get(*o).oid.is_none()) {
                        self.objects.take(obj);
                    }
                }
                self.objects.add(oid, handle, kind, flags);
            }
            Entry::Removed { oid } => {
                if let Some(obj) = self.objects.find(oid) {
                    self.objects.take(obj);
                }
                self.objects.remember_removed(oid);
            }
            Entry::Forgotten { oid } => {
                if let Some(obj) = self.objects.find(oid) {
                    self.objects.take(obj);
                }
                self.objects.forget_removed(oid);
            }
            Entry::HollowName { oid, parent, name } => {
                let names = self.hollow.entry(oid).or_default();
                if !names.contains(&(parent, name.clone())) {
                    names.push((parent, name));
                }
            }
            Entry::HollowUnname { oid, parent, name } => {
                if let Some(names) = self.hollow.get_mut(&oid) {
                    names.retain(|n| *n != (parent, name.clone()));
                }
            }
            Entry::Filled { oid } => {
                self.hollow.remove(&oid);
            }
            Entry::Caps { oid, value } => {
                self.caps.insert(oid, value);
            }
            Entry::CapsDone { oid } => {
                self.caps.remove(&oid);
            }
            Entry::ScansDone => {
                self.hollow.clear();
                self.caps.clear();
            }
            Entry::DirTime { seq, oid, sec, nsec } => self.dir_times.push((seq, oid, (sec, nsec))),
            Entry::Need { seq, oid, from, to } => self.needs.add(oid, (from, to), seq),
            Entry::NeedMet { oid, from, to } => self.needs.met(oid, (from, to)),
            Entry::NeedsBefore { seq } => self.needs.forget_before(seq),
            Entry::Settles { seq } => self.needs.settles(seq),
        }
    }
}

/// Whether a handle from after the last checkpoint still means what it meant. The object may have been lost, and
/// inode and generation may be those of something that was made since the machine was started: our own
/// files, another program's. Nothing that was made since then is what was meant.
fn survived(dir: &OwnedFd, handle: &Handle, kind: u8) -> bool {
    let Ok(fd) = handle.open(dir.as_raw_fd(), libc::O_PATH) else {
        return false;
    };
    let Ok(st) = stat_fd(fd.as_raw_fd()) else {
        return false;
    };
    let known = st.stx_mask & libc::STATX_BTIME != 0;
    let born = (st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
    (u32::from(st.stx_mode) & libc::S_IFMT) >> 12 == u32::from(kind) && known && born < booted_at()
}

/// Reads the object map; says too whether most of it is garbage.
fn load(
    dir: &OwnedFd,
    header: &Header,
    after_power_loss: bool,
) -> Result<(Memory, bool), ReplayError> {
    let end = header.map_end();
    let file = open_file(dir, &map_name(end.generation)).map_err(open_error)?;
    let safe = header.checkpoint().map_or(0, |c| c.map.len);
    let mut memory = Memory::default();
    // The length in the header may be older than the map on the disk.
    let to = if after_power_loss { u64::MAX } else { end.len };
    let good = map_log::read(&file, to, |entry, at| {
        if after_power_loss && at > safe {
            // From the time after the checkpoint: a binding helps, the rest is done again.
            if let Entry::Bind { oid, handle, kind, .. } = &entry {
                let known = memory.objects.find(*oid).is_some()
                    || memory.objects.find_handle(handle).is_some();
                if !known && survived(dir, handle, *kind) {
                    memory.learn(entry);
                }
            }
        } else {
            memory.learn(entry);
        }
    })
    .map_err(open_error)?;
    if good < end.len && (!after_power_loss || good < safe) {
        return Err(state_error("the object map is damaged"));
    }
    memory.dir_times.retain(|t| t.0 > header.place().seq);
    for (oid, _) in memory.hollow.iter() {
        if let Some(obj) = memory.objects.find(*oid) {
            memory.objects.get_mut(obj).flags |= super::objects::HOLLOW;
        }
    }
    for (oid, _) in memory.caps.iter() {
        if let Some(obj) = memory.objects.find(*oid) {
            memory.objects.get_mut(obj).flags |= super::objects::IMAGE_CAPS;
        }
    }
    let live = (memory.objects.len() + memory.objects.removed_len()) as u64;
    let most = (live * MAP_COMPACT_BYTES_PER_OBJECT / 2).max(MAP_COMPACT_BYTES_MIN / 16);
    Ok((memory, end.len > most))
}

/// Removes the state directory: replay is over.
pub fn remove(path: &Path) -> Result<(), ReplayError> {
    std::fs::remove_dir_all(path).map_err(|e| {
        let mut out =
            ReplayError::new(ReplayCode::Io, "close", "cannot remove the state directory");
        out.errno = e.raw_os_error();
        out
    })
}
