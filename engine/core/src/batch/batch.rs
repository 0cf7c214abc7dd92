//! A batch that is being filled: pages join it, each with a slot, and it goes to `submit`.

use core::fmt;
use core::mem::ManuallyDrop;

use super::pool::{Buffer, BufferLimits};
use super::shape::PageShape;
use crate::class::Class;
use crate::error::ReadError;
use crate::id::RegionRef;
use crate::layout::{NO_LAYOUT, PlanLayouts, WholePlan};
use crate::limits::narrow;
use crate::memory::slot::{Slot, SlotRegion};
use crate::page::segment::Segment;
use crate::page::{Claim, Phase};
use crate::plan::PlanRef;
use crate::remote::RemotePage;
use crate::table::NO_ENTRY;

/// Pages to be read together, from one peer or several, with one deadline. It is a handle to a
/// buffer of the engine's pool. Dropping a batch gives the buffer back. The slots in it are lost
/// then, and their memory is never freed, so take them out first by [`clear`](Self::clear).
pub struct Batch<'s> {
    buffer: ManuallyDrop<Buffer<'s>>,
    /// How many pages the batch has; at most the capacity, a u16.
    len: u32,
    /// The first page of the last segment, and whether the segment's pages have one shape and one
    /// chunk each.
    segment: u32,
    uniform: bool,
    /// Whether some pages of the last segment are not to be validated, and whether some are.
    some_unvalidated: bool,
    some_validated: bool,
    /// The shape of the last page. A page of the same shape needs no further check.
    last: PageShape,
    /// The last page of several regions that landed without a plan of the caller's: its source, its
    /// slot's region, and the plan of such pages.
    last_whole: (RegionRef, SlotRegion, WholePlan),
}

impl<'s> Batch<'s> {
    #[inline]
    pub(crate) fn new(mut buffer: Buffer<'s>) -> Self {
        let head = buffer.head_mut();
        head.len = 0;
        head.class = 0;
        head.tag = 0;
        head.origin = 0;
        head.has_shared_or_planned = false;
        Self {
            buffer: ManuallyDrop::new(buffer),
            len: 0,
            segment: 0,
            uniform: true,
            some_unvalidated: false,
            some_validated: false,
            last: PageShape::NONE,
            last_whole: (RegionRef::NONE, SlotRegion::NONE, WholePlan::NONE),
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
            let seg = match (self.uniform, self.some_unvalidated, self.some_validated) {
                (true, true, false) => Segment::UNIFORM.union(Segment::NO_VALIDATION),
                (true, false, true) => Segment::UNIFORM.union(Segment::NEEDS_VALIDATION),
                (true, ..) => Segment::UNIFORM,
                (false, ..) => Segment::PER_PAGE,
            };
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
            some_unvalidated: false,
            some_validated: false,
            last: PageShape::NONE,
            last_whole: (RegionRef::NONE, SlotRegion::NONE, WholePlan::NONE),
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

    /// Sets a number of the caller's own, which [`Done::tag`](super::Done::tag) gives back; 0
    /// unless set.
    pub fn set_tag(&mut self, tag: u64) {
        self.buffer.head_mut().tag = tag;
    }

    /// Adds the READ of `page` into `slot`. The batch owns the slot from now on.
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
            if page.regions > 1 {
                return self.read_regions(page, slot);
            }
            let (of, to) = ((page.source, page.len, page.layout), (slot.slot_region(), slot.len()));
            match PageShape::check(of, to, self.buffer.limits, self.buffer.layouts, at) {
                Ok(shape) => self.turn_to(shape),
                Err(error) => return Err((error, slot)),
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
            state.claim = Claim::Expected(page.expected);
            self.some_validated = true;
        }
        self.len = at + 1;
        Ok(())
    }

    /// Adds the READ of a page of several regions into a slot of the same layout.
    fn read_regions(&mut self, page: RemotePage, mut slot: Slot) -> Result<(), (ReadError, Slot)> {
        let (source, slot_region, WholePlan { number, wrs, bytes }) = self.last_whole;
        if source == page.source
            && slot_region == slot.slot_region()
            && self.len < u32::from(self.buffer.limits.capacity)
        {
            slot.follow(number, wrs);
            let shape = PageShape { source, slot_region: SlotRegion::NONE, len: bytes, chunks: wrs };
            self.put(page, slot, shape);
            return Ok(());
        }
        self.first_of_regions(page, slot)
    }

    #[cold]
    fn first_of_regions(&mut self, page: RemotePage, slot: Slot) -> Result<(), (ReadError, Slot)> {
        let (of, to) = (page.layout, slot.slot_region().layout());
        if to == NO_LAYOUT {
            return Err((ReadError::SlotOfBytes { regions: page.regions }, slot));
        }
        // Pages of several regions exist only with a layout, whose plan was set before.
        match self.buffer.layouts.whole(of).filter(|_| to == of) {
            Some(plan) => {
                let shape = (page.source, slot.slot_region(), plan);
                self.read_with(page, slot, PlanRef::whole(self.buffer.limits.engine, of, plan))?;
                self.last_whole = shape;
                Ok(())
            }
            None => Err((self.buffer.layouts.unlike(of, to).into(), slot)),
        }
    }

    /// Adds the READ of `page` into `slot` by a plan: the bytes land directly in the layout of the
    /// slot. Bytes of the slot that the plan does not write stay unchanged.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), or the plan does not read such pages, does not write such slots, or
    /// is another engine's. The slot comes back.
    pub fn read_with(
        &mut self,
        page: RemotePage,
        mut slot: Slot,
        plan: PlanRef,
    ) -> Result<(), (ReadError, Slot)> {
        match self.planned(page, &slot, plan) {
            Ok(shape) => {
                slot.follow(plan.number, plan.wrs);
                self.put(page.part_of(plan), slot, shape);
                Ok(())
            }
            Err(error) => Err((error, slot)),
        }
    }

    /// Adds the READ of another page into the slot of the page before, from byte `offset` of the
    /// slot on. So a slot without a layout is filled from several pages, of one peer or of several.
    ///
    /// The slot comes back once, with the first of its pages, and that page's result is `Ok` only
    /// if all pages of the slot have arrived. Where pages overlap, the bytes are those of whichever
    /// page arrived last.
    ///
    /// # Errors
    ///
    /// There is no page before, the page ends beyond the slot, or as [`read`](Self::read).
    pub fn read_also(&mut self, page: RemotePage, offset: u32) -> Result<(), ReadError> {
        page.check_ready(false)?;
        if page.regions > 1 {
            return Err(ReadError::SlotOfBytes { regions: page.regions });
        }
        let (slot, place) = self.last_slot()?;
        let room = slot.len().saturating_sub(offset as usize);
        let (of, to) = ((page.source, page.len, page.layout), (slot.slot_region(), room));
        let shape = PageShape::check(of, to, self.buffer.limits, self.buffer.layouts, self.len);
        let shape = shape.map_err(|error| match error {
            ReadError::SlotTooSmall { .. } => {
                let (page_bytes, slot_bytes) = (page.len, slot.len());
                ReadError::BeyondSlot { page_bytes, offset, slot_bytes }
            }
            error => error,
        })?;
        let view = slot.share(offset, place);
        self.put(page, view, PageShape { slot_region: SlotRegion::NONE, ..shape });
        Ok(())
    }

    /// Adds the READ of another page into the slot of the page before by a plan, which says where
    /// in the slot the page lands. So slots of 64 tokens are filled from pages of 16, slots of all
    /// layers from pages of one, or slots of all heads from several ranks.
    ///
    /// # Errors
    ///
    /// As [`read_also`](Self::read_also), or as [`read_with`](Self::read_with).
    pub fn read_also_with(&mut self, page: RemotePage, plan: PlanRef) -> Result<(), ReadError> {
        let (slot, place) = self.last_slot()?;
        let shape = self.planned(page, slot, plan)?;
        let mut view = if plan.layouts.scatters { slot.share_pieces(place) } else { slot.share(0, place) };
        view.follow(plan.number, plan.wrs);
        self.put(page.part_of(plan), view, shape);
        Ok(())
    }

    /// The slot that the page before lands in, and the place in the batch of the page that owns
    /// this slot.
    fn last_slot(&self) -> Result<(&Slot, u32), ReadError> {
        let pages = self.buffer.pages();
        let slot = |at: u32| pages[at as usize].slot.as_ref().ok_or(ReadError::NoSlot);
        let last = self.len.checked_sub(1).ok_or(ReadError::NoSlot)?;
        let at = slot(last)?.shares().unwrap_or(last);
        Ok((slot(at)?, at))
    }

    /// The shape of a page that lands in `slot` by `plan`, if it may land there.
    fn planned(&self, page: RemotePage, slot: &Slot, plan: PlanRef) -> Result<PageShape, ReadError> {
        page.check_ready(true)?;
        let BufferLimits { engine, .. } = self.buffer.limits;
        if plan.engine != engine {
            return Err(ReadError::OtherEngine("plan"));
        }
        if page.source.engine() != engine {
            return Err(ReadError::OtherEngine("page"));
        }
        if slot.slot_region().engine() != engine {
            return Err(ReadError::OtherEngine("slot"));
        }
        let layout = slot.slot_region().layout();
        let PlanLayouts { reads, writes, scatters, .. } = plan.layouts;
        if page.layout != reads || (layout != writes && layout != NO_LAYOUT) {
            self.buffer.layouts.follows(plan.layouts, page.layout, layout)?;
        }
        if scatters && layout == NO_LAYOUT {
            return Err(ReadError::SlotOfBytes { regions: page.regions });
        }
        if page.len < plan.source_end {
            return Err(ReadError::PageTooSmall { page_bytes: page.len, plan_bytes: plan.source_end });
        }
        // The plan stands in for the page here: its end must be within the slot, and the layouts
        // have been compared above. A slot of several regions has the plan's layout, so it has the
        // regions into which the plan was cut.
        let end = if scatters { 1 } else { plan.destination_end };
        let (of, to) = ((page.source, end, layout), (slot.slot_region(), slot.len()));
        PageShape::check(of, to, self.buffer.limits, self.buffer.layouts, self.len)?;
        // The region NONE makes this no other page's shape, since its chunks are work requests of
        // the plan.
        Ok(PageShape {
            source: page.source,
            slot_region: SlotRegion::NONE,
            len: plan.bytes,
            chunks: plan.wrs,
        })
    }

    /// Puts a checked page into the next place.
    fn put(&mut self, page: RemotePage, slot: Slot, shape: PageShape) {
        self.turn_to(shape);
        self.uniform = false;
        let at = self.len;
        let state = self.buffer.page_mut(at);
        state.remote = page.addr;
        state.slot = Some(slot);
        state.source = page.source;
        state.len = shape.len;
        state.entry = page.entry;
        state.next = 0;
        state.left = shape.chunks;
        state.phase = if page.entry == NO_ENTRY { Phase::NoValidation } else { Phase::NeedsValidation };
        state.claim = Claim::Expected(page.expected);
        self.len = at + 1;
        self.buffer.head_mut().has_shared_or_planned = true;
    }

    /// Notes that the next page has another shape than the one before. If it has another peer, it
    /// begins a segment.
    #[inline]
    fn turn_to(&mut self, shape: PageShape) {
        if self.len == 0 || shape.source.peer() != self.last.source.peer() {
            self.close_segment();
            (self.segment, self.uniform) = (self.len, shape.chunks == 1);
            (self.some_unvalidated, self.some_validated) = (false, false);
        } else {
            self.uniform = false;
        }
        self.last = shape;
    }

    /// Empties the batch, and returns its slots.
    pub fn clear(&mut self) -> impl Iterator<Item = Slot> + use<'_, 's> {
        let len = core::mem::take(&mut self.len);
        self.last = PageShape::NONE;
        self.buffer.head_mut().has_shared_or_planned = false;
        let pages = &mut self.buffer.pages_mut()[..len as usize];
        pages.iter_mut().filter_map(|page| page.slot.take().and_then(Slot::unmark))
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
