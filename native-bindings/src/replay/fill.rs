//! Fills: the target is brought what it lacks past the journal, straight from where it lies at the source.
//!
//! A fill is ahead of the records: it tells a range as it is after record `through`. Until that record is
//! applied the target is whole nowhere. Each record up to there changes the range to what the fill has
//! told, or to what a later one of them changes again: in the end it is the source's. Two kinds of record
//! depend on what is there, COPY and fallocate that moves bytes; they note the need anew (`apply_data`).
//!
//! A primary sends it before any record that it has captured later (docs/PROTOCOL.md); one that comes when a
//! record after `through` was applied is passed over, whatever it was held up by. The log does not have it: a need counts as met when a checkpoint has put its bytes to the disk.

use super::apply_meta::CAPABILITY;
use super::engine::{Access, Engine};
use super::error::{Done, ReplayCode, ReplayError};
use super::map_log::Entry;
use super::needs::{Need, Needs, OBJECT};
use super::objects::Obj;
use super::sys::{self, Name};
use super::Position;
use crate::fill::{FillHead, FillKind};
use crate::record::Oid;

/// What was brought.
#[derive(Default)]
pub(super) struct Fills {
    /// Since the last checkpoint began.
    fresh: Needs,
    /// Before it: on the disk when it ends.
    lasting: Needs,
}

impl Fills {
    /// What of a need was not brought yet.
    pub fn left(&self, oid: Oid, need: &Need) -> Vec<(u64, u64)> {
        let mut left = Needs::default();
        need.ranges.iter().for_each(|range| left.add(oid, *range, 0));
        for brought in [&self.fresh, &self.lasting] {
            let ranges = brought.get(oid).map_or(&[][..], |brought| &brought.ranges);
            ranges.iter().for_each(|range| left.met(oid, *range));
        }
        left.get(oid).map_or(Vec::new(), |need| need.ranges.clone())
    }

    /// This lacks again.
    pub fn missed(&mut self, oid: Oid, range: (u64, u64)) {
        if range != OBJECT {
            self.fresh.met(oid, range);
            self.lasting.met(oid, range);
        }
    }

    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.lasting.is_empty()
    }
}

impl Engine {
    /// Objects that lack something; one at least while a fill is ahead of what was applied.
    pub(super) fn lacking(&self) -> u64 {
        let ahead = self.needs.settled_after() > self.state.header.place().seq;
        (self.needs.len() as u64).max(u64::from(ahead))
    }

    /// Takes the body of a `fill` message. What does not lack any more is left alone.
    pub fn bring(&mut self, body: &[u8]) -> Result<Position, ReplayError> {
        let Some((head, bytes)) = FillHead::read(body) else {
            return Err(ReplayError::new(ReplayCode::Corrupt, "fill", "a fill that is not sound"));
        };
        self.take_fill(&head, bytes)
            .map_err(|f| ReplayError::of_fault(&f, head.through, "fill", Vec::new()))?;
        Ok(self.position())
    }

    fn take_fill(&mut self, head: &FillHead, bytes: &[u8]) -> Done {
        if self.state.header.effect_seq() > head.through {
            // Older than what is there: it came late, or again.
            return Ok(());
        }
        let oid = head.oid;
        let Some(need) = self.needs.get(oid) else {
            return Ok(());
        };
        let range = (head.offset, head.offset + head.len);
        if self.fills.left(oid, need).is_empty() {
            return Ok(());
        }
        let obj = self.alive(oid)?.filter(|obj| self.objects.get(*obj).is_regular());
        let Some(obj) = obj else {
            // Its removal, or an image of what took its place, is among the records.
            return if head.kind == FillKind::Gone { self.need_nothing(oid) } else { Ok(()) };
        };
        if !self.needs.foretold(head.through) {
            self.state.log(&Entry::Settles { seq: head.through })?;
            self.needs.settles(head.through);
        }
        if head.kind != FillKind::Gone {
            self.fds.next_turn();
            // Writing removes it; an attempt may write before it is refused.
            let privilege = self.get_xattr(obj, &Name::attribute(CAPABILITY)?)?;
            let write = |engine: &mut Self| engine.write_fill(obj, head, bytes, &privilege);
            match write(self) {
                Err(f) if f.is(libc::EPERM) => self.unsealed(&[obj], write)?,
                r => r?,
            }
        }
        self.fills.fresh.add(oid, range, 0);
        self.since_checkpoint.1 += head.len;
        self.end_checkpoint(false)?;
        self.checkpoint_when_due()
    }

    /// The bytes, as far as the file goes here: what lies behind is told by records.
    fn write_fill(
        &mut self,
        obj: Obj,
        head: &FillHead,
        bytes: &[u8],
        privilege: &Option<Vec<u8>>,
    ) -> Done {
        self.before_change(obj)?;
        let oid = self.objects.get(obj).oid;
        let fd = self.fd(obj, Access::Write)?;
        let size = sys::fstat(fd)?.st_size as u64;
        let told = if head.kind == FillKind::Data { bytes.len() as u64 } else { head.len };
        let len = told.min(size.saturating_sub(head.offset));
        if len == 0 {
            return Ok(());
        }
        self.stale_codes(oid, head.offset, head.offset + len);
        match head.kind {
            FillKind::Data => {
                sys::pwrite_all(fd, &bytes[..len as usize], head.offset)?;
                sys::write_soon(fd, head.offset, len);
            }
            _ => self.punch(fd, head.offset, len)?,
        }
        if let Some(value) = privilege {
            self.set_xattr(obj, &Name::attribute(CAPABILITY)?, value)?;
        }
        self.touch_stamp(obj, head.mtime)?;
        self.flush_time(obj)
    }

    /// What lacks and was not brought. Where all was brought, the disk is waited for.
    pub fn wanted(&mut self) -> Done<super::NeedList> {
        let mut list = self.need_list();
        if list.is_empty() && !self.fills.is_empty() {
            self.checkpoint_now()?;
            list = self.need_list();
        }
        Ok(list)
    }

    /// A checkpoint begins that covers all that was brought until now.
    pub(super) fn fills_begin_to_last(&mut self) {
        let fresh = std::mem::take(&mut self.fills.fresh);
        for (oid, brought) in fresh.iter() {
            brought.ranges.iter().for_each(|range| self.fills.lasting.add(*oid, *range, 0));
        }
    }

    /// It has ended.
    pub(super) fn fills_last(&mut self) -> Done {
        let lasting = std::mem::take(&mut self.fills.lasting);
        for (oid, brought) in lasting.iter() {
            for range in &brought.ranges {
                self.need_met(*oid, *range)?;
            }
        }
        Ok(())
    }
}
