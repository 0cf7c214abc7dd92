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

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod hello;
mod progress;
#[cfg(not(loom))]
mod rail;
#[cfg(not(loom))]
mod rails;
#[cfg(not(loom))]
mod region;
#[cfg(not(loom))]
mod registry;
mod ring;
#[cfg(not(loom))]
pub mod shm;
mod sleep;
mod sync;
#[cfg(not(loom))]
pub mod tcp;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
pub use address::AddressError;
#[cfg(not(loom))]
pub use config::{Config, MAX_CQ_ENTRIES, OpenError, StartError};
#[cfg(not(loom))]
pub use copy::{AROUND_THE_CACHE, copy_bytes};
#[cfg(not(loom))]
pub use progress::Waker;
#[cfg(not(loom))]
pub use rail::{Lane, Posting};
#[cfg(not(loom))]
pub use rails::Rails;
#[cfg(not(loom))]
pub use region::Region;
#[cfg(not(loom))]
pub use worker::Transport;
