//! A batch that is done: a result for each page, and the slots back.

use super::batch::Batch;
use super::groups::{clear_sets, settle};
use super::pool::Buffer;
use super::ranges::{next_range, range_of};
use crate::error::PageError;
use crate::id::Ticket;
use crate::memory::SlotRange;
use crate::memory::slot::Slot;
use crate::page::Page;

/// A batch that is done: a result for each page, and the slots back. Dropping it gives the buffer
/// back to the pool. Slots that have not been taken by then are lost.
#[derive(Debug)]
pub struct Done<'s> {
    batch: Batch<'s>,
    /// How many pages from the first on have consecutive slots, of which none has been taken.
    in_range: usize,
    /// The first page whose slot was not taken in a range. Slots of the pages before are gone,
    /// though their pages may still have them.
    from: usize,
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

/// The slots of consecutive pages of a [`Done`].
#[derive(Debug)]
pub struct DoneRange {
    /// The position of the first page in the batch.
    pub first: usize,
    /// The slots of this page and of those behind it, in their order. A slot holds its page if the
    /// page's result is `Ok`; otherwise its bytes are unspecified.
    pub slots: SlotRange,
}

impl<'s> Done<'s> {
    #[inline]
    pub(crate) fn new(mut buffer: Buffer<'s>) -> Self {
        let len = u32::from(buffer.head().len);
        let head = buffer.head();
        let (shared, in_sets) = (head.has_shared, head.in_sets > 0);
        let (marked, whole) = (head.has_planned || head.has_rows, head.failed == 0);
        let pages = &mut buffer.pages_mut()[..len as usize];
        if in_sets && whole && !shared {
            clear_sets(pages);
        } else if shared || in_sets {
            settle(pages);
        } else if marked {
            pages.iter_mut().filter_map(|page| page.slot.as_mut()).for_each(Slot::clear_marks);
        }
        // A slot may have been taken before the batch was done, if the batch reports its pages.
        let in_range = if buffer.head().report { 0 } else { usize::from(buffer.head().in_range) };
        Self { batch: Batch::of_done(buffer, len), in_range, from: 0 }
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

    /// How many pages of a batch that reports its pages a submitter was not told before.
    pub(crate) fn untold(&self) -> usize {
        let head = self.batch.buffer().head();
        if head.report { usize::from(head.len - head.told) } else { 0 }
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

    /// Whether all pages arrived. It looks at no page.
    #[must_use]
    #[inline]
    pub fn all_arrived(&self) -> bool {
        // Without a page that failed there is no error for those that are joined to it.
        self.batch.buffer().head().failed == 0
    }

    /// The pages that did not arrive, by their positions in the batch, and why. If all
    /// pages arrived it looks at no page.
    #[inline]
    pub fn failures(&self) -> impl Iterator<Item = (usize, PageError)> + use<'_, 's> {
        let pages = if self.all_arrived() { &[] } else { &self.batch.buffer().pages()[..self.len()] };
        pages.iter().enumerate().filter_map(|(index, page)| Some((index, page.result().err()?)))
    }

    /// Which of the 64 pages from position `64 * word` on did not arrive: bit 0 is that page's. If
    /// all pages of the batch arrived it looks at no page.
    #[must_use]
    #[inline]
    pub fn failed_bits(&self, word: usize) -> u64 {
        if self.all_arrived() { 0 } else { self.bits_of_failed(word) }
    }

    fn bits_of_failed(&self, word: usize) -> u64 {
        let pages = &self.batch.buffer().pages()[..self.len()];
        let pages = word.checked_mul(64).and_then(|first| pages.get(first..)).unwrap_or(&[]);
        let bit = |page: &Page| u64::from(!page.has_arrived());
        (0..64).zip(pages).fold(0, |bits, (at, page)| bits | bit(page) << at)
    }

    /// Takes the slots of the next pages as a range: from the first page on whose slot was not
    /// taken, as far as the slots follow each other. Pages that joined by one call of
    /// [`read_many`](Batch::read_many) come back by one, unless slots of them were taken before;
    /// those of the call that began the batch without a look at each, if the batch does not
    /// [report its pages](Batch::report_pages). `None` when no slot is left.
    #[inline]
    pub fn take_range(&mut self) -> Option<DoneRange> {
        let (from, n) = (self.from, core::mem::take(&mut self.in_range));
        let pages = &mut self.batch.buffer_mut().pages_mut();
        let (first, slots) = match n {
            0 => return self.next_range(),
            _ => (from, range_of(pages, from, n)?),
        };
        self.from = first + n;
        Some(DoneRange { first, slots })
    }

    #[inline(never)]
    fn next_range(&mut self) -> Option<DoneRange> {
        let (from, len) = (self.from, self.len());
        let (first, slots) = next_range(&mut self.batch.buffer_mut().pages_mut()[..len], from)?;
        self.from = first + slots.len();
        Some(DoneRange { first, slots })
    }

    /// Takes the pages, with their slots, in the order of the batch. A page whose slot was taken
    /// before is left out, also if that was before the batch was done. Of pages that share a slot
    /// only the first is there.
    #[inline]
    pub fn pages(&mut self) -> impl Iterator<Item = DonePage> + use<'_, 's> {
        self.in_range = 0;
        let (from, len) = (self.from, self.len());
        let pages = &mut self.batch.buffer_mut().pages_mut()[from..len];
        pages.iter_mut().zip(from..).filter_map(|(page, index)| {
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
