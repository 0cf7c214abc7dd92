//! How many wrs are outstanding, and how many a completion covers. A sleeping engine waits by these
//! counts.

use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail_core::verbs_abi::Wc;

/// Lane numbers have 16 bits.
const LANES: usize = 1 << 16;
/// The bits of a wr_id that hold the lane's generation and the sequence number.
const GENERATION_AND_SEQ: u64 = (1 << 48) - 1;

/// The counts of all rails.
#[derive(Debug)]
pub(super) struct Progress {
    /// For each lane number, the generation and the sequence number of the last wr that a
    /// completion covers. Entries of unused lane numbers are never touched, so they take no memory.
    last: Box<[u64]>,
    /// For each rail, the number of posted wrs that no completion covers. Wrs of a failed lane stay
    /// counted, so the number is never too low.
    outstanding: [u64; MAX_RAILS],
}

/// The sum of several completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many wrs they cover.
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
        self.last[first.lane().index()] = before.0 & GENERATION_AND_SEQ;
    }

    #[inline]
    pub(super) fn posted(&mut self, rail: RailIndex, wrs: usize) {
        self.outstanding[rail.get() % MAX_RAILS] += wrs as u64;
    }

    pub(super) fn is_idle(&self, rail: RailIndex) -> bool {
        self.outstanding[rail.get() % MAX_RAILS] == 0
    }

    /// Counts the wrs that `completions` of `rail` cover: each covers all wrs of its lane since the
    /// lane's last completion.
    #[inline]
    pub(super) fn count(&mut self, rail: RailIndex, completions: &[Wc]) -> Seen {
        let mut seen = Seen::default();
        for wc in completions {
            let id = wc.wr_id();
            seen.failed |= !wc.status().is_success();
            let last = &mut self.last[id.lane().index() % LANES];
            let now = id.0 & GENERATION_AND_SEQ;
            let step = id.seq().wrapping_sub(*last as u32) % WrId::SEQUENCES;
            // A completion of another generation, or one that was counted before, covers no wr.
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
    fn a_completion_covers_all_wrs_since_the_one_before() {
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
