//! A row of a ladder while it is measured.

use std::collections::BTreeMap;

use crate::machine::counters::Counters;
use crate::machine::placement::Cpus;
use crate::measure::spread::Spread;
use crate::measure::window::Tally;
use crate::output::json::{RailFigure, Row, Shape};
use crate::process::protocol::{Copying, Verified};

/// A row is steady when the quartiles of its rounds are at most this far apart, over their median.
pub(crate) const STEADY: f64 = 0.1;

/// A row while it is measured.
pub(crate) struct Lap {
    pub(crate) scenario: String,
    pub(crate) shape: Shape,
    /// The index of the crew that does it.
    pub(crate) crew: usize,
    /// How its producer copies; `None`: it reads.
    pub(crate) copying: Option<Copying>,
    pub(crate) tally: Tally,
    pub(crate) verified: Verified,
    /// The rails' names of each process, and the CPUs to which it is bound.
    pub(crate) rails: Vec<(Vec<String>, Option<Cpus>)>,
    /// By how much the counters of each rail rose.
    pub(crate) counters: BTreeMap<String, Counters>,
}

impl Lap {
    pub(crate) fn new(scenario: &str, shape: Shape, crew: usize, copying: Option<Copying>) -> Self {
        Self {
            scenario: scenario.into(),
            shape,
            crew,
            copying,
            tally: Tally::default(),
            verified: Verified::default(),
            rails: Vec::new(),
            counters: BTreeMap::new(),
        }
    }

    /// What each rail of each process carried: its share of the bytes, of what its process read in
    /// the windows that count.
    fn per_rail(&self) -> Vec<RailFigure> {
        let seconds = self.tally.time.as_secs_f64();
        let page = f64::from(self.shape.named.layout.page_bytes());
        let mut all_rails = Vec::new();
        for (number, ((rails, cpus), share)) in self.rails.iter().zip(&self.tally.workers).enumerate() {
            let all: u64 = share.rail_bytes.iter().sum();
            for (at, rail) in rails.iter().enumerate() {
                let part = match (rails.len(), share.rail_bytes.get(at)) {
                    (1, _) => 1.0,
                    (_, Some(&bytes)) if all > 0 => bytes as f64 / all as f64,
                    // A process that gets by key does not say.
                    _ => return Vec::new(),
                };
                all_rails.push(RailFigure {
                    rail: rail.clone(),
                    process: number + 1,
                    gb_per_s: share.pages as f64 * page / 1e9 / seconds * part,
                    cpus: cpus.as_ref().map(|cpus| cpus.list().into()),
                    counters: self.counters.get(rail).cloned().unwrap_or_default(),
                });
            }
        }
        all_rails
    }

    /// The row. `limit` has the pages per second of the rounds of the plain copy.
    pub(crate) fn row(&self, limit: &[f64]) -> Row {
        let mut row = Row::new(&self.scenario, self.shape, &self.tally, self.verified);
        row.ratio.memcpy = share(&self.tally.rates, limit);
        row.per_rail = self.per_rail();
        row
    }
}

/// The median, over the rounds, of a row's rate over that of the plain copy: both had the same
/// neighbours on the machine in one round, and other ones in the next. `None` without such a copy.
fn share(rates: &[f64], limit: &[f64]) -> Option<f64> {
    let pairs = rates.iter().zip(limit).filter(|&(_, &limit)| limit > 0.0);
    let shares: Vec<_> = pairs.map(|(rate, limit)| rate / limit).collect();
    let median = Spread::of(&shares).median;
    if shares.is_empty() || median > 0.0 {
        return (!shares.is_empty()).then_some(median);
    }
    // Nothing ended in most rounds; then there was a longer one, which has no copy beside it.
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    Some(mean(rates) / mean(limit))
}

/// Whether these rounds of a row are enough: one that lasted is followed by few that differ.
pub(crate) fn steady(rates: &[f64], least: usize) -> bool {
    rates.len() >= least && Spread::of(rates).relative() <= STEADY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_median_of_what_was_measured_side_by_side() {
        // In the second round another program had a core, from both rows.
        assert_eq!(share(&[9.0, 4.5, 8.0], &[10.0, 5.0, 10.0]), Some(0.9));
        assert_eq!(share(&[9.0, 4.5, 8.0, 8.0], &[10.0, 5.0, 0.0]), Some(0.9), "rounds without a copy");
        assert_eq!(share(&[0.0, 6.0], &[5.0]), Some(0.6), "a longer round");
        assert_eq!(share(&[9.0], &[]), None);
        assert_eq!(share(&[], &[1.0]), None);
    }

    #[test]
    fn a_copy_that_was_disturbed_once_in_five_rounds_is_steady_and_one_that_was_twice_is_not() {
        assert!(steady(&[10.0, 10.1, 5.0, 10.2, 10.0], 5));
        assert!(!steady(&[10.0, 6.0, 5.0, 10.2, 10.0], 5));
        assert!(!steady(&[10.0, 10.0], 5), "too few rounds to tell");
        assert!(!steady(&[], 1));
    }
}
