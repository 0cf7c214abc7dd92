//! Copy plans, and slots that several pages share: every byte lands in its place whatever happens
//! to the lanes, and pages that do not fit are refused.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::error::{PageError, ReadError};
use kvrail_core::id::RailIndex;
use kvrail_core::layout::LayoutMismatch;
use kvrail_core::memory::Slot;
use kvrail_core::plan::AddPlanError;
use kvrail_core::remote::RegionOffer;
use kvrail_core::table::Miss;
use kvrail_core::time::{Nanos, Time};
use kvrail_layouts::plan::CutError;
use kvrail_layouts::{AxisKind, Level, Plan, Selection};
use kvrail_sim::sim::{self, Action, Fate, Sim};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
const LATE: Time = Time(1_000_000_000);

/// Gives every byte of every page of an owner a value that depends on its place.
fn pattern(sim: &Sim<'_>, owner: &Owner) {
    sim.with_memory(owner.memory, |bytes| {
        for slot in 0..SLOTS {
            for at in 0..PAGE {
                bytes[slot * STRIDE + at] = placed(slot, at);
            }
        }
    });
}

fn placed(slot: usize, at: usize) -> u8 {
    ((at * 31 + at / 251 + slot * 7) % 251) as u8
}

/// Whether the tokens of a slot are those of a page, turned.
fn is_turned(slot: &Slot, page: usize, tokens: std::ops::Range<usize>) -> bool {
    let bytes = slot.bytes().unwrap();
    (0..PAGE)
        .filter(|at| tokens.contains(&(at / 500 % 4)))
        .all(|at| bytes[at] == placed(page, turned_from(at)))
}

#[test]
fn every_byte_of_a_planned_page_lands_in_its_place_while_lanes_fail() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let config = sim::SimConfig { retry: Nanos::from_micros(300), ..sim::SimConfig::new(5) };
    let sim = Sim::new(&mut storage, config, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    pattern(&sim, &owner);
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { stall: Nanos::from_millis(2), run_chunks: 3, ..CONFIG };
    let mut engine = start(&mut state, &sim, config);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, lanes) = connect(&mut engine, &sim, &owner, 2, 2, 8);
    let all = Selection::ALL;
    let [whole, first, second] =
        [all, all.tokens(0, 2), all.tokens(2, 2)].map(|part| engine.add_plan(&turned(part)).unwrap());
    // Twenty pieces of 500 bytes are five wrs of four.
    assert_eq!((whole.wrs(), whole.bytes(), whole.slot_bytes()), (5, PAGE as u32, PAGE as u32));
    assert_eq!((second.wrs(), second.source_bytes()), (3, PAGE as u32));

    // In the middle of pages: a failed completion, a partial post, a lost completion, and a rail
    // that goes down.
    let status = kvrail_core::verbs_abi::WcStatus::RETRY_EXC_ERR;
    sim.script(lanes[0], Fate::Status { nth: 7, status }).unwrap();
    sim.script(lanes[1], Fate::Prefix { nth: 3, accepted: 1, errno: 12 }).unwrap();
    sim.script(lanes[2], Fate::Lost { nth: 5 }).unwrap();
    sim.at(Time(3_000_000), Action::RailDown { rail: RailIndex(1), told: true }).unwrap();
    sim.at(Time(5_000_000), Action::RailUp { rail: RailIndex(1), told: true }).unwrap();

    let mut seen = 0;
    while sim.now() < Time(9_000_000) {
        while let Some(mut batch) = engine.batch() {
            while batch.len() < 9 {
                let (Some(a), Some(b)) = (slots.pop(), slots.pop()) else { break };
                let location =
                    |slot: &Slot, i| region.page(owner.location((slot.index() + i) % SLOTS)).unwrap();
                let pages = [location(&a, 0), location(&b, 0), location(&b, 1)];
                batch.read_with(pages[0], a, whole).unwrap();
                batch.read_with(pages[1], b, first).unwrap();
                batch.read_also_with(pages[2], second).unwrap();
            }
            if batch.is_empty() {
                break;
            }
            engine.submit(batch, sim.now(), sim.now() + Nanos::from_millis(100)).unwrap();
        }
        engine.wait(sim.now(), Time(9_000_000));
        engine.poll(sim.now());
        while let Some(mut done) = engine.next_done() {
            for mut page in done.pages() {
                page.result.unwrap();
                let index = page.slot.index();
                if page.index % 3 == 0 {
                    assert!(is_turned(&page.slot, index % SLOTS, 0..4));
                } else {
                    assert!(is_turned(&page.slot, index % SLOTS, 0..2));
                    assert!(is_turned(&page.slot, (index + 1) % SLOTS, 2..4));
                }
                seen += 1;
                page.slot.bytes_mut().unwrap().fill(0xFF);
                slots.push(page.slot);
            }
        }
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            if attach(&mut engine, &sim, wanted.peer, &owner, wanted.rail.0, 8).is_none() {
                engine.lane_unavailable(wanted, sim.now());
            }
        }
    }
    let sum = |f: fn(&kvrail_core::rail::RailStats) -> u64| -> u64 {
        (0..2).map(|rail| f(&engine.rail_stats(RailIndex(rail)).unwrap())).sum()
    };
    let (failed, again) = (sum(|s| s.lanes_failed), sum(|s| s.reposted));
    assert!(
        seen > 1_000 && failed >= 4 && again >= 4,
        "{seen} slots, {failed} lanes failed, {again} wrs again"
    );
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn several_pages_fill_one_slot_and_other_bytes_of_it_stay_unchanged() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(2);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(6), &rails(2)).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip([1, 9]).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(4, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let regions = [0, 1].map(|i| connect(&mut engine, &sim, &owners[i], 2, 1, 32).1);

    // Three pages of two peers share one slot and leave a hole; a fourth page has a slot of its
    // own.
    let page = |owner: usize, slot| regions[owner].page(owners[owner].location(slot)).unwrap();
    let mut batch = engine.batch().unwrap();
    let mut slot = slots.next().unwrap();
    slot.bytes_mut().unwrap().fill(0xEE);
    batch.read(page(0, 0).part(0, 3_000).unwrap(), slot).unwrap();
    batch.read_also(page(1, 1).part(1_000, 3_000).unwrap(), 3_000).unwrap();
    batch.read_also(page(0, 2).part(0, 2_000).unwrap(), 8_000).unwrap();
    batch.read(page(1, 3), slots.next().unwrap()).unwrap();
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut seen = Vec::new();
    settle(&mut engine, &sim, LATE, |mut done| {
        assert_eq!(done.len(), 4);
        assert!((0..4).all(|i| done.result(i) == Some(Ok(()))) && done.result(4).is_none());
        for page in done.pages() {
            page.result.unwrap();
            let bytes = page.slot.bytes().unwrap();
            let value = |owner: usize, slot| owners[owner].expected(owners[owner].location(slot));
            if page.index == 0 {
                let parts = [
                    (0..3_000, value(0, 0)),
                    (3_000..6_000, value(1, 1)),
                    (6_000..8_000, 0xEE),
                    (8_000..PAGE, value(0, 2)),
                ];
                for (range, value) in parts {
                    assert!(bytes[range.clone()].iter().all(|&b| b == value), "{range:?}");
                }
            } else {
                assert!(all_equal(&page.slot, PAGE, value(1, 3)));
            }
            seen.push((page.index, page.slot.index()));
        }
    });
    assert_eq!(seen, [(0, 0), (3, 1)], "a slot comes back once");
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn the_result_of_a_shared_slot_is_ok_only_if_all_of_its_pages_arrive() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(7), &rails(1)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(4, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    let [first, second] = [0, 2].map(|at| engine.add_plan(&turned(Selection::ALL.tokens(at, 2))).unwrap());
    let stale = owner.location(3);
    owner.invalidate(&sim, 3);
    owner.publish(&sim, 3, 9);

    let mut batch = engine.batch().unwrap();
    // The second page of a slot is stale, then the first, then neither.
    for (a, b) in
        [(owner.location(0), stale), (stale, owner.location(0)), (owner.location(1), owner.location(2))]
    {
        batch.read_with(region.page(a).unwrap(), slots.next().unwrap(), first).unwrap();
        batch.read_also_with(region.page(b).unwrap(), second).unwrap();
    }
    engine.submit(batch, sim.now(), LATE).unwrap();
    settle(&mut engine, &sim, LATE, |mut done| {
        let miss = |result| matches!(result, Err(PageError::Miss(Miss::Generation { .. })));
        let each: Vec<bool> = (0..6).map(|i| done.result(i).unwrap().is_ok()).collect();
        // The first page of each pair has the result of the slot, the second its own.
        assert_eq!(each, [false, false, false, true, true, true]);
        let slots: Vec<_> = done.pages().map(|page| page.result).collect();
        assert!(miss(slots[0]) && miss(slots[1]) && slots[2].is_ok(), "{slots:?}");
    });
}

#[test]
fn pages_that_do_not_fit_are_refused_and_no_slot_is_lost() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(8), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let (dest, other_dest) = (Destination::new(24, PAGE), Destination::new(4, PAGE - 1));
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let mut short = other_dest.register(&mut engine, PAGE - 1);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    let page = region.page(owner.location(0)).unwrap();
    let whole = engine.add_plan(&turned(Selection::ALL)).unwrap();

    let mut batch = engine.batch().unwrap();
    assert_eq!(batch.read_also(page, 0), Err(ReadError::NoSlot));
    assert_eq!(batch.read_also_with(page, whole), Err(ReadError::NoSlot));
    let (error, slot) = batch.read_with(page, short.next().unwrap(), whole).unwrap_err();
    assert_eq!(error, ReadError::SlotTooSmall { page_bytes: PAGE as u32, slot_bytes: PAGE - 1 });
    short.put(slot).unwrap();
    // A plan reads whole pages: from a part of one it would take the wrong bytes.
    let part = page.part(1, PAGE as u32 - 1).unwrap();
    let (error, slot) = batch.read_with(part, slots.next().unwrap(), whole).unwrap_err();
    let plan = by_token().fingerprint();
    assert_eq!(error, LayoutMismatch::Source { plan, page: None }.into());
    // The layout that was set for a region may be wrong, and the bounds are checked all the same.
    let short = RegionOffer { page_bytes: PAGE as u64 - 1, ..owner.offer() };
    let mut short = engine.add_region(region.peer(), &short).unwrap();
    short.set_layout(engine.add_layout(&by_token().identity(), 0).unwrap()).unwrap();
    let short = short.page(owner.location(0)).unwrap();
    let (error, slot) = batch.read_with(short, slot, whole).unwrap_err();
    assert_eq!(error, ReadError::PageTooSmall { page_bytes: PAGE as u32 - 1, plan_bytes: PAGE as u32 });
    batch.read_with(page, slot, whole).unwrap();
    for offset in [1, PAGE as u32, u32::MAX] {
        let slot_bytes = PAGE;
        assert_eq!(
            batch.read_also(page, offset),
            Err(ReadError::BeyondSlot { page_bytes: PAGE as u32, offset, slot_bytes })
        );
    }
    while batch.len() < batch.capacity() {
        batch.read_also(page.part(0, 10).unwrap(), batch.len() as u32).unwrap();
    }
    assert_eq!(batch.read_also(page, 0), Err(ReadError::Full { capacity: 16 }));
    assert_eq!(batch.read_also_with(page, whole), Err(ReadError::Full { capacity: 16 }));
    // Clearing the batch gives each slot back once, and the batch can be filled again.
    assert_eq!(batch.clear().map(|slot| slot.index()).collect::<Vec<_>>(), [0]);
    assert_eq!(batch.read_also(page, 0), Err(ReadError::NoSlot));

    let rows = |order: &[Level]| rows(order);
    let (layer, token) = (Level::Axis(AxisKind::Layer), Level::Axis(AxisKind::Token));
    let regions = rows(&[Level::Regions(AxisKind::Layer), token]);
    let several = Plan::between(&regions, &rows(&[token, layer]), Selection::ALL).unwrap();
    assert_eq!(engine.add_region_plan(&several), Err(AddPlanError::Cut(CutError::Regions)));
    // A plan from one region is accepted, and each layer has its place in the slot.
    let layers: Vec<_> =
        (0..5).map(|layer| engine.add_region_plan(&several.only(layer, 0).unwrap()).unwrap()).collect();
    assert_eq!(layers[0].source_bytes(), 2_000);
    assert!(layers.windows(2).all(|pair| pair[0].slot_bytes() + 500 == pair[1].slot_bytes()));
    // A plan that is known takes no further place.
    assert_eq!(engine.add_region_plan(&several.only(2, 0).unwrap()), Ok(layers[2]));
    assert_eq!(engine.add_plan(&turned(Selection::ALL)), Ok(whole));
}

#[test]
fn a_full_table_of_plans_gives_an_error() {
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(9), &rails(1)).unwrap();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let page = |bytes, pad| {
        use kvrail_layouts::{Axis, Declaration, ElementKind, FieldDecl, PlaneDecl};
        Declaration {
            axes: &[Axis::whole(AxisKind::Token, 4)],
            order: &[Level::Axis(AxisKind::Token), Level::Pad(pad)],
            planes: &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, bytes)])],
            ..Declaration::EMPTY
        }
        .expect()
    };
    let mut learn =
        |bytes| engine.add_plan(&Plan::between(&page(bytes, 1), &page(bytes, 512), Selection::ALL).unwrap());
    for bytes in 1..=96 {
        assert_eq!(learn(bytes).unwrap().bytes(), 4 * bytes as u32);
    }
    assert_eq!(learn(97), Err(AddPlanError::Full { plans: 96, rows: 96, lists: 96 }));
    assert!(learn(64).is_ok(), "a known plan stays known");
}
