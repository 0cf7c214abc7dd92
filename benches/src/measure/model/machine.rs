//! The engine over simulated rails. Between two things that the rails do, the clock moves by what
//! the engine has cost its core.

use anyhow::Context;
use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{MAX_RAILS, RailIndex};
use kvrail::core::memory::Slot;
use kvrail::core::remote::{RegionOffer, RemoteRegion};
use kvrail::core::storage::EngineStorage;
use kvrail::core::time::{Nanos, Time};
use kvrail_sim::sim::{Action, RailSpec, Rate, Sim, SimConfig, SimLaneSpec, SimRails, SimStorage};

/// The most rails.
pub(crate) const RAILS: usize = 8;
/// Lanes of a rail.
const LANES_PER_RAIL: usize = 4;
const LANES: usize = RAILS * LANES_PER_RAIL;
/// Entries of a lane's send queue.
const DEPTH: usize = 128;
/// Entries of a rail's completion queue.
const CQES: usize = 1024;
/// Batches of an engine.
const BATCHES: usize = 32;
/// The most pages of a batch.
const PAGES: usize = 256;
/// READs of a lane that a port answers at a time.
const RD_ATOMIC: u32 = 16;
/// Bytes in flight, by which batches are counted.
const IN_FLIGHT: u64 = 48 << 20;
/// Where the peer's pages are.
const REMOTE: u64 = 0x1000_0000;
/// The key of the peer's memory.
const KEY: u32 = 5;

/// A machine that reads.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// GB/s of each rail.
    pub(crate) rails: Vec<f64>,
    /// GB/s of each rail of the peer; `None`: more than any reader takes.
    pub(crate) remote: Option<f64>,
    /// Nanoseconds of the reading core for each work request.
    pub(crate) wr_ns: f64,
    /// The same for each page beside its work requests.
    pub(crate) page_ns: f64,
    /// From a request's departure to the first byte of its response, in nanoseconds.
    pub(crate) rtt_ns: u64,
    pub(crate) chunk_bytes: u32,
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) page_bytes: u64,
    pub(crate) batch: usize,
    /// Batches in flight; `None`: as many as fill the rails.
    pub(crate) concurrency: Option<usize>,
    /// The rail that goes down, without a word, before the first batch.
    pub(crate) dead: Option<u8>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) gb_per_s: f64,
    /// The share of the time in which the core worked.
    pub(crate) busy: f64,
    /// The median time of a batch, in microseconds.
    pub(crate) batch_us: f64,
    /// GB/s of each rail.
    pub(crate) rails: Vec<f64>,
}

type Model = SimStorage<RAILS, 1, LANES, DEPTH, CQES>;
type State = EngineStorage<1, 1, LANES, DEPTH, BATCHES, PAGES>;

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// A run under way.
struct Run {
    engine: Engine<'static, SimRails<'static>>,
    sim: &'static Sim<'static>,
    region: RemoteRegion,
    slots: Vec<Slot>,
    machine: Machine,
    work: Work,
    concurrency: usize,
    next: u32,
    posted: u64,
    /// The core's time, in nanoseconds: what it has worked, and what the clock has not followed.
    worked: f64,
    owed: f64,
    pages: u64,
    times: Vec<u64>,
}

impl Machine {
    /// Reads until `batches` batches have come after a quarter of as many that are not counted.
    /// The memory of a run is not given back.
    ///
    /// # Errors
    ///
    /// The numbers do not fit the model.
    pub(crate) fn read(&self, work: Work, batches: usize) -> anyhow::Result<Outcome> {
        let mut run = Run::new(self, work)?;
        let warm = batches / 4 + run.concurrency;
        run.until(warm);
        let (start, before, worked) = (run.sim.now(), run.carried(), run.worked);
        run.pages = 0;
        run.times.clear();
        run.until(batches);
        let seconds = (run.sim.now().0 - start.0).max(1) as f64 / 1e9;
        let after = run.carried();
        let rails = after.iter().zip(&before).map(|(now, then)| (now - then) as f64 / 1e9 / seconds);
        run.times.sort_unstable();
        Ok(Outcome {
            gb_per_s: run.pages as f64 * work.page_bytes as f64 / 1e9 / seconds,
            busy: (run.worked - worked) / 1e9 / seconds,
            batch_us: run.times.get(run.times.len() / 2).map_or(0.0, |&ns| ns as f64 / 1e3),
            rails: rails.collect(),
        })
    }
}

#[expect(clippy::cast_sign_loss, reason = "rates and times are not negative")]
fn whole(value: f64) -> u64 {
    value as u64
}

impl Run {
    fn new(machine: &Machine, work: Work) -> anyhow::Result<Self> {
        let bytes = work.page_bytes * work.batch as u64;
        let fitting = IN_FLIGHT.div_ceil(bytes).clamp(2, BATCHES as u64) as usize;
        let concurrency = work.concurrency.unwrap_or(fitting).min(BATCHES);
        let rate = |gb: f64| Rate::bytes_per_sec(whole(gb * 1e9).max(1));
        let rtt = Nanos(machine.rtt_ns);
        let spec =
            |gb: &f64| RailSpec { rate: rate(*gb), rtt, cq_entries: CQES as u32, ..RailSpec::GBITS_400 };
        let specs: Vec<_> = machine.rails.iter().map(spec).collect();
        // No READ of a page moves bytes: the time alone matters.
        let config = SimConfig { copy_up_to: 0, ..SimConfig::new(1) };
        let sim: &'static Sim<'static> =
            leak(Sim::new(leak(const { Model::new() }), config, &specs).context("rails of a model")?);
        let key = sim.add_peer().context("a peer of a model")?;
        let slots = (work.batch * concurrency) as u32;
        let memory = || vec![0_u8; slots as usize * work.page_bytes as usize].leak();
        sim.publish(key, REMOTE, memory(), [KEY; MAX_RAILS]).context("memory of a model")?;
        let config = EngineConfig { chunk_bytes: machine.chunk_bytes, ..EngineConfig::DEFAULT };
        let mut engine = Engine::start(leak(const { State::new() }), sim.rails(), config)
            .context("an engine of a model")?;
        let own = engine.register(memory(), work.page_bytes).context("slots of a model")?.collect();
        let peer = engine.add_peer().context("a peer of a model")?;
        let offer = RegionOffer {
            base: REMOTE,
            page_bytes: work.page_bytes,
            stride: work.page_bytes,
            slots,
            keys: [KEY; MAX_RAILS],
            table: None,
        };
        let region = engine.add_region(peer, &offer).context("a region of a model")?;
        for number in 0..machine.rails.len() * LANES_PER_RAIL {
            let rail = RailIndex((number % machine.rails.len()) as u8);
            let spec = SimLaneSpec { sq_entries: DEPTH as u32, rd_atomic: RD_ATOMIC };
            let qp = sim.connect(rail, key, rail, spec).context("a lane of a model")?;
            let spec = LaneSpec { rail, remote_rail: rail.0, depth: DEPTH as u32 };
            if engine.attach(peer, spec, qp, sim.now()).is_err() {
                anyhow::bail!("a lane of a model does not fit its engine");
            }
        }
        for rail in 0..machine.rails.len() as u8 {
            if let Some(gb) = machine.remote {
                sim.apply(Action::RemoteRate(key, RailIndex(rail), rate(gb)));
            }
        }
        if let Some(rail) = work.dead {
            sim.apply(Action::RailDown { rail: RailIndex(rail), told: true });
        }
        Ok(Self {
            engine,
            sim,
            region,
            slots: own,
            machine: machine.clone(),
            work,
            concurrency,
            next: 0,
            posted: 0,
            worked: 0.0,
            owed: 0.0,
            pages: 0,
            times: Vec::new(),
        })
    }

    /// Keeps batches in flight until so many more have come, or nothing happens any more.
    fn until(&mut self, batches: usize) {
        let target = self.times.len() + batches;
        while self.times.len() < target {
            while self.engine.in_flight() < self.concurrency && self.slots.len() >= self.work.batch {
                if !self.submit() {
                    break;
                }
                self.charge(self.work.batch);
            }
            self.engine.poll(self.sim.now());
            self.charge(0);
            if !self.take() && !self.sim.step() {
                return;
            }
        }
    }

    /// Submits a batch. `false`: the engine takes none.
    fn submit(&mut self) -> bool {
        let Some(mut batch) = self.engine.batch() else { return false };
        batch.set_tag(self.sim.now().0);
        for _ in 0..self.work.batch {
            let Some(slot) = self.slots.pop() else { break };
            let Ok(page) = self.region.unvalidated(self.next) else { break };
            self.next = (self.next + 1) % self.region.slots();
            if let Err((_, slot)) = batch.read(page, slot) {
                self.slots.push(slot);
                break;
            }
        }
        self.engine.submit(batch, self.sim.now(), Time::NEVER).is_ok()
    }

    /// Moves the clock by what the engine has cost since the last time, and by `pages` new pages.
    fn charge(&mut self, pages: usize) {
        let rails = 0..self.machine.rails.len() as u8;
        let stats = rails.filter_map(|rail| self.engine.rail_stats(RailIndex(rail)));
        let posted: u64 = stats.map(|stats| stats.posted).sum();
        let spent = (posted - self.posted) as f64 * self.machine.wr_ns + pages as f64 * self.machine.page_ns;
        self.posted = posted;
        self.worked += spent;
        self.owed += spent;
        let now = whole(self.owed);
        self.owed -= now as f64;
        if now > 0 {
            self.sim.advance_to(self.sim.now() + Nanos(now));
        }
    }

    fn take(&mut self) -> bool {
        let before = self.times.len();
        while let Some(mut done) = self.engine.next_done() {
            self.times.push(self.sim.now().0 - done.tag());
            for page in done.pages() {
                self.pages += u64::from(page.result.is_ok());
                self.slots.push(page.slot);
            }
        }
        self.times.len() > before
    }

    /// Bytes that each rail has carried.
    fn carried(&self) -> Vec<u64> {
        (0..self.machine.rails.len() as u8).map(|rail| self.sim.rail_stats(RailIndex(rail)).bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::model::with_room;

    const KIB: u64 = 1 << 10;

    fn machine() -> Machine {
        Machine {
            rails: vec![49.0; RAILS],
            remote: None,
            wr_ns: 18.0,
            page_ns: 0.0,
            rtt_ns: 6000,
            chunk_bytes: 256 << 10,
        }
    }

    fn work(page_bytes: u64) -> Work {
        Work { page_bytes, batch: 32, concurrency: None, dead: None }
    }

    fn read(machine: Machine, work: Work, batches: usize) -> Outcome {
        with_room(|| machine.read(work, batches)).unwrap()
    }

    #[test]
    fn large_pages_are_bound_by_the_rails_and_small_ones_by_the_core() {
        let large = read(machine(), work(128 * KIB), 400);
        assert!((large.gb_per_s / 392.0 - 1.0).abs() < 0.03, "{large:?}");
        assert!(large.busy < 0.1, "{large:?}");
        let small = read(machine(), work(4 * KIB), 1000);
        // A page every 18 ns.
        let core = 4096.0 / 18.0;
        assert!((small.gb_per_s / core - 1.0).abs() < 0.03, "{small:?}, not {core}");
        assert!(small.busy > 0.97, "{small:?}");
    }

    #[test]
    fn a_dead_rail_costs_its_share_and_a_slow_one_no_more_than_it_lacks() {
        let dead = read(machine(), Work { dead: Some(3), ..work(128 * KIB) }, 400);
        assert!((dead.gb_per_s / (7.0 * 49.0) - 1.0).abs() < 0.05, "{dead:?}");
        assert_eq!(dead.rails[3], 0.0);
        let mut slow = machine();
        slow.rails[3] = 24.5;
        let slow = read(slow, work(128 * KIB), 400);
        assert!(slow.gb_per_s > 0.9 * 7.5 * 49.0, "{slow:?}");
    }

    #[test]
    fn the_same_run_gives_the_same_numbers() {
        let once = || read(machine(), work(16 * KIB), 200);
        let (a, b) = (once(), once());
        assert_eq!((a.gb_per_s, a.batch_us, a.rails), (b.gb_per_s, b.batch_us, b.rails));
    }
}
