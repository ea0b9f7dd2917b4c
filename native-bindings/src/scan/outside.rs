//! Changes made behind the mount: noticed by a watcher, captured here, and dropped from caches.

use super::image::{bracket, image_object};
use super::intents::recapture_name;
use super::KIND_RECAPTURE;
use crate::interceptor::attr::{ctime_ns, stat_fd};
use crate::interceptor::errno::{Errno, Res};
use crate::interceptor::handle::CName;
use crate::interceptor::table::{raw, Inode};
use crate::interceptor::{Volume, Worker};
use crate::record::Op;
use crate::transport::device::{invalidate_entry, invalidate_inode};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Captures each path (relative to the root, bytes) that was changed by others; returns how many were.
pub fn recapture_paths(v: &Volume, w: &mut Worker, device: i32, paths: &[&[u8]]) -> Res<u32> {
    let mut changed = 0;
    for path in paths {
        match recapture(v, w, device, path) {
            Ok(true) => changed += 1,
            Ok(false) | Err(Errno(libc::ENOENT | libc::ENOTDIR | libc::ESTALE)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(changed)
}

fn recapture(v: &Volume, w: &mut Worker, device: i32, path: &[u8]) -> Res<bool> {
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
        None => recapture_root(v, w, device),
        Some(name) => recapture_last(v, w, device, &parent, name),
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
) -> Res<bool> {
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
    if found.is_none() {
        // Gone by us or by others? The parent's change time tells.
        let st = stat_fd(raw(&dir))?;
        if parent.ctime_seen.load(Ordering::Relaxed) == ctime_ns(&st) {
            return Ok(false);
        }
    }
    bracket(v, w, Op::ScanBegin, KIND_RECAPTURE)?;
    recapture_name(v, w, Some(parent), name)?;
    bracket(v, w, Op::ScanEnd, KIND_RECAPTURE)?;
    if let Some(inode) = &known {
        inode.ctime_seen.store(found.as_ref().map_or(0, |e| e.ctime_ns), Ordering::Relaxed);
        let _ = invalidate_inode(device, inode.nodeid());
    }
    let parent_id = if Arc::ptr_eq(parent, &v.root) { 1 } else { parent.nodeid() };
    let _ = invalidate_entry(device, parent_id, name);
    let _ = invalidate_inode(device, parent_id);
    Ok(true)
}
