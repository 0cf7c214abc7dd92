//! Random schedules of faults. In whatever order completions, errors, partial posts, lost
//! completions, rail losses, evictions and deadlines come, every chunk is accounted for exactly
//! once, every slot comes back when nothing can write into it any more, and no page is wrong.
//!
//! The model records each promise that the engine breaks (`Violation`): posting without credits,
//! overrunning a completion queue, draining too early, letting a READ write into memory that was
//! given back.
#![allow(missing_docs, reason = "tests")]

mod bulk;
mod changes;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod trace;
mod world;

use std::ops::Range;

use common::seeds::{again, number, parse};
use common::*;
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::id::RailIndex;
use kvrail_core::memory::Slot;
use kvrail_core::time::Nanos;
use kvrail_layouts::Selection;
use kvrail_sim::sim::{self, Delay, Faults, Odds, RailSpec, Rate, Sim};
use trace::Trace;
use world::{OWNERS, Tally, World, range};

/// How many schedules run, unless `KVRAIL_SCHEDULES` is set.
const SCHEDULES: u64 = 20_000;
const DEST: usize = 24;

fn faults(rng: &mut Rng) -> Faults {
    let mut odds = |percent, per_million: u64| {
        if rng.chance(percent) { Odds::per_million(rng.below(per_million) as u32) } else { Odds::NEVER }
    };
    Faults {
        wr: odds(60, 60_000),
        statuses: Faults::EVERY_STATUS,
        lost: odds(25, 30_000),
        incomplete: odds(30, 60_000),
        prefix: odds(25, 60_000),
        unknown: odds(25, 60_000),
        drain_lost: odds(25, 500_000),
        drain_refused: odds(25, 500_000),
        // A lane that can never be destroyed keeps its slots for ever, by design; another test has
        // it.
        close_hangs: Odds::NEVER,
        announced: odds(25, 1_000_000),
    }
}

fn model(seed: u64, rng: &mut Rng) -> sim::SimConfig {
    sim::SimConfig {
        retry: Nanos::from_micros(50 + rng.below(2_000)),
        pieces: 1 + rng.below(4) as u8,
        fail: Delay::between(Nanos(0), Nanos::from_micros(rng.below(500))),
        close: Delay::between(Nanos(0), Nanos::from_micros(rng.below(2_000))),
        flush: Delay::between(Nanos(0), Nanos(rng.below(2_000))),
        late_bytes: rng.chance(50),
        purge: rng.chance(50),
        faults: faults(rng),
        sges: [4, 2, 3, 5][seed as usize % 4],
        read_overhead: [0, 512, 64][seed as usize % 3],
        ..sim::SimConfig::new(seed)
    }
}

fn engine_config(rng: &mut Rng) -> EngineConfig {
    EngineConfig {
        chunk_bytes: 4096 << rng.below(3),
        run_chunks: 1 + rng.below(8) as u32,
        run_bytes: 4096 << rng.below(4),
        quantum_bytes: 4096 << rng.below(6),
        signal_wrs: 1 + rng.below(8) as u32,
        signal_bytes: 4096 << rng.below(5),
        rail_bytes: 8192 << rng.below(6),
        rail_wrs: 1 + rng.below(64) as u32,
        stall: Nanos::from_micros(300 + rng.below(5_000)),
        drain: Nanos::from_micros(100 + rng.below(3_000)),
        backoff_min: Nanos::from_micros(1 + rng.below(200)),
        backoff_max: Nanos::from_micros(200 + rng.below(2_000)),
        reconnects: 1 + rng.below(4) as u16,
        region_faults: 1 + rng.below(60) as u16,
        set_aside: Nanos::from_micros(1 + rng.below(2_000)),
    }
}

fn schedule(seed: u64, storage: &mut SmallSim, bytes: &mut [Vec<u8>], trace: &mut Trace) -> Tally {
    let mut rng = Rng(seed);
    let specs: Vec<_> = (0..3)
        .map(|_| RailSpec {
            rate: Rate::bytes_per_sec(1 << (30 + rng.below(6))),
            rtt: Nanos(500 + rng.below(20_000)),
            jitter: Nanos(rng.below(20_000)),
            cq_entries: 64 + rng.below(200) as u32,
            numa: rng.chance(30).then(|| rng.below(2) as u8),
        })
        .collect();
    let config = model(seed, &mut rng);
    let sim = Sim::new(storage, config, &specs).unwrap();
    let owners: Vec<_> =
        bytes.iter_mut().zip(3..).map(|(bytes, salt)| Owner::new(&sim, bytes, salt)).collect();
    let dest = Destination::new(DEST, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = engine_config(&mut rng);
    #[allow(unsafe_code, reason = "storage of this function")]
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut engine =
        unsafe { Engine::start_scoped_with_events(&mut *state, sim.rails(), config, trace) }.unwrap();
    let free: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    for slot in &free {
        sim.protect(range(slot)).unwrap();
    }
    let depth = 2 + rng.below(7) as u32;
    let peers = owners
        .iter()
        .map(|owner| {
            let (peer, region, _) = connect(&mut engine, &sim, owner, 3, 1 + rng.below(2) as usize, depth);
            Some((peer, region))
        })
        .collect();
    engine.serve_lanes_on_demand();
    let background = if rng.chance(50) { 0 } else { rng.below(101) };
    let tally = Tally::default();
    let all = Selection::ALL;
    let plans = [all, all.tokens(0, 2), all.tokens(2, 2)].map(|part| engine.add_plan(&turned(part)).unwrap());
    let (flying, calm) = (Vec::new(), rng.chance(30));
    let grain = if rng.chance(50) { 1 } else { 500_000 };
    let mut world = World {
        sim: &sim,
        engine,
        owners,
        peers,
        free,
        flying,
        plans,
        calm,
        grain,
        depth,
        background,
        rng,
        tally,
    };

    for _ in 0..60 {
        match world.rng.below(15) {
            12 => world.come_and_go(),
            13 | 14 => world.change(),
            0..=5 => world.submit(),
            6 | 7 => world.evict(),
            8 if world.rng.chance(40) => world.meddle(),
            9 => {
                let nanos = world.rng.below(100_000);
                world.pass(nanos);
            }
            _ => {
                let until = world.sim.now() + Nanos(world.rng.below(200_000));
                world.engine.wait(world.sim.now(), until);
                world.poll();
            }
        }
        if world.rng.chance(30) {
            world.mend();
        }
    }
    if world.rng.chance(30)
        && let Some((peer, _)) = world.peers[0].take()
    {
        world.engine.remove_peer(peer, world.sim.now()).unwrap();
        world.poll();
    }
    // Whatever happened, every batch ends.
    world.poll();
    let end = world.sim.now() + Nanos::from_secs(2);
    let mut polls = 0;
    while world.engine.in_flight() > 0 {
        polls += 1;
        assert!(polls < 200_000, "the engine turns in circles at {:?}", world.sim.now());
        assert!(world.sim.now() < end, "{} batches never end", world.engine.in_flight());
        world.engine.wait(world.sim.now(), end);
        world.poll();
        world.mend();
    }
    assert!(world.flying.iter().all(Option::is_none), "a batch is missing");
    assert_eq!(world.free.len(), DEST, "every slot is back");
    let peers = world.peers.iter().flatten();
    world.tally.detours +=
        peers.map(|(id, _)| u64::from(world.engine.peer_stats(*id).unwrap().detours)).sum::<u64>();
    world.engine.stop(world.sim.now());
    while world.engine.lanes_dying() > 0 {
        polls += 1;
        assert!(polls < 200_000, "the engine turns in circles at {:?}", world.sim.now());
        assert!(
            world.sim.now() < end + Nanos::from_secs(2),
            "{} lanes never end",
            world.engine.lanes_dying()
        );
        world.engine.wait(world.sim.now(), end + Nanos::from_secs(2));
        world.poll();
    }
    assert_eq!(world.engine.outstanding(), 0);
    let violations = sim.violations();
    assert!(violations.is_empty(), "{violations:?}");
    for rail in 0..3 {
        let stats = world.engine.rail_stats(RailIndex(rail)).unwrap();
        world.tally.reposted += stats.reposted;
        world.tally.lanes_failed += stats.lanes_failed;
        world.tally.stale += stats.stale;
        world.tally.incomplete += sim.rail_stats(RailIndex(rail)).incomplete;
    }
    world.tally
}

/// The most schedules of one run: a process can number 65,534 engines.
const MOST: u64 = 65_000;

/// The seeds of this run. They differ from run to run, so that each run can find what earlier runs
/// have not found. A run prints its seeds, and any of them can be run again.
fn seeds() -> Range<u64> {
    let (first, count) = (number("KVRAIL_FIRST_SEED"), number("KVRAIL_SCHEDULES"));
    if let Some(seed) = number("KVRAIL_SEED") {
        assert!(
            first.is_none() && count.is_none(),
            "KVRAIL_SEED runs one schedule: set no KVRAIL_FIRST_SEED or KVRAIL_SCHEDULES beside it"
        );
        assert!(seed < u64::MAX, "KVRAIL_SEED is {seed}: expected at most {}", u64::MAX - 1);
        return seed..seed + 1;
    }
    let count = count.unwrap_or(SCHEDULES);
    assert!((1..=MOST).contains(&count), "KVRAIL_SCHEDULES is {count}: expected 1 to {MOST}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let first = first.unwrap_or(now.as_nanos() as u64 % 1_000_000_000_000);
    let most = u64::MAX - count;
    assert!(first <= most, "KVRAIL_FIRST_SEED is {first}: expected at most {most} for {count} schedules");
    first..first + count
}

#[test]
fn a_mistyped_seed_is_an_error_that_says_what_is_expected() {
    assert_eq!(parse("KVRAIL_SEED", "117"), Ok(117));
    for typed in ["", "1l7", "-1", "0x75", "117 ", "18446744073709551616"] {
        let error = parse("KVRAIL_SEED", typed).unwrap_err();
        let expected = format!("KVRAIL_SEED is {typed:?}: expected a decimal number from 0 to");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn schedules_of_faults() {
    let mut storage = Box::new(SmallSim::new());
    let (mut sum, mut trace) = (Tally::default(), Trace::default());
    let seeds = seeds();
    let only = seeds.end - seeds.start < 5_000;
    println!("schedules {} to {}", seeds.start, seeds.end - 1);
    for seed in seeds.clone() {
        let mut bytes = memory(OWNERS);
        trace.clear();
        let run = std::panic::AssertUnwindSafe(|| schedule(seed, &mut storage, &mut bytes, &mut trace));
        let tally = std::panic::catch_unwind(run).unwrap_or_else(|cause| {
            eprintln!("the engine's events before that, in model time:\n{trace}");
            eprintln!("schedule {seed} fails; run it again: {}", again("schedules_of_faults", seed));
            std::panic::resume_unwind(cause)
        });
        sum.hits += tally.hits;
        sum.shared += tally.shared;
        sum.turned += tally.turned;
        sum.unvalidated += tally.unvalidated;
        sum.misses += tally.misses;
        sum.faults += tally.faults;
        sum.late += tally.late;
        sum.gone += tally.gone;
        sum.aside += tally.aside;
        sum.removed += tally.removed;
        sum.added += tally.added;
        sum.reposted += tally.reposted;
        sum.lanes_failed += tally.lanes_failed;
        sum.stale += tally.stale;
        sum.detours += tally.detours;
        sum.incomplete += tally.incomplete;
        sum.withdrawn += tally.withdrawn;
        sum.told += tally.told;
        sum.taken += tally.taken;
        sum.taken_shared += tally.taken_shared;
        sum.released += tally.released;
        sum.bulk += tally.bulk;
        sum.sets += tally.sets;
    }
    println!(
        "{} schedules: {} hits ({} unvalidated), {} misses, {} faults, {} late, {} gone, {} set aside; {} peers removed and {} added, {} lanes failed, {} wrs posted again, {} stale completions, {} READs without all of their bytes, {} withdrawn, {} told early, {} slots taken early, {} sets of rows",
        seeds.end - seeds.start,
        sum.hits,
        sum.unvalidated,
        sum.misses,
        sum.faults,
        sum.late,
        sum.gone,
        sum.aside,
        sum.removed,
        sum.added,
        sum.lanes_failed,
        sum.reposted,
        sum.stale,
        sum.incomplete,
        sum.withdrawn,
        sum.told,
        sum.taken,
        sum.sets
    );
    if !only {
        // The schedules cover each case often enough: at least this many times in a hundred
        // schedules.
        let per_cent = |count: u64| count * 100 / (seeds.end - seeds.start);
        let reached = [
            ("hits", sum.hits, 900),
            ("misses", sum.misses, 10),
            ("faults", sum.faults, 10),
            ("late", sum.late, 10),
            ("shared", sum.shared, 90),
            ("turned", sum.turned, 90),
            ("unvalidated", sum.unvalidated, 90),
            ("validated", sum.hits - sum.unvalidated, 400),
            ("lanes failed", sum.lanes_failed, 10),
            ("posted again", sum.reposted, 10),
            ("gone", sum.gone, 5),
            ("set aside", sum.aside, 5),
            ("peers removed", sum.removed, 20),
            ("peers added", sum.added, 10),
            ("detours", sum.detours, 2),
            ("incomplete successes", sum.incomplete, 10),
            ("withdrawn", sum.withdrawn, 20),
            ("told early", sum.told, 100),
            ("slots taken early", sum.taken, 20),
            ("shared slots taken early", sum.taken_shared, 5),
            ("given back", sum.released, 20),
            ("joined in bulk", sum.bulk, 90),
            ("sets of rows", sum.sets, 60),
        ];
        for (what, count, least) in reached {
            assert!(per_cent(count) >= least, "{what}: {count}, fewer than {least} in a hundred schedules");
        }
    }
}
