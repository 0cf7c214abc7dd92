//! Rails over shared memory and over TCP keep the provider contract.
#![allow(missing_docs, reason = "a test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_conformance::{Abilities, BYTES, Destination, Outcome, RemoteBytes, Rig, pattern, run_all};
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::provider::{Provider as _, Wake as _};
use kvrail_core::time::{Nanos, Time};
use kvrail_local::shm::{Segment, ShmExporter, ShmPeer};
use kvrail_local::tcp::{TcpConnection, TcpExport, TcpServer};
use kvrail_local::{LaneTransport, LocalConfig, LocalProvider};

const DEPTH: u32 = 8;

/// The two ends of a transport, both in this process.
trait Ends: LaneTransport + Sized {
    type Producer;
    fn produce(segment: Arc<Segment>) -> (Self::Producer, RemoteBytes);
    fn connect(producer: &Self::Producer) -> Self;
}

impl Ends for ShmPeer {
    type Producer = ShmExporter;

    fn produce(segment: Arc<Segment>) -> (ShmExporter, RemoteBytes) {
        let exporter = ShmExporter::start(vec![segment]).expect("a socket and a thread");
        let region = exporter.regions()[0];
        (exporter, RemoteBytes { base: region.base, rkeys: [region.rkey; MAX_RAILS] })
    }

    fn connect(producer: &ShmExporter) -> Self {
        Self::connect(producer.address()).expect("an exporter of this process")
    }
}

impl Ends for TcpConnection {
    type Producer = TcpServer;

    fn produce(segment: Arc<Segment>) -> (TcpServer, RemoteBytes) {
        let bind = "127.0.0.1:0".parse().expect("an address");
        let server = TcpServer::start(bind, vec![TcpExport::segment(segment)]).expect("a port");
        let region = server.regions()[0];
        (server, RemoteBytes { base: region.base, rkeys: [region.rkey; MAX_RAILS] })
    }

    fn connect(producer: &TcpServer) -> Self {
        Self::open(producer.address()).expect("a server of this process")
    }
}

/// Two rails to a producer in this process.
struct Local<T: Ends> {
    producer: T::Producer,
    remote: RemoteBytes,
    start: Instant,
}

impl<T: Ends> Rig for Local<T> {
    type Provider = LocalProvider<T>;
    const ABILITIES: Abilities = Abilities::ALL;
    const DEPTH: u32 = DEPTH;

    fn new() -> Self {
        let segment = Arc::new(Segment::new(BYTES).expect("memory"));
        let bytes: Vec<u8> = (0..BYTES).map(pattern).collect();
        segment.write(0, &bytes).expect("as long as the segment");
        let (producer, remote) = T::produce(segment);
        Self { producer, remote, start: Instant::now() }
    }

    fn provider(&mut self) -> LocalProvider<T> {
        // Five lanes a rail, so that a place that is not given back is missed soon.
        let cq_entries = 5 * (DEPTH + 1);
        let config = LocalConfig { rails: 2, sq_entries: DEPTH, cq_entries, ..LocalConfig::default() };
        LocalProvider::start(config).expect("two threads")
    }

    fn connect(&mut self, _: &mut LocalProvider<T>, _: RailIndex) -> T {
        T::connect(&self.producer)
    }

    fn remote(&self) -> RemoteBytes {
        self.remote
    }

    fn destination(&mut self) -> Destination {
        Destination::new(vec![0; BYTES].leak())
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_nanos() as u64)
    }

    fn pass(&mut self, time: Nanos) {
        std::thread::sleep(Duration::from_nanos(time.0));
    }

    fn wake(&mut self, provider: &LocalProvider<T>) {
        let waker = provider.waker();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            waker.wake();
        });
    }
}

/// A READ has one piece, and there is no control thread: a worker changes its lanes itself, between READs.
const SKIPPED: [&str; 3] = [
    "a_scattered_read_fills_its_pieces_in_order_and_nothing_else",
    "while_a_failure_takes_its_time_each_read_still_ends_once",
    "a_close_that_overtakes_a_slow_failure_ends_the_lane",
];

fn skipped<R: Rig>() -> Vec<&'static str> {
    let mut names = Vec::new();
    run_all::<R>(|name, outcome| {
        if let Outcome::Skipped { .. } = outcome {
            names.push(name);
        }
    });
    names
}

#[test]
fn only_what_needs_pieces_or_a_control_thread_is_skipped() {
    assert_eq!(skipped::<Local<ShmPeer>>(), SKIPPED);
    assert_eq!(skipped::<Local<TcpConnection>>(), SKIPPED);
}

mod shm {
    kvrail_conformance::conformance_tests!(super::Local<super::ShmPeer>);
}

mod tcp {
    kvrail_conformance::conformance_tests!(super::Local<super::TcpConnection>);
}
