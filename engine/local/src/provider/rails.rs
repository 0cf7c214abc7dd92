//! The provider: all rails, as the engine's thread uses them.
#![allow(unsafe_code, reason = "implements the engine's unsafe trait; the promises are argued at the impl")]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kvrail_core::id::{LaneId, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{
    MemoryRange, Provider, ProviderEvent, RailInfo, RailKeys, RegisterError, WaitFor,
};
use kvrail_core::time::Time;
use kvrail_core::verbs_abi::Wc;
use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::memory::populate_for_write;
use kvrail_host::ring::ring;
use kvrail_host::wake::EventFd;

use super::config::{LocalConfig, LocalOpenError, LocalStartError};
use super::copies::SharedCopies;
use super::progress::{LocalWaker, Progress, Reporter};
use super::rail::{
    CHAIN, EINVAL, ENOMEM, Help, LaneInterrupt, LanePlace, LocalLane, LocalPost, Rail, next_qp_num,
};
use super::registry::Registry;
use super::transport::LaneTransport;
use super::worker::{Command, LOOKS, Notice, Worker, WorkerLane, WorkerSignals, run};

/// Rails over a [`LaneTransport`]: a [`ShmProvider`](crate::shm::ShmProvider) or a
/// [`TcpProvider`](crate::tcp::TcpProvider).
///
/// One worker thread per rail carries out the READs of all the rail's lanes, in the order of
/// posting. On the engine's thread `begin`, `read`, `commit`, `poll` and `next_event` wait for no
/// lock and make no system call, except that a commit wakes a worker that sleeps. Where it sleeps
/// and the READs are few and small, the commit copies instead: see
/// [`own_bytes`](LocalConfig::own_bytes). [`wait`](Provider::wait) copies, too, where that helps:
/// see [`copy_while_waiting`](LocalConfig::copy_while_waiting).
///
/// Registered memory must stay valid for writes until it is deregistered. It may be deregistered
/// only when every READ into it has been reported complete or its lane has been closed.
pub struct LocalProvider<T: LaneTransport> {
    rails: Vec<Rail<T>>,
    config: LocalConfig,
    registry: Registry,
    progress: Arc<Progress>,
    /// Wrs that were posted.
    posted: u64,
    /// Posted wrs that the completions taken so far cover.
    covered: u64,
    /// Failed completions and notices that were taken out of the rings.
    alarms: u64,
    /// The engine's thread may be asleep on the descriptor.
    armed: bool,
    /// Signals of the descriptor that were sent, or are about to be, and have not been read.
    signals: u64,
    /// The rail at which the search for the next notice begins.
    next_rail: usize,
    /// The engine's thread copies while it waits.
    helps: bool,
    owner: OwnerProcess,
}

impl<T: LaneTransport> LocalProvider<T> {
    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// A configuration out of bounds, or a thread or a descriptor that the system did not give.
    pub fn start(config: LocalConfig) -> Result<Self, LocalStartError> {
        let limits = config.check()?;
        let signal = EventFd::new().map_err(|errno| LocalStartError::Descriptor { source: errno.into() })?;
        let mut this = Self {
            rails: Vec::with_capacity(config.rails),
            config,
            registry: Registry::default(),
            progress: Arc::new(Progress::new(config.rails, signal)),
            posted: 0,
            covered: 0,
            alarms: 0,
            armed: false,
            signals: 0,
            next_rail: 0,
            helps: false,
            owner: OwnerProcess::current(),
        };
        let provider = ProviderId::new();
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        // Workers spin only if there is a core for each of them and one for the engine's thread,
        // and one more for the other side where it takes part in a READ. A worker that spins takes
        // over half of a list of small copies without a call into the kernel.
        let shares = T::COPIES && config.copy_while_waiting;
        let spins = if cores > config.rails + usize::from(!shares) { 1_000 } else { 0 };
        this.helps = shares && cores > config.rails;
        for index in 0..config.rails {
            let (commands, worker_commands) = ring(limits.command_ring);
            let (worker_completions, completions) = ring(limits.completion_ring);
            let (worker_notices, notices) = ring(limits.notice_ring);
            let signals = Arc::new(WorkerSignals::default());
            let copies = Arc::new(SharedCopies::default());
            let worker = Arc::new(Mutex::new(Worker::new(
                worker_commands,
                worker_completions,
                worker_notices,
                limits.lanes,
                Reporter::new(Arc::clone(&this.progress), index),
                Arc::clone(&copies),
            )));
            let (shared, told, list) = (Arc::clone(&worker), Arc::clone(&signals), Arc::clone(&copies));
            let thread = std::thread::Builder::new()
                .name(format!("kvrail-rail-{index}"))
                .spawn(move || run(&shared, &told, &list, spins))
                .map_err(|source| LocalStartError::Thread { rail: index, source })?;
            let lanes = (0..limits.lanes)
                .map(|_| LanePlace { qp_num: 0, outstanding: 0, closed: false, interrupt: None })
                .collect();
            // `check` allows MAX_RAILS rails at most, so the number fits.
            let index = RailIndex(index as u8);
            this.rails.push(Rail {
                provider,
                index,
                commands,
                completions,
                notices,
                signals,
                worker,
                copies,
                own_bytes: config.own_bytes,
                thread: Some(thread),
                lanes,
            });
        }
        Ok(this)
    }

    /// The transport's name, for logs and reports.
    #[must_use]
    pub fn label(&self) -> &'static str {
        T::LABEL
    }

    /// How many wrs must have finished for the engine's thread to be woken; `None` if it is not to
    /// sleep.
    fn goal(&self, wait: WaitFor) -> Option<u64> {
        if self.progress.take_woken() || wait.timeout().0 == 0 || self.progress.alarms() != self.alarms {
            return None;
        }
        // `finished` is read first: a wr that finishes between the two reads counts twice. That can
        // end the wait early, but cannot make it endless.
        let finished = self.progress.finished();
        let not_taken = self.progress.covered().saturating_sub(self.covered);
        let wanted = u64::from(wait.completions);
        if wanted == 0 {
            return Some(u64::MAX);
        }
        // Wrs that a completion in a ring covers count: the caller has not seen them yet. Wrs that
        // no completion covers do not count, or a second wait for them would not sleep.
        let missing = wanted.saturating_sub(not_taken).min(self.posted.saturating_sub(finished));
        match (missing, not_taken) {
            (0, 0) => Some(u64::MAX),
            (0, _) => None,
            _ => Some(finished + missing),
        }
    }

    /// Copies beside the workers until there is a reason to end the wait, which began at `begun`,
    /// or nothing to copy. Says whether the wait is over.
    fn help(&mut self, goal: u64, wait: WaitFor, begun: Instant) -> bool {
        let mut looks = 0;
        while looks <= LOOKS {
            if self.progress.has_reason(goal, self.alarms) {
                return true;
            }
            let mut found = Help::Nothing;
            for rail in &mut self.rails {
                found = found.max(rail.help());
            }
            match found {
                Help::Nothing => return false,
                Help::Soon => {
                    looks += 1;
                    std::hint::spin_loop();
                }
                Help::Copied => {
                    looks = 0;
                    if begun.elapsed().as_nanos() >= u128::from(wait.timeout().0) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Reads the signals that have come. Without one it makes no system call.
    fn read_signals(&mut self) {
        if self.signals > 0 {
            self.signals = self.signals.saturating_sub(self.progress.signal().take());
        }
    }
}

/// Readable once an [armed](Provider::arm) engine has a reason to wake up.
impl<T: LaneTransport> AsFd for LocalProvider<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.progress.signal().as_fd()
    }
}

impl<T: LaneTransport> Drop for LocalProvider<T> {
    fn drop(&mut self) {
        // In a child of a fork there are no workers, and the connections are the parent's.
        if !self.owner.is_current() {
            return;
        }
        for rail in &self.rails {
            rail.signals.stop.store(true, Ordering::Release);
            for interrupt in rail.lanes.iter().filter_map(|p| p.interrupt.as_ref()) {
                interrupt.fail();
            }
            rail.signals.sleeper.wake_if_asleep();
        }
        for rail in &mut self.rails {
            if let Some(thread) = rail.thread.take() {
                // A worker that has panicked writes no more than one that has returned.
                let _ = thread.join();
            }
        }
    }
}

// SAFETY: the promises of `Provider`, by number.
// 1. A LaneTransport writes only to the local range of its READ (its own promise).
// 2. A worker carries out the wrs of a rail in their order, on its thread or on the engine's, of
//    which one at a time has the worker's lock. Of plain copies it carries out several together,
//    which two threads copy, and puts no completion of these into the ring before all of them have
//    been copied (`Leader::carry_out`). Of other READs it does so when `execute` has returned, and
//    a LaneTransport writes nothing after that. So at any completion no earlier wr of the rail
//    writes, and the ring keeps the order.
// 3. and 4. The same: a drain and a close are commands in the same queue.
// 5. `drop` sets `stop`, interrupts every lane, and joins the workers. A worker carries out nothing
//    after it has seen `stop`, and returns only when its list has been copied. Only a commit and a
//    wait carry out commands on another thread, and both borrow the provider.
// 6. Only staged commands are counted as accepted, and only staged commands are published; a READ
//    that was refused was never put into the ring.
// 7. A lane carries its id, its provider and a number that no other lane of the provider has, by
//    which `place` recognises it.
// SAFETY: so all seven promises are kept.
unsafe impl<T: LaneTransport> Provider for LocalProvider<T> {
    const CHAIN: usize = CHAIN;
    type Unopened = T;
    type Lane = LocalLane;
    type OpenError = LocalOpenError;
    type Post<'a> = LocalPost<'a, T>;
    type Waker = LocalWaker;

    fn rails(&self) -> usize {
        self.rails.len()
    }

    /// # Panics
    ///
    /// The rail does not exist.
    fn rail(&self, rail: RailIndex) -> RailInfo {
        assert!(
            rail.get() < self.rails.len(),
            "there is no rail {}: there are {}, counted from 0",
            rail.0,
            self.rails.len()
        );
        RailInfo {
            nominal_bytes_per_sec: self.config.nominal_bytes_per_sec,
            numa: None,
            cq_entries: self.config.cq_entries,
        }
    }

    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        let refused = |errno| RegisterError { rail: 0, range, errno };
        populate_for_write(range).map_err(|errno| refused(errno.raw_os_error()))?;
        self.registry.register(range).ok_or(refused(ENOMEM))
    }

    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        self.registry.deregister(range, keys);
    }

    /// Opens a lane on `rail` over `transport`.
    fn open(&mut self, id: LaneId, rail: RailIndex, transport: T) -> Result<LocalLane, LocalOpenError> {
        let rails = self.rails.len();
        let depth = self.config.sq_entries;
        let Some(rail) = self.rails.get_mut(rail.get()) else {
            return Err(LocalOpenError::NoSuchRail { rail: rail.0, rails });
        };
        let full = LocalOpenError::RailFull {
            rail: rail.index.0,
            lanes: rail.lanes.len(),
            sq_entries: depth,
            cq_entries: self.config.cq_entries,
        };
        let Some((lane_index, place)) = rail.lanes.iter_mut().enumerate().find(|(_, p)| p.qp_num == 0) else {
            return Err(full);
        };
        // `check` allows 65,535 places at most, so the number fits.
        let lane_index = lane_index as u16;
        let qp_num = next_qp_num();
        let failing = Arc::new(AtomicBool::new(false));
        let interrupt = LaneInterrupt { failing: Arc::clone(&failing), handle: transport.interrupt_handle() };
        let lane = Box::new(WorkerLane { transport, qp_num, failing, failed: false, uncovered: 0 });
        rail.commands.push(Command::Open { lane_index, lane }).map_err(|_| full)?;
        rail.signals.announce();
        rail.signals.sleeper.wake_if_asleep();
        *place = LanePlace { qp_num, outstanding: 0, closed: false, interrupt: Some(interrupt) };
        Ok(LocalLane {
            provider: rail.provider,
            id,
            rail: rail.index,
            lane_index,
            qp_num,
            depth,
            fail_requested: false,
        })
    }

    #[inline]
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut LocalLane) -> LocalPost<'a, T> {
        let rail = &mut self.rails[lane.rail.get()];
        let (room, refused) = match rail.place(lane) {
            Some(place) => (lane.depth.saturating_sub(place.outstanding).min(CHAIN as u32), None),
            None => (0, Some(EINVAL)),
        };
        // Commands of a post that was forgotten, not dropped, must not be posted with this one.
        rail.commands.discard();
        let (registry, posted) = (&self.registry, &mut self.posted);
        LocalPost {
            rail,
            registry,
            posted,
            lane_index: lane.lane_index,
            room,
            staged: 0,
            longest: 0,
            refused,
        }
    }

    #[inline]
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let Some(rail) = self.rails.get_mut(rail.get()) else { return 0 };
        rail.own_bytes = self.config.own_bytes;
        for (n, wc) in out.iter_mut().enumerate() {
            let Some(done) = rail.completions.pop() else { return n };
            self.covered += u64::from(done.retires);
            self.alarms += u64::from(!done.status.is_success());
            rail.retire(done.lane_index, done.qp_num, done.retires);
            *wc = Wc::new(done.wr_id, done.status, 0, done.qp_num);
        }
        out.len()
    }

    fn fail(&mut self, lane: &mut LocalLane) {
        let Some(rail) = self.rails.get_mut(lane.rail.get()) else { return };
        let Some(place) = rail.place(lane) else { return };
        if let Some(interrupt) = &place.interrupt {
            interrupt.fail();
        }
        if !std::mem::replace(&mut lane.fail_requested, true) {
            rail.send(Command::Fail { lane_index: lane.lane_index, id: lane.id });
        }
    }

    fn drain(&mut self, lane: &mut LocalLane, wr_id: WrId) -> Result<(), i32> {
        let rail = self.rails.get_mut(lane.rail.get()).ok_or(EINVAL)?;
        let place = rail.place(lane).ok_or(EINVAL)?;
        if place.outstanding > lane.depth {
            return Err(ENOMEM);
        }
        place.outstanding += 1;
        self.posted += 1;
        rail.send(Command::Drain { lane_index: lane.lane_index, wr_id });
        Ok(())
    }

    fn close(&mut self, lane: LocalLane) {
        let Some(rail) = self.rails.get_mut(lane.rail.get()) else { return };
        let Some(place) = rail.place(&lane) else { return };
        if let Some(interrupt) = &place.interrupt {
            interrupt.fail();
        }
        rail.send(Command::Close { lane_index: lane.lane_index, id: lane.id });
    }

    fn next_event(&mut self) -> Option<ProviderEvent> {
        for _ in 0..self.rails.len() {
            let rail = &mut self.rails[self.next_rail];
            let Some(notice) = rail.notices.pop() else {
                self.next_rail = (self.next_rail + 1) % self.rails.len();
                continue;
            };
            self.alarms += 1;
            return Some(match notice {
                Notice::Failed(id) => ProviderEvent::LaneFailed(id),
                Notice::Closed { id, lane_index, retires } => {
                    self.covered += u64::from(retires);
                    let place = &mut rail.lanes[usize::from(lane_index)];
                    (place.closed, place.interrupt) = (true, None);
                    let qp_num = place.qp_num;
                    rail.retire(lane_index, qp_num, retires);
                    ProviderEvent::LaneClosed(id)
                }
            });
        }
        None
    }

    fn wait(&mut self, wait: WaitFor) {
        let Some(goal) = self.goal(wait) else { return };
        let mut left = wait.timeout().0;
        if self.helps && self.posted > self.progress.finished() {
            let begun = Instant::now();
            if self.help(goal, wait, begun) {
                self.progress.take_woken();
                return;
            }
            // The time that was spent on copies is a part of the wait.
            left = left.saturating_sub(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        let nanos = (wait.until != Time::NEVER).then_some(left);
        self.progress.sleep_until(goal, self.alarms, nanos);
        self.progress.take_woken();
    }

    fn arm(&mut self, wait: WaitFor) -> bool {
        let Some(goal) = self.goal(wait) else { return false };
        self.read_signals();
        self.armed = true;
        let may_sleep = self.progress.arm(goal, self.alarms);
        if !may_sleep {
            self.disarm();
        }
        may_sleep
    }

    fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            self.signals += u64::from(self.progress.disarm());
            self.read_signals();
        }
    }

    fn waker(&self) -> LocalWaker {
        LocalWaker { progress: Arc::clone(&self.progress) }
    }
}

impl<T: LaneTransport> fmt::Debug for LocalProvider<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalProvider")
            .field("label", &T::LABEL)
            .field("config", &self.config)
            .field("posted", &self.posted)
            .field("covered", &self.covered)
            .finish_non_exhaustive()
    }
}
