//! Queues and sets of fixed size: between two threads, shared by all, and of one thread.
#![cfg_attr(loom, allow(dead_code, reason = "under loom the engine, which uses them, is not there"))]

#[cfg(not(loom))]
pub(crate) mod fifo;
pub(crate) mod free;
pub(crate) mod spsc;

pub use self::spsc::{Consumer, Producer, Ring, RingOver, RingSlot, RingSlots};
