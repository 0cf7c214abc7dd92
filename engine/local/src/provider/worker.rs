//! A rail's worker, which carries out READs as a NIC's DMA engine does, and its thread.
//!
//! It takes commands from one ring, in order, and puts completions and notices into two others. A
//! lane behaves as a QP does: it is ready, or in the error state, where every wr is flushed.
//!
//! The worker is behind a lock, which its thread holds while it is awake. While the thread sleeps,
//! the engine's thread may take the worker, if it gets the lock at once, and carry out a few small
//! READs itself: that costs less than waking another thread.
#![allow(unsafe_code, reason = "executing a READ writes to registered memory")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvrail_core::id::{LaneId, WrId};
use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::WcStatus;
use kvrail_host::ring::{RingConsumer, RingProducer};

use super::progress::Reporter;
use super::sleep::Sleeper;
use super::transport::LaneTransport;

/// The largest READ that the engine's thread carries out itself. Larger ones are worth a wake.
pub(crate) const SMALL: u32 = 8 << 10;

/// A command from the engine's thread to a worker. `lane_index` is the number of the lane's place
/// on its rail.
#[derive(Debug)]
pub(crate) enum Command<T> {
    /// Take a lane into use.
    Open { lane_index: u16, lane: Box<WorkerLane<T>> },
    /// Carry out a READ, whose local range has been checked.
    Read { lane_index: u16, read: Read },
    /// Complete a READ whose local range is not registered, with an error and in its turn.
    Refused { lane_index: u16, wr_id: WrId },
    /// Complete a drain wr, in its turn.
    Drain { lane_index: u16, wr_id: WrId },
    /// Put the lane into the error state.
    Fail { lane_index: u16, id: LaneId },
    /// Drop the lane.
    Close { lane_index: u16, id: LaneId },
}

/// From a worker to the engine's thread: a wr has completed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) wr_id: WrId,
    pub(crate) status: WcStatus,
    pub(crate) qp_num: u32,
    /// Send queue entries that become free: those of this wr and of the unsignaled wrs before it.
    pub(crate) retires: u32,
    pub(crate) lane_index: u16,
}

/// From a worker to the engine's thread: a lane has changed its state.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// The lane is in the error state.
    Failed(LaneId),
    /// The lane is dropped; the entries of its last unsignaled wrs become free.
    Closed { id: LaneId, lane_index: u16, retires: u32 },
}

/// A worker's side of a lane.
#[derive(Debug)]
pub(crate) struct WorkerLane<T> {
    pub(crate) transport: T,
    pub(crate) qp_num: u32,
    /// Set by the engine's thread as soon as it wants the lane failed or closed, so that queued wrs
    /// are flushed at once and not carried out first.
    pub(crate) failing: Arc<AtomicBool>,
    /// The lane is in the error state.
    pub(crate) failed: bool,
    /// Wrs that have succeeded unsignaled and that no completion covers yet.
    pub(crate) uncovered: u32,
}

/// What a worker and the engine's thread share beside the rings.
#[derive(Debug, Default)]
pub(crate) struct WorkerSignals {
    pub(crate) sleeper: Sleeper,
    pub(crate) stop: AtomicBool,
}

/// The worker of one rail.
#[derive(Debug)]
pub(crate) struct Worker<T: LaneTransport> {
    pub(crate) commands: RingConsumer<Command<T>>,
    pub(crate) completions: RingProducer<Completion>,
    pub(crate) notices: RingProducer<Notice>,
    pub(crate) lanes: Box<[Option<Box<WorkerLane<T>>>]>,
    pub(crate) reporter: Reporter,
    /// A command that was taken out of the ring, and is the next to be carried out.
    pub(crate) held: Option<Command<T>>,
}

impl<T: LaneTransport> Worker<T> {
    fn next(&mut self) -> Option<Command<T>> {
        self.held.take().or_else(|| self.commands.pop())
    }

    fn is_idle(&mut self) -> bool {
        self.held.is_none() && self.commands.is_empty()
    }

    /// Carries out the commands that have come, as far as they are READs that are plain copies of
    /// `budget` bytes together, by which it reduces `budget`. Says whether none is left.
    pub(crate) fn carry_out_small(&mut self, budget: &mut u32) -> bool {
        while let Some(command) = self.next() {
            let left = match &command {
                Command::Read { lane_index, read } => match &self.lanes[usize::from(*lane_index)] {
                    Some(lane) if read.len <= SMALL && lane.transport.is_plain_copy(read) => {
                        budget.checked_sub(read.len)
                    }
                    _ => None,
                },
                _ => None,
            };
            let Some(left) = left else {
                self.held = Some(command);
                return false;
            };
            *budget = left;
            self.carry_out(command);
        }
        true
    }

    fn carry_out(&mut self, command: Command<T>) {
        match command {
            Command::Open { lane_index, lane } => self.lanes[usize::from(lane_index)] = Some(lane),
            Command::Read { lane_index, read } => {
                let status = match &mut self.lanes[usize::from(lane_index)] {
                    Some(lane) => lane.execute(&read),
                    None => WcStatus::WR_FLUSH_ERR,
                };
                self.finish(lane_index, read.wr_id, status, read.signaled);
            }
            Command::Refused { lane_index, wr_id } => {
                let status = match &self.lanes[usize::from(lane_index)] {
                    Some(lane) if !lane.flushes() => WcStatus::LOC_PROT_ERR,
                    _ => WcStatus::WR_FLUSH_ERR,
                };
                self.finish(lane_index, wr_id, status, true);
            }
            Command::Drain { lane_index, wr_id } => {
                let status = match &self.lanes[usize::from(lane_index)] {
                    Some(lane) if !lane.flushes() => WcStatus::SUCCESS,
                    _ => WcStatus::WR_FLUSH_ERR,
                };
                self.finish(lane_index, wr_id, status, true);
            }
            Command::Fail { lane_index, id } => {
                if let Some(lane) = &mut self.lanes[usize::from(lane_index)] {
                    lane.failed = true;
                }
                self.notify(Notice::Failed(id), 0);
            }
            Command::Close { lane_index, id } => {
                let lane = self.lanes[usize::from(lane_index)].take();
                let retires = lane.map_or(0, |lane| lane.uncovered);
                self.notify(Notice::Closed { id, lane_index, retires }, retires);
            }
        }
    }

    /// Reports the outcome of a wr. A success that is not signaled gets no completion of its own.
    fn finish(&mut self, lane_index: u16, wr_id: WrId, status: WcStatus, signaled: bool) {
        let ok = status.is_success();
        let Some(lane) = &mut self.lanes[usize::from(lane_index)] else { return };
        if ok && !signaled {
            lane.uncovered += 1;
            self.reporter.finished(0, false);
            return;
        }
        let retires = std::mem::take(&mut lane.uncovered) + 1;
        let failed_now = !ok && !std::mem::replace(&mut lane.failed, true);
        // If the engine's thread has requested the failure, `Command::Fail` reports it in its turn.
        let report = failed_now && !lane.failing.load(Ordering::Relaxed);
        let pushed =
            self.completions.push(Completion { wr_id, status, qp_num: lane.qp_num, retires, lane_index });
        // The ring has an entry for each outstanding wr.
        debug_assert!(pushed.is_ok(), "completion ring overrun");
        if report {
            self.notify(Notice::Failed(wr_id.lane()), 0);
        }
        self.reporter.finished(retires, !ok);
    }

    fn notify(&mut self, notice: Notice, retires: u32) {
        let pushed = self.notices.push(notice);
        debug_assert!(pushed.is_ok(), "notice ring overrun");
        self.reporter.notice(retires);
    }
}

/// The thread of a worker: works until `stop` is set. Commands that are queued then are dropped,
/// not carried out. `spins`: how often it looks for a command before it sleeps.
pub(crate) fn run<T: LaneTransport>(worker: &Mutex<Worker<T>>, signals: &WorkerSignals, spins: u32) {
    let stopped = || signals.stop.load(Ordering::Acquire);
    while !stopped() {
        let mut awake = lock(worker);
        let mut idle = 0;
        while idle <= spins && !stopped() {
            if let Some(command) = awake.next() {
                awake.carry_out(command);
                idle = 0;
            } else {
                idle += 1;
                std::hint::spin_loop();
            }
        }
        drop(awake);
        signals.sleeper.prepare_sleep();
        // Once the thread has announced that it sleeps, a command that comes is either seen here,
        // or carried out by the engine's thread, or wakes this one.
        if !lock(worker).is_idle() || stopped() {
            signals.sleeper.cancel_sleep();
        } else {
            signals.sleeper.sleep(None);
        }
    }
}

fn lock<T: LaneTransport>(worker: &Mutex<Worker<T>>) -> MutexGuard<'_, Worker<T>> {
    worker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: LaneTransport> WorkerLane<T> {
    /// Whether the lane is in the error state, or is about to get there.
    fn flushes(&self) -> bool {
        self.failed || self.failing.load(Ordering::Acquire)
    }

    fn execute(&mut self, read: &Read) -> WcStatus {
        if self.flushes() {
            return WcStatus::WR_FLUSH_ERR;
        }
        // SAFETY: the range was found within a registered one when the READ was posted. The engine
        // keeps registered memory valid until every READ into it has been reported complete, and
        // this READ's completion is put into the ring after this call.
        let status = unsafe { self.transport.execute(read) };
        // A READ that was interrupted counts as flushed: neither the page nor the path is at fault.
        if !status.is_success() && self.failing.load(Ordering::Acquire) {
            return WcStatus::WR_FLUSH_ERR;
        }
        status
    }
}
