//! Concurrent load with a log of acknowledgements, verifiable after a crash.
//!
//! Each thread owns a directory and a share of names in a common one. Its operations follow from
//! the seed and from a model of what it owns ([`model`], [`plan`]), so that the log ([`ack`])
//! needs only say how many operations were acknowledged. [`check`] replays the model and
//! compares it with what is there ([`observe`]); [`durable`] does the same for what must have
//! survived a power loss; [`run`] is the load itself. File content is self-describing
//! ([`cell`]), so lost, stale and torn data are told apart.

pub mod ack;
pub mod cell;
pub mod check;
pub mod durable;
pub mod model;
pub mod observe;
pub mod plan;
pub mod run;
