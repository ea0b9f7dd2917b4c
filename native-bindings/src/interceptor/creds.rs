//! Identity of a request thread: the caller's, as far as the backing file system looks at it.
//!
//! The kernel has checked permissions before it sends a request (`default_permissions`, POSIX ACLs),
//! with the caller's real credentials and groups. So a request thread keeps root's capabilities and
//! takes over what decides about ownership, quota and reserved blocks: fsuid, fsgid, umask, and the
//! lack of CAP_SYS_RESOURCE and CAP_LINUX_IMMUTABLE. CAP_FSETID goes for the one operation whose
//! writer lacked it, so that the backing file system clears set-uid and set-gid itself.
//!
//! Changing fsuid normally drops file capabilities (capabilities(7)); SECBIT_NO_SETUID_FIXUP stops
//! that. All of this is per thread in Linux and cheap when nothing changes: the thread remembers.

use super::errno::{check, Res};

const CAP_FSETID: u32 = 4;
const CAP_LINUX_IMMUTABLE: u32 = 9;
const CAP_SYS_RESOURCE: u32 = 24;
const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// What the calling thread pretends to be.
pub struct Creds {
    uid: u32,
    gid: u32,
    umask: u32,
    dropped: u32,
    full: [CapData; 2],
}

impl Creds {
    /// Prepares the calling thread; it must never run code of another identity afterwards.
    ///
    /// A thread starts with the identity that its parent thread had at that moment, so everything is set,
    /// not assumed.
    pub fn for_this_thread() -> Res<Self> {
        // SAFETY: plain calls with valid pointers; unshare(CLONE_FS) gives the thread its own umask.
        unsafe {
            check(libc::unshare(libc::CLONE_FS))?;
            check(libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))?;
            check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) as i32)?;
            libc::syscall(libc::SYS_setfsuid, 0);
            libc::syscall(libc::SYS_setfsgid, 0);
            libc::umask(0);
            let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
            let mut full = [CapData::default(); 2];
            check(libc::syscall(libc::SYS_capget, &mut header, full.as_mut_ptr()) as i32)?;
            for half in &mut full {
                half.effective = half.permitted;
            }
            check(libc::syscall(libc::SYS_capset, &mut header, full.as_ptr()) as i32)?;
            Ok(Self { uid: 0, gid: 0, umask: 0, dropped: 0, full })
        }
    }

    /// Becomes the caller for the next operation. `kill` drops CAP_FSETID as well.
    pub fn assume(&mut self, uid: u32, gid: u32, kill: bool) {
        if self.gid != gid {
            // SAFETY: plain call; never fails for a process with CAP_SETGID.
            unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
            self.gid = gid;
        }
        if self.uid != uid {
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
            self.uid = uid;
        }
        let mut drop = 0;
        if uid != 0 {
            drop |= 1 << CAP_SYS_RESOURCE | 1 << CAP_LINUX_IMMUTABLE;
        }
        if kill {
            drop |= 1 << CAP_FSETID;
        }
        self.drop_caps(drop);
    }

    /// What it pretends to be now, for `resume`.
    pub fn identity(&self) -> (u32, u32, bool) {
        (self.uid, self.gid, self.dropped & 1 << CAP_FSETID != 0)
    }

    pub fn resume(&mut self, (uid, gid, kill): (u32, u32, bool)) {
        self.assume(uid, gid, kill);
    }

    /// Is the daemon itself again.
    pub fn own(&mut self) {
        self.assume(0, 0, false);
    }

    /// The umask for the next creation.
    pub fn umask(&mut self, umask: u32) {
        if self.umask != umask {
            // SAFETY: plain call; the thread has its own umask.
            unsafe { libc::umask(umask) };
            self.umask = umask;
        }
    }

    fn drop_caps(&mut self, drop: u32) {
        if self.dropped == drop {
            return;
        }
        let mut caps = self.full;
        caps[0].effective &= !drop;
        let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
        // SAFETY: valid pointers; lowering effective capabilities and raising permitted ones is allowed.
        unsafe { libc::syscall(libc::SYS_capset, &mut header, caps.as_ptr()) };
        self.dropped = drop;
    }
}

/// Is the thread `tid` a member of the group, by its supplementary groups?
fn has_group(tid: u32, gid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{tid}/status")) else {
        return false;
    };
    let groups = status.lines().find_map(|l| l.strip_prefix("Groups:"));
    groups.is_some_and(|g| g.split_whitespace().any(|n| n.parse() == Ok(gid)))
}

/// The fsgid with which a writer without CAP_FSETID must write to a file of this mode and group.
///
/// The kernel clears set-group-id of a file that its group may not execute only if the writer is not in
/// that group (setattr_should_drop_sgid). Requests carry no supplementary groups; in this one case they
/// are looked up, and a member writes with the file's group as its own.
pub fn writer_gid(header: &crate::transport::abi::InHeader, mode: u32, file_gid: u32) -> u32 {
    let locked_group = mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID;
    if locked_group && file_gid != header.gid && has_group(header.pid, file_gid) {
        file_gid
    } else {
        header.gid
    }
}
