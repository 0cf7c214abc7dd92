//! What rule 2 of the design rests on, on a real stack: a wr posted to a QP in the error state comes back
//! flushed, behind all that was posted before; after it nothing is written any more.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "posts READs by hand")]

mod lane;

use std::time::{Duration, Instant};

use kvrail_core::abi::{Wc, WcStatus};
use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, Event, MemoryRange, Post as _, Provider as _, Read};
use kvrail_verbs::{Acceptor, Config, Dialer, Lane, Region, Rights, Side, Verbs, rail};
use lane::{Fabric, said};

/// What the lane is opened as.
const ID: LaneId = LaneId::new(0, 1);
const READS: u32 = 16;
const BYTES: u32 = 256 << 10;
const RAIL: RailIndex = RailIndex(0);
const PATIENCE: Duration = Duration::from_secs(10);

/// One lane by hand, and its memory.
struct Bench {
    verbs: Verbs,
    lane: Lane,
    _far: kvrail_verbs::Accepted,
    _source: Region,
    from: MemoryRange,
    to: &'static mut [u8],
    lkey: u32,
    rkey: u32,
}

fn range(memory: &mut [u8]) -> MemoryRange {
    MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 }
}

impl Bench {
    fn new(fabric: &Fabric) -> Self {
        let first = |rails: &str| if rails == "auto" { rails.into() } else { rails[..3].to_owned() };
        let mut verbs = Verbs::open_rails(&first(&fabric.reader), Config::DEFAULT).unwrap();
        let far = rail::open(&first(&fabric.producer), Config::DEFAULT, Side::Producer).unwrap();
        let bytes = (READS * BYTES) as usize;
        let source = kvrail::memory::leaked(bytes).unwrap();
        source.fill(0x5A);
        let from = range(source);
        let region = Region::new(&far, from, Rights::RemoteRead).unwrap();
        let to = kvrail::memory::leaked(bytes).unwrap();
        let lkey = verbs.register(range(to)).unwrap()[0];
        let remote = far[0].end().unwrap().encode();
        let (dialer, acceptor) = (Dialer::new(verbs.ports()), Acceptor::new(far).unwrap());
        let (pending, ours) = dialer.prepare(0, &remote).unwrap();
        let (accepted, theirs) = acceptor.accept(0, &ours).unwrap();
        let lane = verbs.open(ID, RAIL, dialer.connect(pending, &theirs).unwrap()).unwrap();
        let rkey = region.keys()[0];
        Self { verbs, lane, _far: accepted, _source: region, from, to, lkey, rkey }
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

    /// Completions until `last` or for so long.
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

    fn failed(&mut self) {
        let start = Instant::now();
        loop {
            match self.verbs.next_event() {
                Some(Event::LaneFailed(failed)) => {
                    assert_eq!(failed, ID);
                    return;
                }
                Some(Event::RailDown(_) | Event::RailUp(_)) => {}
                Some(other) => panic!("{other:?}"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(start.elapsed() < PATIENCE, "the lane is not in the error state");
        }
    }
}

/// Posts, fails the lane while READs are under way, drains, and checks what came in which order.
fn drained(test: &str, fabric: &Fabric, by_itself: bool) {
    let mut bench = Bench::new(fabric);
    // It works at all.
    bench.post(0, 2);
    let first = bench.completions(Some(WrId::new(ID, 1)), PATIENCE);
    assert!(first.iter().all(|wc| wc.status().is_success()) && !first.is_empty(), "{first:?}");
    assert!(bench.to[..2 * BYTES as usize].iter().all(|&b| b == 0x5A));

    let broken = fabric.breakable.then(|| fabric.break_rails(&["a0"], &["netem", "loss", "100%"]));
    bench.post(2, READS);
    let mut before = Vec::new();
    if by_itself {
        // Until the retries are used up.
        let start = Instant::now();
        while !before.iter().any(|wc: &Wc| !wc.status().is_success()) {
            assert!(start.elapsed() < PATIENCE, "the retries never end");
            before.extend(bench.completions(None, Duration::from_millis(20)));
        }
    }
    let Bench { verbs, lane, .. } = &mut bench;
    verbs.fail(lane);
    bench.failed();
    let drain = WrId::new(ID, 2 + READS);
    bench.verbs.drain(&mut bench.lane, drain).unwrap();
    before.extend(bench.completions(Some(drain), PATIENCE));
    drop(broken);
    // Nothing comes after it, and nothing is written.
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
fn a_drain_comes_back_behind_what_was_under_way() {
    const TEST: &str = "drain of a lane that was failed";
    let Some(fabric) = Fabric::find(TEST) else { return };
    drained(TEST, &fabric, false);
}

#[test]
fn a_drain_comes_back_behind_what_failed_by_itself() {
    const TEST: &str = "drain of a lane that failed by itself";
    let Some(fabric) = Fabric::find_breakable(TEST) else { return };
    drained(TEST, &fabric, true);
}

#[test]
fn produces() {
    lane::produce_if_told();
}
