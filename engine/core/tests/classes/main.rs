//! Lanes of classes: READs of a batch go over lanes of its class for as long as the peer has one,
//! and over its other lanes otherwise.
//!
//! A [`Watch`](world::Watch) looks at every READ when it is posted. Which class a READ belongs to
//! follows from what it reads: urgent batches read the first half of an owner's slots, background
//! batches the second half.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "the engine's storage is declared before it, and outlives it")]

#[path = "../common/mod.rs"]
mod common;
mod random;
mod world;

use kvrail_core::config::EngineConfig;
use kvrail_core::id::RailIndex;
use kvrail_core::rail::RailStats;
use kvrail_core::time::Nanos;
use kvrail_core::verbs_abi::WcStatus;
use kvrail_sim::sim::{self, Action, FailedRanges, Fate};

use common::*;
use world::*;

#[test]
fn each_class_keeps_to_its_lanes_on_every_rail() {
    for config in [EngineConfig::DEFAULT, CHUNKED] {
        with_world(config, sim::SimConfig::new(1), 3, |world| {
            for rail in 0..3 {
                for class in [URGENT, BACKGROUND, BACKGROUND] {
                    world.attach(rail, 6, class);
                }
            }
            for _ in 0..4 {
                for pages in [1, HALF, 5] {
                    world.submit(URGENT, pages);
                    world.submit(BACKGROUND, pages);
                }
                assert_eq!(world.settle(), (2 * (1 + HALF + 5), 0));
            }
            let reads = world.engine.events().reads;
            assert_eq!((reads[0][1], reads[1][0]), ([0; 4], [0; 4]), "no READ leaves its class");
            for rail in 0..3 {
                assert!(reads[0][0][rail] > 0 && reads[1][1][rail] > 0, "{reads:?}: both use rail {rail}");
            }
            assert_eq!(world.detours(), 0);
        });
    }
}

#[test]
fn a_class_stays_on_its_one_lane_while_other_rails_have_none_for_it() {
    with_world(CHUNKED, sim::SimConfig::new(2), 3, |world| {
        world.attach_each(3, 8, URGENT);
        world.attach(1, 4, BACKGROUND);
        (0..5).for_each(|_| world.submit(BACKGROUND, HALF));
        assert_eq!(world.settle(), (5 * HALF, 0));
        let reads = world.engine.events().reads;
        assert!(reads[1][1][1] > 0);
        assert_eq!(reads[1][0], [0; 4]);
    });
}

#[test]
fn lanes_of_one_class_carry_both_and_that_is_no_detour() {
    for class in [URGENT, BACKGROUND] {
        with_world(CHUNKED, sim::SimConfig::new(3), 2, |world| {
            world.attach_each(2, 8, class);
            world.submit(URGENT, HALF);
            world.submit(BACKGROUND, HALF);
            assert_eq!(world.settle(), (2 * HALF, 0));
            let events = world.engine.events();
            assert_eq!((world.detours(), events.detours), (0, [[0; 2]; 2]));
            assert!(events.all(URGENT, class) > 0 && events.all(BACKGROUND, class) > 0);
        });
    }
}

#[test]
fn a_class_that_loses_its_last_lane_uses_the_others_until_it_has_one_again() {
    for (class, other) in [(URGENT, BACKGROUND), (BACKGROUND, URGENT)] {
        with_world(EngineConfig::DEFAULT, sim::SimConfig::new(4), 2, |world| {
            let lost = [world.attach(0, 8, class), world.attach(1, 8, class)];
            world.attach_each(2, 8, other);
            world.read(class, HALF);
            world.lose(lost[0]);
            world.read(class, HALF);
            assert_eq!((world.engine.events().all(class, other), world.detours()), (0, 0));
            world.lose(lost[1]);
            assert_eq!((world.detours(), world.engine.events().detours[place(class)]), (1, [1, 0]));
            world.read(class, HALF);
            let diverted = world.engine.events().all(class, other);
            assert!(diverted > 0, "the work is not stuck");
            world.attach(1, 8, class);
            assert_eq!((world.detours(), world.engine.events().detours[place(class)]), (1, [1, 1]));
            world.read(class, HALF);
            assert_eq!(world.engine.events().all(class, other), diverted, "the work is back on its lane");
            assert_eq!(world.engine.events().detours[place(other)], [0, 0]);
        });
    }
}

/// The lost lane's own READs wait until it is known to write no more. Other work of the class
/// waited for room on the lane, and goes on at once.
#[test]
fn work_that_waits_for_room_goes_on_when_its_class_has_lost_its_lane() {
    with_world(CHUNKED, sim::SimConfig::new(5), 2, |world| {
        world.attach(0, 8, URGENT);
        let lane = world.attach(1, 3, BACKGROUND);
        world.sim.script(lane, Fate::DrainLost).unwrap();
        world.submit(BACKGROUND, 1);
        world.submit(BACKGROUND, HALF);
        assert_eq!(world.engine.outstanding(), 2, "all that the lane has room for");
        world.sim.apply(Action::FailLane(lane));
        let until = world.sim.now() + Nanos::from_millis(100);
        settle(&mut world.engine, world.sim, until, |mut done| {
            assert_eq!(done.len(), HALF);
            done.pages().for_each(|page| assert_eq!(page.result, Ok(())));
        });
        assert_eq!(world.engine.in_flight(), 1, "the batch whose READs are on the lost lane");
        assert_eq!(world.settle(), (1, 0));
    });
}

#[test]
fn a_reconnect_asks_for_the_class_of_the_lost_lane() {
    let config = EngineConfig { backoff_min: Nanos(1), backoff_max: Nanos(1), ..CHUNKED };
    with_world(config, sim::SimConfig::new(6), 2, |world| {
        let mut lanes = Vec::new();
        for (rail, class) in [(0, URGENT), (0, BACKGROUND), (1, BACKGROUND), (1, BACKGROUND), (1, URGENT)] {
            lanes.push((rail, class, world.attach(rail, 8, class)));
        }
        for lost in [1..2, 0..5, 4..5, 2..4] {
            let lost = lanes[lost].to_vec();
            let mut want: Vec<_> = lost.iter().map(|&(rail, class, _)| (rail, class)).collect();
            let lost: Vec<_> = lost.iter().map(|&(_, _, lane)| lane).collect();
            lost.iter().for_each(|&lane| world.lose(lane));
            let mut made = Vec::new();
            while let Some(wanted) = world.engine.next_wanted_lane(world.sim.now()) {
                made.push((wanted.rail.0, wanted.class));
                let lane = world.attach(wanted.rail.0, 8, wanted.class);
                let at = lanes.iter_mut().find(|(rail, class, old)| {
                    (*rail, *class) == (wanted.rail.0, wanted.class) && lost.contains(old)
                });
                at.expect("a lane of this kind was lost").2 = lane;
            }
            want.sort_by_key(|&(rail, class)| (rail, place(class)));
            made.sort_by_key(|&(rail, class)| (rail, place(class)));
            assert_eq!(made, want);
        }
        world.submit(URGENT, HALF);
        world.submit(BACKGROUND, HALF);
        assert_eq!(world.settle(), (2 * HALF, 0));
    });
}

/// A lane that carried both classes fails after its class has a second lane again: each wr goes to
/// a lane of its class.
#[test]
fn wrs_of_a_dead_lane_that_carried_both_classes_go_to_lanes_of_their_classes() {
    with_world(CHUNKED, sim::SimConfig::new(7), 2, |world| {
        let both = world.attach(0, 32, URGENT);
        let lost = world.attach(1, 32, BACKGROUND);
        world.lose(lost);
        for _ in 0..2 {
            world.submit(BACKGROUND, 3);
            world.submit(URGENT, 3);
        }
        let carried = world.engine.events();
        assert_eq!(
            (carried.all(BACKGROUND, URGENT), carried.all(URGENT, URGENT)),
            (18, 13),
            "all that it has room for"
        );
        world.attach(1, 8, URGENT);
        world.attach(1, 8, BACKGROUND);
        world.lose(both);
        assert_eq!(world.settle(), (12, 0));
        let reposted = world.engine.rail_stats(RailIndex(1)).unwrap().reposted;
        assert!(reposted >= 31, "{reposted} wrs were posted again");
        assert!(world.engine.events().all(BACKGROUND, BACKGROUND) > 0);
    });
}

/// The data of pages has arrived, and they wait for their validating READs while a suspect is tried
/// on their peer's only lane, when the classes get lanes of their own.
#[test]
fn validating_reads_that_wait_when_the_classes_are_divided_go_to_lanes_of_their_classes() {
    with_world(EngineConfig::DEFAULT, sim::SimConfig::new(8), 1, |world| {
        // It has room for one READ.
        let bad = world.attach(0, 2, URGENT);
        world.sim.script(bad, Fate::Status { nth: 0, status: WcStatus::REM_OP_ERR }).unwrap();
        world.submit(URGENT, 1);
        world.attach(0, 16, URGENT);
        let wait = |world: &mut World<'_, '_, '_>, until: fn(&RailStats) -> bool| {
            while !until(&world.engine.rail_stats(RailIndex(0)).unwrap()) {
                world.engine.wait(world.sim.now(), LATE);
                world.engine.poll(world.sim.now());
                assert!(!world.engine.has_news(), "no batch is done");
            }
        };
        // While the failed lane is flushed the other one gets READs, and it is kept for the suspect
        // before they have completed.
        wait(world, |rail| rail.lanes_failed == 1);
        world.sim.advance_to(world.sim.now() + Nanos::from_micros(50));
        world.submit(BACKGROUND, 3);
        world.submit(URGENT, 3);
        wait(world, |rail| rail.reposted == 1);
        assert_eq!(world.engine.rail_stats(RailIndex(0)).unwrap().chunks, 6, "the data has arrived");
        assert_eq!(world.engine.outstanding(), 1, "the suspect alone is under way");
        world.attach(0, 16, URGENT);
        world.attach(0, 16, BACKGROUND);
        assert_eq!(world.settle(), (7, 0));
        let events = world.engine.events();
        assert!(events.all(BACKGROUND, BACKGROUND) > 0);
        assert_eq!(events.all(URGENT, BACKGROUND), 0);
    });
}

/// The background's only lane gets no answer, so it is silent, and then stalls.
#[test]
fn urgent_work_does_not_wait_for_a_background_lane_that_is_silent() {
    let model = sim::SimConfig { retry: Nanos::from_secs(60), ..sim::SimConfig::new(9) };
    with_world(CHUNKED, model, 2, |world| {
        world.attach_each(2, 8, URGENT);
        world.attach(1, 8, BACKGROUND);
        let slow = world.sim.now();
        world.sim.apply(Action::RailDown { rail: RailIndex(1), told: false });
        world.submit(BACKGROUND, HALF);
        // Rail 1 answers no urgent READ either, and these stall there once.
        let began = world.sim.now() + Nanos::from_millis(50);
        while world.sim.now() < began {
            world.engine.wait(world.sim.now(), began);
            world.engine.poll(world.sim.now());
        }
        world.sim.apply(Action::RailUp { rail: RailIndex(1), told: false });
        world.submit(URGENT, HALF);
        assert_eq!(world.settle(), (2 * HALF, 0));
        let took = world.sim.now().since(slow);
        assert!(took < EngineConfig::DEFAULT.stall, "{took:?}: nothing stalled");
    });
}

#[test]
fn background_work_that_lost_its_stalled_lane_is_not_stuck() {
    let model = sim::SimConfig { retry: Nanos::from_secs(60), ..sim::SimConfig::new(10) };
    with_world(CHUNKED, model, 2, |world| {
        world.attach(0, 8, URGENT);
        world.attach(1, 8, BACKGROUND);
        world.sim.apply(Action::RailDown { rail: RailIndex(1), told: false });
        let began = world.sim.now();
        world.submit(BACKGROUND, HALF);
        assert_eq!(world.settle(), (HALF, 0));
        let took = world.sim.now().since(began);
        let stall = EngineConfig::DEFAULT.stall;
        assert!(took > stall && took < Nanos(2 * stall.0), "{took:?}");
        assert_eq!(world.detours(), 1);
    });
}

/// Urgent work fills the rail all the time, and the background gets its share of it.
#[test]
fn neither_class_starves_while_both_have_work() {
    let config = EngineConfig { rail_wrs: 4, run_chunks: 2, quantum_bytes: 8192, ..CHUNKED };
    for lanes in [[URGENT, BACKGROUND], [URGENT, URGENT]] {
        with_world(config, sim::SimConfig::new(11), 1, |world| {
            lanes.iter().for_each(|&class| world.attach_each(1, 8, class));
            (0..4).for_each(|_| world.submit(URGENT, 2));
            world.submit(BACKGROUND, 1);
            let (mut urgent, mut background) = (0, 0);
            while background == 0 {
                while world.engine.in_flight() < 5 {
                    world.submit(URGENT, 2);
                }
                let until = world.sim.now() + Nanos::from_micros(20);
                world.engine.wait(world.sim.now(), until);
                world.engine.poll(world.sim.now());
                while let Some(mut done) = world.engine.next_done() {
                    let pages = done.len();
                    done.pages().for_each(|page| assert_eq!(page.result, Ok(())));
                    if pages == 1 { background += 1 } else { urgent += 1 }
                }
                assert!(urgent < 120, "the background waits behind {urgent} urgent batches");
            }
            assert!(urgent > 0);
            world.settle();
        });
    }
}

#[test]
fn suspects_are_tried_on_lanes_of_their_class() {
    for (class, other) in [(URGENT, BACKGROUND), (BACKGROUND, URGENT)] {
        with_world(CHUNKED, sim::SimConfig::new(12), 2, |world| {
            for rail in 0..2 {
                world.attach(rail, 8, other);
                (0..2).for_each(|_| _ = world.attach(rail, 8, class));
            }
            let offset = (place(class) * HALF * STRIDE) as u64;
            let bad = FailedRanges { offset, len: 1, stride: 1, count: 1 };
            world.sim.apply(Action::FailMemory(world.owner.memory, bad));
            world.submit(class, 2);
            world.submit(other, 2);
            assert_eq!(world.settle(), (3, 1), "the page that has failed fails, and no other");
            assert_eq!(world.engine.events().all(class, other), 0);
            assert_eq!(world.detours(), 0);
        });
    }
}

/// Suspects of both classes wait, and each class has a single lane to try them on.
#[test]
fn suspects_of_both_classes_take_turns() {
    with_world(CHUNKED, sim::SimConfig::new(13), 2, |world| {
        for rail in 0..2 {
            for class in [URGENT, BACKGROUND] {
                let lane = world.attach(rail, 16, class);
                if rail == 0 {
                    // The path seems to be bad, so the READs that failed are suspects and no more.
                    let fate = Fate::Status { nth: 1, status: WcStatus::RETRY_EXC_ERR };
                    world.sim.script(lane, fate).unwrap();
                }
            }
        }
        for _ in 0..3 {
            world.submit(URGENT, 4);
            world.submit(BACKGROUND, 4);
        }
        assert_eq!(world.settle(), (24, 0));
        let lost: u64 =
            (0..2).map(|rail| world.engine.rail_stats(RailIndex(rail)).unwrap().lanes_failed).sum();
        assert_eq!(lost, 2);
    });
}
