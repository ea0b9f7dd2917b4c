//! Read-behind for a file that is read through a map, once, from its front: what was read leaves the
//! page cache.
//!
//! The counterpart of `write_behind`, which cannot drop pages that a map has: a replica's log is read
//! by its replay, and the journal by what ships it. Left there, each further frame would take new
//! memory, which in a virtual machine may cost more than the disk.
//!
//! Invariant: it costs a later read at most. Pages that were not read through the map, or that are
//! not on the disk yet, stay.

use std::fs::{metadata, read_to_string};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Drops the pages of the file at `path` that this process has mapped.
pub fn forget_read(path: &Path) -> std::io::Result<()> {
    for range in maps_of(path)? {
        let at = range.start as *mut libc::c_void;
        // SAFETY: it changes no contents, whatever is mapped there by now: MADV_PAGEOUT reclaims, and a
        // later access brings the page back. Its failure costs memory, not data.
        unsafe { libc::madvise(at, range.end - range.start, libc::MADV_PAGEOUT) };
    }
    Ok(())
}

/// Addresses of this process where the file is mapped (proc_pid_maps(5)).
fn maps_of(path: &Path) -> std::io::Result<Vec<Range<usize>>> {
    let file = metadata(path)?;
    let device = format!("{:02x}:{:02x}", libc::major(file.dev()), libc::minor(file.dev()));
    let inode = file.ino().to_string();
    let maps = read_to_string("/proc/self/maps")?;
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (range, _perms, _offset) = (words.next()?, words.next()?, words.next()?);
        if words.next()? != device || words.next()? != inode {
            return None;
        }
        let (from, to) = range.split_once('-')?;
        let address = |hex| usize::from_str_radix(hex, 16).ok();
        Some(address(from)?..address(to)?)
    };
    Ok(maps.lines().filter_map(of_line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    const PAGES: usize = 1024;

    #[test]
    fn what_was_read_through_a_map_leaves_the_cache_and_comes_back() {
        let path = std::env::current_dir().unwrap().join("target/read-behind.tmp");
        let mut file =
            File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        file.write_all(&vec![7; PAGES * 4096]).unwrap();
        file.sync_all().unwrap();
        // SAFETY: a fresh mapping of a file that is as long; unmapped below.
        let map = unsafe {
            let (prot, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), PAGES * 4096, prot, shared, file.as_raw_fd(), 0)
        };
        assert_ne!(map, libc::MAP_FAILED);
        // SAFETY: the mapping.
        let bytes = unsafe { std::slice::from_raw_parts(map.cast::<u8>(), PAGES * 4096) };
        let cached = || {
            let mut pages = vec![0u8; PAGES];
            // SAFETY: a byte per page of the mapping.
            assert_eq!(unsafe { libc::mincore(map, PAGES * 4096, pages.as_mut_ptr()) }, 0);
            pages.iter().filter(|&&p| p & 1 != 0).count()
        };
        assert!(bytes.iter().all(|b| *b == 7));
        assert_eq!(cached(), PAGES);
        forget_read(&path).unwrap();
        assert!(cached() < PAGES / 8, "{} pages are still cached", cached());
        assert!(bytes.iter().all(|b| *b == 7), "read again");
        // SAFETY: nothing refers to it any more.
        unsafe { libc::munmap(map, PAGES * 4096) };
        std::fs::remove_file(path).unwrap();
    }
}
