//! Whether a page may join a batch with a slot; and the shape by which a page is known to be like
//! the page before, so that it needs no further check.

use super::pool::BufferLimits;
use crate::error::ReadError;
use crate::id::RegionRef;
use crate::layout::{LayoutTable, NO_LAYOUT};
use crate::limits::MAX_CHUNKS;
use crate::memory::slot::SlotRegion;
use crate::page::chunks;

/// What two pages have in common if a check of the one holds for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageShape {
    pub(super) source: RegionRef,
    pub(super) slot_region: SlotRegion,
    pub(super) len: u32,
    pub(super) chunks: u32,
}

impl PageShape {
    /// The shape of no page.
    pub(super) const NONE: Self =
        Self { source: RegionRef::NONE, slot_region: SlotRegion::NONE, len: 0, chunks: 0 };

    /// Checks that a page (`of`: its region, length and layout) may land in a slot (`to`: its
    /// region and length), at place `at` of a buffer with these `limits`. Returns their shape.
    // Not inlined, and its arguments are values, so that a loop that fills a batch keeps batch,
    // page and slot in registers.
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
