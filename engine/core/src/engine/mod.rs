//! The engine: one thread's rails, lanes, peers and batches.
//!
//! | file | what |
//! |---|---|
//! | `state.rs` | the state and who owns what |
//! | `start.rs` | engines start |
//! | `setup.rs` | regions and layouts, peers, lanes: the control path |
//! | `submit.rs` | batches in, done batches out |
//! | `schedule.rs` | whose turn it is, which rail, which lane |
//! | `post/` | a run of chunks becomes one commit |
//! | `complete.rs` | completions come back |
//! | `failover.rs` | lanes fail, are flushed, and what they had goes elsewhere |
//! | `reconnect.rs` | lost lanes are replaced |
//! | `suspects.rs` | wrs that kill lanes are found out, and set aside |
//! | `deadlines.rs` | deadlines, stalls, sleeping |

mod complete;
mod deadlines;
mod failover;
mod post;
mod reconnect;
mod schedule;
mod setup;
mod start;
mod state;
mod submit;
mod suspects;

pub use self::setup::{AttachError, LaneSpec, PeerError};
pub use self::start::EngineStartError;
pub use self::state::Engine;
pub use self::submit::Rejected;
