//! Queues and sets of fixed size: between two threads, shared by all, and of one thread.

#[cfg(not(loom))]
pub(crate) mod fifo;
pub(crate) mod free;
pub(crate) mod spsc;

pub use self::spsc::{Consumer, Producer, Ring};
