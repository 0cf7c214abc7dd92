//! Rails over TCP: **functional only**.
//!
//! Where two machines share nothing but a network, or CI has no NIC, this lets everything above the
//! rails run. It answers no question about speed: a READ costs a round trip, both sides copy through
//! the kernel, the producer's processor works for every byte, and a rail carries out one READ at a
//! time over all its lanes, so a producer that has stopped holds up the others for as long as
//! [`STALL`]. Do not benchmark it; its label says so, too.
//!
//! The producer starts a [`TcpServer`] over what it publishes and tells its [`TcpAddress`]. The reader opens
//! a [`TcpConnection`] per lane:
//!
//! ```
//! use kvrail_core::id::{LaneId, RailIndex};
//! use kvrail_core::provider::Provider;
//! use kvrail_local::{LocalConfig, shm::Segment, tcp::{TcpConnection, TcpExport, TcpServer, TcpProvider}};
//! use std::sync::Arc;
//!
//! let segment = Arc::new(Segment::new(4096)?);
//! let server = TcpServer::start("127.0.0.1:0".parse()?, vec![TcpExport::segment(Arc::clone(&segment))])?;
//!
//! let mut rails = TcpProvider::start(LocalConfig { rails: 1, ..LocalConfig::default() })?;
//! let lane = rails.open(LaneId::new(0, 1), RailIndex(0), TcpConnection::open(server.address())?)?;
//! # drop(lane);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Keys and addresses are as for [`shm`](crate::shm): the remote address is the producer's own, the rkey
//! the region's number ([`TcpServer::regions`]). The server checks every request; one that strays is
//! answered with a status that becomes `REM_ACCESS_ERR`. A connection that ends, or on which nothing comes for
//! [`STALL`], gives `RETRY_EXC_ERR`.
//!
//! Both sides prove that they know the address. Nothing is encrypted: who listens on the wire learns
//! the address and the bytes.

mod address;
mod connection;
mod serve;
mod server;
mod wire;

pub use address::TcpAddress;
pub use connection::{STALL, TcpConnectError, TcpConnection};
pub use serve::{MAX_LANES, TcpExport};
pub use server::{MAX_EXPORTS, TcpServeError, TcpServer};

use crate::provider::LocalProvider;

/// A provider of rails over TCP. Functional only.
pub type TcpProvider = LocalProvider<TcpConnection>;
