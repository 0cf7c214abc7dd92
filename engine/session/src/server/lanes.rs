//! The producer's ends of one session's lanes, as the session knows them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kvrail_host::reactor::ConnectionId;

use super::shop::{Desk, HeldLane, LaneJob, LaneShop, MadeLane, SessionRecord, refuse};
use crate::error::Cause;
use crate::lane::LaneAcceptor;
use crate::message::{LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal, LaneRefusalCode};
use crate::offer::{LaneBlob, MAX_LANES};

/// The lanes of one session. Dropping it ends the session.
pub(super) struct Lanes<A: LaneAcceptor> {
    shop: Arc<LaneShop<A>>,
    desk: Arc<Desk<A>>,
    lanes: BTreeMap<LaneNumber, LaneState<A>>,
    /// Answers that have not been sent, each with its exchange.
    answers: VecDeque<(u32, LaneAnswer)>,
}

enum LaneState<A: LaneAcceptor> {
    /// The lane is being made; whether the reader has given it back meanwhile.
    Making {
        given_back: bool,
    },
    Made(HeldLane<A>),
}

impl<A: LaneAcceptor> Lanes<A> {
    /// A session without lanes. `id` is notified when lanes have been made.
    pub(super) fn new(shop: Arc<LaneShop<A>>, record: SessionRecord, id: ConnectionId) -> Self {
        let desk = Desk::new(Arc::clone(&shop), record, id);
        Self { shop, desk, lanes: BTreeMap::new(), answers: VecDeque::new() }
    }

    /// Begins to make the requested lanes.
    pub(super) fn begin(&mut self, asks: &LaneAsks) {
        let mut jobs = Vec::new();
        for ask in &asks.lanes {
            match self.check(ask) {
                Ok(()) => {
                    self.lanes.insert(ask.number, LaneState::Making { given_back: false });
                    jobs.push(LaneJob::Make(asks.exchange, *ask));
                }
                Err(refusal) => self.answer(asks.exchange, ask, Err(refusal)),
            }
        }
        self.desk.submit(jobs);
    }

    fn check(&self, ask: &LaneAsk) -> Result<(), LaneRefusal> {
        let shared = &self.shop.shared;
        let (rail, rails, limit) = (ask.remote_rail, shared.rails.len(), shared.config.max_lanes);
        if rail.get() >= rails {
            let text = format!("no rail {}: there are {rails}, from 0", rail.0);
            return Err(refuse(LaneRefusalCode::NoSuchRail, &text));
        }
        if self.lanes.len() >= limit {
            return Err(refuse(LaneRefusalCode::TooMany, &format!("a session may have {limit} lanes")));
        }
        if self.lanes.contains_key(&ask.number) {
            return Err(refuse(LaneRefusalCode::NumberInUse, &format!("lane {}", ask.number.0)));
        }
        Ok(())
    }

    /// Frees lanes. A number that is not in use is no error: the lane may never have been made.
    pub(super) fn release(&mut self, numbers: &[LaneNumber]) {
        let mut jobs = Vec::new();
        for number in numbers {
            match self.lanes.remove(number) {
                Some(LaneState::Made(held)) => jobs.push(LaneJob::Free(held)),
                // The number stays in use until the lane has been made.
                Some(LaneState::Making { .. }) => {
                    self.lanes.insert(*number, LaneState::Making { given_back: true });
                }
                None => {}
            }
        }
        self.desk.submit(jobs);
    }

    /// Takes in what the workers have made since the last call.
    pub(super) fn collect(&mut self) {
        for (exchange, ask, made) in self.desk.results() {
            let result = self.settle(&ask, made);
            self.answer(exchange, &ask, result);
        }
    }

    fn settle(&mut self, ask: &LaneAsk, made: MadeLane<A>) -> Result<LaneBlob, LaneRefusal> {
        let state = self.lanes.remove(&ask.number);
        let (held, blob) = made?;
        if let Some(LaneState::Making { given_back: false }) = state {
            self.lanes.insert(ask.number, LaneState::Made(held));
            return Ok(blob);
        }
        self.desk.submit([LaneJob::Free(held)]);
        Err(refuse(LaneRefusalCode::Transport, "given back before it was made"))
    }

    fn answer(&mut self, exchange: u32, ask: &LaneAsk, result: Result<LaneBlob, LaneRefusal>) {
        let LaneAsk { number, rail, remote_rail, .. } = *ask;
        self.answers.push_back((exchange, LaneAnswer { number, rail, remote_rail, result }));
    }

    /// Whether answers wait to be sent.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether the reader may ask for lanes: not while as many answers wait as it may have lanes.
    pub(super) fn takes_asks(&self) -> bool {
        self.answers.len() < self.shop.shared.config.max_lanes.max(1)
    }

    /// The next answers, all of one exchange.
    pub(super) fn next_answers(&mut self) -> Option<LaneAnswers> {
        let exchange = self.answers.front()?.0;
        let count = self.answers.iter().take(MAX_LANES).take_while(|(of, _)| *of == exchange).count();
        // At most MAX_LANES of them.
        let lanes = self.answers.drain(..count).map(|(_, answer)| answer).collect();
        if self.answers.is_empty() {
            // A session is idle most of the time, and there are many of them.
            self.answers = VecDeque::new();
        }
        Some(LaneAnswers { exchange, lanes })
    }

    /// The session has ended: its lanes are freed. Its end is reported when they are.
    pub(super) fn end(mut self, cause: Cause) {
        self.hand_over_all(cause);
    }

    fn hand_over_all(&mut self, cause: Cause) {
        let lanes = std::mem::take(&mut self.lanes).into_values();
        self.desk.end(
            cause,
            lanes.filter_map(|state| match state {
                LaneState::Made(held) => Some(held),
                LaneState::Making { .. } => None,
            }),
        );
    }
}

impl<A: LaneAcceptor> Drop for Lanes<A> {
    fn drop(&mut self) {
        // Does nothing after `end`.
        self.hand_over_all(Cause::Stopped);
    }
}
