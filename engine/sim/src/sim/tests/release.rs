//! Failing, draining and closing lanes; and the promises of an engine whose breach is recorded.

use super::*;

fn slow_changes(seed: u64) -> SimConfig {
    SimConfig {
        fail: Delay::fixed(Nanos::from_micros(50)),
        close: Delay::fixed(Nanos::from_micros(100)),
        flush: Delay::fixed(Nanos(100)),
        ..SimConfig::new(seed)
    }
}

#[test]
fn a_failed_lane_flushes_and_the_drain_is_last() {
    for late_bytes in [false, true] {
        crate::test_seeds::each("a_failed_lane_flushes_and_the_drain_is_last", 0..20, |seed| {
            let config = SimConfig { late_bytes, pieces: 4, ..slow_changes(seed) };
            let mut bench = Bench::new(config, &[rail()]);
            let mut lane = bench.lane(0, 0, SPEC);
            // 100 us each: the first is still under way when the lane enters the error state.
            bench.post(&mut lane, 8, 120_000);
            bench
                .sim
                .apply(Action::RailRate { rail: RailIndex(0), rate: Rate::bytes_per_sec(1_200_000_000) });
            bench.rails.fail(&mut lane.lane);
            bench.sim.advance_to(Time(49_999));
            assert_eq!(bench.events(), []);
            bench.sim.advance_to(Time(50_000));
            bench.poll();
            assert_eq!((bench.events(), bench.seen.len()), (vec![ProviderEvent::LaneFailed(lane.id)], 0));
            let drain = WrId::new(lane.id, 1000);
            assert_eq!(bench.rails.drain(&mut lane.lane, drain), Ok(()));
            bench.run();
            assert_eq!(bench.statuses(), flushes(0, 8).chain(flushes(1000, 1001)).collect::<Vec<_>>());
            // Nothing changes from now on.
            let before = bench.ours().to_vec();
            bench.sim.protect(bench.range()).unwrap();
            bench.rails.close(lane.lane);
            bench.sim.advance_to(bench.sim.now() + Nanos::from_millis(10));
            assert_eq!(bench.events(), [ProviderEvent::LaneClosed(lane.id)]);
            assert!(
                bench.ours() == before && bench.sim.violations().is_empty(),
                "{:?}",
                bench.sim.violations()
            );
        });
    }
}

#[test]
fn late_bytes_land_after_their_flush_and_before_the_drain() {
    let mut late = 0;
    let all =
        crate::test_seeds::each("late_bytes_land_after_their_flush_and_before_the_drain", 0..40, |seed| {
            let config = SimConfig { late_bytes: true, ..slow_changes(seed) };
            let mut bench = Bench::new(config, &[rail()]);
            let mut lane = bench.lane(0, 0, SPEC);
            bench.post(&mut lane, 2, 120_000);
            bench
                .sim
                .apply(Action::RailRate { rail: RailIndex(0), rate: Rate::bytes_per_sec(1_200_000_000) });
            bench.rails.fail(&mut lane.lane);
            bench.sim.advance_to(Time(50_200));
            bench.poll();
            assert_eq!(bench.statuses(), flushes(0, 2).collect::<Vec<_>>());
            assert_eq!(bench.rails.drain(&mut lane.lane, WrId::new(lane.id, 2)), Ok(()));
            let flushed = bench.ours().to_vec();
            while bench.seen.len() < 3 {
                assert!(bench.sim.step());
                bench.poll();
            }
            late += u32::from(bench.ours() != flushed);
            let drained = bench.ours().to_vec();
            bench.run();
            assert!(bench.ours() == drained);
        });
    assert!(!all || (5..35).contains(&late), "{late} of 40");
}

#[test]
fn drains_and_closes_can_fail_in_every_way() {
    let mut bench = Bench::new(slow_changes(1), &[rail()]);
    let mut lanes: Vec<_> = (0..3).map(|i| bench.lane(i, 0, SPEC)).collect();
    bench.sim.script(lanes[0].lane.handle(), Fate::DrainLost).unwrap();
    bench.sim.script(lanes[1].lane.handle(), Fate::DrainRefused { errno: 28 }).unwrap();
    bench.sim.script(lanes[2].lane.handle(), Fate::CloseHangs).unwrap();
    for lane in &mut lanes {
        bench.rails.fail(&mut lane.lane);
    }
    bench.run();
    assert_eq!(bench.events().len(), 3);
    let drains: Vec<_> =
        lanes.iter_mut().map(|lane| bench.rails.drain(&mut lane.lane, WrId::new(lane.id, 0))).collect();
    assert_eq!(drains, [Ok(()), Err(28), Ok(())]);
    bench.run();
    let drained: Vec<_> = bench.seen.iter().map(|(_, wc)| wc.wr_id().lane().index()).collect();
    assert_eq!(drained, [2]);
    let ids: Vec<_> = lanes.iter().map(|lane| lane.id).collect();
    for lane in lanes {
        bench.rails.close(lane.lane);
    }
    bench.run();
    assert_eq!(bench.events(), [ProviderEvent::LaneClosed(ids[0]), ProviderEvent::LaneClosed(ids[1])]);
    // The place of the lane that cannot be closed is not used again.
    for i in 0..7 {
        bench.lane(i, 0, SPEC);
    }
    assert!(bench.sim.connect(RailIndex(0), bench.peer, RailIndex(0), SPEC).is_err());
}

#[test]
fn a_closed_lane_gives_no_new_completion_and_may_remove_its_old_ones() {
    for (purge, told) in [(false, 2), (true, 0)] {
        let mut bench = Bench::new(SimConfig { purge, ..slow_changes(1) }, &[rail()]);
        let (mut lane, mut other) = (bench.lane(0, 0, SPEC), bench.lane(1, 0, SPEC));
        // 20 us each: two of five complete before the close takes effect at 100 us.
        bench.sim.apply(Action::RailRate { rail: RailIndex(0), rate: Rate::bytes_per_sec(2_450_000_000) });
        bench.post(&mut other, 1, 49_000);
        bench.post_with(&mut lane, 5, 98_000, |_, read| read.len = 90_000);
        let id = lane.id;
        bench.rails.close(lane.lane);
        bench.sim.advance_to(Time(10_000_000));
        assert_eq!(bench.events(), [ProviderEvent::LaneClosed(id)]);
        bench.poll();
        let of = |index| bench.seen.iter().filter(|(_, wc)| wc.wr_id().lane().index() == index).count();
        assert_eq!((of(0), of(1)), (told, 1));
    }
}

#[test]
fn dropping_the_rails_stops_all_writing() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post(&mut lane, 5, 10_000);
    drop(bench.rails);
    assert!(!bench.sim.step());
    bench.rails = bench.sim.rails();
    assert!(bench.ours().iter().all(|b| *b == 0));
}

// Broken promises of an engine.

fn only(bench: &Bench) -> Violation {
    let violations = bench.sim.violations();
    assert_eq!(violations.count(), 1, "{violations:?}");
    violations.iter().next().unwrap()
}

#[test]
fn posting_without_credits_is_recorded() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SimLaneSpec { sq_entries: 8, rd_atomic: 2 });
    let key = lane.lane.handle();
    assert_eq!(bench.post(&mut lane, 7, 100), Commit::All);
    assert!(bench.sim.violations().is_empty());
    // A place is free again when its completion is polled, not when the wr completes.
    bench.sim.advance_to(Time(1_000_000));
    assert_eq!(bench.post(&mut lane, 3, 100), Commit::Prefix { accepted: 1, errno: 12 });
    assert_eq!(only(&bench), Violation::SqOverrun { lane: key, wanted: 3, room: 1 });
    bench.run();
    bench.poll();
    assert_eq!(bench.post(&mut lane, 8, 100), Commit::All);
    assert_eq!(bench.rails.drain(&mut lane.lane, WrId::new(lane.id, 0)), Err(12));
    assert_eq!(bench.sim.violations().count(), 3, "the drain is too early, and has no place in reserve");
}

#[test]
fn an_overrun_completion_queue_is_recorded() {
    let mut bench = Bench::new(SimConfig::new(1), &[RailSpec { cq_entries: 9, ..rail() }]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post(&mut lane, 9, 100);
    bench.sim.advance_to(Time(1_000_000));
    assert!(bench.sim.violations().is_empty());
    bench.post_with(&mut lane, 2, 100, |i, read| read.signaled = i == 1);
    bench.sim.advance_to(Time(2_000_000));
    assert_eq!(only(&bench), Violation::CqOverrun { rail: RailIndex(0), entries: 9 });
    bench.poll();
    assert_eq!(bench.seen.len(), 9);
}

#[test]
fn a_write_after_release_is_recorded_and_does_not_happen() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    let key = lane.lane.handle();
    bench.post(&mut lane, 3, 1000);
    let range = MemoryRange { addr: bench.range().addr + 1999, len: 1 };
    bench.sim.protect(range).unwrap();
    bench.run();
    let hit = MemoryRange { addr: bench.range().addr + 1000, len: 1000 };
    let wr_id = WrId::new(lane.id, 1);
    assert_eq!(only(&bench), Violation::WriteAfterRelease { lane: key, wr_id, range: hit });
    assert!(bench.ours()[1000..2000].iter().all(|b| *b == 0));
    assert!(bench.ours()[2000..3000].iter().any(|b| *b != 0));
    assert!(bench.sim.unprotect(range) && !bench.sim.unprotect(range));
}

#[test]
fn a_write_of_a_drained_or_closed_lane_is_recorded() {
    for (state, drained) in [(super::lane::State::Error, true), (super::lane::State::Free, false)] {
        let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
        let mut lane = bench.lane(0, 0, SPEC);
        bench.post(&mut lane, 1, 1000);
        let mut model = bench.sim.model.borrow_mut();
        let place = lane.lane.handle().place as usize;
        model.lanes[place].state = state;
        model.lanes[place].drained = drained;
        let slot = model.slot(place, 0);
        model.wrs[slot].pieces = 1;
        model.land(place, slot);
        drop(model);
        assert!(matches!(only(&bench), Violation::WriteAfterRelease { .. }));
        assert!(bench.ours().iter().all(|b| *b == 0));
    }
}

#[test]
fn memory_in_use_must_not_be_deregistered() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post(&mut lane, 3, 1000);
    let (range, keys) = (bench.range(), bench.keys);
    bench.rails.deregister(range, &keys);
    let expected =
        Violation::DeregisteredInUse { range, lane: lane.lane.handle(), wr_id: WrId::new(lane.id, 0) };
    assert_eq!(only(&bench), expected);
    bench.run();
    // The memory is not written.
    assert!(bench.ours().iter().all(|b| *b == 0));
    assert_eq!(bench.statuses()[0], (0, WcStatus::LOC_PROT_ERR));
    bench.rails.deregister(range, &keys);
    assert_eq!(bench.sim.violations().iter().last(), Some(Violation::NotRegistered { range }));
    // An old key is not valid for a later registration in the same place.
    let again = bench.rails.register(range).unwrap();
    assert!(again.iter().all(|key| !keys.contains(key)));
    bench.rails.deregister(range, &again);
    assert_eq!(bench.sim.violations().count(), 2);
}

#[test]
fn registrations_are_bounded() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let range = bench.range();
    let made = std::iter::from_fn(|| bench.rails.register(range).ok()).count();
    assert_eq!(made, 255);
    assert_eq!(bench.rails.register(range).unwrap_err().errno, 12);
}

#[test]
fn other_broken_promises_are_recorded() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    let key = lane.lane.handle();
    bench.post(&mut lane, 1, 64);
    assert_eq!(bench.rails.drain(&mut lane.lane, WrId::new(lane.id, 1)), Ok(()));
    bench.run();
    assert_eq!(bench.statuses(), successes(0, 2).collect::<Vec<_>>());
    bench.post_with(&mut lane, 1, 64, |_, read| read.len = 0);
    let other = LaneId::new(0, 2);
    bench.post_with(&mut lane, 1, 64, |_, read| read.wr_id = WrId::new(other, 2));
    // SAFETY: the local memory is this test's, and not looked at meanwhile.
    let mut post = unsafe { bench.rails.begin(&mut lane.lane) };
    let read =
        Read { wr_id: WrId(0), remote_addr: BASE, local_addr: 0, len: 1, rkey: 0, lkey: 0, signaled: true };
    (0..=CHAIN).for_each(|_| post.read(read));
    drop(post);
    let recorded: Vec<_> = bench.sim.violations().iter().collect();
    assert_eq!(
        recorded,
        [
            Violation::DrainTooEarly { lane: key },
            Violation::EmptyRead { wr_id: WrId::new(lane.id, 1) },
            Violation::WrongLaneId { lane: key, expected: lane.id, found: other },
            Violation::ChainTooLong { lane: key, chain: CHAIN },
        ]
    );
}

#[test]
fn a_lane_of_another_model_is_left_as_it_is() {
    let (mut bench, mut others) =
        (Bench::new(SimConfig::new(1), &[rail()]), Bench::new(SimConfig::new(1), &[rail()]));
    // Both lanes have the same id.
    let (mut lane, mut other) = (bench.lane(0, 0, SPEC), others.lane(0, 0, SPEC));
    assert_eq!(lane.lane.handle(), other.lane.handle());
    bench.post(&mut lane, 1, 64);
    others.rails.fail(&mut lane.lane);
    assert_eq!(others.rails.drain(&mut lane.lane, WrId::new(lane.id, 1)), Err(22));
    bench.run();
    assert_eq!(bench.statuses(), successes(0, 1).collect::<Vec<_>>(), "it has not failed");
    others.rails.close(lane.lane);
    others.post(&mut other, 1, 64);
    others.run();
    assert_eq!(others.statuses(), successes(0, 1).collect::<Vec<_>>(), "its own is not closed");
    let qp = bench.sim.connect(RailIndex(0), bench.peer, RailIndex(0), SPEC).unwrap();
    let (key, id) = (qp.handle(), LaneId::new(1, 1));
    assert_eq!(others.rails.open(id, RailIndex(0), qp).unwrap_err(), SimLaneError::NotOurs(key));
    assert!(bench.sim.violations().is_empty() && others.sim.violations().is_empty());
}

#[test]
fn unread_events_pile_up_only_so_far() {
    let bench = Bench::new(SimConfig::new(1), &[rail()]);
    for _ in 0..33 {
        bench.sim.apply(Action::RailUp { rail: RailIndex(0), told: true });
    }
    assert_eq!(only(&bench), Violation::EventLost { event: ProviderEvent::RailUp(RailIndex(0)) });
    let text = std::format!("{:?}", bench.sim.violations());
    assert!(text.contains("EventLost"), "{text}");
}
