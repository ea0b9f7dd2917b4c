//! Names of a view: LOOKUP, READDIR, READDIRPLUS.

use super::limits::LISTINGS_MAX;
use super::object::{decode_led, Led};
use super::place::{name_of, Place};
use super::view::View;
use crate::interceptor::attr::{stat_at, Stat};
use crate::interceptor::dir::{read_entries, RawEntry};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::handle::{CName, FileHandle};
use crate::interceptor::table::Inode;
use crate::interceptor::volume::FOREVER_S;
use crate::transport::abi::{Dirent, EntryOut, ReadIn};
use crate::transport::reply::{Output, Reply};
use crate::transport::request::Request;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

const GETDENTS_BYTES: usize = 64 << 10;

/// A name of a directory: inode number and type as getdents64(2) gives it.
pub struct Named {
    name: Vec<u8>,
    ino: u64,
    kind: u8,
}

/// All names of a directory, in an order that is always the same.
pub struct Listing(Vec<Named>);

impl View {
    /// What a name leads to now, on the file system of the tree, and how that is.
    fn live_name(&self, dir: &OwnedFd, name: &CName) -> Res<Option<(Led, Stat)>> {
        let found = (|| {
            let st = stat_at(dir.as_raw_fd(), name.as_c())?;
            if !self.is_ours(&st) {
                return Err(Errno(libc::ENOENT));
            }
            let handle = FileHandle::of(dir.as_raw_fd(), name.as_c())?;
            let kind = u32::from(st.stx_mode) & libc::S_IFMT;
            Ok((Led { oid: handle.oid(st.stx_ino), handle, kind }, st))
        })();
        match found {
            Ok(found) => Ok(Some(found)),
            Err(Errno(libc::ENOENT | libc::ENOTDIR | libc::ESTALE)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What a name leads to now.
    pub(super) fn led_now(&self, parent: &Arc<Inode>, bytes: &[u8]) -> Res<Option<(Led, Stat)>> {
        let name = CName::new(bytes)?;
        match self.live_open(parent)? {
            Some(dir) => self.live_name(&dir, &name),
            None => Ok(None),
        }
    }

    /// What a name led to; and how that is now, where it still leads there.
    pub(super) fn led(
        &self,
        parent: &Arc<Inode>,
        bytes: &[u8],
    ) -> Res<Option<(Led, Option<Stat>)>> {
        let live = self.led_now(parent, bytes);
        match self.history.first_after(&Place::name(parent.oid, bytes), self.seq)? {
            Some(entry) => Ok(decode_led(entry.payload())?.map(|led| (led, None))),
            None => Ok(live?.map(|(led, st)| (led, Some(st)))),
        }
    }

    pub(super) fn op_lookup(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let parent = self.inode(r.header.nodeid);
        // When it is not there, the kernel remembers that.
        let none = EntryOut { entry_valid: FOREVER_S, ..Default::default() };
        out.push(&self.entry_of(&parent, r.name()?)?.unwrap_or(none));
        Ok(Reply::Done)
    }

    fn listing(&self, dir: &Arc<Inode>, anew: bool) -> Res<Arc<Listing>> {
        if !anew {
            let listings = self.listings.lock();
            if let Some((_, found)) = listings.iter().find(|(oid, _)| *oid == dir.oid) {
                return Ok(found.clone());
            }
        }
        let listing = Arc::new(self.list(dir)?);
        let mut listings = self.listings.lock();
        listings.retain(|(oid, _)| *oid != dir.oid);
        if listings.len() >= LISTINGS_MAX {
            listings.remove(0);
        }
        listings.push((dir.oid, listing.clone()));
        Ok(listing)
    }

    /// The names that are there now, and over them what names led to.
    fn list(&self, dir: &Arc<Inode>) -> Res<Listing> {
        let mut names = BTreeMap::new();
        // Opened for this reading alone: a directory's position belongs to its descriptor.
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        if let Some(stream) = self.live(&dir.handle, flags)? {
            let mut buf = vec![0; GETDENTS_BYTES];
            let mut see = |e: RawEntry| {
                if e.name != b"." && e.name != b".." {
                    names.insert(e.name.to_vec(), (e.ino, e.kind));
                }
                Ok(true)
            };
            while read_entries(stream.as_raw_fd(), &mut buf, &mut see)? {}
        }
        let (from, to) = Place::names(dir.oid);
        for (place, entry) in self.history.each_after(&from, &to, self.seq)? {
            let Some(name) = name_of(&place) else { continue };
            match decode_led(entry.payload())? {
                Some(led) => {
                    names.insert(name.to_vec(), (led.oid.ino, (led.kind >> 12) as u8));
                }
                None => {
                    names.remove(name);
                }
            }
        }
        let all = names.into_iter().map(|(name, (ino, kind))| Named { name, ino, kind });
        Ok(Listing(all.collect()))
    }

    /// Offsets: 1 and 2 stand behind "." and "..", then one for each name.
    pub(super) fn op_readdir(&self, out: &mut Output, r: &Request, plus: bool) -> Res<Reply> {
        let arg: ReadIn = r.arg()?;
        let dir = self.inode(r.header.nodeid);
        let listing = self.listing(&dir, arg.offset == 0)?;
        let space = arg.size as usize;
        for (i, dot) in [&b"."[..], b".."].into_iter().enumerate().skip(arg.offset as usize) {
            let ino = dir.oid.ino;
            if !push(out, space, plus.then(EntryOut::default), dot, (ino, 4), i as u64 + 1) {
                return Ok(Reply::Done);
            }
        }
        let first = (arg.offset as usize).saturating_sub(2);
        for (i, named) in listing.0.iter().enumerate().skip(first) {
            if !fits(out, space, plus, &named.name) {
                break;
            }
            let entry = if plus { Some(self.entry_of(&dir, &named.name)?) } else { None };
            let Some(entry) = entry.map_or(Some(None), |e| e.map(Some)) else {
                continue; // on another file system: not part of the volume
            };
            push(out, space, entry, &named.name, (named.ino, named.kind), i as u64 + 3);
        }
        Ok(Reply::Done)
    }

    /// The entry that a name led to, its lookup counted.
    fn entry_of(&self, dir: &Arc<Inode>, name: &[u8]) -> Res<Option<EntryOut>> {
        let Some((led, now)) = self.led(dir, name)? else {
            return Ok(None);
        };
        let inode = self.enter(&led);
        match self.entry(&inode, now) {
            Ok(entry) => Ok(Some(entry)),
            Err(e) => {
                self.table.forget(&inode, 1);
                Err(e)
            }
        }
    }
}

fn length(plus: bool, name: &[u8]) -> usize {
    let head =
        std::mem::size_of::<Dirent>() + if plus { std::mem::size_of::<EntryOut>() } else { 0 };
    (head + name.len() + 7) & !7
}

fn fits(out: &Output, space: usize, plus: bool, name: &[u8]) -> bool {
    out.len() + length(plus, name) <= space
}

/// Adds an entry to the reply; false when it does not fit.
fn push(
    out: &mut Output,
    space: usize,
    entry: Option<EntryOut>,
    name: &[u8],
    (ino, kind): (u64, u8),
    off: u64,
) -> bool {
    if !fits(out, space, entry.is_some(), name) {
        return false;
    }
    let len = length(entry.is_some(), name);
    let begin = out.len();
    if let Some(entry) = entry {
        out.push(&entry);
    }
    out.push(&Dirent { ino, off, namelen: name.len() as u32, kind: u32::from(kind) });
    out.extend(name);
    let padding = len - (out.len() - begin);
    out.extend(&[0; 8][..padding]);
    true
}
