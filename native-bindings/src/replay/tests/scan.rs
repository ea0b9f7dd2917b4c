//! The test's own scanner: writes down images of a source tree, between other operations.

use super::journal::Head;
use super::source::Source;
use super::tree::xattrs;
use crate::record::{Oid, Op};
use crate::replay::seal;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub const BASELINE: u8 = 2;

impl Source {
    pub fn bracket(&mut self, op: Op, kind: u8) {
        self.journal.add(Head::new(op, Oid::NONE), |e| {
            e.u8(kind);
        });
    }

    /// A directory's entries, in one record or several.
    pub fn image_dir(&mut self, rel: &Path, rng: &mut ChaCha8Rng) {
        let oid = self.oid(rel);
        let mut entries: Vec<_> = fs::read_dir(self.path(rel))
            .unwrap()
            .map(|e| {
                let name = e.unwrap().file_name();
                let path = rel.join(&name);
                (name.as_bytes().to_vec(), self.oid(&path), self.stat(&path).st_mode)
            })
            .collect();
        entries.sort();
        let head = self.head(Op::ImageDir, rel, oid);
        let mut after: Vec<u8> = Vec::new();
        let mut first = true;
        loop {
            let n = rng.random_range(1..=entries.len().max(1)).min(entries.len());
            let part: Vec<_> = entries.drain(..n).collect();
            let last = entries.is_empty();
            let up_to = if last { vec![] } else { part.last().unwrap().0.clone() };
            self.journal.add(head, |e| {
                e.u8(u8::from(first) | u8::from(last) << 1).name(&after).name(&up_to);
                e.payload().u32(part.len() as u32);
                for (name, oid, mode) in &part {
                    e.oid(*oid).u32(*mode).name(name);
                }
            });
            for (_, oid, _) in &part {
                self.now_bound(*oid);
            }
            if last {
                return;
            }
            (after, first) = (up_to, false);
        }
    }

    /// One name and what it is.
    pub fn image_entry(&mut self, rel: &Path) {
        let (parent, oid) = (self.known(rel.parent().unwrap()), self.oid(rel));
        let head = self.head(Op::ImageEntry, rel, oid);
        let pmtime = self.mtime(rel.parent().unwrap());
        self.journal.add(head, |e| {
            e.oid(parent).time(pmtime).u8(1).name(rel.file_name().unwrap().as_bytes());
        });
        self.now_bound(oid);
    }

    /// Everything about one object but its entries.
    pub fn image(&mut self, rel: &Path) {
        let oid = self.oid(rel);
        let st = self.stat(rel);
        let path = self.path(rel);
        let kind = st.st_mode & libc::S_IFMT;
        let head = self.head(Op::Image, rel, oid);
        let target = match kind {
            libc::S_IFLNK => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        let flags = match kind {
            libc::S_IFREG | libc::S_IFDIR => {
                seal::get_flags(File::open(&path).unwrap().as_raw_fd()).unwrap_or(0)
            }
            _ => 0,
        };
        let rdev = (libc::minor(st.st_rdev) & 0xff)
            | (libc::major(st.st_rdev) << 8)
            | ((libc::minor(st.st_rdev) & !0xff) << 12);
        let attributes = xattrs(&path);
        self.journal.add(head, |e| {
            e.u32(st.st_uid).u32(st.st_gid).u32(rdev).u32(st.st_nlink as u32);
            e.u64(st.st_size as u64).u32(flags);
            e.payload().u32(target.len() as u32).raw(&target);
            e.u16(attributes.len() as u16);
            for (name, value) in &attributes {
                e.name(name).u32(value.len() as u32).raw(value);
            }
        });
        if kind == libc::S_IFREG && self.later {
            let head = Head { op: Op::ImageLater, ..head };
            self.journal.add(head, |e| {
                e.u64(0).u64(st.st_size as u64);
            });
        } else if kind == libc::S_IFREG {
            self.image_data(&path, head, st.st_size as u64);
        }
    }

    fn image_data(&mut self, path: &Path, head: Head, size: u64) {
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        // All of it before reading: reading ahead makes cached zeros of preallocated blocks.
        let mut at = 0;
        for (start, end) in super::tree::data_ranges(&file, size) {
            self.image_hole(head, at, start);
            let mut from = start;
            while from < end {
                let mut bytes = vec![0; (end - from).min(200_000) as usize];
                file.read_exact_at(&mut bytes, from).unwrap();
                let head = Head { op: Op::ImageData, ..head };
                self.journal.add(head, |e| {
                    e.u64(from).payload().raw(&bytes);
                });
                from += bytes.len() as u64;
            }
            at = end;
        }
        self.image_hole(head, at, size);
    }

    fn image_hole(&mut self, head: Head, from: u64, to: u64) {
        if from < to {
            let head = Head { op: Op::ImageHole, ..head };
            self.journal.add(head, |e| {
                e.u64(from).u64(to - from);
            });
        }
    }
}
