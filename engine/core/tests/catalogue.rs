//! Every shipped layout, over the model of rails: whole pages with all of their regions, and by
//! plans into one region and back, while a lane fails. Every byte is compared.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "the storage of an engine is a local of the test")]

#[path = "../../tests/catalogue/image.rs"]
mod image;
#[path = "../../tests/catalogue/packed.rs"]
mod packed;

use image::{Page, UNTOUCHED, regions};
use kvrail_core::batch::Batch;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::id::{MAX_RAILS, PeerId, RailIndex};
use kvrail_core::memory::{Access, DestinationRegion, Slot};
use kvrail_core::plan::{AddPlanError, PlanRef};
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Generation, KeyTag, Ready};
use kvrail_core::time::Time;
use kvrail_core::verbs_abi::WcStatus;
use kvrail_layouts as layouts;
use kvrail_layouts::catalogue;
use kvrail_layouts::{
    Axis, AxisKind, Declaration, FieldDecl, Geometry, KvLayout, Level, Plan, PlaneDecl, Selection, Spread,
};
use kvrail_sim::sim::{self, Fate, MemoryHandle, PeerHandle, RailSpec, Sim, SimRails};

type SmallSim = sim::SimStorage<2, 1, 8, 64, 1024>;
type SmallState = EngineStorage<1, 256, 8, 64, 4, 4>;
type Small<'s, 'm> = Engine<'s, SimRails<'m>>;

const LATE: Time = Time(10_000_000_000);
const PAGES: usize = 2;
const RAILS: [RailSpec; 2] = [RailSpec { cq_entries: 1024, ..RailSpec::GBITS_400 }; 2];

/// A peer's pool in one piece of memory: its table, and each region behind the one before.
struct Pool<'g> {
    layout: &'g Geometry,
    memory: MemoryHandle,
    base: u64,
    key: u32,
}

const TABLE: u64 = PAGES as u64 * ENTRY_BYTES;

impl<'g> Pool<'g> {
    fn bytes(layout: &Geometry) -> Vec<u8> {
        vec![0; TABLE as usize + PAGES * layout.page_bytes() as usize]
    }

    fn new<'m>(sim: &Sim<'m>, peer: PeerHandle, layout: &'g Geometry, bytes: &'m mut [u8], key: u32) -> Self {
        let base = u64::from(key) << 32;
        let memory = sim.publish(peer, base, bytes, keys(key)).unwrap();
        Self { layout, memory, base, key }
    }

    fn offers(&self) -> Vec<RegionOffer> {
        let keys = keys(self.key);
        let table = TableOffer { base: self.base, keys };
        let offer = |range: std::ops::Range<usize>| RegionOffer {
            base: self.base + TABLE + (PAGES * range.start) as u64,
            page_bytes: range.len() as u64,
            stride: range.len() as u64,
            slots: PAGES as u32,
            keys,
            table: (range.start == 0).then_some(table),
        };
        regions(self.layout).map(offer).collect()
    }

    /// Writes a page, region by region, and its entry.
    fn publish(&self, sim: &Sim<'_>, slot: usize, page: &[u8]) -> Location {
        let expected =
            EntryValue { generation: Generation(3), ready: Ready::WHOLE, tag: KeyTag(slot as u128) };
        sim.with_memory(self.memory, |bytes| {
            let (table, pages) = bytes.split_at_mut(TABLE as usize);
            table[slot * ENTRY_BYTES as usize..][..ENTRY_BYTES as usize]
                .copy_from_slice(&expected.to_bytes());
            for range in regions(self.layout) {
                let (first, len) = (PAGES * range.start + slot * range.len(), range.len());
                pages[first..first + len].copy_from_slice(&page[range]);
            }
        });
        Location { slot: slot as u32, expected }
    }
}

fn keys(of: u32) -> [u32; MAX_RAILS] {
    std::array::from_fn(|rail| of * 100 + rail as u32)
}

/// Slots for pages of `layout`, in which everything is untouched.
fn slots(engine: &mut Small<'_, '_>, layout: &Geometry) -> Vec<Slot> {
    let memory = vec![UNTOUCHED; PAGES * layout.page_bytes() as usize].leak();
    engine.register_regions(layout, memory).unwrap().collect()
}

fn clear(engine: &Small<'_, '_>, slot: &mut Slot) {
    let mut region = 0;
    while let Some(bytes) = engine.slot_bytes_mut(slot, region) {
        bytes.fill(UNTOUCHED);
        region += 1;
    }
}

fn bytes_of(engine: &Small<'_, '_>, slot: &Slot, layout: &Geometry) -> Vec<u8> {
    let piece = |region| engine.slot_bytes(slot, region).unwrap();
    (0..layout.regions()).flat_map(|region| piece(region).iter().copied()).collect()
}

/// Reads the pages into the slots, and returns them in their order. All are good.
fn read<'m>(
    engine: &mut Small<'_, 'm>,
    (sim, peer, owner): (&Sim<'m>, PeerId, PeerHandle),
    pages: &[(RemoteRegion, Location)],
    slots: Vec<Slot>,
    plan: Option<PlanRef>,
) -> Vec<Slot> {
    let mut batch: Batch<'_> = engine.batch().unwrap();
    for (&(region, location), slot) in pages.iter().zip(slots) {
        let page = region.page(location).unwrap();
        match plan {
            Some(plan) => batch.read_with(page, slot, plan).unwrap(),
            None => batch.read(page, slot).unwrap(),
        }
    }
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut done = loop {
        engine.poll(sim.now());
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            attach(engine, sim, peer, owner, wanted.rail.0);
        }
        match engine.next_done() {
            Some(done) => break done,
            None => engine.wait(sim.now(), LATE),
        }
        assert!(sim.now() < LATE, "nothing is done");
    };
    let slots: Vec<_> = done
        .pages()
        .map(|page| {
            page.result.unwrap();
            page.slot
        })
        .collect();
    assert_eq!(slots.len(), pages.len());
    slots
}

fn attach<'m>(
    engine: &mut Small<'_, 'm>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: PeerHandle,
    rail: u8,
) -> sim::LaneHandle {
    let spec = sim::SimLaneSpec { sq_entries: 64, rd_atomic: 16 };
    let lane = sim.connect(RailIndex(rail), owner, RailIndex(rail), spec).unwrap();
    let handle = lane.handle();
    engine
        .attach(peer, LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth: 64 }, lane, sim.now())
        .unwrap();
    handle
}

/// The layout, at rank 3 if it leaves its rank open.
fn at_rank(layout: &Geometry) -> Geometry {
    let open = |axis: &Axis| matches!(axis.spread, Spread::Sharded { rank: None, .. });
    if layout.axes().iter().any(open) { layout.at_rank(AxisKind::Head, 3).unwrap() } else { *layout }
}

/// Moves pages of a layout every way. Returns how many lanes have failed meanwhile.
fn moves(name: &str, layout: &Geometry, config: EngineConfig) -> u64 {
    let layout = &at_rank(layout);
    let one = &packed::packed(layout);
    let mut storage = Box::new(SmallSim::new());
    let (mut own_bytes, mut one_bytes) = (Pool::bytes(layout), Pool::bytes(one));
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &RAILS).unwrap();
    let owner = sim.add_peer().unwrap();
    let own = Pool::new(&sim, owner, layout, &mut own_bytes, 1);
    let packed = Pool::new(&sim, owner, one, &mut one_bytes, 2);
    let mut state = Box::new(SmallState::new());
    // SAFETY: the storage was declared before the engine, which is not forgotten.
    let mut engine = unsafe { Engine::start_scoped(&mut *state, sim.rails(), config) }.unwrap();
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, layout, &own.offers()).unwrap();
    assert_eq!(u32::from(region.regions()), layout.regions(), "{name}");
    for rail in [0, 1] {
        let lane = attach(&mut engine, &sim, peer, owner, rail);
        // Both fail while the first pages are on their way, unless these are short.
        let fate = Fate::Status { nth: 2 + u64::from(rail), status: WcStatus::RETRY_EXC_ERR };
        sim.script(lane, fate).unwrap();
    }
    let page = |number: usize| Page::new(layout, number as u64);
    let pages: Vec<_> =
        (0..PAGES).map(|slot| (region, own.publish(&sim, slot, &page(slot).bytes()))).collect();
    let at = (&sim, peer, owner);

    let free = slots(&mut engine, layout);
    let mut whole = read(&mut engine, at, &pages, free, None);
    for (number, slot) in whole.iter_mut().enumerate() {
        assert!(bytes_of(&engine, slot, layout) == page(number).bytes(), "{name}: page {number} as it is");
        clear(&engine, slot);
    }
    if layout.regions() > 1 {
        let plan = |engine: &mut Small<'_, '_>, from: &Geometry, to: &Geometry| {
            engine.add_plan(&Plan::between(from, to, Selection::ALL).unwrap()).unwrap()
        };
        let gather = plan(&mut engine, layout, one);
        let scatter = plan(&mut engine, one, layout);
        let free = slots(&mut engine, one);
        let gathered = read(&mut engine, at, &pages, free, Some(gather));
        let region = engine.add_pool(peer, one, &packed.offers()).unwrap();
        let mut again = Vec::new();
        for (number, slot) in gathered.iter().enumerate() {
            let bytes = bytes_of(&engine, slot, one);
            let expected = Page::new(one, number as u64).landed(|_| true);
            assert!(bytes == expected, "{name}: page {number} gathered");
            again.push((region, packed.publish(&sim, number, &bytes)));
        }
        let scattered = read(&mut engine, at, &again, whole, Some(scatter));
        for (number, slot) in scattered.iter().enumerate() {
            let expected = page(number).landed(|_| true);
            assert!(bytes_of(&engine, slot, layout) == expected, "{name}: page {number} scattered");
        }
    }
    assert!(sim.violations().is_empty(), "{name}: {:?}", sim.violations());
    (0..2).map(|rail| engine.rail_stats(RailIndex(rail)).unwrap().lanes_failed).sum()
}

#[test]
fn every_shipped_layout_is_read_whole_gathered_and_scattered() {
    let (mut several, mut failed) = (0, 0);
    for (name, layout) in catalogue::all() {
        failed += moves(name, layout, EngineConfig::DEFAULT);
        several += usize::from(layout.regions() > 1);
    }
    assert_eq!((catalogue::all().count(), several), (35, 8));
    assert!(failed > 35, "{failed} lanes have failed");
}

/// A region for each layer and token. Gathered with tokens outside, the next token's row is 3 rows
/// on, and the next layer's first one 8 rows back: pairs of regions of uneven distances.
#[test]
fn regions_that_land_at_uneven_distances_are_told_apart() {
    let (layer, token) = (AxisKind::Layer, AxisKind::Token);
    let layout = Declaration {
        axes: &[Axis::whole(layer, 3), Axis::whole(token, 4)],
        order: &[Level::Regions(layer), Level::Regions(token)],
        planes: &[PlaneDecl::of(&[K, V])],
        ..Declaration::EMPTY
    };
    moves("uneven", &layout.expect(), EngineConfig::DEFAULT);
}

/// As vLLM keeps Llama 3 70B: a region for each of 80 layers, in which K and V of a head are
/// together.
const BY_LAYER: Geometry = grouped(
    &[Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token), Level::Axis(AxisKind::Head)],
    &[PlaneDecl::of(&[K, V])],
);
/// As LMCache keeps it: all K, then all V, each layer by layer.
const K_THEN_V: Geometry = grouped(
    &[Level::Planes, Level::Axis(AxisKind::Layer), Level::Axis(AxisKind::Token), Level::Axis(AxisKind::Head)],
    &[PlaneDecl::of(&[K]), PlaneDecl::of(&[V])],
);
const K: FieldDecl = FieldDecl::of::<u8>("k", 16);
const V: FieldDecl = FieldDecl::of::<u8>("v", 24);

const fn grouped(order: &[Level], planes: &[PlaneDecl<'_>]) -> Geometry {
    let (layers, tokens) = (Axis::whole(AxisKind::Layer, 80), Axis::whole(AxisKind::Token, 32));
    let axes = &[layers, tokens, Axis::whole(AxisKind::Head, 2)];
    Declaration { axes, order, planes, ..Declaration::EMPTY }.expect()
}

/// From layer to layer K and V move by other distances than each other, so no two layers are alike.
#[test]
fn fields_that_part_take_one_list_each_however_many_regions_there_are() {
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &RAILS).unwrap();
    let mut state = Box::new(SmallState::new());
    // SAFETY: the storage was declared before the engine, which is not forgotten.
    let mut engine =
        unsafe { Engine::start_scoped(&mut *state, sim.rails(), EngineConfig::DEFAULT) }.unwrap();
    let all = Plan::between(&BY_LAYER, &K_THEN_V, Selection::ALL).unwrap();
    let first = engine.add_plan(&all).unwrap();
    assert_eq!(engine.add_plan(&all), Ok(first), "a plan that is known takes no further place");
    let back = Plan::between(&K_THEN_V, &BY_LAYER, Selection::ALL).unwrap();
    assert_eq!(engine.add_plan(&back).unwrap().bytes(), first.bytes());
    // Each of these takes two lists, of other numbers of tokens. There is room for 96 lists.
    for tokens in 1..32 {
        let some = Plan::between(&BY_LAYER, &K_THEN_V, Selection::ALL.tokens(0, tokens)).unwrap();
        let added = engine.add_plan(&some).unwrap();
        assert_eq!(u64::from(added.bytes()), 80 * tokens * 2 * 40);
    }
}

/// A plan that does not fit leaves the room to those that do.
#[test]
fn a_plan_that_is_refused_takes_no_room() {
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &RAILS).unwrap();
    let mut state = Box::new(SmallState::new());
    // SAFETY: the storage was declared before the engine, which is not forgotten.
    let mut engine =
        unsafe { Engine::start_scoped(&mut *state, sim.rails(), EngineConfig::DEFAULT) }.unwrap();
    let fields: [FieldDecl; 8] = std::array::from_fn(|i| FieldDecl::of::<u8>(NAMES[i], 1 + i));
    let planes: Vec<_> = fields.iter().map(|field| PlaneDecl::of(std::slice::from_ref(field))).collect();
    let of = |order: &[Level]| {
        let token = Axis::whole(AxisKind::Token, 100);
        Declaration { axes: &[token], order, planes: &planes, ..Declaration::EMPTY }.expect()
    };
    let (apart, together) = (
        of(&[Level::RegionPlanes, Level::Axis(AxisKind::Token)]),
        of(&[Level::Planes, Level::Axis(AxisKind::Token)]),
    );
    let plan = |some: Selection| Plan::between(&apart, &together, some).unwrap();
    // Each of 91 numbers of tokens is a list of its own.
    for tokens in 1..92 {
        engine.add_plan(&plan(Selection::ALL.field("a").tokens(0, tokens))).unwrap();
    }
    // All fields are 8 more, and 5 would fit.
    let full = engine.add_plan(&plan(Selection::ALL)).unwrap_err();
    assert_eq!(full, AddPlanError::Full { plans: 91, rows: 91, lists: 91 });
    for tokens in 92..97 {
        engine.add_plan(&plan(Selection::ALL.field("a").tokens(0, tokens))).unwrap();
    }
    let full = engine.add_plan(&plan(Selection::ALL.field("a"))).unwrap_err();
    assert_eq!(full, AddPlanError::Full { plans: 96, rows: 96, lists: 96 });
}

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// vLLM's blocks of DeepSeek V4: pages of three layouts side by side, 1,002,240 bytes from block to
/// block, at the owner and here. The pages of a key are had together, and no byte of a neighbour
/// changes.
#[test]
fn blocks_of_three_layouts_side_by_side_move_over_the_model() {
    const STRIDE: u64 = 1_002_240;
    const TABLES: u64 = 3 * TABLE;
    let all = [catalogue::V4C4::GEOMETRY, catalogue::VllmV4Index::GEOMETRY, catalogue::V4C128::GEOMETRY];
    let offset = |at: usize| all[..at].iter().map(|layout| layout.page_bytes()).sum::<u64>();
    assert_eq!(offset(3), STRIDE);
    let byte = |block: u64, at: u64| (at.wrapping_mul(0x9E37_79B9).rotate_left(9) as u8) ^ (block as u8 + 1);
    let mut theirs = vec![0; (TABLES + PAGES as u64 * STRIDE) as usize];
    for block in 0..PAGES as u64 {
        let page = &mut theirs[(TABLES + block * STRIDE) as usize..][..STRIDE as usize];
        page.iter_mut().zip(0..).for_each(|(b, at)| *b = byte(block, at));
    }
    let expected = |at: usize, slot: usize| EntryValue {
        generation: Generation(3),
        ready: Ready::WHOLE,
        tag: KeyTag((at * PAGES + slot) as u128),
    };
    for at in 0..3 {
        for slot in 0..PAGES {
            let entry = expected(at, slot).to_bytes();
            theirs[at * TABLE as usize + slot * ENTRY_BYTES as usize..][..entry.len()]
                .copy_from_slice(&entry);
        }
    }
    let mut storage = Box::new(SmallSim::new());
    let sim = Sim::new(&mut storage, sim::SimConfig::new(4), &RAILS).unwrap();
    let owner = sim.add_peer().unwrap();
    let base = 1 << 32;
    sim.publish(owner, base, &mut theirs, keys(1)).unwrap();
    let mut state = Box::new(SmallState::new());
    // SAFETY: the storage outlives the engine, which is not forgotten.
    let mut engine =
        unsafe { Engine::start_scoped(&mut *state, sim.rails(), EngineConfig::DEFAULT) }.unwrap();
    let peer = engine.add_peer().unwrap();
    for rail in 0..2 {
        attach(&mut engine, &sim, peer, owner, rail);
    }
    let ours = vec![UNTOUCHED; PAGES * STRIDE as usize].leak();
    let (len, first) = (ours.len() as u64, ours.as_mut_ptr().expose_provenance() as u64);
    let (mut pools, mut places) = (Vec::new(), Vec::new());
    for (at, layout) in all.iter().enumerate() {
        let offer = RegionOffer {
            base: base + TABLES + offset(at),
            page_bytes: layout.page_bytes(),
            stride: STRIDE,
            slots: PAGES as u32,
            keys: keys(1),
            table: Some(TableOffer { base: base + at as u64 * TABLE, keys: keys(1) }),
        };
        pools.push(engine.add_pool(peer, layout, &[offer]).unwrap());
        let range = MemoryRange { addr: first + offset(at), len: len - offset(at) };
        let region = DestinationRegion { range, stride: STRIDE };
        // SAFETY: the memory is there for ever, and the slots of the layouts share no byte.
        let slots = unsafe { engine.register_foreign_regions(layout, &[region], Access::Host, None) };
        places.push(slots.unwrap());
    }
    let mut seen = 0;
    for slot in 0..PAGES {
        let mut batch = engine.batch().unwrap();
        for at in 0..3 {
            let location = Location { slot: slot as u32, expected: expected(at, slot) };
            let page = pools[at].page(location).unwrap();
            let place = places[at].next().unwrap();
            match at {
                0 => batch.read(page, place).unwrap(),
                _ => batch.join(page, place).unwrap(),
            }
        }
        engine.submit(batch, sim.now(), LATE).unwrap();
        let mut done = loop {
            engine.poll(sim.now());
            match engine.next_done() {
                Some(done) => break done,
                None => engine.wait(sim.now(), LATE),
            }
            assert!(sim.now() < LATE, "nothing is done");
        };
        for page in done.pages() {
            page.result.unwrap();
            let place = page.slot.address() - first;
            let (block, within) = (place / STRIDE, place % STRIDE);
            let bytes = page.slot.bytes().unwrap();
            let right = bytes.iter().zip(within..).all(|(&b, at)| b == byte(block, at));
            assert!(right && block == slot as u64, "block {block} at {within}");
            seen += bytes.len() as u64;
        }
    }
    assert_eq!(seen, PAGES as u64 * STRIDE, "every byte of the blocks was compared");
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}
