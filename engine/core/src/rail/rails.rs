//! All rails of an engine together: which are open, how fast they are, and whether work can be in
//! time.

use core::ops::{Index, IndexMut};

use super::Rail;
use super::choice::Choice;
use crate::config::EngineConfig;
use crate::time::Nanos;

/// The rails, and the figures that are computed from all of them.
///
/// Invariant: [`choice`](Self::choice) is up to date. Code that changes whether a rail is open, or
/// what is outstanding on it, calls [`refresh`](Self::refresh). `silent_count` is the number of
/// silent lanes plus the number of suspected rails.
#[derive(Debug)]
pub(crate) struct Rails<'s> {
    pub(crate) all: &'s mut [Rail],
    /// Which rails are open, and the keys by which they are compared.
    pub(crate) choice: Choice,
    /// The number of silent lanes plus the number of suspected rails.
    pub(crate) silent_count: u32,
    /// Estimated bytes per second of all rails that are up.
    rate: u64,
    /// The slack from which on every deadline can be met, whatever is outstanding.
    slack_threshold: Nanos,
    /// The most bytes that a batch can hold: its pages, times the largest slot.
    largest_batch: u64,
}

impl Index<usize> for Rails<'_> {
    type Output = Rail;

    #[inline]
    fn index(&self, rail: usize) -> &Rail {
        &self.all[rail]
    }
}

impl IndexMut<usize> for Rails<'_> {
    #[inline]
    fn index_mut(&mut self, rail: usize) -> &mut Rail {
        &mut self.all[rail]
    }
}

impl<'s> Rails<'s> {
    pub(crate) fn new(all: &'s mut [Rail], config: &EngineConfig) -> Self {
        let (rate, slack_threshold) = (0, Nanos(u64::MAX));
        let mut rails =
            Self { all, choice: Choice::NONE, silent_count: 0, rate, slack_threshold, largest_batch: 0 };
        (0..rails.all.len()).for_each(|rail| rails.refresh(rail));
        rails.refresh_rate(config);
        rails
    }

    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn iter(&self) -> core::slice::Iter<'_, Rail> {
        self.all.iter()
    }

    /// Brings the choice up to date after rail `rail` has changed.
    #[inline]
    pub(crate) fn refresh(&mut self, rail: usize) {
        self.choice.refresh(rail, &self.all[rail]);
    }

    /// Works out anew the rate of all rails together, and the slack threshold.
    pub(crate) fn refresh_rate(&mut self, config: &EngineConfig) {
        let up = self.all.iter().filter(|rail| rail.up);
        let (rate, caps) = up
            .fold((0, 0), |(rate, caps), rail| (rate + rail.speed.bytes_per_sec(), caps + config.rail_bytes));
        // With this slack or more `would_be_late` is never true.
        let caps = u128::from(3 * caps + 2 * self.largest_batch) * 1_000_000_000;
        self.rate = rate;
        self.slack_threshold = Nanos(u64::try_from(caps / u128::from(rate.max(1))).unwrap_or(u64::MAX));
    }

    /// Notes that a batch can hold `bytes`, since slots of such a size have been registered.
    pub(crate) fn may_carry(&mut self, bytes: u64, config: &EngineConfig) {
        self.largest_batch = self.largest_batch.max(bytes);
        self.refresh_rate(config);
    }

    /// The slack from which on every deadline can be met, whatever is outstanding.
    #[inline]
    pub(crate) const fn slack_threshold(&self) -> Nanos {
        self.slack_threshold
    }

    /// Whether a batch of `bytes`, begun now, would take longer than `slack` at the estimated
    /// rates: its data waits behind all outstanding work, its validating READs wait again, other
    /// peers share the rails, and the engine sleeps until half of the work is done. It is false
    /// when nothing is outstanding, since an attempt makes no other batch late then.
    pub(crate) fn would_be_late(&self, slack: Nanos, bytes: u64) -> bool {
        let outstanding: u64 = self.outstanding_bytes();
        let need = u128::from(3 * outstanding + 2 * bytes) * 1_000_000_000;
        outstanding > 0 && need > u128::from(slack.0) * u128::from(self.rate)
    }

    /// Twice the time that all outstanding work should take.
    pub(crate) fn expected_time(&self) -> Nanos {
        let take = u128::from(self.outstanding_bytes()) * 2_000_000_000 / u128::from(self.rate.max(1));
        Nanos(u64::try_from(take).unwrap_or(u64::MAX))
    }

    /// The number of wrs outstanding on lanes that are not silent.
    pub(crate) fn outstanding_wrs(&self) -> u32 {
        self.all.iter().map(|rail| rail.wrs).sum()
    }

    fn outstanding_bytes(&self) -> u64 {
        self.all.iter().map(|rail| rail.bytes).sum()
    }
}
