//! Gets that do not block: from their beginning to their results.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::Instant;

use super::exchange::Wanted;
use super::open::Open;
use crate::abi::node_types::{kvrail_ended_get, kvrail_get_counts};
use crate::error::CapiError;

impl Open {
    /// Begins a get. Returns its ticket.
    pub(crate) fn begin_get(&self, to: &Wanted<'_>, until: Instant, tag: u64) -> Result<u64, CapiError> {
        let begun = self.begun()?;
        let batch = self.batch_of(to)?;
        Ok(begun.add(self.node().begin_get(batch, until), until, tag))
    }

    /// The results of a get that was begun.
    pub(crate) fn end_get(
        &self,
        ticket: u64,
        until: Instant,
        statuses: &mut [MaybeUninit<i32>],
    ) -> Result<kvrail_get_counts, CapiError> {
        let begun = self.begun_before().ok_or(CapiError::Ticket { ticket })?;
        let batch = begun.take(ticket, statuses.len(), until)?;
        Ok(self.finish(batch, statuses))
    }

    /// Gives up a get that was begun.
    pub(crate) fn abandon_get(&self, ticket: u64) -> Result<(), CapiError> {
        self.begun_before().ok_or(CapiError::Ticket { ticket })?.abandon(ticket)
    }

    /// The descriptor that is readable while ended gets are not named.
    pub(crate) fn fd(&self) -> Result<RawFd, CapiError> {
        Ok(self.begun()?.fd())
    }

    /// Names ended gets.
    pub(crate) fn ended(&self, places: &mut [MaybeUninit<kvrail_ended_get>]) -> Result<usize, CapiError> {
        Ok(self.begun_before().map_or(0, |begun| begun.ended(places)))
    }
}
