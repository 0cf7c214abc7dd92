//! Two rails carry what two rails carry.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::time::{Duration, Instant};

use kvrail::verbs;
use lane::{Fabric, Load, Producer, produce_if_told, said};

/// What two rails must carry, in hundredths of what one does.
const LEAST: u64 = 170;
/// Of each rail, so that links are what is scarce, and not the guest's emulated processors.
const RATE: [&str; 3] = ["netem", "rate", "100mbit"];

#[test]
fn produces() {
    produce_if_told();
}

/// Bytes that arrived in a second, each compared.
fn bytes(load: &mut Load) -> u64 {
    load.run(Duration::from_millis(500));
    let (before, start) = (load.tally.arrived, Instant::now());
    load.run(Duration::from_millis(2_500));
    let pages = load.tally.arrived - before;
    pages * u64::from(lane::LAYOUT.page_bytes()) * 1_000 / start.elapsed().as_millis() as u64
}

#[test]
fn two_rails_carry_almost_twice_what_one_does() {
    const TEST: &str = "two rails";
    let Some(fabric) = Fabric::find_breakable(TEST) else { return };
    let rates = fabric.break_rails(&["b0", "b1"], &RATE);
    let producer = Producer::start(&fabric.producer, 1, "127.0.0.1:0");
    let (mut one, mut two) = (0, 0);
    for _ in 0..2 {
        for (rails, sum) in [("ra0", &mut one), ("ra0,ra1", &mut two)] {
            let mut load = Load::new(verbs::rails(rails).unwrap(), 1);
            load.connect(&producer);
            *sum += bytes(&mut load);
            load.finish_with_all();
        }
    }
    drop(rates);
    let ratio = two * 100 / one;
    said(&format!(
        "{TEST}: {}.{:02} times one rail ({} and {} MiB/s, each rail limited to 100 Mbit/s), every byte compared",
        ratio / 100,
        ratio % 100,
        two >> 21,
        one >> 21
    ));
    assert!(ratio >= LEAST, "two rails carry {ratio}% of one");
}
