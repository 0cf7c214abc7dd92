//! Pages that join a batch in one call, with consecutive slots.

use core::fmt;

use super::batch::Batch;
use super::shape::PageShape;
use crate::error::ReadError;
use crate::memory::slot::PlanMark;
use crate::memory::{Slot, SlotRange};
use crate::page::{Claim, Expected, Page, Phase};
use crate::remote::{Location, PageRangeError, RemoteRegion};
use crate::table::{EntryValue, NO_ENTRY, Ready};

/// Pages that could not join a batch: none of them has, and the slots come back.
pub struct RejectedPages {
    /// The slots.
    pub slots: SlotRange,
    /// The first page that cannot join, by its position among the pages of the call. 0 if the
    /// reason is the same for all.
    pub page: usize,
    /// The reason.
    pub error: ReadError,
}

impl fmt::Debug for RejectedPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {:?}", self.page, self.error)
    }
}

impl fmt::Display for RejectedPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} of the call: {}", self.page, self.error)
    }
}

impl core::error::Error for RejectedPages {}

/// What the pages of one call have in common.
#[derive(Clone, Copy)]
struct Alike {
    base: u64,
    stride: u64,
    shape: PageShape,
    mark: PlanMark,
    /// Slots of the remote region.
    slots: u32,
}

impl Alike {
    /// Writes all of a page but what it is expected to be.
    #[inline(always)]
    fn put(&self, page: &mut Page, at: u32, slot: Slot) {
        page.remote = self.base.wrapping_add(self.stride.wrapping_mul(at.into()));
        page.slot = Some(slot);
        page.source = self.shape.source;
        page.len = self.shape.len;
        page.next = 0;
        page.left = self.shape.chunks;
    }

    const fn check(&self, slot: u32) -> Result<(), ReadError> {
        if slot < self.slots { Ok(()) } else { Err(beyond(slot, self.slots)) }
    }
}

#[cold]
const fn beyond(slot: u32, slots: u32) -> ReadError {
    ReadError::Page(PageRangeError::Slot { slot, slots })
}

impl Batch<'_> {
    /// Adds the READs of the whole pages at `locations` of a region into `slots`, each validated:
    /// the first page into the first slot, and so on. It does what as many calls of
    /// [`read`](Self::read) do for less: what the pages have in common is looked at once. The slots
    /// come back by [`Done::take_range`](super::Done::take_range), or one by one by
    /// [`Done::pages`](super::Done::pages). Locations in the order of their slots cost less, as
    /// with [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// There are not as many slots as pages, the batch has not so much room, a location is beyond
    /// the region or of a page that still grows, or as [`read`](Self::read). Then no page has
    /// joined the batch, and the slots come back.
    pub fn read_many(
        &mut self,
        from: &RemoteRegion,
        locations: &[Location],
        slots: SlotRange,
    ) -> Result<(), RejectedPages> {
        if !from.has_table {
            return Err(rejected(slots, ReadError::Page(PageRangeError::NoTable)));
        }
        let (pages, common, slots) = self.places(from, locations.len(), slots)?;
        let given = slots.give(locations, pages, common.mark, |location, page, slot| {
            let Location { slot: at, expected } = *location;
            if expected.ready != Ready::WHOLE {
                return Err(growing(expected));
            }
            common.check(at)?;
            common.put(page, at, slot);
            page.entry = at;
            page.phase = Phase::NeedsValidation;
            page.claim = Claim::Expected(Expected::new(expected), 0);
            Ok(())
        });
        match given {
            Ok(()) => {
                self.some_validated |= !locations.is_empty();
                self.add_range(locations.len());
                Ok(())
            }
            Err((page, error, slots)) => Err(RejectedPages { slots, page, error }),
        }
    }

    /// As [`read_many`](Self::read_many), for the pages in the slots `from_slots` of a region,
    /// which are read without validation ([`RemoteRegion::unvalidated`]).
    ///
    /// # Errors
    ///
    /// As [`read_many`](Self::read_many).
    pub fn read_many_unvalidated(
        &mut self,
        from: &RemoteRegion,
        from_slots: &[u32],
        slots: SlotRange,
    ) -> Result<(), RejectedPages> {
        let (pages, common, slots) = self.places(from, from_slots.len(), slots)?;
        let given = slots.give(from_slots, pages, common.mark, |&at, page, slot| {
            common.check(at)?;
            common.put(page, at, slot);
            page.entry = NO_ENTRY;
            page.phase = Phase::NoValidation;
            Ok(())
        });
        match given {
            Ok(()) => {
                self.some_unvalidated |= !from_slots.is_empty();
                self.add_range(from_slots.len());
                Ok(())
            }
            Err((page, error, slots)) => Err(RejectedPages { slots, page, error }),
        }
    }

    /// Turns to the pages of one call, if they may join: their places in the batch, and what they
    /// have in common.
    #[inline(always)]
    fn places(
        &mut self,
        from: &RemoteRegion,
        pages: usize,
        slots: SlotRange,
    ) -> Result<(&mut [Page], Alike, SlotRange), RejectedPages> {
        let limits = self.buffer.limits;
        let error = if pages != slots.len() {
            Some(ReadError::SlotCount { pages, slots: slots.len() })
        } else if pages > usize::from(limits.capacity) - self.len() {
            Some(ReadError::Full { capacity: limits.capacity.into() })
        } else if pages == 0 {
            None
        } else {
            let of = (from.source, from.page_bytes, from.layout);
            let to = (slots.slot_region(), slots.slot_bytes());
            self.turn_to_like(of, from.regions, to).err()
        };
        if let Some(error) = error {
            return Err(rejected(slots, error));
        }
        let common = Alike {
            base: from.base,
            stride: from.stride,
            shape: self.last,
            mark: self.mark,
            slots: from.slots,
        };
        let at = self.len as usize;
        let places = &mut self.buffer.pages_mut()[at..at + pages];
        Ok((places, common, slots))
    }

    /// Notes that `n` pages with consecutive slots have been put behind the others.
    #[inline]
    fn add_range(&mut self, n: usize) {
        // The batch has room for them, so they are fewer than 2^16.
        let n = n as u32;
        if self.len == 0 {
            self.buffer.head_mut().in_range = crate::limits::narrow(n as usize);
        }
        self.len += n;
    }
}

#[cold]
const fn rejected(slots: SlotRange, error: ReadError) -> RejectedPages {
    RejectedPages { slots, page: 0, error }
}

#[cold]
const fn growing(expected: EntryValue) -> ReadError {
    ReadError::NotReady { needed: Ready::WHOLE, seen: expected.ready }
}
