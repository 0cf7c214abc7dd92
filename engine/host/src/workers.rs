//! A bounded number of threads for jobs that may block.
//!
//! Code that must not block, a connection of a [`reactor`](crate::reactor) for instance, hands a
//! job that may block to [`Workers`]. Each job has a key: what the job may hang on, such as a
//! device. Jobs of one key get a bounded number of the threads at a time, so a device that hangs
//! leaves threads to the other keys. How many keys may hang before no thread is left is the number
//! of threads divided by the bound.
//!
//! Jobs of one key start in the order in which they were submitted. Keys take turns: each gets the
//! start of one job before the first of them gets another.
//!
//! # Threads
//!
//! A thread is started when a job could run and no thread waits for one; no thread is started
//! before the first job. Threads stay until the workers are stopped or dropped.
//!
//! # Bounds
//!
//! The queue has no bound of its own, as [`submit`](Workers::submit) never blocks: each caller
//! bounds the number of its jobs.
//!
//! # Forks
//!
//! In a child of a fork there are no threads of the parent. There, submitting fails, and to stop or
//! drop the workers does nothing.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crate::descriptors::OwnerProcess;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs which may block, until the workers are stopped or dropped.
///
/// A drop stops them and waits for no job. In a child of a fork it does nothing.
pub struct Workers {
    shared: Arc<Shared>,
}

/// What all threads share.
struct Shared {
    name: String,
    threads: usize,
    per_key: usize,
    state: Mutex<State>,
    /// Signalled when a job can be started and when the threads are to end.
    work: Condvar,
    /// Signalled when a thread ends.
    ended: Condvar,
    owner: OwnerProcess,
}

#[derive(Default)]
struct State {
    /// The keys with a job that waits or runs.
    keys: BTreeMap<u32, KeyJobs>,
    /// The keys of which a job may start now, each once. The first one's turn is next.
    ready: VecDeque<u32>,
    /// Threads that have not ended.
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    /// Jobs that run.
    running: usize,
    stopping: bool,
    handles: Vec<JoinHandle<()>>,
}

/// The jobs of one key.
#[derive(Default)]
struct KeyJobs {
    waiting: VecDeque<Job>,
    running: usize,
    /// The key is in [`State::ready`].
    ready: bool,
}

impl Workers {
    /// Workers with at most `threads` threads, which run at most `per_key` jobs of one key at a
    /// time. A number of 0 counts as 1. Linux keeps 15 bytes of `name`, which all threads have.
    #[must_use]
    pub fn new(name: &str, threads: usize, per_key: usize) -> Self {
        let shared = Shared {
            name: name.into(),
            threads: threads.max(1),
            per_key: per_key.max(1),
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            owner: OwnerProcess::current(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has `job` run by one of the threads, as a job of `key`. Does not block. A panic of the job
    /// ends the job alone.
    ///
    /// # Errors
    ///
    /// No thread runs and none can be started, the workers have stopped, or this process is a child
    /// of the one that made them. The job has been dropped.
    pub fn submit(&self, key: u32, job: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if !self.shared.owner.is_current() {
            return Err(io::Error::other("the workers are of the process that forked this one"));
        }
        let mut state = self.shared.lock();
        if state.stopping {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the workers have stopped"));
        }
        state.keys.entry(key).or_default().waiting.push_back(job);
        state.make_ready(key, self.shared.per_key);
        match self.shared.call_a_thread(&mut state) {
            Err(error) if state.threads == 0 => {
                let jobs = state.drop_waiting();
                drop(state);
                drop_all(jobs);
                Err(error)
            }
            // A thread that runs takes the job later.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Drops the jobs that have not started, on this thread, and waits until those that run have
    /// ended, at most until `deadline`. Returns how many run then; each ends by itself, and its
    /// thread with it. From now on no job is accepted.
    ///
    /// A job that calls this waits for itself in vain.
    pub fn stop(&self, deadline: Instant) -> usize {
        if !self.shared.owner.is_current() {
            return 0;
        }
        let mut state = self.shared.lock();
        state.stopping = true;
        let jobs = state.drop_waiting();
        drop(state);
        self.shared.work.notify_all();
        drop_all(jobs);
        self.shared.await_end(deadline)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { name, threads, per_key, .. } = &*self.shared;
        f.debug_struct("Workers")
            .field("name", name)
            .field("threads", threads)
            .field("per_key", per_key)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// No job runs while the lock is held, so the state is valid even if the lock is poisoned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes a thread that waits, or starts one, if a job may start.
    fn call_a_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        // A thread that was woken counts as idle until it has the lock, and so does its job's key
        // as ready.
        if state.ready.len() > state.idle && state.threads < self.threads {
            let shared = Arc::clone(self);
            let thread = Builder::new().name(self.name.clone()).spawn(move || shared.work())?;
            state.threads += 1;
            state.handles.push(thread);
        } else if !state.ready.is_empty() {
            self.work.notify_one();
        }
        Ok(())
    }

    /// The body of a thread.
    fn work(self: Arc<Self>) {
        let mut state = self.lock();
        while !state.stopping {
            let Some((key, job)) = state.start(self.per_key) else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            // Fails if the system has no thread left: this thread takes the next job, too.
            let _ = self.call_a_thread(&mut state);
            drop(state);
            contain(job);
            state = self.lock();
            state.end(key, self.per_key);
        }
        state.threads -= 1;
        drop(state);
        self.ended.notify_all();
    }

    /// Waits for the threads until `deadline`, and returns how many jobs run.
    fn await_end(&self, deadline: Instant) -> usize {
        let mut state = self.lock();
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return state.running;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        for thread in handles {
            // The thread does nothing any more, and the panics of its jobs were reported.
            let _ = thread.join();
        }
        0
    }
}

impl State {
    /// Gives `key` a turn if one of its jobs may start.
    fn make_ready(&mut self, key: u32, per_key: usize) {
        let Some(jobs) = self.keys.get_mut(&key) else { return };
        if !jobs.ready && !jobs.waiting.is_empty() && jobs.running < per_key {
            jobs.ready = true;
            self.ready.push_back(key);
        }
    }

    /// Takes the job whose turn is next.
    fn start(&mut self, per_key: usize) -> Option<(u32, Job)> {
        let key = self.ready.pop_front()?;
        let jobs = self.keys.get_mut(&key)?;
        jobs.ready = false;
        let job = jobs.waiting.pop_front()?;
        jobs.running += 1;
        self.running += 1;
        self.make_ready(key, per_key);
        Some((key, job))
    }

    /// A job of `key` has ended.
    fn end(&mut self, key: u32, per_key: usize) {
        self.running -= 1;
        if let Some(jobs) = self.keys.get_mut(&key) {
            jobs.running -= 1;
            if jobs.running == 0 && jobs.waiting.is_empty() {
                self.keys.remove(&key);
            }
        }
        self.make_ready(key, per_key);
    }

    /// Takes out all jobs that have not started.
    fn drop_waiting(&mut self) -> Vec<Job> {
        self.ready.clear();
        let jobs = self.keys.values_mut().flat_map(|jobs| {
            jobs.ready = false;
            jobs.waiting.drain(..)
        });
        let jobs = jobs.collect();
        self.keys.retain(|_, jobs| jobs.running > 0);
        jobs
    }
}

/// Runs `job`. A panic's message has been printed; the drop of the panic's value may panic, too.
fn contain(job: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    }
}

fn drop_all(jobs: Vec<Job>) {
    for job in jobs {
        contain(move || drop(job));
    }
}

#[cfg(test)]
mod tests;
