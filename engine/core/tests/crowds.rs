//! A thousand readers of one producer, and a thousand producers of one reader, over the model, in
//! its time: each page is read right, or refused by name, no later than its deadline.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "the producer's memory is shared by a thousand models")]

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use common::{BASE, Destination, keys};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::error::PageError;
use kvrail_core::id::{PeerId, RailIndex};
use kvrail_core::memory::{Access, Slot};
use kvrail_core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Generation, KeyTag, Ready};
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Action, PeerHandle, RailSpec, Rate, Sim, SimRails};

const CROWD: usize = 1_000;
const PAGE: usize = 4_096;
const SLOTS: usize = 16;
const TABLE: usize = SLOTS * PAGE;
const WORDS: usize = (TABLE + SLOTS * ENTRY_BYTES as usize) / 8;
const DEPTH: u32 = 8;
const STEP: Nanos = Nanos::from_micros(50);
/// From one line of the producer, of 49 GB/s, each of a thousand readers has this many bytes in a
/// second.
const SHARE: u64 = 49_000_000;

/// A producer's pages and their table, which several models read.
struct Memory {
    words: Vec<AtomicU64>,
    /// How often each slot was published.
    counts: [Cell<u32>; SLOTS],
}

impl Memory {
    fn new() -> Self {
        let words = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let memory = Self { words, counts: Default::default() };
        (0..SLOTS).for_each(|slot| memory.publish(slot));
        memory
    }

    /// A word that no other slot or publication has.
    fn word(slot: usize, count: u32) -> u64 {
        ((slot as u64 + 1) << 32 | u64::from(count)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn entry(&self, slot: usize, valid: bool) -> EntryValue {
        let generation = Generation(7 << 32 | u64::from(self.counts[slot].get()) << 1 | u64::from(valid));
        EntryValue { generation, ready: Ready::WHOLE, tag: KeyTag(slot as u128 + 1) }
    }

    fn write_entry(&self, slot: usize, value: EntryValue) {
        let bytes = value.to_bytes();
        let at = (TABLE + slot * ENTRY_BYTES as usize) / 8;
        for (word, bytes) in self.words[at..].iter().zip(bytes.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
    }

    /// The first step of an overwrite, and half of the bytes.
    fn begin(&self, slot: usize) {
        self.write_entry(slot, self.entry(slot, false));
        self.fill(slot, self.counts[slot].get() + 1, PAGE / 16);
    }

    fn publish(&self, slot: usize) {
        self.begin(slot);
        self.counts[slot].set(self.counts[slot].get() + 1);
        self.fill(slot, self.counts[slot].get(), PAGE / 8);
        self.write_entry(slot, self.entry(slot, true));
    }

    fn fill(&self, slot: usize, count: u32, words: usize) {
        let first = slot * PAGE / 8;
        let of_page = &self.words[first..first + words];
        of_page.iter().for_each(|word| word.store(Self::word(slot, count), Ordering::Relaxed));
    }

    fn location(&self, slot: usize) -> Location {
        Location { slot: slot as u32, expected: self.entry(slot, true) }
    }

    /// Whether `page` is that of `location`, to the last byte.
    fn is_page(location: Location, page: &[u8]) -> bool {
        let word = Self::word(location.slot as usize, location.expected.generation.count());
        page.as_chunks::<8>().0.iter().all(|bytes| u64::from_le_bytes(*bytes) == word)
    }

    fn offer(of: u32) -> RegionOffer {
        let keys = keys(of);
        RegionOffer {
            base: BASE,
            page_bytes: PAGE as u64,
            stride: PAGE as u64,
            slots: SLOTS as u32,
            keys,
            table: Some(TableOffer { base: BASE + TABLE as u64, keys }),
        }
    }

    /// Makes it a peer of a model.
    fn join<'m>(&'m self, sim: &Sim<'m>, of: u32) -> PeerHandle {
        let peer = sim.add_peer().unwrap();
        let start = self.words.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: the words live as long as the model, and are accessed as atomics by this thread
        // alone, which drives all models.
        unsafe { sim.publish_shared(peer, BASE, start, WORDS * 8, keys(of)) }.unwrap();
        peer
    }
}

/// How pages ended, by the name of the error, and how many were right.
#[derive(Debug, Default)]
struct Ends(BTreeMap<&'static str, usize>);

impl Ends {
    /// Notes the end of a page of which the caller was told at `told`: that its batch is done, or
    /// that it is overdue, whose slots come back when nothing can write there any more.
    fn note(&mut self, result: Result<(), PageError>, right: bool, told: Time, deadline: Time) {
        assert!(told <= deadline + STEP, "a page ended {:?} after its deadline", told.since(deadline));
        let name = match result {
            Ok(()) => {
                assert!(right, "a page is wrong");
                "served"
            }
            Err(PageError::Miss(_)) => "miss",
            Err(PageError::Deadline { .. }) => "deadline",
            Err(PageError::NoLane { .. }) => "no lane",
            Err(PageError::PeerGone) => "peer gone",
            Err(error) => panic!("{error}"),
        };
        *self.0.entry(name).or_default() += 1;
    }

    fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn all(&self) -> usize {
        self.0.values().sum()
    }
}

fn lane<'m>(engine: &mut Engine<'_, SimRails<'m>>, sim: &Sim<'m>, peer: PeerId, producer: PeerHandle) {
    let rail = RailIndex(0);
    let lane = sim.connect(rail, producer, rail, sim::SimLaneSpec { sq_entries: DEPTH, rd_atomic: 4 });
    let spec = LaneSpec { rail, remote_rail: 0, depth: DEPTH };
    engine.attach(peer, spec, lane.unwrap(), sim.now()).unwrap();
}

type OneSim = sim::SimStorage<1, 1, 2, 8, 32>;
type OneState = EngineStorage<1, 1, 2, 8, 2, 8>;

/// One of the readers of a producer.
struct OneReader<'m> {
    engine: Engine<'m, SimRails<'m>>,
    region: RemoteRegion,
    slots: Vec<Slot>,
    locations: Vec<Location>,
    deadline: Time,
    /// When it was told that its batch is overdue.
    overdue: Option<Time>,
}

/// The producer has QPs for 900 readers and overwrites a page now and then; some readers have
/// little time. All models are at the same time always.
#[test]
fn each_of_a_thousand_readers_of_one_producer_is_served_or_refused_by_name_in_time() {
    const ADMITTED: usize = 900;
    const PAGES: usize = 8;
    let shared = &Memory::new();
    let rail = RailSpec { cq_entries: 32, rate: Rate::bytes_per_sec(SHARE), ..RailSpec::GBITS_400 };
    let mut storages: Vec<_> = (0..CROWD).map(|_| Box::new(OneSim::new())).collect();
    let sims: Vec<Sim<'_>> = (0..)
        .zip(&mut storages)
        .map(|(seed, storage)| {
            let jitter = Nanos::from_micros(20);
            Sim::new(storage, sim::SimConfig::new(seed), &[RailSpec { jitter, ..rail }]).unwrap()
        })
        .collect();
    let destinations: Vec<_> = sims.iter().map(|_| Destination::new(PAGES, PAGE)).collect();
    let mut states: Vec<_> = sims.iter().map(|_| Box::new(OneState::new())).collect();
    let mut readers: Vec<OneReader<'_>> = Vec::new();
    for (number, ((sim, state), destination)) in sims.iter().zip(&mut states).zip(&destinations).enumerate() {
        // SAFETY: the storages are declared before the engines, and nothing is forgotten.
        let mut engine = unsafe { Engine::start_scoped(state, sim.rails(), EngineConfig::DEFAULT) }.unwrap();
        engine.serve_lanes_on_demand();
        let slots = destination.register(&mut engine, PAGE).collect();
        let producer = shared.join(sim, 1);
        let peer = engine.add_peer().unwrap();
        let region = engine.add_region(peer, &Memory::offer(1)).unwrap();
        if number < ADMITTED {
            lane(&mut engine, sim, peer, producer);
        }
        // Of each ten readers one has a tenth of the time that its pages take.
        let millis = if number % 10 == 3 { 0 } else { 20 };
        let deadline = sim.now() + Nanos::from_millis(millis) + Nanos::from_micros(100);
        readers.push(OneReader { engine, region, slots, locations: Vec::new(), deadline, overdue: None });
    }
    for (number, (reader, sim)) in readers.iter_mut().zip(&sims).enumerate() {
        let mut batch = reader.engine.batch().unwrap();
        for page in 0..PAGES {
            let location = shared.location((number + page) % SLOTS);
            batch.read(reader.region.page(location).unwrap(), reader.slots.pop().unwrap()).unwrap();
            reader.locations.push(location);
        }
        reader.engine.submit(batch, sim.now(), reader.deadline).unwrap();
    }
    let (mut ends, mut now, mut left) = (Ends::default(), sims[0].now(), CROWD);
    for round in 0.. {
        for (reader, sim) in readers.iter_mut().zip(&sims) {
            sim.advance_to(now);
            reader.engine.poll(now);
            if reader.engine.next_overdue().is_some() {
                reader.overdue = Some(now);
            }
            while let Some(mut done) = reader.engine.next_done() {
                left -= 1;
                for page in done.pages() {
                    let right = Memory::is_page(reader.locations[page.index], page.slot.bytes().unwrap());
                    ends.note(page.result, right, reader.overdue.unwrap_or(now), reader.deadline);
                }
            }
        }
        if left == 0 {
            break;
        }
        now = now + STEP;
        match round % 8 {
            3 => shared.begin(round / 8 % SLOTS),
            7 => shared.publish(round / 8 % SLOTS),
            _ => {}
        }
        assert!(now < Time(1_000_000_000), "{left} readers have no answer: {ends:?}");
    }
    assert_eq!(ends.all(), CROWD * PAGES, "{ends:?}");
    println!("{ends:?}");
    // Readers that were given no lane, but for those with little time, and each of the others.
    assert_eq!(ends.of("no lane"), (CROWD - ADMITTED) * PAGES, "{ends:?}");
    for (name, least) in [("served", 4_000), ("miss", 100), ("deadline", 400)] {
        assert!(ends.of(name) >= least, "{name}: {ends:?}");
    }
    for sim in &sims {
        assert_eq!(sim.violations().iter().count(), 0);
    }
    drop(readers);
}

type ManySim = sim::SimStorage<1, CROWD, 48, 8, 1024>;
type ManyState = EngineStorage<CROWD, CROWD, LANES, 8, 64, 8>;

/// One reader with 32 lanes. One producer of twenty is down from the start, one of twenty goes down
/// while pages are on their way, and one of twenty is removed.
#[test]
fn each_of_a_thousand_producers_of_one_reader_is_read_or_refused_by_name_in_time() {
    // The model of a thousand peers is made on the stack.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(a_thousand_producers).unwrap();
    thread.join().unwrap();
}

/// The lanes of the reader of a thousand producers.
const LANES: usize = 32;

/// The control path of that reader: makes the lanes that are wanted, and gives those of idle peers
/// back where there are no more. A producer that is down answers nothing, and has no lane.
fn make_lanes<'m>(
    engine: &mut Engine<'_, SimRails<'m>>,
    sim: &Sim<'m>,
    producers: &HashMap<PeerId, PeerHandle>,
    now: Time,
) {
    let rail = RailIndex(0);
    let connect = |peer: PeerId| {
        let spec = sim::SimLaneSpec { sq_entries: DEPTH, rd_atomic: 4 };
        sim.connect(rail, producers[&peer], rail, spec).ok()
    };
    let spec = LaneSpec { rail, remote_rail: 0, depth: DEPTH };
    loop {
        let (lanes, leaving) = engine.lanes_on(rail);
        if lanes == LANES {
            // A lane that was given back leaves its place a little later.
            if leaving >= LANES / 2 || !engine.has_unserved_peer(now) {
                return;
            }
            let Some((idle, _)) = engine.longest_idle_peer() else { return };
            engine.release_lanes(idle, now);
        } else if let Some(wanted) = engine.next_wanted_lane(now) {
            match connect(wanted.peer) {
                Some(lane) => _ = engine.attach(wanted.peer, spec, lane, now).unwrap(),
                None => {
                    engine.lane_unavailable(wanted, now);
                    // They are not asked for again if there is nothing to read any more.
                    engine.forgo_lost_lanes(wanted.peer);
                }
            }
        } else if let Some(peer) = engine.next_unserved_peer(now) {
            match connect(peer) {
                Some(lane) => _ = engine.attach(peer, spec, lane, now).unwrap(),
                None => engine.first_lanes_unavailable(peer, now),
            }
        } else {
            return;
        }
    }
}

fn a_thousand_producers() {
    const PAGES: usize = 4;
    let memories: Vec<Memory> = (0..CROWD).map(|_| Memory::new()).collect();
    let mut storage = Box::new(ManySim::new());
    let rail = RailSpec { cq_entries: 1024, jitter: Nanos::from_micros(20), ..RailSpec::GBITS_400 };
    let config = sim::SimConfig { retry: Nanos::from_millis(2), ..sim::SimConfig::new(5) };
    let sim = Sim::new(&mut storage, config, &[rail]).unwrap();
    let destination = Destination::new(64 * PAGES, PAGE);
    let mut room = Box::<ManyState>::new_uninit();
    let state = ManyState::in_place(&mut room);
    // SAFETY: the storage outlives the engine, which is not forgotten.
    let mut engine = unsafe { Engine::start_scoped(state, sim.rails(), EngineConfig::DEFAULT) }.unwrap();
    engine.serve_lanes_on_demand();
    // SAFETY: as in `Destination::register`.
    let slots = unsafe { engine.register_foreign(destination.range, PAGE as u64, Access::Host, None) };
    let mut slots: Vec<Slot> = slots.unwrap().collect();
    let mut producers = HashMap::new();
    let mut peers = Vec::new();
    for (number, memory) in memories.iter().enumerate() {
        let producer = memory.join(&sim, number as u32 + 1);
        let peer = engine.add_peer().unwrap();
        let region = engine.add_region(peer, &Memory::offer(number as u32 + 1)).unwrap();
        match number % 20 {
            0 => sim.apply(Action::PeerDown(producer)),
            1 => sim.at(sim.now() + Nanos::from_micros(30), Action::PeerDown(producer)).unwrap(),
            _ => {}
        }
        producers.insert(peer, producer);
        peers.push((peer, region));
    }
    let (mut ends, mut flying, mut next) = (Ends::default(), HashMap::new(), 0);
    let mut removed = 0;
    while next < CROWD || engine.in_flight() > 0 {
        let now = sim.now();
        while next < CROWD && slots.len() >= PAGES {
            let Some(mut batch) = engine.batch() else { break };
            let (peer, region) = &peers[next];
            let locations: Vec<_> =
                (0..PAGES).map(|page| memories[next].location((next + page) % SLOTS)).collect();
            for &location in &locations {
                batch.read(region.page(location).unwrap(), slots.pop().unwrap()).unwrap();
            }
            let deadline = now + Nanos::from_millis(10);
            let ticket = engine.submit(batch, now, deadline).unwrap();
            flying.insert(ticket, (locations, deadline, None));
            if next % 20 == 2 {
                engine.remove_peer(*peer, now).unwrap();
                removed += 1;
            }
            next += 1;
        }
        engine.poll(now);
        make_lanes(&mut engine, &sim, &producers, now);
        while engine.next_lost_lane().is_some() {}
        while let Some(late) = engine.next_overdue() {
            flying.get_mut(&late).unwrap().2 = Some(now);
        }
        while let Some(mut done) = engine.next_done() {
            let (locations, deadline, overdue) = flying.remove(&done.ticket()).unwrap();
            for page in done.pages() {
                let right = Memory::is_page(locations[page.index], page.slot.bytes().unwrap());
                ends.note(page.result, right, overdue.unwrap_or(now), deadline);
                slots.push(page.slot);
            }
        }
        let until = now + STEP;
        engine.wait(now, until);
        assert!(now < Time(60_000_000_000), "{ends:?}, {} batches in flight", engine.in_flight());
    }
    assert_eq!(ends.all(), CROWD * PAGES, "{ends:?}");
    assert!(ends.of("served") >= 800 * PAGES, "{ends:?}");
    // Those that were down from the start.
    assert!(ends.of("no lane") >= CROWD / 20 * PAGES, "{ends:?}");
    println!("{ends:?}");
    assert!(removed == CROWD / 20 && ends.of("peer gone") > 0, "{ends:?}");
    assert_eq!(sim.violations().iter().count(), 0);
}
