//! The memory into which validating READs write table entries.

use crate::limits::MAX_SGES;
use crate::page::list::PageRef;
use crate::provider::{Piece, RailKeys};
use crate::table::{ENTRY_BYTES, Entry};

/// The most entries between two wanted ones that one READ brings, and the size of the waste area.
/// They are 2 KiB, which cost as much as a READ of their own even where READs are made by software.
pub(crate) const WASTE: usize = 64;

/// The most entries from the first to the last of one READ over gaps. They are 4 KiB: one packet
/// where the MTU is 4096. Twice as many were not cheaper over SoftRoCE.
const SPAN: u32 = 128;

/// The pieces of one READ over gaps.
pub(crate) type Pieces = [Piece; MAX_SGES as usize];

/// Which entries are brought by one READ although others stand between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joining {
    /// The most entries between two that are wanted; 0 if no READ has gaps.
    gap: u32,
    /// The most pieces of a READ.
    pieces: u32,
}

impl Joining {
    /// For rails whose READs have at most `sges` pieces and cost as much as `overhead` more bytes
    /// of another READ.
    pub(crate) const fn new(sges: u32, overhead: u32) -> Self {
        let most = overhead / ENTRY_BYTES as u32;
        // A READ over a gap has three pieces at least.
        let gap = if sges < 3 {
            0
        } else if most < WASTE as u32 {
            most
        } else {
            WASTE as u32
        };
        Self { gap, pieces: if sges < MAX_SGES { sges } else { MAX_SGES } }
    }
}

/// Consecutive pages of a batch whose entries one READ brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The number of the first page's entry.
    pub(crate) entry: u32,
    pub(crate) pages: u32,
    /// Entries from that of the first page to that of the last.
    pub(crate) span: u32,
    /// Pieces in which the READ lands: one for each run of entries, and one for each gap.
    pub(crate) pieces: usize,
}

impl Row {
    /// Bytes that the READ brings.
    pub(crate) const fn bytes(&self) -> u32 {
        self.span * ENTRY_BYTES as u32
    }
}

/// The landing area: one [`Entry`] for each page of the storage, and behind them the waste area,
/// into which goes what a READ brings of the entries between those that are wanted. Both are
/// registered on every rail under one key.
///
/// Invariant: while the validating READ of a page is outstanding, only the hardware writes the
/// page's entry, and the engine loads the entry only after that READ has completed. The waste area
/// is written by the hardware alone, by any number of READs at the same time, and nothing loads it.
#[derive(Debug)]
pub(crate) struct Landing<'s> {
    entries: &'s [Entry],
    /// The address of the waste area.
    waste: u64,
    pub(crate) keys: RailKeys,
    joining: Joining,
    /// Where the pieces of two READs are worked out: of the one that is added to a commit next, and
    /// of the one behind it.
    pub(crate) pieces: [Pieces; 2],
}

impl<'s> Landing<'s> {
    /// `all` is an entry for each page, and the waste area behind them.
    pub(crate) fn new(all: &'s [Entry], keys: RailKeys, joining: Joining) -> Self {
        let (entries, waste) = all.split_at(all.len() - WASTE);
        let waste = waste.as_ptr().expose_provenance() as u64;
        Self { entries, waste, keys, joining, pieces: [[Piece { addr: 0, len: 0 }; MAX_SGES as usize]; 2] }
    }

    /// Whether one READ may bring entries with gaps between them.
    #[inline]
    pub(crate) const fn joins(&self) -> bool {
        self.joining.gap > 0
    }

    /// Where the entry of a page lands.
    #[inline]
    pub(crate) fn address(&self, page: PageRef) -> u64 {
        core::ptr::from_ref(self.of_one(page)).expose_provenance() as u64
    }

    /// Lengthens `row`, whose entries stand in a row and whose first page is `first`, by as many of
    /// the pages behind it as one READ can bring the entries of: these are `entries`, in the order
    /// of the pages. They must ascend. Works out the pieces of the READ in `self.pieces[list]`.
    pub(crate) fn join(
        &mut self,
        row: Row,
        first: PageRef,
        entries: impl Iterator<Item = u32>,
        list: usize,
    ) -> Row {
        const ENTRY: u32 = ENTRY_BYTES as u32;
        let (local, waste) = (self.address(first), self.waste);
        let Joining { gap: most, pieces } = self.joining;
        let mut row = row;
        let (mut last, mut at) = (row.entry + (row.pages - 1), row.pieces - 1);
        let list = &mut self.pieces[list];
        list[at] = Piece { addr: local, len: row.pages * ENTRY };
        for entry in entries {
            // No entry has the number u32::MAX, so the sum does not wrap. A difference could: in a
            // table of nearly 2^32 entries one that falls would seem to be behind a short gap.
            let Some(gap) = entry.checked_sub(last + 1) else { break };
            if gap > most || entry - row.entry >= SPAN {
                break;
            }
            if gap > 0 {
                if at + 2 >= pieces as usize {
                    break;
                }
                list[at + 1] = Piece { addr: waste, len: gap * ENTRY };
                at += 2;
                list[at] = Piece { addr: local + u64::from(row.pages) * ENTRY_BYTES, len: 0 };
            }
            list[at].len += ENTRY;
            last = entry;
            row.pages += 1;
        }
        (row.span, row.pieces) = (last - row.entry + 1, at + 1);
        row
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

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// How many of the pages with these entries one READ brings, and how many entries it spans.
    fn joined(entries: &[u32]) -> (u32, u32) {
        let all: Vec<_> = (0..WASTE + 8).map(|_| Entry::new()).collect();
        let mut landing = Landing::new(&all, Default::default(), Joining::new(5, 512));
        let (first, behind) = entries.split_first().unwrap();
        let alone = Row { entry: *first, pages: 1, span: 1, pieces: 1 };
        let row = landing.join(alone, PageRef(0), behind.iter().copied(), 0);
        let bytes: u32 = landing.pieces[0][..row.pieces].iter().map(|piece| piece.len).sum();
        assert_eq!(bytes, row.bytes());
        (row.pages, row.span)
    }

    #[test]
    fn a_read_ends_before_an_entry_that_falls() {
        assert_eq!(joined(&[3, 5, 4]), (2, 3));
        assert_eq!(joined(&[3, 5, 5]), (2, 3));
        // The longest table there is: its last entry is that of slot u32::MAX - 1.
        let last = u32::MAX - 1;
        assert_eq!(joined(&[last - 2, last]), (2, 3));
        for first in 0..4 {
            assert_eq!(joined(&[last - 2, last, first]), (2, 3));
            assert_eq!(joined(&[last, first]), (1, 1));
        }
    }
}
