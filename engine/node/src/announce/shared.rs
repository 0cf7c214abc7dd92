//! What the announcer's thread and its callers share.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::changes::{ChangeProgress, ChangeSource, WakeAnnouncer};
use crate::directory::{Directory, DirectoryError, Owner};

/// How an announcer deals with a directory that is slow or away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnouncerConfig {
    /// How long one call to the directory may take. Default: 2 s.
    pub call: Duration,
    /// How long it waits after a first failure; each further one doubles it. Default: 50 ms. The
    /// waits are shortened by up to a half, by chance, so that the nodes of a group do not come all
    /// at once.
    pub first_wait: Duration,
    /// The longest wait, at most a third of the directory's lease. Default: 5 s.
    pub longest_wait: Duration,
    /// How long an announcer that is dropped goes on to withdraw its records. Default: 1 s.
    pub stop: Duration,
}

impl Default for AnnouncerConfig {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(2),
            first_wait: Duration::from_millis(50),
            longest_wait: Duration::from_secs(5),
            stop: Duration::from_secs(1),
        }
    }
}

/// What an announcer has done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AnnouncerStatistics {
    /// Slots with changes of which the directory has not been told: of all pools together at most
    /// as many as they have slots, and one batch.
    pub pending: usize,
    /// Records that were announced. One that was announced again counts again.
    pub announced: u64,
    /// Records that were withdrawn.
    pub withdrawn: u64,
    /// Leases that were renewed.
    pub renewed: u64,
    /// How often the directory had lost records, so that all were announced again.
    pub lost: u64,
    /// Calls that failed.
    pub failures: u64,
    /// When a call last succeeded.
    pub last_success: Option<Instant>,
    /// Why the last call failed; `None` if it succeeded.
    pub last_error: Option<DirectoryError>,
}

/// What callers ask of the thread, and what it tells them.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) statistics: AnnouncerStatistics,
    /// How often callers asked whether the directory has lost records. It is asked at once, even if
    /// it did not answer a moment ago.
    pub(super) asked: u64,
    /// Up to which of these it has answered. What it had lost is among the changes since.
    pub(super) answered: u64,
    /// How many callers wait until all changes are sent.
    pub(super) flushing: usize,
    /// The thread withdraws everything and ends, by this time.
    pub(super) stop: Option<Instant>,
    /// The thread has ended.
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) struct AnnouncerShared {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) owner: Owner,
    pub(super) config: AnnouncerConfig,
    pub(super) wake: Arc<WakeAnnouncer>,
    sources: Mutex<Vec<Arc<dyn ChangeSource>>>,
    told: Mutex<Told>,
    changed: Condvar,
}

/// The locks here guard plain values, which are valid whichever thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AnnouncerShared {
    pub(super) fn new(directory: Arc<dyn Directory>, owner: Owner, config: AnnouncerConfig) -> Self {
        Self {
            directory,
            owner,
            config,
            wake: Arc::default(),
            sources: Mutex::default(),
            told: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn add(&self, source: Arc<dyn ChangeSource>) {
        lock(&self.sources).push(source);
        self.wake.wake();
    }

    /// All pools, without those that are gone and of which everything has been told.
    pub(super) fn sources(&self) -> Vec<Arc<dyn ChangeSource>> {
        let mut sources = lock(&self.sources);
        sources.retain(|source| !source.is_closed() || source.progress().pending > 0);
        sources.clone()
    }

    pub(super) fn progress(&self) -> Vec<(Arc<dyn ChangeSource>, ChangeProgress)> {
        let with = |source: &Arc<dyn ChangeSource>| (Arc::clone(source), source.progress());
        lock(&self.sources).iter().map(with).collect()
    }

    pub(super) fn pending(&self) -> usize {
        self.progress().iter().map(|(_, progress)| progress.pending).sum()
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    /// Changes what callers are told, and lets them look.
    pub(super) fn tell<R>(&self, change: impl FnOnce(&mut Told) -> R) -> R {
        let result = change(&mut self.told());
        self.changed.notify_all();
        result
    }

    /// Waits until `done` or the deadline. Returns whether it is done.
    pub(super) fn wait_until(&self, deadline: Instant, mut done: impl FnMut(&Told) -> bool) -> bool {
        let mut told = self.told();
        loop {
            if done(&told) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            told = self.changed.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
