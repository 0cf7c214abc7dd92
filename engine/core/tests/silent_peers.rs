//! Lost lanes, silent peers and work that was put aside: what happens to other peers and other work
//! meanwhile.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::batch::Done;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::id::RailIndex;
use kvrail_core::memory::Slot;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Action, RailSpec, Rate, Sim, SimRails};

/// A page is one chunk.
const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 16_384, ..EngineConfig::DEFAULT };
const LATE: Time = Time(20_000_000_000);

#[test]
fn a_lost_lane_is_reported_and_requested_over_the_same_path() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { run_chunks: 1, ..CONFIG });
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 0, 0, 8);
    // One local rail leads to both of the peer's.
    let lanes: Vec<_> =
        [0, 1, 0].iter().map(|&remote| lane(&mut engine, &sim, peer, &owner, (0, remote), 32)).collect();
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
    // One lane is unavailable now, and is requested again later; the others are attached.
    engine.lane_unavailable(wanted[0], sim.now());
    for wanted in &wanted[1..] {
        lane(&mut engine, &sim, peer, &owner, (0, wanted.remote_rail), 32);
    }
    sim.advance_to(Time(10_000_000_000));
    engine.poll(sim.now());
    let again: Vec<_> = core::iter::from_fn(|| engine.next_wanted_lane(sim.now())).collect();
    assert_eq!(again.iter().map(|again| again.remote_rail).collect::<Vec<_>>(), [wanted[0].remote_rail]);
}

/// A model in which unanswered READs are retried for longer than a test takes.
fn patient(seed: u64) -> sim::SimConfig {
    sim::SimConfig { retry: Nanos::from_secs(60), ..sim::SimConfig::new(seed) }
}

fn ok_pages(done: &mut Done<'_>) -> usize {
    done.pages().filter(|page| page.result.is_ok()).count()
}

/// Polls and sleeps until the batch with this tag is done. Returns when that was, and how many
/// pages arrived.
fn until_done<'m>(engine: &mut Engine<'_, SimRails<'m>>, sim: &Sim<'m>, tag: u64) -> (Time, usize) {
    loop {
        engine.poll(sim.now());
        while let Some(mut done) = engine.next_done() {
            if done.tag() == tag {
                return (sim.now(), ok_pages(&mut done));
            }
        }
        while engine.next_overdue().is_some() {}
        assert!(sim.now() < LATE, "it does not come in time");
        engine.wait(sim.now(), LATE);
    }
}

#[test]
fn a_silent_peer_does_not_stop_other_peers() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(2);
    let sim = Sim::new(&mut storage, patient(2), &rails(1)).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(1..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { rail_wrs: 16, ..CONFIG });
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, gone, _) = connect(&mut engine, &sim, &owners[0], 1, 2, 32);
    let (_, there, _) = connect(&mut engine, &sim, &owners[1], 1, 1, 32);
    sim.apply(Action::PeerDown(owners[0].peer));
    for _ in 0..2 {
        let batch = fill(&mut engine, &owners[0], &gone, &mut slots, 16);
        engine.submit(batch, sim.now(), LATE).unwrap();
    }
    assert_eq!(engine.outstanding(), 16, "all that the rail may have");
    let mut batch = fill(&mut engine, &owners[1], &there, &mut slots, 16);
    batch.set_tag(7);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let (when, ok) = until_done(&mut engine, &sim, 7);
    assert_eq!(ok, 16);
    assert!(when < Time(100_000_000), "served at {when:?}, stall is {:?}", CONFIG.stall);
    // READs of the silent peer still count as outstanding, and complete when the peer answers
    // again.
    assert_eq!(engine.outstanding(), 16);
    sim.apply(Action::PeerUp(owners[0].peer));
    let mut ok = 0;
    settle(&mut engine, &sim, LATE, |mut done| ok += ok_pages(&mut done));
    assert_eq!((ok, engine.outstanding()), (32, 0));
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

/// A rail that stops answering must not get more and more work, though its lanes are silent.
#[test]
fn a_silent_rail_gets_an_eighth_of_its_cap() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(2);
    let sim = Sim::new(&mut storage, patient(3), &rails(2)).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(1..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(128, PAGE);
    let mut state = Box::new(SmallState::new());
    // An eighth of the cap is one wr.
    let config = EngineConfig { rail_wrs: 8, run_chunks: 4, ..CONFIG };
    let mut engine = start(&mut state, &sim, config);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let regions: Vec<_> = owners.iter().map(|owner| connect(&mut engine, &sim, owner, 2, 4, 32).1).collect();
    sim.apply(Action::RailDown { rail: RailIndex(1), told: false });
    let started = sim.now();
    let mut arrived = 0;
    // This is shorter than `stall`, so no lane of the rail is failed.
    while sim.now() < started + Nanos::from_millis(900) {
        for (owner, region) in owners.iter().zip(&regions) {
            if let Some(mut batch) = engine.batch() {
                batch.read(region.page(owner.location(3)).unwrap(), slots.pop().unwrap()).unwrap();
                engine.submit(batch, sim.now(), LATE).unwrap();
            }
        }
        engine.wait(sim.now(), sim.now() + Nanos::from_millis(1));
        engine.poll(sim.now());
        while let Some(mut done) = engine.next_done() {
            for page in done.pages() {
                arrived += usize::from(page.result.is_ok());
                slots.push(page.slot);
            }
        }
    }
    let stats = engine.rail_stats(RailIndex(1)).unwrap();
    assert_eq!((stats.chunks, stats.lanes_failed), (0, 0));
    // The cap once, and an eighth of it.
    assert!(stats.posted <= 9, "{} wrs went to a dead rail", stats.posted);
    assert!(arrived > 1000, "{arrived}");
}

#[test]
fn work_that_was_put_aside_is_posted_when_the_rails_are_idle() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let specs =
        [RailSpec { rate: Rate::bytes_per_sec(1_000_000_000), cq_entries: 1024, ..RailSpec::GBITS_400 }];
    let sim = Sim::new(&mut storage, sim::SimConfig::new(4), &specs).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 8, 32);
    // 160 KB at 1 GB/s take 160 us.
    let large = fill(&mut engine, &owner, &region, &mut slots, 16);
    engine.submit(large, sim.now(), LATE).unwrap();
    // The estimate is three times that, which is too late; the time itself is not.
    let mut small = fill(&mut engine, &owner, &region, &mut slots, 1);
    small.set_tag(1);
    engine.submit(small, sim.now(), Time(400_000)).unwrap();
    assert_eq!(engine.outstanding(), 16);
    // A batch that stays put aside fails at its deadline, and so does one that was cancelled.
    let mut hopeless = fill(&mut engine, &owner, &region, &mut slots, 1);
    hopeless.set_tag(2);
    engine.submit(hopeless, sim.now(), Time(100_000)).unwrap();
    let mut ok = [0; 3];
    settle(&mut engine, &sim, LATE, |mut done| ok[done.tag() as usize] += ok_pages(&mut done));
    assert_eq!(ok, [16, 1, 0]);
    assert_eq!(engine.in_flight(), 0);
}

/// The engine sleeps while a lane is missing, and wakes up when the lane can be requested.
#[test]
fn a_sleeping_engine_wakes_up_when_a_lane_can_be_requested() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(5), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, lanes) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    let mut batch = fill(&mut engine, &owner, &region, &mut slots, 16);
    batch.set_tag(1);
    engine.submit(batch, sim.now(), LATE).unwrap();
    sim.apply(Action::FailLane(lanes[0]));
    let (mut when, mut ok) = (None, 0);
    while when.is_none() {
        assert!(sim.now() < LATE, "it does not come in time");
        engine.wait(sim.now(), LATE);
        engine.poll(sim.now());
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            lane(&mut engine, &sim, peer, &owner, (0, wanted.remote_rail), 32);
        }
        while let Some(mut done) = engine.next_done() {
            (when, ok) = (Some(sim.now()), ok_pages(&mut done));
        }
    }
    assert_eq!(ok, 16);
    // The back-off is 10 to 13 ms, the flush takes some.
    assert!(when < Some(Time(40_000_000)), "served at {when:?}");
}

/// Consecutive pages whose data has arrived wait for room to be validated, and their deadline fails
/// all of them.
#[test]
fn a_row_that_waits_to_be_validated_meets_its_deadline() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(2);
    let sim = Sim::new(&mut storage, patient(6), &rails(1)).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(1..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { rail_wrs: 8, ..CONFIG });
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, first, _) = connect(&mut engine, &sim, &owners[0], 1, 1, 32);
    let (_, second, _) = connect(&mut engine, &sim, &owners[1], 1, 1, 32);
    sim.apply(Action::PeerDown(owners[1].peer));
    let mut batch = fill(&mut engine, &owners[0], &first, &mut slots, 8);
    batch.set_tag(1);
    engine.submit(batch, sim.now(), Time(5_000_000)).unwrap();
    // Its turn comes when the data of the first batch has arrived, and it keeps the rail at its
    // cap.
    let batch = fill(&mut engine, &owners[1], &second, &mut slots, 8);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let (when, ok) = until_done(&mut engine, &sim, 1);
    assert_eq!((when, ok), (Time(5_000_000), 0));
    assert_eq!(engine.in_flight(), 1);
    // No page of it is left in the queue.
    sim.apply(Action::PeerUp(owners[1].peer));
    let mut ok = 0;
    settle(&mut engine, &sim, LATE, |mut done| ok += ok_pages(&mut done));
    assert_eq!((ok, engine.outstanding()), (8, 0));
}
