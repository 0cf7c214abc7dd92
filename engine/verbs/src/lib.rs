//! The RDMA rail: one-sided READs over libibverbs, on RoCE and InfiniBand.
//!
//! libibverbs is opened at run time: what is built with this crate starts on a host without it, and then says what
//! is missing ([`RailError`]).
//!
//! # From the outside in
//!
//! 1. [`rail::open`] opens ports by name, or all of them (`auto`), for a reader or for a producer. Each [`Rail`] has
//!    chosen its address ([`gid`]) and says in the log why.
//! 2. A reader's rails become a [`Verbs`], which is a [`Provider`](kvrail_core::provider::Provider) for an engine; a
//!    producer registers what it publishes as a [`Region`], readable by peers and nothing else.
//! 3. [`pair`](pair::pair) says which rail reads from which; a [`Dialer`] and an [`Acceptor`] make the two ends of a lane,
//!    exchanging 64 bytes each way ([`wire`]); the engine has it opened by [`Verbs`].
//! 4. The engine posts by core's `ibv_send_wr` encoder through the context's own table, and polls into core's `Wc`;
//!    that these structs are the library's is proven at compile time (`abi.rs`).
//!
//! Underneath: `qp.rs`, the states of a QP as types; `control.rs`, the thread for what blocks; `events.rs`, what
//! devices say; `wait.rs`, how an engine sleeps; `mr.rs`, registered memory.
//!
//! # What it has run on
//!
//! SoftRoCE only, so far: `docs/rdma.md` says what that means, and what is written and has never run.
//!
//! # Forks
//!
//! See [`ForkSafety`]. A child must not use anything of this crate that its parent made.

mod abi;
mod bell;
mod config;
mod control;
mod cq;
mod device;
mod dial;
mod error;
mod events;
pub mod gid;
#[cfg(feature = "cuda")]
pub mod gpu;
mod interfaces;
mod lag;
mod lane;
mod locked;
mod losses;
mod mr;
pub mod pair;
mod port;
mod progress;
mod provider;
mod qp;
pub mod rail;
mod sysfs;
mod templates;
mod wait;
pub mod wire;

pub use bell::Waker;
pub use config::{Config, ConfigError, RNR_DELAY_MS};
pub use device::{Driver, ForkSafety, devices, fork_safety};
pub use dial::{Accepted, Acceptor, Dialer, Line, Pending};
pub use error::{Errno, LaneError, MemoryError, RailError, Unreachable};
pub use lane::{Lane, VerbsPost};
pub use mr::{Region, RegionError, Rights};
pub use provider::{StartError, Verbs};
pub use rail::{Rail, RailName, Side};
