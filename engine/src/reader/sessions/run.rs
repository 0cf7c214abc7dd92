//! A session of a reader: the connections that the reactor serves for it, one after the other, and
//! its jobs.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvrail_core::events::LaneWanted;
use kvrail_host::log_limit::LogLimit;
use kvrail_host::reactor::{Connection, Flow, Handle};
use kvrail_host::workers::Workers;
use kvrail_session::{
    ByeReason, Cause, LaneNumber, Offer, OfferChange, Pool, Session, SessionError, SessionEvent, Step,
    addresses_of,
};

use super::attempt::{Attempt, Attempts};
use super::jobs::{DialerMaker, Job, RESOLVING, SessionDialer};
use super::lanes::Lanes;
use super::messages::{ConnectRequest, Reporter, SessionFailure, SessionNews};
use super::state::{Agreeing, SessionState, Stage, read_from};

/// A time at which nothing is due.
const FAR: Duration = Duration::from_secs(3600);

/// What the sessions of a reader have in common.
pub(super) struct Common<D: SessionDialer> {
    pub(super) handle: Handle,
    pub(super) workers: Workers,
    pub(super) dialers: DialerMaker<D>,
    pub(super) rails: usize,
    /// For log lines that producers can cause.
    pub(super) log: LogLimit,
}

impl<D: SessionDialer> Common<D> {
    fn log_change(&self, peer: &str, change: &OfferChange) {
        let Some(left_out) = self.log.allows() else { return };
        match change {
            OfferChange::Came(pool) => {
                let (pool, layout) = (pool.id(), pool.layout());
                tracing::info!(peer, %pool, %layout, left_out, "a producer offers a pool");
            }
            OfferChange::Gone(pool) => tracing::info!(peer, %pool, left_out, "a producer takes a pool back"),
            OfferChange::Unknown(layout) => {
                tracing::info!(peer, %layout, left_out, "a producer offers pages of another layout");
            }
            _ => tracing::info!(peer, left_out, "a producer offers something else now"),
        }
    }
}

/// A session. The reader, the reactor's thread and the threads of the workers share it.
pub(super) struct ReaderSession<D: SessionDialer> {
    common: Arc<Common<D>>,
    reporter: Reporter<D::UnopenedLane>,
    /// Held for short times only: nothing blocks meanwhile.
    state: Mutex<SessionState<D>>,
}

impl<D: SessionDialer> ReaderSession<D> {
    /// Begins a session. Its news say how that ends.
    pub(super) fn begin(
        common: Arc<Common<D>>,
        reporter: Reporter<D::UnopenedLane>,
        request: ConnectRequest,
    ) -> io::Result<Arc<Self>> {
        let ConnectRequest { address, keys, reader, wanted, lanes_per_rail, on_demand, deadline, .. } =
            request;
        let agreeing = Agreeing { attempts: Attempts::new(keys, deadline), reader };
        let state =
            SessionState::new(address.to_string(), wanted, (lanes_per_rail, on_demand, deadline), agreeing);
        let this = Arc::new(Self { common, reporter, state: Mutex::new(state) });
        if address.is_ip() {
            this.resolved(addresses_of(&address, deadline));
        } else {
            let session = Arc::clone(&this);
            let job = Box::new(move || session.resolved(addresses_of(&address, deadline)));
            this.common.workers.submit(RESOLVING, job)?;
        }
        Ok(this)
    }

    /// The state. A panic of a connection's code closes the connection, which ends the session.
    fn lock(&self) -> MutexGuard<'_, SessionState<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the addresses of the producer, and begins the first connection.
    fn resolved(self: &Arc<Self>, found: Result<Vec<SocketAddr>, SessionError>) {
        let mut state = self.lock();
        let Stage::Resolving(mut agreeing) = std::mem::replace(&mut state.stage, Stage::Over) else {
            return;
        };
        match found.map(|addresses| agreeing.attempts.first(addresses, Instant::now())) {
            Ok(Some(attempt)) => self.connect(&mut state, agreeing, attempt),
            Ok(None) => self.fail(state.error(Step::Connecting, io::ErrorKind::TimedOut.into())),
            Err(error) => self.fail(error),
        }
    }

    /// Begins the connection of an attempt.
    fn connect(
        self: &Arc<Self>,
        state: &mut SessionState<D>,
        agreeing: Box<Agreeing>,
        Attempt { address, key, until }: Attempt,
    ) {
        let Agreeing { attempts, reader } = &*agreeing;
        let (peer, now) = (state.peer.clone(), Instant::now());
        let session = Session::new(peer, attempts.keys(), key, reader.clone(), state.deadline, now);
        let session = match session {
            Ok(session) => session,
            Err(error) => return self.fail(error),
        };
        state.session = Some(session);
        state.connections += 1;
        let connection =
            SessionConnection { session: Arc::clone(self), number: state.connections, served: false };
        match self.common.handle.connect(address, until, Box::new(connection)) {
            Ok(id) => {
                state.connection = Some(id);
                state.stage = Stage::Agreeing(agreeing);
            }
            Err(error) => self.fail(state.error(Step::Connecting, error)),
        }
    }

    fn fail(&self, why: SessionError) {
        self.reporter.report(SessionNews::Failed(SessionFailure::Session(Arc::new(why))));
    }

    /// Asks for a lane. News answer: the lane's, or the session's end.
    pub(super) fn request_lane(self: &Arc<Self>, wanted: LaneWanted) {
        let mut state = self.lock();
        let SessionState { stage: Stage::Established(lanes), session: Some(session), .. } = &mut *state
        else {
            return;
        };
        lanes.request(wanted, session, Instant::now());
        self.pass_on(&mut state);
        self.notify(&state);
    }

    /// Has the first lanes of the peer made. News answer, or the session's end.
    pub(super) fn open_lanes(self: &Arc<Self>) {
        let mut state = self.lock();
        if let Some((lanes, session)) = state.lanes() {
            lanes.open(session);
            lanes.report_session(session, Instant::now());
            self.pass_on(&mut state);
            self.notify(&state);
        }
    }

    /// Has the producer free its end of this lane.
    pub(super) fn release(&self, lane: LaneNumber) {
        let mut state = self.lock();
        // If the session has ended, all its lanes are given back already.
        if let SessionState { stage: Stage::Established(_), session: Some(session), .. } = &mut *state {
            session.release(&[lane]);
            self.notify(&state);
        }
    }

    /// Lets `call` learn something of a request that was taken. `None`: the session has ended.
    pub(super) fn look<R>(&self, call: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let mut state = self.lock();
        let (_, session) = state.lanes()?;
        Some(call(session))
    }

    /// The pools that the producer offers now. `None`: the session has ended.
    pub(super) fn pools(&self) -> Option<Vec<Pool>> {
        let mut state = self.lock();
        state.offer_is_news = false;
        let (_, session) = state.lanes()?;
        session.offer().map(|offer| offer.pools.clone())
    }

    /// Lets `call` say something about a request. `None`: the session has ended.
    pub(super) fn say<R>(&self, call: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let result = self.look(call)?;
        self.notify(&self.lock());
        Some(result)
    }

    /// Ends the session.
    pub(super) fn hang_up(self: &Arc<Self>) {
        let mut state = self.lock();
        self.end(&mut state, None);
        state.bye.get_or_insert(ByeReason::Finished);
        self.notify(&state);
    }

    fn notify(&self, state: &SessionState<D>) {
        if let Some(connection) = state.connection {
            self.common.handle.notify(connection);
        }
    }

    /// Ends the session, `why` unless the reader ends it itself.
    fn end(self: &Arc<Self>, state: &mut SessionState<D>, why: Option<Arc<SessionError>>) {
        match std::mem::replace(&mut state.stage, Stage::Over) {
            Stage::Established(mut lanes) => {
                lanes.end(why);
                self.pass_on_from(&mut lanes, None);
            }
            Stage::Resolving(_) | Stage::Agreeing(_) => {
                if let Some(why) = why {
                    self.reporter.report(SessionNews::Failed(SessionFailure::Session(why)));
                }
            }
            Stage::Over => {}
        }
    }

    /// Passes news of the lanes on to the reader, and jobs to the workers. A session without
    /// anything to read ends.
    fn pass_on(self: &Arc<Self>, state: &mut SessionState<D>) {
        let SessionState { stage: Stage::Established(lanes), session, .. } = &mut *state else { return };
        if self.pass_on_from(lanes, session.as_mut()) {
            self.end(state, None);
            state.bye.get_or_insert(ByeReason::Finished);
        }
    }

    /// Passes news and jobs on, and returns whether connecting has failed.
    fn pass_on_from(self: &Arc<Self>, lanes: &mut Lanes<D>, mut session: Option<&mut Session>) -> bool {
        while let Some(job) = lanes.next_job() {
            let (key, lane, this) = (job.key(), job.lane(), Arc::clone(self));
            let submitted = self.common.workers.submit(key, Box::new(move || this.run(job)));
            if let Err(error) = submitted {
                tracing::error!(lane = ?lane, %error, "no thread to make lanes");
                if let (Some(rail), Some(session)) = (lane, session.as_deref_mut()) {
                    lanes.without_thread(rail, error, session);
                }
            }
        }
        let mut failed = false;
        while let Some(news) = lanes.next_news() {
            failed |= matches!(news, SessionNews::Failed(_));
            self.reporter.report(news);
        }
        failed
    }

    /// Runs a job, on a thread of the workers.
    fn run(self: &Arc<Self>, job: Job<D>) {
        let wanted = {
            let mut state = self.lock();
            let wanted = match &mut state.stage {
                Stage::Established(lanes) => lanes.begun(&job, Instant::now()),
                _ => false,
            };
            // The reactor's thread learns when the lane is late.
            self.notify(&state);
            wanted
        };
        let result = if wanted { job.run(&self.common.dialers) } else { job.skip() };
        let mut state = self.lock();
        let SessionState { stage: Stage::Established(lanes), session: Some(session), .. } = &mut *state
        else {
            // The lock is released before the lane is dropped, which may block.
            return drop(state);
        };
        let now = Instant::now();
        lanes.done(result, session, now);
        lanes.report_session(session, now);
        self.pass_on(&mut state);
        self.notify(&state);
    }

    /// Takes in what the session has to say. `flow` is what it has said about the connection.
    fn after(self: &Arc<Self>, state: &mut SessionState<D>, flow: Flow, now: Instant) -> Flow {
        while let Some(event) = state.session.as_mut().and_then(Session::next_event) {
            match event {
                SessionEvent::Established(offer) => self.established(state, &offer),
                SessionEvent::Lane(number, result) => {
                    if let Some((lanes, session)) = state.lanes() {
                        lanes.answered(number, result, session);
                    }
                }
                // The reader is told of the session with the offer as it is then, and afterwards of
                // each change.
                SessionEvent::OfferChanged(change) => {
                    self.common.log_change(&state.peer, &change);
                    // Once until the reader looks, so that a reader which does not costs no memory.
                    if !std::mem::replace(&mut state.offer_is_news, true) {
                        self.reporter.report(SessionNews::Offer);
                    }
                }
                SessionEvent::Takings => self.reporter.report(SessionNews::Takings),
                SessionEvent::Ended(why) => return self.ended(state, why, flow, now),
                _ => {}
            }
        }
        if let Some((lanes, session)) = state.lanes() {
            lanes.expire(session, now);
            lanes.report_session(session, now);
        }
        self.pass_on(state);
        match (flow, state.bye.take()) {
            (Flow::GoOn, Some(reason)) => state.say_bye(reason),
            (flow, _) => flow,
        }
    }

    /// Begins to make lanes, if the offer has anything to read.
    fn established(self: &Arc<Self>, state: &mut SessionState<D>, offer: &Offer) {
        let (failure, reason) = match read_from(offer, &state.wanted) {
            Ok(()) => {
                let (rails, deadline) = (self.common.rails, state.deadline);
                let lanes = (state.lanes_per_rail, state.on_demand);
                if let (Stage::Agreeing(_), Some(session)) = (&state.stage, &state.session) {
                    state.stage = Stage::Established(Lanes::begin(rails, lanes, deadline, session));
                }
                return;
            }
            Err(failure @ SessionFailure::NoPool { .. }) => (failure, ByeReason::NoPool),
            Err(failure) => (failure, ByeReason::Finished),
        };
        if let Stage::Agreeing(_) = std::mem::replace(&mut state.stage, Stage::Over) {
            self.reporter.report(SessionNews::Failed(failure));
            state.bye.get_or_insert(reason);
        }
    }

    /// The session over the present connection has ended: another attempt begins, or the reader is
    /// told.
    fn ended(
        self: &Arc<Self>,
        state: &mut SessionState<D>,
        why: Arc<SessionError>,
        flow: Flow,
        now: Instant,
    ) -> Flow {
        if let Stage::Agreeing(agreeing) = &mut state.stage
            && let Some(attempt) = agreeing.attempts.after(&why, now)
            && let Stage::Agreeing(agreeing) = std::mem::replace(&mut state.stage, Stage::Over)
        {
            self.connect(state, agreeing, attempt);
            return Flow::Close;
        }
        self.end(state, Some(why));
        flow
    }
}

/// A connection of a session, as the reactor serves it.
struct SessionConnection<D: SessionDialer> {
    session: Arc<ReaderSession<D>>,
    /// Which of the session's connections this is, counted from 1.
    number: u32,
    /// The reactor has called it.
    served: bool,
}

impl<D: SessionDialer> SessionConnection<D> {
    /// Calls the session, if this is its present connection, and takes in what it has to say.
    fn call(&mut self, now: Instant, call: impl FnOnce(&mut Session) -> Flow) -> Flow {
        self.served = true;
        let mut state = self.session.lock();
        if state.connections != self.number {
            return Flow::Close;
        }
        let Some(session) = &mut state.session else { return Flow::Close };
        let flow = call(session);
        self.session.after(&mut state, flow, now)
    }
}

impl<D: SessionDialer> Connection for SessionConnection<D> {
    fn received(&mut self, now: Instant, bytes: &[u8]) -> Flow {
        self.call(now, |session| session.received(now, bytes))
    }

    fn ended(&mut self, now: Instant, error: Option<io::Error>) {
        self.call(now, |session| {
            session.ended(now, error);
            Flow::GoOn
        });
    }

    fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) {
        let mut state = self.session.lock();
        if state.connections == self.number
            && let Some(session) = &mut state.session
        {
            session.fill(now, out, room);
        }
    }

    fn due(&self) -> Instant {
        let state = self.session.lock();
        let lanes = match &state.stage {
            Stage::Established(lanes) => lanes.due(),
            _ => None,
        };
        let session = state.session.as_ref().filter(|_| state.connections == self.number);
        let due = session.map(Session::due).into_iter().chain(lanes).min();
        due.unwrap_or_else(|| Instant::now() + FAR)
    }

    fn tick(&mut self, now: Instant) -> Flow {
        self.call(now, |session| if session.due() <= now { session.tick(now) } else { Flow::GoOn })
    }

    fn notified(&mut self, now: Instant) -> Flow {
        self.call(now, |_| Flow::GoOn)
    }
}

impl<D: SessionDialer> Drop for SessionConnection<D> {
    /// The reactor drops a connection whose code has panicked without another call. One that it
    /// has not called yet may be dropped while the state is locked.
    fn drop(&mut self) {
        if !self.served {
            return;
        }
        let mut state = self.session.lock();
        if state.connections == self.number {
            let cause = Cause::Closed;
            let why = SessionError { peer: state.peer.clone(), step: Step::Established, cause };
            self.session.end(&mut state, Some(Arc::new(why)));
            (state.session, state.connection) = (None, None);
        }
    }
}
