//! A provider that repeats and invents completions and events; sequence numbers that wrap; more
//! batches than one word has bits.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "providers of its own, and storages larger than the common one")]

mod common;

use std::collections::VecDeque;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail_core::memory::{Access, RegionError};
use kvrail_core::provider::{
    Commit, DmaBuf, MemoryRange, Post, Provider, ProviderEvent, RailInfo, RailKeys, Read, RegisterError,
    WaitFor, Wake,
};
use kvrail_core::remote::RegionOffer;
use kvrail_core::storage::EngineStorage;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::{Wc, WcStatus};
use kvrail_sim::sim::{self, Action, Sim, SimLane, SimPost, SimQp, SimRails, SimWaker};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
const LATE: Time = Time(20_000_000_000);

/// The model's rails, which also repeat completions and events and invent others. They keep the
/// contract, since none of these gives memory back too early.
struct Liar<'m> {
    rails: SimRails<'m>,
    rng: Rng,
    said: Vec<Wc>,
    told: Vec<ProviderEvent>,
    lies: u64,
}

// SAFETY: the promises are the model's. The added completions name wrs that have completed, or
// none; the added events have been reported, or name no lane.
unsafe impl<'m> Provider for Liar<'m> {
    const CHAIN: usize = <SimRails<'m> as Provider>::CHAIN;
    type Unopened = SimQp;
    type Lane = SimLane;
    type OpenError = sim::SimLaneError;
    type Post<'a>
        = SimPost<'a, 'm>
    where
        Self: 'a;
    type Waker = SimWaker<'m>;

    fn rails(&self) -> usize {
        self.rails.rails()
    }
    fn rail(&self, rail: RailIndex) -> RailInfo {
        self.rails.rail(rail)
    }
    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        self.rails.register(range)
    }
    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        self.rails.deregister(range, keys);
    }
    fn open(&mut self, id: LaneId, rail: RailIndex, qp: SimQp) -> Result<SimLane, sim::SimLaneError> {
        self.rails.open(id, rail, qp)
    }
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut SimLane) -> SimPost<'a, 'm> {
        // SAFETY: the caller's promise.
        unsafe { self.rails.begin(lane) }
    }
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let honest = out.len() - 3;
        let mut n = self.rails.poll(rail, &mut out[..honest]);
        self.said.extend_from_slice(&out[..n]);
        for _ in 0..self.rng.below(4) {
            let Some(old) = self.said.get(self.rng.below(1 + self.said.len() as u64) as usize) else {
                continue;
            };
            let (lane, seq) = (old.wr_id().lane(), old.wr_id().seq());
            let status = WcStatus([0, 5, 10, 12, 99][self.rng.below(5) as usize]);
            out[n] = match self.rng.below(4) {
                0 => *old,
                1 => Wc::new(WrId(self.rng.next()), status, 7, 1),
                // Of wrs that have not been posted, and of lanes that do not exist.
                2 => Wc::new(WrId::new(lane, seq + (1 << 20)), status, 7, 1),
                _ => Wc::new(WrId::new(LaneId::new(u16::MAX, lane.generation()), seq), status, 7, 1),
            };
            n += 1;
            self.lies += 1;
        }
        n
    }
    fn fail(&mut self, lane: &mut SimLane) {
        self.rails.fail(lane);
    }
    fn drain(&mut self, lane: &mut SimLane, wr_id: WrId) -> Result<(), i32> {
        self.rails.drain(lane, wr_id)
    }
    fn close(&mut self, lane: SimLane) {
        self.rails.close(lane);
    }
    fn next_event(&mut self) -> Option<ProviderEvent> {
        if let Some(event) = self.rails.next_event() {
            self.told.push(event);
            return Some(event);
        }
        if !self.rng.chance(30) {
            return None;
        }
        self.lies += 1;
        let again = self.told.get(self.rng.below(1 + self.told.len() as u64) as usize);
        Some(match self.rng.below(4) {
            0 => ProviderEvent::LaneFailed(LaneId::new(self.rng.next() as u16 | 0x100, 3)),
            1 => ProviderEvent::LaneClosed(LaneId::new(self.rng.next() as u16 | 0x100, 3)),
            2 => ProviderEvent::RailDown(RailIndex(200)),
            _ => *again.unwrap_or(&ProviderEvent::RailUp(RailIndex(17))),
        })
    }
    fn wait(&mut self, wait: WaitFor) {
        self.rails.wait(wait);
    }
    fn waker(&self) -> SimWaker<'m> {
        self.rails.waker()
    }
}

#[test]
fn repeated_and_invented_completions_and_events_change_nothing() {
    let mut storage = Box::new(SmallSim::new());
    common::seeds::each("repeated_and_invented_completions_and_events_change_nothing", 0..100, |seed| {
        let mut bytes = memory(1);
        let sim = Sim::new(&mut storage, sim::SimConfig::new(seed), &rails(2)).unwrap();
        let owner = Owner::new(&sim, &mut bytes[0], 1);
        let dest = Destination::new(64, PAGE);
        let mut state = Box::new(EngineStorage::<4, 8, 64, 32, 16, 16>::new());
        let rails = sim.rails();
        let liar = Liar { rails, rng: Rng(seed), said: Vec::new(), told: Vec::new(), lies: 0 };
        // SAFETY: the storage is declared before the engine, and nothing is forgotten.
        let mut engine = unsafe { Engine::start_scoped(&mut *state, liar, CONFIG) }.unwrap();
        // SAFETY: `dest` is declared before the engine, and touched through its slots only.
        let slots = unsafe { engine.register_foreign(dest.range, PAGE as u64, Access::Host, None) }.unwrap();
        let mut slots: VecDeque<_> = slots.collect();
        let peer = engine.add_peer().unwrap();
        let region = engine.add_region(peer, &owner.offer()).unwrap();
        let mut lanes = Vec::new();
        let connect = |engine: &mut Engine<'_, Liar<'_>>, rail: RailIndex| {
            let spec = sim::SimLaneSpec { sq_entries: 16, rd_atomic: 4 };
            let lane = sim.connect(rail, owner.peer, rail, spec).unwrap();
            let key = lane.handle();
            let spec = LaneSpec { rail, remote_rail: rail.0, depth: 16 };
            engine.attach(peer, spec, lane, sim.now()).unwrap();
            key
        };
        for rail in [0, 0, 1, 1] {
            lanes.push(connect(&mut engine, RailIndex(rail)));
        }
        let (mut ok, mut rounds, mut next) = (0, 0, Time(100_000));
        while ok < 1_000 {
            rounds += 1;
            assert!(rounds < 20_000, "{ok} pages at {:?}", sim.now());
            while let Some(mut batch) = (slots.len() >= 16).then(|| engine.batch()).flatten() {
                for slot in slots.drain(..16) {
                    batch.read(region.page(owner.location(slot.index() % SLOTS)).unwrap(), slot).unwrap();
                }
                engine.submit(batch, sim.now(), LATE).unwrap();
            }
            if sim.now() >= next && lanes.len() > 1 {
                next = sim.now() + Nanos::from_micros(300);
                sim.apply(Action::FailLane(lanes.swap_remove(rounds % lanes.len())));
            }
            engine.wait(sim.now(), sim.now() + Nanos::from_millis(1));
            engine.poll(sim.now());
            while let Some(mut done) = engine.next_done() {
                for page in done.pages() {
                    page.result().unwrap();
                    let expected = owner.expected(owner.location(page.slot.index() % SLOTS));
                    assert!(all_equal(&page.slot, PAGE, expected));
                    ok += 1;
                    slots.push_back(page.slot);
                }
            }
            while let Some(wanted) = engine.next_wanted_lane(LATE) {
                lanes.push(connect(&mut engine, wanted.rail));
            }
        }
        assert!(engine.provider().lies > 50, "the provider invents enough");
        assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    });
}

/// One rail whose READs complete at once: the next poll gives the completions of all signaled ones.
#[derive(Default)]
struct Quick {
    posted: Vec<(WrId, bool)>,
    done: VecDeque<WrId>,
    wraps: u32,
    now: u64,
}

#[derive(Clone, Copy, Debug)]
struct NoWaker;

impl Wake for NoWaker {
    fn wake(&self) {}
}

struct QuickPost<'a>(&'a mut Quick);

impl Post for QuickPost<'_> {
    fn read(&mut self, read: Read) {
        self.0.wraps += u32::from(read.wr_id.seq() == WrId::SEQUENCES - 1);
        self.0.posted.push((read.wr_id, read.signaled));
    }

    fn commit(self) -> Commit {
        let Quick { posted, done, .. } = self.0;
        done.extend(posted.drain(..).filter(|(_, signaled)| *signaled).map(|(id, _)| id));
        Commit::All
    }
}

// SAFETY: nothing is ever written.
unsafe impl Provider for Quick {
    const CHAIN: usize = 64;
    type Unopened = ();
    type Lane = ();
    type OpenError = std::convert::Infallible;
    type Post<'a> = QuickPost<'a>;
    type Waker = NoWaker;

    fn rails(&self) -> usize {
        1
    }
    fn rail(&self, _: RailIndex) -> RailInfo {
        RailInfo { nominal_bytes_per_sec: 49_000_000_000, numa: None, cq_entries: 4096 }
    }
    fn register(&mut self, _: MemoryRange) -> Result<RailKeys, RegisterError> {
        Ok([0; MAX_RAILS])
    }
    fn deregister(&mut self, _: MemoryRange, _: &RailKeys) {}
    fn open(&mut self, _: LaneId, _: RailIndex, (): ()) -> Result<(), Self::OpenError> {
        Ok(())
    }
    unsafe fn begin<'a>(&'a mut self, (): &'a mut ()) -> QuickPost<'a> {
        self.posted.clear();
        QuickPost(self)
    }
    fn poll(&mut self, _: RailIndex, out: &mut [Wc]) -> usize {
        let n = out.len().min(self.done.len());
        for (out, id) in out.iter_mut().zip(self.done.drain(..n)) {
            *out = Wc::new(id, WcStatus::SUCCESS, 0, 1);
        }
        n
    }
    fn fail(&mut self, (): &mut ()) {}
    fn drain(&mut self, (): &mut (), _: WrId) -> Result<(), i32> {
        Ok(())
    }
    fn close(&mut self, (): ()) {}
    fn next_event(&mut self) -> Option<ProviderEvent> {
        None
    }
    fn wait(&mut self, wait: WaitFor) {
        self.now = wait.until.0;
    }
    fn waker(&self) -> NoWaker {
        NoWaker
    }
}

const OFFER: RegionOffer =
    RegionOffer { base: 0, page_bytes: 64, stride: 64, slots: 1, keys: [0; MAX_RAILS], table: None };

#[test]
fn a_lane_outlives_its_sequence_numbers() {
    let mut bytes = vec![0_u8; 64 * 512];
    let range = MemoryRange { addr: bytes.as_mut_ptr().expose_provenance() as u64, len: bytes.len() as u64 };
    let mut state = Box::new(EngineStorage::<1, 1, 1, 1024, 2, 512>::new());
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut engine = unsafe { Engine::start_scoped(&mut *state, Quick::default(), CONFIG) }.unwrap();
    // SAFETY: `bytes` outlives the engine, and nothing reads it.
    let mut slots = unsafe { engine.register_foreign(range, 64, Access::Host, None) }.unwrap();
    let peer = engine.add_peer().unwrap();
    let region = engine.add_region(peer, &OFFER).unwrap();
    let spec = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: 1000 };
    engine.attach(peer, spec, (), Time(1)).unwrap();
    let mut batch = engine.batch().unwrap();
    let page = region.unvalidated(0).unwrap();
    // An odd number, so that runs and the wrap fall together in many ways.
    let mut home: Vec<_> = slots.by_ref().take(509).collect();
    let rounds = WrId::SEQUENCES as usize / 509 + 20;
    for round in 0..rounds {
        for slot in home.drain(..) {
            batch.read(page, slot).unwrap();
        }
        let now = Time(round as u64 + 1);
        engine.submit(batch, now, Time::NEVER).unwrap();
        for _ in 0..3 {
            engine.poll(now);
        }
        let mut done = engine.next_done().expect("the batch is done at once");
        home.extend(done.pages().map(|page| {
            page.result().unwrap();
            page.slot
        }));
        assert_eq!(home.len(), 509);
        batch = done.into_batch();
    }
    assert_eq!((engine.provider().wraps, engine.outstanding()), (1, 0));
    assert_eq!(engine.rail_stats(RailIndex(0)).unwrap().stale, 0);
}

#[test]
fn a_dmabuf_that_rails_cannot_register_leaves_no_region_behind() {
    const EXPORT: DmaBuf = DmaBuf { fd: -1, offset: 0 };
    let range = MemoryRange { addr: 1 << 46, len: 64 };
    let mut state = Box::new(EngineStorage::<1, 1, 1, 2, 1, 1>::new());
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut engine = unsafe { Engine::start_scoped(&mut *state, Quick::default(), CONFIG) }.unwrap();
    for _ in 0..100 {
        // SAFETY: Quick writes nothing anywhere.
        let error = unsafe { engine.register_dmabuf(range, EXPORT, 64, None) }.unwrap_err();
        assert!(matches!(error, RegionError::Provider(RegisterError { errno: 95, .. })), "{error}");
    }
    let null = MemoryRange { addr: 0, len: 64 };
    // SAFETY: as above.
    let error = unsafe { engine.register_dmabuf(null, EXPORT, 64, None) }.unwrap_err();
    assert!(matches!(error, RegionError::TooSmall { .. }), "{error}");
    // SAFETY: as above.
    let mut slots = unsafe { engine.register_foreign(range, 64, Access::Device, None) }.unwrap();
    let mut slot = slots.next().unwrap();
    assert_eq!((slot.address(), slot.bytes()), (1 << 46, None));
    assert_eq!(slot.bytes_mut(), None);
}

#[test]
fn each_of_many_deadlines_is_kept_to_the_nanosecond() {
    const BATCHES: usize = 200;
    common::seeds::each("each_of_many_deadlines_is_kept_to_the_nanosecond", 1..5, |seed| {
        let mut bytes = vec![0_u8; 64 * BATCHES];
        let range =
            MemoryRange { addr: bytes.as_mut_ptr().expose_provenance() as u64, len: bytes.len() as u64 };
        let mut state = Box::new(EngineStorage::<1, 1, 1, 2, BATCHES, 1>::new());
        // SAFETY: the storage is declared before the engine, and nothing is forgotten.
        let mut engine = unsafe { Engine::start_scoped(&mut *state, Quick::default(), CONFIG) }.unwrap();
        // SAFETY: `bytes` outlives the engine, and nothing reads it.
        let mut slots = unsafe { engine.register_foreign(range, 64, Access::Host, None) }.unwrap();
        let peer = engine.add_peer().unwrap();
        let page = engine.add_region(peer, &OFFER).unwrap().unvalidated(0).unwrap();
        // There is no lane, so only deadlines can end the batches. One in eight has none.
        let mut rng = Rng(seed);
        let mut deadlines = vec![Time::NEVER; BATCHES];
        for (tag, deadline) in deadlines.iter_mut().enumerate() {
            if tag % 8 != 0 {
                *deadline = Time(10 + rng.below(500));
            }
            let mut batch = engine.batch().unwrap();
            batch.set_tag(tag as u64);
            batch.read(page, slots.next().unwrap()).unwrap();
            engine.submit(batch, Time(1), *deadline).unwrap();
        }
        let (mut now, mut late, mut sleeps) = (Time(1), 0, 0);
        while now < Time(1_000) {
            engine.wait(now, Time(1_000));
            now = Time(engine.provider().now);
            sleeps += 1;
            engine.poll(now);
            while let Some(mut done) = engine.next_done() {
                assert_eq!(now, deadlines[done.tag() as usize]);
                assert!(done.pages().all(|page| page.result.is_err()));
                late += 1;
            }
        }
        assert_eq!((late, engine.in_flight()), (BATCHES - BATCHES / 8, BATCHES / 8));
        let mut moments: Vec<_> = deadlines.iter().filter(|at| **at != Time::NEVER).collect();
        moments.sort_unstable();
        moments.dedup();
        assert!(sleeps <= moments.len() + 1, "{sleeps} sleeps for {} moments", moments.len());
    });
}
