//! A slot: the right to touch one destination page, and what the engine notes in it while a batch
//! has it.
#![allow(unsafe_code, reason = "slots are views of memory that hardware writes")]

use core::fmt;
use core::ptr::NonNull;
use core::slice;

use bitflags::bitflags;
use static_assertions::{assert_eq_size, assert_not_impl_any, const_assert, const_assert_eq};

use crate::id::RegionId;
use crate::limits::{LOCAL_REGIONS, MAX_CHUNKS, MAX_PLANS, MAX_ROWS, narrow};

/// Whether the CPU can look at the memory of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the processor can reach a byte or cannot")]
pub enum Access {
    /// Ordinary host memory: slots give byte views.
    Host,
    /// Memory of a device (a GPU): slots give an address and no bytes.
    Device,
}

/// The exclusive right to one page-sized piece of registered memory, which a page lands in. It is
/// not `Clone`, so it cannot be used twice:
///
/// ```compile_fail,E0382
/// # use kvrail_core::{batch::Batch, memory::Slot, remote::RemotePage};
/// fn twice(batch: &mut Batch<'_>, page: RemotePage, slot: Slot) {
///     let _ = batch.read(page, slot);
///     let _ = batch.read(page, slot); // error[E0382]: use of moved value: `slot`
/// }
/// ```
// A slot is moved four times for each page that is read. Only the address may have a niche: then an
// Option<Slot> is copied and tested as three words, not field by field.
#[repr(C)]
pub struct Slot {
    addr: NonNull<u8>,
    /// Its bytes. In a view of a slot that has several pieces, the slot's number.
    len: u32,
    /// Its number within its region. In a view, the place in the batch of the page that owns the
    /// slot ([`Slot::share`]).
    index: u32,
    slot_region: SlotRegion,
    flags: SlotFlags,
}

assert_eq_size!(Option<Slot>, [u64; 3]);
assert_not_impl_any!(Slot: Clone, Copy);

bitflags! {
    /// Whether a slot is device memory; and, while a batch has the slot, how a page lands in it. In
    /// a slot that the user has, only `DEVICE` may be set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct SlotFlags: u32 {
        /// The slot is device memory.
        const DEVICE = 1;
        /// It is not the slot itself but a view of it: an earlier page of the batch owns the slot.
        const VIEW = 1 << 1;
        /// The number of the plan of the page that lands here, plus 1; 0 for a page without a plan.
        const PLAN = (MAX_PLANS as u32) << SlotFlags::PLAN_SHIFT;
        /// The number of work requests of that plan, minus 1. Without a plan: how many READs bring
        /// the rows of a page, or 0 if it is read whole; or, of a set of rows, `MAX_ROWS` more
        /// than the number of its READs.
        const WRS = (MAX_CHUNKS - 1) << SlotFlags::WRS_SHIFT;
        /// The page that lands here and the page of the slot before in the batch are one.
        const JOINED = 1 << 31;
    }
}

impl SlotFlags {
    const PLAN_SHIFT: u32 = 2;
    const WRS_SHIFT: u32 = 12;

    const fn new(access: Access) -> Self {
        match access {
            Access::Host => Self::empty(),
            Access::Device => Self::DEVICE,
        }
    }

    /// The same flags with this plan, which has `wrs` work requests (1 to `MAX_CHUNKS`).
    const fn with_plan(self, plan: u16, wrs: u32) -> Self {
        debug_assert!((plan as usize) < MAX_PLANS && wrs >= 1 && wrs <= MAX_CHUNKS);
        let of_plan = (plan as u32 + 1) << Self::PLAN_SHIFT | (wrs - 1) << Self::WRS_SHIFT;
        let kept = Self::DEVICE.union(Self::VIEW).union(Self::JOINED);
        self.intersection(kept).union(Self::from_bits_retain(of_plan))
    }

    /// The same flags with `reads` READs of rows (1 to `MAX_ROWS`) and no plan.
    const fn with_rows(self, reads: u32) -> Self {
        debug_assert!(reads >= 1 && reads <= MAX_ROWS);
        let kept = Self::DEVICE.union(Self::VIEW).union(Self::JOINED);
        self.intersection(kept).union(Self::from_bits_retain(reads << Self::WRS_SHIFT))
    }

    /// The same flags with the `reads` READs (1 to `MAX_SET_READS`) of a set of rows, and no plan.
    const fn with_set(self, reads: u32) -> Self {
        debug_assert!(reads >= 1 && reads <= MAX_SET_READS);
        let kept = Self::DEVICE.union(Self::VIEW).union(Self::JOINED);
        self.intersection(kept).union(Self::from_bits_retain((MAX_ROWS + reads) << Self::WRS_SHIFT))
    }

    /// How many READs the page has if it lands by a plan, as rows or as a set of rows; `None` if it
    /// is read whole.
    #[inline]
    const fn wrs(self) -> Option<u32> {
        let wrs = self.intersection(Self::WRS).bits() >> Self::WRS_SHIFT;
        match (self.intersection(Self::PLAN).is_empty(), wrs) {
            (true, 0) => None,
            (true, reads) if reads <= MAX_ROWS => Some(reads),
            (true, more) => Some(more - MAX_ROWS),
            (false, less) => Some(less + 1),
        }
    }

    /// What stands at `WRS` if there is no plan; 0 if there is one.
    #[inline]
    const fn rows(self) -> u32 {
        let wrs = self.intersection(Self::WRS).bits() >> Self::WRS_SHIFT;
        if self.intersection(Self::PLAN).is_empty() { wrs } else { 0 }
    }

    #[inline]
    const fn plan(self) -> Option<(u16, u32)> {
        match narrow((self.bits() >> Self::PLAN_SHIFT) as usize & MAX_PLANS) {
            0 => None,
            number => Some((number - 1, (self.intersection(Self::WRS).bits() >> Self::WRS_SHIFT) + 1)),
        }
    }
}

/// The most READs of a set of rows.
pub(crate) const MAX_SET_READS: u32 = MAX_CHUNKS - 1 - MAX_ROWS;
const_assert!(MAX_ROWS < MAX_SET_READS);
// The four fields do not overlap, and fill the word.
const_assert_eq!(
    SlotFlags::DEVICE.bits() + SlotFlags::VIEW.bits() + SlotFlags::PLAN.bits(),
    (1 << SlotFlags::WRS_SHIFT) - 1
);
const_assert_eq!(SlotFlags::WRS.bits() + SlotFlags::JOINED.bits(), u32::MAX << SlotFlags::WRS_SHIFT);

/// The mark of a plan in slots of pages that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanMark(SlotFlags);

impl PlanMark {
    /// That of pages without a plan.
    pub(crate) const NONE: Self = Self(SlotFlags::empty());

    /// That of this plan, which has `wrs` work requests (1 to `MAX_CHUNKS`).
    pub(crate) const fn new(plan: u16, wrs: u32) -> Self {
        Self(SlotFlags::empty().with_plan(plan, wrs))
    }
}

/// A slot's region, the engine that knows it by that number, and the layout of its pages. Slots
/// with equal values have equal lengths, since a place in the table of regions is used again only
/// when no slot of the old region is left.
///
/// | bits | content |
/// |---|---|
/// | 0..8 | the region |
/// | 8..16 | the number of the layout |
/// | 16..32 | the engine |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotRegion(u32);

impl SlotRegion {
    /// The region of no slot: numbers of engines end below it.
    pub(crate) const NONE: Self = Self(u32::MAX);

    pub(super) const fn new(region: RegionId, layout: u8, engine: u16) -> Self {
        debug_assert!(region.index() < LOCAL_REGIONS);
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
    /// The slot number `index` of a region: `len` bytes from `addr` on.
    #[inline]
    pub(super) const fn new(addr: NonNull<u8>, len: u32, index: u32, of: SlotRegion, access: Access) -> Self {
        Self { addr, len, index, slot_region: of, flags: SlotFlags::new(access) }
    }

    /// A slot of 16 bytes that is never looked at.
    #[cfg(test)]
    pub(crate) const fn of_test() -> Self {
        Self::new(NonNull::dangling(), 16, 0, SlotRegion::NONE, Access::Device)
    }

    /// Another slot of the same region with the same marks.
    #[inline(always)]
    pub(super) const fn sibling(&self, addr: NonNull<u8>, index: u32) -> Self {
        let Self { len, slot_region, flags, .. } = *self;
        Self { addr, len, index, slot_region, flags }
    }

    /// Its address, and who can look at it.
    #[inline]
    pub(super) const fn place(&self) -> (NonNull<u8>, Access) {
        let device = self.flags.contains(SlotFlags::DEVICE);
        (self.addr, if device { Access::Device } else { Access::Host })
    }

    /// Whether this is the slot after `before` in its region, and neither is a view.
    #[inline(always)]
    pub(crate) const fn follows(&self, before: &Self) -> bool {
        let same = self.slot_region.0 == before.slot_region.0 && self.len == before.len;
        let views = self.flags.union(before.flags).contains(SlotFlags::VIEW);
        same && self.index == before.index.wrapping_add(1) && !views
    }

    /// Its bytes, or `None` for device memory.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        if self.flags.contains(SlotFlags::DEVICE) {
            return None;
        }
        // SAFETY: the region's owner promised `len` initialised bytes that outlive the slot; the
        // slot is their only owner, and no READ into it is in flight while the user has it.
        Some(unsafe { slice::from_raw_parts(self.addr.as_ptr(), self.len as usize) })
    }

    /// Its bytes, to be changed, or `None` for device memory.
    #[must_use]
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if self.flags.contains(SlotFlags::DEVICE) {
            return None;
        }
        // SAFETY: as in `bytes`; `&mut self` makes the view exclusive.
        Some(unsafe { slice::from_raw_parts_mut(self.addr.as_ptr(), self.len as usize) })
    }

    /// The address of its first byte, as it was registered.
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

    /// Always false: no slot is empty.
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
        self.slot_region.region()
    }

    #[inline]
    pub(crate) const fn slot_region(&self) -> SlotRegion {
        self.slot_region
    }

    /// Notes the plan that `marks` has, or none, of a slot without one.
    #[inline(always)]
    pub(crate) const fn mark(&mut self, marks: PlanMark) {
        self.flags = self.flags.union(marks.0);
    }

    /// Removes all marks of a slot that no other page shares or is joined to.
    #[inline(always)]
    pub(crate) const fn clear_marks(&mut self) {
        self.flags = self.flags.intersection(SlotFlags::DEVICE);
    }

    /// Notes the plan by which the page lands here, and the plan's number of work requests (1 to
    /// `MAX_CHUNKS`).
    pub(crate) const fn follow(&mut self, plan: u16, wrs: u32) {
        self.flags = self.flags.with_plan(plan, wrs);
    }

    /// Notes that rows of a page land here by `reads` READs (1 to `MAX_ROWS`).
    pub(crate) const fn take_rows(&mut self, reads: u32) {
        self.flags = self.flags.with_rows(reads);
    }

    /// Notes that a set of rows lands here by `reads` READs (1 to `MAX_SET_READS`).
    pub(crate) const fn take_set(&mut self, reads: u32) {
        self.flags = self.flags.with_set(reads);
    }

    /// Whether a set of rows lands here.
    #[inline]
    pub(crate) const fn has_set(&self) -> bool {
        self.flags.rows() > MAX_ROWS
    }

    /// How many READs the page that lands here has, by its plan or for its rows; `None` if it is
    /// read whole.
    #[inline]
    pub(crate) const fn wrs(&self) -> Option<u32> {
        self.flags.wrs()
    }

    /// Whether rows of a page land here.
    #[inline]
    pub(crate) const fn has_rows(&self) -> bool {
        let rows = self.flags.rows();
        rows >= 1 && rows <= MAX_ROWS
    }

    /// Notes that the page that lands here, and the page of the slot before in the batch, are one.
    pub(crate) const fn join(&mut self) {
        self.flags = self.flags.union(SlotFlags::JOINED);
    }

    /// Whether the page that lands here is one with that of the slot before.
    pub(crate) const fn is_joined(&self) -> bool {
        self.flags.contains(SlotFlags::JOINED)
    }

    /// The plan by which the page lands here, and its number of work requests.
    #[inline]
    pub(crate) const fn plan(&self) -> Option<(u16, u32)> {
        self.flags.plan()
    }

    /// A view of the slot from byte `offset` on, for another page of the batch that lands there.
    /// `place` is the place in the batch of the page that owns the slot. A view never reaches the
    /// user, since [`unmark`](Self::unmark) drops it.
    ///
    /// # Panics
    ///
    /// If `offset` is beyond the slot.
    pub(crate) fn share(&self, offset: u32, place: u32) -> Self {
        assert!(offset < self.len, "a view of a slot lies within it");
        // SAFETY: within the slot's bytes, by the assertion.
        let addr = unsafe { self.addr.add(offset as usize) };
        let flags = self.flags.intersection(SlotFlags::DEVICE).union(SlotFlags::VIEW);
        Self { addr, len: self.len - offset, index: place, slot_region: self.slot_region, flags }
    }

    /// A view of the slot, which has several pieces, for another page of the batch that lands there
    /// by a plan between regions. `place` is as for [`share`](Self::share).
    pub(crate) const fn share_pieces(&self, place: u32) -> Self {
        let flags = self.flags.intersection(SlotFlags::DEVICE).union(SlotFlags::VIEW);
        Self { addr: self.addr, len: self.index, index: place, slot_region: self.slot_region, flags }
    }

    /// The slot's number within its region, of the slot or of a view of one that has several
    /// pieces.
    #[inline]
    pub(crate) const fn piece_index(&self) -> u32 {
        if self.flags.contains(SlotFlags::VIEW) { self.len } else { self.index }
    }

    /// Of a view: the place in the batch of the page that owns the slot. `None` for the slot
    /// itself.
    pub(crate) const fn shares(&self) -> Option<u32> {
        if self.flags.contains(SlotFlags::VIEW) { Some(self.index) } else { None }
    }

    /// The user's slot again; `None` for a view of one.
    pub(crate) const fn unmark(mut self) -> Option<Self> {
        if self.shares().is_some() {
            return None;
        }
        self.flags = self.flags.intersection(SlotFlags::DEVICE);
        Some(self)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} of region {} ({} bytes)", self.index, self.slot_region.region().0, self.len)
    }
}
