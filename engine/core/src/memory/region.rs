//! Regions of destination memory: their registration errors, and the iterator that gives out their
//! slots.
#![allow(unsafe_code, reason = "slots are views of memory that hardware writes")]

use core::ptr::NonNull;

use kvrail_layouts::Geometry;

use super::range::SlotRange;
use super::slot::{Access, Slot, SlotRegion};
use crate::id::RegionId;
use crate::layout::{AddLayoutError, LayoutRef, NO_LAYOUT, SetLayoutError};
use crate::plan::AddPlanError;
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
    /// The range is longer than one registration of a rail may be.
    #[error(
        "{bytes} bytes in one range, and a rail registers at most {limit} at once: register them in parts, each with \
         slots of its own"
    )]
    TooLong {
        /// Bytes of the range.
        bytes: u64,
        /// The most bytes of one registration.
        limit: u64,
    },
    /// The engine's table of regions is full.
    #[error(
        "{limit} regions are registered already, the most of one engine: unregister one, or register larger ones"
    )]
    Full {
        /// The most regions of an engine.
        limit: usize,
    },
    /// There are not as many ranges as the layout has regions.
    #[error(
        "{given} ranges for a layout whose pages have {layout} regions: give one for each, in their order"
    )]
    Regions {
        /// How many ranges were given.
        given: usize,
        /// How many regions the layout has.
        layout: u32,
    },
    /// Ranges hold different numbers of slots.
    #[error("range {region} holds {slots} slots and range 0 holds {first}: give ranges of as many slots")]
    Uneven {
        /// Which range.
        region: u32,
        /// Its slots.
        slots: u64,
        /// Those of range 0.
        first: u64,
    },
    /// The slots of a range would overlap.
    #[error("slots of {slot_bytes} bytes would overlap at a stride of {stride} bytes, in range {region}")]
    Stride {
        /// Which range.
        region: u32,
        /// Bytes from one slot to the next.
        stride: u64,
        /// Bytes of a slot.
        slot_bytes: u64,
    },
    /// A range ends beyond the address space.
    #[error("range {region}, {bytes} bytes from {addr:#x}, ends beyond 2^64")]
    Wraps {
        /// Which range.
        region: u32,
        /// Its address.
        addr: u64,
        /// Its length.
        bytes: u64,
    },
    /// The engine has no places in a row for the pieces of such slots.
    #[error(
        "the slots have {needed} pieces, and the engine has no such row free among its {limit}: unregister slots, or use a layout of fewer regions"
    )]
    Pieces {
        /// How many pieces each slot has.
        needed: usize,
        /// The most pieces of all slots of an engine.
        limit: usize,
    },
    /// The slots of two ranges overlap.
    #[error("the slots of range {second} overlap those of range {first}: each region needs bytes of its own")]
    Overlap {
        /// The first of the two.
        first: u32,
        /// The second.
        second: u32,
    },
    /// The engine cannot learn the layout of the slots.
    #[error(transparent)]
    Layout(#[from] AddLayoutError),
    /// The engine cannot take the layout of the slots.
    #[error(transparent)]
    Plan(#[from] AddPlanError),
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
            Self::Regions { .. } => 2164,
            Self::Uneven { .. } => 2165,
            Self::Stride { .. } => 2166,
            Self::Overlap { .. } => 2167,
            Self::Wraps { .. } => 2169,
            Self::Pieces { .. } => 2159,
            Self::TooLong { .. } => 2168,
            Self::Layout(error) => error.code(),
            Self::Plan(error) => error.code(),
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
    /// Bytes from one slot to the next.
    stride: u64,
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
    /// Bytes from one slot to the next. All slots end within the memory.
    pub(crate) stride: u64,
}

/// Memory for one region of the slots of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationRegion {
    /// The memory. Slot 0 is at its beginning.
    pub range: MemoryRange,
    /// Bytes from one slot to the next, at least those of the region.
    pub stride: u64,
}

impl DestinationRegion {
    /// Checks that `regions` hold the slots of pages of `layout`, and says how many slots these
    /// are.
    ///
    /// # Errors
    ///
    /// Too few ranges or too many, of different numbers of slots, overlapping, beyond the address
    /// space, or with slots that overlap.
    pub fn slots_of(layout: &Geometry, regions: &[Self]) -> Result<u32, RegionError> {
        check_regions(layout, regions).map(|shape| shape.count)
    }

    /// How many slots of `slot_bytes`, at least 1, the range holds.
    const fn slots(&self, slot_bytes: u64) -> u64 {
        match self.range.len.checked_sub(slot_bytes) {
            Some(rest) => rest / self.stride + 1,
            None => 0,
        }
    }

    /// Whether slots of `bytes` in this range and `other_bytes` in another may have a byte in
    /// common. With different strides, ranges that overlap count as slots that do.
    const fn overlaps(&self, bytes: u64, other: &Self, other_bytes: u64) -> bool {
        let (low, low_bytes, high, high_bytes) = if self.range.addr <= other.range.addr {
            (self, bytes, other, other_bytes)
        } else {
            (other, other_bytes, self, bytes)
        };
        let apart = high.range.addr - low.range.addr;
        if apart >= low.range.len {
            return false;
        }
        if low.stride != high.stride {
            return true;
        }
        let within = apart % low.stride;
        within < low_bytes || within + high_bytes > low.stride
    }
}

/// Checks that `regions` hold the slots of pages of `layout`. Returns the shape of the first.
pub(crate) fn check_regions(
    layout: &Geometry,
    regions: &[DestinationRegion],
) -> Result<RegionShape, RegionError> {
    let (given, expected) = (regions.len(), layout.regions());
    if given != expected as usize {
        return Err(RegionError::Regions { given, layout: expected });
    }
    let bytes_of = |region| layout.region_bytes(region).unwrap_or(0);
    let mut first = None;
    for (region, at) in (0..).zip(regions) {
        let (slot_bytes, stride, bytes) = (bytes_of(region), at.stride, at.range.len);
        let small = u32::try_from(slot_bytes).ok().filter(|&n| n > 0);
        let slot = small.ok_or(RegionError::SlotBytes { slot_bytes })?;
        if stride < slot_bytes {
            return Err(RegionError::Stride { region, stride, slot_bytes });
        }
        let slots = at.slots(slot_bytes);
        if slots == 0 {
            return Err(RegionError::TooSmall { bytes, slot_bytes });
        }
        if at.range.addr.checked_add(bytes).is_none() {
            return Err(RegionError::Wraps { region, addr: at.range.addr, bytes });
        }
        let count = u32::try_from(slots).map_err(|_| RegionError::TooMany { slots })?;
        let shape = *first.get_or_insert(RegionShape { slot_bytes: slot, count, stride });
        if count != shape.count {
            return Err(RegionError::Uneven { region, slots, first: shape.count.into() });
        }
        let mut earlier = (0..).zip(&regions[..region as usize]);
        if let Some((of, _)) = earlier.find(|&(of, other)| at.overlaps(slot_bytes, other, bytes_of(of))) {
            return Err(RegionError::Overlap { first: of, second: region });
        }
    }
    first.ok_or(RegionError::Regions { given, layout: expected })
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
        Ok(Self { slot_bytes: slot, count, stride: slot_bytes })
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
        let RegionShape { slot_bytes, count, stride } = shape;
        let (next, out, layout) = (0, 0, NO_LAYOUT);
        Self { base, slot_bytes, stride, count, next, out, region, engine, layout, access, range }
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

    /// Bytes of one slot, in the first of its regions.
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
    /// The layout is another engine's, its pages have several regions, the slots have another
    /// layout already, or some have been given out.
    pub fn set_layout(&mut self, layout: LayoutRef) -> Result<(), SetLayoutError> {
        if layout.engine != self.engine {
            return Err(SetLayoutError::OtherEngine);
        }
        if layout.of_regions {
            return Err(SetLayoutError::SeveralRegions);
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

    /// Sets the layout of slots that were registered for it, of which none has been given out.
    pub(crate) fn of_layout(mut self, layout: LayoutRef) -> Self {
        self.layout = layout.number;
        self
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

    /// Takes the next `count` slots as one range. `None` if fewer have not been given out.
    #[must_use]
    pub fn take_range(&mut self, count: usize) -> Option<SlotRange> {
        let n = u32::try_from(count).ok().filter(|n| *n <= self.count - self.next)?;
        let (first, stride) = (self.next, self.stride as usize);
        // SAFETY: slot number `first` is one of the region's, since at least one was not given out.
        let base = if n == 0 { self.base } else { unsafe { self.base.add(first as usize * stride) } };
        (self.next, self.out) = (self.next + n, self.out + n);
        Some(SlotRange::new((base, stride), self.slot_bytes, (first, n), self.slot_region(), self.access))
    }

    /// Takes a range of slots back for good, as [`put`](Self::put) does with one slot.
    ///
    /// # Errors
    ///
    /// The range, if it belongs to another region.
    pub fn put_range(&mut self, range: SlotRange) -> Result<(), SlotRange> {
        if range.slot_region() != self.slot_region() {
            return Err(range);
        }
        // At most as many as were given out, a u32.
        self.out -= range.len() as u32;
        Ok(())
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
        let offset = index as usize * self.stride as usize;
        // SAFETY: index < count, and count slots lie within the region: its shape was checked.
        let addr = unsafe { self.base.add(offset) };
        Some(Slot::new(addr, self.slot_bytes, index, self.slot_region(), self.access))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Slots {}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(addr: u64, len: u64, stride: u64) -> DestinationRegion {
        DestinationRegion { range: MemoryRange { addr, len }, stride }
    }

    #[test]
    fn slots_may_interleave_and_may_not_overlap() {
        let one = region(0x1000, 1000, 100);
        for (other, bytes, overlaps) in [
            (region(0x1000 + 1000, 1000, 100), 100, false),
            (region(0x1000 + 40, 960, 100), 60, false),
            (region(0x1000 + 40, 960, 100), 61, true),
            (region(0x1000 + 39, 961, 100), 10, true),
            (region(0x1000 + 240, 760, 100), 60, false),
            (region(0x1000 + 999, 1000, 200), 1, true),
            (region(0x1000 + 1000, 1000, 200), 200, false),
        ] {
            assert_eq!(one.overlaps(40, &other, bytes), overlaps, "{other:?}");
            assert_eq!(other.overlaps(bytes, &one, 40), overlaps, "{other:?}");
        }
    }

    #[test]
    fn the_last_slot_of_a_range_needs_no_whole_stride() {
        assert_eq!(region(0, 340, 100).slots(40), 4);
        assert_eq!(region(0, 339, 100).slots(40), 3);
        assert_eq!(region(0, 39, 100).slots(40), 0);
    }
}
