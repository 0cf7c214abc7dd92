//! Batches that are done.

use super::batch::Batch;
use super::pool::Buffer;
use crate::error::PageError;
use crate::id::Ticket;
use crate::memory::slot::Slot;
use crate::page::{Page, Phase};

/// A batch that is done: a result for each page, and the slots back.
///
/// Dropping it gives the buffer back to the pool; slots not taken by then are lost.
#[derive(Debug)]
pub struct Done<'s> {
    batch: Batch<'s>,
}

/// Makes the user's slots of those of a batch that is done: without marks and views, and good only
/// if all that was to land in them has.
#[cold]
fn settle(pages: &mut [Page]) {
    let mut first = 0;
    for i in 0..pages.len() {
        match pages[i].slot.take().and_then(Slot::unmark) {
            Some(slot) => {
                pages[i].slot = Some(slot);
                first = i;
            }
            None => {
                if let (Ok(()), Err(error)) = (pages[first].result(), pages[i].result()) {
                    pages[first].phase = Phase::Lost;
                    pages[first].outcome = error;
                }
            }
        }
    }
}

/// One page of a [`Done`].
#[derive(Debug)]
pub struct DonePage {
    /// Its position in the batch.
    pub index: usize,
    /// The slot; it holds the page if `result` is `Ok`, anything at all if not.
    pub slot: Slot,
    /// What became of it.
    pub result: Result<(), PageError>,
}

impl DonePage {
    /// What became of the page.
    ///
    /// # Errors
    ///
    /// Why it did not arrive.
    pub fn result(&self) -> Result<(), PageError> {
        self.result
    }
}

impl<'s> Done<'s> {
    #[inline]
    pub(crate) fn new(mut buffer: Buffer<'s>) -> Self {
        let len = u32::from(buffer.head().len);
        if buffer.head().has_shared_or_planned {
            settle(&mut buffer.pages_mut()[..len as usize]);
        }
        Self { batch: Batch::of_done(buffer, len) }
    }

    /// What `submit` called it.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket { batch: self.batch.buffer().index(), serial: self.batch.buffer().head().serial }
    }

    /// The caller's number.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.batch.buffer().head().tag
    }

    pub(crate) fn origin(&self) -> u16 {
        self.batch.buffer().head().origin
    }

    /// How many pages it has: those that share a slot count each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// What became of the page at this position of the batch; of a page that has the slot to
    /// itself, or is the first of those that share it, what became of the slot. `None` beyond the
    /// last.
    ///
    /// # Errors
    ///
    /// Inside: why the page did not arrive.
    #[must_use]
    pub fn result(&self, index: usize) -> Option<Result<(), PageError>> {
        if index < self.len() { Some(self.batch.buffer().pages()[index].result()) } else { None }
    }

    /// Whether it has none; never, since an empty batch is not accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Takes its pages, in the order of the batch. Pages whose slots were taken before are left
    /// out, and of those that share a slot all but the first.
    #[inline]
    pub fn pages(&mut self) -> impl Iterator<Item = DonePage> + use<'_, 's> {
        let len = self.len();
        self.batch.buffer_mut().pages_mut()[..len].iter_mut().enumerate().filter_map(|(index, page)| {
            Some(DonePage { index, slot: page.slot.take()?, result: page.result() })
        })
    }

    /// The buffer, empty, to be filled again. Slots not taken are lost.
    #[must_use]
    pub fn into_batch(self) -> Batch<'s> {
        self.batch.emptied()
    }
}
