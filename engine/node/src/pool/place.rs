//! A slot that is being filled.

use std::sync::Arc;

use kvrail::session::PoolId;
use kvrail::{PublisherPool, SlotGuard};
use kvrail_core::remote::Location;

use super::error::PutError;
use super::shared::Shared;
use crate::key::Key;
use crate::record::Record;

/// A slot that a thread has to itself. Dropping it gives the slot back without a page.
#[derive(Debug)]
pub(super) struct Reservation {
    shared: Arc<Shared>,
    pub(super) slot: u32,
    /// The publisher refused the slot.
    refused: bool,
    /// The slot has its page, or has been given back.
    ended: bool,
}

impl Reservation {
    pub(super) const fn new(shared: Arc<Shared>, slot: u32) -> Self {
        Self { shared, slot, refused: false, ended: false }
    }

    /// The publisher refused the slot, which is given back.
    pub(super) fn refuse(mut self) {
        self.refused = true;
    }

    /// Publishes the page of `key` by `publish`, unless it was removed while it was written.
    pub(super) fn publish(mut self, key: Key, publish: impl FnOnce() -> Location) -> Option<Record> {
        let slot = self.slot;
        let record = self.shared.change(|table| {
            // Under the lock, so that a key that is removed later finds the page, and a page that
            // was removed before does not come.
            table.may_publish(slot).then(|| table.published(slot, key, publish().expected.generation))
        })?;
        self.ended = true;
        Some(record)
    }

    /// As [`publish`](Self::publish), if no other slot has the page of `key`; `Err` with that one
    /// otherwise.
    pub(super) fn publish_unless_elsewhere(
        mut self,
        key: Key,
        publish: impl FnOnce() -> Location,
    ) -> Option<Result<Record, Record>> {
        let slot = self.slot;
        let record = self.shared.change(|table| {
            table.may_publish(slot).then(|| match table.record(key) {
                Some(elsewhere) => Err(elsewhere),
                None => Ok(table.published(slot, key, publish().expected.generation)),
            })
        })?;
        self.ended = record.is_ok();
        Some(record)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.change(|table| table.abandon(self.slot, self.refused));
        }
    }
}

/// A slot of a [`PagePool`](crate::PagePool) that is being filled with the page of a key. No peer
/// and no thread can see the page before [`commit`](Self::commit).
///
/// Dropping it, also by a panic, leaves no page of the key and gives the slot back. One that is
/// forgotten ([`std::mem::forget`]) keeps its slot and its key for ever.
#[must_use = "dropping it gives the slot back without a page"]
pub struct PlaceGuard<'a> {
    // Before the reservation: when the slot can be taken again, no guard of it exists.
    guard: SlotGuard<'a>,
    reservation: Reservation,
    key: Key,
    pool: PoolId,
}

impl<'a> PlaceGuard<'a> {
    /// Makes the slot's earlier page a miss.
    pub(super) fn overwriting(
        pool: &PublisherPool<'a>,
        reservation: Reservation,
        key: Key,
    ) -> Result<Self, PutError> {
        match pool.overwrite(reservation.slot, key.0) {
            Ok(guard) => Ok(Self { guard, reservation, key, pool: pool.id() }),
            Err(error) => {
                // Its key leads nowhere now, so its earlier page goes as well.
                _ = pool.invalidate(reservation.slot);
                reservation.refuse();
                Err(PutError::Write { pool: pool.id(), source: error })
            }
        }
    }

    /// The key of the page.
    #[must_use]
    pub const fn key(&self) -> Key {
        self.key
    }

    /// The bytes of the page, at first those of an earlier one. [`kvrail::SlotGuard::bytes`] says
    /// what holds where several threads fill them.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.guard.bytes()
    }

    /// Publishes the page.
    ///
    /// # Errors
    ///
    /// The key was removed, or the pool was cleared, since the slot was handed out
    /// ([`PutError::Removed`]).
    ///
    /// # Panics
    ///
    /// In a child of a fork: the slot is the parent's.
    pub fn commit(self) -> Result<Record, PutError> {
        let Self { guard, reservation, key, pool } = self;
        // A page that was removed meanwhile is not published: the guard is dropped in the closure's
        // place, and the reservation gives the slot back only after it.
        reservation.publish(key, || guard.publish()).ok_or(PutError::Removed { pool, key })
    }
}

impl std::fmt::Debug for PlaceGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlaceGuard")
            .field("key", &self.key)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}
