//! Numbers per peer, for a bounded number of peers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kvrail_core::verbs_abi::WcStatus;

use super::statuses::StatusCounts;

/// The name of the row of all peers that have none of their own.
pub const OTHER_PEERS: &str = "other";

#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    bytes: AtomicU64,
    pages: AtomicU64,
    misses: AtomicU64,
    failed_pages: StatusCounts,
    // The sums of the states of all connections.
    connections: AtomicU64,
    unhealthy: AtomicU64,
    lanes: AtomicU64,
    outstanding_pages: AtomicU64,
}

/// What was read from one peer since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a reader fills it in")]
pub struct PeerCounts {
    /// Bytes of its pages that were found to be right.
    pub bytes: u64,
    /// Its pages that were found to be right.
    pub pages: u64,
    /// Its pages that were not served.
    pub misses: u64,
}

/// The connections to one peer, as they are at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a reader fills it in")]
pub struct PeerState {
    /// Connections: one of each reader that reads from the peer.
    pub connections: u64,
    /// Of these, connections that have pages to read and no lane to read them by.
    pub unhealthy: u64,
    /// Lanes that are up.
    pub lanes: u64,
    /// Pages that were submitted and have no result yet.
    pub outstanding_pages: u64,
}

/// What was read from one peer, and how its connections are, as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerRow {
    /// The counters.
    pub counts: PeerCounts,
    /// Its pages that failed: one count for each status of `verbs.h`, in the order of their
    /// numbers, and a last one for all other statuses.
    pub failed_pages: Vec<u64>,
    /// The connections.
    pub state: PeerState,
}

/// The counters of one peer, or of those that have no row of their own. It is made when the peer
/// is connected, and cloned for each thread that reads from it; the data path only adds.
#[derive(Clone, Debug)]
pub struct PeerMetrics(Arc<Row>);

impl PeerMetrics {
    /// Adds what was read from the peer since the last call.
    pub fn add(&self, counts: PeerCounts) {
        self.0.add(counts);
    }

    /// Counts a page of the peer that failed with this status, as
    /// [`PageError::Fault`](kvrail_core::error::PageError::Fault) says.
    pub fn page_failed(&self, status: WcStatus) {
        self.0.failed_pages.count(status);
    }

    /// The state of one more connection to the peer. It adds nothing to the peer's row until
    /// [`PeerConnection::set`] is called.
    #[must_use]
    pub fn connection(&self) -> PeerConnection {
        PeerConnection { row: Arc::clone(&self.0), shown: PeerState::default() }
    }
}

/// The state of one connection to a peer, as it is shown. When it is dropped, the connection is
/// gone.
#[derive(Debug)]
pub struct PeerConnection {
    row: Arc<Row>,
    /// What this connection has in the sums of the row.
    shown: PeerState,
}

impl PeerConnection {
    /// Shows that the connection is in this state now.
    pub fn set(&mut self, now: PeerState) {
        let old = std::mem::replace(&mut self.shown, now);
        // The sums never fall below zero, since each connection takes off what it has added.
        let change = |sum: &AtomicU64, old: u64, now: u64| {
            sum.fetch_add(now.wrapping_sub(old), Ordering::Relaxed);
        };
        change(&self.row.connections, old.connections, now.connections);
        change(&self.row.unhealthy, old.unhealthy, now.unhealthy);
        change(&self.row.lanes, old.lanes, now.lanes);
        change(&self.row.outstanding_pages, old.outstanding_pages, now.outstanding_pages);
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        self.set(PeerState::default());
    }
}

impl Row {
    fn counts(&self) -> PeerCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerCounts { bytes: of(&self.bytes), pages: of(&self.pages), misses: of(&self.misses) }
    }

    fn all(&self) -> PeerRow {
        let of = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        let state = PeerState {
            connections: of(&self.connections),
            unhealthy: of(&self.unhealthy),
            lanes: of(&self.lanes),
            outstanding_pages: of(&self.outstanding_pages),
        };
        PeerRow { counts: self.counts(), failed_pages: self.failed_pages.all().to_vec(), state }
    }

    fn add(&self, counts: PeerCounts) {
        self.bytes.fetch_add(counts.bytes, Ordering::Relaxed);
        self.pages.fetch_add(counts.pages, Ordering::Relaxed);
        self.misses.fetch_add(counts.misses, Ordering::Relaxed);
    }
}

/// The rows of all peers.
#[derive(Debug)]
pub(crate) struct PeerTable {
    most: usize,
    other: Arc<Row>,
    /// Locked when a peer is connected and when the numbers are shown, never on the data path.
    rows: Mutex<BTreeMap<Box<str>, Arc<Row>>>,
}

impl PeerTable {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, other: Arc::default(), rows: Mutex::default() }
    }

    /// The counters of the peer called `name`. In a full table a peer that is in use no more gives
    /// its row away, and what it has counted goes to the row of the others; is there none, the new
    /// peer counts there.
    pub(crate) fn peer(&self, name: &str) -> PeerMetrics {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.get(name) {
            return PeerMetrics(Arc::clone(row));
        }
        if name == OTHER_PEERS || self.most == 0 {
            return PeerMetrics(Arc::clone(&self.other));
        }
        if rows.len() >= self.most {
            // Only this table has the row, and it is locked: no thread can add to the row any more.
            let unused = rows.iter().find(|(_, row)| Arc::strong_count(row) == 1);
            let Some(unused) = unused.map(|(name, _)| name.clone()) else {
                return PeerMetrics(Arc::clone(&self.other));
            };
            if let Some(row) = rows.remove(&unused) {
                self.other.add(row.counts());
                self.other.failed_pages.add(&row.failed_pages);
            }
        }
        let row = Arc::<Row>::default();
        rows.insert(name.into(), Arc::clone(&row));
        PeerMetrics(row)
    }

    /// All rows with their names, the row of the others last.
    pub(crate) fn all(&self) -> Vec<(Box<str>, PeerRow)> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let named = rows.iter().map(|(name, row)| (name.clone(), row.all()));
        named.chain([(OTHER_PEERS.into(), self.other.all())]).collect()
    }
}
