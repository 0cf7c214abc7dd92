//! The embedded directory: nodes of the group keep the records in memory and answer over sessions.
//!
//! A node that hosts a shard gives its server an [`EmbeddedShard`] as the
//! [service](kvrail::session::service) number [`DIRECTORY_SERVICE`]. All nodes have the same list
//! of *candidates*, the addresses of nodes that may host a shard, in the same order, and an
//! [`EmbeddedDirectory`] over it.
//!
//! # Which shard is asked
//!
//! A client keeps a session with the first two candidates that it reaches, in the order of the
//! list; candidates that are addresses of one shard count once. Owners announce to both. Look-ups
//! go to the first of the two that is *settled*: reached for as long as one lease, in which every
//! owner has renewed three times. So
//!
//! - when the first one dies, look-ups go to the second at once, which has the records already;
//! - when an earlier candidate comes back, empty, owners learn by [`renew`] that
//!   records are lost and announce all to it, and look-ups follow when the lease has passed. A
//!   candidate that comes and goes faster than that is never looked up at;
//! - a shard that is stopped, and not dead, is left after two heartbeats of a second without an
//!   answer.
//!
//! Two nodes that reach different candidates find each other's pages as long as the one announces
//! to the candidate at which the other looks up. If they reach no common candidate, they miss each
//! other's pages until they do: no answer is wrong, as records are hints.
//!
//! [`renew`]: crate::Directory::renew
//!
//! # What a shard holds
//!
//! Records in memory, at most as many as its [limit](ShardConfig::max_records), about 60 bytes
//! each. An owner whose lease has run out is passed over from that moment; its records are removed
//! by and by, a bounded number with each question, and make room for others at once where the shard
//! is full. A shard that is full says so to those who announce.
//!
//! The bytes of questions and answers are in docs/protocol.md, "Look-ups".

mod client;
mod config;
mod keeper;
mod owners;
mod shard;
mod state;
mod table;
pub mod wire;

pub use client::EmbeddedDirectory;
pub use config::{EmbeddedConfig, EmbeddedError};
pub use shard::{EmbeddedShard, ShardConfig};
pub use wire::DIRECTORY_SERVICE;
