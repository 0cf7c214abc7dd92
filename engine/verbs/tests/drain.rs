//! Draining a lane on a real verbs stack: a wr that is posted to a QP in the error state comes back
//! flushed, after all wrs that were posted before it, and nothing is written after that.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "posts READs by hand")]

mod lane;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Post as _, Provider as _, ProviderEvent, Read};
use kvrail_core::verbs_abi::{Wc, WcStatus};
use kvrail_verbs::{
    AcceptedLane, QpAcceptor, QpDialer, Rights, Side, Verbs, VerbsConfig, VerbsLane, VerbsRegion, rail,
};
use lane::{Devices, said};

/// The id under which the lane is opened.
const ID: LaneId = LaneId::new(0, 1);
const READS: u32 = 16;
const BYTES: u32 = 256 << 10;
const RAIL: RailIndex = RailIndex(0);
/// A bound against hanging only.
const PATIENCE: Duration = lane::HANGS;

/// One lane without an engine, and its memory.
struct Bench {
    verbs: Verbs,
    lane: VerbsLane,
    _far: Vec<AcceptedLane>,
    dialer: QpDialer,
    acceptor: QpAcceptor,
    _source: VerbsRegion,
    from: MemoryRange,
    to: &'static mut [u8],
    lkey: u32,
    rkey: u32,
}

fn range(memory: &mut [u8]) -> MemoryRange {
    MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 }
}

fn connected(
    verbs: &mut Verbs,
    id: LaneId,
    dialer: &QpDialer,
    acceptor: &QpAcceptor,
) -> (VerbsLane, AcceptedLane) {
    let remote = acceptor.rails()[0].end().unwrap().encode();
    let (pending, ours) = dialer.prepare(0, &remote).unwrap();
    let (accepted, theirs) = acceptor.accept(0, &ours).unwrap();
    (verbs.open(id, RAIL, dialer.connect(pending, &theirs).unwrap()).unwrap(), accepted)
}

impl Bench {
    fn new(fabric: &Devices) -> Self {
        let first = |rails: &str| if rails == "auto" { rails.into() } else { rails[..3].to_owned() };
        let mut verbs = Verbs::open_rails(&first(&fabric.reader), VerbsConfig::DEFAULT).unwrap();
        let far = rail::open(&first(&fabric.producer), VerbsConfig::DEFAULT, Side::Producer).unwrap();
        let bytes = (READS * BYTES) as usize;
        let source = kvrail::memory::leaked(bytes).unwrap();
        source.fill(0x5A);
        let from = range(source);
        let region = VerbsRegion::new(&far, from, Rights::RemoteRead).unwrap();
        let to = kvrail::memory::leaked(bytes).unwrap();
        let lkey = verbs.register(range(to)).unwrap()[0];
        let (dialer, acceptor) = (QpDialer::new(verbs.ports()), QpAcceptor::new(far).unwrap());
        let (lane, accepted) = connected(&mut verbs, ID, &dialer, &acceptor);
        let rkey = region.keys()[0];
        let _far = vec![accepted];
        Self { verbs, lane, _far, dialer, acceptor, _source: region, from, to, lkey, rkey }
    }

    /// Another lane of the rail.
    fn another(&mut self, id: LaneId) -> VerbsLane {
        let (lane, accepted) = connected(&mut self.verbs, id, &self.dialer, &self.acceptor);
        self._far.push(accepted);
        lane
    }

    /// Posts so many READs, the first with sequence number `first`.
    fn post(&mut self, first: u32, reads: u32) {
        let to = range(self.to);
        let (from, rkey, lkey) = (self.from, self.rkey, self.lkey);
        // SAFETY: the destination is looked at only when the lane writes no more.
        let mut post = unsafe { self.verbs.begin(&mut self.lane) };
        for n in 0..reads {
            let offset = u64::from(n * BYTES);
            post.read(Read {
                wr_id: WrId::new(ID, first + n),
                remote_addr: from.addr + offset,
                local_addr: to.addr + offset,
                len: BYTES,
                rkey,
                lkey,
                signaled: n + 1 == reads,
            });
        }
        assert_eq!(post.commit(), Commit::All);
    }

    /// Polls until the completion of `last`, for `limit` at most, and returns all completions.
    fn completions(&mut self, last: Option<WrId>, limit: Duration) -> Vec<Wc> {
        let (start, mut all) = (Instant::now(), Vec::new());
        while start.elapsed() < limit {
            let mut some = [Wc::default(); 32];
            let n = self.verbs.poll(RAIL, &mut some);
            all.extend_from_slice(&some[..n]);
            if last.is_some_and(|last| all.iter().any(|wc| wc.wr_id() == last)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    }

    /// Waits for the next event, which must be `wanted`.
    fn hears(&mut self, wanted: ProviderEvent) {
        let start = Instant::now();
        loop {
            match self.verbs.next_event() {
                Some(ProviderEvent::RailDown(_) | ProviderEvent::RailUp(_)) => {}
                Some(event) => {
                    assert_eq!(event, wanted);
                    return;
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(start.elapsed() < PATIENCE, "no {wanted:?}");
        }
    }
}

/// Posts, fails the lane while READs are under way, drains, and checks what came in which order.
fn drained(test: &str, fabric: &Devices, by_itself: bool) {
    let mut bench = Bench::new(fabric);
    // First without a fault.
    bench.post(0, 2);
    let first = bench.completions(Some(WrId::new(ID, 1)), PATIENCE);
    assert!(first.iter().all(|wc| wc.status().is_success()) && !first.is_empty(), "{first:?}");
    assert!(bench.to[..2 * BYTES as usize].iter().all(|&b| b == 0x5A));

    let broken = fabric.breakable.then(|| fabric.break_rails(&["a0"], &["netem", "loss", "100%"]));
    bench.post(2, READS);
    let mut before = Vec::new();
    if by_itself {
        // The lane fails by itself when its retries are used up.
        let start = Instant::now();
        while !before.iter().any(|wc: &Wc| !wc.status().is_success()) {
            assert!(start.elapsed() < PATIENCE, "the retries never end");
            before.extend(bench.completions(None, Duration::from_millis(20)));
        }
    }
    let Bench { verbs, lane, .. } = &mut bench;
    verbs.fail(lane);
    bench.hears(ProviderEvent::LaneFailed(ID));
    let drain = WrId::new(ID, 2 + READS);
    bench.verbs.drain(&mut bench.lane, drain).unwrap();
    before.extend(bench.completions(Some(drain), PATIENCE));
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
    let mut bench = Bench::new(&fabric);
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
            assert!(start.elapsed() < PATIENCE, "the QP waits until the engine asks for events");
            bench.post(posted, 1);
            let done = bench.completions(Some(WrId::new(ID, posted)), PATIENCE);
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
