//! RDMA READs written straight into the send queue of a ConnectX.
//!
//! `ibv_post_send` walks a chain of structs and writes a work queue entry for each. This crate
//! writes the entries itself: 48 bytes for a READ into one piece of memory. It also reads the
//! completion queue's entries itself, since libmlx5 can find the wr_id only of what it has posted.
//! It names no RDMA library, makes no system call and allocates nothing: the queues are memory that
//! its caller has got from `mlx5dv_init_obj`, or, in tests, from a model of the device.
//!
//! **It has met no ConnectX yet.** Its entries, doorbell records and doorbells equal those of
//! rdma-core's provider byte by byte (`tests/read_entries.rs`), and a model of the device finds in
//! them what was posted.
//!
//! # From the outside in
//!
//! 1. [`DirectRails`] is all rails of one thread: for each rail a completion queue and a doorbell
//!    register, and any number of send queues.
//! 2. [`DirectPost`] is a commit on one send queue, a [`Post`](kvrail_core::provider::Post).
//! 3. [`DirectCqe`] is a completion queue entry, parsed. Whatever the device writes,
//!    [`DirectCqe::parse`] gives an entry that this crate understands, or a [`CqeError`].
//!
//! # What a device must not be able to do
//!
//! Everything that the device writes is input from outside. An entry that cannot be right (another
//! operation, a wr that is not outstanding, a success after an error) makes its send queue
//! *distrusted*: the oldest outstanding wr is reported as failed, so that the engine gives the lane
//! up, and nothing that the device writes about this queue is believed from then on, not even a
//! flush. Only the destruction of the QP ends it.
#![no_std]

#[cfg(test)]
extern crate std;

mod barrier;
mod completion_queue;
mod cqe;
mod error;
mod format;
mod memory;
mod post;
mod posted;
mod rails;
mod send_queue;

pub use cqe::{CqeOutcome, DirectCqe, Syndrome};
pub use error::{CqeError, DirectQueueError};
pub use memory::{CompletionQueueMemory, DoorbellRegister, SendQueueMemory};
pub use post::DirectPost;
pub use posted::PostedWr;
pub use rails::{DirectRails, Distrusted, QueuePlace, QueueRef};
