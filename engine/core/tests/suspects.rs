//! Suspects, the wrs whose completion killed a lane: how they are tried alone, which pages are set
//! aside, and which are not.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::batch::Class;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::error::PageError;
use kvrail_core::id::RailIndex;
use kvrail_core::memory::Slots;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, Delay, FailedRanges, Fate, Sim};

/// Reads the first two pages.
fn read<'m>(
    engine: &mut Engine<'_, sim::SimRails<'m>>,
    sim: &Sim<'m>,
    owner: &Owner,
    region: &RemoteRegion,
    slots: &mut Slots,
) -> (Result<(), PageError>, Result<(), PageError>) {
    let batch = fill(engine, owner, region, slots, 2);
    let until = sim.now() + Nanos::from_secs(1);
    engine.submit(batch, sim.now(), until).unwrap();
    let mut results = Vec::new();
    settle(engine, sim, until, |mut done| results.extend(done.pages().map(|page| page.result)));
    (results[0], results[1])
}

#[test]
fn a_page_that_is_set_aside_is_read_again_after_a_while() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(8), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let config =
        EngineConfig { chunk_bytes: 16_384, set_aside: Nanos::from_millis(500), ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 1, 4, 8);
    let first = FailedRanges { offset: 0, len: 1, stride: 1, count: 1 };
    sim.apply(Action::FailMemory(owner.memory, first));
    let (bad, good) = read(&mut engine, &sim, &owner, &region, &mut slots);
    assert!(matches!(bad, Err(PageError::Fault { status: WcStatus::REM_OP_ERR, .. })), "{bad:?}");
    assert_eq!(good, Ok(()));
    let (bad, good) = read(&mut engine, &sim, &owner, &region, &mut slots);
    let Err(PageError::SetAside { whole_region: false, until, remote_addr: BASE, .. }) = bad else {
        panic!("{bad:?}")
    };
    assert_eq!(good, Ok(()), "another page of the region is read");
    let text = bad.unwrap_err().to_string();
    assert!(text.contains("REM_OP_ERR") && text.contains(&until.0.to_string()), "{text}");
    let lanes = engine.rail_stats(RailIndex(0)).unwrap().lanes_failed;
    assert_eq!(lanes, 2, "one lane with other wrs, one with the suspect alone");
    // The memory has been mended.
    sim.apply(Action::FailMemory(owner.memory, FailedRanges::NOTHING));
    sim.advance_to(until);
    assert_eq!(read(&mut engine, &sim, &owner, &region, &mut slots), (Ok(()), Ok(())));
    let stats = engine.peer_stats(peer).unwrap();
    assert_eq!((stats.pages, stats.faults), (4, 2));
}

#[test]
fn a_rail_that_dies_while_a_suspect_is_tried_there_makes_no_page_faulty() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let model = sim::SimConfig { retry: Nanos::from_millis(1), ..sim::SimConfig::new(8) };
    let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let config =
        EngineConfig { chunk_bytes: 16_384, backoff_min: Nanos::from_millis(1), ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 2, 1, 8);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 4);
    engine.submit(batch, sim.now(), LATE).unwrap();
    // First one rail stops answering, then the other, on which the suspects of the first are tried.
    for rail in 0..2 {
        sim.apply(Action::RailDown { rail: RailIndex(rail), told: false });
    }
    while engine.rail_stats(RailIndex(0)).unwrap().lanes_failed
        + engine.rail_stats(RailIndex(1)).unwrap().lanes_failed
        < 2
    {
        engine.wait(sim.now(), LATE);
        engine.poll(sim.now());
        assert!(sim.now() < LATE);
    }
    for round in 0..3 {
        for rail in 0..2 {
            sim.apply(Action::RailUp { rail: RailIndex(rail), told: true });
        }
        attach(&mut engine, &sim, peer, &owner, round % 2, 8).unwrap();
        // The lane is chosen, and a suspect posted on it.
        for _ in 0..3 {
            engine.poll(sim.now());
        }
        for rail in 0..2 {
            sim.apply(Action::RailDown { rail: RailIndex(rail), told: false });
        }
        let until = sim.now() + Nanos::from_millis(50);
        settle(&mut engine, &sim, until, |_| {});
    }
    for rail in 0..2 {
        sim.apply(Action::RailUp { rail: RailIndex(rail), told: true });
        attach(&mut engine, &sim, peer, &owner, rail, 8).unwrap();
    }
    let mut results = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| results.extend(done.pages().map(|page| page.result)));
    assert_eq!(results, [Ok(()); 4]);
}

/// The page that is set aside is the last of its segment, which is posted one chunk at a time while
/// urgent work has most turns. So the batch may be done before the segment has another turn.
#[test]
fn a_batch_whose_last_page_is_set_aside_leaves_nothing_waiting() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(8), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(160, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { chunk_bytes: 4096, rail_wrs: 1, ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 4, 8);
    let place = 3_usize;
    let failed = FailedRanges { offset: (place * STRIDE) as u64, len: 1, stride: 1, count: 1 };
    sim.apply(Action::FailMemory(owner.memory, failed));
    let mut results = Vec::new();
    for pages in [1, 4, 3, 2] {
        let mut batch = engine.batch().unwrap();
        batch.set_class(Class::Background);
        batch.set_tag(1);
        for i in (0..pages).rev() {
            let location = owner.location(place - i);
            batch.read(region.page(location).unwrap(), slots.next().unwrap()).unwrap();
        }
        engine.submit(batch, sim.now(), LATE).unwrap();
        for first in 5..9 {
            let mut urgent = engine.batch().unwrap();
            for i in 0..8 {
                let location = owner.location(first + i % 8);
                urgent.read(region.page(location).unwrap(), slots.next().unwrap()).unwrap();
            }
            engine.submit(urgent, sim.now(), LATE).unwrap();
        }
        let before = results.len();
        settle(&mut engine, &sim, LATE, |mut done| {
            let good = done.tag() == 1;
            results.extend(done.pages().map(|page| page.result).filter(|_| good));
        });
        assert_eq!(results.len() - before, pages, "the batch is done");
        let (last, others) = results[before..].split_last().unwrap();
        assert!(others.iter().all(Result::is_ok) && last.is_err(), "{results:?}");
    }
}

/// Another READ of a page in the middle of a row, which waits to be validated together, finds the
/// page faulty: the pages behind it in the row are validated all the same.
#[test]
fn a_page_that_is_set_aside_in_the_middle_of_a_row_leaves_the_rest_of_the_row() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let model = sim::SimConfig { flush: Delay::fixed(Nanos::from_millis(2)), ..sim::SimConfig::new(8) };
    let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { chunk_bytes: 16_384, ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_region(peer, &owner.offer()).unwrap();
    let (_, second) = attach(&mut engine, &sim, peer, &owner, 1, 8).unwrap();
    let status = WcStatus::REM_ACCESS_ERR;
    sim.script(second, Fate::Status { nth: 0, status }).unwrap();
    let mut batch = engine.batch().unwrap();
    batch.read(region.page(owner.location(1)).unwrap(), slots.next().unwrap()).unwrap();
    engine.submit(batch, sim.now(), LATE).unwrap();
    // The lane fails, and is asked to drain.
    let step = |micros| sim.advance_to(sim.now() + Nanos::from_micros(micros));
    while engine.lanes_dying() == 0 {
        step(1);
        engine.poll(sim.now());
    }
    step(1_000);
    engine.poll(sim.now());
    // A row of four by the first rail. One poll takes their completions and that of the drain, in
    // this order.
    attach(&mut engine, &sim, peer, &owner, 0, 8).unwrap();
    let batch = fill(&mut engine, &owner, &region, &mut slots, 4);
    engine.submit(batch, sim.now(), LATE).unwrap();
    step(5_000);
    let mut results = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| {
        results.push(done.pages().map(|page| page.result).collect::<Vec<_>>());
    });
    results.sort_by_key(Vec::len);
    assert!(matches!(results[0][..], [Err(PageError::Fault { .. })]), "{results:?}");
    let [Ok(()), Err(PageError::SetAside { .. }), Ok(()), Ok(())] = results[1][..] else {
        panic!("{results:?}")
    };
}

const LATE: Time = Time(10_000_000_000);

/// The first page of a row whose entries are being read is set aside, and then the lane fails that
/// reads them: the others of the row are validated by another lane, and are no misses.
#[test]
fn a_row_whose_first_page_is_set_aside_while_its_entries_are_read_is_read_again_when_its_lane_fails() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let model = sim::SimConfig { retry: Nanos::from_millis(5), ..sim::SimConfig::new(8) };
    let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { chunk_bytes: 16_384, ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_region(peer, &owner.offer()).unwrap();
    attach(&mut engine, &sim, peer, &owner, 0, 8).unwrap();
    let row = fill(&mut engine, &owner, &region, &mut slots, 4);
    engine.submit(row, sim.now(), LATE).unwrap();
    // The data of the row has arrived and the READ of its entries is posted; then the rail stops
    // answering.
    let step = |micros| sim.advance_to(sim.now() + Nanos::from_micros(micros));
    while engine.rail_stats(RailIndex(0)).unwrap().posted < 5 {
        step(1);
        engine.poll(sim.now());
    }
    sim.apply(Action::RemoteRailDown(owner.peer, RailIndex(0)));
    let (_, second) = attach(&mut engine, &sim, peer, &owner, 1, 8).unwrap();
    sim.script(second, Fate::Status { nth: 0, status: WcStatus::REM_ACCESS_ERR }).unwrap();
    let same = fill(&mut engine, &owner, &region, &mut slots, 1);
    engine.submit(same, sim.now(), LATE).unwrap();
    step(2_000);
    engine.poll(sim.now());
    step(1_000);
    engine.poll(sim.now());
    attach(&mut engine, &sim, peer, &owner, 1, 8).unwrap();
    let mut results = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| {
        results.push(done.pages().map(|page| page.result).collect::<Vec<_>>());
    });
    results.sort_by_key(Vec::len);
    assert!(matches!(results[0][..], [Err(PageError::Fault { .. })]), "{results:?}");
    let [Err(PageError::SetAside { .. }), Ok(()), Ok(()), Ok(())] = results[1][..] else {
        panic!("{results:?}")
    };
}

/// A suspect is tried at once if a lane is idle, however long the engine may sleep.
#[test]
fn a_suspect_does_not_wait_for_a_lane_that_is_idle() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let model = sim::SimConfig { close: Delay::fixed(Nanos::from_millis(50)), ..sim::SimConfig::new(8) };
    let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { chunk_bytes: 16_384, ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, lanes) = connect(&mut engine, &sim, &owner, 2, 1, 8);
    // The lane by which it goes first fails.
    for lane in lanes {
        sim.script(lane, Fate::Status { nth: 0, status: WcStatus::REM_OP_ERR }).unwrap();
    }
    let batch = fill(&mut engine, &owner, &region, &mut slots, 1);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let begun = sim.now();
    settle(&mut engine, &sim, LATE, |_| ());
    let took = sim.now().since(begun);
    assert!(took < Nanos::from_millis(2), "{took:?}");
}

/// Two suspects, and lanes that fail for both of them: the suspects take turns.
#[test]
fn a_suspect_that_fails_again_and_again_does_not_keep_another_from_being_tried() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let model = sim::SimConfig { retry: Nanos::from_millis(1), ..sim::SimConfig::new(8) };
    let sim = Sim::new(&mut storage, model, &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { chunk_bytes: 16_384, ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, lanes) = connect(&mut engine, &sim, &owner, 1, 2, 8);
    for (tag, lane) in (0..).zip(lanes) {
        sim.script(lane, Fate::Status { nth: 0, status: WcStatus::REM_OP_ERR }).unwrap();
        let mut batch = engine.batch().unwrap();
        let location = owner.location(tag as usize);
        batch.read(region.page(location).unwrap(), slots.next().unwrap()).unwrap();
        batch.set_tag(tag);
        engine.submit(batch, sim.now(), LATE).unwrap();
    }
    let settle_down = |engine: &mut Engine<'_, _>| {
        for _ in 0..200 {
            sim.advance_to(sim.now() + Nanos::from_micros(500));
            engine.poll(sim.now());
        }
        assert_eq!((engine.outstanding(), engine.in_flight()), (0, 2));
    };
    settle_down(&mut engine);
    for _ in 0..2 {
        let (_, lane) = attach(&mut engine, &sim, peer, &owner, 0, 8).unwrap();
        sim.script(lane, Fate::Status { nth: 0, status: WcStatus::RETRY_EXC_ERR }).unwrap();
        settle_down(&mut engine);
    }
    attach(&mut engine, &sim, peer, &owner, 0, 8).unwrap();
    let mut tags = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| {
        assert!(done.pages().all(|page| page.result.is_ok()));
        tags.push(done.tag());
    });
    // The lane with the second batch has failed first.
    assert_eq!(tags, [1, 0], "the first was tried first, and then the other, and then the first again");
}

/// A READ gets no answer, and is tried alone over a path of its peer. What carries READs meanwhile
/// decides whether its page is faulty.
struct Unanswered<'e, 's, 'm> {
    engine: Engine<'s, sim::SimRails<'m>>,
    sim: &'m Sim<'m>,
    owner: &'e Owner,
    region: RemoteRegion,
    /// A peer behind the same rails.
    other: (&'e Owner, RemoteRegion),
    slots: Slots,
    spare: Vec<kvrail_core::memory::Slot>,
    peer: kvrail_core::id::PeerId,
    result: Option<Result<(), PageError>>,
}

/// The tag of the batch with the page that gets no answer.
const TRIED: u64 = 1;

/// The peer has one lane over rail 0, and the READ that kills it is under way. The other peer has
/// two lanes over rail 1.
fn with_unanswered(scenario: impl FnOnce(&mut Unanswered<'_, '_, '_>)) {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(2);
    let model = sim::SimConfig { retry: Nanos::from_millis(1), ..sim::SimConfig::new(8) };
    let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
    let [one, two] = &mut bytes[..] else { panic!("two owners") };
    let (owner, other) = (Owner::new(&sim, one, 5), Owner::new(&sim, two, 6));
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { chunk_bytes: 16_384, ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots = dest.register(&mut engine, PAGE);
    let (peer, region, lanes) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    sim.script(lanes[0], Fate::Status { nth: 0, status: WcStatus::RETRY_EXC_ERR }).unwrap();
    let (other_peer, other_region, _) = connect(&mut engine, &sim, &other, 0, 0, 8);
    for _ in 0..2 {
        attach(&mut engine, &sim, other_peer, &other, 1, 8).unwrap();
    }
    let mut batch = fill(&mut engine, &owner, &region, &mut slots, 1);
    batch.set_tag(TRIED);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let (other, spare) = ((&other, other_region), Vec::new());
    let mut world =
        Unanswered { engine, sim: &sim, owner: &owner, region, other, slots, spare, peer, result: None };
    scenario(&mut world);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

impl<'m> Unanswered<'_, '_, 'm> {
    fn attach(&mut self, rail: u8) -> sim::LaneHandle {
        attach(&mut self.engine, self.sim, self.peer, self.owner, rail, 8).unwrap().1
    }

    /// Goes on until the suspect has been posted over `rail`, and nothing else of the peer.
    fn until_tried_on(&mut self, rail: u8) {
        while self.engine.rail_stats(RailIndex(rail)).unwrap().reposted == 0 {
            self.engine.wait(self.sim.now(), LATE);
            self.engine.poll(self.sim.now());
            assert!(self.sim.now() < LATE && self.engine.next_done().is_none());
        }
    }

    /// Keeps both peers busy until the page has its result, and returns it.
    fn under_load(&mut self) -> Result<(), PageError> {
        while self.result.is_none() {
            while self.engine.in_flight() < 5
                && let Some(mut batch) = self.engine.batch()
            {
                let (owner, region) = if self.engine.in_flight() % 2 == 0 {
                    (self.owner, &self.region)
                } else {
                    (self.other.0, &self.other.1)
                };
                for slot in 1..4 {
                    let into = self.spare.pop().or_else(|| self.slots.next()).unwrap();
                    batch.read(region.page(owner.location(slot)).unwrap(), into).unwrap();
                }
                self.engine.submit(batch, self.sim.now(), LATE).unwrap();
            }
            self.engine.wait(self.sim.now(), self.sim.now() + Nanos::from_micros(20));
            self.engine.poll(self.sim.now());
            while let Some(mut done) = self.engine.next_done() {
                let tried = done.tag() == TRIED;
                for page in done.pages() {
                    if tried {
                        self.result = Some(page.result);
                    }
                    self.spare.push(page.slot);
                }
            }
            assert!(self.sim.now() < LATE, "the page never ends");
        }
        self.result.take().unwrap()
    }
}

/// The peer carries READs over its other rail, and the rail carries READs of another peer: neither
/// says that the path between the two was fine.
#[test]
fn a_port_of_the_peer_that_goes_down_while_a_page_is_tried_makes_the_page_not_faulty() {
    with_unanswered(|world| {
        for rail in [1, 1, 0] {
            world.attach(rail);
        }
        world.until_tried_on(1);
        world.sim.apply(Action::RemoteRailDown(world.owner.peer, RailIndex(1)));
        assert_eq!(world.under_load(), Ok(()), "it is read over the other rail");
        assert_eq!(world.engine.peer_stats(world.peer).unwrap().faults, 0);
    });
}

/// Other lanes of the same path carry READs all the time, so the page is the cause.
#[test]
fn a_page_that_gets_no_answer_over_a_path_that_carries_other_reads_is_faulty() {
    with_unanswered(|world| {
        let tried = world.attach(0);
        world.sim.script(tried, Fate::Status { nth: 0, status: WcStatus::RETRY_EXC_ERR }).unwrap();
        let posted = world.engine.rail_stats(RailIndex(0)).unwrap().reposted;
        assert_eq!(posted, 0);
        world.until_tried_on(0);
        for _ in 0..2 {
            world.attach(0);
        }
        let result = world.under_load();
        assert!(
            matches!(result, Err(PageError::Fault { status: WcStatus::RETRY_EXC_ERR, .. })),
            "{result:?}"
        );
    });
}
