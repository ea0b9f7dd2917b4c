//! Named limits of capture, in one place.

use std::time::Duration;

/// Unit in which threads take ring memory. Holds several of the longest records.
pub const CHUNK_BYTES: usize = 8 << 20;
/// Smallest ring: requests served at one time need a chunk each, and some must be in the drain.
pub const RING_BYTES_MIN: usize = 8 * CHUNK_BYTES;
/// Frames made by copying small records aim at this size.
pub const FRAME_TARGET_BYTES: usize = 512 << 10;
/// Payloads from this size on become a frame of their own, in place, without a copy.
pub const DIRECT_FRAME_PAYLOAD: usize = 128 << 10;
/// Memory for the frames of one `take`.
pub const FRAME_POOL_BYTES: usize = 16 << 20;
/// How long an fsync waits for the journal before it fails with EIO.
pub const FLUSH_WAIT_MAX: Duration = Duration::from_secs(60);
/// Kinds of paths that differ in what replicas have to have of them.
pub const ACK_CLASSES_MAX: usize = 32;
/// Longest time by which one change is slowed down while a replica lags too far behind.
pub const SLOW_WAIT_MAX: Duration = Duration::from_millis(1000);
/// Longest time for which a frozen group holds changes.
pub const APPLICATION_HOLD_MAX: Duration = Duration::from_secs(600);
/// How often a member of a cut that waits for the others looks whether one has given up.
pub const MEETING_POLL: Duration = Duration::from_millis(10);
/// How often one that stays at rest looks whether it may go on: a part of every such hold.
pub const STAYING_POLL: Duration = Duration::from_millis(1);
/// How often a thread that waits for ring space looks for chunks of resting threads.
pub const RESTING_POLL: Duration = Duration::from_millis(5);
