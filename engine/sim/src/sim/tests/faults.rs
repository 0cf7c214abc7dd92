//! Every kind of fault gives exactly the completions that a QP would give.

use super::*;

/// A lane that has accepted `n` READs of 1,000 bytes, of which every fourth is signaled.
fn sparse(bench: &mut Bench, lane: &mut Lane, n: u32) {
    assert_eq!(bench.post_with(lane, n, 1000, |i, read| read.signaled = i % 4 == 3), Commit::All);
}

/// The completions of a lane with 20 such READs whose 9th fails.
fn after_the_ninth(status: WcStatus) -> Vec<(u32, WcStatus)> {
    [(3, WcStatus::SUCCESS), (7, WcStatus::SUCCESS), (9, status)].into_iter().chain(flushes(10, 20)).collect()
}

#[test]
fn a_failed_wr_gives_a_completion_and_all_later_ones_are_flushed() {
    for &status in Faults::EVERY_STATUS {
        let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
        let mut lane = bench.lane(0, 0, SPEC);
        bench.sim.script(lane.lane.handle(), Fate::Status { nth: 9, status }).unwrap();
        sparse(&mut bench, &mut lane, 20);
        bench.run();
        assert_eq!(bench.statuses(), after_the_ninth(status), "{status:?}");
        // READs that are posted later are flushed, too.
        sparse(&mut bench, &mut lane, 3);
        bench.run();
        assert_eq!(bench.statuses()[13..], flushes(20, 23).collect::<Vec<_>>());
        assert!(bench.sim.violations().is_empty());
    }
}

#[test]
fn random_errors_fail_one_wr_and_flush_the_later_ones() {
    let faults = Faults { wr: Odds::per_million(10_000), statuses: Faults::EVERY_STATUS, ..Faults::NONE };
    let mut kinds = std::collections::BTreeSet::new();
    let all = crate::test_seeds::each("random_errors_fail_one_wr_and_flush_the_later_ones", 0..400, |seed| {
        let mut bench = Bench::sized(SimConfig { faults, ..SimConfig::new(seed) }, &[rail()], 4096);
        let mut lane = bench.lane(0, 0, SPEC);
        bench.post(&mut lane, 60, 64);
        bench.run();
        // Successes, at most one error, then flushes; each wr has one completion.
        let told = bench.statuses();
        let good = told.iter().take_while(|(_, s)| s.is_success()).count() as u32;
        kinds.extend(told.get(good as usize).map(|(_, s)| s.0));
        let expected =
            successes(0, good).chain(told.get(good as usize).copied()).chain(flushes(good + 1, 60));
        assert_eq!(told, expected.collect::<Vec<_>>(), "seed {seed}");
    });
    assert!(!all || kinds.len() > 15);
    assert!(!kinds.contains(&WcStatus::WR_FLUSH_ERR.0), "{kinds:?}");
}

#[test]
fn the_responder_checks_key_and_range() {
    type Spoil = fn(&mut Read);
    let spoils: [Spoil; 5] = [
        |read| read.rkey += 1,
        |read| read.remote_addr = BASE - 1,
        |read| read.remote_addr = BASE + MIB as u64 - 999,
        |read| read.remote_addr = u64::MAX - 10,
        |read| read.remote_addr = 0,
    ];
    for spoil in spoils {
        let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
        let mut lane = bench.lane(0, 0, SPEC);
        let _ = bench.post_with(&mut lane, 20, 1000, |i, read| {
            read.signaled = i % 4 == 3;
            if i == 9 {
                spoil(read);
            }
        });
        bench.run();
        assert_eq!(bench.statuses(), after_the_ninth(WcStatus::REM_ACCESS_ERR));
        assert!(bench.ours()[9_000..].iter().all(|b| *b == 0), "a refused READ, or a later one, moved bytes");
    }
}

#[test]
fn the_nic_checks_local_key_and_range() {
    type Spoil = fn(&mut Read);
    let spoils: [Spoil; 4] = [
        |read| read.lkey += 1,
        |read| read.lkey = 0,
        |read| read.local_addr -= 10_000_000,
        |read| read.local_addr += MIB as u64,
    ];
    for spoil in spoils {
        let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
        let mut lane = bench.lane(0, 0, SPEC);
        let _ = bench.post_with(&mut lane, 20, 1000, |i, read| {
            read.signaled = i % 4 == 3;
            if i == 9 {
                spoil(read);
            }
        });
        bench.run();
        assert_eq!(bench.statuses(), after_the_ninth(WcStatus::LOC_PROT_ERR));
    }
}

#[test]
fn revoked_memory_refuses_later_reads_and_those_under_way() {
    let mut bench = Bench::new(SimConfig { pieces: 8, ..SimConfig::new(1) }, &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post(&mut lane, 3, 49_000);
    // The bytes of the first READ are copied between 3,000 and 7,000 ns.
    bench.sim.at(Time(5_000), Action::Revoke(bench.memory)).unwrap();
    bench.run();
    let expected: Vec<_> = [(0, WcStatus::REM_ACCESS_ERR)].into_iter().chain(flushes(1, 3)).collect();
    assert_eq!(bench.statuses(), expected);
}

#[test]
fn a_partial_post_executes_its_prefix_and_nothing_else() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.sim.script(lane.lane.handle(), Fate::Prefix { nth: 1, accepted: 3, errno: 12 }).unwrap();
    assert_eq!(bench.post(&mut lane, 4, 1000), Commit::All);
    assert_eq!(bench.post(&mut lane, 4, 1000), Commit::Prefix { accepted: 3, errno: 12 });
    bench.run();
    assert_eq!(bench.statuses(), successes(0, 7).collect::<Vec<_>>());
    assert!(bench.ours()[7_000..].iter().all(|b| *b == 0));
}

#[test]
fn an_unclear_post_may_have_queued_all_or_some() {
    for (queued, n) in [(u32::MAX, 8), (2, 6), (0, 4)] {
        let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
        let mut lane = bench.lane(0, 0, SPEC);
        bench.sim.script(lane.lane.handle(), Fate::Unknown { nth: 1, queued, errno: 5 }).unwrap();
        assert_eq!(bench.post(&mut lane, 4, 1000), Commit::All);
        assert_eq!(bench.post(&mut lane, 4, 1000), Commit::Unknown { errno: 5 });
        bench.run();
        assert_eq!(bench.statuses(), successes(0, n).collect::<Vec<_>>());
    }
}

#[test]
fn the_next_completion_covers_a_lost_one() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.sim.script(lane.lane.handle(), Fate::Lost { nth: 1 }).unwrap();
    bench.post(&mut lane, 3, 1000);
    bench.run();
    assert_eq!(bench.statuses(), [(0, WcStatus::SUCCESS), (2, WcStatus::SUCCESS)]);
    assert!(bench.ours()[1000..2000].iter().any(|b| *b != 0), "its bytes are there");
}

#[test]
fn an_incomplete_read_succeeds_as_the_last_one_of_its_lane() {
    for seed in 0..20 {
        let mut bench = Bench::new(SimConfig { pieces: 4, ..SimConfig::new(seed) }, &[rail()]);
        let mut lane = bench.lane(0, 0, SPEC);
        bench.sim.script(lane.lane.handle(), Fate::Incomplete { nth: 1 }).unwrap();
        bench.post(&mut lane, 4, 4000);
        bench.run();
        let told = successes(0, 2).chain(flushes(2, 4)).collect::<Vec<_>>();
        assert_eq!(bench.statuses(), told);
        let right = |i: usize, byte: u8| byte == (i % 251) as u8;
        let rights: Vec<_> = bench.ours().iter().enumerate().map(|(i, byte)| right(i, *byte)).collect();
        assert!(rights[..4000].iter().all(|right| *right), "the READ before is whole");
        assert!(rights[4000..8000].contains(&false), "bytes are missing");
        assert_eq!(bench.sim.rail_stats(RailIndex(0)).incomplete, 1);
        assert!(bench.sim.violations().is_empty());
    }
}

#[test]
fn an_incomplete_read_with_none_behind_it_fails() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.sim.script(lane.lane.handle(), Fate::Incomplete { nth: 1 }).unwrap();
    bench.post(&mut lane, 2, 4000);
    bench.run();
    assert_eq!(bench.statuses(), [(0, WcStatus::SUCCESS), (1, WcStatus::REM_ACCESS_ERR)]);
    assert_eq!(bench.sim.rail_stats(RailIndex(0)).incomplete, 0);
}

#[test]
fn a_dead_rail_answers_nothing_and_fails_after_the_retries() {
    let config = SimConfig { retry: Nanos::from_micros(400), ..SimConfig::new(1) };
    let mut bench = Bench::new(config, &[rail(), rail()]);
    let (mut dead, mut alive) = (bench.lane(0, 0, SPEC), bench.lane(1, 1, SPEC));
    // READs of 1,000 ns each complete at 7,000, 8,000, ...
    bench.post(&mut dead, 10, 49_000);
    bench.post(&mut alive, 10, 49_000);
    bench.sim.at(Time(10_500), Action::RailDown { rail: RailIndex(0), told: true }).unwrap();
    bench.run();
    assert_eq!(bench.events(), [ProviderEvent::RailDown(RailIndex(0))]);
    let of = |lane: usize| bench.seen.iter().filter(move |(_, wc)| wc.wr_id().lane().index() == lane);
    assert!(of(1).count() == 10 && of(1).all(|(_, wc)| wc.status().is_success()));
    let told: Vec<_> = of(0).map(|(_, wc)| (wc.wr_id().seq(), wc.status())).collect();
    let expected = successes(0, 4).chain([(4, WcStatus::RETRY_EXC_ERR)]).chain(flushes(5, 10));
    assert_eq!(told, expected.collect::<Vec<_>>());
    assert_eq!(of(0).nth(4).unwrap().0, 410_500);
    // No lane can be connected over the rail until it is up.
    let refused = bench.sim.connect(RailIndex(0), bench.peer, RailIndex(0), SPEC);
    assert!(matches!(refused, Err(SimConnectError::Unreachable { .. })));
    bench.sim.apply(Action::RailUp { rail: RailIndex(0), told: true });
    assert_eq!(bench.events(), [ProviderEvent::RailUp(RailIndex(0))]);
    bench.lane(2, 0, SPEC);
}

#[test]
fn a_path_that_comes_back_in_time_loses_nothing() {
    let config = SimConfig { retry: Nanos::from_micros(400), pieces: 3, ..SimConfig::new(1) };
    for down_peer in [false, true] {
        let mut bench = Bench::new(config, &[rail()]);
        let mut lane = bench.lane(0, 0, SPEC);
        bench.post(&mut lane, 20, 49_000);
        let (down, up) = if down_peer {
            (Action::PeerDown(bench.peer), Action::PeerUp(bench.peer))
        } else {
            let rail = RailIndex(0);
            (Action::RailDown { rail, told: false }, Action::RailUp { rail, told: false })
        };
        bench.sim.at(Time(10_500), down).unwrap();
        bench.sim.at(Time(310_500), up).unwrap();
        bench.run();
        assert_eq!(bench.statuses(), successes(0, 20).collect::<Vec<_>>());
        assert!(bench.seen[4].0 >= 310_500 + 7_000 && bench.sim.now().0 < 340_000);
        let expected: Vec<u8> = (0..980_000_usize).map(|i| (i % 251) as u8).collect();
        assert!(bench.ours()[..980_000] == expected);
        assert_eq!(bench.events(), []);
    }
}

#[test]
fn reads_of_a_dead_peer_fail_after_the_retries() {
    let config = SimConfig { retry: Nanos::from_micros(400), ..SimConfig::new(1) };
    let mut bench = Bench::new(config, &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.sim.apply(Action::RemoteRailDown(bench.peer, RailIndex(0)));
    bench.sim.advance_to(Time(1_000_000));
    bench.post_with(&mut lane, 3, 64, |_, read| read.signaled = false);
    bench.run();
    let expected: Vec<_> = [(0, WcStatus::RETRY_EXC_ERR)].into_iter().chain(flushes(1, 3)).collect();
    assert_eq!(bench.statuses(), expected);
    assert_eq!(bench.seen[0].0, 1_400_000);
    // Another rail of the same peer answers.
    let other = bench.sim.connect(RailIndex(0), bench.peer, RailIndex(1), SPEC);
    assert!(other.is_ok());
}

#[test]
fn a_lane_that_fails_by_itself_reports_it() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post(&mut lane, 10, 49_000);
    bench.sim.at(Time(8_500), Action::FailLane(lane.lane.handle())).unwrap();
    bench.run();
    assert_eq!(bench.statuses(), successes(0, 2).chain(flushes(2, 10)).collect::<Vec<_>>());
    assert_eq!(bench.events(), [ProviderEvent::LaneFailed(lane.id)]);
    let announced = Faults { announced: Odds::ALWAYS, ..Faults::NONE };
    let mut bench = Bench::new(SimConfig { faults: announced, ..SimConfig::new(1) }, &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post_with(&mut lane, 1, 64, |_, read| read.rkey = 0);
    bench.run();
    assert_eq!(bench.events(), [ProviderEvent::LaneFailed(lane.id)]);
}

#[test]
fn a_refused_connection_names_the_limit() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let (sim, peer) = (bench.sim, bench.peer);
    let connect = |rail, spec| sim.connect(RailIndex(rail), peer, RailIndex(0), spec).unwrap_err();
    assert_eq!(connect(1, SPEC), SimConnectError::NoRail { rail: RailIndex(1), rails: 1 });
    for spec in [
        SimLaneSpec { sq_entries: 65, ..SPEC },
        SimLaneSpec { sq_entries: 0, ..SPEC },
        SimLaneSpec { rd_atomic: 0, ..SPEC },
    ] {
        assert_eq!(connect(0, spec), SimConnectError::Spec { spec, depth: 64 });
    }
    for i in 0..8 {
        bench.lane(i, 0, SPEC);
    }
    assert_eq!(connect(0, SPEC), SimConnectError::Full { lanes: 8 });
    let mut storage = Room::new();
    let rails = [RailSpec { cq_entries: 257, ..rail() }];
    let refused = Sim::new(&mut storage, SimConfig::new(1), &rails).unwrap_err();
    assert_eq!(refused, SimConfigError::CqEntries { rail: 0, entries: 257, room: 256 });
    assert_eq!(
        Sim::new(&mut storage, SimConfig::new(1), &[]).unwrap_err(),
        SimConfigError::Rails { rails: 0, room: 4 }
    );
}
