//! Rows of many pages that are read into one slot by one call: every row lands in its place
//! whatever happens to the lanes, the call has one result, and what cannot be read is refused.
#![allow(missing_docs, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod limits;

use std::collections::HashMap;

use common::*;
use kvrail_core::batch::Class;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::error::{PageError, ReadError};
use kvrail_core::id::{PeerId, RailIndex};
use kvrail_core::memory::Slot;
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, PageRangeError, RegionOffer, RemoteRegion};
use kvrail_core::rows::{Rows, RowsError};
use kvrail_core::table::Ready;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, FailedRanges, Fate, Sim, SimRails};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
/// A page has 50 of them.
const ROW: u32 = 200;
const ROWS: u64 = PAGE as u64 / ROW as u64;
const LATE: Time = Time(1_000_000_000);
/// The rows of a slot, in all sets of the storm.
const MOST: u32 = 100;

/// Rows of a page as bits: none, few or many, and neighbours among them if `joined`.
fn some_rows(rng: &mut Rng, joined: bool) -> u64 {
    let mut rows = rng.next();
    for _ in 0..rng.below(6) {
        rows &= rng.next();
    }
    if !joined {
        rows &= 0x5555_5555_5555_5555 << rng.below(2);
    }
    rows & ((1 << ROWS) - 1)
}

fn placed(slot: usize, at: usize) -> u8 {
    ((at * 31 + at / 251 + slot * 7) % 251) as u8
}

/// Pages, and the rows of each that are read.
type Set = Vec<(usize, u64)>;

/// Asserts that the slot begins with these rows of these pages, and is as it was behind them.
fn check(slot: &Slot, set: &Set, seed: u64) {
    let mut bytes = slot.bytes().unwrap();
    for &(page, rows) in set {
        for row in (0..64).filter(|row| rows >> row & 1 != 0) {
            let (found, behind) = bytes.split_at(ROW as usize);
            let expected = (0..ROW as usize).map(|at| placed(page, row * ROW as usize + at));
            assert!(found.iter().copied().eq(expected), "seed {seed}: row {row} of page {page}, {set:x?}");
            bytes = behind;
        }
    }
    assert!(bytes.iter().all(|&byte| byte == 0xFF), "seed {seed}: bytes behind {set:x?}");
}

/// A set of at least one row and at most `MOST`, of at most `pages` pages.
fn some_set(rng: &mut Rng, pages: u64) -> Set {
    let (joined, in_a_row) = (rng.chance(50), rng.chance(50));
    let (first, n) = (rng.below(SLOTS as u64), 1 + rng.below(pages));
    let mut left = MOST;
    let mut set: Set = (0..n)
        .map(|i| {
            let page = if in_a_row { (first + i) % SLOTS as u64 } else { rng.below(SLOTS as u64) };
            let rows = some_rows(rng, joined);
            let rows = if rows.count_ones() <= left { rows } else { 0 };
            left -= rows.count_ones();
            (page as usize, rows)
        })
        .collect();
    if left == MOST {
        set[0].1 = 1 << rng.below(ROWS);
    }
    set
}

fn storm(rounds: u64, flaws: impl Fn(&Sim<'_>, &mut Rng, &[sim::LaneHandle])) -> (u64, u64, u64) {
    let (mut good, mut failed, mut again) = (0, 0, 0);
    for seed in 0..rounds {
        let mut rng = Rng(seed ^ 0x05E7_3A11);
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let config = sim::SimConfig {
            retry: Nanos::from_micros(300),
            read_overhead: [0, 512, 64][seed as usize % 3],
            ..sim::SimConfig::new(seed)
        };
        let sim = Sim::new(&mut storage, config, &rails(2)).unwrap();
        let owner = Owner::new(&sim, &mut bytes[0], 1);
        sim.with_memory(owner.memory, |bytes| {
            for slot in 0..SLOTS {
                for at in 0..PAGE {
                    bytes[slot * STRIDE + at] = placed(slot, at);
                }
            }
        });
        let dest = Destination::new(32, 2 * PAGE);
        let mut state = Box::new(SmallState::new());
        let chunk_bytes = [4096, 8192, 16_384][rng.below(3) as usize];
        // Runs end within a page, and within a set.
        let run_chunks = 1 + rng.below(20) as u32;
        let signal_wrs = 1 + rng.below(8) as u32;
        let stall = Nanos::from_millis(2);
        let config = EngineConfig { stall, run_chunks, signal_wrs, chunk_bytes, ..CONFIG };
        let mut engine = start(&mut state, &sim, config);
        let mut slots: Vec<Slot> = dest.register(&mut engine, 2 * PAGE).collect();
        for slot in &mut slots {
            slot.bytes_mut().unwrap().fill(0xFF);
        }
        let (peer, region, lanes) = connect(&mut engine, &sim, &owner, 2, 2, 8);
        flaws(&sim, &mut rng, &lanes);
        let (mut asked, mut number, mut pages) = (HashMap::new(), 0_u64, 0);
        while sim.now() < Time(5_000_000) || engine.in_flight() > 0 {
            while sim.now() < Time(5_000_000)
                && let Some(mut batch) = engine.batch()
            {
                let mut all = Vec::new();
                while batch.len() < 16
                    && let Some(slot) = slots.pop()
                {
                    let mut set = some_set(&mut rng, (16 - batch.len()) as u64);
                    let locations: Vec<Location> = set.iter().map(|(at, _)| owner.location(*at)).collect();
                    let rows: Vec<u64> = set.iter().map(|(_, rows)| *rows).collect();
                    batch.read_rows_of(&region, &locations, ROW, &rows, slot).unwrap();
                    let n: u32 = rows.iter().map(|rows| rows.count_ones()).sum();
                    if batch.len() < 16 && n < MOST && rng.chance(20) {
                        let (at, rows) = (rng.below(SLOTS as u64) as usize, 1 << rng.below(ROWS));
                        let page = region.page(owner.location(at)).unwrap();
                        batch.read_rows_also(page, Rows::of_mask(ROW, 0, rows).unwrap(), n * ROW).unwrap();
                        set.push((at, rows));
                    }
                    all.push(set);
                }
                if batch.is_empty() {
                    break;
                }
                (number, pages) = (number + 1, pages + batch.len() as u64);
                batch.set_tag(number);
                asked.insert(number, all);
                engine.submit(batch, sim.now(), sim.now() + Nanos::from_millis(100)).unwrap();
            }
            engine.wait(sim.now(), sim.now() + Nanos::from_millis(1));
            engine.poll(sim.now());
            while let Some(mut done) = engine.next_done() {
                let all = asked.remove(&done.tag()).unwrap();
                for (mut page, set) in done.pages().zip(all) {
                    page.result.unwrap();
                    check(&page.slot, &set, seed);
                    page.slot.bytes_mut().unwrap().fill(0xFF);
                    slots.push(page.slot);
                    good += 1;
                }
            }
            while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
                if attach(&mut engine, &sim, wanted.peer, &owner, wanted.rail.0, 8).is_none() {
                    engine.lane_unavailable(wanted, sim.now());
                }
            }
        }
        assert_eq!(slots.len(), 32, "no slot is lost");
        assert_eq!(engine.peer_stats(peer).unwrap().pages, pages, "each page of a set is counted once");
        for rail in 0..2 {
            let stats = engine.rail_stats(RailIndex(rail)).unwrap();
            (failed, again) = (failed + stats.lanes_failed, again + stats.reposted);
        }
    }
    (good, failed, again)
}

#[test]
fn every_row_of_a_set_lands_in_its_place_while_lanes_fail() {
    let (good, failed, again) = storm(8, |sim, rng, lanes| {
        let status = WcStatus::RETRY_EXC_ERR;
        sim.script(lanes[0], Fate::Status { nth: 7 + rng.below(40), status }).unwrap();
        sim.script(lanes[1], Fate::Prefix { nth: 3, accepted: 1, errno: 12 }).unwrap();
        sim.script(lanes[2], Fate::Lost { nth: 5 + rng.below(40) }).unwrap();
        sim.script(lanes[3], Fate::Incomplete { nth: 5 + rng.below(60) }).unwrap();
        sim.at(Time(2_000_000), Action::RailDown { rail: RailIndex(1), told: true }).unwrap();
        sim.at(Time(3_000_000), Action::RailUp { rail: RailIndex(1), told: true }).unwrap();
    });
    println!("{good} sets, {failed} lanes failed, {again} READs posted again");
    assert!(good > 300 && failed >= 24 && again > 40);
}

#[test]
fn every_row_of_a_set_lands_in_its_place_where_nothing_fails() {
    let (good, failed, again) = storm(4, |_, _, _| ());
    assert!(good > 300 && (failed, again) == (0, 0), "{good}, {failed}, {again}");
}

/// An engine with one owner over one rail, and a destination of slots without a layout.
fn with_rows(
    test: impl for<'m> FnOnce(
        &Sim<'m>,
        &mut Owner,
        &mut Engine<'_, SimRails<'m>>,
        (PeerId, RemoteRegion),
        &mut Vec<Slot>,
    ),
) {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(1)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(16, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    test(&sim, &mut owner, &mut engine, (peer, region), &mut slots);
}

/// The locations of these slots.
fn at(owner: &Owner, slots: &[usize]) -> Vec<Location> {
    slots.iter().map(|&slot| owner.location(slot)).collect()
}

#[test]
fn a_set_is_one_result_and_its_entries_one_read() {
    with_rows(|sim, owner, engine, (peer, region), slots| {
        let mut batch = engine.batch().unwrap();
        let locations = at(owner, &[3, 4, 5, 6]);
        // No row of slot 5 is read, so the entries stand in two rows.
        let rows = [0b1001, 1 << 49 | 0b111, 0, 1];
        batch.read_rows_of(&region, &locations, ROW, &rows, slots.pop().unwrap()).unwrap();
        assert_eq!(batch.len(), 3, "a place for each page of which rows are read");
        engine.submit(batch, sim.now(), LATE).unwrap();
        settle(engine, sim, LATE, |mut done| {
            assert!(done.all_arrived() && (0..3).all(|page| done.result(page) == Some(Ok(()))));
            let range = done.take_range().unwrap();
            assert_eq!((range.first, range.slots.len()), (0, 1));
            let bytes = range.slots.bytes(0).unwrap();
            let of = [3, 3, 4, 4, 4, 4, 6].map(|slot| owner.expected(owner.location(slot)));
            for (row, byte) in bytes.chunks_exact(ROW as usize).zip(of) {
                assert!(row.iter().all(|found| *found == byte));
            }
            assert!(done.take_range().is_none() && done.pages().next().is_none());
        });
        let stats = engine.rail_stats(RailIndex(0)).unwrap();
        assert_eq!(stats.posted, 2 + 2 + 1 + 2, "rows, of which three are one READ, and two rows of entries");
        assert_eq!(stats.bytes, 7 * u64::from(ROW) + 3 * 32);
        assert_eq!(engine.peer_stats(peer).unwrap().pages, 3);
        engine.remove_peer(peer, sim.now()).unwrap();
    });
}

#[test]
fn rows_beyond_the_64th_are_in_words_of_their_own() {
    with_rows(|sim, owner, engine, (_, region), slots| {
        sim.with_memory(owner.memory, |bytes| {
            for slot in 0..SLOTS {
                for at in 0..PAGE {
                    bytes[slot * STRIDE + at] = placed(slot, at);
                }
            }
        });
        // 100 rows of 100 bytes a page.
        let rows = [1 << 7, 1 << 35 | 0b1, 0, 1 << 2];
        for validated in [true, false] {
            let mut batch = engine.batch().unwrap();
            let slot = slots.pop().unwrap();
            match validated {
                true => batch.read_rows_of(&region, &at(owner, &[2, 9]), 100, &rows, slot),
                false => batch.read_rows_of_unvalidated(&region, &[2, 9], 100, &rows, slot),
            }
            .unwrap();
            assert_eq!(batch.len(), 3);
            engine.submit(batch, sim.now(), LATE).unwrap();
            settle(engine, sim, LATE, |mut done| {
                let page = done.pages().next().unwrap();
                page.result.unwrap();
                let wanted = [(2, 7), (2, 64), (2, 64 + 35), (9, 64 + 2)];
                for (found, (slot, row)) in page.slot.bytes().unwrap().chunks_exact(100).zip(wanted) {
                    assert!((0..100).all(|at| found[at] == placed(slot, row * 100 + at)), "{slot}, {row}");
                }
            });
        }
        // The entry of a page is read once for each of its words.
        assert_eq!(engine.rail_stats(RailIndex(0)).unwrap().posted, 4 + 3 + 4);
    });
}

#[test]
fn a_set_of_which_one_page_is_overwritten_is_a_miss() {
    with_rows(|sim, owner, engine, (peer, region), slots| {
        // More pages, none behind another, than one commit asks for entries.
        let some: Vec<usize> = (0..SLOTS).map(|i| i * 7 % SLOTS).collect();
        for overwritten in 0..SLOTS {
            let mut batch = engine.batch().unwrap();
            let locations = at(owner, &some);
            batch.read_rows_of(&region, &locations, ROW, &[1; SLOTS], slots.pop().unwrap()).unwrap();
            owner.invalidate(sim, overwritten);
            owner.publish(sim, overwritten, 7);
            engine.submit(batch, sim.now(), LATE).unwrap();
            settle(engine, sim, LATE, |mut done| {
                assert!(!done.all_arrived());
                for page in 0..SLOTS {
                    assert!(matches!(done.result(page), Some(Err(PageError::Miss(_)))), "page {page}");
                }
                assert_eq!(done.failures().count(), SLOTS);
                let page = done.pages().next().unwrap();
                assert!(matches!(page.result, Err(PageError::Miss(_))));
                slots.push(page.slot);
            });
            let stats = engine.peer_stats(peer).unwrap();
            assert_eq!((stats.pages, stats.misses), (0, (SLOTS * (overwritten + 1)) as u64));
        }
        engine.remove_peer(peer, sim.now()).unwrap();
    });
}

#[test]
fn a_set_is_told_once_and_joined_pages_share_its_result() {
    with_rows(|sim, owner, engine, (_, region), slots| {
        for (joined, missed) in [(false, false), (true, false), (true, true)] {
            let mut batch = engine.batch().unwrap();
            batch.report_pages();
            let locations = at(owner, &[1, 2, 3]);
            batch.read_rows_of(&region, &locations, ROW, &[1, 2, 4], slots.pop().unwrap()).unwrap();
            let page = region.page(owner.location(9)).unwrap();
            let slot = slots.pop().unwrap();
            if joined {
                batch.join(page, slot).unwrap()
            } else {
                batch.read(page, slot).unwrap()
            }
            if missed {
                owner.invalidate(sim, 9);
                owner.publish(sim, 9, 1);
            }
            engine.submit(batch, sim.now(), LATE).unwrap();
            let (mut told, mut taken) = (Vec::new(), Vec::new());
            let mut take = |engine: &mut Engine<'_, SimRails<'_>>| {
                while let Some(arrival) = engine.next_arrival() {
                    assert_eq!(arrival.result.is_ok(), !missed);
                    told.push(arrival.page);
                    taken.extend(engine.take_slot(&arrival));
                }
            };
            while engine.in_flight() > 0 {
                engine.wait(sim.now(), LATE);
                engine.poll(sim.now());
                take(engine);
            }
            let mut done = engine.next_done().unwrap();
            assert!((0..4).all(|page| done.result(page).unwrap().is_ok() != missed));
            taken.extend(done.pages().map(|page| page.slot));
            told.sort_unstable();
            assert!(told.iter().all(|page| [0, 3].contains(page)), "{told:?}");
            assert_eq!(taken.len(), 2, "each slot comes back once");
            slots.append(&mut taken);
        }
    });
}

#[test]
fn a_set_is_withdrawn_and_late_as_a_whole() {
    with_rows(|sim, owner, engine, (peer, region), slots| {
        let mut results = Vec::new();
        for round in 0..40 {
            let mut batch = engine.batch().unwrap();
            let locations = at(owner, &[1, 8, 3, 12, 5]);
            let rows = [0x5555; 5];
            batch.read_rows_of(&region, &locations, ROW, &rows, slots.pop().unwrap()).unwrap();
            let deadline = sim.now() + Nanos(1 + round % 2 * 1_000_000_000 + round * 2_000);
            let ticket = engine.submit(batch, sim.now(), deadline).unwrap();
            if round % 2 == 1 {
                let until = sim.now() + Nanos(round * 700);
                while sim.now() < until && engine.in_flight() > 0 {
                    engine.wait(sim.now(), until);
                    engine.poll(sim.now());
                }
                if engine.in_flight() > 0 {
                    assert_eq!(engine.withdraw_page(ticket, 3, sim.now()), Ok(true));
                    assert_ne!(engine.withdraw_page(ticket, 0, sim.now()), Ok(true));
                }
            }
            settle(engine, sim, Time::NEVER, |mut done| {
                let result = done.result(0).unwrap();
                assert!((1..5).all(|page| done.result(page).unwrap().is_ok() == result.is_ok()));
                results.push(result);
                slots.extend(done.pages().map(|page| page.slot));
            });
            assert_eq!(slots.len(), 16);
        }
        let count =
            |which: fn(&PageError) -> bool| results.iter().filter(|r| r.is_err_and(|e| which(&e))).count();
        let late = count(|error| matches!(error, PageError::Deadline { .. }));
        let withdrawn = count(|error| *error == PageError::Withdrawn);
        println!("{late} late, {withdrawn} withdrawn");
        assert!(late > 3 && withdrawn > 3 && late + withdrawn < 40);
        engine.remove_peer(peer, sim.now()).unwrap();
    });
}

#[test]
fn sets_that_cannot_be_read_are_refused_and_the_slot_comes_back() {
    with_rows(|_, owner, engine, (_, region), slots| {
        let mut batch = engine.batch().unwrap();
        let mut slot = slots.pop().unwrap();
        let mut locations = at(owner, &[3, 4]);
        let mut refuse =
            |batch: &mut kvrail_core::batch::Batch<'_>, locations: &[Location], row, rows: &[u64]| {
                let (len, addr) = (batch.len(), slots.last().unwrap().address());
                let taken = slots.pop().unwrap();
                let mut rejected = batch.read_rows_of(&region, locations, row, rows, taken).unwrap_err();
                slots.push(rejected.slots.next().unwrap());
                assert_eq!((batch.len(), slots.last().unwrap().address()), (len, addr));
                (rejected.page, rejected.error)
            };
        let none = refuse(&mut batch, &locations, ROW, &[0, 0]);
        assert_eq!(none, (0, ReadError::Rows(RowsError::Empty)));
        assert_eq!(refuse(&mut batch, &[], ROW, &[]).1, ReadError::Rows(RowsError::Empty));
        assert_eq!(refuse(&mut batch, &locations, 0, &[1, 1]).1, ReadError::Rows(RowsError::NoBytes));
        let words = refuse(&mut batch, &locations, ROW, &[1]).1;
        assert_eq!(words, ReadError::RowWords { words: 1, pages: 2, rows: 50 });
        assert_eq!(words.to_string(), "1 words name the rows of 2 pages of 50 rows: give 1 for each page");
        let beyond = refuse(&mut batch, &locations, ROW, &[1, 1 << 50]);
        let page_bytes = PAGE as u32;
        assert_eq!(beyond, (1, ReadError::RowsBeyondPage { row: 50, row_bytes: ROW, page_bytes }));
        let beyond = refuse(&mut batch, &locations, 100, &[1, 1, 1, 1 << 36]);
        assert_eq!(beyond, (1, ReadError::RowsBeyondPage { row: 100, row_bytes: 100, page_bytes }));
        let long = refuse(&mut batch, &locations, 5000, &[1, 1]).1;
        assert_eq!(long, ReadError::RowTooLong { row_bytes: 5000, chunk_bytes: 4096 });
        let huge = refuse(&mut batch, &locations, u32::MAX, &[1, 1]).1;
        assert!(matches!(huge, ReadError::RowTooLong { .. }), "{huge}");
        let large = refuse(&mut batch, &locations, ROW, &[(1 << 50) - 1, 1]).1;
        assert_eq!(large, ReadError::SlotTooSmall { page_bytes: 51 * ROW, slot_bytes: PAGE });
        let seventeen = [owner.location(0); 17];
        assert_eq!(refuse(&mut batch, &seventeen, ROW, &[1; 17]), (16, ReadError::Full { capacity: 16 }));
        locations[1].slot = SLOTS as u32;
        let outside = ReadError::Page(PageRangeError::Slot { slot: SLOTS as u32, slots: SLOTS as u32 });
        assert_eq!(refuse(&mut batch, &locations, ROW, &[1, 1]), (1, outside));
        // Of a page of which no row is named, nothing matters.
        slot = batch
            .read_rows_of(&region, &locations, ROW, &[1, 0], slot)
            .map_or_else(|rejected| panic!("{rejected}"), |()| batch.clear().next().unwrap());
        locations[1] = owner.location(4);
        locations[1].expected.ready = Ready(2);
        let growing = ReadError::NotReady { needed: Ready::WHOLE, seen: Ready(2) };
        assert_eq!(refuse(&mut batch, &locations, ROW, &[1, 1]), (1, growing));
        // A slot of a layout is no place for rows one behind the other.
        let mut of_layout = engine.register_regions(&by_token(), vec![0; PAGE].leak()).unwrap();
        let rejected = batch.read_rows_of(&region, &locations[..1], ROW, &[1], of_layout.next().unwrap());
        assert!(matches!(rejected.unwrap_err().error, ReadError::Layout(_)));
        assert!(batch.is_empty(), "what was refused has not joined");
        // A later page may share the slot of a set.
        batch.read_rows_of(&region, &at(owner, &[3, 4]), ROW, &[1, 1], slot).unwrap();
        let page = region.page(owner.location(5)).unwrap();
        batch.read_rows_also(page, Rows::of(ROW, &[0]).unwrap(), 2 * ROW).unwrap();
        assert_eq!((batch.len(), batch.clear().count()), (3, 1));
        drop(batch);
    });
}
