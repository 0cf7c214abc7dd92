//! The state of a pool that threads share, and holds of its pages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kvrail::PublisherPool;

use super::state::{HeldPage, SlotTable};
use super::statistics::PoolStatistics;
use crate::announce::changes::{ChangeBatch, ChangeProgress, ChangeSource, WakeAnnouncer};
use crate::key::Key;
use crate::record::Record;

/// How many slots are cleared before the lock is released for a moment.
const CLEARED_AT_ONCE: u32 = 256;

/// The state of a pool. Its lock is held for as long as one call of [`SlotTable`] takes, and while
/// an entry of the publication table changes; never while a page is copied.
#[derive(Debug)]
pub(super) struct Shared {
    table: Mutex<SlotTable>,
    announcer: OnceLock<Arc<WakeAnnouncer>>,
    closed: AtomicBool,
}

impl Shared {
    pub(super) fn new(table: SlotTable) -> Arc<Self> {
        let (table, announcer) = (Mutex::new(table), OnceLock::new());
        Arc::new(Self { table, announcer, closed: AtomicBool::new(false) })
    }

    /// The table, for calls that change no page.
    pub(super) fn lock(&self) -> MutexGuard<'_, SlotTable> {
        // No call of a table leaves it half changed, unless it panics in its own code.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes pages by `change`, and then wakes the announcer.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut SlotTable) -> R) -> R {
        let result = change(&mut self.lock());
        if let Some(announcer) = self.announcer.get() {
            announcer.wake();
        }
        result
    }

    /// Wakes this announcer from now on. Returns whether none was set before.
    pub(super) fn wakes(&self, announcer: Arc<WakeAnnouncer>) -> bool {
        self.announcer.set(announcer).is_ok()
    }

    /// Removes all pages, also those that are written, and makes their slots misses in `pool`.
    /// Returns how many.
    pub(super) fn clear(&self, pool: Option<&PublisherPool<'_>>) -> u32 {
        let mut removed = 0;
        let slots = self.lock().count();
        for first in (0..slots).step_by(CLEARED_AT_ONCE as usize) {
            self.change(|table| {
                for slot in first..first.saturating_add(CLEARED_AT_ONCE).min(slots) {
                    if table.remove_slot(slot) {
                        removed += 1;
                        // Under the lock: later the slot may have another page. It exists.
                        pool.map(|pool| pool.invalidate(slot));
                    }
                }
            });
        }
        removed
    }

    pub(super) fn statistics(&self, page_bytes: usize) -> PoolStatistics {
        let statistics = self.lock().statistics();
        let page = page_bytes as u64;
        let (page_bytes, put_bytes) = (u64::from(statistics.pages) * page, statistics.puts * page);
        PoolStatistics { page_bytes, put_bytes, ..statistics }
    }

    /// No further pages come.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

impl ChangeSource for Shared {
    fn take(&self, batch: &mut ChangeBatch) -> u64 {
        self.lock().take_changes(batch)
    }

    fn sent(&self, last: u64) {
        self.lock().changes_sent(last);
    }

    fn progress(&self) -> ChangeProgress {
        self.lock().progress()
    }

    fn announce_again(&self, first: u32) -> Option<u32> {
        self.lock().announce_again(first)
    }

    fn retire(&self, first: u32) -> Option<u32> {
        self.lock().retire(first)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// A hold of a page: its slot is not overwritten while it exists.
#[derive(Debug)]
pub(super) struct Hold {
    shared: Arc<Shared>,
    held: HeldPage,
}

impl Hold {
    /// Holds the page of `key`, if it is there.
    pub(super) fn of(shared: &Arc<Shared>, key: Key) -> Option<Self> {
        let held = shared.lock().hold(key)?;
        Some(Self { shared: Arc::clone(shared), held })
    }

    pub(super) const fn record(&self) -> Record {
        self.held.record
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.lock().release(self.held);
    }
}
