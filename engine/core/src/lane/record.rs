//! The records in a lane's ring: which chunk of which page each outstanding wr reads.

use crate::limits::narrow;
use crate::page::list::{NIL, PageRef};

/// In place of the chunk number: the wr is a validating READ of the entries of as many consecutive
/// pages as the lower half says. No page has as many chunks.
const VALIDATE: u32 = 0xffff_0000;

/// What stands for the chunk number in the record of a validating READ of the entries of `pages`
/// consecutive pages, which are fewer than 2^16.
#[inline]
pub(crate) const fn validating(pages: u32) -> u32 {
    debug_assert!(pages > 0 && pages <= !VALIDATE, "as many pages as one READ brings the entries of");
    VALIDATE | pages
}

/// A run of `count` outstanding wrs, one after the other, that read `len` bytes each: chunk `chunk`
/// of `count` consecutive pages, or `count` chunks of one page ([`Run::Chunks`]), or one wr that
/// reads the entries of several consecutive pages, and all that stands between these in the table.
///
/// The record is in the ring at the place of its first wr; the places of its other wrs hold
/// nothing. Only a lane that is up has records with a `count` above 1. Several pages in one record
/// belong to one segment, whose pages are uniform or [alike](crate::page::segment::Segment::ALIKE)
/// unless the record is of validating READs.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(crate) struct Record {
    pub(crate) page: PageRef,
    /// The number of the chunk, or [`validating`].
    pub(crate) chunk: u32,
    pub(crate) len: u32,
    pub(crate) count: u16,
    pub(crate) run: Run,
}

/// What a success of its wrs means for the pages of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Run {
    /// It depends on each page, which has to be looked at.
    PerPage,
    /// The pages have arrived.
    NoValidation,
    /// The data of the pages has arrived, and the pages are to be validated.
    NeedsValidation,
    /// The same chunk of each page has arrived, of pages that are to be validated and lack equally
    /// many chunks.
    Pairs,
    /// The entries of the pages have arrived: the wrs are validating READs.
    Validating,
    /// Chunks of one page have arrived, from `chunk` on.
    Chunks,
    /// As `Chunks`, of a [set](crate::page::row_set) whose READs have several lengths: `len` is
    /// what all of them read.
    JoinedRows,
    /// The entries of pages of one [set](crate::page::row_set) have arrived: the wr is one of the
    /// set's validating READs.
    SetEntries,
}

impl Record {
    pub(crate) const EMPTY: Self = Self { page: NIL, chunk: 0, len: 0, count: 0, run: Run::PerPage };

    /// The record of the wrs that remain after the first `n`, which are fewer than all.
    #[inline]
    pub(crate) fn behind(self, n: u32) -> Self {
        debug_assert!(n < u32::from(self.count), "a wr remains");
        let count = self.count - narrow(n as usize);
        match self.run {
            Run::Chunks | Run::JoinedRows => Self { chunk: self.chunk + n, count, ..self },
            _ => Self { page: PageRef(self.page.0 + n), count, ..self },
        }
    }

    /// Whether its wrs are validating READs.
    #[inline]
    pub(crate) const fn is_validating(&self) -> bool {
        self.chunk >= VALIDATE
    }

    /// How many pages `wrs` of its wrs cover; of a record of one page's chunks, how many chunks.
    #[inline]
    pub(crate) fn covers(&self, wrs: u32) -> u32 {
        if self.is_validating() { wrs * (self.chunk & !VALIDATE) } else { wrs }
    }

    /// How many bytes all of its wrs read.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        let each = if self.run == Run::JoinedRows { 1 } else { self.count };
        u64::from(each) * u64::from(self.len)
    }

    /// The record of its first wr. It is not of [`Run::JoinedRows`], unless it has one wr.
    #[inline]
    pub(crate) fn alone(self) -> Self {
        debug_assert!(self.run != Run::JoinedRows || self.count == 1);
        let run = match self.run {
            // A set counts its chunks and entries as one page.
            run @ (Run::Chunks | Run::SetEntries) => run,
            Run::JoinedRows => Run::Chunks,
            _ => Run::PerPage,
        };
        Self { count: 1, run, ..self }
    }
}

/// The index of the record of wr `seq` of a lane among the records of all lanes. `depth`, the
/// number of records of each lane, is a power of two.
#[inline]
pub(crate) fn place(lane: usize, seq: u32, depth: u32) -> usize {
    lane * depth as usize + (seq & (depth - 1)) as usize
}
