//! Pages by key in the memory of an inference engine.

use std::sync::Arc;

use kvrail::session::PoolId;
use kvrail::{ForeignSlotGuard, ForeignSlots, KeyTag, PageLayout, Publisher, PublisherPool};

use super::error::{EngineSlotError, OpenPoolError};
use super::held::Pin;
use super::place::Reservation;
use super::shared::{Hold, Shared};
use super::state::{Refused, SlotTable};
use super::statistics::PoolStatistics;
use crate::announce::Announcer;
use crate::key::Key;
use crate::record::Record;

/// What became of a page of an engine that was to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a caller decides by it, and a further outcome would break it")]
pub enum Published {
    /// The page can be read by peers.
    Here(Record),
    /// Another slot has the page of this key, and the slot stays a miss.
    Elsewhere(Record),
}

/// Pages by key in memory that an inference engine owns and writes: the engine says which page is
/// in which slot. It evicts nothing. Any number of threads share it.
///
/// The promise of [`kvrail::ForeignMemory`] holds: bytes of a slot are written only after
/// [`overwrite_slot`](Self::overwrite_slot), or after [`withdraw_slot`](Self::withdraw_slot) or
/// before the first page, and are complete and visible when they are published, as
/// [`kvrail::ForeignSlotGuard::publish`] says. Dropping it makes its pages misses.
pub struct EnginePool {
    publisher: Arc<Publisher>,
    id: PoolId,
    layout: PageLayout,
    page_bytes: usize,
    shared: Arc<Shared>,
}

impl EnginePool {
    /// Opens a pool of `publisher`, in whose slots nothing has been published yet.
    ///
    /// # Errors
    ///
    /// There is no such pool, or its pages are the publisher's own memory.
    pub fn open(publisher: Arc<Publisher>, pool: PoolId) -> Result<Self, OpenPoolError> {
        let of = publisher.pool(pool).ok_or(OpenPoolError::NoPool { pool })?;
        if of.foreign().is_none() {
            return Err(OpenPoolError::Own { pool });
        }
        let layout = *of.layout();
        let page_bytes = layout.page_bytes() as usize;
        let shared = Shared::new(SlotTable::new(publisher.epoch(), pool, of.slots(), false));
        drop(of);
        Ok(Self { publisher, id: pool, layout, page_bytes, shared })
    }

    /// Has the pool's pages announced by `announcer`, and withdrawn when they go. Returns `false`,
    /// and changes nothing, if another announcer has the pool already.
    pub fn announce_by(&self, announcer: &Announcer) -> bool {
        announcer.add(&self.shared, |wake| self.shared.wakes(wake))
    }

    /// The pool's number.
    #[must_use]
    pub const fn id(&self) -> PoolId {
        self.id
    }

    /// The layout of its pages.
    #[must_use]
    pub const fn layout(&self) -> &PageLayout {
        &self.layout
    }

    fn pool(&self) -> Option<PublisherPool<'_>> {
        self.publisher.pool(self.id)
    }

    /// Publishes the page of `key`, which the engine has written into `slot`, in which no page is
    /// published.
    ///
    /// # Errors
    ///
    /// No such slot; a page is published there, or it has a guard; the pool is withdrawn; or the
    /// publisher refused the slot.
    pub fn publish_slot(&self, slot: u32, key: Key) -> Result<Published, EngineSlotError> {
        self.take(slot, true)?.publish(key)
    }

    /// Takes `slot`, which the engine is about to write. From now on every reader misses its
    /// earlier page. Call it before the first byte is written, and before a kernel that writes one
    /// is launched.
    ///
    /// # Errors
    ///
    /// No such slot; its page is pinned, or it has a guard; the pool is withdrawn; or the publisher
    /// refused the slot.
    pub fn overwrite_slot(&self, slot: u32) -> Result<OverwriteGuard<'_>, EngineSlotError> {
        self.take(slot, false)
    }

    fn take(&self, slot: u32, empty: bool) -> Result<OverwriteGuard<'_>, EngineSlotError> {
        let pool = self.id;
        let withdrawn = EngineSlotError::Withdrawn { pool };
        let of = self.pool().ok_or(withdrawn)?;
        let slots = of.foreign().ok_or(withdrawn)?;
        let claim = |table: &mut SlotTable| {
            table.claim(slot, empty)?;
            // Under the lock: from its release on the key of the earlier page leads nowhere, so
            // another thread that removes it would take it for a miss. The slot exists.
            _ = of.invalidate(slot);
            Ok(())
        };
        self.shared.change(claim).map_err(|refused| match refused {
            Refused::NoSlot => EngineSlotError::Slot { pool, slot, slots: of.slots() },
            Refused::Published(key) => EngineSlotError::Published { pool, slot, key },
            Refused::BeingWritten => EngineSlotError::BeingWritten { pool, slot },
            Refused::Pinned(pins) => EngineSlotError::Pinned { pool, slot, pins },
        })?;
        let reservation = Reservation::new(Arc::clone(&self.shared), slot);
        // The key is not known yet, and nothing is published under this tag.
        match slots.overwrite(slot, KeyTag(0)) {
            Ok(guard) => Ok(OverwriteGuard { guard, reservation, slots, pool }),
            Err(source) => {
                // Its key leads nowhere now, so its earlier page goes as well.
                _ = of.invalidate(slot);
                reservation.refuse();
                Err(EngineSlotError::Write { pool, source })
            }
        }
    }

    /// Takes the page in `slot` back: a miss for every reader when this returns, pinned or not. A
    /// page that is written under a guard does not come ([`EngineSlotError::Removed`]). Returns
    /// whether there was one of the two. A slot that does not exist has none.
    pub fn withdraw_slot(&self, slot: u32) -> bool {
        let Some(pool) = self.pool().filter(|pool| slot < pool.slots()) else { return false };
        self.shared.change(|table| {
            let removed = table.remove_slot(slot);
            // Under the lock: later the slot may have another page.
            _ = pool.invalidate(slot);
            removed
        })
    }

    /// Removes the page of `key`, as [`withdraw_slot`](Self::withdraw_slot) does. Returns its slot,
    /// if it was there.
    pub fn remove(&self, key: Key) -> Option<u32> {
        let pool = self.pool();
        self.shared.change(|table| {
            let slot = table.remove(key)?;
            if let Some(pool) = &pool {
                // Under the lock: later the slot may have another page. It exists.
                _ = pool.invalidate(slot);
            }
            Some(slot)
        })
    }

    /// Removes all pages, also those that are written under guards. Pages that are begun meanwhile
    /// may stay. Returns how many were removed.
    pub fn clear(&self) -> u32 {
        self.shared.clear(self.pool().as_ref())
    }

    /// Whether the page of `key` is there.
    #[must_use]
    pub fn contains(&self, key: Key) -> bool {
        self.record(key).is_some()
    }

    /// Where the page of `key` is, if it is there.
    #[must_use]
    pub fn record(&self, key: Key) -> Option<Record> {
        self.shared.lock().record(key)
    }

    /// Keeps the slot of the page of `key` from being overwritten by
    /// [`overwrite_slot`](Self::overwrite_slot), if the page is there.
    pub fn pin(&self, key: Key) -> Option<Pin> {
        Hold::of(&self.shared, key).map(Pin::of)
    }

    /// The numbers of the pool.
    #[must_use]
    pub fn statistics(&self) -> PoolStatistics {
        self.shared.statistics(self.page_bytes)
    }

    /// The pool's numbers, for as long as the pool is there; zeros after that.
    pub(crate) fn statistics_source(&self) -> impl Fn() -> PoolStatistics + Send + Sync + use<> {
        let (shared, page_bytes) = (Arc::downgrade(&self.shared), self.page_bytes);
        move || shared.upgrade().map_or_else(PoolStatistics::default, |shared| shared.statistics(page_bytes))
    }
}

impl Drop for EnginePool {
    fn drop(&mut self) {
        self.clear();
        self.shared.close();
    }
}

impl std::fmt::Debug for EnginePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnginePool")
            .field("id", &self.id)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

/// A slot that the engine is writing: a miss for every reader. Dropping it, also by a panic, leaves
/// the slot without a page.
#[must_use = "dropping it leaves the slot without a page"]
pub struct OverwriteGuard<'a> {
    // Before the reservation: when the slot can be taken again, no guard of it exists.
    guard: ForeignSlotGuard<'a>,
    reservation: Reservation,
    slots: ForeignSlots<'a>,
    pool: PoolId,
}

impl OverwriteGuard<'_> {
    /// The slot.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.reservation.slot
    }

    /// Publishes the bytes of the slot as the page of `key`. They are complete and visible, as
    /// [`kvrail::ForeignSlotGuard::publish`] says.
    ///
    /// # Errors
    ///
    /// The slot was withdrawn, or the pool was cleared, since the guard was made; or the publisher
    /// refused the slot. The slot has no page then.
    ///
    /// # Panics
    ///
    /// In a child of a fork: the slot is the parent's.
    pub fn publish(self, key: Key) -> Result<Published, EngineSlotError> {
        let Self { guard, reservation, slots, pool } = self;
        let slot = reservation.slot;
        // Now the key is known. The slot stays a miss, and no other thread of this pool takes it.
        drop(guard);
        let guard = match slots.overwrite(slot, key.0) {
            Ok(guard) => guard,
            Err(source) => {
                reservation.refuse();
                return Err(EngineSlotError::Write { pool, source });
            }
        };
        match reservation.publish_unless_elsewhere(key, || guard.publish()) {
            Some(Ok(record)) => Ok(Published::Here(record)),
            Some(Err(record)) => Ok(Published::Elsewhere(record)),
            None => Err(EngineSlotError::Removed { pool, slot }),
        }
    }
}

impl std::fmt::Debug for OverwriteGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverwriteGuard").field("slot", &self.slot()).finish_non_exhaustive()
    }
}
