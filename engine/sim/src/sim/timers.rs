//! Which lane has something due next: one time for each lane, in a tournament tree.

/// Later than anything that happens.
pub(super) const NEVER: u64 = u64::MAX;

/// A tree in which every inner node names the earlier of its two children, so the root names the
/// earliest lane. Setting the time of a lane compares again along its path to the root: as many
/// steps as the tree is high.
#[derive(Debug)]
pub(super) struct Timers<'m> {
    /// The time of each lane.
    times: &'m mut [u64],
    /// The lane that each node names. Node 1 is the root; nodes n .. 2n are the lanes.
    winners: &'m mut [u16],
}

impl<'m> Timers<'m> {
    /// A tree in which no lane has a time. `winners` must be twice as long as `times`, which is not
    /// empty.
    pub(super) fn new(times: &'m mut [u64], winners: &'m mut [u16]) -> Self {
        assert!(!times.is_empty() && winners.len() == 2 * times.len());
        times.fill(NEVER);
        let mut tree = Self { times, winners };
        let n = tree.times.len();
        for lane in 0..n {
            // SimStorage holds at most 2^16 lanes.
            tree.winners[n + lane] = lane as u16;
        }
        for node in (1..n).rev() {
            tree.play(node);
        }
        tree
    }

    #[inline]
    fn play(&mut self, node: usize) {
        let (left, right) = (self.winners[2 * node], self.winners[2 * node + 1]);
        let earlier = self.times[left as usize] <= self.times[right as usize];
        self.winners[node] = if earlier { left } else { right };
    }

    /// Sets when something is due next on `lane`.
    #[inline]
    pub(super) fn set(&mut self, lane: usize, time: u64) {
        if self.times[lane] == time {
            return;
        }
        self.times[lane] = time;
        let mut node = (self.times.len() + lane) / 2;
        while node > 0 {
            self.play(node);
            node /= 2;
        }
    }

    /// The earliest time, and the lane that has it.
    #[inline]
    pub(super) fn first(&self) -> (u64, usize) {
        // With one lane the root is that lane's leaf.
        let lane = self.winners[1] as usize;
        (self.times[lane], lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;
    use crate::test_seeds;

    #[test]
    fn the_first_time_is_the_least_for_any_number_of_lanes() {
        test_seeds::each("the_first_time_is_the_least_for_any_number_of_lanes", 0..4, |seed| {
            for lanes in [1, 2, 3, 5, 8, 13, 64, 100] {
                let (mut times, mut winners) = (std::vec![0; lanes], std::vec![0; 2 * lanes]);
                let mut tree = Timers::new(&mut times, &mut winners);
                assert_eq!(tree.first().0, NEVER);
                let mut rng = SplitMix64::new(seed);
                for _ in 0..500 {
                    let lane = usize::try_from(rng.up_to(lanes as u64 - 1)).unwrap();
                    let time = if rng.up_to(4) == 0 { NEVER } else { rng.up_to(50) };
                    tree.set(lane, time);
                    let (first, whose) = tree.first();
                    assert_eq!(first, *tree.times.iter().min().unwrap());
                    assert_eq!(tree.times[whose], first);
                }
            }
        });
    }
}
