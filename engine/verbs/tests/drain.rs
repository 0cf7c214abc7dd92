//! Draining a lane on a real verbs stack: a wr that is posted to a QP in the error state comes back
//! flushed, after all wrs that were posted before it, and nothing is written after that.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, WrId};
use kvrail_core::provider::{Provider as _, ProviderEvent};
use kvrail_core::verbs_abi::{Wc, WcStatus};
use kvrail_verbs::{QpAcceptor, Side, Verbs, VerbsConfig, rail};
use lane::{Bench, Devices, HANGS, SOURCE, said};

/// The id of the lane.
const ID: LaneId = Bench::ID;
const READS: u32 = 16;
const BYTES: u32 = 256 << 10;

/// Posts, fails the lane while READs are under way, drains, and checks what came in which order.
fn drained(test: &str, fabric: &Devices, by_itself: bool) {
    let mut bench = Bench::new(fabric, READS, BYTES);
    // First without a fault.
    bench.post(0, 2);
    let first = bench.completions(Some(WrId::new(ID, 1)), HANGS);
    assert!(first.iter().all(|wc| wc.status().is_success()) && !first.is_empty(), "{first:?}");
    assert!(bench.to[..2 * BYTES as usize].iter().all(|&b| b == SOURCE));

    let broken = fabric.breakable.then(|| fabric.break_rails(&["a0"], &["netem", "loss", "100%"]));
    bench.post(2, READS);
    let mut before = Vec::new();
    if by_itself {
        // The lane fails by itself when its retries are used up.
        let start = Instant::now();
        while !before.iter().any(|wc: &Wc| !wc.status().is_success()) {
            assert!(start.elapsed() < HANGS, "the retries never end");
            before.extend(bench.completions(None, Duration::from_millis(20)));
        }
    }
    let Bench { verbs, lane, .. } = &mut bench;
    verbs.fail(lane);
    bench.hears(ProviderEvent::LaneFailed(ID));
    let drain = WrId::new(ID, 2 + READS);
    bench.verbs.drain(&mut bench.lane, drain).unwrap();
    before.extend(bench.completions(Some(drain), HANGS));
    drop(broken);
    // No completion comes after the drain, and nothing is written.
    let written: Vec<u8> = bench.to.to_vec();
    let after = bench.completions(None, Duration::from_millis(300));
    assert!(bench.to == &written[..], "something was written after the drain");
    assert!(after.is_empty(), "behind the drain: {after:?}");
    let place = before.iter().position(|wc| wc.wr_id() == drain);
    assert_eq!(place, Some(before.len() - 1), "{before:?}");
    assert_eq!(before[before.len() - 1].status(), WcStatus::WR_FLUSH_ERR, "{before:?}");
    // Each of the others at most once, in the order of posting.
    let order: Vec<u32> = before.iter().map(|wc| wc.wr_id().seq()).collect();
    assert!(order.is_sorted_by(|a, b| a < b), "{before:?}");
    if fabric.breakable {
        // All of them, since none could succeed unsignaled.
        assert_eq!(order.len(), READS as usize + 1, "{before:?}");
    }
    said(&format!(
        "{test}: the drain came back flushed, behind {} others (the first: {})",
        before.len() - 1,
        before[0].status().name()
    ));
}

#[test]
fn a_drain_completes_after_all_reads_under_way() {
    const TEST: &str = "drain of a lane that was failed";
    let Some(fabric) = Devices::find(TEST) else { return };
    drained(TEST, &fabric, false);
}

#[test]
fn a_drain_of_a_lane_that_failed_by_itself_completes_last() {
    const TEST: &str = "drain of a lane that failed by itself";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    drained(TEST, &fabric, true);
}

/// A QP is destroyed without the engine's help, and completions of other lanes are found meanwhile:
/// if the engine could not poll the queue for that time, it would take healthy lanes for silent.
#[test]
fn a_queue_can_be_polled_while_one_of_its_lanes_is_destroyed() {
    const TEST: &str = "a lane closed beside one that works";
    let Some(fabric) = Devices::find(TEST) else { return };
    let mut bench = Bench::new(&fabric, READS, BYTES);
    let (mut found, mut posted) = (0, 0);
    for life in 1..=8 {
        let closed = LaneId::new(1, life);
        let lane = bench.another(closed);
        let rail = bench.verbs.ports().swap_remove(0);
        // Each QP holds an `Arc` of its rail, so their number shows when the QP is gone.
        let before = Arc::strong_count(&rail);
        bench.verbs.close(lane);
        let (start, mut reads) = (Instant::now(), 0);
        while Arc::strong_count(&rail) == before || reads == 0 {
            assert!(start.elapsed() < HANGS, "the QP waits until the engine asks for events");
            bench.post(posted, 1);
            let done = bench.completions(Some(WrId::new(ID, posted)), HANGS);
            assert!(done.len() == 1 && done[0].status().is_success(), "{done:?}");
            (reads, posted) = (reads + 1, posted + 1);
        }
        found += reads;
        bench.hears(ProviderEvent::LaneClosed(closed));
    }
    said(&format!("{TEST}: {found} READs completed while 8 QPs of their rail were destroyed"));
}

#[test]
fn a_rail_serves_only_the_side_for_which_it_was_opened() {
    const TEST: &str = "rails of the other side";
    let Some(fabric) = Devices::find(TEST) else { return };
    let open = |side| rail::open(&fabric.reader, VerbsConfig::DEFAULT, side).unwrap();
    let error = Verbs::start(open(Side::Producer)).unwrap_err().to_string();
    assert!(error.contains("producer's"), "{error}");
    let error = QpAcceptor::new(open(Side::Reader)).unwrap_err().to_string();
    assert!(error.contains("reader's"), "{error}");
    // A rail that drives an engine, or has driven one, drives no other.
    let rails = open(Side::Reader);
    drop(Verbs::start(rails.clone()).unwrap());
    let error = Verbs::start(rails).unwrap_err().to_string();
    assert!(error.contains("another engine"), "{error}");
}

#[test]
fn produces() {
    lane::produce_if_told();
}
