//! Edge cases: places that are used again, full queues, caps that are reached, numbers at the ends
//! of their ranges.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "storages larger than the common one, and a provider that does nothing")]

mod common;

use common::*;
use kvrail_core::batch::Class;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::error::PageError;
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::ENTRY_BYTES;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, Delay, Fate, RailSpec, Rate, Sim};

/// A page is one chunk.
const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 16_384, ..EngineConfig::DEFAULT };
const LATE: Time = Time(20_000_000_000);

#[test]
fn a_place_of_a_peer_that_is_used_again_is_in_the_queue_once() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(4);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(1..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    // The only rail is down while four peers, the most of the storage, have work.
    sim.apply(Action::RailDown { rail: RailIndex(0), told: true });
    engine.poll(sim.now());
    let mut peers: Vec<_> = owners.iter().map(|owner| connect(&mut engine, &sim, owner, 0, 0, 8)).collect();
    for (owner, (_, region, _)) in owners.iter().zip(&peers) {
        let batch = fill(&mut engine, owner, region, &mut slots, 1);
        engine.submit(batch, sim.now(), LATE).unwrap();
    }
    // The second is removed, and connected again in the same place.
    engine.remove_peer(peers[1].0, sim.now()).unwrap();
    engine.poll(sim.now());
    assert_eq!(engine.next_done().unwrap().pages().count(), 1);
    peers[1] = connect(&mut engine, &sim, &owners[1], 0, 0, 8);
    let batch = fill(&mut engine, &owners[1], &peers[1].1, &mut slots, 1);
    engine.submit(batch, sim.now(), LATE).unwrap();
    // The rail is up again: every peer is served.
    sim.apply(Action::RailUp { rail: RailIndex(0), told: true });
    engine.poll(sim.now());
    for (owner, (peer, ..)) in owners.iter().zip(&peers) {
        lane(&mut engine, &sim, *peer, owner, (0, 0), 8);
    }
    let mut ok = 0;
    settle(&mut engine, &sim, LATE, |mut done| ok += done.pages().filter(|page| page.result.is_ok()).count());
    assert_eq!(ok, 4);
}

#[test]
fn peers_of_a_full_rail_do_not_hide_one_of_an_empty_rail() {
    type WideSim = sim::SimStorage<2, 48, 48, 32, 2048>;
    type Wide = EngineStorage<48, 48, 48, 32, 64, 16>;
    const PEERS: usize = 40;
    let mut storage = Box::new(WideSim::new());
    let mut bytes = memory(PEERS + 1);
    let specs = vec![RailSpec { cq_entries: 2048, ..RailSpec::GBITS_400 }; 2];
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &specs).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(1..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(16 * (PEERS + 1), PAGE);
    let mut state = Box::new(Wide::new());
    let config = EngineConfig { rail_bytes: 200_000, ..CONFIG };
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut engine = unsafe { Engine::start_scoped(&mut *state, sim.rails(), config) }.unwrap();
    let mut slots = dest.register(&mut engine, PAGE);
    let mut regions = Vec::new();
    for (i, owner) in owners.iter().enumerate() {
        let peer = engine.add_peer().unwrap();
        regions.push(engine.add_region(peer, &owner.offer()).unwrap());
        let rail = u8::from(i == PEERS);
        lane(&mut engine, &sim, peer, owner, (rail, rail), 32);
    }
    // Rail 0 is at its cap, and no READ completes for a while.
    sim.apply(Action::RailDown { rail: RailIndex(0), told: false });
    for (i, owner) in owners.iter().enumerate() {
        let mut batch = fill(&mut engine, owner, &regions[i], &mut slots, 16);
        batch.set_tag(i as u64);
        engine.submit(batch, sim.now(), LATE).unwrap();
    }
    let mut served = None;
    while served.is_none() {
        engine.wait(sim.now(), LATE);
        engine.poll(sim.now());
        while let Some(done) = engine.next_done() {
            if done.tag() == PEERS as u64 {
                served = Some(sim.now());
            }
        }
    }
    // 160 KB at 49 GB/s take 3 us. READs of the other rail never complete, so the engine sleeps 10
    // ms waiting for half of all.
    assert!(served < Some(Time(25_000_000)), "served at {served:?}");
}

#[test]
fn urgent_work_that_waits_for_a_full_rail_does_not_keep_the_background_from_an_empty_one() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(2);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(2)).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(1..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { rail_wrs: 4, ..CONFIG });
    let mut slots = dest.register(&mut engine, PAGE);
    let mut regions = Vec::new();
    for (owner, rail) in owners.iter().zip(0..) {
        let peer = engine.add_peer().unwrap();
        regions.push(engine.add_region(peer, &owner.offer()).unwrap());
        lane(&mut engine, &sim, peer, owner, (rail, rail), 16);
    }
    // Eight pages for the first rail, whose cap is four.
    let batch = fill(&mut engine, &owners[0], &regions[0], &mut slots, 8);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let posted =
        |engine: &Engine<'_, sim::SimRails<'_>>, rail| engine.rail_stats(RailIndex(rail)).unwrap().posted;
    assert_eq!((posted(&engine, 0), posted(&engine, 1)), (4, 0));
    let mut batch = fill(&mut engine, &owners[1], &regions[1], &mut slots, 2);
    batch.set_class(Class::Background);
    engine.submit(batch, sim.now(), LATE).unwrap();
    assert_eq!((posted(&engine, 0), posted(&engine, 1)), (4, 2), "at once, without a poll");
}

#[test]
fn a_batch_of_parts_is_expected_to_take_as_long_as_its_bytes_do() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let specs =
        [RailSpec { rate: Rate::bytes_per_sec(1_000_000_000), cq_entries: 1024, ..RailSpec::GBITS_400 }];
    let sim = Sim::new(&mut storage, sim::SimConfig::new(5), &specs).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 8, 32);
    let one = fill(&mut engine, &owner, &region, &mut slots, 1);
    engine.submit(one, sim.now(), LATE).unwrap();
    // One whole page and 15 parts of 100 bytes are 11,500 bytes, 12 us; behind 10 us, with 200 us
    // of time.
    let mut batch = engine.batch().unwrap();
    for i in 0..16 {
        let page = region.page(owner.location(i)).unwrap();
        let page = if i == 0 { page } else { page.part(0, 100).unwrap() };
        batch.read(page, slots.next().unwrap()).unwrap();
    }
    batch.set_tag(9);
    engine.submit(batch, sim.now(), Time(200_000)).unwrap();
    let mut results = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| {
        if done.tag() == 9 {
            results.extend(done.pages().map(|page| page.result));
        }
    });
    assert!(results.iter().all(Result::is_ok), "{:?}", results[0]);
}

#[test]
fn completions_of_a_closed_lane_keep_their_room_in_the_queue() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let config = sim::SimConfig {
        fail: Delay::fixed(Nanos::from_micros(10)),
        close: Delay::fixed(Nanos::from_micros(100)),
        flush: Delay::ZERO,
        purge: false,
        ..sim::SimConfig::new(6)
    };
    let specs = [RailSpec { cq_entries: 8, ..RailSpec::GBITS_400 }];
    let sim = Sim::new(&mut storage, config, &specs).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { signal_wrs: 1, drain: Nanos(4_000), ..CONFIG });
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, lanes) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    sim.script(lanes[0], Fate::DrainRefused { errno: 12 }).unwrap();
    let batch = fill(&mut engine, &owner, &region, &mut slots, 7);
    engine.submit(batch, sim.now(), Time(50_000)).unwrap();
    sim.apply(Action::PeerDown(owner.peer));
    engine.poll(sim.now());
    // The engine learns of the failure, and in the next poll that the QP has been destroyed.
    sim.advance_to(Time(60_000));
    engine.poll(sim.now());
    sim.apply(Action::FailLane(lanes[0]));
    engine.poll(sim.now());
    sim.advance_to(Time(1_000_000));
    engine.poll(sim.now());
    assert!(engine.next_done().is_some_and(|mut done| done.pages().all(|page| page.result.is_err())));
    assert_eq!((engine.in_flight(), engine.lanes_dying()), (0, 0));
    // The same place in the queue is given to another lane, which uses all of it.
    sim.apply(Action::PeerUp(owner.peer));
    lane(&mut engine, &sim, peer, &owner, (0, 0), 8);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 7);
    engine.submit(batch, sim.now(), LATE).unwrap();
    sim.advance_to(Time(2_000_000));
    engine.poll(sim.now());
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn a_drain_that_comes_back_late_still_ends_the_flush() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let config = sim::SimConfig { flush: Delay::fixed(Nanos::from_millis(3)), ..sim::SimConfig::new(8) };
    let sim = Sim::new(&mut storage, config, &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { drain: Nanos::from_millis(2), ..CONFIG });
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, lanes) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    sim.script(lanes[0], Fate::Status { nth: 0, status: WcStatus::GENERAL_ERR }).unwrap();
    // It cannot be destroyed, but its flush ends, and the drain wr completes.
    sim.script(lanes[0], Fate::CloseHangs).unwrap();
    let batch = fill(&mut engine, &owner, &region, &mut slots, 4);
    engine.submit(batch, sim.now(), LATE).unwrap();
    lane(&mut engine, &sim, peer, &owner, (0, 0), 8);
    let mut ok = 0;
    settle(&mut engine, &sim, Time(1_000_000_000), |mut done| {
        ok += done.pages().filter(|page| page.result.is_ok()).count();
    });
    assert_eq!((ok, engine.in_flight()), (4, 0));
}

#[test]
fn every_accepted_configuration_starts_and_survives_a_failure() {
    let forever = Nanos(u64::MAX);
    for config in [
        EngineConfig { rail_bytes: u64::MAX, ..CONFIG },
        EngineConfig { rail_wrs: u32::MAX, ..CONFIG },
        EngineConfig { backoff_min: forever, backoff_max: forever, ..CONFIG },
        EngineConfig { stall: forever, drain: forever, ..CONFIG },
        EngineConfig { chunk_bytes: 1 << 31, run_bytes: u32::MAX, quantum_bytes: u32::MAX, ..CONFIG },
        EngineConfig { signal_bytes: u32::MAX, signal_wrs: u32::MAX, run_chunks: u32::MAX, ..CONFIG },
        EngineConfig {
            signal_bytes: 1,
            signal_wrs: 1,
            run_chunks: 1,
            run_bytes: 1,
            quantum_bytes: 1,
            ..CONFIG
        },
        EngineConfig { rail_bytes: 1, rail_wrs: 1, reconnects: 1, ..CONFIG },
    ] {
        if config.check().is_err() {
            continue;
        }
        let run = std::panic::catch_unwind(|| {
            let mut storage = Box::new(SmallSim::new());
            let mut bytes = memory(1);
            let sim = Sim::new(&mut storage, sim::SimConfig::new(9), &rails(2)).unwrap();
            let owner = Owner::new(&sim, &mut bytes[0], 5);
            let dest = Destination::new(SLOTS, PAGE);
            let mut state = Box::new(SmallState::new());
            let mut engine = start(&mut state, &sim, config);
            let mut slots = dest.register(&mut engine, PAGE);
            let (_, region, lanes) = connect(&mut engine, &sim, &owner, 2, 2, 8);
            let batch = fill(&mut engine, &owner, &region, &mut slots, 16);
            engine.submit(batch, sim.now(), LATE).unwrap();
            sim.apply(Action::FailLane(lanes[3]));
            let mut ok = 0;
            settle(&mut engine, &sim, LATE, |mut done| {
                ok += done.pages().filter(|page| page.result.is_ok()).count();
            });
            assert_eq!(ok, 16);
            assert!(sim.violations().is_empty(), "{:?}", sim.violations());
        });
        assert!(run.is_ok(), "{config:?}");
    }
}

#[test]
fn a_rail_whose_lanes_failed_is_not_estimated_as_slow() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let rate = 1_000_000_000;
    let specs = [RailSpec { rate: Rate::bytes_per_sec(rate), cq_entries: 1024, ..RailSpec::GBITS_400 }];
    let sim = Sim::new(&mut storage, sim::SimConfig::new(10), &specs).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(256, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, lanes) = connect(&mut engine, &sim, &owner, 1, 8, 32);
    for _ in 0..16 {
        let batch = fill(&mut engine, &owner, &region, &mut slots, 16);
        engine.submit(batch, sim.now(), LATE).unwrap();
    }
    for us in 1..=12 {
        sim.advance_to(Time(us * 100_000));
        engine.poll(sim.now());
    }
    for lane in lanes {
        sim.apply(Action::FailLane(lane));
    }
    engine.poll(sim.now());
    assert_eq!(engine.outstanding(), 0);
    // The rail is idle for a while, which measures nothing.
    sim.advance_to(sim.now() + Nanos::from_millis(100));
    engine.poll(sim.now());
    let found = engine.rail_bytes_per_sec(RailIndex(0)).unwrap();
    assert!(found > rate / 2, "estimated {found} of {rate} bytes per second");
}

#[test]
fn a_lane_whose_completions_wait_in_the_queue_is_not_stalled() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(11), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(256, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig {
        chunk_bytes: 4096,
        rail_wrs: 4096,
        rail_bytes: 64 << 20,
        signal_wrs: 1,
        run_bytes: 1 << 20,
        run_chunks: 64,
        ..EngineConfig::DEFAULT
    };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_region(peer, &owner.offer()).unwrap();
    for _ in 0..32 {
        lane(&mut engine, &sim, peer, &owner, (0, 0), 32);
    }
    for _ in 0..16 {
        let batch = fill(&mut engine, &owner, &region, &mut slots, 16);
        engine.submit(batch, sim.now(), LATE).unwrap();
    }
    assert!(engine.outstanding() > 700, "{}", engine.outstanding());
    engine.poll(sim.now());
    // The engine's thread does not run for two seconds (a paused machine). All READs have completed
    // long before.
    sim.advance_to(Time(2_000_000_000));
    engine.poll(sim.now());
    engine.poll(sim.now());
    assert_eq!(engine.rail_stats(RailIndex(0)).unwrap().lanes_stalled, 0);
}

/// Whether any of 8 segments of one page each goes to lane `which` of two: the first wr that does
/// fails.
fn reaches(which: usize) -> bool {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(2);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(1..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(16, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { run_chunks: 2, ..CONFIG });
    let mut slots = dest.register(&mut engine, PAGE);
    // One rail, two lanes of it to each peer, whose pages take turns in the batch.
    let peers: Vec<_> = owners.iter().map(|owner| connect(&mut engine, &sim, owner, 1, 2, 32)).collect();
    sim.script(peers[0].2[which], Fate::Status { nth: 0, status: WcStatus::REM_ACCESS_ERR }).unwrap();
    let mut batch = engine.batch().unwrap();
    for i in 0..16 {
        let page = peers[i % 2].1.unvalidated(i as u32 / 2).unwrap();
        batch.read(page, slots.next().unwrap()).unwrap();
    }
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut failed = 0;
    settle(&mut engine, &sim, LATE, |mut done| {
        failed += done.pages().filter(|page| page.result.is_err()).count();
    });
    failed > 0
}

#[test]
fn short_segments_go_to_all_lanes_of_their_rail_in_turn() {
    assert_eq!([reaches(0), reaches(1)], [true, true], "each lane of the rail gets one of four runs");
}

#[test]
fn a_refused_validation_says_what_was_refused() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(13), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, _, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    let mut offer = owner.offer();
    offer.table.as_mut().unwrap().keys = [0xBAD; MAX_RAILS];
    let region = engine.add_region(peer, &offer).unwrap();
    let batch = fill(&mut engine, &owner, &region, &mut slots, 1);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut results = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| results.extend(done.pages().map(|page| page.result)));
    let Err(PageError::Fault { rkey: 0xBAD, remote_addr, len, .. }) = results[0] else {
        panic!("{results:?}")
    };
    assert_eq!(
        (remote_addr, len),
        (BASE + TABLE as u64, ENTRY_BYTES as u32),
        "the entry was refused, not the page"
    );
}

#[test]
fn a_peer_is_not_taken_for_an_earlier_one_in_its_place() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(15), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (first, region, _) = connect(&mut engine, &sim, &owner, 0, 0, 8);
    engine.remove_peer(first, sim.now()).unwrap();
    // A peer that comes and goes once a second does this in 18 hours.
    for _ in 0..70_000 {
        let peer = engine.add_peer().unwrap();
        assert_ne!(peer, first, "two peers with one id");
        let batch = fill(&mut engine, &owner, &region, &mut slots, 0);
        drop(batch);
        engine.remove_peer(peer, sim.now()).unwrap();
    }
    let _ = slots.next();
}

/// Two peers keep the only rail at its cap, which is less than a turn; polls are so frequent that
/// there is never much room. A third peer, which comes later, has its turn all the same.
#[test]
fn a_third_peer_has_its_turn_beside_two_that_fill_the_rail_whenever_it_has_room() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(3);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(4), &rails(1)).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(1..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(16 * 15, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { rail_wrs: 4, signal_wrs: 1, ..CONFIG };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let peers: Vec<_> = owners.iter().map(|owner| connect(&mut engine, &sim, owner, 1, 1, 16)).collect();
    for _ in 0..7 {
        for which in 0..2 {
            let batch = fill(&mut engine, &owners[which], &peers[which].1, &mut slots, 16);
            engine.submit(batch, sim.now(), LATE).unwrap();
        }
    }
    let mut batch = fill(&mut engine, &owners[2], &peers[2].1, &mut slots, 1);
    batch.set_tag(1);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut before = 0;
    'all: loop {
        sim.advance_to(sim.now() + Nanos(100));
        engine.poll(sim.now());
        while let Some(done) = engine.next_done() {
            if done.tag() == 1 {
                break 'all;
            }
            before += done.len();
        }
    }
    assert!(before <= 32, "{before} pages of the others were done before");
    settle(&mut engine, &sim, LATE, |_| ());
}

/// Work that waits for a lane is posted as soon as the lane is attached, however long the engine
/// may sleep.
#[test]
fn an_engine_does_not_sleep_over_work_for_a_lane_that_has_been_attached() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(4), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(4, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 0, 0, 8);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 1);
    engine.submit(batch, sim.now(), LATE).unwrap();
    engine.poll(sim.now());
    lane(&mut engine, &sim, peer, &owner, (0, 0), 8);
    let begun = sim.now();
    engine.wait(sim.now(), LATE);
    settle(&mut engine, &sim, LATE, |mut done| assert!(done.pages().all(|page| page.result.is_ok())));
    assert!(sim.now().since(begun) < Nanos::from_millis(2));
}
