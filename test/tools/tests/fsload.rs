//! fsload: an untouched tree passes every check; lost, stale and foreign data do not.

mod common;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{tool, Temp};

const FSLOAD: &str = env!("CARGO_BIN_EXE_fsload");

struct Load {
    temp: Temp,
    dir: PathBuf,
    log: PathBuf,
}

fn load(args: &[&str]) -> Load {
    let temp = Temp::new("load");
    let (dir, log) = (temp.dir("d"), temp.0.join("ack"));
    let mut all = vec!["--seed", "3"];
    all.extend_from_slice(args);
    let (code, text) = tool(FSLOAD, &all, &[("--dir", &dir), ("--ack", &log)]);
    assert_eq!(code, 0, "{text}");
    Load { temp, dir, log }
}

fn check(dir: &Path, log: &Path, how: &str) -> (i32, String) {
    tool(FSLOAD, &["--check", how], &[("--dir", dir), ("--ack", log)])
}

/// The largest file of thread 0's own directory.
fn victim(l: &Load) -> PathBuf {
    let files = std::fs::read_dir(l.dir.join("t00")).expect("readdir");
    let paths = files.map(|e| e.expect("entry").path()).filter(|p| p.is_file());
    let size = |p: &PathBuf| p.metadata().map(|m| m.len()).unwrap_or(0);
    paths.max_by_key(size).expect("a file")
}

#[test]
fn fsload_accepts_what_it_left() {
    let l = load(&["--ops", "1500", "--threads", "3"]);
    for how in ["--check", "--durable-only", "--prefix"] {
        let (code, text) = check(&l.dir, &l.log, how);
        assert_eq!(code, 0, "{how}: {text}");
    }
}

type Damage = fn(&Path);

#[test]
fn fsload_detects_damage() {
    let damages: &[(&str, Damage)] = &[
        ("a flipped bit", |p| {
            let f = std::fs::File::options().read(true).write(true).open(p).expect("open");
            let mut b = [0];
            f.read_exact_at(&mut b, 5000).expect("read");
            f.write_all_at(&[b[0] ^ 4], 5000).expect("write");
        }),
        ("a lost tail", |p| {
            let f = std::fs::File::options().write(true).open(p).expect("open");
            f.set_len(p.metadata().expect("stat").len() - 64).expect("truncate");
        }),
        ("zeros", |p| {
            let f = std::fs::File::options().write(true).open(p).expect("open");
            let len = p.metadata().expect("stat").len() as usize;
            f.write_all_at(&vec![0; len], 0).expect("write");
        }),
        ("a lost name", |p| std::fs::remove_file(p).expect("unlink")),
        ("a foreign name", |p| std::fs::write(p.with_file_name("f9999"), "").expect("write")),
        ("a lost mode", |p| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(p, std::fs::Permissions::from_mode(0o111)).expect("chmod");
        }),
    ];
    let l = load(&["--ops", "400", "--threads", "1"]);
    let target = victim(&l);
    for (what, damage) in damages {
        let spare = l.temp.0.join("spare");
        let copy = |from: &Path, to: &Path| {
            let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
            assert!(status.expect("cp").success());
        };
        copy(&l.dir, &spare);
        let path = spare.join(target.strip_prefix(&l.dir).expect("below"));
        assert_eq!(check(&spare, &l.log, "--check").0, 0, "the copy is whole");
        damage(&path);
        let (code, text) = check(&spare, &l.log, "--check");
        assert_eq!(code, 1, "{what} was not seen: {text}");
        std::fs::remove_dir_all(&spare).expect("rm");
    }
}

#[test]
fn fsload_tells_an_older_state_from_the_present_one() {
    let old = load(&["--ops", "300", "--threads", "1"]);
    let new = load(&["--ops", "700", "--threads", "1"]);
    let (code, text) = check(&old.dir, &new.log, "--check");
    assert_eq!(code, 1, "acknowledged operations are missing: {text}");
    let (code, text) = check(&old.dir, &new.log, "--prefix");
    assert_eq!(code, 0, "it is a state on the way: {text}");
    assert!(text.contains("found at 300") || text.contains("..=300"), "{text}");
}

#[test]
fn fsload_detects_a_cut_that_never_was() {
    // Thread 1 stands at its end, thread 0 at its beginning: no instant looked like that.
    let l = load(&["--ops", "600", "--threads", "2"]);
    std::fs::remove_dir_all(l.dir.join("t00")).expect("rm");
    std::fs::create_dir(l.dir.join("t00")).expect("mkdir");
    for e in std::fs::read_dir(l.dir.join("shared")).expect("readdir") {
        let path = e.expect("entry").path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("t00-")) {
            std::fs::remove_file(path).expect("unlink");
        }
    }
    let (code, text) = check(&l.dir, &l.log, "--prefix");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("not one cut"), "{text}");
}

#[test]
fn fsload_demands_what_was_synced() {
    let l = load(&["--ops", "800", "--threads", "1", "--fsync-rate", "0.5"]);
    assert_eq!(check(&l.dir, &l.log, "--durable-only").0, 0);
    std::fs::remove_file(victim(&l)).expect("unlink");
    let (code, text) = check(&l.dir, &l.log, "--durable-only");
    assert_eq!(code, 1, "{text}");
}

#[test]
fn fsload_rejects_a_damaged_log() {
    let l = load(&["--ops", "50", "--threads", "1"]);
    let f = std::fs::File::options().write(true).open(&l.log).expect("open");
    f.write_all_at(&[7], 40).expect("write");
    assert_eq!(check(&l.dir, &l.log, "--check").0, 2);
}
