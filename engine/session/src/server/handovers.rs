//! The hand-overs of a server, which the owner of the pages and the readers' sessions share.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use kvrail_host::reactor::{ConnectionId, Handle};

use crate::handover::{
    Block, EndedHandover, HandoverConfig, HandoverConfigError, HandoverError, HandoverId, HandoverMessage,
    HandoverProtocolError, Handovers, RequestId, SessionId,
};

/// The hand-overs of a [`Server`](super::Server), for the owner of its pages. Any thread may use
/// it; no call waits for a peer.
///
/// What is said here is told to the readers at once. Leases end by themselves, on a thread that
/// sleeps until the next one is due.
#[derive(Clone)]
pub struct SharedHandovers(Arc<Inner>);

/// What a session's reader is to be told of its hand-overs.
pub(super) enum NextMessage {
    Message(HandoverMessage),
    Nothing,
    /// The reader must be told of new pools first.
    AfterPools,
}

struct Inner {
    state: Mutex<State>,
    /// A hand-over has ended, or the server has stopped.
    ended: Condvar,
    /// The next deadline is earlier than `wakes`, or the thread is to end.
    sooner: Condvar,
    reactor: Handle,
}

struct State {
    handovers: Handovers,
    /// The connections of sessions that have taken something.
    connections: BTreeMap<SessionId, ConnectionId>,
    /// When the thread of the leases wakes up; `None`: not before it is told to.
    wakes: Option<Instant>,
    thread: Option<JoinHandle<()>>,
    stopped: bool,
}

impl SharedHandovers {
    /// No hand-over is open, and no session has taken one.
    pub(super) fn new(config: HandoverConfig, reactor: Handle) -> Result<Self, HandoverConfigError> {
        let handovers = Handovers::new(config)?;
        let state =
            State { handovers, connections: BTreeMap::new(), wakes: None, thread: None, stopped: false };
        let (ended, sooner) = (Condvar::new(), Condvar::new());
        Ok(Self(Arc::new(Inner { state: Mutex::new(state), ended, sooner, reactor })))
    }

    /// Opens the hand-over of a request. Its lease begins. The first reader that waits for the
    /// request gets it.
    ///
    /// # Errors
    ///
    /// The request is open; too many are; the server is stopping, or the system has no thread left
    /// to end leases.
    pub fn open(&self, request: RequestId) -> Result<HandoverId, OpenHandoverError> {
        let mut state = self.0.lock();
        self.0.watch_leases(&mut state).map_err(OpenHandoverError::Thread)?;
        let id = state.handovers.open(request, Instant::now())?;
        self.0.tell(state);
        Ok(id)
    }

    /// Adds blocks at the end of the list. A block's `ready` is what may be read of it already.
    ///
    /// # Errors
    ///
    /// The hand-over is not open, or complete; the list would get too long; a block names no
    /// published page. Nothing is added then.
    pub fn append(&self, id: HandoverId, blocks: &[Block]) -> Result<(), HandoverError> {
        self.0.with(|handovers, _| handovers.append(id, blocks))
    }

    /// Says that of each block at these places of the list, at least `parts` parts may be read.
    /// Call it when the bytes of the parts are visible to devices and the table entry says that
    /// they are ready.
    ///
    /// # Errors
    ///
    /// The hand-over is not open, or complete; the range goes beyond the list. Nothing changes
    /// then.
    pub fn set_ready(&self, id: HandoverId, places: Range<u32>, parts: u32) -> Result<(), HandoverError> {
        self.0.with(|handovers, _| handovers.set_ready(id, places, parts))
    }

    /// Says that the list grows no more, and neither do the parts that are ready.
    ///
    /// # Errors
    ///
    /// The hand-over is not open, or complete already.
    pub fn complete(&self, id: HandoverId) -> Result<(), HandoverError> {
        self.0.with(|handovers, _| handovers.complete(id))
    }

    /// Ends a hand-over because its request is no longer computed, complete or not. Its reader is
    /// told; if it has none, later ones are told for the time of a lease. The outcome comes by
    /// [`next_outcome`](Self::next_outcome).
    ///
    /// # Errors
    ///
    /// The hand-over is not open.
    pub fn abort(&self, id: HandoverId) -> Result<(), HandoverError> {
        self.0.with(|handovers, now| handovers.abort(id, now))
    }

    /// Says that a request will not be opened. Readers that wait for it are told, and later ones
    /// for the time of a lease, or until it is opened all the same.
    ///
    /// # Errors
    ///
    /// The request is open: abort its hand-over.
    pub fn reject(&self, request: RequestId) -> Result<(), HandoverError> {
        self.0.with(|handovers, now| handovers.reject(request, now))
    }

    /// The next hand-over that has ended: each that was opened comes once. The owner invalidates
    /// the table entries of its blocks, and only then overwrites a slot.
    #[must_use = "its blocks are the owner's again"]
    pub fn next_outcome(&self) -> Option<EndedHandover> {
        self.0.with(|handovers, now| {
            handovers.tick(now);
            handovers.next_outcome()
        })
    }

    /// Waits for the next hand-over that ends, until `until` at the latest, or until the server has
    /// stopped and none is left.
    #[must_use = "its blocks are the owner's again"]
    pub fn wait_outcome(&self, until: Instant) -> Option<EndedHandover> {
        let mut state = self.0.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(outcome) = state.handovers.next_outcome() {
                return Some(outcome);
            }
            if state.stopped || left.is_zero() {
                return None;
            }
            state = self.0.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many hand-overs are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.0.lock().handovers.open_count()
    }

    /// Takes in what the reader of a session says. The first message of a session adds it, with the
    /// connection to notify when there is something to say to it.
    pub(super) fn received(
        &self,
        session: SessionId,
        connection: ConnectionId,
        message: &HandoverMessage,
        now: Instant,
    ) -> Result<(), HandoverProtocolError> {
        let mut state = self.0.lock();
        if state.connections.insert(session, connection).is_none() {
            state.handovers.add_session(session);
        }
        // Without that thread a lease ends at the next call that looks at the time.
        if let Err(error) = self.0.watch_leases(&mut state) {
            tracing::warn!(%error, "no thread to end leases");
        }
        let result = state.handovers.received(session, message, now);
        self.0.tell(state);
        result
    }

    /// The next message to a session's reader, if the hand-overs have something to say to it.
    ///
    /// `knows_pools` says whether the reader has been told of all pools; if not, the result is
    /// [`NextMessage::AfterPools`]. It is called while the state is locked: the owner offers a pool
    /// before it adds blocks of the pool, so blocks that are known here are of pools that
    /// `knows_pools` knows.
    pub(super) fn next_message(
        &self,
        session: SessionId,
        now: Instant,
        knows_pools: impl FnOnce() -> bool,
    ) -> NextMessage {
        let mut state = self.0.lock();
        if !knows_pools() {
            return NextMessage::AfterPools;
        }
        let message = state.handovers.next_message(session, now);
        self.0.tell(state);
        message.map_or(NextMessage::Nothing, NextMessage::Message)
    }

    /// The session has ended, and with it what it had taken.
    pub(super) fn session_lost(&self, session: SessionId, now: Instant) {
        let mut state = self.0.lock();
        state.connections.remove(&session);
        state.handovers.session_lost(session, now);
        self.0.tell(state);
    }

    /// Ends all hand-overs, and the thread of the leases. Their outcomes can still be fetched.
    pub(super) fn stop(&self) {
        let mut state = self.0.lock();
        state.handovers.stop(Instant::now());
        state.stopped = true;
        let thread = state.thread.take();
        self.0.sooner.notify_all();
        self.0.ended.notify_all();
        self.0.tell(state);
        if let Some(thread) = thread {
            // It ends as soon as it sees `stopped`. A panic there has been printed.
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// The lock guards a state machine whose calls do not panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `call` do something, and tells readers, owner and thread what has come of it.
    fn with<R>(&self, call: impl FnOnce(&mut Handovers, Instant) -> R) -> R {
        let mut state = self.lock();
        let result = call(&mut state.handovers, Instant::now());
        self.tell(state);
        result
    }

    /// Notifies the connections of sessions that have something to say, the owner if a hand-over
    /// has ended, and the thread of the leases if it sleeps for too long.
    fn tell(&self, mut state: MutexGuard<'_, State>) {
        while let Some(session) = state.handovers.next_session() {
            if let Some(&connection) = state.connections.get(&session) {
                self.reactor.notify(connection);
            }
        }
        if state.handovers.has_outcome() {
            self.ended.notify_all();
        }
        if let Some(due) = state.handovers.due()
            && state.wakes.is_none_or(|wakes| due < wakes)
        {
            self.sooner.notify_all();
        }
    }

    /// Starts the thread of the leases, unless it runs.
    fn watch_leases(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.thread.is_some() || state.stopped {
            return Ok(());
        }
        let this = Arc::clone(self);
        let thread = std::thread::Builder::new().name("kvrail-leases".into());
        state.thread = Some(thread.spawn(move || this.end_leases())?);
        Ok(())
    }

    /// Does what is due, until the server stops.
    fn end_leases(&self) {
        let mut state = self.lock();
        while !state.stopped {
            let now = Instant::now();
            state.handovers.tick(now);
            state.wakes = state.handovers.due();
            let wakes = state.wakes;
            self.tell(state);
            state = self.lock();
            if state.stopped || state.handovers.due() != wakes {
                continue;
            }
            state = match wakes {
                None => self.sooner.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    self.sooner.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl fmt::Debug for SharedHandovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedHandovers").field("open", &self.open_count()).finish_non_exhaustive()
    }
}

/// Why a hand-over was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenHandoverError {
    /// The hand-overs refuse it.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The system has no thread left.
    #[error("no thread can be started that ends leases: {0}")]
    Thread(io::Error),
}

impl OpenHandoverError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Thread(_) => 4066,
            Self::Handover(source) => source.code(),
        }
    }
}
