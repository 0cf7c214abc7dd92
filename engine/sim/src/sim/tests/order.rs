//! Order of completions, signaling, the moment at which bytes are copied, and reproducible runs.

use super::*;
use crate::rng::SplitMix64;
use crate::test_seeds;

#[test]
fn bytes_arrive_where_they_belong() {
    let mut bench = Bench::new(SimConfig { pieces: 5, ..SimConfig::new(1) }, &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post(&mut lane, 10, 10_007);
    bench.run();
    let expected: Vec<u8> = (0..MIB).map(|i| if i < 100_070 { (i % 251) as u8 } else { 0 }).collect();
    assert!(bench.ours() == expected);
    assert_eq!(bench.statuses(), successes(0, 10).collect::<Vec<_>>());
}

#[test]
fn only_signaled_successes_give_completions() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post_with(&mut lane, 20, 1000, |i, read| read.signaled = i % 8 == 7 || i == 19);
    bench.run();
    let told: Vec<u32> = bench.statuses().iter().map(|(seq, _)| *seq).collect();
    assert_eq!(told, [7, 15, 19]);
    assert_eq!(
        bench.sim.rail_stats(RailIndex(0)),
        SimRailStats { reads: 20, bytes: 20_000, failed: 0, incomplete: 0 }
    );
}

#[test]
fn completions_keep_the_order_of_their_lane_and_mix_between_lanes() {
    let spec = RailSpec { jitter: Nanos::from_micros(30), ..rail() };
    let mut bench = Bench::new(SimConfig::new(9), &[spec, spec]);
    let mut lanes: Vec<_> = (0..4).map(|i| bench.lane(i, (i % 2) as u8, SPEC)).collect();
    for lane in &mut lanes {
        bench.post(lane, 60, 500);
    }
    bench.run();
    assert_eq!(bench.seen.len(), 240);
    let mut turns = 0;
    let mut last = None;
    let mut next = [0; 4];
    for (_, wc) in &bench.seen {
        let lane = wc.wr_id().lane().index();
        assert_eq!(wc.wr_id().seq(), next[lane], "lane {lane}");
        next[lane] += 1;
        turns += u32::from(last.is_some_and(|last| last != lane));
        last = Some(lane);
    }
    assert!(turns > 30, "the lanes took {turns} turns only");
}

/// The observable results of a random run: times, completions, events, and a digest of the bytes.
fn fuzz(seed: u64) -> (Vec<(u64, u64, WcStatus)>, Vec<ProviderEvent>, u64) {
    let odds = Odds::per_million(20_000);
    let faults = Faults {
        wr: odds,
        statuses: Faults::EVERY_STATUS,
        lost: odds,
        incomplete: odds,
        prefix: odds,
        unknown: odds,
        drain_lost: odds,
        drain_refused: odds,
        close_hangs: odds,
        announced: Odds::per_million(500_000),
    };
    let config = SimConfig {
        pieces: 3,
        late_bytes: seed.is_multiple_of(2),
        purge: seed.is_multiple_of(3),
        faults,
        ..SimConfig::new(seed)
    };
    let spec = RailSpec { jitter: Nanos::from_micros(5), ..rail() };
    let mut bench = Bench::sized(config, &[spec, spec], 1 << 15);
    bench.sim.at(Time(40_000), Action::RailDown { rail: RailIndex(1), told: true }).unwrap();
    bench.sim.at(Time(60_000), Action::RailUp { rail: RailIndex(1), told: true }).unwrap();
    bench
        .sim
        .at(Time(90_000), Action::RailRate { rail: RailIndex(0), rate: Rate::bytes_per_sec(1 << 30) })
        .unwrap();
    let mut inputs = SplitMix64::new(seed ^ 0xABCD);
    let mut lanes: Vec<_> = (0..4).map(|i| bench.lane(i, (i % 2) as u8, SPEC)).collect();
    let mut events = Vec::new();
    for round in 0..60_u64 {
        let which = usize::try_from(inputs.up_to(lanes.len() as u64 - 1)).unwrap();
        let (n, len) = (inputs.up_to(5) as u32, 1 + inputs.up_to(5000) as u32);
        let lane = &mut lanes[which];
        // This test keeps no credits: a queue without room for a burst is skipped, a failing one is
        // drained.
        if (lane.next as usize) < 50 {
            let _ = bench.post_with(lane, n, len, |i, read| read.signaled = i + 1 == n);
        } else if round % 3 == 0 {
            bench.rails.fail(&mut lane.lane);
        }
        let until = bench.sim.now() + Nanos(inputs.up_to(5_000));
        bench.sim.advance_to(until);
        bench.poll();
        events.extend(bench.events());
    }
    for lane in lanes.drain(..) {
        bench.rails.close(lane.lane);
    }
    bench.run();
    events.extend(bench.events());
    let digest = bench.ours().iter().fold(0_u64, |d, b| d.rotate_left(5).wrapping_mul(31) ^ u64::from(*b));
    (bench.seen.iter().map(|(t, wc)| (*t, wc.wr_id().0, wc.status())).collect(), events, digest)
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    test_seeds::each("the_same_seed_gives_the_same_run_and_another_another", 0..20, |seed| {
        let first = fuzz(seed);
        assert!(first.0.len() > 10);
        assert!(first == fuzz(seed), "seed {seed} is not repeatable");
        assert!(first.0 != fuzz(seed.wrapping_add(1000)).0);
    });
}

#[test]
fn one_storage_serves_one_model_after_another() {
    let mut storage = SimStorage::<1, 1, 2, 4, 8>::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (mut theirs, mut ours) = ([3_u8; 64], [0_u8; 64]);
        let spec = RailSpec { cq_entries: 8, ..rail() };
        let sim = Sim::new(&mut storage, SimConfig::new(5), &[spec]).unwrap();
        let peer = sim.add_peer().unwrap();
        assert_eq!(sim.add_peer(), Err(SimPeerError { room: 1 }));
        sim.publish(peer, 0, &mut theirs, [9; 16]).unwrap();
        let mut rails = sim.rails();
        let addr = ours.as_mut_ptr().expose_provenance() as u64;
        let keys = rails.register(MemoryRange { addr, len: 64 }).unwrap();
        let spec = SimLaneSpec { sq_entries: 4, rd_atomic: 1 };
        let qp = sim.connect(RailIndex(0), peer, RailIndex(0), spec).unwrap();
        let mut lane = rails.open(LaneId::new(0, 0), RailIndex(0), qp).unwrap();
        let wr_id = WrId::new(LaneId::new(0, 0), 0);
        // SAFETY: the local memory is this test's, and not looked at meanwhile.
        let mut post = unsafe { rails.begin(&mut lane) };
        let read =
            Read { wr_id, remote_addr: 0, local_addr: addr, len: 64, rkey: 9, lkey: keys[0], signaled: true };
        post.read(read);
        // A dropped commit posts nothing.
        drop(post);
        assert!(!sim.step());
        // SAFETY: the local memory is this test's, and not looked at meanwhile.
        let mut post = unsafe { rails.begin(&mut lane) };
        post.read(read);
        assert_eq!(post.commit(), Commit::All);
        sim.advance_to(Time::NEVER);
        ends.push(sim.now());
        drop(rails);
        assert_eq!(ours, [3; 64]);
    }
    assert_eq!(ends, [Time(6_002); 3]);
}

#[test]
fn a_torn_page_is_torn_where_the_owner_wrote() {
    let mut bench = Bench::new(SimConfig { pieces: 4, ..SimConfig::new(2) }, &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.sim.with_memory(bench.memory, |bytes| bytes.fill(1));
    bench.post(&mut lane, 1, 400_000);
    // Half of a READ that is at the responder from 3,000 to 14,164 ns.
    bench
        .sim
        .at(Time(8_500), Action::Fill { memory: bench.memory, offset: 0, len: 400_000, byte: 2 })
        .unwrap();
    bench.run();
    let old = bench.ours()[..400_000].iter().filter(|b| **b == 1).count();
    assert!(old % 100_000 == 0 && (100_000..400_000).contains(&old), "{old}");
    assert!(bench.ours()[..old].iter().all(|b| *b == 1));
    assert!(bench.ours()[old..400_000].iter().all(|b| *b == 2));
}

#[test]
fn wait_ends_for_completions_errors_events_wakers_and_time() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    let wait = |bench: &mut Bench, until, completions| {
        let now = bench.sim.now();
        bench.rails.wait(WaitFor { now, until: Time(until), completions });
        bench.sim.now().0
    };
    // Nothing can happen and there is no end time, so the clock does not move.
    assert_eq!(wait(&mut bench, u64::MAX, 1), 0);
    bench.post_with(&mut lane, 4, 49_000, |_, read| read.signaled = false);
    // READs complete at 7,000, 8,000, ...; unsignaled ones count.
    assert_eq!(wait(&mut bench, 20_000, 2), 8_000);
    assert_eq!(wait(&mut bench, 8_500, 1), 8_500);
    assert_eq!(wait(&mut bench, 20_000, 0), 20_000);
    // Completions that wait to be polled end a wait for completions, and no other wait.
    bench.post(&mut lane, 1, 49_000);
    assert_eq!(wait(&mut bench, 30_000, 1), 27_000);
    assert_eq!(wait(&mut bench, 31_000, 1), 27_000);
    assert_eq!(wait(&mut bench, 31_000, 0), 31_000);
    // An error, an event, a waker.
    bench.poll();
    bench.post_with(&mut lane, 1, 64, |_, read| read.rkey += 1);
    assert_eq!(wait(&mut bench, 99_000, 0), 37_000);
    bench.poll();
    bench.sim.at(Time(50_000), Action::RailUp { rail: RailIndex(0), told: true }).unwrap();
    assert_eq!(wait(&mut bench, 99_000, 0), 50_000);
    assert_eq!(wait(&mut bench, 99_000, 0), 50_000);
    assert_eq!(bench.events(), [ProviderEvent::RailUp(RailIndex(0))]);
    kvrail_core::provider::Wake::wake(&bench.rails.waker());
    assert_eq!(wait(&mut bench, 99_000, 0), 50_000);
    assert_eq!(wait(&mut bench, 99_000, 0), 99_000);
}
