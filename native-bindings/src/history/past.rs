//! Keeping what is there, before it changes.
//!
//! Called under the locks of the objects that change. What was kept is stamped when the change has its
//! seq; if it never gets one, nothing changed, and what was kept is true all the same.

use super::limits::WHOLE_BYTES_MIN;
use super::log::{Author, Cause, Entry, FLAG_HOLE};
use super::object::{encode_attr, encode_led, encode_xattrs, read_xattrs, Above, Led};
use super::object::{ABOVE_BYTES_MAX, LED_BYTES, STAT_BYTES};
use super::place::{around, blocks, Block, Place};
use super::History;
use crate::codes::read_at;
use crate::interceptor::attr::{stat_at, stat_fd, Stat};
use crate::interceptor::data::seek;
use crate::interceptor::errno::{check, Errno, Res};
use crate::interceptor::names::read_link;
use crate::record::Oid;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Before-images of one change, and who makes it.
#[derive(Default)]
pub struct Past {
    pub author: Author,
    /// When it was made, ns since the epoch; `None`: now.
    pub clock_ns: Option<u64>,
    entries: Vec<Entry>,
    /// Something found no room: no moment before the change can be read.
    lost: bool,
}

impl Past {
    /// The change has its seq.
    pub fn stamp(&mut self, seq: u64, history: Option<&History>) {
        for entry in self.entries.drain(..) {
            entry.set_stamp(seq);
        }
        self.end_loss(seq, history);
    }

    /// The change did not come about.
    pub fn settle(&mut self, history: Option<&History>) {
        for entry in self.entries.drain(..) {
            entry.set_stamp(entry.low());
        }
        self.end_loss(0, history);
    }

    fn end_loss(&mut self, seq: u64, history: Option<&History>) {
        if let Some(history) = history.filter(|_| std::mem::take(&mut self.lost)) {
            history.end_loss(seq);
        }
    }
}

/// Where the seqs of a change begin, and what is kept of it.
pub struct Keeper<'a> {
    pub history: &'a History,
    pub past: &'a mut Past,
    /// The change's seq is not below this.
    pub low: u64,
    /// The change's seq, where it is known before (replay): what was kept of it is not kept again.
    pub exactly: Option<u64>,
}

impl Keeper<'_> {
    fn needs(&self, place: &Place) -> Res<bool> {
        match self.exactly {
            Some(seq) if self.history.has(place, seq)? => Ok(false),
            _ => self.history.needs(place),
        }
    }

    fn keep(
        &mut self,
        place: &Place,
        room: usize,
        fill: impl Fn(&mut [u8], &Entry) -> Res<(usize, u16)>,
    ) -> Res<()> {
        let Past { author, clock_ns, .. } = *self.past;
        let cause = Cause { author, low: self.low, clock_ns };
        let kept = self.history.keep(place, cause, room, fill);
        match kept {
            Ok(entry) => {
                self.past.entries.push(entry);
                Ok(())
            }
            Err(_) => self.give_up(),
        }
    }

    /// Something could not be kept: the application goes on, and the moments before do not; or it is
    /// refused.
    fn give_up(&mut self) -> Res<()> {
        if self.history.refuses() {
            return Err(Errno(libc::ENOSPC));
        }
        let first = !std::mem::replace(&mut self.past.lost, true);
        self.history.lose(self.low, first);
        Ok(())
    }

    /// Attributes of an open object; `above`: the directory in which it is found.
    pub fn attr(&mut self, oid: Oid, fd: RawFd, above: impl FnOnce() -> Option<Above>) -> Res<()> {
        let place = Place::attr(oid);
        if !self.needs(&place)? {
            return Ok(());
        }
        let st = stat_fd(fd)?;
        self.keep_attr(&place, &st, (fd, c""), above())
    }

    /// Attributes as they are told, of the object at `name` below an open directory.
    pub fn attr_told(&mut self, oid: Oid, st: &Stat, at: (RawFd, &CStr)) -> Res<()> {
        let place = Place::attr(oid);
        match self.needs(&place)? {
            true => self.keep_attr(&place, st, at, None),
            false => Ok(()),
        }
    }

    /// Attributes of `name` below an open directory, which is `above`.
    pub fn attr_at(&mut self, oid: Oid, dir: RawFd, name: &CStr, above: Above) -> Res<()> {
        let place = Place::attr(oid);
        if !self.needs(&place)? {
            return Ok(());
        }
        let st = stat_at(dir, name)?;
        self.keep_attr(&place, &st, (dir, name), Some(above))
    }

    fn keep_attr(
        &mut self,
        place: &Place,
        st: &Stat,
        (dir, name): (RawFd, &CStr),
        above: Option<Above>,
    ) -> Res<()> {
        let is_link = u32::from(st.stx_mode) & libc::S_IFMT == libc::S_IFLNK;
        let target = if is_link { read_link(dir, name)? } else { Vec::new() };
        let room = STAT_BYTES + target.len() + above.map_or(0, |_| ABOVE_BYTES_MAX);
        self.keep(place, room, |buf, _| Ok((encode_attr(buf, st, &target, above.as_ref()), 0)))
    }

    /// Extended attributes of an open object.
    pub fn xattrs(&mut self, oid: Oid, fd: &impl AsRawFd) -> Res<()> {
        let place = Place::xattr(oid);
        if !self.needs(&place)? {
            return Ok(());
        }
        let bytes = encode_xattrs(&read_xattrs(fd)?);
        self.keep(&place, bytes.len(), |buf, _| {
            buf[..bytes.len()].copy_from_slice(&bytes);
            Ok((bytes.len(), 0))
        })
    }

    /// What a name leads to; `None`: it does not exist.
    pub fn name(&mut self, dir: Oid, name: &[u8], led: Option<&Led>) -> Res<()> {
        let place = Place::name(dir, name);
        if !self.needs(&place)? {
            return Ok(());
        }
        self.keep(&place, LED_BYTES, |buf, _| Ok((encode_led(buf, led), 0)))
    }

    /// Bytes `[from, to)` of an open file, as far as it reaches.
    pub fn data(&mut self, oid: Oid, fd: RawFd, from: u64, to: u64) -> Res<()> {
        if self.history.rests() || from >= to {
            return Ok(());
        }
        let size = stat_fd(fd)?.stx_size;
        let to = to.min(size);
        if from >= to || !self.needs(&Place::whole(oid))? {
            return Ok(());
        }
        for block in blocks(from, to) {
            if self.needs_block(oid, block)? {
                self.block(oid, fd, block, size)?;
            }
        }
        Ok(())
    }

    fn needs_block(&self, oid: Oid, block: Block) -> Res<bool> {
        for (level, number) in around(block) {
            if !self.needs(&Place::block(oid, level, number))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn block(&mut self, oid: Oid, fd: RawFd, block: Block, size: u64) -> Res<()> {
        let place = Place::block(oid, block.level, block.number);
        let len = (block.to.min(size) - block.from) as usize;
        let end = block.from + len as u64;
        if seek(fd, block.from, libc::SEEK_DATA)?.is_none_or(|data| data >= end) {
            return self.keep(&place, 8, |buf, _| {
                buf[..8].copy_from_slice(&(len as u64).to_le_bytes());
                Ok((8, FLAG_HOLE))
            });
        }
        self.keep(&place, len, |buf, _| Ok((read_at(fd, buf, block.from)?, 0)))
    }

    /// Bytes `[from, to)` of an open file that go at once: as a clone, when they are many.
    pub fn range(&mut self, oid: Oid, fd: RawFd, from: u64, to: u64) -> Res<()> {
        if self.history.rests() {
            return Ok(());
        }
        let size = stat_fd(fd)?.stx_size;
        let to = to.min(size);
        if to.saturating_sub(from) < WHOLE_BYTES_MIN {
            return self.data(oid, fd, from, to);
        }
        let place = Place::whole(oid);
        if !self.needs(&place)? {
            return Ok(());
        }
        self.whole(&place, fd, size)
    }

    /// A whole file. It is copied before its entry has a place in the log: behind that place nothing
    /// reaches the index until the entry is complete.
    fn whole(&mut self, place: &Place, fd: RawFd, size: u64) -> Res<()> {
        let history = self.history;
        let copy = match history.copy_whole(fd, size) {
            Ok(copy) => copy,
            Err(_) => return self.give_up(),
        };
        self.keep(place, 8, |buf, entry| {
            std::fs::rename(&copy.path, history.whole_path(entry))?;
            history.add_whole(copy.bytes);
            buf[..8].copy_from_slice(&size.to_le_bytes());
            Ok((8, 0))
        })
    }

    /// Extended attributes and data of an object whose last name is about to go.
    pub fn all_but_attr(&mut self, oid: Oid, dir: RawFd, name: &CStr, kind: u32) -> Res<()> {
        let flags = match kind {
            libc::S_IFREG | libc::S_IFDIR => libc::O_RDONLY | libc::O_NONBLOCK,
            _ => libc::O_PATH,
        };
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: a valid string; the result is checked.
        let fd = check(unsafe { libc::openat(dir, name.as_ptr(), flags) })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        self.xattrs(oid, &fd)?;
        if kind == libc::S_IFREG {
            self.range(oid, fd.as_raw_fd(), 0, u64::MAX)?;
        }
        Ok(())
    }
}
