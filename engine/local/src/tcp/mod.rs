//! Rails over TCP: **functional only**.
//!
//! These rails let everything above the rails run where two machines share nothing but a network,
//! or where CI has no NIC. Their speed says nothing about other rails: a READ costs a round trip,
//! both sides copy through the kernel, the producer's processor works for every byte, and a rail
//! carries out one READ at a time over all its lanes, so a producer that has stopped delays the
//! other lanes by up to [`STALL`]. Do not benchmark them; their label says "functional only", too.
//!
//! The producer starts a [`TcpServer`], exports memory by it, and sends its [`TcpAddress`] to
//! readers. A reader opens a [`TcpConnection`] per lane:
//!
//! ```
//! use kvrail_core::id::{LaneId, RailIndex};
//! use kvrail_core::provider::Provider;
//! use kvrail_local::{LocalConfig, shm::Segment};
//! use kvrail_local::tcp::{ExportedMemory, TcpConnection, TcpProvider, TcpServer};
//! use std::sync::Arc;
//!
//! let segment = Arc::new(Segment::new(4096)?);
//! let server = TcpServer::start("127.0.0.1:0".parse()?)?;
//! let export = server.export(ExportedMemory::segment(Arc::clone(&segment)))?;
//!
//! let mut rails = TcpProvider::start(LocalConfig { rails: 1, ..LocalConfig::default() })?;
//! let lane = rails.open(LaneId::new(0, 1), RailIndex(0), TcpConnection::open(server.address())?)?;
//! # drop(lane);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Keys and addresses are as for [`shm`](crate::shm): the remote address is an address of the
//! producer, the rkey the export's ([`TcpExported::region`]). The server checks every
//! request. It answers a request outside a region with a status that becomes `REM_ACCESS_ERR`. A
//! READ completes with `RETRY_EXC_ERR` if the connection ends, or if no byte comes for [`STALL`].
//!
//! Both sides prove that they know the address. Nothing is encrypted: a process that reads the wire
//! learns the address and the bytes.

mod address;
mod connection;
mod exports;
mod serve;
mod server;
mod wire;

pub use address::TcpAddress;
pub use connection::{STALL, TcpConnectError, TcpConnection};
pub use exports::{TcpExportError, TcpExported};
pub use kvrail_host::exported::{Backing, ExportedMemory};
pub use serve::MAX_LANES;
pub use server::{TcpServeError, TcpServer};

use crate::provider::LocalProvider;

/// A provider of rails over TCP. Functional only.
pub type TcpProvider = LocalProvider<TcpConnection>;
