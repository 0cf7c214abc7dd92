//! Rails on one host, for [`kvrail_core`]'s engine: no NIC needed.
//!
//! - [`shm`]: one-sided READs of another process's memory. Fast: two rails move what two threads of
//!   `memcpy` do, less a few per cent.
//! - [`tcp`]: a functional stand-in, for machines that share nothing but a network. It behaves like a
//!   rail, and says nothing about how fast one is.
//!
//! Both are [`Rails`] over a [`Transport`]: a worker thread per rail plays the NIC. It takes READs from
//! one wait-free ring and puts completions into another, in order; a lane behaves as a QP does, in
//! the error state too. The engine's thread takes no lock, and enters the kernel only to wake a
//! worker that sleeps, or to sleep itself.

mod address;
mod config;
mod copy;
mod hello;
mod mapping;
mod progress;
mod rail;
mod rails;
mod region;
mod registry;
mod ring;
mod secret;
mod segment;
pub mod shm;
mod sleep;
pub mod tcp;
mod worker;

pub use address::AddressError;
pub use config::{Config, MAX_CQ_ENTRIES, OpenError, StartError};
pub use copy::{AROUND_THE_CACHE, copy_bytes};
pub use progress::Waker;
pub use rail::{Lane, Posting};
pub use rails::Rails;
pub use region::Region;
pub use worker::Transport;
