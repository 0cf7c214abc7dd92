//! The memory into which validating READs write table entries.

use crate::page::list::PageRef;
use crate::provider::RailKeys;
use crate::table::Entry;

/// The landing area: one [`Entry`] for each page of the storage, registered on every rail.
///
/// Invariant: while the validating READ of a page is outstanding, only the hardware writes the
/// page's entry, and the engine loads the entry only after that READ has completed.
#[derive(Debug)]
pub(crate) struct Landing<'s> {
    entries: &'s [Entry],
    pub(crate) keys: RailKeys,
}

impl<'s> Landing<'s> {
    pub(crate) const fn new(entries: &'s [Entry], keys: RailKeys) -> Self {
        Self { entries, keys }
    }

    /// The entries of `n` consecutive pages.
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
