//! Images: baselines onto nothing, repairs of damaged targets, scans while applications work.

use super::crash;
use super::kills::replay;
use super::random::Chaos;
use super::scan::BASELINE;
use super::source::Source;
use super::tree::copy_tree;
use super::world::{everywhere, seed, World};
use crate::record::Op;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// Where an open directory is now; `None` when it was removed.
fn place_of(source: &Source, dir: &fs::File) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    if dir.metadata().unwrap().nlink() == 0 {
        return None;
    }
    let path = fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).unwrap();
    path.strip_prefix(&source.root).ok().map(Path::to_path_buf)
}

/// Scans the whole tree; between two objects the chaos makes `busy` operations.
pub fn scan(chaos: &mut Chaos, busy: usize, rng: &mut ChaCha8Rng) {
    chaos.source.bracket(Op::ScanBegin, BASELINE);
    chaos.scanning = true;
    let root = PathBuf::new();
    chaos.source.known(&root);
    let mut queue = VecDeque::from([fs::File::open(chaos.source.path(&root)).unwrap()]);
    while let Some(dir) = queue.pop_front() {
        let Some(rel) = place_of(&chaos.source, &dir) else {
            continue;
        };
        chaos.source.known(&rel);
        chaos.source.image_dir(&rel, rng);
        chaos.source.image(&rel);
        let names: Vec<_> = fs::read_dir(chaos.source.path(&rel))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        for name in &names {
            let path = chaos.source.path(&rel.join(name));
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                queue.push_back(fs::File::open(path).unwrap());
            }
        }
        for name in names {
            let before = chaos.source.journal.records.len();
            for _ in 0..busy {
                chaos.step();
            }
            moved(chaos, before, &mut queue);
            let Some(rel) = place_of(&chaos.source, &dir) else {
                break;
            };
            let path = rel.join(&name);
            let there = fs::symlink_metadata(chaos.source.path(&path));
            if there.is_ok_and(|m| !m.is_dir()) {
                chaos.source.known(&path);
                chaos.source.image(&path);
            }
        }
    }
    chaos.scanning = false;
    chaos.source.bracket(Op::ScanEnd, BASELINE);
}

/// What got a name while the scan went on may have moved past it: it is imaged at once.
fn moved(chaos: &mut Chaos, since: usize, queue: &mut VecDeque<fs::File>) {
    let mut oids = HashSet::new();
    for r in &chaos.source.journal.records[since..] {
        let view = crate::record::RecordView::parse(r).unwrap();
        if matches!(view.op(), Op::Rename | Op::Link) {
            oids.insert(view.oid());
            if let crate::record::Fields::Rename { replaced, .. } = view.decode().unwrap() {
                oids.insert(replaced);
            }
        }
    }
    if oids.is_empty() {
        return;
    }
    let mut stack = vec![PathBuf::new()];
    while let Some(dir) = stack.pop() {
        for e in fs::read_dir(chaos.source.path(&dir)).unwrap() {
            let rel = dir.join(e.unwrap().file_name());
            let is_dir = chaos.source.stat(&rel).st_mode & libc::S_IFMT == libc::S_IFDIR;
            if oids.contains(&chaos.source.oid(&rel)) {
                chaos.source.image_entry(&rel);
                if is_dir {
                    queue.push_back(fs::File::open(chaos.source.path(&rel)).unwrap());
                } else {
                    chaos.source.known(&rel);
                    chaos.source.image(&rel);
                }
            }
            if is_dir {
                stack.push(rel);
            }
        }
    }
}

/// A target that differs in all kinds of ways.
fn damage(world: &World, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut paths = Vec::new();
    let mut stack = vec![world.b()];
    while let Some(dir) = stack.pop() {
        for e in fs::read_dir(&dir).unwrap() {
            let e = e.unwrap();
            if e.file_type().unwrap().is_dir() {
                stack.push(e.path());
            }
            paths.push(e.path());
        }
    }
    for path in &paths {
        let Ok(meta) = fs::symlink_metadata(path) else {
            continue;
        };
        match rng.random_range(0..8) {
            0 if meta.is_dir() => drop(fs::remove_dir_all(path)),
            0 => drop(fs::remove_file(path)),
            1 => {
                let other = paths[rng.random_range(0..paths.len())].with_extension("moved");
                drop(fs::rename(path, other));
            }
            2 if meta.is_file() => drop(fs::write(path, b"other contents")),
            3 if !meta.is_dir() => {
                drop(fs::remove_file(path));
                drop(fs::create_dir(path));
            }
            4 if meta.is_symlink() => {
                drop(fs::remove_file(path));
                drop(std::os::unix::fs::symlink("elsewhere", path));
            }
            5 => drop(fs::write(path.with_file_name("extra"), b"extra")),
            _ => {}
        }
    }
}

pub fn settled(chaos: &mut Chaos, ops: usize) {
    for _ in 0..ops {
        chaos.step();
    }
    chaos.settle();
}

#[test]
fn a_baseline_makes_the_tree_out_of_nothing() {
    everywhere(|world| {
        let seed = seed();
        let mut chaos = world.chaos(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 4);
        // What happened before the journal began.
        settled(&mut chaos, 1500);
        chaos.source.start_journal();
        fs::remove_dir_all(world.b()).unwrap();
        fs::create_dir(world.b()).unwrap();
        scan(&mut chaos, 1, &mut rng);
        settled(&mut chaos, 300);
        let frames = chaos.source.journal.frames(100, 1 << 20);
        replay(world, &frames);
        chaos.source.assert_same(&world.b(), "after a baseline");
        assert!(fs::read_dir(world.state().join("parked")).unwrap().next().is_none());
        assert!(fs::read_dir(world.state().join("unnamed")).unwrap().next().is_none());
    });
}

#[test]
fn a_scan_repairs_a_damaged_target() {
    everywhere(|world| {
        let seed = seed();
        let mut chaos = world.chaos(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 5);
        settled(&mut chaos, 800);
        chaos.source.journal.cut();
        replay(world, &chaos.source.journal.frames(100, 1 << 20));
        std::process::Command::new("chattr")
            .args(["-R", "-f", "-i", "-a", world.b().to_str().unwrap()])
            .output()
            .unwrap();
        damage(world, seed);
        scan(&mut chaos, 1, &mut rng);
        settled(&mut chaos, 300);
        let frames = chaos.source.journal.frames(100, 1 << 20);
        replay(world, &frames);
        chaos.source.assert_same(&world.b(), "after a repair");
    });
}

#[test]
fn a_scan_repairs_whatever_the_process_dies_of() {
    everywhere(|world| {
        let seed = seed();
        let mut chaos = world.chaos(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 6);
        settled(&mut chaos, 400);
        chaos.source.start_journal();
        damage(world, seed);
        scan(&mut chaos, 1, &mut rng);
        settled(&mut chaos, 100);
        let frames = chaos.source.journal.frames(30, 1 << 20);
        let (mut deaths, mut die_at) = (0, 1);
        loop {
            match crash::run(&world.b(), &world.state(), &frames, die_at) {
                Some(Ok(_)) => break,
                Some(Err(e)) => panic!("after {deaths} deaths: {e}"),
                None => deaths += 1,
            }
            die_at = 1 << rng.random_range(4..9);
            die_at += rng.random_range(0..die_at);
        }
        println!("{deaths} deaths");
        assert!(deaths > 8, "too few deaths: {deaths}");
        chaos.source.assert_same(&world.b(), "after dying in a scan");
    });
}

#[test]
fn a_copy_of_the_target_takes_the_scan_of_another_life() {
    // The source was restored from a copy: all its objects are others, the target is right already.
    let world = World::new();
    let seed = seed();
    let mut chaos = world.chaos(seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 7);
    settled(&mut chaos, 300);
    chaos.source.journal.cut();
    replay(&world, &chaos.source.journal.frames(100, 1 << 20));
    let again = World { dir: world.dir.join("again") };
    fs::create_dir(&again.dir).unwrap();
    copy_tree(&world.a(), &again.a());
    let mut other = Chaos::new(Source::new(&again.a()), rng.clone());
    other.source.journal.continue_from(&chaos.source.journal);
    scan(&mut other, 0, &mut rng);
    replay(&world, &other.source.journal.frames(100, 1 << 20));
    other.source.assert_same(&world.b(), "after a scan of another life");
}
