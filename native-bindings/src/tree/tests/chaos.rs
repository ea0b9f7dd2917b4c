//! Random trees, random changes.

use super::{all, between, compare, restore};
use crate::replay::tests::crash::dying;
use crate::replay::tests::random::Chaos;
use crate::replay::tests::source::Source;
use crate::replay::tests::tree::differing;
use crate::replay::tests::world::{seed, Loop, World};
use crate::tree::{Options, Outcome};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};

const STEPS: usize = 200;
const DEATHS_MAX: usize = 60;

fn steps(dir: &Path, seed: u64, count: usize) {
    let mut chaos = Chaos::new(Source::new(dir), ChaCha8Rng::seed_from_u64(seed));
    chaos.light = true;
    for _ in 0..count {
        chaos.step();
    }
    chaos.settle();
}

/// A tree as it is now, and the same as it was before random changes.
struct Past {
    // Dropped in this order.
    world: World,
    _frozen: Loop,
    _image: Loop,
    then: PathBuf,
}

impl Past {
    fn make(kind: &str, seed: u64) -> Self {
        println!("seed {seed} on {kind}");
        let image = Loop::make(kind);
        let world = World::below(&image.path());
        steps(&world.a(), seed, STEPS);
        let frozen = image.frozen();
        let then = frozen.path().join(world.dir.file_name().unwrap()).join("a");
        steps(&world.a(), seed + 1, STEPS);
        Self { world, _frozen: frozen, _image: image, then }
    }

    fn options(&self) -> Options {
        Options { identity: true, ..between(&self.world.a(), &self.then) }
    }

    fn assert_restored(&self) {
        let left = differing(&self.then, &self.world.a());
        assert!(left.is_empty(), "{left:#?}");
        let told = compare(&self.options());
        assert!(told.is_empty(), "{told:#?}");
    }
}

#[test]
fn a_changed_tree_becomes_what_it_was() {
    for kind in ["xfs", "ext4"] {
        for round in 0..4 {
            let past = Past::make(kind, seed() + 10 * round);
            restore(&past.options());
            past.assert_restored();
        }
    }
}

#[test]
fn it_becomes_so_however_often_the_restore_dies() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for kind in ["xfs", "ext4"] {
        let past = Past::make(kind, seed);
        let options = Options { restore: true, ..past.options() };
        let mut deaths = 0;
        while deaths < DEATHS_MAX {
            match dying(rng.random_range(1..4000), || all(&options)) {
                None => deaths += 1,
                Some((items, outcome)) => {
                    assert_eq!((outcome, items), (Outcome::default(), Vec::new()));
                    break;
                }
            }
        }
        restore(&options);
        println!("{deaths} deaths");
        past.assert_restored();
    }
}

#[test]
fn unrelated_trees_become_equal() {
    let seed = seed();
    println!("seed {seed}");
    let (a, b) = (World::new(), World::new());
    steps(&a.a(), seed, STEPS);
    steps(&b.a(), seed + 1, STEPS);
    let options = between(&a.a(), &b.a());
    restore(&options);
    let left = differing(&b.a(), &a.a());
    assert!(left.is_empty(), "{left:#?}");
    assert!(compare(&options).is_empty());
}

#[test]
fn a_copy_goes_on_where_it_died() {
    let seed = seed();
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (a, b) = (World::new(), World::new());
    steps(&b.a(), seed, STEPS);
    let options = Options { restore: true, quick: true, private: true, ..between(&a.a(), &b.a()) };
    for _ in 0..20 {
        if dying(rng.random_range(1..3000), || all(&options)).is_some() {
            break;
        }
    }
    restore(&options);
    let left = differing(&b.a(), &a.a());
    assert!(left.is_empty(), "{left:#?}");
}
