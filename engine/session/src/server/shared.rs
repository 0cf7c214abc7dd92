//! The state that all threads of a server share: its limits, its events, and its counts.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvrail_host::log_limit::LogLimit;
use kvrail_host::secret::RandomError;
use kvrail_host::wake::StopSignal;

use crate::address::Address;
use crate::error::SessionError;
use crate::key::PeerKey;
use crate::name::NodeName;
use crate::offer::{Epoch, Layout, MAX_LANES, OfferedRegion, OfferedRegionError, RailList};
use crate::stream::SILENCE;

/// A producer, as it describes itself.
#[derive(Clone, Debug)]
pub struct ProducerDescription {
    /// Its name, for logs and errors on both sides.
    pub node: NodeName,
    /// The layout of all its regions.
    pub layout: Layout,
    /// The regions that it offers; [`Server::publish`](super::Server::publish) changes them.
    pub regions: Vec<OfferedRegion>,
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
    /// The regions are not of the layout, or too many.
    #[error(transparent)]
    Regions(#[from] OfferedRegionError),
    /// The transport has no rails.
    #[error("the transport has no rails: a producer needs at least one")]
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
            Self::Regions(source) => source.code(),
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
    /// Sessions at a time; each has a thread, which mostly sleeps. Default: 1024.
    pub max_sessions: usize,
    /// Lanes of one session. Default: 1024.
    pub max_lanes: usize,
    /// How long a peer may send nothing while a message from it is due. Default: ten seconds.
    pub silence: Duration,
    /// How long a whole handshake may take. Default: 20 seconds.
    pub handshake: Duration,
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
            max_sessions: 1024,
            max_lanes: 16 * MAX_LANES,
            silence: SILENCE,
            handshake: 2 * SILENCE,
            observer: None,
        }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("max_handshakes", &self.max_handshakes)
            .field("max_sessions", &self.max_sessions)
            .field("max_lanes", &self.max_lanes)
            .field("silence", &self.silence)
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

/// Handshakes beyond the limit: they have been displaced by others, and their threads are ending.
const LEAVING: usize = 64;

/// The state that all threads of a server share.
pub(crate) struct Shared {
    pub(crate) key: PeerKey,
    pub(crate) node: NodeName,
    pub(crate) layout: Layout,
    pub(crate) epoch: Epoch,
    pub(crate) rails: RailList,
    /// Lanes on each rail now.
    pub(crate) loads: Vec<AtomicU32>,
    pub(crate) config: ServerConfig,
    pub(crate) stop: Arc<StopSignal>,
    pub(crate) sessions: AtomicUsize,
    pub(crate) session_numbers: AtomicU64,
    /// Threads in a handshake, including those of displaced connections that are about to end.
    handshakes: AtomicUsize,
    /// For log lines that any host can cause.
    pub(crate) log: LogLimit,
    /// For log lines that readers can cause.
    pub(crate) lane_log: LogLimit,
    regions: Mutex<Arc<[OfferedRegion]>>,
    threads: Mutex<usize>,
    thread_ended: Condvar,
}

/// A poisoned lock guards plain values here, which are valid whichever thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// What the threads of a new server share, none of which runs yet. A new epoch begins.
    pub(crate) fn new(
        key: PeerKey,
        producer: ProducerDescription,
        rails: RailList,
        config: ServerConfig,
    ) -> Result<Self, ServeError> {
        Ok(Self {
            key,
            node: producer.node,
            layout: producer.layout,
            epoch: Epoch::random().map_err(ServeError::Random)?,
            loads: rails.iter().map(|_| AtomicU32::new(0)).collect(),
            rails,
            config,
            stop: Arc::new(StopSignal::new().map_err(|errno| ServeError::Thread(errno.into()))?),
            sessions: AtomicUsize::new(0),
            session_numbers: AtomicU64::new(1),
            handshakes: AtomicUsize::new(0),
            log: LogLimit::new(),
            lane_log: LogLimit::new(),
            regions: Mutex::new(producer.regions.into()),
            threads: Mutex::new(0),
            thread_ended: Condvar::new(),
        })
    }

    /// Offers `regions` from now on.
    pub(crate) fn publish(&self, regions: Vec<OfferedRegion>) {
        *lock(&self.regions) = regions.into();
    }

    /// Waits until all threads of connections have ended, and returns how many had not at
    /// `deadline`.
    pub(crate) fn wait_for_threads(&self, deadline: Instant) -> usize {
        let mut threads = lock(&self.threads);
        while *threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.thread_ended.wait_timeout(threads, left);
            threads = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *threads
    }

    /// The regions that are offered now.
    pub(crate) fn regions(&self) -> Arc<[OfferedRegion]> {
        Arc::clone(&lock(&self.regions))
    }

    /// Logs an event, and passes it to the observer.
    pub(crate) fn report(&self, event: ServerEvent) {
        match &event {
            ServerEvent::Failed { peer, why } => {
                if let Some(left_out) = self.log.allows() {
                    tracing::warn!(%peer, %why, left_out, "no session");
                }
            }
            ServerEvent::TurnedAway { peer, max_handshakes } => {
                if let Some(left_out) = self.log.allows() {
                    tracing::warn!(%peer, max_handshakes, left_out, "turned away");
                }
            }
            other => tracing::debug!(event = ?other, "session"),
        }
        if let Some(observer) = &self.config.observer {
            observer(event);
        }
    }

    /// Counts one more, if the limit allows.
    pub(crate) fn take(count: &AtomicUsize, limit: usize) -> bool {
        let more = |now| (now < limit).then_some(now + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// One of the handshakes that may run at a time, and one of the threads for which `stop` waits.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    in_handshake: bool,
}

impl Permit {
    pub(crate) fn new(shared: &Arc<Shared>) -> Option<Self> {
        let limit = shared.config.max_handshakes.saturating_add(LEAVING);
        if !Shared::take(&shared.handshakes, limit) {
            return None;
        }
        *lock(&shared.threads) += 1;
        Some(Self { shared: Arc::clone(shared), in_handshake: true })
    }

    /// Counts the handshake as over. The thread goes on.
    pub(crate) fn end_handshake(&mut self) {
        if std::mem::take(&mut self.in_handshake) {
            self.shared.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end_handshake();
        *lock(&self.shared.threads) -= 1;
        self.shared.thread_ended.notify_all();
    }
}
