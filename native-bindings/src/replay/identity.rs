//! The replay thread takes on a caller's identity for creations, so that owner, umask and inherited
//! ACLs come out as they did at the source without correcting them afterwards.
//!
//! All of it is per thread: file system uid and gid, umask (the thread does not share its CLONE_FS
//! state), and a securebit that keeps the capabilities while the uid is not root.

use super::error::{Done, Fault};
use super::sys::{check, fault};

const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;

/// What the thread is at the moment; system calls are made only for what changes.
pub struct Identity {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Identity {
    /// Prepares the calling thread; it must serve replay only.
    pub fn of_this_thread() -> Done<Self> {
        // SAFETY: an all-zero set is valid; sigfillset makes it full.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
        }
        // SAFETY: only this thread's umask and working directory are split off.
        check("unshare", || unsafe { libc::unshare(libc::CLONE_FS) }.into())?;
        // SAFETY: no pointers; securebits belong to the thread's credentials.
        unsafe {
            let bits = libc::prctl(libc::PR_GET_SECUREBITS);
            if bits < 0 {
                return Err(fault("prctl"));
            }
            let wanted = bits as libc::c_ulong | SECBIT_NO_SETUID_FIXUP;
            if libc::prctl(libc::PR_SET_SECUREBITS, wanted, 0, 0, 0) != 0 {
                return Err(fault("prctl"));
            }
            libc::umask(0);
            let (uid, gid) = (libc::geteuid(), libc::getegid());
            Ok(Self { uid, gid, umask: 0 })
        }
    }

    /// The identity that the next creation happens under.
    pub fn become_caller(&mut self, uid: u32, gid: u32, umask: u32) -> Done {
        // The kernel refuses only ids it cannot map; asking again with -1 tells what holds now.
        // SAFETY (all blocks): no pointers; affects this thread only.
        if self.gid != gid {
            unsafe { libc::setfsgid(gid) };
            if unsafe { libc::setfsgid(u32::MAX) } as u32 != gid {
                return Err(Fault::Unsupported("the record's group does not exist here"));
            }
            self.gid = gid;
        }
        if self.uid != uid {
            // SAFETY: as above.
            unsafe { libc::setfsuid(uid) };
            // SAFETY: as above.
            if unsafe { libc::setfsuid(u32::MAX) } as u32 != uid {
                return Err(Fault::Unsupported("the record's owner does not exist here"));
            }
            self.uid = uid;
        }
        if self.umask != umask & 0o777 {
            self.umask = umask & 0o777;
            // SAFETY: as above.
            unsafe { libc::umask(self.umask) };
        }
        Ok(())
    }
}
