//! Pages read together.

mod kind;

use core::fmt;
use core::mem::ManuallyDrop;

use self::kind::Kind;
use crate::error::{PageError, ReadError};
use crate::layout::NO_LAYOUT;
use crate::memory::{Home, Slot};
use crate::page::{Page, Phase, Segment};
use crate::plan::PlanRef;
use crate::pool::{Buffer, Limits};
use crate::remote::{NO_ENTRY, RemotePage};

/// A submitted batch, while it is in flight and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) batch: u16,
    pub(crate) serial: u32,
}

/// How urgent a batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Class {
    /// Served first: somebody waits for it.
    #[default]
    Urgent,
    /// Served when nothing urgent waits, and now and then in between, so that it never starves.
    Background,
}

/// Pages to be read together, from one peer or several: a buffer of the engine's pool.
///
/// Dropping it gives the buffer back; slots still inside are lost (never freed), so take them out
/// first, by [`clear`](Self::clear).
pub struct Batch<'s> {
    buffer: ManuallyDrop<Buffer<'s>>,
    /// At most the capacity, a u16.
    len: u32,
    /// First page of the last segment, and whether all its pages are alike and one chunk each.
    segment: u32,
    plain: bool,
    /// Whether some of its pages are not to be validated, and whether some are.
    bare: bool,
    checked: bool,
    /// What was checked of the last page, and need not be of one that is like it.
    last: Kind,
}

impl<'s> Batch<'s> {
    #[inline]
    pub(crate) fn new(mut buffer: Buffer<'s>) -> Self {
        let head = buffer.head_mut();
        head.len = 0;
        head.class = 0;
        head.tag = 0;
        head.origin = 0;
        head.special = false;
        Self {
            buffer: ManuallyDrop::new(buffer),
            len: 0,
            segment: 0,
            plain: true,
            bare: false,
            checked: false,
            last: Kind::NONE,
        }
    }

    /// The buffer, with all that was said of its pages written down.
    #[inline]
    pub(crate) fn into_buffer(mut self) -> Buffer<'s> {
        self.close_segment();
        self.buffer.head_mut().len = self.len as u16;
        let buffer = Self::take(&mut self);
        core::mem::forget(self);
        buffer
    }

    /// Writes the last segment's length into its first page.
    #[inline]
    pub(crate) fn close_segment(&mut self) {
        if self.len > 0 {
            let (segment, len) = (self.segment, self.len);
            let seg = match (self.plain, self.bare, self.checked) {
                (true, true, false) => Segment::BARE,
                (true, false, true) => Segment::CHECKED,
                (true, ..) => Segment::PLAIN,
                (false, ..) => Segment::MIXED,
            };
            let first = self.buffer.page_mut(segment);
            first.seg_len = (len - segment) as u16;
            first.seg_done = 0;
            first.seg = seg;
        }
    }

    #[allow(unsafe_code, reason = "moves the buffer out of a value that is dropped or forgotten next")]
    #[inline]
    fn take(this: &mut Self) -> Buffer<'s> {
        // SAFETY: no caller touches `this.buffer` again: two forget `this`, the third is its drop.
        unsafe { ManuallyDrop::take(&mut this.buffer) }
    }

    pub(crate) fn engine(&self) -> u16 {
        self.buffer.limits.engine
    }

    /// Which submitter waits for it, from 1; 0 for the engine's own thread.
    pub(crate) fn set_origin(&mut self, origin: u16) {
        self.buffer.head_mut().origin = origin;
    }

    pub(crate) fn buffer_mut(&mut self) -> &mut Buffer<'s> {
        &mut self.buffer
    }

    /// How many pages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many pages it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        usize::from(self.buffer.limits.capacity)
    }

    /// Sets how urgent it is; [`Class::Urgent`] unless told otherwise.
    pub fn set_class(&mut self, class: Class) {
        self.buffer.head_mut().class = class as u8;
    }

    /// Sets a number of the caller's, to be found in the [`Done`] again; 0 unless told otherwise.
    pub fn set_tag(&mut self, tag: u64) {
        self.buffer.head_mut().tag = tag;
    }

    /// Adds the READ of `page` into `slot`, which stays with the engine until the page is done.
    ///
    /// # Errors
    ///
    /// The reason, and the slot back.
    // A slot and a page passed through memory, and a result back, cost more than the rest.
    #[inline(always)]
    pub fn read(&mut self, page: RemotePage, slot: Slot) -> Result<(), (ReadError, Slot)> {
        let last = self.last;
        let alike = page.source == last.source && slot.home() == last.home && page.len == last.len;
        let at = self.len;
        if !alike || at >= u32::from(self.buffer.limits.capacity) {
            let (of, to) = ((page.source, page.len, page.layout), (slot.home(), slot.len()));
            match Kind::check(of, to, self.buffer.limits, self.buffer.layouts, at) {
                Ok(kind) => self.turn_to(kind),
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
            state.phase = Phase::Bare;
            self.bare = true;
        } else {
            state.phase = Phase::Checked;
            state.expected = page.expected;
            self.checked = true;
        }
        self.len = at + 1;
        Ok(())
    }

    /// Adds the READ of `page` into `slot` by a plan: it lands there in another layout, with no copy in
    /// between. What the plan does not write stays as it is.
    ///
    /// # Errors
    ///
    /// The reason, and the slot back.
    pub fn read_with(
        &mut self,
        page: RemotePage,
        mut slot: Slot,
        plan: PlanRef,
    ) -> Result<(), (ReadError, Slot)> {
        match self.planned(page, &slot, plan) {
            Ok(kind) => {
                slot.follow(plan.number, plan.wrs);
                self.put(page.part_of(plan), slot, kind);
                Ok(())
            }
            Err(error) => Err((error, slot)),
        }
    }

    /// Adds the READ of another page into the slot of the page before, from byte `offset` of the slot on:
    /// a slot, which is of no layout, is filled from several pages, of one peer or of several.
    ///
    /// The slot comes back once, with the first of its pages, and its result is good only if all of them
    /// have arrived. Pages that overlap leave there whatever came last.
    ///
    /// # Errors
    ///
    /// The reason: there is no page before, the page ends beyond the slot, the batch is full, …
    pub fn read_also(&mut self, page: RemotePage, offset: u32) -> Result<(), ReadError> {
        let (slot, place) = self.last_slot()?;
        let room = slot.len().saturating_sub(offset as usize);
        let (of, to) = ((page.source, page.len, page.layout), (slot.home(), room));
        let kind = Kind::check(of, to, self.buffer.limits, self.buffer.layouts, self.len);
        let kind = kind.map_err(|error| match error {
            ReadError::SlotTooSmall { .. } => {
                let (page_bytes, slot_bytes) = (page.len, slot.len());
                ReadError::BeyondSlot { page_bytes, offset, slot_bytes }
            }
            error => error,
        })?;
        let view = slot.share(offset, place);
        self.put(page, view, Kind { home: Home::NONE, ..kind });
        Ok(())
    }

    /// The same by a plan, which says where in the slot the page lands: pages of 16 tokens in slots of 64,
    /// pages of one layer in slots of all, heads of several ranks.
    ///
    /// # Errors
    ///
    /// As [`read_also`](Self::read_also), or as [`read_with`](Self::read_with).
    pub fn read_also_with(&mut self, page: RemotePage, plan: PlanRef) -> Result<(), ReadError> {
        let (slot, place) = self.last_slot()?;
        let kind = self.planned(page, slot, plan)?;
        let mut view = slot.share(0, place);
        view.follow(plan.number, plan.wrs);
        self.put(page.part_of(plan), view, kind);
        Ok(())
    }

    /// The slot that the page before lands in, and its place.
    fn last_slot(&self) -> Result<(&Slot, u32), ReadError> {
        let pages = self.buffer.pages();
        let slot = |at: u32| pages[at as usize].slot.as_ref().ok_or(ReadError::NoSlot);
        let last = self.len.checked_sub(1).ok_or(ReadError::NoSlot)?;
        let at = slot(last)?.shares().unwrap_or(last);
        Ok((slot(at)?, at))
    }

    /// What a page is that lands in `slot` by `plan`, if it may.
    fn planned(&self, page: RemotePage, slot: &Slot, plan: PlanRef) -> Result<Kind, ReadError> {
        let Limits { engine, .. } = self.buffer.limits;
        if plan.engine != engine {
            return Err(ReadError::OtherEngine("plan"));
        }
        if page.source.engine() != engine {
            return Err(ReadError::OtherEngine("page"));
        }
        if slot.home().engine() != engine {
            return Err(ReadError::OtherEngine("slot"));
        }
        let layout = slot.home().layout();
        if page.layout != plan.reads || (layout != plan.writes && layout != NO_LAYOUT) {
            self.buffer.layouts.follows(&plan, page.layout, layout)?;
        }
        if page.len < plan.source_end {
            return Err(ReadError::PageTooSmall { page_bytes: page.len, plan_bytes: plan.source_end });
        }
        // Pages and slots are as long as can be, so only what is not the plan's is looked at.
        let (of, to) = ((page.source, plan.destination_end, layout), (slot.home(), slot.len()));
        Kind::check(of, to, self.buffer.limits, self.buffer.layouts, self.len)?;
        // Never alike: its chunks are work requests of the plan.
        Ok(Kind { source: page.source, home: Home::NONE, len: plan.bytes, chunks: plan.wrs })
    }

    /// Puts a page that has been checked into the next place.
    fn put(&mut self, page: RemotePage, slot: Slot, kind: Kind) {
        self.turn_to(kind);
        self.plain = false;
        let at = self.len;
        let state = self.buffer.page_mut(at);
        state.remote = page.addr;
        state.slot = Some(slot);
        state.source = page.source;
        state.len = kind.len;
        state.entry = page.entry;
        state.next = 0;
        state.left = kind.chunks;
        state.phase = if page.entry == NO_ENTRY { Phase::Bare } else { Phase::Checked };
        state.expected = page.expected;
        self.len = at + 1;
        self.buffer.head_mut().special = true;
    }

    /// The next page is not like the one before; where its peer is another, it begins a segment.
    #[inline]
    fn turn_to(&mut self, kind: Kind) {
        if self.len == 0 || kind.source.peer() != self.last.source.peer() {
            self.close_segment();
            (self.segment, self.plain) = (self.len, kind.chunks == 1);
            (self.bare, self.checked) = (false, false);
        } else {
            self.plain = false;
        }
        self.last = kind;
    }

    /// Empties it, slot by slot.
    pub fn clear(&mut self) -> impl Iterator<Item = Slot> + use<'_, 's> {
        let len = core::mem::take(&mut self.len);
        self.last = Kind::NONE;
        self.buffer.head_mut().special = false;
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

/// A batch that is done: a result for each page, and the slots back.
///
/// Dropping it gives the buffer back to the pool; slots not taken by then are lost.
#[derive(Debug)]
pub struct Done<'s> {
    batch: Batch<'s>,
}

/// Makes the user's slots of those of a batch that is done: without marks and views, and good only if all
/// that was to land in them has.
#[cold]
fn settle(pages: &mut [Page]) {
    let mut first = 0;
    for i in 0..pages.len() {
        match pages[i].slot.take().and_then(Slot::unmark) {
            Some(slot) => {
                pages[i].slot = Some(slot);
                first = i;
            }
            None => {
                if let (Ok(()), Err(error)) = (pages[first].result(), pages[i].result()) {
                    pages[first].phase = Phase::Lost;
                    pages[first].outcome = error;
                }
            }
        }
    }
}

/// One page of a [`Done`].
#[derive(Debug)]
pub struct DonePage {
    /// Its position in the batch.
    pub index: usize,
    /// The slot; it holds the page if `result` is `Ok`, anything at all if not.
    pub slot: Slot,
    /// What became of it.
    pub result: Result<(), PageError>,
}

impl DonePage {
    /// What became of the page.
    ///
    /// # Errors
    ///
    /// Why it did not arrive.
    pub fn result(&self) -> Result<(), PageError> {
        self.result
    }
}

impl<'s> Done<'s> {
    #[inline]
    pub(crate) fn new(mut buffer: Buffer<'s>) -> Self {
        let len = u32::from(buffer.head().len);
        if buffer.head().special {
            settle(&mut buffer.pages_mut()[..len as usize]);
        }
        let buffer = ManuallyDrop::new(buffer);
        let (plain, bare, checked) = (true, false, false);
        Self { batch: Batch { buffer, len, segment: 0, plain, bare, checked, last: Kind::NONE } }
    }

    /// What `submit` called it.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket { batch: self.batch.buffer.index(), serial: self.batch.buffer.head().serial }
    }

    /// The caller's number.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.batch.buffer.head().tag
    }

    pub(crate) fn origin(&self) -> u16 {
        self.batch.buffer.head().origin
    }

    /// How many pages it has: those that share a slot count each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// What became of the page at this position of the batch; of a page that has the slot to itself, or is
    /// the first of those that share it, what became of the slot. `None` beyond the last.
    ///
    /// # Errors
    ///
    /// Inside: why the page did not arrive.
    #[must_use]
    pub fn result(&self, index: usize) -> Option<Result<(), PageError>> {
        if index < self.len() { Some(self.batch.buffer.pages()[index].result()) } else { None }
    }

    /// Whether it has none; never, since an empty batch is not accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Takes its pages, in the order of the batch. Pages whose slots were taken before are left out, and of
    /// those that share a slot all but the first.
    #[inline]
    pub fn pages(&mut self) -> impl Iterator<Item = DonePage> + use<'_, 's> {
        let len = self.len();
        self.batch.buffer.pages_mut()[..len].iter_mut().enumerate().filter_map(|(index, page)| {
            Some(DonePage { index, slot: page.slot.take()?, result: page.result() })
        })
    }

    /// The buffer, empty, to be filled again. Slots not taken are lost.
    #[must_use]
    pub fn into_batch(self) -> Batch<'s> {
        let mut batch = self.batch;
        let buffer = Batch::take(&mut batch);
        core::mem::forget(batch);
        Batch::new(buffer)
    }
}
