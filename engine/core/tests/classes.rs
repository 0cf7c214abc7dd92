//! Lanes of classes: READs of a batch go over lanes of its class for as long as the peer has one,
//! and over its other lanes otherwise.
//!
//! A [`Watch`] looks at every READ when it is posted. Which class a READ belongs to follows from
//! what it reads: urgent batches read the first half of an owner's slots, background batches the
//! second half.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "the engine's storage is declared before it, and outlives it")]

mod common;

use common::*;
use kvrail_core::batch::{Batch, Class};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::error::PageError;
use kvrail_core::events::{EngineEvent, EventSink};
use kvrail_core::id::{LaneId, PeerId, RailIndex};
use kvrail_core::memory::Slots;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::table::ENTRY_BYTES;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, Delay, FailedRanges, Fate, Faults, LaneHandle, Odds, Sim, SimRails};

const URGENT: Class = Class::Urgent;
const BACKGROUND: Class = Class::Background;
const HALF: usize = SLOTS / 2;
const LATE: Time = Time(2_000_000_000);

/// Pages of three chunks.
const CHUNKED: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };

fn place(class: Class) -> usize {
    usize::from(class == BACKGROUND)
}

/// A lane, as the engine's events tell of it.
struct Seen {
    lane: LaneId,
    peer: PeerId,
    class: Class,
    rail: u8,
    up: bool,
    /// READs that have been posted on it.
    posted: u64,
}

/// Checks each READ when it is posted.
struct Watch<'m> {
    sim: &'m Sim<'m>,
    lanes: Vec<Seen>,
    /// READs that went over a lane of the other class though the peer had one of theirs.
    wrong: Vec<String>,
    /// READs by class, class of the lane, and rail.
    reads: [[[u64; 4]; 2]; 2],
    /// Detours that have begun and ended, by class.
    detours: [[u64; 2]; 2],
}

impl<'m> Watch<'m> {
    fn new(sim: &'m Sim<'m>) -> Self {
        Self { sim, lanes: Vec::new(), wrong: Vec::new(), reads: Default::default(), detours: [[0; 2]; 2] }
    }

    /// The READs of a class over lanes of a class, on all rails.
    fn all(&self, class: Class, lane: Class) -> u64 {
        self.reads[place(class)][place(lane)].iter().sum()
    }
}

/// The class of the batches that read a remote address.
fn class_of(addr: u64) -> Class {
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
struct World<'e, 's, 'm> {
    engine: Engine<'s, SimRails<'m>, Watch<'m>>,
    sim: &'m Sim<'m>,
    owner: &'e Owner,
    peer: PeerId,
    region: RemoteRegion,
    slots: Slots,
}

/// Runs a scenario with an engine over `rails_used` rails, whose peer has no lane yet.
fn with_world(
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
    fn attach(&mut self, rail: u8, depth: u32, class: Class) -> LaneHandle {
        attach_for(&mut self.engine, self.sim, self.peer, self.owner, rail, depth, class).unwrap().1
    }

    /// Attaches a lane of a class on each of the first rails.
    fn attach_each(&mut self, rails: u8, depth: u32, class: Class) {
        (0..rails).for_each(|rail| _ = self.attach(rail, depth, class));
    }

    /// A batch of the first pages of a class, and for background ones of those that it reads.
    fn batch(&mut self, class: Class, pages: usize) -> Batch<'s> {
        let mut batch = self.engine.batch().unwrap();
        batch.set_class(class);
        for page in 0..pages {
            let slot = place(class) * HALF + page % HALF;
            let page = self.region.page(self.owner.location(slot)).unwrap();
            batch.read(page, self.slots.next().unwrap()).unwrap();
        }
        batch
    }

    fn submit(&mut self, class: Class, pages: usize) {
        let batch = self.batch(class, pages);
        self.engine.submit(batch, self.sim.now(), LATE).unwrap();
    }

    /// Polls until nothing is in flight, and returns how many pages arrived and how many did not.
    fn settle(&mut self) -> (usize, usize) {
        let (mut ok, mut failed) = (0, 0);
        settle(&mut self.engine, self.sim, LATE, |mut done| {
            for page in done.pages() {
                if page.result.is_ok() { ok += 1 } else { failed += 1 }
            }
        });
        assert_eq!(self.engine.in_flight(), 0, "a batch never ends");
        (ok, failed)
    }

    fn read(&mut self, class: Class, pages: usize) {
        self.submit(class, pages);
        assert_eq!(self.settle(), (pages, 0));
    }

    /// Lets a lane fail, and waits until its place is free.
    fn lose(&mut self, lane: LaneHandle) {
        self.sim.apply(Action::FailLane(lane));
        self.engine.poll(self.sim.now());
        while self.engine.lanes_dying() > 0 {
            // Batches that are done meanwhile stay for `settle`, so `wait` would not sleep.
            self.sim.advance_to(self.sim.now() + Nanos::from_micros(20));
            self.engine.poll(self.sim.now());
        }
    }

    fn detours(&self) -> u64 {
        self.engine.peer_stats(self.peer).unwrap().detours
    }
}

#[test]
fn each_class_keeps_to_its_lanes_on_every_rail() {
    for config in [EngineConfig::DEFAULT, CHUNKED] {
        with_world(config, sim::SimConfig::new(1), 3, |world| {
            for rail in 0..3 {
                for class in [URGENT, BACKGROUND, BACKGROUND] {
                    world.attach(rail, 6, class);
                }
            }
            for _ in 0..4 {
                for pages in [1, HALF, 5] {
                    world.submit(URGENT, pages);
                    world.submit(BACKGROUND, pages);
                }
                assert_eq!(world.settle(), (2 * (1 + HALF + 5), 0));
            }
            let reads = world.engine.events().reads;
            assert_eq!((reads[0][1], reads[1][0]), ([0; 4], [0; 4]), "no READ leaves its class");
            for rail in 0..3 {
                assert!(reads[0][0][rail] > 0 && reads[1][1][rail] > 0, "{reads:?}: both use rail {rail}");
            }
            assert_eq!(world.detours(), 0);
        });
    }
}

#[test]
fn a_class_stays_on_its_one_lane_while_other_rails_have_none_for_it() {
    with_world(CHUNKED, sim::SimConfig::new(2), 3, |world| {
        world.attach_each(3, 8, URGENT);
        world.attach(1, 4, BACKGROUND);
        (0..5).for_each(|_| world.submit(BACKGROUND, HALF));
        assert_eq!(world.settle(), (5 * HALF, 0));
        let reads = world.engine.events().reads;
        assert!(reads[1][1][1] > 0);
        assert_eq!(reads[1][0], [0; 4]);
    });
}

#[test]
fn lanes_of_one_class_carry_both_and_that_is_no_detour() {
    for class in [URGENT, BACKGROUND] {
        with_world(CHUNKED, sim::SimConfig::new(3), 2, |world| {
            world.attach_each(2, 8, class);
            world.submit(URGENT, HALF);
            world.submit(BACKGROUND, HALF);
            assert_eq!(world.settle(), (2 * HALF, 0));
            let events = world.engine.events();
            assert_eq!((world.detours(), events.detours), (0, [[0; 2]; 2]));
            assert!(events.all(URGENT, class) > 0 && events.all(BACKGROUND, class) > 0);
        });
    }
}

#[test]
fn a_class_that_loses_its_last_lane_uses_the_others_until_it_has_one_again() {
    for (class, other) in [(URGENT, BACKGROUND), (BACKGROUND, URGENT)] {
        with_world(EngineConfig::DEFAULT, sim::SimConfig::new(4), 2, |world| {
            let lost = [world.attach(0, 8, class), world.attach(1, 8, class)];
            world.attach_each(2, 8, other);
            world.read(class, HALF);
            world.lose(lost[0]);
            world.read(class, HALF);
            assert_eq!((world.engine.events().all(class, other), world.detours()), (0, 0));
            world.lose(lost[1]);
            assert_eq!((world.detours(), world.engine.events().detours[place(class)]), (1, [1, 0]));
            world.read(class, HALF);
            let diverted = world.engine.events().all(class, other);
            assert!(diverted > 0, "the work is not stuck");
            world.attach(1, 8, class);
            assert_eq!((world.detours(), world.engine.events().detours[place(class)]), (1, [1, 1]));
            world.read(class, HALF);
            assert_eq!(world.engine.events().all(class, other), diverted, "the work is back on its lane");
            assert_eq!(world.engine.events().detours[place(other)], [0, 0]);
        });
    }
}

/// The lost lane's own READs wait until it is known to write no more. Other work of the class waited
/// for room on the lane, and goes on at once.
#[test]
fn work_that_waits_for_room_goes_on_when_its_class_has_lost_its_lane() {
    with_world(CHUNKED, sim::SimConfig::new(5), 2, |world| {
        world.attach(0, 8, URGENT);
        let lane = world.attach(1, 3, BACKGROUND);
        world.sim.script(lane, Fate::DrainLost).unwrap();
        world.submit(BACKGROUND, 1);
        world.submit(BACKGROUND, HALF);
        assert_eq!(world.engine.outstanding(), 2, "all that the lane has room for");
        world.sim.apply(Action::FailLane(lane));
        let until = world.sim.now() + Nanos::from_millis(100);
        settle(&mut world.engine, world.sim, until, |mut done| {
            assert_eq!(done.len(), HALF);
            done.pages().for_each(|page| assert_eq!(page.result, Ok(())));
        });
        assert_eq!(world.engine.in_flight(), 1, "the batch whose READs are on the lost lane");
        assert_eq!(world.settle(), (1, 0));
    });
}

#[test]
fn a_reconnect_asks_for_the_class_of_the_lost_lane() {
    let config = EngineConfig { backoff_min: Nanos(1), backoff_max: Nanos(1), ..CHUNKED };
    with_world(config, sim::SimConfig::new(6), 2, |world| {
        let mut lanes = Vec::new();
        for (rail, class) in [(0, URGENT), (0, BACKGROUND), (1, BACKGROUND), (1, BACKGROUND), (1, URGENT)] {
            lanes.push((rail, class, world.attach(rail, 8, class)));
        }
        for lost in [1..2, 0..5, 4..5, 2..4] {
            let lost = lanes[lost].to_vec();
            let mut want: Vec<_> = lost.iter().map(|&(rail, class, _)| (rail, class)).collect();
            let lost: Vec<_> = lost.iter().map(|&(_, _, lane)| lane).collect();
            lost.iter().for_each(|&lane| world.lose(lane));
            let mut made = Vec::new();
            while let Some(wanted) = world.engine.next_wanted_lane(world.sim.now()) {
                made.push((wanted.rail.0, wanted.class));
                let lane = world.attach(wanted.rail.0, 8, wanted.class);
                let at = lanes.iter_mut().find(|(rail, class, old)| {
                    (*rail, *class) == (wanted.rail.0, wanted.class) && lost.contains(old)
                });
                at.expect("a lane of this kind was lost").2 = lane;
            }
            want.sort_by_key(|&(rail, class)| (rail, place(class)));
            made.sort_by_key(|&(rail, class)| (rail, place(class)));
            assert_eq!(made, want);
        }
        world.submit(URGENT, HALF);
        world.submit(BACKGROUND, HALF);
        assert_eq!(world.settle(), (2 * HALF, 0));
    });
}

/// A lane that carried both classes fails after its class has a second lane again: each wr goes to
/// a lane of its class.
#[test]
fn wrs_of_a_dead_lane_that_carried_both_classes_go_to_lanes_of_their_classes() {
    with_world(CHUNKED, sim::SimConfig::new(7), 2, |world| {
        let both = world.attach(0, 32, URGENT);
        let lost = world.attach(1, 32, BACKGROUND);
        world.lose(lost);
        for _ in 0..2 {
            world.submit(BACKGROUND, 3);
            world.submit(URGENT, 3);
        }
        let carried = world.engine.events();
        assert_eq!(
            (carried.all(BACKGROUND, URGENT), carried.all(URGENT, URGENT)),
            (18, 13),
            "all that it has room for"
        );
        world.attach(1, 8, URGENT);
        world.attach(1, 8, BACKGROUND);
        world.lose(both);
        assert_eq!(world.settle(), (12, 0));
        let reposted = world.engine.rail_stats(RailIndex(1)).unwrap().reposted;
        assert!(reposted >= 31, "{reposted} wrs were posted again");
        assert!(world.engine.events().all(BACKGROUND, BACKGROUND) > 0);
    });
}

/// The data of pages has arrived, and they wait for their validating READs, when the classes get
/// lanes of their own.
#[test]
fn validating_reads_that_wait_when_the_classes_are_divided_go_to_lanes_of_their_classes() {
    with_world(EngineConfig::DEFAULT, sim::SimConfig::new(8), 1, |world| {
        let lane = world.attach(0, 16, URGENT);
        world.submit(BACKGROUND, 3);
        world.submit(URGENT, 3);
        world.sim.advance_to(world.sim.now() + Nanos::from_millis(1));
        world.lose(lane);
        assert_eq!(world.engine.rail_stats(RailIndex(0)).unwrap().chunks, 6, "the data has arrived");
        world.attach(0, 16, URGENT);
        world.attach(0, 16, BACKGROUND);
        assert_eq!(world.settle(), (6, 0));
        let events = world.engine.events();
        assert_eq!((events.all(BACKGROUND, BACKGROUND), events.all(URGENT, BACKGROUND)), (3, 0));
    });
}

/// The background's only lane gets no answer, so it is silent, and then stalls.
#[test]
fn urgent_work_does_not_wait_for_a_background_lane_that_is_silent() {
    let model = sim::SimConfig { retry: Nanos::from_secs(60), ..sim::SimConfig::new(9) };
    with_world(CHUNKED, model, 2, |world| {
        world.attach_each(2, 8, URGENT);
        world.attach(1, 8, BACKGROUND);
        let slow = world.sim.now();
        world.sim.apply(Action::RailDown { rail: RailIndex(1), told: false });
        world.submit(BACKGROUND, HALF);
        // Rail 1 answers no urgent READ either, and these stall there once.
        let began = world.sim.now() + Nanos::from_millis(50);
        while world.sim.now() < began {
            world.engine.wait(world.sim.now(), began);
            world.engine.poll(world.sim.now());
        }
        world.sim.apply(Action::RailUp { rail: RailIndex(1), told: false });
        world.submit(URGENT, HALF);
        assert_eq!(world.settle(), (2 * HALF, 0));
        let took = world.sim.now().since(slow);
        assert!(took < EngineConfig::DEFAULT.stall, "{took:?}: nothing stalled");
    });
}

#[test]
fn background_work_that_lost_its_stalled_lane_is_not_stuck() {
    let model = sim::SimConfig { retry: Nanos::from_secs(60), ..sim::SimConfig::new(10) };
    with_world(CHUNKED, model, 2, |world| {
        world.attach(0, 8, URGENT);
        world.attach(1, 8, BACKGROUND);
        world.sim.apply(Action::RailDown { rail: RailIndex(1), told: false });
        let began = world.sim.now();
        world.submit(BACKGROUND, HALF);
        assert_eq!(world.settle(), (HALF, 0));
        let took = world.sim.now().since(began);
        let stall = EngineConfig::DEFAULT.stall;
        assert!(took > stall && took < Nanos(2 * stall.0), "{took:?}");
        assert_eq!(world.detours(), 1);
    });
}

/// Urgent work fills the rail all the time, and the background gets its share of it.
#[test]
fn neither_class_starves_while_both_have_work() {
    let config = EngineConfig { rail_wrs: 4, run_chunks: 2, quantum_bytes: 8192, ..CHUNKED };
    for lanes in [[URGENT, BACKGROUND], [URGENT, URGENT]] {
        with_world(config, sim::SimConfig::new(11), 1, |world| {
            lanes.iter().for_each(|&class| world.attach_each(1, 8, class));
            (0..4).for_each(|_| world.submit(URGENT, 2));
            world.submit(BACKGROUND, 1);
            let (mut urgent, mut background) = (0, 0);
            while background == 0 {
                while world.engine.in_flight() < 5 {
                    world.submit(URGENT, 2);
                }
                let until = world.sim.now() + Nanos::from_micros(20);
                world.engine.wait(world.sim.now(), until);
                world.engine.poll(world.sim.now());
                while let Some(mut done) = world.engine.next_done() {
                    let pages = done.len();
                    done.pages().for_each(|page| assert_eq!(page.result, Ok(())));
                    if pages == 1 { background += 1 } else { urgent += 1 }
                }
                assert!(urgent < 120, "the background waits behind {urgent} urgent batches");
            }
            assert!(urgent > 0);
            world.settle();
        });
    }
}

#[test]
fn suspects_are_tried_on_lanes_of_their_class() {
    for (class, other) in [(URGENT, BACKGROUND), (BACKGROUND, URGENT)] {
        with_world(CHUNKED, sim::SimConfig::new(12), 2, |world| {
            for rail in 0..2 {
                world.attach(rail, 8, other);
                (0..2).for_each(|_| _ = world.attach(rail, 8, class));
            }
            let offset = (place(class) * HALF * STRIDE) as u64;
            let bad = FailedRanges { offset, len: 1, stride: 1, count: 1 };
            world.sim.apply(Action::FailMemory(world.owner.memory, bad));
            world.submit(class, 2);
            world.submit(other, 2);
            assert_eq!(world.settle(), (3, 1), "the page that has failed fails, and no other");
            assert_eq!(world.engine.events().all(class, other), 0);
            assert_eq!(world.detours(), 0);
        });
    }
}

/// Suspects of both classes wait, and each class has a single lane to try them on.
#[test]
fn suspects_of_both_classes_take_turns() {
    with_world(CHUNKED, sim::SimConfig::new(13), 2, |world| {
        for rail in 0..2 {
            for class in [URGENT, BACKGROUND] {
                let lane = world.attach(rail, 16, class);
                if rail == 0 {
                    // The path seems to be bad, so the READs that failed are suspects and no more.
                    let fate = Fate::Status { nth: 1, status: WcStatus::RETRY_EXC_ERR };
                    world.sim.script(lane, fate).unwrap();
                }
            }
        }
        for _ in 0..3 {
            world.submit(URGENT, 4);
            world.submit(BACKGROUND, 4);
        }
        assert_eq!(world.settle(), (24, 0));
        let lost: u64 =
            (0..2).map(|rail| world.engine.rail_stats(RailIndex(rail)).unwrap().lanes_failed).sum();
        assert_eq!(lost, 2);
    });
}

/// Random faults, with lanes that come and go: the watch finds no READ on a wrong lane, and every
/// batch ends.
#[test]
fn in_random_schedules_no_read_leaves_its_class() {
    let mut detours = 0;
    let all = common::seeds::each("in_random_schedules_no_read_leaves_its_class", 0..1_500, |seed| {
        let mut rng = Rng(seed);
        let model = sim::SimConfig {
            retry: Nanos::from_micros(50 + rng.below(1_000)),
            fail: Delay::between(Nanos(0), Nanos::from_micros(rng.below(300))),
            close: Delay::between(Nanos(0), Nanos::from_micros(rng.below(500))),
            faults: Faults {
                wr: Odds::per_million(rng.below(40_000) as u32),
                statuses: Faults::EVERY_STATUS,
                prefix: Odds::per_million(rng.below(40_000) as u32),
                drain_lost: Odds::per_million(rng.below(300_000) as u32),
                ..Faults::NONE
            },
            ..sim::SimConfig::new(seed)
        };
        let config = EngineConfig {
            chunk_bytes: 4096 << rng.below(3),
            run_chunks: 1 + rng.below(8) as u32,
            quantum_bytes: 4096 << rng.below(6),
            rail_wrs: 1 + rng.below(64) as u32,
            stall: Nanos::from_micros(300 + rng.below(3_000)),
            drain: Nanos::from_micros(100 + rng.below(1_000)),
            backoff_min: Nanos::from_micros(1 + rng.below(200)),
            backoff_max: Nanos::from_micros(200 + rng.below(1_000)),
            set_aside: Nanos::from_micros(1 + rng.below(2_000)),
            ..EngineConfig::DEFAULT
        };
        with_world(config, model, 3, |world| {
            let depth = 2 + rng.below(7) as u32;
            // Both classes have a lane from the beginning, and the others are of any class.
            for rail in 0..3 {
                world.attach(rail, depth, [URGENT, BACKGROUND, URGENT][usize::from(rail)]);
                if rng.chance(50) {
                    world.attach(rail, depth, [URGENT, BACKGROUND][rng.below(2) as usize]);
                }
            }
            schedule(world, &mut rng, depth);
            detours += world.detours();
        });
    });
    assert!(detours > 0 || !all, "no schedule had a detour");
}

fn schedule(world: &mut World<'_, '_, '_>, rng: &mut Rng, depth: u32) {
    let step = |world: &mut World<'_, '_, '_>, nanos: u64| {
        let until = world.sim.now() + Nanos(nanos);
        world.engine.wait(world.sim.now(), until);
        world.engine.poll(world.sim.now());
        while let Some(mut done) = world.engine.next_done() {
            for page in done.pages() {
                assert!(!matches!(page.result, Err(PageError::Miss(_))), "nothing is overwritten");
            }
        }
        while world.engine.next_overdue().is_some() {}
    };
    let mend = |world: &mut World<'_, '_, '_>| {
        while let Some(wanted) = world.engine.next_wanted_lane(world.sim.now()) {
            let (engine, rail) = (&mut world.engine, wanted.rail.0);
            let made = attach_for(engine, world.sim, world.peer, world.owner, rail, depth, wanted.class);
            if made.is_none() {
                world.engine.lane_unavailable(wanted, world.sim.now());
            }
        }
    };
    for _ in 0..40 {
        match rng.below(8) {
            0..=3 if world.engine.batches_free() > 0 => {
                let class = [URGENT, BACKGROUND][rng.below(2) as usize];
                let batch = world.batch(class, 1 + rng.below(HALF as u64) as usize);
                let deadline = world.sim.now() + Nanos::from_micros(50 + rng.below(8_000));
                world.engine.submit(batch, world.sim.now(), deadline).unwrap();
            }
            4 => {
                let (rail, told) = (RailIndex(rng.below(3) as u8), rng.chance(50));
                world.sim.apply(Action::RailDown { rail, told });
            }
            5 | 6 => {
                let (rail, told) = (RailIndex(rng.below(3) as u8), rng.chance(50));
                world.sim.apply(Action::RailUp { rail, told });
            }
            _ => step(world, rng.below(200_000)),
        }
        if rng.chance(30) {
            mend(world);
        }
    }
    let end = world.sim.now() + Nanos::from_secs(1);
    while world.engine.in_flight() > 0 {
        assert!(world.sim.now() < end, "{} batches never end", world.engine.in_flight());
        step(world, 1_000_000);
        mend(world);
    }
}
