//! Where the entries land that validate pages.

use crate::page::list::PageRef;
use crate::provider::RailKeys;
use crate::table::Entry;

/// The landing area: one [`Entry`] for each page of the storage, registered on every rail.
///
/// Invariant: the entry of a page is written by the hardware alone while the page's validating READ
/// is outstanding, and looked at only after that has completed.
#[derive(Debug)]
pub(crate) struct Landing<'s> {
    entries: &'s [Entry],
    pub(crate) keys: RailKeys,
}

impl<'s> Landing<'s> {
    pub(crate) const fn new(entries: &'s [Entry], keys: RailKeys) -> Self {
        Self { entries, keys }
    }

    /// The entries of `n` pages in a row.
    #[inline]
    pub(crate) fn of(&self, first: PageRef, n: u32) -> &'s [Entry] {
        &self.entries[first.0 as usize..][..n as usize]
    }

    /// The entry of a page.
    #[inline]
    pub(crate) fn of_one(&self, page: PageRef) -> &'s Entry {
        &self.entries[page.0 as usize]
    }
}
