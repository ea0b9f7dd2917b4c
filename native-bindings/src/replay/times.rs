//! Deferred mtimes: every effect at the target changes times; the recorded ones are written once
//! per frame instead of once per record.
//!
//! Why nothing is lost when the process dies: the position advances only after the times of its
//! frame are written, so the frame comes again, and the times of its records are collected again
//! while their effects are skipped.

use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::limits::PENDING_TIMES_MAX;
use super::objects::{Obj, NO_PENDING};
use super::sys::{self, Stamp};
use crate::record::Time;

/// Times to be written.
#[derive(Default)]
pub struct PendingTimes {
    list: Vec<(Obj, Stamp)>,
}

impl Engine {
    /// The object's mtime is to be this one, in the end.
    pub(super) fn touch(&mut self, obj: Obj, time: Time) -> Done {
        if !time.is_known() {
            return Ok(());
        }
        self.touch_stamp(obj, (time.sec, time.nsec))
    }

    pub(super) fn touch_stamp(&mut self, obj: Obj, stamp: Stamp) -> Done {
        let at = self.objects.get(obj).pending;
        if at != NO_PENDING {
            self.times.list[at as usize].1 = stamp;
            return Ok(());
        }
        if self.times.list.len() >= PENDING_TIMES_MAX {
            self.flush_times()?;
        }
        self.objects.get_mut(obj).pending = self.times.list.len() as u32;
        self.times.list.push((obj, stamp));
        Ok(())
    }

    pub(super) fn pending_time(&self, obj: Obj) -> Option<Stamp> {
        let at = self.objects.get(obj).pending;
        self.times.list.get(at as usize).map(|(_, stamp)| *stamp)
    }

    /// The object is gone or its time was written otherwise.
    pub(super) fn drop_pending(&mut self, obj: Obj) {
        let at = self.objects.get(obj).pending;
        if at == NO_PENDING {
            return;
        }
        self.objects.get_mut(obj).pending = NO_PENDING;
        self.times.list.swap_remove(at as usize);
        if let Some((moved, _)) = self.times.list.get(at as usize) {
            self.objects.get_mut(*moved).pending = at;
        }
    }

    /// Writes one object's time now, through `fd`.
    pub(super) fn flush_time_through(&mut self, obj: Obj, fd: i32) -> Done {
        let Some(stamp) = self.pending_time(obj) else {
            return Ok(());
        };
        match sys::utimens_fd(fd, None, Some(stamp)) {
            Err(e) if e.is(libc::EPERM) => {
                self.unsealed(&[obj], |_| sys::utimens_fd(fd, None, Some(stamp)))?;
            }
            r => r?,
        }
        self.drop_pending(obj);
        Ok(())
    }

    pub(super) fn flush_time(&mut self, obj: Obj) -> Done {
        if self.objects.get(obj).pending == NO_PENDING {
            return Ok(());
        }
        match self.fd(obj, Access::Any) {
            Ok(fd) => self.flush_time_through(obj, fd),
            Err(Fault::Stale) if self.forgives_unknown() => {
                self.drop_pending(obj);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Writes all deferred times.
    pub(super) fn flush_times(&mut self) -> Done {
        while let Some((obj, _)) = self.times.list.last().copied() {
            self.fds.next_turn();
            self.flush_time(obj)?;
        }
        Ok(())
    }
}
