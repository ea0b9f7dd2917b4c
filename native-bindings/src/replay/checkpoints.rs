//! Checkpoints: positions whose effects are all on the disk, and what must not change between two.
//!
//! After a power loss records are applied again from the last checkpoint, to a target that may hold
//! later effects already. That comes to the same end as long as a record's effect depends on nothing
//! but itself. Two do: a COPY reads its source, a creation inherits from its directory. Such objects
//! are watched; before they change, a checkpoint is made, so that the dependent record is not among
//! those that are applied again. And an object of the base is found by a name only once: before it
//! loses one, the map's file must be on the disk.

use super::engine::Engine;
use super::error::Done;
use super::limits::WATCHED_MAX;
use super::objects::{Obj, FOUND_BY_NAME, WATCHED, WATCHED_BEFORE};
use crate::record::Oid;
use std::time::Instant;

/// Objects on whose state records since the last checkpoint depend.
#[derive(Default)]
pub struct Watched {
    now: Vec<(Obj, Oid)>,
    /// Those that the running checkpoint covers.
    before: Vec<(Obj, Oid)>,
    /// Objects that the map's file on the disk does not have.
    found: Vec<(Obj, Oid)>,
}

impl Engine {
    /// The record being applied depends on what this object is now.
    pub(super) fn watch(&mut self, obj: Obj) -> Done {
        let object = self.objects.get_mut(obj);
        if object.flags & WATCHED != 0 {
            return Ok(());
        }
        object.flags |= WATCHED;
        self.watched.now.push((obj, object.oid));
        if self.watched.now.len() >= WATCHED_MAX {
            self.checkpoint_now()?;
        }
        Ok(())
    }

    /// Before a change of what records may depend on.
    pub(super) fn before_change(&mut self, obj: Obj) -> Done {
        if self.objects.get(obj).flags & (WATCHED | WATCHED_BEFORE) != 0 {
            self.checkpoint_now()?;
        }
        Ok(())
    }

    /// A name of the base has told which object this is.
    pub(super) fn found_by_name(&mut self, obj: Obj) {
        let object = self.objects.get_mut(obj);
        if object.flags & FOUND_BY_NAME == 0 {
            object.flags |= FOUND_BY_NAME;
            self.watched.found.push((obj, object.oid));
        }
    }

    /// Before the object loses a name.
    pub(super) fn before_unnaming(&mut self, obj: Obj) -> Done {
        if self.objects.get(obj).flags & FOUND_BY_NAME != 0 {
            self.state.sync_map()?;
            let list = std::mem::take(&mut self.watched.found);
            self.unwatch(&list, FOUND_BY_NAME);
        }
        Ok(())
    }

    fn unwatch(&mut self, list: &[(Obj, Oid)], flags: u8) {
        for (obj, oid) in list {
            // The place in the map may be another object's by now.
            if self.objects.find(*oid) == Some(*obj) {
                self.objects.get_mut(*obj).flags &= !flags;
            }
        }
    }

    fn begun(&mut self) {
        self.last_checkpoint = Instant::now();
        self.since_checkpoint = (0, 0);
    }

    /// Makes all effects so far durable.
    pub(super) fn checkpoint_now(&mut self) -> Done {
        self.state.checkpoint_now()?;
        let all = std::mem::take(&mut self.watched);
        self.unwatch(&all.now, WATCHED | WATCHED_BEFORE);
        self.unwatch(&all.before, WATCHED | WATCHED_BEFORE);
        self.unwatch(&all.found, FOUND_BY_NAME);
        self.begun();
        self.fills_begin_to_last();
        self.fills_last()
    }

    /// Starts a checkpoint in the background; `end_checkpoint` takes note of its end.
    pub(super) fn start_checkpoint(&mut self) -> Done {
        if self.state.checkpoint_runs() {
            return Ok(());
        }
        self.state.start_checkpoint()?;
        let list = std::mem::take(&mut self.watched.now);
        for (obj, oid) in &list {
            if self.objects.find(*oid) == Some(*obj) {
                let flags = &mut self.objects.get_mut(*obj).flags;
                *flags = *flags & !WATCHED | WATCHED_BEFORE;
            }
        }
        self.watched.before = list;
        self.fills_begin_to_last();
        self.begun();
        Ok(())
    }

    pub(super) fn end_checkpoint(&mut self, wait: bool) -> Done {
        if self.state.end_checkpoint(wait)? {
            let list = std::mem::take(&mut self.watched.before);
            self.unwatch(&list, WATCHED_BEFORE);
            self.fills_last()?;
        }
        Ok(())
    }
}
