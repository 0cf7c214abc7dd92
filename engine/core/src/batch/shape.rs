//! What pages of a batch have in common, and whether a page may join.

use super::pool::BufferLimits;
use crate::error::ReadError;
use crate::id::RegionRef;
use crate::layout::{LayoutTable, NO_LAYOUT};
use crate::limits::MAX_CHUNKS;
use crate::memory::slot::SlotRegion;
use crate::page::chunks;

/// What pages must have in common to be alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageShape {
    pub(super) source: RegionRef,
    pub(super) slot_region: SlotRegion,
    pub(super) len: u32,
    pub(super) chunks: u32,
}

impl PageShape {
    /// No page is like this.
    pub(super) const NONE: Self =
        Self { source: RegionRef::NONE, slot_region: SlotRegion::NONE, len: 0, chunks: 0 };

    /// What a page (from where, how long, of which layout) and its slot are, if the page may stand
    /// at place `at` of a buffer of these `limits`.
    // By itself and by value: so a loop that fills a batch can keep batch, page and slot in
    // registers.
    #[inline(never)]
    pub(super) fn check(
        of: (RegionRef, u32, u8),
        to: (SlotRegion, usize),
        limits: BufferLimits,
        layouts: LayoutTable<'_>,
        at: u32,
    ) -> Result<Self, ReadError> {
        let ((source, len, layout), (slot_region, slot_bytes)) = (of, to);
        let BufferLimits { engine, capacity, chunk_shift } = limits;
        let chunks = chunks(len, chunk_shift);
        if source.engine() != engine {
            return Err(ReadError::OtherEngine("page"));
        }
        if slot_region.engine() != engine {
            return Err(ReadError::OtherEngine("slot"));
        }
        if slot_region.layout() != layout && slot_region.layout() != NO_LAYOUT {
            return Err(layouts.unlike(layout, slot_region.layout()).into());
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
        Ok(Self { source, slot_region, len, chunks })
    }
}
