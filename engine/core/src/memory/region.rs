//! Regions of destination memory: their registration errors, and the iterator that gives out their
//! slots.
#![allow(unsafe_code, reason = "slots are views of memory that hardware writes")]

use core::ptr::NonNull;

use super::slot::{Access, Slot, SlotRegion};
use crate::id::RegionId;
use crate::layout::{AddLayoutError, LayoutRef, NO_LAYOUT, SetLayoutError};
use crate::provider::{MemoryRange, RegisterError};

/// Why memory cannot be registered as a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// A slot must have at least one byte, and no more than a work request can name.
    #[error("a slot cannot have {slot_bytes} bytes: 1 to 4294967295 are possible")]
    SlotBytes {
        /// The requested bytes of a slot.
        slot_bytes: u64,
    },
    /// The memory is smaller than one slot.
    #[error("{bytes} bytes of memory hold no slot of {slot_bytes} bytes: register at least one slot")]
    TooSmall {
        /// Bytes of the memory.
        bytes: u64,
        /// Bytes of a slot.
        slot_bytes: u64,
    },
    /// The memory has more slots than can be numbered.
    #[error("{slots} slots in one region: at most 4294967295 can be numbered; register it in parts")]
    TooMany {
        /// How many slots the memory has.
        slots: u64,
    },
    /// The engine's table of regions is full.
    #[error(
        "{limit} regions are registered already, the most of one engine: unregister one, or register larger ones"
    )]
    Full {
        /// The most regions of an engine.
        limit: usize,
    },
    /// The engine cannot learn the layout of the slots.
    #[error(transparent)]
    Layout(#[from] AddLayoutError),
    /// The provider could not register the memory.
    #[error(transparent)]
    Provider(#[from] RegisterError),
}

impl RegionError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::SlotBytes { .. } => 2160,
            Self::TooSmall { .. } => 2161,
            Self::TooMany { .. } => 2162,
            Self::Full { .. } => 2163,
            Self::Layout(error) => error.code(),
            Self::Provider(error) => error.code(),
        }
    }
}

/// The slots of one region. Each is given out once, and comes back by [`put`](Self::put).
///
/// It is an iterator over the slots that have not been given out. When every slot that was given
/// out has come back, the engine's `unregister` releases the region.
#[derive(Debug)]
pub struct Slots {
    base: NonNull<u8>,
    slot_bytes: u32,
    count: u32,
    next: u32,
    out: u32,
    region: RegionId,
    engine: u16,
    layout: u8,
    access: Access,
    range: MemoryRange,
}

// SAFETY: as for Slot: this value alone owns the slots that have not been given out.
unsafe impl Send for Slots {}

/// The checked sizes of a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionShape {
    pub(crate) slot_bytes: u32,
    pub(crate) count: u32,
}

impl RegionShape {
    /// Checks that `bytes` of memory hold slots of `slot_bytes`.
    pub(crate) fn check(bytes: u64, slot_bytes: u64) -> Result<Self, RegionError> {
        let small = u32::try_from(slot_bytes).ok().filter(|&n| n > 0);
        let slot = small.ok_or(RegionError::SlotBytes { slot_bytes })?;
        let slots = bytes / slot_bytes;
        if slots == 0 {
            return Err(RegionError::TooSmall { bytes, slot_bytes });
        }
        let count = u32::try_from(slots).map_err(|_| RegionError::TooMany { slots })?;
        Ok(Self { slot_bytes: slot, count })
    }
}

impl Slots {
    /// The slots of `range`.
    ///
    /// # Safety
    ///
    /// The range is valid for reads and writes (and initialised, for [`Access::Host`]), and no
    /// other code uses it, until all slots are gone or `unregister` has given the range back.
    /// `shape` was checked against `range.len`, and `base` is its start, not null.
    pub(crate) unsafe fn new(
        base: NonNull<u8>,
        range: MemoryRange,
        shape: RegionShape,
        region: RegionId,
        engine: u16,
        access: Access,
    ) -> Self {
        let RegionShape { slot_bytes, count } = shape;
        let (next, out, layout) = (0, 0, NO_LAYOUT);
        Self { base, slot_bytes, count, next, out, region, engine, layout, access, range }
    }

    /// How many slots the region has in all. (`count` is a method of iterators: it takes all
    /// remaining slots and loses them.)
    #[must_use]
    pub const fn total(&self) -> usize {
        self.count as usize
    }

    /// How many slots have been given out and not put back.
    #[must_use]
    pub const fn out(&self) -> usize {
        self.out as usize
    }

    /// Bytes of one slot.
    #[must_use]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }

    /// The region's name.
    #[must_use]
    pub const fn region(&self) -> RegionId {
        self.region
    }

    /// Sets the layout of the slots. From then on only pages of the same layout land in them, or
    /// pages that come by a plan that writes this layout. Slots without a layout take any bytes.
    ///
    /// # Errors
    ///
    /// The layout is another engine's, the slots have another layout already, or some have been
    /// given out.
    pub fn set_layout(&mut self, layout: LayoutRef) -> Result<(), SetLayoutError> {
        if layout.engine != self.engine {
            return Err(SetLayoutError::OtherEngine);
        }
        if self.layout != NO_LAYOUT && self.layout != layout.number {
            return Err(SetLayoutError::Another);
        }
        if self.layout == NO_LAYOUT && self.next != 0 {
            return Err(SetLayoutError::Given { given: self.next as usize });
        }
        self.layout = layout.number;
        Ok(())
    }

    fn slot_region(&self) -> SlotRegion {
        SlotRegion::new(self.region, self.layout, self.engine)
    }

    pub(crate) const fn engine(&self) -> u16 {
        self.engine
    }

    pub(crate) const fn range(&self) -> MemoryRange {
        self.range
    }

    /// Takes a slot back for good: it is not given out again. When all slots are back, the region
    /// can be released.
    ///
    /// # Errors
    ///
    /// The slot, if it belongs to another region.
    pub fn put(&mut self, slot: Slot) -> Result<(), Slot> {
        if slot.slot_region() != self.slot_region() {
            return Err(slot);
        }
        self.out -= 1;
        Ok(())
    }
}

impl Iterator for Slots {
    type Item = Slot;

    #[inline]
    fn next(&mut self) -> Option<Slot> {
        let index = self.next;
        if index == self.count {
            return None;
        }
        self.next += 1;
        self.out += 1;
        let offset = index as usize * self.slot_bytes as usize;
        // SAFETY: index < count, and count slots lie within the region, by RegionShape::check.
        let addr = unsafe { self.base.add(offset) };
        Some(Slot::new(addr, self.slot_bytes, index, self.slot_region(), self.access))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Slots {}
