//! treecmp: equal trees are equal, and each single change is seen under its own name.

mod common;

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use common::{tool, Temp};
use testtools::sys::attr::{self, Object};
use testtools::sys::{file, name};

const TREECMP: &str = env!("CARGO_BIN_EXE_treecmp");
const CWD: i32 = libc::AT_FDCWD;

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// A tree with one object of each kind and fixed times.
fn plant(root: &Path) {
    let data: Vec<u8> = (0..300_000u32).map(|i| (i * 7 + 1) as u8 | 1).collect();
    std::fs::create_dir_all(root.join("dir/below")).expect("mkdir");
    std::fs::write(root.join("file"), &data).expect("write");
    std::fs::write(root.join("dir/below/empty"), b"").expect("write");
    std::fs::write(root.join("dir/linked"), b"twice").expect("write");
    std::fs::hard_link(root.join("dir/linked"), root.join("also")).expect("link");
    std::fs::write(root.join("dir/single"), b"twice").expect("write");
    symlink("dir/linked", root.join("sym")).expect("symlink");
    let sparse = std::fs::File::create(root.join("sparse")).expect("create");
    sparse.set_len(8 << 20).expect("truncate");
    file::pwrite(sparse.as_raw_fd(), b"end", 4 << 20).expect("pwrite");
    let odd = root.join(std::ffi::OsStr::from_bytes(b"\xff\n"));
    std::fs::write(odd, b"odd").expect("write");
    name::mknodat(CWD, &c(&root.join("null")), libc::S_IFCHR | 0o600, libc::makedev(1, 3))
        .expect("mknod");
    name::mknodat(CWD, &c(&root.join("fifo")), libc::S_IFIFO | 0o600, 0).expect("mknod");
    let p = c(&root.join("file"));
    attr::setxattr(Object::Path(CWD, &p, true), c"user.a", b"1", 0).expect("setxattr");
    stamp(root);
}

/// Gives every object the same fixed time.
fn stamp(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        for e in std::fs::read_dir(path).expect("readdir") {
            stamp(&e.expect("entry").path());
        }
    }
    let t = (1_000_000_000, 123_456_789);
    name::utimensat(CWD, &c(path), t, t, libc::AT_SYMLINK_NOFOLLOW).expect("utimensat");
}

fn compare(t: &Temp, args: &[&str]) -> (i32, String) {
    tool(TREECMP, args, &[("", &t.0.join("a")), ("", &t.0.join("b"))])
}

fn planted(name: &str) -> Temp {
    let t = Temp::new(name);
    plant(&t.dir("a"));
    plant(&t.dir("b"));
    t
}

#[test]
fn treecmp_finds_equal_trees_equal() {
    let t = planted("equal");
    let (code, text) = compare(&t, &["--holes"]);
    assert_eq!(code, 0, "{text}");
}

type Change = fn(&Path);

#[test]
fn treecmp_sees_each_change() {
    let changes: &[(&str, Change)] = &[
        ("data", |b| {
            let f = std::fs::File::options().write(true).open(b.join("file")).expect("open");
            file::pwrite(f.as_raw_fd(), &[0], 299_999).expect("pwrite");
        }),
        ("data", |b| {
            let f = std::fs::File::options().write(true).open(b.join("sparse")).expect("open");
            file::pwrite(f.as_raw_fd(), b"x", 6 << 20).expect("pwrite");
        }),
        ("size", |b| {
            let f = std::fs::File::options().write(true).open(b.join("file")).expect("open");
            f.set_len(299_999).expect("truncate");
        }),
        ("mode", |b| {
            let mode = std::fs::Permissions::from_mode(0o4755);
            std::fs::set_permissions(b.join("file"), mode).expect("chmod");
        }),
        ("uid", |b| std::os::unix::fs::lchown(b.join("sym"), Some(7), None).expect("chown")),
        ("gid", |b| std::os::unix::fs::lchown(b.join("fifo"), None, Some(7)).expect("chown")),
        ("target", |b| {
            std::fs::remove_file(b.join("sym")).expect("unlink");
            symlink("dir/linkex", b.join("sym")).expect("symlink");
        }),
        ("rdev", |b| {
            let p = c(&b.join("null"));
            name::unlinkat(CWD, &p, 0).expect("unlink");
            name::mknodat(CWD, &p, libc::S_IFCHR | 0o600, libc::makedev(1, 5)).expect("mknod");
        }),
        ("type", |b| {
            let p = c(&b.join("fifo"));
            name::unlinkat(CWD, &p, 0).expect("unlink");
            name::mknodat(CWD, &p, libc::S_IFSOCK | 0o600, 0).expect("mknod");
        }),
        ("xattr", |b| {
            let p = c(&b.join("file"));
            attr::setxattr(Object::Path(CWD, &p, true), c"user.a", b"2", 0).expect("setxattr");
        }),
        ("xattr", |b| {
            let p = c(&b.join("dir"));
            attr::setxattr(Object::Path(CWD, &p, true), c"trusted.t", b"", 0).expect("setxattr");
        }),
        ("flags", |b| {
            let f = std::fs::File::open(b.join("file")).expect("open");
            let old = attr::get_flags(f.as_raw_fd()).expect("lsattr");
            attr::set_flags(f.as_raw_fd(), old | attr::FLAG_NODUMP).expect("chattr");
        }),
        ("links", |b| {
            // Both names stay, with the same content and count, but grouped differently.
            std::fs::remove_file(b.join("also")).expect("unlink");
            std::fs::hard_link(b.join("dir/single"), b.join("also")).expect("link");
        }),
        ("nlink", |b| {
            std::fs::hard_link(b.join("file"), b.join("dir/below/third")).expect("link");
        }),
        ("missing", |b| std::fs::remove_file(b.join("dir/below/empty")).expect("unlink")),
        ("missing", |b| std::fs::write(b.join("dir/below/extra"), b"").expect("write")),
    ];
    for (field, change) in changes {
        let t = planted("change");
        change(&t.0.join("b"));
        stamp(&t.0.join("b"));
        let (code, text) = compare(&t, &["--ignore", "mtime"]);
        assert_eq!(code, 1, "{field} was not seen");
        let starts = |l: &str| l.split(' ').next() == Some(field);
        assert!(text.lines().any(starts), "{field} is not named in:\n{text}");
    }
}

#[test]
fn treecmp_sees_one_nanosecond() {
    let t = planted("mtime");
    let p = c(&t.0.join("b/dir/below/empty"));
    let omit = (0, libc::UTIME_OMIT);
    name::utimensat(CWD, &p, omit, (1_000_000_000, 123_456_790), 0).expect("utimensat");
    let (code, text) = compare(&t, &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("mtime ./dir/below/empty left=1000000000.123456789"), "{text}");
    assert_eq!(compare(&t, &["--ignore", "mtime"]).0, 0);
}

#[test]
fn treecmp_sees_a_filled_hole_only_when_asked() {
    let t = planted("holes");
    let f = std::fs::File::options().write(true).open(t.0.join("b/sparse")).expect("open");
    file::pwrite(f.as_raw_fd(), &[0; 65536], 0).expect("pwrite");
    stamp(&t.0.join("b"));
    assert_eq!(compare(&t, &[]).0, 0);
    let (code, text) = compare(&t, &["--holes"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("holes ./sparse"), "{text}");
}

#[test]
fn treecmp_prints_json_and_escapes_names() {
    let t = planted("json");
    std::fs::remove_file(t.0.join("b").join(std::ffi::OsStr::from_bytes(b"\xff\n"))).expect("rm");
    stamp(&t.0.join("b"));
    let (code, text) = compare(&t, &["--json"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(r#"{"op":"missing","path":"./\\xff\\x0a""#), "{text}");
}

#[test]
fn treecmp_compares_inode_numbers_of_two_views() {
    let t = planted("ino");
    let a = t.0.join("a");
    let (code, _) = tool(TREECMP, &["--with", "ino,ctime"], &[("", &a), ("", &a)]);
    assert_eq!(code, 0);
    let (code, text) = compare(&t, &["--with", "ino"]);
    assert_eq!(code, 1);
    assert!(text.contains("ino ./file"), "{text}");
}

#[test]
fn treecmp_reports_an_error_as_such() {
    let t = planted("error");
    let (code, _) = tool(TREECMP, &[], &[("", &t.0.join("a")), ("", &t.0.join("none"))]);
    assert_eq!(code, 2);
    assert_eq!(compare(&t, &["--ignore", "nonsense"]).0, 2);
}
