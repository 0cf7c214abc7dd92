//! The shards that a client has reached, and what it knows of its owners there.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvrail::session::{Epoch, ServiceClient};

use crate::directory::DirectoryError;

/// How many shards are kept: the one that is looked up at, and a standby.
pub(super) const TARGETS: usize = 2;
/// Why a shard is given up that does not say in time that it lives.
pub(super) const NO_ANSWER: &str = "it did not answer, and was given up";
/// How long a candidate that was not reached is left alone, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What the threads that call a client share with the one that keeps its sessions.
pub(super) struct Shared {
    /// The lease: a shard that was reached for so long is settled.
    settle: Duration,
    state: Mutex<State>,
    /// Something has changed: a shard was reached or lost, or a round of attempts is over.
    changed: Condvar,
}

pub(super) struct State {
    /// The shards that are reached, in the order of the candidates.
    pub(super) targets: Vec<Target>,
    pub(super) candidates: Vec<Candidate>,
    /// What became of this client's announcements: by owner and candidate.
    homes: HashMap<(Epoch, usize), OwnerLife>,
    /// The first round of attempts is over.
    pub(super) begun: bool,
    /// The keeper is to look at once.
    pub(super) hurry: bool,
    pub(super) stopping: bool,
}

/// A shard that is reached.
#[derive(Clone)]
pub(super) struct Target {
    /// The place of its address in the list of candidates.
    pub(super) candidate: usize,
    pub(super) address: Arc<str>,
    pub(super) client: Arc<ServiceClient>,
    since: Instant,
}

impl Target {
    /// Whether both are one shard: candidates may be several addresses of one.
    pub(super) fn is_same_shard(&self, other: &Self) -> bool {
        self.client.epoch() == other.client.epoch()
    }
}

/// A candidate, as far as it was tried.
pub(super) struct Candidate {
    pub(super) address: Arc<str>,
    /// When it may be tried again.
    pub(super) next: Instant,
    back_off: Duration,
    /// Why it was not reached.
    error: Arc<str>,
}

/// An owner's life at a shard, in which all that this client has announced is there.
#[derive(Clone, Copy, PartialEq, Eq)]
struct OwnerLife {
    shard: Epoch,
    life: u64,
    /// An announcement has failed: something may be missing.
    broken: bool,
}

impl Shared {
    pub(super) fn new(addresses: impl Iterator<Item = Arc<str>>, settle: Duration) -> Self {
        let now = Instant::now();
        let candidate =
            |address| Candidate { address, next: now, back_off: BACK_OFF.0, error: "not tried yet".into() };
        let state = State {
            targets: Vec::new(),
            candidates: addresses.map(candidate).collect(),
            homes: HashMap::new(),
            begun: false,
            hurry: false,
            stopping: false,
        };
        Self { settle, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The state: plain values, which are valid whichever thread panicked.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_changed(&self) {
        self.changed.notify_all();
    }

    /// Waits for a change, until `until` at most.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Instant) -> MutexGuard<'a, State> {
        let left = until.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The shard to look up at.
    pub(super) fn first(&self, deadline: Instant) -> Result<Target, DirectoryError> {
        self.first_two(deadline).map(|(first, _)| first)
    }

    /// The shard to look up at, and the one that is asked when this does not answer: another one
    /// that has been reached for a lease, so that it has the owners' records.
    pub(super) fn first_two(&self, deadline: Instant) -> Result<(Target, Option<Target>), DirectoryError> {
        let now = Instant::now();
        let state = self.reached(deadline, |_| true)?;
        let mut settled = state.targets.iter().filter(|target| target.since + self.settle <= now);
        // A list of reached shards is not empty.
        let first = settled.next().or_else(|| state.targets.first());
        let second = first.and_then(|first| settled.find(|target| !target.is_same_shard(first)));
        first.map(|first| (first.clone(), second.cloned())).ok_or_else(|| state.back_off(now))
    }

    /// The shard to look up at when `failed` has not answered: another one, if one is reached.
    pub(super) fn other_than(&self, failed: &Target, deadline: Instant) -> Result<Target, DirectoryError> {
        let first = self.first(deadline)?;
        if !first.is_same_shard(failed) {
            return Ok(first);
        }
        let other = self.lock().targets.iter().find(|target| !target.is_same_shard(failed)).cloned();
        Ok(other.unwrap_or(first))
    }

    /// The shards to announce to, that which is looked up at first. Waits for the first round of
    /// attempts, so that the records of a new client are at the standby, too.
    pub(super) fn all(&self, deadline: Instant) -> Result<Vec<Target>, DirectoryError> {
        let first = self.first(deadline)?;
        let state = self.reached(deadline, |state| state.begun)?;
        let others = state.targets.iter().filter(|target| target.candidate != first.candidate).cloned();
        Ok(std::iter::once(first.clone()).chain(others).collect())
    }

    /// Waits until a shard is reached and `enough`, or all candidates are left alone for a while.
    fn reached(
        &self,
        deadline: Instant,
        enough: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'_, State>, DirectoryError> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if !state.targets.is_empty() && (enough(&state) || now >= deadline) {
                return Ok(state);
            }
            let tried = state.candidates.iter().all(|candidate| candidate.next > now);
            if state.targets.is_empty() && state.begun && tried {
                return Err(state.back_off(now));
            }
            if now >= deadline {
                return Err(DirectoryError::Deadline { directory: state.addresses() });
            }
            state = self.wait(state, deadline.min(now + Duration::from_millis(100)));
        }
    }

    /// A call has found that the session with a shard has ended, or that the shard does not answer.
    pub(super) fn suspect(&self, target: &Target) {
        let mut state = self.lock();
        if target.client.ended().is_some() {
            state.lose(target);
        }
        state.hurry = true;
        drop(state);
        self.has_changed();
    }
}

impl State {
    /// The error where no shard is reached.
    fn back_off(&self, now: Instant) -> DirectoryError {
        let next = self.candidates.iter().min_by_key(|candidate| candidate.next);
        let wait = next.map_or(Duration::ZERO, |next| next.next.saturating_duration_since(now));
        let why = next.map_or_else(|| Arc::from("no candidate"), |next| Arc::clone(&next.error));
        let directory = self.addresses();
        if wait.is_zero() {
            return DirectoryError::Unreachable { directory, why };
        }
        DirectoryError::BackingOff { directory, wait }
    }

    fn addresses(&self) -> Arc<str> {
        match &self.candidates[..] {
            [one] => Arc::clone(&one.address),
            candidates => {
                let texts: Vec<_> = candidates.iter().map(|candidate| &*candidate.address).collect();
                texts.join(",").into()
            }
        }
    }

    /// A candidate was reached.
    pub(super) fn reach(&mut self, candidate: usize, client: ServiceClient) {
        let place = &mut self.candidates[candidate];
        place.back_off = BACK_OFF.0;
        let address = Arc::clone(&place.address);
        tracing::info!(shard = %address, node = %client.producer(), "a shard of the directory is reached");
        let target = Target { candidate, address, client: Arc::new(client), since: Instant::now() };
        let at = self.targets.partition_point(|target| target.candidate < candidate);
        self.targets.insert(at, target);
    }

    /// A candidate was not reached, or lost.
    pub(super) fn leave_alone(&mut self, candidate: usize, error: Arc<str>) {
        let place = &mut self.candidates[candidate];
        place.next = Instant::now() + place.back_off;
        place.back_off = (2 * place.back_off).min(BACK_OFF.1);
        place.error = error;
    }

    /// The session with a shard has ended, or the shard does not answer: then it is given up for
    /// all threads that wait for it.
    pub(super) fn lose(&mut self, lost: &Target) {
        let before = self.targets.len();
        self.targets.retain(|target| !Arc::ptr_eq(&target.client, &lost.client));
        if self.targets.len() < before {
            let why = lost.client.ended().map_or_else(|| NO_ANSWER.into(), |why| why.to_string());
            tracing::warn!(shard = %lost.address, why, "a shard of the directory is lost");
            self.leave_alone(lost.candidate, why.into());
            lost.client.give_up();
        }
    }

    /// Gives up shards beyond the first two that are settled.
    pub(super) fn drop_extra(&mut self, settle: Duration) -> Vec<Target> {
        let (now, mut kept) = (Instant::now(), Vec::with_capacity(TARGETS));
        let extra = self.targets.extract_if(.., |target| {
            let (extra, shard) = (kept.len() >= TARGETS, target.client.epoch());
            if target.since + settle <= now && !kept.contains(&shard) {
                kept.push(shard);
            }
            extra
        });
        extra.collect()
    }

    /// Notes an answer to an announcement.
    pub(super) fn announced(&mut self, owner: Epoch, target: &Target, life: u64) {
        let home = OwnerLife { shard: target.client.epoch(), life, broken: false };
        let known = self.homes.entry((owner, target.candidate)).or_insert(home);
        if (known.shard, known.life) != (home.shard, home.life) {
            // What was announced before is missing there.
            known.broken = true;
        }
    }

    /// Notes that an announcement has failed.
    pub(super) fn not_announced(&mut self, owner: Epoch, target: &Target) {
        let home = OwnerLife { shard: target.client.epoch(), life: 0, broken: true };
        self.homes.entry((owner, target.candidate)).or_insert(home).broken = true;
    }

    /// Notes the answer to a renewal, and returns whether all that was announced is there.
    pub(super) fn renewed(&mut self, owner: Epoch, target: &Target, life: u64, known: bool) -> bool {
        let home = OwnerLife { shard: target.client.epoch(), life, broken: false };
        let before = self.homes.insert((owner, target.candidate), home);
        known && before.is_none_or(|before| before == home)
    }
}
