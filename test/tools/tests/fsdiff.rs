//! fsdiff: two plain directories are equal; a damaged one is not.

mod common;

use common::{tool, Temp};

const FSDIFF: &str = env!("CARGO_BIN_EXE_fsdiff");

fn run(name: &str, args: &[&str]) -> (i32, String) {
    let t = Temp::new(name);
    let (l, r) = (t.dir("left"), t.dir("right"));
    tool(FSDIFF, args, &[("--left", &l), ("--right", &r)])
}

#[test]
fn fsdiff_finds_plain_directories_equal() {
    for (profile, seed) in [("full", "1"), ("namespace", "2"), ("data", "3")] {
        let args = ["--ops", "8000", "--seed", seed, "--profile", profile];
        let (code, text) = run("equal", &args);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("EQUAL"), "{text}");
    }
}

#[test]
fn fsdiff_finds_plain_directories_equal_under_several_users() {
    let (code, text) = run("users", &["--ops", "8000", "--seed", "4", "--users"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("EACCES"), "users must meet permission checks:\n{text}");
}

#[test]
fn fsdiff_succeeds_in_most_operations() {
    let (_, text) = run("share", &["--ops", "8000", "--seed", "5"]);
    let all = text.lines().find(|l| l.starts_with("all")).expect("a last line of the table");
    let share: f64 = all.split_whitespace().last().and_then(|s| s.parse().ok()).expect("a share");
    assert!(share >= 60.0, "{text}");
}

#[test]
fn fsdiff_repeats_a_sequence_from_its_seed() {
    let table = || {
        let (code, text) = run("repeat", &["--ops", "4000", "--seed", "6"]);
        assert_eq!(code, 0, "{text}");
        text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(table(), table());
}

#[test]
fn fsdiff_detects_every_kind_of_sabotage() {
    for damage in ["data", "mode", "mtime", "xattr", "name", "link"] {
        let sabotage = format!("2000:{damage}");
        let args = ["--ops", "2000", "--seed", "7", "--sabotage", &sabotage];
        let (code, text) = run("sabotage", &args);
        assert_eq!(code, 1, "{damage} was not seen:\n{text}");
        assert!(text.contains("sabotaged"), "{text}");
    }
}

#[test]
fn fsdiff_describes_the_first_difference() {
    let args = ["--ops", "20000", "--seed", "8", "--sabotage", "3000:mode", "--check-every", "0"];
    let (code, text) = run("describe", &args);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("last 30 operations"), "{text}");
    assert!(text.contains("seed 8"), "{text}");
}

#[test]
fn fsdiff_refuses_directories_that_are_not_empty() {
    let t = Temp::new("full");
    let (l, r) = (t.dir("left"), t.dir("right"));
    std::fs::write(l.join("x"), "").expect("file");
    let (code, text) = tool(FSDIFF, &["--ops", "10"], &[("--left", &l), ("--right", &r)]);
    assert_eq!(code, 2, "{text}");
}
