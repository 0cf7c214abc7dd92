//! How many wrs are outstanding, and how many a completion stands for. A sleeping engine waits by
//! these counts.

use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail_core::verbs_abi::Wc;

/// Lane numbers have 16 bits.
const LANES: usize = 1 << 16;
/// Generation and sequence number of a wr_id.
const LIFE_AND_SEQ: u64 = (1 << 48) - 1;

/// The counts of all rails.
#[derive(Debug)]
pub(super) struct Progress {
    /// For each lane number, generation and sequence number of the last wr that a completion stands
    /// for. Memory of numbers that are never used is never touched.
    last: Box<[u64]>,
    /// For each rail, the wrs that were posted and that no completion stands for. The wrs of a
    /// failed lane stay in it, so the count is never too low.
    outstanding: [u64; MAX_RAILS],
}

/// What a number of completions say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many wrs they stand for.
    pub(super) wrs: u64,
    /// Whether one of them is a failure.
    pub(super) failed: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { last: vec![0; LANES].into_boxed_slice(), outstanding: [0; MAX_RAILS] }
    }

    /// A lane begins, with `first` as its first wr.
    pub(super) fn begin(&mut self, first: WrId) {
        let before = WrId::new(first.lane(), first.seq().wrapping_sub(1) % WrId::SEQUENCES);
        self.last[first.lane().index()] = before.0 & LIFE_AND_SEQ;
    }

    #[inline]
    pub(super) fn posted(&mut self, rail: RailIndex, wrs: usize) {
        self.outstanding[rail.get() % MAX_RAILS] += wrs as u64;
    }

    pub(super) fn is_idle(&self, rail: RailIndex) -> bool {
        self.outstanding[rail.get() % MAX_RAILS] == 0
    }

    /// Counts the wrs that `completions` of `rail` stand for: each stands for all wrs of its lane
    /// since the last one.
    #[inline]
    pub(super) fn count(&mut self, rail: RailIndex, completions: &[Wc]) -> Seen {
        let mut seen = Seen::default();
        for wc in completions {
            let id = wc.wr_id();
            seen.failed |= !wc.status().is_success();
            let last = &mut self.last[id.lane().index() % LANES];
            let now = id.0 & LIFE_AND_SEQ;
            let step = id.seq().wrapping_sub(*last as u32) % WrId::SEQUENCES;
            // One of another generation, or one that came before, stands for no wr.
            if now >> 24 == *last >> 24 && step < WrId::SEQUENCES / 2 {
                *last = now;
                seen.wrs += u64::from(step);
            }
        }
        let outstanding = &mut self.outstanding[rail.get() % MAX_RAILS];
        *outstanding = outstanding.saturating_sub(seen.wrs);
        seen
    }
}

const _: () = assert!(LaneId::GENERATIONS == 1 << 24 && WrId::SEQUENCES == 1 << 24);

#[cfg(test)]
mod tests {
    use super::*;
    use kvrail_core::verbs_abi::WcStatus;

    const RAIL: RailIndex = RailIndex(2);

    fn wc(lane: LaneId, seq: u32) -> Wc {
        Wc::new(WrId::new(lane, seq), WcStatus::SUCCESS, 0, 7)
    }

    #[test]
    fn a_completion_stands_for_all_since_the_one_before() {
        let mut progress = Progress::new();
        let (a, b) = (LaneId::new(5, 3), LaneId::new(65_535, LaneId::GENERATIONS - 1));
        progress.begin(WrId::new(a, 0));
        progress.begin(WrId::new(b, 100));
        progress.posted(RAIL, 16);
        progress.posted(RAIL, 9);
        assert_eq!(progress.count(RAIL, &[wc(a, 7), wc(b, 108)]), Seen { wrs: 8 + 9, failed: false });
        assert_eq!(progress.count(RAIL, &[wc(a, 15)]).wrs, 8);
        assert!(progress.is_idle(RAIL));
        // The same again, and one of an earlier generation.
        assert_eq!(progress.count(RAIL, &[wc(a, 15), wc(LaneId::new(5, 2), 40)]).wrs, 0);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut progress = Progress::new();
        let lane = LaneId::new(0, 0);
        progress.begin(WrId::new(lane, WrId::SEQUENCES - 2));
        assert_eq!(progress.count(RAIL, &[wc(lane, 1)]).wrs, 4);
        // A lane that begins at 0.
        progress.begin(WrId::new(lane, 0));
        assert_eq!(progress.count(RAIL, &[wc(lane, 0)]).wrs, 1);
    }

    #[test]
    fn a_failure_is_seen_on_any_lane() {
        let mut progress = Progress::new();
        let wc = Wc::new(WrId(u64::MAX), WcStatus::RETRY_EXC_ERR, 0, 7);
        assert!(progress.count(RAIL, &[wc]).failed);
    }
}
