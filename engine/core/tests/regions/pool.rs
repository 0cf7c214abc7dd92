//! A pool whose pages have a region for each layer, and slots for them.

use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::id::{MAX_RAILS, PeerId, RailIndex};
use kvrail_core::memory::{Access, DestinationRegion, Slot, Slots};
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, RegionOffer, TableOffer};
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Generation, KeyTag, Ready};
use kvrail_core::time::Time;
use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, PlaneDecl};
use kvrail_sim::sim::{self, LaneHandle, MemoryHandle, PeerHandle, Sim, SimRails};

use crate::common::Destination;

pub const LATE: Time = Time(1_000_000_000);

/// The layers of a page of [`rows`], and the bytes of each.
pub const LAYERS: usize = 5;
/// The bytes of one token of one layer. A layer is longer than a chunk may be.
pub const ROW: usize = 2_500;
pub const LAYER: usize = 4 * ROW;
pub const PAGE: usize = LAYERS * LAYER;
pub const SLOTS: usize = 12;
/// Where the memory of each layer begins, in the peer's addresses, and from slot to slot there.
pub const FIRST: u64 = 0x10_0000;
pub const APART: u64 = 0x10_0000;
pub const STRIDE: u64 = 10_240;

pub type Small<'s, 'm> = Engine<'s, SimRails<'m>>;

pub fn rows(order: &[Level]) -> Geometry {
    Declaration {
        axes: &[Axis::whole(AxisKind::Layer, LAYERS as u64), Axis::whole(AxisKind::Token, 4)],
        order,
        planes: &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, ROW as u64)])],
        ..Declaration::EMPTY
    }
    .expect()
}

/// A region for each layer.
pub fn by_region() -> Geometry {
    rows(&[Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token)])
}

/// One region, layer by layer, and token by token.
pub fn by_layer() -> Geometry {
    rows(&[Level::Axis(AxisKind::Layer), Level::Axis(AxisKind::Token)])
}

pub fn by_token() -> Geometry {
    rows(&[Level::Axis(AxisKind::Token), Level::Axis(AxisKind::Layer)])
}

pub fn keys(of: u32) -> [u32; MAX_RAILS] {
    core::array::from_fn(|rail| of * 100 + rail as u32)
}

/// Byte `at` of layer `layer` of the page that is in `slot` in publication `count`.
pub fn byte(slot: usize, layer: usize, at: usize, count: u32) -> u8 {
    ((at * 31 + at / 251 + slot * 7 + layer * 83 + count as usize * 101) % 251) as u8
}

/// A peer whose pages have a region for each layer. Every region is memory of its own, with keys of
/// its own, and so is the table.
pub struct Pool {
    pub peer: PeerHandle,
    layers: Vec<MemoryHandle>,
    table: MemoryHandle,
    pub entries: [EntryValue; SLOTS],
}

impl Pool {
    pub fn new<'m>(sim: &Sim<'m>, memory: &'m mut [Vec<u8>]) -> Self {
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

    pub fn memory() -> Vec<Vec<u8>> {
        let mut all = vec![vec![0; SLOTS * STRIDE as usize]; LAYERS];
        all.push(vec![0; SLOTS * ENTRY_BYTES as usize]);
        all
    }

    pub fn offers() -> Vec<RegionOffer> {
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

    pub fn write_entry(&self, sim: &Sim<'_>, slot: usize) {
        let at = slot * ENTRY_BYTES as usize;
        let entry = self.entries[slot].to_bytes();
        sim.with_memory(self.table, |bytes| bytes[at..at + entry.len()].copy_from_slice(&entry));
    }

    pub fn count(&self, slot: usize) -> u32 {
        self.entries[slot].generation.count()
    }

    /// Makes the entry invalid, and writes some layers of the next page.
    pub fn begin(&mut self, sim: &Sim<'_>, slot: usize, layers: core::ops::Range<usize>) {
        let next = self.count(slot) + 1;
        let generation = Generation(self.entries[slot].generation.0 & !1);
        self.entries[slot].generation = generation;
        self.write_entry(sim, slot);
        self.fill(sim, slot, layers, next);
    }

    pub fn fill(&self, sim: &Sim<'_>, slot: usize, layers: core::ops::Range<usize>, count: u32) {
        for layer in layers {
            sim.with_memory(self.layers[layer], |bytes| {
                let page = &mut bytes[slot * STRIDE as usize..][..LAYER];
                page.iter_mut().enumerate().for_each(|(at, b)| *b = byte(slot, layer, at, count));
            });
        }
    }

    pub fn publish(&mut self, sim: &Sim<'_>, slot: usize) {
        let count = self.count(slot) + 1;
        self.begin(sim, slot, 0..LAYERS);
        let generation = Generation(u64::from(count) << 1 | 1);
        let tag = KeyTag(slot as u128 * 1_000 + u128::from(count));
        self.entries[slot] = EntryValue { generation, ready: Ready::WHOLE, tag };
        self.write_entry(sim, slot);
    }

    pub fn location(&self, slot: usize) -> Location {
        Location { slot: slot as u32, expected: self.entries[slot] }
    }
}

pub fn attach<'m>(
    engine: &mut Small<'_, 'm>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: PeerHandle,
    rail: u8,
) -> Option<LaneHandle> {
    attach_of(engine, sim, peer, owner, rail, 8)
}

/// As [`attach`], with a send queue of `depth` entries.
pub fn attach_of<'m>(
    engine: &mut Small<'_, 'm>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: PeerHandle,
    rail: u8,
    depth: u32,
) -> Option<LaneHandle> {
    let spec = sim::SimLaneSpec { sq_entries: depth, rd_atomic: 4 };
    let lane = sim.connect(RailIndex(rail), owner, RailIndex(rail), spec).ok()?;
    let key = lane.handle();
    let spec = LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth };
    engine.attach(peer, spec, lane, sim.now()).ok().map(|_| key)
}

/// Slots for [`by_region`]: the pieces of one layer for all slots, then those of the next, with 100
/// bytes between pieces that no slot has.
pub fn slots_of_regions(engine: &mut Small<'_, '_>, dest: &Destination) -> Slots {
    slots_of(engine, dest, Access::Host)
}

/// As [`slots_of_regions`], of memory at which the CPU can look or not.
pub fn slots_of(engine: &mut Small<'_, '_>, dest: &Destination, access: Access) -> Slots {
    let each = (SLOTS * (LAYER + 100)) as u64;
    let region = |i: usize| DestinationRegion {
        range: MemoryRange { addr: dest.range.addr + i as u64 * each, len: each },
        stride: LAYER as u64 + 100,
    };
    let regions: Vec<_> = (0..LAYERS).map(region).collect();
    // SAFETY: the memory outlives the engine, and only the slots give access to it.
    unsafe { engine.register_foreign_regions(&by_region(), &regions, access, None) }.unwrap()
}

pub fn dest_of_regions() -> Destination {
    Destination::new(SLOTS * LAYERS, LAYER + 100)
}

pub fn is_whole(engine: &Small<'_, '_>, slot: &Slot, page: usize, count: u32) -> bool {
    (0..LAYERS).all(|layer| {
        let bytes = engine.slot_bytes(slot, layer as u32).unwrap();
        bytes.len() == LAYER && bytes.iter().enumerate().all(|(at, b)| *b == byte(page, layer, at, count))
    })
}

/// Where byte `at` of layer `layer` is in a page of one region.
pub fn place(geometry: &Geometry, layer: usize, at: usize) -> usize {
    let (token, byte) = (at / ROW, at % ROW);
    let row = if *geometry == by_layer() { layer * 4 + token } else { token * LAYERS + layer };
    row * ROW + byte
}

pub fn is_gathered(slot: &Slot, geometry: &Geometry, page: usize, count: u32) -> bool {
    let bytes = slot.bytes().unwrap();
    (0..LAYERS)
        .all(|layer| (0..LAYER).all(|at| bytes[place(geometry, layer, at)] == byte(page, layer, at, count)))
}
