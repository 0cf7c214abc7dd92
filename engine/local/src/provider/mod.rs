//! The provider: rails whose work is done by threads of this process.
//!
//! | file | what it holds |
//! |---|---|
//! | `config` | sizes, checked once |
//! | `rails` | [`LocalProvider`]: all rails, as the engine's thread uses them |
//! | `rail` | one rail: its rings, its lanes, a commit that is being built |
//! | `worker` | the thread that carries out a rail's READs |
//! | `transport` | [`LaneTransport`]: what carries out a lane's READs |
//! | `copies` | copies that a worker and the waiting engine's thread carry out together |
//! | `registry` | which local memory the rails may write to |
//! | `progress`, `sleep` | how workers and the engine's thread sleep and wake each other |

#[cfg(not(loom))]
mod config;
mod copies;
mod progress;
#[cfg(not(loom))]
mod rail;
#[cfg(not(loom))]
mod rails;
#[cfg(not(loom))]
mod registry;
mod sleep;
mod sync;
#[cfg(not(loom))]
mod transport;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
pub use config::{LocalConfig, LocalOpenError, LocalStartError, MAX_CQ_ENTRIES};
#[cfg(not(loom))]
pub use progress::LocalWaker;
#[cfg(not(loom))]
pub use rail::{LocalLane, LocalPost};
#[cfg(not(loom))]
pub use rails::LocalProvider;
#[cfg(not(loom))]
pub use transport::LaneTransport;
