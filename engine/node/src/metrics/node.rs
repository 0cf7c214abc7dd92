//! The counters of one node.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::counters::{Counter, HistogramCounts, Stripes};
use super::peers::{PeerMetrics, PeerRow, PeerTable};
use super::rails::{RailCounts, RailGauges};
use super::reasons::MissReason;

/// How many peers have a row of their own unless the configuration says otherwise.
pub const PEER_ROWS: usize = 64;

type Source = Box<dyn Fn(&mut PoolCounts) + Send + Sync>;

/// What pools and their announcer count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a source adds to its fields")]
pub struct PoolCounts {
    /// Places for pages.
    pub places: u64,
    /// Of these, places that hold a page.
    pub places_used: u64,
    /// Pages that were put.
    pub puts: u64,
    /// Bytes of these pages.
    pub put_bytes: u64,
    /// Pages for which no place was free.
    pub puts_refused: u64,
    /// Pages that made room for others.
    pub evictions: u64,
    /// Records that were announced to the directory.
    pub announced: u64,
    /// Records that were withdrawn from it.
    pub withdrawn: u64,
    /// Calls to it that failed.
    pub announce_errors: u64,
    /// How often it had lost the records.
    pub records_lost: u64,
    /// Announcements and withdrawals that wait to be sent.
    pub announcements_pending: u64,
}

/// What one node counts.
pub struct NodeMetrics {
    stripes: Stripes,
    /// Locked when a node starts and when the numbers are shown.
    sources: Mutex<Vec<Source>>,
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
            sources: Mutex::default(),
            peers: PeerTable::new(peer_rows),
            rails: Mutex::default(),
        }
    }

    /// `pages` pages were asked for. Each is one of the [hits](Self::hits), of the
    /// [local hits](Self::local_hits), or a [miss](Self::miss) later.
    pub fn get(&self, pages: u64) {
        self.stripes.add(Counter::Gets, pages);
    }

    /// `pages` pages of `bytes` bytes in all were read from peers and are right; `nanos` after a
    /// reader took their request.
    pub fn hits(&self, pages: u64, bytes: u64, nanos: u64) {
        self.stripes.add(Counter::Hits, pages);
        self.stripes.add(Counter::ReadPages, pages);
        self.stripes.add(Counter::ReadBytes, bytes);
        self.stripes.reads_took(nanos, pages);
    }

    /// `pages` pages were served from the own pools.
    pub fn local_hits(&self, pages: u64) {
        self.stripes.add(Counter::Hits, pages);
        self.stripes.add(Counter::LocalHits, pages);
    }

    /// A page was not served.
    pub fn miss(&self, reason: MissReason) {
        self.stripes.miss(reason);
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

    /// `records` cached records named pages that their owners no longer had.
    pub fn cache_stale(&self, records: u64) {
        self.stripes.add(Counter::CacheStale, records);
    }

    /// Adds a source of numbers that pools and their announcer count themselves: it is called
    /// whenever the numbers are shown, and adds its own to those of the other sources.
    pub fn add_source(&self, source: impl Fn(&mut PoolCounts) + Send + Sync + 'static) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// What the pools and their announcer have counted.
    #[must_use]
    pub fn pools(&self) -> PoolCounts {
        let mut counts = PoolCounts::default();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().for_each(|source| source(&mut counts));
        counts
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
        match counter {
            Counter::Puts => self.pools().puts,
            Counter::PutBytes => self.pools().put_bytes,
            Counter::PutsRefused => self.pools().puts_refused,
            Counter::Evictions => self.pools().evictions,
            Counter::Announced => self.pools().announced,
            Counter::Withdrawn => self.pools().withdrawn,
            Counter::AnnounceErrors => self.pools().announce_errors,
            Counter::RecordsLost => self.pools().records_lost,
            other => self.stripes.counter(other),
        }
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

    /// What was read from each peer and how its connections are, the row of
    /// [`OTHER_PEERS`](super::OTHER_PEERS) last.
    #[must_use]
    pub fn peer_rows(&self) -> Vec<(Box<str>, PeerRow)> {
        self.peers.all()
    }

    /// The rails of all readers that are there, one reader after the other.
    #[must_use]
    pub fn rail_counts(&self) -> Vec<RailCounts> {
        let rails = self.rails.lock().unwrap_or_else(PoisonError::into_inner);
        rails.iter().filter_map(Weak::upgrade).flat_map(|reader| reader.counts()).collect()
    }
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetrics").field("stripes", &self.stripes).finish_non_exhaustive()
    }
}
