//! A deterministic model of rails and peers, on a virtual clock.
//!
//! # What it models
//!
//! - A lane's READs go out in order, at most `rd_atomic` at a time; the next one goes when one
//!   completes. A response travels over the peer's line and over ours, which each carry one READ
//!   after another at their rate; a READ alone takes `rtt + len / rate`.
//! - Completions of one lane come in order; those of different lanes as lines and jitter will have
//!   it. Successes are told if signaled, errors always. After an error everything of the lane is
//!   flushed, in order, signaled or not, and so is whatever is posted later.
//! - Requests are checked as a responder checks them (key and range: `REM_ACCESS_ERR`), destinations as
//!   a NIC checks them (`LOC_PROT_ERR`).
//! - Bytes are taken from the peer's memory somewhere between the arrival of the request and the
//!   completion, in pieces if asked: what the owner writes meanwhile tears the page.
//! - [`Faults`] happen by the seed, [`Fate`]s by name, [`Action`]s at a time.
//! - What an engine must never do is recorded: see [`Violation`].
//!
//! It does not model packets, congestion, or the arbitration between lanes: a line is first come,
//! first served, a READ at a time.
//!
//! # Use
//!
//! ```
//! use kvrail_core::verbs_abi::Wc;
//! use kvrail_core::id::{LaneId, RailIndex, WrId};
//! use kvrail_core::provider::{Commit, MemoryRange, Post, Provider, Read, WaitFor};
//! use kvrail_core::time::{Nanos, Time};
//! use kvrail_sim::sim::{Config, LaneSpec, RailSpec, Sim, Storage};
//!
//! let (mut theirs, mut ours) = ([7_u8; 4096], [0_u8; 4096]);
//! let mut storage = Storage::<1, 1, 1, 8, 16>::new();
//! let rail = RailSpec { cq_entries: 16, ..RailSpec::GBITS_400 };
//! let sim = Sim::new(&mut storage, Config::new(1), &[rail])?;
//! let peer = sim.add_peer()?;
//! sim.publish(peer, 0x10_0000, &mut theirs, [5; 16])?;
//!
//! let mut rails = sim.rails();
//! let addr = ours.as_mut_ptr().expose_provenance() as u64;
//! let keys = rails.register(MemoryRange { addr, len: 4096 })?;
//! let spec = LaneSpec { sq_entries: 8, rd_atomic: 4 };
//! let qp = sim.connect(RailIndex(0), peer, RailIndex(0), spec)?;
//! let mut lane = rails.open(LaneId::new(0, 1), RailIndex(0), qp)?;
//!
//! // SAFETY: nobody else looks at the local memory meanwhile.
//! let mut post = unsafe { rails.begin(&mut lane) };
//! post.read(Read {
//!     wr_id: WrId::new(LaneId::new(0, 1), 0),
//!     remote_addr: 0x10_0000,
//!     local_addr: addr,
//!     len: 4096,
//!     rkey: 5,
//!     lkey: keys[0],
//!     signaled: true,
//! });
//! assert_eq!(post.commit(), Commit::All);
//!
//! let mut wcs = [Wc::default(); 4];
//! assert_eq!(rails.poll(RailIndex(0), &mut wcs), 0);
//! rails.wait(WaitFor { now: sim.now(), until: Time::ZERO + Nanos::from_millis(1), completions: 1 });
//! assert_eq!(sim.now(), Time(6_084)); // 6 us there and back, 4,096 bytes at 49 GB/s
//! assert_eq!(rails.poll(RailIndex(0), &mut wcs), 1);
//! assert!(wcs[0].status().is_success() && sim.violations().is_empty());
//! # drop(rails);
//! # assert_eq!(ours, [7; 4096]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![allow(unsafe_code, reason = "one function passes on a caller's promise about shared memory")]

mod action;
mod config;
mod error;
mod lane;
mod memory;
mod model;
mod posting;
mod progress;
mod provider;
mod ring;
mod script;
mod storage;
mod timers;
mod violation;

#[cfg(test)]
mod tests;

use core::array;
use core::cell::{Cell, RefCell};
use core::sync::atomic::AtomicBool;

use kvrail_core::id::{MAX_RAILS, ProviderId, RailIndex};
use kvrail_core::provider::{MemoryRange, RailKeys};
use kvrail_core::time::Time;

pub use action::Action;
pub use config::{Config, Delay, Faults, LaneSpec, Odds, RailSpec, Rate};
pub use error::{ConfigError, ConnectError, Full, MemoryError, PeerError};
pub use memory::Failed;
pub use provider::{OpenError, Rails, SimLane, SimPost, SimQp, SimWaker};
pub use script::Fate;
pub use storage::Storage;
pub use violation::{Violation, Violations};

use action::Agenda;
use memory::Memories;
use model::{Model, Peer, Rail};
use ring::Ring;
use script::Scripts;
use timers::Timers;

use crate::rng::SplitMix64;

/// The most descriptors in one commit.
pub const CHAIN: usize = 64;
/// The most local pieces of one READ.
pub const SGES: usize = 4;

/// A peer of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerKey(u16);

/// Published memory of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryKey(u16);

/// One life of a model's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneKey {
    place: u16,
    life: u32,
}

/// What a rail has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RailStats {
    /// READs that succeeded, told or not.
    pub reads: u64,
    /// Their bytes, moved or not.
    pub bytes: u64,
    /// wrs that failed, flushes included.
    pub failed: u64,
}

impl RailStats {
    const NONE: Self = Self { reads: 0, bytes: 0, failed: 0 };
}

/// A model: rails, peers, memories, lanes, and a clock that moves only when told to.
///
/// An engine gets the [`Rails`]; this side of it stays with the test. All methods take `&self`, so both
/// can be used in turn.
#[derive(Debug)]
pub struct Sim<'m> {
    model: RefCell<Model<'m>>,
    woken: AtomicBool,
    /// Whether an engine has the rails.
    /// Tells lanes of this model from those of others.
    id: ProviderId,
    taken: Cell<bool>,
    /// Whether the rails went away while a panic had the model: nothing may happen any more.
    dead: Cell<bool>,
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
        storage: &'m mut Storage<RAILS, PEERS, LANES, DEPTH, CQES>,
        mut config: Config,
        rails: &[RailSpec],
    ) -> Result<Self, ConfigError> {
        if rails.is_empty() || rails.len() > RAILS {
            return Err(ConfigError::Rails { rails: rails.len(), room: RAILS });
        }
        for (spec, rail) in rails.iter().zip(0..) {
            if spec.cq_entries == 0 || spec.cq_entries as usize > CQES {
                return Err(ConfigError::CqEntries { rail, entries: spec.cq_entries, room: CQES });
            }
        }
        config.pieces = config.pieces.max(1);
        for (place, spec) in storage.rails.iter_mut().zip(rails) {
            *place = Rail { spec: *spec, rate: spec.rate, free: 0, up: true, stats: RailStats::NONE };
        }
        storage.lanes.fill(lane::Lane::NONE);
        let mut cqes = storage.cqes.iter_mut().zip(rails);
        let cqs = array::from_fn(|_| {
            // Rails that are not used have a queue of no entries.
            let entries = cqes.next().map(|(cqes, spec)| &mut cqes[..spec.cq_entries as usize]);
            Ring::new(entries.unwrap_or_default())
        });
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
            events: Ring::new(storage.events.as_flattened_mut()),
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

    /// The engine's side. When it is dropped, all lanes are destroyed.
    ///
    /// # Panics
    ///
    /// When an engine has it already.
    #[must_use]
    pub fn rails(&'m self) -> Rails<'m> {
        assert!(!self.taken.replace(true), "a model's rails belong to one engine");
        Rails::new(self)
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

    /// Moves the clock; everything until `time`, and at that moment, happens. A time in the past does
    /// not move it; `Time::NEVER` lets everything happen that will.
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
    pub fn add_peer(&self) -> Result<PeerKey, PeerError> {
        let mut model = self.model.borrow_mut();
        let (at, room) = (model.peer_count, model.peers.len());
        let place = model.peers.get_mut(at).ok_or(PeerError { room })?;
        *place = Peer::NEW;
        model.peer_count += 1;
        // Storage holds at most 2^14 peers.
        Ok(PeerKey(at as u16))
    }

    /// Publishes memory of a peer, which calls its first byte `base`, with a key for each of the
    /// peer's rails. The model has the bytes for itself; see [`with_memory`](Self::with_memory).
    ///
    /// # Errors
    ///
    /// The peer publishes four already, or the range does not fit a 64-bit address space.
    pub fn publish(
        &self,
        peer: PeerKey,
        base: u64,
        bytes: &'m mut [u8],
        keys: RailKeys,
    ) -> Result<MemoryKey, MemoryError> {
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
        peer: PeerKey,
        base: u64,
        start: *mut u8,
        len: usize,
        keys: RailKeys,
    ) -> Result<MemoryKey, MemoryError> {
        // SAFETY: passed on to our caller, word for word.
        unsafe { self.model.borrow_mut().memories.publish_shared(peer, base, start, len, keys) }
    }

    /// Reads or writes published memory, as its owner does, between two things that happen.
    ///
    /// # Panics
    ///
    /// When the memory is shared: its owner has it. When `f` calls back into the model.
    pub fn with_memory<R>(&self, memory: MemoryKey, f: impl FnOnce(&mut [u8]) -> R) -> R {
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
        peer: PeerKey,
        remote_rail: RailIndex,
        spec: LaneSpec,
    ) -> Result<SimQp, ConnectError> {
        assert!(remote_rail.get() < MAX_RAILS, "a peer has at most {MAX_RAILS} rails");
        let key = self.model.borrow_mut().connect(rail, peer, remote_rail, spec)?;
        Ok(SimQp::new(key, self.id))
    }

    /// Lets something befall one lane.
    ///
    /// # Errors
    ///
    /// There are 64 scripts already.
    pub fn script(&self, lane: LaneKey, fate: Fate) -> Result<(), Full> {
        if self.model.borrow_mut().scripts.add(lane, fate) { Ok(()) } else { Err(Full::SCRIPTS) }
    }

    /// Lets something happen at `time`; at the next move of the clock, when that has passed.
    ///
    /// # Errors
    ///
    /// There are 64 plans already.
    pub fn at(&self, time: Time, action: Action) -> Result<(), Full> {
        if self.model.borrow_mut().agenda.add(time.0, action) { Ok(()) } else { Err(Full::PLANS) }
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
    pub fn protect(&self, range: MemoryRange) -> Result<(), Full> {
        if self.model.borrow_mut().memories.protect(range) { Ok(()) } else { Err(Full::PROTECTIONS) }
    }

    /// Ends one [`protect`](Self::protect) of exactly this range; `false` when there is none.
    pub fn unprotect(&self, range: MemoryRange) -> bool {
        self.model.borrow_mut().memories.unprotect(range)
    }

    /// What the engine must not have done.
    #[must_use]
    pub fn violations(&self) -> Violations {
        self.model.borrow().violations
    }

    /// What a rail has done.
    ///
    /// # Panics
    ///
    /// When there is no such rail.
    #[must_use]
    pub fn rail_stats(&self, rail: RailIndex) -> RailStats {
        self.model.borrow().rails[rail.get()].stats
    }
}
