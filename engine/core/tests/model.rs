//! How fast one engine reads over eight rails of the model: 8 x 49.0 GB/s, 128 KiB pages, 6 us
//! there and back, 16 READs in flight per lane, every page validated. The rates are those of model
//! time, and no measurement of hardware.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "storage and destination memory are the test's, and outlive the engine")]

use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::id::{MAX_RAILS, PeerId, RailIndex};
use kvrail_core::memory::{Access, Slot};
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Action, PeerHandle, RailSpec, Rate, Sim, SimRails};

const RAILS: usize = 8;
const LANES_PER_RAIL: usize = 2;
const PAGE: u64 = 128 << 10;
const PAGES: usize = 32;
const LINE: f64 = 49.0;
const ENTRY: EntryValue =
    EntryValue { generation: Generation(0x77_0000_0003), ready: Ready::WHOLE, tag: KeyTag(9) };
/// Published slots. READs of their bytes move nothing, READs of their entries do.
const SLOTS: u32 = 64;
const TABLE: u64 = SLOTS as u64 * PAGE;
/// The engine's batches; most tests use the first number of each.
type State<const BATCHES: usize> = EngineStorage<4, 4, 96, 64, BATCHES, PAGES>;
type Model = sim::SimStorage<RAILS, 4, 96, 64, 4096>;

fn config(seed: u64) -> sim::SimConfig {
    sim::SimConfig { copy_up_to: 1024, retry: Nanos::from_millis(1), ..sim::SimConfig::new(seed) }
}

struct Bench<'s, 'm> {
    sim: &'m Sim<'m>,
    engine: Engine<'s, SimRails<'m>>,
    peers: Vec<(PeerId, PeerHandle, RemoteRegion)>,
    slots: Vec<Slot>,
    good: u64,
    bad: u64,
    refused: u64,
}

/// Memory for the publication table of the slots. The pages before it have addresses and no memory.
fn table() -> Vec<u8> {
    (0..SLOTS).flat_map(|_| ENTRY.to_bytes()).collect()
}

impl<'s, 'm> Bench<'s, 'm> {
    fn new<const B: usize>(
        state: &'s mut State<B>,
        sim: &'m Sim<'m>,
        tables: &'m mut [Vec<u8>],
        pages: &'m mut [Vec<u8>],
        slots: usize,
    ) -> Self {
        let chunk_bytes = 128 << 10;
        let config = EngineConfig { chunk_bytes, stall: Nanos::from_millis(20), ..EngineConfig::DEFAULT };
        // SAFETY: the storage is declared before the engine in every test, and nothing is
        // forgotten.
        let mut engine = unsafe { Engine::start_scoped(state, sim.rails(), config) }.unwrap();
        // Terabytes may be in flight, since there is no memory behind the slots.
        let range = MemoryRange { addr: 1 << 46, len: slots as u64 * PAGE };
        // SAFETY: the model moves no READ longer than 1 KiB, so nothing is written here, and device
        // memory is never looked at.
        let slots = unsafe { engine.register_foreign(range, PAGE, Access::Device, None) }.unwrap().collect();
        let mut peers = Vec::new();
        for (table, pages) in tables.iter_mut().zip(pages) {
            let key = sim.add_peer().unwrap();
            sim.publish(key, 0x1000_0000, pages, [5; MAX_RAILS]).unwrap();
            sim.publish(key, 0x1000_0000 + TABLE, table, [6; MAX_RAILS]).unwrap();
            let peer = engine.add_peer().unwrap();
            let offer = RegionOffer {
                base: 0x1000_0000,
                page_bytes: PAGE,
                stride: PAGE,
                slots: SLOTS,
                keys: [5; MAX_RAILS],
                table: Some(TableOffer { base: 0x1000_0000 + TABLE, keys: [6; MAX_RAILS] }),
            };
            let region = engine.add_region(peer, &offer).unwrap();
            peers.push((peer, key, region));
        }
        let mut bench = Self { sim, engine, peers, slots, good: 0, bad: 0, refused: 0 };
        for which in 0..bench.peers.len() {
            for lane in 0..RAILS * LANES_PER_RAIL {
                assert!(bench.attach(which, (lane % RAILS) as u8));
            }
        }
        bench
    }

    fn attach(&mut self, which: usize, rail: u8) -> bool {
        let (peer, key, _) = self.peers[which];
        let rail = RailIndex(rail);
        let spec = sim::SimLaneSpec { sq_entries: 64, rd_atomic: 16 };
        let Ok(lane) = self.sim.connect(rail, key, rail, spec) else { return false };
        let spec = LaneSpec { rail, remote_rail: rail.0, depth: 64 };
        self.engine.attach(peer, spec, lane, self.sim.now()).is_ok()
    }

    fn submit(&mut self, which: usize, deadline: Time) {
        if self.slots.len() < PAGES {
            self.refused += PAGES as u64;
            return;
        }
        let Some(mut batch) = self.engine.batch() else {
            self.refused += PAGES as u64;
            return;
        };
        for i in 0..PAGES as u32 {
            let page = self.peers[which].2.page(Location { slot: i, expected: ENTRY }).unwrap();
            batch.read(page, self.slots.pop().unwrap()).unwrap();
        }
        batch.set_tag(which as u64);
        self.engine.submit(batch, self.sim.now(), deadline).unwrap();
    }

    fn take(&mut self) {
        self.engine.poll(self.sim.now());
        while self.engine.next_overdue().is_some() {}
        while let Some(mut done) = self.engine.next_done() {
            for page in done.pages() {
                match page.result {
                    Ok(()) => self.good += 1,
                    Err(_) => self.bad += 1,
                }
                self.slots.push(page.slot);
            }
        }
    }

    /// Keeps `depth` batches in flight until `end`.
    fn drive(&mut self, depth: usize, end: Time) -> f64 {
        let (begin, before) = (self.sim.now(), self.good);
        let mut next = 0;
        while self.sim.now() < end {
            while self.engine.in_flight() < depth {
                self.submit(next % self.peers.len(), Time::NEVER);
                next += 1;
            }
            self.engine.wait(self.sim.now(), end);
            self.take();
        }
        (self.good - before) as f64 * PAGE as f64 / end.since(begin).0 as f64
    }

    fn lanes_failed(&self) -> u64 {
        (0..RAILS as u8).map(|r| self.engine.rail_stats(RailIndex(r)).unwrap().lanes_failed).sum()
    }
}

fn ms(n: u64) -> Time {
    Time(n * 1_000_000)
}

fn lines(n: usize) -> Vec<RailSpec> {
    vec![RailSpec { jitter: Nanos(500), ..RailSpec::GBITS_400 }; n]
}

/// Runs `test` on a fresh bench with `peers` peers, `B` batches and slots for them.
fn with<const B: usize>(peers: usize, slots: usize, test: impl FnOnce(&mut Bench<'_, '_>) + Send) {
    // Storages of these sizes are moved into their boxes over the stack, unoptimised more than
    // once.
    std::thread::scope(|scope| {
        let big = std::thread::Builder::new().stack_size(1 << 30);
        big.spawn_scoped(scope, || alone::<B>(peers, slots, test)).unwrap().join().unwrap();
    });
}

fn alone<const B: usize>(peers: usize, slots: usize, test: impl FnOnce(&mut Bench<'_, '_>)) {
    let mut model = Box::new(Model::new());
    let mut tables: Vec<_> = (0..peers).map(|_| table()).collect();
    let mut pages: Vec<_> = (0..peers).map(|_| vec![0; TABLE as usize]).collect();
    let sim = Sim::new(&mut model, config(11), &lines(RAILS)).unwrap();
    let mut state = Box::new(State::<B>::new());
    let mut bench = Bench::new(&mut state, &sim, &mut tables, &mut pages, slots);
    test(&mut bench);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn one_engine_fills_eight_rails() {
    with::<64>(1, 64 * PAGES, |bench| {
        bench.drive(48, ms(1));
        let rate = bench.drive(48, ms(11));
        println!("model: 8 rails carry {rate:.1} of {:.1} GB/s", 8.0 * LINE);
        assert!(rate >= 0.98 * 8.0 * LINE, "{rate:.1} GB/s");
        assert_eq!((bench.bad, bench.lanes_failed()), (0, 0));
    });
}

#[test]
fn a_dead_rail_costs_its_share_of_the_rate_and_no_page() {
    with::<64>(1, 64 * PAGES, |bench| {
        bench.drive(48, ms(2));
        bench.sim.apply(Action::RailDown { rail: RailIndex(3), told: false });
        bench.drive(48, ms(8));
        let rate = bench.drive(48, ms(18));
        println!("model: 7 rails carry {rate:.1} of {:.1} GB/s", 7.0 * LINE);
        assert!(rate >= 0.97 * 7.0 * LINE, "{rate:.1} GB/s");
        // Only the lanes of the dead rail failed, and every page arrived.
        assert_eq!((bench.bad, bench.lanes_failed()), (0, LANES_PER_RAIL as u64));
        // The rail comes back, and so does its share.
        bench.sim.apply(Action::RailUp { rail: RailIndex(3), told: true });
        bench.take();
        while let Some(wanted) = bench.engine.next_wanted_lane(bench.sim.now()) {
            assert_eq!(wanted.rail, RailIndex(3));
            assert!(bench.attach(0, 3));
        }
        bench.drive(48, ms(20));
        let rate = bench.drive(48, ms(30));
        assert!(rate >= 0.98 * 8.0 * LINE, "{rate:.1} GB/s");
    });
}

#[test]
fn a_slow_rail_gets_what_it_can_carry() {
    with::<64>(1, 64 * PAGES, |bench| {
        bench.sim.apply(Action::RailRate { rail: RailIndex(0), rate: Rate::bytes_per_sec(24_500_000_000) });
        bench.drive(48, ms(10));
        let rate = bench.drive(48, ms(20));
        println!("model: 7.5 rails carry {rate:.1} of {:.1} GB/s", 7.5 * LINE);
        assert!(rate >= 0.97 * 7.5 * LINE, "{rate:.1} GB/s");
        let estimate = bench.engine.rail_bytes_per_sec(RailIndex(0)).unwrap();
        assert!((20_000_000_000..30_000_000_000).contains(&estimate), "{estimate}");
        // When it is fast again, that is found out.
        bench.sim.apply(Action::RailRate { rail: RailIndex(0), rate: Rate::GBITS_400 });
        bench.drive(48, ms(40));
        let rate = bench.drive(48, ms(50));
        assert!(rate >= 0.98 * 8.0 * LINE, "{rate:.1} GB/s");
    });
}

/// Half as much again as the rails carry is offered, each batch with 50 ms to live. `B` batches may
/// wait in the engine; with few, the rest is refused at once; with many, deadlines pass in the
/// queue.
fn overload<const B: usize>(slots: usize) -> (f64, u64, u64, u64) {
    let mut out = (0.0, 0, 0, 0);
    with::<B>(2, slots, |bench| {
        let batch_bytes = PAGES as u64 * PAGE;
        // 1.5 x 8 x 49.0 GB/s are 588 bytes per ns.
        let every = Nanos(batch_bytes / 588);
        let (warm, end) = (ms(100), ms(200));
        let (mut due, mut before, mut which) = (Time::ZERO, None, 0);
        while bench.sim.now() < end {
            while due <= bench.sim.now() {
                bench.submit(which % 2, bench.sim.now() + Nanos::from_millis(50));
                which += 1;
                due = due + every;
            }
            if bench.sim.now() >= warm && before.is_none() {
                before = Some(bench.good);
            }
            bench.engine.wait(bench.sim.now(), due);
            bench.take();
        }
        let rate = (bench.good - before.unwrap()) as f64 * PAGE as f64 / end.since(warm).0 as f64;
        out = (rate, bench.lanes_failed(), bench.bad, bench.refused);
    });
    out
}

#[test]
fn overload_is_refused_at_the_door() {
    let (rate, torn_down, late, refused) = overload::<64>(64 * PAGES);
    println!("model: at 150% load {rate:.1} GB/s in time, {late} pages late, {refused} refused");
    assert!(rate >= 0.95 * 8.0 * LINE, "{rate:.1} GB/s");
    assert_eq!((torn_down, late), (0, 0));
    assert!(refused > 0);
}

#[test]
fn overload_in_the_queue_does_not_make_everybody_late() {
    // 7,000 batches of 4 MiB are 75 ms of the rails: longer than the deadline.
    let (rate, torn_down, late, refused) = overload::<7000>(7000 * PAGES);
    println!("model: at 150% load, queued: {rate:.1} GB/s in time, {late} pages late, {refused} refused");
    assert!(rate >= 0.95 * 8.0 * LINE, "{rate:.1} GB/s");
    assert_eq!(torn_down, 0, "overload must not turn into tear-downs");
    assert!(late > 0, "deadlines do pass in the queue");
}

#[test]
fn peers_share_fairly_whatever_they_ask_for() {
    with::<64>(2, 64 * PAGES, |bench| {
        // Peer 0 has fifteen batches waiting for each one of peer 1.
        let mut next = 0;
        while bench.sim.now() < ms(5) {
            while bench.engine.in_flight() < 48 {
                bench.submit(usize::from(next % 3 == 2), Time::NEVER);
                next += 1;
            }
            bench.engine.wait(bench.sim.now(), ms(5));
            bench.take();
        }
        let bytes = [0, 1].map(|i| bench.engine.peer_stats(bench.peers[i].0).unwrap().bytes as f64);
        let share = bytes[1] / (bytes[0] + bytes[1]);
        // Peer 1 asks for a third, which is less than its half: it gets all of it.
        assert!((0.30..0.37).contains(&share), "{share:.2}");
    });
}
