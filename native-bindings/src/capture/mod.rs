//! Capture: from a dummy function to frames.
//!
//! `writer` reserves a slot in the ring before the real operation (an *intent*) and publishes it
//! after the effect; `drain` takes published records in seq order and packs them into frames;
//! `recover` reads what a dead process left; `gate` holds new mutations during a cut; `acks` makes
//! requests wait for replicas.

pub mod acks;
pub mod drain;
pub mod gate;
mod intents;
pub mod limits;
pub mod meeting;
pub mod recover;
pub mod ring;
pub mod writer;

pub use acks::Acks;
pub use gate::Gate;
pub use ring::{Ring, RingIdentity};
pub use writer::{Reserved, SlotWriter, StoredHandle};
