//! A directory in Valkey or Redis: one server, or a cluster.
//!
//! # What lies there
//!
//! | key | value |
//! |---|---|
//! | `kvrail:page:TAG` | a hash: for each owner with the page its [`Record`] and when that ends |
//! | `kvrail:owner:EPOCH:{N}` | where the owner is; it ends with the owner's lease |
//!
//! Every server has a copy of each owner's entry (`N` is chosen so that it lies there). By its
//! copies an owner learns which server has lost its memory; by them readers learn that an owner is
//! dead, without a message to any other server than the one with the page.
//!
//! # Time
//!
//! A call returns by its deadline whatever the servers do: it runs on a thread of the directory's
//! own, and the caller waits for the answers that come in time. Answers of live servers count
//! although others are silent. A server that fails is left alone for a while
//! ([`BackingOff`](DirectoryError::BackingOff)), at most 5 s.
//!
//! # What it promises
//!
//! What every directory does: hints. Redis may be shared, flushed, forged, or lose its last writes
//! as another server takes over; the worst is a miss. See docs/directory.md for how it is to be set
//! up.

mod address;
mod calls;
mod owners;
mod requests;
mod server;
mod stored;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;
use tokio::runtime::{Builder, Runtime};

pub use address::{MAX_PREFIX, MAX_SEEDS, RedisConfig, RedisConfigError};

use calls::{Calls, Change};
use owners::{Announcers, Liveness};
use topology::Topology;

use super::{Directory, DirectoryError, Found, Owner, Renewed};
use crate::record::Record;

/// How much longer [`owners`](Directory::owners) waits for servers that are silent, once others
/// have said that there is no such owner.
const FOR_THE_OTHERS: Duration = Duration::from_millis(50);

/// A directory in Valkey or Redis.
#[derive(Debug)]
pub struct RedisDirectory {
    calls: Arc<Calls>,
    name: Arc<str>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl RedisDirectory {
    /// The directory on these servers. They are not asked for anything yet, and need not be there.
    ///
    /// # Errors
    ///
    /// The system gives it no thread.
    pub fn start(config: RedisConfig) -> io::Result<Self> {
        #[cfg(feature = "redis-tls")]
        provide_cryptography();
        let mut runtime = Builder::new_multi_thread();
        // Two for names that a resolver must be asked for.
        runtime.worker_threads(1).max_blocking_threads(2).enable_all().thread_name("kvrail-redis");
        let runtime = runtime.build()?;
        let topology = Arc::new(Topology::new(config.clone()));
        let name = config.servers().to_string().into();
        let (announcers, liveness) = (Announcers::default(), Liveness::default());
        let calls = Arc::new(Calls { config, topology, announcers, liveness });
        Ok(Self { calls, name, runtime: Some(runtime) })
    }

    fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(call);
        }
    }

    fn deadline(&self) -> DirectoryError {
        DirectoryError::Deadline { directory: Arc::clone(&self.name) }
    }

    /// Runs a call until the deadline. What it has begun goes on after that.
    fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        call: impl Future<Output = Result<T, DirectoryError>> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let (out, results) = mpsc::channel();
        self.spawn(async move {
            // The caller may have left.
            let _ = out.send(call.await);
        });
        match results.recv_timeout(left(deadline)) {
            Ok(result) => result,
            Err(_) => Err(self.deadline()),
        }
    }
}

/// Gives rustls what encrypts, unless the program has chosen a provider already.
#[cfg(feature = "redis-tls")]
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have chosen one since.
        let _ = rustls_graviola::default_provider().install_default();
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Drop for RedisDirectory {
    fn drop(&mut self) {
        // A resolver that is asked for a name may take its time, and is not waited for. Nor may a
        // thread that runs another runtime wait here.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Directory for RedisDirectory {
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found) {
        found.reset(tags.len());
        if tags.is_empty() {
            return;
        }
        let (out, results) = mpsc::channel();
        self.spawn(Arc::clone(&self.calls).look_up(tags.to_vec(), out));
        let mut open = vec![true; tags.len()];
        // The senders are gone when all parts have answered.
        while let Ok((keys, answers)) = results.recv_timeout(left(deadline)) {
            let mut failed: Option<(Vec<usize>, DirectoryError)> = None;
            for (key, answer) in keys.into_iter().zip(answers) {
                open[key] = false;
                match answer {
                    Ok(records) => found.answer(key, tags[key], records),
                    Err(error) => {
                        // The keys of a server that failed all have its error, which is kept once.
                        let same =
                            |(_, known): &&mut (Vec<usize>, DirectoryError)| known.code() == error.code();
                        match failed.as_mut().filter(same) {
                            Some((keys, _)) => keys.push(key),
                            None => {
                                if let Some((keys, error)) = failed.replace((vec![key], error)) {
                                    found.not_answered(keys, error);
                                }
                            }
                        }
                    }
                }
            }
            if let Some((keys, error)) = failed {
                found.not_answered(keys, error);
            }
        }
        let silent: Vec<_> = (0..tags.len()).filter(|&key| open[key]).collect();
        if !silent.is_empty() {
            found.not_answered(silent, self.deadline());
        }
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        let mut places = HashMap::new();
        let mut different = Vec::new();
        for &epoch in epochs {
            places.entry(epoch).or_insert_with(|| {
                different.push(epoch);
                different.len() - 1
            });
        }
        if different.is_empty() {
            return Ok(Vec::new());
        }
        let (out, results) = mpsc::channel();
        self.spawn(Arc::clone(&self.calls).owners(different.clone(), out));
        let mut found: Vec<Option<Owner>> = vec![None; different.len()];
        let (mut answered, mut error, mut until) = (false, None, deadline);
        loop {
            match results.recv_timeout(left(until)) {
                Ok(Ok(owners)) => {
                    for (found, owner) in found.iter_mut().zip(owners) {
                        *found = found.take().or(owner);
                    }
                    if !answered {
                        until = deadline.min(Instant::now() + FOR_THE_OTHERS.min(left(deadline) / 4));
                    }
                    answered = true;
                    if found.iter().all(Option::is_some) {
                        break;
                    }
                }
                Ok(Err(failed)) => error = error.or(Some(failed)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        if !answered {
            return Err(error.unwrap_or_else(|| self.deadline()));
        }
        Ok(epochs.iter().map(|epoch| found[places[epoch]].clone()).collect())
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        if let Some(other) = records.iter().find(|record| record.owner != owner.epoch) {
            let why = format!("a record of {:?} is announced by {:?}", other.owner, owner.epoch).into();
            return Err(DirectoryError::Refused { directory: Arc::clone(&self.name), why });
        }
        let calls = Arc::clone(&self.calls);
        self.run(deadline, calls.change(Change::Announce, Some(owner.clone()), records.to_vec(), deadline))
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        let calls = Arc::clone(&self.calls);
        self.run(deadline, calls.change(Change::Withdraw, None, records.to_vec(), deadline))
    }

    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        let (answered, error) = self.run(deadline, Arc::clone(&self.calls).renew(owner.clone()))?;
        if answered.is_empty() {
            return Err(error.unwrap_or_else(|| self.deadline()));
        }
        // Taken only now that the caller is there to hear of it.
        if self.calls.announcers.take_lost(owner.epoch, &answered, self.calls.config.refresh) {
            return Ok(Renewed::Lost);
        }
        // What the silent servers have is not known.
        error.map_or(Ok(Renewed::Kept), Err)
    }

    fn lease(&self) -> Duration {
        self.calls.config.lease
    }

    fn describe(&self) -> String {
        self.name.to_string()
    }
}
