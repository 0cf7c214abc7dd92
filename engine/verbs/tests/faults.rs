//! Rails, QPs and producers that fail while pages are read: no page is lost, counted twice or
//! wrong. Every byte of every page is compared.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::time::{Duration, Instant};

use lane::{
    BATCH, Devices, HANGS, Load, Producer, break_rails, dropped_by, produce_if_told, said, time_is_the_guests,
};

const ANY: &str = "127.0.0.1:0";
/// The fewest pages that are read while something is broken.
const PAGES: u64 = 400;
/// Lanes of each rail, for a reader with the default configuration.
const LANES: u64 = 2;
/// The longest time without a page while there is another rail. This and the other times are limits
/// where time is the guest's own; elsewhere they are reported and decide no test.
const STALL: Duration = Duration::from_secs(1);
/// The same where no event says that a rail is dead: the lanes on it fail one after the other, each
/// after all its retries, half a second. All pages under way may wait for one lane, more than once.
const SILENT_STALL: Duration = Duration::from_secs(2);
/// The longest until a rail that has come back is used again.
const BACK: Duration = Duration::from_secs(5);
/// The longest from a batch's deadline to the notice that it is late.
const SLACK: Duration = Duration::from_millis(250);

/// Fails if a time exceeds its limit and time is the guest's own.
fn in_time(what: &str, took: Duration, limit: Duration) {
    assert!(!time_is_the_guests() || took <= limit, "{what}: {took:?}, {limit:?} at most");
}

#[test]
fn produces() {
    produce_if_told();
}

fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// Starts both ends and reads until all rails have carried something and pages have arrived.
fn begin(fabric: &Devices) -> (Producer, Load) {
    let producer = Producer::start(&fabric.producer, 1, ANY);
    let mut load = Load::start(&fabric.reader, &producer);
    warm(&mut load);
    (producer, load)
}

fn warm(load: &mut Load) {
    let rails = load.reader.rails();
    let before: Vec<u64> = (0..rails).map(|rail| load.stats(rail).bytes).collect();
    let arrived = load.tally.arrived + 100;
    load.run_until("every rail carries something", |l| {
        l.tally.arrived >= arrived && (0..rails).all(|r| l.stats(r).bytes > before[r] + (1 << 20))
    });
    load.forget_times();
}

/// Rail 0 of the reader is broken while it reads, mended, and used again.
fn rail_breaks(test: &str, how: &[&str]) {
    let Some(fabric) = Devices::find_breakable(test) else { return };
    let (_producer, mut load) = begin(&fabric);
    let (failed, again) = (load.stats(0).lanes_failed, load.sum(|rail| rail.reposted));
    let broken = load.during(|| break_rails(&["a0"], how));
    // A link that goes down fails all its lanes, busy or not. Without that event only lanes with
    // outstanding wrs fail.
    let silent = how[0] != "down";
    load.run_until("the rail's lanes are given up, and what they carried is posted again", |l| {
        let posted_again = l.sum(|rail| rail.reposted) > again;
        l.stats(0).lanes_failed >= failed + LANES && (posted_again || !silent)
    });
    // Pages that arrived by the rail before it broke may be counted after.
    load.run_pages(100);
    let (here, there) = (load.stats(0).bytes, load.stats(1).bytes);
    load.run_pages(PAGES);
    assert_eq!(load.stats(0).bytes, here, "bytes by a rail that carries none");
    assert!(load.stats(1).bytes > there, "pages by no rail");
    let (gap, slowest) = (load.gap, load.slowest);
    let failed = load.stats(0).lanes_failed - failed;
    load.during(|| drop(broken));
    let (mended, before) = (Instant::now(), load.stats(0).bytes);
    load.run_until("the rail is used again", |l| l.stats(0).bytes > before + (1 << 20));
    let back_after = mended.elapsed();
    let tally = load.finish_with_all();
    said(&format!(
        "{test}: {} pages, all right; {failed} lanes failed, {} wrs posted again; longest gap {}, slowest batch {}; rail used again after {}",
        tally.arrived,
        load.sum(|rail| rail.reposted) - again,
        ms(gap),
        ms(slowest),
        ms(back_after)
    ));
    in_time("no page for", gap, if silent { SILENT_STALL } else { STALL });
    in_time("the rail is used again after", back_after, BACK);
}

#[test]
fn link_down() {
    rail_breaks("link down", &["down"]);
}

#[test]
fn packet_loss_100() {
    rail_breaks("packet loss 100%", &["netem", "loss", "100%"]);
}

/// Rail 0 of both ends becomes slow, and no lane fails.
fn rail_is_slow(test: &str, how: &[&str]) {
    const RAILS: [&str; 2] = ["a0", "b0"];
    let Some(fabric) = Devices::find_breakable(test) else { return };
    let (_producer, mut load) = begin(&fabric);
    let broken = load.during(|| break_rails(&RAILS, how));
    let before = load.stats(0).bytes;
    let start = Instant::now();
    let mut lost = 0;
    // The slow rail is used nevertheless.
    while load.stats(0).bytes < before + (1 << 20) || (how[1] == "loss" && lost < 5) {
        assert!(start.elapsed() < HANGS, "{lost} packets lost; {}", load.state());
        load.run_pages(PAGES);
        lost = load.during(|| dropped_by(&RAILS));
    }
    let (gap, slowest, over) = (load.gap, load.slowest, load.stats(0).bytes - before);
    load.during(|| drop(broken));
    let tally = load.finish_with_all();
    said(&format!(
        "{test}: {} pages, all right; {lost} packets lost; longest gap {}, slowest batch {}; {} KiB by that rail meanwhile",
        tally.arrived,
        ms(gap),
        ms(slowest),
        over >> 10
    ));
    in_time("no page for", gap, STALL);
}

#[test]
fn packet_loss_1() {
    rail_is_slow("packet loss 1%", &["netem", "loss", "1%"]);
}

#[test]
fn delay_2_ms() {
    rail_is_slow("delay 2 ms", &["netem", "delay", "2ms"]);
}

#[test]
fn target_qps_in_error() {
    const TEST: &str = "target QPs in error";
    let Some(fabric) = Devices::find(TEST) else { return };
    let (mut producer, mut load) = begin(&fabric);
    let mut failed = 0;
    for _ in 0..3 {
        let before = load.sum(|rail| rail.lanes_failed);
        let lanes = producer.fail_lanes() as u64;
        assert!(lanes >= 2, "{lanes} lanes");
        failed += lanes;
        load.run_until("the reader knows of all lanes that failed", |l| {
            l.sum(|rail| rail.lanes_failed) >= before + lanes
        });
        warm(&mut load);
    }
    let tally = load.finish_with_all();
    said(&format!("{TEST}: {} pages, all right; {failed} lanes failed, all made again", tally.arrived));
}

#[test]
fn producer_killed() {
    const TEST: &str = "producer killed";
    let Some(fabric) = Devices::find(TEST) else { return };
    let (mut producer, mut load) = begin(&fabric);
    producer.kill();
    let killed = Instant::now();
    load.run_until("the producer is lost, and every batch back", |l| l.lost.is_some() && l.in_flight() == 0);
    let after = killed.elapsed();
    let tally = load.finish();
    said(&format!(
        "{TEST}: {} pages, all right; {} were under way and failed as gone; all told after {}",
        tally.arrived,
        tally.gone + tally.late,
        ms(after)
    ));
    assert_eq!(tally.late, 0, "{tally:?}");
    in_time("all told after", after, BACK);
}

#[test]
fn producer_restarted_with_new_keys() {
    const TEST: &str = "producer restarted with new keys";
    let Some(fabric) = Devices::find(TEST) else { return };
    let (mut producer, mut load) = begin(&fabric);
    let mut listen = producer.address.to_string();
    for seed in 2..4 {
        producer.kill();
        load.run_until("the producer is lost, and every batch back", |l| {
            l.lost.is_some() && l.in_flight() == 0
        });
        // A producer at the same address, with other pages and other keys.
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
    /// How many batches are late: twice as many as can be under way.
    const LATE: u64 = (2 * lane::FLIGHT * BATCH) as u64;
    warm(&mut load);
    load.finish_with_all();
    load.patience = Duration::from_millis(1_500);
    let broken = load.during(|| break_rails(&["a0", "a1"], how));
    let arrived = load.tally.arrived;
    load.run_until("all that is under way is late, twice over", |l| l.tally.late >= LATE);
    let (overrun, late, meanwhile) = (load.overrun, load.tally.late, load.tally.arrived - arrived);
    load.patience = HANGS;
    load.during(|| drop(broken));
    let mended = Instant::now();
    load.run_pages(100);
    let back_after = mended.elapsed();
    // Fails unless every notice came with the first poll after the deadline.
    let tally = load.finish();
    said(&format!(
        "{test}: {} pages, all right; {late} timed out, each told by the first poll after its deadline, the last notice {} after; reads succeed again after {}",
        tally.arrived,
        ms(overrun),
        ms(back_after)
    ));
    assert!(meanwhile <= (lane::FLIGHT * BATCH) as u64, "{meanwhile} pages arrived over no rail");
    assert_eq!(tally.gone, 0, "{:?}", load.lost);
    in_time("a batch was told to be late after its deadline by", overrun, SLACK);
    in_time("reads succeed again after", back_after, BACK);
}

#[test]
fn all_rails_down() {
    const TEST: &str = "all rails down";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let producer = Producer::start(&fabric.producer, 1, ANY);
    let load = Load::start(&fabric.reader, &producer);
    all_rails_break(TEST, load, &["down"]);
}

#[test]
fn deadline_with_retries_that_outlast_it() {
    const TEST: &str = "all rails lose everything, retries for half a minute";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let producer = Producer::start(&fabric.producer, 1, ANY);
    // The transport waits 4.3 s for an acknowledgement, seven times.
    let config = kvrail::verbs::VerbsConfig { timeout: 20, ..kvrail::verbs::config() };
    let mut load = Load::new(kvrail::verbs::rails_with(&fabric.reader, config).unwrap(), 2, lane::FLIGHT);
    load.connect(&producer);
    all_rails_break(TEST, load, &["netem", "loss", "100%"]);
}
