//! Bit-for-bit comparison of two directory trees.
//!
//! [`compare`] walks both trees side by side in name order and reports every difference to a
//! callback. Open descriptors grow with depth only; memory with the widest directory on the
//! current path and the number of hard-linked inodes whose last name is still to come.

mod content;
mod links;
mod names;
mod object;
mod walk;

pub use content::{data_extents, Extent};
pub use walk::compare;

use std::collections::HashSet;
use std::fmt;

use crate::bytes::{escape, json_string};
use crate::sys::attr::Identity;

/// How modification times are compared.
#[derive(Clone, Debug, Default)]
pub enum Mtime {
    #[default]
    Exact,
    Ignore,
    /// For two runs of the same operations: times inside the window are equal to each other,
    /// others (set explicitly by utimensat) must agree exactly. `skip` names right-side regular
    /// files whose time is not decided (see `diff::limits`).
    Window {
        from: i64,
        to: i64,
        skip: HashSet<Identity>,
    },
}

/// What is compared besides the names.
#[derive(Clone, Debug)]
pub struct Options {
    pub mtime: Mtime,
    pub ignore: Vec<String>,
    /// Compare the SEEK_DATA / SEEK_HOLE maps, rounded outward to `hole_granularity` bytes.
    pub holes: bool,
    pub hole_granularity: u64,
    /// Compare inode numbers too (for two views of one tree).
    pub ino: bool,
    /// Compare change times too (for two views of one tree).
    pub ctime: bool,
    /// Right-side files whose capabilities are not compared (see `diff::limits`). Goes with
    /// `Mtime::Window`.
    pub uncertain_caps: HashSet<Identity>,
    /// Names left out in the two roots, as `lost+found`.
    pub exclude: Vec<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            mtime: Mtime::Exact,
            ignore: Vec::new(),
            holes: false,
            hole_granularity: 65536,
            ino: false,
            ctime: false,
            uncertain_caps: HashSet::new(),
            exclude: Vec::new(),
        }
    }
}

impl Options {
    fn wants(&self, field: &str) -> bool {
        !self.ignore.iter().any(|f| f == field)
    }
}

/// The fields `--ignore` accepts.
pub const FIELDS: &[&str] = &[
    "type", "mode", "uid", "gid", "size", "mtime", "rdev", "nlink", "links", "target", "data",
    "holes", "xattr", "flags", "projid", "ino", "ctime",
];

/// One difference: where, which field, both values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub field: &'static str,
    pub path: Vec<u8>,
    pub left: String,
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = escape(&self.path);
        write!(f, "{} {} left={} right={}", self.field, path, self.left, self.right)
    }
}

impl Difference {
    /// One JSON object on one line.
    pub fn to_json(&self) -> String {
        format!(
            "{{\"op\":\"{}\",\"path\":{},\"left\":{},\"right\":{}}}",
            self.field,
            json_string(&self.path),
            json_string(self.left.as_bytes()),
            json_string(self.right.as_bytes())
        )
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub objects: u64,
    pub bytes: u64,
    pub differences: u64,
}

/// A comparison that could not go on: which call, on what, why.
#[derive(Debug)]
pub struct CompareError {
    pub op: &'static str,
    pub path: Vec<u8>,
    pub errno: i32,
}

impl fmt::Display for CompareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = crate::sys::errno_name(self.errno);
        write!(f, "{} {}: {e}", self.op, escape(&self.path))
    }
}
