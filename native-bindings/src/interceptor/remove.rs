//! Removals: UNLINK and RMDIR, and what happens to an object that loses its last name.

use super::attr::{mtime, stat_at, stat_fd};
use super::errno::{check, Res};
use super::handle::{CName, FileHandle};
use super::table::{raw, Access, EffectLocks, Inode};
use super::volume::{Volume, Worker};
use crate::history::object::Led;
use crate::record::{Encoder, Header, Oid, Op, Time, RECORD_HEADER};
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// The object behind a name that is about to go.
pub(super) struct Doomed {
    pub oid: Oid,
    pub inode: Option<Arc<Inode>>,
    /// Names it has now.
    links: u32,
    pub is_dir: bool,
    pub led: Led,
}

impl Doomed {
    /// Names it will have when this one is gone.
    pub fn links_left(&self) -> u32 {
        if self.is_dir {
            0
        } else {
            self.links.saturating_sub(1)
        }
    }
}

impl Volume {
    /// Looks at the object behind a name. If the kernel uses it and this is its last name, a descriptor
    /// keeps it reachable.
    pub(super) fn doom(&self, dir: i32, name: &CName) -> Res<Doomed> {
        let st = stat_at(dir, name.as_c())?;
        let handle = FileHandle::of(dir, name.as_c())?;
        let oid = handle.oid(st.stx_ino);
        let inode = self.table.find(oid);
        let kind = u32::from(st.stx_mode) & libc::S_IFMT;
        let led = Led { oid, handle, kind };
        let is_dir = kind == libc::S_IFDIR;
        let doomed = Doomed { oid, inode, links: st.stx_nlink, is_dir, led };
        if let Some(inode) = &doomed.inode {
            if doomed.links_left() == 0 {
                self.table.pin(inode);
                if !inode.has_descriptor() {
                    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
                    // SAFETY: a valid string; the result is checked.
                    let fd = check(unsafe { libc::openat(dir, name.as_ptr(), flags) })?;
                    // SAFETY: a fresh descriptor that nobody else owns.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    self.table.keep(inode, fd, Access::Path);
                }
            }
        }
        Ok(doomed)
    }

    /// The name is gone; the caller holds the object's binding lock if it has an inode.
    pub(super) fn doomed(
        &self,
        doomed: &Doomed,
        binding: Option<&mut super::table::Binding>,
        parent: &Arc<Inode>,
        name: &[u8],
    ) {
        let (Some(inode), Some(binding)) = (&doomed.inode, binding) else {
            return;
        };
        if doomed.links_left() == 0 {
            inode.unlinked.store(true, Ordering::Release);
        }
        let here = binding.parent.as_ref().is_some_and(|p| Arc::ptr_eq(p, parent));
        if here && *binding.name == *name {
            self.table.rebind(binding, None, b"");
        }
        self.set_bound(inode);
    }

    /// The name stays: undoes `doom`.
    pub(super) fn spared(&self, doomed: &Doomed) {
        if let Some(inode) = &doomed.inode {
            if !inode.unlinked.load(Ordering::Acquire) && !inode.tmpfile.load(Ordering::Acquire) {
                self.table.unpin(inode);
            }
        }
    }

    pub(super) fn op_unlink(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        self.remove(w, r, Op::Unlink, 0)
    }

    pub(super) fn op_rmdir(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        self.remove(w, r, Op::Rmdir, libc::AT_REMOVEDIR)
    }

    fn remove(&self, w: &mut Worker, r: &Request, op: Op, flags: i32) -> Res<Reply> {
        let bytes = r.name()?;
        let name = CName::new(bytes)?;
        let parent = self.inode(r.header.nodeid);
        let dir = self.dir_fd(&parent)?;
        let _inside = self.gate.enter();
        let doomed = self.doom(raw(&dir), &name)?;
        let header = w.header(&r.header, op, doomed.oid);
        let left = doomed.links_left();
        let encode = |buf: &mut [u8], pmtime: Time| {
            let mut e = Encoder::new(buf, &Header { ..header });
            e.oid(parent.oid).time(pmtime).u32(left).name(bytes);
            e.finish()
        };
        let len = RECORD_HEADER + 40 + bytes.len() + 8;
        let objects = [Some(&parent), None];
        let slot = self.reserve(w, len, objects, |buf| encode(buf, Time::UNKNOWN))?;
        w.creds.assume(r.header.uid, r.header.gid, false);
        let locks = EffectLocks::new([Some(&parent), doomed.inode.as_ref(), None, None]);
        if let Err(e) = self.past_of_removal(w, &parent, &dir, bytes, &doomed) {
            self.spared(&doomed);
            return Err(self.refused(w, Some(slot), e));
        }
        // SAFETY: a valid string.
        if let Err(e) = check(unsafe { libc::unlinkat(raw(&dir), name.as_ptr(), flags) }) {
            w.writer.abort(slot);
            self.spared(&doomed);
            return Err(e);
        }
        self.absent.note(parent.oid, bytes);
        self.bind(w, &parent);
        let pst = stat_fd(raw(&dir))?;
        {
            let mut binding = doomed.inode.as_ref().map(|i| i.binding.lock());
            self.doomed(&doomed, binding.as_deref_mut(), &parent, bytes);
            self.publish(w, slot, |buf| encode(buf, mtime(&pst)));
        }
        drop(locks);
        self.saw(&parent, &pst);
        Ok(Reply::Done)
    }
}
