//! Pages of a batch that land by a plan, share a slot or are joined.

use super::batch::Batch;
use super::pool::BufferLimits;
use super::shape::PageShape;
use crate::error::ReadError;
use crate::id::RegionRef;
use crate::layout::{NO_LAYOUT, PlanLayouts};
use crate::memory::slot::{PlanMark, Slot, SlotRegion};
use crate::page::{Claim, Expected, Phase};
use crate::plan::PlanRef;
use crate::plan::lives::Epoch;
use crate::remote::RemotePage;
use crate::table::NO_ENTRY;

impl Batch<'_> {
    /// Turns to pages of several `regions` (`of`: their pool, length and layout) that land in slots
    /// of the same layout (`to`: their region and length). Pages like the next one that follow it
    /// have its shape, and need no further check: the plan of whole pages is never forgotten.
    // Its arguments are values, as those of `PageShape::check`.
    #[inline(never)]
    pub(super) fn turn_to_regions(
        &mut self,
        of: (RegionRef, u32, u8),
        regions: u16,
        to: (SlotRegion, usize),
    ) -> Result<(), ReadError> {
        let ((source, len, layout), (slot_region, _)) = (of, to);
        if slot_region.layout() == NO_LAYOUT {
            return Err(ReadError::SlotOfBytes { regions });
        }
        // The lengths of the regions are the layout's on both sides.
        let (limits, layouts) = (self.buffer.limits, self.buffer.layouts);
        PageShape::check((source, 1, layout), to, limits, layouts, self.len)?;
        // Pages of several regions exist only with a layout, whose plan was set before.
        let plan = layouts.whole(layout).ok_or_else(|| layouts.unlike(layout, slot_region.layout()))?;
        self.enter_epoch()?;
        debug_assert_eq!(plan.bytes, len, "a plan of whole pages reads all of a page");
        self.turn_to(PageShape { source, slot_region, len, chunks: plan.wrs });
        self.mark = PlanMark::new(plan.number, plan.wrs);
        (self.uniform, self.of_one_pool) = (false, self.segment == self.len);
        self.buffer.head_mut().has_planned = true;
        Ok(())
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
        if let Err(error) = self.enter_epoch() {
            return Err((error, slot));
        }
        match self.planned(page, (slot.slot_region(), slot.len()), plan) {
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
        self.enter_epoch()?;
        let (slot, place) = self.last_slot()?;
        let shape = self.planned(page, (slot.slot_region(), slot.len()), plan)?;
        let mut view = if plan.layouts.scatters { slot.share_pieces(place) } else { slot.share(0, place) };
        view.follow(plan.number, plan.wrs);
        self.put(page.part_of(plan), view, shape);
        Ok(())
    }

    /// Adds the READ of `page` into `slot`, as [`read`](Self::read) does, and joins it to the page
    /// before: the results of both are `Ok` only if both arrive, and so for any number of pages
    /// that are joined one to the next. So the pages of several pools that belong to one key, the
    /// latent page and that of the indexer, are had together or not at all.
    ///
    /// # Errors
    ///
    /// There is no page before, or as [`read`](Self::read). The slot comes back.
    pub fn join(&mut self, page: RemotePage, slot: Slot) -> Result<(), (ReadError, Slot)> {
        self.joined(slot, |batch, slot| batch.read(page, slot))
    }

    /// As [`join`](Self::join), for a page that lands by a plan
    /// ([`read_with`](Self::read_with)).
    ///
    /// # Errors
    ///
    /// There is no page before, or as [`read_with`](Self::read_with). The slot comes back.
    pub fn join_with(
        &mut self,
        page: RemotePage,
        slot: Slot,
        plan: PlanRef,
    ) -> Result<(), (ReadError, Slot)> {
        self.joined(slot, |batch, slot| batch.read_with(page, slot, plan))
    }

    /// Adds a page by `read`, and joins it to the page before.
    fn joined(
        &mut self,
        slot: Slot,
        read: impl FnOnce(&mut Self, Slot) -> Result<(), (ReadError, Slot)>,
    ) -> Result<(), (ReadError, Slot)> {
        if self.is_empty() {
            return Err((ReadError::NoPage, slot));
        }
        let at = self.len;
        read(self, slot)?;
        if let Some(slot) = &mut self.buffer.page_mut(at).slot {
            slot.join();
        }
        // A uniform segment is posted by its addresses alone, which the mark leaves as they are.
        self.buffer.head_mut().has_shared = true;
        Ok(())
    }

    /// The slot that the page before lands in, and the place in the batch of the page that owns
    /// this slot.
    pub(super) fn last_slot(&self) -> Result<(&Slot, u32), ReadError> {
        let pages = self.buffer.pages();
        let slot = |at: u32| pages[at as usize].slot.as_ref().ok_or(ReadError::NoSlot);
        let last = self.len.checked_sub(1).ok_or(ReadError::NoSlot)?;
        let page = &pages[last as usize];
        let last = if page.phase == Phase::InSet { last - u32::from(page.seg_len) } else { last };
        let at = slot(last)?.shares().unwrap_or(last);
        Ok((slot(at)?, at))
    }

    /// The shape of a page that lands by `plan` in a slot, of which the region and the length are
    /// given, if it may land there.
    fn planned(
        &self,
        page: RemotePage,
        (slot_region, slot_bytes): (SlotRegion, usize),
        plan: PlanRef,
    ) -> Result<PageShape, ReadError> {
        page.check_ready(true)?;
        let BufferLimits { engine, .. } = self.buffer.limits;
        if plan.engine != engine {
            return Err(ReadError::OtherEngine("plan"));
        }
        if plan.since != Epoch::LAST && !self.buffer.plans.is_same(plan.number, plan.since) {
            return Err(ReadError::PlanForgotten);
        }
        if page.source.engine() != engine {
            return Err(ReadError::OtherEngine("page"));
        }
        if slot_region.engine() != engine {
            return Err(ReadError::OtherEngine("slot"));
        }
        let layout = slot_region.layout();
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
        let (of, to) = ((page.source, end, layout), (slot_region, slot_bytes));
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

    /// Notes the epoch of plans in which the pages of this batch are known to follow plans that
    /// have not been forgotten: the present one.
    #[inline]
    fn enter_epoch(&mut self) -> Result<(), ReadError> {
        let now = self.buffer.plans.now();
        let head = self.buffer.head_mut();
        if !head.has_planned {
            head.plan_epoch = now;
        }
        if head.plan_epoch == now { Ok(()) } else { self.enter_later_epoch(now) }
    }

    /// A plan was forgotten since the pages were checked: checks them again.
    #[cold]
    fn enter_later_epoch(&mut self, now: Epoch) -> Result<(), ReadError> {
        match self.buffer.forgotten_plan(self.len) {
            Some(_) => Err(ReadError::PlanForgotten),
            None => {
                self.buffer.head_mut().plan_epoch = now;
                Ok(())
            }
        }
    }

    /// Puts a checked page into the next place.
    pub(super) fn put(&mut self, page: RemotePage, slot: Slot, shape: PageShape) {
        let (planned, shared) = (slot.plan().is_some(), slot.shares().is_some());
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
        state.claim = Claim::Expected(Expected::new(page.expected), 0);
        (self.some_unvalidated, self.some_validated) = (
            self.some_unvalidated | (page.entry == NO_ENTRY),
            self.some_validated | (page.entry != NO_ENTRY),
        );
        self.len = at + 1;
        let head = self.buffer.head_mut();
        head.has_planned |= planned;
        head.has_shared |= shared;
    }
}
