//! What a pool has to tell the directory.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use crate::record::Record;

/// The most records of one call to a directory.
pub(crate) const MAX_BATCH_RECORDS: usize = 512;

/// Records that are to be withdrawn and announced, by one call each.
#[derive(Debug, Default)]
pub(crate) struct ChangeBatch {
    pub(crate) withdraw: Vec<Record>,
    pub(crate) announce: Vec<Record>,
}

impl ChangeBatch {
    /// Whether no further slot's changes fit: a slot has one record of each kind at most.
    pub(crate) fn is_full(&self) -> bool {
        self.withdraw.len().max(self.announce.len()) >= MAX_BATCH_RECORDS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.withdraw.is_empty() && self.announce.is_empty()
    }
}

/// A pool, as the announcer sees it: slots, each with the record that the directory was told and
/// the record of the page that is there now. Where the two differ, the slot has a change.
///
/// A pool has at most as many changes as it has slots, whatever happens to its pages meanwhile: a
/// page that has come and gone again is no change.
pub(crate) trait ChangeSource: Send + Sync + fmt::Debug {
    /// Puts changes into `batch` until it is full or there are none, oldest first. What it puts
    /// there counts as told: the announcer sends it until it succeeds. Returns the number of the
    /// last change that was taken, for [`sent`](Self::sent).
    fn take(&self, batch: &mut ChangeBatch) -> u64;

    /// The directory has been told all changes up to number `last`.
    fn sent(&self, last: u64);

    /// The number of the last change that there is, and of the last that was sent.
    fn progress(&self) -> ChangeProgress;

    /// Makes the records of up to [`MAX_BATCH_RECORDS`] slots from `first` on changes again.
    /// Returns the slot to go on from, if any is left.
    fn announce_again(&self, first: u32) -> Option<u32>;

    /// As [`announce_again`](Self::announce_again), but makes the directory forget what it was
    /// told, and announces nothing any more.
    fn retire(&self, first: u32) -> Option<u32>;

    /// Whether the pool is gone, so that no further changes come.
    fn is_closed(&self) -> bool;
}

/// How far the directory has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangeProgress {
    /// Slots that have changes which the directory was not told.
    pub(crate) pending: usize,
    /// The number of the last change.
    pub(crate) last: u64,
    /// The number of the last change that was sent; all before it were, too.
    pub(crate) sent: u64,
}

/// Wakes the announcer's thread.
#[derive(Debug, Default)]
pub(crate) struct WakeAnnouncer {
    /// The thread has been woken and has not looked since.
    woken: AtomicBool,
    thread: OnceLock<Thread>,
}

impl WakeAnnouncer {
    /// Says which thread is woken.
    pub(crate) fn is_for(&self, thread: Thread) {
        // It is said once.
        _ = self.thread.set(thread);
    }

    /// Wakes the thread, which looks at everything that happened before this call. A system call
    /// is made only where the thread sleeps.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// The thread looks now. It parks only if this returned `false`.
    pub(crate) fn look(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }
}
