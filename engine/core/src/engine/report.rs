//! How a caller is told of pages before their batch is done, and gets their slots back.

use super::state::Engine;
use crate::error::PageError;
use crate::events::EventSink;
use crate::id::{RegionId, Ticket};
use crate::memory::Slot;
use crate::page::list::PageRef;
use crate::page::{PageTable, settle_pages};
use crate::provider::Provider;

/// A page that has its final result, of a batch that [reports its
/// pages](crate::batch::Batch::report_pages). Nothing writes the page's bytes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// The batch.
    pub ticket: Ticket,
    /// The caller's number of the batch ([`Batch::set_tag`](crate::batch::Batch::set_tag)).
    pub tag: u64,
    /// The position of the page in the batch, from 0.
    pub page: usize,
    /// The region of the slot in which the page lands.
    pub region: RegionId,
    /// The number of this slot within its region.
    pub slot: usize,
    /// Whether this page arrived, and why not. Pages that share a slot or are
    /// [joined](crate::batch::Batch::join) are reported one by one: whether all of them arrived is
    /// known when the batch is done.
    pub result: Result<(), PageError>,
}

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// The next page with a final result, in the order in which the pages got them, of batches that
    /// report their pages. A page is told once. Pages of a batch that has been taken by
    /// [`next_done`](Self::next_done) are not told any more.
    pub fn next_arrival(&mut self) -> Option<Arrival> {
        let page = self.in_flight.reports.first()?;
        self.in_flight.reports.remove(&mut self.pages, page);
        let p = self.pages.at(page);
        let (batch, result) = (p.batch, p.result());
        let shares = p.slot.as_ref().and_then(Slot::shares);
        let first = self.pages.first(batch);
        let owner = shares.map_or(page, |place| PageRef(first.0 + place));
        // A slot is taken only after its page has been told, and a shared one never early.
        let (region, slot) = match &self.pages.at(owner).slot {
            Some(slot) => (slot.region(), slot.index()),
            None => {
                debug_assert!(false, "a page that is told has its slot");
                (RegionId(0), 0)
            }
        };
        let (ticket, tag) = (self.ticket(batch), self.pages.head(batch).tag);
        Some(Arrival { ticket, tag, page: (page.0 - first.0) as usize, region, slot, result })
    }

    /// Takes the slot of a page that has been told, before its batch is done. It is safe since all
    /// wrs of the page are accounted for, so that nothing writes into the slot. The batch comes
    /// back without this slot. `None` if several pages share the slot or are joined, if it was
    /// taken before, or if the batch is done: then its slots come back with it.
    pub fn take_slot(&mut self, arrival: &Arrival) -> Option<Slot> {
        let Ticket { batch, serial } = arrival.ticket;
        if !self.in_flight.is_flying(batch) {
            return None;
        }
        let (first, head) = (self.pages.first(batch), self.pages.head(batch));
        let (len, index) = (u32::from(head.len), u32::try_from(arrival.page).ok()?);
        if head.serial != serial || !head.report || index >= len {
            return None;
        }
        let pages = self.pages.slice(first, len);
        let goes_on = |at: usize| {
            let slot = pages.get(at).and_then(|page| page.slot.as_ref());
            slot.is_some_and(|slot| slot.shares().is_some() || slot.is_joined())
        };
        if goes_on(arrival.page) || goes_on(arrival.page + 1) {
            return None;
        }
        let page = &pages[arrival.page];
        if !page.is_retired() || page.validate.is_in() {
            return None;
        }
        // Uniform segments are posted with the region of their first page's slot.
        let mut segment = 0;
        while segment + u32::from(pages[segment as usize].seg_len) <= index {
            segment += u32::from(pages[segment as usize].seg_len);
        }
        if pages[segment as usize].seg.is_uniform() {
            settle_pages(pages);
            pages[segment as usize].seg.make_per_page();
        }
        let page = &mut pages[arrival.page];
        // Without its slot it has no plan, which counts its chunks. All have been posted.
        page.next = u32::MAX;
        page.slot.take().and_then(Slot::unmark)
    }

    /// Whether [`next_done`](Self::next_done), [`next_overdue`](Self::next_overdue) or
    /// [`next_arrival`](Self::next_arrival) has something to return.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let in_flight = &self.in_flight;
        !in_flight.done.is_empty() || in_flight.any_overdue() || !in_flight.reports.is_empty()
    }

    /// Notes that `n` consecutive pages of one batch are retired, if the caller is told of them.
    #[inline]
    pub(super) fn report(&mut self, first: PageRef, n: u32) {
        let batch = self.pages.at(first).batch;
        if self.pages.head(batch).report {
            for page in first.0..first.0 + n {
                self.in_flight.reports.push_back(&mut self.pages, PageRef(page));
            }
        }
    }

    /// Forgets the reports of a done batch that have not been taken.
    #[cold]
    pub(super) fn end_reports(&mut self, batch: u16) {
        self.in_flight.reporting -= 1;
        let (first, len) = (self.pages.first(batch), u32::from(self.pages.head(batch).len));
        for page in first.0..first.0 + len {
            self.in_flight.reports.remove(&mut self.pages, PageRef(page));
        }
    }
}
