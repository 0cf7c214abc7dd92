//! What a server is given, and what it reports.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kvrail_host::secret::RandomError;

use crate::address::Address;
use crate::error::SessionError;
use crate::handover::{HandoverConfig, HandoverConfigError};
use crate::liveness::{LONGEST, SILENCE};
use crate::name::NodeName;
use crate::offer::MAX_LANES;
use crate::pool::{Pool, PoolError};
use crate::service::{Service, ServiceNumber, Services};

/// A producer, as it describes itself.
#[derive(Clone, Debug)]
pub struct ProducerDescription {
    /// Its name, for logs and errors on both sides.
    pub node: NodeName,
    /// The pools that it offers first; [`Server::add_pool`](super::Server::add_pool) and
    /// [`Server::remove_pool`](super::Server::remove_pool) change them.
    pub pools: Vec<Pool>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", hint(source, *.address))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: io::Error,
    },
    /// The name of the address does not resolve.
    #[error("cannot listen on {address}: {source}")]
    Resolve {
        /// The address.
        address: Address,
        /// What the resolver says.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: io::Error,
    },
    /// A pool cannot be offered.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The limits of hand-overs cannot be used.
    #[error(transparent)]
    Handovers(#[from] HandoverConfigError),
    /// There is no key, and the address is not one of loopback.
    #[error(
        "{address} can be reached from other hosts, and without a key everyone there would be served: give a key, listen on 127.0.0.1, or set serve_anyone"
    )]
    NoKey {
        /// The address.
        address: SocketAddr,
    },
    /// The transport has no rails, and there is no service that could be asked without one.
    #[error("the transport has no rails: a producer needs at least one, or a service")]
    NoRails,
    /// The system has no random numbers for an epoch.
    #[error("the system gave no random numbers: {0}")]
    Random(RandomError),
    /// The system has no thread or file descriptor left.
    #[error("cannot start the server's thread: {0}")]
    Thread(io::Error),
}

impl ServeError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Listen { .. } => 4060,
            Self::Resolve { .. } => 4061,
            Self::NoRails => 4062,
            Self::Random(_) => 4063,
            Self::Thread(_) => 4064,
            Self::NoKey { .. } => 4065,
            Self::Pool(source) => source.code(),
            Self::Handovers(source) => source.code(),
        }
    }
}

fn hint(source: &io::Error, address: SocketAddr) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "; another process has that port (`ss -ltnp sport = :{}` shows which, unless it is a kvrail producer): stop it, or choose another port, 0 for any free one",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this host has that address (`ip addr` lists them)".into()
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose a higher one".into(),
        _ => String::new(),
    }
}

/// Limits of a server.
#[derive(Clone)]
pub struct ServerConfig {
    /// Connections at a time that have not authenticated yet, at least 2. A further one displaces
    /// the oldest that has sent nothing valid, or else the oldest. One address (for IPv6 one /64
    /// network) gets half of the places. Default: 256.
    pub max_handshakes: usize,
    /// Sessions at a time. Default: 16,384.
    pub max_sessions: usize,
    /// Lanes of one session. Default: 1024.
    pub max_lanes: usize,
    /// How long a peer may send nothing while a message from it is due, a day at most. Default: ten
    /// seconds.
    pub silence: Duration,
    /// How long a whole handshake may take, a day at most. Default: 20 seconds.
    pub handshake: Duration,
    /// Without a key, serve every host that reaches the address, not loopback alone. Default:
    /// `false`.
    pub serve_anyone: bool,
    /// The limits of hand-overs, and their lease.
    pub handovers: HandoverConfig,
    /// What readers may ask. Default: none. A server with services needs no rails.
    pub services: Services,
    /// Called with every event, on the thread where the event happens, which may be the accepting
    /// one. It must not block. Default: none.
    pub observer: Option<Observer>,
}

/// A function that is called with each [`ServerEvent`].
pub type Observer = Arc<dyn Fn(ServerEvent) + Send + Sync>;

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_handshakes: 256,
            max_sessions: 16_384,
            serve_anyone: false,
            handovers: HandoverConfig::default(),
            services: Services::default(),
            max_lanes: 16 * MAX_LANES,
            silence: SILENCE,
            handshake: 2 * SILENCE,
            observer: None,
        }
    }
}

impl ServerConfig {
    /// The same, with a service: it takes the place of an earlier one of the same number.
    #[must_use]
    pub fn service(mut self, number: ServiceNumber, service: Arc<dyn Service>) -> Self {
        self.services.add(number, service);
        self
    }

    /// The same, with times that the clock can hold.
    pub(super) fn bounded(mut self) -> Self {
        self.silence = self.silence.min(LONGEST);
        self.handshake = self.handshake.min(LONGEST);
        self
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("max_handshakes", &self.max_handshakes)
            .field("max_sessions", &self.max_sessions)
            .field("max_lanes", &self.max_lanes)
            .field("silence", &self.silence)
            .field("handovers", &self.handovers)
            .field("services", &self.services)
            .field("serve_anyone", &self.serve_anyone)
            .field("handshake", &self.handshake)
            .finish_non_exhaustive()
    }
}

/// An event of a server.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A session is established.
    Opened {
        /// Its number, counted from 1.
        session: u64,
        /// The reader's address.
        peer: SocketAddr,
        /// Its name.
        reader: NodeName,
    },
    /// A session has ended, and all its lanes have been released.
    Closed {
        /// Its number.
        session: u64,
        /// The reader's name.
        reader: NodeName,
        /// Why: [`Cause::Bye`](crate::Cause::Bye) if all is well.
        why: SessionError,
    },
    /// A connection did not become a session.
    Failed {
        /// The peer's address.
        peer: SocketAddr,
        /// Why.
        why: SessionError,
    },
    /// A connection was turned away: there are too many handshakes, or the system has no thread
    /// left.
    TurnedAway {
        /// The peer's address.
        peer: SocketAddr,
        /// The limit.
        max_handshakes: usize,
    },
}
