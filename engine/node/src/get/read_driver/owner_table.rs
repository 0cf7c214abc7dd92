//! The owners that a driver reads from: connected, connecting, or not reached.

use std::collections::HashMap;
use std::sync::Arc;

use kvrail::session::{Epoch, PoolId};
use kvrail::{Address, BlockError, ConnectError, Connecting, PageLayout, Peer, PeerPool};
use kvrail_core::id::PeerId;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;

use super::requests::PageAt;
use crate::get::owners::KnownOwner;
use crate::get::shared::Shared;
use crate::metrics::{PeerConnection, PeerCounts, PeerMetrics, PeerState};

/// The most owners of a driver. Beyond it those that are not connected are forgotten.
const MAX_ENTRIES: usize = 1_024;
/// The first wait after an owner was not reached, and the longest.
const FIRST_WAIT: Nanos = Nanos::from_millis(100);
const LONGEST_WAIT: Nanos = Nanos::from_secs(5);
/// Places of the table that finds an owner by its epoch without a hash.
const RECENT: usize = 256;

/// The stand of the connection to an owner.
#[derive(Debug)]
pub(super) enum Connection {
    /// There is none, and none is being made.
    None,
    /// There is no place for another peer: it is asked for when one may be free.
    WantsPlace,
    /// It is being made.
    Connecting,
    /// Pages can be read.
    Connected(Peer),
    /// It could not be made. It is not tried again before this time.
    Waiting(Time, Arc<str>),
    /// The owner was not where it was said to be: another one is there. It was started again, or
    /// the address is wrong, so it is looked for again after this time, or as soon as the directory
    /// says another address.
    Restarted(Time, Epoch),
}

/// A pool of an owner that can be read.
#[derive(Debug)]
pub(super) struct OwnerPool {
    id: PoolId,
    /// The number of its layout among those of the node.
    pub(super) layout: u32,
    pub(super) pool: PeerPool,
}

/// An owner.
#[derive(Debug)]
pub(super) struct OwnerEntry {
    pub(super) epoch: Epoch,
    pub(super) known: Option<Arc<KnownOwner>>,
    pub(super) connection: Connection,
    pub(super) pools: Vec<OwnerPool>,
    /// Pages that wait for the connection. Some may have gone elsewhere meanwhile.
    pub(super) waiting: Vec<PageAt>,
    /// Pages in flight.
    pub(super) in_flight: u32,
    pub(super) last_used: Time,
    failures: u32,
    /// Where it was looked for last.
    pub(super) tried: Option<Address>,
    /// The peer, as events name it.
    peer: Option<PeerId>,
    /// Its row in the node's metrics and the state of its connection there, while it is connected,
    /// and what is to be added there.
    metrics: Option<(PeerMetrics, PeerConnection)>,
    counts: PeerCounts,
}

impl OwnerEntry {
    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            known: None,
            connection: Connection::None,
            pools: Vec::new(),
            waiting: Vec::new(),
            in_flight: 0,
            last_used: Time::ZERO,
            failures: 0,
            tried: None,
            peer: None,
            metrics: None,
            counts: PeerCounts::default(),
        }
    }

    /// A page of the owner has arrived and is right, or is a miss.
    #[inline]
    pub(super) fn count(&mut self, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => {
                self.counts.pages += 1;
                self.counts.bytes += bytes;
            }
            None => self.counts.misses += 1,
        }
    }

    /// Counts pages of the owner that have arrived, and those that are misses.
    #[inline]
    pub(super) fn count_row(&mut self, arrived: u64, bytes: u64, misses: u64) {
        self.counts.pages += arrived;
        self.counts.bytes += bytes;
        self.counts.misses += misses;
    }

    /// Counts a page of the owner that failed with this status.
    pub(super) fn page_failed(&self, status: WcStatus) {
        if let Some((metrics, _)) = &self.metrics {
            metrics.page_failed(status);
        }
    }

    /// Adds what was read from the owner to the node's metrics, and shows its connection.
    fn show(&mut self, lanes: usize) {
        if let Some((metrics, connection)) = &mut self.metrics {
            metrics.add(std::mem::take(&mut self.counts));
            connection.set(PeerState {
                connections: 1,
                unhealthy: u64::from(lanes == 0 && self.in_flight > 0),
                lanes: lanes as u64,
                outstanding_pages: self.in_flight.into(),
            });
        }
    }

    pub(super) const fn is_connected(&self) -> bool {
        matches!(self.connection, Connection::Connected(_))
    }

    /// Its pool with this number.
    #[inline]
    pub(super) fn pool(&self, id: PoolId) -> Option<&OwnerPool> {
        self.pools.iter().find(|pool| pool.id == id)
    }

    /// Takes a connection into use.
    pub(super) fn connected(&mut self, peer: Peer, shared: &Shared, now: Time) {
        let layouts = &shared.layouts;
        let metrics = shared.metrics.peer(peer.producer().as_str());
        let connection = metrics.connection();
        self.metrics = Some((metrics, connection));
        self.pools.clear();
        for (number, layout) in (0..).zip(layouts) {
            let pools = peer.pools().iter().filter(|pool| same_bytes(pool, layout));
            self.pools.extend(pools.map(|pool| OwnerPool {
                id: pool.id(),
                layout: number,
                pool: pool.clone(),
            }));
        }
        if let Some(known) = &self.known {
            known.connected();
        }
        self.peer = Some(peer.id());
        self.connection = Connection::Connected(peer);
        self.failures = 0;
        self.last_used = now;
    }

    pub(super) fn add_pool(&mut self, pool: PeerPool, layouts: &[PageLayout]) {
        let layout = (0..).zip(layouts).find(|(_, layout)| same_bytes(&pool, layout));
        if let Some((layout, _)) = layout {
            self.pools.push(OwnerPool { id: pool.id(), layout, pool });
        }
    }

    pub(super) fn remove_pool(&mut self, id: PoolId) {
        self.pools.retain(|pool| pool.id != id);
    }

    /// The connection is gone, on purpose if `why` is `None`. Returns the peer.
    pub(super) fn disconnected(&mut self, why: Option<Arc<str>>, now: Time) -> Option<Peer> {
        self.show(0);
        self.metrics = None;
        self.pools.clear();
        self.peer = None;
        let connection = std::mem::replace(&mut self.connection, Connection::None);
        let Connection::Connected(peer) = connection else {
            self.connection = connection;
            return None;
        };
        if let Some(known) = &self.known {
            known.disconnected();
        }
        if let Some(why) = why {
            self.not_reached(why, now);
        }
        Some(peer)
    }

    /// Another owner is at the address.
    pub(super) fn restarted(&mut self, found: Epoch, now: Time) {
        self.connection = Connection::Restarted(self.back_off(now), found);
    }

    /// When a connection is tried again after one more failure.
    fn back_off(&mut self, now: Time) -> Time {
        let wait = Nanos((FIRST_WAIT.0 << self.failures.min(16)).min(LONGEST_WAIT.0));
        self.failures = self.failures.saturating_add(1);
        now + wait
    }

    /// The connection could not be made.
    pub(super) fn not_reached(&mut self, why: Arc<str>, now: Time) {
        let until = self.back_off(now);
        if let Some(known) = &self.known {
            known.unreachable(until);
        }
        self.connection = Connection::Waiting(until, why);
    }
}

fn same_bytes(pool: &PeerPool, layout: &PageLayout) -> bool {
    let offered = pool.layout();
    offered.fingerprint == layout.fingerprint()
        && offered.page_bytes.get() == u64::from(layout.page_bytes())
        && u32::from(offered.parts.get()) == layout.regions()
}

/// All owners of a driver, by numbers that stay the same.
pub(super) struct OwnerTable {
    entries: Vec<OwnerEntry>,
    free: Vec<u32>,
    by_epoch: HashMap<Epoch, u32>,
    /// The number of an owner that was asked for lately, at a place that its epoch says.
    recent: [Option<(Epoch, u32)>; RECENT],
    pub(super) connecting: HashMap<Connecting, u32>,
    /// Owners that want a place for a peer.
    pub(super) wanting: Vec<u32>,
}

impl OwnerTable {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_epoch: HashMap::new(),
            recent: [None; RECENT],
            connecting: HashMap::new(),
            wanting: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn get(&mut self, number: u32) -> &mut OwnerEntry {
        &mut self.entries[number as usize]
    }

    /// The number of the owner with this epoch, which is new if it is not known yet; `None` if
    /// there is no place for another owner.
    #[inline]
    pub(super) fn number_of(&mut self, epoch: Epoch) -> Option<u32> {
        let place = epoch.0.get() as usize % RECENT;
        match self.recent[place] {
            Some((recent, number)) if recent == epoch => Some(number),
            _ => {
                let number = self.find_or_add(epoch)?;
                self.recent[place] = Some((epoch, number));
                Some(number)
            }
        }
    }

    fn find_or_add(&mut self, epoch: Epoch) -> Option<u32> {
        if let Some(&number) = self.by_epoch.get(&epoch) {
            return Some(number);
        }
        if self.by_epoch.len() >= MAX_ENTRIES {
            self.forget_some();
        }
        let number = if let Some(number) = self.free.pop() {
            self.entries[number as usize] = OwnerEntry::new(epoch);
            number
        } else if self.entries.len() < MAX_ENTRIES {
            self.entries.push(OwnerEntry::new(epoch));
            self.entries.len() as u32 - 1
        } else {
            return None;
        };
        self.by_epoch.insert(epoch, number);
        Some(number)
    }

    /// Forgets the owners that are not in use.
    #[cold]
    fn forget_some(&mut self) {
        self.recent = [None; RECENT];
        let Self { entries, free, by_epoch, wanting, .. } = self;
        by_epoch.retain(|_, &mut number| {
            let entry = &entries[number as usize];
            let idle = matches!(
                entry.connection,
                Connection::None | Connection::Waiting(..) | Connection::Restarted(..)
            );
            let keep = !idle || entry.in_flight > 0 || !entry.waiting.is_empty() || wanting.contains(&number);
            if !keep {
                free.push(number);
            }
            keep
        });
    }

    /// The owner of a peer.
    pub(super) fn of_peer(&mut self, peer: PeerId) -> Option<u32> {
        self.entries.iter().position(|entry| entry.peer == Some(peer)).map(|number| number as u32)
    }

    /// The connected owner that has been idle for the longest.
    pub(super) fn idle(&self) -> Option<u32> {
        let idle = (0..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.is_connected() && entry.in_flight == 0 && entry.waiting.is_empty());
        idle.min_by_key(|(_, entry)| entry.last_used).map(|(number, _)| number)
    }

    /// Adds what was read from each owner to the node's metrics, and shows the connections; `lanes`
    /// says how many lanes lead to a peer.
    pub(super) fn show(&mut self, lanes: impl Fn(&Peer) -> usize) {
        for entry in &mut self.entries {
            if let Connection::Connected(peer) = &entry.connection {
                let lanes = lanes(peer);
                entry.show(lanes);
            }
        }
    }

    /// How many owners are connected.
    pub(super) fn connected(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_connected()).count()
    }
}

/// Whether a connect was refused for want of a place.
pub(super) const fn wants_place(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Peer(_) | ConnectError::TooManyConnects { .. })
}

/// Whether a location is refused since the pool does not have the slot.
pub(super) const fn is_beyond(error: &BlockError) -> bool {
    matches!(error, BlockError::Slot { .. } | BlockError::Range(_))
}
