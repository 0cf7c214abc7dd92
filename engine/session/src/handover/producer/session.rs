//! What readers say.

use std::time::{Duration, Instant};

use kvrail_core::batch::Class;

use super::super::error::HandoverProtocolError;
use super::super::id::{HandoverId, SessionId};
use super::super::types::{
    EndReason, GiveUpReason, HandoverMessage, HandoverNumber, MAX_MESSAGE_RENEWALS, MAX_WAIT, RequestId,
};
use super::outcome::HandoverOutcome;
use super::state::{Deadline, Handovers, TakingState, after};

impl Handovers {
    /// Adds a session, after its handshake and before its first message.
    pub fn add_session(&mut self, session: SessionId) {
        self.sessions.entry(session).or_default();
    }

    /// Ends all that a session has, because its connection and its lanes are gone. Calls for the
    /// session do nothing from now on.
    pub fn session_lost(&mut self, session: SessionId, now: Instant) {
        self.tick(now);
        while let Some(state) = self.sessions.get(&session)
            && let Some((&number, &taking)) = state.takings.first_key_value()
        {
            match taking {
                TakingState::Taken(id) => self.end(id, HandoverOutcome::SessionLost, now),
                TakingState::Waiting { .. } => {}
            }
            self.remove_taking(session, number);
        }
        if self.sessions.remove(&session).is_some_and(|state| state.announced) {
            self.with_messages.retain(|&other| other != session);
        }
    }

    /// Does what a message of the session's reader says: one of [`take`](Self::take),
    /// [`renew`](Self::renew), [`done`](Self::done) and [`give_up`](Self::give_up). A session that
    /// was not added, or is lost, has no effect.
    ///
    /// # Errors
    ///
    /// The reader broke the protocol. The owner ends the session, and calls
    /// [`session_lost`](Self::session_lost).
    pub fn received(
        &mut self,
        session: SessionId,
        message: &HandoverMessage,
        now: Instant,
    ) -> Result<(), HandoverProtocolError> {
        match *message {
            HandoverMessage::Take { number, request, class, wait } => {
                self.take(session, number, request, class, wait, now)
            }
            HandoverMessage::Renew { ref numbers } => self.renew(session, numbers, now),
            HandoverMessage::Done { number } => self.done(session, number, now),
            HandoverMessage::GiveUp { number, reason } => self.give_up(session, number, reason, now),
            ref other => Err(HandoverProtocolError::Direction { message: other.name() }),
        }
    }

    /// A reader takes a request. If the request is not known, the reader waits for it. One reader
    /// gets a request.
    ///
    /// # Errors
    ///
    /// The number does not rise; the wait is longer than [`MAX_WAIT`]; the reader leaves too many
    /// answers unread.
    pub fn take(
        &mut self,
        session: SessionId,
        number: HandoverNumber,
        request: RequestId,
        class: Class,
        wait: Duration,
        now: Instant,
    ) -> Result<(), HandoverProtocolError> {
        self.tick(now);
        let Some(state) = self.sessions.get_mut(&session) else { return Ok(()) };
        if wait > MAX_WAIT {
            return Err(HandoverProtocolError::Wait { number, wait });
        }
        let (unread, max) = (state.ended.len(), self.config.max_unread);
        if unread >= max as usize {
            return Err(HandoverProtocolError::Unread { number, unread, max });
        }
        if !state.numbers.accept(number) {
            return Err(HandoverProtocolError::NumberReused { number, last: state.numbers.last() });
        }
        let refused = if self.stopping {
            EndReason::Stopping
        } else if let Some(&id) = self.requests.get(&request) {
            if self.open.get(&id).is_some_and(|handover| handover.taker.is_none()) {
                self.grant(id, session, number, class, now);
                return Ok(());
            }
            EndReason::TakenByOther
        } else if let Some(reason) = self.ended_requests.reason(request) {
            reason
        } else if wait.is_zero() {
            EndReason::Unknown
        } else if state.waiting >= self.config.max_waiting {
            EndReason::TooMany
        } else {
            let (arrival, until) = (self.arrivals, after(now, wait));
            self.arrivals += 1;
            state.waiting += 1;
            state.takings.insert(number, TakingState::Waiting { request, arrival, until, class });
            self.waiting.insert((request, arrival), (session, number));
            self.deadlines.insert((until, Deadline::Wait(session, number)));
            return Ok(());
        };
        self.tell_ended(session, number, refused);
        Ok(())
    }

    /// The leases of these hand-overs begin anew. A hand-over that has ended stays so: a renewal
    /// that comes after the end of a lease finds it expired, and the reader is told so.
    ///
    /// # Errors
    ///
    /// A number was never used, or its request waits; there are too many numbers.
    pub fn renew(
        &mut self,
        session: SessionId,
        numbers: &[HandoverNumber],
        now: Instant,
    ) -> Result<(), HandoverProtocolError> {
        self.tick(now);
        if numbers.len() > MAX_MESSAGE_RENEWALS {
            return Err(HandoverProtocolError::Items { message: "Renew", count: numbers.len() });
        }
        for &number in numbers {
            if let Some(id) = self.taken(session, number, "Renew")? {
                self.renew_lease(id, now);
            }
        }
        Ok(())
    }

    /// The reader reads no more of a hand-over, for it has what it wanted. One that has ended stays
    /// as it ended.
    ///
    /// # Errors
    ///
    /// The number was never used, or its request waits.
    pub fn done(
        &mut self,
        session: SessionId,
        number: HandoverNumber,
        now: Instant,
    ) -> Result<(), HandoverProtocolError> {
        self.tick(now);
        if let Some(id) = self.taken(session, number, "Done")? {
            self.end(id, HandoverOutcome::Done, now);
        }
        Ok(())
    }

    /// The reader wants no more of a hand-over, or waits no longer for its request. One that has
    /// ended stays as it ended.
    ///
    /// # Errors
    ///
    /// The number was never used.
    pub fn give_up(
        &mut self,
        session: SessionId,
        number: HandoverNumber,
        reason: GiveUpReason,
        now: Instant,
    ) -> Result<(), HandoverProtocolError> {
        self.tick(now);
        match self.used(session, number, "GiveUp")? {
            Some(TakingState::Taken(id)) => self.end(id, HandoverOutcome::GivenUp(reason), now),
            Some(TakingState::Waiting { .. }) => drop(self.remove_taking(session, number)),
            None => {}
        }
        Ok(())
    }

    /// The hand-over of a number; `None` if it has ended.
    fn taken(
        &self,
        session: SessionId,
        number: HandoverNumber,
        message: &'static str,
    ) -> Result<Option<HandoverId>, HandoverProtocolError> {
        match self.used(session, number, message)? {
            Some(TakingState::Taken(id)) => Ok(Some(id)),
            Some(TakingState::Waiting { .. }) => {
                Err(HandoverProtocolError::Order { message, number, state: "not taken yet" })
            }
            None => Ok(None),
        }
    }

    /// The state of a number; `None` if it has ended.
    fn used(
        &self,
        session: SessionId,
        number: HandoverNumber,
        message: &'static str,
    ) -> Result<Option<TakingState>, HandoverProtocolError> {
        let Some(state) = self.sessions.get(&session) else { return Ok(None) };
        if !state.numbers.were(number) {
            return Err(HandoverProtocolError::NeverUsed { message, number, last: state.numbers.last() });
        }
        Ok(state.takings.get(&number).copied())
    }
}
