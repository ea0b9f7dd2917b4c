//! One operation, fully spelled out: no randomness is left when it is executed.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::sys::name::Time;

/// Index into a worker's pool of open descriptors.
pub type Slot = u16;
/// Index into a worker's pool of mappings.
pub type MapSlot = u16;

/// A path relative to the tree's root or to an open directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct At {
    pub base: Option<Slot>,
    pub path: Bytes,
}

/// What an attribute operation acts on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Target {
    Fd(Slot),
    Path { at: At, follow: bool },
}

/// Bytes to write: `len` bytes made from `seed`; seed 0 is all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    pub seed: u64,
    pub len: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    Open {
        at: At,
        flags: i32,
        mode: u32,
        slot: Slot,
    },
    LinkTmpfile {
        from: Slot,
        to: At,
    },
    Close {
        slot: Slot,
    },
    Read {
        slot: Slot,
        len: u32,
    },
    Pread {
        slot: Slot,
        off: i64,
        len: u32,
    },
    Write {
        slot: Slot,
        fill: Fill,
    },
    Pwrite {
        slot: Slot,
        off: i64,
        fill: Fill,
    },
    Writev {
        slot: Slot,
        off: Option<i64>,
        lens: Vec<u32>,
        seed: u64,
    },
    Seek {
        slot: Slot,
        off: i64,
        whence: i32,
    },
    /// SEEK_DATA or SEEK_HOLE; the answer is checked against the content.
    SeekMap {
        slot: Slot,
        off: i64,
        whence: i32,
    },
    Ftruncate {
        slot: Slot,
        len: i64,
    },
    Truncate {
        at: At,
        len: i64,
    },
    Fallocate {
        slot: Slot,
        mode: i32,
        off: i64,
        len: i64,
    },
    CopyRange {
        from: Slot,
        from_off: i64,
        to: Slot,
        to_off: i64,
        len: u32,
    },
    Fsync {
        slot: Slot,
        data_only: bool,
    },
    Syncfs {
        slot: Slot,
    },

    Mkdir {
        at: At,
        mode: u32,
    },
    Rmdir {
        at: At,
    },
    Unlink {
        at: At,
    },
    Symlink {
        target: Bytes,
        at: At,
    },
    Readlink {
        at: At,
    },
    Link {
        from: At,
        to: At,
        follow: bool,
    },
    Rename {
        from: At,
        to: At,
        flags: u32,
    },
    Mknod {
        at: At,
        mode: u32,
        dev: u64,
    },
    Readdir {
        at: At,
    },
    /// Reads a directory in small steps, making and removing `extra` names in between.
    ReaddirChurn {
        at: At,
        extra: u16,
    },

    Chmod {
        on: Target,
        mode: u32,
    },
    Chown {
        on: Target,
        uid: u32,
        gid: u32,
    },
    Utimens {
        on: Target,
        atime: Time,
        mtime: Time,
    },
    SetXattr {
        on: Target,
        name: Bytes,
        value: Bytes,
        flags: i32,
    },
    GetXattr {
        on: Target,
        name: Bytes,
    },
    ListXattr {
        on: Target,
    },
    RemoveXattr {
        on: Target,
        name: Bytes,
    },
    GetFlags {
        at: At,
    },
    /// Changes the bits in `mask` to those in `bits`.
    SetFlags {
        at: At,
        mask: u32,
        bits: u32,
    },
    GetProject {
        at: At,
    },
    SetProject {
        at: At,
        projid: u32,
    },
    Stat {
        on: Target,
    },
    /// statx with the birth time asked for.
    Statx {
        on: Target,
    },
    Statfs {
        slot: Slot,
    },
    Access {
        at: At,
        mode: i32,
        flags: i32,
    },
    Umask {
        mask: u32,
    },

    MapOpen {
        slot: Slot,
        map: MapSlot,
        off: i64,
        len: u32,
        write: bool,
    },
    MapStore {
        map: MapSlot,
        at: u32,
        fill: Fill,
    },
    MapLoad {
        map: MapSlot,
        at: u32,
        len: u32,
    },
    Msync {
        map: MapSlot,
        flags: i32,
    },
    MapClose {
        map: MapSlot,
    },
}

/// The attribute that a write removes, whoever writes.
pub const CAPABILITY: &[u8] = b"security.capability";

impl Op {
    /// Whether its answer depends on the file's capabilities.
    pub fn concerns_capability(&self) -> bool {
        match self {
            Op::SetXattr { name, .. }
            | Op::GetXattr { name, .. }
            | Op::RemoveXattr { name, .. } => name.as_slice() == CAPABILITY,
            Op::ListXattr { .. } => true,
            _ => false,
        }
    }

    /// The path or descriptor whose attributes tell most about the operation's effect.
    pub fn subject(&self) -> Option<Target> {
        use Op::*;
        let path = |at: &At| Some(Target::Path { at: at.clone(), follow: false });
        match self {
            LinkTmpfile { to, .. } | Link { to, .. } | Rename { to, .. } => path(to),
            Open { slot, .. }
            | Read { slot, .. }
            | Pread { slot, .. }
            | Write { slot, .. }
            | Pwrite { slot, .. }
            | Writev { slot, .. }
            | Seek { slot, .. }
            | SeekMap { slot, .. }
            | Ftruncate { slot, .. }
            | Fallocate { slot, .. }
            | CopyRange { to: slot, .. }
            | Fsync { slot, .. }
            | MapOpen { slot, .. } => Some(Target::Fd(*slot)),
            Truncate { at, .. }
            | Mkdir { at, .. }
            | Rmdir { at }
            | Unlink { at }
            | Symlink { at, .. }
            | Readlink { at }
            | Mknod { at, .. }
            | Readdir { at }
            | ReaddirChurn { at, .. }
            | GetFlags { at }
            | SetFlags { at, .. }
            | GetProject { at }
            | SetProject { at, .. }
            | Access { at, .. } => path(at),
            Chmod { on, .. }
            | Chown { on, .. }
            | Utimens { on, .. }
            | SetXattr { on, .. }
            | GetXattr { on, .. }
            | ListXattr { on }
            | RemoveXattr { on, .. } => Some(on.clone()),
            Close { .. }
            | Syncfs { .. }
            | Stat { .. }
            | Statx { .. }
            | Statfs { .. }
            | Umask { .. }
            | MapStore { .. }
            | MapLoad { .. }
            | Msync { .. }
            | MapClose { .. } => None,
        }
    }
}

/// An operation on its way to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub worker: u16,
    pub op: Op,
    /// Also take the attributes of the subject and of its directory.
    pub probe: bool,
    /// Run on the left side only, where a named refusal is expected.
    pub left_only: bool,
}
