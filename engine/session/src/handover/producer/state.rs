//! What a producer knows of its hand-overs, and the steps that several calls share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use kvrail_core::batch::Class;

use super::super::config::HandoverConfig;
use super::super::error::HandoverConfigError;
use super::super::id::{HandoverId, SessionId};
use super::super::numbers::Numbers;
use super::super::queue::ClassQueues;
use super::super::ranges::{Places, ReadyRuns};
use super::super::types::{Block, EndReason, HandoverNumber, RequestId};
use super::memory::EndedRequests;
use super::outcome::{EndedHandover, HandoverOutcome};

/// All hand-overs of one producer, as a state machine without sockets, threads and clock.
///
/// The owner of the pages opens requests, adds blocks and parts, and fetches outcomes. Each session
/// passes in what its reader says, and fetches what to say to it. Each call that takes a time first
/// does what is due by then.
#[derive(Debug)]
pub struct Handovers {
    pub(super) config: HandoverConfig,
    pub(super) stopping: bool,
    pub(super) opened: u64,
    pub(super) open: BTreeMap<HandoverId, Handover>,
    pub(super) requests: BTreeMap<RequestId, HandoverId>,
    /// Takers of requests that are not known yet, by request and in the order in which they came.
    pub(super) waiting: BTreeMap<(RequestId, u64), (SessionId, HandoverNumber)>,
    pub(super) arrivals: u64,
    pub(super) ended_requests: EndedRequests,
    pub(super) sessions: BTreeMap<SessionId, SessionState>,
    pub(super) deadlines: BTreeSet<(Instant, Deadline)>,
    pub(super) outcomes: VecDeque<EndedHandover>,
    /// Sessions that have got something to say since they last had nothing.
    pub(super) with_messages: VecDeque<SessionId>,
}

/// What is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// The end of a lease.
    Lease(HandoverId),
    /// The end of the wait for an unknown request.
    Wait(SessionId, HandoverNumber),
}

/// A hand-over that is open.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) request: RequestId,
    /// The list. The parts that are ready now are in `ready`; those of a block are what they were
    /// when it was added.
    pub(super) blocks: Vec<Block>,
    pub(super) ready: ReadyRuns,
    pub(super) complete: bool,
    pub(super) lease_ends: Instant,
    pub(super) taker: Option<Taker>,
}

/// The reader of a hand-over, and how much it has been told.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) session: SessionId,
    pub(super) number: HandoverNumber,
    pub(super) class: Class,
    pub(super) told_taken: bool,
    /// How many blocks of the list were sent.
    pub(super) sent: u32,
    /// Places below `sent` of which more parts are ready than the reader was told.
    pub(super) risen: Places,
    pub(super) told_complete: bool,
}

/// What the producer knows of one session.
#[derive(Debug, Default)]
pub(super) struct SessionState {
    pub(super) numbers: Numbers,
    pub(super) takings: BTreeMap<HandoverNumber, TakingState>,
    pub(super) waiting: u32,
    /// Ended hand-overs of which the reader is not told yet.
    pub(super) ended: VecDeque<(HandoverNumber, EndReason)>,
    /// Hand-overs that have something to say.
    pub(super) queues: ClassQueues,
    /// Whether `next_session` has it, or has given it, since the last message was fetched.
    pub(super) announced: bool,
}

/// One number of a session that is in use.
#[derive(Clone, Copy, Debug)]
pub(super) enum TakingState {
    Waiting { request: RequestId, arrival: u64, until: Instant, class: Class },
    Taken(HandoverId),
}

/// `now + time`, or `now` where a clock cannot hold that.
pub(super) fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}

/// A length that a limit of 32 bits holds.
pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Handovers {
    /// A producer without hand-overs and sessions.
    ///
    /// # Errors
    ///
    /// A limit is 0, or a reader could not keep the leases.
    pub fn new(config: HandoverConfig) -> Result<Self, HandoverConfigError> {
        config.check()?;
        Ok(Self {
            config,
            stopping: false,
            opened: 0,
            open: BTreeMap::new(),
            requests: BTreeMap::new(),
            waiting: BTreeMap::new(),
            arrivals: 0,
            ended_requests: EndedRequests::default(),
            sessions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            outcomes: VecDeque::new(),
            with_messages: VecDeque::new(),
        })
    }

    /// The limits.
    #[must_use]
    pub const fn config(&self) -> &HandoverConfig {
        &self.config
    }

    /// How many hand-overs are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// How many takers of all sessions wait for a request that is not known yet.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// How many ended requests are remembered, so that later takers are told at once.
    #[must_use]
    pub fn remembered_count(&self) -> usize {
        self.ended_requests.len()
    }

    /// The open hand-over of a request.
    #[must_use]
    pub fn of_request(&self, request: RequestId) -> Option<HandoverId> {
        self.requests.get(&request).copied()
    }

    /// The open hand-over that a session has taken as `number`.
    #[must_use]
    pub fn taken_by(&self, session: SessionId, number: HandoverNumber) -> Option<HandoverId> {
        match *self.sessions.get(&session)?.takings.get(&number)? {
            TakingState::Taken(id) => Some(id),
            TakingState::Waiting { .. } => None,
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|&(at, _)| at);
        first.into_iter().chain(self.ended_requests.due()).min()
    }

    /// Ends the leases and the waits that end by `now`. It costs a step for each of them.
    pub fn tick(&mut self, now: Instant) {
        while let Some(&(at, deadline)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            match deadline {
                Deadline::Lease(id) => self.end(id, HandoverOutcome::Expired, now),
                Deadline::Wait(session, number) => {
                    if self.remove_taking(session, number).is_some() {
                        self.tell_ended(session, number, EndReason::Unknown);
                    }
                }
            }
        }
        self.ended_requests.forget_until(now);
    }

    /// Ends a hand-over: frees its number, tells its taker if that does not know, and makes the
    /// outcome. Nothing of the list can be sent afterwards.
    pub(super) fn end(&mut self, id: HandoverId, outcome: HandoverOutcome, now: Instant) {
        let Some(mut handover) = self.open.remove(&id) else { return };
        self.requests.remove(&handover.request);
        self.deadlines.remove(&(handover.lease_ends, Deadline::Lease(id)));
        match (&handover.taker, outcome.told()) {
            (Some(taker), told) => {
                let (session, number) = (taker.session, taker.number);
                self.remove_taking(session, number);
                if let Some(state) = self.sessions.get_mut(&session) {
                    state.queues.remove(taker.class, number);
                }
                if let Some(reason) = told {
                    self.tell_ended(session, number, reason);
                }
            }
            (None, Some(reason)) => self.remember(handover.request, reason, now),
            (None, None) => {}
        }
        handover.ready.write(&mut handover.blocks);
        let Handover { request, blocks, .. } = handover;
        self.outcomes.push_back(EndedHandover { id, request, outcome, blocks });
    }

    /// Gives a hand-over to a taker. The number must not be in use.
    pub(super) fn grant(
        &mut self,
        id: HandoverId,
        session: SessionId,
        number: HandoverNumber,
        class: Class,
        now: Instant,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let Some(handover) = self.open.get_mut(&id) else { return };
        state.takings.insert(number, TakingState::Taken(id));
        state.queues.add(class, number);
        handover.taker = Some(Taker {
            session,
            number,
            class,
            told_taken: false,
            sent: 0,
            risen: Places::default(),
            told_complete: false,
        });
        self.renew_lease(id, now);
        self.announce(session);
    }

    /// Lets a lease begin anew. A time before that of an earlier call does not shorten it.
    pub(super) fn renew_lease(&mut self, id: HandoverId, now: Instant) {
        let Some(handover) = self.open.get_mut(&id) else { return };
        let ends = after(now, self.config.lease).max(handover.lease_ends);
        self.deadlines.remove(&(handover.lease_ends, Deadline::Lease(id)));
        self.deadlines.insert((ends, Deadline::Lease(id)));
        handover.lease_ends = ends;
    }

    /// Takes a number of a session out of use.
    pub(super) fn remove_taking(
        &mut self,
        session: SessionId,
        number: HandoverNumber,
    ) -> Option<TakingState> {
        let state = self.sessions.get_mut(&session)?;
        let taking = state.takings.remove(&number)?;
        if let TakingState::Waiting { request, arrival, until, .. } = taking {
            state.waiting -= 1;
            self.waiting.remove(&(request, arrival));
            self.deadlines.remove(&(until, Deadline::Wait(session, number)));
        }
        Some(taking)
    }

    /// The first taker that waits for the request, taken out.
    pub(super) fn pop_waiting(&mut self, request: RequestId) -> Option<(SessionId, HandoverNumber, Class)> {
        let (_, &(session, number)) = self.waiting.range((request, 0)..=(request, u64::MAX)).next()?;
        match self.remove_taking(session, number)? {
            TakingState::Waiting { class, .. } => Some((session, number, class)),
            TakingState::Taken(_) => None,
        }
    }

    pub(super) fn tell_ended(&mut self, session: SessionId, number: HandoverNumber, reason: EndReason) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.ended.push_back((number, reason));
            self.announce(session);
        }
    }

    /// Lets takers of the request be told the reason at once, for the time of a lease.
    pub(super) fn remember(&mut self, request: RequestId, reason: EndReason, now: Instant) {
        let until = after(now, self.config.lease);
        self.ended_requests.insert(request, reason, until, self.config.max_remembered);
    }

    pub(super) fn announce(&mut self, session: SessionId) {
        if let Some(state) = self.sessions.get_mut(&session)
            && !state.announced
        {
            state.announced = true;
            self.with_messages.push_back(session);
        }
    }
}
