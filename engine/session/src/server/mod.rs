//! The producer's side: a server whose sessions do not wait for each other.
//!
//! One thread serves all connections ([`kvrail_host::reactor`]); what may block, the making of
//! lanes, happens on a few others ([`kvrail_host::workers`]).
//!
//! | file | what |
//! |---|---|
//! | `config.rs` | what a server is given, and what it reports |
//! | `shared.rs` | limits, counts, and what all parts of a server share |
//! | `acceptor.rs` | which connections are accepted |
//! | `connection.rs` | one connection: its handshake, its session, its end |
//! | `handshake.rs` | the handshake, up to the reader's introduction |
//! | `session.rs` | an established session, and `times.rs` how its peer's death is noticed |
//! | `handovers.rs` | the hand-overs, which the owner of the pages and the sessions share |
//! | `pools.rs` | the pools, and how each reader is told of them |
//! | `lanes.rs` | the lanes of one session |
//! | `shop.rs` | the threads that make and free lanes |

mod acceptor;
mod config;
mod connection;
mod handovers;
mod handshake;
mod lanes;
mod pools;
mod session;
mod shared;
mod shop;
#[cfg(test)]
mod tests;
mod times;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::listener::Listener;
use kvrail_host::reactor::Reactor;

pub use self::config::{Observer, ProducerDescription, ServeError, ServerConfig, ServerEvent};
pub use self::handovers::{OpenHandoverError, SharedHandovers};

use self::acceptor::ReaderAcceptor;
use self::pools::OfferedPools;
use self::shared::Shared;
use self::shop::{LaneShop, StopLanes};
use crate::address::Address;
use crate::key::PeerKeys;
use crate::lane::LaneAcceptor;
use crate::liveness::{LINGER, SILENCE};
use crate::offer::Epoch;
use crate::pool::{Pool, PoolError, PoolId};

/// The producer's side of all sessions: one thread for the connections, and a few that make lanes.
/// Dropping it stops it, as [`stop`](Server::stop) does, within two seconds.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Taken when the server stops.
    reactor: Option<Reactor>,
    lanes: Arc<dyn StopLanes>,
    owner: OwnerProcess,
}

impl Server {
    /// Listens on `address` (port 0: any free one) for readers that hold one of `keys`, offers them
    /// `producer`'s pools, and makes lanes for them with `acceptor`. A new epoch begins.
    ///
    /// Without a key, the server authenticates no reader: it listens on a loopback address alone,
    /// unless [`ServerConfig::serve_anyone`] says otherwise.
    ///
    /// # Errors
    ///
    /// The address, the pools or the rails are wrong, there is no key, or the system refused
    /// something.
    pub fn start<R: LaneAcceptor>(
        address: &Address,
        keys: impl Into<PeerKeys>,
        producer: ProducerDescription,
        acceptor: R,
        config: ServerConfig,
    ) -> Result<Self, ServeError> {
        let (keys, rails, config) = (keys.into(), acceptor.rails(), config.bounded());
        if rails.is_empty() && config.services.is_empty() {
            return Err(ServeError::NoRails);
        }
        let ProducerDescription { node, pools } = producer;
        let pools = OfferedPools::new(pools)?;
        let listener = listen(address, keys.is_none() && !config.serve_anyone)?;
        let address = listener.local_addr();
        let reactor = Reactor::start("kvrail-sessions").map_err(ServeError::Thread)?;
        let shared = Arc::new(Shared::new(keys, node, pools, rails, config, reactor.handle())?);
        if shared.keys.is_none() && !is_loopback(address) {
            tracing::warn!(%address, "without a key, every host that reaches this address is served");
        }
        tracing::info!(%address, node = %shared.node, epoch = %shared.epoch, "listening");
        let shop = LaneShop::new(Arc::clone(&shared), acceptor);
        let lanes = Arc::clone(&shop) as Arc<dyn StopLanes>;
        let decides = Box::new(ReaderAcceptor::new(shop));
        reactor.handle().listen(listener, decides).map_err(ServeError::Thread)?;
        Ok(Self { shared, address, reactor: Some(reactor), lanes, owner: OwnerProcess::current() })
    }

    /// The address that it listens on, with the port that it got.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The epoch of this server: another one after each start.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// How many sessions there are. A session counts until all its lanes are freed.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.sessions()
    }

    /// Lanes that readers hold on each rail.
    #[must_use]
    pub fn lanes(&self) -> Vec<u32> {
        self.shared.lanes()
    }

    /// Offers `pool` to all sessions from now on.
    ///
    /// # Errors
    ///
    /// Its number was used before, or there are too many pools. Nothing has changed.
    pub fn add_pool(&self, pool: Pool) -> Result<(), PoolError> {
        self.shared.pools.add(pool)?;
        self.shared.notify_all();
        Ok(())
    }

    /// Takes a pool back: all sessions are told. Returns whether there was such a pool.
    ///
    /// A reader learns of it when the message has come, so it may still read what it knows of.
    pub fn remove_pool(&self, pool: PoolId) -> bool {
        let removed = self.shared.pools.remove(pool);
        if removed {
            self.shared.notify_all();
        }
        removed
    }

    /// Its hand-overs, for the owner of the pages.
    #[must_use]
    pub fn handovers(&self) -> SharedHandovers {
        self.shared.handovers.clone()
    }

    /// Accepts no more connections, ends every session and hand-over and releases its lanes.
    /// Returns how many sessions had not ended at `deadline`: 0, unless a [`LaneAcceptor`] hangs.
    /// Each of them ends when the acceptor returns.
    ///
    /// In a child of a fork it does nothing: the server is the parent's.
    pub fn stop(&mut self, deadline: Instant) -> usize {
        if !self.owner.is_current() {
            return 0;
        }
        if let Some(reactor) = self.reactor.take() {
            // First, so that no hand-over ends as that of a lost session.
            self.shared.handovers.stop();
            self.shared.stop();
            // Each connection is told, and lingers then. One that has just come may get the
            // reactor's deadline instead: its peer is not to delay the stop.
            reactor.stop(deadline.min(Instant::now() + 2 * LINGER));
        }
        let left = self.shared.await_sessions(deadline);
        if left == 0 {
            self.lanes.stop(deadline);
        }
        left
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let left = self.stop(Instant::now() + 2 * LINGER);
        if left > 0 {
            tracing::error!(left, "sessions outlive their server: a transport is stuck");
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .field("node", &self.shared.node)
            .field("epoch", &self.shared.epoch)
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}

/// Whether no other host reaches the address. One that names all interfaces can be reached.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Listens on the first address that `address` has and that can be listened on.
fn listen(address: &Address, loopback_only: bool) -> Result<Listener, ServeError> {
    let resolve = |source| ServeError::Resolve { address: address.clone(), source };
    let found = address.resolve(Instant::now() + SILENCE).map_err(resolve)?;
    let mut last = resolve(io::ErrorKind::NotFound.into());
    for address in found {
        if loopback_only && !is_loopback(address) {
            return Err(ServeError::NoKey { address });
        }
        match Listener::bind(address, "kvrail-listen") {
            Ok(listener) => return Ok(listener),
            Err(source) => last = ServeError::Listen { address, source },
        }
    }
    Err(last)
}
