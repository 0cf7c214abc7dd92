//! How far the rounds of one row lie apart.

use serde::{Deserialize, Serialize};

/// Figures of several rounds of the same work, in order of size. Quartiles are interpolated
/// linearly between neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// How many rounds there were.
    pub(crate) rounds: usize,
    pub(crate) min: f64,
    pub(crate) q1: f64,
    pub(crate) median: f64,
    pub(crate) q3: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of these rates; of none, zeros.
    pub(crate) fn of(rates: &[f64]) -> Self {
        let mut sorted = rates.to_vec();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return Self::default() };
        let at = |quarters: usize| {
            let (place, part) = (quarters * last / 4, quarters * last % 4);
            let above = sorted[(place + 1).min(last)];
            sorted[place] + (above - sorted[place]) * part as f64 / 4.0
        };
        Self { rounds: sorted.len(), min: sorted[0], q1: at(1), median: at(2), q3: at(3), max: sorted[last] }
    }

    /// The same rates in another unit.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self {
            rounds: self.rounds,
            min: self.min * factor,
            q1: self.q1 * factor,
            median: self.median * factor,
            q3: self.q3 * factor,
            max: self.max * factor,
        }
    }

    /// The distance of the quartiles, over the median; 0 where that is 0.
    pub(crate) fn relative(&self) -> f64 {
        if self.median > 0.0 { (self.q3 - self.q1) / self.median } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_rounds_lie_between_the_quartiles() {
        let spread = Spread::of(&[9.0, 1.0, 5.0, 3.0, 7.0]);
        let same = Spread { rounds: 5, min: 1.0, q1: 3.0, median: 5.0, q3: 7.0, max: 9.0 };
        assert_eq!(spread, same);
        assert!((spread.relative() - 0.8).abs() < 1e-12);
        assert_eq!(Spread::of(&[2.0, 4.0]).median, 3.0);
        assert_eq!(Spread::of(&[2.0, 4.0]).times(2.0).q1, 5.0);
    }

    #[test]
    fn one_round_has_no_spread_and_none_has_no_figure() {
        let one = Spread::of(&[4.0]);
        assert_eq!((one.min, one.median, one.max, one.relative()), (4.0, 4.0, 4.0, 0.0));
        assert_eq!(Spread::of(&[]), Spread::default());
        assert_eq!(Spread::default().relative(), 0.0);
    }
}
