//! The plan of whole pages of several regions, as one word that threads share.

/// The plan by which every byte of a page of several regions lands where it is in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WholePlan {
    pub(crate) number: u16,
    pub(crate) wrs: u32,
    pub(crate) bytes: u32,
}

impl WholePlan {
    /// | bits | content |
    /// |---|---|
    /// | 0..10 | the number, plus 1 |
    /// | 10..31 | the number of work requests, at most 2^19 |
    /// | 32..64 | bytes |
    pub(super) const fn to_word(self) -> u64 {
        (self.bytes as u64) << 32 | (self.wrs as u64) << 10 | (self.number as u64 + 1)
    }

    pub(super) const fn from_word(word: u64) -> Option<Self> {
        let (number, wrs) = (word as u16 & 0x3FF, word as u32 >> 10);
        match number.checked_sub(1) {
            Some(number) => Some(Self { number, wrs, bytes: (word >> 32) as u32 }),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_plan_survives_its_word() {
        let most = WholePlan { number: 1022, wrs: 1 << 20, bytes: u32::MAX };
        for plan in [most, WholePlan { number: 0, wrs: 1, bytes: 2 }] {
            assert_eq!(WholePlan::from_word(plan.to_word()), Some(plan));
        }
        assert_eq!(WholePlan::from_word(0), None);
    }
}
