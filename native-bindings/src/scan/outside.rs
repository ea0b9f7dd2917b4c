//! Changes made behind the mount: noticed by a watcher, captured here, and dropped from caches.

use super::image::{bracket, image_dir, image_object, list};
use super::intents::recapture_name;
use super::KIND_RECAPTURE;
use crate::interceptor::attr::{ctime_ns, stat_fd};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::handle::{CName, FileHandle};
use crate::interceptor::table::{raw, Inode};
use crate::interceptor::{Volume, Worker};
use crate::record::{Oid, Op};
use crate::transport::device::{invalidate_entry, invalidate_inode};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// What is done about a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Captured when it exists; else only dropped from caches.
    Present,
    /// Captured when it does not exist.
    Missing,
}

/// Captures each path (relative to the root, bytes) that was changed by others; returns how many were.
///
/// Names that are gone are captured only with `settled`, when all that has appeared elsewhere was: else
/// a reader would drop an object, with all below it, that has merely moved.
pub fn recapture_paths(
    v: &Volume,
    w: &mut Worker,
    device: i32,
    paths: &[&[u8]],
    settled: bool,
) -> Res<u32> {
    let mut changed = 0;
    let mut failed = None;
    for pass in [Pass::Present, Pass::Missing] {
        if pass == Pass::Missing && !settled {
            break;
        }
        for path in paths {
            match recapture(v, w, device, path, pass) {
                Ok(true) => changed += 1,
                Ok(false)
                | Err(Errno(libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ELOOP)) => {}
                // The others are captured all the same.
                Err(e) => failed = failed.or(Some(e)),
            }
        }
    }
    if settled {
        let foreign = std::mem::take(&mut *v.scan.foreign.lock());
        for (oid, handle) in foreign {
            match image_names(v, w, oid, handle) {
                Ok(()) | Err(Errno(libc::ENOENT | libc::ENOTDIR | libc::ESTALE)) => {}
                Err(e) => failed = failed.or(Some(e)),
            }
        }
    }
    failed.map_or(Ok(changed), Err)
}

/// All names of a directory: a watcher may have missed that one was taken away.
fn image_names(v: &Volume, w: &mut Worker, oid: Oid, handle: FileHandle) -> Res<()> {
    let dir = v.table.enter(oid, handle, libc::S_IFDIR, 1);
    let result = (|| {
        v.bind(w, &dir);
        let fd = v.dir_fd(&dir)?;
        bracket(v, w, Op::ScanBegin, KIND_RECAPTURE)?;
        {
            let _lock = dir.effect.lock();
            let st = stat_fd(raw(&fd))?;
            image_dir(v, w, &dir, &list(v, raw(&fd))?, &st, 0)?;
        }
        image_object(v, w, &dir, None)?;
        bracket(v, w, Op::ScanEnd, KIND_RECAPTURE)
    })();
    v.table.forget(&dir, 1);
    result
}

fn recapture(v: &Volume, w: &mut Worker, device: i32, path: &[u8], pass: Pass) -> Res<bool> {
    let mut parent = v.root.clone();
    let mut held = Vec::new();
    let mut names = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).peekable();
    let mut last: Option<&[u8]> = None;
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            last = Some(name);
            break;
        }
        let dir = v.dir_fd(&parent)?;
        let (inode, _) = v.look_up(&parent, raw(&dir), &CName::new(name)?, name)?;
        held.push(inode.clone());
        parent = inode;
    }
    let result = match last {
        None if pass == Pass::Missing => Ok(false),
        None => recapture_root(v, w, device),
        Some(name) => recapture_last(v, w, device, &parent, name, pass),
    };
    for inode in held {
        v.table.forget(&inode, 1);
    }
    result
}

fn recapture_root(v: &Volume, w: &mut Worker, device: i32) -> Res<bool> {
    let st = v.stat(&v.root)?;
    if ctime_ns(&st) == v.root.ctime_seen.load(Ordering::Relaxed) {
        return Ok(false);
    }
    image_object(v, w, &v.root, None)?;
    v.saw(&v.root, &st);
    let _ = invalidate_inode(device, 1);
    Ok(true)
}

fn recapture_last(
    v: &Volume,
    w: &mut Worker,
    device: i32,
    parent: &Arc<Inode>,
    name: &[u8],
    pass: Pass,
) -> Res<bool> {
    let parent_id = v.nodeid(parent);
    let dir = v.dir_fd(parent)?;
    let found = super::image::entry(v, raw(&dir), name).ok();
    let known = found.as_ref().and_then(|e| v.table.find(e.oid));
    if let (Some(e), Some(inode)) = (&found, &known) {
        let seen = inode.ctime_seen.load(Ordering::Relaxed);
        let binding = inode.binding.lock();
        let named = *binding.name == *name;
        if named && seen == e.ctime_ns {
            return Ok(false); // the change went through the mount
        }
    }
    match &found {
        Some(_) if pass == Pass::Missing => return Ok(false),
        Some(_) => v.absent.forget(parent.oid, name),
        None if pass == Pass::Present => {
            let _ = invalidate_entry(device, parent_id, name);
            return Ok(false);
        }
        None if v.absent.knows(parent.oid, name) => return Ok(false), // went through the mount
        // Others took it away, and that is captured now.
        None => v.absent.note(parent.oid, name),
    }
    v.scan.foreign.lock().insert(parent.oid, parent.handle);
    if let (Some(e), Some(codes)) = (&found, v.codes.get()) {
        codes.invalidate_object(e.oid);
    }
    bracket(v, w, Op::ScanBegin, KIND_RECAPTURE)?;
    recapture_name(v, w, Some(parent), name)?;
    bracket(v, w, Op::ScanEnd, KIND_RECAPTURE)?;
    if let Some(inode) = &known {
        inode.ctime_seen.store(found.as_ref().map_or(0, |e| e.ctime_ns), Ordering::Relaxed);
        let _ = invalidate_inode(device, inode.nodeid());
    }
    let _ = invalidate_entry(device, parent_id, name);
    let _ = invalidate_inode(device, parent_id);
    Ok(true)
}
