//! Two trees: what differs between them, and making one what the other is.
//!
//! The data's way: two roots → `walk` (side by side, by names) → `pair` (what is under another name
//! now) → `judge` (what of a pair differs) → `change` (a list), or `restore` (`place`: names first,
//! `build`: new objects, then content and attributes, then deletions, then directories).
//!
//! Side A is the older tree, or the one that is changed; side B the newer one, or the one that is
//! wanted. Invariant: neither side is ever written but by `restore`, and there only side A; names are
//! bytes; nothing is resolved but single names below directory descriptors.

mod attributes;
mod build;
mod change;
mod content;
mod job;
mod judge;
pub mod limits;
mod pair;
mod place;
mod restore;
mod side;
#[cfg(test)]
mod tests;
mod walk;

pub use change::{Change, Kind};
pub use job::{Failure, Item, Job, Outcome, Progress};
pub use judge::What;

use std::collections::HashSet;
use std::path::PathBuf;

/// What is compared, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub a: PathBuf,
    pub b: PathBuf,
    /// Only this path below the roots, as its components; empty: everything.
    pub scope: Vec<Vec<u8>>,
    /// Inode numbers of both trees are of one volume: the same number is the same object.
    pub identity: bool,
    /// Nothing is taken as equal because of its inode number and times.
    pub thorough: bool,
    /// Between trees without common identity: files of equal size and mtime hold equal data.
    pub quick: bool,
    /// Tells which bytes of changed files differ.
    pub ranges: bool,
    /// Only objects with these inode numbers can differ; needs `identity`.
    pub only: Option<HashSet<u64>>,
    /// Only these directories lead to something that can differ, or to a name that can; needs `only`.
    pub within: Option<HashSet<u64>>,
    /// Side A is made what side B is.
    pub restore: bool,
    /// Nobody reads side A meanwhile: files are made under their own name.
    pub private: bool,
}
