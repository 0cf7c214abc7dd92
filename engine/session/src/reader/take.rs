//! How the owner of a session takes requests, and learns of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::ConnectedSession;
use super::handovers::TakeError;
use super::phase::Phase;
use super::session::Session;
use crate::handover::{Block, Class, GiveUpReason, HandoverNumber, RequestId, TakingError, TakingEvent};

impl Session {
    /// Takes a request: the producer is to hand its pages over. `wait`: how long to wait for a
    /// request that the producer does not know yet.
    ///
    /// # Errors
    ///
    /// As many as allowed are taken, or the session is not established, or has ended.
    pub fn take(
        &mut self,
        request: RequestId,
        class: Class,
        wait: Duration,
        now: Instant,
    ) -> Result<HandoverNumber, TakeError> {
        if let Phase::Ended(ended) = &self.phase {
            return Err(TakeError::Session(Arc::clone(&ended.why)));
        }
        if self.offer().is_none() {
            return Err(TakeError::NotEstablished { request });
        }
        Ok(self.takings.take(request, class, wait, now)?)
    }

    /// This side has what it wants of a request, and reads no more of its pages.
    ///
    /// # Errors
    ///
    /// There is no such taking, or the producer has not answered it.
    pub fn done(&mut self, number: HandoverNumber) -> Result<(), TakingError> {
        self.takings.done(number)
    }

    /// This side wants no more of a request.
    ///
    /// # Errors
    ///
    /// There is no such taking.
    pub fn give_up(&mut self, number: HandoverNumber, reason: GiveUpReason) -> Result<(), TakingError> {
        self.takings.give_up(number, reason)
    }

    /// The next event of a request that was taken. Call it after
    /// [`SessionEvent::Takings`](crate::SessionEvent::Takings) until it returns `None`. Events of
    /// one request are merged until they are fetched.
    pub fn next_taking_event(&mut self) -> Option<TakingEvent> {
        self.takings.next_event()
    }

    /// The blocks of a request that was taken, as far as they are known. There are none after its
    /// end, nor after the session's.
    #[must_use]
    pub fn blocks(&self, number: HandoverNumber) -> &[Block] {
        self.takings.blocks(number)
    }
}

impl ConnectedSession {
    /// Takes a request, as [`Session::take`] does. Does not block.
    ///
    /// # Errors
    ///
    /// As many as allowed are taken, or the session has ended.
    pub fn take(
        &mut self,
        request: RequestId,
        class: Class,
        wait: Duration,
    ) -> Result<HandoverNumber, TakeError> {
        let number = self.session.take(request, class, wait, Instant::now())?;
        self.closed();
        Ok(number)
    }

    /// This side has what it wants of a request, and reads no more of its pages. Does not block.
    ///
    /// # Errors
    ///
    /// There is no such taking, or the producer has not answered it.
    pub fn done(&mut self, number: HandoverNumber) -> Result<(), TakingError> {
        self.session.done(number)?;
        self.closed();
        Ok(())
    }

    /// This side wants no more of a request. Does not block.
    ///
    /// # Errors
    ///
    /// There is no such taking.
    pub fn give_up(&mut self, number: HandoverNumber, reason: GiveUpReason) -> Result<(), TakingError> {
        self.session.give_up(number, reason)?;
        self.closed();
        Ok(())
    }

    /// The next event of a request that was taken. Does not block.
    pub fn next_taking_event(&mut self) -> Option<TakingEvent> {
        self.closed();
        self.session.next_taking_event()
    }

    /// The blocks of a request that was taken, as [`Session::blocks`] has them.
    #[must_use]
    pub fn blocks(&self, number: HandoverNumber) -> &[Block] {
        self.session.blocks(number)
    }
}
