//! Images of publication tables, and look-ups in them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use kvrail::Location;
use kvrail::session::{Epoch, PoolId};
use kvrail_core::table::{Generation, KeyTag, Ready};

use crate::directory::{Directory, DirectoryError, Found, Owner, Renewed};
use crate::record::Record;

/// The caps of one-sided look-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneSidedConfig {
    /// Pools of all owners together: a look-up asks each of them. Default: 64.
    pub max_pools: usize,
    /// Slots of all these pools together. Default: 65,536, whose tables have 2 MiB.
    pub max_slots: u64,
    /// Slots whose entries are read in a second, at most. Default: 65,536.
    pub slots_per_second: u64,
    /// The least time between two readings of one pool. Default: half a second.
    pub refresh: Duration,
    /// How old an image may be: an older one is not answered from. Default: five seconds.
    pub stale: Duration,
}

impl Default for OneSidedConfig {
    fn default() -> Self {
        Self {
            max_pools: 64,
            max_slots: 1 << 16,
            slots_per_second: 1 << 16,
            refresh: Duration::from_millis(500),
            stale: Duration::from_secs(5),
        }
    }
}

/// Why the table of a pool is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OneSidedError {
    /// There are as many pools as may be.
    #[error("{max} pools are read already: raise max_pools, or take another directory for so many")]
    TooManyPools {
        /// The cap.
        max: usize,
    },
    /// The pools have more slots than may be.
    #[error(
        "with this pool there would be {slots} slots, and the cap is {max}: raise max_slots, or take another directory for tables of this size"
    )]
    TooManySlots {
        /// How many slots there would be.
        slots: u64,
        /// The cap.
        max: u64,
    },
}

impl OneSidedError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::TooManyPools { .. } => 7050,
            Self::TooManySlots { .. } => 7051,
        }
    }
}

/// A table that is to be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WantedTable {
    /// The owner of the pool.
    pub owner: Epoch,
    /// The pool.
    pub pool: PoolId,
    /// How many slots it has, from 0 on.
    pub slots: u32,
}

/// A directory of images of publication tables, which the owner of a reader feeds.
///
/// That thread calls [`wanted`](Self::wanted) now and then, reads the table that it names, and
/// passes on what was published by [`publish`](Self::publish). What owners announce is not kept:
/// their tables say it.
#[derive(Debug)]
pub struct OneSidedTables {
    config: OneSidedConfig,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    owners: HashMap<Epoch, Owner>,
    /// In the order in which they were added.
    pools: Vec<Pool>,
    slots: u64,
    /// How many slots may be read, as of `counted`.
    budget: u64,
    counted: Instant,
}

#[derive(Debug)]
struct Pool {
    owner: Epoch,
    pool: PoolId,
    slots: u32,
    /// When it may be read next; `None`: never again.
    next: Option<Instant>,
    /// Whether it has been named as wanted.
    asked: bool,
    image: Option<(Instant, Arc<Image>)>,
}

/// Where each page of a pool is, and in which generation.
type Image = HashMap<KeyTag, (u32, Generation)>;

impl OneSidedTables {
    /// No pool.
    #[must_use]
    pub fn new(config: OneSidedConfig) -> Self {
        let (owners, pools) = (HashMap::new(), Vec::new());
        let (budget, counted) = (config.slots_per_second, Instant::now());
        Self { config, state: RwLock::new(State { owners, pools, slots: 0, budget, counted }) }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the table of a pool of `owner` read from now on: one of `slots` slots. A pool that is
    /// known already stays as it is.
    ///
    /// # Errors
    ///
    /// The caps leave no room for it. Nothing has changed.
    pub fn add(&self, owner: &Owner, pool: PoolId, slots: u32) -> Result<(), OneSidedError> {
        let mut state = self.write();
        if state.pools.iter().any(|known| (known.owner, known.pool) == (owner.epoch, pool)) {
            return Ok(());
        }
        let OneSidedConfig { max_pools, max_slots, .. } = self.config;
        if state.pools.len() >= max_pools {
            return Err(OneSidedError::TooManyPools { max: max_pools });
        }
        let sum = state.slots + u64::from(slots);
        if sum > max_slots {
            return Err(OneSidedError::TooManySlots { slots: sum, max: max_slots });
        }
        state.slots = sum;
        state.owners.insert(owner.epoch, owner.clone());
        state.pools.push(Pool {
            owner: owner.epoch,
            pool,
            slots,
            next: Some(Instant::now()),
            asked: false,
            image: None,
        });
        Ok(())
    }

    /// Forgets an owner and its pools: it has gone.
    pub fn remove(&self, owner: Epoch) {
        let mut state = self.write();
        state.owners.remove(&owner);
        state.pools.retain(|pool| pool.owner != owner);
        state.slots = state.pools.iter().map(|pool| u64::from(pool.slots)).sum();
    }

    /// An owner that is known is reached at another address from now on.
    pub(super) fn moved(&self, owner: Owner) {
        if let Some(known) = self.write().owners.get_mut(&owner.epoch) {
            *known = owner;
        }
    }

    /// The table that is to be read now: the one that has waited longest. `None`: none may be read
    /// before some time has passed. A table that it names counts as read, also if reading fails.
    pub fn wanted(&self, now: Instant) -> Option<WantedTable> {
        let mut state = self.write();
        let state = &mut *state;
        let per_second = self.config.slots_per_second;
        let passed = now.saturating_duration_since(state.counted).min(Duration::from_secs(1));
        // At most a second's slots, so the product is far below 2^128.
        let earned = (u128::from(per_second) * passed.as_nanos() / 1_000_000_000) as u64;
        if earned > 0 {
            (state.budget, state.counted) = (state.budget.saturating_add(earned).min(per_second), now);
        }
        let budget = state.budget;
        let due = state.pools.iter_mut().filter(|pool| pool.next.is_some_and(|next| next <= now));
        let due = due.min_by_key(|pool| pool.next)?;
        // A pool with more slots than a second may have waits for a whole second's.
        let cost = u64::from(due.slots).min(per_second);
        if cost > budget {
            return None;
        }
        (due.next, due.asked) = (now.checked_add(self.config.refresh), true);
        let wanted = WantedTable { owner: due.owner, pool: due.pool, slots: due.slots };
        state.budget -= cost;
        Some(wanted)
    }

    /// Whether there is a table that [`wanted`](Self::wanted) has not named yet.
    pub(super) fn has_unread(&self) -> bool {
        self.read().pools.iter().any(|pool| !pool.asked)
    }

    /// Takes in what a pool's owner has published, as of `now`: all of it, as the table that was
    /// read says. Pages that are not whole yet are left out, and so is what the caps do not allow.
    /// A pool that is not known is passed over: it has gone meanwhile.
    pub fn publish(
        &self,
        owner: Epoch,
        pool: PoolId,
        entries: impl IntoIterator<Item = Location>,
        now: Instant,
    ) {
        let slots = {
            let state = self.read();
            let known = state.pools.iter().find(|known| (known.owner, known.pool) == (owner, pool));
            let Some(known) = known else { return };
            known.slots
        };
        // Made without a lock: look-ups go on.
        let whole = |entry: &Location| {
            entry.slot < slots && entry.expected.ready == Ready::WHOLE && entry.expected.generation.is_valid()
        };
        let entries = entries.into_iter().filter(whole).take(slots as usize);
        let image: Image =
            entries.map(|entry| (entry.expected.tag, (entry.slot, entry.expected.generation))).collect();
        let mut state = self.write();
        let known = state.pools.iter_mut().find(|known| (known.owner, known.pool) == (owner, pool));
        if let Some(known) = known {
            known.image = Some((now, Arc::new(image)));
        }
    }
}

impl Directory for OneSidedTables {
    fn look_up(&self, tags: &[KeyTag], _: Instant, found: &mut Found) {
        found.reset(tags.len());
        let now = Instant::now();
        let fresh = |pool: &Pool| {
            let (at, image) = pool.image.as_ref()?;
            (now.saturating_duration_since(*at) < self.config.stale)
                .then(|| (pool.owner, pool.pool, Arc::clone(image)))
        };
        let images: Vec<_> = self.read().pools.iter().filter_map(fresh).collect();
        for (key, &tag) in tags.iter().enumerate() {
            let record = |(owner, pool, image): &(Epoch, PoolId, Arc<Image>)| {
                let &(slot, generation) = image.get(&tag)?;
                Some(Record { tag, owner: *owner, pool: *pool, slot, generation })
            };
            found.answer(key, tag, images.iter().filter_map(record));
        }
    }

    fn owners(&self, epochs: &[Epoch], _: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        let state = self.read();
        Ok(epochs.iter().map(|epoch| state.owners.get(epoch).cloned()).collect())
    }

    fn announce(&self, _: &Owner, _: &[Record], _: Instant) -> Result<(), DirectoryError> {
        // The owner's table says it already.
        Ok(())
    }

    fn withdraw(&self, _: &[Record], _: Instant) -> Result<(), DirectoryError> {
        Ok(())
    }

    fn renew(&self, _: &Owner, _: Instant) -> Result<Renewed, DirectoryError> {
        Ok(Renewed::Kept)
    }

    fn lease(&self) -> Duration {
        self.config.stale
    }

    fn describe(&self) -> String {
        let OneSidedConfig { max_pools, max_slots, slots_per_second, refresh, stale } = self.config;
        format!(
            "one-sided: tables of {max_pools} pools at most, {max_slots} slots together; {slots_per_second} slots a \
             second at most, each pool every {refresh:?} at most; an image counts for {stale:?}"
        )
    }
}

#[cfg(test)]
mod tests;
