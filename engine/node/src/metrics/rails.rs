//! Numbers per rail, copied from the engine by the thread that owns the reader.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kvrail_core::rail::{RailState, RailStats};
use kvrail_core::verbs_abi::WcStatus;

use super::statuses::{PLACES, StatusCounts};

/// The rails of one reader. Its thread copies the engine's numbers here every so often; a scrape
/// reads them. Both are atomics, so that neither waits for the other.
#[derive(Debug)]
pub struct RailGauges(Box<[Cells]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Cells {
    name: Box<str>,
    bytes: AtomicU64,
    wrs: AtomicU64,
    page_faults: AtomicU64,
    path_faults: AtomicU64,
    flushed: AtomicU64,
    stale: AtomicU64,
    reposted: AtomicU64,
    lanes_failed: AtomicU64,
    lanes_stalled: AtomicU64,
    outstanding_wrs: AtomicU64,
    outstanding_bytes: AtomicU64,
    silent_lanes: AtomicU64,
    up: AtomicBool,
    by_status: StatusCounts,
}

/// What one rail has done and how it is, as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RailCounts {
    /// The rail's name.
    pub name: Box<str>,
    /// The engine's counters.
    pub stats: RailStats,
    /// What is outstanding, and whether it carries anything.
    pub state: RailState,
    /// Pages that failed with each status, by its number; last, with one that `verbs.h` does not
    /// know.
    pub failed_pages: [u64; PLACES],
}

impl RailGauges {
    /// The rails with these names, such as `mlx5_0`, in the order of the reader's rails.
    pub fn new<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Self {
        let cells = |name: N| Cells { name: name.as_ref().into(), ..Cells::default() };
        Self(names.into_iter().map(cells).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over the numbers of rail number `rail`. A rail that is not there is passed over.
    pub fn copy(&self, rail: usize, stats: &RailStats, state: &RailState) {
        let Some(cells) = self.0.get(rail) else { return };
        let set = |cell: &AtomicU64, value: u64| cell.store(value, Ordering::Relaxed);
        set(&cells.bytes, stats.bytes);
        set(&cells.wrs, stats.posted);
        set(&cells.page_faults, stats.page_faults);
        set(&cells.path_faults, stats.path_faults);
        set(&cells.flushed, stats.flushed);
        set(&cells.stale, stats.stale);
        set(&cells.reposted, stats.reposted);
        set(&cells.lanes_failed, stats.lanes_failed);
        set(&cells.lanes_stalled, stats.lanes_stalled);
        set(&cells.outstanding_wrs, state.outstanding_wrs.into());
        set(&cells.outstanding_bytes, state.outstanding_bytes);
        set(&cells.silent_lanes, state.silent_lanes.into());
        cells.up.store(state.up, Ordering::Relaxed);
    }

    /// A page failed with this status on rail number `rail`, as
    /// [`PageError::Fault`](kvrail_core::error::PageError::Fault) says. A rail that is not there is
    /// passed over.
    pub fn page_failed(&self, rail: usize, status: WcStatus) {
        let Some(cells) = self.0.get(rail) else { return };
        cells.by_status.count(status);
    }

    /// The numbers of all rails, in their order.
    #[must_use]
    pub fn counts(&self) -> Vec<RailCounts> {
        self.0.iter().map(Cells::counts).collect()
    }
}

impl Cells {
    fn counts(&self) -> RailCounts {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        // The number was a u32 when it was stored.
        let narrow = |cell: &AtomicU64| u32::try_from(get(cell)).unwrap_or(u32::MAX);
        RailCounts {
            name: self.name.clone(),
            stats: RailStats {
                posted: get(&self.wrs),
                bytes: get(&self.bytes),
                page_faults: get(&self.page_faults),
                path_faults: get(&self.path_faults),
                flushed: get(&self.flushed),
                stale: get(&self.stale),
                reposted: get(&self.reposted),
                lanes_failed: get(&self.lanes_failed),
                lanes_stalled: get(&self.lanes_stalled),
                ..RailStats::default()
            },
            state: RailState {
                up: self.up.load(Ordering::Relaxed),
                outstanding_wrs: narrow(&self.outstanding_wrs),
                outstanding_bytes: get(&self.outstanding_bytes),
                silent_lanes: narrow(&self.silent_lanes),
            },
            failed_pages: self.by_status.all(),
        }
    }
}
