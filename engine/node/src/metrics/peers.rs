//! Numbers per peer, for a bounded number of peers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The name of the row of all peers that have none of their own.
pub const OTHER_PEERS: &str = "other";

#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    bytes: AtomicU64,
    pages: AtomicU64,
    misses: AtomicU64,
}

/// What was read from one peer, as it was at one moment.
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

/// The counters of one peer, or of those that have no row of their own. It is made when the peer
/// is connected, and cloned for each thread that reads from it; the data path only adds.
#[derive(Clone, Debug)]
pub struct PeerMetrics(Arc<Row>);

impl PeerMetrics {
    /// Adds what was read from the peer since the last call.
    pub fn add(&self, counts: PeerCounts) {
        self.0.add(counts);
    }
}

impl Row {
    fn counts(&self) -> PeerCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerCounts { bytes: of(&self.bytes), pages: of(&self.pages), misses: of(&self.misses) }
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
            }
        }
        let row = Arc::<Row>::default();
        rows.insert(name.into(), Arc::clone(&row));
        PeerMetrics(row)
    }

    /// All rows with their names, the row of the others last.
    pub(crate) fn counts(&self) -> Vec<(Box<str>, PeerCounts)> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let named = rows.iter().map(|(name, row)| (name.clone(), row.counts()));
        named.chain([(OTHER_PEERS.into(), self.other.counts())]).collect()
    }
}
