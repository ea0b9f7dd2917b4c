//! Immutable and append-only objects: their flags are lifted for one effect and put back.
//!
//! The application could make the effect before it set the flag, or through a descriptor that it had
//! open; the flags to put back stand in the header first, so that dying in between loses nothing.

use super::engine::{Access, Engine};
use super::error::{Done, Fault};
use super::limits::UNSEALED_MAX;
use super::objects::Obj;
use super::sys::check;

const IMMUTABLE: u32 = 0x10;
const APPEND_ONLY: u32 = 0x20;
pub const SEALS: u32 = IMMUTABLE | APPEND_ONLY;

/// FS_IOC_GETFLAGS; the argument is an int, whatever the request's size says.
pub fn get_flags(fd: i32) -> Done<u32> {
    let mut flags: libc::c_int = 0;
    // SAFETY: flags is a valid out-pointer of the size the kernel writes.
    check("FS_IOC_GETFLAGS", || {
        unsafe { libc::ioctl(fd, libc::FS_IOC_GETFLAGS as _, &mut flags) }.into()
    })?;
    Ok(flags as u32)
}

pub fn set_flags(fd: i32, flags: u32) -> Done {
    let flags = flags as libc::c_int;
    // SAFETY: flags is a valid in-pointer.
    check("FS_IOC_SETFLAGS", || {
        unsafe { libc::ioctl(fd, libc::FS_IOC_SETFLAGS as _, &flags) }.into()
    })?;
    Ok(())
}

impl Engine {
    /// Lifts the flags of those objects that have any; returns them for `reseal`.
    pub(super) fn unseal(&mut self, objs: &[Obj]) -> Done<Vec<(Obj, u32)>> {
        let mut lifted = Vec::new();
        for obj in objs {
            let object = *self.objects.get(*obj);
            if !object.is_dir() && !object.is_regular() || lifted.iter().any(|(o, _)| o == obj) {
                continue;
            }
            let fd = match self.fd(*obj, Access::Any) {
                Ok(fd) => fd,
                Err(Fault::Stale) => continue,
                Err(e) => return Err(e),
            };
            let flags = get_flags(fd).unwrap_or(0);
            let slot = self.unsealed_count + lifted.len();
            if flags & SEALS != 0 && slot < UNSEALED_MAX {
                let header = &self.state.header;
                header.set_unsealed(slot, Some((object.oid, flags)));
                set_flags(fd, flags & !SEALS)?;
                lifted.push((*obj, flags));
            }
        }
        self.unsealed_count += lifted.len();
        Ok(lifted)
    }

    pub(super) fn reseal(&mut self, lifted: &[(Obj, u32)]) -> Done {
        for (i, (obj, flags)) in lifted.iter().enumerate().rev() {
            let slot = self.unsealed_count - lifted.len() + i;
            match self.fd(*obj, Access::Any) {
                Ok(fd) => set_flags(fd, *flags)?,
                Err(Fault::Stale) => {}
                Err(e) => return Err(e),
            }
            self.state.header.set_unsealed(slot, None);
        }
        self.unsealed_count -= lifted.len();
        Ok(())
    }

    /// Does `f` while none of `objs` is immutable or append-only.
    pub(super) fn unsealed(&mut self, objs: &[Obj], f: impl FnOnce(&mut Self) -> Done) -> Done {
        let lifted = self.unseal(objs)?;
        let done = f(self);
        let back = self.reseal(&lifted);
        done.and(back)
    }

    /// Puts back what a process that died had lifted.
    pub(super) fn restore_seals(&mut self) -> Done {
        for (oid, flags) in self.state.header.unsealed() {
            let Some(obj) = self.objects.find(oid) else {
                continue;
            };
            match self.fd(obj, Access::Any) {
                Ok(fd) => set_flags(fd, flags)?,
                Err(Fault::Stale) => {}
                Err(e) => return Err(e),
            }
        }
        for slot in 0..UNSEALED_MAX {
            self.state.header.set_unsealed(slot, None);
        }
        Ok(())
    }
}
