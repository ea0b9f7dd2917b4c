//! The inode table: objects the kernel knows, and their open descriptors.
//!
//! The node id that the kernel gets is the address of the inode; the table keeps the inode alive as
//! long as the kernel's lookup count or a child's binding refers to it. Objects are opened by file
//! handle when they are needed; a bounded set of descriptors stays open (second chance eviction), so
//! a tree of any size needs no more descriptors than `limit`.

use super::errno::{Errno, Res};
use super::handle::FileHandle;
use crate::record::Oid;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

const SHARDS: usize = 64;

/// By what name the object can be found.
#[derive(Default)]
pub struct Binding {
    pub parent: Option<Arc<Inode>>,
    pub name: Box<[u8]>,
}

/// What a cached descriptor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Path,
    Read,
    Write,
}

struct Cached {
    fd: Arc<OwnedFd>,
    access: Access,
}

/// An object the kernel knows.
pub struct Inode {
    pub oid: Oid,
    pub handle: FileHandle,
    /// S_IFMT of its mode.
    pub kind: u32,
    /// Generation of the binding records; see `Volume::bind`.
    pub bound: AtomicU32,
    lookups: AtomicU64,
    children: AtomicU32,
    /// Its last name is gone: changes to it are in no tree.
    pub unlinked: AtomicBool,
    /// Made by O_TMPFILE and not linked yet.
    pub tmpfile: AtomicBool,
    /// chattr +a: its descriptor writes at the end, whatever the offset is.
    append_only: AtomicBool,
    /// Its descriptor is the only way to it: never evicted.
    pinned: AtomicBool,
    used: AtomicBool,
    /// ctime of the last effect that went through the interceptor, ns: tells changes of others.
    pub ctime_seen: AtomicU64,
    /// Where its last change is, at most; kept while closes wait for replicas.
    pub changed: AtomicU64,
    /// Held across a real operation and its seq.
    pub effect: Mutex<()>,
    pub binding: Mutex<Binding>,
    fd: Mutex<Option<Cached>>,
}

impl Inode {
    fn new(oid: Oid, handle: FileHandle, kind: u32) -> Self {
        Self {
            oid,
            handle,
            kind,
            bound: AtomicU32::new(0),
            lookups: AtomicU64::new(0),
            children: AtomicU32::new(0),
            unlinked: AtomicBool::new(false),
            tmpfile: AtomicBool::new(false),
            append_only: AtomicBool::new(false),
            pinned: AtomicBool::new(false),
            used: AtomicBool::new(false),
            ctime_seen: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            effect: Mutex::new(()),
            binding: Mutex::new(Binding::default()),
            fd: Mutex::new(None),
        }
    }

    pub fn nodeid(self: &Arc<Self>) -> u64 {
        Arc::as_ptr(self) as u64
    }

    pub fn is_dir(&self) -> bool {
        self.kind == libc::S_IFDIR
    }

    pub fn is_regular(&self) -> bool {
        self.kind == libc::S_IFREG
    }

    /// Nothing of it is in any tree, nor can it come back into one.
    pub fn is_gone(&self) -> bool {
        self.unlinked.load(Ordering::Acquire)
    }

    /// As of the last time it was opened for writing.
    pub fn is_append_only(&self) -> bool {
        self.append_only.load(Ordering::Acquire)
    }

    pub fn has_descriptor(&self) -> bool {
        self.fd.lock().is_some()
    }
}

/// FNV is enough for keys that are inode numbers and hashes already.
#[derive(Default)]
pub struct OidHasher(u64);

impl Hasher for OidHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0.rotate_left(26) ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

type Shard = HashMap<Oid, Arc<Inode>, BuildHasherDefault<OidHasher>>;

/// All inodes the kernel knows.
pub struct Table {
    shards: Vec<Mutex<Shard>>,
    count: AtomicUsize,
    /// Descriptors in the order they were opened, for eviction.
    clock: Mutex<VecDeque<Weak<Inode>>>,
    open: AtomicUsize,
    limit: usize,
    mount: RawFd,
}

impl Table {
    /// `mount` is a descriptor on the backing mount, valid as long as the table; at most `limit`
    /// descriptors stay open.
    pub fn new(mount: RawFd, limit: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            clock: Mutex::default(),
            open: AtomicUsize::new(0),
            limit,
            mount,
        }
    }

    fn shard(&self, oid: Oid) -> &Mutex<Shard> {
        &self.shards[(oid.ino ^ oid.gen >> 17) as usize % SHARDS]
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn descriptors(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The inode of a node id that the kernel sent.
    pub fn get(&self, nodeid: u64) -> Arc<Inode> {
        let p = nodeid as *const Inode;
        // SAFETY: the kernel only sends node ids it got from us and still counts, and the table keeps
        // such an inode alive; the kernel is trusted (it could read all our memory anyway).
        unsafe {
            Arc::increment_strong_count(p);
            Arc::from_raw(p)
        }
    }

    /// The inode of an object, if the kernel knows it.
    pub fn find(&self, oid: Oid) -> Option<Arc<Inode>> {
        self.shard(oid).lock().get(&oid).cloned()
    }

    /// The inode of an object, made when it is new, with its lookup count raised by `lookups`.
    pub fn enter(&self, oid: Oid, handle: FileHandle, kind: u32, lookups: u64) -> Arc<Inode> {
        let mut shard = self.shard(oid).lock();
        let inode = shard.entry(oid).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            Arc::new(Inode::new(oid, handle, kind))
        });
        inode.lookups.fetch_add(lookups, Ordering::Relaxed);
        inode.clone()
    }

    /// The kernel forgets `n` lookups. Returns the inode when that was the last use of it.
    pub fn forget(&self, inode: &Arc<Inode>, n: u64) {
        {
            let _shard = self.shard(inode.oid).lock();
            let before = inode.lookups.load(Ordering::Relaxed);
            inode.lookups.store(before.saturating_sub(n), Ordering::Relaxed);
        }
        self.drop_unused(inode.clone());
    }

    fn drop_unused(&self, mut inode: Arc<Inode>) {
        loop {
            let mut shard = self.shard(inode.oid).lock();
            let in_use = inode.lookups.load(Ordering::Relaxed) > 0
                || inode.children.load(Ordering::Acquire) > 0;
            let ours = shard.get(&inode.oid).is_some_and(|i| Arc::ptr_eq(i, &inode));
            if in_use || !ours {
                return;
            }
            shard.remove(&inode.oid);
            self.count.fetch_sub(1, Ordering::Relaxed);
            drop(shard);
            if inode.fd.lock().take().is_some() {
                self.open.fetch_sub(1, Ordering::Relaxed);
            }
            let parent = std::mem::take(&mut *inode.binding.lock()).parent;
            match parent {
                Some(p) => {
                    p.children.fetch_sub(1, Ordering::AcqRel);
                    inode = p;
                }
                None => return,
            }
        }
    }

    /// Sets by what name the object is found; the caller holds its binding lock.
    pub fn rebind(&self, binding: &mut Binding, parent: Option<&Arc<Inode>>, name: &[u8]) {
        if let Some(p) = parent {
            p.children.fetch_add(1, Ordering::AcqRel);
        }
        let new = Binding { parent: parent.cloned(), name: name.into() };
        let old = std::mem::replace(binding, new);
        if let Some(p) = old.parent {
            p.children.fetch_sub(1, Ordering::AcqRel);
            self.drop_unused(p);
        }
    }

    /// A descriptor of the object with at least this access, kept for the next time.
    ///
    /// Errors: EPERM is retried with less (immutable and append-only files); ESTALE when the object
    /// is gone.
    pub fn descriptor(&self, inode: &Arc<Inode>, access: Access) -> Res<Arc<OwnedFd>> {
        let mut slot = inode.fd.lock();
        if let Some(cached) = slot.as_ref() {
            if cached.access >= access {
                inode.used.store(true, Ordering::Relaxed);
                return Ok(cached.fd.clone());
            }
        }
        let fd = Arc::new(self.open_object(inode, slot.as_ref(), access)?);
        let new = slot.is_none();
        *slot = Some(Cached { fd: fd.clone(), access });
        drop(slot);
        if new {
            self.note_open(inode);
        }
        Ok(fd)
    }

    fn open_object(&self, inode: &Inode, have: Option<&Cached>, access: Access) -> Res<OwnedFd> {
        let base = match (inode.kind, access) {
            (_, Access::Path) => libc::O_PATH | libc::O_NOFOLLOW,
            (libc::S_IFDIR, _) => libc::O_RDONLY | libc::O_DIRECTORY,
            (libc::S_IFREG, Access::Read) => libc::O_RDONLY,
            (libc::S_IFREG, Access::Write) => libc::O_RDWR,
            _ => libc::O_PATH | libc::O_NOFOLLOW,
        } | libc::O_NOCTTY
            | libc::O_NONBLOCK;
        let open = |flags: i32| match have {
            // A nameless object is reached through the descriptor that keeps it.
            Some(c) if inode.pinned.load(Ordering::Acquire) => reopen(&c.fd, flags),
            _ => inode.handle.open(self.mount, flags),
        };
        if access != Access::Write {
            return open(base);
        }
        // Append-only files may only be opened for appending.
        let (opened, appends) = match open(base) {
            Err(Errno(libc::EPERM)) => (open(base | libc::O_APPEND), true),
            other => (other, false),
        };
        inode.append_only.store(appends && opened.is_ok(), Ordering::Release);
        opened
    }

    /// Keeps a descriptor that an operation opened anyway.
    pub fn keep(&self, inode: &Arc<Inode>, fd: OwnedFd, access: Access) {
        let mut slot = inode.fd.lock();
        if slot.is_none() {
            *slot = Some(Cached { fd: Arc::new(fd), access });
            drop(slot);
            self.note_open(inode);
        }
    }

    /// Forgets the cached descriptor of an object that has a name.
    pub fn close_descriptor(&self, inode: &Inode) {
        if !inode.pinned.load(Ordering::Acquire) && inode.fd.lock().take().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The object is about to lose its last name: whatever descriptor it has must stay.
    pub fn pin(&self, inode: &Inode) {
        inode.pinned.store(true, Ordering::Release);
    }

    pub fn unpin(&self, inode: &Inode) {
        inode.pinned.store(false, Ordering::Release);
    }

    fn note_open(&self, inode: &Arc<Inode>) {
        inode.used.store(true, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let mut clock = self.clock.lock();
        clock.push_back(Arc::downgrade(inode));
        // Dead entries would keep memory of forgotten inodes: sweep them when they prevail.
        if clock.len() > 2 * self.limit {
            clock.retain(|w| w.strong_count() > 0);
        }
        if open <= self.limit {
            return;
        }
        for _ in 0..clock.len() {
            let Some(candidate) = clock.pop_front() else {
                return;
            };
            let Some(victim) = candidate.upgrade() else {
                continue;
            };
            let keep =
                victim.pinned.load(Ordering::Acquire) || victim.used.swap(false, Ordering::Relaxed);
            if keep || Arc::ptr_eq(&victim, inode) {
                clock.push_back(candidate);
                continue;
            }
            // try_lock: somebody opening it right now uses it.
            let Some(mut slot) = victim.fd.try_lock() else {
                clock.push_back(candidate);
                continue;
            };
            if slot.take().is_some() {
                self.open.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Runs `f` on every inode.
    pub fn each(&self, mut f: impl FnMut(&Arc<Inode>)) {
        for shard in &self.shards {
            let all: Vec<_> = shard.lock().values().cloned().collect();
            all.iter().for_each(&mut f);
        }
    }
}

/// Opens the object of a descriptor anew, with other access.
fn reopen(fd: &OwnedFd, flags: i32) -> Res<OwnedFd> {
    use std::os::fd::FromRawFd;
    let path = super::handle::proc_path(fd);
    let flags = (flags & !libc::O_NOFOLLOW) | libc::O_CLOEXEC;
    // SAFETY: a valid C string; the result is checked.
    let new = super::errno::check(unsafe { libc::open(path.as_ptr(), flags) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Locks the effect locks of up to four inodes in address order, each once.
pub struct EffectLocks<'a> {
    _held: [Option<parking_lot::MutexGuard<'a, ()>>; 4],
}

impl<'a> EffectLocks<'a> {
    pub fn new(mut inodes: [Option<&'a Arc<Inode>>; 4]) -> Self {
        inodes.sort_by_key(|i| i.map_or(usize::MAX, |i| Arc::as_ptr(i) as usize));
        let mut last: Option<&Arc<Inode>> = None;
        let held = inodes.map(|i| match i {
            Some(i) if !last.is_some_and(|l| Arc::ptr_eq(l, i)) => {
                last = Some(i);
                Some(i.effect.lock())
            }
            _ => None,
        });
        Self { _held: held }
    }
}

/// The raw descriptor.
pub fn raw(fd: &Arc<OwnedFd>) -> RawFd {
    fd.as_raw_fd()
}
