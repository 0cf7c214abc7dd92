//! Rails over TCP: **functional only**.
//!
//! Where two machines share nothing but a network, or CI has no NIC, this lets everything above the
//! rails run. It answers no question about speed: a READ costs a round trip, both sides copy through
//! the kernel, the producer's processor works for every byte, and a rail carries out one READ at a
//! time over all its lanes, so a producer that has stopped holds up the others for as long as
//! [`STALL`]. Do not benchmark it; its label says so, too.
//!
//! The producer starts a [`Server`] over what it publishes and tells its [`Address`]. The reader opens
//! a [`Connection`] per lane:
//!
//! ```
//! use kvrail_core::id::{LaneId, RailIndex};
//! use kvrail_core::provider::Provider;
//! use kvrail_local::{Config, shm::Segment, tcp::{Connection, Export, Server, Tcp}};
//! use std::sync::Arc;
//!
//! let segment = Arc::new(Segment::new(4096)?);
//! let server = Server::start("127.0.0.1:0".parse()?, vec![Export::segment(Arc::clone(&segment))])?;
//!
//! let mut rails = Tcp::start(Config { rails: 1, ..Config::default() })?;
//! let lane = rails.open(LaneId::new(0, 1), RailIndex(0), Connection::open(server.address())?)?;
//! # drop(lane);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Keys and addresses are as for [`shm`](crate::shm): the remote address is the producer's own, the rkey
//! the region's number ([`Server::regions`]). The server checks every request; one that strays is
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

pub use address::Address;
pub use connection::{ConnectError, Connection, STALL};
pub use serve::{Export, MAX_LANES};
pub use server::{MAX_EXPORTS, ServeError, Server};

use crate::rails::Rails;

/// Rails over TCP. Functional only.
pub type Tcp = Rails<Connection>;
