//! What the ring of a lane says of the work requests that are outstanding on it.

use crate::limits::narrow;
use crate::page::list::{NIL, PageRef};
use crate::table::ENTRY_BYTES;

/// The chunk number of a page's validating READ.
pub(crate) const VALIDATE: u32 = u32::MAX;

/// wrs that the lane has, one after the other, `len` bytes each: chunk `chunk` of `count` pages in
/// a row, or `count` chunks of one page ([`Run::Chunks`]), or one wr that has the entries of
/// several pages in a row.
///
/// It stands in the ring at the first of them; what stands at the others' places means nothing.
/// More than one only while the lane is up, and then several pages are of one uniform segment.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(crate) struct Record {
    pub(crate) page: PageRef,
    /// The chunk's number, or `VALIDATE`.
    pub(crate) chunk: u32,
    pub(crate) len: u32,
    pub(crate) count: u16,
    pub(crate) run: Run,
}

/// What is known of all pages of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Run {
    /// Nothing: each page has to be looked at.
    PerPage,
    /// When their wrs have completed the pages have arrived.
    NoValidation,
    /// When their wrs have completed the pages are to be validated.
    NeedsValidation,
    /// Their wrs read their entries.
    Validating,
    /// It is one page, and the wrs are its chunks from `chunk` on.
    Chunks,
}

impl Record {
    pub(crate) const EMPTY: Self = Self { page: NIL, chunk: 0, len: 0, count: 0, run: Run::PerPage };

    /// What is left of it behind its first `n` wrs; less than all.
    #[inline]
    pub(crate) fn behind(self, n: u32) -> Self {
        // Less than it was, a u16.
        let count = self.count - narrow(n as usize);
        match self.run {
            Run::Chunks => Self { chunk: self.chunk + n, count, ..self },
            _ => Self { page: PageRef(self.page.0 + n), count, ..self },
        }
    }

    /// How many pages (or chunks, of one page) `wrs` of its wrs are.
    #[inline]
    pub(crate) fn covers(&self, wrs: u32) -> u32 {
        if self.chunk == VALIDATE { wrs * (self.len / ENTRY_BYTES as u32) } else { wrs }
    }

    /// Of one chunk.
    #[inline]
    pub(crate) fn one(page: PageRef, chunk: u32, len: u32) -> Self {
        Self { page, chunk, len, count: 1, run: Run::PerPage }
    }
}

/// Where the record of wr `seq` of a lane is among those of all lanes, a power of two for each.
#[inline]
pub(crate) fn place(lane: usize, seq: u32, depth: u32) -> usize {
    lane * depth as usize + (seq & (depth - 1)) as usize
}
