//! A rail's worker: the thread that stands in for a NIC's DMA engine.
//!
//! It takes commands from one ring, in order, and puts completions and notices into two others. A
//! lane here is what a QP is: ready, or in the error state, where everything is flushed.
#![allow(unsafe_code, reason = "executing a READ writes to registered memory")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::id::{LaneId, WrId};
use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::WcStatus;

use super::progress::Reporter;
use super::ring::{Consumer, Producer};
use super::sleep::Sleeper;
use super::transport::LaneTransport;

/// From the engine's thread to a worker. `slot` is the lane's place on its rail.
#[derive(Debug)]
pub(crate) enum Command<T> {
    /// A lane comes to life.
    Open { slot: u16, lane: Box<WorkerLane<T>> },
    /// A READ whose local range has been checked.
    Read { slot: u16, read: Read },
    /// A READ whose local range is not registered: fails in its turn.
    Refused { slot: u16, wr_id: WrId },
    /// Completes in its turn.
    Drain { slot: u16, wr_id: WrId },
    /// To the error state.
    Fail { slot: u16, id: LaneId },
    /// The end of the lane.
    Close { slot: u16, id: LaneId },
}

/// From a worker to the engine's thread: a wr is complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) wr_id: WrId,
    pub(crate) status: WcStatus,
    pub(crate) qp_num: u32,
    /// Send queue entries that come free: this wr's and those of the unsignaled ones before it.
    pub(crate) retires: u32,
    pub(crate) slot: u16,
}

/// From a worker to the engine's thread: something else happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// The lane is in the error state.
    Failed(LaneId),
    /// The lane is gone, and with it the entries of its last unsignaled wrs.
    Closed { id: LaneId, slot: u16, retires: u32 },
}

/// A lane, as its worker has it.
#[derive(Debug)]
pub(crate) struct WorkerLane<T> {
    pub(crate) transport: T,
    pub(crate) qp_num: u32,
    /// Set by the engine's thread as soon as it wants the lane failed or closed, so that what is
    /// queued is flushed and not carried out first.
    pub(crate) failing: Arc<AtomicBool>,
    pub(crate) failed: bool,
    /// Successes that no completion has told yet.
    pub(crate) untold: u32,
}

/// What a worker and the engine's thread share besides the rings.
#[derive(Debug, Default)]
pub(crate) struct WorkerSignals {
    pub(crate) sleeper: Sleeper,
    pub(crate) stop: AtomicBool,
}

/// The worker of one rail.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    pub(crate) commands: Consumer<Command<T>>,
    pub(crate) completions: Producer<Completion>,
    pub(crate) notices: Producer<Notice>,
    pub(crate) lanes: Box<[Option<Box<WorkerLane<T>>>]>,
    pub(crate) reporter: Reporter,
    pub(crate) signals: Arc<WorkerSignals>,
    /// How often to look for work before going to sleep.
    pub(crate) spins: u32,
}

impl<T: LaneTransport> Worker<T> {
    /// Works until told to stop. What is queued then is dropped, not carried out.
    pub(crate) fn run(mut self) {
        while !self.signals.stop.load(Ordering::Acquire) {
            match self.commands.pop() {
                Some(command) => self.obey(command),
                None => self.idle(),
            }
        }
    }

    fn idle(&mut self) {
        for _ in 0..self.spins {
            if !self.commands.is_empty() {
                return;
            }
            std::hint::spin_loop();
        }
        let signals = &self.signals;
        signals.sleeper.prepare_sleep();
        if !self.commands.is_empty() || signals.stop.load(Ordering::Acquire) {
            signals.sleeper.cancel_sleep();
        } else {
            signals.sleeper.sleep(None);
        }
    }

    fn obey(&mut self, command: Command<T>) {
        match command {
            Command::Open { slot, lane } => self.lanes[usize::from(slot)] = Some(lane),
            Command::Read { slot, read } => {
                let status = match &mut self.lanes[usize::from(slot)] {
                    Some(lane) => lane.execute(&read),
                    None => WcStatus::WR_FLUSH_ERR,
                };
                self.finish(slot, read.wr_id, status, read.signaled);
            }
            Command::Refused { slot, wr_id } => {
                let status = match &self.lanes[usize::from(slot)] {
                    Some(lane) if !lane.flushes() => WcStatus::LOC_PROT_ERR,
                    _ => WcStatus::WR_FLUSH_ERR,
                };
                self.finish(slot, wr_id, status, true);
            }
            Command::Drain { slot, wr_id } => {
                let status = match &self.lanes[usize::from(slot)] {
                    Some(lane) if !lane.flushes() => WcStatus::SUCCESS,
                    _ => WcStatus::WR_FLUSH_ERR,
                };
                self.finish(slot, wr_id, status, true);
            }
            Command::Fail { slot, id } => {
                if let Some(lane) = &mut self.lanes[usize::from(slot)] {
                    lane.failed = true;
                }
                self.notify(Notice::Failed(id), 0);
            }
            Command::Close { slot, id } => {
                let lane = self.lanes[usize::from(slot)].take();
                let retires = lane.map_or(0, |lane| lane.untold);
                self.notify(Notice::Closed { id, slot, retires }, retires);
            }
        }
    }

    /// Tells what became of a wr, in as few words as its lane's rules allow.
    fn finish(&mut self, slot: u16, wr_id: WrId, status: WcStatus, signaled: bool) {
        let ok = status.is_success();
        let Some(lane) = &mut self.lanes[usize::from(slot)] else { return };
        if ok && !signaled {
            lane.untold += 1;
            self.reporter.finished(0, false);
            return;
        }
        let retires = std::mem::take(&mut lane.untold) + 1;
        let fell = !ok && !std::mem::replace(&mut lane.failed, true);
        // A lane whose failure was asked for is reported when the request is reached.
        let fell = fell && !lane.failing.load(Ordering::Relaxed);
        let told = self.completions.push(Completion { wr_id, status, qp_num: lane.qp_num, retires, slot });
        // One entry per outstanding wr is what the ring was made for.
        debug_assert!(told.is_ok(), "completion ring overrun");
        if fell {
            self.notify(Notice::Failed(wr_id.lane()), 0);
        }
        self.reporter.finished(retires, !ok);
    }

    fn notify(&mut self, notice: Notice, retires: u32) {
        let told = self.notices.push(notice);
        debug_assert!(told.is_ok(), "notice ring overrun");
        self.reporter.event(retires);
    }
}

impl<T: LaneTransport> WorkerLane<T> {
    fn flushes(&self) -> bool {
        self.failed || self.failing.load(Ordering::Acquire)
    }

    fn execute(&mut self, read: &Read) -> WcStatus {
        if self.flushes() {
            return WcStatus::WR_FLUSH_ERR;
        }
        // SAFETY: the range was found within a registered one when the READ was posted, and whoever
        // registered it keeps it valid until every READ into it has been reported complete, which
        // this one has not. Its completion is put into the ring after this call.
        let status = unsafe { self.transport.execute(read) };
        // A READ that was interrupted was flushed: nobody's fault.
        if !status.is_success() && self.failing.load(Ordering::Acquire) {
            return WcStatus::WR_FLUSH_ERR;
        }
        status
    }
}
