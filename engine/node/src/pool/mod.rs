//! Pages by key in the slots of a publisher: the producing side.
//!
//! A [`PagePool`] has pages in the publisher's own memory: it chooses slots, evicts pages when none
//! is free, and hands bytes in and out. An [`EnginePool`] has pages in the memory of an inference
//! engine, which says what is in which slot; it evicts nothing. Both keep the order that makes it
//! impossible to serve a wrong page (`docs/safety.md`): the key of an earlier page leads nowhere,
//! then its entry is invalid, visibly, and only then is the first byte of its slot overwritten.
//!
//! A pool's changes are announced to a directory in the background
//! ([`Announcer`]). No call here waits for a directory.

mod engine;
mod error;
mod held;
mod place;
mod policy;
mod shared;
mod state;
mod statistics;

use std::sync::Arc;

use kvrail::session::PoolId;
use kvrail::{Publisher, PublisherPool};

pub use self::engine::{EnginePool, OverwriteGuard, Published};
pub use self::error::{EngineSlotError, OpenPoolError, PutError};
pub use self::held::{LocalRead, Pin};
pub use self::place::PlaceGuard;
use self::place::Reservation;
use self::shared::{Hold, Shared};
use self::state::{Reserved, SlotTable};
pub use self::statistics::PoolStatistics;
use crate::announce::Announcer;
use crate::key::Key;
use crate::record::Record;

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a caller decides by it, and a further outcome would break it")]
pub enum Put {
    /// The page is there now.
    Stored(Record),
    /// The page was there already. All bytes of one key are the same, so nothing was written.
    Already(Record),
    /// Another thread is writing the page. It is not there yet, and will not be if that thread
    /// gives up.
    Underway,
}

/// What became of a request for a slot to fill.
#[derive(Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a caller decides by it, and a further outcome would break it")]
pub enum PutPlace<'a> {
    /// A slot, which the caller fills and commits.
    Fill(PlaceGuard<'a>),
    /// The page was there already.
    Already(Record),
    /// Another thread is writing the page, as in [`Put::Underway`].
    Underway,
}

/// Pages by key in a pool of the publisher's own memory. Any number of threads share it.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use kvrail::Publisher;
/// use kvrail::session::PoolId;
/// use kvrail_node::{Key, PagePool, Put};
///
/// fn keep(
///     publisher: Arc<Publisher>,
///     key: Key,
///     page: &[u8],
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let pool = PagePool::open(publisher, PoolId(0))?;
///     match pool.put(key, page)? {
///         Put::Stored(record) => println!("in slot {}", record.slot),
///         Put::Already(record) => println!("was in slot {} before", record.slot),
///         Put::Underway => println!("another thread is writing it"),
///     }
///     Ok(())
/// }
/// ```
///
/// When no slot is free a put evicts the page that `docs/get.md` says. A page with a [`Pin`] or a
/// [`LocalRead`], or that is being written, is not evicted, and a put that finds no other page
/// fails at once ([`PutError::AllHeld`]): no call waits.
///
/// The slots of the pool are this value's alone: they are not written by the publisher's own calls,
/// and a pool is opened once. Dropping it makes its pages misses.
pub struct PagePool {
    publisher: Arc<Publisher>,
    id: PoolId,
    page_bytes: usize,
    shared: Arc<Shared>,
}

impl PagePool {
    /// Opens a pool of `publisher`, in whose slots nothing has been published yet.
    ///
    /// # Errors
    ///
    /// There is no such pool, or its pages are another owner's memory.
    pub fn open(publisher: Arc<Publisher>, pool: PoolId) -> Result<Self, OpenPoolError> {
        let of = publisher.pool(pool).ok_or(OpenPoolError::NoPool { pool })?;
        if of.foreign().is_some() {
            return Err(OpenPoolError::Foreign { pool });
        }
        let page_bytes = of.layout().page_bytes() as usize;
        let shared = Shared::new(SlotTable::new(publisher.epoch(), pool, of.slots(), true));
        drop(of);
        Ok(Self { publisher, id: pool, page_bytes, shared })
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

    /// Bytes of a page.
    #[must_use]
    pub const fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn pool(&self) -> Result<PublisherPool<'_>, PutError> {
        self.publisher.pool(self.id).ok_or(PutError::Withdrawn { pool: self.id })
    }

    /// Stores a page: `bytes` are copied into a slot, once. If the pool has a page of the key it
    /// stays as it was.
    ///
    /// # Errors
    ///
    /// The bytes are not as long as a page; no slot can be taken; the key was removed meanwhile;
    /// the pool is withdrawn; or the publisher refused the slot.
    pub fn put(&self, key: Key, bytes: &[u8]) -> Result<Put, PutError> {
        self.check_length(bytes)?;
        self.put_with(key, |page| page.copy_from_slice(bytes))
    }

    /// Stores the page that `fill` writes. It is given the bytes of an earlier page. If it panics,
    /// there is no page of the key.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_with(&self, key: Key, fill: impl FnOnce(&mut [u8])) -> Result<Put, PutError> {
        fill_place(self.put_in_place(key)?, fill)
    }

    /// Hands out a slot to fill, at any time and in any thread that has the guard.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_in_place(&self, key: Key) -> Result<PutPlace<'_>, PutError> {
        self.place(key, false)
    }

    /// Stores a page, even where the pool has one of the key, which is a miss from the beginning of
    /// the call on. For pages whose keys do not tell their bytes.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put). The earlier page is gone, unless no slot could be taken.
    pub fn replace(&self, key: Key, bytes: &[u8]) -> Result<Put, PutError> {
        self.check_length(bytes)?;
        fill_place(self.replace_in_place(key)?, |page| page.copy_from_slice(bytes))
    }

    /// Hands out a slot to fill, as [`put_in_place`](Self::put_in_place), even where the pool has a
    /// page of the key, which is a miss from now on.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace).
    pub fn replace_in_place(&self, key: Key) -> Result<PutPlace<'_>, PutError> {
        self.place(key, true)
    }

    fn check_length(&self, bytes: &[u8]) -> Result<(), PutError> {
        let (given, page) = (bytes.len(), self.page_bytes);
        if given == page { Ok(()) } else { Err(PutError::Length { pool: self.id, given, page }) }
    }

    fn place(&self, key: Key, replace: bool) -> Result<PutPlace<'_>, PutError> {
        let pool = self.pool()?;
        let reserved = self.shared.change(|table| {
            let reserved = table.reserve(key, replace);
            if let Reserved::Slot { slot, replaced } = reserved {
                // Under the lock: from its release on the keys of the earlier pages lead nowhere,
                // so another thread that removes or replaces one would take it for a miss. And
                // later the replaced slot may have another page. Both exist.
                for slot in [Some(slot), replaced].into_iter().flatten() {
                    _ = pool.invalidate(slot);
                }
            }
            reserved
        });
        match reserved {
            Reserved::Slot { slot, .. } => {
                let reservation = Reservation::new(Arc::clone(&self.shared), slot);
                PlaceGuard::overwriting(&pool, reservation, key).map(PutPlace::Fill)
            }
            Reserved::Already(record) => Ok(PutPlace::Already(record)),
            Reserved::Underway => Ok(PutPlace::Underway),
            Reserved::AllHeld { written, held } => {
                Err(PutError::AllHeld { pool: self.id, slots: pool.slots(), written, held })
            }
        }
    }

    /// Whether the page of `key` is there. It does not count as a use.
    #[must_use]
    pub fn contains(&self, key: Key) -> bool {
        self.record(key).is_some()
    }

    /// Where the page of `key` is, if it is there. It does not count as a use.
    #[must_use]
    pub fn record(&self, key: Key) -> Option<Record> {
        self.shared.lock().record(key)
    }

    /// Counts a use of the pages of `keys`, a prompt's pages from the first on. Returns how many
    /// are there without a gap: the prefix that can be taken.
    ///
    /// One-sided READs leave no trace with the owner. So what is used is known from this call, from
    /// [`local`](Self::local) and [`pin`](Self::pin), and from puts of a page that was there.
    pub fn touch(&self, keys: &[Key]) -> usize {
        let mut table = self.shared.lock();
        keys.iter().take_while(|&&key| table.touch(key)).count()
    }

    /// Keeps the page of `key` from being evicted, if it is there. It counts as a use.
    pub fn pin(&self, key: Key) -> Option<Pin> {
        Hold::of(&self.shared, key).map(Pin::of)
    }

    /// The bytes of the page of `key`, if it is there. They do not change while the returned value
    /// exists. It counts as a use.
    pub fn local(&self, key: Key) -> Option<LocalRead<'_>> {
        let hold = Hold::of(&self.shared, key)?;
        let (pool, record) = (self.pool().ok()?, hold.record());
        let page = pool.page(record.slot).ok()?;
        // The slot cannot be written any more. Should another call than this pool's have written
        // it, against the rule, its entry says so.
        let is_there = pool.location(record.slot) == Ok(Some(record.location()));
        is_there.then(|| LocalRead::of(page, hold))
    }

    /// Removes the page of `key`: a miss for every reader when this returns, pinned or not. A page
    /// that another thread is writing does not come ([`PutError::Removed`]). Returns whether there
    /// was one of the two.
    pub fn remove(&self, key: Key) -> bool {
        let pool = self.pool();
        self.shared.change(|table| {
            let removed = table.remove(key);
            if let (Some(slot), Ok(pool)) = (removed, &pool) {
                // Under the lock: later the slot may have another page. It exists.
                _ = pool.invalidate(slot);
            }
            removed.is_some()
        })
    }

    /// Removes all pages, as [`remove`](Self::remove) does, also those that threads are writing.
    /// Pages of puts that begin meanwhile may stay. Returns how many were removed.
    pub fn clear(&self) -> u32 {
        self.shared.clear(self.pool().ok().as_ref())
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

fn fill_place(place: PutPlace<'_>, fill: impl FnOnce(&mut [u8])) -> Result<Put, PutError> {
    match place {
        PutPlace::Fill(mut guard) => {
            fill(guard.bytes());
            guard.commit().map(Put::Stored)
        }
        PutPlace::Already(record) => Ok(Put::Already(record)),
        PutPlace::Underway => Ok(Put::Underway),
    }
}

impl Drop for PagePool {
    fn drop(&mut self) {
        self.clear();
        self.shared.close();
    }
}

impl std::fmt::Debug for PagePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PagePool")
            .field("id", &self.id)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
