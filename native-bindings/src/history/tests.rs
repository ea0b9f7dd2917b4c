//! The history without a volume: what the log takes, what it gives back after a death, what is freed.

use super::log::Cause;
use super::place::Place;
use super::{Full, History, Mode, Settings};
use crate::interceptor::errno::{Errno, Res};
use crate::record::Oid;
use std::path::PathBuf;

const UUID: [u8; 16] = [7; 16];
const OID: Oid = Oid { ino: 7, gen: 9 };
const MIB: usize = 1 << 20;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(what: &str) -> Self {
        let name = format!("holdfast-history-{what}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self, mode: Mode, next: u64) -> History {
        let settings = Settings { mode, full: Full::Drop, bytes_max: 1 << 30 };
        History::open(&self.0, UUID, settings, next, |_| false).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Keeps so many bytes of a block for the change `seq`.
fn keep(history: &History, block: u64, bytes: usize, seq: u64) -> Res<()> {
    let cause = Cause { low: seq, ..Cause::default() };
    let place = Place::block(OID, 0, block);
    history.keep(&place, cause, bytes, |_, _| Ok((bytes, 0)))?.set_stamp(seq);
    Ok(())
}

#[test]
fn what_no_segment_holds_is_refused() {
    let scratch = Scratch::new("long");
    let history = scratch.open(Mode::Continuous, 1);
    keep(&history, 0, 1, 1).unwrap();
    let cannot = keep(&history, 1, 33 * MIB, 2);
    assert_eq!(cannot, Err(Errno(libc::E2BIG)));
    // Nothing was let go of for it.
    assert_eq!(history.floor(), 0);
    keep(&history, 2, MIB, 3).unwrap();
    assert_eq!(history.log.segments().len(), 1);
}
