//! Instructions of the engine and of kvrail-mlx5's encoder for a page of 4 KiB, for callgrind to
//! count: `benches/count-instructions`.
//!
//! `count WORKLOAD N` reads N batches of 32 pages, filled and taken back in bulk, over 8 rails of
//! two lanes each. `plain` is without validation. `validated` is with it: the pages are neighbours,
//! so that one READ fetches the entries of several, and every page is a hit.
//!
//! The device really carries the READs out. Its functions, `Device::doorbell` and `Device::run`,
//! are never inlined, so that callgrind can leave them out.
#![allow(missing_docs, reason = "a benchmark, not a library")]

use kvrail_core::batch::Batch;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::memory::SlotRange;
use kvrail_core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::{EntryValue, Generation, Ready};
use kvrail_core::time::{Nanos, Time};
use kvrail_mlx5_device::{Device, MemoryMap, Mlx5Rails};

const RAILS: usize = 8;
const LANES: usize = 16;
const DEPTH: usize = 32;
const BATCH: usize = 32;
const BATCHES: usize = 4;
const PAGE: u64 = 4096;
const SLOTS: u64 = 1024;
const REMOTE: u64 = 0x7000_0000;
const TABLE: u64 = 0x9000_0000;
const EXPECTED: EntryValue =
    EntryValue { generation: Generation(5), ready: Ready::WHOLE, tag: kvrail_core::table::KeyTag(9) };

type State = EngineStorage<1, 1, LANES, DEPTH, 16, BATCH>;

struct Counted {
    engine: Engine<'static, Mlx5Rails>,
    region: RemoteRegion,
    ranges: Vec<SlotRange>,
    locations: Vec<Location>,
    from_slots: Vec<u32>,
    ready: Vec<Batch<'static>>,
    validated: bool,
    now: u64,
}

impl Counted {
    fn new(validated: bool) -> Self {
        let mut map = MemoryMap::moving();
        let pages: Vec<u8> = (0..SLOTS * PAGE).map(|at| (at / PAGE) as u8).collect();
        let table: Vec<u8> = (0..SLOTS).flat_map(|_| EXPECTED.to_bytes()).collect();
        map.publish(7, REMOTE, pages.leak());
        map.publish(8, TABLE, table.leak());
        let device = Device::new(RAILS, 128, map);
        let rails = Mlx5Rails::new(device, RAILS, 128, (LANES, DEPTH as u32)).expect("in their ranges");
        let config = EngineConfig { signal_wrs: 32, ..EngineConfig::DEFAULT };
        let state = State::in_place(Box::leak(Box::<State>::new_uninit()));
        let mut engine = Engine::start(state, rails, config).expect("an engine");
        let memory = vec![0_u8; 16 * BATCH * PAGE as usize].leak();
        let mut slots = engine.register(memory, PAGE).expect("slots");
        let peer = engine.add_peer().expect("a place");
        let offer = RegionOffer {
            base: REMOTE,
            page_bytes: PAGE,
            stride: PAGE,
            slots: SLOTS as u32,
            keys: [7; MAX_RAILS],
            table: Some(TableOffer { base: TABLE, keys: [8; MAX_RAILS] }),
        };
        let region = engine.add_region(peer, &offer).expect("a region");
        for lane in 0..LANES {
            let rail = RailIndex((lane % RAILS) as u8);
            let spec = LaneSpec { rail, remote_rail: rail.0, depth: DEPTH as u32 };
            engine.attach(peer, spec, (), Time::ZERO).expect("a place");
        }
        let from_slots: Vec<u32> = (0..BATCH as u32).collect();
        let locations = from_slots.iter().map(|&slot| Location { slot, expected: EXPECTED }).collect();
        let ranges = std::iter::from_fn(|| slots.take_range(BATCH)).collect();
        let ready = Vec::with_capacity(BATCHES);
        Self { engine, region, ranges, locations, from_slots, ready, validated, now: 0 }
    }

    #[inline(never)]
    fn fill(&mut self) {
        for _ in 0..BATCHES {
            let range = self.ranges.pop().expect("slots for each batch");
            let mut batch = self.engine.batch().expect("a free batch");
            let filled = match self.validated {
                true => batch.read_many(&self.region, &self.locations, range),
                false => batch.read_many_unvalidated(&self.region, &self.from_slots, range),
            };
            filled.expect("room");
            self.ready.push(batch);
        }
    }

    #[inline(never)]
    fn submit_and_poll(&mut self) {
        while let Some(batch) = self.ready.pop() {
            self.now += 1;
            let now = Time(self.now);
            self.engine.submit(batch, now, now + Nanos::from_secs(1)).expect("accepted");
        }
        while self.engine.in_flight() > 0 {
            self.now += 1;
            self.engine.poll(Time(self.now));
        }
    }

    #[inline(never)]
    fn take(&mut self) {
        while let Some(mut done) = self.engine.next_done() {
            assert_eq!(done.failed_bits(0), 0, "every page is a hit");
            self.ranges.push(done.take_range().expect("the slots of the batch").slots);
        }
    }

    #[inline(never)]
    fn whole(&mut self) {
        self.fill();
        self.submit_and_poll();
        self.take();
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [command, workload, batches] = &args[..] else {
        println!("usage: count WORKLOAD BATCHES");
        return;
    };
    assert_eq!(command, "count");
    let batches: usize = batches.parse().expect("a number of batches");
    let mut counted = Counted::new(workload == "validated");
    (0..batches.div_ceil(BATCHES)).for_each(|_| counted.whole());
}
