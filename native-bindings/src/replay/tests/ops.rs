//! Single operations whose exactness is easy to lose.

use super::kills::{open, replay};
use super::source::{Source, Tried};
use super::tree::cstr;
use super::world::World;
use crate::record::{valid, Op, Time};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

const ROOT: (u32, u32, u32) = (0, 0, 0o022);

/// Does something, replays it, compares.
fn check(what: &str, prepare: impl FnOnce(&World), act: impl FnOnce(&mut Source) -> Tried) {
    let world = World::new();
    prepare(&world);
    let mut source = world.source();
    act(&mut source).unwrap();
    replay(&world, &source.journal.frames(3, 1 << 20));
    source.assert_same(&world.b(), what);
}

fn file(world: &World, name: &str, mode: u32) {
    std::fs::write(world.a().join(name), vec![7; 10_000]).unwrap();
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(world.a().join(name), permissions).unwrap();
}

#[test]
fn a_write_without_the_capability_drops_set_id_and_one_with_it_does_not() {
    for (mode, kill, after) in
        [(0o6755, true, 0o0755), (0o6745, true, 0o2745), (0o6755, false, 0o6755)]
    {
        let world = World::new();
        file(&world, "f", mode);
        let mut source = world.source();
        let (fd, oid) = source.open(Path::new("f")).unwrap();
        source.write(&fd, oid, 5, b"data", kill).unwrap();
        replay(&world, &source.journal.frames(9, 1 << 20));
        let got = std::fs::metadata(world.b().join("f")).unwrap().mode() & 0o7777;
        assert_eq!(got, after, "{mode:o} {kill}");
        source.assert_same(&world.b(), "set-id");
    }
}

#[test]
fn creations_inherit_default_acls_and_set_group_id() {
    let acl = |world: &World| {
        std::fs::create_dir(world.a().join("d")).unwrap();
        let set = ["-d", "-m", "u:1000:rwx,g:50:r,m:rwx,o:-"];
        let d = world.a().join("d");
        let done = std::process::Command::new("setfacl").args(set).arg(&d).status().unwrap();
        assert!(done.success());
        std::os::unix::fs::chown(&d, Some(0), Some(50)).unwrap();
        std::fs::set_permissions(&d, std::fs::Permissions::from_mode(0o2775)).unwrap();
    };
    check("inheritance", acl, |s| {
        let who = (1000, 1000, 0o077);
        s.create(Path::new("d/f"), libc::S_IFREG | 0o666, 0, who, b"")?;
        s.create(Path::new("d/sub"), libc::S_IFDIR | 0o777, 0, who, b"")?;
        s.create(Path::new("d/sub/g"), libc::S_IFREG | 0o6755, 0, who, b"")?;
        s.create(Path::new("d/fifo"), libc::S_IFIFO | 0o622, 0, who, b"")?;
        let (fd, _) = s.tmpfile(Path::new("d"), 0o666, who)?;
        s.link_tmpfile(&fd, Path::new("d/linked"))
    });
}

#[test]
fn writes_to_sealed_files_keep_the_seal_and_the_time() {
    let sealed = |world: &World| file(world, "f", 0o644);
    check("sealed", sealed, |s| {
        let (fd, oid) = s.open(Path::new("f"))?;
        s.write(&fd, oid, 20_000, b"before", false)?;
        let path = s.path(Path::new("f"));
        let flags = |v: u32| {
            move |p: &Path| {
                use std::os::fd::AsRawFd;
                let f = std::fs::File::open(p).unwrap();
                let now = crate::replay::seal::get_flags(f.as_raw_fd()).unwrap();
                crate::replay::seal::set_flags(f.as_raw_fd(), now & !0x30 | v).unwrap();
                Ok(())
            }
        };
        s.meta(Path::new("f"), Op::Setflags, flags(0x20), |e| {
            e.u32(0x80020);
        })?;
        let mut f = std::fs::File::options().append(true).open(&path).unwrap();
        let at = f.metadata().unwrap().len();
        std::io::Write::write_all(&mut f, b"appended").unwrap();
        s.wrote(&fd, oid, at, b"appended", false);
        Ok(())
    });
}

#[test]
fn a_removed_file_that_is_still_written_to_leaves_nothing() {
    let world = World::new();
    file(&world, "f", 0o644);
    let mut source = world.source();
    let (fd, oid) = source.open(Path::new("f")).unwrap();
    source.remove(Path::new("f")).unwrap();
    source.write(&fd, oid, 0, b"nobody sees this", false).unwrap();
    source.truncate(&fd, oid, 5, false).unwrap();
    drop(fd);
    source.gone(oid);
    let mut replayer = open(&world);
    for frame in source.journal.frames(1, 1 << 20) {
        replayer.apply_frame(&frame).unwrap();
    }
    assert_eq!(replayer.close(true).unwrap().objects, 1, "only the root is left in the map");
    source.assert_same(&world.b(), "after removal");
}

#[test]
fn a_nameless_file_that_is_let_go_leaves_nothing_in_the_staging_area() {
    let world = World::new();
    let mut source = world.source();
    let (fd, oid) = source.tmpfile(Path::new(""), 0o600, ROOT).unwrap();
    source.write(&fd, oid, 0, b"scratch", false).unwrap();
    drop(fd);
    source.gone(oid);
    replay(&world, &source.journal.frames(9, 1 << 20));
    assert_eq!(std::fs::read_dir(world.state().join("unnamed")).unwrap().count(), 0);
    source.assert_same(&world.b(), "after a scratch file");
}

#[test]
fn times_are_exact_to_the_nanosecond_before_the_epoch_and_for_links() {
    let prepare = |world: &World| {
        file(world, "f", 0o644);
        std::os::unix::fs::symlink("f", world.a().join("l")).unwrap();
    };
    check("times", prepare, |s| {
        for (name, sec, nsec) in [("f", -5, 999_999_999), ("l", 1, 1), ("", 4_000_000_000, 7)] {
            let t = Time { sec, nsec };
            let effect = |p: &Path| {
                let one = libc::timespec { tv_sec: sec, tv_nsec: i64::from(nsec) };
                let ts = [one, one];
                let (c, flag) = (cstr(p), libc::AT_SYMLINK_NOFOLLOW);
                // SAFETY: c is terminated, ts has two elements.
                unsafe { libc::utimensat(libc::AT_FDCWD, c.as_ptr(), ts.as_ptr(), flag) };
                Ok(())
            };
            s.meta(Path::new(name), Op::Setattr, effect, |e| {
                e.u32(valid::MTIME).u32(0).u32(0).u32(0).u64(0).time(t).time(t);
            })?;
        }
        Ok(())
    });
}

#[test]
fn more_files_than_descriptors_are_written_and_keep_their_times() {
    let world = World::new();
    let mut source = world.source();
    let names: Vec<_> = (0..6000).map(|i| format!("f{i}")).collect();
    for name in &names {
        source.create(Path::new(name), libc::S_IFREG | 0o644, 0, ROOT, b"").unwrap();
    }
    for name in names.iter().rev() {
        let (fd, oid) = source.open(Path::new(name)).unwrap();
        source.write(&fd, oid, 3, name.as_bytes(), false).unwrap();
    }
    replay(&world, &source.journal.frames(20_000, 3 << 20));
    source.assert_same(&world.b(), "many files");
}

#[test]
fn a_mapping_of_the_target_is_written_in_place() {
    // A reader of the replica sees the same file change, not another one take its place.
    let world = World::new();
    file(&world, "f", 0o644);
    let mut source = world.source();
    let reader = std::fs::File::open(world.b().join("f")).unwrap();
    let (fd, oid) = source.open(Path::new("f")).unwrap();
    source.write(&fd, oid, 100, b"in place", false).unwrap();
    replay(&world, &source.journal.frames(9, 1 << 20));
    let mut buf = [0; 8];
    reader.read_exact_at(&mut buf, 100).unwrap();
    assert_eq!(&buf, b"in place");
}
