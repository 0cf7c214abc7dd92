//! The model as an engine sees it: a provider.
#![allow(unsafe_code, reason = "implements the provider contract, which makes promises about memory")]

use core::cell::RefMut;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::batch::Class;
use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{
    Commit, MemoryRange, Piece, Post, Provider, ProviderEvent, RailInfo, RailKeys, Read, RegisterError,
    WaitFor, Wake,
};
use kvrail_core::verbs_abi::Wc;

use super::control::Sim;
use super::handle::{LaneHandle, SimQp};
use super::limits::{CHAIN, SGES};
use super::model::Model;
use super::posting::{EINVAL, ENOMEM};

/// All rails of a model, for one engine.
#[derive(Debug)]
pub struct SimRails<'m> {
    sim: &'m Sim<'m>,
}

impl<'m> Sim<'m> {
    /// The engine's side of the model. When it is dropped, all lanes are destroyed.
    ///
    /// # Panics
    ///
    /// If an engine has it already.
    #[must_use]
    pub fn rails(&'m self) -> SimRails<'m> {
        assert!(!self.taken.replace(true), "a model's rails belong to one engine");
        SimRails { sim: self }
    }
}

/// A lane of a model. Dropping it destroys nothing; [`Provider::close`] does.
#[derive(Debug)]
pub struct SimLane {
    qp: SimQp,
    id: LaneId,
}

impl SimLane {
    /// The lane's name in scripts and actions.
    #[must_use]
    pub fn handle(&self) -> LaneHandle {
        self.qp.handle
    }
}

/// Why a model's lane cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimLaneError {
    /// The lane was connected in another model, or is gone.
    #[error("{0:?} is no lane of this model: it was connected in another one, or is gone")]
    NotOurs(LaneHandle),
    /// The lane was connected over another rail.
    #[error("the lane was connected over rail {connected}, not over rail {asked}")]
    OtherRail {
        /// The rail over which the lane was connected.
        connected: u8,
        /// The rail over which it was to be opened.
        asked: u8,
    },
}

impl SimLaneError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NotOurs(_) => 9050,
            Self::OtherRail { .. } => 9051,
        }
    }
}

/// A commit on a model's lane.
pub struct SimPost<'a, 'm> {
    model: RefMut<'a, Model<'m>>,
    place: usize,
    len: u32,
}

impl fmt::Debug for SimPost<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimPost").field("place", &self.place).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Post for SimPost<'_, '_> {
    fn read(&mut self, read: Read) {
        let whole = Piece { addr: read.local_addr, len: read.len };
        self.scatter(read, &[whole]);
    }

    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        self.model.encode(self.place, self.len, read, pieces);
        self.len = self.len.saturating_add(1);
    }

    fn commit(mut self) -> Commit {
        self.model.commit(self.place, self.len)
    }
}

/// Wakes an engine that sleeps in the model's `wait`.
#[derive(Clone, Copy, Debug)]
pub struct SimWaker<'m> {
    woken: &'m AtomicBool,
}

impl Wake for SimWaker<'_> {
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
    }
}

impl SimRails<'_> {
    /// The place of a lane, if it is one of this model. A `SimLane` is not `Clone`, and `close`
    /// consumes it, so no two lanes of this model have one place.
    fn place(&self, model: &Model<'_>, qp: &SimQp) -> Option<usize> {
        (qp.model == self.sim.id && model.find(qp.handle).is_some()).then_some(qp.handle.place as usize)
    }
}

// SAFETY: the promises, in their order.
// 1. Only `Memories::copy` writes. It writes parts of the pieces of the landing wr, after it has
//    found them registered.
// 2. Wrs of a lane complete in order, and land before or at their completion: `land_due` runs
//    before `complete_due`, and `lands_at` is at most `done`. The error completion of a wr cancels
//    its bytes that have not landed. SimConfig::late_bytes makes the one documented exception, for
//    flushed wrs only; an engine that keeps to the contract's rule 3 (nothing is released before a
//    drain or a close) does not see it.
// 3. A drain completes only when `last_landing` has passed, and `drained` stops all landing.
// 4. `closed` frees the place; a free place has no time in `timers`, so nothing of it lands.
// 5. `drop` closes every lane.
// 6. `accept` takes exactly the prefix that `commit` reports.
// 7. A lane carries its id and its model's; `place` finds none for a lane of another model.
// SAFETY: so all seven promises are kept.
unsafe impl<'m> Provider for SimRails<'m> {
    const CHAIN: usize = CHAIN;
    type Unopened = SimQp;
    type Lane = SimLane;
    type OpenError = SimLaneError;
    type Post<'a>
        = SimPost<'a, 'm>
    where
        Self: 'a;
    type Waker = SimWaker<'m>;

    fn rails(&self) -> usize {
        self.sim.model.borrow().rails.len()
    }

    fn rail(&self, rail: RailIndex) -> RailInfo {
        let spec = self.sim.model.borrow().rails[rail.get()].spec;
        RailInfo { nominal_bytes_per_sec: spec.rate.get(), numa: spec.numa, cq_entries: spec.cq_entries }
    }

    fn sges(&self) -> u32 {
        self.sim.model.borrow().config.sges.clamp(1, SGES as u32)
    }

    fn read_overhead(&self) -> u32 {
        self.sim.model.borrow().config.read_overhead
    }

    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        let keys = self.sim.model.borrow_mut().memories.register(range);
        keys.ok_or(RegisterError { rail: 0, range, errno: ENOMEM })
    }

    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        self.sim.model.borrow_mut().deregister(range, keys);
    }

    fn class(&self, qp: &SimQp) -> Class {
        qp.class
    }

    fn open(&mut self, id: LaneId, rail: RailIndex, qp: SimQp) -> Result<SimLane, SimLaneError> {
        let mut model = self.sim.model.borrow_mut();
        let place = self.place(&model, &qp).ok_or(SimLaneError::NotOurs(qp.handle))?;
        let connected = model.lanes[place].rail.0;
        if connected != rail.0 {
            return Err(SimLaneError::OtherRail { connected, asked: rail.0 });
        }
        model.learn_id(place, id);
        Ok(SimLane { qp, id })
    }

    unsafe fn begin<'a>(&'a mut self, lane: &'a mut SimLane) -> SimPost<'a, 'm> {
        let model = self.sim.model.borrow_mut();
        let place = self.place(&model, &lane.qp).expect("begin is for lanes of this model");
        SimPost { model, place, len: 0 }
    }

    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        self.sim.model.borrow_mut().poll(rail, out)
    }

    fn fail(&mut self, lane: &mut SimLane) {
        let mut model = self.sim.model.borrow_mut();
        let Some(place) = self.place(&model, &lane.qp) else { return };
        model.fail(place, lane.id);
    }

    fn drain(&mut self, lane: &mut SimLane, wr_id: WrId) -> Result<(), i32> {
        let mut model = self.sim.model.borrow_mut();
        let place = self.place(&model, &lane.qp).ok_or(EINVAL)?;
        model.drain(place, wr_id)
    }

    fn close(&mut self, lane: SimLane) {
        let mut model = self.sim.model.borrow_mut();
        let Some(place) = self.place(&model, &lane.qp) else { return };
        model.close(place, lane.id);
    }

    fn next_event(&mut self) -> Option<ProviderEvent> {
        self.sim.model.borrow_mut().events.pop_front()
    }

    fn wait(&mut self, wait: WaitFor) {
        if self.sim.woken.swap(false, Ordering::Acquire) {
            return;
        }
        self.sim.model.borrow_mut().wait(wait.until.0, wait.completions);
    }

    fn waker(&self) -> SimWaker<'m> {
        SimWaker { woken: &self.sim.woken }
    }
}

impl Drop for SimRails<'_> {
    /// Destroys all lanes, so that none of them writes any more.
    fn drop(&mut self) {
        // Dropping must not panic: a test that unwinds out of `with_memory` holds the model.
        if let Ok(mut model) = self.sim.model.try_borrow_mut() {
            for place in 0..model.lanes.len() {
                model.destroy(place);
            }
            self.sim.taken.set(false);
        } else {
            // The clock does not move any more, and no other engine gets the rails.
            self.sim.stopped.set(true);
        }
    }
}
