//! A session that asks services alone, for any number of threads.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::reactor::{Connection, ConnectionId, Flow, Handle};

use super::event::{ReaderDescription, SessionEvent};
use super::session::Session;
use crate::address::Address;
use crate::error::{Cause, SessionError, Step};
use crate::key::PeerKeys;
use crate::message::ByeReason;
use crate::name::NodeName;
use crate::offer::Epoch;
use crate::service::{AskError, AskNumber, ServiceAnswer, ServiceNumber, ServiceRefusal};
use crate::socket::{addresses_of, share_of_time};

/// A session that asks services alone. Any number of threads ask at a time; their questions share
/// the connection, and none waits for the answer of another.
///
/// The session ends once: then all questions without an answer, and all later ones, are
/// [`AskError::Session`] at once. It does not connect again; make another client for that.
/// [`give_up`](Self::give_up) ends it while other threads still wait for answers. Dropping it says
/// goodbye, and does not block; in a child of a fork it does nothing.
pub struct ServiceClient {
    shared: Arc<Shared>,
    handle: Handle,
    id: ConnectionId,
    producer: (NodeName, Epoch),
    owner: OwnerProcess,
}

/// A question that was asked. Dropping it drops the answer when that comes.
#[must_use = "the answer comes from `wait`"]
pub struct PendingAnswer<'a> {
    client: &'a ServiceClient,
    number: AskNumber,
}

/// What the threads that ask share with the reactor's thread.
struct Shared {
    state: Mutex<State>,
}

struct State {
    session: Session,
    /// How the connection goes on once the reactor asks.
    flow: Flow,
    ended: Option<Arc<SessionError>>,
    /// The questions that are waited for, in the order in which they were asked.
    calls: VecDeque<Call>,
    /// The thread that waits until the session is established.
    connecting: Option<Thread>,
}

struct Call {
    number: AskNumber,
    answer: Option<Result<Vec<u8>, ServiceRefusal>>,
    /// The thread that sleeps until the answer comes.
    sleeper: Option<Thread>,
}

impl Shared {
    /// The state. A panic of the connection's code closes the connection, which ends the session.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the session what the reactor has, and wakes the threads whose wait is over, after the
    /// lock was released.
    fn serve(&self, call: impl FnOnce(&mut Session) -> Flow) -> Flow {
        let mut state = self.lock();
        let flow = call(&mut state.session);
        // A session that has ended says so in all that it returns.
        state.flow = flow;
        let (one, others) = state.take_events();
        drop(state);
        one.into_iter().chain(others).for_each(|thread| thread.unpark());
        flow
    }
}

impl State {
    /// Takes what the session reports, and returns the threads to wake: most often one.
    fn take_events(&mut self) -> (Option<Thread>, Vec<Thread>) {
        let (mut one, mut others) = (None, Vec::new());
        let mut wake = |thread: Option<Thread>| match thread {
            Some(thread) if one.is_none() => one = Some(thread),
            Some(thread) => others.push(thread),
            None => {}
        };
        while let Some(ServiceAnswer { number, result }) = self.session.next_answer() {
            // A call that was given up is not in the list.
            if let Some(call) = self.calls.iter_mut().find(|call| call.number == number) {
                call.answer = Some(result);
                wake(call.sleeper.take());
            }
        }
        while let Some(event) = self.session.next_event() {
            match event {
                SessionEvent::Established(_) => wake(self.connecting.take()),
                SessionEvent::Ended(why) => {
                    self.ended = Some(why);
                    wake(self.connecting.take());
                    self.calls.iter_mut().for_each(|call| wake(call.sleeper.take()));
                }
                // A reader without layouts is told of no pool, and makes no lanes.
                SessionEvent::OfferChanged(_) | SessionEvent::Lane(..) | SessionEvent::Takings => {}
            }
        }
        (one, others)
    }

    /// Takes the call `number` out, if it has an answer or never will.
    fn take_result(&mut self, number: AskNumber) -> Option<Result<Vec<u8>, AskError>> {
        let at = self.calls.iter().position(|call| call.number == number)?;
        let ended = self.ended.as_ref().map(Arc::clone);
        let answer = self.calls[at].answer.take();
        let result = match (answer, ended) {
            (Some(answer), _) => answer.map_err(AskError::Refused),
            (None, Some(why)) => Err(AskError::Session(why)),
            (None, None) => return None,
        };
        self.calls.remove(at);
        Some(result)
    }
}

/// The connection of a client, as the reactor serves it.
struct ClientConnection(Arc<Shared>);

impl Connection for ClientConnection {
    fn received(&mut self, now: Instant, bytes: &[u8]) -> Flow {
        self.0.serve(|session| session.received(now, bytes))
    }

    fn ended(&mut self, now: Instant, error: Option<io::Error>) {
        self.0.serve(|session| {
            session.ended(now, error);
            Flow::Close
        });
    }

    fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) {
        self.0.lock().session.fill(now, out, room);
    }

    fn due(&self) -> Instant {
        self.0.lock().session.due()
    }

    fn tick(&mut self, now: Instant) -> Flow {
        self.0.serve(|session| session.tick(now))
    }

    fn notified(&mut self, _: Instant) -> Flow {
        self.0.lock().flow
    }
}

impl Drop for ClientConnection {
    /// A connection that is closed without a call, as at the end of its reactor, ends like any
    /// other.
    fn drop(&mut self) {
        self.0.serve(|session| {
            session.ended(Instant::now(), Some(io::ErrorKind::ConnectionAborted.into()));
            Flow::Close
        });
    }
}

impl ServiceClient {
    /// Connects to the producer at `address`, which may have any services and need not offer any
    /// pool; `handle`'s reactor serves the connection. Blocks, no longer than until `deadline`.
    ///
    /// # Errors
    ///
    /// What went wrong, with which peer and when.
    pub fn connect(
        handle: &Handle,
        address: &Address,
        keys: &PeerKeys,
        node: NodeName,
        deadline: Instant,
    ) -> Result<Self, Arc<SessionError>> {
        let targets = addresses_of(address, deadline).map_err(Arc::new)?;
        let failed = |step, cause| SessionError { peer: address.to_string(), step, cause };
        let mut last = Arc::new(failed(Step::Connecting, Cause::Deadline));
        for (tried, &target) in targets.iter().enumerate() {
            let until = share_of_time(Instant::now(), deadline, targets.len() - tried);
            let mut next = Some(0);
            while let Some(attempt) = next
                && Instant::now() < until
            {
                match Self::try_one(handle, address, (target, until), keys, attempt, node) {
                    Ok(client) => return Ok(client),
                    Err(error) => {
                        next = Session::next_attempt(keys, attempt, &error);
                        last = error;
                    }
                }
            }
        }
        Err(last)
    }

    /// Connects to one address with one key.
    fn try_one(
        handle: &Handle,
        address: &Address,
        (target, until): (SocketAddr, Instant),
        keys: &PeerKeys,
        attempt: usize,
        node: NodeName,
    ) -> Result<Self, Arc<SessionError>> {
        let failed = |error| {
            Arc::new(SessionError {
                peer: address.to_string(),
                step: Step::Connecting,
                cause: Cause::Io(error),
            })
        };
        let reader = ReaderDescription::of_services(node);
        let session = Session::new(address.to_string(), keys, attempt, reader, until, Instant::now())
            .map_err(Arc::new)?;
        let state = State {
            session,
            flow: Flow::GoOn,
            ended: None,
            calls: VecDeque::new(),
            connecting: Some(std::thread::current()),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let connection = Box::new(ClientConnection(Arc::clone(&shared)));
        let id = handle.connect(target, until, connection).map_err(failed)?;
        loop {
            let state = shared.lock();
            if let Some(why) = &state.ended {
                return Err(Arc::clone(why));
            }
            if let Some(offer) = state.session.offer() {
                let producer = (offer.producer, offer.epoch);
                drop(state);
                let (handle, owner) = (handle.clone(), OwnerProcess::current());
                return Ok(Self { shared, handle, id, producer, owner });
            }
            drop(state);
            // The session ends by `until`; the reactor may be late, or have stopped.
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                handle.close(id);
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            std::thread::park_timeout(left);
        }
    }

    /// The producer's name.
    #[must_use]
    pub const fn producer(&self) -> NodeName {
        self.producer.0
    }

    /// The producer's epoch: another one after each of its starts.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.producer.1
    }

    /// Why the session has ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<Arc<SessionError>> {
        self.shared.lock().ended.clone()
    }

    /// Ends the session for all threads that share it: each question without an answer, and each
    /// later one, is [`AskError::Session`] at once, of [`Cause::Stopped`]. It is what a program
    /// does with a producer that does not answer any more, so that no thread waits for it until its
    /// deadline. Says goodbye, and does not block. Does nothing if the session has ended, or in a
    /// child of a fork.
    pub fn give_up(&self) {
        if !self.owner.is_current() {
            return;
        }
        self.shared.serve(|session| session.bye(ByeReason::Finished));
        self.handle.notify(self.id);
    }

    /// How many threads sleep until their answer comes.
    #[cfg(test)]
    pub(crate) fn asleep(&self) -> usize {
        self.shared.lock().calls.iter().filter(|call| call.sleeper.is_some()).count()
    }

    /// Its connection, in the reactor that serves it.
    #[cfg(test)]
    pub(crate) const fn connection(&self) -> ConnectionId {
        self.id
    }

    /// Asks, without waiting for the answer.
    ///
    /// # Errors
    ///
    /// The question is too long, too many have no answer, or the session has ended.
    pub fn begin(&self, service: ServiceNumber, question: &[u8]) -> Result<PendingAnswer<'_>, AskError> {
        let mut state = self.shared.lock();
        let number = state.session.ask_service(service, question)?;
        state.calls.push_back(Call { number, answer: None, sleeper: None });
        drop(state);
        self.handle.notify(self.id);
        Ok(PendingAnswer { client: self, number })
    }

    /// Asks, and waits for the answer, until `deadline` at most.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin); the producer answered that there is no answer; there was none by
    /// the deadline; or the session ended first.
    pub fn call(
        &self,
        service: ServiceNumber,
        question: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, AskError> {
        self.begin(service, question)?.wait(deadline)
    }
}

impl PendingAnswer<'_> {
    /// Waits for the answer, until `deadline` at most.
    ///
    /// # Errors
    ///
    /// The producer answered that there is no answer; none came by the deadline; or the session
    /// ended first.
    pub fn wait(self, deadline: Instant) -> Result<Vec<u8>, AskError> {
        let mut thread = None;
        loop {
            let mut state = self.client.shared.lock();
            if let Some(result) = state.take_result(self.number) {
                return result;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Dropping `self` gives the call up.
                drop(state);
                return Err(AskError::Deadline);
            }
            let thread = thread.get_or_insert_with(std::thread::current);
            if let Some(call) = state.calls.iter_mut().find(|call| call.number == self.number) {
                call.sleeper = Some(thread.clone());
            }
            drop(state);
            std::thread::park_timeout(left.min(Duration::from_secs(3600)));
        }
    }
}

impl Drop for PendingAnswer<'_> {
    fn drop(&mut self) {
        // Finds nothing after a result was taken.
        self.client.shared.lock().calls.retain(|call| call.number != self.number);
    }
}

impl Drop for ServiceClient {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            // In a child of a fork the connection is the parent's.
            return;
        }
        let mut state = self.shared.lock();
        state.flow = state.session.bye(ByeReason::Finished);
        drop(state);
        self.handle.notify(self.id);
    }
}

impl fmt::Debug for ServiceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (producer, epoch) = &self.producer;
        f.debug_struct("ServiceClient")
            .field("producer", producer)
            .field("epoch", epoch)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAnswer").field("number", &self.number).finish_non_exhaustive()
    }
}
