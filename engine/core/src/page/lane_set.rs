//! The lanes over which chunks of a page have arrived.

/// A set of lanes, each by its number modulo 16. So a lane may seem to be in the set because
/// another one is, and never the other way round. Bit 0 is not used, so no set is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneSet(u32);

impl LaneSet {
    pub(crate) const EMPTY: Self = Self(0);

    /// The set of one lane, by its number.
    #[inline(always)]
    pub(crate) const fn of(lane: usize) -> Self {
        Self(2 << (lane as u32 % 16))
    }

    /// The set as a number, which is not 1.
    #[inline(always)]
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// The set that `bits` is, or the empty one if it is 1.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits & !1)
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
        for lane in [3, 15, 17, 200] {
            assert!(!set.meets(LaneSet::of(lane)), "lane {lane}");
            set.add(LaneSet::of(lane));
            assert!(set.meets(LaneSet::of(lane)) && set.meets(LaneSet::of(lane + 16)));
        }
        assert!(!set.meets(LaneSet::of(4)));
        assert_eq!(LaneSet::from_bits(set.bits()), set);
        assert_eq!(LaneSet::from_bits(1), LaneSet::EMPTY);
    }
}
