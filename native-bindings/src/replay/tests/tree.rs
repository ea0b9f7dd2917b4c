//! Two trees, compared bit for bit: what replay is measured by. Also copying a tree exactly.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

pub fn cstr(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let c = cstr(path);
    let mut names = vec![0u8; 64 << 10];
    // SAFETY: buffers are valid for their lengths.
    let n = unsafe { libc::llistxattr(c.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let mut out = BTreeMap::new();
    for name in names[..n.max(0) as usize].split(|b| *b == 0) {
        if name.is_empty() {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let cn = CString::new(name).unwrap();
        // SAFETY: as above.
        let n = unsafe {
            libc::lgetxattr(c.as_ptr(), cn.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        assert!(n >= 0, "getxattr {path:?} {:?}", name.escape_ascii().to_string());
        value.truncate(n as usize);
        out.insert(name.to_vec(), value);
    }
    out
}

/// Flags that replay carries, and the project.
fn flags(file: &fs::File) -> (u32, u32) {
    let mut v: libc::c_int = 0;
    let mut x = [0u32; 7];
    // SAFETY: out-pointers of the right sizes.
    unsafe {
        libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &mut v);
        if libc::ioctl(file.as_raw_fd(), 0x801c_581f_u64 as _, x.as_mut_ptr()) != 0 {
            x = [0; 7];
        }
    }
    (v as u32 & 0x2283_C4FF, x[3])
}

pub fn data_ranges(file: &fs::File, size: u64) -> Vec<(u64, u64)> {
    let fd = file.as_raw_fd();
    // Cached zeros over preallocated blocks count as data: what is cached is chance.
    // SAFETY: no pointers.
    unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) };
    let mut out = Vec::new();
    let mut at = 0i64;
    loop {
        // SAFETY: no pointers.
        let (start, end) = unsafe {
            let start = libc::lseek(fd, at, libc::SEEK_DATA);
            if start < 0 {
                return out;
            }
            (start, libc::lseek(fd, start, libc::SEEK_HOLE))
        };
        out.push((start as u64, (end as u64).min(size)));
        at = end;
    }
}

/// The data ranges without blocks of zeros. Whether zeros over preallocated blocks count as data depends on
/// what is cached and not yet written back; treecmp compares holes exactly in the tests of whole volumes.
fn filled_ranges(file: &fs::File, size: u64) -> Vec<(u64, u64)> {
    use std::os::unix::fs::FileExt;
    const BLOCK: u64 = 4096;
    let mut out: Vec<(u64, u64)> = Vec::new();
    let mut block = [0; BLOCK as usize];
    for (start, end) in data_ranges(file, size) {
        for at in (start..end).step_by(BLOCK as usize) {
            let to = (at + BLOCK).min(end);
            let part = &mut block[..(to - at) as usize];
            file.read_exact_at(part, at).unwrap();
            if part.iter().all(|b| *b == 0) {
                continue;
            }
            match out.last_mut() {
                Some(last) if last.1 == at => last.1 = to,
                _ => out.push((at, to)),
            }
        }
    }
    out
}

fn describe(path: &Path, m: &fs::Metadata, with_time: bool) -> Vec<(&'static str, String)> {
    let t = m.file_type();
    let mut out = vec![
        ("mode", format!("{:o}", m.mode())),
        ("owner", format!("{}:{}", m.uid(), m.gid())),
        ("xattrs", {
            let x = xattrs(path);
            x.iter().map(|(k, v)| format!("{}={} ", k.escape_ascii(), v.escape_ascii())).collect()
        }),
    ];
    if with_time {
        out.push(("mtime", format!("{}.{:09}", m.mtime(), m.mtime_nsec())));
    }
    if !t.is_dir() {
        out.push(("links", m.nlink().to_string()));
        out.push(("size", m.size().to_string()));
    }
    if t.is_char_device() || t.is_block_device() {
        out.push(("rdev", m.rdev().to_string()));
    }
    if t.is_symlink() {
        out.push(("target", format!("{:?}", fs::read_link(path).unwrap())));
    }
    if t.is_file() || t.is_dir() {
        let file = fs::File::open(path).unwrap();
        out.push(("flags", format!("{:x?}", flags(&file))));
        if t.is_file() {
            out.push(("data", format!("{:?}", filled_ranges(&file, m.size()))));
        }
    }
    out
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    let (mut a, mut b) = (fs::File::open(a).unwrap(), fs::File::open(b).unwrap());
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = a.read(&mut x).unwrap();
        if n == 0 {
            return b.read(&mut y).unwrap() == 0;
        }
        if b.read_exact(&mut y[..n]).is_err() || x[..n] != y[..n] {
            return false;
        }
    }
}

fn names(dir: &Path) -> Vec<Vec<u8>> {
    let mut out: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec()).collect();
    out.sort();
    out
}

/// The differences: where, and what; empty when the trees are the same.
pub fn differing(a: &Path, b: &Path) -> Vec<(PathBuf, String)> {
    for root in [a, b] {
        // SAFETY: no pointers.
        unsafe { libc::syncfs(fs::File::open(root).unwrap().as_raw_fd()) };
    }
    let mut out = Vec::new();
    let mut links: HashMap<u64, u64> = HashMap::new();
    let mut stack = vec![PathBuf::new()];
    while let Some(rel) = stack.pop() {
        let (pa, pb) = (a.join(&rel), b.join(&rel));
        let (pa, pb) =
            if rel.as_os_str().is_empty() { (a.to_path_buf(), b.to_path_buf()) } else { (pa, pb) };
        let (ma, mb) = (fs::symlink_metadata(&pa).unwrap(), fs::symlink_metadata(&pb).unwrap());
        let mut say = |rel: &Path, what: String| {
            let name = String::from_utf8_lossy(rel.as_os_str().as_bytes()).replace("nnnnnnnn", "");
            out.push((rel.to_path_buf(), format!("{name:?} {what}")));
        };
        let (da, db) = (describe(&pa, &ma, true), describe(&pb, &mb, true));
        for (x, y) in da.iter().zip(&db) {
            if x != y {
                say(&rel, format!("({:o}) {}: {} != {}", ma.mode(), x.0, x.1, y.1));
            }
        }
        if da.len() != db.len() {
            say(&rel, "other type".into());
            continue;
        }
        if !ma.is_dir() && *links.entry(ma.ino()).or_insert(mb.ino()) != mb.ino() {
            say(&rel, "hard links differ".into());
        }
        if ma.is_file() && !same_bytes(&pa, &pb) {
            say(&rel, "contents differ".into());
        }
        if ma.is_dir() {
            let (na, nb) = (names(&pa), names(&pb));
            for name in &na {
                if nb.contains(name) {
                    stack.push(rel.join(OsStr::from_bytes(name)));
                } else {
                    say(&rel, format!("lacks {}", name.escape_ascii()));
                }
            }
            for name in nb.iter().filter(|n| !na.contains(n)) {
                say(&rel, format!("has {}", name.escape_ascii()));
            }
        }
    }
    out
}

/// A copy of the base, by the system's own tools.
pub fn copy_tree(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp")
        .args(["-a", "--sparse=auto", "--reflink=never", "-T"])
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}
