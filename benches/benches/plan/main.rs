//! The cost of reading by a plan: one MLA page (61 layers of 64 tokens, bf16) out of a layer-first
//! pool into a page-first slot, 3,904 pieces of 1,152 bytes, on the null device.
//!
//! `cargo bench -p kvrail-bench --bench plan` prints medians of interleaved rounds. `-- count ROW
//! N` reads N pages of one row and prints nothing, for callgrind to count.
//!
//! | row | what |
//! |---|---|
//! | loop | READs with addresses that are ready, posted by a hand-written loop |
//! | plan | the same loop, with addresses from a walk over the plan |
//! | engine | the plan through the engine, everything included: 61 pages in one slot |
//! | engine, no plan | as many wrs of a page without a plan (3,904 chunks), to compare with |
//!
//! One rail, one lane, 32 wrs to a commit, the last signaled.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a benchmark, not a library")]
#![allow(unsafe_code, reason = "posts without an engine")]

#[path = "../../src/output/write.rs"]
mod write;

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{LaneId, MAX_RAILS, PeerId, RailIndex, WrId};
use kvrail::core::memory::Slot;
use kvrail::core::plan::PlanRef;
use kvrail::core::provider::{Commit, Piece, Post, Provider, Read};
use kvrail::core::remote::{RegionOffer, RemoteRegion};
use kvrail::core::storage::EngineStorage;
use kvrail::core::time::{Nanos, Time};
use kvrail::core::verbs_abi::{ChainStorage, Wc};
use kvrail::layouts::plan::{Cut, Limits};
use kvrail::layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, Plan, PlaneDecl, Selection,
};
use kvrail_sim::null::{Cq, Cqe, NullLane, NullParts, NullRails, Qp, Wqe};

const CHAIN: usize = 32;
const DEPTH: usize = 64;
const LAYERS: u32 = 61;
const TOKEN: u32 = 1_152;
const LAYER: u32 = 64 * TOKEN;
const PAGE: u32 = LAYERS * LAYER;
const REMOTE: u64 = 0x7000_0000;

const fn mla(order: &[Level]) -> Geometry {
    Declaration {
        axes: &[Axis::whole(AxisKind::Layer, LAYERS as u64), Axis::whole(AxisKind::Token, 64)],
        order,
        planes: &[PlaneDecl::of(&[FieldDecl::new("latent", ElementKind::Bf16, 576)])],
        ..Declaration::EMPTY
    }
    .expect()
}

const POOL: Geometry = mla(&[Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token)]);
const PAGE_FIRST: Geometry = mla(&[Level::Axis(AxisKind::Token), Level::Axis(AxisKind::Layer)]);
const PLAN: Plan = Plan::expect(Plan::between(&POOL, &PAGE_FIRST, Selection::ALL));
const _: () = assert!(PLAN.pieces() == 3_904 && PLAN.longest_piece() == 1_152);

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

type Null<const SGES: usize> = NullRails<'static, CHAIN, SGES>;

fn null<const SGES: usize>() -> Null<SGES> {
    // A wr of 16 pieces is five blocks.
    let wqes = (DEPTH * (2 + SGES).div_ceil(4)).next_power_of_two();
    let parts = NullParts {
        cqs: vec![Cq::NEW; 1].leak(),
        cqes: vec![Cqe::NEW; DEPTH].leak(),
        qps: vec![Qp::NEW; 1].leak(),
        wqes: vec![Wqe::NEW; wqes].leak(),
    };
    NullRails::new(parts, leak(ChainStorage::new())).expect("parts that fit")
}

/// The hand-written loop.
struct Loop<const SGES: usize> {
    rails: Null<SGES>,
    lane: NullLane<'static>,
    /// The plan of each layer.
    cuts: Vec<Cut>,
    /// Every wr of the plan: its READ and its pieces.
    ready: Vec<(Read, Vec<Piece>)>,
    wcs: [Wc; 8],
}

fn read(seq: usize, remote: u32, local: u64, len: u32) -> Read {
    let wr_id = WrId::new(LaneId::new(0, 0), seq as u32);
    let (rkey, lkey, signaled) = (7, 9, seq % CHAIN == CHAIN - 1);
    Read { wr_id, remote_addr: REMOTE + u64::from(remote), local_addr: local, len, rkey, lkey, signaled }
}

impl<const SGES: usize> Loop<SGES> {
    fn new() -> Self {
        let limits = Limits { sges: SGES as u32, bytes: 256 << 10 };
        let cuts: Vec<_> = (0..LAYERS)
            .map(|layer| PLAN.only(layer, 0).expect("a layer").cut(limits).expect("wrs"))
            .collect();
        let mut ready = Vec::new();
        for cut in &cuts {
            let mut cursor = cut.cursor(0);
            let mut pieces = Vec::new();
            while let Some(wr) =
                cursor.next(|to, len| pieces.push(Piece { addr: 0x10_0000 + u64::from(to), len }))
            {
                ready.push((
                    read(ready.len(), wr.source, pieces[0].addr, wr.len),
                    std::mem::take(&mut pieces),
                ));
            }
        }
        let mut rails = null();
        let lane = rails.open(LaneId::new(0, 1), RailIndex(0), ()).expect("a free lane");
        Self { rails, lane, cuts, ready, wcs: [Wc::default(); 8] }
    }

    fn wrs(&self) -> usize {
        self.ready.len()
    }

    /// Posts the READs whose addresses are ready.
    #[inline(never)]
    fn ready(&mut self) {
        for wrs in self.ready.chunks(CHAIN) {
            // SAFETY: the null device moves no bytes.
            let mut post = unsafe { self.rails.begin(&mut self.lane) };
            for (read, pieces) in wrs {
                if SGES == 1 { post.read(*read) } else { post.scatter(*read, pieces) }
            }
            assert_eq!(post.commit(), Commit::All);
            self.rails.poll(RailIndex(0), &mut self.wcs);
        }
    }

    /// Posts READs with addresses from the plan, row by row.
    #[inline(never)]
    fn plan_rows(&mut self) {
        let mut seq = 0;
        let mut cuts = self.cuts.iter();
        let mut cursor = cuts.next().expect("a layer").cursor(0);
        let mut more = true;
        while more {
            // SAFETY: the null device moves no bytes.
            let mut post = unsafe { self.rails.begin(&mut self.lane) };
            let mut room = CHAIN as u32;
            while room > 0 && more {
                let Some(row) = cursor.row(room) else {
                    match cuts.next() {
                        Some(cut) => cursor = cut.cursor(0),
                        None => more = false,
                    }
                    continue;
                };
                room -= row.count;
                let (mut from, mut to) = (row.source, row.destination);
                for _ in 0..row.count {
                    post.read(read(seq, from, 0x10_0000 + u64::from(to), row.len));
                    (from, to) = (from.wrapping_add(row.source_step), to.wrapping_add(row.destination_step));
                    seq += 1;
                }
            }
            assert_eq!(post.commit(), Commit::All);
            self.rails.poll(RailIndex(0), &mut self.wcs);
        }
        assert_eq!(seq, self.wrs());
        self.rails.poll(RailIndex(0), &mut self.wcs);
    }

    /// Posts READs with addresses from the plan.
    #[inline(never)]
    fn plan(&mut self) {
        if SGES == 1 {
            return self.plan_rows();
        }
        let (mut seq, mut pieces) = (0, [Piece::default(); SGES]);
        let mut cuts = self.cuts.iter();
        let mut cursor = cuts.next().expect("a layer").cursor(0);
        'page: loop {
            // SAFETY: the null device moves no bytes.
            let mut post = unsafe { self.rails.begin(&mut self.lane) };
            for _ in 0..CHAIN {
                let mut n = 0;
                let mut next = |to, len| {
                    pieces[n % SGES] = Piece { addr: 0x10_0000 + u64::from(to), len };
                    n += 1;
                };
                let wr = match cursor.next(&mut next) {
                    Some(wr) => wr,
                    None => {
                        let Some(cut) = cuts.next() else {
                            assert_eq!(post.commit(), Commit::All);
                            break 'page;
                        };
                        cursor = cut.cursor(0);
                        cursor.next(&mut next).expect("a wr")
                    }
                };
                post.scatter(read(seq, wr.source, pieces[0].addr, wr.len), &pieces[..n]);
                seq += 1;
            }
            assert_eq!(post.commit(), Commit::All);
            self.rails.poll(RailIndex(0), &mut self.wcs);
        }
        assert_eq!(seq, self.wrs());
        self.rails.poll(RailIndex(0), &mut self.wcs);
    }
}

type State = EngineStorage<1, 64, 1, DEPTH, 2, 64>;

/// The engine.
struct Kvrail<const SGES: usize> {
    engine: Engine<'static, Null<SGES>>,
    layers: Vec<(RemoteRegion, PlanRef)>,
    whole: RemoteRegion,
    slot: Option<Slot>,
    now: u64,
}

fn region<const SGES: usize>(
    engine: &mut Engine<'static, Null<SGES>>,
    peer: PeerId,
    bytes: u32,
) -> RemoteRegion {
    let keys = [7; MAX_RAILS];
    let (page_bytes, stride) = (bytes.into(), bytes.into());
    let offer = RegionOffer { base: REMOTE, page_bytes, stride, slots: 4, keys, table: None };
    engine.add_region(peer, &offer).expect("a region")
}

impl<const SGES: usize> Kvrail<SGES> {
    fn new(chunk_bytes: u32) -> Self {
        let config = EngineConfig { signal_wrs: CHAIN as u32, chunk_bytes, ..EngineConfig::DEFAULT };
        let mut engine = Engine::start(leak(State::new()), null(), config).expect("an engine");
        // The size of the largest page here: 3,904 chunks of 4 KiB.
        let slot_bytes = 3_904 * 4_096;
        let memory = vec![0_u8; slot_bytes].leak();
        let slot = engine.register(memory, slot_bytes as u64).expect("slots").next();
        let peer = engine.add_peer().expect("a place");
        let layers = (0..LAYERS)
            .map(|layer| {
                let plan = engine.add_region_plan(&PLAN.only(layer, 0).expect("a layer")).expect("a place");
                let mut region = region(&mut engine, peer, LAYER);
                let layout = engine.add_layout(PLAN.source(), layer).expect("a place");
                region.set_layout(layout).expect("a region of this engine");
                (region, plan)
            })
            .collect();
        let whole = region(&mut engine, peer, slot_bytes as u32);
        let rail = RailIndex(0);
        engine
            .attach(peer, LaneSpec { rail, remote_rail: 0, depth: DEPTH as u32 }, (), Time::ZERO)
            .expect("a place");
        Self { engine, layers, whole, slot, now: 0 }
    }

    fn wrs(&self) -> usize {
        self.layers.iter().map(|(_, plan)| plan.wrs() as usize).sum()
    }

    #[inline(never)]
    fn plan(&mut self) {
        let mut batch = self.engine.batch().expect("a free batch");
        let mut slot = self.slot.take();
        for (region, plan) in &self.layers {
            let page = region.unvalidated(0).expect("within the region");
            match slot.take() {
                Some(slot) => batch.read_with(page, slot, *plan).map_err(|(error, _)| error),
                None => batch.read_also_with(page, *plan),
            }
            .expect("room");
        }
        self.carry(batch);
    }

    #[inline(never)]
    fn no_plan(&mut self) {
        let mut batch = self.engine.batch().expect("a free batch");
        let (page, slot) = (self.whole.unvalidated(0).expect("a page"), self.slot.take().expect("the slot"));
        batch.read(page, slot).map_err(|(error, _)| error).expect("room");
        self.carry(batch);
    }

    #[inline]
    fn carry(&mut self, batch: kvrail::core::batch::Batch<'static>) {
        self.now += 1;
        let now = Time(self.now);
        self.engine.submit(batch, now, now + Nanos::from_secs(1)).expect("accepted");
        while self.engine.in_flight() > 0 {
            self.now += 1;
            self.engine.poll(Time(self.now));
        }
        let mut done = self.engine.next_done().expect("a batch");
        let page = done.pages().next().expect("the slot's page");
        page.result.expect("it arrived");
        self.slot = Some(page.slot);
    }
}

/// A row: its name, the wrs of one page, and a function that reads one page.
type Row = (String, usize, Box<dyn FnMut()>);

fn rows<const SGES: usize>() -> Vec<Row> {
    let (mut ready, mut plan, mut engine) =
        (Loop::<SGES>::new(), Loop::<SGES>::new(), Kvrail::<SGES>::new(256 << 10));
    let (wrs, name) = (engine.wrs(), |what: &str| format!("{what}, {SGES} sge"));
    assert_eq!((wrs, ready.wrs()), (3_904_usize.div_ceil(SGES), wrs));
    vec![
        (name("loop"), wrs, Box::new(move || ready.ready())),
        (name("plan"), wrs, Box::new(move || plan.plan())),
        (name("engine"), wrs, Box::new(move || engine.plan())),
    ]
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() -> ExitCode {
    const ROUNDS: usize = 41;
    const TIMES: u32 = 50;
    let mut rows: Vec<Row> = rows::<1>();
    let mut no_plan = Kvrail::<1>::new(4_096);
    rows.push(("engine, no plan".into(), 3_904, Box::new(move || no_plan.no_plan())));
    rows.extend(self::rows::<16>());
    let args: Vec<String> = std::env::args().collect();
    if let [_, count, name, n, ..] = &args[..]
        && count == "count"
    {
        let n: usize = n.parse().expect("a number of pages");
        let (.., read) = rows.iter_mut().find(|(row, ..)| row == name).expect("the name of a row");
        (0..n).for_each(|_| read());
        return ExitCode::SUCCESS;
    }
    let mut ns = vec![Vec::new(); rows.len()];
    for round in 0..ROUNDS + 3 {
        for (i, (_, wrs, read)) in rows.iter_mut().enumerate() {
            let start = Instant::now();
            (0..TIMES).for_each(|_| read());
            let time: Duration = start.elapsed() / TIMES;
            if round >= 3 {
                ns[i].push(time.as_nanos() as f64 / *wrs as f64);
            }
        }
    }
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{:<16} {:>6} {:>10} {:>12}", "", "wrs", "ns per wr", "us per page");
    for ((name, wrs, _), ns) in rows.iter().zip(ns) {
        let ns = median(ns);
        let _ = writeln!(text, "{name:<16} {wrs:>6} {ns:>10.2} {:>12.2}", ns * *wrs as f64 / 1_000.0);
    }
    let _ = PAGE;
    write::printed(&text)
}
