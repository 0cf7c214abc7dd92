//! The cost of rows of pages above the driver: 128 rows of 656 bytes, four out of each of 32 pages
//! that lie in a row, which land one behind the other in one slot. Filling the batch, posting,
//! completing and taking the result are all counted.
//!
//! | workload | what |
//! |---|---|
//! | `loop` | the same READs by hand, and one of the 32 entries: nothing checked or counted |
//! | `rows` | through the engine, each page validated |
//! | `rows-unvalidated` | through the engine, without the entries |
//!
//! `cargo bench -p kvrail-bench --bench rows` times them (criterion); `benches/count-instructions`
//! counts instructions by `-- count WORKLOAD N`, which runs one of them N times.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark, not a library")]
#![allow(unsafe_code, reason = "posts without an engine")]

use std::process::ExitCode;

use criterion::{Criterion, Throughput};
use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail::core::memory::Slot;
use kvrail::core::provider::{Commit, Post, Provider, Read};
use kvrail::core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail::core::rows::Rows;
use kvrail::core::storage::EngineStorage;
use kvrail::core::table::{ENTRY_BYTES, EntryValue, Ready};
use kvrail::core::time::{Nanos, Time};
use kvrail::core::verbs_abi::{ChainStorage, Wc};
use kvrail_sim::null::{Cq, Cqe, NullLane, NullParts, NullRails, Qp, Wqe};

const ROW: u32 = 656;
const PAGE: u64 = 64 * ROW as u64;
const PAGES: usize = 32;
/// Of each page; no two of them are neighbours.
const OF_A_PAGE: usize = 4;
const ROWS: usize = PAGES * OF_A_PAGE;
const CHAIN: usize = 128;
const DEPTH: usize = 1024;
const REMOTE: u64 = 0x7000_0000;
const TABLE: u64 = 0x9000_0000;
/// Every so many wrs one is signaled, by the loop and by the engine.
const SIGNALED: u32 = 64;

type Null = NullRails<'static, CHAIN>;
type State = EngineStorage<1, 16, 1, DEPTH, 4, PAGES>;

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

/// The rows of each page.
fn wanted() -> Vec<[u32; OF_A_PAGE]> {
    (0..PAGES as u32).map(|page| std::array::from_fn(|i| (page * 7) % 13 + i as u32 * 16)).collect()
}

/// Rows through an engine.
struct Kvrail {
    engine: Engine<'static, Null>,
    region: RemoteRegion,
    slot: Option<Slot>,
    wanted: Vec<[u32; OF_A_PAGE]>,
    validated: bool,
    now: u64,
}

impl Kvrail {
    fn new(validated: bool) -> Self {
        let config = EngineConfig {
            signal_wrs: SIGNALED,
            run_chunks: 128,
            quantum_bytes: 4 << 20,
            ..EngineConfig::DEFAULT
        };
        let mut engine = Engine::start(leak(State::new()), null(), config).expect("an engine");
        let bytes = ROWS as u64 * u64::from(ROW);
        let memory = vec![0_u8; bytes as usize].leak();
        let slot = engine.register(memory, bytes).expect("a slot").next();
        let peer = engine.add_peer().expect("a place");
        let offer = RegionOffer {
            base: REMOTE,
            page_bytes: PAGE,
            stride: PAGE,
            slots: PAGES as u32,
            keys: [7; MAX_RAILS],
            table: Some(TableOffer { base: TABLE, keys: [8; MAX_RAILS] }),
        };
        let region = engine.add_region(peer, &offer).expect("a region");
        let spec = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: DEPTH as u32 };
        engine.attach(peer, spec, (), Time::ZERO).expect("a lane");
        Self { engine, region, slot, wanted: wanted(), validated, now: 0 }
    }

    #[inline(never)]
    fn run(&mut self) {
        let mut batch = self.engine.batch().expect("a free batch");
        let expected = EntryValue { ready: Ready::WHOLE, ..EntryValue::default() };
        let mut behind = 0;
        for (slot, rows) in (0..).zip(&self.wanted) {
            let rows = Rows::of(ROW, rows).expect("rows that rise");
            let page = match self.validated {
                true => self.region.page(Location { slot, expected }),
                false => self.region.unvalidated(slot),
            };
            let page = page.expect("within the region");
            match self.slot.take() {
                Some(to) => batch.read_rows(page, rows, to).map_err(|(error, _)| error),
                None => batch.read_rows_also(page, rows, behind),
            }
            .expect("room");
            behind += rows.bytes() as u32;
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
            assert_eq!(page.result.is_ok(), !self.validated);
            self.slot = Some(page.slot);
        }
    }
}

/// The same READs, posted by hand.
struct ByHand {
    rails: Null,
    lane: NullLane<'static>,
    wanted: Vec<[u32; OF_A_PAGE]>,
    /// Where the rows land, and behind them the entries.
    local: u64,
    wcs: [Wc; 32],
}

impl ByHand {
    fn new() -> Self {
        let mut rails = null();
        let lane = rails.open(LaneId::new(0, 1), RailIndex(0), ()).expect("a free lane");
        let memory = vec![0_u8; ROWS * ROW as usize + PAGES * ENTRY_BYTES as usize].leak();
        let local = memory.as_mut_ptr().expose_provenance() as u64;
        Self { rails, lane, wanted: wanted(), local, wcs: [Wc::default(); 32] }
    }

    #[inline(never)]
    fn run(&mut self) {
        // SAFETY: the null device moves no bytes.
        let mut post = unsafe { self.rails.begin(&mut self.lane) };
        let (mut n, mut local_addr) = (0, self.local);
        for (page, rows) in (0..).zip(&self.wanted) {
            for &row in rows {
                n += 1;
                post.read(Read {
                    wr_id: WrId::new(LaneId::new(0, 1), n),
                    remote_addr: REMOTE + page * PAGE + u64::from(row) * u64::from(ROW),
                    local_addr,
                    len: ROW,
                    rkey: 7,
                    lkey: 9,
                    signaled: n.is_multiple_of(SIGNALED),
                });
                local_addr += u64::from(ROW);
            }
        }
        assert_eq!(post.commit(), Commit::All);
        self.complete(ROWS as u32 / SIGNALED);
        // SAFETY: as above.
        let mut post = unsafe { self.rails.begin(&mut self.lane) };
        post.read(Read {
            wr_id: WrId::new(LaneId::new(0, 1), n + 1),
            remote_addr: TABLE,
            local_addr,
            len: PAGES as u32 * ENTRY_BYTES as u32,
            rkey: 8,
            lkey: 9,
            signaled: true,
        });
        assert_eq!(post.commit(), Commit::All);
        self.complete(1);
    }

    fn complete(&mut self, mut left: u32) {
        while left > 0 {
            // No more come than were signaled.
            left -= self.rails.poll(RailIndex(0), &mut self.wcs) as u32;
        }
    }
}

fn workload(name: &str) -> Box<dyn FnMut()> {
    match name {
        "loop" => {
            let mut by_hand = ByHand::new();
            Box::new(move || by_hand.run())
        }
        "rows" | "rows-unvalidated" => {
            let mut kvrail = Kvrail::new(name == "rows");
            Box::new(move || kvrail.run())
        }
        other => panic!("no workload {other}"),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let ["count", name, n] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let mut run = workload(name);
        (0..n.parse().expect("a number of runs")).for_each(|_| run());
        return ExitCode::SUCCESS;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("rows of 656 bytes");
    group.throughput(Throughput::Elements(ROWS as u64));
    for name in ["loop", "rows", "rows-unvalidated"] {
        let mut run = workload(name);
        group.bench_function(name, |bencher| bencher.iter(&mut run));
    }
    group.finish();
    criterion.final_summary();
    ExitCode::SUCCESS
}
