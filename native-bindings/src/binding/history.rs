//! The history of a volume or a replica: what it keeps, views of it, versions of a path.

use super::error::{c_path, fail, system, JsError};
use super::registry;
use super::volume::mounted_device;
use crate::history::log::{floor_in, Author};
use crate::history::view::{Mounted, View};
use crate::history::{limits, Full, History, Mode, Settings};
use crate::interceptor::attr::Stat;
use crate::interceptor::errno::Errno;
use crate::interceptor::Volume;
use crate::record::Op;
use crate::transport::mount::{clone_tree, tune};
use napi::bindgen_prelude::{BigInt, BigUint64Array, Buffer};
use napi_derive::napi;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Instant;

#[napi(object)]
pub struct HistoryOptions {
    pub path: String,
    /// `snapshots` or `continuous`.
    pub mode: String,
    /// `drop` or `refuse`.
    pub full: String,
    pub bytes_max: f64,
}

/// A history that is open, and the views of it.
pub struct Kept {
    pub history: Arc<History>,
    /// The root of the tree, opened.
    root: Box<dyn Fn() -> std::io::Result<File> + Send + Sync>,
    /// The last seq that a view can show.
    last: Box<dyn Fn() -> u64 + Send + Sync>,
    views: Mutex<HashMap<u32, Arc<Mounted>>>,
    housekeeping: Mutex<Option<JoinHandle<()>>>,
}

/// Histories of replicas.
static OF_REPLICAS: LazyLock<Mutex<HashMap<u32, Arc<Kept>>>> = LazyLock::new(Mutex::default);

fn settings(options: &HistoryOptions) -> Result<Settings, JsError> {
    Ok(Settings {
        mode: match options.mode.as_str() {
            "snapshots" => Mode::Snapshots,
            "continuous" => Mode::Continuous,
            other => return Err(fail("EINVAL", format!("no history mode is called {other}"))),
        },
        full: match options.full.as_str() {
            "drop" => Full::Drop,
            "refuse" => Full::Refuse,
            other => return Err(fail("EINVAL", format!("no history policy is called {other}"))),
        },
        bytes_max: options.bytes_max as u64,
    })
}

fn not_opened(path: &str, e: Errno) -> JsError {
    match e {
        Errno(libc::EINVAL) => fail(
            "HISTORY_FOREIGN",
            format!("{path} is no history of this volume that can be read here"),
        ),
        e => system(&format!("opening the history {path}"), e),
    }
}

/// Views of the history in a directory, open or not, are possible from this seq on; null: there is none.
#[napi]
pub fn history_floor(path: String) -> Option<BigInt> {
    floor_in(Path::new(&path)).ok().flatten().map(BigInt::from)
}

/// Opens the history of a volume that has just been opened. `last` is the last journaled seq.
pub(super) fn open(
    options: &HistoryOptions,
    uuid: [u8; 16],
    volume: &Arc<Volume>,
    last: u64,
) -> Result<Arc<Kept>, JsError> {
    let ring = &volume.ring;
    let next = ring.captured_seq() + 1;
    let unproven = |seq| seq > last && !ring.was_published(seq);
    let history = History::open(Path::new(&options.path), uuid, settings(options)?, next, unproven)
        .map_err(|e| not_opened(&options.path, e))?;
    let (of_root, of_last) = (volume.clone(), volume.clone());
    let kept = Kept::start(
        Arc::new(history),
        Box::new(move || of_root.root_file()),
        Box::new(move || of_last.ring.captured_seq()),
    )?;
    let _ = volume.history.set(kept.history.clone());
    Ok(kept)
}

#[napi(object)]
pub struct ReplicaHistoryOptions {
    pub history: HistoryOptions,
    pub uuid: Buffer,
    /// Directory to which `target` is relative: reached past all that is mounted in it.
    pub beneath: Buffer,
    pub target: Buffer,
}

/// Opens the history of a replica. A replay is given it; it outlives that.
#[napi]
pub fn open_replica_history(options: ReplicaHistoryOptions) -> Result<u32, JsError> {
    let ReplicaHistoryOptions { history, uuid, beneath, target } = options;
    let uuid = uuid.as_ref().try_into().map_err(|_| fail("EINVAL", "uuid must be 16 bytes"))?;
    let cannot = |e| system("opening the directory of the replica", e);
    let (tree, _) = clone_tree(&c_path(&beneath, "beneath")?).map_err(cannot)?;
    let base = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    let root = File::open(base.join(OsStr::from_bytes(&target))).map_err(cannot)?;
    let opened = History::open_for_replay(Path::new(&history.path), uuid, settings(&history)?)
        .map_err(|e| not_opened(&history.path, e))?;
    let root = Box::new(move || root.try_clone());
    let opened = Arc::new(opened);
    let of_last = opened.clone();
    let kept = Kept::start(opened, root, Box::new(move || of_last.reached()))?;
    let handle = registry::number();
    OF_REPLICAS.lock().insert(handle, kept);
    Ok(handle)
}

/// Ends the views of a replica's history, and that; its replay has to be closed before.
#[napi]
pub fn close_replica_history(handle: u32) {
    let kept = OF_REPLICAS.lock().remove(&handle);
    if let Some(kept) = kept {
        kept.close();
    }
}

/// The history that a replay is to write.
pub(super) fn of_replica(handle: u32) -> Result<Arc<History>, JsError> {
    let found = OF_REPLICAS.lock().get(&handle).map(|kept| kept.history.clone());
    found.ok_or_else(|| fail("BAD_HANDLE", format!("no open history has handle {handle}")))
}

impl Kept {
    fn start(
        history: Arc<History>,
        root: Box<dyn Fn() -> std::io::Result<File> + Send + Sync>,
        last: Box<dyn Fn() -> u64 + Send + Sync>,
    ) -> Result<Arc<Self>, JsError> {
        let thread = history.start().map_err(|e| system("starting the history", e))?;
        let (views, housekeeping) = (Mutex::default(), Some(thread).into());
        Ok(Arc::new(Self { history, root, last, views, housekeeping }))
    }

    /// Ends the views and the housekeeping; nothing is added any more.
    pub fn close(&self) {
        let end = Instant::now() + limits::VIEW_END_MAX;
        for (_, view) in std::mem::take(&mut *self.views.lock()) {
            if view.unmount(false, end).is_err() {
                let _ = view.unmount(true, end);
            }
        }
        self.history.close();
        if let Some(thread) = self.housekeeping.lock().take() {
            let _ = thread.join();
        }
    }
}

/// The history of a volume or of a replica; `None`: the volume keeps none.
fn find(handle: u32) -> Result<Option<Arc<Kept>>, JsError> {
    let of_replica = OF_REPLICAS.lock().get(&handle).cloned();
    match of_replica {
        Some(kept) => Ok(Some(kept)),
        None => Ok(registry::get(handle)?.kept.clone()),
    }
}

fn get(handle: u32) -> Result<Arc<Kept>, JsError> {
    match find(handle)? {
        Some(kept) => Ok(kept),
        None => {
            let name = &registry::get(handle)?.name;
            Err(fail("HISTORY_OFF", format!("{name} keeps no history")))
        }
    }
}

#[napi(object)]
pub struct HistoryState {
    /// Moments from this seq on can be looked at.
    pub floor: BigInt,
    /// The newest snapshot; 0: none.
    pub point: BigInt,
    pub bytes: f64,
    /// Before-images that found no room, since start.
    pub lost: f64,
    /// Moments before this seq may lack what was not written when the machine went down; 0: none.
    pub power_lost_before: BigInt,
    pub views: u32,
}

#[napi]
pub fn history_state(handle: u32) -> Result<Option<HistoryState>, JsError> {
    let Some(kept) = find(handle)? else {
        return Ok(None);
    };
    let (history, views) = (&kept.history, kept.views.lock().len() as u32);
    Ok(Some(HistoryState {
        floor: history.floor().into(),
        point: history.point().into(),
        bytes: history.bytes() as f64,
        lost: history.lost.load(std::sync::atomic::Ordering::Relaxed) as f64,
        power_lost_before: history.power_lost_before().into(),
        views,
    }))
}

/// What is to be kept: snapshots, of which `newest` is the newest (0: there are none), and everything
/// from `oldest` on.
#[napi]
pub fn set_history_wanted(handle: u32, newest: BigInt, oldest: BigInt) -> Result<(), JsError> {
    get(handle)?.history.set_wanted(newest.get_u64().1, oldest.get_u64().1);
    Ok(())
}

#[napi(object)]
pub struct SeqAtTime {
    pub seq: Option<BigInt>,
    /// Time of the oldest change that is kept, ms since the epoch.
    pub oldest_ms: Option<f64>,
}

/// The last change at a time, ms since the epoch.
#[napi]
pub fn history_seq_at(handle: u32, ms: f64) -> Result<SeqAtTime, JsError> {
    let (seq, oldest) = get(handle)?.history.seq_at((ms.max(0.0) as u64).saturating_mul(1_000_000));
    Ok(SeqAtTime { seq: seq.map(Into::into), oldest_ms: oldest.map(|ns| (ns / 1_000_000) as f64) })
}

/// A moment that its primary has named, on a replica.
#[napi(object)]
pub struct NamedPoint {
    pub name: Buffer,
    pub seq: BigInt,
    /// ms since the epoch.
    pub time_ms: f64,
}

/// The moments with names that can be looked at, oldest first.
#[napi]
pub fn history_points(handle: u32) -> Result<Vec<NamedPoint>, JsError> {
    let points = get(handle)?.history.named_points();
    let points = points.map_err(|e| system("reading the history", e))?;
    let named = points.into_iter().map(|point| NamedPoint {
        name: point.name.into(),
        seq: point.seq.into(),
        time_ms: (point.clock_ns / 1_000_000) as f64,
    });
    Ok(named.collect())
}

/// What can differ between two moments, as inode numbers.
#[napi(object)]
pub struct ChangedObjects {
    pub objects: BigUint64Array,
    /// What has to be looked into; none: any directory.
    pub directories: Option<BigUint64Array>,
}

/// What can differ between the moments `after` and `up_to` (none: now); null when the history cannot tell.
#[napi]
pub fn history_changed(
    handle: u32,
    after: BigInt,
    up_to: Option<BigInt>,
) -> Result<Option<ChangedObjects>, JsError> {
    let kept = get(handle)?;
    let root = (kept.root)().map_err(|e| system("opening the tree", e))?;
    let up_to = up_to.map(|seq| seq.get_u64().1);
    let found = kept.history.changed(&root, after.get_u64().1, up_to);
    let found = found.map_err(|e| system("reading the history", e))?;
    let list = |set: HashSet<u64>| set.into_iter().collect::<Vec<_>>().into();
    Ok(found.map(|changed| ChangedObjects {
        objects: list(changed.objects),
        directories: changed.directories.map(list),
    }))
}

fn open_view(kept: &Kept, seq: u64) -> Result<View, JsError> {
    let history = &kept.history;
    if seq > (kept.last)() {
        return Err(fail("HISTORY_RANGE", format!("seq {seq} is in the future")));
    }
    let root = (kept.root)().map_err(|e| system("opening the tree", e))?;
    View::open(history.clone(), root, seq).map_err(|e| match e {
        Errno(libc::ERANGE) => {
            fail("HISTORY_RANGE", format!("the history reaches back to seq {}", history.floor()))
        }
        e => system("opening the view", e),
    })
}

/// Mounts a read-only view of the volume as of `seq`. Returns its number.
#[napi]
pub fn mount_view(
    handle: u32,
    seq: BigInt,
    mountpoint: Buffer,
    source: String,
) -> Result<u32, JsError> {
    let kept = get(handle)?;
    let mountpoint = c_path(&mountpoint, "mountpoint")?;
    let view = open_view(&kept, seq.get_u64().1)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let mounted = view
        .mount(mountpoint.clone(), &source, flags)
        .map_err(|e| system("mounting the view", e))?;
    if let Some((major, minor)) = mounted_device(&mountpoint) {
        tune(major, minor);
    }
    let mut views = kept.views.lock();
    let id = views.keys().max().map_or(1, |n| n + 1);
    views.insert(id, Arc::new(mounted));
    Ok(id)
}

/// Ends a view. EBUSY while it is in use, unless `lazy`.
#[napi]
pub fn unmount_view(handle: u32, id: u32, lazy: bool) -> Result<(), JsError> {
    let kept = get(handle)?;
    let Some(view) = kept.views.lock().get(&id).cloned() else {
        return Ok(());
    };
    let end = Instant::now() + limits::VIEW_END_MAX;
    view.unmount(lazy, end).map_err(|e| system("unmounting the view", e))?;
    kept.views.lock().remove(&id);
    Ok(())
}

#[napi(object)]
pub struct VersionAttributes {
    pub ino: BigInt,
    pub size: f64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_ns: BigInt,
}

#[napi(object)]
pub struct VersionChange {
    pub seq: BigInt,
    /// ms since the epoch.
    pub time_ms: f64,
    pub op: String,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub command: String,
    /// What the object was before.
    pub before: Option<VersionAttributes>,
}

/// One object that a path led to.
#[napi(object)]
pub struct PathObject {
    pub ino: BigInt,
    /// The change that ended it under this name; none: it is there.
    pub ended: Option<VersionChange>,
    /// Its changes, oldest first.
    pub changes: Vec<VersionChange>,
    pub now: Option<VersionAttributes>,
}

fn attributes(st: &Stat) -> VersionAttributes {
    let ns = i128::from(st.stx_mtime.tv_sec) * 1_000_000_000 + i128::from(st.stx_mtime.tv_nsec);
    VersionAttributes {
        ino: st.stx_ino.into(),
        size: st.stx_size as f64,
        mode: u32::from(st.stx_mode),
        uid: st.stx_uid,
        gid: st.stx_gid,
        mtime_ns: BigInt::from(ns as i64),
    }
}

fn change(seq: u64, clock_ns: u64, author: Author, before: Option<&Stat>) -> VersionChange {
    let comm = author.comm.split(|b| *b == 0).next().unwrap_or_default();
    VersionChange {
        seq: seq.into(),
        time_ms: (clock_ns / 1_000_000) as f64,
        op: Op::from_u8(author.op).map_or(String::new(), |op| format!("{op:?}").to_lowercase()),
        uid: author.uid,
        gid: author.gid,
        pid: author.pid,
        command: String::from_utf8_lossy(comm).into_owned(),
        before: before.map(attributes),
    }
}

/// What a path (relative to the root) led to, newest first, with all changes that are kept. The directory
/// in which the name stands is looked for as of `seq`.
#[napi]
pub fn history_of_path(handle: u32, path: Buffer, seq: BigInt) -> Result<Vec<PathObject>, JsError> {
    let kept = get(handle)?;
    let view = open_view(&kept, seq.get_u64().1)?;
    let past = view.past_of(path.as_ref()).map_err(|e| system("reading the history", e))?;
    let object = |o: crate::history::versions::PathObject| PathObject {
        ino: o.oid.ino.into(),
        ended: o.ended.map(|(seq, clock, author)| change(seq, clock, author, None)),
        changes: o
            .changes
            .iter()
            .map(|c| change(c.seq, c.clock_ns, c.author, Some(&c.before)))
            .collect(),
        now: o.now.as_ref().map(attributes),
    };
    Ok(past.into_iter().map(object).collect())
}
