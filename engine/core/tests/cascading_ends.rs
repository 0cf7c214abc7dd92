//! Failing one batch or removing one peer may end other batches: no walk over all batches handles
//! one twice, or one that has ended.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::id::PeerId;
use kvrail_core::memory::Slots;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Fate, Sim, SimRails};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, run_chunks: 1, ..EngineConfig::DEFAULT };
const DEADLINE: Time = Time(5_000_000);

/// Three batches of one peer are in flight. The first and the last wait for a lane. The second has
/// only one unfinished chunk, of a failed page, in the ring of a quiet lane. So failing pages of
/// the first batch accounts for that chunk, too, and ends the second.
fn one_ends_with_the_other<'s, 'm>(
    engine: &mut Engine<'s, SimRails<'m>>,
    sim: &'m Sim<'m>,
    owner: &Owner,
    slots: &mut Slots,
) -> PeerId {
    let (peer, region, lanes) = connect(engine, sim, owner, 1, 2, 2);
    // One lane fails at once, with one of the page's two chunks. The other fails when its chunk
    // completes with a local error, and has no room for the chunk of the first until then.
    sim.script(lanes[0], Fate::Prefix { nth: 0, accepted: 0, errno: 12 }).unwrap();
    sim.script(lanes[1], Fate::Status { nth: 0, status: WcStatus::LOC_PROT_ERR }).unwrap();
    let mut first = engine.batch().unwrap();
    let mut second = engine.batch().unwrap();
    let mut third = engine.batch().unwrap();
    let page = |region: &RemoteRegion, place| region.page(owner.location(place)).unwrap();
    second.read(page(&region, 0).part(0, 8192).unwrap(), slots.next().unwrap()).unwrap();
    first.read(page(&region, 1), slots.next().unwrap()).unwrap();
    third.read(page(&region, 2), slots.next().unwrap()).unwrap();
    engine.submit(second, sim.now(), DEADLINE).unwrap();
    while engine.lanes_dying() < 2
        || engine.rail_stats(kvrail_core::id::RailIndex(0)).unwrap().page_faults == 0
    {
        engine.wait(sim.now(), DEADLINE);
        engine.poll(sim.now());
        assert!(sim.now() < DEADLINE, "both lanes fail before");
    }
    let until = sim.now() + Nanos::from_micros(500);
    while sim.now() < until {
        engine.wait(sim.now(), until);
        engine.poll(sim.now());
    }
    engine.submit(first, sim.now(), DEADLINE).unwrap();
    engine.submit(third, sim.now(), DEADLINE).unwrap();
    assert_eq!(engine.in_flight(), 3);
    peer
}

fn with_all(end: impl FnOnce(&mut Engine<'_, SimRails<'_>>, &Sim<'_>, PeerId)) {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let peer = one_ends_with_the_other(&mut engine, &sim, &owner, &mut slots);
    end(&mut engine, &sim, peer);
    let mut done = 0;
    settle(&mut engine, &sim, DEADLINE + Nanos::from_secs(1), |mut batch| {
        assert!(batch.pages().all(|page| page.result.is_err()));
        done += 1;
    });
    assert_eq!((done, engine.in_flight(), engine.batches_free()), (3, 0, 16), "each batch is done once");
}

#[test]
fn a_peer_that_is_removed_ends_each_of_its_batches_once() {
    with_all(|engine, sim, peer| engine.remove_peer(peer, sim.now()).unwrap());
}

#[test]
fn batches_that_expire_together_end_once_each() {
    with_all(|engine, sim, _| {
        sim.advance_to(DEADLINE);
        engine.poll(sim.now());
    });
}

#[test]
fn a_peer_whose_last_lane_goes_while_its_pages_are_cancelled_stays_until_all_of_them_are() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, lanes) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    sim.script(lanes[0], Fate::Prefix { nth: 0, accepted: 0, errno: 12 }).unwrap();
    for _ in 0..2 {
        let batch = fill(&mut engine, &owner, &region, &mut slots, 1);
        engine.submit(batch, sim.now(), DEADLINE).unwrap();
    }
    let until = sim.now() + Nanos::from_millis(1);
    settle(&mut engine, &sim, until, |_| panic!("there is no lane"));
    // The page of the first batch is in the ring of the only lane, which is quiet: the lane is
    // freed with it.
    engine.remove_peer(peer, sim.now()).unwrap();
    let mut done = 0;
    settle(&mut engine, &sim, DEADLINE, |_| done += 1);
    assert_eq!((done, engine.in_flight()), (2, 0));
    // All places are free again, and another peer takes the place.
    let (again, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    assert_ne!(again, peer);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 4);
    engine.submit(batch, sim.now(), Time(1_000_000_000)).unwrap();
    let mut good = 0;
    settle(&mut engine, &sim, Time(1_000_000_000), |mut done| {
        good += done.pages().filter(|page| page.result.is_ok()).count();
    });
    assert_eq!(good, 4);
}

#[test]
fn batches_of_other_peers_are_not_touched_when_one_is_removed() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(2);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(2)).unwrap();
    let [a, b] = &mut bytes[..] else { panic!("two owners") };
    let (kept, gone) = (Owner::new(&sim, a, 5), Owner::new(&sim, b, 6));
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &kept, 2, 1, 8);
    let (peer, other, _) = connect(&mut engine, &sim, &gone, 2, 1, 8);
    let both = |engine: &mut Engine<'_, SimRails<'_>>| {
        let stats = |id| engine.peer_stats(id).unwrap();
        (stats(region.peer()), engine.in_flight())
    };
    let batch = fill(&mut engine, &kept, &region, &mut slots, 8);
    engine.submit(batch, sim.now(), DEADLINE).unwrap();
    let batch = fill(&mut engine, &gone, &other, &mut slots, 4);
    engine.submit(batch, sim.now(), DEADLINE).unwrap();
    let before = both(&mut engine);
    engine.remove_peer(peer, sim.now()).unwrap();
    assert_eq!(both(&mut engine).0, before.0);
    let (mut good, mut bad) = (0, 0);
    settle(&mut engine, &sim, DEADLINE, |mut done| {
        for page in done.pages() {
            if page.result.is_ok() { good += 1 } else { bad += 1 }
        }
    });
    assert_eq!((good, bad), (8, 4));
}

#[test]
fn an_engine_for_one_peer_can_add_one_again_and_again() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(15), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let mut state = Box::new(kvrail_core::storage::EngineStorage::<1, 2, 4, 8, 2, 4>::new());
    // SAFETY: the storage is declared before the engine, which is not forgotten.
    #[allow(unsafe_code, reason = "storage of the test's own")]
    let mut engine = unsafe { Engine::start_scoped(&mut *state, sim.rails(), CONFIG) }.unwrap();
    let first = engine.add_peer().unwrap();
    engine.remove_peer(first, sim.now()).unwrap();
    for connect in 0..200_000 {
        let peer = engine.add_peer().unwrap_or_else(|error| panic!("connect number {connect}: {error}"));
        assert_ne!(peer, first, "two lives with one name");
        engine.add_region(peer, &owner.offer()).unwrap();
        engine.remove_peer(peer, sim.now()).unwrap();
    }
}
