//! The engine, and the truth about each batch, page and slot that it has.

use kvrail_core::batch::{Batch, Class, Ticket};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::error::PageError;
use kvrail_core::id::{PeerId, RailIndex};
use kvrail_core::memory::{Access, Slot};
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, RemoteRegion};
use kvrail_core::storage::EngineStorage;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{
    Delay, Faults, LaneHandle, Odds, RailSpec, Sim, SimConfig, SimLaneSpec, SimRails, SimStorage,
};

use super::owner::{self, Owner, PAGE, SLOTS};
use crate::bytes::Bytes;

pub(super) const RAILS: usize = 2;
pub(super) const OWNERS: usize = 2;
const LANES: usize = 12;
const DEPTH: usize = 8;
const CQ: usize = 96;
const BATCHES: usize = 4;
const PAGES: usize = 6;
/// Destination slots.
const DESTINATIONS: usize = 10;
/// The shortest retry time: longer than a READ takes over rails that move at least [`SLOW`] bytes
/// a second, by their round trips of up to 32 us, their jitter of up to 16 us, and the 128 KiB that
/// may be outstanding.
const RETRY: Nanos = Nanos(128_000);
/// A rail below this moves 128 KiB in more than 61 us.
pub(super) const SLOW: u64 = 1 << 31;
/// What destinations hold before a READ: the byte of no page's beginning.
const STALE: u8 = 0xA5;
/// Bytes of a row.
pub(super) const ROW: usize = PAGE / 48;

type Model = SimStorage<RAILS, OWNERS, LANES, DEPTH, CQ>;
type State = EngineStorage<OWNERS, OWNERS, LANES, DEPTH, BATCHES, PAGES>;

/// The memory of one run after another.
pub struct Memory {
    model: Box<Model>,
    state: Box<State>,
    published: [Vec<u8>; OWNERS],
    destinations: Box<[u8]>,
}

impl Memory {
    /// Memory that nothing has used.
    #[must_use]
    pub fn new() -> Self {
        Self {
            model: Box::new(Model::new()),
            state: Box::new(State::new()),
            published: std::array::from_fn(|_| vec![0; owner::BYTES]),
            destinations: vec![STALE; DESTINATIONS * PAGE].into(),
        }
    }

    /// Runs an engine over this memory through the steps of an input.
    pub fn run(&mut self, input: &mut Bytes<'_>) {
        // Everything else is begun anew by its user.
        *self.state = State::new();
        let (model, config, rails) = (sim_config(input), engine_config(input), rail_specs(input));
        let sim = Sim::new(&mut self.model, model, &rails).expect("the rails fit the storage");
        let mut number = 0;
        let owners = self.published.each_mut().map(|bytes| {
            number += 1;
            Owner::new(&sim, number, bytes)
        });
        let range = MemoryRange {
            addr: self.destinations.as_mut_ptr().expose_provenance() as u64,
            len: self.destinations.len() as u64,
        };
        // SAFETY: the storage was made before the engine, which is not forgotten.
        let mut engine = unsafe { Engine::start_scoped(&mut *self.state, sim.rails(), config) }
            .expect("a configuration within its bounds");
        // SAFETY: the memory outlives the engine, and only the slots give access to it.
        let slots = unsafe { engine.register_foreign(range, PAGE as u64, Access::Host, None) };
        let free = slots.expect("room for the region").collect();
        if input.byte() & 1 == 1 {
            engine.serve_lanes_on_demand();
        }
        let mut world = World {
            sim: &sim,
            engine,
            owners,
            peers: [None; OWNERS],
            free,
            flying: Vec::new(),
            lanes: Vec::new(),
            depth: 2 + u32::from(input.byte()) % (DEPTH as u32 - 1),
            // An incomplete READ that is its lane's last one fails.
            faulty: [model.faults.wr, model.faults.incomplete] != [Odds::NEVER; 2],
            slow: false,
            went_down: false,
            incomplete: model.faults.incomplete != Odds::NEVER,
            told_since_poll: 0,
            told_later: 0,
        };
        for slot in &world.free {
            sim.protect(range_of(slot)).expect("room to remember it");
        }
        (0..OWNERS).for_each(|which| world.add_peer(which, input.byte()));
        while !input.is_empty() {
            world.step(input);
        }
        world.end();
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// A batch in flight, and what must become of it.
pub(super) struct Flying {
    pub(super) ticket: Ticket,
    pub(super) deadline: Time,
    pub(super) overdue: bool,
    pub(super) parts: Vec<Part>,
    pub(super) withdrawn: bool,
    pub(super) reports: bool,
    /// Slots that were taken before the batch was done are not among these.
    pub(super) slots: Vec<usize>,
}

/// A page of a batch.
pub(super) struct Part {
    pub(super) owner: usize,
    /// The life of its peer when it was submitted.
    pub(super) peer: PeerId,
    pub(super) location: Location,
    pub(super) validated: bool,
    /// Which bytes of the page are read, and to where in the slot: to the same place.
    pub(super) from: usize,
    pub(super) to: usize,
    /// Of a page in a set of rows: which rows are read, as bits, and from which byte of the slot on
    /// they land.
    pub(super) rows: Option<(u64, usize)>,
    /// Whether it shares the slot of the page before.
    pub(super) shares: bool,
    /// Whether it is joined to the page before.
    pub(super) joined: bool,
    pub(super) withdrawn: bool,
    pub(super) told: Option<Result<(), PageError>>,
}

/// An engine, and the truth.
pub struct World<'s, 'm> {
    pub(super) sim: &'m Sim<'m>,
    pub(super) engine: Engine<'s, SimRails<'m>>,
    pub(super) owners: [Owner; OWNERS],
    pub(super) peers: [Option<(PeerId, RemoteRegion)>; OWNERS],
    pub(super) free: Vec<Slot>,
    /// By the tag of the batch.
    pub(super) flying: Vec<Option<Flying>>,
    pub(super) lanes: Vec<LaneHandle>,
    pub(super) depth: u32,
    /// Whether something has happened by which a page may fail.
    pub(super) faulty: bool,
    /// Whether a rail has been so slow that READs may take longer than the retry time, and whether
    /// a path went down. A page whose READ is lost with its path when it has been under way for
    /// longer than that may count as faulty (docs/testing.md).
    pub(super) slow: bool,
    pub(super) went_down: bool,
    /// Whether READs may succeed without all of their bytes.
    pub(super) incomplete: bool,
    /// Changes of rails that were reported since the last poll, and that are planned or were.
    pub(super) told_since_poll: u8,
    pub(super) told_later: u8,
}

pub(super) fn range_of(slot: &Slot) -> MemoryRange {
    MemoryRange { addr: slot.address(), len: slot.len() as u64 }
}

impl<'s, 'm> World<'s, 'm> {
    /// Adds the peer of an owner, with as many lanes as `lanes` says and as can be made.
    pub(super) fn add_peer(&mut self, which: usize, lanes: u8) {
        if self.peers[which].is_some() {
            return;
        }
        let Ok(peer) = self.engine.add_peer() else { return };
        let Ok(region) = self.engine.add_region(peer, &self.owners[which].offer()) else {
            // The earlier life of the peer has not ended.
            self.engine.remove_peer(peer, self.sim.now()).expect("the peer was just added");
            return;
        };
        self.peers[which] = Some((peer, region));
        for lane in 0..lanes % 5 {
            let class = if lanes & 0x80 == 0 || lane > 0 { Class::Urgent } else { Class::Background };
            self.attach(which, lane % RAILS as u8, class);
        }
    }

    pub(super) fn remove_peer(&mut self, which: usize) {
        if let Some((peer, _)) = self.peers[which].take() {
            self.engine.remove_peer(peer, self.sim.now()).expect("the peer was added");
        }
    }

    /// Makes a lane to a peer, if one can be made.
    pub(super) fn attach(&mut self, which: usize, rail: u8, class: Class) -> bool {
        let Some((peer, _)) = self.peers[which] else { return false };
        let spec = SimLaneSpec { sq_entries: self.depth, rd_atomic: 3 };
        let rail = RailIndex(rail);
        let Ok(qp) = self.sim.connect(rail, self.owners[which].peer, rail, spec) else { return false };
        let (lane, qp) = (qp.handle(), qp.for_class(class));
        let spec = LaneSpec { rail, remote_rail: rail.0, depth: self.depth };
        if self.engine.attach(peer, spec, qp, self.sim.now()).is_err() {
            return false;
        }
        self.lanes.push(lane);
        true
    }

    /// Fills a batch and submits it.
    pub(super) fn submit(&mut self, input: &mut Bytes<'_>) {
        let (shape, late) = (input.byte(), input.short());
        let Some(mut batch) = self.engine.batch() else { return };
        let (mut parts, mut slots) = (Vec::new(), Vec::new());
        for _ in 0..1 + shape % PAGES as u8 {
            self.fill(&mut batch, &mut parts, &mut slots, input.byte());
        }
        batch.set_tag(self.flying.len() as u64);
        batch.set_class(if shape & 0x40 == 0 { Class::Urgent } else { Class::Background });
        let reports = shape & 0x80 != 0;
        if reports {
            batch.report_pages();
        }
        let now = self.sim.now();
        // Up to 16 ms.
        let deadline = if late == u16::MAX { Time::NEVER } else { now + Nanos(u64::from(late) * 250) };
        match self.engine.submit(batch, now, deadline) {
            Ok(ticket) => {
                assert!(!parts.is_empty(), "an empty batch was taken");
                let (overdue, withdrawn) = (false, false);
                self.flying.push(Some(Flying {
                    ticket,
                    deadline,
                    overdue,
                    parts,
                    withdrawn,
                    reports,
                    slots,
                }));
            }
            Err(mut rejected) => {
                assert_eq!(rejected.batch.len(), parts.len(), "a refused batch is untouched");
                let back: Vec<Slot> = rejected.batch.clear().collect();
                assert_eq!(back.iter().map(Slot::index).collect::<Vec<_>>(), slots);
                back.into_iter().for_each(|slot| self.give_back(slot));
            }
        }
    }

    fn fill(&mut self, batch: &mut Batch<'s>, parts: &mut Vec<Part>, slots: &mut Vec<usize>, what: u8) {
        let (owner, slot) = (usize::from(what >> 7), usize::from(what & 0xf) % SLOTS);
        let Some((peer, region)) = self.peers[owner] else { return };
        let (location, kind) = (self.owners[owner].location(slot), what >> 4 & 7);
        if kind == 3 {
            return self.fill_set(batch, parts, slots, (owner, slot, usize::from(what & 0xf)));
        }
        let (mut from, mut to) = (0, PAGE);
        // Only behind a page that leaves room: where pages overlap, either may have arrived last.
        let shares = kind == 6 && parts.last().is_some_and(|part| part.to == 2500);
        let (validated, joined) = (kind != 4, kind == 7 && !parts.is_empty());
        if kind == 5 || kind == 6 {
            (from, to) = if kind == 5 { (0, 2500) } else { (2500, PAGE) };
        }
        let page = if validated { region.page(location) } else { region.unvalidated(slot as u32) };
        let page = page.expect("the pool has the slot");
        let page = page.part(from as u32, (to - from) as u32).expect("a part of the page");
        let added = if shares {
            batch.read_also(page, from as u32).is_ok()
        } else {
            let Some(mut destination) = self.free.pop() else { return };
            assert!(self.sim.unprotect(range_of(&destination)));
            destination.bytes_mut().expect("host memory").fill(STALE);
            slots.push(destination.index());
            // The part from byte `from` on lands at the slot's beginning.
            let added = if joined { batch.join(page, destination) } else { batch.read(page, destination) };
            match added {
                Ok(()) => true,
                Err((_, destination)) => {
                    slots.pop();
                    self.give_back(destination);
                    false
                }
            }
        };
        if added {
            let (rows, withdrawn, told) = (None, false, None);
            let part =
                Part { owner, peer, location, validated, from, to, rows, shares, joined, withdrawn, told };
            parts.push(part);
        }
    }

    /// Adds rows of a few pages of an owner from `slot` on, which land in one slot. `what` chooses
    /// the pages and the rows.
    fn fill_set(
        &mut self,
        batch: &mut Batch<'s>,
        parts: &mut Vec<Part>,
        slots: &mut Vec<usize>,
        (owner, slot, what): (usize, usize, usize),
    ) {
        // Far apart, neighbours of both ends, and none.
        const ROWS: [u64; 4] = [0b1001_0001, 0b1100 << 20, 1 << 47 | 0b11, 0];
        let (Some((peer, region)), Some(mut destination)) = (self.peers[owner], self.free.pop()) else {
            return;
        };
        assert!(self.sim.unprotect(range_of(&destination)));
        destination.bytes_mut().expect("host memory").fill(STALE);
        let (n, step) = (1 + what / 2 % 4, 1 + what % 2);
        let pages = (0..n).map(|i| self.owners[owner].location((slot + i * step) % SLOTS));
        let pages: Vec<Location> = pages.collect();
        let rows: Vec<u64> = (0..n).map(|i| ROWS[(what + i) % ROWS.len()]).collect();
        let index = destination.index();
        match batch.read_rows_of(&region, &pages, ROW as u32, &rows, destination) {
            Ok(()) => slots.push(index),
            Err(mut rejected) => {
                let destination = rejected.slots.next().expect("the slot comes back");
                return self.give_back(destination);
            }
        }
        let (first, mut at) = (parts.len(), 0);
        for (location, rows) in pages.into_iter().zip(rows).filter(|(_, rows)| *rows != 0) {
            parts.push(Part {
                owner,
                peer,
                location,
                validated: true,
                from: 0,
                to: PAGE,
                rows: Some((rows, at)),
                shares: parts.len() > first,
                joined: false,
                withdrawn: false,
                told: None,
            });
            at += rows.count_ones() as usize * ROW;
        }
    }

    /// Nothing may write into a slot that was given back.
    pub(super) fn give_back(&mut self, slot: Slot) {
        self.sim.protect(range_of(&slot)).expect("room to remember it");
        self.free.push(slot);
    }

    /// All of it ends, and is accounted for.
    fn end(&mut self) {
        self.poll();
        let end = self.sim.now() + Nanos::from_secs(20);
        // What has no deadline ends with its peer.
        for turn in 0.. {
            if self.engine.in_flight() == 0 {
                break;
            }
            assert!(turn < 20_000 && self.sim.now() < end, "{:?} never ends", self.engine);
            if turn == 200 {
                (0..OWNERS).for_each(|which| self.remove_peer(which));
            }
            // Without a lane, a deadline and a retry nothing would end the sleep.
            self.engine.wait(self.sim.now(), self.sim.now() + Nanos::from_millis(1));
            self.poll();
            // An engine does not sleep over news.
            self.take_arrivals(0x55);
            self.mend(0);
        }
        assert!(self.flying.iter().all(Option::is_none), "a batch was lost");
        assert_eq!((self.free.len(), self.engine.batches_free()), (DESTINATIONS, BATCHES));
        self.engine.stop(self.sim.now());
        for turn in 0.. {
            if self.engine.lanes_dying() == 0 {
                break;
            }
            assert!(turn < 20_000 && self.sim.now() < end, "{:?} never ends", self.engine);
            self.engine.wait(self.sim.now(), end);
            self.poll();
        }
        assert_eq!(self.engine.outstanding(), 0);
        let violations = self.sim.violations();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

/// A time of up to 16 ms, most values being short.
fn time(byte: u8) -> Nanos {
    Nanos(1_000 << (byte % 15))
}

fn odds(byte: u8) -> Odds {
    // Most inputs say by themselves what fails.
    if byte < 0xc0 { Odds::NEVER } else { Odds::per_million(u32::from(byte) * 700) }
}

fn sim_config(input: &mut Bytes<'_>) -> SimConfig {
    let flags = input.byte();
    SimConfig {
        sges: if flags & 16 == 0 { 4 } else { 5 },
        read_overhead: [0, 512, 64, 2048][usize::from(flags >> 6)],
        pieces: 1 + flags % 4,
        late_bytes: flags & 4 != 0,
        purge: flags & 8 != 0,
        retry: time(input.byte()).max(RETRY),
        fail: Delay::between(Nanos(0), time(input.byte())),
        close: Delay::between(Nanos(0), time(input.byte())),
        flush: Delay::between(Nanos(0), Nanos(u64::from(input.byte()) * 16)),
        faults: Faults {
            wr: odds(input.byte()),
            statuses: Faults::EVERY_STATUS,
            lost: odds(input.byte()),
            incomplete: odds(input.byte()),
            prefix: odds(input.byte()),
            unknown: odds(input.byte()),
            drain_lost: odds(input.byte()),
            drain_refused: odds(input.byte()),
            // A lane that can never be destroyed keeps its slots for ever, by design.
            close_hangs: Odds::NEVER,
            announced: odds(input.byte()),
        },
        ..SimConfig::new(u64::from(input.short()))
    }
}

fn engine_config(input: &mut Bytes<'_>) -> EngineConfig {
    let mut number = |most: u8| 1 + u32::from(input.byte() % most);
    EngineConfig {
        chunk_bytes: 4096,
        run_chunks: number(8),
        run_bytes: 4096 * number(4),
        quantum_bytes: 4096 * number(8),
        signal_wrs: number(8),
        signal_bytes: 4096 * number(8),
        rail_bytes: 8192 * u64::from(number(8)),
        rail_wrs: number(32),
        stall: Nanos(100_000 * u64::from(number(50))),
        drain: Nanos(100_000 * u64::from(number(30))),
        backoff_min: Nanos(1_000 * u64::from(number(200))),
        backoff_max: Nanos::from_millis(2),
        reconnects: number(4) as u16,
        region_faults: number(40) as u16,
        set_aside: Nanos(50_000 * u64::from(number(40))),
    }
}

fn rail_specs(input: &mut Bytes<'_>) -> [RailSpec; RAILS] {
    std::array::from_fn(|_| RailSpec {
        rtt: time(input.byte() % 6),
        jitter: Nanos(u64::from(input.byte()) * 64),
        cq_entries: CQ as u32 - u32::from(input.byte() % 90),
        ..RailSpec::GBITS_400
    })
}
