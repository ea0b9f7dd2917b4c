//! Named limits of replay, in one place.

use std::time::Duration;

/// Open descriptors of replayed objects; the least recently used is closed beyond it.
pub const DESCRIPTORS_MAX: usize = 4096;
/// Longest file handle that is kept (ext4 8, XFS 12, tmpfs 12, btrfs 20 bytes).
pub const HANDLE_BYTES_MAX: usize = 32;
/// Objects whose time is not written yet, before they are written in the middle of a frame.
pub const PENDING_TIMES_MAX: usize = 1 << 16;
/// Removed objects that are remembered until their GONE record; beyond it, a record about an object
/// that is not known is passed over instead of being reported as a divergence.
pub const REMOVED_MAX: usize = 1 << 20;
/// A checkpoint (syncfs, then the position that is safe) starts after this much was applied …
pub const CHECKPOINT_BYTES: u64 = 512 << 20;
/// … or after this many records …
pub const CHECKPOINT_RECORDS: u64 = 1 << 20;
/// … or after this time.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);
/// Replay waits for its checkpoint rather than being further ahead of the last one than this: after
/// a power loss no record beyond it can have touched the disk.
pub const AHEAD_SEQS_MAX: u64 = 2 * CHECKPOINT_RECORDS;
/// Objects watched between checkpoints (sources of copies, directories with new entries) before one
/// is made.
pub const WATCHED_MAX: usize = 1 << 16;
/// Step by which the object map's file grows.
pub const MAP_GROW_BYTES: u64 = 4 << 20;
/// An object map shorter than this is never compacted …
pub const MAP_COMPACT_BYTES_MIN: u64 = 16 << 20;
/// … nor one that takes less than this per object (an entry takes 32 to 64 bytes).
pub const MAP_COMPACT_BYTES_PER_OBJECT: u64 = 160;
/// Objects whose attribute flags may be lifted at the same time for one record.
pub const UNSEALED_MAX: usize = 8;
/// How often, and how far apart, the lock of a state directory is asked for.
pub const LOCK_TRIES: u32 = 20;
pub const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Ranges that one list of needs tells; the rest comes with the next.
pub const NEEDS_MAX: usize = 50_000;
