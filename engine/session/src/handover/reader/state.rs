//! What a reader knows of its takings, and the steps that several calls share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use kvrail_core::batch::Class;

use super::super::config::TakingsConfig;
use super::super::numbers::Numbers;
use super::super::queue::Queue;
use super::super::ranges::Places;
use super::super::types::{Block, EndReason, GiveUpReason, HandoverNumber, RequestId};

/// All takings of one session's reader, as a state machine without sockets, threads and clock.
///
/// The owner takes requests and fetches events. The session passes in what the producer says, and
/// fetches what to say to it. When the session is lost, all takings are: drop the value and make
/// another one for the next session.
#[derive(Debug)]
pub struct Takings {
    pub(super) config: TakingsConfig,
    pub(super) numbers: Numbers,
    pub(super) open: BTreeMap<HandoverNumber, Taking>,
    /// Takings whose `Take` has not been sent.
    pub(super) unsent: BTreeSet<HandoverNumber>,
    /// `Done` and `GiveUp` messages, of takings whose `Take` was sent. They are sent before any
    /// further `Take`, so there are at most as many as there may be takings.
    pub(super) closings: VecDeque<(HandoverNumber, Option<GiveUpReason>)>,
    /// When the answers to takes are due.
    pub(super) answers: BTreeSet<(Instant, HandoverNumber)>,
    /// When the leases run out by this side's clock.
    pub(super) leases: BTreeSet<(Instant, HandoverNumber)>,
    /// The shortest time between two renewals that the producer has asked for.
    pub(super) renew_every: Option<Duration>,
    /// When the next renewal is due.
    pub(super) renew_at: Option<Instant>,
    /// A renewal is under way: the takings after this number are still to be renewed.
    pub(super) renewed_to: Option<u32>,
    /// Takings that have an event.
    pub(super) events: Queue,
}

/// One taking.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) request: RequestId,
    pub(super) class: Class,
    pub(super) wait: Duration,
    pub(super) state: State,
    pub(super) lease: Duration,
    pub(super) lease_ends: Option<Instant>,
    pub(super) answer_by: Option<Instant>,
    pub(super) blocks: Vec<Block>,
    /// How many blocks events have named.
    pub(super) named: u32,
    /// Places below `named` of which more parts are ready than events have said.
    pub(super) risen: Places,
    pub(super) taken_event: bool,
    pub(super) complete_event: bool,
    pub(super) lease_event: bool,
}

/// How far a taking is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Asked,
    Taken,
    Complete,
    Over(Ending),
}

/// Why a taking is over, of which the owner has not been told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Ended(EndReason),
    TooLong { blocks: usize },
    Unanswered,
}

/// A time that no session outlives: 136 years.
const FAR: Duration = Duration::from_secs(u32::MAX as u64);

/// `now + time`, or a far time where a clock cannot hold that.
pub(super) fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or_else(|| now + FAR)
}

/// A length that a limit of 32 bits holds.
pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Takings {
    /// The takings of a new session: none.
    #[must_use]
    pub fn new(config: TakingsConfig) -> Self {
        Self {
            config,
            numbers: Numbers::default(),
            open: BTreeMap::new(),
            unsent: BTreeSet::new(),
            closings: VecDeque::new(),
            answers: BTreeSet::new(),
            leases: BTreeSet::new(),
            renew_every: None,
            renew_at: None,
            renewed_to: None,
            events: Queue::default(),
        }
    }

    /// How many takings there are, those included whose end has not been fetched.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The list of a taking, as far as it has come, each block with the parts that may be read.
    /// Empty for a taking that is over.
    #[must_use]
    pub fn blocks(&self, number: HandoverNumber) -> &[Block] {
        self.open.get(&number).map_or(&[], |taking| &taking.blocks)
    }

    /// Whether the producer has said that the list and the parts grow no more.
    #[must_use]
    pub fn is_complete(&self, number: HandoverNumber) -> bool {
        self.open.get(&number).is_some_and(|taking| taking.state == State::Complete)
    }

    /// The request of a taking.
    #[must_use]
    pub fn request(&self, number: HandoverNumber) -> Option<RequestId> {
        self.open.get(&number).map(|taking| taking.request)
    }

    /// When [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let answer = self.answers.first().map(|&(at, _)| at);
        let lease = self.leases.first().map(|&(at, _)| at);
        answer.into_iter().chain(lease).chain(self.renew_at).min()
    }

    /// Does what is due by `now`: renewals, leases that ran out, answers that did not come. It
    /// costs a step for each of them. Fetch messages and events afterwards.
    pub fn tick(&mut self, now: Instant) {
        while let Some(&(at, number)) = self.answers.first()
            && at <= now
        {
            self.close(number, GiveUpReason::Failed, Ending::Unanswered);
        }
        while let Some(&(at, number)) = self.leases.first()
            && at <= now
        {
            self.leases.pop_first();
            if let Some(taking) = self.open.get_mut(&number) {
                (taking.lease_ends, taking.lease_event) = (None, true);
                self.events.add(number);
            }
        }
        if self.renew_at.is_some_and(|at| at <= now) {
            // The time after the next is set when the renewal is sent.
            self.renew_at = None;
            self.renewed_to = Some(0);
        }
    }

    /// Gives a taking up, and leaves its end to be fetched as an event.
    pub(super) fn close(&mut self, number: HandoverNumber, reason: GiveUpReason, ending: Ending) {
        if !self.unsent.remove(&number) {
            self.closings.push_back((number, Some(reason)));
        }
        self.over(number, ending);
    }

    /// Leaves of a taking only its end, to be fetched as an event.
    pub(super) fn over(&mut self, number: HandoverNumber, ending: Ending) {
        self.forget_times(number);
        if let Some(taking) = self.open.get_mut(&number) {
            taking.state = State::Over(ending);
            taking.blocks = Vec::new();
            self.events.add(number);
        }
    }

    /// Takes the deadlines of a taking out.
    pub(super) fn forget_times(&mut self, number: HandoverNumber) {
        let Some(taking) = self.open.get_mut(&number) else { return };
        if let Some(at) = taking.answer_by.take() {
            self.answers.remove(&(at, number));
        }
        if let Some(at) = taking.lease_ends.take() {
            self.leases.remove(&(at, number));
        }
    }

    /// Lets a lease begin anew by this side's clock.
    pub(super) fn set_lease(&mut self, number: HandoverNumber, from: Instant) {
        self.forget_times(number);
        if let Some(taking) = self.open.get_mut(&number) {
            let ends = after(from, taking.lease);
            taking.lease_ends = Some(ends);
            self.leases.insert((ends, number));
        }
    }
}
