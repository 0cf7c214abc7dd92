//! What failed memory costs: a failed page costs two lanes, a failed region a few, and good pages
//! arrive all the same.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "destination memory is owned by the test and outlives the engine")]

mod common;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::error::PageError;
use kvrail_core::id::RailIndex;
use kvrail_core::memory::{Access, Slot};
use kvrail_core::remote::{RegionOffer, RemotePage};
use kvrail_core::storage::EngineStorage;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Action, FailedRanges, Sim};

const RAILS: u8 = 2;
const LANES: usize = 4;
const BATCH: usize = 16;
const IN_FLIGHT: usize = 4;
const BYTES: u64 = 4096;

/// The results of a run of batches.
#[derive(Debug, Default)]
struct Given {
    good: u64,
    faults: u64,
    set_aside: u64,
    lanes_failed: u64,
}

/// A page: its region, and its place there.
type Place = (usize, u32);

/// Runs batches over regions of the given numbers of pages, each a memory of its own. `pick` gives
/// the page at each position of the n-th batch.
fn run(
    seed: u64,
    regions: &[u32],
    befall: impl Fn(&Sim<'_>, &[sim::MemoryHandle]),
    pick: impl Fn(&mut Rng, usize) -> Place,
    time: Nanos,
) -> Given {
    let mut storage = Box::new(sim::SimStorage::<4, 4, 64, 64, 1024>::new());
    let mut bytes: Vec<Vec<u8>> =
        regions.iter().map(|&pages| vec![0; (u64::from(pages) * BYTES) as usize]).collect();
    let model = sim::SimConfig { copy_up_to: 64, ..sim::SimConfig::new(seed) };
    let rail = sim::RailSpec {
        cq_entries: 1024,
        rate: sim::Rate::bytes_per_sec(1 << 30),
        ..sim::RailSpec::GBITS_400
    };
    let sim = Sim::new(&mut storage, model, &[rail; RAILS as usize]).unwrap();
    let peer_key = sim.add_peer().unwrap();
    let memories: Vec<_> = bytes
        .iter_mut()
        .zip(1..)
        .map(|(bytes, number)| sim.publish(peer_key, BASE * u64::from(number), bytes, keys(number)).unwrap())
        .collect();
    befall(&sim, &memories);

    let dest = Destination::new(BATCH * IN_FLIGHT, BYTES as usize);
    let mut state = Box::new(EngineStorage::<2, 4, 64, 64, 8, BATCH>::new());
    // SAFETY: the storage is declared before the engine, which is not forgotten.
    let mut engine = unsafe {
        Engine::start_scoped(
            &mut *state,
            sim.rails(),
            EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT },
        )
    }
    .unwrap();
    // SAFETY: the destination outlives the engine, and only the slots give access to it.
    let slots = unsafe { engine.register_foreign(dest.range, BYTES, Access::Host, None) }.unwrap();
    let mut free: Vec<Slot> = slots.collect();
    let peer = engine.add_peer().unwrap();
    let regions: Vec<_> = (1..)
        .zip(regions)
        .map(|(number, &slots)| {
            let base = BASE * u64::from(number);
            let offer = RegionOffer {
                base,
                page_bytes: BYTES,
                stride: BYTES,
                slots,
                keys: keys(number),
                table: None,
            };
            engine.add_region(peer, &offer).unwrap()
        })
        .collect();
    let attach = |engine: &mut Engine<'_, sim::SimRails<'_>>, rail: u8| {
        let spec = sim::SimLaneSpec { sq_entries: 64, rd_atomic: 16 };
        let qp = sim.connect(RailIndex(rail), peer_key, RailIndex(rail), spec).unwrap();
        engine
            .attach(peer, LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth: 64 }, qp, sim.now())
            .unwrap();
    };
    for i in 0..LANES {
        attach(&mut engine, i as u8 % RAILS);
    }

    let (mut rng, mut given) = (Rng(seed), Given::default());
    let end = Time(0) + time;
    let late = Nanos::from_secs(100);
    while sim.now() < end {
        while engine.in_flight() < IN_FLIGHT && free.len() >= BATCH {
            let mut batch = engine.batch().unwrap();
            for position in 0..BATCH {
                let (region, place) = pick(&mut rng, position);
                let page: RemotePage = regions[region].unvalidated(place).unwrap();
                batch.read(page, free.pop().unwrap()).unwrap();
            }
            engine.submit(batch, sim.now(), sim.now() + late).unwrap();
        }
        if free.len() < BATCH * (IN_FLIGHT - engine.in_flight()) {
            // Some batches fail at once, which takes no model time.
            sim.advance_to(sim.now() + Nanos::from_micros(20));
        }
        engine.wait(sim.now(), end);
        engine.poll(sim.now());
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            attach(&mut engine, wanted.rail.0);
        }
        while let Some(mut done) = engine.next_done() {
            for page in done.pages() {
                match page.result {
                    Ok(()) => given.good += 1,
                    Err(PageError::Fault { status, .. }) => {
                        assert!(status.is_answer(), "{status}");
                        given.faults += 1;
                    }
                    Err(PageError::SetAside { .. }) => given.set_aside += 1,
                    Err(other) => panic!("{other}"),
                }
                free.push(page.slot);
            }
        }
    }
    for rail in 0..RAILS {
        given.lanes_failed += engine.rail_stats(RailIndex(rail)).unwrap().lanes_failed;
    }
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    given
}

/// The failed ranges of `count` pages from number `first` on.
fn bad(first: u32, count: u32) -> FailedRanges {
    FailedRanges { offset: u64::from(first) * BYTES, len: BYTES, stride: BYTES, count: count.into() }
}

/// How long a run takes, in model time.
const TIME: Nanos = Nanos::from_secs(2);

/// A run takes seconds, so there is one.
const SEEDS: std::ops::Range<u64> = 7..8;

#[test]
fn one_page_whose_memory_has_failed_costs_two_lanes_and_nothing_else() {
    common::seeds::each("one_page_whose_memory_has_failed_costs_two_lanes_and_nothing_else", SEEDS, |seed| {
        // The first page of the first batch; and, worse, of every batch, so that up to four are
        // posted at once.
        let good = |rng: &mut Rng| (0, 1 + rng.below(1023) as u32);
        let none = run(seed, &[1024], |_, _| {}, |rng, _| good(rng), TIME);
        let poison = |sim: &Sim<'_>, memories: &[sim::MemoryHandle]| {
            sim.apply(Action::FailMemory(memories[0], bad(0, 1)));
        };
        let asked = std::cell::Cell::new(false);
        let once = |rng: &mut Rng, _| if asked.replace(true) { good(rng) } else { (0, 0) };
        let given = run(seed, &[1024], poison, once, TIME);
        println!("no page bad: {none:?}; one: {given:?}");
        assert!(given.lanes_failed <= 3 && given.faults == 1, "{given:?}");
        assert!(given.good * 100 >= none.good * 98, "{} of {}", given.good, none.good);

        let always = |rng: &mut Rng, position| if position == 0 { (0, 0) } else { good(rng) };
        let given = run(seed, &[1024], poison, always, TIME);
        // In the other run a good page is at the place of the bad one.
        let share = none.good / BATCH as u64 * (BATCH as u64 - 1);
        println!("one in each batch: {given:?}, none bad: {share}");
        assert!(given.lanes_failed <= IN_FLIGHT as u64, "{given:?}");
        assert!(given.set_aside > 10_000 && given.good * 100 >= share * 98, "{} of {share}", given.good);
    });
}

#[test]
fn sixty_four_bad_pages_among_ten_thousand_do_not_cost_sixty_four_times_as_much() {
    common::seeds::each(
        "sixty_four_bad_pages_among_ten_thousand_do_not_cost_sixty_four_times_as_much",
        SEEDS,
        |seed| {
            const BAD: u32 = 64;
            const ALL: u32 = 10_000;
            let any = |rng: &mut Rng, _: usize| {
                let at = rng.below(ALL.into()) as u32;
                if at < BAD { (1, at) } else { (0, at - BAD) }
            };
            let pages = [ALL - BAD, BAD];
            let second = Nanos::from_secs(1);
            let none = run(seed, &pages, |_, _| {}, any, second);
            let share = none.good * u64::from(ALL - BAD) / u64::from(ALL);
            let failed = run(
                seed,
                &pages,
                |sim, memories| sim.apply(Action::FailMemory(memories[1], bad(0, BAD))),
                any,
                second,
            );
            let deregistered =
                run(seed, &pages, |sim, memories| sim.apply(Action::Revoke(memories[1])), any, second);
            for (what, given) in [("failed", failed), ("deregistered", deregistered)] {
                println!("{BAD} of {ALL} pages, a region of their own, {what}: {given:?}, none bad: {share}");
                assert!(given.lanes_failed <= 8 && given.faults >= 3, "{given:?}");
                assert!(given.good * 100 >= share * 95, "{} of {share}", given.good);
            }
        },
    );
}

#[test]
fn a_region_that_is_bad_from_end_to_end_ends_in_a_handful_of_lanes() {
    common::seeds::each("a_region_that_is_bad_from_end_to_end_ends_in_a_handful_of_lanes", SEEDS, |seed| {
        for befall in [Action::Revoke, |memory| Action::FailMemory(memory, bad(0, 256))] {
            let any = |rng: &mut Rng, _: usize| (0, rng.below(256) as u32);
            let given =
                run(seed, &[256], |sim, memories| sim.apply(befall(memories[0])), any, Nanos::from_secs(1));
            println!("all bad: {given:?}");
            // All lanes had pages of the region outstanding when the first lane failed.
            assert!(
                given.good == 0 && given.set_aside > 0 && given.lanes_failed <= 6 + LANES as u64,
                "{given:?}"
            );
        }
    });
}
