//! What one operation did on one side, in the terms in which the sides must agree.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes::{escape, Bytes};
use crate::sys::attr::{Identity, Stat};
use crate::sys::{errno_name, Errno};

/// Attributes as compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub label: String,
    pub result: Result<Attrs, Errno>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attrs {
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    /// None for directories: their size is the file system's own affair.
    pub size: Option<u64>,
    pub mtime: (i64, u32),
    /// Only after an explicit utimensat.
    pub atime: Option<(i64, u32)>,
    pub has_btime: Option<bool>,
    /// For bookkeeping, never compared. The birth time is known on the right side only.
    pub id: Identity,
}

impl Attrs {
    pub fn of(s: &Stat) -> Attrs {
        Attrs {
            mode: s.mode,
            nlink: s.nlink,
            uid: s.uid,
            gid: s.gid,
            rdev: s.rdev,
            size: (!s.is_dir()).then_some(s.size),
            mtime: s.mtime,
            atime: None,
            has_btime: None,
            id: s.identity(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Descriptors count as 0; a position, a length or a value otherwise.
    pub result: Result<i64, Errno>,
    pub views: Vec<View>,
    /// Data read, an attribute's value, a link's target.
    pub bytes: Option<Vec<u8>>,
    /// Directory entries with d_type, or attribute names, sorted.
    pub names: Option<Vec<(Bytes, u8)>>,
    /// A promise broken on this side alone, as a name returned twice by readdir.
    pub broken: Option<String>,
}

impl Outcome {
    pub fn new(result: Result<i64, Errno>) -> Outcome {
        Outcome { result, views: Vec::new(), bytes: None, names: None, broken: None }
    }

    /// The attributes of the subject, when taken.
    pub fn subject(&self) -> Option<&Attrs> {
        self.views.first().filter(|v| v.label == "subject").and_then(|v| v.result.as_ref().ok())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.result {
            Ok(n) => write!(f, "{n}")?,
            Err(e) => write!(f, "{}", errno_name(e))?,
        }
        if let Some(b) = &self.bytes {
            let head = &b[..b.len().min(16)];
            write!(f, " bytes[{}]=\"{}…\"", b.len(), escape(head))?;
        }
        if let Some(n) = &self.names {
            write!(f, " names[{}]", n.len())?;
        }
        for v in &self.views {
            match &v.result {
                Ok(a) => write!(f, "\n      {}: {a}", v.label)?,
                Err(e) => write!(f, "\n      {}: {}", v.label, errno_name(*e))?,
            }
        }
        if let Some(b) = &self.broken {
            write!(f, "\n      broken: {b}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mode={:o} nlink={} uid={} gid={} mtime={}.{:09} ino={}",
            self.mode, self.nlink, self.uid, self.gid, self.mtime.0, self.mtime.1, self.id.0
        )?;
        if let Some(s) = self.size {
            write!(f, " size={s}")?;
        }
        if self.rdev != 0 {
            write!(f, " rdev={:#x}", self.rdev)?;
        }
        if let Some(t) = self.atime {
            write!(f, " atime={}.{:09}", t.0, t.1)?;
        }
        if let Some(b) = self.has_btime {
            write!(f, " btime={b}")?;
        }
        Ok(())
    }
}
