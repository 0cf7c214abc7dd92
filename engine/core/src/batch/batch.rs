//! A batch that is being filled: pages join it, each with a slot, and it goes to `submit`.

use core::fmt;
use core::mem::ManuallyDrop;

use super::pool::Buffer;
use super::ranges::next_range;
use super::shape::PageShape;
use crate::class::Class;
use crate::error::ReadError;
use crate::id::{RegionRef, Ticket};
use crate::limits::narrow;
use crate::memory::SlotRange;
use crate::memory::slot::{PlanMark, Slot, SlotRegion};
use crate::page::segment::Segment;
use crate::page::{Claim, Expected, Page, Phase};
use crate::remote::RemotePage;
use crate::table::NO_ENTRY;

/// Pages to be read together, from one peer or several, with one deadline. It is a handle to a
/// buffer of the engine's pool. Dropping a batch gives the buffer back. The slots in it are lost
/// then, and their memory is never freed, so take them out first by [`clear`](Self::clear).
pub struct Batch<'s> {
    pub(super) buffer: ManuallyDrop<Buffer<'s>>,
    /// How many pages the batch has; at most the capacity, a u16.
    pub(super) len: u32,
    /// The first page of the last segment, and whether the segment's pages have one shape and one
    /// chunk each.
    pub(super) segment: u32,
    pub(super) uniform: bool,
    /// Whether the last segment's pages are whole pages of one pool with several regions, and land
    /// in slots of one local region.
    pub(super) of_one_pool: bool,
    /// Whether some pages of the last segment are not to be validated, and whether some are.
    pub(super) some_unvalidated: bool,
    pub(super) some_validated: bool,
    /// The shape of the last page. A page of the same shape needs no further check.
    pub(super) last: PageShape,
    /// The mark of the plan of such pages, which whole pages of several regions have.
    pub(super) mark: PlanMark,
}

impl<'s> Batch<'s> {
    #[inline]
    pub(crate) fn new(mut buffer: Buffer<'s>) -> Self {
        let head = buffer.head_mut();
        head.len = 0;
        head.serial = head.serial.wrapping_add(1);
        head.class = 0;
        head.report = false;
        head.tag = 0;
        head.origin = 0;
        head.has_planned = false;
        head.has_rows = false;
        head.has_shared = false;
        head.in_range = 0;
        head.in_sets = 0;
        Self {
            buffer: ManuallyDrop::new(buffer),
            len: 0,
            segment: 0,
            uniform: true,
            of_one_pool: false,
            some_unvalidated: false,
            some_validated: false,
            last: PageShape::NONE,
            mark: PlanMark::NONE,
        }
    }

    /// The buffer, complete: the last segment is closed and the length written.
    #[inline]
    pub(crate) fn into_buffer(mut self) -> Buffer<'s> {
        self.close_segment();
        self.buffer.head_mut().len = narrow(self.len as usize);
        let buffer = Self::take(&mut self);
        core::mem::forget(self);
        buffer
    }

    /// Writes the length and the facts of the last segment into its first page.
    #[inline]
    pub(crate) fn close_segment(&mut self) {
        if self.len > 0 {
            let (segment, len) = (self.segment, self.len);
            let kind = match (self.uniform, self.of_one_pool) {
                (true, _) => Segment::UNIFORM,
                (false, true) => Segment::ALIKE,
                (false, false) => Segment::PER_PAGE,
            };
            let validation = match (self.some_unvalidated, self.some_validated) {
                (true, false) => Segment::NO_VALIDATION,
                (false, true) => Segment::NEEDS_VALIDATION,
                _ => Segment::PER_PAGE,
            };
            let seg = if kind.is_empty() { kind } else { kind.union(validation) };
            let first = self.buffer.page_mut(segment);
            first.seg_len = narrow((len - segment) as usize);
            first.seg_done = 0;
            first.seg = seg;
        }
    }

    #[allow(unsafe_code, reason = "moves the buffer out of a value that is dropped or forgotten next")]
    #[inline]
    fn take(this: &mut Self) -> Buffer<'s> {
        // SAFETY: no caller touches `this.buffer` again: two callers forget `this`, and the third
        // is its drop.
        unsafe { ManuallyDrop::take(&mut this.buffer) }
    }

    pub(crate) fn engine(&self) -> u16 {
        self.buffer.limits.engine
    }

    /// Sets which submitter gets the batch back, from 1; 0 is the engine's own thread.
    pub(crate) fn set_origin(&mut self, origin: u16) {
        self.buffer.head_mut().origin = origin;
    }

    /// How many pages a submitter may be told before the batch is done.
    pub(crate) fn early_pages(&self) -> usize {
        if self.buffer.head().report { self.len() } else { 0 }
    }

    /// The name that the batch has in flight.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { batch: self.buffer.index(), serial: self.buffer.head().serial }
    }

    #[inline]
    pub(super) fn buffer(&self) -> &Buffer<'s> {
        &self.buffer
    }

    #[inline]
    pub(crate) fn buffer_mut(&mut self) -> &mut Buffer<'s> {
        &mut self.buffer
    }

    /// Wraps the buffer of a done batch of `len` pages, to take its slots and results from.
    #[inline]
    pub(super) fn of_done(buffer: Buffer<'s>, len: u32) -> Self {
        Self {
            buffer: ManuallyDrop::new(buffer),
            len,
            segment: 0,
            uniform: true,
            of_one_pool: false,
            some_unvalidated: false,
            some_validated: false,
            last: PageShape::NONE,
            mark: PlanMark::NONE,
        }
    }

    /// An empty batch with the same buffer. Slots in it are lost.
    #[inline]
    pub(super) fn emptied(mut self) -> Self {
        let buffer = Self::take(&mut self);
        core::mem::forget(self);
        Self::new(buffer)
    }

    /// How many pages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many pages it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        usize::from(self.buffer.limits.capacity)
    }

    /// Sets how urgent the batch is; [`Class::Urgent`] unless set.
    pub fn set_class(&mut self, class: Class) {
        self.buffer.head_mut().class = class as u8;
    }

    /// Has the engine tell of each page as soon as it has its final result, before the whole batch
    /// is done: its own thread by [`Engine::next_arrival`](crate::engine::Engine::next_arrival), a
    /// [submitter](crate::hub::HubSubmitter) by [`Outcome::Page`](crate::hub::Outcome::Page). Pages
    /// that share a slot or are [joined](Self::join) are told when all of them have their results,
    /// which are those of the whole. It costs some instructions for each page.
    pub fn report_pages(&mut self) {
        let head = self.buffer.head_mut();
        head.report = true;
        head.told = 0;
    }

    /// Sets a number of the caller's own, which [`Done::tag`](super::Done::tag) gives back; 0
    /// unless set.
    pub fn set_tag(&mut self, tag: u64) {
        self.buffer.head_mut().tag = tag;
    }

    /// Adds the READ of `page` into `slot`. The batch owns the slot from now on.
    ///
    /// Pages that are validated cost less when they are added in the order of their slots at the
    /// peer: table entries that stand in a row come by one READ, and on some rails also entries
    /// that ascend with gaps
    /// ([`Provider::read_overhead`](crate::provider::Provider::read_overhead)).
    ///
    /// # Errors
    ///
    /// The page does not fit the slot, their layouts differ, they are not of this engine, the batch
    /// is full, or not all parts of the page that would be read have been seen ready. The slot
    /// comes back.
    // Always inlined: passing a page, a slot and a result through memory would cost more than the
    // body.
    #[inline(always)]
    pub fn read(&mut self, page: RemotePage, slot: Slot) -> Result<(), (ReadError, Slot)> {
        let last = self.last;
        let same_shape =
            page.source == last.source && slot.slot_region() == last.slot_region && page.len == last.len;
        let at = self.len;
        if let Err(error) = page.check_ready(false) {
            return Err((error, slot));
        }
        if !same_shape || at >= u32::from(self.buffer.limits.capacity) {
            let (of, to) = ((page.source, page.len, page.layout), (slot.slot_region(), slot.len()));
            if page.regions > 1 {
                if let Err(error) = self.turn_to_regions(of, page.regions, to) {
                    return Err((error, slot));
                }
            } else {
                match PageShape::check(of, to, self.buffer.limits, self.buffer.layouts, at) {
                    Ok(shape) => self.turn_to(shape),
                    Err(error) => return Err((error, slot)),
                }
            }
        }
        let state = self.buffer.page_mut(at);
        state.remote = page.addr;
        state.slot = Some(slot);
        state.source = page.source;
        state.len = page.len;
        state.entry = page.entry;
        state.next = 0;
        state.left = self.last.chunks;
        if page.entry == NO_ENTRY {
            state.phase = Phase::NoValidation;
            self.some_unvalidated = true;
        } else {
            state.phase = Phase::NeedsValidation;
            state.claim = Claim::Expected(Expected::new(page.expected), 0);
            self.some_validated = true;
        }
        if self.mark != PlanMark::NONE {
            mark(state, self.mark);
        }
        self.len = at + 1;
        Ok(())
    }

    /// Turns to whole pages or parts (`of`: their region, length and layout; of so many `regions`)
    /// that land in slots (`to`: their region and length), unless the pages before are like these.
    #[inline]
    pub(super) fn turn_to_like(
        &mut self,
        of: (RegionRef, u32, u8),
        regions: u16,
        to: (SlotRegion, usize),
    ) -> Result<(), ReadError> {
        let PageShape { source, slot_region, len, .. } = self.last;
        if (source, len, slot_region) == (of.0, of.1, to.0) {
            return Ok(());
        }
        if regions > 1 {
            return self.turn_to_regions(of, regions, to);
        }
        self.turn_to(PageShape::check(of, to, self.buffer.limits, self.buffer.layouts, self.len)?);
        Ok(())
    }

    /// Notes that the next page has another shape than the one before. If it has another peer, it
    /// begins a segment.
    #[inline(never)]
    pub(super) fn turn_to(&mut self, shape: PageShape) {
        if self.len == 0 || shape.source.peer() != self.last.source.peer() {
            self.close_segment();
            (self.segment, self.uniform) = (self.len, shape.chunks == 1);
            (self.some_unvalidated, self.some_validated) = (false, false);
        } else {
            self.uniform = false;
        }
        self.of_one_pool = false;
        self.last = shape;
        self.mark = PlanMark::NONE;
    }

    /// Empties the batch, and returns its slots in ranges: consecutive slots of consecutive pages
    /// are one.
    pub fn clear_ranges(&mut self) -> impl Iterator<Item = SlotRange> + use<'_, 's> {
        let len = core::mem::take(&mut self.len);
        self.last = PageShape::NONE;
        let head = self.buffer.head_mut();
        (head.has_planned, head.has_rows, head.has_shared) = (false, false, false);
        (head.in_range, head.in_sets) = (0, 0);
        let pages = &mut self.buffer.pages_mut()[..len as usize];
        for page in &mut *pages {
            page.slot = page.slot.take().and_then(Slot::unmark);
        }
        let mut from = 0;
        core::iter::from_fn(move || {
            let (first, range) = next_range(pages, from)?;
            from = first + range.len();
            Some(range)
        })
    }

    /// Empties the batch, and returns its slots.
    pub fn clear(&mut self) -> impl Iterator<Item = Slot> + use<'_, 's> {
        let len = core::mem::take(&mut self.len);
        self.last = PageShape::NONE;
        let head = self.buffer.head_mut();
        (head.has_planned, head.has_rows, head.has_shared) = (false, false, false);
        (head.in_range, head.in_sets) = (0, 0);
        let pages = &mut self.buffer.pages_mut()[..len as usize];
        pages.iter_mut().filter_map(|page| page.slot.take().and_then(Slot::unmark))
    }
}

/// Marks the slot of a page.
// A function of its own, so that the slot of a page without a plan stays in registers.
#[inline(never)]
fn mark(page: &mut Page, mark: PlanMark) {
    if let Some(slot) = &mut page.slot {
        slot.mark(mark);
    }
}

impl Drop for Batch<'_> {
    #[inline]
    fn drop(&mut self) {
        Self::take(self).release();
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("number", &self.buffer.index())
            .field("pages", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
