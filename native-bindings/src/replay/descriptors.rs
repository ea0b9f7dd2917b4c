//! Open descriptors of replayed objects: a bounded cache with second chance.
//!
//! A descriptor that the current record has asked for is never closed under it. The cache knows
//! slots; `engine` keeps the object's slot number and the cache in step.

use super::limits::DESCRIPTORS_MAX;
use super::objects::Obj;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

struct Slot {
    fd: OwnedFd,
    owner: Obj,
    writable: bool,
    used: bool,
    /// The record that asked for it last.
    turn: u64,
}

/// The cache.
pub struct Descriptors {
    slots: Vec<Option<Slot>>,
    unused: Vec<u16>,
    hand: usize,
    turn: u64,
    max: usize,
}

impl Descriptors {
    pub fn new() -> Self {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: limit is a valid out-pointer.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
        // Half of what the process may have, so that everything else has room.
        let max = DESCRIPTORS_MAX.min((limit.rlim_cur / 2) as usize).max(32);
        Self { slots: Vec::new(), unused: Vec::new(), hand: 0, turn: 1, max }
    }

    /// A new record begins: descriptors handed out before may be closed from now on.
    pub fn next_turn(&mut self) {
        self.turn += 1;
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.unused.len()
    }

    /// The descriptor in a slot and whether it allows writing.
    pub fn get(&mut self, slot: u16) -> Option<(RawFd, bool)> {
        let s = self.slots.get_mut(slot as usize)?.as_mut()?;
        s.used = true;
        s.turn = self.turn;
        Some((s.fd.as_raw_fd(), s.writable))
    }

    /// Who must give up its slot before another descriptor may be kept; `None` while there is room.
    pub fn victim(&mut self) -> Option<Obj> {
        if self.len() < self.max {
            return None;
        }
        for _ in 0..self.slots.len() * 2 {
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(s) = self.slots[self.hand].as_mut() else {
                continue;
            };
            if s.turn == self.turn {
                continue;
            }
            if !std::mem::replace(&mut s.used, false) {
                return Some(s.owner);
            }
        }
        None
    }

    pub fn keep(&mut self, fd: OwnedFd, owner: Obj, writable: bool) -> u16 {
        let slot = Some(Slot { fd, owner, writable, used: true, turn: self.turn });
        match self.unused.pop() {
            Some(i) => {
                self.slots[i as usize] = slot;
                i
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u16
            }
        }
    }

    pub fn close(&mut self, slot: u16) {
        if let Some(s) = self.slots.get_mut(slot as usize) {
            if s.take().is_some() {
                self.unused.push(slot);
            }
        }
    }
}
