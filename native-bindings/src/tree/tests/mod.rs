//! Tests of comparing and restoring: random trees on real file systems, changed at random, restored,
//! and compared bit for bit by another judge; the same with the process dying at every kind of place.

mod cases;
mod chaos;

use super::job::{run, Item, Outcome, Shared};
use super::{Change, Kind, Options};
use std::path::Path;
use std::sync::mpsc::sync_channel;

/// Everything that a job tells, at its end.
fn all(options: &Options) -> (Vec<Item>, Outcome) {
    let (out, items) = sync_channel(1 << 20);
    let outcome = run(options, &Shared::default(), &out);
    drop(out);
    (items.iter().collect(), outcome)
}

fn between(a: &Path, b: &Path) -> Options {
    Options { a: a.to_path_buf(), b: b.to_path_buf(), ..Options::default() }
}

/// The differences; panics when they cannot be told.
fn compare(options: &Options) -> Vec<Change> {
    let (items, outcome) = all(options);
    assert_eq!(outcome, Outcome::default());
    let change = |item| match item {
        Item::Change(change) => change,
        Item::Failure(failure) => panic!("{failure:?}"),
    };
    items.into_iter().map(change).collect()
}

/// Restores; panics when anything is left undone.
fn restore(options: &Options) {
    let (items, outcome) = all(&Options { restore: true, ..options.clone() });
    assert_eq!((outcome, items), (Outcome::default(), Vec::new()));
}

/// One line for each change: kind, path, what.
fn told(changes: &[Change]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = |c: &Change| {
        let from = match c.kind {
            Kind::Renamed => format!("{} → ", text(&c.from)),
            _ => String::new(),
        };
        let what = c.what.names().join(",");
        format!("{} {from}{} {what}", c.kind.as_str(), text(&c.path)).trim_end().to_owned()
    };
    changes.iter().map(line).collect()
}
