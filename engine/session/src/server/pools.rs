//! The pools that a server offers, and how each session's reader is told of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::message::{MESSAGE_REGIONS, Message, OfferHead, PoolHead, PoolRegions};
use crate::offer::Layout;
use crate::pool::{MAX_OFFERED_REGIONS, MAX_POOLS, Pool, PoolError, PoolId};

/// The pools that a server offers.
pub(super) struct OfferedPools(Mutex<State>);

struct State {
    now: Arc<PoolList>,
    used: UsedNumbers,
}

/// The numbers of all pools since the server started, since no number may come twice. Where they
/// are counted up they take no memory, however many pools have come and gone.
#[derive(Debug, Default)]
struct UsedNumbers {
    /// All numbers below this one have been used.
    below: u64,
    /// The others that have been used.
    above: BTreeSet<u64>,
}

impl UsedNumbers {
    fn contains(&self, id: PoolId) -> bool {
        let id = u64::from(id.0);
        id < self.below || self.above.contains(&id)
    }

    fn insert(&mut self, id: PoolId) {
        self.above.insert(id.0.into());
        while self.above.remove(&self.below) {
            self.below += 1;
        }
    }
}

/// The pools as they were at one time. A list never changes; a change of the pools makes another.
pub(super) struct PoolList {
    /// Lists count up from 1.
    version: u64,
    /// In the order of their numbers.
    pools: Vec<Arc<Pool>>,
}

impl PoolList {
    fn place(&self, id: PoolId) -> Result<usize, usize> {
        self.pools.binary_search_by_key(&id, |pool| pool.id())
    }

    fn has(&self, id: PoolId) -> bool {
        self.place(id).is_ok()
    }
}

impl OfferedPools {
    /// The first list, of `pools`.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub(super) fn new(pools: Vec<Pool>) -> Result<Self, PoolError> {
        let now = Arc::new(PoolList { version: 1, pools: Vec::new() });
        let offered = Self(Mutex::new(State { now, used: UsedNumbers::default() }));
        pools.into_iter().try_for_each(|pool| offered.add(pool))?;
        Ok(offered)
    }

    /// A list is replaced as a whole, so the state is valid even if a thread panicked while it held
    /// the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers `pool`.
    ///
    /// # Errors
    ///
    /// Its number was used before, or there would be too many pools or regions.
    pub(super) fn add(&self, pool: Pool) -> Result<(), PoolError> {
        let mut state = self.lock();
        if state.used.contains(pool.id()) {
            return Err(PoolError::DuplicateId { id: pool.id() });
        }
        let PoolList { version, pools } = &*state.now;
        if pools.len() >= MAX_POOLS {
            return Err(PoolError::TooManyPools { id: pool.id() });
        }
        let count = pools.iter().map(|pool| pool.regions().len()).sum::<usize>() + pool.regions().len();
        if count > MAX_OFFERED_REGIONS {
            return Err(PoolError::TooManyOffered { id: pool.id(), count });
        }
        let mut pools = pools.clone();
        let at = state.now.place(pool.id()).unwrap_or_else(|at| at);
        let (id, next) = (pool.id(), version + 1);
        pools.insert(at, Arc::new(pool));
        state.now = Arc::new(PoolList { version: next, pools });
        state.used.insert(id);
        Ok(())
    }

    /// Takes a pool back, and returns whether there was one.
    pub(super) fn remove(&self, id: PoolId) -> bool {
        let mut state = self.lock();
        let Ok(at) = state.now.place(id) else { return false };
        let PoolList { version, pools } = &*state.now;
        let mut pools = pools.clone();
        pools.remove(at);
        state.now = Arc::new(PoolList { version: version + 1, pools });
        true
    }

    /// The list as it is now, if it is newer than `version`.
    fn newer_than(&self, version: u64) -> Option<Arc<PoolList>> {
        Some(&self.lock().now).filter(|now| now.version > version).map(Arc::clone)
    }

    fn has(&self, id: PoolId) -> bool {
        self.lock().now.has(id)
    }
}

/// Tells one reader of the pools: of those that the server has when the session begins, and of
/// each change. It makes one message at a time, when the socket has room for it, so what waits for
/// a slow reader is a reference to a list of pools, and no message.
///
/// A pool's regions follow the pool without another message in between, even if the pool is taken
/// back meanwhile: then [`Message::Gone`] follows the last region.
pub(super) struct Announcer {
    /// The layouts that the reader knows.
    known: Box<[Layout]>,
    /// The pools that the reader was offered and that have not gone, in the order of their numbers.
    told: Vec<PoolId>,
    /// The layouts that the reader does not know and was told of: at most [`MAX_POOLS`], and none
    /// twice, as long as the session lasts.
    unknown: Vec<Layout>,
    /// The reader was told of this list as a whole.
    version: u64,
    stage: Stage,
    /// How far the reader was told of a newer list.
    walk: Option<Walk>,
    /// The pool whose regions follow, and how many of them were sent.
    regions: Option<(Arc<Pool>, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent.
    Begin,
    /// The first offer is not complete.
    FirstOffer,
    Offered,
}

struct Walk {
    list: Arc<PoolList>,
    /// The place of the next pool in the list.
    next: usize,
}

impl Announcer {
    /// For a reader that knows the layouts `known`.
    pub(super) fn new(known: Vec<Layout>) -> Self {
        Self {
            known: known.into(),
            told: Vec::new(),
            unknown: Vec::new(),
            version: 0,
            stage: Stage::Begin,
            walk: None,
            regions: None,
        }
    }

    /// Whether the reader knows no layout: it is told of no rail and of no pool.
    pub(super) fn tells_nothing(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether the first offer is complete, and the last pool's regions are, too.
    pub(super) fn is_between_pools(&self) -> bool {
        self.stage == Stage::Offered && self.regions.is_none()
    }

    /// Whether there is something to tell.
    pub(super) fn has_more(&self, pools: &OfferedPools) -> bool {
        if self.tells_nothing() {
            return self.stage != Stage::Offered;
        }
        self.stage != Stage::Offered
            || self.walk.is_some()
            || self.regions.is_some()
            || pools.newer_than(self.version).is_some()
    }

    /// The next message; `head` makes the first one. `None`: the reader was told everything.
    pub(super) fn next(&mut self, pools: &OfferedPools, head: impl FnOnce() -> OfferHead) -> Option<Message> {
        if self.stage == Stage::Begin {
            self.stage = Stage::FirstOffer;
            let mut head = head();
            if self.tells_nothing() {
                head.rails.clear();
            }
            return Some(Message::Offer(head));
        }
        if self.tells_nothing() {
            let begun = std::mem::replace(&mut self.stage, Stage::Offered);
            return (begun == Stage::FirstOffer).then_some(Message::Offered);
        }
        if let Some(regions) = self.next_regions() {
            return Some(Message::Regions(regions));
        }
        loop {
            let list = match &self.walk {
                Some(walk) => Arc::clone(&walk.list),
                None => {
                    let list = pools.newer_than(self.version)?;
                    self.walk = Some(Walk { list: Arc::clone(&list), next: 0 });
                    list
                }
            };
            // Before the pools that came, so that the reader never has more pools than a list.
            if let Some(at) = self.told.iter().position(|&id| !list.has(id)) {
                return Some(Message::Gone(self.told.remove(at)));
            }
            if let Some(message) = self.next_pool(&list, pools) {
                return Some(message);
            }
            (self.version, self.walk) = (list.version, None);
            if self.stage == Stage::FirstOffer {
                self.stage = Stage::Offered;
                return Some(Message::Offered);
            }
        }
    }

    /// The message about the next pool of the list that asks for one.
    fn next_pool(&mut self, list: &PoolList, pools: &OfferedPools) -> Option<Message> {
        let walk = self.walk.as_mut()?;
        while let Some(pool) = list.pools.get(walk.next) {
            walk.next += 1;
            let Err(at) = self.told.binary_search(&pool.id()) else { continue };
            // A pool that has gone since the list was made is not offered any more.
            if !pools.has(pool.id()) {
                continue;
            }
            let layout = *pool.layout();
            if self.known.iter().any(|known| known.same_bytes(&layout)) {
                self.told.insert(at, pool.id());
                // At most MAX_REGIONS.
                let count = pool.regions().len() as u32;
                self.regions = (count > 0).then(|| (Arc::clone(pool), 0));
                return Some(Message::Pool(PoolHead { id: pool.id(), layout, regions: count }));
            }
            let told = self.unknown.iter().any(|told| told.same_bytes(&layout));
            if !told && self.unknown.len() < MAX_POOLS {
                self.unknown.push(layout);
                return Some(Message::Unknown(layout));
            }
        }
        None
    }

    /// The next regions of the pool whose regions are being sent.
    fn next_regions(&mut self) -> Option<PoolRegions> {
        let (pool, sent) = self.regions.as_mut()?;
        let first = *sent;
        let rest = &pool.regions()[first..];
        let regions = rest[..rest.len().min(MESSAGE_REGIONS)].to_vec();
        *sent += regions.len();
        // At most MAX_REGIONS.
        let message = PoolRegions { pool: pool.id(), first: first as u32, regions };
        if *sent == pool.regions().len() {
            self.regions = None;
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_once_and_those_that_are_counted_up_take_no_memory() {
        let mut used = UsedNumbers::default();
        for id in (0..10_000).map(PoolId) {
            assert!(!used.contains(id));
            used.insert(id);
            assert!(used.contains(id) && used.above.is_empty());
        }
        for id in [10_002, 10_001, u32::MAX].map(PoolId) {
            used.insert(id);
        }
        let known = [9_999, 10_000, 10_001, 10_002, 10_003, u32::MAX].map(|id| used.contains(PoolId(id)));
        assert_eq!(known, [true, false, true, true, false, true]);
        used.insert(PoolId(10_000));
        assert_eq!((used.below, used.above.len()), (10_003, 1));
    }
}
