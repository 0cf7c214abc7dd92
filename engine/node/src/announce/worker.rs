//! The announcer's thread.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kvrail_host::secret::random_bytes;

use super::changes::{ChangeBatch, ChangeSource};
use super::shared::AnnouncerShared;
use crate::directory::{DirectoryError, Renewed, caught};

/// The shortest time between two renewals, however short a directory says that its lease is.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(10);

/// For how long no changes are taken after a batch that was not full: changes that follow each
/// other go by one call then, and no put of them wakes the thread. The first change after a pause
/// goes at once.
const GATHER: Duration = Duration::from_millis(1);

pub(super) struct Worker {
    shared: Arc<AnnouncerShared>,
    /// What is being sent: it is sent again until that succeeds.
    batch: ChangeBatch,
    /// Where the batch is from, and the number of its last change.
    from: Option<(Arc<dyn ChangeSource>, u64)>,
    /// Counts batches, so that pools take turns.
    turn: usize,
    /// The lease is renewed before anything else is sent: at the beginning, and after each failure,
    /// so that a directory that has forgotten the owner can say so.
    renew_first: bool,
    renew_at: Instant,
    /// What callers asked by the last look, as in `Told::asked`.
    asked: u64,
    /// Failures since the last success.
    failures: u32,
    /// Nothing is sent before.
    not_before: Option<Instant>,
    /// A batch that was not full was sent just now.
    gather: bool,
}

impl Worker {
    pub(super) fn new(shared: Arc<AnnouncerShared>) -> Self {
        Self {
            shared,
            batch: ChangeBatch::default(),
            from: None,
            turn: 0,
            renew_first: true,
            renew_at: Instant::now(),
            asked: 0,
            failures: 0,
            not_before: None,
            gather: false,
        }
    }

    /// Announces and withdraws until it is stopped.
    pub(super) fn run(mut self) {
        loop {
            if std::mem::take(&mut self.gather) && self.shared.told().flushing == 0 {
                // This is not a park, since a put would end a park.
                thread::sleep(GATHER);
            }
            // Before it looks at anything else: what comes later wakes it.
            self.shared.wake.look();
            let (stop, asked) = {
                let told = self.shared.told();
                (told.stop, told.asked)
            };
            if let Some(deadline) = stop {
                self.withdraw_all(deadline);
                break;
            }
            if asked > self.asked {
                (self.asked, self.renew_first, self.not_before) = (asked, true, None);
            }
            let sleep_until = self.step(None);
            if let Some(until) = sleep_until {
                thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
        }
        self.shared.tell(|told| told.ended = true);
    }

    /// Makes one call, or none if there is nothing to do; `Some`: until when.
    fn step(&mut self, end: Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        if let Some(not_before) = self.not_before.filter(|&at| now < at) {
            return Some(not_before);
        }
        let call = now + self.shared.config.call;
        let deadline = end.map_or(call, |end| call.min(end));
        // A node that ends has no use for a lease.
        let result = if end.is_none() && (self.renew_first || now >= self.renew_at) {
            self.renew(deadline)
        } else if self.batch.is_empty() && !self.fill() {
            return Some(self.renew_at);
        } else {
            self.gather = !self.batch.is_full();
            self.send(deadline)
        };
        match result {
            Ok(()) => self.succeeded(),
            Err(error) => self.failed(error),
        }
        None
    }

    fn renew(&mut self, deadline: Instant) -> Result<(), DirectoryError> {
        let AnnouncerShared { directory, owner, .. } = &*self.shared;
        let renewed = caught(&**directory, |directory| directory.renew(owner, deadline)).flatten()?;
        self.renew_first = false;
        self.renew_at = Instant::now() + (directory.lease() / 3).max(SHORTEST_RENEWAL);
        if renewed == Renewed::Lost {
            for source in self.shared.sources() {
                all_slots(|first| source.announce_again(first));
            }
        }
        self.shared.tell(|told| {
            told.answered = self.asked;
            told.statistics.renewed += 1;
            told.statistics.lost += u64::from(renewed == Renewed::Lost);
        });
        Ok(())
    }

    /// Takes changes of one pool. Returns whether there are any.
    fn fill(&mut self) -> bool {
        let sources = self.shared.sources();
        for at in 0..sources.len() {
            let source = &sources[(self.turn + at) % sources.len()];
            let last = source.take(&mut self.batch);
            if !self.batch.is_empty() {
                self.turn = self.turn.wrapping_add(at + 1);
                self.from = Some((Arc::clone(source), last));
                return true;
            }
            // Pages that came and went: there is nothing to tell.
            source.sent(last);
        }
        self.shared.tell(|_| ());
        false
    }

    fn send(&mut self, deadline: Instant) -> Result<(), DirectoryError> {
        let AnnouncerShared { directory, owner, .. } = &*self.shared;
        let ChangeBatch { withdraw, announce } = &mut self.batch;
        if !withdraw.is_empty() {
            caught(&**directory, |directory| directory.withdraw(withdraw, deadline)).flatten()?;
            let count = withdraw.len() as u64;
            withdraw.clear();
            self.shared.tell(|told| told.statistics.withdrawn += count);
        }
        if !announce.is_empty() {
            caught(&**directory, |directory| directory.announce(owner, announce, deadline)).flatten()?;
            let count = announce.len() as u64;
            announce.clear();
            self.shared.tell(|told| told.statistics.announced += count);
        }
        if let Some((source, last)) = self.from.take() {
            source.sent(last);
        }
        Ok(())
    }

    fn succeeded(&mut self) {
        if self.failures > 0 {
            tracing::info!(directory = self.shared.directory.describe(), "the directory answers again");
        }
        (self.failures, self.not_before) = (0, None);
        self.shared.tell(|told| {
            told.statistics.last_success = Some(Instant::now());
            told.statistics.last_error = None;
        });
    }

    fn failed(&mut self, error: DirectoryError) {
        if self.failures == 0 {
            let pending = self.shared.pending();
            tracing::warn!(%error, pending, "pages are not announced for now; they are still served");
        }
        let config = &self.shared.config;
        // No wait lets the lease run out by itself.
        let longest = config.longest_wait.min(self.shared.directory.lease() / 3);
        let doubled = config.first_wait.saturating_mul(1 << self.failures.min(16));
        let asked = match &error {
            DirectoryError::BackingOff { wait, .. } => *wait,
            _ => Duration::ZERO,
        };
        let wait = doubled.max(asked).min(longest);
        self.not_before = Some(Instant::now() + wait - shortened(wait));
        self.failures = self.failures.saturating_add(1);
        self.renew_first = true;
        self.shared.tell(|told| {
            told.statistics.failures += 1;
            told.statistics.last_error = Some(error);
        });
    }

    /// Withdraws all that the directory was told, as far as it gets by `deadline`.
    fn withdraw_all(&mut self, deadline: Instant) {
        // Pools take what was to be announced for told, so they withdraw it.
        self.batch.announce.clear();
        for source in self.shared.sources() {
            all_slots(|first| source.retire(first));
        }
        self.not_before = None;
        while Instant::now() < deadline {
            match self.step(Some(deadline)) {
                None => {}
                Some(until) if self.not_before.is_some() => {
                    thread::sleep(until.min(deadline).saturating_duration_since(Instant::now()));
                }
                Some(_) => break,
            }
        }
    }
}

/// Calls `some` for all slots of a pool: it is given the first slot, and returns where to go on.
fn all_slots(mut some: impl FnMut(u32) -> Option<u32>) {
    let mut first = Some(0);
    while let Some(at) = first {
        first = some(at);
    }
}

/// Up to a half of `wait`, by chance.
fn shortened(wait: Duration) -> Duration {
    // Without random numbers nothing is shortened.
    let chance = random_bytes().map_or(0, u16::from_le_bytes);
    wait.mul_f64(f64::from(chance) / f64::from(u16::MAX) / 2.0)
}
