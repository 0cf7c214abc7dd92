//! Tells a directory what the pools of a node have, in the background.
//!
//! Each slot of a pool knows which record the directory was told, and which page is there now.
//! Where the two differ, the slot has a change, and waits in a list of such slots. So there are at
//! most as many changes as slots, however long a directory is away: nothing overflows, and a page
//! that has come and gone meanwhile is no change. One thread takes changes, sends them in batches
//! of up to 512 records, and sends a batch again until it succeeds. After a batch that was not full
//! it takes no changes for a millisecond, so that pages that are put one behind the other do not
//! take a call each. It renews the owner's lease
//! three times in a lease, and announces everything again when the directory has lost it.

pub(crate) mod changes;
mod error;
mod shared;
mod worker;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::changes::{ChangeSource, WakeAnnouncer};
pub use self::error::AnnounceError;
use self::shared::AnnouncerShared;
pub use self::shared::{AnnouncerConfig, AnnouncerStatistics};
use self::worker::Worker;
use crate::directory::{Directory, Owner};

/// How much longer than its deadline a stop waits for the thread to end.
const GRACE: Duration = Duration::from_millis(100);

/// Announces the pages of pools to a directory, and withdraws them when they go.
///
/// Pools are given to it by [`PagePool::announce_by`](crate::PagePool::announce_by) and
/// [`EnginePool::announce_by`](crate::EnginePool::announce_by). A put never waits for it: pools
/// work while the directory is away, and the directory is told when it is back.
///
/// Dropping it withdraws what it can in [`AnnouncerConfig::stop`]; what is left expires with the
/// lease. Pools go on without it, and are not announced any more.
pub struct Announcer {
    shared: Arc<AnnouncerShared>,
    thread: Option<JoinHandle<()>>,
}

impl Announcer {
    /// Starts the thread. `owner` is the node whose publisher has the pools.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(
        directory: Arc<dyn Directory>,
        owner: Owner,
        config: AnnouncerConfig,
    ) -> Result<Self, AnnounceError> {
        let shared = Arc::new(AnnouncerShared::new(directory, owner, config));
        let worker = Worker::new(Arc::clone(&shared));
        let thread = thread::Builder::new().name("kvrail-announce".into()).spawn(move || worker.run());
        let thread = thread.map_err(AnnounceError::Thread)?;
        shared.wake.is_for(thread.thread().clone());
        // It may have slept before its handle was known.
        thread.thread().unpark();
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes `source`, if `wakes` takes what wakes this announcer.
    pub(crate) fn add<S: ChangeSource + 'static>(
        &self,
        source: &Arc<S>,
        wakes: impl FnOnce(Arc<WakeAnnouncer>) -> bool,
    ) -> bool {
        let taken = wakes(Arc::clone(&self.shared.wake));
        if taken {
            self.shared.add(Arc::<S>::clone(source));
        }
        taken
    }

    /// Waits until the directory knows all pages that were there when it was called, and no page
    /// that had gone. It is asked first whether it has lost records. For tests, and before pages
    /// are handed over by key.
    ///
    /// # Errors
    ///
    /// The deadline passed before that. The directory is still told later.
    pub fn flush(&self, deadline: Instant) -> Result<(), AnnounceError> {
        let ask = {
            let mut told = self.shared.told();
            told.asked += 1;
            told.flushing += 1;
            told.asked
        };
        self.shared.wake.wake();
        let mut wanted = None;
        let sent = |told: &shared::Told| {
            told.answered >= ask && {
                let wanted = wanted.get_or_insert_with(|| self.shared.progress());
                wanted.iter().all(|(source, then)| source.progress().sent >= then.last)
            }
        };
        let all_sent = self.shared.wait_until(deadline, sent);
        self.shared.told().flushing -= 1;
        if all_sent { Ok(()) } else { Err(self.unfinished()) }
    }

    fn unfinished(&self) -> AnnounceError {
        let AnnouncerStatistics { pending, last_error: why, .. } = self.statistics();
        AnnounceError::Pending { pending, directory: self.shared.directory.describe(), why }
    }

    /// What it has done.
    #[must_use]
    pub fn statistics(&self) -> AnnouncerStatistics {
        let pending = self.shared.pending();
        AnnouncerStatistics { pending, ..self.shared.told().statistics.clone() }
    }

    /// Its numbers, for as long as it is there; zeros after that.
    pub(crate) fn statistics_source(&self) -> impl Fn() -> AnnouncerStatistics + Send + Sync + use<> {
        let shared = Arc::downgrade(&self.shared);
        move || {
            let Some(shared) = shared.upgrade() else { return AnnouncerStatistics::default() };
            let pending = shared.pending();
            AnnouncerStatistics { pending, ..shared.told().statistics.clone() }
        }
    }

    /// Withdraws all records, and ends the thread.
    ///
    /// # Errors
    ///
    /// The deadline passed before everything was withdrawn. What is left expires with the lease. A
    /// call to the directory that is under way goes on until its own deadline.
    pub fn stop(mut self, deadline: Instant) -> Result<(), AnnounceError> {
        self.end(deadline);
        if self.shared.pending() == 0 { Ok(()) } else { Err(self.unfinished()) }
    }

    fn end(&mut self, deadline: Instant) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.told().stop = Some(deadline);
        self.shared.wake.wake();
        let ended = |told: &shared::Told| told.ended;
        if self.shared.wait_until(deadline + GRACE, ended) {
            // It has only to return. A panic of it was printed.
            _ = thread.join();
        } else {
            let directory = self.shared.directory.describe();
            tracing::warn!(directory, "a call to the directory is still under way; its thread ends after it");
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.end(Instant::now() + self.shared.config.stop);
    }
}

impl std::fmt::Debug for Announcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcer")
            .field("directory", &self.shared.directory)
            .field("owner", &self.shared.owner)
            .finish_non_exhaustive()
    }
}
