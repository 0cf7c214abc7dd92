//! Which batches the engine has, which of them are late, and which are done.

use crate::limits::{GROUP, narrow};
use crate::page::list::{List, Reported};
use crate::ring::fifo::Fifo;
use crate::time::Time;

/// The batches of an engine that have been submitted, by their numbers, in groups of 64.
///
/// Invariants: a batch is `flying` from `submit` until all of its pages are retired, and then in
/// `done` until the caller takes it. An `overdue` batch is flying, its deadline has passed, and
/// `next_overdue` has not returned it. `earliest` of a group, and `next_deadline` of all, are lower
/// bounds of the deadlines that have not passed.
#[derive(Debug)]
pub(crate) struct InFlight<'s> {
    flying: &'s mut [u64],
    overdue: &'s mut [u64],
    earliest: &'s mut [Time],
    next_deadline: Time,
    count: u32,
    /// How many batches that the engine has not given up report their pages.
    pub(crate) reporting: u32,
    /// The pages that have their final results, of batches that report their pages and that the
    /// engine's own thread has submitted.
    pub(crate) reports: List<Reported>,
    /// As `reports`, of batches that came through a hub.
    pub(crate) hub_reports: List<Reported>,
    /// Whether a page has joined `hub_reports` since a hub last took them, or since the engine last
    /// refused to sleep for it: a hub that has been dropped takes no more.
    pub(crate) hub_news: bool,
    pub(crate) done: Fifo<'s, u16>,
    /// The least number that no submitter of a hub has had yet.
    next_origin: u16,
}

/// The numbers by which an engine knows the submitters of a hub: from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origins {
    pub(crate) engine: u16,
    pub(crate) first: u16,
}

/// The group of a batch, and its bit there.
#[inline]
const fn group_and_bit(batch: u16) -> (usize, u64) {
    (batch as usize / GROUP, 1 << (batch as usize % GROUP))
}

impl<'s> InFlight<'s> {
    pub(crate) fn new(
        flying: &'s mut [u64],
        overdue: &'s mut [u64],
        earliest: &'s mut [Time],
        done: &'s mut [u16],
    ) -> Self {
        let (next_deadline, done) = (Time::NEVER, Fifo::new(done));
        Self {
            flying,
            overdue,
            earliest,
            next_deadline,
            count: 0,
            reporting: 0,
            reports: List::EMPTY,
            hub_reports: List::EMPTY,
            hub_news: false,
            done,
            next_origin: 1,
        }
    }

    /// How many batches are flying.
    pub(crate) const fn count(&self) -> usize {
        self.count as usize
    }

    /// Whether a batch is flying. `batch` may be any number.
    pub(crate) fn is_flying(&self, batch: u16) -> bool {
        let (group, bit) = group_and_bit(batch);
        self.flying.get(group).is_some_and(|word| word & bit != 0)
    }

    /// Notes that a batch has been submitted.
    #[inline]
    pub(crate) fn begin(&mut self, batch: u16, deadline: Time) {
        let (group, bit) = group_and_bit(batch);
        self.count += 1;
        self.flying[group] |= bit;
        self.earliest[group] = self.earliest[group].min(deadline);
        self.next_deadline = self.next_deadline.min(deadline);
    }

    /// Notes that all pages of a batch are retired: it is done.
    #[inline]
    pub(crate) fn end(&mut self, batch: u16) {
        let (group, bit) = group_and_bit(batch);
        self.count -= 1;
        self.done.push(batch);
        self.flying[group] &= !bit;
        self.overdue[group] &= !bit;
    }

    /// A time before which no further deadline passes.
    #[inline]
    pub(crate) const fn next_deadline(&self) -> Time {
        self.next_deadline
    }

    pub(crate) const fn groups(&self) -> usize {
        self.earliest.len()
    }

    /// Whether a deadline of a group may have passed.
    pub(crate) fn may_be_late(&self, group: usize, now: Time) -> bool {
        self.earliest[group] <= now
    }

    /// Notes the earliest deadline of a group that has not passed.
    pub(crate) fn set_earliest(&mut self, group: usize, earliest: Time) {
        self.earliest[group] = earliest;
    }

    /// Works out the earliest deadline of all from those of the groups.
    pub(crate) fn refresh_next_deadline(&mut self) {
        self.next_deadline = self.earliest.iter().copied().fold(Time::NEVER, Time::min);
    }

    /// The first flying batch of a group from number `from` of the group on, and the number after
    /// it. Callers look up each batch anew, since failing one batch may end others.
    pub(crate) fn next_flying(&self, group: usize, from: u32) -> Option<(u16, u32)> {
        let rest = u64::MAX.checked_shl(from)? & self.flying[group];
        let number = rest.trailing_zeros();
        (rest != 0).then(|| (narrow(GROUP * group + number as usize), number + 1))
    }

    /// Notes that a batch is overdue, if it is still flying.
    pub(crate) fn set_overdue(&mut self, batch: u16) {
        let (group, bit) = group_and_bit(batch);
        self.overdue[group] |= self.flying[group] & bit;
    }

    pub(crate) fn any_overdue(&self) -> bool {
        self.overdue.iter().any(|&word| word != 0)
    }

    /// The next overdue batch. Each is returned once.
    pub(crate) fn next_overdue(&mut self) -> Option<u16> {
        let group = self.overdue.iter().position(|&word| word != 0)?;
        let word = self.overdue[group];
        self.overdue[group] = word & (word - 1);
        Some(narrow(GROUP * group + word.trailing_zeros() as usize))
    }

    /// Numbers for the `n` submitters of a hub. When they run out, the numbers of earlier hubs are
    /// used again.
    pub(crate) fn origins(&mut self, engine: u16, n: u16) -> Origins {
        // 0 is the engine's own thread.
        let first = if self.next_origin > u16::MAX - n { 1 } else { self.next_origin };
        self.next_origin = first + n;
        Origins { engine, first }
    }
}
