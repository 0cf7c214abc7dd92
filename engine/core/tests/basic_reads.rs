//! Pages that arrive, pages that do not, and the errors that say why.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::batch::Class;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::AttachError;
use kvrail_core::error::{PageError, ReadError, SubmitError};
use kvrail_core::id::RailIndex;
use kvrail_core::remote::PageRangeError;
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Miss, Ready};
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Action, Fate, Sim, SimLaneSpec};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
const LATE: Time = Time(1_000_000_000);

#[test]
fn pages_arrive_whole_in_their_slots() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 2, 2, 32);

    let mut batch = engine.batch().unwrap();
    batch.set_tag(77);
    for (i, slot) in slots.enumerate() {
        batch.read(region.page(owner.location(i)).unwrap(), slot).unwrap();
    }
    assert_eq!(batch.len(), SLOTS);
    let ticket = engine.submit(batch, sim.now(), LATE).unwrap();
    let mut seen = 0;
    settle(&mut engine, &sim, LATE, |mut done| {
        assert_eq!((done.ticket(), done.tag(), done.len()), (ticket, 77, SLOTS));
        for page in done.pages() {
            page.result().unwrap();
            assert_eq!(page.index, page.slot.index(), "slots come back in the order of the batch");
            assert!(all_equal(&page.slot, PAGE, owner.expected(owner.location(page.index))));
            seen += 1;
        }
    });
    assert_eq!(seen, SLOTS);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    let stats = engine.peer_stats(peer).unwrap();
    assert_eq!((stats.pages, stats.bytes), (SLOTS as u64, (SLOTS * (PAGE + ENTRY_BYTES as usize)) as u64));
    // Three chunks a page, and at most one validating READ a page, shared by both rails.
    let chunks: Vec<u64> = (0..2).map(|r| engine.rail_stats(RailIndex(r)).unwrap().chunks).collect();
    let pages = SLOTS as u64;
    assert!((3 * pages + 1..4 * pages).contains(&chunks.iter().sum::<u64>()), "{chunks:?}");
    assert!(chunks.iter().all(|&n| n > 10), "{chunks:?}");
}

/// A peer with one page per failure, on one engine.
struct Fixture {
    sim: Box<SmallSim>,
    bytes: Vec<Vec<u8>>,
}

impl Fixture {
    fn new() -> Self {
        Self { sim: Box::new(SmallSim::new()), bytes: memory(2) }
    }
}

#[test]
fn a_page_that_changed_is_a_miss_with_its_reason() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(2), &rails(1)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 3);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);

    let stale: Vec<_> = (0..3).map(|i| owner.location(i)).collect();
    owner.invalidate(&sim, 0);
    owner.publish(&sim, 0, 9);
    owner.invalidate(&sim, 1);
    let mut swapped = stale[2];
    swapped.expected.tag.0 ^= 1;
    let expected = EntryValue { ready: Ready::WHOLE, ..EntryValue::default() };
    let forged = kvrail_core::remote::Location { slot: 3, expected };

    let mut batch = engine.batch().unwrap();
    for location in [stale[0], stale[1], swapped, forged, stale[2]] {
        batch.read(region.page(location).unwrap(), slots.next().unwrap()).unwrap();
    }
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut results = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| results.extend(done.pages().map(|page| page.result)));
    assert!(matches!(results[0], Err(PageError::Miss(Miss::Generation { .. }))), "{results:?}");
    assert!(matches!(results[1], Err(PageError::Miss(Miss::Overwriting { .. }))), "{results:?}");
    assert!(matches!(results[2], Err(PageError::Miss(Miss::Key { .. }))), "{results:?}");
    assert!(matches!(results[3], Err(PageError::Miss(_))), "{results:?}");
    assert_eq!(results[4], Ok(()), "a good page of the same batch is a hit");
    assert_eq!(engine.peer_stats(peer).unwrap().misses, 4);
}

#[test]
fn one_bad_key_in_a_stream_fails_one_page() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 2, 1, 32);
    let mut offer = owner.offer();
    offer.keys = [0xBAD; 16];
    let bad = engine.add_region(peer, &offer).unwrap();

    let mut batch = engine.batch().unwrap();
    for (i, slot) in slots.enumerate() {
        let from = if i == 7 { bad } else { region };
        batch.read(from.page(owner.location(i)).unwrap(), slot).unwrap();
    }
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut failed = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| {
        for page in done.pages() {
            match page.result {
                Ok(()) => assert!(all_equal(&page.slot, PAGE, owner.expected(owner.location(page.index)))),
                Err(error) => failed.push((page.index, error)),
            }
        }
    });
    let [(7, PageError::Fault { status, rkey: 0xBAD, len: 4096, .. })] = failed[..] else {
        panic!("{failed:?}")
    };
    assert_eq!(status.name(), "IBV_WC_REM_ACCESS_ERR");
    let text = failed[0].1.to_string();
    for part in ["4096 bytes", "0xbad", "REM_ACCESS_ERR"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn pages_slots_and_deadlines_out_of_bounds_are_refused_before_a_read_is_posted() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(4), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(20, PAGE);
    let small = Destination::new(1, PAGE - 1);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let mut small = small.register(&mut engine, PAGE - 1);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);

    let beyond = kvrail_core::remote::Location { slot: 16, ..owner.location(0) };
    assert_eq!(region.page(beyond).unwrap_err(), PageRangeError::Slot { slot: 16, slots: 16 });
    let page = region.page(owner.location(0)).unwrap();
    assert!(page.part(9_000, 1_001).is_err() && page.part(0, 0).is_err() && page.part(u32::MAX, 2).is_err());

    let empty = engine.batch().unwrap();
    assert_eq!(engine.submit(empty, sim.now(), LATE).unwrap_err().error, SubmitError::Empty);

    let mut batch = engine.batch().unwrap();
    let (error, slot) = batch.read(page, small.next().unwrap()).unwrap_err();
    assert_eq!(error, ReadError::SlotTooSmall { page_bytes: 10_000, slot_bytes: 9_999 });
    small.put(slot).unwrap();
    for _ in 0..16 {
        batch.read(page, slots.next().unwrap()).unwrap();
    }
    let (error, _slot) = batch.read(page, slots.next().unwrap()).unwrap_err();
    assert_eq!(error, ReadError::Full { capacity: 16 });

    // A deadline that is not in the future: the batch comes back with all its pages.
    let rejected = engine.submit(batch, Time(5), Time(5)).unwrap_err();
    assert_eq!(rejected.error, SubmitError::DeadlinePassed { deadline: Time(5), now: Time(5) });
    let mut batch = rejected.batch;
    assert_eq!(batch.len(), 16);
    assert_eq!(batch.clear().count(), 16);

    // A peer that has been removed.
    batch.read(page, slots.next().unwrap()).unwrap();
    engine.remove_peer(peer, sim.now()).unwrap();
    let rejected = engine.submit(batch, sim.now(), LATE).unwrap_err();
    assert_eq!(rejected.error, SubmitError::PeerGone { page: 0, peer: 0 });

    // All small slots are back, so their region can be released. The other region has slots out.
    engine.unregister(small).unwrap();
    assert!(engine.unregister(slots).is_err());
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn a_lane_with_which_the_completion_queue_could_overrun_is_refused() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let mut specs = rails(1);
    specs[0].cq_entries = 40;
    let sim = Sim::new(&mut storage, sim::SimConfig::new(5), &specs).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let (peer, _, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    let mut attach = |depth| {
        let spec = SimLaneSpec { sq_entries: depth, rd_atomic: 1 };
        let lane = sim.connect(RailIndex(0), owner.peer, RailIndex(0), spec).unwrap();
        let spec = kvrail_core::engine::LaneSpec { rail: RailIndex(0), remote_rail: 0, depth };
        engine.attach(peer, spec, lane, sim.now())
    };
    assert!(matches!(attach(9), Err(AttachError::CqFull { entries: 40, used: 32, depth: 9, .. })));
    assert!(matches!(attach(1), Err(AttachError::Depth { depth: 1, limit: 32, .. })));
    attach(8).unwrap();
}

#[test]
fn all_batches_come_back_when_all_are_in_flight() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(6), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 4);
    assert_eq!(engine.capacity(), (16, 16));
    for tag in 0..16 {
        let mut batch = engine.batch().unwrap();
        batch.set_tag(tag);
        batch.set_class(if tag % 2 == 0 { Class::Background } else { Class::Urgent });
        batch.read(region.page(owner.location(0)).unwrap(), slots.next().unwrap()).unwrap();
        engine.submit(batch, sim.now(), LATE).unwrap();
    }
    assert!(engine.batch().is_none(), "all are in flight");
    let mut order = Vec::new();
    settle(&mut engine, &sim, LATE, |done| order.push(done.tag()));
    assert_eq!(order.len(), 16);
    // Most urgent batches overtake the others, which are not starved.
    let urgent_first = order.iter().take(9).filter(|tag| *tag % 2 == 1).count();
    assert!(urgent_first >= 7, "{order:?}");
    assert_eq!(engine.batches_free(), 16);
}

#[test]
fn pages_of_a_dead_path_go_over_another_and_the_path_is_requested_again() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let config = sim::SimConfig { retry: Nanos::from_millis(20), ..sim::SimConfig::new(7) };
    let sim = Sim::new(&mut storage, config, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 2, 1, 32);
    let mut batch = engine.batch().unwrap();
    for (i, slot) in slots.enumerate() {
        batch.read(region.page(owner.location(i)).unwrap(), slot).unwrap();
    }
    engine.submit(batch, sim.now(), LATE).unwrap();
    sim.apply(Action::RailDown { rail: RailIndex(0), told: false });
    let mut ok = 0;
    settle(&mut engine, &sim, LATE, |mut done| {
        for page in done.pages() {
            page.result().unwrap();
            assert!(all_equal(&page.slot, PAGE, owner.expected(owner.location(page.index))));
            ok += 1;
        }
    });
    assert_eq!(ok, SLOTS);
    let lost = engine.rail_stats(RailIndex(0)).unwrap();
    assert_eq!((lost.lanes_failed, lost.path_faults), (1, 1));
    assert!(engine.rail_stats(RailIndex(1)).unwrap().reposted > 0);

    // The lane is requested after the back-off; it is unavailable while the rail is down, and
    // requested again after a longer back-off.
    assert!(engine.next_wanted_lane(Time::ZERO).is_none());
    let wanted = engine.next_wanted_lane(LATE).unwrap();
    assert_eq!((wanted.rail, wanted.remote_rail, wanted.failures), (RailIndex(0), 0, 1));
    assert!(engine.next_wanted_lane(LATE).is_none(), "it has been requested already");
    engine.lane_unavailable(wanted, LATE);
    assert!(engine.next_wanted_lane(LATE).is_none(), "its back-off has not passed");
    let wanted = engine.next_wanted_lane(LATE + Nanos::from_secs(3)).unwrap();
    assert_eq!(wanted.failures, 2);
    sim.apply(Action::RailUp { rail: RailIndex(0), told: false });
    attach(&mut engine, &sim, wanted.peer, &owner, 0, 32).unwrap();
    assert!(engine.next_wanted_lane(Time::NEVER).is_none(), "nothing is missing");
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn a_partial_post_and_a_lost_completion_lose_nothing() {
    for fate in [
        Fate::Prefix { nth: 0, accepted: 3, errno: 12 },
        Fate::Unknown { nth: 0, queued: 2, errno: 12 },
        Fate::Unknown { nth: 0, queued: u32::MAX, errno: 12 },
        Fate::Lost { nth: 7 },
    ] {
        let Fixture { sim: mut storage, mut bytes } = Fixture::new();
        let sim = Sim::new(&mut storage, sim::SimConfig::new(8), &rails(2)).unwrap();
        let owner = Owner::new(&sim, &mut bytes[0], 5);
        let dest = Destination::new(SLOTS, PAGE);
        let mut state = Box::new(SmallState::new());
        let config = EngineConfig { stall: Nanos::from_millis(5), drain: Nanos::from_millis(5), ..CONFIG };
        let mut engine = start(&mut state, &sim, config);
        let slots = dest.register(&mut engine, PAGE);
        let (_, region, lanes) = connect(&mut engine, &sim, &owner, 2, 1, 32);
        sim.script(lanes[0], fate).unwrap();
        let mut batch = engine.batch().unwrap();
        for (i, slot) in slots.enumerate() {
            batch.read(region.page(owner.location(i)).unwrap(), slot).unwrap();
        }
        engine.submit(batch, sim.now(), LATE).unwrap();
        let mut ok = 0;
        settle(&mut engine, &sim, LATE, |mut done| {
            for page in done.pages() {
                page.result().unwrap();
                assert!(all_equal(&page.slot, PAGE, owner.expected(owner.location(page.index))));
                ok += 1;
            }
        });
        assert_eq!(ok, SLOTS, "{fate:?}");
        assert!(sim.violations().is_empty(), "{fate:?}: {:?}", sim.violations());
    }
}

#[test]
fn a_passed_deadline_is_reported_at_once_and_slots_come_back_when_it_is_safe() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let config = sim::SimConfig { retry: Nanos::from_millis(100), ..sim::SimConfig::new(9) };
    let sim = Sim::new(&mut storage, config, &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    sim.apply(Action::PeerDown(owner.peer));
    let mut batch = engine.batch().unwrap();
    for (i, slot) in slots.enumerate() {
        batch.read(region.page(owner.location(i)).unwrap(), slot).unwrap();
    }
    let deadline = Time(1_000_000);
    let ticket = engine.submit(batch, sim.now(), deadline).unwrap();
    // The engine sleeps no longer than the deadline.
    while sim.now() < deadline {
        engine.wait(sim.now(), LATE);
        engine.poll(sim.now());
    }
    assert_eq!(sim.now(), deadline);
    assert_eq!(engine.next_overdue(), Some(ticket));
    assert_eq!(engine.next_overdue(), None);
    assert!(engine.next_done().is_none(), "READs of it are outstanding");
    assert_eq!(engine.rail_stats(RailIndex(0)).unwrap().lanes_failed, 0, "a passed deadline fails no lane");
    let mut results = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| results.extend(done.pages().map(|page| page.result)));
    assert_eq!(results.len(), SLOTS);
    for result in results {
        let Err(PageError::Deadline { missing, chunks: 3, .. }) = result else { panic!("{result:?}") };
        assert!((1..=3).contains(&missing));
    }
    assert!(sim.now() >= Time(100_000_000), "slots came back when the wrs did: {:?}", sim.now());
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn a_removed_peer_fails_its_pages_and_no_others() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(10), &rails(2)).unwrap();
    let (first, second) = bytes.split_at_mut(1);
    let owners = [Owner::new(&sim, &mut first[0], 5), Owner::new(&sim, &mut second[0], 6)];
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let slots = dest.register(&mut engine, PAGE);
    let peers: Vec<_> = owners.iter().map(|owner| connect(&mut engine, &sim, owner, 2, 1, 8)).collect();
    let mut batch = engine.batch().unwrap();
    for (i, slot) in slots.enumerate() {
        batch.read(peers[i % 2].1.page(owners[i % 2].location(i)).unwrap(), slot).unwrap();
    }
    engine.submit(batch, sim.now(), LATE).unwrap();
    engine.remove_peer(peers[0].0, sim.now()).unwrap();
    assert!(engine.remove_peer(peers[0].0, sim.now()).is_err());
    settle(&mut engine, &sim, LATE, |mut done| {
        for page in done.pages() {
            match page.index % 2 {
                0 => assert_eq!(page.result, Err(PageError::PeerGone)),
                _ => assert_eq!(page.result, Ok(())),
            }
        }
    });
    while engine.lanes_dying() > 0 {
        assert!(sim.step());
        engine.poll(sim.now());
    }
    // Its place is free again, for another peer.
    let again = engine.add_peer().unwrap();
    assert_eq!(again.index(), peers[0].0.index());
    assert_ne!(again, peers[0].0);
    assert!(engine.peer_stats(peers[0].0).is_none());
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn a_completion_of_an_earlier_life_is_dropped() {
    let Fixture { sim: mut storage, mut bytes } = Fixture::new();
    let config = sim::SimConfig {
        fail: sim::Delay::fixed(Nanos::from_micros(10)),
        close: sim::Delay::fixed(Nanos::from_micros(2_500)),
        flush: sim::Delay::fixed(Nanos::from_millis(1)),
        purge: false,
        ..sim::SimConfig::new(12)
    };
    let sim = Sim::new(&mut storage, config, &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, lanes) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    let status = kvrail_core::verbs_abi::WcStatus::RETRY_EXC_ERR;
    sim.script(lanes[0], Fate::Status { nth: 0, status }).unwrap();
    sim.script(lanes[0], Fate::DrainRefused { errno: 12 }).unwrap();
    let mut submit = |engine: &mut kvrail_core::engine::Engine<'_, sim::SimRails<'_>>, deadline| {
        let mut batch = engine.batch().unwrap();
        for i in 0..4 {
            batch.read(region.page(owner.location(i)).unwrap(), slots.next().unwrap()).unwrap();
        }
        engine.submit(batch, sim.now(), deadline).unwrap();
    };
    // The first wr fails; the lane is closed without a drain, and its completions stay in the
    // queue.
    submit(&mut engine, Time(1_200_000));
    while engine.lanes_dying() == 0 {
        assert!(sim.step());
        engine.poll(sim.now());
    }
    sim.advance_to(sim.now() + Nanos::from_micros(20));
    engine.poll(sim.now());
    sim.advance_to(sim.now() + Nanos::from_millis(3));
    engine.poll(sim.now());
    assert!(engine.next_done().is_some_and(|mut done| done.pages().all(|page| page.result.is_err())));
    assert_eq!((engine.in_flight(), engine.lanes_dying()), (0, 0));
    let before = engine.rail_stats(RailIndex(0)).unwrap();

    // Its place is used again, and its completions are not taken for those of the new lane.
    let (id, _) = attach(&mut engine, &sim, peer, &owner, 0, 32).unwrap();
    assert_eq!((id.index(), id.generation()), (0, 1 + LIVES_BEFORE));
    submit(&mut engine, LATE);
    let mut ok = 0;
    settle(&mut engine, &sim, LATE, |mut done| ok += done.pages().filter(|page| page.result.is_ok()).count());
    let after = engine.rail_stats(RailIndex(0)).unwrap();
    assert_eq!((ok, after.lanes_failed), (4, 1));
    assert!(
        after.stale > 0 && after.stale == before.stale,
        "the queue was emptied before the place was used"
    );
}

/// Starting an engine in a storage begins a life of each place.
const LIVES_BEFORE: u32 = 1;
