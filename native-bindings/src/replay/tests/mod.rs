//! Tests of replay: real operations on a source tree, their records replayed on a copy of the base,
//! the two trees compared bit for bit; the same with the process dying at every possible place.

mod codes;
pub mod crash;
mod faults;
mod fills;
mod history;
mod images;
mod journal;
mod kills;
mod ops;
mod power;
pub mod random;
mod scan;
pub mod source;
mod speed;
pub mod tree;
pub mod world;
