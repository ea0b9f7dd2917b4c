//! The names of one directory, sorted, packed into one buffer.

use std::os::fd::RawFd;

use crate::sys::{dir, SysResult};

/// About 16 bytes per name beyond the name itself, so that a million names stay small.
pub struct Names {
    buf: Vec<u8>,
    at: Vec<(usize, u16)>,
}

impl Names {
    pub fn read(fd: RawFd) -> SysResult<Names> {
        let mut names = Names { buf: Vec::new(), at: Vec::new() };
        let mut raw = vec![0u8; 65536];
        while let Some(entries) = dir::read_some(fd, &mut raw)? {
            for (name, _) in entries {
                names.at.push((names.buf.len(), name.len() as u16));
                names.buf.extend_from_slice(&name);
            }
        }
        let buf = &names.buf;
        names.at.sort_unstable_by(|a, b| slice(buf, *a).cmp(slice(buf, *b)));
        Ok(names)
    }

    pub fn get(&self, i: usize) -> Option<&[u8]> {
        self.at.get(i).map(|at| slice(&self.buf, *at))
    }
}

fn slice(buf: &[u8], (off, len): (usize, u16)) -> &[u8] {
    &buf[off..off + len as usize]
}
