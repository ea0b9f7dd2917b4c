//! Which operation comes next: a function of the thread's random numbers and its model alone.

use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::model::{DirId, FileId, Model, OWN, SHARED};

/// Limits of what one thread owns.
const FILES_MAX: usize = 64;
const DIRS_MAX: usize = 12;
/// 256 KiB.
const CELLS_MAX: usize = 4096;
/// 64 KiB: a write of this size is one request everywhere.
const WRITE_CELLS_MAX: usize = 1024;
const XATTR_KEYS: u8 = 6;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadOp {
    Create { dir: DirId, name: String },
    Write { file: FileId, at: usize, cells: usize },
    Append { file: FileId, cells: usize },
    Truncate { file: FileId, cells: usize },
    Rename { dir: DirId, name: String, to_dir: DirId, to_name: String },
    Link { file: FileId, dir: DirId, name: String },
    Unlink { dir: DirId, name: String },
    Mkdir { dir: DirId, name: String },
    Rmdir { dir: DirId },
    RenameDir { dir: DirId, name: String },
    SetXattr { file: FileId, key: u8 },
    RemoveXattr { file: FileId, key: u8 },
    Chmod { file: FileId, mode: u32 },
    Fsync { file: FileId },
    FsyncDir { dir: DirId },
}

impl LoadOp {
    /// Whether the state after it is the state before it.
    pub fn changes_nothing(&self) -> bool {
        matches!(self, LoadOp::Fsync { .. } | LoadOp::FsyncDir { .. })
    }

    /// How many cells it writes.
    pub fn written_cells(&self) -> usize {
        match self {
            LoadOp::Write { cells, .. } | LoadOp::Append { cells, .. } => *cells,
            _ => 0,
        }
    }
}

/// The random numbers of one thread.
pub struct Planner {
    rng: ChaCha8Rng,
    fsync_permille: u32,
}

impl Planner {
    pub fn new(seed: u64, thread: u32, fsync_permille: u32) -> Planner {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(thread) + 1);
        Planner { rng, fsync_permille }
    }

    /// The operation with number `op`, given the model before it.
    pub fn next(&mut self, op: u64, m: &Model) -> LoadOp {
        if self.rng.random_range(0..1000) < self.fsync_permille {
            return self.sync(m);
        }
        if m.files.len() < 8 {
            return self.create(m);
        }
        let what: u32 = self.rng.random_range(0..100);
        self.try_plan(what, op, m).unwrap_or_else(|| {
            if m.files.len() < FILES_MAX {
                self.create(m)
            } else {
                self.unlink(m)
            }
        })
    }

    fn try_plan(&mut self, what: u32, op: u64, m: &Model) -> Option<LoadOp> {
        let file = self.file(m)?;
        let size = m.files.get(&file).map_or(0, |f| f.cells.len());
        Some(match what {
            0..12 if m.files.len() < FILES_MAX => self.create(m),
            0..42 => {
                let at = self.rng.random_range(0..(size + 64).min(CELLS_MAX));
                let cells = self.cells().min(CELLS_MAX - at);
                LoadOp::Write { file, at, cells }
            }
            42..56 if size < CELLS_MAX => {
                LoadOp::Append { file, cells: self.cells().min(CELLS_MAX - size) }
            }
            56..61 => LoadOp::Truncate { file, cells: self.rng.random_range(0..size * 3 / 2 + 16) },
            61..72 => {
                let (dir, name) = m.files.get(&file)?.names.first()?.clone();
                let to_dir = self.dir(m);
                LoadOp::Rename { dir, name, to_dir, to_name: self.name(m, to_dir) }
            }
            72..76 if m.files.get(&file)?.names.len() < 4 => {
                let dir = self.dir(m);
                let name = self.name(m, dir);
                let taken = m.dirs.get(&dir)?.files.contains_key(&name);
                if taken {
                    return None;
                }
                LoadOp::Link { file, dir, name }
            }
            76..84 => self.unlink(m),
            84..87 if m.dirs.len() < DIRS_MAX => {
                let parent = self.dir(m);
                let dir = if parent == SHARED { OWN } else { parent };
                LoadOp::Mkdir { dir, name: format!("d{op}") }
            }
            87..89 => {
                let empty = |d: &DirId| {
                    m.dirs.get(d).is_some_and(|d| d.files.is_empty() && d.dirs.is_empty())
                };
                let found = m.dirs.keys().find(|d| **d != OWN && **d != SHARED && empty(d));
                LoadOp::Rmdir { dir: *found? }
            }
            89..90 => {
                let dir = self.dir(m);
                if dir == OWN || dir == SHARED {
                    return None;
                }
                LoadOp::RenameDir { dir, name: format!("d{dir}.{op}") }
            }
            90..95 => LoadOp::SetXattr { file, key: self.rng.random_range(0..XATTR_KEYS) },
            95..97 => {
                let key = *m.files.get(&file)?.xattrs.keys().next()?;
                LoadOp::RemoveXattr { file, key }
            }
            97..100 => {
                let mode = [0o600, 0o640, 0o644, 0o755][self.rng.random_range(0..4)];
                LoadOp::Chmod { file, mode }
            }
            _ => return None,
        })
    }

    fn sync(&mut self, m: &Model) -> LoadOp {
        match self.file(m) {
            Some(file) if self.rng.random_bool(0.5) => LoadOp::Fsync { file },
            _ => LoadOp::FsyncDir { dir: self.dir(m) },
        }
    }

    fn create(&mut self, m: &Model) -> LoadOp {
        loop {
            let dir = self.dir(m);
            let name = self.name(m, dir);
            if m.dirs.get(&dir).is_some_and(|d| !d.files.contains_key(&name)) {
                return LoadOp::Create { dir, name };
            }
        }
    }

    fn unlink(&mut self, m: &Model) -> LoadOp {
        match self.file(m).and_then(|f| m.files.get(&f)).and_then(|f| f.names.last()) {
            Some((dir, name)) => LoadOp::Unlink { dir: *dir, name: name.clone() },
            None => self.create(m),
        }
    }

    fn file(&mut self, m: &Model) -> Option<FileId> {
        let n = m.files.len();
        (n > 0).then(|| self.rng.random_range(0..n)).and_then(|i| m.files.keys().nth(i)).copied()
    }

    fn dir(&mut self, m: &Model) -> DirId {
        let i = self.rng.random_range(0..m.dirs.len());
        m.dirs.keys().nth(i).copied().unwrap_or(OWN)
    }

    fn name(&mut self, m: &Model, dir: DirId) -> String {
        let n: u32 = self.rng.random_range(0..200);
        match dir {
            SHARED => format!("{}f{n}", super::model::shared_prefix(m.thread)),
            _ => format!("f{n}"),
        }
    }

    fn cells(&mut self) -> usize {
        match self.rng.random_range(0..10) {
            0..6 => self.rng.random_range(1..64),
            6..9 => self.rng.random_range(1..=4) * 64,
            _ => self.rng.random_range(1..=WRITE_CELLS_MAX),
        }
    }
}
