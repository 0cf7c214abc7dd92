//! How a publisher hands requests over to readers.

use kvrail_core::remote::Location;
use kvrail_session::SharedHandovers;
use kvrail_session::handover::{Block, EndedHandover};

use super::{POOL, Publisher, WriteError};

impl Publisher {
    /// The hand-overs of requests to readers. Blocks name slots of this publisher:
    /// [`block`](Self::block) makes them, and [`next_ended_handover`](Self::next_ended_handover)
    /// takes them back.
    #[must_use]
    pub fn handovers(&self) -> SharedHandovers {
        self.server.handovers()
    }

    /// The page in `slot`, as a block of a hand-over; `None` if none is published.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn block(&self, slot: u32) -> Result<Option<Block>, WriteError> {
        let block =
            |Location { slot, expected }| Block { pool: POOL, slot, expected, ready: expected.ready.0 };
        Ok(self.location(slot)?.map(block))
    }

    /// The next hand-over that has ended, whichever side ended it. The pages of its blocks are
    /// invalid from now on, apart from slots that were written anew meanwhile: each slot can be
    /// overwritten.
    #[must_use = "its slots are free again"]
    pub fn next_ended_handover(&mut self) -> Option<EndedHandover> {
        let ended = self.server.handovers().next_outcome()?;
        for block in ended.blocks.iter().filter(|block| block.pool == POOL) {
            // A slot that does not exist has no entry to invalidate.
            if let Ok(entry) = self.entry(block.slot)
                && entry.load() == block.expected.generation
            {
                entry.invalidate();
            }
        }
        Some(ended)
    }
}
