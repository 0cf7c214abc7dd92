//! Consecutive slots of one region, owned as one value.
#![allow(unsafe_code, reason = "slots are views of memory that hardware writes")]

use core::fmt;
use core::ptr::NonNull;
use core::slice;

use static_assertions::assert_not_impl_any;

use super::slot::{Access, PlanMark, Slot, SlotRegion};
use crate::id::RegionId;

/// The exclusive right to consecutive slots of one region: what as many [`Slot`]s are, in one
/// value. [`Batch::read_many`](crate::batch::Batch::read_many) takes the destinations of many pages
/// by it, and [`Done::take_range`](crate::batch::Done::take_range) gives them back. As a slot it is
/// not `Clone`, so nothing can be read, freed or used again that is in flight:
///
/// ```compile_fail,E0382
/// # use kvrail_core::{batch::Batch, memory::SlotRange, remote::{Location, RemoteRegion}};
/// fn twice(batch: &mut Batch<'_>, from: &RemoteRegion, pages: &[Location], slots: SlotRange) {
///     let _ = batch.read_many(from, pages, slots);
///     let _ = batch.read_many(from, pages, slots); // error[E0382]: use of moved value: `slots`
/// }
/// ```
///
/// It is an iterator over its slots: each that it yields is not in the range any more.
pub struct SlotRange {
    /// The first slot's address. The addresses of all slots have its provenance.
    base: NonNull<u8>,
    /// Bytes from one slot to the next. Of a range of fewer than two slots it means nothing.
    stride: usize,
    slot_bytes: u32,
    /// The number of the first slot within the region.
    first: u32,
    count: u32,
    slot_region: SlotRegion,
    access: Access,
}

assert_not_impl_any!(SlotRange: Clone, Copy);

// SAFETY: a range is the only owner of its slots, each of which is Send.
unsafe impl Send for SlotRange {}
// SAFETY: as above; a shared range gives shared bytes only.
unsafe impl Sync for SlotRange {}

impl SlotRange {
    /// The slots from number `first` of a region on: `count` slots of `slot_bytes`, the first at
    /// `base`, `stride` bytes apart.
    pub(super) const fn new(
        (base, stride): (NonNull<u8>, usize),
        slot_bytes: u32,
        (first, count): (u32, u32),
        slot_region: SlotRegion,
        access: Access,
    ) -> Self {
        Self { base, stride, slot_bytes, first, count, slot_region, access }
    }

    /// How many slots there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no slot.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of the first slot within its region, from 0.
    #[must_use]
    pub const fn first(&self) -> usize {
        self.first as usize
    }

    /// The region of all slots.
    #[must_use]
    pub const fn region(&self) -> RegionId {
        self.slot_region.region()
    }

    #[inline]
    pub(crate) const fn slot_region(&self) -> SlotRegion {
        self.slot_region
    }

    /// Bytes of one slot, in the first of its regions.
    #[must_use]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }

    /// The address of slot number `at` of the range, which is below `count`.
    #[inline(always)]
    const fn address(&self, at: u32) -> NonNull<u8> {
        debug_assert!(at < self.count);
        // SAFETY: the region has slot `first + at`, `at` strides behind slot `first`: a range has
        // the slots of one region only, and the caller stays below `count`.
        unsafe { self.base.add(at as usize * self.stride) }
    }

    /// The bytes of slot number `at` of the range, from 0. `None` for device memory, or beyond the
    /// range.
    #[must_use]
    pub fn bytes(&self, at: usize) -> Option<&[u8]> {
        let at = u32::try_from(at).ok().filter(|at| *at < self.count && self.access == Access::Host)?;
        // SAFETY: as for `Slot::bytes`: the range is the only owner of the slot.
        Some(unsafe { slice::from_raw_parts(self.address(at).as_ptr(), self.slot_bytes as usize) })
    }

    /// As [`bytes`](Self::bytes), to be changed.
    #[must_use]
    pub fn bytes_mut(&mut self, at: usize) -> Option<&mut [u8]> {
        let at = u32::try_from(at).ok().filter(|at| *at < self.count && self.access == Access::Host)?;
        // SAFETY: as in `bytes`; `&mut self` makes the view exclusive.
        Some(unsafe { slice::from_raw_parts_mut(self.address(at).as_ptr(), self.slot_bytes as usize) })
    }

    /// Takes the slots from number `at` of the range on out of it; none if it has no more than
    /// `at`.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let at = u32::try_from(at).unwrap_or(u32::MAX).min(self.count);
        let base = if at == self.count { self.base } else { self.address(at) };
        let Self { stride, slot_bytes, first, count, slot_region, access, .. } = *self;
        self.count = at;
        Self { base, stride, slot_bytes, first: first + at, count: count - at, slot_region, access }
    }

    /// Takes the slots out of `places` as one range. `None`, and nothing is taken, if there is no
    /// place, one of them is empty, or the slots do not follow each other in one region.
    #[must_use]
    #[inline]
    pub fn gather(places: &mut [Option<Slot>]) -> Option<Self> {
        let (first, rest) = places.split_first()?;
        let mut before = first.as_ref()?;
        for place in rest {
            let slot = place.as_ref().filter(|slot| slot.follows(before))?;
            before = slot;
        }
        let second = rest.first().and_then(Option::as_ref);
        let range = Self::of(first.as_ref()?, second, u32::try_from(places.len()).ok()?);
        places.iter_mut().for_each(|place| *place = None);
        Some(range)
    }

    /// Adds the slots that follow those of this range.
    ///
    /// # Errors
    ///
    /// `next` comes back if its first slot does not follow the last of this range in the same
    /// region, or either has no slot.
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        let follows = self.slot_region == next.slot_region && self.first + self.count == next.first;
        if !follows || self.count == 0 || next.count == 0 {
            return Err(next);
        }
        let apart = next.base.addr().get() - self.base.addr().get();
        // As many strides as this range has slots.
        self.stride = apart / self.count as usize;
        self.count += next.count;
        Ok(())
    }

    /// Hands the slots to `each` in their order, with one of `from` and one of `to` each, and with
    /// a mark of the plan by which pages land in them. If `each` fails, the range is whole
    /// again, and
    /// the position is returned: the slots that `each` has had are void, and the caller has put
    /// them nowhere.
    ///
    /// # Panics
    ///
    /// If there is another number of `from` or of `to` than of slots.
    #[inline(always)]
    pub(crate) fn give<F, T, E>(
        self,
        from: &[F],
        to: &mut [T],
        mark: PlanMark,
        mut each: impl FnMut(&F, &mut T, Slot) -> Result<(), E>,
    ) -> Result<(), (usize, E, Self)> {
        let n = self.count as usize;
        assert!(from.len() == n && to.len() == n, "a slot for each page");
        let mut slot = Slot::new(self.base, self.slot_bytes, self.first, self.slot_region, self.access);
        slot.mark(mark);
        let (mut index, mut offset) = (self.first, 0);
        for (from, to) in from.iter().zip(to) {
            // SAFETY: there are as many of `from` as slots, so the range has slot `index`, `offset`
            // bytes behind its first.
            let addr = unsafe { self.base.add(offset) };
            if let Err(error) = each(from, to, slot.sibling(addr, index)) {
                return Err(((index - self.first) as usize, error, self));
            }
            index += 1;
            offset = offset.wrapping_add(self.stride);
        }
        Ok(())
    }

    /// The range of `count` slots that begins with `first`; the caller has them all and uses them
    /// no more. `second`, if there is one, says how far apart they are.
    #[inline]
    pub(crate) fn of(first: &Slot, second: Option<&Slot>, count: u32) -> Self {
        let (base, access) = first.place();
        let apart = second.map(|second| second.place().0.addr().get() - base.addr().get());
        Self {
            base,
            stride: apart.unwrap_or(0),
            slot_bytes: narrow_len(first.len()),
            first: narrow_len(first.index()),
            count,
            slot_region: first.slot_region(),
            access,
        }
    }
}

/// The length or number of a slot, which is a `u32`.
#[inline]
const fn narrow_len(n: usize) -> u32 {
    n as u32
}

impl From<Slot> for SlotRange {
    /// A range of one slot, which others can be joined to.
    fn from(slot: Slot) -> Self {
        Self::of(&slot, None, 1)
    }
}

impl Iterator for SlotRange {
    type Item = Slot;

    #[inline]
    fn next(&mut self) -> Option<Slot> {
        if self.count == 0 {
            return None;
        }
        let slot = Slot::new(self.base, self.slot_bytes, self.first, self.slot_region, self.access);
        self.count -= 1;
        if self.count > 0 {
            // SAFETY: another slot of the range follows, within the region.
            self.base = unsafe { self.base.add(self.stride) };
            self.first += 1;
        }
        Some(slot)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for SlotRange {}

impl fmt::Debug for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, count, region) = (self.first, self.count, self.slot_region.region().0);
        write!(f, "{count} slots from {first} of region {region} ({} bytes each)", self.slot_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Slots;
    use crate::memory::region::RegionShape;
    use crate::provider::MemoryRange;

    /// The slots of four bytes of a region.
    fn slots(bytes: &mut [u8], region: u16) -> Slots {
        let base = NonNull::new(bytes.as_mut_ptr()).expect("an address");
        let range = MemoryRange { addr: base.as_ptr().expose_provenance() as u64, len: bytes.len() as u64 };
        let shape = RegionShape::check(range.len, 4).expect("slots");
        // SAFETY: the bytes outlive the slots of these tests, and nothing else uses them.
        unsafe { Slots::new(base, range, shape, RegionId(region), 1, Access::Host) }
    }

    #[test]
    fn places_are_gathered_as_one_range_or_stay() {
        let (mut bytes, mut others) = ([0; 32], [0; 32]);
        let mut places: [Option<Slot>; 8] = core::array::from_fn(|_| None);
        places.iter_mut().zip(slots(&mut bytes, 0)).for_each(|(place, slot)| *place = Some(slot));
        let free = |places: &[Option<Slot>]| places.iter().flatten().count();

        let mut range = SlotRange::gather(&mut places[2..7]).expect("five slots");
        assert_eq!((range.first(), range.len(), range.stride, free(&places)), (2, 5, 4, 3));
        assert_eq!(range.next().map(|slot| slot.index()), Some(2));
        places[3..].iter_mut().zip(range).for_each(|(place, slot)| *place = Some(slot));
        assert_eq!(free(&places), 7);

        assert!(SlotRange::gather(&mut []).is_none());
        assert!(SlotRange::gather(&mut places[..4]).is_none(), "slot 2 is not there");
        assert_eq!(free(&places), 7);
        places.swap(5, 6);
        assert!(SlotRange::gather(&mut places[4..]).is_none(), "slots in another order");
        places.swap(5, 6);
        places[4] = slots(&mut others, 1).nth(4);
        assert!(SlotRange::gather(&mut places[3..]).is_none(), "slots of two regions");
        assert_eq!(free(&places), 7);
        assert_eq!(SlotRange::gather(&mut places[7..]).map(|range| range.first()), Some(7));
    }
}
