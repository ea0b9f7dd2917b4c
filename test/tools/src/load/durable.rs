//! What must have survived a power loss: everything before a returned fsync, as POSIX demands.
//!
//! fsync of a file makes its content, size, mode and attributes durable; fsync of a directory
//! the names in it. What came later may be there or not, each change on its own. A value is
//! accepted when it is the durable one or any later one; a name must exist when it was durable
//! and nothing later took it away; a durable file that was only renamed must exist somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::ack::{Progress, Setup};
use super::check::cell_is;
use super::model::{dir_id_of, own_dir, DirId, FileId, Model, NEW_MODE, OWN, SHARED};
use super::observe::{xattr_op, Seen, SeenFile};
use super::plan::{LoadOp, Planner};

/// Values a property may have: those since the last fsync, and that one.
#[derive(Clone, Debug, Default)]
struct FileHistory {
    sizes: BTreeSet<usize>,
    /// Per cell, the operations that may show.
    cells: Vec<BTreeSet<u64>>,
    modes: BTreeSet<u32>,
    xattrs: BTreeMap<u8, BTreeSet<Option<u64>>>,
}

/// Who may have a name: files, or nobody (None).
type NameHistory = BTreeSet<Option<FileId>>;

#[derive(Default)]
struct History {
    files: BTreeMap<FileId, FileHistory>,
    names: BTreeMap<(DirId, String), NameHistory>,
    /// Directories: Some(parent) for which the entry is durable and not removed since.
    dirs_required: BTreeMap<DirId, DirId>,
    dirs_possible: BTreeSet<DirId>,
    /// Files that had a durable name and lost names by renaming only.
    kept: BTreeSet<FileId>,
}

impl History {
    /// Adds the present values of a file, and of the cells in `range`, to what may be seen.
    fn touch(&mut self, m: &Model, id: FileId, range: Range<usize>) {
        let Some(f) = m.files.get(&id) else { return };
        let h = self.files.entry(id).or_default();
        h.sizes.insert(f.cells.len());
        h.modes.insert(f.mode);
        if h.cells.len() < f.cells.len() {
            h.cells.resize_with(f.cells.len(), || BTreeSet::from([0]));
        }
        for (may, op) in h.cells.iter_mut().zip(&f.cells).take(range.end).skip(range.start) {
            may.insert(*op);
        }
        // Cut off and perhaps grown again, anything behind the end may be zeros.
        for may in h.cells.iter_mut().skip(f.cells.len()) {
            may.insert(0);
        }
        let keys: BTreeSet<u8> = f.xattrs.keys().chain(h.xattrs.keys()).copied().collect();
        for key in keys {
            let value = f.xattrs.get(&key).copied();
            h.xattrs.entry(key).or_insert_with(|| BTreeSet::from([None])).insert(value);
        }
    }

    fn fsync_file(&mut self, m: &Model, id: FileId) {
        self.files.remove(&id);
        self.touch(m, id, 0..0);
        // The durable state alone: a cell's history begins anew without the zeros of before.
        if let (Some(h), Some(f)) = (self.files.get_mut(&id), m.files.get(&id)) {
            h.cells = f.cells.iter().map(|op| BTreeSet::from([*op])).collect();
            h.xattrs = f.xattrs.iter().map(|(k, op)| (*k, BTreeSet::from([Some(*op)]))).collect();
        }
    }

    fn fsync_dir(&mut self, m: &Model, dir: DirId) {
        self.names.retain(|(d, _), _| *d != dir);
        let Some(d) = m.dirs.get(&dir) else { return };
        for (name, id) in &d.files {
            self.names.insert((dir, name.clone()), BTreeSet::from([Some(*id)]));
            self.kept.insert(*id);
        }
        for id in d.dirs.values() {
            self.dirs_required.insert(*id, dir);
        }
    }

    fn name_is(&mut self, dir: DirId, name: &str, id: Option<FileId>) {
        let key = (dir, name.to_owned());
        self.names.entry(key).or_insert_with(|| BTreeSet::from([None])).insert(id);
    }

    /// Records operation `op`; `m` is the model after it, `before` what it took away.
    fn follow(&mut self, before: &Before, m: &Model, op: u64, what: &LoadOp) {
        match what {
            LoadOp::Create { dir, name } => {
                let empty = FileHistory {
                    sizes: BTreeSet::from([0]),
                    modes: BTreeSet::from([NEW_MODE]),
                    ..FileHistory::default()
                };
                self.files.insert(op, empty);
                self.name_is(*dir, name, Some(op));
            }
            LoadOp::Write { file, .. } | LoadOp::Append { file, .. } => {
                let to = m.files.get(file).map_or(0, |f| f.cells.len());
                let at = match what {
                    LoadOp::Write { at, .. } => *at,
                    _ => before.cells,
                };
                self.touch(m, *file, at..at + what.written_cells());
                // One that extends the file may show its size with any part of its data.
                if let Some(h) = self.files.get_mut(file) {
                    h.sizes.extend(before.cells.min(to)..=to);
                    h.cells.iter_mut().skip(before.cells).for_each(|may| {
                        may.insert(0);
                    });
                }
            }
            LoadOp::Truncate { file, cells } => {
                self.touch(m, *file, before.cells.min(*cells)..*cells);
                // XFS writes the last page back on the way and shows the size of that (measured).
                if let Some(h) = self.files.get_mut(file) {
                    h.sizes.extend(before.cells..*cells);
                }
            }
            LoadOp::SetXattr { file, .. }
            | LoadOp::RemoveXattr { file, .. }
            | LoadOp::Chmod { file, .. } => self.touch(m, *file, 0..0),
            LoadOp::Rename { dir, name, to_dir, to_name } => {
                if before.source != before.target {
                    self.name_is(*to_dir, to_name, before.source);
                    self.name_is(*dir, name, None);
                    before.target.map(|old| self.kept.remove(&old));
                }
            }
            LoadOp::Link { file, dir, name } => self.name_is(*dir, name, Some(*file)),
            LoadOp::Unlink { dir, name } => {
                before.source.map(|id| self.kept.remove(&id));
                self.name_is(*dir, name, None);
            }
            LoadOp::Mkdir { .. } => {
                self.dirs_possible.insert(op);
            }
            LoadOp::Rmdir { dir } => {
                self.dirs_required.remove(dir);
            }
            LoadOp::RenameDir { .. } => {}
            LoadOp::Fsync { file } => self.fsync_file(m, *file),
            LoadOp::FsyncDir { dir } => self.fsync_dir(m, *dir),
        }
    }

    /// Whether the directory and all above it must exist.
    fn must_exist(&self, mut dir: DirId) -> bool {
        while dir != OWN && dir != SHARED {
            match self.dirs_required.get(&dir) {
                Some(parent) => dir = *parent,
                None => return false,
            }
        }
        true
    }
}

/// What an operation is about to change.
#[derive(Default)]
struct Before {
    source: Option<FileId>,
    target: Option<FileId>,
    cells: usize,
}

impl Before {
    fn of(m: &Model, what: &LoadOp) -> Before {
        let id_at =
            |dir: &DirId, name: &String| m.dirs.get(dir).and_then(|d| d.files.get(name)).copied();
        let mut b = Before::default();
        match what {
            LoadOp::Rename { dir, name, to_dir, to_name } => {
                (b.source, b.target) = (id_at(dir, name), id_at(to_dir, to_name));
            }
            LoadOp::Unlink { dir, name } => b.source = id_at(dir, name),
            LoadOp::Write { file, .. }
            | LoadOp::Append { file, .. }
            | LoadOp::Truncate { file, .. } => {
                b.cells = m.files.get(file).map_or(0, |f| f.cells.len());
            }
            _ => {}
        }
        b
    }
}

/// What is missing, or should not be there, after a power loss.
///
/// With `racy`, an fsync that was the last thing its thread was told promises nothing: the
/// shutdown ioctl of XFS lets one that runs beside it return 0 (measured, Linux 6.18). A real
/// loss of power does not return.
pub fn complaints(seen: &Seen, t: u32, setup: Setup, p: Progress, racy: bool) -> Vec<String> {
    let mut planner = Planner::new(setup.seed, t, setup.fsync_permille);
    let mut m = Model::new(t);
    let mut h = History::default();
    for op in 1..=p.acked + u64::from(p.in_flight) {
        let what = planner.next(op, &m);
        let before = Before::of(&m, &what);
        m.apply(op, &what);
        // The operation in flight may be missing: an unanswered fsync promises nothing.
        let answered = p.acked - u64::from(racy && p.in_flight && p.acked > 0);
        if op > answered && what.changes_nothing() {
            break;
        }
        h.follow(&before, &m, op, &what);
    }
    judge(seen, t, &h)
}

fn judge(seen: &Seen, t: u32, h: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut present: BTreeSet<FileId> = BTreeSet::new();
    let mut at: BTreeMap<(DirId, String), &SeenFile> = BTreeMap::new();
    for (path, f) in &seen.files {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        match dir_of(dir, t) {
            Some(id) => {
                at.insert((id, name.to_owned()), f);
            }
            None => wrong.push(format!("{path} lies in an unknown directory")),
        }
    }
    for ((dir, name), f) in &at {
        let Some(may) = h.names.get(&(*dir, name.clone())) else {
            wrong.push(format!("{name} in directory {dir} never existed"));
            continue;
        };
        let fits = |id: &FileId| h.files.get(id).and_then(|x| refused(t, *id, x, f)).is_none();
        let candidates: Vec<FileId> = may.iter().flatten().copied().collect();
        let named = f.identity();
        let fitting: Vec<FileId> = candidates
            .iter()
            .filter(|c| named.is_none_or(|n| n == **c) && fits(c))
            .copied()
            .collect();
        if fitting.is_empty() {
            let why = candidates
                .iter()
                .filter(|c| named.is_none_or(|n| n == **c))
                .find_map(|c| h.files.get(c).and_then(|x| refused(t, *c, x, f)))
                .unwrap_or_else(|| format!("content of file {named:?}"));
            wrong.push(format!("{name} in directory {dir}, may be one of {candidates:?}: {why}"));
        }
        present.extend(fitting);
    }
    for ((dir, name), may) in &h.names {
        let there = at.contains_key(&(*dir, name.clone()));
        if !there && !may.contains(&None) && h.must_exist(*dir) {
            wrong.push(format!("{name} in directory {dir} is missing"));
        }
    }
    for id in &h.kept {
        let mut homes = h.names.iter().filter(|(_, may)| may.contains(&Some(*id)));
        let sure = homes.clone().count() > 0 && homes.all(|((d, _), _)| h.must_exist(*d));
        if sure && !present.contains(id) {
            wrong.push(format!("file {id} had a durable name and was only renamed: it is gone"));
        }
    }
    let found: BTreeSet<DirId> = seen.dirs.iter().filter_map(|d| dir_of(d, t)).collect();
    for dir in h.dirs_required.keys().filter(|d| h.must_exist(**d)) {
        if !found.contains(dir) {
            wrong.push(format!("directory {dir} is missing"));
        }
    }
    let unknown = found.iter().filter(|d| !h.dirs_possible.contains(d));
    wrong.extend(unknown.map(|d| format!("directory {d} never existed")));
    wrong
}

fn dir_of(path: &str, t: u32) -> Option<DirId> {
    match path.rsplit('/').next()? {
        "shared" => Some(SHARED),
        name if name == own_dir(t) => Some(OWN),
        name => dir_id_of(name),
    }
}

/// Why what is there cannot be this file.
fn refused(t: u32, id: FileId, h: &FileHistory, f: &SeenFile) -> Option<String> {
    if !h.sizes.contains(&f.cells.len()) {
        let (from, to) = (h.sizes.first(), h.sizes.last());
        return Some(format!("{} cells, not one of those from {from:?} to {to:?}", f.cells.len()));
    }
    for (i, c) in f.cells.iter().enumerate() {
        let may = h.cells.get(i)?;
        if !may.iter().any(|op| cell_is(t, id, i, c, *op)) {
            return Some(format!("cell {i}: {c:?}, possible operations {may:?}"));
        }
    }
    if !h.modes.contains(&f.mode) {
        return Some(format!("mode {:o}, possible {:?}", f.mode, h.modes));
    }
    for (key, may) in &h.xattrs {
        let value = f.xattrs.get(&format!("user.k{key}")).and_then(|v| xattr_op(v));
        if !may.contains(&value) {
            return Some(format!("attribute {key}: {value:?}, possible {may:?}"));
        }
    }
    None
}
