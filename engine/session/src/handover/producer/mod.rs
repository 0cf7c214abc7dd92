//! The producer's side: all hand-overs of one producer.

mod memory;
mod messages;
mod outcome;
mod owner;
mod session;
mod state;

pub use self::outcome::{EndedHandover, HandoverOutcome};
pub use self::state::Handovers;
