//! RENAME and RENAME2: plain, NOREPLACE, EXCHANGE, WHITEOUT.

use super::attr::{mtime, stat_at, stat_fd};
use super::errno::{check, Errno, Res};
use super::handle::{CName, FileHandle};
use super::remove::Doomed;
use super::table::{raw, EffectLocks, Inode};
use super::volume::{Volume, Worker};
use crate::history::object::Led;
use crate::record::{valid, Encoder, Oid, Op, Time, RECORD_HEADER};
use crate::transport::abi::{InHeader, Rename2In, RenameIn};
use crate::transport::reply::Reply;
use crate::transport::request::Request;
use std::sync::Arc;

impl Volume {
    pub(super) fn op_rename(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: RenameIn = r.arg()?;
        self.rename(w, r, arg.newdir, 0)
    }

    pub(super) fn op_rename2(&self, w: &mut Worker, r: &Request) -> Res<Reply> {
        let arg: Rename2In = r.arg()?;
        self.rename(w, r, arg.newdir, arg.flags)
    }

    fn rename(&self, w: &mut Worker, r: &Request, newdir: u64, flags: u32) -> Res<Reply> {
        let (old_bytes, new_bytes) = r.two_names()?;
        let (old_name, new_name) = (CName::new(old_bytes)?, CName::new(new_bytes)?);
        let old_parent = self.inode(r.header.nodeid);
        let new_parent = self.inode(newdir);
        let old_dir = self.dir_fd(&old_parent)?;
        let new_dir = self.dir_fd(&new_parent)?;
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let _inside = self.gate.enter();

        let st = stat_at(raw(&old_dir), old_name.as_c())?;
        let handle = FileHandle::of(raw(&old_dir), old_name.as_c())?;
        let oid = handle.oid(st.stx_ino);
        let led = Led { oid, handle, kind: u32::from(st.stx_mode) & libc::S_IFMT };
        let moved = self.table.find(oid);
        let replaced = match self.target(raw(&new_dir), &new_name, exchange) {
            Ok(doomed) => Some(doomed),
            Err(Errno(libc::ENOENT)) => None,
            Err(e) => return Err(e),
        };
        // Two names of one object: rename(2) does nothing and says success.
        if replaced.as_ref().is_some_and(|d| d.oid == oid) {
            if let Some(d) = &replaced {
                self.spared(d);
            }
            return Ok(Reply::Done);
        }
        let replaced_oid = replaced.as_ref().map_or(Oid::NONE, |d| d.oid);
        let links_left = match &replaced {
            Some(d) if !exchange => d.links_left(),
            _ => 0,
        };

        let mut header = w.header(&r.header, Op::Rename, oid);
        header.mode = u32::from(st.stx_mode);
        let encode = |buf: &mut [u8], old_pmtime: Time, new_pmtime: Time| {
            let mut e = Encoder::new(buf, &header);
            e.oid(old_parent.oid).time(old_pmtime).oid(new_parent.oid).time(new_pmtime).u32(flags);
            e.oid(replaced_oid).u32(links_left).name(old_bytes).name(new_bytes);
            e.finish()
        };
        let len = RECORD_HEADER + 96 + old_bytes.len() + new_bytes.len() + 8;
        // If this is interrupted, a directory can only be found again by a reader that knows it.
        let others = replaced.as_ref().and_then(|d| d.inode.as_ref());
        for inode in moved.iter().chain(others) {
            self.bind(w, inode);
        }
        let objects = [Some(&old_parent), Some(&new_parent)];
        let unknown = Time::UNKNOWN;
        let slot = self.reserve(w, len, objects, |buf| encode(buf, unknown, unknown))?;
        w.creds.assume(r.header.uid, r.header.gid, false);
        let other = replaced.as_ref().and_then(|d| d.inode.as_ref());
        let locks = EffectLocks::new([Some(&old_parent), Some(&new_parent), moved.as_ref(), other]);
        let kept = self.past_of_rename(
            w,
            (&old_parent, &old_dir, old_bytes, &led),
            (&new_parent, &new_dir, new_bytes, replaced.as_ref()),
            exchange,
        );
        if let Err(e) = kept {
            if let Some(d) = &replaced {
                self.spared(d);
            }
            return Err(self.refused(w, Some(slot), e));
        }
        self.scan.note_entry(&new_parent);
        if exchange {
            self.scan.note_entry(&old_parent);
        }
        // SAFETY: valid strings.
        let done = check(unsafe {
            let (from, to) = (old_name.as_ptr(), new_name.as_ptr());
            libc::syscall(libc::SYS_renameat2, raw(&old_dir), from, raw(&new_dir), to, flags) as i32
        });
        if let Err(e) = done {
            w.writer.abort(slot);
            if let Some(d) = &replaced {
                self.spared(d);
            }
            return Err(e);
        }
        self.absent.forget(new_parent.oid, new_bytes);
        if !exchange && flags & libc::RENAME_WHITEOUT == 0 {
            self.absent.note(old_parent.oid, old_bytes);
        }
        self.bind(w, &old_parent);
        self.bind(w, &new_parent);
        let old_pst = stat_fd(raw(&old_dir))?;
        let new_pst = stat_fd(raw(&new_dir))?;
        {
            // Two binding locks, in address order.
            let mut first =
                moved.as_ref().filter(|m| other.is_none_or(|o| m.nodeid() < o.nodeid()));
            let early = first.take().map(|m| m.binding.lock());
            let mut other_binding = other.map(|o| o.binding.lock());
            let mut moved_binding = match early {
                Some(b) => Some(b),
                None => moved.as_ref().map(|m| m.binding.lock()),
            };
            if let (Some(m), Some(b)) = (&moved, moved_binding.as_deref_mut()) {
                self.table.rebind(b, Some(&new_parent), new_bytes);
                self.set_bound(m);
            }
            match (&replaced, exchange) {
                (Some(d), true) => {
                    if let (Some(o), Some(b)) = (&d.inode, other_binding.as_deref_mut()) {
                        self.table.rebind(b, Some(&old_parent), old_bytes);
                        self.set_bound(o);
                    }
                }
                (Some(d), false) => {
                    self.doomed(d, other_binding.as_deref_mut(), &new_parent, new_bytes);
                }
                (None, _) => {}
            }
            self.publish(w, slot, |buf| encode(buf, mtime(&old_pst), mtime(&new_pst)));
        }
        // A whiteout is a new object with an mtime; XFS changes that of a directory whose parent changes.
        let moves = !Arc::ptr_eq(&old_parent, &new_parent);
        let exchanged_dir = exchange && moves && replaced.as_ref().is_some_and(|d| d.is_dir);
        if flags & libc::RENAME_WHITEOUT != 0 || exchanged_dir {
            self.capture_mtime(w, &r.header, &old_parent, raw(&old_dir), old_bytes)?;
        }
        if moves && header.mode & libc::S_IFMT == libc::S_IFDIR {
            self.capture_mtime(w, &r.header, &new_parent, raw(&new_dir), new_bytes)?;
        }
        drop(locks);
        self.saw(&old_parent, &old_pst);
        self.saw(&new_parent, &new_pst);
        if let Some(m) = &moved {
            // A rename changes the object's ctime too.
            if !self.options.exclusive {
                if let Ok(st) = stat_at(raw(&new_dir), new_name.as_c()) {
                    self.saw(m, &st);
                }
            }
        }
        Ok(Reply::Done)
    }

    /// Says by what name an object is found and what its mtime is: for what a rename does besides moving
    /// names.
    fn capture_mtime(
        &self,
        w: &mut Worker,
        caller: &InHeader,
        parent: &Inode,
        dir: i32,
        name: &[u8],
    ) -> Res<()> {
        let c_name = CName::new(name)?;
        let st = stat_at(dir, c_name.as_c())?;
        let oid = FileHandle::of(dir, c_name.as_c())?.oid(st.stx_ino);
        let wait = self.options.ring_wait;
        let bind = w.header(caller, Op::Bind, oid);
        w.writer.append(RECORD_HEADER + 32 + name.len(), wait, |buf| {
            let mut e = Encoder::new(buf, &bind);
            e.oid(parent.oid).name(name);
            e.finish()
        });
        let mut set = w.header(caller, Op::Setattr, oid);
        set.time = mtime(&st);
        w.writer.append(RECORD_HEADER + 64, wait, |buf| {
            let mut e = Encoder::new(buf, &set);
            e.u32(valid::MTIME).u32(0).u32(0).u32(0).u64(0).time(mtime(&st)).time(mtime(&st));
            e.finish()
        });
        Ok(())
    }

    /// The object that has the new name now.
    fn target(&self, dir: i32, name: &CName, exchange: bool) -> Res<Doomed> {
        let doomed = self.doom(dir, name)?;
        if exchange {
            self.spared(&doomed);
        }
        Ok(doomed)
    }
}
