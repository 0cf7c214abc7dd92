//! Pages and slots of several regions: one location, one entry, one result, and every byte of every
//! region in its place whatever happens to the lanes.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "memory of the tests")]

mod common;

use common::{Destination, Rng, SmallSim, SmallState, rows, start};
use kvrail_core::batch::Batch;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::error::{PageError, ReadError};
use kvrail_core::id::{MAX_RAILS, PeerId, RailIndex, RegionId};
use kvrail_core::layout::LayoutMismatch;
use kvrail_core::memory::{Access, DestinationRegion, RegionError, Slot, Slots};
use kvrail_core::plan::PlanRef;
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, OfferError, PageRangeError, RegionOffer, RemoteRegion, TableOffer};
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Generation, KeyTag, Miss, Ready};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_layouts::{AxisKind, Geometry, Level, Plan, Selection};
use kvrail_sim::sim::{self, Action, Fate, LaneHandle, MemoryHandle, PeerHandle, Sim, SimRails};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };

const LATE: Time = Time(1_000_000_000);

/// The layers of a page of [`rows`], and the bytes of each.
const LAYERS: usize = 5;
const LAYER: usize = 2_000;
const PAGE: usize = LAYERS * LAYER;
const SLOTS: usize = 12;
/// Where the memory of each layer begins, in the peer's addresses, and from slot to slot there.
const FIRST: u64 = 0x10_0000;
const APART: u64 = 0x10_0000;
const STRIDE: u64 = 2_048;

type Small<'s, 'm> = Engine<'s, SimRails<'m>>;

/// A region for each layer.
fn by_region() -> Geometry {
    rows(&[Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token)])
}

/// One region, layer by layer, and token by token.
fn by_layer() -> Geometry {
    rows(&[Level::Axis(AxisKind::Layer), Level::Axis(AxisKind::Token)])
}

fn by_token() -> Geometry {
    rows(&[Level::Axis(AxisKind::Token), Level::Axis(AxisKind::Layer)])
}

fn keys(of: u32) -> [u32; MAX_RAILS] {
    core::array::from_fn(|rail| of * 100 + rail as u32)
}

/// Byte `at` of layer `layer` of the page that is in `slot` in publication `count`.
fn byte(slot: usize, layer: usize, at: usize, count: u32) -> u8 {
    ((at * 31 + at / 251 + slot * 7 + layer * 83 + count as usize * 101) % 251) as u8
}

/// A peer whose pages have a region for each layer. Every region is memory of its own, with keys of
/// its own, and so is the table.
struct Pool {
    peer: PeerHandle,
    layers: Vec<MemoryHandle>,
    table: MemoryHandle,
    entries: [EntryValue; SLOTS],
}

impl Pool {
    fn new<'m>(sim: &Sim<'m>, memory: &'m mut [Vec<u8>]) -> Self {
        let peer = sim.add_peer().unwrap();
        let mut handles = memory.iter_mut().enumerate().map(|(i, bytes)| {
            sim.publish(peer, FIRST + i as u64 * APART, bytes, keys(i as u32 + 1)).unwrap()
        });
        let layers = handles.by_ref().take(LAYERS).collect();
        let mut pool = Self { peer, layers, table: handles.next().unwrap(), entries: Default::default() };
        for slot in 0..SLOTS {
            pool.publish(sim, slot);
        }
        pool
    }

    fn memory() -> Vec<Vec<u8>> {
        let mut all = vec![vec![0; SLOTS * STRIDE as usize]; LAYERS];
        all.push(vec![0; SLOTS * ENTRY_BYTES as usize]);
        all
    }

    fn offers() -> Vec<RegionOffer> {
        let base = |i: usize| FIRST + i as u64 * APART;
        let offer = |i| RegionOffer {
            base: base(i),
            page_bytes: LAYER as u64,
            stride: STRIDE,
            slots: SLOTS as u32,
            keys: keys(i as u32 + 1),
            table: (i == 0).then(|| TableOffer { base: base(LAYERS), keys: keys(LAYERS as u32 + 1) }),
        };
        (0..LAYERS).map(offer).collect()
    }

    fn write_entry(&self, sim: &Sim<'_>, slot: usize) {
        let at = slot * ENTRY_BYTES as usize;
        let entry = self.entries[slot].to_bytes();
        sim.with_memory(self.table, |bytes| bytes[at..at + entry.len()].copy_from_slice(&entry));
    }

    fn count(&self, slot: usize) -> u32 {
        self.entries[slot].generation.count()
    }

    /// Makes the entry invalid, and writes some layers of the next page.
    fn begin(&mut self, sim: &Sim<'_>, slot: usize, layers: core::ops::Range<usize>) {
        let next = self.count(slot) + 1;
        let generation = Generation(self.entries[slot].generation.0 & !1);
        self.entries[slot].generation = generation;
        self.write_entry(sim, slot);
        self.fill(sim, slot, layers, next);
    }

    fn fill(&self, sim: &Sim<'_>, slot: usize, layers: core::ops::Range<usize>, count: u32) {
        for layer in layers {
            sim.with_memory(self.layers[layer], |bytes| {
                let page = &mut bytes[slot * STRIDE as usize..][..LAYER];
                page.iter_mut().enumerate().for_each(|(at, b)| *b = byte(slot, layer, at, count));
            });
        }
    }

    fn publish(&mut self, sim: &Sim<'_>, slot: usize) {
        let count = self.count(slot) + 1;
        self.begin(sim, slot, 0..LAYERS);
        let generation = Generation(u64::from(count) << 1 | 1);
        let tag = KeyTag(slot as u128 * 1_000 + u128::from(count));
        self.entries[slot] = EntryValue { generation, ready: Ready::WHOLE, tag };
        self.write_entry(sim, slot);
    }

    fn location(&self, slot: usize) -> Location {
        Location { slot: slot as u32, expected: self.entries[slot] }
    }
}

fn attach<'m>(
    engine: &mut Small<'_, 'm>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: PeerHandle,
    rail: u8,
) -> Option<LaneHandle> {
    let spec = sim::SimLaneSpec { sq_entries: 8, rd_atomic: 4 };
    let lane = sim.connect(RailIndex(rail), owner, RailIndex(rail), spec).ok()?;
    let key = lane.handle();
    let spec = LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth: 8 };
    engine.attach(peer, spec, lane, sim.now()).ok().map(|_| key)
}

/// Slots for [`by_region`]: the pieces of one layer for all slots, then those of the next, with 100
/// bytes between pieces that belong to nobody.
fn slots_of_regions(engine: &mut Small<'_, '_>, dest: &Destination) -> Slots {
    let each = (SLOTS * (LAYER + 100)) as u64;
    let region = |i: usize| DestinationRegion {
        range: MemoryRange { addr: dest.range.addr + i as u64 * each, len: each },
        stride: LAYER as u64 + 100,
    };
    let regions: Vec<_> = (0..LAYERS).map(region).collect();
    // SAFETY: the memory outlives the engine, and only the slots give access to it.
    unsafe { engine.register_foreign_regions(&by_region(), &regions, Access::Host, None) }.unwrap()
}

fn dest_of_regions() -> Destination {
    Destination::new(SLOTS * LAYERS, LAYER + 100)
}

fn is_whole(engine: &Small<'_, '_>, slot: &Slot, page: usize, count: u32) -> bool {
    (0..LAYERS).all(|layer| {
        let bytes = engine.slot_bytes(slot, layer as u32).unwrap();
        bytes.len() == LAYER && bytes.iter().enumerate().all(|(at, b)| *b == byte(page, layer, at, count))
    })
}

/// Where byte `at` of layer `layer` is in a page of one region.
fn place(geometry: &Geometry, layer: usize, at: usize) -> usize {
    let (token, byte) = (at / 500, at % 500);
    let row = if *geometry == by_layer() { layer * 4 + token } else { token * LAYERS + layer };
    row * 500 + byte
}

fn is_gathered(slot: &Slot, geometry: &Geometry, page: usize, count: u32) -> bool {
    let bytes = slot.bytes().unwrap();
    (0..LAYERS)
        .all(|layer| (0..LAYER).all(|at| bytes[place(geometry, layer, at)] == byte(page, layer, at, count)))
}

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

/// Pages of several regions into slots of several, of one, and of one into several, while lanes
/// fail, rails go, and the owner overwrites: a good page has the bytes of one publication.
#[test]
fn every_byte_of_every_region_lands_in_its_place_while_lanes_fail() {
    let (mut good, mut missed) = (0, 0);
    for seed in 0..40 {
        let (g, m) = schedule(seed);
        (good, missed) = (good + g, missed + m);
    }
    assert!(good > 2_000 && missed > 20, "{good} good, {missed} missed");
}

fn schedule(seed: u64) -> (u32, u32) {
    let mut rng = Rng(seed);
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let config = sim::SimConfig { retry: Nanos::from_micros(300), ..sim::SimConfig::new(seed) };
    let sim = Sim::new(&mut storage, config, &common::rails(2)).unwrap();
    let mut pool = Pool::new(&sim, &mut memory);
    let (dest, other) = (dest_of_regions(), Destination::new(SLOTS, PAGE));
    let mut state = Box::new(SmallState::new());
    let chunk_bytes = [512, 1024, 4096][rng.below(3) as usize];
    let config = EngineConfig { stall: Nanos::from_millis(2), run_chunks: 3, chunk_bytes, ..CONFIG };
    let mut engine = start(&mut state, &sim, config);
    let mut several: Vec<Slot> = slots_of_regions(&mut engine, &dest).collect();
    let mut one: Vec<Slot> = other.register(&mut engine, PAGE).collect();
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let mut lanes = Vec::new();
    for rail in [0, 0, 1, 1] {
        lanes.push(attach(&mut engine, &sim, peer, pool.peer, rail).unwrap());
    }
    let plan = Plan::between(&by_region(), &by_token(), Selection::ALL).unwrap();
    let gather = engine.add_plan(&plan).unwrap();
    let halves = [(0, 2), (2, 3)].map(|(first, count)| {
        let part = Selection::ALL.layers(first, count);
        engine.add_plan(&Plan::between(&by_region(), &by_region(), part).unwrap()).unwrap()
    });
    let status = WcStatus::RETRY_EXC_ERR;
    sim.script(lanes[0], Fate::Status { nth: 1 + rng.below(40), status }).unwrap();
    sim.script(lanes[1], Fate::Prefix { nth: 3, accepted: 1, errno: 12 }).unwrap();
    sim.script(lanes[2], Fate::Lost { nth: 1 + rng.below(40) }).unwrap();
    let down = 500_000 + rng.below(2_000_000);
    sim.at(Time(down), Action::RailDown { rail: RailIndex(1), told: rng.chance(50) }).unwrap();
    sim.at(Time(down + 1_000_000), Action::RailUp { rail: RailIndex(1), told: true }).unwrap();
    let end = Time(4_000_000);
    let (mut good, mut missed) = (0, 0);
    let mut asked = Asked::new();
    while sim.now() < end || engine.in_flight() > 0 {
        if sim.now() < end {
            let slot = rng.below(SLOTS as u64) as usize;
            match rng.below(4) {
                0 => pool.publish(&sim, slot),
                1 => {
                    let layer = rng.below(LAYERS as u64) as usize;
                    pool.begin(&sim, slot, layer..layer + 1);
                }
                _ => {}
            }
            if let Some(mut batch) = engine.batch() {
                fill(
                    &mut batch,
                    &mut rng,
                    &(region, &pool),
                    [&mut several, &mut one],
                    [gather, halves[0], halves[1]],
                    &mut asked,
                );
                if !batch.is_empty() {
                    engine.submit(batch, sim.now(), sim.now() + Nanos::from_millis(100)).unwrap();
                }
            }
        }
        engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
        engine.poll(sim.now());
        while let Some(mut done) = engine.next_done() {
            for page in done.pages() {
                let key = (page.slot.region(), page.slot.index());
                let at = asked.iter().position(|(of, ..)| *of == key).unwrap();
                let (_, from, count) = asked.swap_remove(at);
                let is_one = page.slot.len() == PAGE;
                if page.result.is_ok() {
                    good += 1;
                    let right = match is_one {
                        true => is_gathered(&page.slot, &by_token(), from, count),
                        false => is_whole(&engine, &page.slot, from, count),
                    };
                    assert!(right, "seed {seed}: slot {from} of publication {count}");
                } else {
                    missed += 1;
                }
                (if is_one { &mut one } else { &mut several }).push(page.slot);
            }
        }
        while engine.next_overdue().is_some() {}
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            if attach(&mut engine, &sim, wanted.peer, pool.peer, wanted.rail.0).is_none() {
                engine.lane_unavailable(wanted, sim.now());
            }
        }
    }
    assert!(sim.violations().is_empty(), "seed {seed}: {:?}", sim.violations());
    (good, missed)
}

/// What was asked for in which slot: the slot, the page's place in the pool, its publication.
type Asked = Vec<((RegionId, usize), usize, u32)>;

/// Fills a batch with pages in a random way each.
fn fill(
    batch: &mut Batch<'_>,
    rng: &mut Rng,
    (region, pool): &(RemoteRegion, &Pool),
    [several, one]: [&mut Vec<Slot>; 2],
    [gather, first, second]: [PlanRef; 3],
    asked: &mut Asked,
) {
    for _ in 0..rng.below(4) {
        let from = rng.below(SLOTS as u64) as usize;
        let page = region.page(pool.location(from)).unwrap();
        let way = rng.below(3);
        let Some(slot) = (if way == 0 { &mut *one } else { &mut *several }).pop() else { return };
        asked.push(((slot.region(), slot.index()), from, pool.count(from)));
        match way {
            0 => batch.read_with(page, slot, gather).unwrap(),
            1 => batch.read(page, slot).unwrap(),
            _ => {
                // Some layers of the page, and then the others.
                batch.read_with(page, slot, first).unwrap();
                batch.read_also_with(page, second).unwrap();
            }
        }
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
    let other = refused(|offers| offers[2].page_bytes = 1_999);
    assert_eq!(other, OfferError::RegionBytes { region: 2, offered: 1_999, layout: 2_000 });
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
                &[RegionOffer { page_bytes: 10_000, stride: 10_000, ..Pool::offers()[0] }]
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
    let five: Vec<_> = (0..5).map(|i| region(i * 20_000, 20_000, 2_000)).collect();
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
    let stride = refused(&changed(2, region(40_000, 20_000, 1_999)));
    assert_eq!(stride, RegionError::Stride { region: 2, stride: 1_999, slot_bytes: 2_000 });
    let uneven = refused(&changed(3, region(60_000, 19_999, 2_000)));
    assert_eq!(uneven, RegionError::Uneven { region: 3, slots: 9, first: 10 });
    let overlap = refused(&changed(4, region(60_001, 20_000, 2_000)));
    assert_eq!(overlap, RegionError::Overlap { first: 3, second: 4 });
    let small = refused(&changed(0, region(0, 1_999, 2_000)));
    assert_eq!(small, RegionError::TooSmall { bytes: 1_999, slot_bytes: 2_000 });
    // Nothing of these stays registered, and memory of one's own is divided among the regions.
    let memory = vec![0_u8; 3 * PAGE + 5].leak();
    let first = memory.as_ptr().expose_provenance() as u64;
    let mut slots = engine.register_regions(&by_region(), memory).unwrap();
    let slot = slots.nth(1).unwrap();
    assert_eq!(slots.total(), 3);
    let place = |layer| engine.slot_address(&slot, layer).map(|addr| addr - first);
    assert_eq!([0, 1, 4, 5].map(place), [Some(2_000), Some(8_000), Some(26_000), None]);
}
