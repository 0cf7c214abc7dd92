//! A batch that is done: a result for each page, and the slots back.

use super::batch::Batch;
use super::pool::Buffer;
use crate::error::PageError;
use crate::id::Ticket;
use crate::memory::slot::Slot;
use crate::page::{Claim, Page, Phase};

/// A batch that is done: a result for each page, and the slots back. Dropping it gives the buffer
/// back to the pool. Slots that have not been taken by then are lost.
#[derive(Debug)]
pub struct Done<'s> {
    batch: Batch<'s>,
}

/// Prepares the slots of a done batch for the user: removes marks and views, and makes a slot's
/// result `Ok` only if every page that shares the slot, or is joined to it, has arrived.
#[cold]
fn settle(pages: &mut [Page]) {
    let mut first = 0;
    while first < pages.len() {
        // A slot that was taken before the batch was done is no other page's
        // ([`Engine::take_slot`](crate::engine::Engine::take_slot)).
        let goes_on = |page: &Page| page.slot.as_ref().is_some_and(|s| s.shares().is_some() || s.is_joined());
        let behind = pages[first + 1..].iter().take_while(|page| goes_on(page)).count();
        let group = &mut pages[first..=first + behind];
        let error = group.iter().find_map(|page| page.result().err());
        for page in group {
            // Only a view has no slot afterwards: its page keeps the result that it has.
            page.slot = page.slot.take().and_then(Slot::unmark);
            if let (Some(error), Some(_), Ok(())) = (error, &page.slot, page.result()) {
                page.phase = Phase::Lost;
                page.claim = Claim::Failed(error);
            }
        }
        first += 1 + behind;
    }
}

/// One page of a [`Done`].
#[derive(Debug)]
pub struct DonePage {
    /// Its position in the batch.
    pub index: usize,
    /// The slot. It holds the page if `result` is `Ok`; otherwise its bytes are unspecified.
    pub slot: Slot,
    /// Whether the page arrived, and why not.
    pub result: Result<(), PageError>,
}

impl DonePage {
    /// Whether the page arrived.
    ///
    /// # Errors
    ///
    /// Why the page did not arrive.
    pub fn result(&self) -> Result<(), PageError> {
        self.result
    }
}

impl<'s> Done<'s> {
    #[inline]
    pub(crate) fn new(mut buffer: Buffer<'s>) -> Self {
        let len = u32::from(buffer.head().len);
        let (shared, planned) = (buffer.head().has_shared, buffer.head().has_planned);
        if shared {
            settle(&mut buffer.pages_mut()[..len as usize]);
        } else if planned {
            let pages = &mut buffer.pages_mut()[..len as usize];
            pages.iter_mut().filter_map(|page| page.slot.as_mut()).for_each(Slot::clear_marks);
        }
        Self { batch: Batch::of_done(buffer, len) }
    }

    /// The name that `submit` gave the batch.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket { batch: self.batch.buffer().index(), serial: self.batch.buffer().head().serial }
    }

    /// The caller's own number ([`Batch::set_tag`]).
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.batch.buffer().head().tag
    }

    pub(crate) fn origin(&self) -> u16 {
        self.batch.buffer().head().origin
    }

    /// How many pages the batch has. Pages that share a slot count one by one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether the page at position `index` of the batch arrived; `None` beyond the last page. For
    /// the first of several pages that share a slot, it is the result of all of them.
    ///
    /// # Errors
    ///
    /// The inner result says why the page did not arrive.
    #[must_use]
    pub fn result(&self, index: usize) -> Option<Result<(), PageError>> {
        if index < self.len() { Some(self.batch.buffer().pages()[index].result()) } else { None }
    }

    /// Always false: `submit` accepts no empty batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Takes the pages, with their slots, in the order of the batch. A page whose slot was taken
    /// before is left out, also if that was before the batch was done. Of pages that share a slot
    /// only the first is there.
    #[inline]
    pub fn pages(&mut self) -> impl Iterator<Item = DonePage> + use<'_, 's> {
        let len = self.len();
        self.batch.buffer_mut().pages_mut()[..len].iter_mut().enumerate().filter_map(|(index, page)| {
            Some(DonePage { index, slot: page.slot.take()?, result: page.result() })
        })
    }

    /// An empty batch with the same buffer, to be filled again. Slots that have not been taken are
    /// lost.
    #[must_use]
    pub fn into_batch(self) -> Batch<'s> {
        self.batch.emptied()
    }
}
