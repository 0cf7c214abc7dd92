//! How a caller is told of pages before their batch is done, and gets their slots back.
//!
//! The pages to be told are a list through the pages themselves, in the order in which they got
//! their results: one list for the engine's own thread, which takes it by
//! [`next_arrival`](Engine::next_arrival), and one for the submitters of a hub, which takes it
//! whole in each turn. What is told early is what [`Done`](crate::batch::Done) would say later:
//! pages that share a slot or are joined are a *group*, of which nothing is told before all of its
//! pages are retired, and then each page that has a slot is, with the result of the group. So a
//! slot that is told has no READ under way into it, and can be taken.

use super::state::Engine;
use crate::batch::DonePage;
use crate::batch::groups::{retired_group, settle_group};
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
    /// Whether the page arrived, and why not. Pages that share a slot or are
    /// [joined](crate::batch::Batch::join) are told when all of them have their results, and are
    /// `Ok` only if all of them arrived.
    pub result: Result<(), PageError>,
}

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// The next page with a final result, in the order in which the pages got them, of batches that
    /// report their pages. A page is told once. Pages of a batch that has been taken by
    /// [`next_done`](Self::next_done) are not told any more. Of pages that share a slot the first
    /// is told, which has the slot.
    pub fn next_arrival(&mut self) -> Option<Arrival> {
        let page = self.in_flight.reports.first()?;
        self.in_flight.reports.remove(&mut self.pages, page);
        let p = self.pages.at(page);
        // A slot is taken only after its page has been told.
        let (region, slot) = match &p.slot {
            Some(slot) => (slot.region(), slot.index()),
            None => {
                debug_assert!(false, "a page that is told has its slot");
                (RegionId(0), 0)
            }
        };
        let (batch, result) = (p.batch, p.result());
        let (ticket, tag, first) = (self.ticket(batch), self.pages.head(batch).tag, self.pages.first(batch));
        Some(Arrival { ticket, tag, page: (page.0 - first.0) as usize, region, slot, result })
    }

    /// As [`next_arrival`](Self::next_arrival), for pages of batches that came through a hub: the
    /// number of the submitter, the batch's name and tag, and the page with its slot. A page whose
    /// batch is done meanwhile comes with the batch.
    pub(crate) fn next_early(&mut self) -> Option<(u16, Ticket, u64, DonePage)> {
        while let Some(page) = self.in_flight.hub_reports.first() {
            self.in_flight.hub_reports.remove(&mut self.pages, page);
            let (batch, result) = (self.pages.at(page).batch, self.pages.at(page).result());
            if !self.in_flight.is_flying(batch) {
                continue;
            }
            let index = page.0 - self.pages.first(batch).0;
            let Some(slot) = self.take_settled_slot(batch, index) else {
                debug_assert!(false, "a page that is told has its slot");
                continue;
            };
            let ticket = self.ticket(batch);
            let head = self.pages.head(batch);
            head.told += 1;
            let (origin, tag) = (head.origin, head.tag);
            return Some((origin, ticket, tag, DonePage { index: index as usize, slot, result }));
        }
        self.in_flight.hub_news = false;
        None
    }

    /// Takes the slot of a page that has been told, before its batch is done. It is safe since all
    /// wrs of the page, and of the pages that share its slot, are accounted for, so that nothing
    /// writes into the slot. The batch comes back without this slot. `None` if it was taken before,
    /// or if the batch is done: then its slots come back with it.
    pub fn take_slot(&mut self, arrival: &Arrival) -> Option<Slot> {
        let Ticket { batch, serial } = arrival.ticket;
        if !self.in_flight.is_flying(batch) {
            return None;
        }
        let head = self.pages.head(batch);
        let (len, index) = (u32::from(head.len), u32::try_from(arrival.page).ok()?);
        if head.serial != serial || !head.report || index >= len {
            return None;
        }
        let page = PageRef(self.pages.first(batch).0 + index);
        // A page that has not been told waits to be, or belongs to a group that is not settled.
        if self.pages.at(page).validate.is_in() {
            return None;
        }
        let pages = self.pages.slice(self.pages.first(batch), len);
        let group = retired_group(pages, arrival.page)?;
        if group.len() > 1 || !pages[arrival.page].is_retired() {
            return None;
        }
        self.take_settled_slot(batch, index)
    }

    /// Takes the slot of page `index` of a batch in flight. The page's group is settled.
    fn take_settled_slot(&mut self, batch: u16, index: u32) -> Option<Slot> {
        let (first, len) = (self.pages.first(batch), u32::from(self.pages.head(batch).len));
        let pages = self.pages.slice(first, len);
        // Uniform segments are posted with the region of their first page's slot.
        let mut segment = 0;
        while segment + u32::from(pages[segment as usize].seg_len) <= index {
            segment += u32::from(pages[segment as usize].seg_len);
        }
        if pages[segment as usize].seg.is_uniform() {
            settle_pages(pages);
            pages[segment as usize].seg.make_per_page();
        }
        let page = &mut pages[index as usize];
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
            self.report_each(batch, first, n);
        }
    }

    /// Puts retired pages into the list of those that are told: each that has its slot, and that
    /// shares it with no page, and is joined to none, that is not retired.
    fn report_each(&mut self, batch: u16, first: PageRef, n: u32) {
        let begin = self.pages.first(batch);
        let head = self.pages.head(batch);
        let (len, through_hub, has_groups) =
            (u32::from(head.len), head.origin != 0, head.has_shared || head.in_sets > 0);
        for page in first.0..first.0 + n {
            let mut told = page..page + 1;
            if has_groups {
                let pages = self.pages.slice(begin, len);
                let Some(group) = retired_group(pages, (page - begin.0) as usize) else { continue };
                if group.len() > 1 {
                    for page in &mut pages[group.clone()] {
                        // Without marks it has no plan, which counts its chunks. All have been
                        // posted.
                        page.next = u32::MAX;
                    }
                    settle_group(&mut pages[group.clone()]);
                }
                // Both are places of pages of one batch.
                told = begin.0 + group.start as u32..begin.0 + group.end as u32;
            }
            for page in told.map(PageRef) {
                let p = self.pages.at(page);
                // A view has no slot any more. The `n` pages may be of one group, which was put
                // into the list with the first of them.
                if p.slot.is_none() || p.validate.is_in() {
                    continue;
                }
                let in_flight = &mut self.in_flight;
                let list = if through_hub { &mut in_flight.hub_reports } else { &mut in_flight.reports };
                list.push_back(&mut self.pages, page);
                in_flight.hub_news |= through_hub;
            }
        }
    }

    /// Forgets the reports of a done batch that have not been taken.
    #[cold]
    pub(super) fn end_reports(&mut self, batch: u16) {
        self.in_flight.reporting -= 1;
        let first = self.pages.first(batch);
        let head = self.pages.head(batch);
        let (len, through_hub) = (u32::from(head.len), head.origin != 0);
        let in_flight = &mut self.in_flight;
        let list = if through_hub { &mut in_flight.hub_reports } else { &mut in_flight.reports };
        for page in first.0..first.0 + len {
            list.remove(&mut self.pages, PageRef(page));
        }
    }
}
