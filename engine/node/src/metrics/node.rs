//! The counters of one node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::counters::{Counter, HistogramCounts, Stripes};
use super::peers::{PeerCounts, PeerMetrics, PeerTable};
use super::rails::{RailCounts, RailGauges};
use super::reasons::MissReason;

/// How many peers have a row of their own unless the configuration says otherwise.
pub const PEER_ROWS: usize = 64;

/// What one node counts.
#[derive(Debug)]
pub struct NodeMetrics {
    stripes: Stripes,
    pool_pages: AtomicU64,
    pool_pages_used: AtomicU64,
    announcements_pending: AtomicU64,
    peers: PeerTable,
    /// Locked when a reader starts and when the numbers are shown, never on the data path. A
    /// reader that has stopped no longer counts.
    rails: Mutex<Vec<Weak<RailGauges>>>,
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self::new(PEER_ROWS)
    }
}

impl NodeMetrics {
    /// Counters at zero, with rows for `peer_rows` peers; further peers share one row.
    #[must_use]
    pub fn new(peer_rows: usize) -> Self {
        Self {
            stripes: Stripes::new(),
            pool_pages: AtomicU64::new(0),
            pool_pages_used: AtomicU64::new(0),
            announcements_pending: AtomicU64::new(0),
            peers: PeerTable::new(peer_rows),
            rails: Mutex::default(),
        }
    }

    /// `pages` pages were asked for. Each is a [hit](Self::hit), a [local hit](Self::local_hit) or
    /// a [miss](Self::miss) later.
    pub fn get(&self, pages: u64) {
        self.stripes.add(Counter::Gets, pages);
    }

    /// A page of `bytes` bytes was read from a peer and is right; `nanos` after the first READ of
    /// its batch was submitted.
    pub fn hit(&self, bytes: u64, nanos: u64) {
        self.stripes.add(Counter::Hits, 1);
        self.stripes.add(Counter::ReadPages, 1);
        self.stripes.add(Counter::ReadBytes, bytes);
        self.stripes.read_took(nanos);
    }

    /// A page was served from the own pool.
    pub fn local_hit(&self) {
        self.stripes.add(Counter::Hits, 1);
        self.stripes.add(Counter::LocalHits, 1);
    }

    /// A page was not served.
    pub fn miss(&self, reason: MissReason) {
        self.stripes.miss(reason);
    }

    /// A page of `bytes` bytes was put into the own pool.
    pub fn put(&self, bytes: u64) {
        self.stripes.add(Counter::Puts, 1);
        self.stripes.add(Counter::PutBytes, bytes);
    }

    /// A page was not put: the pool had no place for it.
    pub fn put_refused(&self) {
        self.stripes.add(Counter::PutsRefused, 1);
    }

    /// `pages` pages left the pool for others.
    pub fn evicted(&self, pages: u64) {
        self.stripes.add(Counter::Evictions, pages);
    }

    /// The pool has places for `pages` pages, and `used` of them hold one.
    pub fn pool(&self, pages: u64, used: u64) {
        self.pool_pages.store(pages, Ordering::Relaxed);
        self.pool_pages_used.store(used, Ordering::Relaxed);
    }

    /// The directory was asked for `keys` keys, of which it did not answer `unanswered`, and that
    /// took `nanos`.
    pub fn look_up(&self, keys: u64, unanswered: u64, nanos: u64) {
        self.stripes.add(Counter::LookUpKeys, keys);
        self.stripes.add(Counter::LookUpKeysUnanswered, unanswered);
        self.stripes.look_up_took(nanos);
    }

    /// The answers to `hits` keys were in the cache of directory answers, those to `misses` were
    /// not.
    pub fn cached(&self, hits: u64, misses: u64) {
        self.stripes.add(Counter::CacheHits, hits);
        self.stripes.add(Counter::CacheMisses, misses);
    }

    /// A cached record named a page that its owner no longer had.
    pub fn cache_stale(&self) {
        self.stripes.add(Counter::CacheStale, 1);
    }

    /// `records` records were announced to the directory.
    pub fn announced(&self, records: u64) {
        self.stripes.add(Counter::Announced, records);
    }

    /// `records` records were withdrawn from the directory.
    pub fn withdrawn(&self, records: u64) {
        self.stripes.add(Counter::Withdrawn, records);
    }

    /// Announcing, withdrawing or renewing failed.
    pub fn announce_failed(&self) {
        self.stripes.add(Counter::AnnounceErrors, 1);
    }

    /// So many announcements and withdrawals wait to be sent.
    pub fn announcements_pending(&self, pending: u64) {
        self.announcements_pending.store(pending, Ordering::Relaxed);
    }

    /// The directory has lost this node's records.
    pub fn records_lost(&self) {
        self.stripes.add(Counter::RecordsLost, 1);
    }

    /// A request was slow ([`SlowLog::request`](super::SlowLog::request)).
    pub fn slow_request(&self) {
        self.stripes.add(Counter::SlowRequests, 1);
    }

    /// The counters of the peer called `name`, for set-up: it takes a lock. Where too many peers
    /// are in use, those of [`OTHER_PEERS`](super::OTHER_PEERS).
    #[must_use]
    pub fn peer(&self, name: &str) -> PeerMetrics {
        self.peers.peer(name)
    }

    /// Makes the rails of a reader known, by their names in the order of the reader. Rails of the
    /// same name of several readers are added up. It is for set-up: it takes a lock. The rails are
    /// shown until the result is dropped.
    #[must_use]
    pub fn rails<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Arc<RailGauges> {
        let gauges = Arc::new(RailGauges::new(names));
        let mut rails = self.rails.lock().unwrap_or_else(PoisonError::into_inner);
        rails.retain(|reader| reader.strong_count() > 0);
        rails.push(Arc::downgrade(&gauges));
        gauges
    }

    /// The value of a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.stripes.counter(counter)
    }

    /// How many pages were not served for this reason.
    #[must_use]
    pub fn misses(&self, reason: MissReason) -> u64 {
        self.stripes.misses(reason)
    }

    /// How long look-ups took.
    #[must_use]
    pub fn look_up_times(&self) -> HistogramCounts {
        self.stripes.look_ups()
    }

    /// How long pages took from the submission of their batch until they were found to be right.
    #[must_use]
    pub fn read_times(&self) -> HistogramCounts {
        self.stripes.reads()
    }

    /// The places of the pool, and how many of them hold a page.
    #[must_use]
    pub fn pool_pages(&self) -> (u64, u64) {
        (self.pool_pages.load(Ordering::Relaxed), self.pool_pages_used.load(Ordering::Relaxed))
    }

    /// How many announcements and withdrawals wait to be sent.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.announcements_pending.load(Ordering::Relaxed)
    }

    /// What was read from each peer, the row of [`OTHER_PEERS`](super::OTHER_PEERS) last.
    #[must_use]
    pub fn peer_counts(&self) -> Vec<(Box<str>, PeerCounts)> {
        self.peers.counts()
    }

    /// The rails of all readers that are there, one reader after the other.
    #[must_use]
    pub fn rail_counts(&self) -> Vec<RailCounts> {
        let rails = self.rails.lock().unwrap_or_else(PoisonError::into_inner);
        rails.iter().filter_map(Weak::upgrade).flat_map(|reader| reader.counts()).collect()
    }
}
