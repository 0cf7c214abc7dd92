//! The producer's ends of one session's lanes. Making one may take long, so each rail has a thread
//! that makes its lanes one after the other: a slow rail delays neither another rail's lanes nor
//! the session.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, Scope};
use std::{io, iter};

use kvrail_core::id::RailIndex;
use kvrail_host::wake::EventFd;

use super::shared::Shared;
use crate::lane::LaneAcceptor;
use crate::message::{LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal, LaneRefusalCode};
use crate::name::Name;
use crate::offer::{LaneBlob, MAX_LANES};

/// Stack of a thread that makes lanes: a [`LaneAcceptor`] runs on it.
const STACK: usize = 512 << 10;

/// What the threads that make lanes share with their session.
pub(crate) struct LaneMaker<'a, R: LaneAcceptor> {
    shared: &'a Shared,
    acceptor: &'a R,
    /// Readable when there is an answer.
    answered: EventFd,
    /// The session has ended: requested lanes that no thread has begun are not made any more.
    over: AtomicBool,
}

impl<'a, R: LaneAcceptor> LaneMaker<'a, R> {
    pub(crate) fn new(shared: &'a Shared, acceptor: &'a R) -> io::Result<Self> {
        let answered = EventFd::new()?;
        Ok(Self { shared, acceptor, answered, over: AtomicBool::new(false) })
    }

    pub(crate) fn answered(&self) -> BorrowedFd<'_> {
        self.answered.as_fd()
    }

    /// Makes or frees lanes of `rail`, one after the other.
    fn work<'b>(&'b self, rail: RailIndex, jobs: Vec<Job<'b, R>>, sender: &Sender<Report<'b, R>>) {
        for job in jobs {
            if let Job::Make(exchange, ask) = job {
                let result = self.make(rail, &ask);
                // Where the session has ended meanwhile, the lane comes back and is freed.
                let _ = sender.send(Report::Made(exchange, ask, result));
                self.answered.signal();
            }
            // `Job::Free` frees its lane when it is dropped here.
        }
        let _ = sender.send(Report::Idle(rail));
        self.answered.signal();
    }

    fn make(&self, rail: RailIndex, ask: &LaneAsk) -> Made<'_, R> {
        if self.over.load(Ordering::Relaxed) {
            return Err(refuse(LaneRefusalCode::Transport, "the session has ended"));
        }
        // A panic of the transport is its lane's failure; the message has been printed.
        match catch_unwind(AssertUnwindSafe(|| self.acceptor.accept(rail, &ask.blob))) {
            Ok(Ok((lane, blob))) => {
                self.shared.loads[rail.get()].fetch_add(1, Ordering::Relaxed);
                Ok((Held { maker: self, rail, lane: Some(lane) }, blob))
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

/// This side's end of a lane. Dropping it frees the lane.
struct Held<'b, R: LaneAcceptor> {
    maker: &'b LaneMaker<'b, R>,
    rail: RailIndex,
    /// Taken by `drop` alone.
    lane: Option<R::Lane>,
}

impl<R: LaneAcceptor> Drop for Held<'_, R> {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.maker.shared.loads[self.rail.get()].fetch_sub(1, Ordering::Relaxed);
            self.maker.acceptor.release(lane);
        }
    }
}

/// A lane and its 64 bytes for the reader, or why the lane was not made.
type Made<'b, R> = Result<(Held<'b, R>, LaneBlob), LaneRefusal>;

fn refuse(code: LaneRefusalCode, text: &str) -> LaneRefusal {
    LaneRefusal { code, text: Name::lossy(text) }
}

enum Job<'b, R: LaneAcceptor> {
    Make(u32, LaneAsk),
    /// Dropping it frees the lane.
    Free(#[allow(dead_code, reason = "dropping it is what counts")] Held<'b, R>),
}

/// A report of a thread that makes lanes.
enum Report<'b, R: LaneAcceptor> {
    /// The result of a requested lane, with the exchange and the request.
    Made(u32, LaneAsk, Made<'b, R>),
    /// Its jobs are done.
    Idle(RailIndex),
}

/// The jobs of one of the producer's rails.
struct Queue<'b, R: LaneAcceptor> {
    waiting: VecDeque<Job<'b, R>>,
    /// A thread is at work.
    busy: bool,
}

/// The lanes of one session. Dropping it frees those that have been made.
pub(crate) struct Lanes<'scope, 'env, R: LaneAcceptor> {
    scope: &'scope Scope<'scope, 'env>,
    maker: &'env LaneMaker<'env, R>,
    made: HashMap<LaneNumber, Held<'env, R>>,
    /// Lanes that are being made, and whether the reader has given them back meanwhile.
    making: HashMap<LaneNumber, bool>,
    queues: Vec<Queue<'env, R>>,
    sender: Sender<Report<'env, R>>,
    reports: Receiver<Report<'env, R>>,
    /// Refusals that were made without the transport.
    refused: Vec<(u32, LaneAnswer)>,
}

impl<'scope, 'env, R: LaneAcceptor> Lanes<'scope, 'env, R> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, maker: &'env LaneMaker<'env, R>) -> Self {
        let (sender, reports) = channel();
        let queue = || Queue { waiting: VecDeque::new(), busy: false };
        let queues = iter::repeat_with(queue).take(maker.shared.rails.len()).collect();
        let (made, making) = (HashMap::new(), HashMap::new());
        Self { scope, maker, made, making, queues, sender, reports, refused: Vec::new() }
    }

    /// Begins to make the requested lanes.
    pub(crate) fn begin(&mut self, asks: &LaneAsks) {
        for ask in asks.lanes.iter() {
            if let Err(refusal) = self.check(ask) {
                self.refused.push((asks.exchange, answer(ask, Err(refusal))));
                continue;
            }
            self.making.insert(ask.number, false);
            self.queues[ask.remote_rail.get()].waiting.push_back(Job::Make(asks.exchange, *ask));
        }
        self.start_threads();
    }

    fn check(&self, ask: &LaneAsk) -> Result<(), LaneRefusal> {
        let (rail, rails) = (ask.remote_rail, self.queues.len());
        let limit = self.maker.shared.config.max_lanes;
        if rail.get() >= rails {
            return Err(refuse(
                LaneRefusalCode::NoSuchRail,
                &format!("no rail {}: there are {rails}, from 0", rail.0),
            ));
        }
        if self.made.len() + self.making.len() >= limit {
            return Err(refuse(LaneRefusalCode::TooMany, &format!("a session may have {limit} lanes")));
        }
        if self.made.contains_key(&ask.number) || self.making.contains_key(&ask.number) {
            return Err(refuse(LaneRefusalCode::NumberInUse, &format!("lane {}", ask.number.0)));
        }
        Ok(())
    }

    /// Starts a thread for each rail that has jobs and no thread.
    fn start_threads(&mut self) {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if queue.busy || queue.waiting.is_empty() {
                continue;
            }
            queue.busy = true;
            // At most 16 rails.
            let rail = RailIndex(index as u8);
            let jobs: Vec<_> = queue.waiting.drain(..).collect();
            let (maker, sender) = (self.maker, self.sender.clone());
            let asked: Vec<_> = jobs.iter().filter_map(asked).collect();
            let thread = Builder::new().name(format!("kvrail-lanes-{index}")).stack_size(STACK);
            let spawned = thread.spawn_scoped(self.scope, move || maker.work(rail, jobs, &sender));
            if let Err(error) = spawned {
                // The closure was dropped, and its jobs with it, which freed the lanes to be freed.
                queue.busy = false;
                tracing::warn!(%error, "no thread to make lanes");
                for (exchange, ask) in asked {
                    self.making.remove(&ask.number);
                    let refusal = refuse(LaneRefusalCode::Transport, "the producer has no thread left");
                    self.refused.push((exchange, answer(&ask, Err(refusal))));
                }
            }
        }
    }

    /// The lanes' results since the last call, one exchange per message.
    pub(crate) fn answers(&mut self) -> Vec<LaneAnswers> {
        self.maker.answered.clear();
        let mut ready = std::mem::take(&mut self.refused);
        while let Ok(report) = self.reports.try_recv() {
            match report {
                Report::Idle(rail) => self.queues[rail.get()].busy = false,
                Report::Made(exchange, ask, result) => ready.push((exchange, self.settle(&ask, result))),
            }
        }
        self.start_threads();
        let mut messages: Vec<LaneAnswers> = Vec::new();
        for chunk in ready.chunk_by(|a, b| a.0 == b.0).flat_map(|same| same.chunks(MAX_LANES)) {
            // At most MAX_LANES of them, and of one exchange.
            let lanes = chunk.iter().map(|(_, answer)| *answer).collect();
            messages.push(LaneAnswers { exchange: chunk[0].0, lanes });
        }
        messages
    }

    /// Takes in the result of one lane.
    fn settle(&mut self, ask: &LaneAsk, result: Made<'env, R>) -> LaneAnswer {
        let given_back = self.making.remove(&ask.number).unwrap_or(true);
        let result = result.and_then(|(held, blob)| {
            if given_back {
                self.queues[held.rail.get()].waiting.push_back(Job::Free(held));
                return Err(refuse(LaneRefusalCode::Transport, "given back before it was made"));
            }
            self.made.insert(ask.number, held);
            Ok(blob)
        });
        answer(ask, result)
    }

    /// A number that is not in use is no error: the lane may never have been made.
    pub(crate) fn release(&mut self, number: LaneNumber) {
        if let Some(given_back) = self.making.get_mut(&number) {
            *given_back = true;
        } else if let Some(held) = self.made.remove(&number) {
            self.queues[held.rail.get()].waiting.push_back(Job::Free(held));
            self.start_threads();
        }
    }
}

impl<R: LaneAcceptor> Drop for Lanes<'_, '_, R> {
    fn drop(&mut self) {
        self.maker.over.store(true, Ordering::Relaxed);
    }
}

fn asked<R: LaneAcceptor>(job: &Job<'_, R>) -> Option<(u32, LaneAsk)> {
    match job {
        Job::Make(exchange, ask) => Some((*exchange, *ask)),
        Job::Free(_) => None,
    }
}

fn answer(ask: &LaneAsk, result: Result<LaneBlob, LaneRefusal>) -> LaneAnswer {
    LaneAnswer { number: ask.number, rail: ask.rail, remote_rail: ask.remote_rail, result }
}
