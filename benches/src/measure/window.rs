//! Only the time in which all workers are at work counts.
//!
//! All workers of a round have the same nominal window on a clock that they share. A worker that
//! starts late was at work in the rest of it only. So the window that counts, after the round, is
//! `[latest start, earliest end]` over all workers of all processes. Batches that were done outside
//! of it, while some worker had not begun or had already stopped, are not counted: a benchmark that
//! adds up workers which did not run at the same time gets more out of a link than it carries.
//!
//! The window that counts is known only after the round. A [`Recorder`] therefore adds up its
//! samples by slices of the nominal window, and the window that counts begins and ends with a
//! slice. A recorder takes the same memory after a million batches as after the first.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A span of time on the clock that all processes of a host share, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The first nanosecond.
    pub(crate) from: u64,
    /// The nanosecond after the last.
    pub(crate) to: u64,
}

impl Span {
    /// The time that all spans have in common; `None` if they have none, or if there is no span.
    pub(crate) fn common(spans: impl IntoIterator<Item = Self>) -> Option<Self> {
        let both = |a: Self, b: Self| Self { from: a.from.max(b.from), to: a.to.min(b.to) };
        spans.into_iter().reduce(both).filter(|span| span.from < span.to)
    }

    /// The length.
    pub(crate) const fn len(self) -> Duration {
        Duration::from_nanos(self.to - self.from)
    }

    /// Whether `part` is not empty and lies within this span.
    const fn contains(self, part: Self) -> bool {
        self.from <= part.from && part.from < part.to && part.to <= self.to
    }
}

/// A batch that is done; for a producer that copies: the pages that it copied in one go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was done.
    pub(crate) at: u64,
    /// The time from its submission until then, in nanoseconds.
    pub(crate) took: u64,
    /// Pages that arrived.
    pub(crate) pages: u32,
    /// Pages that did not arrive, by reason.
    pub(crate) failed: Failed,
}

/// Pages that did not arrive, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    /// The publication table named another page.
    pub(crate) miss: u32,
    /// The request was wrong, or the page's memory has failed.
    pub(crate) fault: u32,
    /// The deadline passed.
    pub(crate) deadline: u32,
    /// The producer was gone.
    pub(crate) peer_gone: u32,
    /// The directory did not answer.
    pub(crate) directory: u32,
}

impl Failed {
    /// The names of the reasons in reports.
    const REASONS: [&'static str; 5] = ["miss", "fault", "deadline", "peer_gone", "directory"];

    /// Pages by reason, in the order of [`REASONS`](Self::REASONS).
    const fn by_reason(self) -> [u32; Self::REASONS.len()] {
        [self.miss, self.fault, self.deadline, self.peer_gone, self.directory]
    }
}

/// What one worker did in one window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Count {
    /// Pages that arrived.
    pub(crate) pages: u64,
    /// Pages that did not arrive, by reason. Reasons without a page are left out.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Latencies in nanoseconds, each with the number of batches that had it.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// Bytes that each rail of the worker carried in its round, about; empty where it is not known.
    #[serde(default)]
    pub(crate) rail_bytes: Vec<u64>,
    /// The memory of the worker's process, in bytes; 0 where it is not known.
    #[serde(default)]
    pub(crate) resident: u64,
}

/// Shorter latencies are recorded as this one, in nanoseconds.
const SHORTEST: u64 = 1;
/// Longer latencies are recorded as this one: 1,000 s in nanoseconds.
const LONGEST: u64 = 1_000_000_000_000;
/// The significant digits of a recorded latency.
const DIGITS: u8 = 3;

/// An empty histogram for the latencies of any number of batches.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS)
        .expect("bounds and digits are constants that hdrhistogram allows")
}

/// The number of slices of a nominal window. A worker that starts late loses at most one slice
/// beyond the time by which it was late. The latencies of each slice take 124 KiB.
const SLICES: usize = 8;

/// The batches that were done in a part of a window.
#[derive(Debug)]
struct Slice {
    /// Empty if no batch can fall into this slice.
    span: Span,
    pages: u64,
    failed: [u64; Failed::REASONS.len()],
    latencies: Histogram<u32>,
}

impl Slice {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS);
        let latencies = latencies.expect("bounds and digits are constants that hdrhistogram allows");
        Self { span: Span { from: 0, to: 0 }, pages: 0, failed: Default::default(), latencies }
    }

    fn reset(&mut self, span: Span) {
        self.span = span;
        self.pages = 0;
        self.failed = Default::default();
        self.latencies.reset();
    }

    fn add(&mut self, sample: &Sample) {
        self.pages += u64::from(sample.pages);
        for (sum, pages) in self.failed.iter_mut().zip(sample.failed.by_reason()) {
            *sum += u64::from(pages);
        }
        self.latencies.saturating_record(sample.took.max(1));
    }
}

/// The batches of one thread of one worker in a round. [`new`](Self::new) allocates all of its
/// memory.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// The nominal window of the round.
    window: Span,
    /// Whether the worker is the only one, and so needs no window in common with others. Its window
    /// begins just after its first batches were done and ends just after its last were, so that the
    /// batches within it took exactly that time. A window that begins anywhere else may count a
    /// batch too many or too few. `slices[0]` is the moment of the first batches then, and
    /// `slices[1]` the rest.
    alone: bool,
    slices: Box<[Slice]>,
}

impl Recorder {
    /// A recorder for a worker that is `alone`, or that is one of several.
    pub(crate) fn new(alone: bool) -> Self {
        let slices = if alone { 2 } else { SLICES };
        let slices = (0..slices).map(|_| Slice::new()).collect();
        Self { window: Span { from: 0, to: 0 }, alone, slices }
    }

    /// Begins a round with this nominal window, and removes the samples of the round before.
    pub(crate) fn start(&mut self, window: Span) {
        self.window = window;
        let count = self.slices.len() as u64;
        // The command line permits an hour at most, so no product overflows.
        let edge = |n: u64| window.from + (window.to - window.from) * n / count;
        for (number, slice) in (0..).zip(&mut self.slices) {
            let nominal = Span { from: edge(number), to: edge(number + 1) };
            slice.reset(if self.alone { Span { from: 0, to: 0 } } else { nominal });
        }
    }

    /// Adds a batch that is done. Samples come in the order of their times.
    pub(crate) fn record(&mut self, sample: &Sample) {
        let at = sample.at;
        if at < self.window.from {
            return;
        }
        let slice = if self.alone {
            let [first, rest] = &mut *self.slices else { return };
            if first.span == (Span { from: 0, to: 0 }) {
                first.span = Span { from: at, to: at + 1 };
                rest.span = Span { from: at + 1, to: at + 1 };
            }
            if at == first.span.from {
                first
            } else {
                rest.span.to = at + 1;
                rest
            }
        } else {
            let number = self.slices.partition_point(|slice| slice.span.to <= at);
            let Some(slice) = self.slices.get_mut(number) else { return };
            slice
        };
        slice.add(sample);
    }

    /// The slices of the round in which this worker was at work all the time. It worked from
    /// `began` to `ended`, and `ended` is not before the end of the nominal window. The span is
    /// empty if the worker began too late.
    pub(crate) fn finish(&self, began: u64, ended: u64) -> Span {
        let from = began.max(self.window.from);
        if self.alone {
            let rest = self.slices[1].span;
            return if rest.from < rest.to { rest } else { Span { from, to: ended } };
        }
        let first = self.slices.iter().map(|slice| slice.span.from).find(|&edge| edge >= from);
        Span { from: first.unwrap_or(self.window.to), to: self.window.to }
    }
}

/// Adds up what recorders have. [`new`](Self::new) allocates its memory and touches all of it, so
/// that counting takes none, however many batches there were and however much their latencies
/// differ.
#[derive(Debug)]
pub(crate) struct Counter {
    sum: Histogram<u64>,
    /// The room for the latencies of a count; empty while a count has it.
    room: Vec<(u64, u64)>,
}

impl Counter {
    pub(crate) fn new() -> Self {
        let mut sum = histogram();
        sum.reset();
        // Zeros that are written: memory that is only reserved is not present.
        let mut room = Vec::with_capacity(sum.distinct_values());
        room.resize(sum.distinct_values(), (0, 0));
        Self { sum, room }
    }

    /// The batches of all recorders in the slices that lie within `span`.
    pub(crate) fn count<'a>(&mut self, all: impl IntoIterator<Item = &'a Recorder>, span: Span) -> Count {
        let mut count = Count { latencies: std::mem::take(&mut self.room), ..Count::default() };
        let latencies = &mut self.sum;
        latencies.reset();
        let slices = all.into_iter().flat_map(|recorder| &recorder.slices);
        for slice in slices.filter(|slice| span.contains(slice.span)) {
            count.pages += slice.pages;
            for (reason, pages) in Failed::REASONS.into_iter().zip(slice.failed) {
                if pages > 0 {
                    *count.failed.entry(reason.into()).or_default() += pages;
                }
            }
            for value in slice.latencies.iter_recorded() {
                latencies.saturating_record_n(value.value_iterated_to(), value.count_at_value().into());
            }
        }
        count.latencies.clear();
        let recorded = latencies.iter_recorded();
        count.latencies.extend(recorded.map(|v| (v.value_iterated_to(), v.count_at_value())));
        count
    }

    /// Takes the room of a count back, which is not needed any more.
    pub(crate) fn give_back(&mut self, count: Count) {
        self.room = count.latencies;
    }
}

/// The sums over all workers and all windows of a row.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) pages: u64,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) latencies: Histogram<u64>,
    /// The lengths of all windows, added up.
    pub(crate) time: Duration,
    /// Pages per second of each window.
    pub(crate) rates: Vec<f64>,
    /// What each worker did in all windows, in the order of the workers.
    pub(crate) workers: Vec<Share>,
    /// The memory of all workers after the first window, and after the last.
    pub(crate) memory: Option<[Resident; 2]>,
}

/// The memory of processes after so many batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resident {
    /// Batches that had been done.
    pub(crate) batches: u64,
    /// Memory of all processes that is present, in bytes, without pages of files.
    pub(crate) bytes: u64,
}

/// What one worker of several did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Pages that arrived.
    pub(crate) pages: u64,
    /// Bytes that each of its rails carried; empty where it is not known.
    pub(crate) rail_bytes: Vec<u64>,
}

impl Share {
    fn add(&mut self, count: &Count) {
        self.pages += count.pages;
        self.rail_bytes.resize(self.rail_bytes.len().max(count.rail_bytes.len()), 0);
        for (sum, bytes) in self.rail_bytes.iter_mut().zip(&count.rail_bytes) {
            *sum += bytes;
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            pages: 0,
            failed: BTreeMap::new(),
            latencies: histogram(),
            time: Duration::ZERO,
            rates: Vec::new(),
            workers: Vec::new(),
            memory: None,
        }
    }
}

impl Tally {
    /// Adds one window with the counts of all workers.
    pub(crate) fn add(&mut self, counts: &[Count], span: Span) {
        self.time += span.len();
        let pages: u64 = counts.iter().map(|count| count.pages).sum();
        self.rates.push(pages as f64 / span.len().as_secs_f64());
        self.workers.resize_with(self.workers.len().max(counts.len()), Share::default);
        self.workers.iter_mut().zip(counts).for_each(|(share, count)| share.add(count));
        for count in counts {
            self.pages += count.pages;
            for (reason, pages) in &count.failed {
                *self.failed.entry(reason.clone()).or_default() += pages;
            }
            for &(value, n) in &count.latencies {
                self.latencies.saturating_record_n(value, n);
            }
        }
        let bytes: u64 = counts.iter().map(|count| count.resident).sum();
        if bytes > 0 {
            let now = Resident { batches: self.latencies.len(), bytes };
            self.memory = Some([self.memory.map_or(now, |[first, _]| first), now]);
        }
    }

    /// Whether no batch was done in any window.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages == 0 && self.failed.is_empty()
    }

    /// Pages per second of all workers together.
    pub(crate) fn pages_per_s(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.pages as f64 / self.time.as_secs_f64() }
    }

    /// The share of the requested pages that arrived; `None` if none was requested.
    pub(crate) fn hit_ratio(&self) -> Option<f64> {
        let requested = self.pages + self.failed.values().sum::<u64>();
        (requested > 0).then(|| self.pages as f64 / requested as f64)
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

    /// A recorder with a sample in every nanosecond from 0 to 99, and a window from 0 to 80.
    fn recorded(alone: bool) -> Recorder {
        let mut recorder = Recorder::new(alone);
        recorder.start(span(0, 80));
        (0..100).for_each(|at| recorder.record(&sample(at)));
        recorder
    }

    fn counted(recorder: &Recorder, span: Span) -> Count {
        Counter::new().count([recorder], span)
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
    fn only_batches_done_within_the_window_count() {
        let recorder = recorded(false);
        let count = counted(&recorder, span(20, 60));
        assert_eq!((count.pages, count.failed["miss"]), (80, 40));
        assert_eq!(count.latencies.iter().map(|l| l.1).sum::<u64>(), 40);
        assert!(!count.failed.contains_key("fault"));
        // Batches after the nominal window count in no span.
        assert_eq!(counted(&recorder, span(0, 1000)).pages, 160);
    }

    #[test]
    fn a_late_worker_loses_the_slice_in_which_it_starts() {
        let recorder = recorded(false);
        let window = |began| recorder.finish(began, 83);
        assert_eq!((window(0), window(1), window(10)), (span(0, 80), span(10, 80), span(10, 80)));
        assert_eq!(window(69), span(70, 80));
        for late in [71, 80, 90] {
            assert_eq!(Span::common([window(0), window(late)]), None, "{late}");
        }
        // Slices need not be of one length.
        let mut recorder = Recorder::new(false);
        recorder.start(span(1000, 1083));
        (1000..1083).for_each(|at| recorder.record(&sample(at)));
        let whole = recorder.finish(0, 1090);
        assert_eq!((whole, counted(&recorder, whole).pages), (span(1000, 1083), 166));
    }

    #[test]
    fn the_window_of_a_lone_worker_begins_and_ends_with_its_batches() {
        // Two batches at a time, every 100 ns: 20 pages in 100 ns, wherever the window begins.
        let times = [100, 100, 200, 200, 300, 300, 400, 400];
        let alone = |from| {
            let mut recorder = Recorder::new(true);
            recorder.start(span(from, 450));
            for at in times {
                recorder.record(&Sample { at, took: 1, pages: 10, failed: Failed::default() });
            }
            let window = recorder.finish(from, 450);
            (window, counted(&recorder, window))
        };
        for from in [0, 100, 101, 150, 200, 299] {
            let (window, count) = alone(from);
            assert_eq!(
                u128::from(count.pages) * 100,
                20 * window.len().as_nanos(),
                "from {from}: {window:?}"
            );
        }
        // With at most one moment of batches it is the time in which the worker was at work.
        assert_eq!((alone(310).0, alone(310).1.pages), (span(310, 450), 20));
        assert_eq!((alone(401).0, alone(401).1.pages), (span(401, 450), 0));
    }

    #[test]
    fn a_new_round_starts_empty() {
        for alone in [false, true] {
            let mut recorder = recorded(alone);
            recorder.start(span(1000, 2000));
            assert_eq!(counted(&recorder, span(0, 2000)).pages, 0);
        }
    }

    #[test]
    fn two_workers_and_two_windows_add_up() {
        let recorder = recorded(false);
        let mut tally = Tally::default();
        for window in [span(0, 40), span(40, 80)] {
            let both = [counted(&recorder, window), counted(&recorder, window)];
            tally.add(&both, window);
        }
        assert_eq!((tally.pages, tally.time), (320, Duration::from_nanos(80)));
        // 320 pages in 80 ns.
        assert!((tally.pages_per_s() - 4e9).abs() < 1.0);
        assert!((tally.hit_ratio().unwrap() - 320.0 / 480.0).abs() < 1e-9);
        assert_eq!(tally.latencies.len(), 160);
        assert_eq!((tally.rates.len(), tally.workers.len()), (2, 2));
        assert_eq!(tally.workers.iter().map(|share| share.pages).collect::<Vec<_>>(), [160, 160]);
        assert!(tally.latencies.max() >= 79_000);
        assert_eq!(Counter::new().count([&recorder, &recorder], span(0, 40)).pages, 160);
        assert_eq!(Tally::default().hit_ratio(), None);
        assert!(Tally::default().is_empty() && !tally.is_empty());
    }
}
