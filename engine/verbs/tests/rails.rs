//! Two rails carry what two rails carry.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::time::{Duration, Instant};

use kvrail::verbs;
use lane::{Fabric, Load, Producer, produce_if_told, said};

/// What two rails must carry, in hundredths of what one does.
const LEAST: u64 = 170;
/// Batches in flight: 8 MB. Runs are 256 KiB long, and a rail that waits for half a run more or less must not show.
const FLIGHT: usize = 12;
/// Of each rail, so that links are what is scarce, and not the guest's emulated processors.
const RATE: [&str; 3] = ["netem", "rate", "40mbit"];

#[test]
fn produces() {
    produce_if_told();
}

/// Bytes that arrive in a second.
fn rate(load: &mut Load) -> u64 {
    let bytes = |load: &Load| (0..load.reader.rails()).map(|rail| load.stats(rail).bytes).sum::<u64>();
    // Until what is in flight has gone round twice.
    load.run(Duration::from_secs(2));
    let (before, start) = (bytes(load), Instant::now());
    load.run(Duration::from_millis(2_500));
    (bytes(load) - before) * 1_000 / start.elapsed().as_millis() as u64
}

#[test]
fn two_rails_carry_almost_twice_what_one_does() {
    const TEST: &str = "two rails";
    let Some(fabric) = Fabric::find_breakable(TEST) else { return };
    let rates = fabric.break_rails(&["b0", "b1"], &RATE);
    let producer = Producer::start(&fabric.producer, 1, "127.0.0.1:0");
    // What a link carries is the most that was seen of it: others who take processors from the guest can make it less,
    // in either of the two. Three rounds, always, and each side's best.
    let (mut one, mut two) = (0, 0);
    for _ in 0..3 {
        for (rails, best) in [("ra0", &mut one), ("ra0,ra1", &mut two)] {
            // What is outstanding waits its turn at the link for longer than an acknowledgement may usually take.
            let config = verbs::Config { timeout: 18, ..verbs::config() };
            let mut load = Load::new(verbs::rails_with(rails, config).unwrap(), 1, FLIGHT);
            load.connect(&producer);
            *best = rate(&mut load).max(*best);
            let failed: u64 = (0..load.reader.rails()).map(|rail| load.stats(rail).lanes_failed).sum();
            assert_eq!(failed, 0, "lanes failed over {rails}: the links are slow, not broken");
            load.finish_with_all();
        }
    }
    drop(rates);
    let ratio = two * 100 / one;
    said(&format!(
        "{TEST}: {}.{:02} times one rail ({} and {} KiB/s, each rail limited to 40 Mbit/s), every byte compared",
        ratio / 100,
        ratio % 100,
        two >> 10,
        one >> 10
    ));
    assert!(ratio >= LEAST, "two rails carry {ratio}% of one");
}
