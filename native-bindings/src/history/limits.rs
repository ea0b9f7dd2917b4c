//! Named limits of the history, in one place.

use std::time::Duration;

/// Size of a segment of the log. Holds several of the longest entries; unit in which space is freed.
pub const SEGMENT_BYTES: usize = 32 << 20;
/// Bytes of a segment before its first entry.
pub const SEGMENT_HEADER: usize = 4096;
/// Room that a segment has to have before a cut: none is made while I/O is on hold.
pub const CUT_ROOM: usize = 64 << 10;
/// Sizes of the blocks by which data is kept: a change keeps the largest ones that fit.
pub const BLOCK_BYTES: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];
/// What goes at once and is longer than this is kept as a file of its own, a clone where the file
/// system can make one.
pub const WHOLE_BYTES_MIN: u64 = 2 << 20;
/// Entries that wait for the index, at most; whoever adds more waits for it.
pub const QUEUE_MAX: usize = 256 << 10;
/// Longest wait for the index before the history counts as full.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Entries of one transaction of the index.
pub const INDEX_BATCH: usize = 16 << 10;
/// How long entries wait for the index when there are few.
pub const INDEX_PAUSE: Duration = Duration::from_millis(200);
/// How often the log is written to the disk.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// How long no room is looked for after there was none.
pub const NO_ROOM_PAUSE: Duration = Duration::from_millis(200);
/// Address space of the index.
pub const INDEX_MAP_BYTES: usize = 256 << 30;
/// Threads that read the index at the same time.
pub const INDEX_READERS: u32 = 512;
/// Longest wait for changes under way when a view is opened.
pub const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How long a cut is kept of which the control plane says nothing: as long as it waits for a certificate.
pub const UNHEARD_MAX: Duration = Duration::from_secs(600);
/// Objects that are named as changed between two moments; beyond, whoever asks has to walk the trees.
pub const CHANGED_MAX: usize = 200_000;
/// Directories above one another that are climbed, to find where it is.
pub const CLIMB_MAX: usize = 4096;
/// Directory listings that a view keeps between two requests.
pub const LISTINGS_MAX: usize = 64;
/// Objects of which it is remembered that they are younger than the newest snapshot.
pub const NEWBORN_MAX: usize = 1 << 20;
/// Threads that serve a view.
pub const VIEW_THREADS: usize = 4;
/// Longest wait for the threads of a view that is unmounted: whoever has it in another mount namespace may
/// keep it for ever.
pub const VIEW_END_MAX: Duration = Duration::from_secs(2);
