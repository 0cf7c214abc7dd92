//! Rows of pages: every one lands in its place whatever happens to the lanes, is never of another
//! publication than the others of its page, and rows that cannot be read are refused.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::HashMap;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::error::{PageError, ReadError};
use kvrail_core::id::RailIndex;
use kvrail_core::layout::LayoutMismatch;
use kvrail_core::memory::Slot;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::rows::Rows;
use kvrail_core::table::{Miss, Ready};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, Fate, Sim, SimRails};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
/// A page has 50 of them.
const ROW: u32 = 200;
const ROWS: u64 = PAGE as u64 / ROW as u64;
const LATE: Time = Time(1_000_000_000);

/// Rows of a page: few, many, or all.
fn some_rows(rng: &mut Rng) -> Rows {
    let mut mask = rng.next();
    for _ in 0..rng.below(4) {
        mask &= rng.next();
    }
    if rng.chance(30) {
        mask = !mask;
    }
    mask &= (1 << ROWS) - 1;
    Rows::of_mask(ROW, 0, mask.max(1 << rng.below(ROWS))).unwrap()
}

/// The numbers of the rows, in the order in which they land.
fn numbers(rows: &Rows) -> impl Iterator<Item = usize> {
    (0..ROWS as u32).filter(|&row| rows.place(row).is_some()).map(|row| row as usize)
}

fn placed(slot: usize, at: usize) -> u8 {
    ((at * 31 + at / 251 + slot * 7) % 251) as u8
}

/// Asserts that the slot begins with these rows of these pages, and is as it was behind them.
fn check(slot: &Slot, pages: &[(usize, Rows)], seed: u64) {
    let mut bytes = slot.bytes().unwrap();
    for (page, rows) in pages {
        for row in numbers(rows) {
            let (found, behind) = bytes.split_at(ROW as usize);
            let expected = (0..ROW as usize).map(|at| placed(*page, row * ROW as usize + at));
            assert!(found.iter().copied().eq(expected), "seed {seed}: row {row} of page {page}, {rows:?}");
            bytes = behind;
        }
    }
    assert!(bytes.iter().all(|&byte| byte == 0xFF), "seed {seed}: bytes behind {pages:?}");
}

#[test]
fn every_row_lands_in_its_place_while_lanes_fail() {
    let (mut good, mut failed, mut again) = (0, 0, 0);
    for seed in 0..6 {
        let mut rng = Rng(seed ^ 0x0520_3A11);
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let config = sim::SimConfig { retry: Nanos::from_micros(300), ..sim::SimConfig::new(seed) };
        let sim = Sim::new(&mut storage, config, &rails(2)).unwrap();
        let owner = Owner::new(&sim, &mut bytes[0], 1);
        sim.with_memory(owner.memory, |bytes| {
            for slot in 0..SLOTS {
                for at in 0..PAGE {
                    bytes[slot * STRIDE + at] = placed(slot, at);
                }
            }
        });
        let dest = Destination::new(64, 2 * PAGE);
        let mut state = Box::new(SmallState::new());
        let chunk_bytes = [4096, 8192, 16_384][rng.below(3) as usize];
        let run_chunks = 1 + rng.below(20) as u32;
        let config = EngineConfig { stall: Nanos::from_millis(2), run_chunks, chunk_bytes, ..CONFIG };
        let mut engine = start(&mut state, &sim, config);
        let mut slots: Vec<Slot> = dest.register(&mut engine, 2 * PAGE).collect();
        for slot in &mut slots {
            slot.bytes_mut().unwrap().fill(0xFF);
        }
        let (_, region, lanes) = connect(&mut engine, &sim, &owner, 2, 2, 8);
        let status = WcStatus::RETRY_EXC_ERR;
        sim.script(lanes[0], Fate::Status { nth: 7 + rng.below(40), status }).unwrap();
        sim.script(lanes[1], Fate::Prefix { nth: 3, accepted: 1, errno: 12 }).unwrap();
        sim.script(lanes[2], Fate::Lost { nth: 5 + rng.below(40) }).unwrap();
        sim.script(lanes[3], Fate::Incomplete { nth: 5 + rng.below(60) }).unwrap();
        sim.at(Time(2_000_000), Action::RailDown { rail: RailIndex(1), told: true }).unwrap();
        sim.at(Time(3_000_000), Action::RailUp { rail: RailIndex(1), told: true }).unwrap();
        let (mut asked, mut number) = (HashMap::new(), 0_u64);
        while sim.now() < Time(5_000_000) || engine.in_flight() > 0 {
            while sim.now() < Time(5_000_000)
                && let Some(mut batch) = engine.batch()
            {
                let mut all = Vec::new();
                while batch.len() + 2 <= 16
                    && let Some(slot) = slots.pop()
                {
                    let page = |at: usize| region.page(owner.location(at)).unwrap();
                    let mut pages = vec![(rng.below(SLOTS as u64) as usize, some_rows(&mut rng))];
                    batch.read_rows(page(pages[0].0), pages[0].1, slot).unwrap();
                    if rng.chance(50) {
                        let (at, rows) = (rng.below(SLOTS as u64) as usize, some_rows(&mut rng));
                        batch.read_rows_also(page(at), rows, pages[0].1.bytes() as u32).unwrap();
                        pages.push((at, rows));
                    }
                    all.push(pages);
                }
                if batch.is_empty() {
                    break;
                }
                number += 1;
                batch.set_tag(number);
                asked.insert(number, all);
                engine.submit(batch, sim.now(), sim.now() + Nanos::from_millis(100)).unwrap();
            }
            engine.wait(sim.now(), sim.now() + Nanos::from_millis(1));
            engine.poll(sim.now());
            while let Some(mut done) = engine.next_done() {
                let all = asked.remove(&done.tag()).unwrap();
                for (mut page, pages) in done.pages().zip(all) {
                    page.result.unwrap();
                    check(&page.slot, &pages, seed);
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
        assert_eq!(slots.len(), 64, "no slot is lost");
        for rail in 0..2 {
            let stats = engine.rail_stats(RailIndex(rail)).unwrap();
            (failed, again) = (failed + stats.lanes_failed, again + stats.reposted);
        }
    }
    println!("{good} slots, {failed} lanes failed, {again} READs posted again");
    assert!(good > 1000 && failed >= 18 && again > 20);
}

/// An engine with one owner over one rail, and a destination of slots without a layout.
fn with_rows(
    test: impl for<'m> FnOnce(&Sim<'m>, &mut Owner, &mut Engine<'_, SimRails<'m>>, &RemoteRegion, &mut Vec<Slot>),
) {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(1)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(16, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    test(&sim, &mut owner, &mut engine, &region, &mut slots);
}

#[test]
fn neighbours_are_one_read_and_each_page_is_validated_once() {
    with_rows(|sim, owner, engine, region, slots| {
        let mut batch = engine.batch().unwrap();
        let rows = Rows::of(ROW, &[0, 1, 2, 9, 20, 21, 49]).unwrap();
        batch.read_rows(region.page(owner.location(3)).unwrap(), rows, slots.pop().unwrap()).unwrap();
        let more = Rows::of(ROW, &[7]).unwrap();
        let behind = rows.bytes() as u32;
        // Its entry stands behind the one before.
        batch.read_rows_also(region.page(owner.location(4)).unwrap(), more, behind).unwrap();
        engine.submit(batch, sim.now(), LATE).unwrap();
        settle(engine, sim, LATE, |mut done| {
            let page = done.pages().next().unwrap();
            page.result.unwrap();
            let (first, second) = page.slot.bytes().unwrap().split_at(behind as usize);
            assert!(first.iter().all(|&byte| byte == owner.expected(owner.location(3))));
            assert!(second[..ROW as usize].iter().all(|&byte| byte == owner.expected(owner.location(4))));
        });
        let stats = engine.rail_stats(RailIndex(0)).unwrap();
        assert_eq!(stats.posted, 4 + 1 + 1, "the runs of both pages, and one READ of two entries");
        assert_eq!(stats.bytes, 8 * u64::from(ROW) + 2 * 32);
    });
}

#[test]
fn a_slot_that_rows_have_landed_in_takes_a_whole_page_next() {
    with_rows(|sim, owner, engine, region, slots| {
        let page = region.page(owner.location(3)).unwrap();
        for round in 0..4 {
            let mut batch = engine.batch().unwrap();
            let slot = slots.pop().unwrap();
            match round {
                0 => batch.read_rows(page, Rows::of(ROW, &[1, 7]).unwrap(), slot).unwrap(),
                2 => batch.read_rows_of(region, &[owner.location(3)], ROW, &[0b110], slot).unwrap(),
                _ => batch.read(page, slot).unwrap(),
            }
            engine.submit(batch, sim.now(), LATE).unwrap();
            settle(engine, sim, LATE, |mut done| {
                let page = done.pages().next().unwrap();
                page.result.unwrap();
                let read = if round % 2 == 0 { 2 * ROW as usize } else { PAGE };
                let expected = owner.expected(owner.location(3));
                assert!(page.slot.bytes().unwrap()[..read].iter().all(|&byte| byte == expected));
                slots.push(page.slot);
            });
        }
        // Two READs of rows, a whole page in three chunks, and so on; and an entry each time.
        assert_eq!(engine.rail_stats(RailIndex(0)).unwrap().posted, 2 + 3 + 1 + 3 + 4);
    });
}

#[test]
fn rows_of_pages_that_fail_write_into_no_other_slot() {
    const FAULTS: [WcStatus; 4] =
        [WcStatus::GENERAL_ERR, WcStatus::GENERAL_ERR, WcStatus::REM_ACCESS_ERR, WcStatus::LOC_PROT_ERR];
    let (mut good, mut failed) = (0, 0);
    for seed in 0..300 {
        let mut rng = Rng(seed ^ 0x5B5B);
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let sim = Sim::new(&mut storage, sim::SimConfig::new(seed), &rails(1)).unwrap();
        let owner = Owner::new(&sim, &mut bytes[0], 1);
        let dest = Destination::new(16, PAGE);
        let mut state = Box::new(SmallState::new());
        let run_chunks = 1 + rng.below(3) as u32;
        let mut engine = start(&mut state, &sim, EngineConfig { run_chunks, ..CONFIG });
        let mut slots: Vec<Slot> = dest.register(&mut engine, 4 * ROW as usize).collect();
        slots.iter_mut().for_each(|slot| slot.bytes_mut().unwrap().fill(0xFF));
        let (_, region, lanes) = connect(&mut engine, &sim, &owner, 1, 6, 8);
        // Some READs fail their page while others are to be tried alone, which may be of it, too.
        for lane in &lanes[..4] {
            let status = FAULTS[rng.below(4) as usize];
            sim.script(*lane, Fate::Status { nth: rng.below(6), status }).unwrap();
        }
        let mut batch = engine.batch().unwrap();
        for page in 0..8 {
            // The second slot of three.
            let slot = slots.remove(2 * page + 1);
            let rows = Rows::of(ROW, &[0, 10, 20, 30]).unwrap();
            batch.read_rows(region.page(owner.location(page)).unwrap(), rows, slot).unwrap();
        }
        engine.submit(batch, sim.now(), LATE).unwrap();
        settle(&mut engine, &sim, LATE, |mut done| {
            for page in done.pages() {
                let expected = owner.expected(owner.location(page.index));
                let right = page.slot.bytes().unwrap().iter().all(|&byte| byte == expected);
                assert!(page.result.is_err() || right, "seed {seed}: page {}", page.index);
                good += u32::from(page.result.is_ok());
                failed += u32::from(page.result.is_err());
            }
        });
        for slot in &slots {
            assert!(slot.bytes().unwrap().iter().all(|&byte| byte == 0xFF), "seed {seed}: {slot:?}");
        }
    }
    println!("{good} pages arrived, {failed} failed");
    assert!(good > 300 && failed > 200);
}

#[test]
fn rows_of_a_page_that_is_overwritten_are_missed() {
    let (mut good, mut missed) = (0, 0);
    with_rows(|sim, owner, engine, region, slots| {
        let mut rng = Rng(11);
        for round in 0..2000 {
            let mut batch = engine.batch().unwrap();
            let at = rng.below(SLOTS as u64) as usize;
            let (location, rows) = (owner.location(at), some_rows(&mut rng));
            let expected = owner.expected(location);
            batch.read_rows(region.page(location).unwrap(), rows, slots.pop().unwrap()).unwrap();
            engine.submit(batch, sim.now(), sim.now() + Nanos::from_secs(1)).unwrap();
            let mut under_way = rng.chance(50);
            if under_way {
                let until = sim.now() + Nanos(rng.below(20_000));
                while sim.now() < until && engine.in_flight() > 0 {
                    engine.wait(sim.now(), until);
                    engine.poll(sim.now());
                }
                owner.invalidate(sim, at);
                let (from, to) = (rng.below(PAGE as u64) as usize, rng.below(PAGE as u64) as usize);
                owner.scribble(sim, at, from.min(to), from.max(to));
            }
            settle(engine, sim, Time::NEVER, |mut done| {
                let page = done.pages().next().unwrap();
                match page.result {
                    Ok(()) => {
                        let bytes = &page.slot.bytes().unwrap()[..rows.bytes() as usize];
                        assert!(bytes.iter().all(|&byte| byte == expected), "round {round}: {rows:?}");
                        good += 1;
                    }
                    Err(error) => {
                        assert!(matches!(error, PageError::Miss(Miss::Overwriting { .. })), "{error}");
                        assert!(std::mem::take(&mut under_way), "round {round}");
                        missed += 1;
                    }
                }
                slots.push(page.slot);
            });
            owner.publish(sim, at, round);
        }
    });
    println!("{good} good, {missed} missed");
    assert!(good > 1100 && missed > 300);
}

#[test]
fn rows_that_cannot_be_read_are_refused_and_the_slot_comes_back() {
    with_rows(|_, owner, engine, region, slots| {
        let page = region.page(owner.location(3)).unwrap();
        let mut batch = engine.batch().unwrap();
        let slot = slots.pop().unwrap();
        let rows = |rows: &[u32]| Rows::of(ROW, rows).unwrap();
        assert_eq!(batch.read_rows_also(page, rows(&[0]), 0), Err(ReadError::NoSlot));
        let (error, slot) = batch.read_rows(page, rows(&[3, 50]), slot).unwrap_err();
        assert_eq!(error, ReadError::RowsBeyondPage { row: 50, row_bytes: ROW, page_bytes: PAGE as u32 });
        assert_eq!(error.to_string(), "row 50 of 200 bytes ends beyond the page of 10000 bytes");
        let far = Rows::of_mask(ROW, u32::MAX, 1).unwrap();
        let (error, slot) = batch.read_rows(page, far, slot).unwrap_err();
        assert!(matches!(error, ReadError::RowsBeyondPage { row: 0xFFFF_FFFF, .. }), "{error}");
        let huge = Rows::of_mask(u32::MAX, u32::MAX, 1 | 1 << 63).unwrap();
        let (error, slot) = batch.read_rows(page, huge, slot).unwrap_err();
        assert!(matches!(error, ReadError::RowsBeyondPage { row: 0x1_0000_003E, .. }), "{error}");
        let (error, slot) = batch.read_rows(page, Rows::of(5000, &[0]).unwrap(), slot).unwrap_err();
        assert_eq!(error, ReadError::RowTooLong { row_bytes: 5000, chunk_bytes: 4096 });
        // A part of a page has rows of its own.
        let part = page.part(400, 600).unwrap();
        let (error, slot) = batch.read_rows(part, rows(&[2, 3]), slot).unwrap_err();
        assert_eq!(error, ReadError::RowsBeyondPage { row: 3, row_bytes: ROW, page_bytes: 600 });
        batch.read_rows(part, rows(&[2]), slot).unwrap();
        let error = batch.read_rows_also(page, rows(&[0, 1]), PAGE as u32 - 300).unwrap_err();
        let slot_bytes = PAGE;
        assert_eq!(error, ReadError::BeyondSlot { page_bytes: 400, offset: PAGE as u32 - 300, slot_bytes });
        let error = batch.read_rows_also(page, rows(&[0]), u32::MAX).unwrap_err();
        assert!(matches!(error, ReadError::BeyondSlot { offset: u32::MAX, .. }), "{error}");
        assert_eq!(batch.len(), 1, "what was refused has not joined");
        // A slot of a layout is no place for rows one behind the other.
        let mut of_layout = engine.register_regions(&by_token(), vec![0; PAGE].leak()).unwrap();
        let (error, _) = batch.read_rows(page, rows(&[0]), of_layout.next().unwrap()).unwrap_err();
        assert!(matches!(error, ReadError::Layout(LayoutMismatch::NoPlan { .. })), "{error}");
        // Of a page that grows, the parts that the rows are of.
        let mut location = owner.location(3);
        location.expected.ready = Ready(2);
        let growing = region.page(location).unwrap();
        let error = batch.read_rows_also(growing, rows(&[0]), 200).unwrap_err();
        assert_eq!(error, ReadError::NotReady { needed: Ready::WHOLE, seen: Ready(2) });
        batch.read_rows_also(growing.needs(2), rows(&[0]), 200).unwrap();
        assert_eq!(batch.clear().count(), 1);
        drop(batch);
    });
}
