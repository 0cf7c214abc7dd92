//! The pool of batch buffers: who owns a buffer, and how the ownership moves without a copy.
//!
//! A buffer (a [`Head`] and its pages) has exactly one owner at any time: the free set; a
//! [`Batch`](crate::batch::Batch) or [`Done`](crate::batch::Done), on any thread; or the engine,
//! from `submit` until the batch is done. The owner alone touches the cells.
#![allow(unsafe_code, reason = "buffers change owners across threads")]

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::layout::LayoutTable;
use crate::limits::{GROUP, narrow};
use crate::page::list::{Linked, PageLink, PageRef, Queued, Reported, Validating};
use crate::page::{Page, PageTable, Phase, are_at_rest};
use crate::plan::lives::{Epoch, PlanLives};
use crate::ring::free::FreeSet;
use crate::time::Time;

/// What is kept once per batch.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) len: u16,
    /// How many pages are not retired.
    pub(crate) left: u16,
    pub(crate) class: u8,
    /// Whether the caller is told of each page as soon as it has its final result.
    pub(crate) report: bool,
    /// How many pages a submitter has been told before the batch is done. It means something only
    /// if `report` is set.
    pub(crate) told: u16,
    /// The number of the submitter that gets the batch back; 0 for the engine's own thread.
    pub(crate) origin: u16,
    /// Whether the engine has the buffer.
    pub(crate) held: bool,
    /// Whether a chunk of the batch has been posted.
    pub(crate) started: bool,
    /// Whether a page lands by a plan.
    pub(crate) has_planned: bool,
    /// Whether rows of a page are read, which leave a mark in their slot.
    pub(crate) has_rows: bool,
    /// Whether a page shares the slot of another page, or is joined to one.
    pub(crate) has_shared: bool,
    /// How many pages from the first on joined in one call, with consecutive slots.
    pub(crate) in_range: u16,
    /// How many pages are in sets, behind the first of each.
    pub(crate) in_sets: u16,
    /// How many pages were retired without having arrived.
    pub(crate) failed: u16,
    /// The epoch in which no plan of the batch's pages had been forgotten. It means something only
    /// if there may be such pages.
    pub(crate) plan_epoch: Epoch,
    /// Whether each page must be looked at when its wrs complete: a page failed or is read again
    /// while wrs of it were outstanding, or the caller is told of each page.
    pub(crate) must_settle_each: bool,
    /// Counts the batches that were made of this buffer, so that each has a name of its own.
    pub(crate) serial: u32,
    pub(crate) deadline: Time,
    pub(crate) tag: u64,
}

impl Head {
    pub(crate) const EMPTY: Self = Self {
        len: 0,
        left: 0,
        class: 0,
        report: false,
        told: 0,
        origin: 0,
        held: false,
        started: false,
        has_planned: false,
        has_rows: false,
        has_shared: false,
        in_range: 0,
        in_sets: 0,
        failed: 0,
        plan_epoch: Epoch::FIRST,
        must_settle_each: false,
        serial: u32::MAX,
        deadline: Time::NEVER,
        tag: 0,
    };
}

/// The buffers of an engine's storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool<'s> {
    heads: &'s [UnsafeCell<Head>],
    pages: &'s [UnsafeCell<Page>],
    free: &'s [FreeSet],
    layouts: LayoutTable<'s>,
    plans: &'s PlanLives,
    limits: BufferLimits,
}

/// What every buffer of a pool has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferLimits {
    /// The most pages of a batch.
    pub(crate) capacity: u16,
    pub(crate) chunk_shift: u8,
    pub(crate) engine: u16,
}

// SAFETY: the cells behind a pool are touched by their owner only (module docs); ownership moves
// between threads through `FreeSet` (release/acquire) or with a `Buffer`, which is sent.
unsafe impl Send for Pool<'_> {}
// SAFETY: as above; `&Pool` only claims buffers.
unsafe impl Sync for Pool<'_> {}

/// The right to one buffer.
#[derive(Debug)]
pub(crate) struct Buffer<'s> {
    head: NonNull<Head>,
    pages: NonNull<UnsafeCell<Page>>,
    free: &'s FreeSet,
    index: u16,
    pub(crate) layouts: LayoutTable<'s>,
    pub(crate) plans: &'s PlanLives,
    pub(crate) limits: BufferLimits,
    lifetime: PhantomData<&'s mut [Page]>,
}

// SAFETY: a buffer is the only owner of its cells; Head and Page are Send.
unsafe impl Send for Buffer<'_> {}

impl<'s> Pool<'s> {
    /// A pool over cells that the pool alone uses from now on, as
    /// [`EngineStorage::open`](crate::storage::EngineStorage) has written them: `pages` holds as
    /// many for each head, `free` one word for each 64 heads.
    pub(crate) fn new(
        heads: &'s mut [Head],
        pages: &'s mut [Page],
        free: &'s [FreeSet],
        (layouts, plans): (LayoutTable<'s>, &'s PlanLives),
        chunk_shift: u8,
        engine: u16,
    ) -> Self {
        let pages_per_batch = pages.len() / heads.len();
        Self {
            heads: cells(heads),
            pages: cells(pages),
            free,
            layouts,
            plans,
            limits: BufferLimits { capacity: narrow(pages_per_batch), chunk_shift, engine },
        }
    }

    pub(crate) fn batches(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn pages_per_batch(&self) -> usize {
        usize::from(self.limits.capacity)
    }

    /// How many buffers are free. Other threads may claim and release some while it counts.
    pub(crate) fn free(&self) -> usize {
        self.free.iter().map(FreeSet::count).sum()
    }

    /// A free buffer.
    #[inline]
    pub(crate) fn claim(&self) -> Option<Buffer<'s>> {
        for (group, free) in self.free.iter().enumerate() {
            if let Some(bit) = free.claim() {
                return Some(self.buffer(narrow(GROUP * group + bit as usize)));
            }
        }
        None
    }

    /// The buffer number `index`, which the caller owns.
    #[inline]
    fn buffer(&self, index: u16) -> Buffer<'s> {
        let i = usize::from(index);
        let head = NonNull::from(&self.heads[i]).cast::<Head>();
        let per = usize::from(self.limits.capacity);
        let pages = NonNull::from(&self.pages[i * per..][..per]).cast::<UnsafeCell<Page>>();
        let Self { layouts, plans, limits, .. } = *self;
        let (free, lifetime) = (&self.free[i / GROUP], PhantomData);
        Buffer { head, pages, free, index, layouts, plans, limits, lifetime }
    }
}

/// Turns an exclusive slice of values into a shared slice of cells.
fn cells<T>(slice: &mut [T]) -> &[UnsafeCell<T>] {
    let cells = core::ptr::from_mut(slice) as *const [UnsafeCell<T>];
    // SAFETY: UnsafeCell<T> has the layout of T, and the exclusive borrow becomes the only access
    // to the cells.
    unsafe { &*cells }
}

impl Buffer<'_> {
    /// The position of a page, among the first `len`, whose plan was forgotten after the epoch in
    /// which the pages were checked.
    pub(crate) fn forgotten_plan(&self, len: u32) -> Option<usize> {
        let since = self.head().plan_epoch;
        let pages = &self.pages()[..len as usize];
        pages.iter().position(|page| page.plan().is_some_and(|plan| !self.plans.is_same(plan, since)))
    }

    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    #[inline]
    pub(crate) fn head(&self) -> &Head {
        // SAFETY: the buffer is the only owner of its head (module docs).
        unsafe { self.head.as_ref() }
    }

    #[inline]
    pub(crate) fn head_mut(&mut self) -> &mut Head {
        // SAFETY: the buffer is the only owner of its head, borrowed exclusively.
        unsafe { self.head.as_mut() }
    }

    /// All its pages, those beyond the batch's length included.
    #[inline]
    pub(crate) fn pages(&self) -> &[Page] {
        let first = self.pages.as_ptr().cast::<Page>();
        // SAFETY: as in `pages_mut`; the borrow of `self` keeps others from getting a mutable one.
        unsafe { core::slice::from_raw_parts(first, usize::from(self.limits.capacity)) }
    }

    /// As [`pages`](Self::pages), to be changed.
    #[inline]
    pub(crate) fn pages_mut(&mut self) -> &mut [Page] {
        let first = self.pages.as_ptr().cast::<Page>();
        // SAFETY: `capacity` pages follow `first`; the buffer is their only owner, borrowed
        // exclusively.
        unsafe { core::slice::from_raw_parts_mut(first, usize::from(self.limits.capacity)) }
    }

    /// Page `i`.
    ///
    /// # Panics
    ///
    /// If `i` is not below the capacity.
    #[inline]
    pub(crate) fn page_mut(&mut self, i: u32) -> &mut Page {
        &mut self.pages_mut()[i as usize]
    }

    /// Gives the buffer back to the pool.
    #[inline]
    pub(crate) fn release(self) {
        self.free.release(u32::from(self.index) % u64::BITS);
    }
}

/// The engine's access to the batches that it holds.
#[derive(Debug)]
pub(crate) struct Held<'s> {
    pool: Pool<'s>,
}

impl<'s> Held<'s> {
    pub(crate) fn new(pool: Pool<'s>) -> Self {
        Self { pool }
    }

    pub(crate) fn pool(&self) -> Pool<'s> {
        self.pool
    }

    /// Takes a buffer over: the engine owns it from now on. Returns its first page.
    #[inline]
    pub(crate) fn take(&mut self, mut buffer: Buffer<'s>) -> PageRef {
        buffer.head_mut().held = true;
        PageRef(u32::from(buffer.index) * u32::from(buffer.limits.capacity))
    }

    /// Gives a buffer up. The engine has no `PageRef` of it any more: each ring record, link and
    /// queue that has one counts in a page's `left`, and all pages have been retired.
    ///
    /// # Panics
    ///
    /// If the engine does not hold the buffer, or a page of it is not retired. Either is a bug of
    /// the engine.
    #[inline]
    pub(crate) fn give_up(&mut self, index: u16) -> Buffer<'s> {
        let mut buffer = self.pool.buffer(index);
        let head = buffer.head_mut();
        assert!(head.held && head.left == 0, "a batch leaves the engine before it is done");
        head.held = false;
        let len = usize::from(head.len);
        debug_assert!(
            are_at_rest(&buffer.pages()[..len]),
            "a batch leaves the engine while a page of it is in a list"
        );
        buffer
    }

    #[inline]
    pub(crate) fn head(&mut self, index: u16) -> &mut Head {
        let cell = self.pool.heads[usize::from(index)].get();
        // SAFETY: the engine names only batches that it holds, so it is the cell's only owner; the
        // borrow of `self` makes this the only reference.
        let head = unsafe { &mut *cell };
        debug_assert!(head.held);
        head
    }

    /// `len` pages of one batch that the engine holds, from `first` on.
    #[inline]
    pub(crate) fn slice(&mut self, first: PageRef, len: u32) -> &mut [Page] {
        let cells = &self.pool.pages[first.0 as usize..][..len as usize];
        let start = UnsafeCell::raw_get(cells.as_ptr());
        // SAFETY: as in `at`, for each of the `len` pages, which lie within one slice of cells.
        unsafe { core::slice::from_raw_parts_mut(start, cells.len()) }
    }

    /// The pages of the set that begins with `first`.
    #[inline]
    pub(crate) fn set(&mut self, first: PageRef) -> &mut [Page] {
        let len = self.set_len(first);
        self.slice(first, len.into())
    }

    /// How many pages the set has that begins with `page`; 1 if none does.
    #[inline]
    pub(crate) fn set_len(&mut self, page: PageRef) -> u16 {
        if self.at(page).begins_set() { self.at(PageRef(page.0 + 1)).seg_done } else { 1 }
    }

    /// The first page of the set that `page` belongs to; `page` itself if it is in none.
    #[inline]
    pub(crate) fn first_of_set(&mut self, page: PageRef) -> PageRef {
        let p = self.at(page);
        if p.phase == Phase::InSet { PageRef(page.0 - u32::from(p.seg_len)) } else { page }
    }

    /// The first page of a batch.
    pub(crate) fn first(&self, batch: u16) -> PageRef {
        PageRef(u32::from(batch) * u32::from(self.pool.limits.capacity))
    }
}

impl PageTable for Held<'_> {
    #[inline]
    fn at(&mut self, page: PageRef) -> &mut Page {
        let cells = self.pool.pages;
        let cell = cells[page.0 as usize].get();
        // SAFETY: a PageRef is made from a held batch and dropped before the batch is given up (see
        // `give_up`), so the engine is the cell's only owner; the borrow of `self` makes this the
        // only reference. An `UnsafeCell` permits the write through a shared slice.
        unsafe { &mut *cell }
    }
}

impl Linked<Queued> for Held<'_> {
    #[inline]
    fn link(&mut self, page: PageRef) -> &mut PageLink {
        &mut self.at(page).queue
    }
}

impl Linked<Reported> for Held<'_> {
    #[inline]
    fn link(&mut self, page: PageRef) -> &mut PageLink {
        &mut self.at(page).validate
    }
}

impl Linked<Validating> for Held<'_> {
    #[inline]
    fn link(&mut self, page: PageRef) -> &mut PageLink {
        &mut self.at(page).validate
    }
}
