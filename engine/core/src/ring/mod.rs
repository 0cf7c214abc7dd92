//! Queues and sets of fixed size.
//!
//! | file | what |
//! |---|---|
//! | `spsc.rs` | a wait-free ring between two threads, for items of any type |
//! | `free.rs` | a set of free numbers that all threads share |
//! | `sleeper.rs` | how one thread wakes another one that sleeps |
//! | `fifo.rs` | a queue of one thread |
#![cfg_attr(loom, allow(dead_code, reason = "under loom the engine, which uses them, is not compiled"))]

#[cfg(not(loom))]
pub(crate) mod fifo;
pub(crate) mod free;
pub(crate) mod sleeper;
pub(crate) mod spsc;

pub use self::spsc::{Consumer, Producer, Ring, RingOver, RingSlot, RingSlots};
