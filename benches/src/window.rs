//! Only the time in which all workers are at work counts.
//!
//! Each worker writes down when each of its batches was done. After a round the window is
//! `[latest start, earliest end]` over all workers of all processes; what was done within it is counted,
//! what was done outside (while some worker had not begun, or had already stopped) is not. Merging
//! figures of workers that did not run at the same time is how a benchmark gets more out of a link than
//! it carries.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A span of time on the clock that all processes of a host share, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// Its first nanosecond.
    pub(crate) from: u64,
    /// The one after its last.
    pub(crate) to: u64,
}

impl Span {
    /// The time common to all spans; `None` where there is none, or no span.
    pub(crate) fn common(spans: impl IntoIterator<Item = Self>) -> Option<Self> {
        let both = |a: Self, b: Self| Self { from: a.from.max(b.from), to: a.to.min(b.to) };
        spans.into_iter().reduce(both).filter(|span| span.from < span.to)
    }

    /// Its length.
    pub(crate) const fn len(self) -> Duration {
        Duration::from_nanos(self.to - self.from)
    }

    const fn holds(self, time: u64) -> bool {
        self.from <= time && time < self.to
    }
}

/// A batch that was done, or so many pages copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When.
    pub(crate) at: u64,
    /// How long after it had been submitted, in nanoseconds.
    pub(crate) took: u64,
    /// Pages that arrived.
    pub(crate) pages: u32,
    /// Pages that did not, by reason.
    pub(crate) failed: Failed,
}

/// Pages that did not arrive, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Not the page that was asked for.
    pub(crate) miss: u32,
    /// A wrong request.
    pub(crate) fault: u32,
    /// Too late.
    pub(crate) deadline: u32,
    /// The producer was gone.
    pub(crate) peer_gone: u32,
}

impl Failed {
    fn named(self) -> [(&'static str, u32); 4] {
        [
            ("miss", self.miss),
            ("fault", self.fault),
            ("deadline", self.deadline),
            ("peer_gone", self.peer_gone),
        ]
    }
}

/// What one worker did in one window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Count {
    /// Pages that arrived.
    pub(crate) pages: u64,
    /// Pages that did not, by reason; reasons without a page are left out.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Latencies: (ns, how many).
    pub(crate) latencies: Vec<(u64, u64)>,
}

/// Latencies from 1 ns to 1,000 s, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000_000, 3)
        .expect("bounds and digits are constants that hdrhistogram allows")
}

/// What `samples` amount to within `span`.
pub(crate) fn count<'a>(samples: impl IntoIterator<Item = &'a Sample>, span: Span) -> Count {
    let mut count = Count::default();
    let mut latencies = histogram();
    for sample in samples.into_iter().filter(|sample| span.holds(sample.at)) {
        count.pages += u64::from(sample.pages);
        for (reason, pages) in sample.failed.named().into_iter().filter(|&(_, pages)| pages > 0) {
            *count.failed.entry(reason.into()).or_default() += u64::from(pages);
        }
        latencies.saturating_record(sample.took.max(1));
    }
    let recorded = latencies.iter_recorded();
    count.latencies = recorded.map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
    count
}

/// What all workers of a row did in all its windows.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) pages: u64,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) latencies: Histogram<u64>,
    /// Of all windows together.
    pub(crate) time: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        Self { pages: 0, failed: BTreeMap::new(), latencies: histogram(), time: Duration::ZERO }
    }
}

impl Tally {
    /// Adds what the workers did in one window.
    pub(crate) fn add(&mut self, counts: &[Count], span: Span) {
        self.time += span.len();
        for count in counts {
            self.pages += count.pages;
            for (reason, pages) in &count.failed {
                *self.failed.entry(reason.clone()).or_default() += pages;
            }
            for &(value, n) in &count.latencies {
                self.latencies.saturating_record_n(value, n);
            }
        }
    }

    /// Nothing to tell of: not one batch ended in time.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages == 0 && self.failed.is_empty()
    }

    /// Pages per second, all workers together.
    pub(crate) fn pages_per_s(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.pages as f64 / self.time.as_secs_f64() }
    }

    /// Of the pages asked for, how many arrived; `None` if none was asked for.
    pub(crate) fn hit_ratio(&self) -> Option<f64> {
        let asked = self.pages + self.failed.values().sum::<u64>();
        (asked > 0).then(|| self.pages as f64 / asked as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Span {
        Span { from, to }
    }

    fn sample(at: u64) -> Sample {
        Sample { at, took: 1000 * at, pages: 2, failed: Failed { miss: 1, ..Failed::default() } }
    }

    #[test]
    fn the_common_window_begins_last_and_ends_first() {
        assert_eq!(Span::common([span(10, 50), span(20, 60), span(0, 45)]), Some(span(20, 45)));
        assert_eq!(Span::common([span(10, 50)]), Some(span(10, 50)));
        assert_eq!(Span::common([]), None);
    }

    #[test]
    fn workers_that_never_ran_together_have_no_window() {
        assert_eq!(Span::common([span(0, 10), span(10, 20)]), None);
        assert_eq!(Span::common([span(0, 10), span(15, 20), span(0, 20)]), None);
    }

    #[test]
    fn only_what_is_done_within_counts() {
        let samples: Vec<_> = (0..10).map(sample).collect();
        let count = count(&samples, span(3, 7));
        assert_eq!((count.pages, count.failed["miss"]), (8, 4));
        assert_eq!(count.latencies.iter().map(|l| l.1).sum::<u64>(), 4);
        assert!(!count.failed.contains_key("fault"));
    }

    #[test]
    fn two_workers_and_two_windows_add_up() {
        let samples: Vec<_> = (0..10).map(sample).collect();
        let mut tally = Tally::default();
        for window in [span(0, 5), span(5, 10)] {
            let both = [count(&samples, window), count(&samples, window)];
            tally.add(&both, window);
        }
        assert_eq!((tally.pages, tally.time), (40, Duration::from_nanos(10)));
        // 40 pages in 10 ns.
        assert!((tally.pages_per_s() - 4e9).abs() < 1.0);
        assert!((tally.hit_ratio().unwrap() - 40.0 / 60.0).abs() < 1e-9);
        assert_eq!(tally.latencies.len(), 20);
        assert!(tally.latencies.max() >= 9000);
        assert_eq!(Tally::default().hit_ratio(), None);
        assert!(Tally::default().is_empty() && !tally.is_empty());
    }
}
