//! The requests that one session takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Cause, SessionError};
use crate::handover::{
    Block, Class, GiveUpReason, HandoverMessage, HandoverNumber, RequestId, TakingError, TakingEvent,
    Takings, TakingsConfig,
};
use crate::message::Message;

/// The requests that one session takes. Most sessions take none, and have no memory for them.
pub(super) struct SessionTakings {
    config: TakingsConfig,
    takings: Option<Box<Takings>>,
    /// The owner was told that there are events, and has not fetched all of them.
    told: bool,
}

impl SessionTakings {
    pub(super) const fn new(config: TakingsConfig) -> Self {
        Self { config, takings: None, told: false }
    }

    fn get(&mut self) -> &mut Takings {
        let config = self.config;
        self.takings.get_or_insert_with(|| Box::new(Takings::new(config)))
    }

    pub(super) fn take(
        &mut self,
        request: RequestId,
        class: Class,
        wait: Duration,
        now: Instant,
    ) -> Result<HandoverNumber, TakingError> {
        self.get().take(request, class, wait, now)
    }

    pub(super) fn done(&mut self, number: HandoverNumber) -> Result<(), TakingError> {
        self.takings.as_mut().map_or(Err(TakingError::NotOpen { number }), |takings| takings.done(number))
    }

    pub(super) fn give_up(
        &mut self,
        number: HandoverNumber,
        reason: GiveUpReason,
    ) -> Result<(), TakingError> {
        let takings = self.takings.as_mut();
        takings.map_or(Err(TakingError::NotOpen { number }), |takings| takings.give_up(number, reason))
    }

    pub(super) fn blocks(&self, number: HandoverNumber) -> &[Block] {
        self.takings.as_ref().map_or(&[], |takings| takings.blocks(number))
    }

    pub(super) fn next_event(&mut self) -> Option<TakingEvent> {
        let event = self.takings.as_mut()?.next_event();
        self.told = event.is_some();
        event
    }

    /// Whether there are events of which the owner was not told.
    pub(super) fn has_news(&mut self) -> bool {
        let events = self.takings.as_ref().is_some_and(|takings| takings.has_event());
        let news = events && !self.told;
        self.told |= events;
        news
    }

    /// Takes in a message of the producer.
    pub(super) fn received(&mut self, message: HandoverMessage, now: Instant) -> Result<(), Cause> {
        tracing::trace!(kind = message.name(), "a hand-over's message came");
        Ok(self.get().received(message, now)?)
    }

    pub(super) fn next_message(&mut self, now: Instant) -> Option<Message> {
        let message = self.takings.as_mut()?.next_message(now)?;
        tracing::trace!(kind = message.name(), "a hand-over's message goes");
        Some(Message::Handover(message))
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.takings.as_ref().is_some_and(|takings| takings.has_message())
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.takings.as_ref()?.due()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if let Some(takings) = &mut self.takings {
            takings.tick(now);
        }
    }

    /// The session has ended: nothing is taken any more.
    pub(super) fn end(&mut self) {
        self.takings = None;
    }
}

/// Why a request was not taken.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// This side's limits do not allow it.
    #[error(transparent)]
    Taking(#[from] TakingError),
    /// The session has no offer yet.
    #[error("request {request} cannot be taken before the session is established")]
    NotEstablished {
        /// The request.
        request: RequestId,
    },
    /// The session has ended.
    #[error(transparent)]
    Session(Arc<SessionError>),
}

impl TakeError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::NotEstablished { .. } => 4217,
            Self::Taking(source) => source.code(),
            Self::Session(source) => source.code(),
        }
    }
}
