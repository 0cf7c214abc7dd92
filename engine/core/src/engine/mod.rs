//! The engine: it reads the pages of submitted batches over the rails of one thread.
//!
//! | file | what |
//! |---|---|
//! | `state.rs` | the struct `Engine`: its parts, and what can be asked of them |
//! | `start.rs` | an engine starts over a storage and a provider |
//! | `setup.rs` | the control path: peers and lanes |
//! | `register.rs` | the control path: destination memory |
//! | `pools.rs` | the control path: layouts, plans, what peers have published |
//! | `submit.rs` | batches are submitted, and come back done |
//! | `row_sets.rs` | what completions mean for sets of rows |
//! | `change.rs` | batches in flight are withdrawn, whole or page by page, or change their class |
//! | `report.rs` | pages are told of before their batch is done |
//! | `schedule.rs` | which peer has its turn, and which rail and lane take its work |
//! | `post/` | a run of chunks becomes one commit |
//! | `complete.rs` | completions return credits, and retire pages |
//! | `failover.rs` | lanes fail, are flushed, and their wrs go to other lanes |
//! | `doubt.rs` | pages that a failed lane carried, and that are not validated, are read again |
//! | `reconnect.rs` | lost lanes are reported, and requested from the control path |
//! | `demand.rs` | the first lanes of a peer that has work, and idle lanes that are given back |
//! | `suspects.rs` | wrs that kill lanes are tried alone, and their pages set aside |
//! | `deadlines.rs` | late batches, silent and stalled lanes, sleeping |

mod change;
mod circles;
mod complete;
mod deadlines;
mod demand;
mod doubt;
mod failover;
mod pools;
mod post;
mod reconnect;
mod register;
mod report;
mod row_sets;
mod schedule;
mod setup;
mod start;
mod state;
mod submit;
mod suspects;

pub use self::report::Arrival;
pub use self::setup::{AttachError, LaneSpec, PeerError};
pub use self::start::EngineStartError;
pub use self::state::Engine;
pub use self::submit::Rejected;
