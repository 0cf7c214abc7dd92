//! The producer's side: listen, and let no peer wait for another.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::listener::Listener;
use kvrail_host::log_limit::LogLimit;

use crate::accept::Acceptor;
use crate::address::Address;
use crate::error::SessionError;
use crate::fabric::Responder;
use crate::io::{LINGER, SILENCE, StopSignal};
use crate::key::PeerKey;
use crate::name::NodeName;
use crate::offer::{Epoch, Layout, MAX_LANES, OfferedRegion, Rails, RegionError, check_regions};

/// What a producer says of itself.
#[derive(Clone, Debug)]
pub struct Producer {
    /// Its name, for logs and errors on both sides.
    pub node: NodeName,
    /// The layout of all its regions.
    pub layout: Layout,
    /// What it publishes now; [`Server::publish`] changes it.
    pub regions: Vec<OfferedRegion>,
}

/// Limits of a server.
#[derive(Clone)]
pub struct ServerConfig {
    /// Connections at a time that have not proved that they hold the key, at least 2. One more
    /// sends the oldest away, of those that have said nothing if there are such; one address (for
    /// IPv6 a /64 network) has half of the places. 256.
    pub max_handshakes: usize,
    /// Sessions at a time; each has a thread, which sleeps. 1024.
    pub max_sessions: usize,
    /// Lanes of one session. 1024.
    pub max_lanes: usize,
    /// How long a peer may say nothing when it is its turn. Ten seconds.
    pub silence: Duration,
    /// How long a whole handshake may take. 20 seconds.
    pub handshake: Duration,
    /// Is told of everything that happens, on the thread where it does, the one that accepts included:
    /// must not block.
    pub observer: Option<Observer>,
}

/// Somebody to be told of [`ServerEvent`]s.
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

/// What happens at a server.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A session stands.
    Opened {
        /// Its number, counted from 1.
        session: u64,
        /// Where the reader is.
        peer: SocketAddr,
        /// What it calls itself.
        reader: NodeName,
    },
    /// A session is over; all its lanes have been released.
    Closed {
        /// Its number.
        session: u64,
        /// What the reader calls itself.
        reader: NodeName,
        /// Why: [`Cause::Bye`](crate::Cause::Bye) if all is well.
        why: SessionError,
    },
    /// No session came of a connection.
    Failed {
        /// Where the peer is.
        peer: SocketAddr,
        /// Why.
        why: SessionError,
    },
    /// A connection was turned away: those that were sent away for others are not gone yet, or no
    /// thread is to be had.
    TurnedAway {
        /// Where the peer is.
        peer: SocketAddr,
        /// The limit.
        max_handshakes: usize,
    },
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
        // Raw: the text has it, so it is no source beside the text.
        r#source: io::Error,
    },
    /// The name of the address does not resolve.
    #[error("cannot listen on {address}: {source}")]
    Resolve {
        /// The address.
        address: Address,
        /// What the resolver says.
        // Raw: the text has it, so it is no source beside the text.
        r#source: io::Error,
    },
    /// The regions are not of the layout, or too many.
    #[error(transparent)]
    Regions(#[from] RegionError),
    /// Nothing to read over.
    #[error("the responder has no rails: a producer needs at least one")]
    NoRails,
    /// The system has no random numbers for an epoch.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The system has no thread or file descriptor left.
    #[error("cannot start the server's thread: {0}")]
    Thread(io::Error),
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

/// Handshakes beyond the limit: those that were sent away for others, while their threads end.
const LEAVING: usize = 64;

/// What all threads of a server share.
pub(crate) struct Shared {
    pub(crate) key: PeerKey,
    pub(crate) node: NodeName,
    pub(crate) layout: Layout,
    pub(crate) epoch: Epoch,
    pub(crate) rails: Rails,
    /// Lanes on each rail now.
    pub(crate) loads: Vec<AtomicU32>,
    pub(crate) config: ServerConfig,
    pub(crate) stop: Arc<StopSignal>,
    pub(crate) sessions: AtomicUsize,
    pub(crate) session_numbers: AtomicU64,
    /// Threads in a handshake, those included that have been sent away and are about to end.
    handshakes: AtomicUsize,
    /// For what strangers can cause.
    pub(crate) log: LogLimit,
    /// For what readers can cause.
    pub(crate) lane_log: LogLimit,
    regions: Mutex<Arc<[OfferedRegion]>>,
    threads: Mutex<usize>,
    thread_ended: Condvar,
}

/// A poisoned lock guards plain values here, which are whole whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn regions(&self) -> Arc<[OfferedRegion]> {
        Arc::clone(&lock(&self.regions))
    }

    pub(crate) fn tell(&self, event: ServerEvent) {
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

/// One of the handshakes that may run at a time, and a thread that stopping waits for.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    shaking: bool,
}

impl Permit {
    pub(crate) fn new(shared: &Arc<Shared>) -> Option<Self> {
        let limit = shared.config.max_handshakes.saturating_add(LEAVING);
        if !Shared::take(&shared.handshakes, limit) {
            return None;
        }
        *lock(&shared.threads) += 1;
        Some(Self { shared: Arc::clone(shared), shaking: true })
    }

    /// The handshake is over; the thread goes on.
    pub(crate) fn shaken(&mut self) {
        if std::mem::take(&mut self.shaking) {
            self.shared.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shaken();
        *lock(&self.shared.threads) -= 1;
        self.shared.thread_ended.notify_all();
    }
}

/// A producer that can be connected to. Dropping it stops it, as [`stop`](Server::stop) does, within
/// two seconds.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
    owner: OwnerProcess,
}

impl Server {
    /// Listens on `address` (port 0: any free one) for readers that hold `key` and have `producer`'s
    /// layout, and makes lanes for them with `responder`. A new epoch begins.
    ///
    /// A thread accepts; every connection has one of its own.
    ///
    /// # Errors
    ///
    /// What is wrong with the address, the regions, the rails or the system.
    pub fn start<R: Responder>(
        address: &Address,
        key: PeerKey,
        producer: Producer,
        responder: R,
        config: ServerConfig,
    ) -> Result<Self, ServeError> {
        check_regions(&producer.layout, &producer.regions)?;
        let rails = responder.rails();
        if rails.is_empty() {
            return Err(ServeError::NoRails);
        }
        let listener = listen(address)?;
        let address = listener.local_addr();
        let shared = Arc::new(Shared {
            key,
            node: producer.node,
            layout: producer.layout,
            epoch: Epoch::random().map_err(ServeError::Random)?,
            loads: rails.iter().map(|_| AtomicU32::new(0)).collect(),
            rails,
            config,
            stop: Arc::new(StopSignal::new().map_err(ServeError::Thread)?),
            sessions: AtomicUsize::new(0),
            session_numbers: AtomicU64::new(1),
            handshakes: AtomicUsize::new(0),
            log: LogLimit::new(),
            lane_log: LogLimit::new(),
            regions: Mutex::new(producer.regions.into()),
            threads: Mutex::new(0),
            thread_ended: Condvar::new(),
        });
        tracing::info!(%address, node = %shared.node, epoch = %shared.epoch, "listening");
        let acceptor = Acceptor::new(listener, Arc::clone(&shared), Arc::new(responder));
        let listener = std::thread::Builder::new()
            .name("kvrail-accept".into())
            .spawn(move || acceptor.run())
            .map_err(ServeError::Thread)?;
        Ok(Self { shared, address, listener: Some(listener), owner: OwnerProcess::current() })
    }

    /// Where it listens, with the port that it got.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// This life of the producer.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// How many sessions stand.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// Lanes that readers hold on each rail.
    #[must_use]
    pub fn lanes(&self) -> Vec<u32> {
        self.shared.loads.iter().map(|load| load.load(Ordering::Relaxed)).collect()
    }

    /// Offers `regions` to the sessions made from now on, in place of what was offered before.
    ///
    /// # Errors
    ///
    /// They are not of the layout, or too many. Nothing has changed.
    pub fn publish(&self, regions: Vec<OfferedRegion>) -> Result<(), RegionError> {
        check_regions(&self.shared.layout, &regions)?;
        *lock(&self.shared.regions) = regions.into();
        Ok(())
    }

    /// Accepts nobody any more, says goodbye to every session and releases its lanes. Returns how many
    /// connections were still not done at `deadline`: 0, unless a [`Responder`] is stuck.
    ///
    /// In a child of a fork it does nothing: the server is the parent's.
    pub fn stop(&mut self, deadline: Instant) -> usize {
        if !self.owner.is_current() {
            self.listener.take();
            return 0;
        }
        self.shared.stop.raise();
        if let Some(listener) = self.listener.take() {
            // It waits for nothing but the signal. A panic there has been printed.
            let _ = listener.join();
        }
        let mut threads = lock(&self.shared.threads);
        while *threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.thread_ended.wait_timeout(threads, left);
            threads = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *threads
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let left = self.stop(Instant::now() + 2 * LINGER);
        if left > 0 {
            tracing::error!(left, "connections outlive their server: a responder is stuck");
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
