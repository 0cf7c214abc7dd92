//! Pages and slots of several regions: one location, one entry, one result, and every byte of every
//! region in its place whatever happens to the lanes.
#![allow(missing_docs, unreachable_pub, reason = "tests")]
#![allow(unsafe_code, reason = "memory of the tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/heap.rs"]
mod heap;

mod allocations;
mod misuse;
mod pair;
mod pool;
mod schedule;
mod storm;

use common::{Destination, SmallSim, SmallState, start};
use kvrail_core::config::EngineConfig;
use kvrail_core::error::{PageError, ReadError};
use kvrail_core::layout::LayoutMismatch;
use kvrail_core::memory::{Access, DestinationRegion, RegionError, Slot};
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{OfferError, PageRangeError, RegionOffer};
use kvrail_core::table::Miss;
use kvrail_core::time::Nanos;
use kvrail_layouts::{Geometry, Plan, Selection};
use kvrail_sim::sim::{self, Fate, Sim};
use pool::*;

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };

fn settle<'m>(engine: &mut Small<'_, 'm>, sim: &Sim<'m>) -> Vec<(usize, Slot, Result<(), PageError>)> {
    let mut all = Vec::new();
    common::settle(engine, sim, LATE, |mut done| {
        all.extend(done.pages().map(|page| (page.index, page.slot, page.result)));
    });
    all
}

#[test]
fn a_page_of_several_regions_is_one_page() {
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &common::rails(2)).unwrap();
    let mut pool = Pool::new(&sim, &mut memory);
    let (dest, other) = (dest_of_regions(), Destination::new(SLOTS, PAGE));
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = slots_of_regions(&mut engine, &dest);
    assert_eq!((slots.total(), slots.slot_bytes()), (SLOTS, LAYER));
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    assert_eq!((region.regions(), region.page_bytes(), region.slots()), (5, PAGE as u32, SLOTS as u32));
    for rail in 0..2 {
        attach(&mut engine, &sim, peer, pool.peer, rail).unwrap();
    }
    let stale = pool.location(3);
    pool.publish(&sim, 3);

    let mut batch = engine.batch().unwrap();
    for location in [pool.location(0), stale, pool.location(11)] {
        let slot = slots.next().unwrap();
        batch.read(region.page(location).unwrap(), slot).unwrap();
    }
    batch.read(region.unvalidated(7).unwrap(), slots.next().unwrap()).unwrap();
    // Into slots of one region: in the order of layers, and turned.
    let mut gathered = Vec::new();
    let mut one_region = other.register(&mut engine, PAGE);
    for geometry in [by_layer(), by_token()] {
        let plan = Plan::between(&by_region(), &geometry, Selection::ALL).unwrap();
        gathered.push(engine.add_plan(&plan).unwrap());
    }
    for (plan, slot) in gathered.iter().zip(&mut one_region) {
        batch.read_with(region.page(pool.location(5)).unwrap(), slot, *plan).unwrap();
    }
    engine.submit(batch, sim.now(), LATE).unwrap();
    let done = settle(&mut engine, &sim);
    assert_eq!(done.len(), 6);
    for (index, slot, result) in &done {
        match index {
            0 => assert!(result.is_ok() && is_whole(&engine, slot, 0, 1)),
            1 => assert!(matches!(result, Err(PageError::Miss(Miss::Generation { .. })))),
            2 => assert!(result.is_ok() && is_whole(&engine, slot, 11, 1)),
            3 => assert!(result.is_ok() && is_whole(&engine, slot, 7, 1)),
            4 => assert!(result.is_ok() && is_gathered(slot, &by_layer(), 5, 1)),
            _ => assert!(result.is_ok() && is_gathered(slot, &by_token(), 5, 1)),
        }
    }
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    let stats = engine.peer_stats(peer).unwrap();
    assert_eq!((stats.pages, stats.misses), (5, 1), "each counts once");
}

/// Memory at which the CPU cannot look, as a GPU's: the slots have addresses of all regions and no
/// bytes. What has landed there is seen by the address, since the test's memory is the host's.
#[test]
fn a_page_of_several_regions_lands_in_memory_of_a_device() {
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &common::rails(2)).unwrap();
    let pool = Pool::new(&sim, &mut memory);
    let dest = dest_of_regions();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = slots_of(&mut engine, &dest, Access::Device);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    attach(&mut engine, &sim, peer, pool.peer, 0).unwrap();
    // A page by itself, and one whose layers come by two plans into one slot.
    let halves = [(0, 2), (2, 3)].map(|(first, count)| {
        let some = Selection::ALL.layers(first, count);
        engine.add_plan(&Plan::between(&by_region(), &by_region(), some).unwrap()).unwrap()
    });
    let mut batch = engine.batch().unwrap();
    batch.read(region.page(pool.location(3)).unwrap(), slots.next().unwrap()).unwrap();
    batch.read_with(region.page(pool.location(8)).unwrap(), slots.next().unwrap(), halves[0]).unwrap();
    batch.read_also_with(region.page(pool.location(8)).unwrap(), halves[1]).unwrap();
    engine.submit(batch, sim.now(), LATE).unwrap();
    let done = settle(&mut engine, &sim);
    assert_eq!(done.len(), 2);
    for (index, mut slot, result) in done {
        assert_eq!(result, Ok(()));
        assert!(slot.bytes().is_none() && slot.bytes_mut().is_none());
        let page = [3, 8][usize::from(index > 0)];
        for layer in 0..LAYERS {
            assert!(engine.slot_bytes(&slot, layer as u32).is_none());
            let addr = engine.slot_address(&slot, layer as u32).unwrap();
            let first = core::ptr::with_exposed_provenance::<u8>(addr as usize);
            // SAFETY: the piece is the test's memory, and nothing is in flight into it.
            let bytes = unsafe { core::slice::from_raw_parts(first, LAYER) };
            assert!(bytes.iter().enumerate().all(|(at, b)| *b == byte(page, layer, at, 1)), "layer {layer}");
        }
        slots.put(slot).unwrap();
    }
    engine.unregister(slots).unwrap();
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

/// A page that is overwritten while its regions are read is a miss, whichever region changed.
#[test]
fn a_page_is_good_only_if_all_of_its_regions_are_of_one_publication() {
    for changed in 0..LAYERS {
        let mut storage = Box::new(SmallSim::new());
        let mut memory = Pool::memory();
        let sim = Sim::new(&mut storage, sim::SimConfig::new(2), &common::rails(1)).unwrap();
        let mut pool = Pool::new(&sim, &mut memory);
        let dest = dest_of_regions();
        let mut state = Box::new(SmallState::new());
        let mut engine = start(&mut state, &sim, CONFIG);
        let mut slots = slots_of_regions(&mut engine, &dest);
        let peer = engine.add_peer().unwrap();
        let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
        attach(&mut engine, &sim, peer, pool.peer, 0).unwrap();
        let mut batch = engine.batch().unwrap();
        batch.read(region.page(pool.location(4)).unwrap(), slots.next().unwrap()).unwrap();
        batch.read(region.page(pool.location(5)).unwrap(), slots.next().unwrap()).unwrap();
        engine.submit(batch, sim.now(), LATE).unwrap();
        pool.begin(&sim, 4, changed..changed + 1);
        let done = settle(&mut engine, &sim);
        assert!(matches!(done[0].2, Err(PageError::Miss(Miss::Overwriting { .. }))), "{:?}", done[0].2);
        assert!(done[1].2.is_ok() && is_whole(&engine, &done[1].1, 5, 1));
    }
}

#[test]
fn offers_that_are_no_pool_are_refused() {
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &common::rails(1)).unwrap();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let peer = engine.add_peer().unwrap();
    let mut refused = |change: fn(&mut Vec<RegionOffer>)| {
        let mut offers = Pool::offers();
        change(&mut offers);
        engine.add_pool(peer, &by_region(), &offers).unwrap_err()
    };
    let few = refused(|offers| offers.truncate(4));
    assert_eq!(few, OfferError::Regions { offered: 4, layout: 5 });
    let many = refused(|offers| offers.push(offers[0]));
    assert_eq!(many, OfferError::Regions { offered: 6, layout: 5 });
    let other = refused(|offers| offers[2].page_bytes = 9_999);
    assert_eq!(other, OfferError::RegionBytes { region: 2, offered: 9_999, layout: 10_000 });
    let uneven = refused(|offers| offers[4].slots = 11);
    assert_eq!(uneven, OfferError::Uneven { region: 4, slots: 11, first: 12 });
    let tables = refused(|offers| offers[1].table = offers[0].table);
    assert_eq!(tables, OfferError::SecondTable { region: 1 });
    assert!(matches!(refused(|offers| offers[3].stride = 10), OfferError::Stride { .. }));
    assert_eq!(
        few.to_string(),
        "the peer offers 4 regions for a layout whose pages have 5: it must offer each once"
    );
    // The storage holds 8 regions.
    let first = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let full = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap_err();
    assert_eq!(full, OfferError::Full { limit: 8, needed: 5 });
    assert!(
        engine
            .add_pool(
                peer,
                &by_layer(),
                &[RegionOffer { page_bytes: 50_000, stride: 50_000, ..Pool::offers()[0] }]
            )
            .is_ok()
    );
    // When the peer has gone, so have its regions.
    engine.remove_peer(peer, sim.now()).unwrap();
    assert_eq!(engine.places_free().1, 8);
    let peer = engine.add_peer().unwrap();
    let again = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    assert_eq!(again.regions(), first.regions());
}

#[test]
fn pages_and_slots_of_several_regions_are_not_taken_for_others() {
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(4), &common::rails(1)).unwrap();
    let pool = Pool::new(&sim, &mut memory);
    let (dest, other, third) = (dest_of_regions(), Destination::new(2, PAGE), Destination::new(2, PAGE));
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let page = region.page(pool.location(0)).unwrap();
    let mut several = slots_of_regions(&mut engine, &dest);
    let mut bytes = other.register(&mut engine, PAGE);
    let mut layers = third.register(&mut engine, PAGE);
    layers.set_layout(engine.add_page_layout(&by_layer()).unwrap()).unwrap();
    let plan = |engine: &mut Small<'_, '_>, from: &Geometry, to: &Geometry| {
        engine.add_plan(&Plan::between(from, to, Selection::ALL).unwrap()).unwrap()
    };
    let scatter = plan(&mut engine, &by_layer(), &by_region());
    let gather = plan(&mut engine, &by_region(), &by_token());
    let mut batch = engine.batch().unwrap();
    // Without a plan: into bytes, or into another layout.
    let (error, slot) = batch.read(page, bytes.next().unwrap()).unwrap_err();
    assert_eq!(error, ReadError::SlotOfBytes { regions: 5 });
    let (error, layered) = batch.read(page, layers.next().unwrap()).unwrap_err();
    assert!(matches!(error, ReadError::Layout(LayoutMismatch::NoPlan { .. })), "{error}");
    // By a plan of other pages or slots.
    let (error, layered) = batch.read_with(page, layered, scatter).unwrap_err();
    assert!(matches!(error, ReadError::Layout(LayoutMismatch::Source { .. })), "{error}");
    let (error, _) = batch.read_with(page, layered, gather).unwrap_err();
    assert!(matches!(error, ReadError::Layout(LayoutMismatch::Destination { .. })), "{error}");
    let (error, _) = batch.read_with(page, several.next().unwrap(), gather).unwrap_err();
    assert!(matches!(error, ReadError::Layout(LayoutMismatch::Destination { .. })), "{error}");
    // Several regions into a row of bytes, by a plan that says where: that is known.
    batch.read_with(page, slot, gather).unwrap();
    assert_eq!(batch.read_also(page, 0), Err(ReadError::SlotOfBytes { regions: 5 }));
    let part = page.part(0, 10).unwrap_err();
    assert_eq!(part, PageRangeError::Regions { regions: 5 });
    let _ = batch.clear().count();
}

#[test]
fn ranges_that_are_no_slots_of_a_layout_are_refused() {
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &common::rails(1)).unwrap();
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let region = |at: u64, len: u64, stride: u64| DestinationRegion {
        range: MemoryRange { addr: dest.range.addr + at, len },
        stride,
    };
    let five: Vec<_> = (0..5).map(|i| region(i * 100_000, 100_000, 10_000)).collect();
    let mut refused = |regions: &[DestinationRegion]| {
        // SAFETY: the memory outlives the engine, and no slot of it is given out.
        unsafe { engine.register_foreign_regions(&by_region(), regions, Access::Host, None) }.unwrap_err()
    };
    assert_eq!(refused(&five[..4]), RegionError::Regions { given: 4, layout: 5 });
    let changed = |at: usize, to: DestinationRegion| {
        let mut regions = five.clone();
        regions[at] = to;
        regions
    };
    let stride = refused(&changed(2, region(200_000, 100_000, 9_999)));
    assert_eq!(stride, RegionError::Stride { region: 2, stride: 9_999, slot_bytes: 10_000 });
    let uneven = refused(&changed(3, region(300_000, 99_999, 10_000)));
    assert_eq!(uneven, RegionError::Uneven { region: 3, slots: 9, first: 10 });
    let overlap = refused(&changed(4, region(300_001, 100_000, 10_000)));
    assert_eq!(overlap, RegionError::Overlap { first: 3, second: 4 });
    let small = refused(&changed(0, region(0, 9_999, 10_000)));
    assert_eq!(small, RegionError::TooSmall { bytes: 9_999, slot_bytes: 10_000 });
    // Nothing of these stays registered, and memory of one's own is divided among the regions.
    let memory = vec![0_u8; 3 * PAGE + 5].leak();
    let first = memory.as_ptr().expose_provenance() as u64;
    let mut slots = engine.register_regions(&by_region(), memory).unwrap();
    let slot = slots.nth(1).unwrap();
    assert_eq!(slots.total(), 3);
    let place = |layer| engine.slot_address(&slot, layer).map(|addr| addr - first);
    assert_eq!([0, 1, 4, 5].map(place), [Some(10_000), Some(40_000), Some(130_000), None]);
}

/// Pages that are joined arrive together or not at all, whichever of them is stale.
#[test]
fn joined_pages_are_good_together_or_not_at_all() {
    for stale in [None, Some(0), Some(1), Some(2), Some(3)] {
        let mut storage = Box::new(SmallSim::new());
        let mut memory = Pool::memory();
        let sim = Sim::new(&mut storage, sim::SimConfig::new(5), &common::rails(2)).unwrap();
        let mut pool = Pool::new(&sim, &mut memory);
        let (dest, other) = (dest_of_regions(), Destination::new(SLOTS, PAGE));
        let mut state = Box::new(SmallState::new());
        let mut engine = start(&mut state, &sim, CONFIG);
        let mut several = slots_of_regions(&mut engine, &dest);
        let mut one = other.register(&mut engine, PAGE);
        let peer = engine.add_peer().unwrap();
        let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
        attach(&mut engine, &sim, peer, pool.peer, 0).unwrap();
        let gather = Plan::between(&by_region(), &by_layer(), Selection::ALL).unwrap();
        let gather = engine.add_plan(&gather).unwrap();
        let part = |first, count| {
            Plan::between(&by_region(), &by_region(), Selection::ALL.layers(first, count)).unwrap()
        };
        let [head, tail] = [part(0, 2), part(2, 3)].map(|plan| engine.add_plan(&plan).unwrap());
        let mut locations: Vec<_> = (0..6).map(|slot| pool.location(slot)).collect();
        if let Some(stale) = stale {
            locations[stale] = pool.location(stale);
            pool.publish(&sim, stale);
        }
        let page = |at: usize| region.page(locations[at]).unwrap();
        let mut batch = engine.batch().unwrap();
        let (error, slot) = batch.join(page(0), several.next().unwrap()).unwrap_err();
        assert_eq!(error, ReadError::NoPage);
        // A page, a page by a plan, and two pages that share a slot are one; the next is not.
        batch.read(page(0), slot).unwrap();
        batch.join_with(page(1), one.next().unwrap(), gather).unwrap();
        let slot = several.next().unwrap();
        batch.join_with(page(2), slot, head).unwrap();
        batch.read_also_with(page(3), tail).unwrap();
        batch.read(page(4), several.next().unwrap()).unwrap();
        engine.submit(batch, sim.now(), LATE).unwrap();
        let done = settle(&mut engine, &sim);
        let results: Vec<_> = done.iter().map(|(index, _, result)| (*index, result.is_ok())).collect();
        let good = stale.is_none();
        assert_eq!(results, [(0, good), (1, good), (2, good), (4, true)], "{stale:?}");
        for (.., result) in &done[..3] {
            assert!(good || matches!(result, Err(PageError::Miss(Miss::Generation { .. }))), "{result:?}");
        }
        if good {
            assert!(is_whole(&engine, &done[0].1, 0, 1) && is_gathered(&done[1].1, &by_layer(), 1, 1));
        }
    }
}

/// Whole pages whose READs are posted together, region by region, over a lane that fails at any of
/// them: no page is lost, and each region of each is in its place.
#[test]
fn pages_that_are_posted_together_survive_a_lane_that_fails_at_any_wr() {
    const PAGES: usize = 3;
    for nth in 1..=(PAGES * LAYERS) as u64 + 3 {
        for (kind, signal_wrs) in [(0, 1), (1, 64), (1, 4), (2, 3), (3, 64)] {
            let mut storage = Box::new(SmallSim::new());
            let mut memory = Pool::memory();
            let config = sim::SimConfig { pieces: 4, late_bytes: true, ..sim::SimConfig::new(nth) };
            let sim = Sim::new(&mut storage, config, &common::rails(1)).unwrap();
            let pool = Pool::new(&sim, &mut memory);
            let dest = dest_of_regions();
            let mut state = Box::new(SmallState::new());
            let stall = Nanos::from_millis(2);
            let config = EngineConfig { chunk_bytes: 16_384, run_chunks: 64, signal_wrs, stall, ..CONFIG };
            let mut engine = start(&mut state, &sim, config);
            let mut slots = slots_of_regions(&mut engine, &dest);
            let peer = engine.add_peer().unwrap();
            let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
            let lanes = [(); 2].map(|()| attach_of(&mut engine, &sim, peer, pool.peer, 0, 32).unwrap());
            let status = kvrail_core::verbs_abi::WcStatus::RETRY_EXC_ERR;
            let fate = match kind {
                0 => Fate::Status { nth, status },
                1 => Fate::Incomplete { nth },
                2 => Fate::Lost { nth },
                _ => Fate::Prefix { nth: 1, accepted: nth as u32 - 1, errno: 12 },
            };
            sim.script(lanes[0], fate).unwrap();
            let mut batch = engine.batch().unwrap();
            for at in 0..PAGES {
                let page = region.page(pool.location(2 * at)).unwrap();
                batch.read(page, slots.next().unwrap()).unwrap();
            }
            engine.submit(batch, sim.now(), LATE).unwrap();
            let done = settle(&mut engine, &sim);
            for (at, slot, result) in &done {
                let case = format!("wr {nth}, kind {kind}, signaled every {signal_wrs}, page {at}");
                // After a success without all of its bytes the model refuses the next READ.
                let refused = kind == 1 && matches!(result, Err(PageError::Fault { .. }));
                assert!(refused || *result == Ok(()), "{case}: {result:?}");
                assert!(refused || is_whole(&engine, slot, 2 * at, 1), "{case}");
            }
            assert!(done.iter().filter(|(.., result)| result.is_err()).count() <= 1);
            assert_eq!(done.len(), PAGES);
            assert!(sim.violations().is_empty(), "{:?}", sim.violations());
        }
    }
}

#[test]
fn a_pool_that_its_owner_takes_back_is_not_read_any_more() {
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let sim = Sim::new(&mut storage, sim::SimConfig::new(6), &common::rails(1)).unwrap();
    let pool = Pool::new(&sim, &mut memory);
    let dest = dest_of_regions();
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = slots_of_regions(&mut engine, &dest);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let mut table = Pool::offers()[0];
    table.table = None;
    let other = engine.add_region(peer, &table).unwrap();
    attach(&mut engine, &sim, peer, pool.peer, 0).unwrap();
    let mut read = |engine: &mut Small<'_, '_>, gone_meanwhile: bool| {
        let mut batch = engine.batch().unwrap();
        for slot in 0..3 {
            batch.read(region.page(pool.location(slot)).unwrap(), slots.next().unwrap()).unwrap();
        }
        engine.submit(batch, sim.now(), LATE).unwrap();
        if gone_meanwhile {
            engine.remove_pool(&region, sim.now());
            engine.remove_pool(&region, sim.now());
        }
    };
    read(&mut engine, true);
    assert!(settle(&mut engine, &sim).iter().all(|(.., result)| *result == Err(PageError::PoolGone)));
    read(&mut engine, false);
    assert!(settle(&mut engine, &sim).iter().all(|(.., result)| *result == Err(PageError::PoolGone)));
    // The peer's other region is read as before.
    let third = Destination::new(1, LAYER);
    let slot = third.register(&mut engine, LAYER).next().unwrap();
    let mut batch = engine.batch().unwrap();
    batch.read(other.unvalidated(1).unwrap(), slot).unwrap();
    engine.submit(batch, sim.now(), LATE).unwrap();
    let done = settle(&mut engine, &sim);
    assert!(done[0].2.is_ok() && (0..LAYER).all(|at| done[0].1.bytes().unwrap()[at] == byte(1, 0, at, 1)));
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}
