//! The history that replay writes: views of seqs at which the source was copied, compared with the copies,
//! while the replay dies everywhere.

use super::journal::UUID;
use super::tree::{copy_tree, differing};
use super::world::{everywhere, seed, World};
use super::{crash, tree::cstr};
use crate::history::view::View;
use crate::history::{Full, History, Mode, Settings};
use crate::replay::engine::Engine;
use crate::replay::ReplayOptions;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const SETTINGS: Settings =
    Settings { mode: Mode::Continuous, full: Full::Refuse, bytes_max: 16 << 30 };

fn open(world: &World) -> Arc<History> {
    let history = History::open_for_replay(&world.dir.join("h"), UUID, SETTINGS).unwrap();
    Arc::new(history)
}

fn options(world: &World, history: &Arc<History>) -> ReplayOptions {
    let base = ReplayOptions::from_base(world.b(), UUID, world.state());
    ReplayOptions { history: Some(history.clone()), ..base }
}

/// What a view has otherwise than the copy of the source. Attribute flags and holes do not pass FUSE.
fn differences(world: &World, history: &Arc<History>, seq: u64, copy: &Path) -> Vec<String> {
    let mountpoint = world.dir.join("view");
    std::fs::create_dir_all(&mountpoint).unwrap();
    let root = File::open(world.b()).unwrap();
    let view = View::open(history.clone(), root, seq).unwrap();
    let mounted = view.mount(cstr(&mountpoint), "holdfast-test", 0).unwrap();
    let found = differing(copy, &mountpoint);
    mounted.unmount(true, Instant::now()).unwrap();
    let told = found.into_iter().map(|(_, what)| what);
    told.filter(|w| !w.contains(" flags: ") && !w.contains(" data: ")).collect()
}

struct Reference {
    seq: u64,
    copy: PathBuf,
}

#[test]
fn views_of_a_replica_are_what_the_source_was() {
    everywhere(|world| {
        let seed = seed();
        let mut chaos = world.chaos(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 5);
        let mut references = Vec::new();
        for n in 0..6 {
            let copy = world.dir.join(format!("ref{n}"));
            copy_tree(&world.a(), &copy);
            references.push(Reference { seq: chaos.source.journal.records.len() as u64, copy });
            for _ in 0..rng.random_range(50..400) {
                chaos.step();
            }
            chaos.settle();
        }
        let frames = chaos.source.journal.frames(60, 1 << 20);
        let (mut deaths, mut die_at) = (0, 1);
        loop {
            let history = open(world);
            let housekeeping = history.start().unwrap();
            let done = crash::run_with(&options(world, &history), &frames, die_at);
            history.close();
            housekeeping.join().unwrap();
            match done {
                Some(Ok(_)) => break,
                Some(Err(e)) => panic!("after {deaths} deaths, seed {seed}: {e}"),
                None => deaths += 1,
            }
            die_at = 1 << rng.random_range(5..11);
            die_at += rng.random_range(0..die_at);
        }
        println!("{deaths} deaths");
        chaos.source.assert_same(&world.b(), "after replay");
        let history = open(world);
        let housekeeping = history.start().unwrap();
        drop(Engine::open(&options(world, &history)).map_err(|e| e.to_string()).unwrap());
        for Reference { seq, copy } in &references {
            let found = differences(world, &history, *seq, copy);
            assert!(found.is_empty(), "view of {seq}, seed {seed}: {found:#?}");
        }
        history.close();
        housekeeping.join().unwrap();
    });
}
