//! Random operations replayed whole, twice, in pieces, and with deaths at every place.

use super::crash;
use super::journal::UUID;
use super::world::{everywhere, seed, World};
use crate::replay::{ReplayOptions, Replayer};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::{Command, Stdio};
use std::time::Duration;

pub fn open(world: &World) -> Replayer {
    Replayer::open(ReplayOptions::from_base(world.b(), UUID, world.state())).unwrap()
}

pub fn replay(world: &World, frames: &[Vec<u8>]) {
    let mut replayer = open(world);
    for frame in frames {
        if let Err(e) = replayer.apply_frame(frame) {
            panic!("{e}");
        }
    }
    replayer.close(false).unwrap();
}

#[test]
fn random_operations_give_the_same_tree() {
    everywhere(|world| {
        let mut chaos = world.chaos(seed());
        for _ in 0..5000 {
            chaos.step();
        }
        chaos.settle();
        println!("{} operations", chaos.done);
        let frames = chaos.source.journal.frames(500, 1 << 20);
        replay(world, &frames);
        chaos.source.assert_same(&world.b(), "after replay");
        replay(world, &frames);
        chaos.source.assert_same(&world.b(), "after replaying twice");
        let position = open(world).close(true).unwrap();
        assert_eq!(position.applied_seq, chaos.source.journal.records.len() as u64);
        assert!(!world.state().exists());
    });
}

#[test]
fn death_at_any_place_changes_nothing() {
    everywhere(|world| {
        let seed = seed();
        let mut chaos = world.chaos(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 2);
        for _ in 0..2500 {
            chaos.step();
        }
        chaos.settle();
        let frames = chaos.source.journal.frames(40, 1 << 20);
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
        assert!(deaths > 50, "too few deaths: {deaths}");
        chaos.source.assert_same(&world.b(), "after dying");
    });
}

/// The child of the test below; does nothing when run as a test of its own.
#[test]
fn killed_child() {
    let Some(dir) = std::env::var_os("HOLDFAST_REPLAY_CHILD") else {
        return;
    };
    let world = std::mem::ManuallyDrop::new(World { dir: dir.into() });
    let all = std::fs::read(world.dir.join("frames")).unwrap();
    let mut replayer = open(&world);
    let mut rest = &all[..];
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        replayer.apply_frame(&rest[4..4 + len]).unwrap();
        rest = &rest[4 + len..];
    }
    replayer.close(false).unwrap();
}

#[test]
fn kill_9_at_random_instants_changes_nothing() {
    let world = World::new();
    let seed = seed();
    let mut chaos = world.chaos(seed);
    chaos.light = true;
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 3);
    for _ in 0..15_000 {
        chaos.step();
    }
    chaos.settle();
    let mut all = Vec::new();
    for frame in chaos.source.journal.frames(200, 1 << 20) {
        all.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        all.extend_from_slice(&frame);
    }
    std::fs::write(world.dir.join("frames"), all).unwrap();
    let (mut kills, mut wait_us) = (0, 3000);
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "replay::tests::kills::killed_child"])
            .env("HOLDFAST_REPLAY_CHILD", &world.dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(wait_us));
        if kills >= 150 {
            assert!(child.wait().unwrap().success());
            break;
        }
        child.kill().unwrap();
        match child.wait().unwrap().code() {
            Some(0) => break,
            Some(code) => panic!("the child failed with {code}"),
            None => kills += 1,
        }
        wait_us = rng.random_range(5000..20_000);
    }
    println!("{kills} kills");
    assert!(kills >= 100, "too few kills: {kills}");
    chaos.source.assert_same(&world.b(), "after kill -9");
}
