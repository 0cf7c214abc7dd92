//! A rail's worker, which carries out READs as a NIC's DMA engine does, and its thread.
//!
//! It takes commands from one ring, in order, and puts completions and notices into two others. A
//! lane behaves as a QP does: it is ready, or in the error state, where every wr is flushed.
//!
//! The worker is behind a lock, which the thread holds that carries commands out. No thread waits
//! for it: one that does not get the lock at once does something else. While the worker's own
//! thread sleeps, the engine's thread takes the worker at a commit, and carries out a few small
//! READs itself: that costs less than waking another thread. And while the engine's thread waits
//! ([`super::rails`]), it takes the worker if its thread does not have it.
//!
//! READs that are plain copies are carried out several at a time, as a list of copies
//! ([`super::copies`]). The one of the two threads that does not have the worker takes copies from
//! the list.
#![allow(unsafe_code, reason = "executing a READ writes to registered memory")]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use kvrail_core::id::{LaneId, WrId};
use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::WcStatus;
use kvrail_host::ring::{RingConsumer, RingProducer};

use super::copies::{Copy, Leader, SharedCopies};
use super::progress::Reporter;
use super::sleep::Sleeper;
use super::sync::give_way;
use super::transport::LaneTransport;
use crate::copy::copy_part;

/// The largest READ that the engine's thread carries out itself. Larger ones are worth a wake.
pub(crate) const SMALL: u32 = 8 << 10;

/// READs of one list have this many bytes together, or are one READ. Completions come when the list
/// has been carried out. The two threads wait for each other at the end of each list: with lists of
/// 1 MiB a rail carried a tenth less.
const LIST_BYTES: u32 = 2 << 20;
/// A list of fewer bytes is not worth another thread's look at it.
const SHARED_BYTES: u32 = 16 << 10;
/// READs of one list, at most.
const LIST: usize = 128;

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
    /// Changes whenever commands have been put into the ring.
    posted: AtomicU32,
    /// What `posted` was when the thread that had the worker last began to look for commands and
    /// then left none.
    served: AtomicU32,
    pub(crate) stop: AtomicBool,
}

impl WorkerSignals {
    /// Tells a worker's thread that spins of commands in the ring. The engine's thread alone does.
    #[inline]
    pub(crate) fn announce(&self) {
        let posted = self.posted.load(Ordering::Relaxed).wrapping_add(1);
        self.posted.store(posted, Ordering::Release);
    }

    /// Whether commands may be in the ring that no thread has seen yet.
    fn has_commands(&self) -> bool {
        self.posted.load(Ordering::Acquire) != self.served.load(Ordering::Relaxed)
    }
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
    /// The READs of the list that is being written or carried out, each with the place of its lane.
    /// They are plain copies, and their lanes stay as they are until the list is empty again.
    pub(crate) list: Vec<(u16, Read)>,
    pub(crate) leader: Leader,
}

impl<T: LaneTransport> Worker<T> {
    pub(crate) fn new(
        commands: RingConsumer<Command<T>>,
        completions: RingProducer<Completion>,
        notices: RingProducer<Notice>,
        lanes: usize,
        reporter: Reporter,
        copies: Arc<SharedCopies>,
    ) -> Self {
        Self {
            commands,
            completions,
            notices,
            lanes: (0..lanes).map(|_| None).collect(),
            reporter,
            held: None,
            list: Vec::with_capacity(LIST),
            leader: Leader::new(copies),
        }
    }

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
                    Some(lane) if read.len <= SMALL && lane.transport.plain_copy(read).is_some() => {
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

    /// Carries out the READs that have come, as far as they are plain copies and their list has
    /// room, and says whether there were any. Other threads help.
    pub(crate) fn carry_out_list(&mut self) -> bool {
        let mut bytes = 0;
        while self.list.len() < LIST && bytes < LIST_BYTES {
            let Some(command) = self.next() else { break };
            if !self.add_to_list(&command) {
                self.held = Some(command);
                break;
            }
            if let Command::Read { read, .. } = command {
                bytes = read.len.saturating_add(bytes);
            }
        }
        if self.list.is_empty() {
            return false;
        }
        self.leader.carry_out(bytes <= SHARED_BYTES, carry_out_copy);
        for n in 0..self.list.len() {
            let (lane_index, read) = self.list[n];
            let status = match &self.lanes[usize::from(lane_index)] {
                // An earlier READ of the list may have failed its lane.
                Some(lane) if !lane.failed => lane.outcome(lane.transport.copied(&read)),
                _ => WcStatus::WR_FLUSH_ERR,
            };
            self.finish(lane_index, read.wr_id, status, read.signaled);
        }
        self.list.clear();
        true
    }

    /// Adds a command to the list, if it is a READ that is a plain copy and there is room for it.
    fn add_to_list(&mut self, command: &Command<T>) -> bool {
        let Command::Read { lane_index, read } = command else { return false };
        let Some(lane) = &self.lanes[usize::from(*lane_index)] else { return false };
        if lane.flushes() {
            return false;
        }
        let Some(from) = lane.transport.plain_copy(read) else { return false };
        let to = ptr::with_exposed_provenance_mut(read.local_addr as usize);
        let added = self.leader.add(from, to, read.len as usize);
        if added {
            self.list.push((*lane_index, *read));
        }
        added
    }

    /// Carries out the next commands, and says whether there were any.
    fn advance(&mut self) -> bool {
        if T::COPIES && self.carry_out_list() {
            return true;
        }
        let Some(command) = self.next() else { return false };
        self.carry_out(command);
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

/// How often a thread looks for something to do beside the thread that has the worker, before it
/// gives its core away.
pub(crate) const LOOKS: u32 = 200;
/// How often a worker's thread that spins sees that commands have come before it takes the worker.
/// An engine's thread that waits takes it earlier: the commands are in its own cache.
const GRACE: u32 = 100;

/// The thread of a worker: works until `stop` is set. Commands that are queued then are dropped,
/// not carried out. `spins`: how often it looks for a command before it sleeps.
pub(crate) fn run<T: LaneTransport>(
    worker: &Mutex<Worker<T>>,
    signals: &WorkerSignals,
    copies: &SharedCopies,
    spins: u32,
) {
    let stopped = || signals.stop.load(Ordering::Acquire);
    let mut in_vain: u32 = 0;
    while !stopped() {
        // It has been woken for a command; or the engine's thread has the worker.
        carry_out_all(worker, signals);
        let (mut idle, mut waiting) = (0, 0);
        while idle <= spins && !stopped() {
            if copies.help(carry_out_copy) {
                (waiting, idle) = (0, 0);
            } else if signals.has_commands() {
                waiting += 1;
                if waiting > GRACE && carry_out_all(worker, signals) {
                    (waiting, idle) = (0, 0);
                }
            }
            idle += 1;
            std::hint::spin_loop();
        }
        signals.sleeper.prepare_sleep();
        // Once the thread has announced that it sleeps, a command that comes is either seen here,
        // or carried out by the engine's thread, or wakes this one. If the engine's thread has the
        // worker just now, it may leave commands.
        let idle = try_lock(worker).map(|mut worker| worker.is_idle());
        if idle != Some(true) || stopped() {
            signals.sleeper.cancel_sleep();
            // It may stay in vain for as long as the engine's thread does the work.
            in_vain = in_vain.saturating_add(1);
            give_way(idle.is_none() && in_vain > LOOKS);
        } else {
            signals.sleeper.sleep(None);
            in_vain = 0;
        }
    }
}

/// Carries out all commands, unless another thread has the worker. Says whether it had it.
fn carry_out_all<T: LaneTransport>(worker: &Mutex<Worker<T>>, signals: &WorkerSignals) -> bool {
    let Some(mut worker) = try_lock(worker) else { return false };
    while !signals.stop.load(Ordering::Acquire) {
        let posted = signals.posted.load(Ordering::Acquire);
        if !worker.advance() {
            signals.served.store(posted, Ordering::Relaxed);
            break;
        }
    }
    true
}

/// Carries out a list of plain copies on a thread that is not the worker's own, if it gets the
/// worker at once. Says whether there was one; `None`: another thread has the worker.
pub(crate) fn carry_out_one_list<T: LaneTransport>(
    worker: &Mutex<Worker<T>>,
    signals: &WorkerSignals,
) -> Option<bool> {
    let mut worker = try_lock(worker)?;
    let posted = signals.posted.load(Ordering::Acquire);
    let found = worker.carry_out_list();
    if worker.is_idle() {
        signals.served.store(posted, Ordering::Relaxed);
    }
    Some(found)
}

/// Carries out one copy of a list.
pub(crate) fn carry_out_copy(copy: Copy) {
    // SAFETY: a worker put the copy into the list for a READ that is a plain copy, and waits until
    // it has been carried out. `from` is valid until then: the worker neither drops the lane's
    // transport nor calls `execute` of it. `to` was found within a registered range when the READ
    // was posted, which the engine keeps valid until the READ has been reported complete. No
    // registered memory is part of what a plain copy reads, so they do not overlap; and no two
    // copies write to the same bytes, since the engine has one READ at a time into any byte. The
    // source may change meanwhile, as `copy_part` permits.
    unsafe { copy_part(copy.from, copy.to, copy.len, copy.whole) }
}

/// The worker, unless another thread has it.
pub(crate) fn try_lock<T: LaneTransport>(worker: &Mutex<Worker<T>>) -> Option<MutexGuard<'_, Worker<T>>> {
    match worker.try_lock() {
        Ok(worker) => Some(worker),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
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
        self.outcome(status)
    }

    /// The status of a READ that the transport has carried out. One that was interrupted counts as
    /// flushed: neither the page nor the path is at fault.
    fn outcome(&self, status: WcStatus) -> WcStatus {
        if !status.is_success() && self.failing.load(Ordering::Acquire) {
            return WcStatus::WR_FLUSH_ERR;
        }
        status
    }
}
