//! The reader's side of one session: its questions, until they are answered.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::error::AskError;
use super::types::{AskNumber, MAX_SERVICE_BYTES, MAX_UNANSWERED, ServiceAnswer, ServiceAsk, ServiceNumber};
use crate::error::Cause;

/// The questions of one session. A session that asks nothing has no memory for them.
pub(crate) struct Asks {
    next: NonZeroU32,
    /// Those that were not sent, in their order.
    unsent: VecDeque<ServiceAsk>,
    /// The numbers of those that have no answer, in the order in which they were asked.
    unanswered: VecDeque<AskNumber>,
    /// Answers that the owner has not taken: as many as it had questions.
    answers: VecDeque<ServiceAnswer>,
}

impl Asks {
    pub(crate) const fn new() -> Self {
        Self {
            next: NonZeroU32::MIN,
            unsent: VecDeque::new(),
            unanswered: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// Queues a question.
    pub(crate) fn ask(&mut self, service: ServiceNumber, content: &[u8]) -> Result<AskNumber, AskError> {
        if content.len() > MAX_SERVICE_BYTES {
            return Err(AskError::TooLong { bytes: content.len() });
        }
        if self.unanswered.len() >= MAX_UNANSWERED {
            return Err(AskError::TooMany);
        }
        let mut number = AskNumber(self.next);
        // After 2^32 questions a number comes again, which an old question may still have.
        while self.unanswered.contains(&number) {
            number = AskNumber(number.0.checked_add(1).unwrap_or(NonZeroU32::MIN));
        }
        self.next = number.0.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.unanswered.push_back(number);
        self.unsent.push_back(ServiceAsk { number, service, content: content.to_vec() });
        Ok(number)
    }

    /// Takes an answer. Answers may come in any order, each once.
    pub(crate) fn answered(&mut self, answer: ServiceAnswer) -> Result<(), Cause> {
        // A producer answers in the order of the questions, so this finds the first.
        let at = self.unanswered.iter().position(|&number| number == answer.number);
        let at = at.filter(|_| !self.unsent.iter().any(|ask| ask.number == answer.number));
        let at = at.ok_or(Cause::Contradiction("an answer came to a question that was not asked"))?;
        self.unanswered.remove(at);
        self.answers.push_back(answer);
        Ok(())
    }

    pub(crate) fn next_answer(&mut self) -> Option<ServiceAnswer> {
        self.answers.pop_front()
    }

    pub(crate) fn next_message(&mut self) -> Option<ServiceAsk> {
        self.unsent.pop_front()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The session has ended: no question is sent, and none is answered.
    pub(crate) fn end(&mut self) {
        *self = Self::new();
    }
}
