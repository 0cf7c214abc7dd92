//! A send queue: how far it has been posted and completed, and which wr stands where.
#![allow(unsafe_code, reason = "is made of raw memory, on the promise of the caller")]

use kvrail_core::id::WrId;

use crate::cqe::{CqeOutcome, DirectCqe};
use crate::error::{CqeError, DirectQueueError};
use crate::format::BITS_24;
use crate::memory::{Blocks, ProducerRecord, SendQueueMemory};

/// Whether the device is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// No error has been seen.
    Ready,
    /// A wr has failed: only errors follow.
    Failed,
    /// The device has written what cannot be right: nothing is believed any more.
    None,
}

/// A send queue. Indices count blocks since the QP was made, modulo 2^32.
#[derive(Debug)]
pub(crate) struct SendQueue {
    pub(crate) blocks: Blocks,
    pub(crate) record: ProducerRecord,
    /// Where the next entry begins.
    pub(crate) head: u32,
    /// Where the oldest entry begins that no completion covers.
    pub(crate) tail: u32,
    pub(crate) qp_num: u32,
    pub(crate) trust: Trust,
}

impl SendQueue {
    /// # Errors
    ///
    /// The memory is not that of a queue that this crate writes.
    ///
    /// # Safety
    ///
    /// As for [`DirectRails::open`](crate::DirectRails::open).
    pub(crate) unsafe fn new(memory: &SendQueueMemory) -> Result<Self, DirectQueueError> {
        memory.check()?;
        // SAFETY: checked just now; the rest is our caller's promise.
        let blocks = unsafe { Blocks::new(memory) };
        // SAFETY: our caller's promise.
        let record = unsafe { ProducerRecord::new(memory.doorbell_record) };
        let (head, tail, trust) = (0, 0, Trust::Ready);
        Ok(Self { blocks, record, head, tail, qp_num: memory.qp_num & BITS_24, trust })
    }

    /// The wr that begins at the oldest block that no completion covers.
    pub(crate) fn oldest(&self) -> Option<WrId> {
        (self.head != self.tail).then(|| self.blocks.noted(self.tail).wr_id())
    }

    /// Takes a completion: the wr that it is of. All earlier ones are covered by it.
    ///
    /// # Errors
    ///
    /// It cannot be right.
    #[inline]
    pub(crate) fn complete(&mut self, cqe: DirectCqe) -> Result<WrId, CqeError> {
        let counter = cqe.counter;
        // The block with this number, modulo 2^16, that comes first from the tail on.
        let index = self.tail.wrapping_add(u32::from(counter.wrapping_sub(self.tail as u16)));
        let note = self.blocks.noted(index);
        // Posting has written a note for each block from the tail to the head.
        let is_posted = index.wrapping_sub(self.tail) < self.head.wrapping_sub(self.tail);
        if !is_posted || note.end() == index {
            return Err(CqeError::NotOutstanding { counter });
        }
        match (cqe.outcome, self.trust) {
            (CqeOutcome::Success, Trust::Ready) => {}
            (CqeOutcome::Success, _) => return Err(CqeError::SuccessAfterError { counter }),
            (CqeOutcome::Error { .. }, _) => self.trust = Trust::Failed,
        }
        self.tail = note.end();
        Ok(note.wr_id())
    }
}
