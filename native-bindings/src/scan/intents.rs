//! Recovery of intents: operations of which nobody knows whether they happened.
//!
//! Their objects are captured as they are now. Every object that an intent names was bound before.

use super::image::{bracket, entry, image_entry, image_object};
use super::KIND_INTENTS;
use crate::capture::recover::Intent;
use crate::interceptor::attr::{mtime, stat_fd};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::handle::FileHandle;
use crate::interceptor::table::{raw, Inode};
use crate::interceptor::{Volume, Worker};
use crate::record::{Fields, Op, RecordView};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Captures what the intents may have changed. The calling thread becomes a capturing one.
pub fn recover_intents(v: &Volume, w: &mut Worker, intents: &[Intent]) -> Res<()> {
    if intents.is_empty() {
        return Ok(());
    }
    bracket(v, w, Op::ScanBegin, KIND_INTENTS)?;
    for intent in intents {
        match recover(v, w, intent) {
            // Gone meanwhile: its removal is a record of its own.
            Ok(()) | Err(Errno(libc::ESTALE | libc::ENOENT | libc::ENOTDIR)) => {}
            Err(e) => return Err(e),
        }
    }
    bracket(v, w, Op::ScanEnd, KIND_INTENTS)
}

fn recover(v: &Volume, w: &mut Worker, intent: &Intent) -> Res<()> {
    let Ok(record) = RecordView::parse(&intent.record) else {
        return Err(Errno(libc::EUCLEAN));
    };
    let Ok(fields) = record.decode() else {
        return Err(Errno(libc::EUCLEAN));
    };
    // Held until the images are written: binding needs the objects known.
    let first = known(v, intent, 0)?;
    let second = known(v, intent, 1)?;
    match fields {
        Fields::Mknod(c) | Fields::Mkdir(c) | Fields::Symlink(c) => {
            recapture_name(v, w, first.as_ref(), c.name)
        }
        Fields::Unlink { name, .. } | Fields::Rmdir { name, .. } => {
            recapture_name(v, w, first.as_ref(), name)
        }
        Fields::Link { name, .. } => {
            image(v, w, first.as_ref(), None)?;
            recapture_name(v, w, second.as_ref(), name)
        }
        Fields::Rename { old_name, new_name, .. } => {
            // The new name first: an object that moved must not look as if it were gone.
            recapture_name(v, w, second.as_ref(), new_name)?;
            recapture_name(v, w, first.as_ref(), old_name)
        }
        Fields::Write { offset } => {
            let end = offset + record.payload().len() as u64;
            image(v, w, first.as_ref(), Some((offset, end)))
        }
        Fields::Copy { offset, len, .. } => {
            image(v, w, first.as_ref(), Some((offset, offset + len)))
        }
        // Ranges move (collapse, insert) or become zero: the whole file is captured.
        Fields::Fallocate { .. } => image(v, w, first.as_ref(), Some((0, u64::MAX))),
        Fields::Setattr { .. } => image(v, w, first.as_ref(), None),
        Fields::Tmpfile { .. } => Ok(()), // it went with the process that held it
        _ => image(v, w, first.as_ref(), None),
    }
}

/// The inode of the intent's object, or `None` when it does not exist any more.
fn known(v: &Volume, intent: &Intent, which: usize) -> Res<Option<Arc<Inode>>> {
    let Some(handle) = FileHandle::from_stored(&intent.handles[which]) else {
        return Ok(None);
    };
    let fd = match handle.open(v.mount_fd(), libc::O_PATH | libc::O_NOFOLLOW) {
        Ok(fd) => fd,
        Err(Errno(libc::ESTALE | libc::ENOENT)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let st = stat_fd(fd.as_raw_fd())?;
    if st.stx_nlink == 0 {
        return Ok(None);
    }
    let kind = u32::from(st.stx_mode) & libc::S_IFMT;
    Ok(Some(v.table.enter(handle.oid(st.stx_ino), handle, kind, 0)))
}

fn image(
    v: &Volume,
    w: &mut Worker,
    inode: Option<&Arc<Inode>>,
    data: Option<(u64, u64)>,
) -> Res<()> {
    match inode {
        Some(inode) => image_object(v, w, inode, data),
        None => Ok(()),
    }
}

/// Captures one name of a directory, its object, and the directory itself.
pub(super) fn recapture_name(
    v: &Volume,
    w: &mut Worker,
    parent: Option<&Arc<Inode>>,
    name: &[u8],
) -> Res<()> {
    let Some(parent) = parent else { return Ok(()) };
    let dir = v.dir_fd(parent)?;
    v.bind(w, parent);
    let found = {
        let _lock = parent.effect.lock();
        let found = match entry(v, raw(&dir), name) {
            Ok(e) => Some(e),
            Err(Errno(libc::ENOENT)) => None,
            Err(e) => return Err(e),
        };
        let pst = stat_fd(raw(&dir))?;
        image_entry(v, w, parent, mtime(&pst), name, found.as_ref())?;
        found
    };
    if let Some(e) = &found {
        let inode = v.table.enter(e.oid, e.handle, e.mode & libc::S_IFMT, 0);
        v.set_bound(&inode);
        image_object(v, w, &inode, Some((0, u64::MAX)))?;
    }
    image_object(v, w, parent, None)
}
