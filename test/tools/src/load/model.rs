//! What one thread's files must look like after a number of operations.

use std::collections::BTreeMap;

use super::plan::LoadOp;

/// The number of the operation that created the file.
pub type FileId = u64;
/// The number of the operation that created the directory, or one of the two fixed ones.
pub type DirId = u64;

/// The thread's own directory.
pub const OWN: DirId = 0;
/// The directory common to all threads, of which a thread owns the names with its prefix.
pub const SHARED: DirId = u64::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileModel {
    /// Per cell the operation that wrote it; 0 for a hole.
    pub cells: Vec<u64>,
    pub mode: u32,
    /// Attribute number to the operation that set it.
    pub xattrs: BTreeMap<u8, u64>,
    pub names: Vec<(DirId, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirModel {
    pub parent: DirId,
    pub name: String,
    pub files: BTreeMap<String, FileId>,
    pub dirs: BTreeMap<String, DirId>,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub thread: u32,
    pub dirs: BTreeMap<DirId, DirModel>,
    pub files: BTreeMap<FileId, FileModel>,
}

/// Mode of every new file, before chmod.
pub const NEW_MODE: u32 = 0o644;

impl Model {
    pub fn new(thread: u32) -> Model {
        let own = DirModel { name: own_dir(thread), ..DirModel::default() };
        let shared = DirModel { name: "shared".into(), ..DirModel::default() };
        Model {
            thread,
            dirs: BTreeMap::from([(OWN, own), (SHARED, shared)]),
            files: BTreeMap::new(),
        }
    }

    pub fn dir_path(&self, mut id: DirId) -> String {
        let mut parts = Vec::new();
        while let Some(d) = self.dirs.get(&id) {
            parts.push(d.name.as_str());
            if id == OWN || id == SHARED {
                break;
            }
            id = d.parent;
        }
        parts.reverse();
        parts.join("/")
    }

    pub fn path(&self, dir: DirId, name: &str) -> String {
        format!("{}/{name}", self.dir_path(dir))
    }

    /// One path of a file.
    pub fn file_path(&self, id: FileId) -> Option<String> {
        let (dir, name) = self.files.get(&id)?.names.first()?;
        Some(self.path(*dir, name))
    }

    fn bind(&mut self, dir: DirId, name: &str, id: FileId) {
        self.unbind(dir, name);
        if let Some(d) = self.dirs.get_mut(&dir) {
            d.files.insert(name.to_owned(), id);
        }
        if let Some(f) = self.files.get_mut(&id) {
            f.names.push((dir, name.to_owned()));
        }
    }

    fn unbind(&mut self, dir: DirId, name: &str) {
        let Some(id) = self.dirs.get_mut(&dir).and_then(|d| d.files.remove(name)) else { return };
        if let Some(f) = self.files.get_mut(&id) {
            f.names.retain(|(d, n)| *d != dir || n != name);
            if f.names.is_empty() {
                self.files.remove(&id);
            }
        }
    }

    /// Does what operation number `op` does.
    pub fn apply(&mut self, op: u64, what: &LoadOp) {
        match what {
            LoadOp::Create { dir, name } => {
                let file = FileModel {
                    cells: Vec::new(),
                    mode: NEW_MODE,
                    xattrs: BTreeMap::new(),
                    names: Vec::new(),
                };
                self.files.insert(op, file);
                self.bind(*dir, name, op);
            }
            LoadOp::Write { file, at, cells } => self.write(op, *file, *at, *cells),
            LoadOp::Append { file, cells } => {
                let at = self.files.get(file).map_or(0, |f| f.cells.len());
                self.write(op, *file, at, *cells);
            }
            LoadOp::Truncate { file, cells } => {
                if let Some(f) = self.files.get_mut(file) {
                    f.cells.resize(*cells, 0);
                }
            }
            LoadOp::Rename { dir, name, to_dir, to_name } => {
                let id = self.dirs.get(dir).and_then(|d| d.files.get(name)).copied();
                let target = self.dirs.get(to_dir).and_then(|d| d.files.get(to_name)).copied();
                // Renaming one name of a file onto another does nothing (POSIX rename).
                if let (Some(id), false) = (id, id == target) {
                    self.bind(*to_dir, to_name, id);
                    self.unbind(*dir, name);
                }
            }
            LoadOp::Link { file, dir, name } => self.bind(*dir, name, *file),
            LoadOp::Unlink { dir, name } => self.unbind(*dir, name),
            LoadOp::Mkdir { dir, name } => {
                let new = DirModel { parent: *dir, name: name.clone(), ..DirModel::default() };
                self.dirs.insert(op, new);
                if let Some(d) = self.dirs.get_mut(dir) {
                    d.dirs.insert(name.clone(), op);
                }
            }
            LoadOp::Rmdir { dir } => {
                if let Some(old) = self.dirs.remove(dir) {
                    if let Some(p) = self.dirs.get_mut(&old.parent) {
                        p.dirs.remove(&old.name);
                    }
                }
            }
            LoadOp::RenameDir { dir, name } => {
                let Some(d) = self.dirs.get_mut(dir) else { return };
                let (parent, old) = (d.parent, std::mem::replace(&mut d.name, name.clone()));
                if let Some(p) = self.dirs.get_mut(&parent) {
                    p.dirs.remove(&old);
                    p.dirs.insert(name.clone(), *dir);
                }
            }
            LoadOp::SetXattr { file, key } => {
                if let Some(f) = self.files.get_mut(file) {
                    f.xattrs.insert(*key, op);
                }
            }
            LoadOp::RemoveXattr { file, key } => {
                if let Some(f) = self.files.get_mut(file) {
                    f.xattrs.remove(key);
                }
            }
            LoadOp::Chmod { file, mode } => {
                if let Some(f) = self.files.get_mut(file) {
                    f.mode = *mode;
                }
            }
            LoadOp::Fsync { .. } | LoadOp::FsyncDir { .. } => {}
        }
    }

    fn write(&mut self, op: u64, file: FileId, at: usize, cells: usize) {
        if let Some(f) = self.files.get_mut(&file) {
            if f.cells.len() < at + cells {
                f.cells.resize(at + cells, 0);
            }
            f.cells[at..at + cells].fill(op);
        }
    }

    /// The same write, cut off after `cells`: what a kill in the middle may leave.
    pub fn apply_part(&mut self, op: u64, what: &LoadOp, part: usize) {
        match what {
            LoadOp::Write { file, at, .. } => self.write(op, *file, *at, part),
            LoadOp::Append { file, .. } => {
                let at = self.files.get(file).map_or(0, |f| f.cells.len());
                self.write(op, *file, at, part);
            }
            _ => {}
        }
    }
}

/// The directory of a thread, below the root of the load.
pub fn own_dir(thread: u32) -> String {
    format!("t{thread:02}")
}

/// What a thread's names in the common directory begin with.
pub fn shared_prefix(thread: u32) -> String {
    format!("t{thread:02}-")
}

/// Directories are named after their id, so that a renamed one is still known.
pub fn dir_id_of(name: &str) -> Option<DirId> {
    name.strip_prefix('d')?.split('.').next()?.parse().ok()
}
