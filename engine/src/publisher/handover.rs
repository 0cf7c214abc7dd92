//! How a publisher hands requests over to readers.

use std::time::Instant;

use kvrail_session::SharedHandovers;
use kvrail_session::handover::{Block, EndedHandover};

use super::{Publisher, WriteError};

impl Publisher {
    /// The hand-overs of requests to readers. Blocks name slots of this publisher's pools:
    /// [`PublisherPool::block`](crate::PublisherPool::block) makes them, and
    /// [`next_ended_handover`](Self::next_ended_handover) takes them back.
    #[must_use]
    pub fn handovers(&self) -> SharedHandovers {
        self.server.handovers()
    }

    /// The page in `slot` of pool 0, as a block of a hand-over; `None` if none is published.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn block(&self, slot: u32) -> Result<Option<Block>, WriteError> {
        self.first(slot)?.block(slot)
    }

    /// The next hand-over that has ended, whichever side ended it. The pages of its blocks, in any
    /// pool, are invalid from now on, apart from slots that were written anew meanwhile: each slot
    /// can be overwritten, once a guard that another thread still has of it ends.
    #[must_use = "its slots are free again"]
    pub fn next_ended_handover(&self) -> Option<EndedHandover> {
        self.server.handovers().next_outcome().map(|ended| self.take_back(ended))
    }

    /// Waits for the next hand-over that ends, until `until` at the latest, and does with it as
    /// [`next_ended_handover`](Self::next_ended_handover) does.
    #[must_use = "its slots are free again"]
    pub fn wait_ended_handover(&self, until: Instant) -> Option<EndedHandover> {
        self.server.handovers().wait_outcome(until).map(|ended| self.take_back(ended))
    }

    /// Makes the pages of the blocks invalid.
    fn take_back(&self, ended: EndedHandover) -> EndedHandover {
        for block in &ended.blocks {
            // A block of a pool that does not exist, or not any more, names no page.
            if let Some(pool) = self.pools.get(block.pool) {
                pool.invalidate_generation(block.slot, block.expected.generation);
            }
        }
        ended
    }
}
