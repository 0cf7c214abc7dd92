//! What a caller can change about a batch in flight: withdraw it or one of its pages, and move it
//! to the other class.

use super::state::Engine;
use crate::class::Class;
use crate::error::{FlightError, PageError};
use crate::events::EventSink;
use crate::id::Ticket;
use crate::lane::NO_LANE;
use crate::limits::CLASSES;
use crate::page::PageTable;
use crate::page::list::PageRef;
use crate::provider::Provider;
use crate::time::Time;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Gives up all pages of a batch that have no final result: they fail with
    /// [`PageError::Withdrawn`]. What has not been posted is not read any more. READs that have
    /// been posted go on, and lanes and peer stay as they are. The batch comes back by
    /// [`next_done`](Self::next_done) when nothing writes into its slots, at once if nothing was
    /// posted. Pages that have arrived keep their results. Returns how many pages were given up,
    /// where the rows of one call of [`read_rows_of`](crate::batch::Batch::read_rows_of) count as
    /// one: 0 if the batch was withdrawn before.
    ///
    /// # Errors
    ///
    /// The batch is not in flight.
    pub fn withdraw(&mut self, ticket: Ticket, now: Time) -> Result<usize, FlightError> {
        let batch = self.find_batch(ticket, now)?;
        Ok(self.cancel(batch, |_, _, _| Some(PageError::Withdrawn)))
    }

    /// As [`withdraw`](Self::withdraw), for the page at position `page` of the batch, from 0. The
    /// slot comes back with the batch. If other pages share the slot or are joined to the page,
    /// their results are not `Ok` then. Returns whether the page was given up: not if it had its
    /// final result.
    ///
    /// # Errors
    ///
    /// The batch is not in flight, or has no such page.
    pub fn withdraw_page(&mut self, ticket: Ticket, page: usize, now: Time) -> Result<bool, FlightError> {
        let batch = self.find_batch(ticket, now)?;
        let pages = usize::from(self.pages.head(batch).len);
        let place = u32::try_from(page).ok().filter(|_| page < pages);
        let place = place.ok_or(FlightError::NoPage { ticket, page, pages })?;
        // The rows of one call are given up together.
        let withdrawn = self.pages.first_of_set(PageRef(self.pages.first(batch).0 + place));
        let failed = self.cancel(batch, |_, at, _| (at == withdrawn).then_some(PageError::Withdrawn));
        Ok(failed > 0)
    }

    /// Moves a batch to another class: what has not been posted waits for the turns of that class,
    /// behind the work that waits there. READs that have been posted stay where they are.
    ///
    /// # Errors
    ///
    /// The batch is not in flight.
    pub fn set_class(&mut self, ticket: Ticket, class: Class, now: Time) -> Result<(), FlightError> {
        let batch = self.find_batch(ticket, now)?;
        let first = self.pages.first(batch);
        let head = self.pages.head(batch);
        let (len, old, new) = (head.len, usize::from(head.class), class.index());
        if old == new {
            return Ok(());
        }
        head.class = class as u8;
        let mut at = 0;
        while at < len {
            let segment = PageRef(first.0 + u32::from(at));
            let page = self.pages.at(segment);
            let (peer, seg_len, waits) = (page.peer(), page.seg_len, page.queue.is_in());
            at += seg_len;
            if waits {
                let parked = self.pages.at(segment).seg.is_parked();
                self.dequeue(peer.into(), old, segment);
                if parked {
                    self.peers.parked[new].push_back(&mut self.pages, segment);
                    self.pages.at(segment).seg.park();
                } else {
                    self.peers[usize::from(peer)].queue[new].push_back(&mut self.pages, segment);
                }
            }
            let p = &mut self.peers[usize::from(peer)];
            if p.circles.is_divided() {
                for page in segment.0..segment.0 + u32::from(seg_len) {
                    let page = PageRef(page);
                    // The pages behind it, which it stands for, move with it.
                    if self.pages.at(page).awaits_validation() && self.pages.at(page).validate.is_in() {
                        p.validate[old].remove(&mut self.pages, page);
                        p.validate[new].push_back(&mut self.pages, page);
                    }
                }
            }
            if p.dead_lanes != [NO_LANE; CLASSES] {
                // Each dead lane is queued in the class of its oldest wr.
                self.purge_peer(peer);
            }
            self.peers.enroll_class(peer, new);
        }
        self.schedule(now);
        Ok(())
    }

    /// The number of a batch in flight.
    fn find_batch(&mut self, ticket: Ticket, now: Time) -> Result<u16, FlightError> {
        self.sink.check();
        let Ticket { batch, serial } = ticket;
        if !self.in_flight.is_flying(batch) || self.pages.head(batch).serial != serial {
            return Err(FlightError::NotInFlight(ticket));
        }
        self.emit_time(now);
        Ok(batch)
    }

    /// The submitter that gets a batch in flight back; `None` if no such batch is in flight.
    pub(crate) fn origin_of(&mut self, Ticket { batch, serial }: Ticket) -> Option<u16> {
        if !self.in_flight.is_flying(batch) {
            return None;
        }
        let head = self.pages.head(batch);
        (head.serial == serial).then_some(head.origin)
    }
}
