//! All rails of an engine.

use core::ops::{Index, IndexMut};

use super::Rail;
use super::choice::Choice;
use crate::config::EngineConfig;
use crate::time::Nanos;

/// The rails, and what follows from all of them together.
///
/// Invariant: [`choice`](Self::choice) says of each rail what [`Choice::refresh`] makes of it: code
/// that changes whether a rail is open, or what is outstanding on it, calls
/// [`refresh`](Self::refresh). `silent_count` is the number of silent lanes plus the number of
/// rails under suspicion.
#[derive(Debug)]
pub(crate) struct Rails<'s> {
    pub(crate) all: &'s mut [Rail],
    /// Which rails are open, and which of them would be through first.
    pub(crate) choice: Choice,
    /// Lanes that are silent and rails under suspicion, together.
    pub(crate) silent_count: u32,
    /// Estimated bytes per second of all rails that are up.
    rate: u64,
    /// A deadline that is further away than this can be met, whatever is outstanding.
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

    /// Brings up to date whether a rail is up and below its caps, and when it would be through.
    #[inline]
    pub(crate) fn refresh(&mut self, rail: usize) {
        self.choice.refresh(rail, &self.all[rail]);
    }

    /// Brings up to date what all rails together are taken to carry.
    pub(crate) fn refresh_rate(&mut self, config: &EngineConfig) {
        let up = self.all.iter().filter(|rail| rail.up);
        let (rate, caps) = up
            .fold((0, 0), |(rate, caps), rail| (rate + rail.speed.bytes_per_sec(), caps + config.rail_bytes));
        // The most that `would_be_late` can find.
        let caps = u128::from(3 * caps + 2 * self.largest_batch) * 1_000_000_000;
        self.rate = rate;
        self.slack_threshold = Nanos(u64::try_from(caps / u128::from(rate.max(1))).unwrap_or(u64::MAX));
    }

    /// Slots are registered of which a batch can hold `bytes`.
    pub(crate) fn may_carry(&mut self, bytes: u64, config: &EngineConfig) {
        self.largest_batch = self.largest_batch.max(bytes);
        self.refresh_rate(config);
    }

    /// A deadline that is further away than this can be met, whatever is outstanding.
    #[inline]
    pub(crate) const fn slack_threshold(&self) -> Nanos {
        self.slack_threshold
    }

    /// Whether a batch of `bytes`, begun now, would take longer than `slack` at the estimated
    /// rates: its data wait behind what is outstanding, its validating READs wait again, it shares
    /// the rails with other peers, and the engine sleeps until half is done. Never when nothing is
    /// outstanding: then an attempt makes no other batch late.
    pub(crate) fn would_be_late(&self, slack: Nanos, bytes: u64) -> bool {
        let outstanding: u64 = self.outstanding_bytes();
        let need = u128::from(3 * outstanding + 2 * bytes) * 1_000_000_000;
        outstanding > 0 && need > u128::from(slack.0) * u128::from(self.rate)
    }

    /// How long all that is outstanding should take, twice.
    pub(crate) fn expected_time(&self) -> Nanos {
        let take = u128::from(self.outstanding_bytes()) * 2_000_000_000 / u128::from(self.rate.max(1));
        Nanos(u64::try_from(take).unwrap_or(u64::MAX))
    }

    /// wrs outstanding on lanes that are not silent.
    pub(crate) fn outstanding_wrs(&self) -> u32 {
        self.all.iter().map(|rail| rail.wrs).sum()
    }

    fn outstanding_bytes(&self) -> u64 {
        self.all.iter().map(|rail| rail.bytes).sum()
    }
}
