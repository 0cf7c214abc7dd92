//! Gets that were begun: one thread for all of a node's, which takes in those that have ended and
//! makes a descriptor readable.

use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use kvrail_host::wake::EventFd;
use kvrail_node::{GetBatch, GetHandle, NodeError};

use crate::abi::node_types::kvrail_ended_get;
use crate::error::CapiError;

/// How long after its deadline a get is looked at again: it has given up what did not come by then.
const LATE: Duration = Duration::from_millis(120);

/// A get that is under way.
struct Flight {
    ticket: u64,
    tag: u64,
    /// When it is looked at, even if nothing wakes the thread.
    look: Instant,
    handle: GetHandle,
}

#[derive(Default)]
struct State {
    tickets: u64,
    flights: Vec<Flight>,
    /// Ended gets, by their tickets, until their results are taken.
    ended: HashMap<u64, GetBatch>,
    /// Those that were not named yet.
    unnamed: VecDeque<kvrail_ended_get>,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    some_ended: Condvar,
    readable: EventFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid whichever thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what has ended, until it is told to stop.
    fn run(&self) {
        loop {
            let mut state = self.lock();
            if state.stop {
                return;
            }
            let now = Instant::now();
            let mut look = None::<Instant>;
            let mut at = 0;
            while let Some(flight) = state.flights.get_mut(at) {
                // It does not wait: it has this thread woken when the get ends.
                if flight.handle.wait(now) {
                    let Flight { ticket, tag, handle, .. } = state.flights.swap_remove(at);
                    if let Ok((batch, _)) = handle.finish() {
                        state.ended.insert(ticket, batch);
                        state.unnamed.push_back(kvrail_ended_get { ticket, tag });
                        self.readable.signal();
                        self.some_ended.notify_all();
                    }
                } else {
                    look = Some(look.map_or(flight.look, |look| look.min(flight.look)));
                    at += 1;
                }
            }
            drop(state);
            match look {
                None => thread::park(),
                Some(look) => {
                    let least = Duration::from_millis(1);
                    thread::park_timeout(look.saturating_duration_since(now).max(least));
                }
            }
        }
    }
}

/// The gets of a node that were begun.
pub(super) struct Begun {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Begun {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self, CapiError> {
        let readable = EventFd::new().map_err(|error| CapiError::Descriptor(error.into()))?;
        let shared = Arc::new(Shared { state: Mutex::default(), some_ended: Condvar::new(), readable });
        let taking = Arc::clone(&shared);
        let thread = Builder::new().name("kvrail-begun".into()).spawn(move || taking.run());
        Ok(Self { shared, thread: Some(thread.map_err(NodeError::Thread)?) })
    }

    /// The descriptor that is readable while ended gets are not named.
    pub(super) fn fd(&self) -> RawFd {
        self.shared.readable.as_fd().as_raw_fd()
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Takes in a get that was begun. Returns its ticket.
    pub(super) fn add(&self, handle: GetHandle, until: Instant, tag: u64) -> u64 {
        let mut state = self.shared.lock();
        state.tickets += 1;
        let ticket = state.tickets;
        state.flights.push(Flight { ticket, tag, look: until + LATE, handle });
        drop(state);
        self.wake();
        ticket
    }

    /// The batch of an ended get of `count` keys. Waits for it until `until`.
    pub(super) fn take(&self, ticket: u64, count: usize, until: Instant) -> Result<GetBatch, CapiError> {
        let mut state = self.shared.lock();
        loop {
            // Under the lock, so that a caller with another count changes nothing for the others.
            if state.ended.get(&ticket).is_some_and(|batch| batch.len() != count) {
                let (what, value) = ("count", count as u64);
                return Err(CapiError::Value { what, value, allowed: "the number of keys of the get" });
            }
            if let Some(batch) = state.ended.remove(&ticket) {
                state.unnamed.retain(|ended| ended.ticket != ticket);
                self.clear_if_named(&state);
                return Ok(batch);
            }
            if !state.flights.iter().any(|flight| flight.ticket == ticket) {
                return Err(CapiError::Ticket { ticket });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CapiError::Underway { ticket });
            }
            let waited = self.shared.some_ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn clear_if_named(&self, state: &State) {
        if state.unnamed.is_empty() {
            self.shared.readable.clear();
        }
    }

    /// Gives up a get.
    pub(super) fn abandon(&self, ticket: u64) -> Result<(), CapiError> {
        let mut state = self.shared.lock();
        if let Some(at) = state.flights.iter().position(|flight| flight.ticket == ticket) {
            state.flights.swap_remove(at);
            // A thread that waits for it waits for nothing now.
            self.shared.some_ended.notify_all();
            return Ok(());
        }
        let known = state.ended.remove(&ticket);
        state.unnamed.retain(|ended| ended.ticket != ticket);
        self.clear_if_named(&state);
        known.map(drop).ok_or(CapiError::Ticket { ticket })
    }

    /// Names gets that have ended, each once.
    pub(super) fn ended(&self, places: &mut [MaybeUninit<kvrail_ended_get>]) -> usize {
        let mut state = self.shared.lock();
        let count = places.len().min(state.unnamed.len());
        for (place, ended) in places.iter_mut().zip(state.unnamed.drain(..count)) {
            place.write(ended);
        }
        self.clear_if_named(&state);
        count
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stop = true;
        // Their places become free when nothing writes there any more.
        state.flights.clear();
        state.ended.clear();
        drop(state);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It does not panic, and nothing depends on it any more.
            let _ = thread.join();
        }
    }
}
