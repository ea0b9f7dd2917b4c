//! Reading directories: READDIR and READDIRPLUS, without state that the kernel would have to release.
//!
//! Offsets are those of the backing file system. The descriptor of a stream is kept between two
//! requests that continue each other; any other request opens a new one and seeks.

use super::attr::{stat_at, Stat};
use super::errno::{check, check_len, Errno, Res};
use super::handle::{CName, FileHandle};
use super::table::{raw, Inode};
use super::volume::{Volume, Worker, STREAMS_MAX};
use crate::transport::abi::{Dirent, EntryOut, ReadIn};
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Bytes that one getdents64(2) call may fill.
const GETDENTS_BYTES: usize = 32 << 10;

/// One entry as getdents64(2) gives it.
pub struct RawEntry<'a> {
    pub ino: u64,
    /// Position behind the entry.
    pub next: u64,
    pub kind: u8,
    pub name: &'a [u8],
}

/// Reads entries from an open directory into `buf`; calls `see` for each until it says stop (false).
/// Returns false when the directory has ended.
pub fn read_entries(
    dir: i32,
    buf: &mut [u8],
    mut see: impl FnMut(RawEntry) -> Res<bool>,
) -> Res<bool> {
    // SAFETY: valid buffer of that length.
    let n = check_len(unsafe {
        libc::syscall(libc::SYS_getdents64, dir, buf.as_mut_ptr(), buf.len()) as isize
    })?;
    let mut at = 0;
    while at + 19 < n {
        let e = &buf[at..n];
        let number = |i: usize| {
            let mut v = [0; 8];
            v.copy_from_slice(&e[i..i + 8]);
            u64::from_ne_bytes(v)
        };
        let len = u16::from_ne_bytes([e[16], e[17]]) as usize;
        let name = &e[19..len];
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        let entry = RawEntry { ino: number(0), next: number(8), kind: e[18], name: &name[..end] };
        if !see(entry)? {
            return Ok(true);
        }
        at += len;
    }
    Ok(n > 0)
}

impl Volume {
    pub(super) fn op_readdir(&self, w: &mut Worker, r: &Request, plus: bool) -> Res<Reply> {
        let arg: ReadIn = r.arg()?;
        let inode = self.inode(r.header.nodeid);
        let dir = self.dir_fd(&inode)?;
        let stream = self.stream(&inode, raw(&dir), arg.offset)?;
        let mut at = arg.offset;
        let mut full = false;
        let mut buf = [0; GETDENTS_BYTES];
        while !full {
            let more = read_entries(stream.as_raw_fd(), &mut buf, |e| {
                let space = arg.size as usize - w.out.len();
                if !self.push_entry(w, &inode, raw(&dir), &e, space, plus)? {
                    full = true;
                    return Ok(false);
                }
                at = e.next;
                Ok(true)
            })?;
            if !more {
                break;
            }
        }
        if full {
            // getdents read ahead of what fitted.
            // SAFETY: plain call.
            unsafe { libc::lseek(stream.as_raw_fd(), at as i64, libc::SEEK_SET) };
        }
        if !w.out.is_empty() {
            let mut streams = self.streams.lock();
            if streams.len() >= STREAMS_MAX {
                streams.remove(0);
            }
            streams.push((inode.oid, at, stream));
        }
        Ok(Reply::Done)
    }

    /// A descriptor of the directory whose position is `offset`.
    fn stream(&self, inode: &Inode, dir: i32, offset: u64) -> Res<OwnedFd> {
        if offset != 0 {
            let mut streams = self.streams.lock();
            if let Some(i) = streams.iter().position(|s| s.0 == inode.oid && s.1 == offset) {
                return Ok(streams.swap_remove(i).2);
            }
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: a valid string; the result is checked.
        let fd = check(unsafe { libc::openat(dir, c".".as_ptr(), flags) })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if offset != 0 {
            // SAFETY: plain call.
            if unsafe { libc::lseek(fd.as_raw_fd(), offset as i64, libc::SEEK_SET) } < 0 {
                return Err(Errno::last());
            }
        }
        Ok(fd)
    }

    /// Adds an entry to the reply; false when it does not fit.
    fn push_entry(
        &self,
        w: &mut Worker,
        parent: &Arc<Inode>,
        dir: i32,
        e: &RawEntry,
        space: usize,
        plus: bool,
    ) -> Res<bool> {
        let dirent = std::mem::size_of::<Dirent>();
        let head = if plus { std::mem::size_of::<EntryOut>() + dirent } else { dirent };
        let len = (head + e.name.len() + 7) & !7;
        if len > space {
            return Ok(false);
        }
        if plus {
            let entry = match self.entry_plus(parent, dir, e) {
                Ok(Some((inode, st))) => self.entry(&inode, &st),
                Ok(None) => EntryOut::default(),
                // Gone in between, or on another file system: not part of the volume.
                Err(Errno(libc::ENOENT | libc::EXDEV | libc::ESTALE)) => return Ok(true),
                Err(e) => return Err(e),
            };
            w.out.push(&entry);
        }
        w.out.push(&Dirent {
            ino: e.ino,
            off: e.next,
            namelen: e.name.len() as u32,
            kind: u32::from(e.kind),
        });
        w.out.extend(e.name);
        w.out.extend(&[0; 8][..len - head - e.name.len()]);
        Ok(true)
    }

    /// Looks an entry up for READDIRPLUS; "." and ".." get no lookup.
    fn entry_plus(
        &self,
        parent: &Arc<Inode>,
        dir: i32,
        e: &RawEntry,
    ) -> Res<Option<(Arc<Inode>, Stat)>> {
        if e.name == b"." || e.name == b".." {
            return Ok(None);
        }
        let name = CName::new(e.name)?;
        let st = stat_at(dir, name.as_c())?;
        if (st.stx_dev_major, st.stx_dev_minor) != self.dev {
            return Err(Errno(libc::EXDEV));
        }
        let handle = FileHandle::of(dir, name.as_c())?;
        Ok(Some((self.know(parent, e.name, &st, handle, 1), st)))
    }
}
