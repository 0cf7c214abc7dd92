//! The slots of one pool: memory that peers read, and which thread of this process may touch the
//! bytes of a slot.
#![allow(unsafe_code, reason = "the publication table and the pages are in memory that peers read")]

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvrail_core::table::{ENTRY_BYTES, Entry};
use kvrail_host::segment::Segment;

use super::error::WriteError;

/// Slots begin at multiples of this: a cache line.
const LINE: u64 = 64;
/// A table, and the first page behind it, begin at a multiple of this: a page of the host.
const HOST_PAGE: u64 = 4096;

/// Where a pool is in the segment: its publication table, then its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) slots: u32,
    pub(super) page_bytes: u32,
    /// Bytes from slot to slot.
    pub(super) stride: u64,
    /// Offset of the table.
    pub(super) table: u64,
    /// Offset of slot 0.
    pub(super) pages: u64,
    /// The first offset behind the pool.
    pub(super) end: u64,
}

impl Shape {
    /// The pool of `slots` pages of `page_bytes` each, at the first good place from offset `from`
    /// on. `None` if there are no slots, or the pool would end beyond 2^64.
    pub(super) fn place(page_bytes: u32, slots: u32, from: u64) -> Option<Self> {
        let stride = u64::from(page_bytes).next_multiple_of(LINE);
        let table = from.checked_next_multiple_of(HOST_PAGE)?;
        let table_bytes = (u64::from(slots) * ENTRY_BYTES).next_multiple_of(HOST_PAGE);
        let pages = table.checked_add(table_bytes)?;
        let end = stride.checked_mul(u64::from(slots))?.checked_add(pages)?;
        (slots > 0).then_some(Self { slots, page_bytes, stride, table, pages, end })
    }
}

/// No guard of the slot exists.
const UNCLAIMED: u32 = 0;
/// A guard of the slot may write its bytes. Any number below counts the guards that read them.
const WRITTEN: u32 = u32::MAX;

/// The slots of one pool.
pub(super) struct PoolSlots {
    segment: Arc<Segment>,
    shape: Shape,
    /// For each slot the guards that exist: [`UNCLAIMED`], [`WRITTEN`], or how many read.
    claims: Box<[AtomicU32]>,
}

impl PoolSlots {
    /// The slots at `shape` of `segment`, none of them published.
    ///
    /// # Safety
    ///
    /// `shape` is within the segment, whose bytes are zeros there. Nothing else of this process
    /// writes there or makes a reference to bytes there while the value exists.
    pub(super) unsafe fn new(segment: Arc<Segment>, shape: Shape) -> Self {
        let claims = (0..shape.slots).map(|_| AtomicU32::new(UNCLAIMED)).collect();
        Self { segment, shape, claims }
    }

    /// How many slots there are.
    pub(super) const fn count(&self) -> u32 {
        self.shape.slots
    }

    /// The entry of `slot`.
    pub(super) fn entry(&self, slot: u32) -> Result<&Entry, WriteError> {
        self.claim_of(slot)?;
        Ok(self.known_entry(slot))
    }

    /// The sole right to write the bytes of `slot`, and to publish it.
    pub(super) fn claim(&self, slot: u32) -> Result<WriteClaim<'_>, WriteError> {
        let claim = self.claim_of(slot)?;
        // Acquire: the bytes that earlier guards wrote, and what they did with the entry.
        match claim.compare_exchange(UNCLAIMED, WRITTEN, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(WriteClaim { pool: self, claim, slot }),
            Err(WRITTEN) => Err(WriteError::BeingWritten { slot }),
            Err(_) => Err(WriteError::BeingRead { slot }),
        }
    }

    /// The bytes of `slot`, to be read.
    pub(super) fn read(&self, slot: u32) -> Result<LocalPage<'_>, WriteError> {
        let claim = self.claim_of(slot)?;
        // Counting stops below `WRITTEN`.
        let one_more = |readers| if readers < WRITTEN - 1 { Some(readers + 1) } else { None };
        // Acquire: the bytes that earlier guards wrote.
        claim
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more)
            .map_err(|_| WriteError::BeingWritten { slot })?;
        Ok(LocalPage { pool: self, claim, slot })
    }

    fn claim_of(&self, slot: u32) -> Result<&AtomicU32, WriteError> {
        let slots = self.shape.slots;
        self.claims.get(slot as usize).ok_or(WriteError::Slot { slot, slots })
    }

    /// The entry of `slot`, which must exist.
    fn known_entry(&self, slot: u32) -> &Entry {
        debug_assert!(slot < self.shape.slots, "a slot that exists");
        let at = self.at(self.shape.table).cast::<Entry>().wrapping_add(slot as usize);
        // SAFETY: the table begins at a multiple of a host page in the mapping, which begins at one
        // too; entry `slot` ends before the first page by `Shape`. Zeros are an entry, entries are
        // atomics, and nothing else of this process writes there (`new`). The mapping lives as long
        // as `self`.
        unsafe { &*at }
    }

    /// The address of the page in `slot`, which must exist.
    fn page_at(&self, slot: u32) -> *mut u8 {
        self.at(self.shape.pages + self.shape.stride * u64::from(slot))
    }

    /// The address at `offset`, which is within the segment, so within what can be addressed.
    fn at(&self, offset: u64) -> *mut u8 {
        self.segment.as_ptr().wrapping_add(offset as usize)
    }
}

impl std::fmt::Debug for PoolSlots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolSlots").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// The sole right to write the bytes of one slot, and to publish it. Dropping it gives the right
/// back, and does nothing else.
pub(super) struct WriteClaim<'a> {
    pool: &'a PoolSlots,
    claim: &'a AtomicU32,
    slot: u32,
}

impl<'a> WriteClaim<'a> {
    pub(super) const fn slot(&self) -> u32 {
        self.slot
    }

    pub(super) fn entry(&self) -> &'a Entry {
        self.pool.known_entry(self.slot)
    }

    /// The bytes of the slot.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let at = self.pool.page_at(self.slot);
        // SAFETY: `Shape` put the slot's `page_bytes` bytes within the mapping and apart from the
        // tables and the other slots. This claim is the only one of the slot and excludes every
        // `LocalPage`, both by the slot's word in `claims`; `&mut self` makes this the only
        // reference by it. Nothing else of this process makes one (`PoolSlots::new`). Peers read
        // the bytes through mappings of their own (or the kernel does), by raw copies, at any time:
        // the entry tells them which of the bytes may be a mixture.
        unsafe { std::slice::from_raw_parts_mut(at, self.pool.shape.page_bytes as usize) }
    }
}

impl Drop for WriteClaim<'_> {
    fn drop(&mut self) {
        // Release: the next guard sees the bytes and the entry.
        self.claim.store(UNCLAIMED, Ordering::Release);
    }
}

/// The bytes in a slot of this process's own publisher, published or not. They do not change while
/// the value exists: to overwrite the slot is refused meanwhile.
pub struct LocalPage<'a> {
    pool: &'a PoolSlots,
    claim: &'a AtomicU32,
    slot: u32,
}

impl Deref for LocalPage<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slot exists, so its bytes lie in the mapping. Only `WriteClaim::bytes` gives
        // a way to write them, and the slot's word in `claims` excludes that claim while this value
        // exists. Nothing else of this process writes there (`PoolSlots::new`).
        unsafe {
            std::slice::from_raw_parts(self.pool.page_at(self.slot), self.pool.shape.page_bytes as usize)
        }
    }
}

impl Drop for LocalPage<'_> {
    fn drop(&mut self) {
        // Release: these reads come before the next guard's writes.
        self.claim.fetch_sub(1, Ordering::Release);
    }
}

impl std::fmt::Debug for LocalPage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPage").field("slot", &self.slot).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_before_the_pages_and_slots_do_not_touch() {
        for (page, slots) in [(1, 1), (41_984, 256), (41_984, 257), (4_497_408, 64), (u32::MAX, 9)] {
            for from in [0, 1, 4096, 1 << 40] {
                let shape = Shape::place(page, slots, from).unwrap();
                assert!(shape.table >= from && shape.table.is_multiple_of(HOST_PAGE), "{shape:?}");
                assert!(shape.table + u64::from(slots) * ENTRY_BYTES <= shape.pages, "{shape:?}");
                assert!(shape.stride >= u64::from(page) && shape.stride.is_multiple_of(LINE), "{shape:?}");
                assert_eq!(shape.end, shape.pages + shape.stride * u64::from(slots), "{shape:?}");
            }
        }
        assert_eq!(Shape::place(1, 0, 0), None);
        assert_eq!(Shape::place(u32::MAX, u32::MAX, 0), None, "beyond 2^64");
        assert_eq!(Shape::place(1, 1, u64::MAX), None, "beyond 2^64");
    }

    fn slots(count: u32) -> PoolSlots {
        let shape = Shape::place(100, count, 0).unwrap();
        let segment = Arc::new(Segment::new(shape.end as usize).unwrap());
        // SAFETY: the segment has just been made for this shape, and only the pool has it.
        unsafe { PoolSlots::new(segment, shape) }
    }

    #[test]
    fn a_slot_is_written_by_one_guard_or_read_by_any_number() {
        let slots = slots(2);
        let mut claim = slots.claim(0).unwrap();
        claim.bytes().fill(7);
        assert_eq!(slots.claim(0).err(), Some(WriteError::BeingWritten { slot: 0 }));
        assert_eq!(slots.read(0).err(), Some(WriteError::BeingWritten { slot: 0 }));
        assert!(slots.claim(1).is_ok() && slots.read(1).is_ok(), "the other slot is free");
        drop(claim);
        let (one, other) = (slots.read(0).unwrap(), slots.read(0).unwrap());
        assert_eq!((&*one, one.len()), (&*other, 100));
        drop(one);
        assert_eq!(slots.claim(0).err(), Some(WriteError::BeingRead { slot: 0 }));
        drop(other);
        assert!(slots.claim(0).is_ok());
        assert_eq!(slots.claim(2).err(), Some(WriteError::Slot { slot: 2, slots: 2 }));
    }
}
