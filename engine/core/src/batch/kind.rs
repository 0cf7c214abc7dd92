//! What pages of a batch have in common, and whether a page may join.

use crate::error::ReadError;
use crate::id::Source;
use crate::layout::{NO_LAYOUT, Table};
use crate::memory::Home;
use crate::page::{MAX_CHUNKS, chunks};
use crate::pool::Limits;

/// What pages must have in common to be alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) source: Source,
    pub(super) home: Home,
    pub(super) len: u32,
    pub(super) chunks: u32,
}

impl Kind {
    /// No page is like this.
    pub(super) const NONE: Self = Self { source: Source::NONE, home: Home::NONE, len: 0, chunks: 0 };

    /// What a page (from where, how long, of which layout) and its slot are, if the page may stand
    /// at place `at` of a buffer of these `limits`.
    // By itself and by value: so a loop that fills a batch can keep batch, page and slot in
    // registers.
    #[inline(never)]
    pub(super) fn check(
        of: (Source, u32, u8),
        to: (Home, usize),
        limits: Limits,
        layouts: Table<'_>,
        at: u32,
    ) -> Result<Self, ReadError> {
        let ((source, len, layout), (home, slot_bytes)) = (of, to);
        let Limits { engine, capacity, chunk_shift } = limits;
        let chunks = chunks(len, chunk_shift);
        if source.engine() != engine {
            return Err(ReadError::OtherEngine("page"));
        }
        if home.engine() != engine {
            return Err(ReadError::OtherEngine("slot"));
        }
        if home.layout() != layout && home.layout() != NO_LAYOUT {
            return Err(layouts.unlike(layout, home.layout()).into());
        }
        if len as usize > slot_bytes {
            return Err(ReadError::SlotTooSmall { page_bytes: len, slot_bytes });
        }
        if chunks > MAX_CHUNKS {
            let chunk_bytes = 1 << chunk_shift;
            return Err(ReadError::TooManyChunks { page_bytes: len, chunk_bytes, chunks, max: MAX_CHUNKS });
        }
        if at >= u32::from(capacity) {
            return Err(ReadError::Full { capacity: usize::from(capacity) });
        }
        Ok(Self { source, home, len, chunks })
    }
}
