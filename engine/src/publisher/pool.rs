//! The pools of a publisher, and what is done with their slots.

use std::marker::PhantomData;
use std::sync::Arc;

use kvrail_core::remote::Location;
use kvrail_core::table::{KeyTag, Ready};
use kvrail_session::PoolId;
use kvrail_session::handover::Block;

use super::error::WriteError;
use super::foreign_guard::ForeignSlots;
use super::guard::{SlotGuard, grow};
use super::offered::OfferedPool;
use super::slots::LocalPage;
use crate::layout::PageLayout;

/// One pool of a [`Publisher`](crate::Publisher): slots for pages of one layout. It is a handle,
/// which is cloned freely; any thread may have one, also of a pool that has been withdrawn.
///
/// Two threads never write one slot: each call that writes holds the slot until it returns, and
/// each guard until it ends. A second one is refused meanwhile. Calls about different slots never
/// wait for each other.
#[derive(Clone, Debug)]
pub struct PublisherPool<'a> {
    pool: Arc<OfferedPool>,
    /// It does not outlive the publisher.
    publisher: PhantomData<&'a ()>,
}

impl<'a> PublisherPool<'a> {
    pub(super) const fn of(pool: Arc<OfferedPool>) -> Self {
        Self { pool, publisher: PhantomData }
    }

    /// Its number, as the blocks of hand-overs name it.
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.pool.id
    }

    /// The layout of its pages.
    #[must_use]
    pub fn layout(&self) -> &PageLayout {
        &self.pool.layout
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.pool.slots.count()
    }

    /// Its slots, if another owner writes their pages ([`ForeignPool`](crate::ForeignPool)). The
    /// calls here that give bytes are refused then.
    #[must_use]
    pub fn foreign(&self) -> Option<ForeignSlots<'a>> {
        let slots = &self.pool.slots;
        slots.shape().pages.is_none().then(|| ForeignSlots::of(Arc::clone(slots)))
    }

    /// Takes `slot` to write a page into it, which is published under `tag`. From now on every
    /// reader misses the slot's earlier page. The guard gives the bytes, and publishes the page.
    ///
    /// ```
    /// use kvrail::{KeyTag, Location, PublisherPool, WriteError};
    ///
    /// /// Any number of threads do this at a time, for slots of their own.
    /// fn put(pool: PublisherPool<'_>, slot: u32, tag: KeyTag) -> Result<Location, WriteError> {
    ///     let mut guard = pool.overwrite(slot, tag)?;
    ///     guard.bytes().fill(7);
    ///     Ok(guard.publish())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// No such slot, another guard of it exists, or no random numbers; another owner writes the
    /// pool's pages; the pool is withdrawn; or the process is a child of a fork. The slot is as it
    /// was.
    pub fn overwrite(&self, slot: u32, tag: KeyTag) -> Result<SlotGuard<'a>, WriteError> {
        SlotGuard::invalidating(self.pool.slots.claim_own(slot)?, tag)
    }

    /// Overwrites `slot` and publishes it under `tag`. `fill` is given the bytes of the slot's
    /// earlier page, and leaves the new page there. If `fill` panics, the slot stays a miss. Where
    /// other threads write for `fill`, it waits for them before it returns, as
    /// [`SlotGuard::bytes`] says.
    ///
    /// # Errors
    ///
    /// As [`overwrite`](Self::overwrite).
    pub fn write(
        &self,
        slot: u32,
        tag: KeyTag,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Location, WriteError> {
        let mut guard = self.overwrite(slot, tag)?;
        fill(guard.bytes());
        Ok(guard.publish())
    }

    /// Publishes a page under `tag` of which no part is ready yet: the slot still has the bytes of
    /// its earlier page, which every reader misses from now on. No guard stays: the page grows by
    /// [`set_ready`](Self::set_ready) and [`finish`](Self::finish), called by any threads.
    /// [`SlotGuard::grow`] is the form with a guard.
    ///
    /// # Errors
    ///
    /// As [`overwrite`](Self::overwrite).
    pub fn begin(&self, slot: u32, tag: KeyTag) -> Result<Location, WriteError> {
        Ok(self.overwrite(slot, tag)?.grow().release())
    }

    /// Lets `fill` write parts of a page that grows, and makes all parts below number `parts`
    /// ready, as [`GrowingPage::set_ready`](crate::GrowingPage::set_ready) does. If `fill` panics,
    /// no further part becomes ready, and the page goes on as before.
    ///
    /// The call grows the page that is in the slot now. A thread whose page another thread may have
    /// taken back and replaced holds a [`GrowingPage`](crate::GrowingPage) instead.
    ///
    /// # Errors
    ///
    /// No such slot, a guard of it exists, no page in it, or as many parts or more are ready
    /// already. `fill` has not been called then, unless the page was taken back while it was at
    /// work.
    pub fn set_ready(
        &self,
        slot: u32,
        parts: u32,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Location, WriteError> {
        grow(&mut self.pool.slots.claim_own(slot)?, Ready(parts), fill)
    }

    /// Lets `fill` write the last parts of a page that grows, and makes the whole page ready. Apart
    /// from that as [`set_ready`](Self::set_ready).
    ///
    /// # Errors
    ///
    /// As [`set_ready`](Self::set_ready), if the whole page is ready already.
    pub fn finish(&self, slot: u32, fill: impl FnOnce(&mut [u8])) -> Result<Location, WriteError> {
        grow(&mut self.pool.slots.claim_own(slot)?, Ready::WHOLE, fill)
    }

    /// Takes the page in `slot` back, from any thread, guard or not: from now on every reader
    /// misses it. A page that grows is ended by that. A guard that is overwriting the slot goes on,
    /// and may publish its page.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn invalidate(&self, slot: u32) -> Result<(), WriteError> {
        self.pool.slots.entry(slot)?.invalidate();
        Ok(())
    }

    /// The bytes in `slot`, published or not. While the returned value exists, the slot cannot be
    /// written.
    ///
    /// # Errors
    ///
    /// No such slot, or it is being written.
    pub fn page(&self, slot: u32) -> Result<LocalPage<'a>, WriteError> {
        self.pool.slots.read(slot)
    }

    /// The location of the page in `slot`, if one is published.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn location(&self, slot: u32) -> Result<Option<Location>, WriteError> {
        let expected = self.pool.slots.entry(slot)?.snapshot();
        Ok(expected.generation.is_valid().then_some(Location { slot, expected }))
    }

    /// How often `slot` has been published so far, modulo 2^31: the next
    /// [`count`](kvrail_core::table::Generation::count) is one more.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn publications(&self, slot: u32) -> Result<u32, WriteError> {
        Ok(self.pool.slots.entry(slot)?.load().count())
    }

    /// The page in `slot`, as a block of a hand-over; `None` if none is published.
    ///
    /// # Errors
    ///
    /// No such slot.
    pub fn block(&self, slot: u32) -> Result<Option<Block>, WriteError> {
        let pool = self.id();
        let block = |Location { slot, expected }| Block { pool, slot, expected, ready: expected.ready.0 };
        Ok(self.location(slot)?.map(block))
    }
}
