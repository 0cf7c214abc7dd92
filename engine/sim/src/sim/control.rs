//! The test's side of a model: it builds the model, moves the clock, lets things happen, and looks
//! at the results.
#![allow(unsafe_code, reason = "one function passes a caller's promise about shared memory on")]

use core::cell::{Cell, RefCell};
use core::sync::atomic::AtomicBool;

use kvrail_core::batch::Class;
use kvrail_core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex};
use kvrail_core::provider::{MemoryRange, RailKeys, Read};
use kvrail_core::time::Time;

use super::action::{Action, Agenda};
use super::config::{RailSpec, SimConfig, SimLaneSpec};
use super::error::{SimConfigError, SimConnectError, SimFull, SimMemoryError, SimPeerError};
use super::handle::{LaneHandle, MemoryHandle, PeerHandle, SimQp};
use super::lane::Lane;
use super::memory::Memories;
use super::model::{Model, Peer, Rail, SimRailStats};
use super::script::{Fate, Scripts};
use super::storage::SimStorage;
use super::timers::Timers;
use super::violation::Violations;
use crate::rng::SplitMix64;

/// A model: rails, peers, memories, lanes, and a clock that moves only when told to.
///
/// An engine gets the [`SimRails`](super::SimRails); the test keeps this value. All methods take
/// `&self`, so test and engine can use the model in turn.
#[derive(Debug)]
pub struct Sim<'m> {
    pub(super) model: RefCell<Model<'m>>,
    pub(super) woken: AtomicBool,
    /// Distinguishes lanes of this model from those of others.
    pub(super) id: ProviderId,
    /// Whether an engine has the rails.
    pub(super) taken: Cell<bool>,
    /// Whether the rails were dropped while a panic unwound out of the model. Then nothing may
    /// happen any more.
    pub(super) stopped: Cell<bool>,
}

impl<'m> Sim<'m> {
    /// A model with these rails, at time 0, without peers.
    ///
    /// # Errors
    ///
    /// The rails do not fit the storage.
    pub fn new<
        const RAILS: usize,
        const PEERS: usize,
        const LANES: usize,
        const DEPTH: usize,
        const CQES: usize,
    >(
        storage: &'m mut SimStorage<RAILS, PEERS, LANES, DEPTH, CQES>,
        mut config: SimConfig,
        rails: &[RailSpec],
    ) -> Result<Self, SimConfigError> {
        if rails.is_empty() || rails.len() > RAILS {
            return Err(SimConfigError::Rails { rails: rails.len(), room: RAILS });
        }
        for (spec, rail) in rails.iter().zip(0..) {
            if spec.cq_entries == 0 || spec.cq_entries as usize > CQES {
                return Err(SimConfigError::CqEntries { rail, entries: spec.cq_entries, room: CQES });
            }
        }
        config.pieces = config.pieces.max(1);
        for (place, spec) in storage.rails.iter_mut().zip(rails) {
            *place = Rail { spec: *spec, rate: spec.rate, free: 0, up: true, stats: SimRailStats::NONE };
        }
        storage.lanes.fill(Lane::NONE);
        storage.events.clear();
        let mut cqs = [const { None }; MAX_RAILS];
        for (place, cq) in cqs.iter_mut().zip(&mut storage.cqs[..rails.len()]) {
            cq.clear();
            *place = Some(cq.as_mut_view());
        }
        let model = Model {
            now: 0,
            config,
            rng: SplitMix64::new(config.seed),
            rails: &mut storage.rails[..rails.len()],
            peers: &mut storage.peers,
            peer_count: 0,
            memories: Memories::new(
                storage.remote.as_flattened_mut(),
                &mut storage.local,
                &mut storage.protected,
            ),
            lanes: &mut storage.lanes,
            wrs: storage.wrs.as_flattened_mut(),
            depth: DEPTH,
            timers: Timers::new(&mut storage.times, storage.winners.as_flattened_mut()),
            cqs,
            events: storage.events.as_mut_view(),
            agenda: Agenda::new(&mut storage.actions),
            scripts: Scripts::new(&mut storage.fates),
            violations: Violations::NONE,
            completed: 0,
            failed_cqes: 0,
        };
        Ok(Self {
            model: RefCell::new(model),
            woken: AtomicBool::new(false),
            id: ProviderId::new(),
            taken: Cell::new(false),
            stopped: Cell::new(false),
        })
    }

    // The clock.

    /// The model's time.
    ///
    /// # Panics
    ///
    /// If it is called from within [`with_memory`](Self::with_memory), like every method here.
    #[must_use]
    pub fn now(&self) -> Time {
        Time(self.model.borrow().now)
    }

    /// Moves the clock to `time`. Everything that is due until then, `time` included, happens. A
    /// time in the past does not move the clock; with `Time::NEVER` it moves until nothing is due
    /// any more.
    pub fn advance_to(&self, time: Time) {
        if !self.stopped.get() {
            self.model.borrow_mut().advance_to(time.0);
        }
    }

    /// Moves the clock to the next thing that is due (a request arrives, a piece lands, a wr
    /// completes, …) and lets only that happen. Returns `false` if nothing will happen any more.
    pub fn step(&self) -> bool {
        !self.stopped.get() && self.model.borrow_mut().step()
    }

    // The world.

    /// Adds a peer whose rails are up and have no limit of rate.
    ///
    /// # Errors
    ///
    /// The storage has no room for another peer.
    pub fn add_peer(&self) -> Result<PeerHandle, SimPeerError> {
        let mut model = self.model.borrow_mut();
        let (at, room) = (model.peer_count, model.peers.len());
        let place = model.peers.get_mut(at).ok_or(SimPeerError { room })?;
        *place = Peer::NEW;
        model.peer_count += 1;
        // SimStorage holds at most 2^14 peers.
        Ok(PeerHandle(at as u16))
    }

    /// Publishes memory of a peer, whose first byte has the address `base` for the peer, with a key
    /// for each of the peer's rails. Only the model accesses the bytes from now on; see
    /// [`with_memory`](Self::with_memory).
    ///
    /// # Errors
    ///
    /// The peer publishes four memories already, or the range does not fit a 64-bit address space.
    pub fn publish(
        &self,
        peer: PeerHandle,
        base: u64,
        bytes: &'m mut [u8],
        keys: RailKeys,
    ) -> Result<MemoryHandle, SimMemoryError> {
        self.model.borrow_mut().memories.publish(peer, base, bytes, keys)
    }

    /// Publishes memory of a peer that other code owns and writes, such as a real pool.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    ///
    /// # Safety
    ///
    /// For `'m`, the `len` bytes at `start` can be read, from the thread that has the model, and no
    /// reference claims that they do not change (atomics and `UnsafeCell`s do not).
    pub unsafe fn publish_shared(
        &self,
        peer: PeerHandle,
        base: u64,
        start: *mut u8,
        len: usize,
        keys: RailKeys,
    ) -> Result<MemoryHandle, SimMemoryError> {
        // SAFETY: our caller makes the same promises.
        unsafe { self.model.borrow_mut().memories.publish_shared(peer, base, start, len, keys) }
    }

    /// Lets `f` read or write published memory, as its owner. Nothing else happens meanwhile.
    ///
    /// # Panics
    ///
    /// If the memory was published by [`publish_shared`](Self::publish_shared), or `f` calls a
    /// method of the model.
    pub fn with_memory<R>(&self, memory: MemoryHandle, f: impl FnOnce(&mut [u8]) -> R) -> R {
        f(self.model.borrow_mut().memories.bytes(memory))
    }

    /// Connects a lane: a QP in RTS on both sides, to be given to an engine.
    ///
    /// # Errors
    ///
    /// There is no such rail, the path is down, the storage has no room, or `spec` does not fit it.
    ///
    /// # Panics
    ///
    /// If `remote_rail` is not below [`MAX_RAILS`].
    pub fn connect(
        &self,
        rail: RailIndex,
        peer: PeerHandle,
        remote_rail: RailIndex,
        spec: SimLaneSpec,
    ) -> Result<SimQp, SimConnectError> {
        assert!(remote_rail.get() < MAX_RAILS, "a peer has at most {MAX_RAILS} rails");
        let handle = self.model.borrow_mut().connect(rail, peer, remote_rail, spec)?;
        Ok(SimQp { handle, model: self.id, class: Class::Urgent })
    }

    /// Scripts a fault of one lane.
    ///
    /// # Errors
    ///
    /// 64 fates are scripted already.
    pub fn script(&self, lane: LaneHandle, fate: Fate) -> Result<(), SimFull> {
        if self.model.borrow_mut().scripts.add(lane, fate) { Ok(()) } else { Err(SimFull::SCRIPTS) }
    }

    /// Lets `action` happen at `time`, or at the next move of the clock if `time` has passed.
    ///
    /// # Errors
    ///
    /// 64 actions are planned already.
    pub fn at(&self, time: Time, action: Action) -> Result<(), SimFull> {
        if self.model.borrow_mut().agenda.add(time.0, action) { Ok(()) } else { Err(SimFull::PLANS) }
    }

    /// Lets `action` happen now.
    ///
    /// # Panics
    ///
    /// If the action names a rail, a peer or a memory that does not exist, or bytes beyond the end
    /// of a memory. With an action of [`at`](Self::at) the move of the clock panics.
    pub fn apply(&self, action: Action) {
        self.model.borrow_mut().apply(action);
    }

    // The results.

    /// Notes that `range` has been given back and nothing may write to it. Such a write is not
    /// executed, but recorded as
    /// [`Violation::WriteAfterRelease`](super::Violation::WriteAfterRelease).
    ///
    /// # Errors
    ///
    /// 512 ranges are protected already.
    pub fn protect(&self, range: MemoryRange) -> Result<(), SimFull> {
        if self.model.borrow_mut().memories.protect(range) { Ok(()) } else { Err(SimFull::PROTECTIONS) }
    }

    /// Ends one [`protect`](Self::protect) of exactly this range. Returns `false` if the range is
    /// not protected.
    pub fn unprotect(&self, range: MemoryRange) -> bool {
        self.model.borrow_mut().memories.unprotect(range)
    }

    /// The promises that the engine has broken so far.
    #[must_use]
    pub fn violations(&self) -> Violations {
        self.model.borrow().violations.clone()
    }

    /// Shows the READs that the engine has posted to the lane that it calls `id`, from number
    /// `from` on (the first READ of a lane is number 0). Returns how many it has posted in all.
    /// READs that have left the send queue are not shown; those of the last commit never have.
    ///
    /// # Panics
    ///
    /// If `show` calls a method of the model.
    pub fn posted(&self, id: LaneId, from: u64, mut show: impl FnMut(&Read)) -> u64 {
        let model = self.model.borrow();
        let Some(place) = model.lanes.iter().position(|lane| lane.id == Some(id)) else { return 0 };
        let lane = &model.lanes[place];
        for number in from.max(lane.tail)..lane.posted {
            let wr = &model.wrs[model.slot(place, number)];
            if !wr.drain {
                show(&wr.read);
            }
        }
        lane.posted
    }

    /// The counters of a rail.
    ///
    /// # Panics
    ///
    /// If there is no such rail.
    #[must_use]
    pub fn rail_stats(&self, rail: RailIndex) -> SimRailStats {
        self.model.borrow().rails[rail.get()].stats
    }
}
