//! The lanes over which chunks of a page have arrived.

/// A set of lanes, each by its number modulo 32. So a lane may seem to be in the set because
/// another one is, and never the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneSet(u32);

impl LaneSet {
    pub(crate) const EMPTY: Self = Self(0);

    /// The set of one lane, by its number.
    #[inline(always)]
    pub(crate) const fn of(lane: usize) -> Self {
        Self(1 << (lane as u32 % u32::BITS))
    }

    #[inline(always)]
    pub(crate) const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether a lane may be in both.
    pub(crate) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_was_added_is_in_the_set() {
        let mut set = LaneSet::EMPTY;
        for lane in [3, 31, 32, 200] {
            assert!(!set.meets(LaneSet::of(lane)), "lane {lane}");
            set.add(LaneSet::of(lane));
            assert!(set.meets(LaneSet::of(lane)) && set.meets(LaneSet::of(lane + 32)));
        }
        assert!(!set.meets(LaneSet::of(4)));
    }
}
