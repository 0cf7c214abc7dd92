//! Making and freeing lanes, which may block: on the threads of [`Workers`].
//!
//! Each session has a [`Desk`] with its jobs of each rail. The desks with jobs of a rail wait in
//! that rail's queue. A thread takes the first desk, does one of its jobs, and puts the desk to the
//! end of the queue if there are more. So at most one job of a session and rail is being done at a
//! time, and a reader that asks for many lanes does not keep the other readers waiting.

use std::collections::{BTreeMap, VecDeque};
use std::io;
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

/// How many threads make and free lanes of one rail at a time. There are so many threads that every
/// rail can have as many: rails that hang take no thread from the others.
const PER_RAIL: usize = 2;

/// Makes and frees the lanes of all sessions of a server.
pub(super) struct LaneShop<A: LaneAcceptor> {
    pub(super) shared: Arc<Shared>,
    acceptor: A,
    workers: Workers,
    queues: Mutex<BTreeMap<RailIndex, RailQueue<A>>>,
}

/// The desks that have jobs of one rail. A rail without jobs has no entry.
struct RailQueue<A: LaneAcceptor> {
    /// Desks of which no job is being done, each once.
    waiting: VecDeque<Arc<Desk<A>>>,
    /// How many of the jobs of [`Workers`] are for this rail.
    threads: usize,
}

/// A shop whose transport is not known here.
pub(super) trait StopLanes: Send + Sync {
    /// Stops the threads; all sessions have ended.
    fn stop(&self, deadline: Instant);
}

/// This side's end of a lane. Dropping it frees the lane, which may block.
pub(super) struct HeldLane<A: LaneAcceptor> {
    shop: Arc<LaneShop<A>>,
    rail: RailIndex,
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
    pub(super) count: SessionCount,
}

/// What a session and the threads that make its lanes share.
pub(super) struct Desk<A: LaneAcceptor> {
    shop: Arc<LaneShop<A>>,
    id: ConnectionId,
    state: Mutex<DeskState<A>>,
}

struct DeskState<A: LaneAcceptor> {
    /// Taken when the end is reported: all lanes are freed.
    record: Option<SessionRecord>,
    rails: BTreeMap<RailIndex, RailJobs<A>>,
    /// Results for the session.
    results: Vec<LaneResult<A>>,
    /// The session has ended, for this reason: no lane is made any more.
    over: Option<Cause>,
}

/// The jobs of one rail that a session has. A rail without jobs has no entry. With an entry, the
/// desk is in the rail's queue, or on the way to it, or a job is being done.
struct RailJobs<A: LaneAcceptor> {
    waiting: VecDeque<LaneJob<A>>,
    /// A thread does a job.
    running: bool,
}

/// Neither code of the transport nor of an observer runs while a lock is held here, so what a lock
/// guards is valid even if the lock is poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn refuse(code: LaneRefusalCode, text: &str) -> LaneRefusal {
    LaneRefusal { code, text: Name::lossy(text) }
}

impl<A: LaneAcceptor> LaneShop<A> {
    pub(super) fn new(shared: Arc<Shared>, acceptor: A) -> Arc<Self> {
        let workers = Workers::new("kvrail-lanes", PER_RAIL * shared.rails.len(), PER_RAIL);
        Arc::new(Self { shared, acceptor, workers, queues: Mutex::default() })
    }

    /// Puts `desk`, which has jobs of `rail`, to the end of that rail's queue.
    ///
    /// # Errors
    ///
    /// There is no thread. The desk is not in the queue.
    fn enqueue(self: &Arc<Self>, rail: RailIndex, desk: &Arc<Desk<A>>) -> io::Result<()> {
        let mut queues = lock(&self.queues);
        let queue = queues.entry(rail).or_insert_with(|| RailQueue { waiting: VecDeque::new(), threads: 0 });
        queue.waiting.push_back(Arc::clone(desk));
        if queue.threads < PER_RAIL {
            match self.call_a_thread(rail) {
                Ok(()) => queue.threads += 1,
                // A thread that works for the rail comes to this desk, too.
                Err(_) if queue.threads > 0 => {}
                Err(error) => {
                    queue.waiting.pop_back();
                    queues.remove(&rail);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn call_a_thread(self: &Arc<Self>, rail: RailIndex) -> io::Result<()> {
        let shop = Arc::clone(self);
        self.workers.submit(u32::from(rail.0), Box::new(move || shop.work(rail)))
    }

    /// Takes `desk` out of the queue of `rail`.
    fn forget(&self, rail: RailIndex, desk: &Arc<Desk<A>>) {
        if let Some(queue) = lock(&self.queues).get_mut(&rail) {
            queue.waiting.retain(|other| !Arc::ptr_eq(other, desk));
        }
    }

    /// Does one job of `rail`, on a thread of the workers; and the others, too, if the workers take
    /// no jobs any more.
    fn work(self: Arc<Self>, rail: RailIndex) {
        loop {
            let mut queues = lock(&self.queues);
            let Some(queue) = queues.get_mut(&rail) else { return };
            let Some(desk) = queue.waiting.pop_front() else {
                queue.threads -= 1;
                if queue.threads == 0 {
                    queues.remove(&rail);
                }
                return;
            };
            drop(queues);
            desk.work(rail);
            // The other rails get their turns first.
            if self.call_a_thread(rail).is_ok() {
                return;
            }
        }
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

impl<A: LaneAcceptor> StopLanes for LaneShop<A> {
    fn stop(&self, deadline: Instant) {
        self.workers.stop(deadline);
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

impl<A: LaneAcceptor> Desk<A> {
    /// The desk of a session. `id` is notified of results.
    pub(super) fn new(shop: Arc<LaneShop<A>>, record: SessionRecord, id: ConnectionId) -> Arc<Self> {
        let (record, rails, results) = (Some(record), BTreeMap::new(), Vec::new());
        Arc::new(Self { shop, id, state: Mutex::new(DeskState { record, rails, results, over: None }) })
    }

    /// Has the threads do `jobs`, those of one rail in their order.
    pub(super) fn submit(self: &Arc<Self>, jobs: impl IntoIterator<Item = LaneJob<A>>) {
        let mut state = lock(&self.state);
        let begun = state.add(jobs);
        drop(state);
        self.enqueue(begun);
    }

    /// Puts the desk into the queues of `rails`, or does away with the jobs of a rail for which
    /// there is no thread.
    fn enqueue(self: &Arc<Self>, rails: Vec<RailIndex>) {
        for rail in rails {
            let Err(error) = self.shop.enqueue(rail, self) else { continue };
            if let Some(left_out) = self.shop.shared.lane_log.allows() {
                tracing::warn!(%error, left_out, "no thread to make lanes");
            }
            let jobs = lock(&self.state).rails.remove(&rail).map(|jobs| jobs.waiting);
            for job in jobs.unwrap_or_default() {
                match job {
                    LaneJob::Make(exchange, ask) => {
                        let refusal = refuse(LaneRefusalCode::Transport, "the producer has no thread left");
                        self.deliver((exchange, ask, Err(refusal)));
                    }
                    // It is freed here, although that may block: it would not be freed at all.
                    LaneJob::Free(held) => drop(held),
                }
            }
            self.report_end();
        }
    }

    /// The results since the last call.
    pub(super) fn results(&self) -> Vec<LaneResult<A>> {
        std::mem::take(&mut lock(&self.state).results)
    }

    /// The session has ended: `lanes` and the results that it did not fetch are freed, and
    /// requested lanes that no thread has begun are not made any more. The end is reported when all
    /// lanes are freed.
    pub(super) fn end(self: &Arc<Self>, cause: Cause, lanes: impl IntoIterator<Item = HeldLane<A>>) {
        let mut state = lock(&self.state);
        state.over.get_or_insert(cause);
        for jobs in state.rails.values_mut() {
            jobs.waiting.retain(|job| matches!(job, LaneJob::Free(_)));
        }
        let results = std::mem::take(&mut state.results);
        let unfetched = results.into_iter().filter_map(|(_, _, made)| Some(made.ok()?.0));
        let begun = state.add(unfetched.chain(lanes).map(LaneJob::Free));
        let idle = |_: &RailIndex, jobs: &mut RailJobs<A>| !jobs.running && jobs.waiting.is_empty();
        let idle: Vec<_> = state.rails.extract_if(.., idle).map(|(rail, _)| rail).collect();
        drop(state);
        for rail in idle {
            self.shop.forget(rail, self);
        }
        self.enqueue(begun);
        self.report_end();
    }

    /// Does one job of `rail`.
    fn work(self: &Arc<Self>, rail: RailIndex) {
        let mut state = lock(&self.state);
        // A session that has ended meanwhile may have no job any more.
        let Some(jobs) = state.rails.get_mut(&rail) else { return };
        jobs.running = true;
        let job = jobs.waiting.pop_front();
        drop(state);
        match job {
            Some(LaneJob::Make(exchange, ask)) => {
                let made = self.shop.make(&ask);
                self.deliver((exchange, ask, made));
            }
            Some(LaneJob::Free(held)) => drop(held),
            None => {}
        }
        let mut state = lock(&self.state);
        let Some(jobs) = state.rails.get_mut(&rail) else { return };
        jobs.running = false;
        let more = !jobs.waiting.is_empty();
        if !more {
            state.rails.remove(&rail);
        }
        drop(state);
        if more {
            self.enqueue(vec![rail]);
        } else {
            self.report_end();
        }
    }

    /// Gives a result to the session, or frees its lane if the session has ended.
    fn deliver(&self, result: LaneResult<A>) {
        let mut state = lock(&self.state);
        if state.over.is_none() {
            state.results.push(result);
            drop(state);
            self.shop.shared.notify(self.id);
        } else {
            drop(state);
            drop(result);
        }
    }

    /// Reports the session's end, if it has ended and its last lane is freed.
    fn report_end(&self) {
        let mut state = lock(&self.state);
        let done = state.over.is_some() && state.rails.is_empty();
        let Some(record) = state.record.take_if(|_| done) else { return };
        let cause = state.over.take().unwrap_or(Cause::Stopped);
        // The session stays ended.
        state.over = Some(Cause::Stopped);
        drop(state);
        let SessionRecord { number, peer, reader, count } = record;
        let why = SessionError { peer: peer.to_string(), step: Step::Established, cause };
        drop(count);
        self.shop.shared.report(ServerEvent::Closed { session: number, reader, why });
    }
}

impl<A: LaneAcceptor> DeskState<A> {
    /// Adds jobs, and returns the rails that had none before.
    fn add(&mut self, jobs: impl IntoIterator<Item = LaneJob<A>>) -> Vec<RailIndex> {
        let mut begun = Vec::new();
        for job in jobs {
            let rail = match &job {
                LaneJob::Make(_, ask) => ask.remote_rail,
                LaneJob::Free(held) => held.rail,
            };
            let jobs = self.rails.entry(rail).or_insert_with(|| {
                begun.push(rail);
                RailJobs { waiting: VecDeque::new(), running: false }
            });
            jobs.waiting.push_back(job);
        }
        begun
    }
}
