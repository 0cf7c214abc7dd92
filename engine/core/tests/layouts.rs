//! A page lands in a slot of its own layout, or by a plan between the two layouts. Anything else is
//! refused before a byte moves, and the error names both layouts.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::batch::Batch;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::error::ReadError;
use kvrail_core::layout::{AddLayoutError, LayoutMismatch, LayoutRef, SetLayoutError};
use kvrail_core::memory::Slots;
use kvrail_core::plan::{AddPlanError, PlanRef};
use kvrail_core::remote::RemoteRegion;
use kvrail_core::time::Time;
use kvrail_layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, Plan, PlaneDecl, Selection,
    Undetermined,
};
use kvrail_sim::sim::{self, Sim, SimRails};

type Small<'s, 'm> = Engine<'s, SimRails<'m>>;

/// A page of [`PAGE`] bytes: 4 tokens of 5 heads of 500 bytes, which is one rank's part of `ranks`.
fn heads(order: [AxisKind; 2], ranks: u32) -> Geometry {
    Declaration {
        axes: &[Axis::whole(AxisKind::Token, 4), Axis::sharded(AxisKind::Head, 5, ranks)],
        order: &order.map(Level::Axis),
        planes: &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, 500)])],
        ..Declaration::EMPTY
    }
    .expect()
}

fn ranked(order: [AxisKind; 2], rank: u32) -> Geometry {
    heads(order, 4).at_rank(AxisKind::Head, rank).unwrap()
}

const BY_TOKEN: [AxisKind; 2] = [AxisKind::Token, AxisKind::Head];
const BY_HEAD: [AxisKind; 2] = [AxisKind::Head, AxisKind::Token];

fn layout(engine: &mut Small<'_, '_>, geometry: &Geometry) -> LayoutRef {
    engine.add_layout(&geometry.identity(), 0).unwrap()
}

/// A region of pages of this geometry.
fn region(engine: &mut Small<'_, '_>, owner: &Owner, geometry: &Geometry) -> RemoteRegion {
    let peer = engine.add_peer().unwrap();
    let mut region = engine.add_region(peer, &owner.offer()).unwrap();
    region.set_layout(layout(engine, geometry)).unwrap();
    region
}

/// Slots for pages of this geometry.
fn slots(engine: &mut Small<'_, '_>, memory: &Destination, geometry: &Geometry) -> Slots {
    let mut slots = memory.register(engine, PAGE);
    slots.set_layout(layout(engine, geometry)).unwrap();
    slots
}

/// Reads a page of `region` into a slot of `slots`, by a plan or without one, and returns the
/// result.
fn read(
    batch: &mut Batch<'_>,
    owner: &Owner,
    region: &RemoteRegion,
    slots: &mut Slots,
    plan: Option<PlanRef>,
) -> Result<(), LayoutMismatch> {
    let (page, slot) = (region.page(owner.location(0)).unwrap(), slots.next().unwrap());
    let index = slot.index();
    let read = match plan {
        Some(plan) => batch.read_with(page, slot, plan),
        None => batch.read(page, slot),
    };
    let Err((error, slot)) = read else { return Ok(()) };
    assert_eq!(slot.index(), index, "the slot comes back");
    slots.put(slot).unwrap();
    let ReadError::Layout(why) = error else { panic!("{error}") };
    Err(why)
}

fn fixture(test: impl FnOnce(&mut Small<'_, '_>, &Owner)) {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT });
    test(&mut engine, &owner);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn two_layouts_of_one_size_are_not_read_for_each_other() {
    let dest = [(); 3].map(|()| Destination::new(8, PAGE));
    fixture(|engine, owner| {
        let (ours, theirs) = (by_layer(), by_token());
        let pages = region(engine, owner, &theirs);
        let (mut same, mut other) = (slots(engine, &dest[0], &theirs), slots(engine, &dest[1], &ours));
        let mut bytes = dest[2].register(engine, PAGE);
        let mut batch = engine.batch().unwrap();
        assert_eq!(read(&mut batch, owner, &pages, &mut same, None), Ok(()));
        // The page before it was accepted, and its shape is not taken for this page's.
        let refused = read(&mut batch, owner, &pages, &mut other, None).unwrap_err();
        let (page, slot) = (theirs.fingerprint(), ours.fingerprint());
        assert_eq!(refused, LayoutMismatch::NoPlan { page: Some(page), slot });
        let text = refused.to_string();
        assert!(text.contains(&page.to_string()) && text.contains(&slot.to_string()), "{text}");
        assert_eq!(
            read(&mut batch, owner, &pages, &mut bytes, None),
            Ok(()),
            "slots without a layout take any bytes"
        );
        // Such pages do not share a slot either, and a region without a layout matches no slot that
        // has one.
        let nothing = engine.add_region(pages.peer(), &owner.offer()).unwrap();
        let refused = read(&mut batch, owner, &nothing, &mut same, None);
        assert_eq!(refused, Err(LayoutMismatch::NoPlan { page: None, slot: page }));
        let mut batch = engine.batch().unwrap();
        let whole = engine.add_plan(&turned(Selection::ALL)).unwrap();
        assert_eq!(read(&mut batch, owner, &pages, &mut other, Some(whole)), Ok(()));
        let page = pages.page(owner.location(1)).unwrap();
        // A part of a page has no layout, and shares no slot that has one.
        let refused = batch.read_also(page.part(0, 500).unwrap(), 0).unwrap_err();
        assert_eq!(refused, LayoutMismatch::NoPlan { page: None, slot }.into());
        let refused = batch.read_also(page, 0).unwrap_err();
        let page = Some(theirs.fingerprint());
        assert_eq!(refused, LayoutMismatch::NoPlan { page, slot }.into());
        let _ = batch.clear().count();
    });
}

#[test]
fn a_plan_moves_the_pages_that_it_was_made_for() {
    let dest = [(); 3].map(|()| Destination::new(8, PAGE));
    fixture(|engine, owner| {
        let pages = region(engine, owner, &by_token());
        let [mut by_layers, mut by_tokens] =
            [(&dest[0], by_layer()), (&dest[1], by_token())].map(|(memory, of)| slots(engine, memory, &of));
        let mut bytes = dest[2].register(engine, PAGE);
        let there = engine.add_plan(&turned(Selection::ALL)).unwrap();
        let back = Plan::between(&by_layer(), &by_token(), Selection::ALL).unwrap();
        let back = engine.add_plan(&back).unwrap();
        let mut batch = engine.batch().unwrap();
        let mut read = |region: &RemoteRegion, slots: &mut Slots, plan| {
            read(&mut batch, owner, region, slots, Some(plan))
        };
        assert_eq!(read(&pages, &mut by_layers, there), Ok(()));
        assert_eq!(read(&pages, &mut bytes, there), Ok(()), "slots without a layout take any bytes");
        let (token, layer) = (by_token().fingerprint(), by_layer().fingerprint());
        // These pages have the same length and are in bounds: only the layout differs.
        let refused = read(&pages, &mut by_tokens, back).unwrap_err();
        assert_eq!(refused, LayoutMismatch::Source { plan: layer, page: Some(token) });
        assert!(
            refused.to_string().contains(&layer.to_string())
                && refused.to_string().contains(&token.to_string())
        );
        let refused = read(&pages, &mut by_tokens, there).unwrap_err();
        assert_eq!(refused, LayoutMismatch::Destination { plan: layer, slot: token });
        assert!(
            refused.to_string().contains(&layer.to_string())
                && refused.to_string().contains(&token.to_string())
        );
        let nothing = engine.add_region(pages.peer(), &owner.offer()).unwrap();
        let refused = read(&nothing, &mut by_layers, there).unwrap_err();
        assert_eq!(refused, LayoutMismatch::Source { plan: token, page: None });
        let _ = batch.clear().count();
    });
}

#[test]
fn a_rank_is_read_by_the_same_rank_or_by_a_plan_between_the_two() {
    let dest = [(); 4].map(|()| Destination::new(8, PAGE));
    fixture(|engine, owner| {
        let pages = [0, 1].map(|rank| region(engine, owner, &ranked(BY_TOKEN, rank)));
        let mut plain = slots(engine, &dest[0], &ranked(BY_TOKEN, 1));
        let mut turned = slots(engine, &dest[1], &ranked(BY_HEAD, 1));
        let mut plan = |source: &Geometry, destination: &Geometry| {
            engine.add_plan(&Plan::between(source, destination, Selection::ALL).unwrap()).unwrap()
        };
        let of_any_rank = plan(&heads(BY_TOKEN, 4), &heads(BY_HEAD, 4));
        let of_one = plan(&ranked(BY_TOKEN, 1), &ranked(BY_HEAD, 1));
        let of_zero = plan(&ranked(BY_TOKEN, 0), &ranked(BY_HEAD, 0));
        let mut batch = engine.batch().unwrap();
        let mut read =
            |from: usize, slots: &mut Slots, plan| read(&mut batch, owner, &pages[from], slots, plan);
        let axis = AxisKind::Head;
        let ranks = LayoutMismatch::Ranks { axis, page: 0, slot: 1 };
        assert_eq!(read(1, &mut plain, None), Ok(()));
        assert_eq!(read(0, &mut plain, None), Err(ranks));
        assert!(ranks.to_string().contains("rank 0's along head, the slot rank 1's"), "{ranks}");
        assert_eq!(read(1, &mut turned, Some(of_any_rank)), Ok(()));
        assert_eq!(read(0, &mut turned, Some(of_any_rank)), Err(ranks));
        assert_eq!(read(1, &mut turned, Some(of_one)), Ok(()));
        let other = LayoutMismatch::Rank { end: "page", axis, plan: 1, found: 0 };
        assert_eq!(read(0, &mut turned, Some(of_one)), Err(other));
        let other = LayoutMismatch::Rank { end: "slot", axis, plan: 0, found: 1 };
        assert_eq!(read(0, &mut turned, Some(of_zero)), Err(other));
        let _ = batch.clear().count();
    });
}

/// A plan between two regions of pages that have several regions is no plan for the other regions.
#[test]
fn a_region_of_a_page_is_not_read_for_another() {
    let (dest, other) = (Destination::new(8, PAGE), Destination::new(8, PAGE));
    fixture(|engine, owner| {
        let layers = rows(&[Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token)]);
        let plan = Plan::between(&layers, &by_token(), Selection::ALL).unwrap();
        let [second, third] =
            [1, 2].map(|layer| engine.add_region_plan(&plan.only(layer, 0).unwrap()).unwrap());
        let peer = engine.add_peer().unwrap();
        let mut region = engine.add_region(peer, &owner.offer()).unwrap();
        region.set_layout(engine.add_layout(&layers.identity(), 1).unwrap()).unwrap();
        let mut slots = slots(engine, &dest, &by_token());
        let mut batch = engine.batch().unwrap();
        assert_eq!(read(&mut batch, owner, &region, &mut slots, Some(second)), Ok(()));
        let refused = read(&mut batch, owner, &region, &mut slots, Some(third));
        assert_eq!(refused, Err(LayoutMismatch::Region { end: "page", plan: 2, found: 1 }));
        // Nor without a plan.
        let mut second = other.register(engine, PAGE);
        second.set_layout(engine.add_layout(&layers.identity(), 2).unwrap()).unwrap();
        let refused = read(&mut batch, owner, &region, &mut second, None);
        assert_eq!(refused, Err(LayoutMismatch::Regions { page: 1, slot: 2 }));
        let _ = batch.clear().count();
    });
}

#[test]
fn the_layout_of_a_region_is_set_once_and_before_its_slots_are_given_out() {
    let dest = [(); 2].map(|()| Destination::new(8, PAGE));
    fixture(|engine, owner| {
        let [token, layer] = [by_token(), by_layer()].map(|geometry| layout(engine, &geometry));
        assert_eq!(layout(engine, &by_token()), token, "a layout is added once");
        let mut pages = region(engine, owner, &by_token());
        assert_eq!(pages.set_layout(token), Ok(()));
        assert_eq!(pages.set_layout(layer), Err(SetLayoutError::Another));
        let mut slots = slots(engine, &dest[0], &by_token());
        assert_eq!(slots.set_layout(layer), Err(SetLayoutError::Another));
        let mut late = dest[1].register(engine, PAGE);
        let first = late.next().unwrap();
        assert_eq!(late.set_layout(token), Err(SetLayoutError::Given { given: 1 }));
        late.put(first).unwrap();
        // Open ranks and distances are for plans, not for memory.
        let open = engine.add_layout(&heads(BY_TOKEN, 4).identity(), 0).unwrap_err();
        let why = Undetermined::Rank { axis: AxisKind::Head, ranks: 4 };
        assert_eq!(open, AddLayoutError::Undetermined(why));
        let strided = rows(&[Level::Strided(AxisKind::Layer), Level::Axis(AxisKind::Token)]);
        let open = engine.add_layout(&strided.identity(), 0).unwrap_err();
        assert_eq!(open, AddLayoutError::Undetermined(Undetermined::Distance));
        assert_eq!(slots.out() + late.out(), 0);
    });
    // A layout of another engine.
    let mut foreign = None;
    fixture(|engine, _| foreign = Some(layout(engine, &by_token())));
    fixture(|engine, owner| {
        let foreign = foreign.unwrap();
        let mut pages = region(engine, owner, &by_token());
        assert_eq!(pages.set_layout(foreign), Err(SetLayoutError::OtherEngine));
        let mut slots = dest[1].register(engine, PAGE);
        assert_eq!(slots.set_layout(foreign), Err(SetLayoutError::OtherEngine));
    });
}

#[test]
fn a_full_table_of_layouts_gives_an_error() {
    fixture(|engine, _| {
        let page = |version| {
            Declaration { version, ..Declaration { planes: PLANES, ..Declaration::EMPTY } }.expect()
        };
        for version in 0..255 {
            layout(engine, &page(version));
        }
        let full = AddLayoutError::Full { limit: 255 };
        assert_eq!(engine.add_layout(&page(255).identity(), 0), Err(full));
        assert_eq!(engine.add_plan(&turned(Selection::ALL)), Err(AddPlanError::Layout(full)));
        layout(engine, &page(254));
    });
}

const PLANES: &[PlaneDecl<'static>] = &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, 500)])];

/// Slots in flight come back to their region, whatever its layout.
#[test]
fn slots_with_a_layout_come_back_to_their_region() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(2), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(4, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT });
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    let mut slots = slots(&mut engine, &dest, &by_token());
    // A method call and the iterator's own `count` are told apart by name.
    assert_eq!(slots.total(), 4);
    let batch = fill(&mut engine, &owner, &region, &mut slots, 4);
    assert_eq!((slots.out(), slots.next().is_none()), (4, true));
    engine.submit(batch, sim.now(), Time(1_000_000_000)).unwrap();
    settle(&mut engine, &sim, Time(1_000_000_000), |mut done| {
        for page in done.pages() {
            page.result.unwrap();
            assert!(all_equal(&page.slot, PAGE, owner.expected(owner.location(page.index))));
            slots.put(page.slot).unwrap();
        }
    });
    assert_eq!(slots.out(), 0);
    assert!(engine.unregister(slots).is_ok());
}
