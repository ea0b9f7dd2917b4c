//! What is told of single changes, and what a restore does about them.

use super::{all, between, compare, restore, told};
use crate::replay::tests::tree::differing;
use crate::replay::tests::world::{Loop, World};
use crate::tree::{Kind, Options};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A tree, and what it was before.
struct Case {
    world: World,
    _frozen: Loop,
    _image: Loop,
    then: PathBuf,
}

impl Case {
    fn new(before: impl Fn(&Path), after: impl Fn(&Path)) -> Self {
        let image = Loop::make("xfs");
        let world = World::below(&image.path());
        before(&world.a());
        let frozen = image.frozen();
        let then = frozen.path().join(world.dir.file_name().unwrap()).join("a");
        after(&world.a());
        Self { world, _frozen: frozen, _image: image, then }
    }

    /// From then to now.
    fn forth(&self) -> Options {
        Options { identity: true, ranges: true, ..between(&self.then, &self.world.a()) }
    }

    fn back(&self) -> Options {
        Options { identity: true, ..between(&self.world.a(), &self.then) }
    }

    fn now(&self, name: &str) -> PathBuf {
        self.world.a().join(name)
    }

    fn told(&self) -> Vec<String> {
        // That a directory's time moves with what is in it goes without saying.
        let said = told(&compare(&self.forth()));
        said.into_iter().filter(|line| !line.ends_with(" mtime")).collect()
    }

    fn restore(&self) {
        restore(&self.back());
        let left = differing(&self.then, &self.world.a());
        assert!(left.is_empty(), "{left:#?}");
    }
}

fn write(path: PathBuf, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn renames_are_told_and_undone_as_renames() {
    let case = Case::new(
        |dir| {
            fs::create_dir_all(dir.join("d/e")).unwrap();
            write(dir.join("d/e/f"), "one");
            write(dir.join("d/g"), "two");
            write(dir.join("x"), "three");
            write(dir.join("y"), "four");
        },
        |dir| {
            // A directory goes into what was in it; two files change places.
            fs::rename(dir.join("d/e"), dir.join("e")).unwrap();
            fs::rename(dir.join("d"), dir.join("e/d")).unwrap();
            fs::rename(dir.join("x"), dir.join("z")).unwrap();
            fs::rename(dir.join("y"), dir.join("x")).unwrap();
            fs::rename(dir.join("z"), dir.join("y")).unwrap();
        },
    );
    let wanted =
        ["renamed d/e → e mtime", "renamed d → e/d mtime", "renamed y → x", "renamed x → y"];
    assert_eq!(told(&compare(&case.forth()))[1..], wanted);
    let inode = |name: &str| fs::metadata(case.now(name)).unwrap().ino();
    let before = (inode("e"), inode("e/f"), inode("x"), inode("y"));
    case.restore();
    assert_eq!((inode("d/e"), inode("d/e/f"), inode("y"), inode("x")), before);
}

#[test]
fn ranges_name_the_blocks_that_differ() {
    let big = vec![7u8; 3 << 20];
    let case = Case::new(
        |dir| {
            fs::write(dir.join("big"), &big).unwrap();
            fs::File::create(dir.join("hole")).unwrap().set_len(1 << 26).unwrap();
        },
        |dir| {
            let file = fs::OpenOptions::new().write(true).open(dir.join("big")).unwrap();
            file.write_all_at(b"x", 5000).unwrap();
            file.write_all_at(&[8; 6000], (2 << 20) - 1000).unwrap();
            let file = fs::OpenOptions::new().write(true).open(dir.join("hole")).unwrap();
            file.write_all_at(b"x", 1 << 25).unwrap();
        },
    );
    let changes = compare(&case.forth());
    let ranges =
        |name: &str| changes.iter().find(|c| c.path == name.as_bytes()).unwrap().ranges.clone();
    assert_eq!(ranges("big"), [(4096, 8192), ((2 << 20) - 4096, (2 << 20) + 8192)]);
    assert_eq!(ranges("hole"), [(1 << 25, (1 << 25) + 4096)]);
    case.restore();
    assert_eq!(fs::metadata(case.now("hole")).unwrap().blocks(), 0, "it is a hole again");
}

#[test]
fn names_of_one_object_stay_one_object() {
    let case = Case::new(
        |dir| {
            write(dir.join("a"), "text");
            fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
            fs::hard_link(dir.join("a"), dir.join("c")).unwrap();
            write(dir.join("p"), "text");
            fs::hard_link(dir.join("p"), dir.join("q")).unwrap();
        },
        |dir| {
            fs::remove_file(dir.join("b")).unwrap();
            write(dir.join("b"), "text");
            fs::rename(dir.join("c"), dir.join("d")).unwrap();
            fs::remove_file(dir.join("p")).unwrap();
            fs::remove_file(dir.join("q")).unwrap();
        },
    );
    let wanted = ["changed b links", "renamed c → d", "deleted p", "deleted q"];
    assert_eq!(case.told(), wanted);
    case.restore();
    let inode = |name: &str| fs::metadata(case.now(name)).unwrap().ino();
    assert!(inode("a") == inode("b") && inode("b") == inode("c"));
    assert_eq!(inode("p"), inode("q"));
    // The new objects have other numbers than in the past, and are equal all the same.
    assert!(told(&compare(&case.back())).is_empty());
}

#[test]
fn a_file_saved_by_renaming_is_a_change_of_that_file() {
    let case = Case::new(
        |dir| {
            write(dir.join("f"), "old");
            std::os::unix::fs::symlink("old", dir.join("s")).unwrap();
            write(dir.join("t"), "a file");
        },
        |dir| {
            write(dir.join("f.new"), "newer");
            fs::rename(dir.join("f.new"), dir.join("f")).unwrap();
            fs::remove_file(dir.join("s")).unwrap();
            std::os::unix::fs::symlink("new", dir.join("s")).unwrap();
            fs::remove_file(dir.join("t")).unwrap();
            fs::create_dir(dir.join("t")).unwrap();
        },
    );
    let wanted = ["changed f data,size,mtime", "changed s target", "deleted t", "created t"];
    assert_eq!(case.told(), wanted);
    case.restore();
}

#[test]
fn the_scope_is_all_that_is_touched() {
    let case = Case::new(
        |dir| {
            fs::create_dir_all(dir.join("d/in")).unwrap();
            write(dir.join("d/in/f"), "old");
            write(dir.join("d/other"), "old");
            write(dir.join("d/gone"), "old");
        },
        |dir| {
            write(dir.join("d/other"), "new");
            fs::remove_dir_all(dir.join("d/in")).unwrap();
            fs::remove_file(dir.join("d/gone")).unwrap();
        },
    );
    let scope = |path: &[&[u8]]| path.iter().map(|name| name.to_vec()).collect::<Vec<_>>();
    let within = Options { scope: scope(&[b"d", b"in", b"f"]), ..case.back() };
    assert_eq!(told(&compare(&within)), ["created d/in", "created d/in/f"]);
    restore(&within);
    assert_eq!(fs::read(case.now("d/in/f")).unwrap(), b"old");
    assert_eq!(fs::read(case.now("d/other")).unwrap(), b"new");
    assert!(!case.now("d/gone").exists());
    // What was not there is no order to delete what is.
    write(case.now("d/late"), "late");
    let late = Options { restore: true, scope: scope(&[b"d", b"late"]), ..case.back() };
    let (_, outcome) = all(&late);
    assert_eq!(outcome.stopped.map(|f| f.errno), Some(libc::ENOENT));
    assert!(case.now("d/late").exists());
}

#[test]
fn what_cannot_have_changed_is_not_looked_at() {
    let case = Case::new(
        |dir| {
            write(dir.join("a"), "1");
            write(dir.join("b"), "1");
        },
        |dir| {
            write(dir.join("a"), "2");
            write(dir.join("b"), "2");
        },
    );
    let only = [fs::metadata(case.now("a")).unwrap().ino()].into();
    let options = Options { only: Some(only), ..case.forth() };
    let changed: Vec<_> =
        compare(&options).into_iter().filter(|c| c.kind == Kind::Changed).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].path, b"a");
}

#[test]
fn only_directories_that_lead_to_a_change_are_looked_into() {
    let case = Case::new(
        |dir| {
            fs::create_dir_all(dir.join("in/deep")).unwrap();
            fs::create_dir(dir.join("out")).unwrap();
            write(dir.join("in/deep/f"), "1");
            write(dir.join("out/f"), "1");
        },
        |dir| {
            write(dir.join("in/deep/f"), "22");
            write(dir.join("out/f"), "22");
        },
    );
    let number = |path: &str| fs::metadata(case.now(path)).unwrap().ino();
    let only = ["in/deep/f", "out/f"].map(number).into();
    let within = ["in", "in/deep"].map(number).into();
    let options = Options { only: Some(only), within: Some(within), ..case.forth() };
    let changed: Vec<_> =
        compare(&options).into_iter().filter(|c| c.kind == Kind::Changed).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].path, b"in/deep/f");
}

#[test]
fn a_failure_names_its_path_and_the_rest_is_done() {
    let case = Case::new(
        |dir| {
            fs::create_dir(dir.join("d")).unwrap();
            write(dir.join("f"), "old");
        },
        |dir| {
            write(dir.join("f"), "new");
            fs::create_dir_all(dir.join("mounted/over")).unwrap();
            fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        },
    );
    let over = case.now("mounted/over");
    let mount = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).status();
    mount(&["mount", "-t", "tmpfs", "none", over.to_str().unwrap()]).unwrap();
    fs::write(over.join("theirs"), "x").unwrap();
    let (items, outcome) = all(&Options { restore: true, ..case.back() });
    let theirs = over.join("theirs").exists();
    mount(&["umount", over.to_str().unwrap()]).unwrap();
    assert!(theirs, "what is mounted there is not ours");
    // The mountpoint, and the directory that it is in.
    assert_eq!((outcome.failures, outcome.stopped, items.len()), (2, None, 2));
    assert_eq!(fs::read(case.now("f")).unwrap(), b"old");
    restore(&case.back());
    assert!(!case.now("mounted").exists());
}
