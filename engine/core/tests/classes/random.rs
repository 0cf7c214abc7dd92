//! Random schedules of faults with lanes of both classes.

use kvrail_core::config::EngineConfig;
use kvrail_core::error::PageError;
use kvrail_core::id::RailIndex;
use kvrail_core::time::Nanos;
use kvrail_sim::sim::{self, Action, Delay, Faults, Odds};

use crate::common::*;
use crate::world::*;

/// Random faults, with lanes that come and go: the watch finds no READ on a wrong lane, and every
/// batch ends.
#[test]
fn in_random_schedules_no_read_leaves_its_class() {
    let mut detours = 0;
    let all = seeds::each("in_random_schedules_no_read_leaves_its_class", 0..1_500, |seed| {
        let mut rng = Rng(seed);
        let model = sim::SimConfig {
            read_overhead: [0, 512, 64][seed as usize % 3],
            retry: Nanos::from_micros(50 + rng.below(1_000)),
            fail: Delay::between(Nanos(0), Nanos::from_micros(rng.below(300))),
            close: Delay::between(Nanos(0), Nanos::from_micros(rng.below(500))),
            faults: Faults {
                wr: Odds::per_million(rng.below(40_000) as u32),
                statuses: Faults::EVERY_STATUS,
                prefix: Odds::per_million(rng.below(40_000) as u32),
                drain_lost: Odds::per_million(rng.below(300_000) as u32),
                ..Faults::NONE
            },
            ..sim::SimConfig::new(seed)
        };
        let config = EngineConfig {
            chunk_bytes: 4096 << rng.below(3),
            run_chunks: 1 + rng.below(8) as u32,
            quantum_bytes: 4096 << rng.below(6),
            rail_wrs: 1 + rng.below(64) as u32,
            stall: Nanos::from_micros(300 + rng.below(3_000)),
            drain: Nanos::from_micros(100 + rng.below(1_000)),
            backoff_min: Nanos::from_micros(1 + rng.below(200)),
            backoff_max: Nanos::from_micros(200 + rng.below(1_000)),
            set_aside: Nanos::from_micros(1 + rng.below(2_000)),
            ..EngineConfig::DEFAULT
        };
        with_world(config, model, 3, |world| {
            let depth = 2 + rng.below(7) as u32;
            // Both classes have a lane from the beginning, and the others are of any class.
            for rail in 0..3 {
                world.attach(rail, depth, [URGENT, BACKGROUND, URGENT][usize::from(rail)]);
                if rng.chance(50) {
                    world.attach(rail, depth, [URGENT, BACKGROUND][rng.below(2) as usize]);
                }
            }
            schedule(world, &mut rng, depth);
            detours += world.detours();
        });
    });
    assert!(detours > 0 || !all, "no schedule had a detour");
}

fn schedule(world: &mut World<'_, '_, '_>, rng: &mut Rng, depth: u32) {
    let step = |world: &mut World<'_, '_, '_>, nanos: u64| {
        let until = world.sim.now() + Nanos(nanos);
        world.engine.wait(world.sim.now(), until);
        world.engine.poll(world.sim.now());
        while let Some(mut done) = world.engine.next_done() {
            for page in done.pages() {
                assert!(!matches!(page.result, Err(PageError::Miss(_))), "nothing is overwritten");
            }
        }
        while world.engine.next_overdue().is_some() {}
    };
    let mend = |world: &mut World<'_, '_, '_>| {
        while let Some(wanted) = world.engine.next_wanted_lane(world.sim.now()) {
            let (engine, rail) = (&mut world.engine, wanted.rail.0);
            let made = attach_for(engine, world.sim, world.peer, world.owner, rail, depth, wanted.class);
            if made.is_none() {
                world.engine.lane_unavailable(wanted, world.sim.now());
            }
        }
    };
    for _ in 0..40 {
        match rng.below(8) {
            0..=3 if world.engine.batches_free() > 0 => {
                let class = [URGENT, BACKGROUND][rng.below(2) as usize];
                let batch = world.batch(class, 1 + rng.below(HALF as u64) as usize);
                let deadline = world.sim.now() + Nanos::from_micros(50 + rng.below(8_000));
                world.engine.submit(batch, world.sim.now(), deadline).unwrap();
            }
            4 => {
                let (rail, told) = (RailIndex(rng.below(3) as u8), rng.chance(50));
                world.sim.apply(Action::RailDown { rail, told });
            }
            5 | 6 => {
                let (rail, told) = (RailIndex(rng.below(3) as u8), rng.chance(50));
                world.sim.apply(Action::RailUp { rail, told });
            }
            _ => step(world, rng.below(200_000)),
        }
        if rng.chance(30) {
            mend(world);
        }
    }
    let end = world.sim.now() + Nanos::from_secs(1);
    while world.engine.in_flight() > 0 {
        assert!(world.sim.now() < end, "{} batches never end", world.engine.in_flight());
        step(world, 1_000_000);
        mend(world);
    }
}
