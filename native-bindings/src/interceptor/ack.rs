//! Which requests wait for replicas, and for which of them.
//!
//! A request waits after its effect, when it holds no lock, is not inside the gate and its thread has
//! given back its part of the ring; only the caller waits. Stores to mappings never do: that would
//! block the next store to the page. A request whose paths nobody may change now, for want of a
//! replica, is refused before its effect.
//!
//! Where an object is, its bindings in the table say; one of which that is not known, or that has
//! several names, waits for all classes.

use super::errno::{Errno, Res};
use super::table::Inode;
use super::volume::{Volume, Worker};
use crate::capture::acks::point;
use crate::transport::abi::{self as k, CopyFileRangeIn, LinkIn, Rename2In, RenameIn, WriteIn};
use crate::transport::device::{invalidate_entry, invalidate_inode};
use crate::transport::reply::Reply;
use crate::transport::request::{read_pod, Request};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Directories between the root and an object; deeper, its path is taken as not known.
const DEPTH_MAX: usize = 4096;
/// How long after a failed reply the kernel is told to forget what it believes: it is done with it then.
const FORGET_AFTER: Duration = Duration::from_millis(20);

/// An object, or a name in a directory.
struct Place {
    inode: Arc<Inode>,
    name: Option<Box<[u8]>>,
}

/// What a request touches; `None`: nobody knows.
type Places = Option<Vec<Place>>;

/// At which points a request may have to wait.
fn points_of(r: &Request) -> u32 {
    match r.header.opcode {
        k::FSYNC | k::FSYNCDIR | k::SYNCFS => point::FSYNC,
        k::FLUSH => point::CLOSE,
        k::RENAME | k::RENAME2 => point::RENAME | point::EVERY_OP | point::OWN,
        k::WRITE => match read_pod::<WriteIn>(r.fixed) {
            Ok(arg) if arg.write_flags & k::WRITE_CACHE != 0 => 0,
            Ok(arg) if arg.flags as i32 & libc::O_DSYNC != 0 => {
                point::FSYNC | point::EVERY_OP | point::OWN
            }
            _ => point::EVERY_OP | point::OWN,
        },
        k::SETATTR
        | k::SYMLINK
        | k::MKNOD
        | k::MKDIR
        | k::TMPFILE
        | k::LINK
        | k::UNLINK
        | k::RMDIR
        | k::FALLOCATE
        | k::COPY_FILE_RANGE
        | k::SETXATTR
        | k::REMOVEXATTR => point::EVERY_OP | point::OWN,
        k::IOCTL => point::EVERY_OP | point::HELD,
        _ => 0,
    }
}

impl Volume {
    /// Whether a request may have to wait for replicas.
    pub fn waits_for_replicas(&self, r: &Request) -> bool {
        let points = self.acks.points();
        points != 0 && points & points_of(r) != 0
    }

    /// Answers a request; its reply waits until replicas have what it did, as far as that is wanted.
    pub(super) fn acknowledged(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let mut points = self.acks.points();
        if points == 0 {
            return self.dispatch(w, r);
        }
        points &= points_of(r);
        // One that was taken for one that need not wait, just before, was under way already.
        if points & point::HELD != 0 && w.may_wait {
            self.acks.wait_while_held();
        }
        if points & point::SLOW != 0 {
            self.acks.ease();
        }
        if points & !point::OWN == 0 {
            return self.dispatch(w, r);
        }
        let places = self.places(r)?;
        let changes = points & (point::EVERY_OP | point::RENAME) != 0;
        if changes && self.acks.refuses(self.classes_of(&places)) {
            return Err(Errno(libc::EIO));
        }
        // Everything the caller of an fsync was told of has a seq already.
        let captured = self.ring.captured_seq();
        w.writer.last_seq = 0;
        let begun = Instant::now();
        let reply = self.dispatch(w, r)?;
        w.writer.rest();
        let seq = match r.header.opcode {
            k::FSYNC | k::FSYNCDIR if self.inode(r.header.nodeid).is_gone() => 0,
            k::FSYNC | k::FSYNCDIR | k::SYNCFS => captured,
            k::FLUSH => self.inode(r.header.nodeid).changed.load(Ordering::Acquire),
            _ => w.writer.last_seq,
        };
        if seq == 0 {
            return Ok(reply);
        }
        self.ring.want_ship(seq);
        let waited = self.acks.wait(seq, || self.classes_of(&places));
        if points & point::FSYNC != 0 {
            let ns = begun.elapsed().as_nanos() as u64;
            self.counters.last_fsync_ns.store(ns, Ordering::Relaxed);
        }
        if let Err(e) = waited {
            self.disown(w, r, &places);
            return Err(Errno(e));
        }
        Ok(reply)
    }

    /// What a request is about.
    fn places(&self, r: &Request) -> Res<Places> {
        if r.header.opcode == k::SYNCFS {
            return Ok(None);
        }
        let place = |nodeid, name: Option<&[u8]>| Place {
            inode: self.inode(nodeid),
            name: name.map(Into::into),
        };
        let here = r.header.nodeid;
        Ok(Some(match r.header.opcode {
            k::RENAME | k::RENAME2 => {
                let newdir = match r.header.opcode {
                    k::RENAME => r.arg::<RenameIn>()?.newdir,
                    _ => r.arg::<Rename2In>()?.newdir,
                };
                let (old, new) = r.two_names()?;
                vec![place(here, Some(old)), place(newdir, Some(new))]
            }
            k::LINK => {
                let old = r.arg::<LinkIn>()?.oldnodeid;
                vec![place(here, Some(r.name()?)), place(old, None)]
            }
            k::SYMLINK => vec![place(here, Some(r.two_names()?.0))],
            k::MKNOD | k::MKDIR | k::UNLINK | k::RMDIR => vec![place(here, Some(r.name()?))],
            k::COPY_FILE_RANGE => vec![place(r.arg::<CopyFileRangeIn>()?.nodeid_out, None)],
            _ => vec![place(here, None)],
        }))
    }

    /// Bits of the classes that have to do with these places.
    fn classes_of(&self, places: &Places) -> u32 {
        if self.acks.is_uniform() {
            return 1;
        }
        let Some(places) = places else {
            return self.acks.all_classes();
        };
        places.iter().fold(0, |bits, place| {
            bits | match self.path_of(place) {
                Some(path) => self.acks.class_of(&path),
                None => self.acks.all_classes(),
            }
        })
    }

    /// A path below the root, as rules are written; `None` when it has several, or is not known.
    fn path_of(&self, place: &Place) -> Option<Vec<u8>> {
        if place.name.is_none() && !place.inode.is_dir() {
            // Names of which nobody thinks now may be of a stricter class.
            let st = self.stat(&place.inode).ok()?;
            if st.stx_nlink > 1 {
                return None;
            }
        }
        let mut names: Vec<Box<[u8]>> = place.name.iter().cloned().collect();
        let mut inode = place.inode.clone();
        while !Arc::ptr_eq(&inode, &self.root) {
            let parent = {
                let binding = inode.binding.lock();
                names.push(binding.name.clone());
                binding.parent.clone()?
            };
            inode = parent;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        Some(names.iter().rev().flat_map(|name| [b"/".as_slice(), name].concat()).collect())
    }

    /// A request fails although it had its effect: what the kernel believes of it is wrong, and has to be
    /// forgotten, but only when it has let go of it.
    fn disown(&self, w: &mut Worker, r: &Request, places: &Places) {
        if matches!(r.header.opcode, k::MKNOD | k::MKDIR | k::SYMLINK | k::LINK | k::TMPFILE) {
            // The reply that counted a lookup is not sent.
            if let Ok(made) = read_pod::<k::EntryOut>(w.out.bytes()) {
                self.table.forget(&self.table.get(made.nodeid), 1);
            }
        }
        if matches!(r.header.opcode, k::FSYNC | k::FSYNCDIR | k::SYNCFS | k::FLUSH) {
            return;
        }
        let Some(fd) = self.notifier.lock().as_ref().and_then(|fd| fd.try_clone().ok()) else {
            return;
        };
        let places = places.iter().flatten();
        let stale: Vec<_> = places.map(|p| (self.nodeid(&p.inode), p.name.clone())).collect();
        std::thread::spawn(move || {
            std::thread::sleep(FORGET_AFTER);
            for (nodeid, name) in stale {
                // The kernel may have forgotten it already.
                if let Some(name) = name {
                    let _ = invalidate_entry(fd.as_raw_fd(), nodeid, &name);
                }
                let _ = invalidate_inode(fd.as_raw_fd(), nodeid);
            }
        });
    }
}
