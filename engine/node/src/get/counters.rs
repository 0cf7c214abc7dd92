//! What the node counts about its reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::miss::GetMiss;

/// Counters of the GET path. Each is added to once for a batch.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) gets: AtomicU64,
    pub(crate) own_pool: AtomicU64,
    pub(crate) cache: AtomicU64,
    pub(crate) directory: AtomicU64,
    pub(crate) misses: [AtomicU64; GetMiss::REASONS],
    pub(crate) look_ups: AtomicU64,
    pub(crate) keys_looked_up: AtomicU64,
    pub(crate) renewed: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) directory_panics: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    if more > 0 {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// Counts of a node's reads since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetStatistics {
    /// Batches that were got.
    pub gets: u64,
    /// Pages that the own pools had.
    pub hits_own_pool: u64,
    /// Pages whose owner the cache of records named.
    pub hits_cache: u64,
    /// Pages whose owner the directory named.
    pub hits_directory: u64,
    /// Misses by [`GetMiss::reason`]; [`LABELS`](crate::miss::LABELS) has their names.
    pub misses: [u64; GetMiss::REASONS],
    /// Look-ups in the directory, each for a batch of keys.
    pub look_ups: u64,
    /// Keys that were looked up.
    pub keys_looked_up: u64,
    /// Keys that were looked up a second time, since the cached record was stale.
    pub keys_renewed: u64,
    /// Destinations that hardware still might write into when their deadline had passed.
    pub late_destinations: u64,
    /// Calls of the directory that panicked: faults of its code. Their keys are misses.
    pub directory_panics: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> GetStatistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GetStatistics {
            gets: of(&self.gets),
            hits_own_pool: of(&self.own_pool),
            hits_cache: of(&self.cache),
            hits_directory: of(&self.directory),
            misses: std::array::from_fn(|reason| of(&self.misses[reason])),
            look_ups: of(&self.look_ups),
            keys_looked_up: of(&self.keys_looked_up),
            keys_renewed: of(&self.renewed),
            late_destinations: of(&self.late),
            directory_panics: of(&self.directory_panics),
        }
    }
}
