//! The producer's side.

mod config;

use std::net::SocketAddr;
use std::time::Instant;

pub use config::{Observer, ProducerDescription, ServeError, ServerConfig, ServerEvent};

use crate::address::Address;
use crate::key::PeerKeys;
use crate::lane::LaneAcceptor;
use crate::offer::Epoch;
use crate::pool::{Pool, PoolError, PoolId};

/// The producer's side of all sessions: one thread for the connections, and a few that make lanes.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts to listen on `address`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the pools cannot be offered.
    pub fn start<R: LaneAcceptor>(
        address: &Address,
        keys: impl Into<PeerKeys>,
        producer: ProducerDescription,
        acceptor: R,
        config: ServerConfig,
    ) -> Result<Self, ServeError> {
        let _ = (address, keys.into(), producer, acceptor, config);
        todo!()
    }

    /// The address that it listens on, with the port that it got.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// The epoch of this server: another one after each start.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        todo!()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        todo!()
    }

    /// Lanes that readers hold on each rail.
    #[must_use]
    pub fn lanes(&self) -> Vec<u32> {
        todo!()
    }

    /// Offers `pool` to all sessions from now on.
    ///
    /// # Errors
    ///
    /// Its number was used before, or there are too many pools. Nothing has changed.
    pub fn add_pool(&self, pool: Pool) -> Result<(), PoolError> {
        let _ = pool;
        todo!()
    }

    /// Takes a pool back: all sessions are told. Returns whether there was such a pool.
    pub fn remove_pool(&self, pool: PoolId) -> bool {
        let _ = pool;
        todo!()
    }

    /// Accepts no more connections, ends every session and releases its lanes. Returns how many
    /// connections had not ended at `deadline`: 0, unless a [`LaneAcceptor`] hangs.
    pub fn stop(&mut self, deadline: Instant) -> usize {
        let _ = deadline;
        todo!()
    }
}
