//! The instructions of each part of the data path, with limits: a bench fails beyond its own.
//!
//! ```text
//! cargo install gungraun-runner --version 0.20.0 --locked     # once; and valgrind
//! cargo bench -p kvrail-counted
//! ```
//!
//! One engine, two rails with a lane each, one batch of 32 pages of 4 KiB without validation, on
//! the null device, whose own instructions are counted, too. Each part is counted from one state
//! of the engine to the next, once, after a warm-up that has been through all of them:
//!
//! - `submit_and_post`: `Engine::submit`, which posts as long as lanes have room;
//! - `poll`: `Engine::poll` with 32 completions;
//! - `results`: taking the batch and its 32 slots back;
//! - `failover`: from the completion that kills a lane with 16 READs to the end of the batch: the
//!   READs go to the other lane, and complete there.
//!
//! `benches/count-instructions` compares the engine with a loop without one; this bench holds each
//! part on its own.
#![allow(missing_docs, reason = "a benchmark, not a library")]
#![allow(unsafe_code, reason = "a provider whose first rail can break")]

mod breaking;

use std::hint::black_box;

use breaking::Breaking;
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use kvrail::core::batch::Batch;
use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{MAX_RAILS, PeerId, RailIndex};
use kvrail::core::memory::Slot;
use kvrail::core::remote::{RegionOffer, RemoteRegion};
use kvrail::core::storage::EngineStorage;
use kvrail::core::time::{Nanos, Time};

const PAGES: usize = 32;
const PAGE: u64 = 4096;
const RAILS: u8 = 2;
const DEPTH: u32 = 64;

type State = EngineStorage<1, 4, 4, { DEPTH as usize }, 4, PAGES>;

/// An engine and its user, in some state of a batch.
struct Run {
    engine: Engine<'static, Breaking>,
    peer: PeerId,
    region: RemoteRegion,
    slots: Vec<Slot>,
    ready: Option<Batch<'static>>,
    now: u64,
}

impl Run {
    fn new() -> Self {
        let state = State::in_place(Box::leak(Box::<State>::new_uninit()));
        let provider = Breaking::new(usize::from(RAILS), 4, DEPTH as usize);
        let mut engine = Engine::start(state, provider, EngineConfig::DEFAULT).expect("an engine");
        let memory = vec![0_u8; PAGES * PAGE as usize].leak();
        let slots = engine.register(memory, PAGE).expect("slots").collect();
        let peer = engine.add_peer().expect("a place");
        let offer = RegionOffer {
            base: 0x7000_0000,
            page_bytes: PAGE,
            stride: PAGE,
            slots: 1024,
            keys: [7; MAX_RAILS],
            table: None,
        };
        let region = engine.add_region(peer, &offer).expect("a region");
        let mut run = Self { engine, peer, region, slots, ready: None, now: 1 };
        for rail in 0..RAILS {
            run.attach(rail);
        }
        // Each part once, so that no counted one is the first of its kind.
        for broken in [false, true, false] {
            run.fill();
            run.submit();
            run.break_rail(broken);
            run.poll();
            run.results();
            run.heal();
        }
        run
    }

    fn attach(&mut self, rail: u8) {
        let spec = LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth: DEPTH };
        self.engine.attach(self.peer, spec, (), Time(self.now)).expect("a place");
    }

    /// From now on the lane of the first rail fails with what it completes.
    fn break_rail(&mut self, broken: bool) {
        self.engine.provider().broken.set(broken);
    }

    /// Gives the first rail a lane again.
    fn heal(&mut self) {
        if self.engine.provider().broken.take() {
            self.now += Nanos::from_secs(10).0;
            self.engine.poll(Time(self.now));
            self.attach(0);
        }
    }

    fn fill(&mut self) {
        let mut batch = self.engine.batch().expect("a batch");
        for slot in 0..PAGES as u32 {
            let page = self.region.unvalidated(slot).expect("a page");
            let to = self.slots.pop().expect("a slot");
            batch.read(page, to).map_err(|(error, _)| error).expect("room");
        }
        self.ready = Some(batch);
    }

    fn submit(&mut self) {
        let batch = self.ready.take().expect("it was filled");
        self.now += 1;
        let now = Time(self.now);
        self.engine.submit(batch, now, now + Nanos::from_secs(1)).expect("accepted");
    }

    fn poll(&mut self) {
        while self.engine.in_flight() > 0 {
            self.now += 1;
            self.engine.poll(Time(self.now));
        }
    }

    fn results(&mut self) {
        let mut done = self.engine.next_done().expect("all pages have completed");
        for page in done.pages() {
            assert!(page.result.is_ok(), "{:?}", page.result);
            self.slots.push(page.slot);
        }
    }
}

fn filled() -> Run {
    let mut run = Run::new();
    run.fill();
    run
}

fn submitted() -> Run {
    let mut run = filled();
    run.submit();
    run
}

fn polled() -> Run {
    let mut run = submitted();
    run.poll();
    run
}

/// Half of the READs are on a lane that is about to fail.
fn failing() -> Run {
    let mut run = submitted();
    run.break_rail(true);
    run
}

/// What a part may cost: what it costs today, and a tenth for other compilers.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

#[library_benchmark]
#[bench::of_32_pages(args = (filled()), config = at_most(4_120))]
fn submit_and_post(mut run: Run) -> Run {
    black_box(&mut run).submit();
    run
}

#[library_benchmark]
#[bench::of_32_pages(args = (submitted()), config = at_most(1_310))]
fn poll(mut run: Run) -> Run {
    black_box(&mut run).poll();
    run
}

#[library_benchmark]
#[bench::of_32_pages(args = (polled()), config = at_most(1_970))]
fn results(mut run: Run) -> Run {
    black_box(&mut run).results();
    run
}

#[library_benchmark]
#[bench::of_16_of_32_pages(args = (failing()), config = at_most(16_400))]
fn failover(mut run: Run) -> Run {
    black_box(&mut run).poll();
    run
}

library_benchmark_group!(name = data_path, benchmarks = [submit_and_post, poll, results, failover]);
main!(library_benchmark_groups = data_path);
