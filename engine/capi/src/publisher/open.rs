//! A publisher that is open, with the slots that are being written.
#![allow(unsafe_code, reason = "guards of slots stand beside the publisher that they borrow")]

use std::collections::{HashMap, VecDeque};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::session::PoolId;
use engine::session::handover::EndedHandover;
use engine::{
    ForeignSlotGuard, GrowingForeignPage, GrowingPage, KeyTag, Location, Publisher, PublisherPool, SlotGuard,
};

use crate::error::CapiError;

/// How many parts the table of begun slots has, each with a lock of its own.
const SHARDS: usize = 16;

/// The bytes of a slot that was begun: null where they are not the publisher's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotBytes {
    pub(crate) address: *mut u8,
    pub(crate) bytes: u64,
}

/// The guard of a slot that was begun.
enum Guard {
    Own(SlotGuard<'static>),
    Grows(GrowingPage<'static>),
    Foreign(ForeignSlotGuard<'static>),
    ForeignGrows(GrowingForeignPage<'static>),
}

/// The guards of one part of the slots, by pool and slot.
type Shard = Mutex<HashMap<(u32, u32), Guard>>;

/// A publisher and the guards of its slots.
pub(crate) struct Open {
    /// Out of a box, to which it goes back in `drop`.
    publisher: NonNull<Publisher>,
    /// Emptied before the publisher is dropped. No guard leaves this table but to end in the call
    /// that took it out.
    guards: [Shard; SHARDS],
    /// Hand-overs that have ended, whose lists did not fit into what the caller gave.
    ended: Mutex<VecDeque<EndedHandover>>,
}

// SAFETY: the pointer stands for a box with a Publisher, which is Send and Sync; guards are Send.
unsafe impl Send for Open {}
// SAFETY: as above. Guards are behind locks.
unsafe impl Sync for Open {}

impl Open {
    pub(crate) fn new(publisher: Publisher) -> Self {
        let publisher = NonNull::from(Box::leak(Box::new(publisher)));
        Self { publisher, guards: Default::default(), ended: Mutex::default() }
    }

    /// The publisher, for as long as it is open.
    pub(crate) fn publisher(&self) -> &Publisher {
        self.for_guards()
    }

    /// The publisher, for guards that go into the table.
    fn for_guards(&self) -> &'static Publisher {
        // SAFETY: out of a box that only `drop` takes back, after all guards have been dropped.
        // Besides guards in the table nothing that is made of the reference outlives a call, during
        // which `self` is borrowed: `publisher` shortens it, and this function is private.
        unsafe { self.publisher.as_ref() }
    }

    fn pool(&self, pool: u32) -> Result<PublisherPool<'static>, CapiError> {
        self.for_guards().pool(PoolId(pool)).ok_or(CapiError::NoPool { pool })
    }

    /// The pool of this number.
    pub(crate) fn with_pool<R>(
        &self,
        pool: u32,
        with: impl FnOnce(&PublisherPool<'_>) -> Result<R, CapiError>,
    ) -> Result<R, CapiError> {
        with(&self.pool(pool)?)
    }

    fn shard(&self, pool: u32, slot: u32) -> MutexGuard<'_, HashMap<(u32, u32), Guard>> {
        let at = (slot ^ pool) as usize % SHARDS;
        // A table of guards is valid whichever thread panicked.
        self.guards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `slot` to be written. From now on every reader misses its earlier page.
    pub(crate) fn begin(&self, pool: u32, slot: u32, tag: KeyTag) -> Result<SlotBytes, CapiError> {
        let slots = self.pool(pool)?;
        let (guard, bytes) = match slots.foreign() {
            Some(foreign) => {
                let bytes = SlotBytes { address: ptr::null_mut(), bytes: slots.layout().page_bytes().into() };
                (Guard::Foreign(foreign.overwrite(slot, tag)?), bytes)
            }
            None => {
                let mut guard = slots.overwrite(slot, tag)?;
                let page = guard.bytes();
                let bytes = SlotBytes { address: page.as_mut_ptr(), bytes: page.len() as u64 };
                (Guard::Own(guard), bytes)
            }
        };
        // A slot has one guard at a time, so none is replaced.
        self.shard(pool, slot).insert((pool, slot), guard);
        Ok(bytes)
    }

    fn take(&self, pool: u32, slot: u32) -> Result<Guard, CapiError> {
        let guard = self.shard(pool, slot).remove(&(pool, slot));
        guard.ok_or(CapiError::NotBegun { pool, slot })
    }

    /// Publishes the page in a slot that was begun, of which no part is ready yet.
    pub(crate) fn grow(&self, pool: u32, slot: u32) -> Result<Location, CapiError> {
        let mut shard = self.shard(pool, slot);
        let guard = shard.remove(&(pool, slot)).ok_or(CapiError::NotBegun { pool, slot })?;
        let (guard, grown) = match guard {
            Guard::Own(guard) => {
                let page = guard.grow();
                let location = page.location();
                (Guard::Grows(page), Ok(location))
            }
            Guard::Foreign(guard) => {
                let page = guard.grow();
                let location = page.location();
                (Guard::ForeignGrows(page), Ok(location))
            }
            growing => (growing, Err(CapiError::Grows { pool, slot })),
        };
        shard.insert((pool, slot), guard);
        grown
    }

    /// Makes all parts below number `parts` ready of a page that grows.
    pub(crate) fn set_ready(&self, pool: u32, slot: u32, parts: u32) -> Result<Location, CapiError> {
        match self.shard(pool, slot).get_mut(&(pool, slot)) {
            Some(Guard::Grows(page)) => Ok(page.set_ready(parts, |_| ())?),
            Some(Guard::ForeignGrows(page)) => Ok(page.set_ready(parts)?),
            _ => Err(CapiError::NotBegun { pool, slot }),
        }
    }

    /// Publishes the whole page in a slot that was begun, and ends its writing.
    pub(crate) fn publish(&self, pool: u32, slot: u32) -> Result<Location, CapiError> {
        Ok(match self.take(pool, slot)? {
            Guard::Own(guard) => guard.publish(),
            Guard::Foreign(guard) => guard.publish(),
            Guard::Grows(page) => page.finish(|_| ())?,
            Guard::ForeignGrows(page) => page.finish()?,
        })
    }

    /// The hand-overs that have ended, and are kept for the next call.
    pub(crate) fn kept_ended(&self) -> MutexGuard<'_, VecDeque<EndedHandover>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the writing of a slot that was begun, which stays a miss.
    pub(crate) fn abandon(&self, pool: u32, slot: u32) -> Result<(), CapiError> {
        self.take(pool, slot).map(drop)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        for shard in &mut self.guards {
            shard.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        }
        // SAFETY: out of a box, and taken back once. The guards, which borrowed it, are gone.
        drop(unsafe { Box::from_raw(self.publisher.as_ptr()) });
    }
}
