//! Plans that are forgotten: their places are used again, and no page follows another plan than the
//! one that it was given.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::error::{ReadError, SubmitError};
use kvrail_core::plan::{ForgetPlanError, PlanRef};
use kvrail_core::time::Time;
use kvrail_layouts::Selection;
use kvrail_sim::sim::{self, Sim};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
const LATE: Time = Time(1_000_000_000);

#[test]
fn a_forgotten_plan_is_followed_by_no_page_and_its_place_is_used_again() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(16, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 32);
    let page = |slot| region.page(owner.location(slot)).unwrap();
    let tokens = |at, n| turned(Selection::ALL.tokens(at, n));
    let first = engine.add_plan(&tokens(0, 1)).unwrap();
    let kept = engine.add_plan(&tokens(1, 2)).unwrap();
    let again = engine.add_plan(&tokens(0, 1)).unwrap();
    assert_eq!(first, again);

    // Three batches: filled before, filled before and after, filled after.
    let mut before = engine.batch().unwrap();
    before.read_with(page(0), slots.next().unwrap(), first).unwrap();
    let mut half = engine.batch().unwrap();
    half.read_with(page(0), slots.next().unwrap(), kept).unwrap();
    let mut mixed = engine.batch().unwrap();
    mixed.read_with(page(0), slots.next().unwrap(), first).unwrap();

    assert_eq!(engine.forget_plan(first), Ok(()), "it was added twice");
    let mut in_flight = engine.batch().unwrap();
    in_flight.read_with(page(0), slots.next().unwrap(), again).unwrap();
    engine.submit(in_flight, sim.now(), LATE).unwrap();
    assert_eq!(engine.forget_plan(again), Err(ForgetPlanError::InFlight));
    settle(&mut engine, &sim, LATE, |mut done| assert!(done.pages().all(|page| page.result.is_ok())));
    assert_eq!(engine.forget_plan(again), Ok(()));
    assert_eq!(engine.forget_plan(again), Err(ForgetPlanError::Unknown));

    // Its place goes to a longer plan, which earlier batches must not follow.
    let longer = engine.add_plan(&turned(Selection::ALL)).unwrap();
    let rejected = engine.submit(before, sim.now(), LATE).unwrap_err();
    assert_eq!(rejected.error, SubmitError::PlanForgotten { page: 0 });
    let mut batch = rejected.batch;
    let slot = batch.clear().next().unwrap();
    // A cleared batch begins anew.
    batch.read_with(page(1), slot, longer).unwrap();
    engine.submit(batch, sim.now(), LATE).unwrap();
    // A plan that was kept goes on, beside the new one.
    half.read_with(page(2), slots.next().unwrap(), longer).unwrap();
    engine.submit(half, sim.now(), LATE).unwrap();
    let refused = |batch: &mut kvrail_core::batch::Batch<'_>, plan: PlanRef, slot| {
        let (error, slot) = batch.read_with(page(3), slot, plan).unwrap_err();
        assert_eq!(error, ReadError::PlanForgotten);
        slot
    };
    let slot = refused(&mut mixed, longer, slots.next().unwrap());
    assert!(mixed.clear().count() == 1);
    let slot = refused(&mut mixed, first, slot);
    mixed.read_with(page(3), slot, kept).unwrap();
    engine.submit(mixed, sim.now(), LATE).unwrap();
    let mut good = 0;
    settle(&mut engine, &sim, LATE, |mut done| {
        good += done.pages().filter(|page| page.result.is_ok()).count();
    });
    assert_eq!(good, 4);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

/// As many plans as one for each of 126 layers and 8 ranks fit, and places are used again for ever.
#[test]
fn places_of_plans_are_used_again() {
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(2), &rails(1)).unwrap();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let plan = |i: u64| turned(Selection::ALL.tokens(i % 4, 1).layers(i / 4 % 5, 1));
    let mut known: Vec<PlanRef> = (0..20).map(|i| engine.add_plan(&plan(i)).unwrap()).collect();
    for i in 0..3_000_u64 {
        let old = known.remove((i * 7 % 20) as usize);
        engine.forget_plan(old).unwrap();
        known.push(engine.add_plan(&plan(i * 13 % 20)).unwrap());
    }
    for plan in known {
        engine.forget_plan(plan).unwrap();
    }
}
