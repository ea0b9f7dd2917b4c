//! What the dummy functions keep of what they are about to change, for the history. Called under the
//! effect locks, before the real operation.

use super::errno::{Errno, Res};
use super::handle::CName;
use super::remove::Doomed;
use super::table::{raw, Inode};
use super::volume::{Volume, Worker};
use crate::capture::Reserved;
use crate::history::object::{has_capabilities, has_xattrs, Above, Led};
use crate::history::past::Keeper;
use crate::transport::abi as k;
use crate::transport::abi::SetattrIn;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// A directory, open, a name in it, and what the name leads to.
type Entry<'a, T> = (&'a Arc<Inode>, &'a Arc<OwnedFd>, &'a [u8], T);

/// The directory in which an object is found now.
fn above(inode: &Inode) -> Option<Above> {
    inode.binding.lock().parent.as_ref().map(|parent| itself(parent))
}

fn itself(dir: &Inode) -> Above {
    Above { ino: dir.oid.ino, handle: dir.handle }
}

impl Volume {
    /// Keeps something, if there is a history that wants it.
    fn past(&self, w: &mut Worker, keep: impl FnOnce(&mut Keeper) -> Res<()>) -> Res<()> {
        let Some(history) = self.history.get().filter(|h| !h.rests()) else {
            return Ok(());
        };
        let low = self.ring.captured_seq() + 1;
        // Files that are made for it are the daemon's own.
        let caller = w.creds.identity();
        w.creds.own();
        let kept = keep(&mut Keeper { history, past: &mut w.past, low, exactly: None });
        w.creds.resume(caller);
        kept
    }

    /// What there is finds no room, and has to stay: the change is refused.
    pub(super) fn refused(&self, w: &mut Worker, slot: Option<Reserved>, e: Errno) -> Errno {
        if let Some(slot) = slot {
            w.writer.abort(slot);
        }
        e
    }

    /// Bytes of a file, and its attributes.
    pub(super) fn past_of_range(
        &self,
        w: &mut Worker,
        inode: &Inode,
        fd: &Arc<OwnedFd>,
        range: Option<(u64, u64)>,
    ) -> Res<()> {
        if inode.tmpfile.load(Ordering::Acquire) {
            return Ok(()); // in no tree yet
        }
        self.past(w, |keeper| {
            keeper.attr(inode.oid, raw(fd), || above(inode))?;
            if has_capabilities(fd) {
                keeper.xattrs(inode.oid, fd)?; // they go, whoever writes
            }
            match range {
                Some((from, u64::MAX)) => keeper.range(inode.oid, raw(fd), from, u64::MAX),
                Some((from, to)) => keeper.data(inode.oid, raw(fd), from, to),
                None => Ok(()),
            }
        })
    }

    pub(super) fn past_of_attr(
        &self,
        w: &mut Worker,
        inode: &Inode,
        fd: &Arc<OwnedFd>,
        xattrs: bool,
    ) -> Res<()> {
        if inode.is_gone() || inode.tmpfile.load(Ordering::Acquire) {
            return Ok(());
        }
        self.past(w, |keeper| {
            keeper.attr(inode.oid, raw(fd), || above(inode))?;
            if xattrs {
                keeper.xattrs(inode.oid, fd)?;
            }
            Ok(())
        })
    }

    pub(super) fn past_of_setattr(
        &self,
        w: &mut Worker,
        inode: &Inode,
        fd: &Arc<OwnedFd>,
        arg: &SetattrIn,
    ) -> Res<()> {
        if inode.tmpfile.load(Ordering::Acquire) {
            return Ok(());
        }
        // A mode changes the ACL with it; an owner or a size takes file capabilities away.
        let shapes = k::FATTR_MODE | k::FATTR_UID | k::FATTR_GID | k::FATTR_SIZE;
        self.past(w, |keeper| {
            keeper.attr(inode.oid, raw(fd), || above(inode))?;
            if arg.valid & shapes != 0 && has_xattrs(fd) {
                keeper.xattrs(inode.oid, fd)?;
            }
            if arg.valid & k::FATTR_SIZE != 0 {
                keeper.range(inode.oid, raw(fd), arg.size, u64::MAX)?;
            }
            Ok(())
        })
    }

    /// A name that does not exist yet.
    pub(super) fn past_of_new_name(
        &self,
        w: &mut Worker,
        parent: &Inode,
        dir: &Arc<OwnedFd>,
        name: &[u8],
    ) -> Res<()> {
        self.past(w, |keeper| {
            keeper.attr(parent.oid, raw(dir), || above(parent))?;
            keeper.name(parent.oid, name, None)
        })
    }

    pub(super) fn past_of_removal(
        &self,
        w: &mut Worker,
        parent: &Inode,
        dir: &Arc<OwnedFd>,
        name: &[u8],
        doomed: &Doomed,
    ) -> Res<()> {
        self.past(w, |keeper| {
            keeper.attr(parent.oid, raw(dir), || above(parent))?;
            keeper.name(parent.oid, name, Some(&doomed.led))?;
            lose(keeper, (parent, dir), name, doomed)
        })
    }

    pub(super) fn past_of_rename(
        &self,
        w: &mut Worker,
        (old_parent, old_dir, old_name, led): Entry<&Led>,
        (new_parent, new_dir, new_name, replaced): Entry<Option<&Doomed>>,
        exchange: bool,
    ) -> Res<()> {
        self.past(w, |keeper| {
            keeper.attr(old_parent.oid, raw(old_dir), || above(old_parent))?;
            keeper.attr(new_parent.oid, raw(new_dir), || above(new_parent))?;
            keeper.name(old_parent.oid, old_name, Some(led))?;
            keeper.name(new_parent.oid, new_name, replaced.map(|d| &d.led))?;
            let c_name = CName::new(old_name)?;
            keeper.attr_at(led.oid, raw(old_dir), c_name.as_c(), itself(old_parent))?;
            match replaced {
                Some(doomed) if exchange => {
                    let c_name = CName::new(new_name)?;
                    keeper.attr_at(doomed.oid, raw(new_dir), c_name.as_c(), itself(new_parent))
                }
                Some(doomed) => lose(keeper, (new_parent, new_dir), new_name, doomed),
                None => Ok(()),
            }
        })
    }
}

/// An object loses a name; with the last one everything goes.
fn lose(
    keeper: &mut Keeper,
    (parent, dir): (&Inode, &Arc<OwnedFd>),
    name: &[u8],
    doomed: &Doomed,
) -> Res<()> {
    let c_name = CName::new(name)?;
    keeper.attr_at(doomed.oid, raw(dir), c_name.as_c(), itself(parent))?;
    match doomed.links_left() {
        0 => keeper.all_but_attr(doomed.oid, raw(dir), c_name.as_c(), doomed.led.kind),
        _ => Ok(()),
    }
}
