//! What replay refuses, and with which code; and that a refusal leaves it able to go on.

use super::journal::{Head, Journal, UUID};
use super::kills::{open, replay};
use super::source::Source;
use super::world::World;
use crate::record::{seal, Oid, Op, Time, FRAME_HEADER};
use crate::replay::{ReplayCode, ReplayOptions, Replayer};
use std::path::Path;

const ROOT: (u32, u32, u32) = (0, 0, 0o022);

fn some_frames(source: &mut Source) -> Vec<Vec<u8>> {
    for name in ["one", "two", "three"] {
        source.create(Path::new(name), libc::S_IFREG | 0o644, 0, ROOT, b"").unwrap();
    }
    source.journal.frames(2, 1 << 20)
}

fn refused(replayer: &mut Replayer, frame: &[u8]) -> ReplayCode {
    let before = replayer.position();
    let e = replayer.apply_frame(frame).unwrap_err();
    assert_eq!(replayer.position(), before);
    assert!(!e.hint().is_empty() && e.to_string().starts_with("REPLAY_"), "{e}");
    e.code
}

#[test]
fn frames_that_do_not_continue_are_refused() {
    let world = World::new();
    let mut source = world.source();
    let frames = some_frames(&mut source);
    let mut replayer = open(&world);
    replayer.apply_frame(&frames[0]).unwrap();
    let last = frames.last().unwrap();
    assert!(frames.len() >= 2);

    for i in [0, 8, 30, 40, 70, 79, FRAME_HEADER, FRAME_HEADER + 30, last.len() - 1] {
        let mut bad = last.clone();
        bad[i] ^= 1;
        assert_eq!(refused(&mut replayer, &bad), ReplayCode::Corrupt, "byte {i}");
    }
    assert_eq!(refused(&mut replayer, &last[..50]), ReplayCode::Corrupt);

    let mut later = Journal::default();
    later.continue_from(&source.journal);
    for _ in 0..4 {
        later.add(Head::new(Op::Marker, Oid::NONE), |e| {
            e.name(b"m");
        });
    }
    let later = later.frames(1, 1 << 20);
    assert_eq!(refused(&mut replayer, later.last().unwrap()), ReplayCode::Gap);
    // The same seqs in other frames: another history.
    assert_eq!(refused(&mut replayer, &later[2]), ReplayCode::Fork);
    assert_eq!(refused(&mut replayer, &later[1]), ReplayCode::Fork);

    for frame in &frames {
        replayer.apply_frame(frame).unwrap();
    }
    replayer.close(false).unwrap();
    source.assert_same(&world.b(), "after refusals");
}

#[test]
fn another_volume_is_refused() {
    let world = World::new();
    let frames = some_frames(&mut world.source());
    let options = |uuid| ReplayOptions::from_base(world.b(), uuid, world.state());
    let mut replayer = Replayer::open(options([7; 16])).unwrap();
    assert_eq!(refused(&mut replayer, &frames[0]), ReplayCode::ForeignVolume);
    replayer.close(false).unwrap();
    let code = Replayer::open(options(UUID)).err().unwrap().code;
    assert_eq!(code, ReplayCode::ForeignVolume);
}

#[test]
fn places_that_cannot_work_are_refused() {
    let world = World::new();
    drop(world.source());
    let at = |target: &Path, state: &Path| {
        let (target, state_dir) = (target.to_path_buf(), state.to_path_buf());
        Replayer::open(ReplayOptions::from_base(target, UUID, state_dir)).err().map(|e| e.code)
    };
    assert_eq!(at(&world.b(), &world.b().join("state")), Some(ReplayCode::Target));
    assert_eq!(at(&world.b(), Path::new("/dev/shm/holdfast-state")), Some(ReplayCode::Target));
    let _ = std::fs::remove_dir("/dev/shm/holdfast-state");
    std::os::unix::fs::symlink(world.b(), world.dir.join("link")).unwrap();
    assert!(at(&world.dir.join("link"), &world.state()).is_some());
    let first = open(&world);
    assert_eq!(at(&world.b(), &world.state()), Some(ReplayCode::Busy));
    first.close(false).unwrap();
    // Another directory under the same path.
    std::fs::rename(world.b(), world.dir.join("old")).unwrap();
    std::fs::create_dir(world.b()).unwrap();
    assert_eq!(at(&world.b(), &world.state()), Some(ReplayCode::State));
    // A version of the future.
    use std::os::unix::fs::FileExt;
    let header = std::fs::File::options().write(true).open(world.state().join("header")).unwrap();
    header.write_at(&[2], 4).unwrap();
    assert_eq!(at(&world.dir.join("old"), &world.state()), Some(ReplayCode::State));
}

#[test]
fn names_that_lead_elsewhere_are_corrupt() {
    let world = World::new();
    let mut source = world.source();
    let root = source.known(Path::new(""));
    let good = source.journal.records.len();
    for name in [&b".."[..], b".", b"", b"a/b", b"a\0b", &[b'x'; 256]] {
        source.journal.records.truncate(good);
        let mut head = Head::new(Op::Mknod, Oid { ino: 77, gen: 1 });
        head.mode = libc::S_IFREG | 0o644;
        source.journal.add(head, |e| {
            e.oid(root).time(Time::UNKNOWN).u32(0).u32(head.mode).u32(0).u32(0).u32(0).name(name);
        });
        let mut replayer = open(&world);
        let frames = source.journal.frames(9, 1 << 20);
        assert_eq!(refused(&mut replayer, &frames[0]), ReplayCode::Corrupt, "{name:?}");
        // Nothing of the frame was applied, not even the good record before.
        assert_eq!(replayer.position().objects, 0);
    }
}

#[test]
fn a_target_that_was_changed_is_a_divergence_and_can_be_mended() {
    let world = World::new();
    let mut source = world.source();
    source.create(Path::new("file"), libc::S_IFREG | 0o644, 0, ROOT, b"").unwrap();
    source.journal.cut();
    replay(&world, &source.journal.frames(9, 1 << 20));
    source.rename(Path::new("file"), Path::new("other"), 0).unwrap();
    let frames = source.journal.frames(9, 1 << 20);
    std::fs::rename(world.b().join("file"), world.b().join("away")).unwrap();
    let mut replayer = open(&world);
    let e = replayer.apply_frame(&frames[1]).unwrap_err();
    assert_eq!((e.code, e.op, e.seq), (ReplayCode::Diverged, "RENAME", 3));
    assert!(e.path.ends_with(b"file"), "{e}");
    std::fs::rename(world.b().join("away"), world.b().join("file")).unwrap();
    replayer.apply_frame(&frames[1]).unwrap();
    replayer.close(true).unwrap();
    source.assert_same(&world.b(), "after mending");
}

#[test]
fn records_about_what_nobody_named_are_a_divergence() {
    let world = World::new();
    let mut source = world.source();
    source.known(Path::new(""));
    source.journal.add(Head::new(Op::Write, Oid { ino: 5, gen: 5 }), |e| {
        e.u64(0).payload().raw(b"x");
    });
    let mut replayer = open(&world);
    let frames = source.journal.frames(9, 1 << 20);
    assert_eq!(refused(&mut replayer, &frames[0]), ReplayCode::Diverged);
}

#[test]
fn missing_seqs_inside_and_at_the_end_of_a_frame_are_allowed() {
    let world = World::new();
    let mut source = world.source();
    let frames = {
        some_frames(&mut source);
        // The second of the creations was interrupted: its seq stays empty.
        let mut renumbered = Vec::new();
        for (i, record) in source.journal.records.iter().enumerate() {
            let mut r = record.clone();
            seal(&mut r, i as u64 * 2 + 1, i as u64 * 2000 + 1);
            renumbered.push(r);
        }
        let mut body: Vec<u8> = vec![0; FRAME_HEADER];
        body.extend(renumbered.concat());
        let header = crate::record::FrameHeader {
            uuid: UUID,
            epoch: 1,
            records: renumbered.len() as u32,
            first_seq: 1,
            last_seq: renumbered.len() as u64 * 2 + 5,
            clock: 1,
            prev_chain: [0; 8],
        };
        crate::record::seal_frame(&mut body, &header);
        vec![body]
    };
    replay(&world, &frames);
    let position = open(&world).position();
    assert_eq!(position.applied_seq, 13);
    assert_eq!(position.records, 4);
    source.assert_same(&world.b(), "with missing seqs");
}
