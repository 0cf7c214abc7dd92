//! A request is handed over layer by layer, in the model: a producer computes a layer every 2 ms,
//! and a reader with eight rails of 49 GB/s reads each layer as soon as it is told of it. What is
//! measured is virtual time, so the figures are the same on every machine.
//!
//! Pages have the bytes of 61 layers of MLA (64 tokens of 656 bytes each), and the request is so
//! long that one layer of it takes the rails nearly as long as the producer computes. The model
//! moves the table entries, and no page: the memory of the pages is reserved and never touched.
#![allow(missing_docs, unsafe_code, reason = "a test that reserves memory for two engines")]

use std::num::NonZeroU32;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use kvrail_core::batch::{Class, Done};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::id::RailIndex;
use kvrail_core::memory::{Access, Slot};
use kvrail_core::plan::PlanRef;
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Generation, KeyTag, Ready};
use kvrail_core::time::{Nanos, Time};
use kvrail_layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, Plan, PlaneDecl, Selection,
};
use kvrail_session::handover::{
    Block, HandoverConfig, HandoverId, HandoverNumber, Handovers, PoolId, RequestId, SessionId, TakingEvent,
    Takings, TakingsConfig, WHOLE_PAGE,
};
use kvrail_sim::sim::{MemoryHandle, RailSpec, Sim, SimConfig, SimLaneSpec, SimRails, SimStorage};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

const LAYERS: u32 = 61;
/// 64 tokens of 656 bytes.
const LAYER_BYTES: u32 = 64 * 656;
const PAGE_BYTES: u64 = (LAYERS * LAYER_BYTES) as u64;
/// Pages of the request: one layer of all of them has 752 MB, which 392 GB/s carry in 1.92 ms.
const PAGES: u32 = 17_920;
const LAYER_TIME: Nanos = Nanos::from_millis(2);
/// From what the producer's engine says to the reader's engine: two threads wake up, and a message
/// travels between two machines.
const MESSAGE_TIME: Nanos = Nanos::from_micros(100);
/// The longest sleep of the reader: a thread that does nothing else polls at least as often. Where
/// it sleeps until half of the outstanding bytes have come, the rails run dry now and then, and at
/// a load of 96 % each layer comes a little later than the one before: 3.9 layer times at the end.
const POLL_EVERY: Nanos = Nanos::from_micros(10);
const RAILS: u8 = 8;
const LANES_PER_RAIL: usize = 2;
const BATCH: usize = 256;
const BASE: u64 = 0x10_0000_0000;
const TABLE_BASE: u64 = 0x1000;
const KEYS: [u32; 16] = [7; 16];
const REQUEST: RequestId = RequestId(1);
const SESSION: SessionId = SessionId(1);

type Rails = SimStorage<8, 1, 16, 128, 4096>;
type State = EngineStorage<1, 4, 16, 128, 128, BATCH>;

fn page() -> Geometry {
    Declaration {
        axes: &[Axis::whole(AxisKind::Layer, LAYERS as u64), Axis::whole(AxisKind::Token, 64)],
        order: &[Level::Axis(AxisKind::Layer), Level::Axis(AxisKind::Token)],
        planes: &[PlaneDecl::of(&[FieldDecl::new("latent", ElementKind::U8, 656)])],
        ..Declaration::EMPTY
    }
    .expect()
}

/// Addresses that nothing uses, for `PAGES` pages. They stay mapped until the process ends.
fn reserve() -> *mut u8 {
    let bytes = PAGE_BYTES as usize * PAGES as usize;
    // SAFETY: a new mapping, at addresses that the system chooses. It is only read, so the system
    // promises no memory for it.
    let start = unsafe {
        mmap_anonymous(null_mut(), bytes, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::NORESERVE)
    };
    start.expect("46 GB of addresses").cast()
}

/// The producer: the pages' table, and the hand-over.
struct Producer {
    table: MemoryHandle,
    handovers: Handovers,
    id: HandoverId,
}

impl Producer {
    fn entry(ready: Ready, slot: u32) -> EntryValue {
        EntryValue { generation: Generation(u64::from(slot) << 32 | 3), ready, tag: KeyTag(slot.into()) }
    }

    /// Layers below `ready` of every page are there, and the reader is told.
    fn set_ready(&mut self, sim: &Sim<'_>, ready: u32) {
        let seen = if ready == LAYERS { Ready::WHOLE } else { Ready(ready) };
        sim.with_memory(self.table, |bytes| {
            for (slot, entry) in (0..PAGES).zip(bytes.chunks_exact_mut(ENTRY_BYTES as usize)) {
                entry.copy_from_slice(&Self::entry(seen, slot).to_bytes());
            }
        });
        self.handovers.set_ready(self.id, 0..PAGES, seen.0).unwrap();
    }
}

/// The reader: an engine, a slot for each page, and what it was told.
struct ReaderSide<'s, 'm> {
    engine: Engine<'s, SimRails<'m>>,
    region: RemoteRegion,
    plans: Vec<PlanRef>,
    takings: Takings,
    number: HandoverNumber,
    /// The slot of each page, while nothing is read into it.
    slots: Vec<Option<Slot>>,
    /// Layers of each page that are read, or under way.
    next: Vec<u32>,
    /// Pages of each batch in flight, by the batch's tag.
    flying: Vec<Vec<u32>>,
    /// Layers that arrived, of all pages.
    arrived: u64,
}

impl<'s> ReaderSide<'s, '_> {
    /// Reads the next layer of every page that has one ready and nothing under way; or whole pages,
    /// once the list is complete.
    fn submit(&mut self, now: Time, whole: bool) {
        let wanted: Vec<u32> = (0..PAGES)
            .filter(|&place| {
                let at = place as usize;
                let ready = self.takings.blocks(self.number)[at].ready;
                let next = self.next[at];
                self.slots[at].is_some() && next < LAYERS && (ready == WHOLE_PAGE || (!whole && next < ready))
            })
            .collect();
        for pages in wanted.chunks(BATCH) {
            let Some(mut batch) = self.engine.batch() else { return };
            for &place in pages {
                let at = place as usize;
                let block = self.takings.blocks(self.number)[at];
                let expected = EntryValue { ready: Ready(block.ready), ..block.expected };
                let page = self.region.page(Location { slot: block.slot, expected }).unwrap();
                let slot = self.slots[at].take().unwrap();
                let layer = self.next[at];
                if whole {
                    batch.read(page, slot).map_err(|(error, _)| error).unwrap();
                    self.next[at] = LAYERS;
                } else {
                    let page = page.needs(layer + 1);
                    batch
                        .read_with(page, slot, self.plans[layer as usize])
                        .map_err(|(error, _)| error)
                        .unwrap();
                    self.next[at] = layer + 1;
                }
            }
            batch.set_tag(self.flying.len() as u64);
            self.flying.push(pages.to_vec());
            self.engine.submit(batch, now, now + Nanos::from_secs(10)).expect("a batch with pages and time");
        }
    }

    fn take(&mut self, mut done: Done<'s>, whole: bool) {
        let places = std::mem::take(&mut self.flying[done.tag() as usize]);
        for page in done.pages() {
            assert_eq!(page.result, Ok(()), "page {}", places[page.index]);
            self.slots[places[page.index] as usize] = Some(page.slot);
            self.arrived += if whole { u64::from(LAYERS) } else { 1 };
        }
    }
}

/// Hands the request over, and returns the time from when its last layer was ready to when the
/// reader has all of it.
fn hand_over(whole: bool) -> Nanos {
    // Without optimisation the engine's storage passes over the stack on its way to the heap.
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    thread.spawn(move || model(whole)).unwrap().join().expect("no panic")
}

fn model(whole: bool) -> Nanos {
    let start = Instant::now();
    let at = |time: Time| start + Duration::from_nanos(time.0);
    let mut table = vec![0; PAGES as usize * ENTRY_BYTES as usize];
    let mut storage = Box::new(Rails::new());
    let rail = RailSpec { cq_entries: 4096, ..RailSpec::GBITS_400 };
    // Entries of up to 64 pages come by one READ; a layer of a page is longer, and not copied.
    let config = SimConfig { copy_up_to: 64 * ENTRY_BYTES as u32, ..SimConfig::new(1) };
    let sim = Sim::new(&mut storage, config, &[rail; RAILS as usize]).unwrap();
    let peer = sim.add_peer().unwrap();
    let table = sim.publish(peer, TABLE_BASE, &mut table, KEYS).unwrap();
    let bytes = PAGE_BYTES as usize * PAGES as usize;
    // SAFETY: the mapping is never unmapped, and nothing writes to it.
    unsafe { sim.publish_shared(peer, BASE, reserve(), bytes, KEYS) }.unwrap();

    let mut state = Box::new(State::new());
    let engine_config = EngineConfig { rail_bytes: 4 << 20, ..EngineConfig::DEFAULT };
    // SAFETY: the storage is declared before the engine, and nothing here is forgotten.
    let mut engine = unsafe { Engine::start_scoped(&mut state, sim.rails(), engine_config) }.unwrap();
    let range = MemoryRange { addr: reserve().expose_provenance() as u64, len: bytes as u64 };
    // SAFETY: the mapping is never unmapped; the model copies no page into it, and nothing reads
    // the slots' bytes.
    let slots = unsafe { engine.register_foreign(range, PAGE_BYTES, Access::Device, None) }.unwrap();
    let id = engine.add_peer().unwrap();
    let offer = RegionOffer {
        base: BASE,
        page_bytes: PAGE_BYTES,
        stride: PAGE_BYTES,
        slots: PAGES,
        keys: KEYS,
        table: Some(TableOffer { base: TABLE_BASE, keys: KEYS }),
    };
    let mut region = engine.add_region(id, &offer).unwrap();
    region.set_layout(engine.add_layout(&page().identity(), 0).unwrap()).unwrap();
    for rail in (0..RAILS).map(RailIndex) {
        for _ in 0..LANES_PER_RAIL {
            let made = sim.connect(rail, peer, rail, SimLaneSpec { sq_entries: 128, rd_atomic: 16 }).unwrap();
            let spec = LaneSpec { rail, remote_rail: rail.0, depth: 128 };
            engine.attach(id, spec, made, sim.now()).unwrap();
        }
    }
    let plan = |layer: u32| {
        Plan::between(&page(), &page(), Selection::ALL.layers(layer.into(), 1)).expect("one layer of a page")
    };
    let plans = (0..LAYERS).map(|layer| engine.add_plan(&plan(layer)).unwrap()).collect();

    let mut handovers = Handovers::new(HandoverConfig::default()).unwrap();
    handovers.add_session(SESSION);
    let mut takings = Takings::new(TakingsConfig::default());
    let number = takings.take(REQUEST, Class::Urgent, Duration::from_secs(10), at(sim.now())).unwrap();
    let first = HandoverNumber(NonZeroU32::MIN);
    assert_eq!(number, first);
    let id = handovers.open(REQUEST, at(sim.now())).unwrap();
    let blocks: Vec<_> = (0..PAGES)
        .map(|slot| Block { pool: PoolId(0), slot, expected: Producer::entry(Ready::NONE, slot), ready: 0 })
        .collect();
    handovers.append(id, &blocks).unwrap();
    let mut producer = Producer { table, handovers, id };
    let mut reader = ReaderSide {
        engine,
        region,
        plans,
        takings,
        number,
        slots: slots.map(Some).collect(),
        next: vec![0; PAGES as usize],
        flying: Vec::new(),
        arrived: 0,
    };
    assert_eq!(reader.slots.len(), PAGES as usize);

    let ready_at = |layer: u32| Time::ZERO + Nanos(LAYER_TIME.0 * u64::from(layer));
    let mut ready = 0;
    // Messages on their way, each with the time at which it arrives.
    let mut to_reader = std::collections::VecDeque::new();
    let all = u64::from(PAGES) * u64::from(LAYERS);
    while reader.arrived < all {
        let now = sim.now();
        assert!(now < Time::ZERO + Nanos::from_secs(1), "{} of {all} layers have arrived", reader.arrived);
        if ready < LAYERS && now >= ready_at(ready + 1) {
            ready += 1;
            producer.set_ready(&sim, ready);
        }
        while let Some(message) = reader.takings.next_message(at(now)) {
            producer.handovers.received(SESSION, &message, at(now)).unwrap();
        }
        while let Some(message) = producer.handovers.next_message(SESSION, at(now)) {
            to_reader.push_back((now + MESSAGE_TIME, message));
        }
        let mut told = false;
        while to_reader.front().is_some_and(|&(arrives, _)| arrives <= now) {
            let (_, message) = to_reader.pop_front().unwrap();
            reader.takings.received(message, at(now)).unwrap();
            while let Some(event) = reader.takings.next_event() {
                assert!(!matches!(event, TakingEvent::Ended { .. }), "{event:?}");
                told = true;
            }
        }
        reader.engine.poll(now);
        let mut came = false;
        while let Some(done) = reader.engine.next_done() {
            reader.take(done, whole);
            came = true;
        }
        if told || came {
            reader.submit(now, whole);
        }
        let mut until = if ready < LAYERS { ready_at(ready + 1) } else { now + LAYER_TIME };
        if let Some(&(arrives, _)) = to_reader.front() {
            until = until.min(arrives);
        }
        reader.engine.wait(now, until.min(now + POLL_EVERY));
    }
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    sim.now().since(ready_at(LAYERS))
}

#[test]
fn the_last_layer_has_arrived_about_one_layer_time_after_it_was_ready() {
    let by_layer = hand_over(false);
    let whole = hand_over(true);
    let times = |time: Nanos| time.0 as f64 / LAYER_TIME.0 as f64;
    let bytes = f64::from(PAGES) * PAGE_BYTES as f64;
    println!(
        "{LAYERS} layers, one every {} ms; {PAGES} pages, {:.1} GB in all, over {RAILS} rails of 49 GB/s.\n\
         From when the last layer was ready to when all of the request had arrived:\n\
         read layer by layer: {:7.3} ms, {:6.3} layer times\n\
         read at the end:     {:7.3} ms, {:6.3} layer times",
        LAYER_TIME.0 / 1_000_000,
        bytes / 1e9,
        by_layer.0 as f64 / 1e6,
        times(by_layer),
        whole.0 as f64 / 1e6,
        times(whole),
    );
    assert!(times(by_layer) <= 1.1, "{} layer times", times(by_layer));
    // The rails need this long for all bytes, however they are read.
    let least = bytes / (f64::from(RAILS) * 49e9) * 1e9;
    assert!(whole.0 as f64 >= least, "{} ns for bytes that take {least}", whole.0);
}
