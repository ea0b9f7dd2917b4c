//! What is really there: one thread's part of the tree, read once into memory.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};

use super::cell::{decode, Cell, CELL};
use super::model::{own_dir, shared_prefix};
use crate::sys::attr::{self, Object};
use crate::sys::{cstr, dir, errno_name, file, SysResult};

#[derive(Clone, Debug)]
pub struct SeenFile {
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub size: u64,
    pub cells: Vec<Cell>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl SeenFile {
    /// The file that the content says it is; None when it holds nothing but zeros.
    pub fn identity(&self) -> Option<u64> {
        self.cells.iter().find_map(|c| match c {
            Cell::Written(o) => Some(o.file),
            _ => None,
        })
    }

    /// The largest operation number that left a trace here.
    fn newest(&self) -> u64 {
        let cells = self.cells.iter().map(|c| match c {
            Cell::Written(o) => o.op,
            _ => 0,
        });
        let xattrs = self.xattrs.values().map(|v| xattr_op(v).unwrap_or(0));
        cells.chain(xattrs).max().unwrap_or(0)
    }
}

/// The operation number in an attribute's value.
pub fn xattr_op(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// One thread's objects by path.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub files: BTreeMap<String, SeenFile>,
    pub dirs: Vec<String>,
    /// What no load makes.
    pub foreign: Vec<String>,
}

impl Seen {
    pub fn newest(&self) -> u64 {
        self.files.values().map(SeenFile::newest).max().unwrap_or(0)
    }
}

/// Reads what belongs to `thread`.
pub fn thread(root: RawFd, thread: u32) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let wrap = |r: SysResult<()>| r.map_err(|e| format!("thread {thread}: {}", errno_name(e)));
    wrap(read_dir(root, &own_dir(thread), "", &mut seen))?;
    wrap(read_dir(root, "shared", &shared_prefix(thread), &mut seen))?;
    Ok(seen)
}

fn read_dir(root: RawFd, path: &str, prefix: &str, seen: &mut Seen) -> SysResult<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let fd = file::openat(root, &cstr(path.as_bytes())?, flags, 0)?;
    for (name, kind) in dir::read_all(fd.as_raw_fd())? {
        let Ok(name) = String::from_utf8(name) else {
            seen.foreign.push(format!("{path}: a name that is not UTF-8"));
            continue;
        };
        if !name.starts_with(prefix) {
            continue;
        }
        let below = format!("{path}/{name}");
        match kind {
            libc::DT_DIR => {
                read_dir(root, &below, "", seen)?;
                seen.dirs.push(below);
            }
            libc::DT_REG => {
                let file = read_file(root, &below)?;
                seen.files.insert(below, file);
            }
            _ => seen.foreign.push(below),
        }
    }
    Ok(())
}

pub fn read_file(root: RawFd, path: &str) -> SysResult<SeenFile> {
    let fd = file::openat(root, &cstr(path.as_bytes())?, libc::O_RDONLY, 0)?;
    let fd = fd.as_raw_fd();
    let s = attr::fstat(fd)?;
    let mut raw = vec![0u8; s.size as usize];
    let n = file::pread_full(fd, &mut raw, 0)?;
    raw.truncate(n);
    let mut xattrs = BTreeMap::new();
    for name in attr::listxattr(Object::Fd(fd))? {
        let text = String::from_utf8_lossy(&name).into_owned();
        if text.starts_with("user.") {
            xattrs.insert(text, attr::getxattr(Object::Fd(fd), &cstr(&name)?)?);
        }
    }
    Ok(SeenFile {
        ino: s.ino,
        mode: s.mode & 0o7777,
        nlink: s.nlink,
        size: s.size,
        cells: raw.chunks(CELL).map(decode).collect(),
        xattrs,
    })
}

/// Complaints about the files that all threads share: every cell is whole and in its place.
pub fn common(root: RawFd) -> Result<Vec<String>, String> {
    let fail = |e| format!("shared: {}", errno_name(e));
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let fd = file::openat(root, c"shared", flags, 0).map_err(fail)?;
    let mut wrong = Vec::new();
    for (name, _) in dir::read_all(fd.as_raw_fd()).map_err(fail)? {
        let name = String::from_utf8_lossy(&name).into_owned();
        if !name.starts_with("common-") {
            continue;
        }
        let path = format!("shared/{name}");
        let f = read_file(root, &path).map_err(fail)?;
        for (i, c) in f.cells.iter().enumerate() {
            let at = (i * CELL) as u64;
            match c {
                Cell::Torn => wrong.push(format!("{path}: torn cell at {at}")),
                Cell::Written(o) if o.offset != at || o.file != 0 => {
                    wrong.push(format!("{path}: foreign cell at {at}: {o:?}"));
                }
                _ => {}
            }
        }
    }
    Ok(wrong)
}
