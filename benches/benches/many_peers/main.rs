//! The cost of a call while many peers wait or are idle. It depends on the work that can be served,
//! and not on the number of connected peers.
//!
//! One rail is at its cap and stays there, since nothing completes on it, and any number of peers
//! wait for it. Another peer reads over the other rail meanwhile. `cargo bench -p kvrail-bench
//! --bench many_peers` prints the time of each part with few and with many peers. `-- count PART
//! PEERS ROUNDS` runs a part a number of times, for callgrind to count
//! (`benches/count-instructions`).
//!
//! `submit` and `poll` are a batch of the peer that reads. `remove` is the removal of a peer with
//! lanes that has nothing in flight. `active` is a batch of one page of each of 16 peers with
//! lanes, from `submit` to the last `poll`, while any number of other peers are connected and have
//! no lane.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark, not a library")]
#![allow(unsafe_code, reason = "a provider that hides the completions of another one")]

use std::time::{Duration, Instant};

use kvrail::core::batch::Batch;
use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{LaneId, MAX_RAILS, PeerId, RailIndex, WrId};
use kvrail::core::memory::Slot;
use kvrail::core::provider::{
    MemoryRange, Provider, ProviderEvent, RailInfo, RailKeys, RegisterError, WaitFor,
};
use kvrail::core::remote::{RegionOffer, RemoteRegion};
use kvrail::core::storage::EngineStorage;
use kvrail::core::time::Time;
use kvrail::core::verbs_abi::{ChainStorage, Wc};
use kvrail_sim::null::{
    Cq, Cqe, NullLane, NullLaneError, NullParts, NullPost, NullRails, NullWaker, Qp, Wqe,
};

const CHAIN: usize = 32;
const PAGES: usize = 16;
const PAGE: u64 = 4096;
const DEPTH: usize = 16;
const PEERS: usize = 10_000;
/// Peers that are read from in `active`.
const ACTIVE: usize = 16;
/// The cap of a rail: the wrs that may be outstanding on it.
const CAP: u32 = 64;

type Null = NullRails<'static, CHAIN>;
type State = EngineStorage<{ PEERS + 8 }, { PEERS + 8 }, { PEERS + 16 }, DEPTH, { PEERS + 64 }, PAGES>;

/// Null rails, the first of which hides its completions.
struct Stuck(Null);

// SAFETY: the null rails keep the promises, and hiding completions breaks none of them.
unsafe impl Provider for Stuck {
    const CHAIN: usize = CHAIN;
    type Unopened = ();
    type Lane = NullLane<'static>;
    type OpenError = NullLaneError;
    type Post<'a> = NullPost<'a, 'static, CHAIN>;
    type Waker = NullWaker;

    fn rails(&self) -> usize {
        self.0.rails()
    }
    fn rail(&self, rail: RailIndex) -> RailInfo {
        RailInfo { cq_entries: u32::MAX, ..self.0.rail(rail) }
    }
    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        self.0.register(range)
    }
    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        self.0.deregister(range, keys);
    }
    fn open(&mut self, id: LaneId, rail: RailIndex, (): ()) -> Result<NullLane<'static>, NullLaneError> {
        self.0.open(id, rail, ())
    }
    #[inline]
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut NullLane<'static>) -> NullPost<'a, 'static, CHAIN> {
        // SAFETY: the caller's promise.
        unsafe { self.0.begin(lane) }
    }
    #[inline]
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        if rail.0 == 0 { 0 } else { self.0.poll(rail, out) }
    }
    fn fail(&mut self, lane: &mut NullLane<'static>) {
        self.0.fail(lane);
    }
    fn drain(&mut self, lane: &mut NullLane<'static>, wr_id: WrId) -> Result<(), i32> {
        self.0.drain(lane, wr_id)
    }
    fn close(&mut self, lane: NullLane<'static>) {
        self.0.close(lane);
    }
    #[inline]
    fn next_event(&mut self) -> Option<ProviderEvent> {
        self.0.next_event()
    }
    fn wait(&mut self, wait: WaitFor) {
        self.0.wait(wait);
    }
    fn waker(&self) -> NullWaker {
        self.0.waker()
    }
}

/// Leaks `count` copies of `item`.
fn room<T: Clone>(item: &T, count: usize) -> &'static mut [T] {
    vec![item.clone(); count].leak()
}

/// An engine with peers that wait for the first rail, and one that reads over the second.
struct Waiting {
    engine: Engine<'static, Stuck>,
    /// What the peers that are read from publish: a batch has pages of each in turn.
    regions: Vec<RemoteRegion>,
    slots: Vec<Slot>,
    ready: Option<Batch<'static>>,
    idle: Vec<PeerId>,
    now: u64,
}

impl Waiting {
    fn new(waiting: usize, idle: usize) -> Self {
        let lanes = (PEERS + 16).next_power_of_two();
        let parts = NullParts {
            cqs: vec![Cq::NEW; 2].leak(),
            cqes: room(&Cqe::NEW, 2 * 4096),
            qps: vec![Qp::NEW; lanes].leak(),
            wqes: room(&Wqe::NEW, lanes * DEPTH),
        };
        let rails = NullRails::new(parts, Box::leak(Box::new(ChainStorage::new()))).expect("parts that fit");
        let state = State::in_place(Box::leak(Box::<State>::new_uninit()));
        let config = EngineConfig { rail_wrs: CAP, ..EngineConfig::DEFAULT };
        let mut engine = Engine::start(state, Stuck(rails), config).expect("an engine");
        let memory = vec![0_u8; (PEERS + 64) * PAGE as usize].leak();
        let slots = engine.register(memory, PAGE).expect("slots").collect();
        let (reader, _) = connect(&mut engine, 1);
        let mut all = Self { engine, regions: vec![reader], slots, ready: None, idle: Vec::new(), now: 1 };
        for _ in 0..waiting {
            let (region, _) = connect(&mut all.engine, 0);
            let mut batch = all.engine.batch().expect("a batch");
            let slot = all.slots.pop().expect("a slot");
            batch
                .read(region.unvalidated(0).expect("a page"), slot)
                .map_err(|(error, _)| error)
                .expect("room");
            all.now += 1;
            all.engine.submit(batch, Time(all.now), Time::NEVER).expect("accepted");
        }
        for _ in 0..idle {
            let (_, peer) = connect(&mut all.engine, 0);
            all.idle.push(peer);
        }
        all.engine.poll(Time(all.now));
        assert_eq!(all.engine.in_flight(), waiting, "nothing completes on the first rail");
        assert_eq!(all.engine.outstanding(), waiting.min(CAP as usize));
        all
    }

    /// 16 peers that are read from, and `bare` peers that have neither work nor lanes.
    fn active(bare: usize) -> Self {
        let mut all = Self::new(0, 0);
        all.regions = (0..ACTIVE).map(|_| connect(&mut all.engine, 1).0).collect();
        for _ in 0..bare {
            let peer = all.engine.add_peer().expect("a place");
            all.engine.add_region(peer, &offer()).expect("a region");
        }
        all
    }

    fn fill(&mut self) {
        let mut batch = self.engine.batch().expect("a batch");
        for at in 0..PAGES {
            let slot = self.slots.pop().expect("a slot");
            let page = self.regions[at % self.regions.len()].unvalidated(0).expect("a page");
            batch.read(page, slot).map_err(|(error, _)| error).expect("room");
        }
        self.ready = Some(batch);
    }

    #[inline(never)]
    fn submit(&mut self) {
        let batch = self.ready.take().expect("it was filled");
        self.now += 1;
        self.engine.submit(batch, Time(self.now), Time::NEVER).expect("accepted");
    }

    #[inline(never)]
    fn poll(&mut self) {
        self.now += 1;
        self.engine.poll(Time(self.now));
    }

    #[inline(never)]
    fn remove(&mut self) {
        let peer = self.idle.pop().expect("an idle peer");
        self.engine.remove_peer(peer, Time(self.now)).expect("connected");
    }

    /// A batch from end to end.
    fn round(&mut self) -> [Duration; 2] {
        self.fill();
        let start = Instant::now();
        self.submit();
        let submitted = Instant::now();
        self.poll();
        let polled = submitted.elapsed();
        let mut done = self.engine.next_done().expect("what was posted has completed");
        self.slots.extend(done.pages().map(|page| page.slot));
        [submitted - start, polled]
    }
}

/// What each peer offers.
const fn offer() -> RegionOffer {
    RegionOffer {
        base: 0x5000_0000,
        page_bytes: PAGE,
        stride: PAGE,
        slots: 16,
        keys: [7; MAX_RAILS],
        table: None,
    }
}

/// A peer with one region and one lane over `rail`.
fn connect(engine: &mut Engine<'static, Stuck>, rail: u8) -> (RemoteRegion, PeerId) {
    let peer = engine.add_peer().expect("a place");
    let region = engine.add_region(peer, &offer()).expect("a region");
    let lanes = if rail == 1 { 4 } else { 1 };
    for _ in 0..lanes {
        let spec = LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth: DEPTH as u32 };
        engine.attach(peer, spec, (), Time(1)).expect("a place");
    }
    (region, peer)
}

fn table() {
    println!("{:<8} {:>12} {:>12} {:>12}", "peers", "submit, ns", "poll, ns", "remove, ns");
    for peers in [10, 9_900] {
        let mut all = Waiting::new(peers, 50);
        let mut sums = [Duration::ZERO; 2];
        for _ in 0..10_000 {
            let took = all.round();
            sums = [sums[0] + took[0], sums[1] + took[1]];
        }
        let start = Instant::now();
        (0..50).for_each(|_| all.remove());
        let [submit, poll] = sums.map(|sum| sum.as_nanos() / 10_000);
        println!("{peers:<8} {submit:>12} {poll:>12} {:>12}", start.elapsed().as_nanos() / 50);
    }
    // In turns, so that a change of the machine's speed concerns both.
    let mut alone = Waiting::active(0);
    let mut among = Waiting::active(PEERS - ACTIVE);
    let mut sums = [Duration::ZERO; 2];
    for _ in 0..20_000 {
        for (all, sum) in [&mut alone, &mut among].into_iter().zip(&mut sums) {
            *sum += all.round().iter().sum::<Duration>();
        }
    }
    let [alone, among] = sums.map(|sum| sum.as_secs_f64() * 1e9 / (20_000 * PAGES) as f64);
    println!("16 active peers: {alone:.1} ns per wr alone, {among:.1} among {PEERS}: {:.3}", among / alone);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |text: &str| text.parse::<usize>().expect("a number");
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["count", "remove", peers, rounds] => {
            let mut all = Waiting::new(number(peers), 50);
            (0..number(rounds)).for_each(|_| all.remove());
        }
        ["count", "active", peers, rounds] => {
            let mut all = Waiting::active(number(peers));
            for _ in 0..number(rounds) {
                all.round();
            }
        }
        ["count", "submit" | "poll", peers, rounds] => {
            let mut all = Waiting::new(number(peers), 0);
            for _ in 0..number(rounds) {
                all.round();
            }
        }
        _ => table(),
    }
}
