//! What the owner of the takings says and learns, and what is said to the producer.

use std::time::{Duration, Instant};

use kvrail_core::batch::Class;

use super::super::error::TakingError;
use super::super::ranges::Places;
use super::super::types::{
    GiveUpReason, HandoverMessage, HandoverNumber, MAX_MESSAGE_RENEWALS, MAX_WAIT, RequestId,
};
use super::event::TakingEvent;
use super::state::{Ending, State, Taking, Takings, after, count};

impl Takings {
    /// Takes a request. The producer waits up to `wait` for it if it does not know it yet; a time
    /// beyond [`MAX_WAIT`] is cut to that.
    ///
    /// # Errors
    ///
    /// The session has as many takings as it may, or has used all numbers.
    pub fn take(
        &mut self,
        request: RequestId,
        class: Class,
        wait: Duration,
        now: Instant,
    ) -> Result<HandoverNumber, TakingError> {
        let (open, max) = (self.open.len(), self.config.max_takings);
        if open >= max as usize {
            return Err(TakingError::TooMany { request, open, max });
        }
        let number = self.numbers.next().ok_or(TakingError::UsedUp { request })?;
        let wait = wait.min(MAX_WAIT);
        let answer_by = after(now, wait.saturating_add(self.config.answer_within));
        self.answers.insert((answer_by, number));
        self.unsent.insert(number);
        self.open.insert(
            number,
            Taking {
                request,
                class,
                wait,
                state: State::Asked,
                lease: Duration::ZERO,
                lease_ends: None,
                answer_by: Some(answer_by),
                blocks: Vec::new(),
                named: 0,
                risen: Places::default(),
                taken_event: false,
                complete_event: false,
                lease_event: false,
            },
        );
        Ok(number)
    }

    /// Says that no more of a taking's pages will be read, because this side has what it wanted. It
    /// is gone then, with its events. The last READ must have ended: its validation would miss.
    ///
    /// # Errors
    ///
    /// There is no such taking, or the producer has not answered yet.
    pub fn done(&mut self, number: HandoverNumber) -> Result<(), TakingError> {
        match self.state(number)? {
            State::Asked => return Err(TakingError::NotTaken { number }),
            State::Taken | State::Complete => self.closings.push_back((number, None)),
            State::Over(_) => {}
        }
        self.remove(number);
        Ok(())
    }

    /// Gives a taking up. It is gone then, with its events.
    ///
    /// # Errors
    ///
    /// There is no such taking.
    pub fn give_up(&mut self, number: HandoverNumber, reason: GiveUpReason) -> Result<(), TakingError> {
        let over = matches!(self.state(number)?, State::Over(_));
        if !self.unsent.remove(&number) && !over {
            self.closings.push_back((number, Some(reason)));
        }
        self.remove(number);
        Ok(())
    }

    /// Whether there is something to say to the producer.
    #[must_use]
    pub fn has_message(&self) -> bool {
        self.renewed_to.is_some() || !self.closings.is_empty() || !self.unsent.is_empty()
    }

    /// Whether there is an event.
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next message to the producer; `None` when there is nothing to say now. Renewals come
    /// first, then ends, then new takings.
    pub fn next_message(&mut self, now: Instant) -> Option<HandoverMessage> {
        self.tick(now);
        if let Some(numbers) = self.next_renewal(now) {
            return Some(HandoverMessage::Renew { numbers });
        }
        if let Some((number, reason)) = self.closings.pop_front() {
            return Some(match reason {
                Some(reason) => HandoverMessage::GiveUp { number, reason },
                None => HandoverMessage::Done { number },
            });
        }
        let number = self.unsent.pop_first()?;
        let taking = self.open.get(&number)?;
        let Taking { request, class, wait, .. } = *taking;
        Some(HandoverMessage::Take { number, request, class, wait })
    }

    /// The next event, or `None` if no taking has one. Takings that have events take turns.
    pub fn next_event(&mut self) -> Option<TakingEvent> {
        while let Some(number) = self.events.pop() {
            let Some(taking) = self.open.get_mut(&number) else { continue };
            if let State::Over(ending) = taking.state {
                self.remove(number);
                return Some(match ending {
                    Ending::Ended(reason) => TakingEvent::Ended { number, reason },
                    Ending::TooLong { blocks } => {
                        TakingEvent::TooLong { number, blocks, max: self.config.max_blocks }
                    }
                    Ending::Unanswered => TakingEvent::Unanswered { number },
                });
            }
            let Some(event) = taking.next_event(number) else { continue };
            // It goes to the end of the queue, and leaves it there if it has nothing more.
            self.events.add(number);
            return Some(event);
        }
        None
    }

    /// The numbers of the next `Renew`; their leases begin anew by this side's clock.
    fn next_renewal(&mut self, now: Instant) -> Option<Vec<HandoverNumber>> {
        let after_number = self.renewed_to?;
        let mut numbers = Vec::new();
        self.renewed_to = None;
        for (&number, taking) in &self.open {
            if number.0.get() <= after_number || !matches!(taking.state, State::Taken | State::Complete) {
                continue;
            }
            if numbers.len() == MAX_MESSAGE_RENEWALS {
                self.renewed_to = numbers.last().map(|last: &HandoverNumber| last.0.get());
                break;
            }
            numbers.push(number);
        }
        for &number in &numbers {
            self.set_lease(number, now);
        }
        if numbers.is_empty() && after_number == 0 {
            // With nothing to renew, the next taking sets the time.
            return None;
        }
        if self.renewed_to.is_none() {
            self.renew_at = self.renew_every.map(|every| after(now, every));
        }
        // None where all takings that an earlier message had no room for are over.
        (!numbers.is_empty()).then_some(numbers)
    }

    fn state(&self, number: HandoverNumber) -> Result<State, TakingError> {
        self.open.get(&number).map(|taking| taking.state).ok_or(TakingError::NotOpen { number })
    }

    fn remove(&mut self, number: HandoverNumber) {
        self.forget_times(number);
        self.events.remove(number);
        self.open.remove(&number);
    }
}

impl Taking {
    fn next_event(&mut self, number: HandoverNumber) -> Option<TakingEvent> {
        if std::mem::take(&mut self.taken_event) {
            return Some(TakingEvent::Taken { number });
        }
        let blocks = count(self.blocks.len());
        if self.named < blocks {
            let places = self.named..blocks;
            self.named = blocks;
            return Some(TakingEvent::Grown { number, places });
        }
        if let Some(risen) = self.risen.first()
            && let Some(found) = self.blocks.get(risen.start as usize..risen.end as usize)
            && let Some(parts) = found.first().map(|block| block.ready)
        {
            let same = found.iter().take_while(|block| block.ready == parts).count();
            let places = risen.start..risen.start + count(same);
            self.risen.remove(places.clone());
            return Some(TakingEvent::Ready { number, places, parts });
        }
        if std::mem::take(&mut self.complete_event) {
            return Some(TakingEvent::Complete { number });
        }
        std::mem::take(&mut self.lease_event).then_some(TakingEvent::LeaseRanOut { number })
    }
}
