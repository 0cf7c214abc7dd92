//! Rails, QPs and producers that fail while pages are read: nothing is lost, nothing counted twice, nothing
//! wrong. Every byte of every page is compared.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::time::{Duration, Instant};

use lane::{Fabric, Load, Producer, break_rails, produce_if_told, said};

const ANY: &str = "127.0.0.1:0";
/// The longest that nothing may arrive while there is another rail.
const STALL: Duration = Duration::from_secs(1);
/// A rail that has come back is used again after so long at most.
const BACK: Duration = Duration::from_secs(5);
/// How much later than its deadline a batch may be told to be late: the guest's two processors are emulated
/// and busy.
const SLACK: Duration = Duration::from_millis(250);

#[test]
fn produces() {
    produce_if_told();
}

fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// Starts both ends and reads until all rails have carried something and pages have arrived.
fn begin(fabric: &Fabric) -> (Producer, Load) {
    let producer = Producer::start(&fabric.producer, 1, ANY);
    let mut load = Load::start(&fabric.reader, &producer);
    warm(&mut load);
    (producer, load)
}

fn warm(load: &mut Load) {
    let rails = load.reader.rails();
    let before: Vec<u64> = (0..rails).map(|rail| load.stats(rail).bytes).collect();
    let arrived = load.tally.arrived + 100;
    let all = load.run_until(Duration::from_secs(20), |l| {
        l.tally.arrived >= arrived && (0..rails).all(|r| l.stats(r).bytes > before[r] + (1 << 20))
    });
    assert!(all, "a rail carries nothing: {:?}", (0..rails).map(|r| load.stats(r)).collect::<Vec<_>>());
    load.forget_times();
}

/// Rail 0 of the reader is broken while it reads, mended, and used again.
fn rail_breaks(test: &str, how: &[&str]) {
    let Some(fabric) = Fabric::find_breakable(test) else { return };
    let (_producer, mut load) = begin(&fabric);
    let broken = load.during(|| break_rails(&["a0"], how));
    load.run(Duration::from_millis(2_500));
    let (gap, slowest) = (load.gap, load.slowest);
    let failed = load.stats(0).lanes_failed;
    load.during(|| drop(broken));
    let (mended, before) = (Instant::now(), load.stats(0).bytes);
    let back = load.run_until(BACK + Duration::from_secs(5), |l| l.stats(0).bytes > before + (1 << 20));
    let (back_after, stats) = (mended.elapsed(), load.stats(0));
    let tally = load.finish_with_all();
    said(&format!(
        "{test}: {} pages, all right; longest gap {}, slowest batch {}; {failed} lanes failed; rail used again after {}",
        tally.arrived,
        ms(gap),
        ms(slowest),
        ms(back_after)
    ));
    assert!(failed > 0, "nothing failed: {stats:?}");
    assert!(gap <= STALL, "no page for {gap:?}");
    assert!(back && back_after <= BACK, "the rail was used again after {back_after:?}: {stats:?}");
}

#[test]
fn link_down() {
    rail_breaks("link down", &["down"]);
}

#[test]
fn packet_loss_100() {
    rail_breaks("packet loss 100%", &["netem", "loss", "100%"]);
}

/// Nothing fails; it is slow.
fn rail_limps(test: &str, how: &[&str]) {
    let Some(fabric) = Fabric::find_breakable(test) else { return };
    let (_producer, mut load) = begin(&fabric);
    let broken = load.during(|| break_rails(&["a0", "b0"], how));
    let before = load.stats(0).bytes;
    load.run(Duration::from_secs(3));
    let (gap, slowest, over) = (load.gap, load.slowest, load.stats(0).bytes - before);
    load.during(|| drop(broken));
    let tally = load.finish_with_all();
    said(&format!(
        "{test}: {} pages, all right; longest gap {}, slowest batch {}; {} KiB by that rail meanwhile",
        tally.arrived,
        ms(gap),
        ms(slowest),
        over >> 10
    ));
    assert!(gap <= STALL, "no page for {gap:?}");
}

#[test]
fn packet_loss_1() {
    rail_limps("packet loss 1%", &["netem", "loss", "1%"]);
}

#[test]
fn delay_2_ms() {
    rail_limps("delay 2 ms", &["netem", "delay", "2ms"]);
}

#[test]
fn target_qps_in_error() {
    const TEST: &str = "target QPs in error";
    let Some(fabric) = Fabric::find(TEST) else { return };
    let (mut producer, mut load) = begin(&fabric);
    let mut failed = 0;
    for _ in 0..3 {
        let before: u64 = (0..load.reader.rails()).map(|r| load.stats(r).lanes_failed).sum();
        let lanes = producer.fail_lanes() as u64;
        assert!(lanes >= 2, "{lanes} lanes");
        failed += lanes;
        let noticed = load.run_until(Duration::from_secs(10), |l| {
            (0..l.reader.rails()).map(|r| l.stats(r).lanes_failed).sum::<u64>() >= before + lanes
        });
        assert!(noticed, "{lanes} lanes failed, the reader knows of fewer");
        warm(&mut load);
    }
    let tally = load.finish_with_all();
    said(&format!("{TEST}: {} pages, all right; {failed} lanes failed, all made again", tally.arrived));
}

#[test]
fn producer_killed() {
    const TEST: &str = "producer killed";
    let Some(fabric) = Fabric::find(TEST) else { return };
    let (mut producer, mut load) = begin(&fabric);
    producer.kill();
    let killed = Instant::now();
    let noticed = load.run_until(Duration::from_secs(10), |l| l.lost.is_some() && l.in_flight() == 0);
    let after = killed.elapsed();
    assert!(noticed, "{} batches are still in flight; {:?}", load.in_flight(), load.lost);
    let tally = load.finish();
    said(&format!(
        "{TEST}: {} pages, all right; {} were under way and failed as gone; all told after {}",
        tally.arrived,
        tally.gone + tally.late,
        ms(after)
    ));
    assert_eq!(tally.late, 0, "{tally:?}");
}

#[test]
fn producer_restarted_with_new_keys() {
    const TEST: &str = "producer restarted with new keys";
    let Some(fabric) = Fabric::find(TEST) else { return };
    let (mut producer, mut load) = begin(&fabric);
    let mut listen = producer.address.to_string();
    for seed in 2..4 {
        producer.kill();
        let noticed = load.run_until(Duration::from_secs(10), |l| l.lost.is_some() && l.in_flight() == 0);
        assert!(noticed, "{:?}", load.lost);
        // The same place, other pages, other keys.
        producer = Producer::start(&fabric.producer, seed, &listen);
        listen = producer.address.to_string();
        load.connect(&producer);
        warm(&mut load);
    }
    let tally = load.finish();
    assert_eq!(tally.late, 0, "{tally:?}");
    said(&format!(
        "{TEST}: {} pages of three lives, each from its own; {} failed as gone",
        tally.arrived, tally.gone
    ));
}

/// All rails break; every batch ends at its deadline, and reads succeed again after.
fn all_rails_break(test: &str, mut load: Load, how: &[&str]) {
    warm(&mut load);
    let before = load.finish_with_all();
    load.patience = Duration::from_millis(1_500);
    let broken = load.during(|| break_rails(&["a0", "a1"], how));
    load.run(Duration::from_secs(4));
    let overrun = load.overrun.max(load.untold());
    load.patience = Duration::from_secs(20);
    load.during(|| drop(broken));
    let mended = Instant::now();
    let (late, arrived) = (load.tally.late, load.tally.arrived);
    let back = load.run_until(BACK, |l| l.tally.arrived > arrived + 100);
    let back_after = mended.elapsed();
    let tally = load.finish();
    said(&format!(
        "{test}: {} pages, all right; {late} timed out, the last notice {} after its deadline; reads succeed again after {}",
        tally.arrived,
        ms(overrun),
        ms(back_after)
    ));
    assert!(late > 0, "nothing timed out: {before:?}, {tally:?}");
    assert!(overrun <= SLACK, "a batch was told to be late {overrun:?} after its deadline");
    assert!(back, "nothing arrives {back_after:?} after: {tally:?}");
    assert_eq!(tally.gone, 0, "{:?}", load.lost);
}

#[test]
fn all_rails_down() {
    const TEST: &str = "all rails down";
    let Some(fabric) = Fabric::find_breakable(TEST) else { return };
    let producer = Producer::start(&fabric.producer, 1, ANY);
    let load = Load::start(&fabric.reader, &producer);
    all_rails_break(TEST, load, &["down"]);
}

#[test]
fn deadline_with_retries_that_outlast_it() {
    const TEST: &str = "all rails lose everything, retries for half a minute";
    let Some(fabric) = Fabric::find_breakable(TEST) else { return };
    let producer = Producer::start(&fabric.producer, 1, ANY);
    // 4.3 s to an acknowledgement, seven times.
    let config = kvrail::verbs::Config { timeout: 20, ..kvrail::verbs::config() };
    let mut load = Load::new(kvrail::verbs::rails_with(&fabric.reader, config).unwrap(), 2, lane::FLIGHT);
    load.connect(&producer);
    all_rails_break(TEST, load, &["netem", "loss", "100%"]);
}
