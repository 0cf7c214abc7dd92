//! The pools of a publisher, which come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use kvrail_session::{MAX_POOLS, Pool, PoolError, PoolId};

use super::config::PoolSpec;
use super::error::{PublisherError, WithdrawError};
use super::exports::ForeignExports;
use super::foreign::ForeignPool;
use super::offered::{OfferedPool, Publishing, parts_of};
use super::placing::{check_apart, place};
use super::registering::Registering;
use super::slots::Maker;
use crate::transport::Exporter;

type Pools = BTreeMap<PoolId, Arc<OfferedPool>>;

/// The pools of a publisher.
pub(super) struct OpenPools {
    maker: Maker,
    registering: Registering,
    /// Locked for as long as it takes to look a pool up, or to put one in.
    // Dropped before the exporter, which is among the changes.
    pools: RwLock<Pools>,
    /// The pools that are being offered or withdrawn. Locked for as long as it takes to look.
    busy: Mutex<BTreeSet<PoolId>>,
    /// Locked while a pool is made, which takes minutes where it is large.
    changes: Mutex<Changes>,
}

struct Changes {
    /// The number of the next pool.
    next: u32,
    /// The foreign memory that is readable.
    foreign: ForeignExports,
    /// Always there, until the publisher is dropped.
    exporter: Option<Box<dyn Exporter>>,
}

/// The locks here guard plain values, which are valid whichever thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenPools {
    /// No pool yet.
    pub(super) fn new(exporter: Box<dyn Exporter>, registering: Registering) -> Self {
        let changes = Changes { next: 0, foreign: ForeignExports::default(), exporter: Some(exporter) };
        let (maker, pools, busy) = (Maker::current(), RwLock::default(), Mutex::default());
        Self { maker, registering, pools, busy, changes: Mutex::new(changes) }
    }

    /// The pool of this number.
    pub(super) fn get(&self, id: PoolId) -> Option<Arc<OfferedPool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone)
    }

    /// All pools, in the order of their numbers.
    pub(super) fn all(&self) -> Vec<Arc<OfferedPool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    fn change<R>(&self, change: impl FnOnce(&mut Pools) -> R) -> R {
        change(&mut self.pools.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a pool readable, and offers it by `offer`. Without success nothing of it is left.
    pub(super) fn add(
        &self,
        spec: PoolSpec,
        offer: impl FnOnce(Pool) -> Result<(), PublisherError>,
    ) -> Result<Arc<OfferedPool>, PublisherError> {
        self.maker.check()?;
        let mut changes = lock(&self.changes);
        let (id, all) = (PoolId(changes.next), self.all());
        // Before memory is registered for nothing.
        if all.len() >= MAX_POOLS {
            return Err(PoolError::TooManyPools { id }.into());
        }
        let Changes { foreign, exporter, .. } = &mut *changes;
        let gone = || PublisherError::Transport("the publisher is being dropped".into());
        let exporter = exporter.as_deref().ok_or_else(gone)?;
        let publishing =
            Publishing { exporter, registering: self.registering, foreign, id, maker: self.maker };
        let (pool, offered) = match spec {
            PoolSpec::Own(layout, slots) => OfferedPool::own(publishing, layout, slots)?,
            PoolSpec::Foreign(ForeignPool { layout, regions }) => {
                let placed = place(&parts_of(&layout), &regions).and_then(|placed| {
                    check_apart(id, &placed, all.iter().map(|pool| (pool.id, &*pool.regions)))?;
                    Ok(placed)
                });
                let placed = placed.map_err(|source| PublisherError::Foreign { pool: id, source })?;
                OfferedPool::foreign(publishing, layout, placed)?
            }
        };
        // A thread that finds the pool from now on cannot withdraw it before it is offered.
        lock(&self.busy).insert(id);
        // First, since a reader may ask for a page of the pool as soon as it is offered.
        self.change(|pools| pools.insert(id, Arc::clone(&pool)));
        let result = offer(offered);
        if result.is_err() {
            self.change(|pools| pools.remove(&id));
        }
        lock(&self.busy).remove(&id);
        result?;
        changes.next = id.0.wrapping_add(1);
        Ok(pool)
    }

    /// Takes a pool back: no slot can be taken any more, every entry is invalid, readers are told
    /// by `tell`, the pages are released, and then the table.
    pub(super) fn withdraw(
        &self,
        id: PoolId,
        deadline: Instant,
        tell: impl FnOnce(),
    ) -> Result<(), WithdrawError> {
        self.maker.check()?;
        let pool = {
            let mut busy = lock(&self.busy);
            let pool = self.get(id).ok_or(WithdrawError::NoPool { pool: id })?;
            if !busy.insert(id) {
                return Err(WithdrawError::Underway { pool: id });
            }
            pool
        };
        let closed = pool.slots.close(deadline);
        if closed.is_ok() {
            pool.slots.invalidate_all();
            self.change(|pools| pools.remove(&id));
            tell();
            pool.release();
        }
        lock(&self.busy).remove(&id);
        let slots = pool.slots.count();
        closed.map_err(|held| WithdrawError::Guarded { pool: id, held: held.count, slots, slot: held.slot })
    }

    /// Withdraws all pools at once when their publisher is dropped, so that no guard exists but
    /// forgotten ones. `stop` ends the sessions. In a child of a fork nothing is done: all of it is
    /// the parent's.
    pub(super) fn end(&self, stop: impl FnOnce()) {
        let pools = self.change(mem::take);
        let exporter = lock(&self.changes).exporter.take();
        if !self.maker.is_current() {
            mem::forget((pools, exporter));
            return;
        }
        pools.values().for_each(|pool| pool.slots.invalidate_all());
        stop();
        pools.values().for_each(|pool| pool.release());
        drop((pools, exporter));
    }
}

impl std::fmt::Debug for OpenPools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
