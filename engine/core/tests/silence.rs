//! Lanes that are lost, peers that fall silent, work that waits: what becomes of the others meanwhile.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::batch::Batch;
use kvrail_core::config::Config;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::id::{LaneId, PeerId, RailIndex};
use kvrail_core::memory::Slots;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::time::Time;
use kvrail_sim::sim::{self, Action, LaneKey, Rails, Sim};

/// A page is one chunk.
const CONFIG: Config = Config { chunk_bytes: 16_384, ..Config::DEFAULT };
const LATE: Time = Time(20_000_000_000);

fn fill<'s>(
    engine: &mut Engine<'s, Rails<'_>>,
    owner: &Owner,
    region: &RemoteRegion,
    slots: &mut Slots,
    pages: usize,
) -> Batch<'s> {
    let mut batch = engine.batch().unwrap();
    for i in 0..pages {
        batch.read(region.page(owner.location(i % SLOTS)).unwrap(), slots.next().unwrap()).unwrap();
    }
    batch
}

fn lane<'m>(
    engine: &mut Engine<'_, Rails<'m>>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: &Owner,
    (rail, remote): (u8, u8),
) -> (LaneId, LaneKey) {
    let spec = sim::LaneSpec { sq_entries: 32, rd_atomic: 32 };
    let made = sim.connect(RailIndex(rail), owner.peer, RailIndex(remote), spec).unwrap();
    let key = made.key();
    let spec = LaneSpec { rail: RailIndex(rail), remote_rail: remote, depth: 32 };
    (engine.attach(peer, spec, made, sim.now()).unwrap(), key)
}

#[test]
fn a_lost_lane_is_told_of_and_wanted_where_it_led() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::Config::new(1), &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, Config { run_chunks: 1, ..CONFIG });
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 0, 0, 8);
    // One local rail leads to both of the peer's.
    let lanes: Vec<_> =
        [0, 1, 0].iter().map(|&remote| lane(&mut engine, &sim, peer, &owner, (0, remote))).collect();
    let batch = fill(&mut engine, &owner, &region, &mut slots, 6);
    engine.submit(batch, sim.now(), LATE).unwrap();
    assert_eq!(engine.next_lost_lane(), None);
    for &(_, key) in &lanes {
        sim.apply(Action::FailLane(key));
    }
    sim.advance_to(Time(1_000_000));
    engine.poll(sim.now());
    let mut lost: Vec<_> = core::iter::from_fn(|| engine.next_lost_lane()).collect();
    lost.sort_by_key(|lost| lost.lane.index());
    let told: Vec<_> = lost.iter().map(|lost| (lost.lane, lost.peer, lost.remote_rail)).collect();
    assert_eq!(told, [(lanes[0].0, peer, 0), (lanes[1].0, peer, 1), (lanes[2].0, peer, 0)]);
    sim.advance_to(Time(1_000_000_000));
    engine.poll(sim.now());
    let wanted: Vec<_> = core::iter::from_fn(|| engine.next_wanted_lane(sim.now())).collect();
    let mut to: Vec<_> = wanted.iter().map(|wanted| wanted.remote_rail).collect();
    to.sort_unstable();
    assert_eq!(to, [0, 0, 1]);
    // One cannot be had just now, and is wanted again later; the others are made.
    engine.lane_unavailable(wanted[0], sim.now());
    for wanted in &wanted[1..] {
        lane(&mut engine, &sim, peer, &owner, (0, wanted.remote_rail));
    }
    sim.advance_to(Time(10_000_000_000));
    engine.poll(sim.now());
    let again: Vec<_> = core::iter::from_fn(|| engine.next_wanted_lane(sim.now())).collect();
    assert_eq!(again.iter().map(|again| again.remote_rail).collect::<Vec<_>>(), [wanted[0].remote_rail]);
}
