//! The producer's side: a server whose sessions do not wait for each other.
//!
//! | file | what |
//! |---|---|
//! | `shared.rs` | limits, events, and what all threads of a server share |
//! | `accept.rs` | the thread that accepts connections |
//! | `connection.rs` | one connection: its handshake, and then its session |
//! | `lanes.rs` | the producer's ends of one session's lanes |

mod accept;
mod connection;
mod lanes;
mod shared;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::listener::Listener;

use self::accept::accept;
use self::shared::Shared;
pub use self::shared::{Observer, ProducerDescription, ServeError, ServerConfig, ServerEvent};
use crate::address::Address;
use crate::key::PeerKey;
use crate::lane::LaneAcceptor;
use crate::offer::{Epoch, OfferedRegion, OfferedRegionError, check_regions};
use crate::stream::{LINGER, SILENCE};

/// A server that readers can connect to. Dropping it stops it, as [`stop`](Server::stop) does,
/// within two seconds.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
    owner: OwnerProcess,
}

impl Server {
    /// Listens on `address` (port 0: any free one) for readers that hold `key` and have
    /// `producer`'s layout, and makes lanes for them with `acceptor`. A new epoch begins.
    ///
    /// A thread accepts; every connection has one of its own.
    ///
    /// # Errors
    ///
    /// The address, the regions or the rails are wrong, or the system refused something.
    pub fn start<R: LaneAcceptor>(
        address: &Address,
        key: PeerKey,
        producer: ProducerDescription,
        acceptor: R,
        config: ServerConfig,
    ) -> Result<Self, ServeError> {
        check_regions(&producer.layout, &producer.regions)?;
        let rails = acceptor.rails();
        if rails.is_empty() {
            return Err(ServeError::NoRails);
        }
        let listener = listen(address)?;
        let address = listener.local_addr();
        let shared = Arc::new(Shared::new(key, producer, rails, config)?);
        tracing::info!(%address, node = %shared.node, epoch = %shared.epoch, "listening");
        let (of_thread, acceptor) = (Arc::clone(&shared), Arc::new(acceptor));
        let listener = std::thread::Builder::new()
            .name("kvrail-accept".into())
            .spawn(move || accept(&listener, of_thread, acceptor))
            .map_err(ServeError::Thread)?;
        Ok(Self { shared, address, listener: Some(listener), owner: OwnerProcess::current() })
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

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// Lanes that readers hold on each rail.
    #[must_use]
    pub fn lanes(&self) -> Vec<u32> {
        self.shared.loads.iter().map(|load| load.load(Ordering::Relaxed)).collect()
    }

    /// Offers `regions`, instead of the earlier ones, to sessions that are made from now on.
    ///
    /// # Errors
    ///
    /// They are not of the layout, or too many. Nothing has changed.
    pub fn publish(&self, regions: Vec<OfferedRegion>) -> Result<(), OfferedRegionError> {
        check_regions(&self.shared.layout, &regions)?;
        self.shared.publish(regions);
        Ok(())
    }

    /// Accepts no more connections, ends every session and releases its lanes. Returns how many
    /// connections had not ended at `deadline`: 0, unless a [`LaneAcceptor`] hangs.
    ///
    /// In a child of a fork it does nothing: the server is the parent's.
    pub fn stop(&mut self, deadline: Instant) -> usize {
        if !self.owner.is_current() {
            self.listener.take();
            return 0;
        }
        self.shared.stop.raise();
        if let Some(listener) = self.listener.take() {
            // The thread ends as soon as it sees the signal. A panic there has been printed.
            let _ = listener.join();
        }
        self.shared.wait_for_threads(deadline)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let left = self.stop(Instant::now() + 2 * LINGER);
        if left > 0 {
            tracing::error!(left, "connections outlive their server: a transport is stuck");
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

fn listen(address: &Address) -> Result<Listener, ServeError> {
    let resolve = |source| ServeError::Resolve { address: address.clone(), source };
    let found = address.resolve(Instant::now() + SILENCE).map_err(resolve)?;
    let mut last = resolve(io::ErrorKind::NotFound.into());
    for address in found {
        let failed = |source| ServeError::Listen { address, source };
        match Listener::bind(address, "kvrail-listen") {
            Ok(listener) => return Ok(listener),
            Err(source) => last = failed(source),
        }
    }
    Err(last)
}
