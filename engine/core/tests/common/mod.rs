//! What most tests share: an engine over the model, peers with published pages, destination slots,
//! and an owner that overwrites its pages by the rules of the publication table.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(unsafe_code, reason = "destination memory is owned by the harness and outlives the engine")]
#![allow(clippy::cast_possible_wrap, reason = "small numbers of tests")]

pub mod seeds;

use kvrail_core::batch::{Batch, Class};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::events::EventSink;
use kvrail_core::id::{LaneId, MAX_RAILS, PeerId, RailIndex};
use kvrail_core::memory::{Access, Slot, Slots};
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Generation, KeyTag, Ready};
use kvrail_core::time::Time;
use kvrail_layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, Plan, PlaneDecl, Selection,
};
use kvrail_sim::sim::{self, LaneHandle, MemoryHandle, PeerHandle, RailSpec, Sim, SimRails};

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub type SmallSim = sim::SimStorage<4, 4, 64, 32, 1024>;
pub type SmallState = EngineStorage<4, 8, 64, 32, 16, 16>;

/// What the peers publish.
pub const PAGE: usize = 10_000;
pub const STRIDE: usize = 10_240;
pub const SLOTS: usize = 16;
pub const TABLE: usize = SLOTS * STRIDE;
pub const BASE: u64 = 0x7000_0000;

/// A peer's pages, its table, and what they should hold.
pub struct Owner {
    pub peer: PeerHandle,
    pub memory: MemoryHandle,
    pub entries: [EntryValue; SLOTS],
    pub counts: [u32; SLOTS],
    salt: u8,
}

pub fn keys(of: u32) -> [u32; MAX_RAILS] {
    core::array::from_fn(|rail| of * 100 + rail as u32)
}

/// The byte that fills slot `slot` of owner `salt` in publication `count`. It differs from those of
/// the next publication and of the neighbouring slots.
pub fn byte(salt: u8, slot: usize, count: u32) -> u8 {
    (salt.wrapping_mul(71)).wrapping_add(slot as u8 * 3).wrapping_add((count as u8).wrapping_mul(37)) | 1
}

impl Owner {
    pub fn new<'m>(sim: &Sim<'m>, bytes: &'m mut [u8], salt: u8) -> Self {
        assert_eq!(bytes.len(), TABLE + SLOTS * ENTRY_BYTES as usize);
        let peer = sim.add_peer().unwrap();
        let memory = sim.publish(peer, BASE, bytes, keys(1 + u32::from(salt))).unwrap();
        let mut owner = Self { peer, memory, entries: Default::default(), counts: [0; SLOTS], salt };
        for slot in 0..SLOTS {
            owner.publish(sim, slot, u32::from(salt) + slot as u32);
        }
        owner
    }

    pub fn offer(&self) -> RegionOffer {
        RegionOffer {
            base: BASE,
            page_bytes: PAGE as u64,
            stride: STRIDE as u64,
            slots: SLOTS as u32,
            keys: keys(1 + u32::from(self.salt)),
            table: Some(TableOffer { base: BASE + TABLE as u64, keys: keys(1 + u32::from(self.salt)) }),
        }
    }

    fn write_entry(&self, sim: &Sim<'_>, slot: usize, value: EntryValue) {
        let at = TABLE + slot * ENTRY_BYTES as usize;
        sim.with_memory(self.memory, |bytes| {
            bytes[at..at + ENTRY_BYTES as usize].copy_from_slice(&value.to_bytes())
        });
    }

    /// First step of overwriting: makes the entry invalid.
    pub fn invalidate(&mut self, sim: &Sim<'_>, slot: usize) {
        let generation = Generation(self.entries[slot].generation.0 & !1);
        self.entries[slot].generation = generation;
        self.write_entry(sim, slot, self.entries[slot]);
    }

    /// Second step: changes some of the bytes.
    pub fn scribble(&mut self, sim: &Sim<'_>, slot: usize, from: usize, to: usize) {
        let b = byte(self.salt, slot, self.counts[slot] + 1);
        let at = slot * STRIDE;
        sim.with_memory(self.memory, |bytes| bytes[at + from..at + to].fill(b));
    }

    /// Writes bytes of the publication that the entry names.
    pub fn write(&mut self, sim: &Sim<'_>, slot: usize, from: usize, to: usize) {
        let (b, at) = (byte(self.salt, slot, self.counts[slot]), slot * STRIDE);
        sim.with_memory(self.memory, |bytes| bytes[at + from..at + to].fill(b));
    }

    /// The entry as it is in memory.
    pub fn entry_bytes(&self, sim: &Sim<'_>, slot: usize) -> [u8; ENTRY_BYTES as usize] {
        let at = TABLE + slot * ENTRY_BYTES as usize;
        sim.with_memory(self.memory, |bytes| bytes[at..at + ENTRY_BYTES as usize].try_into().unwrap())
    }

    /// Last step: writes all bytes, and makes the entry valid again.
    pub fn publish(&mut self, sim: &Sim<'_>, slot: usize, nonce: u32) -> Location {
        self.scribble(sim, slot, 0, PAGE);
        self.announce(sim, slot, nonce, Ready::WHOLE)
    }

    /// Makes the entry valid, in a new generation.
    pub fn announce(&mut self, sim: &Sim<'_>, slot: usize, nonce: u32, ready: Ready) -> Location {
        self.counts[slot] += 1;
        let generation = Generation(u64::from(nonce) << 32 | u64::from(self.counts[slot]) << 1 | 1);
        // Both halves of the tag differ from slot to slot.
        let tag = (u128::from(self.salt) << 64) | (slot as u128 * 1000 + u128::from(self.counts[slot]));
        self.entries[slot] = EntryValue { generation, ready, tag: KeyTag(tag | (slot as u128) << 100) };
        self.write_entry(sim, slot, self.entries[slot]);
        self.location(slot)
    }

    /// Says that more parts are ready.
    pub fn raise(&mut self, sim: &Sim<'_>, slot: usize, ready: Ready) {
        self.entries[slot].ready = ready;
        self.write_entry(sim, slot, self.entries[slot]);
    }

    pub fn location(&self, slot: usize) -> Location {
        Location { slot: slot as u32, expected: self.entries[slot] }
    }

    /// What a page read at `location` must consist of.
    pub fn expected(&self, location: Location) -> u8 {
        byte(self.salt, location.slot as usize, location.expected.generation.count())
    }
}

/// Destination memory that outlives the engine, and its slots.
pub struct Destination {
    // Keeps the memory alive; only slots write it.
    _memory: Box<[u8]>,
    pub range: MemoryRange,
}

impl Destination {
    pub fn new(slots: usize, slot_bytes: usize) -> Self {
        let mut memory = vec![0_u8; slots * slot_bytes].into_boxed_slice();
        let addr = memory.as_mut_ptr().expose_provenance() as u64;
        let len = memory.len() as u64;
        Self { _memory: memory, range: MemoryRange { addr, len } }
    }

    pub fn register<E: EventSink>(
        &self,
        engine: &mut Engine<'_, SimRails<'_>, E>,
        slot_bytes: usize,
    ) -> Slots {
        // SAFETY: the box is alive for as long as `self`, which every test declares before its
        // engine, and only the slots give access to it.
        unsafe { engine.register_foreign(self.range, slot_bytes as u64, Access::Host, None) }.unwrap()
    }
}

/// One slot of memory of a device that is not there. No batch with it is submitted.
pub fn register_nowhere(engine: &mut Engine<'_, SimRails<'_>>, range: MemoryRange) -> Slots {
    // SAFETY: a slot of a device gives no access to its bytes, and nothing is read into it.
    unsafe { engine.register_foreign(range, range.len, Access::Device, None) }.unwrap()
}

/// Starts an engine over a storage that the test owns.
pub fn start<'s, 'm, const REGIONS: usize, const BATCHES: usize, const PAGES: usize>(
    state: &'s mut EngineStorage<4, REGIONS, 64, 32, BATCHES, PAGES>,
    sim: &'m Sim<'m>,
    config: EngineConfig,
) -> Engine<'s, SimRails<'m>> {
    // SAFETY: every test declares its storage before the engine and forgets nothing.
    unsafe { Engine::start_scoped(state, sim.rails(), config) }.unwrap()
}

/// Connects and attaches one lane.
pub fn attach<'m, E: EventSink>(
    engine: &mut Engine<'_, SimRails<'m>, E>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: &Owner,
    rail: u8,
    depth: u32,
) -> Option<(LaneId, LaneHandle)> {
    attach_for(engine, sim, peer, owner, rail, depth, Class::Urgent)
}

/// Connects and attaches one lane for work of a class.
pub fn attach_for<'m, E: EventSink>(
    engine: &mut Engine<'_, SimRails<'m>, E>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: &Owner,
    rail: u8,
    depth: u32,
    class: Class,
) -> Option<(LaneId, LaneHandle)> {
    let spec = sim::SimLaneSpec { sq_entries: depth, rd_atomic: 4 };
    let lane = sim.connect(RailIndex(rail), owner.peer, RailIndex(rail), spec).ok()?.for_class(class);
    let key = lane.handle();
    let spec = LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth };
    let id = engine.attach(peer, spec, lane, sim.now()).ok()?;
    Some((id, key))
}

/// Pages of [`rows`], token by token: what the owners publish.
pub fn by_token() -> Geometry {
    rows(&[Level::Axis(AxisKind::Token), Level::Axis(AxisKind::Layer)])
}

/// Pages of [`rows`], layer by layer: the destination of [`turned`].
pub fn by_layer() -> Geometry {
    rows(&[Level::Axis(AxisKind::Layer), Level::Axis(AxisKind::Token)])
}

/// A peer with its region, which holds pages [`by_token`], and `lanes` lanes on each of the first
/// `rails` rails.
pub fn connect<'m, E: EventSink>(
    engine: &mut Engine<'_, SimRails<'m>, E>,
    sim: &Sim<'m>,
    owner: &Owner,
    rails: u8,
    lanes: usize,
    depth: u32,
) -> (PeerId, RemoteRegion, Vec<LaneHandle>) {
    let peer = engine.add_peer().unwrap();
    let mut region = engine.add_region(peer, &owner.offer()).unwrap();
    region.set_layout(engine.add_layout(&by_token().identity(), 0).unwrap()).unwrap();
    let mut made = Vec::new();
    for rail in 0..rails {
        for _ in 0..lanes {
            made.push(attach(engine, sim, peer, owner, rail, depth).unwrap().1);
        }
    }
    (peer, region, made)
}

/// Fills a batch with the first `pages` pages of one owner, each into the next slot.
pub fn fill<'s, E: EventSink>(
    engine: &mut Engine<'s, SimRails<'_>, E>,
    owner: &Owner,
    region: &RemoteRegion,
    slots: &mut Slots,
    pages: usize,
) -> Batch<'s> {
    let mut batch = engine.batch().unwrap();
    for i in 0..pages {
        batch.read(region.page(owner.location(i % SLOTS)).unwrap(), slots.next().unwrap()).unwrap();
    }
    batch
}

/// Attaches one lane between any two rails, which may have 32 READs at the responder.
pub fn lane<'m>(
    engine: &mut Engine<'_, SimRails<'m>>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: &Owner,
    (rail, remote): (u8, u8),
    depth: u32,
) -> (LaneId, LaneHandle) {
    let spec = sim::SimLaneSpec { sq_entries: depth, rd_atomic: 32 };
    let made = sim.connect(RailIndex(rail), owner.peer, RailIndex(remote), spec).unwrap();
    let key = made.handle();
    let spec = LaneSpec { rail: RailIndex(rail), remote_rail: remote, depth };
    (engine.attach(peer, spec, made, sim.now()).unwrap(), key)
}

/// Polls and sleeps until nothing is in flight or `until` is reached.
pub fn settle<'s, 'm, E: EventSink>(
    engine: &mut Engine<'s, SimRails<'m>, E>,
    sim: &Sim<'m>,
    until: Time,
    mut done: impl FnMut(kvrail_core::batch::Done<'s>),
) {
    loop {
        engine.poll(sim.now());
        while let Some(batch) = engine.next_done() {
            done(batch);
        }
        while engine.next_overdue().is_some() {}
        while engine.next_arrival().is_some() {}
        if engine.in_flight() == 0 || sim.now() >= until {
            return;
        }
        engine.wait(sim.now(), until);
    }
}

pub fn all_equal(slot: &Slot, len: usize, byte: u8) -> bool {
    slot.bytes().unwrap()[..len].iter().all(|&b| b == byte)
}

/// A page as 5 layers of 4 tokens of 500 bytes, in this order.
pub fn rows(order: &[Level]) -> Geometry {
    Declaration {
        axes: &[Axis::whole(AxisKind::Layer, 5), Axis::whole(AxisKind::Token, 4)],
        order,
        planes: &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, 500)])],
        ..Declaration::EMPTY
    }
    .expect()
}

/// The plan from token-major pages into layer-major slots for the selected tokens. A token is one
/// run at the source, and 5 pieces of 500 bytes at the destination.
pub fn turned(selection: Selection) -> Plan {
    Plan::between(&by_token(), &by_layer(), selection).unwrap()
}

/// The byte of the source from which byte `at` of a turned page comes.
pub fn turned_from(at: usize) -> usize {
    let (row, byte) = (at / 500, at % 500);
    let (layer, token) = (row / 4, row % 4);
    (token * 5 + layer) * 500 + byte
}

pub fn rails(n: usize) -> Vec<RailSpec> {
    vec![RailSpec { cq_entries: 1024, ..RailSpec::GBITS_400 }; n]
}

pub fn memory(owners: usize) -> Vec<Vec<u8>> {
    vec![vec![0; TABLE + SLOTS * ENTRY_BYTES as usize]; owners]
}
