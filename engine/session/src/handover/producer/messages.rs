//! What is said to readers. Messages are made when a session fetches them, from how far the reader
//! has been told: a slow session gets the newest state, and no list is kept for it.

use std::time::Instant;

use super::super::config::HandoverConfig;
use super::super::id::SessionId;
use super::super::types::{HandoverMessage, MAX_MESSAGE_BLOCKS};
use super::state::{Handover, Handovers, TakingState, count};

impl Handovers {
    /// A session that has something to say since [`next_message`](Self::next_message) gave `None`
    /// for it. Each such session is given once; its thread then calls `next_message` until that
    /// gives `None`.
    pub fn next_session(&mut self) -> Option<SessionId> {
        while let Some(session) = self.with_messages.pop_front() {
            if self.sessions.contains_key(&session) {
                return Some(session);
            }
        }
        None
    }

    /// How many hand-overs of all sessions have a turn.
    #[cfg(test)]
    pub(in super::super) fn queued_count(&self) -> usize {
        self.sessions.values().map(|state| state.queues.len()).sum()
    }

    /// The next message to a session's reader; `None` when there is nothing to say now.
    ///
    /// Endings come first. Then hand-overs take turns, a message each: urgent ones first, and the
    /// background in one turn of sixteen. Of one hand-over, new blocks come before parts of blocks
    /// that were sent, since there is a limit to the blocks.
    pub fn next_message(&mut self, session: SessionId, now: Instant) -> Option<HandoverMessage> {
        self.tick(now);
        let state = self.sessions.get_mut(&session)?;
        if let Some((number, reason)) = state.ended.pop_front() {
            return Some(HandoverMessage::Ended { number, reason });
        }
        while let Some(number) = state.queues.pop() {
            let Some(&TakingState::Taken(id)) = state.takings.get(&number) else { continue };
            let Some(handover) = self.open.get_mut(&id) else { continue };
            let Some(message) = handover.next_message(&self.config) else { continue };
            if handover.has_message()
                && let Some(taker) = &handover.taker
            {
                state.queues.add(taker.class, number);
            }
            return Some(message);
        }
        state.announced = false;
        None
    }
}

impl Handover {
    /// Whether the taker, if there is one, has not been told all.
    pub(super) fn has_message(&self) -> bool {
        self.taker.as_ref().is_some_and(|taker| {
            !taker.told_taken
                || (taker.sent as usize) < self.blocks.len()
                || !taker.risen.is_empty()
                || (self.complete && !taker.told_complete)
        })
    }

    fn next_message(&mut self, config: &HandoverConfig) -> Option<HandoverMessage> {
        let taker = self.taker.as_mut()?;
        let number = taker.number;
        if !taker.told_taken {
            taker.told_taken = true;
            let HandoverConfig { lease, renew_every, .. } = *config;
            return Some(HandoverMessage::Taken { number, lease, renew_every });
        }
        let first = taker.sent;
        let unsent = self.blocks.get(first as usize..).unwrap_or_default();
        if !unsent.is_empty() {
            let mut blocks = unsent[..unsent.len().min(MAX_MESSAGE_BLOCKS)].to_vec();
            let mut place = 0;
            while let Some(block) = blocks.get(place)
                && let Some((run, parts)) = self.ready.at(first + count(place))
            {
                debug_assert!(block.ready <= parts, "the parts that are ready never become fewer");
                let end = blocks.len().min((run.end - first) as usize);
                blocks[place..end].iter_mut().for_each(|block| block.ready = parts);
                place = end;
            }
            taker.sent += count(blocks.len());
            return Some(HandoverMessage::Blocks { number, first, blocks });
        }
        if let Some(risen) = taker.risen.first()
            && let Some((run, ready)) = self.ready.at(risen.start)
        {
            // The whole run, also where the reader knows the count: so there is one message for it.
            let end = run.end.min(taker.sent);
            taker.risen.remove(run.start..end);
            return Some(HandoverMessage::Ready { number, first: run.start, count: end - run.start, ready });
        }
        if self.complete && !taker.told_complete {
            taker.told_complete = true;
            return Some(HandoverMessage::Complete { number, blocks: count(self.blocks.len()) });
        }
        None
    }
}
