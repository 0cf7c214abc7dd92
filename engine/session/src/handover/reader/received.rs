//! What the producer says.

use std::time::{Duration, Instant};

use super::super::error::HandoverProtocolError;
use super::super::types::{
    Block, GiveUpReason, HandoverMessage, HandoverNumber, MAX_LEASE, MAX_MESSAGE_BLOCKS, MIN_RENEW_EVERY,
};
use super::state::{Ending, State, Taking, Takings, after, count};

impl Takings {
    /// Does what a message of the producer says.
    ///
    /// A message for a taking that is over is dropped: it may have been under way. Numbers rise, so
    /// it needs no memory to tell it from one for a taking that never was.
    ///
    /// A list that gets longer than this side's `max_blocks` ends its taking and not the session:
    /// the producer does not know that limit, and the other takings go on.
    ///
    /// # Errors
    ///
    /// The producer broke the protocol. Nothing has changed; the owner ends the session.
    pub fn received(&mut self, message: HandoverMessage, now: Instant) -> Result<(), HandoverProtocolError> {
        self.tick(now);
        let name = message.name();
        match message {
            HandoverMessage::Taken { number, lease, renew_every } => {
                self.taken(name, number, lease, renew_every, now)
            }
            HandoverMessage::Blocks { number, first, blocks } => self.grown(name, number, first, &blocks),
            HandoverMessage::Ready { number, first, count, ready } => {
                self.risen(name, number, first, count, ready)
            }
            HandoverMessage::Complete { number, blocks } => {
                let Some(taking) = self.growing(name, number)? else { return Ok(()) };
                let have = count(taking.blocks.len());
                if blocks != have {
                    return Err(HandoverProtocolError::Gap {
                        message: name,
                        number,
                        place: blocks,
                        blocks: have,
                    });
                }
                (taking.state, taking.complete_event) = (State::Complete, true);
                self.events.add(number);
                Ok(())
            }
            HandoverMessage::Ended { number, reason } => {
                if self.used(name, number)?.is_some() {
                    self.over(number, Ending::Ended(reason));
                }
                Ok(())
            }
            _ => Err(HandoverProtocolError::Direction { message: name }),
        }
    }

    fn taken(
        &mut self,
        message: &'static str,
        number: HandoverNumber,
        lease: Duration,
        renew_every: Duration,
        now: Instant,
    ) -> Result<(), HandoverProtocolError> {
        let Some(taking) = self.used(message, number)? else { return Ok(()) };
        if taking.state != State::Asked {
            return Err(HandoverProtocolError::Order { message, number, state: "taken already" });
        }
        if lease > MAX_LEASE || renew_every < MIN_RENEW_EVERY || renew_every >= lease {
            return Err(HandoverProtocolError::Lease { number, lease, renew_every });
        }
        taking.state = State::Taken;
        taking.lease = lease;
        taking.taken_event = true;
        self.events.add(number);
        // The producer's lease began before its message arrived. This side's is only a hint, and
        // the first renewal comes much earlier than its end.
        self.set_lease(number, now);
        let every = self.renew_every.map_or(renew_every, |every| every.min(renew_every));
        self.renew_every = Some(every);
        if self.renewed_to.is_none() {
            let at = after(now, every);
            self.renew_at = Some(self.renew_at.map_or(at, |earlier| earlier.min(at)));
        }
        Ok(())
    }

    fn grown(
        &mut self,
        message: &'static str,
        number: HandoverNumber,
        first: u32,
        blocks: &[Block],
    ) -> Result<(), HandoverProtocolError> {
        let max = self.config.max_blocks;
        if blocks.is_empty() || blocks.len() > MAX_MESSAGE_BLOCKS {
            return Err(HandoverProtocolError::Items { message, count: blocks.len() });
        }
        let Some(taking) = self.growing(message, number)? else { return Ok(()) };
        let have = count(taking.blocks.len());
        if first != have {
            return Err(HandoverProtocolError::Gap { message, number, place: first, blocks: have });
        }
        let length = taking.blocks.len() + blocks.len();
        if length > max as usize {
            self.close(number, GiveUpReason::NoRoom, Ending::TooLong { blocks: length });
        } else {
            taking.blocks.extend_from_slice(blocks);
            self.events.add(number);
        }
        Ok(())
    }

    fn risen(
        &mut self,
        message: &'static str,
        number: HandoverNumber,
        first: u32,
        count_of: u32,
        ready: u32,
    ) -> Result<(), HandoverProtocolError> {
        let Some(taking) = self.growing(message, number)? else { return Ok(()) };
        let blocks = count(taking.blocks.len());
        let range = first as usize..(first as usize).saturating_add(count_of as usize);
        let Some(risen) = taking.blocks.get_mut(range).filter(|risen| !risen.is_empty()) else {
            return Err(HandoverProtocolError::ReadyRange { number, first, count: count_of, blocks });
        };
        if let Some(at) = risen.iter().position(|block| block.ready > ready) {
            let (place, from) = (first + count(at), risen[at].ready);
            return Err(HandoverProtocolError::ReadyFell { number, place, from, to: ready });
        }
        // Only places that rose are news to the owner, and only of blocks that it knows.
        let mut place = first;
        for run in risen.chunk_by_mut(|a, b| (a.ready < ready) == (b.ready < ready)) {
            let end = place + count(run.len());
            if run[0].ready < ready {
                run.iter_mut().for_each(|block| block.ready = ready);
                taking.risen.add(place..end.min(taking.named));
            }
            place = end;
        }
        self.events.add(number);
        Ok(())
    }

    /// The taking of a number, if its list can grow; `None` if it is over.
    fn growing(
        &mut self,
        message: &'static str,
        number: HandoverNumber,
    ) -> Result<Option<&mut Taking>, HandoverProtocolError> {
        let Some(taking) = self.used(message, number)? else { return Ok(None) };
        match taking.state {
            State::Taken => Ok(Some(taking)),
            State::Asked => Err(HandoverProtocolError::Order { message, number, state: "not taken yet" }),
            State::Complete => Err(HandoverProtocolError::Order { message, number, state: "complete" }),
            State::Over(_) => Ok(None),
        }
    }

    /// The taking of a number; `None` if it is over.
    fn used(
        &mut self,
        message: &'static str,
        number: HandoverNumber,
    ) -> Result<Option<&mut Taking>, HandoverProtocolError> {
        // The producer cannot know a number whose message was not sent.
        if !self.numbers.were(number) || self.unsent.contains(&number) {
            let last = self.numbers.last();
            return Err(HandoverProtocolError::NeverUsed { message, number, last });
        }
        Ok(self.open.get_mut(&number).filter(|taking| !matches!(taking.state, State::Over(_))))
    }
}
