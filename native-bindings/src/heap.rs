//! How much free memory the C heap keeps instead of giving it back to the kernel at once.
//!
//! LMDB builds each transaction in fresh memory of the heap and frees it with the commit. Given back each
//! time, every page of the next transaction is a fault, and zeroed, before it is written: a fifth of what
//! a replica's log costs (docs/BENCHMARKS.md).
//!
//! Invariant: at most `bytes` of free memory stay for each arena of the allocator, of which there are
//! `ARENAS_MAX`, however many threads come and go (a link has two); what is in use does not change.

/// Blocks above this come from the kernel and go back to it, each by itself.
const OWN_MAPPING_BYTES: libc::c_int = 4 << 20;
/// glibc's own limit is 8 for each CPU.
const ARENAS_MAX: libc::c_int = 4;

/// Keeps up to `bytes` of free memory at the end of each arena. Of the whole process; only glibc has it.
pub fn keep(bytes: u32) {
    #[cfg(target_env = "gnu")]
    {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: parameters of the allocator, set under its own lock; refused ones change nothing.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
            libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
            libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (bytes, OWN_MAPPING_BYTES, ARENAS_MAX);
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    /// Minor faults of this thread.
    fn faults() -> i64 {
        // SAFETY: a zeroed rusage is a valid value and out-pointer.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
            usage.ru_minflt
        }
    }

    #[test]
    fn memory_that_was_freed_is_used_again_without_faults() {
        super::keep(32 << 20);
        let fill = || {
            let blocks: Vec<_> = (0..8).map(|n| vec![n as u8 + 1; 1 << 20]).collect();
            std::hint::black_box(&blocks);
        };
        fill();
        let before = faults();
        fill();
        assert!(faults() - before < 1024, "{} faults for 2048 pages", faults() - before);
    }
}
