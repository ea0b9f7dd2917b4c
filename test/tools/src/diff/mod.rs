//! Differential testing: one random sequence of operations, run on two trees.
//!
//! The data's way: [`gen`] picks an operation from its picture of the tree ([`catalogue`]); a
//! worker ([`worker`], one per identity) runs it on both sides ([`exec`]); [`compare`] judges the
//! two outcomes; [`run`] feeds the right side's outcome back to the generator, counts
//! ([`stats`]) and reports. [`limits`] is the list of differences that are the kernel's, not the
//! product's.

pub mod catalogue;
pub mod compare;
pub mod exec;
mod exec_attr;
mod exec_data;
mod exec_dir;
pub mod families;
pub mod gen;
mod gen_attr;
mod gen_data;
mod gen_name;
mod gen_open;
pub mod limits;
pub mod op;
pub mod outcome;
pub mod payload;
pub mod run;
pub mod sabotage;
pub mod stats;
pub mod worker;
