//! The versions of one object: when it changed, by whom, and what it was before.

use super::log::{entries_of, Author, Entry};
use super::object::{decode_attr, decode_led};
use super::place::Place;
use super::segment::Segment;
use super::view::View;
use super::History;
use crate::interceptor::attr::{stat_fd, Stat};
use crate::interceptor::errno::Res;
use crate::interceptor::table::Inode;
use crate::record::Oid;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// A change of an object, and its attributes before.
pub struct Change {
    pub seq: u64,
    pub clock_ns: u64,
    pub author: Author,
    pub before: Stat,
}

impl History {
    /// The changes of an object that are kept, oldest first.
    pub fn changes_of(&self, oid: Oid) -> Res<Vec<Change>> {
        let entries = self.index.all_of(&self.log, &Place::attr(oid).0)?;
        entries
            .into_iter()
            .filter(|(seq, _)| *seq > self.floor())
            .map(|(seq, entry)| {
                let before = decode_attr(entry.payload())?.st;
                Ok(Change { seq, clock_ns: entry.clock_ns(), author: entry.author(), before })
            })
            .collect()
    }

    /// The last seq at a time (ns since the epoch), and the time of the oldest entry: by the entries of
    /// the log, which stand in the order of time. `None` when it has none up to that time.
    pub fn seq_at(&self, clock_ns: u64) -> (Option<u64>, Option<u64>) {
        let segments = self.log.segments();
        let begins = |at: usize| stamped(&segments[at..]).next().map(|e| e.clock_ns());
        let (mut from, mut to) = (0, segments.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match begins(middle) {
                Some(begins) if begins <= clock_ns => from = middle + 1,
                _ => to = middle,
            }
        }
        // One more: what its last entries belong to may have got its seq late, a higher one.
        let mut found = None;
        for (n, segment) in segments[..from].iter().rev().enumerate() {
            if n > 1 && found.is_some() {
                break;
            }
            let until = stamped(std::slice::from_ref(segment)).filter(|e| e.clock_ns() <= clock_ns);
            found = found.max(until.map(|e| e.stamp()).max());
        }
        (found, begins(0))
    }
}

/// Entries of changes that have a seq, in order.
fn stamped(segments: &[Arc<Segment>]) -> impl Iterator<Item = Entry> + '_ {
    let all = segments.iter().flat_map(|segment| entries_of(segment, 0));
    all.filter(|e| e.is_complete() && e.stamp() != 0)
}

/// One object that a path led to.
pub struct PathObject {
    pub oid: Oid,
    /// The change that ended it under this name: seq, clock, who.
    pub ended: Option<(u64, u64, Author)>,
    pub changes: Vec<Change>,
    /// As it is now, while the name leads to it.
    pub now: Option<Stat>,
}

impl View {
    /// What a name led to, component by component.
    pub fn resolve(&self, path: &[u8]) -> Res<Option<Arc<Inode>>> {
        let mut at = self.root.clone();
        for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            let Some((led, _)) = self.led(&at, name)? else {
                return Ok(None);
            };
            at = self.enter(&led);
        }
        Ok(Some(at))
    }

    /// What a path led to, newest first. The directory is looked for as of the view, the name in it at
    /// all times.
    pub fn past_of(&self, path: &[u8]) -> Res<Vec<PathObject>> {
        let end = path.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
        let path = &path[..end];
        if path.is_empty() {
            return Ok(vec![self.past_object(
                self.root.oid,
                None,
                Some(self.attr(&self.root)?),
            )?]);
        }
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let Some(parent) = self.resolve(parent)? else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        if let Some((led, _)) = self.led_now(&parent, name)? {
            let inode = self.enter(&led);
            let now = self.live(&led.handle, libc::O_PATH | libc::O_NOFOLLOW)?;
            let now = now.map(|fd| stat_fd(fd.as_raw_fd())).transpose()?;
            out.push(self.past_object(inode.oid, None, now)?);
        }
        let place = Place::name(parent.oid, name);
        let names = self.history.index.all_of(&self.history.log, &place.0)?;
        for (seq, entry) in names.into_iter().rev() {
            if seq <= self.history.floor() {
                break;
            }
            if let Some(led) = decode_led(entry.payload())? {
                let ended = (seq, entry.clock_ns(), entry.author());
                out.push(self.past_object(led.oid, Some(ended), None)?);
            }
        }
        Ok(out)
    }

    fn past_object(
        &self,
        oid: Oid,
        ended: Option<(u64, u64, Author)>,
        now: Option<Stat>,
    ) -> Res<PathObject> {
        let mut changes = self.history.changes_of(oid)?;
        if let Some((end, ..)) = ended {
            changes.retain(|c| c.seq <= end);
        }
        Ok(PathObject { oid, ended, changes, now })
    }
}
