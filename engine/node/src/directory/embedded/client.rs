//! The client's side: a directory over the shards that are reached.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail::NodeName;
use kvrail::session::service::MAX_UNANSWERED;
use kvrail::session::{AskError, Asker, Cause, Epoch, Service as _};
use kvrail_core::table::KeyTag;
use kvrail_host::reactor::Reactor;

use super::config::{EmbeddedConfig, EmbeddedError};
use super::keeper::{GOODBYE, Keeper};
use super::shard::EmbeddedShard;
use super::state::{NO_ANSWER, Shared, Target};
use super::wire::{
    self, DIRECTORY_SERVICE, FormatError, FoundPlaces, Lease, MAX_EPOCHS, MAX_KEYS, MAX_RECORDS,
};
use crate::directory::{Directory, DirectoryError, Found, Owner, Renewed};
use crate::record::Record;

/// How many questions of one call are under way at a time.
const PIPELINE: usize = 16;
/// How long an announcement waits for a standby that does not answer.
const STANDBY: Duration = Duration::from_millis(500);

/// A directory that nodes of the group keep in memory: [the module](super) has its rules.
///
/// An owner announces and renews by one client, which remembers what it has announced where; the
/// clients of other nodes look up. All calls may come from any thread.
pub struct EmbeddedDirectory {
    lease: Duration,
    text: String,
    shared: Arc<Shared>,
    /// The shard that this process has, by its server's epoch: it is asked by a call. Whether it is
    /// reached, and so which shard is asked, is known from its session all the same.
    own: Option<(Epoch, Arc<EmbeddedShard>)>,
    node: NodeName,
    /// Taken by the drop.
    keeper: Option<JoinHandle<()>>,
    reactor: Option<Reactor>,
}

impl EmbeddedDirectory {
    /// Begins to reach the candidates; the first calls wait for that.
    ///
    /// # Errors
    ///
    /// There is no candidate, the lease is out of its bounds, or the system has no thread left.
    pub fn start(config: EmbeddedConfig) -> Result<Self, EmbeddedError> {
        config.check()?;
        let addresses: Vec<Arc<str>> =
            config.candidates.iter().map(|address| address.to_string().into()).collect();
        let text = format!("embedded://{}", addresses.join(","));
        let lease = config.lease;
        let shared = Arc::new(Shared::new(addresses.into_iter(), lease));
        let (own, node) = (config.own.clone(), config.node);
        let reactor = Reactor::start("kvrail-lookups").map_err(EmbeddedError::Thread)?;
        let keeper = Keeper { config, handle: reactor.handle(), shared: Arc::clone(&shared) };
        let named = std::thread::Builder::new().name("kvrail-keeper".into());
        let keeper = named.spawn(move || keeper.run()).map_err(EmbeddedError::Thread)?;
        Ok(Self { lease, text, shared, own, node, keeper: Some(keeper), reactor: Some(reactor) })
    }

    /// The error of a question to `target`; a shard that does not answer is looked at at once.
    fn failed(&self, target: &Target, error: &AskError) -> DirectoryError {
        let directory = Arc::clone(&target.address);
        match error {
            AskError::Deadline => {
                self.shared.suspect(target);
                DirectoryError::Deadline { directory }
            }
            AskError::Refused(refusal) => {
                DirectoryError::Refused { directory, why: refusal.to_string().into() }
            }
            // Nothing is wrong with the shard: it is asked too much at a time.
            AskError::TooMany => DirectoryError::Busy { directory, limit: MAX_UNANSWERED },
            // This side has ended the session (`State::lose`).
            AskError::Session(error) if matches!(error.cause, Cause::Stopped) => {
                DirectoryError::Unreachable { directory, why: NO_ANSWER.into() }
            }
            other => {
                self.shared.suspect(target);
                DirectoryError::Unreachable { directory, why: other.to_string().into() }
            }
        }
    }

    /// Asks `target` one question for each part of `items`, several at a time, and gives the answer
    /// for each part to `take`, with the place of its first item. Stops at the first error.
    fn ask<T>(
        &self,
        target: &Target,
        (items, part): (&[T], usize),
        deadline: Instant,
        mut encode: impl FnMut(&[T], &mut Vec<u8>),
        mut take: impl FnMut(usize, &[T], &[u8]) -> Result<(), FormatError>,
    ) -> Result<(), DirectoryError> {
        let mut question = Vec::new();
        let mut first = 0;
        let wrong = |error: FormatError| DirectoryError::Answer {
            directory: Arc::clone(&target.address),
            why: error.to_string().into(),
        };
        if let Some((_, shard)) = self.own.as_ref().filter(|(epoch, _)| *epoch == target.client.epoch()) {
            let mut answer = Vec::new();
            for items in items.chunks(part) {
                question.clear();
                answer.clear();
                encode(items, &mut question);
                // Sessions are counted from 1.
                let asker = Asker::new(0, self.node, Instant::now());
                let answered = shard.answer(&asker, &question, &mut answer);
                answered.map_err(|refusal| DirectoryError::Refused {
                    directory: Arc::clone(&target.address),
                    why: refusal.to_string().into(),
                })?;
                take(first, items, &answer).map_err(wrong)?;
                first += items.len();
            }
            return Ok(());
        }
        for some in items.chunks(part * PIPELINE) {
            let begin = |items: &[T]| {
                question.clear();
                encode(items, &mut question);
                target.client.begin(DIRECTORY_SERVICE, &question)
            };
            let asked: Vec<_> = some.chunks(part).map(begin).collect();
            for (asked, items) in asked.into_iter().zip(some.chunks(part)) {
                let answer = asked.and_then(|asked| asked.wait(deadline));
                let answer = answer.map_err(|error| self.failed(target, &error))?;
                take(first, items, &answer).map_err(wrong)?;
                first += items.len();
            }
        }
        Ok(())
    }

    /// Looks up at one shard. On an error, returns how many keys were answered.
    fn look_up_at(
        &self,
        target: &Target,
        tags: &[KeyTag],
        (done, deadline): (usize, Instant),
        found: &mut Found,
    ) -> Result<(), (usize, DirectoryError)> {
        let mut answered = done;
        let take = |first: usize, tags: &[KeyTag], bytes: &[u8]| {
            let records = FoundPlaces::parse(tags.len(), bytes)?.records(tags);
            for (key, (tag, records)) in records.enumerate() {
                found.answer(done + first + key, tag, records);
            }
            answered = done + first + tags.len();
            Ok(())
        };
        let result = self.ask(target, (&tags[done..], MAX_KEYS), deadline, wire::look_up, take);
        result.map_err(|error| (answered, error))
    }

    fn announce_at(
        &self,
        target: &Target,
        lease: &Lease,
        records: &[Record],
        deadline: Instant,
    ) -> Result<(), DirectoryError> {
        let (mut life, mut limit) = (None, 0);
        // Without records the owner is announced all the same.
        let empty: [&[Record]; 1] = [&[]];
        let parts: Vec<&[Record]> = records.chunks(MAX_RECORDS).collect();
        let parts = if parts.is_empty() { &empty[..] } else { &parts[..] };
        let encode = |parts: &[&[Record]], out: &mut Vec<u8>| wire::announce(lease, parts[0], out);
        let take = |_: usize, _: &[&[Record]], answer: &[u8]| {
            let announced = wire::announced(answer)?;
            limit = limit.max(announced.limit);
            // Of two lives, the first is noted: the second lacks what the first had.
            life.get_or_insert(announced.life);
            Ok(())
        };
        let result = self.ask(target, (parts, 1), deadline, encode, take);
        let mut state = self.shared.lock();
        let owner = lease.owner.epoch;
        match (&result, life) {
            (Ok(()), Some(life)) => state.announced(owner, target, life),
            _ => state.not_announced(owner, target),
        }
        drop(state);
        result?;
        if limit > 0 {
            let why = format!("it holds {limit} records, its limit: raise ShardConfig::max_records");
            let directory = Arc::clone(&target.address);
            return Err(DirectoryError::Refused { directory, why: why.into() });
        }
        Ok(())
    }

    /// Does `call` at the shard that is looked up at. If that dies, says nothing or has as many
    /// questions as it may have, does it at the one after it, for which half of the time is left.
    fn at_one(
        &self,
        deadline: Instant,
        mut call: impl FnMut(&Target, Instant) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        let (first, second) = self.shared.first_two(deadline)?;
        let patience = if second.is_some() { half_way(deadline) } else { deadline };
        let Err(error) = call(&first, patience) else { return Ok(()) };
        let next = match (&error, second) {
            // A stopped shard has the questions of all calls until it is given up: one more has the
            // standby.
            (
                DirectoryError::Unreachable { .. }
                | DirectoryError::Deadline { .. }
                | DirectoryError::Busy { .. },
                Some(second),
            ) => second,
            // Whichever is reached by now: the keeper has given the first up.
            (DirectoryError::Unreachable { .. }, None) => {
                self.shared.other_than(&first, deadline).map_err(|_| error)?
            }
            _ => return Err(error),
        };
        call(&next, deadline)
    }

    /// Does `call` at all shards: at that which is looked up at, whose result counts, and at the
    /// standby, which is not waited for as long.
    fn at_all(
        &self,
        deadline: Instant,
        mut call: impl FnMut(&Target, Instant) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        let targets = self.shared.all(deadline)?;
        let Some((first, others)) = targets.split_first() else { return Ok(()) };
        let result = call(first, deadline);
        for standby in others {
            let patience = deadline.min(Instant::now() + STANDBY);
            if let Err(error) = call(standby, patience) {
                tracing::debug!(%error, "the standby of the directory");
            }
        }
        result
    }
}

/// The moment in the middle of the time that is left until `deadline`.
fn half_way(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

impl Directory for EmbeddedDirectory {
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found) {
        found.reset(tags.len());
        if tags.is_empty() {
            return;
        }
        let mut done = 0;
        let result = self.at_one(deadline, |target, deadline| {
            let looked_up = self.look_up_at(target, tags, (done, deadline), found);
            looked_up.map_err(|(answered, error)| {
                done = answered;
                error
            })
        });
        if let Err(error) = result {
            found.not_answered(done..tags.len(), error);
        }
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        let mut owners = Vec::with_capacity(epochs.len());
        if epochs.is_empty() {
            return Ok(owners);
        }
        self.at_one(deadline, |target, deadline| {
            owners.clear();
            self.ask(target, (epochs, MAX_EPOCHS), deadline, wire::owners, |_, epochs, answer| {
                let found = wire::found_owners(epochs, answer)?;
                owners.extend(found.into_iter().map(|lease| lease.map(|lease| lease.owner)));
                Ok(())
            })
        })?;
        Ok(owners)
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        let lease = Lease::new(owner.clone(), self.lease);
        self.at_all(deadline, |target, deadline| self.announce_at(target, &lease, records, deadline))
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        if records.is_empty() {
            return Ok(());
        }
        self.at_all(deadline, |target, deadline| {
            self.ask(target, (records, MAX_RECORDS), deadline, wire::withdraw, |_, _, answer| {
                wire::withdrawn(answer).map(drop)
            })
        })
    }

    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        let lease = Lease::new(owner.clone(), self.lease);
        let mut kept = true;
        self.at_all(deadline, |target, deadline| {
            let encode = |_: &[()], out: &mut Vec<u8>| wire::renew(&lease, out);
            self.ask(target, (&[()], 1), deadline, encode, |_, _, answer| {
                let known = wire::renewed(answer)?;
                kept &= self.shared.lock().renewed(owner.epoch, target, known.life, known.known);
                Ok(())
            })
        })?;
        Ok(if kept { Renewed::Kept } else { Renewed::Lost })
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    fn describe(&self) -> String {
        self.text.clone()
    }
}

impl Drop for EmbeddedDirectory {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        let targets = std::mem::take(&mut state.targets);
        drop(state);
        self.shared.has_changed();
        drop(targets);
        if let Some(keeper) = self.keeper.take() {
            // It ends after the attempt or heartbeat that it makes; its panics were reported.
            let _ = keeper.join();
        }
        // What it has reached meanwhile.
        self.shared.lock().targets.clear();
        if let Some(reactor) = self.reactor.take() {
            reactor.stop(Instant::now() + GOODBYE);
        }
    }
}

impl fmt::Debug for EmbeddedDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedDirectory").field("candidates", &self.text).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
