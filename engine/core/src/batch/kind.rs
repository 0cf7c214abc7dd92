//! What pages of a batch have in common, and whether a page may join.

use crate::error::ReadError;
use crate::id::Source;
use crate::layout::{NO_LAYOUT, Table};
use crate::memory::Home;
use crate::page::{MAX_CHUNKS, chunks};
use crate::pool::Limits;
use crate::remote::RemotePage;

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

    /// What a page and its slot are, if the page may stand at place `at` of `buffer`.
    // By itself and by value: so a loop that fills a batch can keep batch, page and slot in registers.
    #[inline(never)]
    pub(super) fn check(
        of: (Source, u32),
        to: (Home, usize),
        limits: Limits,
        at: u32,
    ) -> Result<Self, ReadError> {
        let ((source, len), (home, slot_bytes)) = (of, to);
        let Limits { engine, capacity, chunk_shift } = limits;
        let chunks = chunks(len, chunk_shift);
        if source.engine() != engine {
            return Err(ReadError::OtherEngine("page"));
        }
        if home.engine() != engine {
            return Err(ReadError::OtherEngine("slot"));
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

    /// Whether a slot of `home` takes bytes of `page` as they are: whether it is of the same layout, or of none.
    #[inline(always)]
    pub(super) fn belongs(page: &RemotePage, home: Home, layouts: Table<'_>) -> Result<(), ReadError> {
        let layout = home.layout();
        if layout == page.layout || layout == NO_LAYOUT { Ok(()) } else { Err(unlike(page, home, layouts)) }
    }
}

#[cold]
#[inline(never)]
fn unlike(page: &RemotePage, home: Home, layouts: Table<'_>) -> ReadError {
    // Numbers of two engines say nothing of each other.
    if page.source.engine() != home.engine() {
        return ReadError::OtherEngine("slot");
    }
    layouts.unlike(page.layout, home.layout()).into()
}
