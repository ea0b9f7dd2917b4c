//! Limits of comparing and restoring trees, named, with what happens beyond them.

/// Unit in which differing bytes are told and written.
pub const BLOCK_BYTES: u64 = 4 << 10;
/// Bytes read, compared and written at a time.
pub const CHUNK_BYTES: usize = 1 << 20;
/// No file system here has larger blocks.
pub const LAST_BLOCK_BYTES_MAX: u64 = 64 << 10;
/// Bytes that the kernel is asked to copy at once: between two looks at a cancellation.
pub const COPY_BYTES_MAX: usize = 16 << 20;
/// Differing ranges of one file that are told; what lies beyond is told as one more range.
pub const RANGES_MAX: usize = 4096;
/// Directories kept open; beyond, they are opened again.
pub const OPEN_DIRS_MAX: usize = 128;
/// A file that was replaced by another object is replaced whole up to this size, else patched.
pub const REPLACED_WHOLE_BYTES: u64 = 1 << 20;
/// Changes and failures on their way to whoever reads them; beyond, the job waits for its reader.
pub const QUEUE_ITEMS_MAX: usize = 4096;
/// Most of them that are handed over at once, and how long the first is waited for.
pub const BATCH_ITEMS_MAX: usize = 1024;
pub const BATCH_WAIT_MS: u64 = 200;
/// Files up to this size are read before it is asked where their holes are: most have none.
pub const SMALL_FILE_BYTES: u64 = 64 << 10;
/// No file system has smaller blocks: a hole is at least that long.
pub const HOLE_BYTES_MIN: usize = 512;
/// Failures that are told one by one; the rest is counted.
pub const FAILURES_TOLD_MAX: u64 = 1000;
/// An xattr's value, or the list of names: what the kernel allows at most.
pub const XATTR_BYTES_MAX: usize = 64 << 10;
