//! Destination memory: regions of slots whose ownership the type system tracks.
//!
//! A [`Slot`] is the right to one page-sized piece of registered memory. It cannot be copied. It goes
//! into a batch, with the batch into the engine, and comes back with the page's result; in between,
//! safe code has nothing to read, reuse or free it with. `mem::forget` loses a slot, and with it the
//! way to release its region: the memory is leaked, never freed under a NIC.
#![allow(unsafe_code, reason = "slots are views of memory that hardware writes")]

use core::fmt;
use core::ptr::NonNull;
use core::slice;

use crate::id::RegionId;
use crate::layout::{LayoutRef, NO_LAYOUT, SetLayoutError};
use crate::provider::MemoryRange;

/// Whether the CPU can look at the memory of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Ordinary host memory: slots give byte views.
    Host,
    /// Memory of a device (a GPU): slots give an address and no bytes.
    Device,
}

/// One destination page.
///
/// It is not `Clone`, so it cannot be used twice:
///
/// ```compile_fail,E0382
/// # use kvrail_core::{batch::Batch, memory::Slot, remote::RemotePage};
/// fn twice(batch: &mut Batch<'_>, page: RemotePage, slot: Slot) {
///     let _ = batch.read(page, slot);
///     let _ = batch.read(page, slot); // error[E0382]: use of moved value: `slot`
/// }
/// ```
// Moved four times for each page read. Only the address may have a niche: then an Option<Slot> is
// copied and tested as two words and a half, not field by field.
#[repr(C)]
pub struct Slot {
    addr: NonNull<u8>,
    len: u32,
    /// Within its region; of a view, see [`Slot::share`].
    index: u32,
    home: Home,
    mark: Mark,
}

const _: () = assert!(size_of::<Option<Slot>>() == 24);

/// Whether a slot is of device memory; and, while a batch has it, what is to land in it. The user's slots
/// say nothing of the latter.
///
/// | bits | content |
/// |---|---|
/// | 0 | device memory |
/// | 1 | not the slot, but a view of the one that an earlier page of the batch has |
/// | 2..12 | the number of the plan of the page that lands here, plus 1; 0 for a page as it is |
/// | 12..32 | work requests of that plan, minus 1 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(u32);

impl Mark {
    const DEVICE: u32 = 1;
    const SHARED: u32 = 2;
    const PLAN: u32 = 2;
    const WRS: u32 = 12;

    const fn new(access: Access) -> Self {
        Self(matches!(access, Access::Device) as u32)
    }

    const fn is_device(self) -> bool {
        self.0 & Self::DEVICE != 0
    }
}

/// Numbers that plans may have.
pub(crate) const MAX_PLANS: usize = (1 << (Mark::WRS - Mark::PLAN)) - 1;

const _: () = assert!(crate::page::MAX_CHUNKS == 1 << (u32::BITS - Mark::WRS));

/// A slot's region, the engine that knows it by that number, and the layout of its pages. Slots
/// with the same home are equally long: a place in the table of regions changes hands only when no
/// slot of the old region is left.
///
/// | bits | content |
/// |---|---|
/// | 0..8 | the region |
/// | 8..16 | the number of the layout |
/// | 16..32 | the engine |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(u32);

impl Home {
    /// No slot's: the numbers of engines end before.
    pub(crate) const NONE: Self = Self(u32::MAX);

    const fn new(region: RegionId, layout: u8, engine: u16) -> Self {
        // Places in the table of regions are at most 256.
        Self((engine as u32) << 16 | (layout as u32) << 8 | region.0 as u32)
    }

    #[inline]
    pub(crate) const fn layout(self) -> u8 {
        (self.0 >> 8) as u8
    }

    #[inline]
    pub(crate) const fn engine(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline]
    pub(crate) const fn region(self) -> RegionId {
        RegionId(self.0 as u8 as u16)
    }
}

// SAFETY: a slot is the only owner of its bytes, as a Box<[u8]> is, and has no interior mutability.
unsafe impl Send for Slot {}
// SAFETY: as above; a shared slot gives shared bytes only.
unsafe impl Sync for Slot {}

impl Slot {
    /// Its bytes, or `None` for device memory.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        if self.mark.is_device() {
            return None;
        }
        // SAFETY: the region's owner promised `len` initialised bytes that outlive the slot; the slot is
        // their only owner, and whoever has it has no READ in flight into it.
        Some(unsafe { slice::from_raw_parts(self.addr.as_ptr(), self.len as usize) })
    }

    /// Its bytes, to be changed, or `None` for device memory.
    #[must_use]
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if self.mark.is_device() {
            return None;
        }
        // SAFETY: as in `bytes`; `&mut self` makes the view exclusive.
        Some(unsafe { slice::from_raw_parts_mut(self.addr.as_ptr(), self.len as usize) })
    }

    /// Where it starts, in the address space it was registered from.
    #[must_use]
    #[inline]
    pub fn address(&self) -> u64 {
        self.addr.as_ptr().expose_provenance() as u64
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds nothing; never, since an empty slot is not made.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its number within its region, from 0.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index as usize
    }

    /// Its region.
    #[must_use]
    pub const fn region(&self) -> RegionId {
        self.home.region()
    }

    #[inline]
    pub(crate) const fn home(&self) -> Home {
        self.home
    }

    /// Says by which plan the page lands here, and how many work requests (1 to `MAX_CHUNKS`) that is.
    pub(crate) const fn follow(&mut self, plan: u16, wrs: u32) {
        // Numbers are below MAX_PLANS.
        let of_plan = (plan as u32 + 1) << Mark::PLAN | (wrs - 1) << Mark::WRS;
        self.mark = Mark(self.mark.0 & (Mark::DEVICE | Mark::SHARED) | of_plan);
    }

    /// By which plan the page lands here, and how many work requests that is.
    #[inline]
    pub(crate) const fn plan(&self) -> Option<(u16, u32)> {
        // Ten bits, less one.
        match ((self.mark.0 >> Mark::PLAN) as usize & MAX_PLANS) as u16 {
            0 => None,
            number => Some((number - 1, (self.mark.0 >> Mark::WRS) + 1)),
        }
    }

    /// The same bytes once more, from byte `offset` on, for another page of the batch that lands in them; it
    /// remembers at which `place` of the batch the slot itself is. It never reaches the user:
    /// [`unmark`](Self::unmark) tells it from the slot.
    ///
    /// # Panics
    ///
    /// Beyond the slot.
    pub(crate) fn share(&self, offset: u32, place: u32) -> Self {
        assert!(offset < self.len, "a view of a slot lies within it");
        // SAFETY: within the slot's bytes, by the assertion.
        let addr = unsafe { self.addr.add(offset as usize) };
        let mark = Mark(self.mark.0 & Mark::DEVICE | Mark::SHARED);
        Self { addr, len: self.len - offset, index: place, home: self.home, mark }
    }

    /// At which place of the batch the slot is of which this is a view, if it is one.
    pub(crate) const fn shares(&self) -> Option<u32> {
        if self.mark.0 & Mark::SHARED != 0 { Some(self.index) } else { None }
    }

    /// The user's slot again; `None` for a view of one.
    pub(crate) const fn unmark(mut self) -> Option<Self> {
        if self.shares().is_some() {
            return None;
        }
        self.mark = Mark(self.mark.0 & Mark::DEVICE);
        Some(self)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} of region {} ({} bytes)", self.index, self.home.region().0, self.len)
    }
}

/// Why memory cannot be a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// A slot must hold something, and no more than a work request can name.
    #[error("a slot of {slot_bytes} bytes: it needs 1 to 4294967295")]
    SlotBytes {
        /// What was asked for.
        slot_bytes: u64,
    },
    /// The memory does not hold one slot.
    #[error("{bytes} bytes of memory hold no slot of {slot_bytes} bytes")]
    TooSmall {
        /// The memory.
        bytes: u64,
        /// One slot.
        slot_bytes: u64,
    },
    /// More slots than can be numbered.
    #[error("{slots} slots in one region: at most 4294967295 can be numbered; register it in parts")]
    TooMany {
        /// How many.
        slots: u64,
    },
    /// The engine's table of regions is full.
    #[error("{limit} regions are registered already, the most that this engine's storage holds")]
    Full {
        /// The maximum.
        limit: usize,
    },
    /// One layout more than an engine tells apart.
    #[error(transparent)]
    Layout(#[from] crate::layout::AddLayoutError),
    /// The provider refused.
    #[error(transparent)]
    Provider(#[from] crate::provider::RegisterError),
}

/// The slots of one region, each given out once; and the way back.
///
/// An iterator over the slots not yet given out. When all have come home by [`put`](Self::put) (or
/// were never taken), the engine's `unregister` releases the region.
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

// SAFETY: as for Slot: the slots not given out are owned by this value alone.
unsafe impl Send for Slots {}

/// A region's shape, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionShape {
    pub(crate) slot_bytes: u32,
    pub(crate) count: u32,
}

impl RegionShape {
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
    /// The range is valid for reads and writes (and initialised, for [`Access::Host`]), is used
    /// by nobody else, and stays so until all slots are gone or the range has been given back by
    /// `unregister`. `shape` was checked against `range.len`, and `base` is its start, not null.
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

    /// How many slots the region has in all. (Not `count`: that is the iterator's, which takes all
    /// slots that are left and loses them.)
    #[must_use]
    pub const fn total(&self) -> usize {
        self.count as usize
    }

    /// How many are out: given out, and not put back.
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

    /// Says what the slots' pages are: then only pages of the same layout go into them, or what
    /// plans that write such pages bring. Slots of no layout take any bytes.
    ///
    /// # Errors
    ///
    /// A layout that another engine knows; slots that have another one already, or of which some
    /// have been given out.
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

    fn home(&self) -> Home {
        Home::new(self.region, self.layout, self.engine)
    }

    pub(crate) const fn engine(&self) -> u16 {
        self.engine
    }

    pub(crate) const fn range(&self) -> MemoryRange {
        self.range
    }

    /// Takes a slot home for good: it is not given out again, and the region can be released when
    /// the last is home.
    ///
    /// # Errors
    ///
    /// A slot of another region comes back.
    pub fn put(&mut self, slot: Slot) -> Result<(), Slot> {
        if slot.home != self.home() {
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
        Some(Slot { addr, len: self.slot_bytes, index, home: self.home(), mark: Mark::new(self.access) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Slots {}
