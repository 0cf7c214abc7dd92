//! What a node counts of its own work, for Prometheus, for logs and for tests.
//!
//! The threads that get and put pages call the methods of [`NodeMetrics`]. Each of them is one or
//! a few additions to atomics: no lock, no memory of the heap, no system call. What has to be
//! looked up by a name is looked up once, at set-up: the row of a peer
//! ([`NodeMetrics::peer`]), the rails of a reader ([`NodeMetrics::rails`]).
//!
//! With the feature `metrics`, `export` shows all of it in a registry of the crate
//! `prometheus-client`, and `http` serves that. docs/metrics.md lists the names, and says what to
//! watch.

mod counters;
#[cfg(feature = "metrics")]
pub mod export;
#[cfg(feature = "metrics")]
pub mod http;
mod node;
mod peers;
mod rails;
mod reasons;
mod slow;
mod statuses;

pub use counters::{BUCKETS, Counter, HistogramCounts};
pub use node::{NodeMetrics, PEER_ROWS, PoolCounts};
pub use peers::{OTHER_PEERS, PeerConnection, PeerCounts, PeerMetrics, PeerRow, PeerState};
pub use rails::{RailCounts, RailGauges};
pub use reasons::MissReason;
pub use slow::{SlowLog, SlowRequest, TimeSpent};
