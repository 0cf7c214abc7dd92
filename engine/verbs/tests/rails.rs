//! Two rails carry almost twice the bytes of one.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::time::{Duration, Instant};

use kvrail::verbs;
use lane::{Devices, Load, Producer, produce_if_told, said, time_is_the_guests};

/// The least that two rails must carry, in hundredths of what one rail carries.
const LEAST: u64 = 170;
/// Batches in flight: 8 MB. Runs are 256 KiB long; with so much in flight the result does not
/// depend on where in a run a rail stands.
const FLIGHT: usize = 12;
/// The limit of each rail's link, so that the links are the bottleneck and not the guest's emulated
/// processors.
const RATE: [&str; 3] = ["netem", "rate", "40mbit"];

#[test]
fn produces() {
    produce_if_told();
}

/// Bytes that arrive in a second.
fn rate(load: &mut Load) -> u64 {
    // Long enough for all batches in flight to be replaced twice.
    load.run(Duration::from_secs(2));
    let (before, start) = (load.sum(|rail| rail.bytes), Instant::now());
    load.run(Duration::from_millis(2_500));
    (load.sum(|rail| rail.bytes) - before) * 1_000 / start.elapsed().as_millis() as u64
}

/// The bytes per second that `rails` carry. No lane may fail.
fn carried(rails: &str, producer: &Producer) -> u64 {
    // Outstanding READs wait at the slow link for longer than an acknowledgement may usually take.
    let config = verbs::VerbsConfig { timeout: 18, ..verbs::config() };
    let mut load = Load::new(verbs::rails_with(rails, config).unwrap(), 1, FLIGHT);
    load.connect(producer);
    let rate = rate(&mut load);
    for rail in 0..load.reader.rails() {
        assert!(load.stats(rail).bytes > 0, "a rail carries nothing; {}", load.state());
    }
    let failed = load.sum(|rail| rail.lanes_failed);
    assert!(failed == 0 || !time_is_the_guests(), "the links are slow, not broken; {}", load.state());
    load.finish_with_all();
    rate
}

#[test]
fn two_rails_carry_almost_twice_what_one_does() {
    const TEST: &str = "two rails";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let rates = fabric.break_rails(&["b0", "b1"], &RATE);
    let producer = Producer::start(&fabric.producer, 1, "127.0.0.1:0");
    let (one, two) = (carried("ra0", &producer), carried("ra0,ra1", &producer));
    drop(rates);
    let ratio = two * 100 / one;
    said(&format!(
        "{TEST}: {}.{:02} times one rail ({} and {} KiB/s, each rail limited to 40 Mbit/s), every byte compared",
        ratio / 100,
        ratio % 100,
        two >> 10,
        one >> 10
    ));
    // On a host whose processors other programs use, the ratio would depend on those programs.
    assert!(ratio >= LEAST || !time_is_the_guests(), "two rails carry {ratio}% of one");
}
