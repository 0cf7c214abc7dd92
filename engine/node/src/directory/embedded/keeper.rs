//! The thread that keeps the sessions with shards: it connects, asks for heartbeats, and gives up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::session::ServiceClient;
use kvrail_host::reactor::Handle;

use super::config::EmbeddedConfig;
use super::state::{Shared, State, TARGETS, Target};
use super::wire::{self, DIRECTORY_SERVICE, FoundPlaces};

pub(super) struct Keeper {
    pub(super) config: EmbeddedConfig,
    pub(super) handle: Handle,
    pub(super) shared: Arc<Shared>,
}

impl Keeper {
    /// Runs until the client is dropped.
    pub(super) fn run(self) {
        let mut next_beat = Instant::now() + self.config.heartbeat;
        loop {
            let now = Instant::now();
            let mut state = self.shared.lock();
            if state.stopping {
                return;
            }
            if now >= next_beat || std::mem::take(&mut state.hurry) {
                let targets = state.targets.clone();
                drop(state);
                self.beat(targets);
                next_beat = Instant::now() + self.config.heartbeat;
                continue;
            }
            if let Some(candidate) = wanted(&state, now) {
                drop(state);
                self.connect(candidate);
                continue;
            }
            if !std::mem::replace(&mut state.begun, true) {
                self.shared.has_changed();
            }
            let due = state.candidates.iter().map(|candidate| candidate.next).filter(|&next| next > now);
            let until = due.chain([next_beat]).min().unwrap_or(next_beat);
            // Callers wait for the same changes, and wake this thread now and then.
            drop(self.shared.wait(state, until));
        }
    }

    /// Tries to reach a candidate.
    fn connect(&self, candidate: usize) {
        let EmbeddedConfig { candidates, keys, node, connect, .. } = &self.config;
        let deadline = Instant::now() + *connect;
        let reached = ServiceClient::connect(&self.handle, &candidates[candidate], keys, *node, deadline);
        let mut state = self.shared.lock();
        match reached {
            Ok(client) => state.reach(candidate, client),
            Err(error) => state.leave_alone(candidate, error.to_string().into()),
        }
        drop(state);
        self.shared.has_changed();
    }

    /// Asks all shards whether they live, and gives up those that do not say so in time.
    fn beat(&self, targets: Vec<Target>) {
        let deadline = Instant::now() + self.config.heartbeat;
        let mut question = Vec::new();
        wire::look_up(&[], &mut question);
        let asked: Vec<_> =
            targets.iter().map(|target| target.client.begin(DIRECTORY_SERVICE, &question)).collect();
        for (target, asked) in targets.iter().zip(asked) {
            let answer = asked.and_then(|asked| asked.wait(deadline));
            let lives = answer.is_ok_and(|answer| FoundPlaces::parse(0, &answer).is_ok());
            if !lives {
                self.shared.lock().lose(target);
                self.shared.has_changed();
            }
        }
        let extra = self.shared.lock().drop_extra(self.config.lease);
        for target in extra {
            tracing::debug!(shard = %target.address, "a shard of the directory is not needed any more");
        }
    }
}

/// The candidate to be tried now: the first that is not reached, unless enough shards before it
/// are.
fn wanted(state: &State, now: Instant) -> Option<usize> {
    let mut before: Vec<&Target> = Vec::with_capacity(TARGETS);
    for (at, candidate) in state.candidates.iter().enumerate() {
        if before.len() >= TARGETS {
            return None;
        }
        match state.targets.iter().find(|target| target.candidate == at) {
            Some(target) if before.iter().any(|known| known.is_same_shard(target)) => {}
            Some(target) => before.push(target),
            None if candidate.next <= now => return Some(at),
            None => {}
        }
    }
    None
}

/// How long the drop of a client waits until its goodbyes are sent.
pub(super) const GOODBYE: Duration = Duration::from_millis(100);
