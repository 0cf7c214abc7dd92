//! Rails over RDMA verbs keep the provider contract, on a real verbs stack.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::time::{Duration, Instant};

use kvrail_conformance::{Abilities, BYTES, Destination, Outcome, RemoteBytes, Rig, pattern, run_all};
use kvrail_core::id::RailIndex;
use kvrail_core::provider::{MemoryRange, Provider as _, Wake as _};
use kvrail_core::time::{Nanos, Time};
use kvrail_verbs::{
    AcceptedLane, QpAcceptor, QpDialer, Rights, Side, UnopenedLane, Verbs, VerbsConfig, VerbsRegion, rail,
};
use lane::{Devices, rails};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const DEPTH: u32 = 8;
/// Pieces of a READ.
const SGES: u32 = 4;

/// The reader's rails and the producer's, each connected to the one at the same place.
struct Rdma {
    acceptor: QpAcceptor,
    accepted: Vec<AcceptedLane>,
    region: VerbsRegion,
    start: Instant,
}

impl Rdma {
    const CONFIG: VerbsConfig = VerbsConfig {
        sq_entries: DEPTH + 1,
        // Five lanes a rail, so that a place that is not given back is missed soon.
        cq_entries: 5 * (DEPTH + 1),
        sges: SGES,
        ..VerbsConfig::DEFAULT
    };
}

impl Rig for Rdma {
    type Provider = Verbs;
    const ABILITIES: Abilities = Abilities::ALL;
    const DEPTH: u32 = DEPTH;
    // The guest is emulated.
    const TIME_LIMIT: Nanos = Nanos(lane::HANGS.as_nanos() as u64);

    fn new() -> Self {
        let [_, producer] = rails();
        let far = rail::open(&producer, Self::CONFIG, Side::Producer).expect("the producer's rails");
        let memory = kvrail::memory::leaked(BYTES).expect("memory");
        memory.iter_mut().enumerate().for_each(|(at, byte)| *byte = pattern(at));
        let range = MemoryRange { addr: memory.as_ptr().expose_provenance() as u64, len: BYTES as u64 };
        let region = VerbsRegion::new(&far, range, Rights::RemoteRead).expect("registered memory");
        let acceptor = QpAcceptor::new(far).expect("rails of a producer");
        Self { acceptor, accepted: Vec::new(), region, start: Instant::now() }
    }

    fn provider(&mut self) -> Verbs {
        let [reader, _] = rails();
        Verbs::open_rails(&reader, Self::CONFIG).expect("the reader's rails")
    }

    fn connect(&mut self, verbs: &mut Verbs, rail: RailIndex) -> UnopenedLane {
        let (dialer, rail) = (QpDialer::new(verbs.ports()), rail.get());
        let end = self.acceptor.rails()[rail].end().expect("a port that is up");
        let (pending, ours) = dialer.prepare(rail, &end.encode()).expect("rails that reach each other");
        let (accepted, theirs) = self.acceptor.accept(rail, &ours).expect("the producer's end");
        self.accepted.push(accepted);
        dialer.connect(pending, &theirs).expect("the reader's end")
    }

    fn remote(&self) -> RemoteBytes {
        RemoteBytes { base: self.region.range().addr, rkeys: self.region.keys() }
    }

    fn destination(&mut self) -> Destination {
        Destination::new(kvrail::memory::leaked(BYTES).expect("memory"))
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_nanos() as u64)
    }

    fn pass(&mut self, time: Nanos) {
        std::thread::sleep(Duration::from_nanos(time.0));
    }

    fn readable(&self, verbs: &Verbs) -> Option<bool> {
        let mut fds = [PollFd::new(verbs, PollFlags::IN)];
        Some(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1))
    }

    fn wake(&mut self, verbs: &Verbs) {
        let waker = verbs.waker();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            waker.wake();
        });
    }
}

fn devices(case: &str) -> Option<Devices> {
    Devices::find(&format!("conformance of verbs: {case}"))
}

kvrail_conformance::conformance_tests!(Rdma, devices);

/// How long a device takes to move a QP to the error state is its own.
#[test]
fn only_what_needs_a_slow_control_thread_is_skipped() {
    let Some(_devices) = devices("which cases are skipped") else { return };
    let mut skipped = Vec::new();
    run_all::<Rdma>(|name, outcome| {
        if let Outcome::Skipped { .. } = outcome {
            skipped.push(name);
        }
    });
    let expected = [
        "while_a_failure_takes_its_time_each_read_still_ends_once",
        "a_close_that_overtakes_a_slow_failure_ends_the_lane",
    ];
    assert_eq!(skipped, expected);
}
