//! Lanes on demand: a peer with work and no lane is named, its lanes are made within a budget, and
//! idle lanes are given back.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "destination memory is owned by the test and outlives the engine")]

mod common;

use std::collections::HashMap;

use common::{Destination, SmallSim, SmallState, attach, connect, fill, keys, memory, rails, settle, start};
use common::{Owner, PAGE};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::error::PageError;
use kvrail_core::id::{PeerId, RailIndex};
use kvrail_core::memory::Access;
use kvrail_core::remote::{RegionOffer, RemoteRegion};
use kvrail_core::storage::EngineStorage;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, PeerHandle, Sim, SimRails};

const PEERS: usize = 1_000;
/// Lanes over each of two rails.
const BUDGET: usize = 16;
const BYTES: usize = 512;
const DEPTH: u32 = 8;

type ManySim = sim::SimStorage<2, PEERS, 64, 8, 1024>;
type ManyState = EngineStorage<PEERS, PEERS, { 2 * BUDGET }, 8, 64, 16>;

/// The control path of a reader: makes the lanes that are wanted, one on each rail, and gives idle
/// ones back where the budget is used up.
fn control<'m>(
    engine: &mut Engine<'_, SimRails<'m>>,
    sim: &Sim<'m>,
    producers: &HashMap<PeerId, PeerHandle>,
    most: &mut usize,
) {
    while engine.has_unserved_peer(sim.now()) {
        let rails = [0, 1].map(|rail| engine.lanes_on(RailIndex(rail)));
        let (all, leaving) = (rails[0].0.max(rails[1].0), rails[0].1 + rails[1].1);
        if all < BUDGET {
            let Some(peer) = engine.next_unserved_peer(sim.now()) else { return };
            assert_eq!(engine.lanes_to(peer), 0);
            for rail in [0, 1].map(RailIndex) {
                let spec = sim::SimLaneSpec { sq_entries: DEPTH, rd_atomic: 4 };
                let lane = sim.connect(rail, producers[&peer], rail, spec).unwrap();
                let spec = LaneSpec { rail, remote_rail: rail.0, depth: DEPTH };
                engine.attach(peer, spec, lane, sim.now()).unwrap();
            }
            *most = (*most).max(engine.lanes_on(RailIndex(1)).0);
        } else if leaving > 0 {
            return;
        } else {
            let Some((idle, _)) = engine.longest_idle_peer() else { return };
            assert_eq!(engine.release_lanes(idle, sim.now()), 2);
            assert_eq!(engine.lanes_to(idle), 0);
            let lost: Vec<_> = std::iter::from_fn(|| engine.next_lost_lane()).collect();
            assert!(lost.len() == 2 && lost.iter().all(|lost| lost.peer == idle), "{lost:?}");
        }
    }
}

#[test]
fn a_thousand_peers_share_thirty_two_lanes_and_every_page_arrives() {
    // The model of a thousand peers is made on the stack.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(a_thousand_peers).unwrap();
    thread.join().unwrap();
}

fn a_thousand_peers() {
    let mut storage = Box::new(ManySim::new());
    let mut bytes = vec![vec![0_u8; BYTES]; PEERS];
    let sim = Sim::new(&mut storage, sim::SimConfig::new(11), &rails(2)).unwrap();
    let dest = Destination::new(64, BYTES);
    let mut room = Box::<ManyState>::new_uninit();
    let state = ManyState::in_place(&mut room);
    // SAFETY: the storage outlives the engine, which is not forgotten.
    let mut engine = unsafe { Engine::start_scoped(state, sim.rails(), EngineConfig::DEFAULT) }.unwrap();
    engine.serve_lanes_on_demand();
    // SAFETY: as in `Destination::register`.
    let slots = unsafe { engine.register_foreign(dest.range, BYTES as u64, Access::Host, None) }.unwrap();
    let mut slots: Vec<_> = slots.collect();
    let (mut producers, mut peers): (_, Vec<(RemoteRegion, u8)>) = (HashMap::new(), Vec::new());
    for (at, bytes) in bytes.iter_mut().enumerate() {
        let byte = at as u8 | 1;
        bytes.fill(byte);
        let (handle, of) = (sim.add_peer().unwrap(), at as u32 + 1);
        sim.publish(handle, common::BASE, bytes, keys(of)).unwrap();
        let peer = engine.add_peer().unwrap();
        let page_bytes = BYTES as u64;
        let offer = RegionOffer {
            base: common::BASE,
            page_bytes,
            stride: page_bytes,
            slots: 1,
            keys: keys(of),
            table: None,
        };
        peers.push((engine.add_region(peer, &offer).unwrap(), byte));
        producers.insert(peer, handle);
    }

    let (mut most, mut arrived) = (0, 0);
    let mut flying = HashMap::new();
    // Twice, so that peers whose lanes were given back get lanes again.
    let mut next = peers.iter().chain(&peers).peekable();
    while next.peek().is_some() || engine.in_flight() > 0 {
        while let (Some(&&(ref region, byte)), Some(slot)) = (next.peek(), slots.pop()) {
            let Some(mut batch) = engine.batch() else {
                slots.push(slot);
                break;
            };
            batch.read(region.unvalidated(0).unwrap(), slot).unwrap();
            let ticket = engine.submit(batch, sim.now(), sim.now() + Nanos::from_secs(1)).unwrap();
            flying.insert(ticket, byte);
            next.next();
        }
        engine.poll(sim.now());
        control(&mut engine, &sim, &producers, &mut most);
        while let Some(mut done) = engine.next_done() {
            let byte = flying.remove(&done.ticket()).unwrap();
            for page in done.pages() {
                assert_eq!(page.result, Ok(()));
                assert!(common::all_equal(&page.slot, BYTES, byte));
                slots.push(page.slot);
                arrived += 1;
            }
        }
        let until = sim.now() + Nanos::from_millis(1);
        engine.wait(sim.now(), until);
    }
    assert_eq!((arrived, most), (2 * PEERS, BUDGET), "all of the budget was used, and no more");
    assert_eq!(engine.rail_stats(RailIndex(0)).unwrap().lanes_failed, 0, "giving back is no failure");
}

/// An engine over one rail of the model, with one peer that has no lane yet.
macro_rules! one_peer {
    ($engine:ident, $sim:ident, $owner:ident, $peer:ident, $region:ident, $slots:ident) => {
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let $sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(1)).unwrap();
        let $owner = Owner::new(&$sim, &mut bytes[0], 5);
        let dest = Destination::new(16, PAGE);
        let mut state = Box::new(SmallState::new());
        let mut $engine = start(&mut state, &$sim, EngineConfig::DEFAULT);
        $engine.serve_lanes_on_demand();
        let mut $slots = dest.register(&mut $engine, PAGE);
        let ($peer, $region, _) = connect(&mut $engine, &$sim, &$owner, 0, 0, 8);
    };
}

#[test]
fn lanes_with_something_outstanding_are_kept_and_idle_ones_are_given_back() {
    one_peer!(engine, sim, owner, peer, region, slots);
    assert_eq!((engine.has_unserved_peer(sim.now()), engine.longest_idle_peer()), (false, None));
    for _ in 0..3 {
        attach(&mut engine, &sim, peer, &owner, 0, 8).unwrap();
    }
    let until = sim.now() + Nanos::from_secs(1);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 4);
    engine.submit(batch, sim.now(), until).unwrap();
    assert!(engine.outstanding() > 0);
    assert_eq!((engine.release_lanes(peer, sim.now()), engine.longest_idle_peer()), (0, None));
    settle(&mut engine, &sim, until, |mut done| {
        assert!(done.pages().all(|page| page.result == Ok(())));
    });
    let (idle, since) = engine.longest_idle_peer().unwrap();
    assert_eq!((idle, engine.next_lost_lane()), (peer, None));
    let a_second = Nanos::from_secs(1);
    let soon = since + Nanos(a_second.0 - 1);
    assert_eq!(engine.release_lanes_idle_for(a_second, soon), 0, "not yet");
    assert_eq!(engine.release_lanes_idle_for(a_second, since + a_second), 3);
    assert_eq!((engine.lanes_to(peer), engine.lanes_on(RailIndex(0))), (0, (3, 3)));
    assert_eq!(std::iter::from_fn(|| engine.next_lost_lane()).count(), 3);
    while engine.lanes_dying() > 0 {
        engine.poll(sim.now());
        engine.wait(sim.now(), sim.now() + a_second);
    }
    assert_eq!(engine.lanes_on(RailIndex(0)), (0, 0));
    // Lanes that were given back are not requested again by themselves.
    assert_eq!(
        (engine.next_wanted_lane(Time(1 << 40)), engine.has_unserved_peer(Time(1 << 40))),
        (None, false)
    );
    // A peer that is read from again is served again.
    let until = sim.now() + a_second;
    let batch = fill(&mut engine, &owner, &region, &mut slots, 4);
    engine.submit(batch, sim.now(), until).unwrap();
    assert_eq!(engine.next_unserved_peer(sim.now()), Some(peer));
    attach(&mut engine, &sim, peer, &owner, 0, 8).unwrap();
    let mut arrived = 0;
    settle(&mut engine, &sim, until, |mut done| {
        arrived += done.pages().filter(|page| page.result == Ok(())).count();
    });
    assert_eq!(arrived, 4);
}

#[test]
fn pages_that_get_no_lane_fail_at_their_deadline_and_say_so() {
    one_peer!(engine, sim, owner, peer, region, slots);
    let deadline = sim.now() + Nanos::from_millis(500);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 2);
    engine.submit(batch, sim.now(), deadline).unwrap();
    let mut named = Vec::new();
    let mut results = Vec::new();
    while results.is_empty() {
        engine.poll(sim.now());
        while let Some(wanting) = engine.next_unserved_peer(sim.now()) {
            assert_eq!(wanting, peer);
            named.push(sim.now());
            assert_eq!(engine.next_unserved_peer(sim.now()), None, "once at a time");
            engine.first_lanes_unavailable(peer, sim.now());
        }
        if let Some(mut done) = engine.next_done() {
            results.extend(done.pages().map(|page| page.result));
        }
        engine.wait(sim.now(), deadline);
    }
    assert_eq!(results, [Err(PageError::NoLane { deadline }); 2]);
    assert!(results[0].unwrap_err().to_string().contains("without a lane"));
    // With the back-off of a path that fails: 10 ms, 20 ms, 40 ms and so on.
    let pauses: Vec<_> = named.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!((4..=6).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.windows(2).all(|pair| pair[1].0 * 2 >= pair[0].0 * 3), "they grow: {pauses:?}");
    // Nothing waits any more, so no lane is wanted.
    assert_eq!(engine.next_unserved_peer(sim.now() + Nanos::from_secs(10)), None);
}

#[test]
fn lost_lanes_of_a_peer_that_has_nothing_to_read_can_be_forgone() {
    one_peer!(engine, sim, owner, peer, region, slots);
    let (_, lane) = attach(&mut engine, &sim, peer, &owner, 0, 8).unwrap();
    sim.apply(sim::Action::FailLane(lane));
    let later = sim.now() + Nanos::from_secs(5);
    while engine.next_lost_lane().is_none() {
        engine.poll(sim.now());
        engine.wait(sim.now(), later);
    }
    let wanted = engine.next_wanted_lane(later).unwrap();
    assert!(engine.forgo_lost_lanes(wanted.peer));
    assert_eq!(engine.next_wanted_lane(later), None);
    let until = sim.now() + Nanos::from_secs(1);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 1);
    engine.submit(batch, sim.now(), until).unwrap();
    assert!(!engine.forgo_lost_lanes(peer), "it has something to read");
    assert_eq!(engine.next_unserved_peer(sim.now()), Some(peer));
    attach(&mut engine, &sim, peer, &owner, 0, 8).unwrap();
    settle(&mut engine, &sim, until, |mut done| assert!(done.pages().all(|page| page.result == Ok(()))));
    assert_eq!(engine.in_flight(), 0);
}
