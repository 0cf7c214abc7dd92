//! The tag by which a QP's events find its lane.

use std::sync::atomic::{AtomicU64, Ordering};

use kvrail_core::id::LaneId;

/// The id of the lane that a QP is, once an engine has opened the lane. The QP's context pointer
/// leads here, so an asynchronous event of the QP finds the lane.
#[derive(Debug, Default)]
pub(crate) struct LaneTag(AtomicU64);

impl LaneTag {
    /// The bit that is set once the lane is known.
    const KNOWN: u64 = 1 << 63;

    pub(crate) fn set(&self, lane: LaneId) {
        let word = (lane.index() as u64) << 24 | u64::from(lane.generation());
        self.0.store(Self::KNOWN | word, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<LaneId> {
        let word = self.0.load(Ordering::Acquire);
        // `set` packs an index of 16 bits and a generation of 24.
        (word & Self::KNOWN != 0).then(|| LaneId::new((word >> 24) as u16, word as u32 & 0xFF_FFFF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_returns_the_lane_that_was_set() {
        let tag = LaneTag::default();
        assert_eq!(tag.get(), None);
        for (index, generation) in [(0, 0), (u16::MAX, LaneId::GENERATIONS - 1), (7, 1)] {
            tag.set(LaneId::new(index, generation));
            assert_eq!(tag.get(), Some(LaneId::new(index, generation)));
        }
    }
}
