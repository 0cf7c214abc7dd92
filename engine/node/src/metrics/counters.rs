//! The counters that the data path adds to: atomics, without a lock and without memory of the heap.

use std::array;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::reasons::{MissReason, REASONS};

/// How many copies of the counters there are. Threads that add at the same time use different
/// copies as long as there are no more threads than copies, and a scrape adds the copies up.
const STRIPES: usize = 16;

/// The upper bounds of the buckets of a histogram, in ns: from 10 µs, which a READ of one page from
/// the same host takes, to 10 s, beyond every sensible deadline.
pub const BUCKETS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

macro_rules! counters {
    ($($variant:ident $name:literal $help:literal,)*) => {
        /// The counters of a node without a label, by the names that Prometheus shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Counter {
            $(#[doc = $help] $variant,)*
        }

        impl Counter {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the registry; Prometheus shows it with `_total` behind it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it counts.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

counters! {
    Gets "kvrail_gets" "Pages that were asked for",
    Hits "kvrail_hits" "Pages that were served, from a peer or from the own pool",
    LocalHits "kvrail_local_hits" "Pages that were served from the own pool",
    ReadPages "kvrail_read_pages" "Pages that were read from peers and found to be right",
    ReadBytes "kvrail_read_bytes" "Bytes of pages that were read from peers and found to be right",
    Puts "kvrail_puts" "Pages that were put into the own pool",
    PutBytes "kvrail_put_bytes" "Bytes of pages that were put into the own pool",
    PutsRefused "kvrail_puts_refused" "Pages that the own pool had no place for",
    Evictions "kvrail_evictions" "Pages that left the own pool for others",
    LookUpKeys "kvrail_look_up_keys" "Keys that the directory was asked for",
    LookUpKeysUnanswered "kvrail_look_up_keys_unanswered" "Keys for which the directory, or a part of it, gave no answer",
    CacheHits "kvrail_directory_cache_hits" "Keys whose records were in the node's cache of directory answers",
    CacheMisses "kvrail_directory_cache_misses" "Keys whose records were not in the node's cache of directory answers",
    CacheStale "kvrail_directory_cache_stale" "Cached records that named a page that its owner no longer had",
    Announced "kvrail_announced_records" "Records that were announced to the directory",
    Withdrawn "kvrail_withdrawn_records" "Records that were withdrawn from the directory",
    AnnounceErrors "kvrail_announce_errors" "Calls that announced or withdrew records, or renewed the lease, and failed",
    RecordsLost "kvrail_directory_records_lost" "Times that the directory had lost this node's records",
    SlowRequests "kvrail_slow_requests" "Requests that took longer than the slow log's threshold",
}

/// How many counters there are.
const COUNTERS: usize = Counter::ALL.len();

/// Times and how often they fell into each bucket.
#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanos: AtomicU64,
}

/// A histogram as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramCounts {
    /// How often a value lay at or below the bound of the same place in [`BUCKETS`], and above the
    /// bound before it; last, how often it lay above all bounds.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// The sum of all values, in ns.
    pub nanos: u64,
}

impl HistogramCounts {
    /// How many values it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Histogram {
    fn new() -> Self {
        Self { buckets: zeros(), nanos: AtomicU64::new(0) }
    }

    fn add(&self, nanos: u64, times: u64) {
        let place = BUCKETS.partition_point(|&bound| bound < nanos);
        self.buckets[place].fetch_add(times, Ordering::Relaxed);
        self.nanos.fetch_add(nanos.saturating_mul(times), Ordering::Relaxed);
    }

    fn add_to(&self, sum: &mut HistogramCounts) {
        for (sum, count) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += count.load(Ordering::Relaxed);
        }
        sum.nanos = sum.nanos.wrapping_add(self.nanos.load(Ordering::Relaxed));
    }
}

/// One copy of all counters. Two copies never share a cache line, nor a pair of lines that the
/// processor fetches together.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    counters: [AtomicU64; COUNTERS],
    misses: [AtomicU64; REASONS],
    look_ups: Histogram,
    reads: Histogram,
}

/// The copies of the counters.
#[derive(Debug)]
pub(crate) struct Stripes(Box<[Stripe]>);

fn zeros<const N: usize>() -> [AtomicU64; N] {
    array::from_fn(|_| AtomicU64::new(0))
}

/// The copy that this thread adds to.
fn own_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const UNKNOWN: usize = usize::MAX;
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(UNKNOWN) };
    }
    OWN.with(|own| {
        if own.get() == UNKNOWN {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        own.get()
    })
}

impl Stripes {
    pub(crate) fn new() -> Self {
        let stripe = || Stripe {
            counters: zeros(),
            misses: zeros(),
            look_ups: Histogram::new(),
            reads: Histogram::new(),
        };
        Self((0..STRIPES).map(|_| stripe()).collect())
    }

    fn own(&self) -> &Stripe {
        &self.0[own_stripe()]
    }

    pub(crate) fn add(&self, counter: Counter, count: u64) {
        self.own().counters[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn miss(&self, reason: MissReason) {
        self.own().misses[reason.place()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn look_up_took(&self, nanos: u64) {
        self.own().look_ups.add(nanos, 1);
    }

    pub(crate) fn reads_took(&self, nanos: u64, pages: u64) {
        self.own().reads.add(nanos, pages);
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.sum(|stripe| &stripe.counters[counter as usize])
    }

    pub(crate) fn misses(&self, reason: MissReason) -> u64 {
        self.sum(|stripe| &stripe.misses[reason.place()])
    }

    fn sum(&self, of: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        self.0.iter().map(|stripe| of(stripe).load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn look_ups(&self) -> HistogramCounts {
        self.histogram(|stripe| &stripe.look_ups)
    }

    pub(crate) fn reads(&self) -> HistogramCounts {
        self.histogram(|stripe| &stripe.reads)
    }

    fn histogram(&self, of: impl Fn(&Stripe) -> &Histogram) -> HistogramCounts {
        let mut sum = HistogramCounts::default();
        self.0.iter().for_each(|stripe| of(stripe).add_to(&mut sum));
        sum
    }
}
