//! Consecutive entries of the publication table are read together, and each decides about its own
//! page.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::error::PageError;
use kvrail_core::id::{MAX_RAILS, PeerId, RailIndex};
use kvrail_core::remote::RemoteRegion;
use kvrail_core::table::{ENTRY_BYTES, Miss};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, Fate, Sim};

/// A page is one chunk, and no region is set aside.
const CONFIG: EngineConfig =
    EngineConfig { chunk_bytes: 16_384, region_faults: u16::MAX, ..EngineConfig::DEFAULT };
const LATE: Time = Time(1_000_000_000);

/// Reads `slots` of the owner in one batch over one rail with one lane.
struct Bench<'s, 'm> {
    sim: &'m Sim<'m>,
    engine: kvrail_core::engine::Engine<'s, sim::SimRails<'m>>,
    slots: kvrail_core::memory::Slots,
    peer: PeerId,
    region: RemoteRegion,
    lane: sim::LaneHandle,
}

impl<'s, 'm> Bench<'s, 'm> {
    fn new(state: &'s mut SmallState, sim: &'m Sim<'m>, owner: &Owner, dest: &Destination) -> Self {
        Self::with(state, sim, owner, dest, CONFIG)
    }

    fn with(
        state: &'s mut SmallState,
        sim: &'m Sim<'m>,
        owner: &Owner,
        dest: &Destination,
        config: EngineConfig,
    ) -> Self {
        let mut engine = start(state, sim, config);
        let slots = dest.register(&mut engine, PAGE);
        let (peer, region, lanes) = connect(&mut engine, sim, owner, 1, 1, 32);
        Self { sim, engine, slots, peer, region, lane: lanes[0] }
    }

    fn submit(&mut self, owner: &Owner, slots: &[usize]) {
        let mut batch = self.engine.batch().unwrap();
        for &slot in slots {
            batch.read(self.region.page(owner.location(slot)).unwrap(), self.slots.next().unwrap()).unwrap();
        }
        self.engine.submit(batch, self.sim.now(), LATE).unwrap();
    }

    fn results(&mut self) -> Vec<Result<(), PageError>> {
        let mut results = Vec::new();
        settle(&mut self.engine, self.sim, LATE, |mut done| {
            results.extend(done.pages().map(|page| page.result));
        });
        assert!(self.sim.violations().is_empty(), "{:?}", self.sim.violations());
        results
    }

    /// How many wrs have arrived.
    fn wrs(&self) -> u64 {
        self.engine.rail_stats(RailIndex(0)).unwrap().chunks
    }
}

#[test]
fn consecutive_entries_are_read_by_one_read() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(2 * SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut bench = Bench::new(&mut state, &sim, &owner, &dest);

    bench.submit(&owner, &(0..SLOTS).collect::<Vec<_>>());
    assert_eq!(bench.results(), [Ok(()); SLOTS]);
    assert_eq!(bench.wrs(), SLOTS as u64 + 1);

    // Rows of three, one, two, one, one and two entries: a page that is read twice, and falling
    // slots, end a row.
    let before = bench.wrs();
    let slots = [5, 6, 7, 3, 9, 10, 10, 0, 14, 15];
    bench.submit(&owner, &slots);
    assert_eq!(bench.results(), [Ok(()); 10]);
    assert_eq!(bench.wrs() - before, 10 + 6);
    let stats = bench.engine.peer_stats(bench.peer).unwrap();
    assert_eq!(stats.bytes, ((SLOTS + 10) * (PAGE + ENTRY_BYTES as usize)) as u64);
}

#[test]
fn each_page_of_a_row_is_a_hit_or_a_miss_by_its_own_entry() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(2), &rails(1)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut bench = Bench::new(&mut state, &sim, &owner, &dest);

    bench.submit(&owner, &[0, 1, 2, 3, 4]);
    owner.invalidate(&sim, 1);
    owner.invalidate(&sim, 3);
    owner.publish(&sim, 3, 77);
    let results = bench.results();
    assert_eq!((results[0], results[2], results[4]), (Ok(()), Ok(()), Ok(())));
    assert!(matches!(results[1], Err(PageError::Miss(Miss::Overwriting { .. }))), "{results:?}");
    assert!(matches!(results[3], Err(PageError::Miss(Miss::Generation { .. }))), "{results:?}");
    assert_eq!(bench.wrs(), 5 + 1);
}

#[test]
fn a_row_that_is_refused_fails_all_its_pages_and_no_others() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut bench = Bench::new(&mut state, &sim, &owner, &dest);
    let mut offer = owner.offer();
    offer.table.as_mut().unwrap().keys = [0xBAD; MAX_RAILS];
    let bad = bench.engine.add_region(bench.peer, &offer).unwrap();

    let mut batch = bench.engine.batch().unwrap();
    for slot in 0..8 {
        let region = if (2..6).contains(&slot) { bad } else { bench.region };
        batch.read(region.page(owner.location(slot)).unwrap(), bench.slots.next().unwrap()).unwrap();
    }
    // A batch of pages of two regions is not uniform, so its entries are read one by one. The
    // entries of a batch of the bad region alone are read together.
    bench.engine.submit(batch, sim.now(), LATE).unwrap();
    let mut batch = bench.engine.batch().unwrap();
    for slot in 10..14 {
        batch.read(bad.page(owner.location(slot)).unwrap(), bench.slots.next().unwrap()).unwrap();
    }
    bench.engine.submit(batch, sim.now(), LATE).unwrap();
    let mut batches = Vec::new();
    let mut lanes = 1;
    while bench.engine.in_flight() > 0 {
        settle(&mut bench.engine, &sim, sim.now() + Nanos::from_millis(1), |mut done| {
            batches.push(done.pages().map(|page| page.result).collect::<Vec<_>>());
        });
        while let Some(wanted) = bench.engine.next_wanted_lane(LATE) {
            attach(&mut bench.engine, &sim, wanted.peer, &owner, 0, 32).unwrap();
            lanes += 1;
        }
    }
    batches.sort_by_key(Vec::len);
    for result in &batches[0] {
        let Err(PageError::Fault { rkey: 0xBAD, remote_addr, len, .. }) = *result else {
            panic!("{batches:?}")
        };
        assert_eq!(
            (remote_addr, len),
            (BASE + TABLE as u64 + ENTRY_BYTES * 10, 4 * u32::try_from(ENTRY_BYTES).unwrap()),
            "the refused READ"
        );
    }
    for (slot, result) in batches[1].iter().enumerate() {
        assert_eq!(result.is_err(), (2..6).contains(&slot), "{batches:?}");
    }
    // Each refused READ cost its lane: four READs of one entry, one of four entries.
    assert!(lanes <= 1 + 5, "{lanes} lanes for five READs that were refused");
}

#[test]
fn a_row_whose_lane_dies_is_read_again_over_another() {
    let mut reposted = 0;
    let all = common::seeds::each("a_row_whose_lane_dies_is_read_again_over_another", 0..50, |seed| {
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let sim = Sim::new(&mut storage, sim::SimConfig::new(seed), &rails(2)).unwrap();
        let owner = Owner::new(&sim, &mut bytes[0], 1);
        let dest = Destination::new(SLOTS, PAGE);
        let mut state = Box::new(SmallState::new());
        let mut bench = Bench::new(&mut state, &sim, &owner, &dest);
        attach(&mut bench.engine, &sim, bench.peer, &owner, 1, 32).unwrap();
        bench.submit(&owner, &[1, 2, 3, 4, 5, 6, 7, 8]);
        if seed % 2 == 0 {
            // At that time pages are under way, or entries, or nothing.
            sim.advance_to(sim.now() + Nanos(500 * (seed % 50)));
            bench.engine.poll(sim.now());
            sim.apply(Action::FailLane(bench.lane));
        } else {
            // The first READ after those of the pages is that of their entries.
            let pages = bench.engine.rail_stats(RailIndex(0)).unwrap().posted;
            let fate = Fate::Status { nth: pages, status: WcStatus::RETRY_EXC_ERR };
            sim.script(bench.lane, fate).unwrap();
        }
        assert_eq!(bench.results(), [Ok(()); 8], "seed {seed}");
        reposted += bench.engine.rail_stats(RailIndex(1)).unwrap().reposted;
    });
    assert!(!all || reposted > 20, "{reposted} wrs were posted again: the test reaches what it is for");
}

/// Pages of three chunks.
const LONG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..CONFIG };

#[test]
fn entries_of_pages_of_several_chunks_are_read_together_and_each_decides_about_its_own() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(4), &rails(1)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(2 * SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut bench = Bench::with(&mut state, &sim, &owner, &dest, LONG);

    // One commit holds the chunks of all five pages, and its last wr alone is signaled: they arrive
    // together, and so do their entries.
    bench.submit(&owner, &[3, 4, 5, 6, 7]);
    assert_eq!(bench.results(), [Ok(()); 5]);
    assert_eq!(bench.wrs(), 5 * 3 + 1);

    // Rows of three, one and one.
    let before = bench.wrs();
    bench.submit(&owner, &[3, 4, 5, 9, 7]);
    owner.invalidate(&sim, 4);
    owner.publish(&sim, 4, 78);
    owner.invalidate(&sim, 9);
    let results = bench.results();
    assert_eq!((results[0], results[2], results[4]), (Ok(()), Ok(()), Ok(())));
    assert!(matches!(results[1], Err(PageError::Miss(Miss::Generation { .. }))), "{results:?}");
    assert!(matches!(results[3], Err(PageError::Miss(Miss::Overwriting { .. }))), "{results:?}");
    assert_eq!(bench.wrs() - before, 5 * 3 + 3);
}

/// A page whose entry is read with others' waits for its own last chunk. The chunks of a batch go
/// over several lanes of different speed, so that they end in any order, and pages are withdrawn.
#[test]
fn a_page_is_validated_after_its_last_chunk_in_whatever_order_the_chunks_of_a_row_end() {
    let (mut good, mut gone, mut saved) = (0, 0, 0);
    let all = common::seeds::each("a_page_is_validated_after_its_last_chunk", 0..60, |seed| {
        let mut rng = Rng(seed);
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let config = sim::SimConfig { pieces: 4, ..sim::SimConfig::new(seed) };
        let sim = Sim::new(&mut storage, config, &rails(2)).unwrap();
        let mut owner = Owner::new(&sim, &mut bytes[0], 1);
        let dest = Destination::new(SLOTS, PAGE);
        let mut state = Box::new(SmallState::new());
        let config = EngineConfig { run_chunks: 1 + (seed % 3) as u32, ..LONG };
        let mut bench = Bench::with(&mut state, &sim, &owner, &dest, config);
        for rail in [0, 1, 1] {
            attach(&mut bench.engine, &sim, bench.peer, &owner, rail, 32).unwrap();
        }
        let slots: Vec<usize> = (0..12).collect();
        let wanted: Vec<_> = slots.iter().map(|&slot| owner.location(slot)).collect();
        let mut batch = bench.engine.batch().unwrap();
        for &location in &wanted {
            batch.read(bench.region.page(location).unwrap(), bench.slots.next().unwrap()).unwrap();
        }
        let ticket = bench.engine.submit(batch, sim.now(), LATE).unwrap();
        // The owner overwrites one page, and the caller withdraws two, at some time.
        for _ in 0..3 {
            sim.advance_to(sim.now() + Nanos(rng.below(4_000)));
            bench.engine.poll(sim.now());
            let page = rng.below(12) as usize;
            if rng.chance(40) {
                owner.invalidate(&sim, page);
                owner.scribble(&sim, page, 0, PAGE);
            } else {
                let _ = bench.engine.withdraw_page(ticket, page, sim.now());
            }
        }
        let engine = &mut bench.engine;
        settle(engine, &sim, LATE, |mut done| {
            for page in done.pages() {
                if page.result.is_ok() {
                    good += 1;
                    let byte = owner.expected(wanted[page.index]);
                    let bytes = page.slot.bytes().unwrap();
                    assert!(bytes.iter().all(|b| *b == byte), "seed {seed}: page {}", page.index);
                } else {
                    gone += 1;
                }
            }
        });
        assert!(sim.violations().is_empty(), "seed {seed}: {:?}", sim.violations());
        let wrs: u64 = (0..2).map(|rail| engine.rail_stats(RailIndex(rail)).unwrap().chunks).sum();
        saved += (4 * 12_u64).saturating_sub(wrs);
    });
    assert!(!all || (good > 300 && gone > 50 && saved > 100), "{good} good, {gone} gone, {saved} READs less");
}
