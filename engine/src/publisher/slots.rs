//! The slots of one pool: memory that peers read, and which thread of this process may touch the
//! bytes of a slot.
#![allow(unsafe_code, reason = "the publication table and the pages are in memory that peers read")]

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kvrail_core::table::{ENTRY_BYTES, Entry};
use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::segment::{Segment, SegmentError};
use kvrail_session::PoolId;

use super::error::{OtherProcess, WriteError};

/// Slots begin at multiples of this: a cache line.
const LINE: u64 = 64;
/// The first page behind a table begins at a multiple of this: a page of the host.
const HOST_PAGE: u64 = 4096;
/// How long a thread that waits for guards sleeps between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The process that made a publisher.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maker {
    owner: OwnerProcess,
    number: u32,
}

impl Maker {
    pub(super) fn current() -> Self {
        Self { owner: OwnerProcess::current(), number: std::process::id() }
    }

    pub(super) fn is_current(self) -> bool {
        self.owner.is_current()
    }

    /// Checks that the calling process is the maker.
    pub(super) fn check(self) -> Result<(), OtherProcess> {
        if self.is_current() {
            return Ok(());
        }
        Err(OtherProcess { owner: self.number, here: std::process::id() })
    }
}

/// A segment for the publication table of a pool, and perhaps for its pages: the table from offset
/// 0 on, then the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) slots: u32,
    /// The pages, where the segment has any.
    pub(super) pages: Option<PagesAt>,
    /// Bytes of all.
    end: u64,
}

/// Where the pages of a pool are in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PagesAt {
    pub(super) page_bytes: u32,
    /// Bytes from slot to slot.
    pub(super) stride: u64,
    /// Offset of slot 0.
    pub(super) offset: u64,
}

impl Shape {
    /// A table for `slots` slots, and for pages of `page_bytes` each, if the segment has the pages.
    /// `None` if there are no slots, or the segment would be longer than can be addressed.
    pub(super) fn new(slots: u32, page_bytes: Option<u32>) -> Option<Self> {
        let offset = (u64::from(slots) * ENTRY_BYTES).next_multiple_of(HOST_PAGE);
        let pages = page_bytes.map(|page_bytes| {
            let stride = u64::from(page_bytes).next_multiple_of(LINE);
            PagesAt { page_bytes, stride, offset }
        });
        let bytes = pages.map_or(Some(0), |pages| pages.stride.checked_mul(u64::from(slots)))?;
        let end = offset.checked_add(bytes).filter(|&end| isize::try_from(end).is_ok())?;
        (slots > 0).then_some(Self { slots, pages, end })
    }
}

/// No guard of the slot exists.
const UNCLAIMED: u32 = 0;
/// A guard of the slot may write its bytes.
const WRITTEN: u32 = u32::MAX;
/// The pool has been withdrawn, or is about to be. Any number below counts the guards that read.
const WITHDRAWN: u32 = u32::MAX - 1;

/// The slots of one pool.
pub(super) struct PoolSlots {
    id: PoolId,
    maker: Maker,
    segment: Arc<Segment>,
    shape: Shape,
    /// For each slot the guards that exist: [`UNCLAIMED`], [`WRITTEN`], or how many read; or
    /// [`WITHDRAWN`].
    claims: Box<[AtomicU32]>,
}

/// Slots that have guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// How many.
    pub(super) count: u32,
    /// One of them.
    pub(super) slot: u32,
}

impl PoolSlots {
    /// Slots of `shape`, none of them published, in a segment of their own.
    pub(super) fn new(id: PoolId, maker: Maker, shape: Shape) -> Result<Self, SegmentError> {
        // Within what can be addressed, by `Shape::new`. Nothing else has the segment, whose bytes
        // are zeros, but the transport, which promised to write nothing and to make no reference.
        // Its pages are allocated here, by this thread.
        let segment = Arc::new(Segment::new(shape.end as usize)?);
        let claims = (0..shape.slots).map(|_| AtomicU32::new(UNCLAIMED)).collect();
        Ok(Self { id, maker, segment, shape, claims })
    }

    /// How many slots there are.
    pub(super) const fn count(&self) -> u32 {
        self.shape.slots
    }

    /// The memory of the table, and of the pages if they are the publisher's. Code that gets it
    /// only reads it, and makes no reference to its bytes.
    pub(super) const fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(super) const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The entry of `slot`.
    pub(super) fn entry(&self, slot: u32) -> Result<&Entry, WriteError> {
        self.claim_of(slot)?;
        Ok(self.known_entry(slot))
    }

    /// The sole right to write the bytes of `slot`, and to publish it.
    pub(super) fn claim<'a>(self: &Arc<Self>, slot: u32) -> Result<WriteClaim<'a>, WriteError> {
        // Acquire: the bytes that earlier guards wrote, and what they did with the entry.
        let claim = self.claim_of(slot)?;
        match claim.compare_exchange(UNCLAIMED, WRITTEN, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(WriteClaim { pool: Arc::clone(self), slot, publisher: PhantomData }),
            Err(WRITTEN) => Err(WriteError::BeingWritten { slot }),
            Err(WITHDRAWN) => Err(WriteError::Withdrawn { pool: self.id, slot }),
            Err(_) => Err(WriteError::BeingRead { slot }),
        }
    }

    /// As [`claim`](Self::claim), of a slot whose bytes are the publisher's.
    pub(super) fn claim_own<'a>(self: &Arc<Self>, slot: u32) -> Result<WriteClaim<'a>, WriteError> {
        self.own_pages()?;
        self.claim(slot)
    }

    /// The bytes of `slot`, to be read.
    pub(super) fn read<'a>(self: &Arc<Self>, slot: u32) -> Result<LocalPage<'a>, WriteError> {
        self.own_pages()?;
        let claim = self.claim_of(slot)?;
        // Counting stops below `WITHDRAWN`.
        let one_more = |readers| if readers < WITHDRAWN - 1 { Some(readers + 1) } else { None };
        // Acquire: the bytes that earlier guards wrote.
        match claim.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(LocalPage { pool: Arc::clone(self), slot, publisher: PhantomData }),
            Err(WITHDRAWN) => Err(WriteError::Withdrawn { pool: self.id, slot }),
            Err(_) => Err(WriteError::BeingWritten { slot }),
        }
    }

    /// Takes the right to every slot, for ever. Waits for guards until `deadline`; if some are left
    /// then, all rights are given back.
    pub(super) fn close(&self, deadline: Instant) -> Result<(), Held> {
        let close = |slot: &u32| {
            let claim = &self.claims[*slot as usize];
            // Acquire: what earlier guards did with the entry.
            claim.compare_exchange(UNCLAIMED, WITHDRAWN, Ordering::Acquire, Ordering::Relaxed).is_err()
        };
        let mut held: Vec<u32> = (0..self.count()).filter(close).collect();
        while let Some(&slot) = held.first() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                for (number, claim) in (0..).zip(&self.claims) {
                    if held.binary_search(&number).is_err() {
                        claim.store(UNCLAIMED, Ordering::Release);
                    }
                }
                // At most as many as slots.
                return Err(Held { count: held.len() as u32, slot });
            }
            std::thread::sleep(left.min(LOOK_AGAIN));
            held.retain(close);
        }
        Ok(())
    }

    /// Makes every slot a miss, visibly.
    pub(super) fn invalidate_all(&self) {
        (0..self.count()).for_each(|slot| self.known_entry(slot).invalidate());
    }

    fn own_pages(&self) -> Result<PagesAt, WriteError> {
        self.shape.pages.ok_or(WriteError::ForeignBytes { pool: self.id })
    }

    fn claim_of(&self, slot: u32) -> Result<&AtomicU32, WriteError> {
        self.maker.check()?;
        let slots = self.shape.slots;
        self.claims.get(slot as usize).ok_or(WriteError::Slot { slot, slots })
    }

    /// The word in `claims` of `slot`, which must exist.
    fn known_claim(&self, slot: u32) -> &AtomicU32 {
        &self.claims[slot as usize]
    }

    /// The entry of `slot`, which must exist.
    fn known_entry(&self, slot: u32) -> &Entry {
        debug_assert!(slot < self.shape.slots, "a slot that exists");
        let at = self.at(0).cast::<Entry>().wrapping_add(slot as usize);
        // SAFETY: the table begins where the mapping does, at a multiple of a host page; entry
        // `slot` ends before the first page by `Shape`. Zeros are an entry, entries are atomics,
        // and nothing else of this process writes there (`new`). The mapping lives as long as
        // `self`.
        unsafe { &*at }
    }

    /// The address of the page in `slot`, which must exist, at `pages`.
    fn page_at(&self, pages: PagesAt, slot: u32) -> *mut u8 {
        self.at(pages.offset + pages.stride * u64::from(slot))
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
    pool: Arc<PoolSlots>,
    slot: u32,
    /// It does not outlive the publisher.
    publisher: PhantomData<&'a ()>,
}

impl WriteClaim<'_> {
    pub(super) const fn slot(&self) -> u32 {
        self.slot
    }

    pub(super) fn entry(&self) -> &Entry {
        self.pool.known_entry(self.slot)
    }

    /// Whether the process is the one that made the claim. If not, the entry is another process's.
    pub(super) fn check_process(&self) -> Result<(), OtherProcess> {
        self.pool.maker.check()
    }

    /// The bytes of the slot. None, if they are not the publisher's.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let Ok(pages) = self.pool.own_pages() else { return &mut [] };
        let at = self.pool.page_at(pages, self.slot);
        // SAFETY: `Shape` put the slot's `page_bytes` bytes within the mapping and apart from the
        // table and the other slots. This claim is the only one of the slot and excludes every
        // `LocalPage`, both by the slot's word in `claims`; `&mut self` makes this the only
        // reference by it. Nothing else of this process makes one (`PoolSlots::new`). Peers read
        // the bytes through mappings of their own (or the kernel does), by raw copies, at any time:
        // the entry tells them which of the bytes may be a mixture.
        unsafe { std::slice::from_raw_parts_mut(at, pages.page_bytes as usize) }
    }
}

impl Drop for WriteClaim<'_> {
    fn drop(&mut self) {
        // Release: the next guard sees the bytes and the entry.
        self.pool.known_claim(self.slot).store(UNCLAIMED, Ordering::Release);
    }
}

/// The bytes in a slot of this process's own publisher, published or not. They do not change while
/// the value exists: to overwrite the slot is refused meanwhile. In a child of a fork the value is
/// a copy that keeps nothing: the bytes are the parent's, which may overwrite them.
pub struct LocalPage<'a> {
    pool: Arc<PoolSlots>,
    slot: u32,
    /// It does not outlive the publisher.
    publisher: PhantomData<&'a ()>,
}

impl Deref for LocalPage<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Ok(pages) = self.pool.own_pages() else { return &[] };
        let at = self.pool.page_at(pages, self.slot);
        // SAFETY: the slot exists, so its bytes lie in the mapping. Only `WriteClaim::bytes` gives
        // a way to write them, and the slot's word in `claims` excludes that claim while this value
        // exists. Nothing else of this process writes there (`PoolSlots::new`).
        unsafe { std::slice::from_raw_parts(at, pages.page_bytes as usize) }
    }
}

impl Drop for LocalPage<'_> {
    fn drop(&mut self) {
        // Release: these reads come before the next guard's writes.
        self.pool.known_claim(self.slot).fetch_sub(1, Ordering::Release);
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
            let shape = Shape::new(slots, Some(page)).unwrap();
            let pages = shape.pages.unwrap();
            assert!(u64::from(slots) * ENTRY_BYTES <= pages.offset, "{shape:?}");
            assert!(pages.stride >= u64::from(page) && pages.stride.is_multiple_of(LINE), "{shape:?}");
            assert_eq!(shape.end, pages.offset + pages.stride * u64::from(slots), "{shape:?}");
            let table = Shape::new(slots, None).unwrap();
            assert_eq!((table.pages, table.end), (None, pages.offset), "a table without pages");
        }
        assert_eq!(Shape::new(0, Some(1)), None);
        assert_eq!(Shape::new(0, None), None);
        assert_eq!(Shape::new(u32::MAX, Some(u32::MAX)), None, "beyond 2^63");
    }

    fn slots(count: u32) -> Arc<PoolSlots> {
        let shape = Shape::new(count, Some(100)).unwrap();
        Arc::new(PoolSlots::new(PoolId(3), Maker::current(), shape).unwrap())
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

    #[test]
    fn slots_are_closed_all_together_or_not_at_all() {
        let slots = slots(4);
        let (one, other) = (slots.claim(2).unwrap(), slots.read(3).unwrap());
        assert_eq!(slots.close(Instant::now()), Err(Held { count: 2, slot: 2 }));
        assert!(slots.claim(0).is_ok() && slots.read(1).is_ok(), "the others were given back");
        drop(one);
        assert_eq!(slots.close(Instant::now()), Err(Held { count: 1, slot: 3 }));
        drop(other);
        assert_eq!(slots.close(Instant::now()), Ok(()));
        let withdrawn = WriteError::Withdrawn { pool: PoolId(3), slot: 1 };
        assert_eq!((slots.claim(1).err(), slots.read(1).err()), (Some(withdrawn), Some(withdrawn)));
    }
}
