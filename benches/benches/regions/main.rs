//! The cost of pages of several regions above the driver, in instructions:
//! `benches/count-instructions` prints it.
//!
//! Every page is validated. `two-pages` reads 16 pairs of pages of one region, `page-of-2` 16 pages
//! of two regions with as many bytes: the same READs, half as many entries. `page-of-61` reads 8
//! pages with a region for each of 61 layers, and `loop-of-61` posts the same 61 READs for each,
//! and one READ of its entry, by hand. All of it is counted: filling the batch, posting,
//! completing, and taking the results.
//!
//! `cargo bench -p kvrail-bench --bench regions -- count WORKLOAD N` runs a workload N times.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark, not a library")]
#![allow(unsafe_code, reason = "posts without an engine")]

use std::process::ExitCode;

use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail::core::memory::Slot;
use kvrail::core::provider::{Commit, Post, Provider, Read};
use kvrail::core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail::core::storage::EngineStorage;
use kvrail::core::table::{EntryValue, Ready};
use kvrail::core::time::{Nanos, Time};
use kvrail::core::verbs_abi::{ChainStorage, Wc};
use kvrail::layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, PlaneDecl};
use kvrail_sim::null::{Cq, Cqe, NullLane, NullParts, NullRails, Qp, Wqe};

const REGION: u64 = 4096;
const PAIRS: usize = 16;
const LAYERS: usize = 61;
const CHAIN: usize = 64;
const DEPTH: usize = 1024;
/// Pages of 61 regions in a batch.
const LONG: usize = 8;
const REMOTE: u64 = 0x7000_0000;
const APART: u64 = 0x100_0000;
const TABLE: u64 = 0x9000_0000;

type Null = NullRails<'static, CHAIN>;
type State = EngineStorage<1, 128, 1, DEPTH, 4, 32>;

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

fn null() -> Null {
    let parts = NullParts {
        cqs: vec![Cq::NEW; 1].leak(),
        cqes: vec![Cqe::NEW; DEPTH].leak(),
        qps: vec![Qp::NEW; 1].leak(),
        wqes: vec![Wqe::NEW; DEPTH].leak(),
    };
    NullRails::new(parts, leak(ChainStorage::new())).expect("parts that fit")
}

/// Pages with a region for each layer.
fn layers(count: usize) -> Geometry {
    Declaration {
        axes: &[Axis::whole(AxisKind::Layer, count as u64), Axis::whole(AxisKind::Token, 1)],
        order: &[Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token)],
        planes: &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, REGION)])],
        ..Declaration::EMPTY
    }
    .expect()
}

/// Pages through an engine.
struct Pages {
    engine: Engine<'static, Null>,
    region: RemoteRegion,
    slots: Vec<Slot>,
    batch: usize,
    now: u64,
}

impl Pages {
    /// Pages of `regions` regions in batches of `batch`.
    fn new(regions: usize, batch: usize) -> Self {
        let config =
            EngineConfig { signal_wrs: 64, run_chunks: 64, quantum_bytes: 4 << 20, ..EngineConfig::DEFAULT };
        let mut engine = Engine::start(leak(State::new()), null(), config).expect("an engine");
        let geometry = layers(regions);
        let memory = vec![0_u8; batch * regions * REGION as usize].leak();
        let slots = engine.register_regions(&geometry, memory).expect("slots").collect();
        let peer = engine.add_peer().expect("a place");
        let offers: Vec<_> = (0..regions as u64)
            .map(|i| RegionOffer {
                base: REMOTE + i * APART,
                page_bytes: REGION,
                stride: REGION,
                slots: 64,
                keys: [7 + i as u32; MAX_RAILS],
                table: (i == 0).then_some(TableOffer { base: TABLE, keys: [8; MAX_RAILS] }),
            })
            .collect();
        let region = engine.add_pool(peer, &geometry, &offers).expect("a pool");
        let spec = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: DEPTH as u32 };
        engine.attach(peer, spec, (), Time::ZERO).expect("a lane");
        Self { engine, region, slots, batch, now: 0 }
    }

    #[inline(never)]
    fn run(&mut self) {
        let mut batch = self.engine.batch().expect("a free batch");
        let expected = EntryValue { ready: Ready::WHOLE, ..EntryValue::default() };
        for slot in 0..self.batch as u32 {
            let page = self.region.page(Location { slot, expected }).expect("within the region");
            let to = self.slots.pop().expect("a slot");
            batch.read(page, to).map_err(|(error, _)| error).expect("room");
        }
        self.now += 1;
        self.engine.submit(batch, Time(self.now), Time(self.now) + Nanos::from_secs(1)).expect("accepted");
        while self.engine.in_flight() > 0 {
            self.now += 1;
            self.engine.poll(Time(self.now));
        }
        let mut done = self.engine.next_done().expect("a batch");
        for page in done.pages() {
            // The null device moves nothing: a validated page is a miss.
            assert!(page.result.is_err());
            self.slots.push(page.slot);
        }
    }
}

/// The READs of a page of 61 regions, and of its entry, posted by hand.
struct ByHand {
    rails: Null,
    lane: NullLane<'static>,
    /// Where each region begins on both sides, and its keys.
    regions: Vec<(u64, u32, u64, u32)>,
    entry: u64,
    page: u64,
    wcs: [Wc; 32],
}

impl ByHand {
    fn new() -> Self {
        let mut rails = null();
        let lane = rails.open(LaneId::new(0, 1), RailIndex(0), ()).expect("a free lane");
        let memory = vec![0_u8; (LAYERS + 1) * REGION as usize].leak();
        let local = memory.as_mut_ptr().expose_provenance() as u64;
        let regions = (0..LAYERS as u64)
            .map(|i| (REMOTE + i * APART, 7 + i as u32, local + i * REGION, 9 + i as u32))
            .collect();
        let entry = local + LAYERS as u64 * REGION;
        Self { rails, lane, regions, entry, page: 0, wcs: [Wc::default(); 32] }
    }

    #[inline(never)]
    fn run(&mut self) {
        // SAFETY: the null device moves no bytes.
        let mut post = unsafe { self.rails.begin(&mut self.lane) };
        let at = self.page * REGION;
        for (i, &(remote, rkey, local, lkey)) in (0..).zip(&self.regions) {
            post.read(Read {
                wr_id: WrId::new(LaneId::new(0, 1), i),
                remote_addr: remote + at,
                local_addr: local + at,
                len: REGION as u32,
                rkey,
                lkey,
                signaled: i + 1 == LAYERS as u32,
            });
        }
        assert_eq!(post.commit(), Commit::All);
        self.complete();
        // SAFETY: as above.
        let mut post = unsafe { self.rails.begin(&mut self.lane) };
        post.read(Read {
            wr_id: WrId::new(LaneId::new(0, 1), LAYERS as u32),
            remote_addr: TABLE + self.page * 32,
            local_addr: self.entry,
            len: 32,
            rkey: 8,
            lkey: 9,
            signaled: true,
        });
        assert_eq!(post.commit(), Commit::All);
        self.complete();
        self.page = (self.page + 1) % LONG as u64;
    }

    fn complete(&mut self) {
        while self.rails.poll(RailIndex(0), &mut self.wcs) == 0 {}
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let ["count", name, n] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        // `cargo bench` runs every bench: this one counts nothing by itself.
        return ExitCode::SUCCESS;
    };
    let n: usize = n.parse().expect("a number of runs");
    let mut run: Box<dyn FnMut()> = match name {
        "two-pages" => {
            let mut pages = Pages::new(1, 2 * PAIRS);
            Box::new(move || pages.run())
        }
        "page-of-2" => {
            let mut pages = Pages::new(2, PAIRS);
            Box::new(move || pages.run())
        }
        "page-of-61" => {
            let mut pages = Pages::new(LAYERS, LONG);
            Box::new(move || pages.run())
        }
        "loop-of-61" => {
            let mut by_hand = ByHand::new();
            Box::new(move || (0..LONG).for_each(|_| by_hand.run()))
        }
        other => panic!("no workload {other}"),
    };
    (0..n).for_each(|_| run());
    ExitCode::SUCCESS
}
