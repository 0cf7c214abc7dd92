//! Uses of the public interface that would reach beyond a slot or a page: each is refused by name.

use super::*;
use kvrail_core::layout::SetLayoutError;
use kvrail_core::plan::{AddPlanError, ForgetPlanError};

/// A plan that is the same as the one of whole pages must not be forgotten more often than it was
/// added: the plan of whole pages has no epoch, so its number would be followed for ever.
#[test]
fn the_plan_of_whole_pages_is_not_forgotten_by_a_caller() {
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
    engine.add_plan(&other).unwrap();
    let mut batch = engine.batch().unwrap();
    batch.read(region.page(pool.location(3)).unwrap(), slots.next().unwrap()).unwrap();
    engine.submit(batch, sim.now(), LATE).unwrap();
    let done = settle(&mut engine, &sim);
    // Slot 1 was never given out: nothing may have changed there.
    let beyond = &slots.next().unwrap();
    assert!(engine.slot_bytes(beyond, 0).unwrap().iter().all(|&b| b == 0));
    assert!(done[0].2.is_ok() && is_whole(&engine, &done[0].1, 3, 1), "Ok, and the bytes are others");
    assert_eq!(again, Err(ForgetPlanError::Unknown));
}

/// Slots of one short piece take the layout of whole pages of several regions.
#[test]
fn a_slot_of_one_piece_is_not_written_beyond_its_end() {
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
    assert_eq!(slots.set_layout(whole), Err(SetLayoutError::SeveralRegions));
    // Without a layout it takes no page of several regions either.
    let mut batch = engine.batch().unwrap();
    let read = batch.read(region.page(pool.location(3)).unwrap(), slots.next().unwrap());
    assert_eq!(read.unwrap_err().0, ReadError::SlotOfBytes { regions: 5 });
}

/// A region that was added by itself takes the layout of whole pages of several regions.
#[test]
fn a_page_of_one_region_reads_no_other_region() {
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
    let mut region = engine.add_region(peer, &offer).unwrap();
    assert_eq!(region.set_layout(whole), Err(SetLayoutError::SeveralRegions));
    let same = Plan::between(&by_region(), &by_region(), Selection::ALL).unwrap();
    let plan = engine.add_plan(&same).unwrap();
    let mut batch = engine.batch().unwrap();
    let page = region.page(pool.location(3)).unwrap();
    let (error, _) = batch.read_with(page, slots.next().unwrap(), plan).unwrap_err();
    assert!(matches!(error, ReadError::Layout(LayoutMismatch::Source { .. })), "{error}");
}

/// Ranges that end beyond the address space, and layouts of more regions than there are pieces, are
/// refused for the reason that is true.
#[test]
fn a_range_that_wraps_is_not_called_too_small() {
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
    let addr = u64::MAX - len + 2;
    assert_eq!(error, RegionError::Wraps { region: 4, addr, bytes: len });
}

/// Errors of an engine that has nothing yet do not say that it has too much.
#[test]
fn an_empty_engine_is_not_called_full() {
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
    let plan = Plan::between(&rows(300, &by_layer), &rows(300, &by_token), Selection::ALL).unwrap();
    let plan = engine.add_plan(&plan).unwrap_err();
    assert_eq!(regions, RegionError::Pieces { needed: 1_025, limit: 1_024 });
    assert_eq!(plan, AddPlanError::Rows { limit: 256 });
}
