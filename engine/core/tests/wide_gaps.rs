//! READs of table entries over gaps, of long tables and of batches longer than one READ spans: each
//! page is a hit or a miss by its own entry, whatever becomes of the lanes.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::LaneSpec;
use kvrail_core::id::{PeerId, RailIndex};
use kvrail_core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Generation, KeyTag, Ready};
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Action, LaneHandle, MemoryHandle, Sim};

const LATE: Time = Time(1_000_000_000);
/// Slots of a table, whose pages have as many bytes as an entry.
const MANY: usize = 1_500;
const BYTES: usize = 64;
const PAGES: usize = 320;
type LongState = EngineStorage<4, 8, 64, 32, 4, PAGES>;

/// A peer with a long table.
struct Long {
    peer: sim::PeerHandle,
    memory: MemoryHandle,
    base: u64,
    key: u32,
    counts: Vec<u32>,
}

impl Long {
    fn new<'m>(sim: &Sim<'m>, bytes: &'m mut [u8], key: u32) -> Self {
        let (peer, base) = (sim.add_peer().unwrap(), u64::from(key) * BASE);
        let memory = sim.publish(peer, base, bytes, keys(key)).unwrap();
        let mut long = Self { peer, memory, base, key, counts: vec![0; MANY] };
        (0..MANY).for_each(|slot| long.publish(sim, slot));
        long
    }

    fn value(&self, slot: usize) -> EntryValue {
        let count = self.counts[slot];
        EntryValue {
            generation: Generation(7 << 32 | u64::from(count) << 1 | 1),
            ready: Ready::WHOLE,
            tag: KeyTag(u128::from(self.key) << 64 | slot as u128),
        }
    }

    fn location(&self, slot: usize) -> Location {
        Location { slot: slot as u32, expected: self.value(slot) }
    }

    /// The bytes of a page name its slot and its publication.
    fn page(&self, slot: u32, count: u32) -> [u8; BYTES] {
        let word = u64::from(self.key) << 48 | u64::from(slot) << 24 | u64::from(count);
        core::array::from_fn(|i| word.to_le_bytes()[i % 8])
    }

    fn publish(&mut self, sim: &Sim<'_>, slot: usize) {
        self.counts[slot] += 1;
        let (page, at) =
            (self.page(slot as u32, self.counts[slot]), MANY * BYTES + slot * ENTRY_BYTES as usize);
        let entry = self.value(slot).to_bytes();
        sim.with_memory(self.memory, |bytes| {
            bytes[slot * BYTES..][..BYTES].copy_from_slice(&page);
            bytes[at..][..ENTRY_BYTES as usize].copy_from_slice(&entry);
        });
    }

    fn offer(&self) -> RegionOffer {
        RegionOffer {
            base: self.base,
            page_bytes: BYTES as u64,
            stride: BYTES as u64,
            slots: MANY as u32,
            keys: keys(self.key),
            table: Some(TableOffer { base: self.base + (MANY * BYTES) as u64, keys: keys(self.key) }),
        }
    }
}

type LongEngine<'s, 'm> = kvrail_core::engine::Engine<'s, sim::SimRails<'m>>;

fn connect_long<'m>(
    engine: &mut LongEngine<'_, 'm>,
    sim: &Sim<'m>,
    long: &Long,
    lanes: &mut Vec<LaneHandle>,
) -> (PeerId, RemoteRegion) {
    let peer = engine.add_peer().unwrap();
    let region = engine.add_region(peer, &long.offer()).unwrap();
    (0..6).for_each(|i| lanes.extend(add_lane(engine, sim, long, peer, i % 2)));
    (peer, region)
}

fn add_lane<'m>(
    engine: &mut LongEngine<'_, 'm>,
    sim: &Sim<'m>,
    long: &Long,
    peer: PeerId,
    rail: u8,
) -> Option<LaneHandle> {
    let rail_of = RailIndex(rail);
    let made =
        sim.connect(rail_of, long.peer, rail_of, sim::SimLaneSpec { sq_entries: 32, rd_atomic: 4 }).ok()?;
    let key = made.handle();
    let spec = LaneSpec { rail: rail_of, remote_rail: rail, depth: 32 };
    engine.attach(peer, spec, made, sim.now()).ok().map(|_| key)
}

/// Slots that ascend with gaps of every length, now and then fall, stay, or stand in a long row.
fn walk(rng: &mut Rng, n: usize) -> Vec<usize> {
    let mut at = rng.below(MANY as u64) as usize;
    let mut longest = 1 + rng.below(70);
    (0..n)
        .map(|_| {
            let step = match rng.below(100) {
                0..3 => {
                    longest = [1, 2, 4, 17, 66, 67][rng.below(6) as usize];
                    rng.below(MANY as u64) as usize
                }
                3..5 => 0,
                _ => 1 + rng.below(longest) as usize,
            };
            at = (at + step) % MANY;
            at
        })
        .collect()
}

#[test]
fn each_page_of_a_long_batch_is_validated_by_its_own_entry() {
    let (mut good, mut gone, mut again) = (0, 0, 0);
    let all = seeds::each("each_page_of_a_long_batch", 0..100, |seed| {
        let mut rng = Rng(seed ^ 0x1057);
        let mut storage = Box::new(sim::SimStorage::<4, 4, 64, 32, 1024>::new());
        let mut memory = vec![vec![0; MANY * (BYTES + ENTRY_BYTES as usize)]; 2];
        let model = sim::SimConfig {
            sges: [3, 4, 5][seed as usize % 3],
            read_overhead: [4096, 512, 2047][seed as usize / 3 % 3],
            pieces: 3,
            late_bytes: rng.chance(50),
            purge: rng.chance(50),
            retry: Nanos::from_micros(100),
            ..sim::SimConfig::new(seed)
        };
        let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
        let mut owners = Vec::new();
        for (i, bytes) in memory.iter_mut().enumerate() {
            owners.push(Long::new(&sim, bytes, 1 + i as u32));
        }
        let dest = Destination::new(3 * PAGES, BYTES);
        let mut state = Box::new(LongState::new());
        let config = EngineConfig {
            chunk_bytes: 4096,
            run_chunks: 1 + rng.below(20) as u32,
            signal_wrs: 1 + rng.below(9) as u32,
            region_faults: u16::MAX,
            ..EngineConfig::DEFAULT
        };
        let mut engine = start(&mut *state, &sim, config);
        let mut slots: Vec<_> = dest.register(&mut engine, BYTES).collect();
        let whole = slots.len();
        let mut lanes = Vec::new();
        let peers: Vec<_> =
            owners.iter().map(|owner| connect_long(&mut engine, &sim, owner, &mut lanes)).collect();
        for round in 0..4 {
            let mut asked = Vec::new();
            for _ in 0..2 {
                let n = 1 + rng.below(PAGES as u64) as usize;
                let mixed = rng.chance(40);
                let mut pages = Vec::new();
                let mut batch = engine.batch().unwrap();
                let mut of = rng.below(2) as usize;
                for slot in walk(&mut rng, n) {
                    if mixed && rng.chance(5) {
                        of = rng.below(2) as usize;
                    }
                    let validated = !(mixed && rng.chance(5));
                    let region = &peers[of].1;
                    let location = owners[of].location(slot);
                    let page = match validated {
                        true => region.page(location).unwrap(),
                        false => region.unvalidated(slot as u32).unwrap(),
                    };
                    batch.read(page, slots.pop().unwrap()).unwrap();
                    pages.push((of, slot as u32, owners[of].counts[slot], validated));
                }
                batch.set_tag(asked.len() as u64);
                let deadline = if rng.chance(20) { sim.now() + Nanos(rng.below(40_000)) } else { LATE };
                let ticket = engine.submit(batch, sim.now(), deadline).unwrap();
                asked.push((ticket, pages));
            }
            for _ in 0..6 {
                sim.advance_to(sim.now() + Nanos(rng.below(5_000)));
                engine.poll(sim.now());
                let (ticket, pages) = &asked[rng.below(2) as usize];
                let page = rng.below(pages.len() as u64) as usize;
                match rng.below(4) {
                    0 => owners[pages[page].0].publish(&sim, pages[page].1 as usize),
                    1 => drop(engine.withdraw_page(*ticket, page, sim.now())),
                    2 if round > 0 => {
                        let at = rng.below(lanes.len() as u64) as usize;
                        sim.apply(Action::FailLane(lanes[at]));
                        let of = rng.below(2) as usize;
                        lanes.extend(add_lane(&mut engine, &sim, &owners[of], peers[of].0, (at % 2) as u8));
                    }
                    _ => {}
                }
            }
            let until = sim.now() + Nanos::from_millis(100);
            settle(&mut engine, &sim, until, |mut done| {
                let (_, pages) = &asked[done.tag() as usize];
                for page in done.pages() {
                    let (of, slot, count, validated) = pages[page.index];
                    if page.result.is_ok() && validated {
                        good += 1;
                        let expected = owners[of].page(slot, count);
                        assert_eq!(page.slot.bytes().unwrap()[..BYTES], expected, "seed {seed}");
                    } else {
                        gone += u64::from(page.result.is_err());
                    }
                    slots.push(page.slot);
                }
            });
            assert_eq!(engine.in_flight(), 0, "seed {seed}");
            assert_eq!(slots.len(), whole, "seed {seed}: all slots are back");
        }
        assert!(sim.violations().is_empty(), "seed {seed}: {:?}", sim.violations());
        again += (0..2).map(|rail| engine.rail_stats(RailIndex(rail)).unwrap().reposted).sum::<u64>();
    });
    assert!(!all || (good > 10_000 && gone > 300 && again > 100), "{good} good, {gone} gone, {again} again");
}
