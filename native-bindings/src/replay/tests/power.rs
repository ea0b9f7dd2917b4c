//! Power losses: the file system forgets what it had not written, replay goes back to its checkpoint.

use super::crash::set_boots;
use super::journal::UUID;
use super::source::Source;
use super::tree::copy_tree;
use super::world::{seed, Loop, World};
use crate::replay::engine::Engine;
use crate::replay::ReplayOptions;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Applies frames up to `until`, with checkpoints at random; says where it began.
///
/// `seen` is the record up to which the target may be ahead: the limit that replay itself assumes is
/// further off than this test goes.
fn apply(
    world: &World,
    frames: &[Vec<u8>],
    boots: u8,
    until: usize,
    seen: u64,
    rng: &mut ChaCha8Rng,
) -> u64 {
    let checkpoints: Vec<_> = (0..frames.len()).map(|_| rng.random_bool(0.01)).collect();
    std::thread::scope(|scope| {
        let work = || {
            set_boots(boots);
            let mut engine =
                Engine::open(&ReplayOptions::from_base(world.b(), UUID, world.state())).unwrap();
            let from = engine.position().applied_seq;
            if engine.state.header.ceiling() != 0 {
                engine.state.header.set_ceiling(seen.max(1));
            }
            for (frame, checkpoint) in frames[..until].iter().zip(checkpoints) {
                if let Err(e) = engine.apply_frame(frame) {
                    super::source::explain(frames, e.seq);
                    panic!("{e}");
                }
                if checkpoint {
                    engine.checkpoint_now().unwrap();
                }
            }
            from
        };
        scope.spawn(work).join().unwrap()
    })
}

/// seq of the last record of the first `n` frames.
fn last_seq(frames: &[Vec<u8>], n: usize) -> u64 {
    let last = n.checked_sub(1).map(|i| crate::record::FrameView::parse(&frames[i]).unwrap());
    last.map_or(0, |f| f.header.last_seq)
}

fn lose_power_and_go_on(kind: &str) {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 8);
    let (home, away) = (Loop::make(kind), Loop::make(kind));
    let (a, b) = (World::below(&home.path()), World::below(&away.path()));
    let mut chaos = a.chaos(seed);
    copy_tree(&a.b(), &b.b());
    // Without what makes checkpoints of its own, so that there is much to redo.
    chaos.light = true;
    for _ in 0..3000 {
        chaos.step();
    }
    chaos.settle();
    let frames = chaos.source.journal.frames(20, 1 << 20);
    println!("{} frames", frames.len());
    let (mut at, mut seen) = (0, 0);
    for boots in 0..6 {
        at = rng.random_range(at..frames.len());
        let from = apply(&b, &frames, boots, at, seen, &mut rng);
        seen = seen.max(last_seq(&frames, at));
        println!("boot {boots}: from record {from}, up to frame {at} of {}", frames.len());
        away.lose_power();
    }
    apply(&b, &frames, 9, frames.len(), seen, &mut rng);
    let source: &Source = &chaos.source;
    // Whether a part of a block that was zeroed is a hole depends on what was there before.
    source.assert_same_but(&b.b(), "after power losses", " data: ");
}

#[test]
fn losing_power_goes_back_to_the_checkpoint_xfs() {
    lose_power_and_go_on("xfs");
}

#[test]
fn losing_power_goes_back_to_the_checkpoint_ext4() {
    lose_power_and_go_on("ext4");
}
