//! One READ brings table entries that ascend with gaps, where a READ costs more than the bytes of
//! the gaps. Each entry decides about its own page, as if it had been read alone.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::error::PageError;
use kvrail_core::id::{MAX_RAILS, PeerId, RailIndex};
use kvrail_core::memory::Slots;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::table::{ENTRY_BYTES, Miss};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, FailedRanges, Fate, Sim};

/// A page is one chunk, and no region is set aside.
const CONFIG: EngineConfig =
    EngineConfig { chunk_bytes: 16_384, region_faults: u16::MAX, ..EngineConfig::DEFAULT };
/// Pages of three chunks.
const LONG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..CONFIG };
const LATE: Time = Time(1_000_000_000);
const ENTRY: u32 = ENTRY_BYTES as u32;

/// Rails on which a READ costs as much as `read_overhead` bytes.
fn config(seed: u64, sges: u32, read_overhead: u32) -> sim::SimConfig {
    sim::SimConfig { sges, read_overhead, ..sim::SimConfig::new(seed) }
}

struct Bench<'s, 'm> {
    sim: &'m Sim<'m>,
    engine: kvrail_core::engine::Engine<'s, sim::SimRails<'m>>,
    slots: Slots,
    peer: PeerId,
    region: RemoteRegion,
    lane: sim::LaneHandle,
}

impl<'s, 'm> Bench<'s, 'm> {
    /// Over one rail with one lane.
    fn new(
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

    /// How many wrs have arrived over the first rail.
    fn wrs(&self) -> u64 {
        self.engine.rail_stats(RailIndex(0)).unwrap().chunks
    }
}

/// How many validating READs these pages take, over rails of so many pieces a READ, and how many
/// bytes these bring.
fn reads(sges: u32, read_overhead: u32, slots: &[usize]) -> (u64, u64) {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, config(1, sges, read_overhead), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut bench = Bench::new(&mut state, &sim, &owner, &dest, CONFIG);
    bench.submit(&owner, slots);
    assert!(bench.results().iter().all(Result::is_ok), "{sges} pieces, {slots:?}");
    let brought = bench.engine.peer_stats(bench.peer).unwrap().bytes - (slots.len() * PAGE) as u64;
    (bench.wrs() - slots.len() as u64, brought / ENTRY_BYTES)
}

#[test]
fn entries_with_gaps_are_read_by_one_read() {
    let slots = [0, 1, 3, 15];
    assert_eq!(reads(5, 512, &slots), (1, 16));
    assert_eq!(reads(5, 0, &slots), (3, 4), "a READ costs no more than its bytes");
    assert_eq!(reads(5, ENTRY, &slots), (2, 4 + 1), "a gap of one entry, and one that is too long");
    assert_eq!(reads(5, 11 * ENTRY - 1, &slots), (2, 4 + 1));
    assert_eq!(reads(5, 11 * ENTRY, &slots), (1, 16));
    // Falling slots, and a page that is read twice, end a READ.
    assert_eq!(reads(5, 512, &[9, 11, 10, 12, 12, 14, 3]), (4, 3 + 3 + 3 + 1));
    assert_eq!(reads(5, 512, &(0..SLOTS).collect::<Vec<_>>()), (1, 16), "no gap");
}

#[test]
fn a_read_has_no_more_pieces_than_the_rails_take() {
    let slots = [0, 2, 4, 6, 8];
    let each = |sges| reads(sges, 512, &slots);
    assert_eq!([1, 2].map(each), [(5, 5); 2], "entry by entry");
    assert_eq!([3, 4].map(each), [(3, 3 + 3 + 1); 2], "two entries each");
    assert_eq!(each(5), (2, 5 + 3), "three entries");
    // Entries that stand in a row have one piece.
    assert_eq!(reads(3, 512, &[0, 1, 2, 5, 6, 7, 9, 10]), (2, 8 + 2));
}

#[test]
fn each_page_is_a_hit_or_a_miss_by_its_own_entry() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, config(2, 5, 512), &rails(1)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(8 * 5, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut bench = Bench::new(&mut state, &sim, &owner, &dest, CONFIG);

    // Page after page of the same READ, and what stands between them, which matters to none.
    let slots = [1, 4, 5, 9, 10];
    let mut read = 0;
    for wrong in [1, 4, 5, 9, 10, 2, 7, 8] {
        bench.submit(&owner, &slots);
        owner.invalidate(&sim, wrong);
        if wrong % 2 == 0 {
            owner.publish(&sim, wrong, 77);
        }
        read += 5 + 1;
        for (slot, result) in slots.iter().zip(bench.results()) {
            if *slot != wrong {
                assert_eq!(result, Ok(()), "page {slot} while {wrong} is wrong");
            } else if wrong % 2 == 0 {
                assert!(matches!(result, Err(PageError::Miss(Miss::Generation { .. }))), "{result:?}");
            } else {
                assert!(matches!(result, Err(PageError::Miss(Miss::Overwriting { .. }))), "{result:?}");
                owner.publish(&sim, wrong, 78);
            }
        }
        assert_eq!(bench.wrs(), read);
    }
}

#[test]
fn pages_whose_read_is_refused_fail_with_all_that_it_reads_and_no_others_do() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, config(3, 5, 512), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut bench = Bench::new(&mut state, &sim, &owner, &dest, CONFIG);
    let mut offer = owner.offer();
    offer.table.as_mut().unwrap().keys = [0xBAD; MAX_RAILS];
    let bad = bench.engine.add_region(bench.peer, &offer).unwrap();

    let mut batch = bench.engine.batch().unwrap();
    for slot in [2, 4, 9] {
        batch.read(bad.page(owner.location(slot)).unwrap(), bench.slots.next().unwrap()).unwrap();
    }
    bench.engine.submit(batch, sim.now(), LATE).unwrap();
    let mut results = Vec::new();
    settle(&mut bench.engine, &sim, LATE, |mut done| {
        results.extend(done.pages().map(|page| page.result));
    });
    for result in &results {
        let Err(PageError::Fault { rkey: 0xBAD, remote_addr, len, .. }) = *result else {
            panic!("{results:?}")
        };
        assert_eq!((remote_addr, len), (BASE + TABLE as u64 + 2 * ENTRY_BYTES, 8 * ENTRY));
    }
    assert_eq!(results.len(), 3);
    attach(&mut bench.engine, &sim, bench.peer, &owner, 0, 32).unwrap();
    bench.submit(&owner, &[2, 4, 9]);
    assert_eq!(bench.results(), [Ok(()); 3]);
}

#[test]
fn a_read_over_gaps_whose_lane_dies_is_read_again_over_another() {
    let mut reposted = 0;
    let all = seeds::each("a_read_over_gaps_whose_lane_dies", 0..200, |seed| {
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let sges = [3, 4, 5][(seed / 2 % 3) as usize];
        let sim = Sim::new(&mut storage, config(seed, sges, 512), &rails(2)).unwrap();
        let mut owner = Owner::new(&sim, &mut bytes[0], 1);
        let dest = Destination::new(SLOTS, PAGE);
        let mut state = Box::new(SmallState::new());
        // Pages that came over one lane are validated over the other, too, and are not read again.
        let config = EngineConfig { run_chunks: [4, 16, 2][(seed / 2 % 3) as usize], ..CONFIG };
        let mut bench = Bench::new(&mut state, &sim, &owner, &dest, config);
        attach(&mut bench.engine, &sim, bench.peer, &owner, 1, 32).unwrap();
        let slots = [1, 3, 4, 7, 9, 10, 12, 15];
        bench.submit(&owner, &slots);
        if seed % 2 == 0 {
            // At that time pages are under way, or entries, or nothing.
            sim.advance_to(sim.now() + Nanos(100 * (seed % 160)));
            bench.engine.poll(sim.now());
            sim.apply(Action::FailLane(bench.lane));
        } else {
            // The first READ after those of the pages is that of entries.
            let pages = bench.engine.rail_stats(RailIndex(0)).unwrap().posted;
            let fate = Fate::Status { nth: pages, status: WcStatus::RETRY_EXC_ERR };
            sim.script(bench.lane, fate).unwrap();
        }
        let overwritten = seed % 3 == 0;
        if overwritten {
            owner.invalidate(&sim, 9);
            owner.scribble(&sim, 9, 0, PAGE);
        }
        for (slot, result) in slots.iter().zip(bench.results()) {
            assert_eq!(result.is_ok(), !overwritten || *slot != 9, "seed {seed}: page {slot}: {result:?}");
        }
        reposted += bench.engine.rail_stats(RailIndex(1)).unwrap().reposted;
    });
    assert!(!all || reposted > 20, "{reposted} wrs were posted again: the test reaches what it is for");
}

#[test]
fn faulty_memory_among_the_entries_fails_the_pages_of_the_reads_that_touch_it() {
    for faulty in [4, 6] {
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let model = sim::SimConfig { retry: Nanos::from_micros(100), ..config(4, 5, 512) };
        let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
        let owner = Owner::new(&sim, &mut bytes[0], 1);
        let dest = Destination::new(SLOTS, PAGE);
        let mut state = Box::new(SmallState::new());
        let mut bench = Bench::new(&mut state, &sim, &owner, &dest, CONFIG);
        // Three lanes a rail: two are killed, and the third shows that the path is fine.
        for rail in [0, 0, 0, 1, 1, 1, 1] {
            attach(&mut bench.engine, &sim, bench.peer, &owner, rail, 32).unwrap();
        }
        let offset = TABLE as u64 + faulty * ENTRY_BYTES;
        sim.apply(Action::FailMemory(
            owner.memory,
            FailedRanges { offset, len: ENTRY_BYTES, stride: ENTRY_BYTES, count: 1 },
        ));
        // Three entries a READ.
        bench.submit(&owner, &[2, 4, 7, 9, 11, 13]);
        let mut results = Vec::new();
        while bench.engine.in_flight() > 0 && sim.now() < LATE {
            settle(&mut bench.engine, &sim, sim.now() + Nanos::from_micros(100), |mut done| {
                results.extend(done.pages().map(|page| page.result));
            });
            // Other work shows that the path is fine while the READ is tried alone.
            if bench.engine.in_flight() == 1
                && let Some(slot) = bench.slots.next()
            {
                let mut batch = bench.engine.batch().unwrap();
                batch.read(bench.region.unvalidated(0).unwrap(), slot).unwrap();
                bench.engine.submit(batch, sim.now(), LATE).unwrap();
            }
        }
        let failed: Vec<_> = results.iter().filter(|result| result.is_err()).collect();
        assert_eq!(failed.len(), 3, "{results:?}");
        for result in failed {
            assert!(matches!(result, Err(PageError::Fault { len, .. }) if *len == 6 * ENTRY), "{result:?}");
        }
    }
}

/// A page whose entry is read with others' waits for its own last chunk. Chunks end in any order,
/// pages are withdrawn and overwritten, and the deadline may come before the entries.
#[test]
fn whatever_befalls_the_pages_of_a_read_over_gaps_none_is_wrong_and_all_slots_come_back() {
    let (mut good, mut gone, mut saved) = (0, 0, 0);
    let all = seeds::each("whatever_befalls_the_pages_of_a_read_over_gaps", 0..120, |seed| {
        let mut rng = Rng(seed);
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let model = sim::SimConfig { pieces: 4, ..config(seed, 3 + (seed % 3) as u32, 512) };
        let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
        let mut owner = Owner::new(&sim, &mut bytes[0], 1);
        let dest = Destination::new(SLOTS, PAGE);
        let mut state = Box::new(SmallState::new());
        let config = EngineConfig { run_chunks: 1 + (seed % 5) as u32, ..LONG };
        let mut bench = Bench::new(&mut state, &sim, &owner, &dest, config);
        for rail in [0, 1, 1] {
            attach(&mut bench.engine, &sim, bench.peer, &owner, rail, 32).unwrap();
        }
        let slots: Vec<usize> = (0..SLOTS).filter(|_| rng.chance(60)).collect();
        if slots.is_empty() {
            return;
        }
        let wanted: Vec<_> = slots.iter().map(|&slot| owner.location(slot)).collect();
        let mut batch = bench.engine.batch().unwrap();
        for &location in &wanted {
            batch.read(bench.region.page(location).unwrap(), bench.slots.next().unwrap()).unwrap();
        }
        let deadline = if rng.chance(30) { Time(rng.below(30_000)) } else { LATE };
        let ticket = bench.engine.submit(batch, sim.now(), deadline).unwrap();
        for _ in 0..3 {
            sim.advance_to(sim.now() + Nanos(rng.below(4_000)));
            bench.engine.poll(sim.now());
            let page = rng.below(slots.len() as u64) as usize;
            if rng.chance(40) {
                owner.invalidate(&sim, slots[page]);
                owner.scribble(&sim, slots[page], 0, PAGE);
            } else {
                let _ = bench.engine.withdraw_page(ticket, page, sim.now());
            }
        }
        let mut back = 0;
        let engine = &mut bench.engine;
        settle(engine, &sim, LATE, |mut done| {
            for page in done.pages() {
                back += 1;
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
        assert_eq!(back, slots.len(), "seed {seed}");
        assert!(sim.violations().is_empty(), "seed {seed}: {:?}", sim.violations());
        let wrs: u64 = (0..2).map(|rail| engine.rail_stats(RailIndex(rail)).unwrap().chunks).sum();
        saved += (4 * slots.len() as u64).saturating_sub(wrs);
    });
    assert!(
        !all || (good > 300 && gone > 100 && saved > 200),
        "{good} good, {gone} gone, {saved} READs less"
    );
}

#[test]
fn the_entries_of_a_set_of_rows_are_read_over_gaps_too() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, config(6, 5, 512), &rails(1)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut bench = Bench::new(&mut state, &sim, &owner, &dest, LONG);
    for (wrong, arrives) in [(3, true), (6, false)] {
        let pages = [1, 2, 6, 8];
        let locations = pages.map(|slot| owner.location(slot));
        let mut batch = bench.engine.batch().unwrap();
        batch.read_rows_of(&bench.region, &locations, 200, &[0b101; 4], bench.slots.next().unwrap()).unwrap();
        bench.engine.submit(batch, sim.now(), LATE).unwrap();
        owner.invalidate(&sim, wrong);
        let before = bench.wrs();
        let results = bench.results();
        assert_eq!(results[0].is_ok(), arrives, "{results:?}");
        assert_eq!(bench.wrs() - before, 4 * 2 + 1);
    }
}
