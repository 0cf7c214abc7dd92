//! What the owner of the pages says: which requests there are, and what of them is ready.

use std::ops::Range;
use std::time::Instant;

use super::super::error::HandoverError;
use super::super::id::HandoverId;
use super::super::ranges::ReadyRuns;
use super::super::types::{Block, EndReason, RequestId};
use super::outcome::{EndedHandover, HandoverOutcome};
use super::state::{Deadline, Handover, Handovers, after, count};

impl Handovers {
    /// Opens the hand-over of a request. Its lease begins. The first taker that waits for the
    /// request gets it; the others are told that another one has it.
    ///
    /// # Errors
    ///
    /// The request is open; too many are; the producer is stopping.
    pub fn open(&mut self, request: RequestId, now: Instant) -> Result<HandoverId, HandoverError> {
        self.tick(now);
        if self.stopping {
            return Err(HandoverError::Stopping { request });
        }
        if let Some(&id) = self.requests.get(&request) {
            return Err(HandoverError::AlreadyOpen { request, id });
        }
        let (open, unfetched, max) = (self.open.len(), self.outcomes.len(), self.config.max_open);
        if open + unfetched >= max as usize {
            return Err(HandoverError::TooManyOpen { request, open, unfetched, max });
        }
        let id = HandoverId(self.opened);
        self.opened += 1;
        self.ended_requests.remove(request);
        let lease_ends = after(now, self.config.lease);
        self.requests.insert(request, id);
        self.deadlines.insert((lease_ends, Deadline::Lease(id)));
        self.open.insert(
            id,
            Handover {
                request,
                blocks: Vec::new(),
                ready: ReadyRuns::default(),
                complete: false,
                lease_ends,
                taker: None,
            },
        );
        if let Some((session, number, class)) = self.pop_waiting(request) {
            self.grant(id, session, number, class, now);
        }
        self.end_waiting(request, EndReason::TakenByOther);
        Ok(id)
    }

    /// Adds blocks at the end of the list. A block's `ready` is what may be read of it already.
    ///
    /// # Errors
    ///
    /// The hand-over is not open, or complete; the list would get too long; a block names no
    /// published page. Nothing is added then.
    pub fn append(&mut self, id: HandoverId, blocks: &[Block]) -> Result<(), HandoverError> {
        let max = self.config.max_blocks;
        let handover = self.growing(id)?;
        let have = handover.blocks.len();
        if blocks.len() > (max as usize).saturating_sub(have) {
            return Err(HandoverError::TooManyBlocks { id, have: count(have), more: blocks.len(), max });
        }
        let invalid = |block: &Block| !block.expected.generation.is_valid();
        if let Some(place) = blocks.iter().position(invalid) {
            let Block { pool, slot, expected, .. } = blocks[place];
            let generation = expected.generation;
            return Err(HandoverError::NotPublished { id, place, pool, slot, generation });
        }
        handover.blocks.extend_from_slice(blocks);
        for block in blocks {
            handover.ready.push(block.ready);
        }
        self.queue(id);
        Ok(())
    }

    /// Says that of each block at these places of the list, at least `parts` parts may be read; a
    /// block of which more parts are ready stays as it was. Call it when the bytes of the parts are
    /// visible to devices and the table entry says that they are ready.
    ///
    /// # Errors
    ///
    /// The hand-over is not open, or complete; the range goes beyond the list. Nothing changes
    /// then.
    pub fn set_ready(&mut self, id: HandoverId, places: Range<u32>, parts: u32) -> Result<(), HandoverError> {
        let handover = self.growing(id)?;
        let Range { start, end } = places;
        let blocks = count(handover.blocks.len());
        if start > end || end > blocks {
            return Err(HandoverError::Places { id, start, end, blocks });
        }
        let mut raised = handover.ready.raise(start..end, parts);
        if let Some(taker) = &mut handover.taker {
            // The reader gets the counts of blocks that it does not know yet with the blocks.
            while let Some(range) = raised.first() {
                raised.remove(range.clone());
                taker.risen.add(range.start..range.end.min(taker.sent));
            }
        }
        self.queue(id);
        Ok(())
    }

    /// Says that the list grows no more, and neither do the parts that are ready.
    ///
    /// # Errors
    ///
    /// The hand-over is not open, or complete already.
    pub fn complete(&mut self, id: HandoverId) -> Result<(), HandoverError> {
        self.growing(id)?.complete = true;
        self.queue(id);
        Ok(())
    }

    /// Ends a hand-over because its request is no longer computed, complete or not. Its taker is
    /// told; if it has none, later ones are told for the time of a lease.
    ///
    /// # Errors
    ///
    /// The hand-over is not open.
    pub fn abort(&mut self, id: HandoverId, now: Instant) -> Result<(), HandoverError> {
        self.tick(now);
        if !self.open.contains_key(&id) {
            return Err(HandoverError::NotOpen { id });
        }
        self.end(id, HandoverOutcome::Aborted, now);
        Ok(())
    }

    /// Says that a request will not be opened. Takers that wait for it are told, and later ones for
    /// the time of a lease, or until it is opened all the same.
    ///
    /// # Errors
    ///
    /// The request is open: abort its hand-over.
    pub fn reject(&mut self, request: RequestId, now: Instant) -> Result<(), HandoverError> {
        self.tick(now);
        if let Some(&id) = self.requests.get(&request) {
            return Err(HandoverError::AlreadyOpen { request, id });
        }
        if !self.stopping {
            self.remember(request, EndReason::Rejected, now);
            self.end_waiting(request, EndReason::Rejected);
        }
        Ok(())
    }

    /// Ends all hand-overs and all waits. From now on none is opened, and takers are told.
    pub fn stop(&mut self, now: Instant) {
        self.tick(now);
        self.stopping = true;
        while let Some((&id, _)) = self.open.first_key_value() {
            self.end(id, HandoverOutcome::Stopped, now);
        }
        while let Some((_, &(session, number))) = self.waiting.first_key_value() {
            self.remove_taking(session, number);
            self.tell_ended(session, number, EndReason::Stopping);
        }
        self.ended_requests = Default::default();
    }

    /// Whether a hand-over has ended whose outcome was not fetched.
    #[must_use]
    pub fn has_outcome(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// The next hand-over that has ended, once for each one that was opened. The owner invalidates
    /// the table entries of its blocks before it reuses a slot.
    pub fn next_outcome(&mut self) -> Option<EndedHandover> {
        self.outcomes.pop_front()
    }

    /// The list of an open hand-over. The parts of a block are those at the time when it was added.
    #[must_use]
    pub fn blocks(&self, id: HandoverId) -> Option<&[Block]> {
        Some(&self.open.get(&id)?.blocks)
    }

    fn growing(&mut self, id: HandoverId) -> Result<&mut Handover, HandoverError> {
        let handover = self.open.get_mut(&id).ok_or(HandoverError::NotOpen { id })?;
        if handover.complete {
            return Err(HandoverError::Completed { id, blocks: count(handover.blocks.len()) });
        }
        Ok(handover)
    }

    /// Gives the hand-over a turn if there is something to say to its taker.
    fn queue(&mut self, id: HandoverId) {
        let Some(handover) = self.open.get(&id).filter(|handover| handover.has_message()) else { return };
        let Some(taker) = &handover.taker else { return };
        let (session, number, class) = (taker.session, taker.number, taker.class);
        if let Some(state) = self.sessions.get_mut(&session) {
            state.queues.add(class, number);
            self.announce(session);
        }
    }

    fn end_waiting(&mut self, request: RequestId, reason: EndReason) {
        while let Some((session, number, _)) = self.pop_waiting(request) {
            self.tell_ended(session, number, reason);
        }
    }
}
