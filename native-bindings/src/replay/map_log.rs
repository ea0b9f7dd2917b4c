//! The object map's file: what was bound and unbound, appended before the position advances.
//!
//! Written through a mapping, so an entry costs a copy and no system call, and survives the death of
//! the process as soon as it is made. The valid length stands in the state's header. Neighbours:
//! `state` owns the file, `bindings` says what to write.

use super::error::{Done, Fault};
use super::handle::Handle;
use super::limits::MAP_GROW_BYTES;
use super::sys;
use crate::record::{Cursor, Oid};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

/// Bytes in front of an entry's fields: kind, length / 8, u16 zero, crc32c.
const ENTRY_HEADER: usize = 8;
/// Longest entry; a name has at most 255 bytes.
const ENTRY_BYTES_MAX: usize = 512;

/// One entry of the map's file.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    /// The object is this one of the target.
    Bind { oid: Oid, handle: Handle, kind: u8, flags: u8 },
    /// The object has no names left; records about it are passed over.
    Removed { oid: Oid },
    /// The object need not be remembered any longer.
    Forgotten { oid: Oid },
    /// The stand-in `oid` has this name.
    HollowName { oid: Oid, parent: Oid, name: Vec<u8> },
    /// The stand-in lost this name.
    HollowUnname { oid: Oid, parent: Oid, name: Vec<u8> },
    /// The stand-in became the real object.
    Filled { oid: Oid },
    /// security.capability as an image told it.
    Caps { oid: Oid, value: Vec<u8> },
    /// The application's own doing replaced it.
    CapsDone { oid: Oid },
    /// No scan is open: stand-ins and capabilities are forgotten.
    ScansDone,
    /// The mtime that a directory must have again after record `seq` changed entries in it.
    DirTime { seq: u64, oid: Oid, sec: i64, nsec: u32 },
    /// Record `seq` found that the object's bytes `[from, to)` differ; both all ones: the object itself.
    Need { seq: u64, oid: Oid, from: u64, to: u64 },
    /// They do not any more, or do not matter.
    NeedMet { oid: Oid, from: u64, to: u64 },
    /// A comparison that began at `seq` has ended: what it did not find is over.
    NeedsBefore { seq: u64 },
    /// Bytes were brought that are ahead of the records: whole again after record `seq`.
    Settles { seq: u64 },
}

impl Entry {
    fn code(&self) -> u8 {
        match self {
            Self::Bind { .. } => 1,
            Self::Removed { .. } => 2,
            Self::Forgotten { .. } => 3,
            Self::HollowName { .. } => 4,
            Self::HollowUnname { .. } => 5,
            Self::Filled { .. } => 6,
            Self::Caps { .. } => 7,
            Self::CapsDone { .. } => 8,
            Self::ScansDone => 9,
            Self::DirTime { .. } => 10,
            Self::Need { .. } => 11,
            Self::NeedMet { .. } => 12,
            Self::NeedsBefore { .. } => 13,
            Self::Settles { .. } => 14,
        }
    }

    /// Writes the entry to the front of `buf`; returns its length.
    pub fn encode(&self, buf: &mut [u8; ENTRY_BYTES_MAX]) -> usize {
        let mut at = ENTRY_HEADER;
        let mut put = |bytes: &[u8]| {
            buf[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        let oid_bytes = |oid: &Oid| {
            let mut b = [0; 16];
            b[..8].copy_from_slice(&oid.ino.to_le_bytes());
            b[8..].copy_from_slice(&oid.gen.to_le_bytes());
            b
        };
        match self {
            Self::Bind { oid, handle, kind, flags } => {
                put(&oid_bytes(oid));
                put(&handle.kind.to_le_bytes());
                put(&[*kind, *flags, handle.len, 0]);
                put(handle.bytes());
            }
            Self::Removed { oid }
            | Self::Forgotten { oid }
            | Self::Filled { oid }
            | Self::CapsDone { oid } => put(&oid_bytes(oid)),
            Self::HollowName { oid, parent, name } | Self::HollowUnname { oid, parent, name } => {
                put(&oid_bytes(oid));
                put(&oid_bytes(parent));
                put(&(name.len() as u16).to_le_bytes());
                put(name);
            }
            Self::Caps { oid, value } => {
                put(&oid_bytes(oid));
                put(&(value.len() as u16).to_le_bytes());
                put(value);
            }
            Self::ScansDone => {}
            Self::DirTime { seq, oid, sec, nsec } => {
                put(&seq.to_le_bytes());
                put(&oid_bytes(oid));
                put(&sec.to_le_bytes());
                put(&nsec.to_le_bytes());
            }
            Self::Need { seq, oid, from, to } => {
                put(&seq.to_le_bytes());
                put(&oid_bytes(oid));
                put(&from.to_le_bytes());
                put(&to.to_le_bytes());
            }
            Self::NeedMet { oid, from, to } => {
                put(&oid_bytes(oid));
                put(&from.to_le_bytes());
                put(&to.to_le_bytes());
            }
            Self::NeedsBefore { seq } | Self::Settles { seq } => put(&seq.to_le_bytes()),
        }
        let len = (at + 7) & !7;
        buf[at..len].fill(0);
        buf[0] = self.code();
        buf[1] = (len / 8) as u8;
        buf[2..4].fill(0);
        let crc = entry_crc(&buf[..len]);
        buf[4..8].copy_from_slice(&crc.to_le_bytes());
        len
    }

    fn decode(code: u8, fields: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(fields);
        let name = |c: &mut Cursor| c.name().ok().map(<[u8]>::to_vec);
        Some(match code {
            1 => {
                let oid = c.oid().ok()?;
                let handle_kind = c.u32().ok()? as i32;
                let rest = c.take(4).ok()?;
                Self::Bind {
                    oid,
                    kind: rest[0],
                    flags: rest[1],
                    handle: Handle::new(handle_kind, c.take(rest[2] as usize).ok()?)?,
                }
            }
            2 => Self::Removed { oid: c.oid().ok()? },
            3 => Self::Forgotten { oid: c.oid().ok()? },
            4 | 5 => {
                let (oid, parent, name) = (c.oid().ok()?, c.oid().ok()?, name(&mut c)?);
                if code == 4 {
                    Self::HollowName { oid, parent, name }
                } else {
                    Self::HollowUnname { oid, parent, name }
                }
            }
            6 => Self::Filled { oid: c.oid().ok()? },
            7 => Self::Caps { oid: c.oid().ok()?, value: name(&mut c)? },
            8 => Self::CapsDone { oid: c.oid().ok()? },
            9 => Self::ScansDone,
            10 => Self::DirTime {
                seq: c.u64().ok()?,
                oid: c.oid().ok()?,
                sec: c.u64().ok()? as i64,
                nsec: c.u32().ok()?,
            },
            11 => Self::Need {
                seq: c.u64().ok()?,
                oid: c.oid().ok()?,
                from: c.u64().ok()?,
                to: c.u64().ok()?,
            },
            12 => Self::NeedMet { oid: c.oid().ok()?, from: c.u64().ok()?, to: c.u64().ok()? },
            13 => Self::NeedsBefore { seq: c.u64().ok()? },
            14 => Self::Settles { seq: c.u64().ok()? },
            _ => return None,
        })
    }
}

fn entry_crc(entry: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&entry[..4]), &entry[8..])
}

/// Reads entries up to `len`; returns how many bytes were good.
pub fn read(file: &File, len: u64, mut each: impl FnMut(Entry, u64)) -> Done<u64> {
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file.take(len));
    let mut good = 0;
    let mut buf = [0u8; ENTRY_BYTES_MAX];
    loop {
        if reader.read_exact(&mut buf[..ENTRY_HEADER]).is_err() {
            return Ok(good);
        }
        let n = buf[1] as usize * 8;
        if !(ENTRY_HEADER..=ENTRY_BYTES_MAX).contains(&n)
            || reader.read_exact(&mut buf[ENTRY_HEADER..n]).is_err()
            || entry_crc(&buf[..n]).to_le_bytes() != buf[4..8]
        {
            return Ok(good);
        }
        let Some(entry) = Entry::decode(buf[0], &buf[ENTRY_HEADER..n]) else {
            return Ok(good);
        };
        good += n as u64;
        each(entry, good);
    }
}

/// The end of the file that entries are appended to.
pub struct MapLog {
    file: File,
    len: u64,
    window: *mut u8,
    window_at: u64,
}

// SAFETY: the mapping is owned by this value alone and moves with it.
unsafe impl Send for MapLog {}

impl MapLog {
    pub fn new(file: File, len: u64) -> Self {
        Self { file, len, window: std::ptr::null_mut(), window_at: 0 }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Appends; the caller publishes the new length.
    pub fn append(&mut self, entry: &Entry) -> Done<u64> {
        let mut buf = [0; ENTRY_BYTES_MAX];
        let n = entry.encode(&mut buf);
        if self.window.is_null() || self.len + n as u64 > self.window_at + MAP_GROW_BYTES {
            self.move_window()?;
        }
        let at = (self.len - self.window_at) as usize;
        // SAFETY: move_window made sure that at + n lies within the mapping.
        unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), self.window.add(at), n) };
        self.len += n as u64;
        Ok(self.len)
    }

    fn move_window(&mut self) -> Done {
        self.unmap();
        let at = self.len & !4095;
        // Allocated, not only extended: a store to a mapping cannot report a full disk.
        match sys::fallocate(self.file.as_raw_fd(), 0, at, MAP_GROW_BYTES) {
            Err(e) if e.is(libc::EOPNOTSUPP) => {
                sys::ftruncate(self.file.as_raw_fd(), at + MAP_GROW_BYTES)?;
            }
            r => r?,
        }
        // SAFETY: a fresh shared mapping of a file that we own; checked below.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAP_GROW_BYTES as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.file.as_raw_fd(),
                at as i64,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(sys::fault("mmap"));
        }
        self.window = p.cast();
        self.window_at = at;
        Ok(())
    }

    fn unmap(&mut self) {
        if !self.window.is_null() {
            // SAFETY: window is a mapping of this length that nothing else refers to.
            unsafe { libc::munmap(self.window.cast(), MAP_GROW_BYTES as usize) };
            self.window = std::ptr::null_mut();
        }
    }

    pub fn sync(&self) -> Done {
        self.file.sync_data().map_err(|e| Fault::Sys {
            call: "fdatasync",
            errno: e.raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

impl Drop for MapLog {
    fn drop(&mut self) {
        self.unmap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_log_entries_round_trip_and_damage_is_seen() {
        let oid = Oid { ino: 5, gen: 6 };
        let entries = vec![
            Entry::Bind {
                oid,
                handle: Handle::new(-3, b"0123456789ab").unwrap(),
                kind: 8,
                flags: 1,
            },
            Entry::HollowName { oid, parent: Oid { ino: 2, gen: 1 }, name: vec![0xff; 255] },
            Entry::Caps { oid, value: vec![1; 24] },
            Entry::DirTime { seq: 9, oid, sec: -4, nsec: 7 },
            Entry::ScansDone,
            Entry::Need { seq: 8, oid, from: 65536, to: 131072 },
            Entry::NeedMet { oid, from: u64::MAX, to: u64::MAX },
            Entry::NeedsBefore { seq: 11 },
            Entry::Settles { seq: 12 },
        ];
        let path = std::env::temp_dir().join(format!("map-log-{}", std::process::id()));
        let open = || {
            File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap()
        };
        let mut log = MapLog::new(open(), 0);
        for e in &entries {
            log.append(e).unwrap();
        }
        let len = log.len();
        drop(log);
        let mut seen = Vec::new();
        assert_eq!(read(&open(), len, |e, _| seen.push(e)).unwrap(), len);
        assert!(seen == entries);
        use std::os::unix::fs::FileExt;
        open().write_at(&[0x55], 12).unwrap();
        assert_eq!(read(&open(), len, |_, _| ()).unwrap(), 0);
        std::fs::remove_file(&path).unwrap();
    }
}
