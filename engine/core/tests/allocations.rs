//! After set-up nothing on the data path allocates: not submitting, posting or polling, and not the
//! failure of a lane, its flush, the re-posting of its wrs and the new lane.
#![allow(missing_docs, reason = "tests")]

mod common;
#[path = "common/heap.rs"]
mod heap;

use common::*;
use heap::heap_calls;
use kvrail_core::config::EngineConfig;
use kvrail_core::hub::{Hub, Mailbox, Outcome};
use kvrail_core::id::RailIndex;
use kvrail_core::memory::Slot;
use kvrail_core::remote::Location;
use kvrail_core::rows::Rows;
use kvrail_core::time::{Nanos, Time};
use kvrail_layouts::Selection;
use kvrail_sim::sim::{self, Action, Fate, Sim};

#[test]
fn the_counter_counts() {
    let (calls, v) = heap_calls(|| vec![1_u8; 100]);
    assert_eq!((calls, v.len()), (1, 100));
}

#[test]
fn the_data_path_makes_no_heap_call() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let config = sim::SimConfig { retry: Nanos::from_micros(500), ..sim::SimConfig::new(21) };
    let sim = Sim::new(&mut storage, config, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { chunk_bytes: 4096, stall: Nanos::from_millis(3), ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut all_slots = dest.register(&mut engine, PAGE);
    let mut ranges = Vec::from([4, 12, 12].map(|n| all_slots.take_range(n).unwrap()));
    let mut slots: Vec<Slot> = all_slots.collect();
    let locations: [Location; 12] = core::array::from_fn(|at| owner.location(at));
    let from: [u32; 12] = core::array::from_fn(|at| locations[at].slot);
    let (_, region, lanes) = connect(&mut engine, &sim, &owner, 2, 2, 16);
    let all = Selection::ALL;
    let [whole, first, second] =
        [all, all.tokens(0, 2), all.tokens(2, 2)].map(|part| engine.add_plan(&turned(part)).unwrap());
    // A failed completion, a partial post, a lost completion, and a rail that goes down and comes
    // up.
    sim.script(lanes[0], Fate::Status { nth: 10, status: kvrail_core::verbs_abi::WcStatus::RETRY_EXC_ERR })
        .unwrap();
    sim.script(lanes[1], Fate::Prefix { nth: 1, accepted: 1, errno: 12 }).unwrap();
    sim.script(lanes[2], Fate::Lost { nth: 3 }).unwrap();
    sim.at(Time(2_000_000), Action::RailDown { rail: RailIndex(1), told: true }).unwrap();
    sim.at(Time(6_000_000), Action::RailUp { rail: RailIndex(1), told: true }).unwrap();

    let rows = Rows::of(200, &[0, 1, 9, 30, 49]).unwrap();
    const BULK: u64 = 1;
    let (mut pages, mut late, mut in_bulk) = (0, 0, 0);
    let (calls, ()) = heap_calls(|| {
        while sim.now() < Time(12_000_000) {
            while let Some(mut batch) = engine.batch() {
                // Some batches are filled in bulk.
                if let Some(mut range) = ranges.pop() {
                    let rest = range.split_off(range.len() / 2);
                    range.join(rest).unwrap();
                    let n = range.len();
                    let filled = match n {
                        4 => batch.read_many_unvalidated(&region, &from[..n], range),
                        _ => batch.read_many(&region, &locations[..n], range),
                    };
                    filled.unwrap();
                    batch.set_tag(BULK);
                    engine.submit(batch, sim.now(), sim.now() + Nanos::from_millis(5)).unwrap();
                    continue;
                }
                while batch.len() < 12 {
                    let Some(slot) = slots.pop() else { break };
                    let page = region.page(owner.location(slot.index() % SLOTS)).unwrap();
                    match batch.len() % 4 {
                        // Rows of a page, a page without a plan, one by a plan, and two that share
                        // a slot.
                        0 if slot.index() % 2 == 0 => batch.read_rows(page, rows, slot).unwrap(),
                        0 => batch.read(page, slot).unwrap(),
                        1 => batch.read_with(page, slot, whole).unwrap(),
                        _ => {
                            batch.read_with(page, slot, first).unwrap();
                            batch.read_also_with(page, second).unwrap();
                        }
                    }
                }
                if batch.is_empty() {
                    break;
                }
                engine.submit(batch, sim.now(), sim.now() + Nanos::from_millis(5)).unwrap();
            }
            engine.wait(sim.now(), Time(12_000_000));
            engine.poll(sim.now());
            while engine.next_overdue().is_some() {}
            while let Some(mut done) = engine.next_done() {
                if done.tag() == BULK {
                    in_bulk += done.len() - done.failures().count();
                    assert_eq!(done.failed_bits(0).count_ones() as usize, done.failures().count());
                    ranges.extend(core::iter::from_fn(|| done.take_range()).map(|range| range.slots));
                    continue;
                }
                for page in done.pages() {
                    pages += u64::from(page.result.is_ok());
                    late += u64::from(page.result.is_err());
                    slots.push(page.slot);
                }
            }
            while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
                if attach(&mut engine, &sim, wanted.peer, &owner, wanted.rail.0, 16).is_none() {
                    engine.lane_unavailable(wanted, sim.now());
                }
            }
        }
    });
    assert_eq!(calls, 0, "heap calls on the data path");
    let failed: u64 = (0..2).map(|r| engine.rail_stats(RailIndex(r)).unwrap().lanes_failed).sum();
    let again: u64 = (0..2).map(|r| engine.rail_stats(RailIndex(r)).unwrap().reposted).sum();
    assert!(
        pages > 1_000 && in_bulk > 500 && failed >= 4 && again > 0,
        "{pages} pages, {in_bulk} in bulk, {late} late, {failed} failed, {again} again"
    );
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

/// The hand-over between submitters and the engine: orders, pages told before their batch, batches,
/// and what a dropped submitter leaves.
#[test]
fn submitters_are_told_pages_and_batches_without_a_heap_call() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 5);
    let dest = Destination::new(32, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut mailboxes = Box::new([const { Mailbox::<8, 64>::with_room_for_pages() }; 2]);
    let config = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
    let mut engine = start(&mut state, &sim, config);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 2, 5);
    let mut hub = Hub::<2>::new();
    let [one, two] = &mut *mailboxes;
    let mut stays = hub.submitter(&engine, one).unwrap();
    let mut leaves = Some(hub.submitter(&engine, two).unwrap());
    let (mut told, mut with_batch, mut orphans, mut batches) = (0, 0, 0, 0);
    let (calls, ()) = heap_calls(|| {
        while batches < 200 || stays.in_flight() > 0 {
            if batches == 100 {
                leaves = None;
            }
            for submitter in [Some(&mut stays), leaves.as_mut()].into_iter().flatten() {
                if batches < 200
                    && slots.len() >= 6
                    && submitter.in_flight() < 2
                    && let Some(mut batch) = submitter.batch()
                {
                    batches += 1;
                    batch.report_pages();
                    for slot in 0..6 {
                        let page = region.page(owner.location(slot)).unwrap();
                        let into = slots.pop().unwrap();
                        if slot == 3 {
                            batch.join(page, into).unwrap()
                        } else {
                            batch.read(page, into).unwrap()
                        }
                    }
                    submitter.submit(batch, Time::NEVER).unwrap();
                }
                while let Some(outcome) = submitter.next_outcome() {
                    match outcome {
                        Outcome::Page(.., page) => {
                            told += 1;
                            slots.push(page.slot);
                        }
                        Outcome::Done(mut done) => {
                            slots.extend(done.pages().map(|page| page.slot).inspect(|_| with_batch += 1));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            hub.turn(&mut engine, sim.now(), |outcome| match outcome {
                Outcome::Orphan(slot) => {
                    orphans += 1;
                    slots.push(slot);
                }
                other => panic!("{other:?}"),
            });
            engine.wait(sim.now(), sim.now() + Nanos::from_micros(2));
        }
    });
    assert_eq!(calls, 0, "heap calls of the hub");
    assert!(
        told > 500 && with_batch > 20 && orphans > 0,
        "{told} told, {with_batch} with a batch, {orphans} orphans"
    );
}
