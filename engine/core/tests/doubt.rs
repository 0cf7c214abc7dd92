//! A READ may succeed while bytes of it are missing, as the last one of its lane. The pages that a
//! dead lane carried are read again, if they are not validated yet.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::events::{EngineEvent, EventSink};
use kvrail_core::id::RailIndex;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Action, Fate, Sim};

const LATE: Time = Time(1_000_000_000);

/// Counts the pages that are read again.
#[derive(Default)]
struct Doubts(u64);

impl EventSink for Doubts {
    fn event(&mut self, event: EngineEvent) {
        if let EngineEvent::PagesDoubted { pages, .. } = event {
            self.0 += u64::from(pages);
        }
    }
}

/// What became of a batch of the owner's pages `0..pages` that were read over two rails.
struct Outcome {
    /// READs that succeeded without all of their bytes.
    incomplete: u64,
    doubted: u64,
    hits: usize,
}

/// Reads `pages` pages in chunks of `chunk` bytes. `meddle` gets the model, the engine, and the
/// lane over the first rail, after the batch was submitted.
fn read(
    seed: u64,
    chunk: u32,
    pages: usize,
    fates: &[Fate],
    meddle: impl FnOnce(&Sim<'_>, &mut dyn FnMut(), sim::LaneHandle),
) -> Outcome {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let config = sim::SimConfig { pieces: 4, ..sim::SimConfig::new(seed) };
    let sim = Sim::new(&mut storage, config, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(SLOTS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut doubts = Doubts::default();
    // Each READ is signaled, so that none is read again only because its success was not seen.
    let config = EngineConfig { chunk_bytes: chunk, signal_wrs: 1, ..EngineConfig::DEFAULT };
    #[allow(unsafe_code, reason = "storage of this function")]
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut engine =
        unsafe { Engine::start_scoped_with_events(&mut *state, sim.rails(), config, &mut doubts) }.unwrap();
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, lanes) = connect(&mut engine, &sim, &owner, 2, 1, 32);
    for fate in fates {
        sim.script(lanes[0], *fate).unwrap();
    }
    let batch = fill(&mut engine, &owner, &region, &mut slots, pages);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut poll = || {
        engine.poll(sim.now());
    };
    meddle(&sim, &mut poll, lanes[0]);
    let mut hits = 0;
    settle(&mut engine, &sim, LATE, |mut done| {
        for page in done.pages() {
            if page.result.is_ok() {
                let byte = owner.expected(owner.location(page.index));
                assert!(all_equal(&page.slot, PAGE, byte), "page {} is served wrong", page.index);
                hits += 1;
            }
        }
    });
    assert_eq!(engine.in_flight(), 0);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    drop(engine);
    Outcome { incomplete: sim.rail_stats(RailIndex(0)).incomplete, doubted: doubts.0, hits }
}

#[test]
fn a_page_whose_read_succeeded_without_all_of_its_bytes_is_read_again() {
    let mut incomplete = 0;
    let all = common::seeds::each(
        "a_page_whose_read_succeeded_without_all_of_its_bytes_is_read_again",
        0..40,
        |seed| {
            let fate = Fate::Incomplete { nth: seed % 8 };
            let outcome = read(seed, 16_384, SLOTS, &[fate], |_, _, _| {});
            assert!(outcome.doubted >= outcome.incomplete, "{}", outcome.doubted);
            // The READ fails instead if it is the last on its lane, and its page with it.
            assert!(outcome.hits + 1 - outcome.incomplete as usize >= SLOTS, "{} hits", outcome.hits);
            incomplete += outcome.incomplete;
        },
    );
    assert!(!all || incomplete > 20, "{incomplete} READs lacked bytes: the test reaches what it is for");
}

#[test]
fn a_page_of_several_chunks_is_read_again_whole() {
    let mut incomplete = 0;
    let all = common::seeds::each("a_page_of_several_chunks_is_read_again_whole", 0..60, |seed| {
        let fate = Fate::Incomplete { nth: seed % 20 };
        let outcome = read(seed, 4096, SLOTS, &[fate], |_, _, _| {});
        assert!(outcome.hits + 1 - outcome.incomplete as usize >= SLOTS, "{} hits", outcome.hits);
        incomplete += outcome.incomplete;
    });
    assert!(!all || incomplete > 20, "{incomplete} READs lacked bytes: the test reaches what it is for");
}

#[test]
fn whatever_a_page_waits_for_it_is_read_again_when_its_lane_dies_and_arrives_once() {
    let mut doubted = [0; 2];
    let all = common::seeds::each(
        "whatever_a_page_waits_for_it_is_read_again_when_its_lane_dies_and_arrives_once",
        0..200,
        |seed| {
            let few = (seed % 2) as usize;
            let outcome = read(seed, [16_384, 4096][few], SLOTS, &[], |sim, poll, lane| {
                // The times go from that of the first bytes to that of the last entries.
                for step in 0..seed / 2 {
                    sim.advance_to(sim.now() + Nanos(200 + step));
                    if seed % 3 > 0 {
                        poll();
                    }
                }
                sim.apply(Action::FailLane(lane));
            });
            assert_eq!(outcome.hits, SLOTS);
            doubted[few] += outcome.doubted;
        },
    );
    assert!(!all || doubted.iter().all(|&pages| pages > 20), "{doubted:?} pages were read again");
}
