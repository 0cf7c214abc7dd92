//! The same READs, posted by the engine and by a loop written for the purpose, over the null device.

use kvrail::core::abi::{ChainStorage, Wc};
use kvrail::core::batch::Batch;
use kvrail::core::config::Config;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail::core::memory::Slot;
use kvrail::core::provider::{Commit, Post, Provider, Read};
use kvrail::core::remote::{Location, RegionOffer, RemoteRegion, TableOffer};
use kvrail::core::storage::Storage;
use kvrail::core::time::{Nanos, Time};
use kvrail::sim::null::{Cq, Cqe, NullLane, NullRails, Parts, Qp, Wqe};

/// READs per batch, as the issue of posting is usually put.
pub const BATCH: usize = 32;
/// Bytes per READ: small ones, of which one core must post one every 10 ns for eight rails.
pub const PAGE: u64 = 4096;
/// The longest chain.
pub const CHAIN: usize = 32;
/// Send queue entries of a lane.
const DEPTH: usize = 128;
/// Chunks of a run, where there are several lanes.
const RUN: usize = 8;

type Null = NullRails<'static, CHAIN>;
type State<const PEERS: usize, const LANES: usize> = Storage<Null, PEERS, PEERS, LANES, DEPTH, 16, BATCH>;

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

fn null(rails: usize, lanes: usize) -> Null {
    let parts = Parts {
        cqs: vec![Cq::NEW; rails].leak(),
        cqes: vec![Cqe::NEW; rails * (lanes / rails * DEPTH).next_power_of_two()].leak(),
        qps: vec![Qp::NEW; lanes].leak(),
        wqes: vec![Wqe::NEW; lanes * DEPTH].leak(),
    };
    NullRails::new(parts, leak(ChainStorage::new())).expect("parts that fit")
}

/// A storage is large: made on the heap, where it stays.
#[allow(unsafe_code, reason = "a value too large for the stack is made in place")]
fn state<const PEERS: usize, const LANES: usize>() -> &'static mut State<PEERS, LANES> {
    // The compiler builds the constant in place when it is written straight into the box.
    Box::leak(Box::new(const { State::<PEERS, LANES>::new() }))
}

/// What is posted: a hand-written loop's list of READs.
pub struct Loop {
    rails: Null,
    lanes: Vec<NullLane<'static>>,
    list: Vec<(u64, u64)>,
    next: usize,
    wcs: [Wc; 32],
    rail_count: usize,
}

impl Loop {
    /// Lanes spread over the rails.
    pub fn new(rails: usize, lanes: usize) -> Self {
        let mut null = null(rails, lanes);
        let lanes =
            (0..lanes).map(|i| null.connect(RailIndex((i % rails) as u8)).expect("a free lane")).collect();
        let list = (0..BATCH as u64).map(|i| (0x7000_0000 + i * PAGE, 0x1000_0000 + i * PAGE)).collect();
        Self { rails: null, lanes, list, next: 0, wcs: [Wc::default(); 32], rail_count: rails }
    }

    /// Posts `batches` batches (in runs of eight over the lanes in turn, or whole where there is one
    /// lane), then takes their completions.
    #[inline(never)]
    pub fn batches(&mut self, batches: usize) -> usize {
        let run = if self.lanes.len() == 1 { BATCH } else { RUN };
        let mut signaled = 0;
        for _ in 0..batches {
            for (part, reads) in self.list.chunks(run).enumerate() {
                let at = self.next;
                self.next = if at + 1 == self.lanes.len() { 0 } else { at + 1 };
                // SAFETY: the null device moves no bytes.
                let mut post = unsafe { self.rails.begin(&mut self.lanes[at]) };
                let id = LaneId::new(at as u16, 0);
                for (i, &(remote_addr, local_addr)) in reads.iter().enumerate() {
                    post.read(Read {
                        wr_id: WrId::new(id, (part * run + i) as u32),
                        remote_addr,
                        local_addr,
                        len: PAGE as u32,
                        rkey: 7,
                        lkey: 9,
                        signaled: i + 1 == reads.len(),
                    });
                }
                assert_eq!(post.commit(), Commit::All);
                signaled += 1;
            }
        }
        let mut seen = 0;
        for rail in 0..self.rail_count {
            loop {
                let n = self.rails.poll(RailIndex(rail as u8), &mut self.wcs);
                seen += self.wcs[..n].iter().filter(|wc| wc.status().is_success()).count();
                if n < self.wcs.len() {
                    break;
                }
            }
        }
        assert_eq!(seen, signaled);
        batches * BATCH
    }
}

/// The engine, with everything that an application does for a READ: filling the batch, submitting it,
/// polling, taking the results and the slots back.
pub struct Kvrail {
    engine: Engine<'static, Null>,
    regions: Vec<RemoteRegion>,
    slots: Vec<Slot>,
    now: u64,
    peer: usize,
    validated: bool,
}

impl Kvrail {
    /// One peer with all lanes; or `PEERS` of them, with `lanes` each.
    pub fn new<const PEERS: usize, const LANES: usize>(rails: usize, lanes: usize, validated: bool) -> Self {
        // One lane gets its chain whole; with several, runs of eight.
        let config = Config { signal_wrs: 32, ..Config::DEFAULT };
        let provider = null(rails, LANES);
        let mut engine = Engine::start(state::<PEERS, LANES>(), provider, config).expect("an engine");
        let memory = vec![0_u8; 16 * BATCH * PAGE as usize].leak();
        let slots = engine.register(memory, PAGE).expect("slots").collect();
        let mut regions = Vec::new();
        for _ in 0..PEERS {
            let peer = engine.add_peer().expect("a place");
            let table = TableOffer { base: 0x9000_0000, keys: [8; MAX_RAILS] };
            let offer = RegionOffer {
                base: 0x7000_0000,
                page_bytes: PAGE,
                stride: PAGE,
                slots: 1024,
                keys: [7; MAX_RAILS],
                table: Some(table),
            };
            regions.push(engine.add_region(peer, &offer).expect("a region"));
            for i in 0..lanes {
                let rail = RailIndex((i % rails) as u8);
                let lane = engine.provider_mut().connect(rail).expect("a free lane");
                let spec = LaneSpec { rail, remote_rail: rail.0, depth: DEPTH as u32 };
                engine.attach(peer, spec, lane, Time::ZERO).expect("a place");
            }
        }
        Self { engine, regions, slots, now: 0, peer: 0, validated }
    }

    /// The others stay connected and idle.
    pub fn on_one_peer(mut self) -> Self {
        self.regions.truncate(1);
        self
    }

    #[inline(never)]
    fn fill(&mut self) -> Batch<'static> {
        let mut batch = self.engine.batch().expect("a free batch");
        let region = self.regions[self.peer];
        self.peer = if self.peer + 1 == self.regions.len() { 0 } else { self.peer + 1 };
        for i in 0..BATCH as u32 {
            let page = if self.validated {
                region.page(Location { slot: i, expected: Default::default() })
            } else {
                region.unvalidated(i)
            };
            let slot = self.slots.pop().expect("a slot");
            batch.read(page.expect("within the region"), slot).map_err(|(error, _)| error).expect("room");
        }
        batch
    }

    /// Takes results and slots back.
    #[inline(never)]
    fn take(&mut self) -> usize {
        let mut pages = 0;
        while let Some(mut done) = self.engine.next_done() {
            for page in done.pages() {
                // The null device moves nothing: a validated page is a miss, and costs the same.
                assert_eq!(page.result.is_ok(), !self.validated);
                self.slots.push(page.slot);
                pages += 1;
            }
        }
        pages
    }

    /// Reads `batches` batches.
    #[inline(never)]
    pub fn batches(&mut self, batches: usize) -> usize {
        for _ in 0..batches {
            let batch = self.fill();
            self.now += 1;
            let now = Time(self.now);
            self.engine.submit(batch, now, now + Nanos::from_secs(1)).expect("accepted");
        }
        let mut pages = 0;
        while pages < batches * BATCH {
            self.now += 1;
            self.engine.poll(Time(self.now));
            pages += self.take();
        }
        pages
    }
}
