//! What can be changed about batches in flight, and pages that are told before their batch is done.

use kvrail_core::batch::{Class, Ticket};
use kvrail_core::engine::Arrival;
use kvrail_core::error::FlightError;
use kvrail_core::memory::Slot;

use super::Reader;
use crate::clock;
use crate::transport::ReaderTransport;

impl<T: ReaderTransport> Reader<T> {
    /// Gives up all pages of a batch that have no final result: they fail with
    /// [`PageError::Withdrawn`](kvrail_core::error::PageError::Withdrawn). What has not been posted
    /// is not read any more; what has been posted finishes, and lanes and peer stay as they are.
    /// The batch comes back by [`next_done`](Self::next_done) when nothing writes into its slots.
    /// Returns how many pages were given up: 0 if the batch was withdrawn before.
    ///
    /// # Errors
    ///
    /// The batch is not in flight.
    pub fn withdraw(&mut self, ticket: Ticket) -> Result<usize, FlightError> {
        self.engine.withdraw(ticket, clock::now())
    }

    /// As [`withdraw`](Self::withdraw), for the page at position `page` of the batch, from 0.
    /// Returns whether it was given up: not if it had its final result.
    ///
    /// # Errors
    ///
    /// The batch is not in flight, or has no such page.
    pub fn withdraw_page(&mut self, ticket: Ticket, page: usize) -> Result<bool, FlightError> {
        self.engine.withdraw_page(ticket, page, clock::now())
    }

    /// Moves a batch in flight to another class. READs that have been posted stay where they are.
    ///
    /// # Errors
    ///
    /// The batch is not in flight.
    pub fn set_class(&mut self, ticket: Ticket, class: Class) -> Result<(), FlightError> {
        self.engine.set_class(ticket, class, clock::now())
    }

    /// The next page with a final result, of batches that
    /// [report their pages](kvrail_core::batch::Batch::report_pages): layer by layer for instance,
    /// long before the whole batch is done. `None` when there is nothing more to tell now.
    pub fn next_arrival(&mut self) -> Option<Arrival> {
        self.engine.next_arrival()
    }

    /// Takes the slot of a page that has been told, before its batch is done. `None` if it was
    /// taken before, or if the batch is done.
    pub fn take_slot(&mut self, arrival: &Arrival) -> Option<Slot> {
        self.engine.take_slot(arrival)
    }
}
