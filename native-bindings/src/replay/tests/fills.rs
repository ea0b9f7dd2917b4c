//! Fills: baselines whose data is brought past the journal, while operations go on at the source, the
//! target lags, and its process dies.

use super::crash::set_boots;
use super::images::{scan, settled};
use super::journal::UUID;
use super::source::Source;
use super::tree::data_ranges;
use super::world::{everywhere, seed, Loop, World};
use crate::fill::{FillHead, FillKind, FILL_HEAD_BYTES};
use crate::record::Oid;
use crate::replay::engine::Engine;
use crate::replay::{Position, ReplayOptions, Replayer, Start, BASELINE_AWAITED, OBJECT};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// The path of the source's file with this identity.
fn find(source: &Source, oid: Oid) -> Option<PathBuf> {
    let mut stack = vec![PathBuf::new()];
    while let Some(dir) = stack.pop() {
        for e in fs::read_dir(source.path(&dir)).unwrap() {
            let rel = dir.join(e.unwrap().file_name());
            let st = source.stat(&rel);
            if st.st_mode & libc::S_IFMT == libc::S_IFDIR {
                stack.push(rel);
            } else if st.st_ino == oid.ino && source.oid(&rel) == oid {
                return Some(rel);
            }
        }
    }
    None
}

/// A fill of the beginning of the range, as it is at this moment.
fn read(source: &Source, oid: Oid, (from, to): (u64, u64), rng: &mut ChaCha8Rng) -> Vec<u8> {
    let through = source.journal.records.len() as u64;
    let mut head = FillHead {
        kind: FillKind::Gone,
        oid,
        offset: from,
        len: to - from,
        through,
        mtime: (0, 0),
    };
    let mut body = vec![0; FILL_HEAD_BYTES];
    if let Some(rel) = find(source, oid) {
        let file = File::open(source.path(&rel)).unwrap();
        file.sync_all().unwrap();
        let st = source.stat(&rel);
        head.mtime = (st.st_mtime, st.st_mtime_nsec as u32);
        let end = to.min(st.st_size as u64);
        let ranges = data_ranges(&file, st.st_size as u64);
        let next = ranges.iter().find(|(_, last)| *last > from).filter(|(first, _)| *first < end);
        head.kind = FillKind::Hole;
        match next {
            None => {}
            Some((first, _)) if *first > from => head.len = first - from,
            Some((_, last)) => {
                let most = rng.random_range(1..200_000);
                let len = (last.min(&end) - from).min(most);
                body.resize(FILL_HEAD_BYTES + len as usize, 0);
                file.read_exact_at(&mut body[FILL_HEAD_BYTES..], from).unwrap();
                head.kind = FillKind::Data;
                head.len = if from + len == end { to - from } else { len };
            }
        }
    }
    let bytes = body.len() - FILL_HEAD_BYTES;
    head.write(&mut body, bytes);
    body
}

#[test]
fn fills_between_changes_make_the_tree_of_the_source() {
    everywhere(|world| {
        let seed = seed();
        let mut chaos = world.chaos(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 8);
        settled(&mut chaos, 1500);
        chaos.source.start_journal();
        fs::remove_dir_all(world.b()).unwrap();
        fs::create_dir(world.b()).unwrap();
        chaos.source.later = true;
        scan(&mut chaos, 1, &mut rng);
        let options = || ReplayOptions {
            start: Start { scans: BASELINE_AWAITED, ..Start::default() },
            ..ReplayOptions::from_base(world.b(), UUID, world.state())
        };
        let mut replayer = Replayer::open(options()).unwrap();
        let (mut applied, mut fills, mut deaths) = (0, 0, 0);
        let mut round = 0;
        let mut held_up: Vec<Vec<u8>> = Vec::new();
        // At last nothing changes any more.
        while round < 400
            || replayer.position().needs > 0
            || applied < chaos.source.journal.records.len()
        {
            round += 1;
            assert!(round < 5000, "it never ends");
            if round < 400 {
                // Now and then what depends on the bytes of others, as if nobody lacked any.
                chaos.scanning = rng.random_bool(0.5);
                (0..rng.random_range(0..12)).for_each(|_| chaos.step());
            } else {
                chaos.settle();
            }
            chaos.source.journal.cut();
            let frames = chaos.source.journal.frames(20, 1 << 20);
            let all = round >= 400 || rng.random_bool(0.2);
            let most = if all { usize::MAX } else { rng.random_range(0..3) };
            let new = frames.iter().skip_while(|f| last_seq(f) <= applied as u64);
            let new: Vec<_> = new.take(most).collect();
            for frame in new {
                let position = replayer.apply_frame(frame).unwrap_or_else(|e| {
                    super::source::explain(&frames, e.seq);
                    panic!("{e}")
                });
                applied = position.applied_seq as usize;
            }
            let told = replayer.needs().unwrap();
            let data = told.into_iter().filter(|(_, range)| *range != OBJECT);
            let mut ranges: Vec<_> = data.collect();
            ranges.sort();
            if !ranges.is_empty() {
                for _ in 0..rng.random_range(1..6) {
                    let (oid, range) = ranges[rng.random_range(0..ranges.len())];
                    if !held_up.is_empty() && rng.random_bool(0.1) {
                        let late = &held_up[rng.random_range(0..held_up.len())];
                        replayer.fill(late).unwrap();
                    }
                    let body = read(&chaos.source, oid, range, &mut rng);
                    if rng.random_bool(0.1) {
                        held_up.push(body);
                        continue;
                    }
                    let before = replayer.position();
                    let Position { applied_seq, .. } = replayer.fill(&body).unwrap();
                    assert_eq!(applied_seq, before.applied_seq);
                    fills += 1;
                }
            }
            if rng.random_bool(0.03) {
                drop(replayer);
                replayer = Replayer::open(options()).unwrap();
                deaths += 1;
            }
        }
        println!("{fills} fills, {deaths} deaths, {} records", chaos.source.journal.records.len());
        assert!(fills > 100 && deaths > 2);
        replayer.close(false).unwrap();
        chaos.source.assert_same(&world.b(), "after fills");
    });
}

/// A target that loses power between fills: what it had of them counts when it was on the disk.
fn lose_power_between_fills(kind: &str) {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 9);
    let (home, away) = (Loop::make(kind), Loop::make(kind));
    let (a, b) = (World::below(&home.path()), World::below(&away.path()));
    let mut chaos = a.chaos(seed);
    fs::create_dir(b.b()).unwrap();
    chaos.light = true;
    settled(&mut chaos, 1200);
    chaos.source.start_journal();
    chaos.source.later = true;
    scan(&mut chaos, 0, &mut rng);
    // The fills are ahead of these.
    settled(&mut chaos, 300);
    let frames = chaos.source.journal.frames(20, 1 << 20);
    let source = &chaos.source;
    let (mut at, mut seen, mut fills, mut met) = (frames.len() / 2, 0, 0, 0);
    for boots in 0..12 {
        let last = boots == 11;
        at = if last { frames.len() } else { rng.random_range(at..=frames.len()) };
        let most = rng.random_range(0..60);
        let mut of_boot = ChaCha8Rng::seed_from_u64(rng.random());
        let work = || {
            let rng = &mut of_boot;
            set_boots(boots);
            let mut engine = Engine::open(&ReplayOptions {
                start: Start { scans: BASELINE_AWAITED, ..Start::default() },
                ..ReplayOptions::from_base(b.b(), UUID, b.state())
            })
            .unwrap();
            if engine.state.header.ceiling() != 0 {
                engine.state.header.set_ceiling(std::cmp::max(seen, 1));
            }
            for frame in &frames[..at] {
                engine.apply_frame(frame).unwrap_or_else(|e| {
                    super::source::explain(&frames, e.seq);
                    panic!("{e}")
                });
            }
            let mut count = 0;
            while count < most || last && engine.position().needs > 0 {
                let told = engine.wanted().unwrap();
                let data = told.into_iter().filter(|(_, range)| *range != OBJECT);
                let mut ranges: Vec<_> = data.collect();
                ranges.sort();
                if ranges.is_empty() {
                    break;
                }
                let (oid, range) = ranges[rng.random_range(0..ranges.len())];
                engine.bring(&read(source, oid, range, rng)).unwrap();
                count += 1;
                if rng.random_bool(0.02) {
                    engine.checkpoint_now().unwrap();
                }
            }
            (count, engine.position().needs)
        };
        let (brought, needs) = std::thread::scope(|scope| scope.spawn(work).join().unwrap());
        seen = seen.max(at.checked_sub(1).map_or(0, |i| last_seq(&frames[i])));
        fills += brought;
        met = needs;
        if !last {
            away.lose_power();
        }
    }
    println!("{fills} fills");
    assert!(fills > 50 && met == 0);
    // Whether a part of a block that was zeroed is a hole depends on what was there before.
    source.assert_same_but(&b.b(), "after power losses", " data: ");
}

#[test]
fn a_fill_counts_when_it_is_on_the_disk_xfs() {
    lose_power_between_fills("xfs");
}

#[test]
fn a_fill_counts_when_it_is_on_the_disk_ext4() {
    lose_power_between_fills("ext4");
}

fn last_seq(frame: &[u8]) -> u64 {
    crate::record::FrameView::parse(frame).unwrap().header.last_seq
}
