//! An engine over mlx5 entries: every syndrome, and completions that cannot be right.
#![allow(missing_docs, reason = "a test")]

use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::error::PageError;
use kvrail_core::id::{MAX_RAILS, PeerId, RailIndex};
use kvrail_core::memory::Slot;
use kvrail_core::remote::{RegionOffer, RemoteRegion};
use kvrail_core::storage::EngineStorage;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::{FaultKind, WcStatus};
use kvrail_mlx5::Syndrome;
use kvrail_mlx5_device::{Device, Fate, MemoryMap, Mlx5Rails};

const RAILS: usize = 2;
const LANES: usize = 2;
const DEPTH: u32 = 16;
const PAGE: u64 = 8192;
const SLOTS: usize = 24;
const REMOTE: u64 = 0x7000_0000;
const RKEY: u32 = 0x77;

type State = EngineStorage<1, 1, { 4 * LANES * RAILS }, { DEPTH as usize }, 4, 8>;

fn byte_at(offset: usize) -> u8 {
    ((offset as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

struct World {
    engine: Engine<'static, Mlx5Rails>,
    peer: PeerId,
    region: RemoteRegion,
    slots: Vec<Slot>,
    now: Time,
    /// What became of the pages.
    good: usize,
    faults: Vec<WcStatus>,
}

impl World {
    fn new(fates: &[Fate]) -> Self {
        let mut memory = MemoryMap::moving();
        let bytes: Vec<u8> = (0..SLOTS * PAGE as usize).map(byte_at).collect();
        memory.publish(RKEY, REMOTE, bytes.leak());
        let mut device = Device::new(RAILS, 256, memory);
        device.plan(fates.iter().copied());
        let mut rails =
            Mlx5Rails::new(device, RAILS, 256, (4 * LANES * RAILS, DEPTH)).expect("in their ranges");
        rails.set_pace(5);
        let config = EngineConfig {
            chunk_bytes: 4096,
            run_chunks: 4,
            stall: Nanos::from_millis(10),
            drain: Nanos::from_millis(10),
            backoff_min: Nanos::from_micros(10),
            backoff_max: Nanos::from_millis(1),
            ..EngineConfig::DEFAULT
        };
        let state = State::in_place(Box::leak(Box::<State>::new_uninit()));
        let mut engine = Engine::start(state, rails, config).expect("an engine");
        let memory = vec![0_u8; SLOTS * PAGE as usize].leak();
        let slots = engine.register(memory, PAGE).expect("slots").collect();
        let peer = engine.add_peer().expect("a place");
        let offer = RegionOffer {
            base: REMOTE,
            page_bytes: PAGE,
            stride: PAGE,
            slots: SLOTS as u32,
            keys: [RKEY; MAX_RAILS],
            table: None,
        };
        let region = engine.add_region(peer, &offer).expect("a region");
        let mut this = Self { engine, peer, region, slots, now: Time(1), good: 0, faults: Vec::new() };
        for rail in (0..RAILS as u8).cycle().take(RAILS * LANES) {
            this.attach(rail);
        }
        this
    }

    fn attach(&mut self, rail: u8) {
        let spec = LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth: DEPTH };
        self.engine.attach(self.peer, spec, (), self.now).expect("a place");
    }

    /// Reads every page once, in batches of 8, and waits for the end of all.
    fn read_all(&mut self) {
        // Pages that were set aside after a failure may be read again.
        self.now = self.now + Nanos::from_secs(60);
        self.engine.poll(self.now);
        while let Some(wanted) = self.engine.next_wanted_lane(self.now) {
            self.attach(wanted.rail.0);
        }
        for first in (0..SLOTS as u32).step_by(8) {
            let mut batch = self.engine.batch().expect("a batch");
            for page in first..first + 8 {
                let page = self.region.unvalidated(page).expect("within the region");
                let slot = self.slots.pop().expect("a slot for each page");
                batch.read(page, slot).map_err(|(error, _)| error).expect("room");
            }
            batch.set_tag(first.into());
            self.engine.submit(batch, self.now, self.now + Nanos::from_secs(1)).expect("accepted");
        }
        for round in 0.. {
            assert!(round < 5_000, "{:?} does not end", self.engine);
            self.now = self.now + Nanos::from_micros(100);
            self.engine.poll(self.now);
            while let Some(wanted) = self.engine.next_wanted_lane(self.now) {
                self.attach(wanted.rail.0);
            }
            self.take();
            let engine = &self.engine;
            if engine.in_flight() == 0 && engine.outstanding() == 0 && engine.lanes_dying() == 0 {
                break;
            }
        }
        assert_eq!(self.slots.len(), SLOTS, "every slot is back");
    }

    fn take(&mut self) {
        while let Some(mut done) = self.engine.next_done() {
            let first = done.tag() as usize;
            for (at, page) in done.pages().enumerate() {
                match page.result() {
                    Ok(()) => {
                        let from = (first + at) * PAGE as usize;
                        let bytes = page.slot.bytes().expect("memory of the host");
                        let wrong = (from..).zip(bytes).position(|(at, byte)| *byte != byte_at(at));
                        assert_eq!(wrong, None, "page {at} of the batch from {first}");
                        self.good += 1;
                    }
                    Err(PageError::Fault { status, .. }) => self.faults.push(status),
                    Err(other) => panic!("{other}"),
                }
                self.slots.push(page.slot);
            }
        }
    }
}

#[test]
fn every_syndrome_fails_its_page_or_its_path_and_nothing_else() {
    for (syndrome, status) in Syndrome::ALL.into_iter().chain([(Syndrome(0x99), WcStatus::GENERAL_ERR)]) {
        for before in [0, 1, 7, 20] {
            let mut fates = vec![Fate::Fine; before];
            fates.push(Fate::Fails(syndrome.0, 0x88));
            let mut world = World::new(&fates);
            world.read_all();
            let expected = if status.fault() == FaultKind::Page { vec![status] } else { Vec::new() };
            assert_eq!(world.faults, expected, "{syndrome:?} after {before}");
            assert_eq!(world.good + expected.len(), SLOTS);
            // Lanes that came back work.
            world.read_all();
            assert_eq!(world.good + expected.len(), 2 * SLOTS);
        }
    }
}

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The device does not carry READs out and says what cannot be right: an opcode or format of
/// another kind, another operation, a block where no wr begins. No such READ counts as done, and
/// they are read over other lanes. (A page whose lanes fail again and again while it is tried alone
/// is called faulty, as with any device.)
#[test]
fn a_device_that_writes_nonsense_costs_lanes_and_no_page() {
    let mut faulty = 0;
    for seed in 1..400 {
        let mut random = Random(seed * 0x9E37_79B9);
        let fates: Vec<Fate> = (0..96)
            .map(|_| match random.next() % 12 {
                0 => {
                    let (last, before) = (random.next(), random.next());
                    // Not a completion of a READ, or one of another block.
                    let last = match random.next() % 4 {
                        0 => last & !0xFC | 0x20,
                        1 => last & !0xFC | 0xD4,
                        2 => last & !(0xFF << 56) & !0xFC | 0x0A << 56,
                        _ => last & !(0xFFFF << 16) & !0xFC | 0x8000 << 16 | 0xD0,
                    };
                    Fate::Nonsense { last, before }
                }
                1 => Fate::Fails(0x15, 0),
                _ => Fate::Fine,
            })
            .collect();
        let mut world = World::new(&fates);
        world.read_all();
        world.read_all();
        let path = |status: &WcStatus| [WcStatus::GENERAL_ERR, WcStatus::RETRY_EXC_ERR].contains(status);
        assert!(world.faults.iter().all(path), "seed {seed}: {:?}", world.faults);
        assert_eq!(world.good + world.faults.len(), 2 * SLOTS, "seed {seed}");
        faulty += world.faults.len();
    }
    assert!(faulty <= 4, "{faulty} pages were called faulty, of some 19,000");
}
