//! An engine with one peer whose lanes have classes, and a check of every READ that is posted.
#![allow(unreachable_pub, reason = "a module of one test program")]

use kvrail_core::batch::{Batch, Class};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::events::{EngineEvent, EventSink};
use kvrail_core::id::{LaneId, PeerId};
use kvrail_core::memory::Slots;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::table::ENTRY_BYTES;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Action, LaneHandle, Sim, SimRails};

use crate::common::*;

pub const URGENT: Class = Class::Urgent;
pub const BACKGROUND: Class = Class::Background;
pub const HALF: usize = SLOTS / 2;
pub const LATE: Time = Time(2_000_000_000);

/// Pages of three chunks.
pub const CHUNKED: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };

pub fn place(class: Class) -> usize {
    usize::from(class == BACKGROUND)
}

/// A lane, as the engine's events tell of it.
pub struct Seen {
    lane: LaneId,
    peer: PeerId,
    class: Class,
    rail: u8,
    pub up: bool,
    /// READs that have been posted on it.
    pub posted: u64,
}

/// Checks each READ when it is posted.
pub struct Watch<'m> {
    pub sim: &'m Sim<'m>,
    pub lanes: Vec<Seen>,
    /// READs that went over a lane of the other class though the peer had one of theirs.
    pub wrong: Vec<String>,
    /// READs by class, class of the lane, and rail.
    pub reads: [[[u64; 4]; 2]; 2],
    /// Detours that have begun and ended, by class.
    pub detours: [[u64; 2]; 2],
}

impl<'m> Watch<'m> {
    fn new(sim: &'m Sim<'m>) -> Self {
        Self { sim, lanes: Vec::new(), wrong: Vec::new(), reads: Default::default(), detours: [[0; 2]; 2] }
    }

    /// The READs of a class over lanes of a class, on all rails.
    pub fn all(&self, class: Class, lane: Class) -> u64 {
        self.reads[place(class)][place(lane)].iter().sum()
    }
}

/// The class of the batches that read a remote address.
pub fn class_of(addr: u64) -> Class {
    let offset = (addr - BASE) as usize;
    let slot = if offset < TABLE { offset / STRIDE } else { (offset - TABLE) / ENTRY_BYTES as usize };
    if slot < HALF { URGENT } else { BACKGROUND }
}

impl EventSink for Watch<'_> {
    fn event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::LaneAttached { lane, peer, class, rail, .. } => {
                self.lanes.push(Seen { lane, peer, class, rail: rail.0, up: true, posted: 0 });
            }
            EngineEvent::LaneFailing { lane, .. } => {
                self.lanes.iter_mut().find(|seen| seen.lane == lane).unwrap().up = false;
            }
            EngineEvent::Posted { lane, .. } => {
                let at = self.lanes.iter().position(|seen| seen.lane == lane).unwrap();
                let Seen { peer, class: lane_class, rail, posted, .. } = self.lanes[at];
                let has = |class| self.lanes.iter().any(|l| l.up && l.peer == peer && l.class == class);
                let has = [has(URGENT), has(BACKGROUND)];
                let (wrong, reads) = (&mut self.wrong, &mut self.reads);
                self.lanes[at].posted = self.sim.posted(lane, posted, |read| {
                    let class = class_of(read.remote_addr);
                    if class != lane_class && has[place(class)] {
                        wrong.push(format!("{class:?} READ of {:#x} on {lane}", read.remote_addr));
                    }
                    reads[place(class)][place(lane_class)][usize::from(rail)] += 1;
                });
            }
            EngineEvent::DetourBegan { class, .. } => self.detours[place(class)][0] += 1,
            EngineEvent::DetourEnded { class, .. } => self.detours[place(class)][1] += 1,
            _ => {}
        }
    }
}

/// An engine with one peer, for a scenario.
pub struct World<'e, 's, 'm> {
    pub engine: Engine<'s, SimRails<'m>, Watch<'m>>,
    pub sim: &'m Sim<'m>,
    pub owner: &'e Owner,
    pub peer: PeerId,
    pub region: RemoteRegion,
    pub slots: Slots,
}

/// Runs a scenario with an engine over `rails_used` rails, whose peer has no lane yet.
pub fn with_world(
    config: EngineConfig,
    model: sim::SimConfig,
    rails_used: u8,
    scenario: impl FnOnce(&mut World<'_, '_, '_>),
) {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, model, &rails(rails_used.into())).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(512, PAGE);
    let mut state = Box::new(SmallState::new());
    // SAFETY: the storage is declared before the engine, which is not forgotten.
    let engine =
        unsafe { Engine::start_scoped_with_events(&mut *state, sim.rails(), config, Watch::new(&sim)) };
    let mut engine = engine.unwrap();
    let slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 0, 0, 0);
    let mut world = World { engine, sim: &sim, owner: &owner, peer, region, slots };
    scenario(&mut world);
    assert_eq!(world.engine.events().wrong, [""; 0]);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

impl<'s> World<'_, 's, '_> {
    pub fn attach(&mut self, rail: u8, depth: u32, class: Class) -> LaneHandle {
        attach_for(&mut self.engine, self.sim, self.peer, self.owner, rail, depth, class).unwrap().1
    }

    /// Attaches a lane of a class on each of the first rails.
    pub fn attach_each(&mut self, rails: u8, depth: u32, class: Class) {
        (0..rails).for_each(|rail| _ = self.attach(rail, depth, class));
    }

    /// A batch of the first pages of a class, and for background ones of those that it reads.
    pub fn batch(&mut self, class: Class, pages: usize) -> Batch<'s> {
        let mut batch = self.engine.batch().unwrap();
        batch.set_class(class);
        for page in 0..pages {
            let slot = place(class) * HALF + page % HALF;
            let page = self.region.page(self.owner.location(slot)).unwrap();
            batch.read(page, self.slots.next().unwrap()).unwrap();
        }
        batch
    }

    pub fn submit(&mut self, class: Class, pages: usize) {
        let batch = self.batch(class, pages);
        self.engine.submit(batch, self.sim.now(), LATE).unwrap();
    }

    /// Polls until nothing is in flight, and returns how many pages arrived and how many did not.
    pub fn settle(&mut self) -> (usize, usize) {
        let (mut ok, mut failed) = (0, 0);
        settle(&mut self.engine, self.sim, LATE, |mut done| {
            for page in done.pages() {
                if page.result.is_ok() { ok += 1 } else { failed += 1 }
            }
        });
        assert_eq!(self.engine.in_flight(), 0, "a batch never ends");
        (ok, failed)
    }

    pub fn read(&mut self, class: Class, pages: usize) {
        self.submit(class, pages);
        assert_eq!(self.settle(), (pages, 0));
    }

    /// Lets a lane fail, and waits until its place is free.
    pub fn lose(&mut self, lane: LaneHandle) {
        self.sim.apply(Action::FailLane(lane));
        self.engine.poll(self.sim.now());
        while self.engine.lanes_dying() > 0 {
            // Batches that are done meanwhile stay for `settle`, so `wait` would not sleep.
            self.sim.advance_to(self.sim.now() + Nanos::from_micros(20));
            self.engine.poll(self.sim.now());
        }
    }

    pub fn detours(&self) -> u64 {
        self.engine.peer_stats(self.peer).unwrap().detours.into()
    }
}
