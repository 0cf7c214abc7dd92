//! What all parts of a server share: its limits, its counts, its events and its pools.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kvrail_core::id::RailIndex;
use kvrail_host::log_limit::LogLimit;
use kvrail_host::reactor::{ConnectionId, Handle};

use super::config::{ServeError, ServerConfig, ServerEvent};
use super::handovers::SharedHandovers;
use super::pools::OfferedPools;
use crate::key::PeerKeys;
use crate::message::OfferHead;
use crate::name::NodeName;
use crate::offer::{Epoch, RailDescription, RailList};

/// What all parts of a server share.
pub(super) struct Shared {
    pub(super) keys: PeerKeys,
    pub(super) node: NodeName,
    pub(super) epoch: Epoch,
    pub(super) rails: RailList,
    pub(super) config: ServerConfig,
    pub(super) pools: OfferedPools,
    pub(super) handovers: SharedHandovers,
    /// For log lines that readers can cause.
    pub(super) lane_log: LogLimit,
    /// For log lines that any host can cause.
    log: LogLimit,
    reactor: Handle,
    /// Lanes on each rail now.
    loads: Vec<AtomicU32>,
    stopping: AtomicBool,
    /// The connections that are to be notified of changes.
    connections: Mutex<BTreeSet<ConnectionId>>,
    /// Sessions that have not ended, or whose lanes are not all freed.
    sessions: Mutex<usize>,
    session_ended: Condvar,
    session_numbers: AtomicU64,
}

/// The locks here guard plain values, which are valid whichever thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// What the parts of a new server share. A new epoch begins.
    pub(super) fn new(
        keys: PeerKeys,
        node: NodeName,
        pools: OfferedPools,
        rails: RailList,
        config: ServerConfig,
        reactor: Handle,
    ) -> Result<Self, ServeError> {
        Ok(Self {
            keys,
            node,
            epoch: Epoch::random().map_err(ServeError::Random)?,
            loads: rails.iter().map(|_| AtomicU32::new(0)).collect(),
            rails,
            handovers: SharedHandovers::new(config.handovers, reactor.clone())?,
            config,
            pools,
            lane_log: LogLimit::new(),
            log: LogLimit::new(),
            reactor,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            sessions: Mutex::new(0),
            session_ended: Condvar::new(),
            session_numbers: AtomicU64::new(1),
        })
    }

    /// The offer without its pools, and with the lanes that are on each rail now.
    pub(super) fn offer_head(&self) -> OfferHead {
        let loaded = self.rails.iter().zip(self.lanes());
        let rails = loaded.map(|(rail, lanes)| RailDescription { lanes, ..*rail }).collect();
        OfferHead { node: self.node, epoch: self.epoch, rails }
    }

    /// Lanes on each rail now.
    pub(super) fn lanes(&self) -> Vec<u32> {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).collect()
    }

    /// A lane was made on `rail`, which exists.
    pub(super) fn lane_made(&self, rail: RailIndex) {
        self.loads[rail.get()].fetch_add(1, Ordering::Relaxed);
    }

    /// A lane on `rail` is being freed.
    pub(super) fn lane_freed(&self, rail: RailIndex) {
        self.loads[rail.get()].fetch_sub(1, Ordering::Relaxed);
    }

    /// From now on no session begins, and each connection that is notified ends.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Has the connection `id` look for what is new.
    pub(super) fn notify(&self, id: ConnectionId) {
        self.reactor.notify(id);
    }

    /// Has all connections look for what is new.
    pub(super) fn notify_all(&self) {
        let connections: Vec<_> = lock(&self.connections).iter().copied().collect();
        for id in connections {
            self.reactor.notify(id);
        }
    }

    /// How many sessions have not ended, or have lanes that are not freed.
    pub(super) fn sessions(&self) -> usize {
        *lock(&self.sessions)
    }

    /// The number of a new session.
    pub(super) fn next_session_number(&self) -> u64 {
        self.session_numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until all sessions have ended and all lanes are freed, and returns how many sessions
    /// are left at `deadline`.
    pub(super) fn await_sessions(&self, deadline: Instant) -> usize {
        let mut sessions = lock(&self.sessions);
        while *sessions > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.session_ended.wait_timeout(sessions, left);
            sessions = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *sessions
    }

    /// Logs an event, and passes it to the observer. A panic of the observer goes no further, as
    /// events are reported in the middle of other work.
    pub(super) fn report(&self, event: ServerEvent) {
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
            let _ = catch_unwind(AssertUnwindSafe(|| observer(event)));
        }
    }
}

/// One of the sessions that may exist at a time; counted until it is dropped.
pub(super) struct SessionCount(Arc<Shared>);

impl SessionCount {
    /// Counts one more, if the limit allows.
    pub(super) fn new(shared: &Arc<Shared>) -> Option<Self> {
        let mut sessions = lock(&shared.sessions);
        if *sessions >= shared.config.max_sessions {
            return None;
        }
        *sessions += 1;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for SessionCount {
    fn drop(&mut self) {
        *lock(&self.0.sessions) -= 1;
        self.0.session_ended.notify_all();
    }
}

/// A connection that is notified of changes, until this is dropped.
pub(super) struct Registration {
    shared: Arc<Shared>,
    id: ConnectionId,
}

impl Registration {
    pub(super) fn new(shared: &Arc<Shared>, id: ConnectionId) -> Self {
        lock(&shared.connections).insert(id);
        Self { shared: Arc::clone(shared), id }
    }

    pub(super) const fn id(&self) -> ConnectionId {
        self.id
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.shared.connections).remove(&self.id);
    }
}

/// One of a number of places, until it is dropped.
pub(super) struct Permit(Arc<AtomicUsize>);

impl Permit {
    /// Takes a place if fewer than `limit` are taken in `count`.
    pub(super) fn new(count: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let more = |now| (now < limit).then_some(now + 1);
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Self(Arc::clone(count)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
