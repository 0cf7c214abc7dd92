//! The places of connections, and the requests of other threads to the reactor's thread.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::connection::{Acceptor, Connection};
use super::id::ConnectionId;
use crate::descriptors::OwnerProcess;
use crate::listener::Listener;
use crate::wake::WakeFd;

/// What is to be served under an id.
pub(super) enum Incoming {
    Connection(NewConnection),
    Listener(Listener, Box<dyn Acceptor>),
}

/// A connection to be served.
pub(super) struct NewConnection {
    pub(super) tcp: TcpStream,
    pub(super) connection: Box<dyn Connection>,
    pub(super) made: Made,
}

/// How far the connection is made.
pub(super) enum Made {
    Yes,
    /// It is being made, and that may last until then.
    Until(Instant),
    /// It cannot be made.
    Failed(io::Error),
}

/// A request to the reactor's thread.
pub(super) enum Request {
    Add(ConnectionId, Box<Incoming>),
    Notify(ConnectionId),
    Close(ConnectionId),
}

/// What all handles and the thread of one reactor share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the thread.
    pub(super) wake: WakeFd,
    /// Signalled when the state becomes [`Running::Ended`].
    ended: Condvar,
    owner: OwnerProcess,
}

struct State {
    places: Vec<Place>,
    free: Vec<u32>,
    /// In the order in which they were made. Each live place has at most three requests here.
    requests: VecDeque<Request>,
    /// The thread has been woken since it last found no request.
    woken: bool,
    running: Running,
}

#[derive(Clone, Copy)]
struct Place {
    life: u32,
    used: bool,
    /// A request to notify waits.
    notify_waits: bool,
    /// A request to close was made.
    closing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Running {
    Yes,
    /// Connections may finish until then.
    Until(Instant),
    Ended,
}

/// What the thread found.
pub(super) struct Found {
    /// More requests wait.
    pub(super) more: bool,
    /// The reactor is to stop, and its connections may finish until then.
    pub(super) stop: Option<Instant>,
}

impl Shared {
    pub(super) fn new() -> Result<Self, Errno> {
        let state = State {
            places: Vec::new(),
            free: Vec::new(),
            requests: VecDeque::new(),
            woken: false,
            running: Running::Yes,
        };
        let (wake, owner) = (WakeFd::new()?, OwnerProcess::current());
        Ok(Self { state: Mutex::new(state), wake, ended: Condvar::new(), owner })
    }

    /// Whether this process made the reactor.
    pub(super) fn is_owner(&self) -> bool {
        self.owner.is_current()
    }

    /// The state, or `None` in a child of a fork where the lock is taken: the thread that held it
    /// is not in the child. No code of a connection runs while the lock is held, so the state is
    /// valid even if the lock is poisoned.
    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if self.is_owner() => {
                Some(self.state.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Adds a request, and wakes the thread if no request since its last look has woken it.
    fn request(&self, mut state: MutexGuard<'_, State>, request: Request) {
        state.requests.push_back(request);
        let woken = std::mem::replace(&mut state.woken, true);
        drop(state);
        if !woken {
            self.wake.request();
        }
    }

    /// Gives `incoming` an id, and hands it to the thread. Where that fails, `incoming` is dropped
    /// here.
    pub(super) fn enter(&self, incoming: Box<Incoming>) -> io::Result<ConnectionId> {
        let stopped = || io::Error::new(io::ErrorKind::BrokenPipe, "the reactor has stopped");
        if !self.is_owner() {
            return Err(io::Error::other("the reactor is of the process that forked this one"));
        }
        let mut state = self.lock().ok_or_else(stopped)?;
        if state.running != Running::Yes {
            return Err(stopped());
        }
        let id = state.reserve()?;
        self.request(state, Request::Add(id, incoming));
        Ok(id)
    }

    /// A place for a connection that the thread itself has accepted.
    pub(super) fn reserve(&self) -> io::Result<ConnectionId> {
        self.lock().ok_or(io::ErrorKind::BrokenPipe)?.reserve()
    }

    /// Gives a place back whose connection is gone.
    pub(super) fn release(&self, id: ConnectionId) {
        let Some(mut state) = self.lock() else { return };
        if let Some(place) = state.live(id) {
            let life = place.life.wrapping_add(1);
            *place = Place { life, used: false, notify_waits: false, closing: false };
            state.free.push(id.place);
        }
    }

    pub(super) fn notify(&self, id: ConnectionId) {
        let Some(mut state) = self.lock() else { return };
        if let Some(place) = state.live(id)
            && !std::mem::replace(&mut place.notify_waits, true)
        {
            self.request(state, Request::Notify(id));
        }
    }

    pub(super) fn close(&self, id: ConnectionId) {
        let Some(mut state) = self.lock() else { return };
        if let Some(place) = state.live(id)
            && !std::mem::replace(&mut place.closing, true)
        {
            self.request(state, Request::Close(id));
        }
    }

    /// Moves up to `most` requests to `into`.
    pub(super) fn take(&self, into: &mut Vec<Request>, most: usize) -> Found {
        // The request flag is taken first: a request after the look below sets it again.
        let _ = self.wake.take_request();
        let Some(mut state) = self.lock() else { return Found { more: false, stop: None } };
        let count = state.requests.len().min(most);
        for _ in 0..count {
            let Some(request) = state.requests.pop_front() else { break };
            if let Request::Notify(id) = request
                && let Some(place) = state.live(id)
            {
                place.notify_waits = false;
            }
            into.push(request);
        }
        let more = !state.requests.is_empty();
        state.woken = more;
        let stop = match state.running {
            Running::Until(deadline) => Some(deadline),
            Running::Yes | Running::Ended => None,
        };
        Found { more, stop }
    }

    /// Asks the thread to end; connections may finish until `deadline`.
    pub(super) fn stop(&self, deadline: Instant) {
        let Some(mut state) = self.lock() else { return };
        state.running = match state.running {
            Running::Yes => Running::Until(deadline),
            Running::Until(earlier) => Running::Until(earlier.min(deadline)),
            Running::Ended => return,
        };
        drop(state);
        self.wake.request();
    }

    /// The thread ends: no request is accepted from now on. Returns those that were not served.
    pub(super) fn end(&self) -> VecDeque<Request> {
        let Some(mut state) = self.lock() else { return VecDeque::new() };
        if state.running == Running::Yes {
            state.running = Running::Until(Instant::now());
        }
        std::mem::take(&mut state.requests)
    }

    /// The thread has dropped all values.
    pub(super) fn has_ended(&self) {
        if let Some(mut state) = self.lock() {
            state.running = Running::Ended;
        }
        self.ended.notify_all();
    }

    /// Waits until the thread has dropped all values, `time` at most, and returns whether it has.
    pub(super) fn await_end(&self, time: Duration) -> bool {
        let Some(state) = self.lock() else { return false };
        let goes_on = |state: &mut State| state.running != Running::Ended;
        let waited = self.ended.wait_timeout_while(state, time, goes_on);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl State {
    fn reserve(&mut self) -> io::Result<ConnectionId> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.places.len()).ok().filter(|&place| place < u32::MAX);
                let place = place.ok_or_else(|| io::Error::other("the reactor has no place left"))?;
                self.places.push(Place { life: 0, used: false, notify_waits: false, closing: false });
                place
            }
        };
        let entry = &mut self.places[place as usize];
        entry.used = true;
        Ok(ConnectionId { place, life: entry.life })
    }

    /// The place of `id`, unless its connection is gone.
    fn live(&mut self, id: ConnectionId) -> Option<&mut Place> {
        self.places.get_mut(id.place as usize).filter(|place| place.used && place.life == id.life)
    }
}

/// What a place costs here and in the queue of requests, for the bound on idle connections.
pub(super) const PLACE_BYTES: usize = size_of::<Place>() + size_of::<u32>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_an_earlier_life_is_not_live() {
        let shared = Shared::new().unwrap();
        let first = shared.reserve().unwrap();
        assert_eq!(ConnectionId::from_data(first.to_data()), first);
        shared.release(first);
        let second = shared.reserve().unwrap();
        assert_eq!(first.place, second.place);
        shared.notify(first);
        shared.close(first);
        shared.release(first);
        let mut requests = Vec::new();
        assert!(!shared.take(&mut requests, 10).more && requests.is_empty());
        shared.notify(second);
        shared.notify(second);
        shared.close(second);
        assert!(shared.take(&mut requests, 1).more);
        assert!(matches!(requests[..], [Request::Notify(id)] if id == second));
        shared.notify(second);
        assert!(!shared.take(&mut requests, 10).more);
        assert!(matches!(requests[1..], [Request::Close(_), Request::Notify(_)]));
    }
}
