//! The history without a volume: what the log takes, what it gives back after a death, what is freed.

use super::log::Cause;
use super::past::{Keeper, Past};
use super::place::Place;
use super::segment::WRITING;
use super::view::View;
use super::{limits, Full, History, Mode, Settings};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::table::Inode;
use crate::record::Oid;
use crate::transport::abi::{GetxattrIn, InHeader, GETXATTR, ROOT_ID};
use crate::transport::plain::Server;
use crate::transport::reply::Output;
use crate::transport::request::{pod_bytes, Request};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

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

/// Dies while it keeps a block.
fn die_keeping(history: &History, block: u64, low: u64) {
    let dies = AssertUnwindSafe(|| {
        let cause = Cause { low, ..Cause::default() };
        let _ = history.keep(&Place::block(OID, 0, block), cause, 4096, |_, _| panic!("dies"));
    });
    catch_unwind(dies).unwrap_err();
}

/// Fills two segments and part of a third, from the seq 10 on.
fn fill(history: &History) {
    (0..70).for_each(|n| keep(history, 100 + n, MIB, 10 + n).unwrap());
}

fn numbers(history: &History) -> Vec<u32> {
    history.log.segments().iter().map(|s| s.number).collect()
}

#[test]
fn what_was_being_kept_at_a_death_holds_up_nothing() {
    let scratch = Scratch::new("half");
    let history = scratch.open(Mode::Continuous, 1);
    keep(&history, 0, 1, 1).unwrap();
    die_keeping(&history, 1, 2);
    drop(history);
    let history = scratch.open(Mode::Continuous, 2);
    fill(&history);
    assert_eq!(numbers(&history), [1, 2, 3]);
    history.make_room().unwrap();
    assert_eq!(numbers(&history), [2, 3]);
}

#[test]
fn what_is_behind_the_index_and_was_never_kept_holds_up_nothing() {
    let scratch = Scratch::new("stuck");
    let history = scratch.open(Mode::Continuous, 1);
    keep(&history, 0, 1, 1).unwrap();
    die_keeping(&history, 1, 2);
    drop(history);
    let history = scratch.open(Mode::Continuous, 2);
    fill(&history);
    // Two segments, so that all of the first one is in the index; and then as it was left before.
    history.make_room().unwrap();
    fill(&history);
    let segment = history.log.segments()[0].clone();
    let half = history.log.entries(&segment, 0)[0].clone();
    half.set_stamp(0);
    half.head().state.store(WRITING, Ordering::Release);
    drop((half, segment, history));
    let history = scratch.open(Mode::Continuous, 200);
    fill(&history);
    history.make_room().unwrap();
    assert!(!numbers(&history).contains(&2));
}

fn overwrite(scratch: &Scratch, at: u64, bytes: &[u8]) {
    let path = scratch.0.join("00000001.seg");
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Offset of the boot id in a segment: docs/FORMAT.md.
const BOOT_AT: u64 = 32;

#[test]
fn a_segment_of_which_the_disk_has_no_header_tells_of_a_power_loss() {
    let scratch = Scratch::new("header");
    let history = scratch.open(Mode::Continuous, 1);
    keep(&history, 0, 1, 1).unwrap();
    drop(history);
    assert_eq!(scratch.open(Mode::Continuous, 2).power_lost_before(), 0);
    overwrite(&scratch, 0, &[0; 4096]);
    assert_eq!(scratch.open(Mode::Continuous, 3).power_lost_before(), 3);
    assert_eq!(scratch.open(Mode::Continuous, 4).power_lost_before(), 3);
}

#[test]
fn what_lies_behind_a_gap_is_no_entry_once_the_gap_is_filled() {
    let scratch = Scratch::new("gap");
    let history = scratch.open(Mode::Continuous, 1);
    (1..4).for_each(|seq| keep(&history, seq, 1, seq).unwrap());
    let gap = history.log.entries(&history.log.segments()[0], 0)[1].clone();
    let (at, len) = (gap.at, gap.head().len.load(Ordering::Relaxed));
    drop((gap, history));
    overwrite(&scratch, u64::from(at), &vec![0; len as usize]);
    overwrite(&scratch, BOOT_AT, &[1; 16]);
    let history = scratch.open(Mode::Continuous, 4);
    assert_eq!(history.power_lost_before(), 4);
    keep(&history, 4, 1, 4).unwrap();
    drop(history);
    let history = scratch.open(Mode::Continuous, 5);
    let entries = history.log.entries(&history.log.segments()[0], 0);
    assert_eq!(entries.iter().map(|e| e.stamp()).collect::<Vec<_>>(), [1, 4]);
}

/// No snapshot, nothing wanted.
fn want_nothing(history: &History) {
    history.set_wanted(0, u64::MAX);
}

#[test]
fn a_cut_is_kept_until_the_control_plane_has_heard_of_it() {
    let scratch = Scratch::new("unheard");
    let history = scratch.open(Mode::Snapshots, 1);
    want_nothing(&history);
    assert!(history.rests());
    history.set_point(100).unwrap();
    // Of a control plane that has not heard of it, and of a view that ends.
    want_nothing(&history);
    history.pin(100).unwrap();
    history.unpin(100);
    assert_eq!((history.point(), history.shows(100)), (100, true));
    history.set_wanted(100, 100);
    want_nothing(&history);
    assert!(history.rests());
    history.set_point(110).unwrap();
    history.give_up_point(110);
    want_nothing(&history);
    assert!(history.rests());
}

#[test]
fn a_snapshot_that_is_named_after_a_rest_is_lost() {
    let scratch = Scratch::new("rested");
    let history = scratch.open(Mode::Snapshots, 1);
    want_nothing(&history);
    history.set_point(100).unwrap();
    history.give_up_point(100);
    want_nothing(&history);
    history.set_wanted(100, 100);
    assert!(history.rests() && !history.shows(100));
    drop(history);
    // One of which the log tells nothing any more, named before anything has changed.
    let history = scratch.open(Mode::Snapshots, 120);
    history.set_wanted(110, 110);
    assert_eq!((history.point(), history.shows(110)), (110, true));
}

/// As the volume ends it.
fn close(history: History) {
    let history = Arc::new(history);
    let housekeeping = history.start().unwrap();
    history.close();
    housekeeping.join().unwrap();
}

#[test]
fn an_orderly_end_before_another_boot_is_no_power_loss() {
    let scratch = Scratch::new("clean");
    let history = scratch.open(Mode::Continuous, 1);
    keep(&history, 0, 1, 1).unwrap();
    close(history);
    overwrite(&scratch, BOOT_AT, &[1; 16]);
    let history = scratch.open(Mode::Continuous, 2);
    assert_eq!(history.power_lost_before(), 0);
    assert!(history.has(&Place::block(OID, 0, 0), 1).unwrap());
    drop(history);
    // That end says nothing of what has come after it.
    overwrite(&scratch, BOOT_AT, &[1; 16]);
    assert_eq!(scratch.open(Mode::Continuous, 3).power_lost_before(), 3);
}

#[test]
fn what_the_index_lacks_does_not_wait_for_it() {
    let scratch = Scratch::new("lacks");
    let history = scratch.open(Mode::Continuous, 1);
    fill(&history);
    drop(history);
    std::fs::remove_dir_all(scratch.0.join("index")).unwrap();
    let history = scratch.open(Mode::Continuous, 80);
    assert_eq!(history.log.queue(|q| q.len()), 0);
    assert!((0..70).all(|n| history.has(&Place::block(OID, 0, 100 + n), 10 + n).unwrap()));
}

#[test]
fn what_waits_for_the_index_in_vain_makes_no_room() {
    let scratch = Scratch::new("vain");
    let history = scratch.open(Mode::Continuous, 1);
    fill(&history);
    let _under_way = history.keep(&Place::attr(OID), Cause::default(), 1, |_, _| Ok((1, 0)));
    let all = limits::QUEUE_MAX as u64 - 71;
    (0..all).for_each(|n| keep(&history, n, 1, 100 + n).unwrap());
    let segments = numbers(&history);
    assert_eq!(keep(&history, 0, 1, 1 << 20), Err(Errno(libc::ETIMEDOUT)));
    let again = Instant::now();
    assert_eq!(keep(&history, 0, 1, 1 << 20), Err(Errno(libc::ETIMEDOUT)));
    assert!(again.elapsed() < limits::QUEUE_WAIT_MAX / 2);
    assert_eq!(numbers(&history), segments);
}

#[test]
fn a_copy_that_belongs_to_nobody_goes() {
    let scratch = Scratch::new("copies");
    drop(scratch.open(Mode::Continuous, 1));
    let source = scratch.0.join("source");
    std::fs::write(&source, vec![1; 3 * MIB]).unwrap();
    let source = File::open(source).unwrap();
    let history = scratch.open(Mode::Continuous, 1);
    let whole = || std::fs::read_dir(scratch.0.join("whole")).unwrap().count();
    std::mem::forget(history.copy_whole(source.as_raw_fd(), 3 * MIB as u64).unwrap());
    assert_eq!(whole(), 1);
    drop(history);
    let history = scratch.open(Mode::Continuous, 1);
    assert_eq!((whole(), history.bytes()), (0, 0));
    let mut past = Past::default();
    let mut keeper = Keeper { history: &history, past: &mut past, low: 1, exactly: None };
    keeper.range(OID, source.as_raw_fd(), 0, u64::MAX).unwrap();
    past.stamp(1, None);
    let entry = history.first_after(&Place::whole(OID), 0).unwrap().unwrap();
    assert_eq!(std::fs::metadata(history.whole_path(&entry)).unwrap().len(), 3 * MIB as u64);
    assert_eq!(whole(), 1);
}

#[test]
fn a_copy_without_room_leaves_what_is_kept() {
    let scratch = Scratch::new("too-long");
    drop(scratch.open(Mode::Continuous, 1));
    let source = scratch.0.join("source");
    std::fs::write(&source, vec![1; 3 * MIB]).unwrap();
    let source = File::open(source).unwrap();
    let settings = Settings { mode: Mode::Continuous, full: Full::Drop, bytes_max: 34 << 20 };
    let history = History::open(&scratch.0, UUID, settings, 1, |_| false).unwrap();
    keep(&history, 0, 1, 1).unwrap();
    let mut past = Past::default();
    let mut keeper = Keeper { history: &history, past: &mut past, low: 2, exactly: None };
    keeper.range(OID, source.as_raw_fd(), 0, u64::MAX).unwrap();
    assert_eq!(history.lost.load(Ordering::Relaxed), 1);
    assert_eq!(std::fs::read_dir(scratch.0.join("whole")).unwrap().count(), 0);
}

/// A view of seq 5 of a tree with one file of 2 MiB, of which `data` has kept nothing yet.
struct Seen {
    view: View,
    file: Arc<Inode>,
    history: Arc<History>,
    live: File,
}

impl Seen {
    fn new(scratch: &Scratch) -> Self {
        let history = Arc::new(scratch.open(Mode::Continuous, 1));
        let tree = scratch.0.join("tree");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join("file"), vec![1; 2 * MIB]).unwrap();
        let view = View::open(history.clone(), File::open(&tree).unwrap(), 5).unwrap();
        let file = view.resolve(b"file").unwrap().unwrap();
        let live = OpenOptions::new().read(true).write(true).open(tree.join("file")).unwrap();
        Self { view, file, history, live }
    }

    /// Keeps bytes that the change `seq` is about to overwrite.
    fn keep(&self, from: usize, to: usize, seq: u64) {
        let mut past = Past::default();
        let mut keeper =
            Keeper { history: &self.history, past: &mut past, low: seq, exactly: None };
        keeper.data(self.file.oid, self.live.as_raw_fd(), from as u64, to as u64).unwrap();
        past.stamp(seq, None);
    }
}

#[test]
fn what_is_kept_after_the_tree_was_read_is_not_painted_over_it() {
    let scratch = Scratch::new("painted");
    let seen = Seen::new(&scratch);
    let layers = |end| {
        let found = seen.view.layers(&seen.file, (0, 2 * MIB as u64), end).unwrap();
        found.len()
    };
    seen.keep(0, 4096, 6);
    let end = seen.history.log.end();
    assert_eq!(layers(end), 1);
    seen.keep(0, 2 * MIB, 7);
    assert_eq!((layers(end), layers(seen.history.log.end())), (1, 3));
}

#[test]
fn a_view_that_is_seen_elsewhere_ends_here_in_time() {
    let scratch = Scratch::new("elsewhere");
    let Seen { view, history, .. } = Seen::new(&scratch);
    let mountpoint = scratch.0.join("view");
    std::fs::create_dir(&mountpoint).unwrap();
    let c_path = CString::new(mountpoint.as_os_str().as_bytes()).unwrap();
    let mounted = view.mount(c_path, "holdfast-test", 0).unwrap();
    let args = ["--mount", "--propagation", "private", "sh", "-c", "echo && exec sleep 60"];
    let spawned = Command::new("unshare").args(args).stdout(Stdio::piped()).spawn();
    let mut elsewhere = spawned.unwrap();
    elsewhere.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let began = Instant::now();
    let ended = mounted.unmount(false, began + limits::VIEW_END_MAX);
    let took = began.elapsed();
    elsewhere.kill().unwrap();
    elsewhere.wait().unwrap();
    ended.unwrap();
    assert!(took < 3 * limits::VIEW_END_MAX);
    history.close();
}

#[test]
fn the_seq_at_a_time_is_found_in_any_segment() {
    let scratch = Scratch::new("times");
    let history = scratch.open(Mode::Continuous, 1);
    assert_eq!(history.seq_at(1 << 40), (None, None));
    // Change n at 1000 n ns; seven segments.
    for seq in 1..=200 {
        let cause = Cause { low: seq, clock_ns: Some(1000 * seq), ..Cause::default() };
        let place = Place::block(OID, 0, seq);
        history.keep(&place, cause, MIB, |_, _| Ok((1, 0))).unwrap().set_stamp(seq);
    }
    assert_eq!(history.seq_at(999), (None, Some(1000)));
    for seq in 1..=200 {
        assert_eq!(history.seq_at(1000 * seq), (Some(seq), Some(1000)));
        assert_eq!(history.seq_at(1000 * seq + 999), (Some(seq), Some(1000)));
    }
}

#[test]
fn what_is_kept_with_an_older_bound_after_a_view_has_settled_is_seen_by_it() {
    let scratch = Scratch::new("settled");
    let history = scratch.open(Mode::Continuous, 1);
    history.pin(5).unwrap();
    // It took its bound before seq 3 was there, and was added after 5 was.
    let cause = Cause { low: 3, ..Cause::default() };
    let (attr, name) = (Place::attr(OID), Place::name(OID, b"name"));
    history.keep(&attr, cause, 1, |_, _| Ok((1, 0))).unwrap();
    history.keep(&name, cause, 1, |_, _| Ok((1, 0))).unwrap();
    assert!(history.first_after(&attr, 5).unwrap().is_some());
    let (from, to) = Place::names(OID);
    assert_eq!(history.each_after(&from, &to, 5).unwrap().len(), 1);
}

#[test]
fn that_something_is_not_there_has_to_be_proven() {
    let scratch = Scratch::new("proven");
    let Seen { view, history, .. } = Seen::new(&scratch);
    let ask = || {
        let header = InHeader { opcode: GETXATTR, nodeid: ROOT_ID, ..InHeader::default() };
        let arg = GetxattrIn { size: 100, padding: 0 };
        let fixed = pod_bytes(&arg);
        let request = Request { header, fixed, rest: b"user.none\0", in_place: false };
        view.serve(&mut Output::with_capacity(4096), &request).err()
    };
    assert_eq!(ask(), Some(Errno(libc::ENODATA)));
    history.raise_floor(6);
    assert_eq!(ask(), Some(Errno(libc::EIO)));
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
