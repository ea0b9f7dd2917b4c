//! The end of what was parked: objects that lost their last name and that nobody claimed.

use super::engine::Engine;
use super::error::Done;
use super::facts::{look_up, Found};
use super::seal;
use super::sys::{self, Name};
use std::os::fd::AsRawFd;

impl Engine {
    /// Deletes everything that is parked. Directories are emptied into the parking area first, so
    /// that the depth of a tree costs neither stack nor descriptors.
    pub(super) fn purge_parked(&mut self) -> Done {
        let parked = self.state.parked.as_raw_fd();
        loop {
            let entries = sys::entries(parked)?;
            if entries.is_empty() {
                return Ok(());
            }
            for (name, _) in entries {
                let name = Name::component(&name)?;
                let Some(found) = look_up(parked, &name)? else {
                    continue;
                };
                if found.is_dir() {
                    self.empty_parked(&name)?;
                }
                self.purge(parked, &name, &found)?;
            }
        }
    }

    fn empty_parked(&mut self, name: &Name) -> Done {
        let parked = self.state.parked.as_raw_fd();
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let dir = sys::openat(parked, name.c(), flags, 0)?;
        let dir = dir.as_raw_fd();
        if let Ok(flags) = seal::get_flags(dir) {
            if flags & seal::SEALS != 0 {
                seal::set_flags(dir, flags & !seal::SEALS)?;
            }
        }
        for (child, _) in sys::entries(dir)? {
            let child = Name::component(&child)?;
            let Some(found) = look_up(dir, &child)? else {
                continue;
            };
            if found.is_dir() {
                self.past_of_entry_at(dir, &child, false)?;
                let bytes = found.handle.bytes().iter();
                let hex: String = bytes.map(|b| format!("{b:02x}")).collect();
                let up = Name::component(format!("p{hex}").as_bytes())?;
                self.insist(&found, |_| sys::renameat2(dir, &child, parked, &up, 0))?;
            } else {
                self.purge(dir, &child, &found)?;
            }
        }
        Ok(())
    }

    fn purge(&mut self, dir: i32, name: &Name, found: &Found) -> Done {
        self.past_of_entry_at(dir, name, true)?;
        if found.is_dir() || found.links <= 1 {
            if let Some(obj) = self.objects.find_handle(&found.handle) {
                let oid = self.objects.get(obj).oid;
                self.remove(oid)?;
            }
        }
        self.insist(found, |_| sys::unlinkat(dir, name, found.is_dir()))
    }
}
