//! The time that READs take: rates of lines, round trips, READs in flight.

use super::*;

const RATE: f64 = 49e9;

/// Bytes per second of one lane with `rd_atomic` READs of `len` in flight, always kept full.
fn carried(rails: &[RailSpec], rd_atomic: u32, len: u32, lanes: u16, until: u64) -> f64 {
    let mut bench = Bench::new(SimConfig { copy_up_to: 64, ..SimConfig::new(1) }, rails);
    let spec = SimLaneSpec { sq_entries: 64, rd_atomic };
    let mut lanes: Vec<_> =
        (0..lanes).map(|i| bench.lane(i, (i as usize % rails.len()) as u8, spec)).collect();
    for lane in &mut lanes {
        assert_eq!(bench.post(lane, 48, len), Commit::All);
    }
    while bench.sim.now().0 < until {
        let wait = WaitFor { now: bench.sim.now(), until: Time(until), completions: 8 };
        bench.rails.wait(wait);
        bench.poll();
        let mut done = vec![0; lanes.len()];
        for (_, wc) in bench.seen.drain(..) {
            assert!(wc.status().is_success());
            done[wc.wr_id().lane().index()] += 1;
        }
        for (lane, n) in lanes.iter_mut().zip(done) {
            bench.post(lane, n, len);
        }
    }
    assert!(bench.sim.violations().is_empty(), "{:?}", bench.sim.violations());
    let bytes: u64 = (0..rails.len()).map(|r| bench.sim.rail_stats(RailIndex(r as u8)).bytes).sum();
    bytes as f64 / bench.sim.now().0 as f64 * 1e9
}

fn close(got: f64, expected: f64, tolerance: f64) {
    assert!((got / expected - 1.0).abs() < tolerance, "{got:e} instead of {expected:e}");
}

#[test]
fn sixteen_in_flight_fill_the_line() {
    close(carried(&[rail()], 16, 128 << 10, 1, 2_000_000), RATE, 0.01);
}

#[test]
fn one_in_flight_pays_the_round_trip_each_time() {
    let each = 6e-6 + 131_072.0 / RATE;
    close(carried(&[rail()], 1, 128 << 10, 1, 2_000_000), 131_072.0 / each, 0.01);
}

#[test]
fn the_rate_of_small_reads_is_bound_by_the_reads_in_flight() {
    // 16 READs of 4 KiB per round trip; the line would carry more.
    let trip = 6e-6 + 4096.0 / RATE;
    close(carried(&[rail()], 16, 4096, 1, 1_000_000), 16.0 * 4096.0 / trip, 0.2);
    close(carried(&[rail()], 16, 4096, 6, 1_000_000), RATE, 0.02);
}

#[test]
fn lanes_share_their_line_and_rails_add_up() {
    close(carried(&[rail()], 16, 128 << 10, 4, 1_000_000), RATE, 0.02);
    close(carried(&[rail(); 4], 16, 128 << 10, 8, 1_000_000), 4.0 * RATE, 0.02);
}

#[test]
fn a_read_alone_takes_a_round_trip_and_its_time_on_the_line() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post(&mut lane, 1, 131_072);
    bench.run();
    // 6,000 ns + 131,072 / 49 = 2,674.9 ns.
    assert_eq!((bench.seen[0].0, bench.seen.len()), (8_675, 1));
}

#[test]
fn the_line_of_the_peer_can_be_the_slower_one() {
    for (remote, expected) in [(10_000_000_000, 10e9), (100_000_000_000, 49e9)] {
        let mut bench = Bench::new(SimConfig { copy_up_to: 0, ..SimConfig::new(1) }, &[rail()]);
        bench.sim.apply(Action::RemoteRate(bench.peer, RailIndex(0), Rate::bytes_per_sec(remote)));
        let mut lanes: Vec<_> = (0..2).map(|i| bench.lane(i, 0, SPEC)).collect();
        for lane in &mut lanes {
            bench.post(lane, 60, 131_072);
        }
        bench.run();
        let last = bench.seen.last().unwrap().0 - 6_000;
        close(120.0 * 131_072.0 / last as f64 * 1e9, expected, 0.01);
    }
}

#[test]
fn a_slow_peer_does_not_occupy_the_local_line() {
    let mut bench = Bench::new(SimConfig { copy_up_to: 0, ..SimConfig::new(1) }, &[rail()]);
    let mut slow = bench.lane(0, 0, SPEC);
    bench.sim.apply(Action::RemoteRate(bench.peer, RailIndex(0), Rate::bytes_per_sec(1_000_000_000)));
    bench.peer = bench.sim.add_peer().unwrap();
    bench.sim.publish(bench.peer, BASE, vec![0; MIB].leak(), [RKEY; 16]).unwrap();
    let mut fast = bench.lane(1, 0, SPEC);
    bench.post(&mut slow, 30, 131_072);
    bench.post(&mut fast, 30, 131_072);
    bench.run();
    let last = |lane: usize| bench.seen.iter().rfind(|(_, wc)| wc.wr_id().lane().index() == lane);
    assert!(last(1).unwrap().0 < 100_000, "{:?}", last(1));
    assert!(last(0).unwrap().0 > 30 * 131_000, "{:?}", last(0));
}

#[test]
fn a_line_that_slows_down_delays_reads_on_their_way() {
    let mut bench = Bench::new(SimConfig::new(1), &[rail()]);
    let mut lane = bench.lane(0, 0, SPEC);
    bench.post(&mut lane, 10, 98_000);
    // 10 READs of 2,000 ns each begin at 3,000 ns. At 13,000 ns half of their bytes have left the
    // line.
    let slow = Action::RailRate { rail: RailIndex(0), rate: Rate::bytes_per_sec(4_900_000_000) };
    bench.sim.at(Time(13_000), slow).unwrap();
    bench.run();
    let times: Vec<u64> = bench.seen.iter().map(|(t, _)| *t).collect();
    assert_eq!(times[..4], [8_000, 10_000, 12_000, 14_000]);
    // Bytes that left the line before 13,000 ns arrive as planned; the others take ten times as
    // long.
    assert_eq!(times[4..], [16_000, 36_000, 56_000, 76_000, 96_000, 116_000]);
}

#[test]
fn a_change_of_rate_changes_only_the_time_on_the_line() {
    let spec = RailSpec { jitter: Nanos::from_micros(30), ..rail() };
    let ends = |rate: Option<(Rate, Rate)>| {
        let mut bench = Bench::new(SimConfig::new(4), &[spec]);
        let mut lane = bench.lane(0, 0, SPEC);
        if let Some((before, after)) = rate {
            bench.sim.apply(Action::RailRate { rail: RailIndex(0), rate: before });
            bench.sim.at(Time(8_500), Action::RailRate { rail: RailIndex(0), rate: after }).unwrap();
        }
        bench.post(&mut lane, 8, 98_000);
        bench.run();
        assert_eq!(bench.statuses(), successes(0, 8).collect::<Vec<_>>());
        bench.seen.last().unwrap().0
    };
    let (steady, line) = (ends(None), Rate::GBITS_400);
    assert_eq!(ends(Some((line, line))), steady);
    // An unlimited line takes no time, so jitter and round trip stay unchanged.
    assert!(ends(Some((Rate::UNLIMITED, Rate::bytes_per_sec(1_000_000)))) <= 6_000 + 30_000);
    assert!(ends(Some((line, Rate::UNLIMITED))) <= 8_500 + 3_000 + 30_000);
    // 588,000 bytes are left at 8,500 ns at the most, and 490,000 at the least.
    let slow = ends(Some((line, Rate::bytes_per_sec(98_000_000))));
    assert!((5_000_000..6_050_000).contains(&slow), "{slow}");
}

#[test]
fn eight_rails_for_twenty_milliseconds_are_quick_to_model() {
    let storage = Box::leak(Box::new(SimStorage::<8, 1, 16, 64, 256>::new()));
    let config = SimConfig { copy_up_to: 64, ..SimConfig::new(1) };
    let sim: &'static Sim<'static> = Box::leak(Box::new(Sim::new(storage, config, &[rail(); 8]).unwrap()));
    let mut rails = sim.rails();
    let peer = sim.add_peer().unwrap();
    sim.publish(peer, BASE, vec![0; 131_072].leak(), [RKEY; 16]).unwrap();
    let ours = vec![0_u8; 131_072].leak();
    let addr = ours.as_mut_ptr().expose_provenance() as u64;
    let keys = rails.register(MemoryRange { addr, len: 131_072 }).unwrap();
    let mut lanes: Vec<_> = (0..16)
        .map(|i| {
            let rail = RailIndex(i % 8);
            let qp = sim.connect(rail, peer, rail, SPEC).unwrap();
            rails.open(LaneId::new(i.into(), 1), rail, qp).unwrap()
        })
        .collect();
    let post = |rails: &mut SimRails<'static>, lane: &mut SimLane, i: u16, n: u32| {
        // SAFETY: the local memory is this test's, and not looked at meanwhile.
        let mut post = unsafe { rails.begin(lane) };
        for _ in 0..n {
            post.read(Read {
                wr_id: WrId::new(LaneId::new(i, 1), 0),
                remote_addr: BASE,
                local_addr: addr,
                len: 131_072,
                rkey: RKEY,
                lkey: keys[usize::from(i % 8)],
                signaled: true,
            });
        }
        assert_eq!(post.commit(), Commit::All);
    };
    for (i, lane) in (0..).zip(&mut lanes) {
        post(&mut rails, lane, i, 32);
    }
    let end = Time::ZERO + Nanos::from_millis(20);
    let mut wcs = [Wc::default(); 64];
    while sim.now() < end {
        rails.wait(WaitFor { now: sim.now(), until: end, completions: 32 });
        for rail in 0..8 {
            let n = rails.poll(RailIndex(rail), &mut wcs);
            for wc in &wcs[..n] {
                let lane = wc.wr_id().lane().index();
                post(&mut rails, &mut lanes[lane], lane as u16, 1);
            }
        }
    }
    let bytes: u64 = (0..8).map(|r| sim.rail_stats(RailIndex(r)).bytes).sum();
    close(bytes as f64 / 20e-3, 8.0 * RATE, 0.01);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}
