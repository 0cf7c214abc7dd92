//! The lanes that a session has requested, and what it is to tell the producer about lanes.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Cause, SessionError};
use crate::lane::SessionLaneError;
use crate::message::{LaneAnswers, LaneAsk, LaneAsks, LaneNumber, Message};
use crate::offer::{LaneBlob, MAX_LANES};
use crate::pairing::RailPair;

/// Requests for lanes that one session may have unanswered, so that a producer whose transport
/// hangs gets a bounded number of them.
pub(super) const MAX_ASKED: usize = 256;

/// The result of one request.
pub(super) type Answer = (LaneNumber, Result<LaneBlob, SessionLaneError>);

/// The requests for lanes that have no answer yet, and the messages about lanes that are to be
/// sent.
#[derive(Debug)]
pub(super) struct AskedLanes {
    open: BTreeMap<LaneNumber, Asked>,
    /// No request of `open` is late before then.
    first_late: Option<Instant>,
    next_number: LaneNumber,
    last_exchange: u32,
    /// What is to be sent, in order: a lane that is given back makes room for one that is requested
    /// after it. Holds [`MAX_ASKED`] requests at most, and a lane once for each time that it was
    /// given back.
    unsent: VecDeque<Unsent>,
}

#[derive(Debug)]
struct Asked {
    pair: RailPair,
    until: Instant,
    /// The exchange in which the request was sent.
    exchange: Option<u32>,
    /// The request was answered by [`SessionLaneError::Late`]. If the producer makes the lane
    /// later, it is given back.
    late: bool,
}

#[derive(Debug)]
enum Unsent {
    Ask(LaneAsk),
    Release(LaneNumber),
}

impl AskedLanes {
    pub(super) const fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            first_late: None,
            next_number: LaneNumber(NonZeroU32::MIN),
            last_exchange: 0,
            unsent: VecDeque::new(),
        }
    }

    /// Notes a request that is to be sent.
    pub(super) fn ask(
        &mut self,
        pair: RailPair,
        blob: LaneBlob,
        until: Instant,
    ) -> Result<LaneNumber, SessionLaneError> {
        if self.open.len() >= MAX_ASKED {
            return Err(SessionLaneError::Unanswered { asked: self.open.len() });
        }
        let number = self.take_number();
        let RailPair { rail, remote_rail } = pair;
        self.unsent.push_back(Unsent::Ask(LaneAsk { number, rail, remote_rail, blob }));
        self.open.insert(number, Asked { pair, until, exchange: None, late: false });
        self.first_late = Some(self.first_late.map_or(until, |first| first.min(until)));
        Ok(number)
    }

    /// A number that no open request has. After 2^32 lanes numbers come again; the producer refuses
    /// numbers of lanes that are in use.
    fn take_number(&mut self) -> LaneNumber {
        loop {
            let number = self.next_number;
            self.next_number = LaneNumber(number.0.checked_add(1).unwrap_or(NonZeroU32::MIN));
            if !self.open.contains_key(&number) {
                return number;
            }
        }
    }

    /// Notes lanes that are to be given back.
    pub(super) fn release(&mut self, lanes: &[LaneNumber]) {
        self.unsent.extend(lanes.iter().copied().map(Unsent::Release));
    }

    /// Takes the producer's answers in. The answer to a request that is late already is not passed
    /// on, and its lane is given back.
    ///
    /// # Errors
    ///
    /// An answer is to no request that was sent and is open. The answers before it count.
    pub(super) fn answered(
        &mut self,
        answers: LaneAnswers,
        mut pass_on: impl FnMut(Answer),
    ) -> Result<(), Cause> {
        for answer in answers.lanes {
            let pair = RailPair { rail: answer.rail, remote_rail: answer.remote_rail };
            let fits = |a: &Asked| a.exchange == Some(answers.exchange) && a.pair == pair;
            let Some(late) = self.open.get(&answer.number).filter(|a| fits(a)).map(|a| a.late) else {
                return Err(Cause::Contradiction(
                    "it answered a request for a lane that this side did not make",
                ));
            };
            self.open.remove(&answer.number);
            if !late {
                pass_on((answer.number, answer.result.map_err(SessionLaneError::Refused)));
            } else if answer.result.is_ok() {
                self.release(&[answer.number]);
            }
        }
        Ok(())
    }

    /// When [`expire`](Self::expire) is to be called at the latest.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.first_late
    }

    /// Answers the requests whose time is over with [`SessionLaneError::Late`].
    pub(super) fn expire(&mut self, now: Instant, mut pass_on: impl FnMut(Answer)) {
        if self.first_late.is_none_or(|first| now < first) {
            return;
        }
        for (&number, asked) in self.open.iter_mut().filter(|(_, asked)| !asked.late) {
            if now >= asked.until {
                asked.late = true;
                pass_on((number, Err(SessionLaneError::Late)));
            }
        }
        self.first_late = self.open.values().filter(|asked| !asked.late).map(|asked| asked.until).min();
    }

    /// Answers every open request with the end of the session, and forgets what is to be sent.
    pub(super) fn end(&mut self, why: &Arc<SessionError>, mut pass_on: impl FnMut(Answer)) {
        (self.first_late, self.unsent) = (None, VecDeque::new());
        for (number, asked) in std::mem::take(&mut self.open) {
            if !asked.late {
                pass_on((number, Err(SessionLaneError::Session(Arc::clone(why)))));
            }
        }
    }

    /// Whether [`next_message`](Self::next_message) has something to send.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The next message to send. Requests that follow each other share a message, and so do lanes
    /// that are given back.
    pub(super) fn next_message(&mut self) -> Option<Message> {
        while let Some(first) = self.unsent.front() {
            // Requests that had become late before they were sent make no message.
            let message = match first {
                Unsent::Ask(_) => self.next_asks(),
                Unsent::Release(_) => Some(self.next_releases()),
            };
            if self.unsent.is_empty() {
                // A session is idle most of the time, and there are many of them.
                self.unsent = VecDeque::new();
            }
            if message.is_some() {
                return message;
            }
        }
        None
    }

    fn next_asks(&mut self) -> Option<Message> {
        let exchange = self.last_exchange.checked_add(1).unwrap_or(1);
        let mut lanes = heapless::Vec::new();
        while !lanes.is_full()
            && let Some(&Unsent::Ask(ask)) = self.unsent.front()
        {
            self.unsent.pop_front();
            let Some(asked) = self.open.get_mut(&ask.number) else { continue };
            if asked.late {
                self.open.remove(&ask.number);
                continue;
            }
            asked.exchange = Some(exchange);
            // The list is not full.
            let _ = lanes.push(ask);
        }
        if lanes.is_empty() {
            return None;
        }
        self.last_exchange = exchange;
        Some(Message::Lanes(LaneAsks { exchange, lanes }))
    }

    fn next_releases(&mut self) -> Message {
        let mut lanes = Vec::new();
        while lanes.len() < MAX_LANES
            && let Some(&Unsent::Release(number)) = self.unsent.front()
        {
            self.unsent.pop_front();
            lanes.push(number);
        }
        Message::Release(lanes)
    }
}
