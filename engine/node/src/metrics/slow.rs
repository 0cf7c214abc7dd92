//! A log of slow requests that says where their time went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvrail_host::log_limit::LogLimit;

/// Where the time of one request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the parts of a request; its caller fills them in one after the other"
)]
pub struct TimeSpent {
    /// In the queue, before a thread took the request up.
    pub queue: Duration,
    /// Waiting for the directory.
    pub directory: Duration,
    /// Connecting to owners.
    pub connect: Duration,
    /// READs of pages and of their entries, from the owners that were tried one after the other.
    pub read: Duration,
}

/// What one request was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "its caller fills it in")]
pub struct SlowRequest {
    /// Pages that it asked for.
    pub pages: u32,
    /// Of these, pages that it did not get.
    pub misses: u32,
    /// Bytes that it read.
    pub bytes: u64,
}

impl TimeSpent {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        let Self { queue, directory, connect, read } = *self;
        [directory, connect, read].into_iter().fold(queue, Duration::saturating_add)
    }

    /// The part that took longest, by its name.
    #[must_use]
    pub fn longest(&self) -> (&'static str, Duration) {
        let Self { queue, directory, connect, read } = *self;
        let parts = [("directory", directory), ("connect", connect), ("read", read)];
        parts.into_iter().fold(("queue", queue), |most, part| if part.1 > most.1 { part } else { most })
    }
}

/// Logs requests that took longer than a threshold: eight at once and one more every two seconds,
/// with the number of those that were left out.
#[derive(Debug)]
pub struct SlowLog {
    /// In ns. The largest number: no request is slow.
    threshold: AtomicU64,
    limit: LogLimit,
}

impl SlowLog {
    /// A log of requests that take longer than `threshold`; `None`: of none.
    #[must_use]
    pub const fn new(threshold: Option<Duration>) -> Self {
        Self { threshold: AtomicU64::new(nanos(threshold)), limit: LogLimit::new() }
    }

    /// Logs requests that take longer than `threshold` from now on; `None`: none.
    pub fn set_threshold(&self, threshold: Option<Duration>) {
        self.threshold.store(nanos(threshold), Ordering::Relaxed);
    }

    /// Whether any request is slow.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.threshold.load(Ordering::Relaxed) != u64::MAX
    }

    /// Logs the request if it was slow, and says whether it was. For one that was not this is a
    /// comparison; only a slow one takes the lock of the rate limit.
    pub fn request(&self, request: &SlowRequest, spent: &TimeSpent) -> bool {
        let total = spent.total();
        if nanos(Some(total)) <= self.threshold.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(left_out) = self.limit.allows() {
            tracing::warn!(
                pages = request.pages,
                misses = request.misses,
                bytes = request.bytes,
                total_us = micros(total),
                queue_us = micros(spent.queue),
                directory_us = micros(spent.directory),
                connect_us = micros(spent.connect),
                read_us = micros(spent.read),
                left_out,
                "a slow request: most of its time went to {}",
                spent.longest().0,
            );
        }
        true
    }
}

/// The time in ns; the largest number, which none exceeds, for `None` and beyond it.
const fn nanos(threshold: Option<Duration>) -> u64 {
    match threshold {
        Some(threshold) if threshold.as_nanos() < u64::MAX as u128 => threshold.as_nanos() as u64,
        _ => u64::MAX,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
