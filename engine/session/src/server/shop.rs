//! Making and freeing lanes, which may block: on the threads of [`Workers`].
//!
//! Each session has a desk with a queue of jobs per rail. At most one job of a session and rail is
//! with the workers at a time. When it has ended, the next one goes to the end of the workers'
//! queue, so a reader that asks for many lanes does not keep the other readers waiting.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kvrail_core::id::RailIndex;
use kvrail_host::reactor::ConnectionId;
use kvrail_host::workers::Workers;

use super::config::ServerEvent;
use super::shared::{SessionCount, Shared};
use crate::error::{Cause, SessionError, Step};
use crate::lane::LaneAcceptor;
use crate::message::{LaneAsk, LaneRefusal, LaneRefusalCode};
use crate::name::{Name, NodeName};
use crate::offer::LaneBlob;

/// Threads that make and free lanes.
const THREADS: usize = 4;
/// How many of them make and free lanes of one rail at a time: a rail that hangs leaves threads to
/// the others.
const PER_RAIL: usize = 2;

/// Makes and frees the lanes of all sessions of a server.
pub(super) struct LaneShop<A: LaneAcceptor> {
    pub(super) shared: Arc<Shared>,
    acceptor: A,
    workers: Workers,
}

/// A shop whose transport is not known here.
pub(super) trait StopLanes: Send + Sync {
    /// Stops the threads; all their jobs have ended.
    fn stop(&self, deadline: Instant);
}

impl<A: LaneAcceptor> StopLanes for LaneShop<A> {
    fn stop(&self, deadline: Instant) {
        self.workers.stop(deadline);
    }
}

/// This side's end of a lane. Dropping it frees the lane, which may block.
pub(super) struct HeldLane<A: LaneAcceptor> {
    shop: Arc<LaneShop<A>>,
    pub(super) rail: RailIndex,
    /// Taken by `drop` alone.
    lane: Option<A::Lane>,
}

/// A lane and its 64 bytes for the reader, or why the lane was not made.
pub(super) type MadeLane<A> = Result<(HeldLane<A>, LaneBlob), LaneRefusal>;

/// The result of a requested lane: the exchange, the request, and the lane.
pub(super) type LaneResult<A> = (u32, LaneAsk, MadeLane<A>);

pub(super) enum LaneJob<A: LaneAcceptor> {
    /// Make the lane of a request, which came with an exchange.
    Make(u32, LaneAsk),
    Free(HeldLane<A>),
}

/// A session, as it is reported.
pub(super) struct SessionRecord {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
    pub(super) reader: NodeName,
    /// Counts the session until its end is reported.
    pub(super) count: Option<SessionCount>,
}

/// What a session and the threads that make its lanes share. The session counts as one, and its end
/// is not reported, until the last reference is dropped; each thread at work for it has one.
pub(super) struct Desk<A: LaneAcceptor> {
    shop: Arc<LaneShop<A>>,
    record: SessionRecord,
    id: ConnectionId,
    state: Mutex<DeskState<A>>,
}

struct DeskState<A: LaneAcceptor> {
    rails: BTreeMap<RailIndex, RailJobs<A>>,
    /// Results for the session.
    results: Vec<LaneResult<A>>,
    /// The session has ended, for this reason: no lane is made any more.
    over: Option<Cause>,
}

/// The jobs of one rail that a session has. A rail without jobs has no entry.
struct RailJobs<A: LaneAcceptor> {
    waiting: VecDeque<LaneJob<A>>,
}

impl<A: LaneAcceptor> LaneShop<A> {
    pub(super) fn new(shared: Arc<Shared>, acceptor: A) -> Arc<Self> {
        let workers = Workers::new("kvrail-lanes", THREADS, PER_RAIL);
        Arc::new(Self { shared, acceptor, workers })
    }

    fn make(self: &Arc<Self>, ask: &LaneAsk) -> MadeLane<A> {
        let rail = ask.remote_rail;
        // A panic of the transport is its lane's failure; the message has been printed.
        match catch_unwind(AssertUnwindSafe(|| self.acceptor.accept(rail, &ask.blob))) {
            Ok(Ok((lane, blob))) => {
                self.shared.lane_made(rail);
                Ok((HeldLane { shop: Arc::clone(self), rail, lane: Some(lane) }, blob))
            }
            Ok(Err(error)) => {
                if let Some(left_out) = self.shared.lane_log.allows() {
                    tracing::warn!(%error, left_out, "no lane for a reader");
                }
                Err(refuse(LaneRefusalCode::Transport, &error.to_string()))
            }
            Err(_) => Err(refuse(LaneRefusalCode::Transport, "the producer's transport panicked")),
        }
    }
}

impl<A: LaneAcceptor> Drop for HeldLane<A> {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.shop.shared.lane_freed(self.rail);
            // A panic of the transport concerns this lane alone; the message has been printed.
            let _ = catch_unwind(AssertUnwindSafe(|| self.shop.acceptor.release(lane)));
        }
    }
}

pub(super) fn refuse(code: LaneRefusalCode, text: &str) -> LaneRefusal {
    LaneRefusal { code, text: Name::lossy(text) }
}

impl<A: LaneAcceptor> Desk<A> {
    /// The desk of a session. `id` is notified of results.
    pub(super) fn new(shop: Arc<LaneShop<A>>, record: SessionRecord, id: ConnectionId) -> Arc<Self> {
        let state = DeskState { rails: BTreeMap::new(), results: Vec::new(), over: None };
        Arc::new(Self { shop, record, id, state: Mutex::new(state) })
    }

    /// No code of the transport runs while the lock is held, so the state is valid even if the lock
    /// is poisoned.
    fn lock(&self) -> MutexGuard<'_, DeskState<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the workers do `jobs`, those of one rail in their order.
    pub(super) fn submit(self: &Arc<Self>, jobs: impl IntoIterator<Item = LaneJob<A>>) {
        let mut idle = Vec::new();
        let mut state = self.lock();
        for job in jobs {
            let rail = job.rail();
            let queue = state.rails.entry(rail).or_insert_with(|| {
                idle.push(rail);
                RailJobs { waiting: VecDeque::new() }
            });
            queue.waiting.push_back(job);
        }
        drop(state);
        for rail in idle {
            self.call_a_worker(rail);
        }
    }

    /// The results since the last call.
    pub(super) fn results(&self) -> Vec<LaneResult<A>> {
        std::mem::take(&mut self.lock().results)
    }

    /// The session has ended: `lanes` and the results that it did not fetch are freed, and requested
    /// lanes that no thread has begun are not made any more.
    pub(super) fn end(self: &Arc<Self>, cause: Cause, lanes: impl IntoIterator<Item = HeldLane<A>>) {
        let mut state = self.lock();
        state.over.get_or_insert(cause);
        for queue in state.rails.values_mut() {
            queue.waiting.retain(|job| matches!(job, LaneJob::Free(_)));
        }
        let results = std::mem::take(&mut state.results);
        drop(state);
        let unfetched = results.into_iter().filter_map(|(_, _, made)| Some(made.ok()?.0));
        self.submit(unfetched.chain(lanes).map(LaneJob::Free));
    }

    /// Hands the next job of `rail` to the workers, or does away with all of its jobs if there are
    /// no threads.
    fn call_a_worker(self: &Arc<Self>, rail: RailIndex) {
        let desk = Arc::clone(self);
        let job = Box::new(move || desk.work(rail));
        let Err(error) = self.shop.workers.submit(u32::from(rail.0), job) else { return };
        if let Some(left_out) = self.shop.shared.lane_log.allows() {
            tracing::warn!(%error, left_out, "no thread to make lanes");
        }
        let jobs = self.lock().rails.remove(&rail).map(|queue| queue.waiting).unwrap_or_default();
        for job in jobs {
            match job {
                LaneJob::Make(exchange, ask) => {
                    let refusal = refuse(LaneRefusalCode::Transport, "the producer has no thread left");
                    self.deliver((exchange, ask, Err(refusal)));
                }
                // It is freed here, although that may block: it would not be freed at all.
                LaneJob::Free(held) => drop(held),
            }
        }
    }

    /// Does one job of `rail`, on a thread of the workers.
    fn work(self: Arc<Self>, rail: RailIndex) {
        let job = self.lock().rails.get_mut(&rail).and_then(|queue| queue.waiting.pop_front());
        match job {
            Some(LaneJob::Make(exchange, ask)) => {
                let made = self.shop.make(&ask);
                self.deliver((exchange, ask, made));
            }
            Some(LaneJob::Free(held)) => drop(held),
            None => {}
        }
        let mut state = self.lock();
        if state.rails.get(&rail).is_some_and(|queue| queue.waiting.is_empty()) {
            state.rails.remove(&rail);
        }
        let more = state.rails.contains_key(&rail);
        drop(state);
        if more {
            self.call_a_worker(rail);
        }
    }

    /// Gives a result to the session, or frees its lane if the session has ended.
    fn deliver(&self, result: LaneResult<A>) {
        let mut state = self.lock();
        if state.over.is_none() {
            state.results.push(result);
            drop(state);
            self.shop.shared.notify(self.id);
        } else {
            drop(state);
            drop(result);
        }
    }
}

impl<A: LaneAcceptor> LaneJob<A> {
    fn rail(&self) -> RailIndex {
        match self {
            Self::Make(_, ask) => ask.remote_rail,
            Self::Free(held) => held.rail,
        }
    }
}

impl<A: LaneAcceptor> Drop for Desk<A> {
    /// Reports the session's end: all its lanes are freed.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Both are empty, unless the workers were stopped before their jobs had ended.
        state.results.clear();
        state.rails.clear();
        let cause = state.over.take().unwrap_or(Cause::Stopped);
        let SessionRecord { number, peer, reader, ref mut count } = self.record;
        let why = SessionError { peer: peer.to_string(), step: Step::Established, cause };
        drop(count.take());
        self.shop.shared.report(ServerEvent::Closed { session: number, reader, why });
    }
}
