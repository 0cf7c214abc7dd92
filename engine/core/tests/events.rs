//! The events of an engine, in the order in which they happen: traces of failed runs and counters
//! are made of them.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "the engine's storage is declared before it, and outlives it")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::events::{EngineEvent, EventSink};
use kvrail_core::id::RailIndex;
use kvrail_core::memory::Slots;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, Fate, LaneHandle, Sim, SimRails};

const LATE: Time = Time(1_000_000_000);

/// Keeps all events.
#[derive(Default)]
struct Trace(Vec<EngineEvent>);

impl EventSink for Trace {
    fn event(&mut self, event: EngineEvent) {
        self.0.push(event);
    }
}

type Traced<'s, 'm> = Engine<'s, SimRails<'m>, Trace>;

/// An engine with a peer and one lane on each rail, for a scenario.
struct World<'e, 's, 'm> {
    engine: &'e mut Traced<'s, 'm>,
    sim: &'e Sim<'m>,
    owner: &'e mut Owner,
    region: RemoteRegion,
    lanes: Vec<LaneHandle>,
    slots: Slots,
}

impl World<'_, '_, '_> {
    /// Submits a batch of the first `pages` pages, and polls until it is done.
    fn read(&mut self, pages: usize, deadline: Time) {
        let batch = fill(self.engine, self.owner, &self.region, &mut self.slots, pages);
        self.engine.submit(batch, self.sim.now(), deadline).unwrap();
        settle(self.engine, self.sim, Time(3 * LATE.0), |_| {});
    }
}

/// The events of a scenario over `rails_used` rails, one line each, without those of the set-up.
fn events_of(
    config: EngineConfig,
    rails_used: u8,
    scenario: impl FnOnce(&mut World<'_, '_, '_>),
) -> Vec<String> {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(rails_used.into())).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    // SAFETY: the storage is declared before the engine, which is not forgotten.
    let engine =
        unsafe { Engine::start_scoped_with_events(&mut *state, sim.rails(), config, Trace::default()) };
    let mut engine = engine.unwrap();
    let slots = dest.register(&mut engine, PAGE);
    let (_, region, lanes) = connect(&mut engine, &sim, &owner, rails_used, 1, 32);
    engine.events_mut().0.clear();
    scenario(&mut World { engine: &mut engine, sim: &sim, owner: &mut owner, region, lanes, slots });
    engine.events().0.iter().map(EngineEvent::to_string).collect()
}

/// Pages of three chunks.
const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };

#[test]
fn a_page_that_arrives_gives_its_events_in_order() {
    let events = events_of(CONFIG, 1, |world| world.read(1, LATE));
    assert_eq!(
        events,
        [
            "batch 0.0 submitted: 1 page until 1000000000 ns",
            "lane 0.1 posted 3 wrs of 10000 bytes",
            "lane 0.1 completed 3 wrs",
            "lane 0.1 posted 1 wr of 32 bytes",
            "lane 0.1 completed 1 wr",
            "batch 0.0 page 0 arrived",
            "batch 0.0 done",
        ]
    );
}

#[test]
fn uniform_pages_are_reported_in_rows() {
    // One chunk a page: a run of eight, then a READ of their entries.
    let events = events_of(EngineConfig::DEFAULT, 1, |world| world.read(8, LATE));
    assert_eq!(
        events,
        [
            "batch 0.0 submitted: 8 pages until 1000000000 ns",
            "lane 0.1 posted 8 wrs of 80000 bytes",
            "lane 0.1 completed 8 wrs",
            "lane 0.1 posted 1 wr of 256 bytes",
            "lane 0.1 completed 1 wr",
            "batch 0.0 pages 0..8 arrived",
            "batch 0.0 done",
        ]
    );
}

#[test]
fn a_miss_is_reported_with_its_reason() {
    let events = events_of(CONFIG, 1, |world| {
        let batch = fill(world.engine, world.owner, &world.region, &mut world.slots, 1);
        world.owner.invalidate(world.sim, 0);
        world.engine.submit(batch, world.sim.now(), LATE).unwrap();
        settle(world.engine, world.sim, LATE, |_| {});
    });
    assert_eq!(
        events,
        [
            "batch 0.0 submitted: 1 page until 1000000000 ns",
            "lane 0.1 posted 3 wrs of 10000 bytes",
            "lane 0.1 completed 3 wrs",
            "lane 0.1 posted 1 wr of 32 bytes",
            "lane 0.1 completed 1 wr",
            "batch 0.0 page 0 missed: the owner was overwriting the slot (generation 1:00000001 (invalid), the location names 1:00000001): look the key up again",
            "batch 0.0 done",
        ]
    );
}

#[test]
fn a_lane_that_fails_gives_its_events_in_order() {
    let events = events_of(CONFIG, 2, |world| {
        let status = WcStatus::RETRY_EXC_ERR;
        world.sim.script(world.lanes[0], Fate::Status { nth: 1, status }).unwrap();
        world.read(1, LATE);
        while world.engine.lanes_dying() > 0 {
            let now = world.sim.now();
            world.engine.wait(now, now + Nanos::from_millis(10));
            world.engine.poll(world.sim.now());
        }
        assert_eq!(world.engine.next_wanted_lane(LATE).unwrap().failures, 1);
    });
    assert_eq!(
        events,
        [
            "batch 0.0 submitted: 1 page until 1000000000 ns",
            "lane 0.1 posted 3 wrs of 10000 bytes",
            "lane 0.1 silent",
            "lane 0.1 wr 1 failed: IBV_WC_RETRY_EXC_ERR (12), vendor error 0x8c",
            "lane 0.1 lost with 3 wrs outstanding",
            "lane 0.1 wr 2 failed: IBV_WC_WR_FLUSH_ERR (5), vendor error 0x85",
            "lane 0.1 quiet with 3 wrs left",
            "2 wrs of lane 0.1 failed over to lane 1.1",
            "lane 1.1 posted 2 wrs of 5904 bytes",
            "lane 1.1 completed 2 wrs",
            "lane 1.1 tries a suspected wr alone",
            "lane 1.1 posted 1 wr of 4096 bytes",
            "lane 1.1 completed 1 wr",
            "lane 1.1 posted 1 wr of 32 bytes",
            "lane 1.1 completed 1 wr",
            "batch 0.0 page 0 arrived",
            "batch 0.0 done",
            "lane 0.1 freed",
            "lane requested: peer 0.1 over rail 0 to its rail 0, 1 failure in a row",
        ]
    );
}

#[test]
fn a_deadline_that_passes_gives_its_events_in_order() {
    let events = events_of(CONFIG, 1, |world| {
        world.sim.script(world.lanes[0], Fate::Lost { nth: 2 }).unwrap();
        world.read(1, Time(5_000_000));
    });
    assert_eq!(
        events,
        [
            "batch 0.0 submitted: 1 page until 5000000 ns",
            "lane 0.1 posted 3 wrs of 10000 bytes",
            "batch 0.0 passed its deadline of 5000000 ns",
            "batch 0.0 page 0 failed: the deadline (5000000 ns) passed with 3 of 3 chunks missing",
            "lane 0.1 silent",
            "lane 0.1 stalled",
            "lane 0.1 lost with 3 wrs outstanding",
            "lane 0.1 quiet with 3 wrs left",
            "batch 0.0 done",
        ]
    );
}

#[test]
fn a_rail_that_goes_down_and_comes_up_gives_its_events_in_order() {
    let events = events_of(CONFIG, 2, |world| {
        let rail = RailIndex(1);
        world.sim.apply(Action::RailDown { rail, told: true });
        world.engine.poll(world.sim.now());
        world.sim.apply(Action::RailUp { rail, told: true });
        world.engine.poll(world.sim.now());
    });
    assert_eq!(events, ["rail 1 down", "lane 1.1 lost with 0 wrs outstanding", "rail 1 up",]);
}

#[test]
fn a_rail_whose_state_is_reported_again_gives_one_event() {
    let events = events_of(CONFIG, 2, |world| {
        let rail = RailIndex(1);
        // All rails are up at the start.
        for action in [
            Action::RailUp { rail, told: true },
            Action::RailDown { rail, told: true },
            Action::RailDown { rail, told: true },
            Action::RailUp { rail, told: true },
            Action::RailUp { rail, told: true },
        ] {
            world.sim.apply(action);
            world.engine.poll(world.sim.now());
        }
    });
    assert_eq!(events, ["rail 1 down", "lane 1.1 lost with 0 wrs outstanding", "rail 1 up"]);
}

/// Panics at the first commit, and never again.
#[derive(Default)]
struct PanicsOnce(bool);

impl EventSink for PanicsOnce {
    fn event(&mut self, event: EngineEvent) {
        if matches!(event, EngineEvent::Posted { .. }) && !std::mem::replace(&mut self.0, true) {
            panic!("the sink's own panic");
        }
    }
}

/// READs that were posted before the panic are not noted in their pages: an engine that went on
/// would post them again, and give slots back into which the hardware still writes.
#[test]
fn an_engine_whose_sink_has_panicked_posts_nothing_more_and_gives_nothing_back() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig::DEFAULT;
    // SAFETY: the storage is declared before the engine, which is not forgotten.
    let engine =
        unsafe { Engine::start_scoped_with_events(&mut *state, sim.rails(), config, PanicsOnce::default()) };
    let mut engine = engine.unwrap();
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 8);
    let panics = |call: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(call)).is_err();
    let mut batch = Some(batch);
    let now = sim.now();
    assert!(panics(&mut || drop(engine.submit(batch.take().unwrap(), now, LATE))));
    let posted = engine.outstanding();
    assert_eq!(posted, 8, "the commit is accounted for");
    assert!(panics(&mut || _ = engine.poll(now)));
    assert!(panics(&mut || _ = engine.remove_peer(peer, now)));
    assert!(engine.next_done().is_none());
    assert_eq!(engine.outstanding(), posted);
}
