//! Which rail a run goes to: the one that would finish it first.

use super::Rail;
use crate::id::MAX_RAILS;

/// Bits of a rail's number.
const RAIL_BITS: u32 = MAX_RAILS.ilog2();
/// Pages up to this size are weighed as if they had it: 16 KiB, as much as a wr weighs beside its
/// bytes. So one kept key for each rail serves all small pages.
const SMALL: u64 = 16 << 10;

/// The rails that are open, and the keys by which they are compared.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Rails that are up and below their caps.
    pub(crate) open: u16,
    /// The key of each rail for a run of small pages: the time until it would finish, with the
    /// rail's number in the lowest bits; all ones for a rail that is not open.
    keys: [u64; MAX_RAILS],
}

impl Choice {
    pub(crate) const NONE: Self = Self { open: 0, keys: [u64::MAX; MAX_RAILS] };

    /// Works out anew whether rail `index` is open, and its key.
    #[inline]
    pub(crate) fn refresh(&mut self, index: usize, rail: &Rail) {
        let (bit, open) = (1 << (index % MAX_RAILS), rail.is_open());
        self.open = if open { self.open | bit } else { self.open & !bit };
        let key = rail.key(SMALL) << RAIL_BITS | index as u64;
        self.keys[index % MAX_RAILS] = if open { key } else { u64::MAX };
    }

    /// Picks the rail that would finish a run of pages of `size` bytes first. `mask` is not empty
    /// and holds open rails only; rails in `near` are preferred.
    #[inline]
    pub(crate) fn rail(&self, rails: &[Rail], mut mask: u16, near: u16, size: u64) -> usize {
        if mask & (mask - 1) != 0 {
            if mask & near != 0 {
                mask &= near;
            }
            return self.first_through(rails, mask, size);
        }
        mask.trailing_zeros() as usize
    }

    /// Picks the rail that would finish `more` bytes first. `mask` is not empty and holds open
    /// rails only.
    #[inline]
    fn first_through(&self, rails: &[Rail], mask: u16, more: u64) -> usize {
        // The compiler unrolls eight steps, and most machines have at most eight rails.
        let (few, _) = self.keys.split_at(MAX_RAILS / 2);
        let best = if more <= SMALL && mask == self.open && rails.len() <= few.len() {
            few.iter().fold(u64::MAX, |least, &key| least.min(key))
        } else {
            least_of(rails, mask, more)
        };
        best as usize % MAX_RAILS
    }
}

/// The least key of the rails in `mask`.
#[inline(never)]
fn least_of(rails: &[Rail], mask: u16, more: u64) -> u64 {
    let mut best = u64::MAX;
    for (i, rail) in (0_u8..).zip(rails) {
        // The time is in the high bits, the rail's number in the low ones; a rail that is not in
        // the mask gets all ones. There is no branch, since the best rail changes with every run
        // and a branch would be mispredicted more often than not.
        let not_in = u64::from(mask >> i & 1).wrapping_sub(1);
        best = best.min(rail.key(more) << RAIL_BITS | u64::from(i) | not_in);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::tests::rail;
    use super::*;

    #[test]
    fn kept_keys_and_a_look_at_each_rail_choose_the_same_rail() {
        let mut rails = [const { Rail::EMPTY }; MAX_RAILS];
        let mut choice = Choice::NONE;
        for (i, at) in rails.iter_mut().enumerate() {
            *at = rail();
            // Neither rising nor falling, and one of the first eight down.
            at.post(1, (i as u64 * 7919) % 1009 * 1000);
            at.up = i % 7 != 3;
            choice.refresh(i, at);
        }
        for n in 1..=MAX_RAILS / 2 {
            let open = choice.open & (u16::MAX >> (MAX_RAILS - n));
            let mut choice = Choice { open, keys: choice.keys };
            choice.keys[n..].fill(u64::MAX);
            let by_looking = least_of(&rails[..n], open, SMALL) as usize % MAX_RAILS;
            assert_eq!(choice.first_through(&rails[..n], open, SMALL), by_looking, "{n} rails");
            assert_eq!(
                choice.first_through(&rails[..n], open, 0),
                by_looking,
                "all small pages weigh the same"
            );
        }
        rails[5].up = false;
        choice.refresh(5, &rails[5]);
        assert_eq!(choice.open >> 5 & 1, 0);
    }
}
