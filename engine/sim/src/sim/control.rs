//! The test's side of a model: what it makes, what it lets happen, and what it finds.
#![allow(unsafe_code, reason = "one function passes on a caller's promise about shared memory")]

use core::cell::{Cell, RefCell};
use core::sync::atomic::AtomicBool;

use kvrail_core::id::{MAX_RAILS, ProviderId, RailIndex};
use kvrail_core::provider::{MemoryRange, RailKeys};
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
/// An engine gets the [`SimRails`]; this side of it stays with the test. All methods take `&self`,
/// so both can be used in turn.
#[derive(Debug)]
pub struct Sim<'m> {
    pub(super) model: RefCell<Model<'m>>,
    pub(super) woken: AtomicBool,
    /// Tells lanes of this model from those of others.
    pub(super) id: ProviderId,
    /// Whether an engine has the rails.
    pub(super) taken: Cell<bool>,
    /// Whether the rails were dropped while a panic unwound out of the model: nothing may happen
    /// any more.
    pub(super) dead: Cell<bool>,
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
            bad_news: 0,
        };
        Ok(Self {
            model: RefCell::new(model),
            woken: AtomicBool::new(false),
            id: ProviderId::new(),
            taken: Cell::new(false),
            dead: Cell::new(false),
        })
    }

    // The clock.

    /// The model's time.
    ///
    /// # Panics
    ///
    /// Like every method here, when called from within [`with_memory`](Self::with_memory).
    #[must_use]
    pub fn now(&self) -> Time {
        Time(self.model.borrow().now)
    }

    /// Moves the clock; everything until `time`, and at that moment, happens. A time in the past
    /// does not move it; `Time::NEVER` lets everything happen that will.
    pub fn advance_to(&self, time: Time) {
        if !self.dead.get() {
            self.model.borrow_mut().advance_to(time.0);
        }
    }

    /// Moves the clock to the next thing that happens (a request arrives, a piece lands, a wr
    /// completes, …) and lets only that happen. `false`: nothing will.
    pub fn step(&self) -> bool {
        !self.dead.get() && self.model.borrow_mut().step()
    }

    // The world.

    /// A peer with rails that are up and never the bottleneck.
    ///
    /// # Errors
    ///
    /// There is no room for one more.
    pub fn add_peer(&self) -> Result<PeerHandle, SimPeerError> {
        let mut model = self.model.borrow_mut();
        let (at, room) = (model.peer_count, model.peers.len());
        let place = model.peers.get_mut(at).ok_or(SimPeerError { room })?;
        *place = Peer::NEW;
        model.peer_count += 1;
        // SimStorage holds at most 2^14 peers.
        Ok(PeerHandle(at as u16))
    }

    /// Publishes memory of a peer, which calls its first byte `base`, with a key for each of the
    /// peer's rails. The model has the bytes for itself; see [`with_memory`](Self::with_memory).
    ///
    /// # Errors
    ///
    /// The peer publishes four already, or the range does not fit a 64-bit address space.
    pub fn publish(
        &self,
        peer: PeerHandle,
        base: u64,
        bytes: &'m mut [u8],
        keys: RailKeys,
    ) -> Result<MemoryHandle, SimMemoryError> {
        self.model.borrow_mut().memories.publish(peer, base, bytes, keys)
    }

    /// Publishes memory of a peer that somebody else owns and writes, such as a real pool.
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
        // SAFETY: passed on to our caller, word for word.
        unsafe { self.model.borrow_mut().memories.publish_shared(peer, base, start, len, keys) }
    }

    /// Reads or writes published memory, as its owner does, between two things that happen.
    ///
    /// # Panics
    ///
    /// When the memory is shared: its owner has it. When `f` calls back into the model.
    pub fn with_memory<R>(&self, memory: MemoryHandle, f: impl FnOnce(&mut [u8]) -> R) -> R {
        f(self.model.borrow_mut().memories.bytes(memory))
    }

    /// Connects a lane: a QP in RTS on both sides, to be given to an engine.
    ///
    /// # Errors
    ///
    /// The path is down, there is no room, or the numbers do not fit the storage.
    pub fn connect(
        &self,
        rail: RailIndex,
        peer: PeerHandle,
        remote_rail: RailIndex,
        spec: SimLaneSpec,
    ) -> Result<SimQp, SimConnectError> {
        assert!(remote_rail.get() < MAX_RAILS, "a peer has at most {MAX_RAILS} rails");
        let handle = self.model.borrow_mut().connect(rail, peer, remote_rail, spec)?;
        Ok(SimQp { handle, model: self.id })
    }

    /// Lets something befall one lane.
    ///
    /// # Errors
    ///
    /// There are 64 scripts already.
    pub fn script(&self, lane: LaneHandle, fate: Fate) -> Result<(), SimFull> {
        if self.model.borrow_mut().scripts.add(lane, fate) { Ok(()) } else { Err(SimFull::SCRIPTS) }
    }

    /// Lets something happen at `time`; at the next move of the clock, when that has passed.
    ///
    /// # Errors
    ///
    /// There are 64 plans already.
    pub fn at(&self, time: Time, action: Action) -> Result<(), SimFull> {
        if self.model.borrow_mut().agenda.add(time.0, action) { Ok(()) } else { Err(SimFull::PLANS) }
    }

    /// Lets something happen now.
    ///
    /// # Panics
    ///
    /// When the action names what does not exist, or bytes outside of a memory. So does the clock,
    /// when it comes to an action of [`at`](Self::at) that does.
    pub fn apply(&self, action: Action) {
        self.model.borrow_mut().apply(action);
    }

    // What the model saw.

    /// From now on nothing may write to `range`: it was given back. What would is a
    /// [`Violation::WriteAfterRelease`].
    ///
    /// # Errors
    ///
    /// There are 512 protected ranges already.
    pub fn protect(&self, range: MemoryRange) -> Result<(), SimFull> {
        if self.model.borrow_mut().memories.protect(range) { Ok(()) } else { Err(SimFull::PROTECTIONS) }
    }

    /// Ends one [`protect`](Self::protect) of exactly this range; `false` when there is none.
    pub fn unprotect(&self, range: MemoryRange) -> bool {
        self.model.borrow_mut().memories.unprotect(range)
    }

    /// What the engine must not have done.
    #[must_use]
    pub fn violations(&self) -> Violations {
        self.model.borrow().violations.clone()
    }

    /// What a rail has done.
    ///
    /// # Panics
    ///
    /// When there is no such rail.
    #[must_use]
    pub fn rail_stats(&self, rail: RailIndex) -> SimRailStats {
        self.model.borrow().rails[rail.get()].stats
    }
}
