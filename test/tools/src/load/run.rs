//! The load itself: threads that plan, execute, acknowledge.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::ack::{self, Entry, Setup, Writer};
use super::cell::{encode_run, Origin, CELL};
use super::model::{own_dir, FileId, Model, NEW_MODE};
use super::plan::{LoadOp, Planner};
use crate::sys::attr::{self, Object};
use crate::sys::{cstr, errno_name, file, name, Errno, SysResult};

/// Descriptors a thread keeps open.
const OPEN_MAX: usize = 8;
/// Files that all threads write without a model; only their cells are checked.
const COMMON_FILES: u32 = 16;
/// How long a blocked operation may last after the end before the load gives up.
const GRACE: Duration = Duration::from_secs(30);

/// Errors that a dying or dead mount answers with, and a full disk: the thread ends cleanly.
const ENDINGS: &[Errno] = &[
    libc::EIO,
    libc::ENOTCONN,
    libc::ECONNABORTED,
    libc::ESTALE,
    libc::ENODEV,
    libc::EINTR,
    libc::ETIMEDOUT,
    libc::ECANCELED,
    libc::EROFS,
    libc::ENOSPC,
    libc::EDQUOT,
];

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub time: Duration,
    /// Operations per thread.
    pub ops: u64,
}

/// How the load ended.
#[derive(Debug, Default)]
pub struct Ended {
    pub acked: u64,
    /// Threads that met an error of a dying mount.
    pub cut_off: u32,
    /// Threads still inside an operation when the grace was over.
    pub blocked: u32,
    /// Errors that no dying mount explains.
    pub wrong: Vec<String>,
    pub seconds: f64,
}

struct Thread {
    root: OwnedFd,
    model: Model,
    open: VecDeque<(FileId, OwnedFd)>,
    /// Decides what the model need not know.
    whim: ChaCha8Rng,
}

/// Runs the load until its limits, or until the mount dies.
pub fn run(dir: &[u8], log: &Path, setup: Setup, limits: Limits) -> Result<Ended, String> {
    let root = file::open_root(dir).map_err(errno_name)?;
    prepare(root.as_raw_fd(), setup.threads).map_err(|e| format!("prepare: {}", errno_name(e)))?;
    let log = Arc::new(Writer::create(log, setup).map_err(|e| format!("--ack: {e}"))?);
    let stop = Arc::new(AtomicBool::new(false));
    let running = Arc::new(AtomicU64::new(u64::from(setup.threads)));
    let start = Instant::now();
    let mut joins = Vec::new();
    for t in 0..setup.threads {
        let root = file::open_root(dir).map_err(errno_name)?;
        let (log, stop, running) = (log.clone(), stop.clone(), running.clone());
        joins.push(std::thread::spawn(move || {
            let ended = one_thread(root, t, setup, limits, &log, &stop);
            running.fetch_sub(1, Ordering::Release);
            ended
        }));
    }
    let mut ended = Ended::default();
    while running.load(Ordering::Acquire) > 0 && start.elapsed() < limits.time + GRACE {
        std::thread::sleep(Duration::from_millis(5));
        if start.elapsed() >= limits.time {
            stop.store(true, Ordering::Release);
        }
    }
    ended.seconds = start.elapsed().as_secs_f64();
    for join in joins {
        if !join.is_finished() {
            ended.blocked += 1;
            continue;
        }
        match join.join() {
            Ok(Ok(End::Done(n))) => ended.acked += n,
            Ok(Ok(End::CutOff(n))) => {
                ended.acked += n;
                ended.cut_off += 1;
            }
            Ok(Err(wrong)) => ended.wrong.push(wrong),
            Err(_) => ended.wrong.push("a thread panicked".into()),
        }
    }
    Ok(ended)
}

enum End {
    Done(u64),
    CutOff(u64),
}

/// Makes the directories that the model takes for granted, durably.
fn prepare(root: RawFd, threads: u32) -> SysResult<()> {
    for t in 0..threads {
        name::mkdirat(root, &cstr(own_dir(t).as_bytes())?, 0o755)?;
    }
    name::mkdirat(root, c"shared", 0o755)?;
    file::fsync(root)
}

fn one_thread(
    root: OwnedFd,
    thread: u32,
    setup: Setup,
    limits: Limits,
    log: &Writer,
    stop: &AtomicBool,
) -> Result<End, String> {
    let mut planner = Planner::new(setup.seed, thread, setup.fsync_permille);
    let mut t = Thread {
        root,
        model: Model::new(thread),
        open: VecDeque::new(),
        whim: ChaCha8Rng::seed_from_u64(setup.seed ^ (u64::from(thread) << 32) ^ 0xc0ffee),
    };
    let append = |status, op, seen| {
        let entry = Entry { thread, status, op, seen };
        log.append(entry).map_err(|e| format!("acknowledgement log: {e}"))
    };
    let mut op = 0;
    loop {
        op += 1;
        if op > limits.ops || stop.load(Ordering::Acquire) {
            append(ack::STOPPED, op, log.seen())?;
            return Ok(End::Done(op - 1));
        }
        let what = planner.next(op, &t.model);
        let seen = log.seen();
        match t.execute(op, &what) {
            Ok(()) => {
                append(ack::OK, op, seen)?;
                t.model.apply(op, &what);
            }
            Err(e) => {
                append(e as u32, op, seen)?;
                if ENDINGS.contains(&e) {
                    return Ok(End::CutOff(op - 1));
                }
                let e = errno_name(e);
                return Err(format!("thread {thread} operation {op} {what:?}: {e}"));
            }
        }
        if t.whim.random_range(0..20) == 0 {
            t.common(op);
        }
    }
}

impl Thread {
    fn execute(&mut self, op: u64, what: &LoadOp) -> SysResult<()> {
        let root = self.root.as_raw_fd();
        let path = |s: String| cstr(s.as_bytes());
        let m = &self.model;
        let in_dir = |dir: &u64, name: &str| path(m.path(*dir, name));
        let of_file = |id: &FileId| path(m.file_path(*id).ok_or(libc::ENOENT)?);
        match what {
            LoadOp::Create { dir, name } => {
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
                let fd = file::openat(root, &in_dir(dir, name)?, flags, NEW_MODE)?;
                self.keep(op, fd);
                Ok(())
            }
            LoadOp::Write { file, at, cells } => {
                let offset = (at * CELL) as u64;
                let first = Origin { thread: m.thread, file: *file, op, offset };
                let fd = self.fd(*file)?;
                write_all(fd, &encode_run(first, *cells), offset as i64)
            }
            LoadOp::Append { file, cells } => {
                let offset = m.files.get(file).map_or(0, |f| f.cells.len() * CELL) as u64;
                let first = Origin { thread: m.thread, file: *file, op, offset };
                let fd = file::openat(root, &of_file(file)?, libc::O_WRONLY | libc::O_APPEND, 0)?;
                append_all(fd.as_raw_fd(), &encode_run(first, *cells))
            }
            LoadOp::Truncate { file, cells } => {
                let fd = self.fd(*file)?;
                file::ftruncate(fd, (cells * CELL) as i64)
            }
            LoadOp::Rename { dir, name, to_dir, to_name } => {
                let (from, to) = (in_dir(dir, name)?, in_dir(to_dir, to_name)?);
                name::renameat2(root, &from, root, &to, 0)
            }
            LoadOp::Link { file, dir, name } => {
                name::linkat(root, &of_file(file)?, root, &in_dir(dir, name)?, 0)
            }
            LoadOp::Unlink { dir, name } => name::unlinkat(root, &in_dir(dir, name)?, 0),
            LoadOp::Mkdir { dir, name } => name::mkdirat(root, &in_dir(dir, name)?, 0o755),
            LoadOp::Rmdir { dir } => {
                name::unlinkat(root, &path(m.dir_path(*dir))?, libc::AT_REMOVEDIR)
            }
            LoadOp::RenameDir { dir, name } => {
                let parent = m.dirs.get(dir).map_or(0, |d| d.parent);
                let (from, to) = (path(m.dir_path(*dir))?, in_dir(&parent, name)?);
                name::renameat2(root, &from, root, &to, 0)
            }
            LoadOp::SetXattr { file, key } => {
                let (p, k) = (of_file(file)?, xattr_name(*key)?);
                attr::setxattr(Object::Path(root, &p, true), &k, &op.to_le_bytes(), 0)
            }
            LoadOp::RemoveXattr { file, key } => {
                let (p, k) = (of_file(file)?, xattr_name(*key)?);
                attr::removexattr(Object::Path(root, &p, true), &k)
            }
            LoadOp::Chmod { file, mode } => name::fchmodat(root, &of_file(file)?, *mode, 0),
            LoadOp::Fsync { file } => {
                let fd = self.fd(*file)?;
                file::fsync(fd)
            }
            LoadOp::FsyncDir { dir } => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY;
                let fd = file::openat(root, &path(m.dir_path(*dir))?, flags, 0)?;
                file::fsync(fd.as_raw_fd())
            }
        }
    }

    /// An open descriptor of a file: one kept from before, by whatever name, or a new one.
    fn fd(&mut self, id: FileId) -> SysResult<RawFd> {
        let kept = self.open.iter().position(|(f, _)| *f == id);
        if let (Some(i), true) = (kept, self.whim.random_bool(0.7)) {
            return Ok(self.open[i].1.as_raw_fd());
        }
        let path = cstr(self.model.file_path(id).ok_or(libc::ENOENT)?.as_bytes())?;
        let fd = file::openat(self.root.as_raw_fd(), &path, libc::O_RDWR, 0)?;
        let raw = fd.as_raw_fd();
        self.keep(id, fd);
        Ok(raw)
    }

    fn keep(&mut self, id: FileId, fd: OwnedFd) {
        self.open.push_back((id, fd));
        if self.open.len() > OPEN_MAX {
            self.open.pop_front();
        }
    }

    /// Contention in the common directory. Errors are expected: others do the same.
    fn common(&mut self, op: u64) {
        let root = self.root.as_raw_fd();
        let any = |g: &mut ChaCha8Rng| {
            cstr(format!("shared/common-{}", g.random_range(0..COMMON_FILES)).as_bytes())
        };
        let (Ok(a), Ok(b)) = (any(&mut self.whim), any(&mut self.whim)) else { return };
        let _ = match self.whim.random_range(0..10) {
            0 => name::renameat2(root, &a, root, &b, 0),
            1 => name::unlinkat(root, &a, 0),
            2 => name::renameat2(root, &a, root, &b, libc::RENAME_EXCHANGE),
            _ => {
                let (at, n) = (self.whim.random_range(0..1024u64), self.whim.random_range(1..128));
                let offset = at * CELL as u64;
                let first = Origin { thread: self.model.thread, file: 0, op, offset };
                let flags = libc::O_CREAT | libc::O_RDWR;
                file::openat(root, &a, flags, NEW_MODE)
                    .and_then(|fd| write_all(fd.as_raw_fd(), &encode_run(first, n), offset as i64))
            }
        };
    }
}

/// The name of a numbered attribute.
pub fn xattr_name(key: u8) -> SysResult<std::ffi::CString> {
    cstr(format!("user.k{key}").as_bytes())
}

fn write_all(fd: RawFd, mut buf: &[u8], mut off: i64) -> SysResult<()> {
    while !buf.is_empty() {
        let n = file::pwrite(fd, buf, off)?;
        buf = &buf[n..];
        off += n as i64;
    }
    Ok(())
}

fn append_all(fd: RawFd, mut buf: &[u8]) -> SysResult<()> {
    while !buf.is_empty() {
        let n = file::write(fd, buf)?;
        buf = &buf[n..];
    }
    Ok(())
}
