//! Pages that failed, by the status of the completion.

use std::sync::atomic::{AtomicU64, Ordering};

use kvrail_core::verbs_abi::WcStatus;

/// The statuses that have a counter of their own: those of `verbs.h`. The place after them counts
/// values that it does not know.
const STATUSES: usize = 24;
/// Counters in all.
pub(crate) const PLACES: usize = STATUSES + 1;

/// A counter for each status.
#[derive(Debug, Default)]
pub(crate) struct StatusCounts([AtomicU64; PLACES]);

impl StatusCounts {
    /// Counts a page that failed with this status.
    pub(crate) fn count(&self, status: WcStatus) {
        let place = usize::try_from(status.0).unwrap_or(STATUSES).min(STATUSES);
        self.0[place].fetch_add(1, Ordering::Relaxed);
    }

    /// The counters, by the number of the status.
    pub(crate) fn all(&self) -> [u64; PLACES] {
        std::array::from_fn(|place| self.0[place].load(Ordering::Relaxed))
    }

    /// Adds the counts of another.
    pub(crate) fn add(&self, other: &Self) {
        for (counter, more) in self.0.iter().zip(other.all()) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }
}
