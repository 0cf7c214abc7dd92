//! One rail on the engine's thread: its ends of the rings, its lanes, and a commit that is being
//! built.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kvrail_core::id::{LaneId, ProviderId, RailIndex};
use kvrail_core::provider::{Commit, Post, Read};
use kvrail_host::ring::{RingConsumer, RingProducer};
use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::copies::SharedCopies;
use super::registry::Registry;
use super::transport::LaneTransport;
use super::worker::{
    Command, Completion, Notice, SMALL, Worker, WorkerSignals, carry_out_copy, carry_out_one_list, try_lock,
};

/// READs of one commit, at most.
pub(crate) const CHAIN: usize = 128;

pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOMEM: i32 = 12;

/// A rail, as the engine's thread uses it.
#[derive(Debug)]
pub(crate) struct Rail<T: LaneTransport> {
    pub(crate) provider: ProviderId,
    pub(crate) index: RailIndex,
    pub(crate) commands: RingProducer<Command<T>>,
    pub(crate) completions: RingConsumer<Completion>,
    pub(crate) notices: RingConsumer<Notice>,
    pub(crate) signals: Arc<WorkerSignals>,
    pub(crate) worker: Arc<Mutex<Worker<T>>>,
    /// Copies that the worker shares.
    pub(crate) copies: Arc<SharedCopies>,
    /// Bytes that the engine's thread may copy itself until it polls or waits.
    pub(crate) own_bytes: u32,
    pub(crate) thread: Option<JoinHandle<()>>,
    pub(crate) lanes: Vec<LanePlace<T>>,
}

/// A lane's place on its rail.
pub(crate) struct LanePlace<T: LaneTransport> {
    /// The number of the lane that uses the place; 0: free.
    pub(crate) qp_num: u32,
    /// Send queue entries in use.
    pub(crate) outstanding: u32,
    /// The worker has dropped the lane. The place becomes free when no entry is in use.
    pub(crate) closed: bool,
    /// Fails the lane; `None` once the lane is closed.
    pub(crate) interrupt: Option<LaneInterrupt<T>>,
}

/// What a thread that waits has found to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Help {
    /// Nothing, and the rail's thread has nothing, or READs that only it can carry out.
    Nothing,
    /// Nothing, but the rail's thread is at work.
    Soon,
    /// At least one copy, which has been carried out.
    Copied,
}

/// How the engine's thread fails a lane without waiting for the commands before it.
pub(crate) struct LaneInterrupt<T: LaneTransport> {
    pub(crate) failing: Arc<AtomicBool>,
    pub(crate) handle: T::Interrupt,
}

impl<T: LaneTransport> LaneInterrupt<T> {
    pub(crate) fn fail(&self) {
        self.failing.store(true, Ordering::Release);
        T::interrupt(&self.handle);
    }
}

/// A lane of [`LocalProvider`](crate::LocalProvider). Dropping one does not close it:
/// [`Provider::close`](kvrail_core::provider::Provider::close) does, or the end of the rails.
#[derive(Debug)]
pub struct LocalLane {
    pub(crate) provider: ProviderId,
    pub(crate) id: LaneId,
    pub(crate) rail: RailIndex,
    pub(crate) lane_index: u16,
    pub(crate) qp_num: u32,
    pub(crate) depth: u32,
    pub(crate) fail_requested: bool,
}

// A lane moves between threads with its engine, and there is one handle to it.
assert_impl_all!(LocalLane: Send);
assert_not_impl_any!(LocalLane: Clone);

impl LocalLane {
    /// How many READs may be outstanding. The lane has one more entry, for a drain.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// The rail to which it belongs.
    #[must_use]
    pub fn rail(&self) -> RailIndex {
        self.rail
    }
}

/// Returns a number that comes again only after 2^32 calls, so that it tells a lane from earlier
/// lanes of the same place.
pub(crate) fn next_qp_num() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).max(1)
}

impl<T: LaneTransport> Rail<T> {
    /// The lane's place, if the lane is a lane of this rail.
    pub(crate) fn place(&mut self, lane: &LocalLane) -> Option<&mut LanePlace<T>> {
        let place = self.lanes.get_mut(usize::from(lane.lane_index));
        place.filter(|place| place.qp_num == lane.qp_num && lane.provider == self.provider)
    }

    /// Frees entries of the lane `qp_num`, and its place when the lane is closed and no entry is in
    /// use.
    pub(crate) fn retire(&mut self, lane_index: u16, qp_num: u32, entries: u32) {
        if let Some(place) = self.lanes.get_mut(usize::from(lane_index))
            && place.qp_num == qp_num
        {
            place.outstanding = place.outstanding.saturating_sub(entries);
            if place.closed && place.outstanding == 0 {
                place.qp_num = 0;
            }
        }
    }

    /// Carries out the published commands on this thread, if the worker's sleeps and they are small
    /// copies; wakes the worker's thread for the rest. `longest` is the longest READ.
    #[inline]
    pub(crate) fn carry_out_or_wake(&mut self, longest: u32) {
        self.signals.announce();
        if longest <= SMALL.min(self.own_bytes)
            && self.signals.sleeper.is_asleep()
            && let Some(mut worker) = try_lock(&self.worker)
            && worker.carry_out_small(&mut self.own_bytes)
        {
            return;
        }
        self.signals.sleeper.wake_if_asleep();
    }

    /// Copies beside the rail's thread, or instead of it while it does not have the worker yet.
    pub(crate) fn help(&mut self) -> Help {
        if self.copies.help(carry_out_copy) {
            return Help::Copied;
        }
        match carry_out_one_list(&self.worker, &self.signals) {
            Some(true) => Help::Copied,
            Some(false) => Help::Nothing,
            None => Help::Soon,
        }
    }

    /// Sends a command. The ring has room for it: its size counts these commands for each lane.
    pub(crate) fn send(&mut self, command: Command<T>) {
        let pushed = self.commands.push(command);
        debug_assert!(pushed.is_ok(), "command ring overrun");
        self.signals.announce();
        self.signals.sleeper.wake_if_asleep();
    }
}

/// A commit on a lane of [`LocalProvider`](crate::LocalProvider).
pub struct LocalPost<'a, T: LaneTransport> {
    pub(crate) rail: &'a mut Rail<T>,
    pub(crate) registry: &'a Registry,
    /// The provider's count of posted wrs.
    pub(crate) posted: &'a mut u64,
    pub(crate) lane_index: u16,
    /// READs that this commit may hold.
    pub(crate) room: u32,
    /// READs that it holds.
    pub(crate) staged: u32,
    /// The length of the longest of them.
    pub(crate) longest: u32,
    /// The errno of the first READ that was not staged.
    pub(crate) refused: Option<i32>,
}

impl<T: LaneTransport> Post for LocalPost<'_, T> {
    #[inline]
    fn read(&mut self, read: Read) {
        if self.refused.is_some() {
            return;
        }
        if self.staged == self.room {
            self.refused = Some(ENOMEM);
            return;
        }
        let lane_index = self.lane_index;
        let command = if self.registry.allows(self.rail.index, &read) {
            Command::Read { lane_index, read }
        } else {
            Command::Refused { lane_index, wr_id: read.wr_id }
        };
        match self.rail.commands.stage(command) {
            Ok(()) => {
                self.staged += 1;
                self.longest = self.longest.max(read.len);
            }
            Err(_) => self.refused = Some(ENOMEM),
        }
    }

    #[inline]
    fn commit(self) -> Commit {
        if self.staged > 0 {
            self.rail.lanes[usize::from(self.lane_index)].outstanding += self.staged;
            *self.posted += u64::from(self.staged);
            self.rail.commands.publish();
            self.rail.carry_out_or_wake(self.longest);
        }
        match self.refused {
            None => Commit::All,
            Some(errno) => Commit::Prefix { accepted: self.staged, errno },
        }
    }
}

impl<T: LaneTransport> Drop for LocalPost<'_, T> {
    fn drop(&mut self) {
        // After a commit there are no staged commands.
        self.rail.commands.discard();
    }
}

impl<T: LaneTransport> fmt::Debug for LanePlace<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LanePlace")
            .field("qp_num", &self.qp_num)
            .field("outstanding", &self.outstanding)
            .finish_non_exhaustive()
    }
}

impl<T: LaneTransport> fmt::Debug for LocalPost<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPost")
            .field("rail", &self.rail.index)
            .field("staged", &self.staged)
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}
