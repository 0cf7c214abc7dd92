//! The RDMA rail: one-sided READs over libibverbs, on RoCE and InfiniBand.
//!
//! libibverbs is opened at run time: a program that is built with this crate starts on a host
//! without it, and opening a rail there fails with what is missing ([`RailError`]).
//!
//! # From the outside in
//!
//! 1. [`rail::open`] opens ports by name, or all of them (`auto`), for a reader or for a producer.
//!    Each [`Rail`] chooses its address ([`gid`]) and logs why.
//! 2. A reader's rails become a [`Verbs`], which is a [`Provider`](kvrail_core::provider::Provider)
//!    for an engine. A producer registers the memory that it publishes as a [`VerbsRegion`], which
//!    peers can read and cannot write.
//! 3. [`pairing`] chooses the producer's rail that each rail of the reader reads from. A
//!    [`QpDialer`] and a [`QpAcceptor`] make the two ends of a lane and exchange 64 bytes each way
//!    ([`wire`]); then [`Verbs`] opens the lane for the engine.
//! 4. An [`Encoder`] puts the engine's READs into the lane's send queue: [`SendWrEncoder`], on any
//!    device. Completions are polled into core's `Wc`. `abi.rs` proves at compile time that core's
//!    structs have the layout of the library's.
//!
//! # Folders
//!
//! | folder | holds |
//! |---|---|
//! | `device/` | devices and ports; the choice of a port's address is kvrail-host's |
//! | `rail/` | an opened port with its domain and its completion queue (`cq.rs`) |
//! | `mr/` | registered memory |
//! | `qp/` | queue pairs: handle, states, destruction |
//! | `connect/` | the two ends of a lane, pairing of rails, lanes of bonded ports |
//! | `encoder/` | how work requests get into a send queue |
//! | `provider/` | the engine's side: lanes, polling, sleeping, the control thread, device events |
//! | `gpu/` | GPU memory as a destination (feature `cuda`) |
//!
//! # What it has run on
//!
//! So far this crate has run on SoftRoCE only: `docs/rdma.md` says what that means, and which code
//! has never run.
//!
//! # Forks
//!
//! See [`ForkSafety`]. A child must not use anything of this crate that its parent made.

mod abi;
mod config;
mod connect;
mod cq;
mod device;
mod encoder;
mod error;
#[cfg(feature = "cuda")]
pub mod gpu;
mod mr;
mod provider;
mod qp;
pub mod rail;
#[cfg(test)]
mod test_regressions;
#[cfg(test)]
mod test_seeds;
pub mod wire;

pub use config::{EncoderChoice, RNR_DELAY_MS, VerbsConfig, VerbsConfigError};
pub use connect::{AcceptedLane, PendingLane, QpAcceptor, QpDialer, UnopenedLane, pairing};
pub use device::{Driver, ForkSafety, devices, fork_safety, gid};
#[cfg(feature = "mlx5")]
pub use encoder::{ChosenEncoder, ChosenPost, ChosenQueue, Mlx5Encoder, Mlx5Post, Mlx5Queue};
pub use encoder::{Encoder, EncoderPost, SendWrEncoder, SendWrPost, SendWrQueue};
pub use error::{Errno, MrError, RailError, Unreachable, VerbsLaneError, VerbsRegionError, VerbsStartError};
pub use mr::{Rights, VerbsRegion};
pub use provider::{Verbs, VerbsLane, VerbsPost, VerbsWaker};
pub use rail::{PortName, Rail, Side};

static_assertions::assert_impl_all!(Verbs: Send);
static_assertions::assert_not_impl_any!(Verbs: Sync, Clone);
static_assertions::assert_impl_all!(VerbsLane: Send);
static_assertions::assert_not_impl_any!(VerbsLane: Clone, Copy);
static_assertions::assert_impl_all!(QpDialer: Send, Sync);
static_assertions::assert_impl_all!(QpAcceptor: Send, Sync);
