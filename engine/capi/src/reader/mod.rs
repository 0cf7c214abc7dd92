//! The reader's side: a reader of any transport and size, in the caller's memory.
//!
//! | file | what |
//! |---|---|
//! | `room.rs` | the caller's memory, and the handle in it |
//! | `sizes.rs` | the sizes that readers come in, and which one a configuration needs |
//! | `config.rs` | a configuration in C, checked |
//! | `any.rs` | a reader of any transport |
//! | `tables.rs` | what numbers of a caller in C stand for: slots, peers, plans |
//! | `flight.rs` | the data path: batches, results, sleeping |
//! | `ranges.rs` | the data path in bulk: pages into consecutive slots, results of whole batches |
//! | `memory.rs` | memory that pages land in |
//! | `peers.rs` | connects, events, and what a peer has published |
//! | `takings.rs` | requests that are taken from peers |

pub(crate) mod any;
pub(crate) mod config;
pub(crate) mod flight;
pub(crate) mod memory;
pub(crate) mod peers;
pub(crate) mod ranges;
pub(crate) mod room;
mod sizes;
pub(crate) mod tables;
pub(crate) mod takings;

pub(crate) use self::memory::destination;
