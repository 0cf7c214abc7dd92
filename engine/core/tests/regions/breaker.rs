//! Hostile uses of the public interface, which is safe code.

use super::*;
use kvrail_core::plan::ForgetPlanError;

/// A plan that is the same as the one of whole pages must not be forgotten more often than it was
/// added: the plan of whole pages has no epoch, so its number would be followed for ever.
#[test]
fn breaker_the_plan_of_whole_pages_is_not_forgotten_by_a_caller() {
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &common::rails(1)).unwrap();
    let pool = Pool::new(&sim, &mut memory);
    let dest = dest_of_regions();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = slots_of_regions(&mut engine, &dest);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    attach(&mut engine, &sim, peer, pool.peer, 0).unwrap();
    let same = Plan::between(&by_region(), &by_region(), Selection::ALL).unwrap();
    let plan = engine.add_plan(&same).unwrap();
    assert_eq!(engine.forget_plan(plan), Ok(()), "it was added once");
    let again = engine.forget_plan(plan);
    // Whatever the answer was: another plan must not be followed by pages that are read whole.
    let other = Plan::between(&by_region(), &by_layer(), Selection::ALL).unwrap();
    let other = engine.add_plan(&other).unwrap();
    let mut batch = engine.batch().unwrap();
    batch.read(region.page(pool.location(3)).unwrap(), slots.next().unwrap()).unwrap();
    engine.submit(batch, sim.now(), LATE).unwrap();
    let done = settle(&mut engine, &sim);
    // Slots 1 and on were never given out: nothing may have changed there.
    let beyond = &slots.next().unwrap();
    println!("beyond: {:?}", &engine.slot_bytes(beyond, 0).unwrap()[..8]);
    println!("again {again:?}, whole page: {:?}, other {other:?}", done[0].2);
    println!("violations {:?}", sim.violations());
    assert!(done[0].2.is_ok() && is_whole(&engine, &done[0].1, 3, 1), "Ok, and the bytes are others");
    assert_eq!(again, Err(ForgetPlanError::Unknown));
}

/// Slots of one short piece take the layout of whole pages of several regions.
#[test]
fn breaker_a_slot_of_one_piece_is_not_written_beyond_its_end() {
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &common::rails(1)).unwrap();
    let pool = Pool::new(&sim, &mut memory);
    let dest = Destination::new(1000, 16);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    attach(&mut engine, &sim, peer, pool.peer, 0).unwrap();
    let mut slots = dest.register(&mut engine, 16);
    let whole = engine.add_page_layout(&by_region()).unwrap();
    let Ok(()) = slots.set_layout(whole) else { return };
    let (mine, others) = (slots.next().unwrap(), slots.next().unwrap());
    assert!(others.bytes().unwrap().iter().all(|b| *b == 0));
    let mut batch = engine.batch().unwrap();
    let Ok(()) = batch.read(region.page(pool.location(3)).unwrap(), mine) else { return };
    engine.submit(batch, sim.now(), LATE).unwrap();
    let done = settle(&mut engine, &sim);
    println!("result {:?}, violations {:?}", done[0].2, sim.violations());
    assert!(
        others.bytes().unwrap().iter().all(|b| *b == 0),
        "another slot was written: {:?}",
        others.bytes()
    );
}

/// A region that was added by itself takes the layout of whole pages of several regions.
#[test]
fn breaker_a_page_of_one_region_reads_no_other_region() {
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &common::rails(1)).unwrap();
    let pool = Pool::new(&sim, &mut memory);
    let dest = dest_of_regions();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = slots_of_regions(&mut engine, &dest);
    let peer = engine.add_peer().unwrap();
    let offer = Pool::offers()[0];
    let whole = engine.add_page_layout(&by_region()).unwrap();
    let mut region = None;
    while let Ok(next) = engine.add_region(peer, &offer) {
        region = Some(next);
    }
    let mut region = region.unwrap();
    let Ok(()) = region.set_layout(whole) else { return };
    attach(&mut engine, &sim, peer, pool.peer, 0).unwrap();
    let same = Plan::between(&by_region(), &by_region(), Selection::ALL).unwrap();
    let plan = engine.add_plan(&same).unwrap();
    let mut batch = engine.batch().unwrap();
    let page = region.page(pool.location(3)).unwrap();
    let Ok(()) = batch.read_with(page, slots.next().unwrap(), plan) else { return };
    // The table of remote regions ends here: an index beyond it.
    engine.submit(batch, sim.now(), LATE).unwrap();
    let done = settle(&mut engine, &sim);
    assert!(done[0].2.is_err(), "its other regions are no memory of this page");
}

/// A pool that is gone costs every later submit of its peer a look at each page, for ever.
#[test]
fn breaker_a_pool_that_is_gone_costs_later_submits_nothing() {
    use std::time::{Duration, Instant};
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &common::rails(1)).unwrap();
    let pool = Pool::new(&sim, &mut memory);
    let dest = dest_of_regions();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = slots_of_regions(&mut engine, &dest);
    let mut free: Vec<_> = slots.by_ref().collect();
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let other = engine.add_region(peer, &Pool::offers()[1]).unwrap();
    let mut cost = |engine: &mut Small<'_, '_>| {
        let mut all = Vec::new();
        for _ in 0..2_000 {
            let mut batch = engine.batch().unwrap();
            for slot in 0..SLOTS {
                batch.read(region.page(pool.location(slot)).unwrap(), free.pop().unwrap()).unwrap();
            }
            let begin = Instant::now();
            let ticket = engine.submit(batch, sim.now(), LATE).unwrap();
            all.push(begin.elapsed());
            engine.withdraw(ticket, sim.now()).unwrap();
            let mut done = engine.next_done().unwrap();
            free.extend(done.pages().map(|page| page.slot));
        }
        all.sort();
        all[1_000]
    };
    let before: Duration = cost(&mut engine);
    engine.remove_pool(&other, sim.now());
    let after = cost(&mut engine);
    println!("submit of {SLOTS} pages: {before:?} before, {after:?} after another pool of the peer has gone");
    assert!(after < 2 * before, "{after:?} is more than twice {before:?}");
}

/// Ranges that end beyond the address space, and layouts of more regions than there are pieces, are
/// refused for the reason that is true.
#[test]
fn breaker_a_range_that_wraps_is_not_called_too_small() {
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &common::rails(1)).unwrap();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let len = 2 * LAYER as u64;
    let at = |i: u64| DestinationRegion { range: MemoryRange { addr: i, len }, stride: LAYER as u64 };
    let mut regions: Vec<_> = (1..=LAYERS as u64).map(|i| at(i << 20)).collect();
    regions[4] = at(u64::MAX - len + 2);
    // SAFETY: it is refused.
    let error =
        unsafe { engine.register_foreign_regions(&by_region(), &regions, Access::Host, None) }.unwrap_err();
    println!("{error}");
    assert!(!matches!(error, RegionError::TooSmall { .. }), "20000 bytes hold two slots of 10000: {error}");
}

/// Errors of an engine that has nothing yet do not say that it has too much.
#[test]
fn breaker_an_empty_engine_is_not_called_full() {
    use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &common::rails(1)).unwrap();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let rows = |layers: u64, order: &[Level]| {
        Declaration {
            axes: &[Axis::whole(AxisKind::Layer, layers), Axis::whole(AxisKind::Token, 2)],
            order,
            planes: &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, 16)])],
            ..Declaration::EMPTY
        }
        .expect()
    };
    let by_layer = [Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token)];
    let by_token = [Level::Regions(AxisKind::Token), Level::Axis(AxisKind::Layer)];
    let many = rows(1_025, &by_layer);
    let regions = engine.register_regions(&many, vec![0_u8; many.page_bytes() as usize].leak()).unwrap_err();
    println!("{regions}");
    let plan = Plan::between(&rows(300, &by_layer), &rows(300, &by_token), Selection::ALL).unwrap();
    let plan = engine.add_plan(&plan).unwrap_err();
    println!("{plan}");
    assert!(!regions.to_string().contains("are registered already"), "{regions}");
    assert!(!plan.to_string().contains("knows 0 plans"), "{plan}");
}
