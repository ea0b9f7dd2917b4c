//! Data of a view: READ and LSEEK.
//!
//! What is there now is read first. Then the before-images are painted over it, the newest first, so that
//! at every byte the oldest one after the view's seq is what remains.

use super::limits::BLOCK_BYTES;
use super::log::Entry;
use super::place::{block_of, kind_of, Place, WHOLE};
use super::view::View;
use crate::codes::read_at;
use crate::interceptor::data::data_of;
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::table::Inode;
use crate::transport::abi::{LseekIn, LseekOut, ReadIn};
use crate::transport::device::IO_BYTES_MAX;
use crate::transport::reply::{Output, Reply};
use crate::transport::request::Request;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// `[from, to)`, in order.
type Intervals = Vec<(u64, u64)>;

/// What was found out about a file and never changes.
pub struct Known {
    size: u64,
    /// Where it has data; made when somebody asks, by one thread: others wait for it.
    extents: Mutex<Option<Arc<Intervals>>>,
}

/// A before-image of a part of a file.
pub(super) struct Layer {
    seq: u64,
    from: u64,
    to: u64,
    entry: Entry,
}

impl Layer {
    fn of(place: &[u8], entry: Entry) -> Option<Self> {
        let stamp = entry.stamp();
        let seq = if stamp == 0 { u64::MAX } else { stamp };
        let number = || Some(u64::from_le_bytes(entry.payload().get(..8)?.try_into().ok()?));
        let (from, to) = if kind_of(place) == WHOLE {
            (0, number()?)
        } else {
            let (from, _) = block_of(place)?;
            let len = if entry.is_hole() { number()? } else { entry.payload().len() as u64 };
            (from, from + len)
        };
        Some(Self { seq, from, to, entry })
    }

    fn is_whole_file(&self) -> bool {
        kind_of(self.entry.place()) == WHOLE
    }
}

impl View {
    fn known(&self, inode: &Inode) -> Res<Arc<Known>> {
        if let Some(known) = self.known.lock().get(&inode.oid) {
            return Ok(known.clone());
        }
        let size = self.attr(inode)?.stx_size;
        let known = Arc::new(Known { size, extents: Mutex::default() });
        self.known.lock().insert(inode.oid, known.clone());
        Ok(known)
    }

    /// The before-images of `[from, to)`, newest first, that are to be painted over what was read before
    /// `end` was taken from the log.
    ///
    /// Sizes of blocks are looked up one after another, and changes come in between: without a bound, an
    /// older small block would be missed and a newer, larger one be painted over what is right. So what
    /// stands at or behind `end` is left out. That is right because `end` is taken under the mutex under
    /// which entries get their places: an entry behind it got its own after our look, so that its effect,
    /// which comes after it, comes after our reading. And nothing is missed: changes of one object exclude
    /// each other, and an entry is made found before its effect. When an entry in front of `end` got its
    /// place, those of all earlier changes of the object could be found, and the mutex lets us see them.
    /// Only the last change may have some that are not found yet; then its effect has not begun, and what
    /// was read has the same bytes as they.
    pub(super) fn layers(
        &self,
        inode: &Inode,
        (from, to): (u64, u64),
        end: u64,
    ) -> Res<Vec<Layer>> {
        let mut layers = Vec::new();
        for (level, size) in BLOCK_BYTES.iter().enumerate() {
            let first = Place::block(inode.oid, level, from / size);
            let last = Place::block(inode.oid, level, to.div_ceil(*size));
            let found = self.history.each_after(&first, &last, self.seq)?;
            layers.extend(found.into_iter().filter_map(|(place, e)| Layer::of(&place, e)));
        }
        let whole = Place::whole(inode.oid);
        if let Some(entry) = self.history.first_after(&whole, self.seq)? {
            layers.extend(Layer::of(&whole.0, entry));
        }
        layers.retain(|l| l.entry.position() < end);
        // Of one change that was begun twice (replay), what was kept first is the state before it.
        layers.sort_by_key(|l| std::cmp::Reverse((l.seq, l.entry.location())));
        Ok(layers)
    }

    pub(super) fn op_read(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let arg: ReadIn = r.arg()?;
        let inode = self.inode(r.header.nodeid);
        let size = self.known(&inode)?.size;
        let end = size.min(arg.offset.saturating_add(u64::from(arg.size)));
        let len = (end.saturating_sub(arg.offset) as usize).min(IO_BYTES_MAX);
        if len == 0 {
            return Ok(Reply::Done);
        }
        out.fill(len, |buf| {
            self.paint(&inode, buf, arg.offset)?;
            Ok::<usize, Errno>(buf.len())
        })?;
        Ok(Reply::Done)
    }

    /// Fills the buffer with the file as it was.
    fn paint(&self, inode: &Arc<Inode>, buf: &mut [u8], at: u64) -> Res<()> {
        let live = self.live_open(inode)?;
        let got = match &live {
            Some(fd) => read_at(fd.as_raw_fd(), buf, at)?,
            None => 0,
        };
        buf[got..].fill(0);
        let log_end = self.history.log.end();
        let end = at + buf.len() as u64;
        for layer in self.layers(inode, (at, end), log_end)? {
            let (from, to) = (layer.from.max(at), layer.to.min(end));
            if from >= to {
                continue;
            }
            let target = &mut buf[(from - at) as usize..(to - at) as usize];
            if layer.is_whole_file() {
                let file = File::open(self.history.whole_path(&layer.entry))?;
                let got = read_at(file.as_raw_fd(), target, from)?;
                target[got..].fill(0);
            } else if layer.entry.is_hole() {
                target.fill(0);
            } else {
                let start = (from - layer.from) as usize;
                let bytes = layer.entry.payload().get(start..start + target.len());
                target.copy_from_slice(bytes.ok_or(Errno(libc::EIO))?);
            }
        }
        Ok(())
    }

    pub(super) fn op_lseek(&self, out: &mut Output, r: &Request) -> Res<Reply> {
        let arg: LseekIn = r.arg()?;
        let inode = self.inode(r.header.nodeid);
        let known = self.known(&inode)?;
        if arg.offset >= known.size {
            return Err(Errno(libc::ENXIO));
        }
        let extents = {
            let mut made = known.extents.lock();
            match &*made {
                Some(extents) => extents.clone(),
                None => made.insert(Arc::new(self.extents(&inode, known.size)?)).clone(),
            }
        };
        let next = extents.partition_point(|(_, to)| *to <= arg.offset);
        let here = extents.get(next);
        let offset = match arg.whence as i32 {
            libc::SEEK_DATA => here.ok_or(Errno(libc::ENXIO))?.0.max(arg.offset),
            libc::SEEK_HOLE => match here {
                Some((from, to)) if *from <= arg.offset => *to,
                _ => arg.offset,
            },
            _ => return Err(Errno(libc::EINVAL)),
        };
        out.push(&LseekOut { offset });
        Ok(Reply::Done)
    }

    /// Where the file has data.
    fn extents(&self, inode: &Arc<Inode>, size: u64) -> Res<Intervals> {
        let mut map = Extents::default();
        if let Some(fd) = self.live_open(inode)? {
            map.extend(data_of(fd.as_raw_fd(), 0, size)?);
        }
        let log_end = self.history.log.end();
        for layer in self.layers(inode, (0, size), log_end)? {
            let (from, to) = (layer.from, layer.to.min(size));
            if from >= to {
                continue;
            }
            map.clear(from, to);
            if layer.is_whole_file() {
                let file = File::open(self.history.whole_path(&layer.entry))?;
                map.extend(data_of(file.as_raw_fd(), from, to)?);
            } else if !layer.entry.is_hole() {
                map.extend([(from, to)]);
            }
        }
        Ok(map.joined())
    }
}

/// Intervals that do not overlap: where each begins, and ends. A layer costs the logarithm of their number
/// and what it takes out, whatever else there is.
#[derive(Default)]
struct Extents(BTreeMap<u64, u64>);

impl Extents {
    /// Adds intervals where there are none.
    fn extend(&mut self, more: impl IntoIterator<Item = (u64, u64)>) {
        self.0.extend(more.into_iter().filter(|(from, to)| from < to));
    }

    /// Takes `[from, to)` out.
    fn clear(&mut self, from: u64, to: u64) {
        while let Some((&a, &b)) = self.0.range(..to).next_back().filter(|(_, b)| **b > from) {
            self.0.remove(&a);
            self.extend([(a, from), (to, b)]);
            if a <= from {
                break;
            }
        }
    }

    /// In order, those that touch as one.
    fn joined(self) -> Intervals {
        let mut out: Intervals = Vec::with_capacity(self.0.len());
        for (a, b) in self.0 {
            match out.last_mut() {
                Some(last) if a <= last.1 => last.1 = last.1.max(b),
                _ => out.push((a, b)),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(u64, u64)]) -> Extents {
        Extents(all.iter().copied().collect())
    }

    #[test]
    fn intervals_are_cut_and_joined() {
        let mut map = of(&[(0, 10), (20, 30)]);
        map.clear(5, 25);
        assert_eq!(map.0, of(&[(0, 5), (25, 30)]).0);
        map.clear(1, 2);
        assert_eq!(map.0, of(&[(0, 1), (2, 5), (25, 30)]).0);
        map.clear(0, 1);
        map.clear(3, 28);
        assert_eq!(map.0, of(&[(2, 3), (28, 30)]).0);
        map.clear(0, 100);
        assert!(map.0.is_empty());
        assert_eq!(of(&[(5, 7), (0, 1), (1, 5)]).joined(), [(0, 7)]);
    }

    #[test]
    fn as_many_intervals_as_blocks_take_no_time() {
        let mut map = Extents::default();
        map.extend([(0, 1 << 40)]);
        for n in 0..200_000 {
            // Neither in order nor side by side.
            let from = (n * 7919 % 200_000) * 8192;
            map.clear(from, from + 4096);
        }
        assert_eq!(map.joined().len(), 200_000);
    }
}
