//! Rails over shared memory and over TCP keep the provider contract.
#![allow(missing_docs, reason = "a test")]
#![allow(unsafe_code, reason = "exports memory by its address")]

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_conformance::{Abilities, BYTES, Destination, Outcome, RemoteBytes, Rig, pattern, run_all};
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::provider::{Provider as _, Wake as _};
use kvrail_core::time::{Nanos, Time};
use kvrail_local::shm::{Backing, ExportedMemory, Segment, ShmExport, ShmExporter, ShmPeer};
use kvrail_local::tcp::{TcpConnection, TcpExported, TcpServer};
use kvrail_local::{ExportedRegion, LaneTransport, LocalConfig, LocalProvider};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};

const DEPTH: u32 = 8;

/// The two ends of a transport, both in this process.
trait Ends {
    type Transport: LaneTransport;
    type Producer;
    fn produce(segment: Arc<Segment>) -> (Self::Producer, ExportedRegion);
    fn connect(producer: &Self::Producer) -> Self::Transport;
}

/// Over shared memory, by one kind of backing.
struct Shm<const KIND: u8>;
const MAPPED: u8 = 0;
const READ_FILE: u8 = 1;
const PROCESS: u8 = 2;

/// The segment's bytes as memory of another kind.
fn memory<const KIND: u8>(segment: Arc<Segment>) -> ExportedMemory {
    let range = segment.range();
    let backing = match KIND {
        MAPPED => return ExportedMemory::segment(segment),
        READ_FILE => {
            // A file that is not sealed, which is not the mapped memory itself.
            let file = memfd_create("kvrail-test", MemfdFlags::CLOEXEC).expect("a memfd");
            let bytes: Vec<u8> = (0..segment.len()).map(pattern).collect();
            let mut file = std::fs::File::from(file);
            file.write_all(&bytes).expect("memory");
            Backing::File { file: Arc::new(file.into()), offset: 0 }
        }
        _ => Backing::Host,
    };
    // A suite's producer lives to the end of its test.
    std::mem::forget(segment);
    // SAFETY: the segment is there for ever, and the file has the same bytes.
    unsafe { ExportedMemory::foreign(range, backing) }
}

impl<const KIND: u8> Ends for Shm<KIND> {
    type Transport = ShmPeer;
    type Producer = (ShmExport, ShmExporter);

    fn produce(segment: Arc<Segment>) -> (Self::Producer, ExportedRegion) {
        let exporter = ShmExporter::start().expect("a socket and a thread");
        let export = exporter.export(memory::<KIND>(segment)).expect("a place");
        let region = export.region();
        ((export, exporter), region)
    }

    fn connect(producer: &Self::Producer) -> ShmPeer {
        ShmPeer::connect(producer.1.address()).expect("an exporter of this process")
    }
}

struct Tcp;

impl Ends for Tcp {
    type Transport = TcpConnection;
    type Producer = (TcpExported, TcpServer);

    fn produce(segment: Arc<Segment>) -> (Self::Producer, ExportedRegion) {
        let server = TcpServer::start("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let export = server.export(ExportedMemory::segment(segment)).expect("a place");
        let region = export.region();
        ((export, server), region)
    }

    fn connect(producer: &Self::Producer) -> TcpConnection {
        TcpConnection::open(producer.1.address()).expect("a server of this process")
    }
}

/// Two rails to a producer in this process.
struct Local<T: Ends> {
    producer: T::Producer,
    remote: RemoteBytes,
    start: Instant,
}

impl<T: Ends> Rig for Local<T> {
    type Provider = LocalProvider<T::Transport>;
    const ABILITIES: Abilities = Abilities::ALL;
    const DEPTH: u32 = DEPTH;

    fn new() -> Self {
        let segment = Arc::new(Segment::new(BYTES).expect("memory"));
        let bytes: Vec<u8> = (0..BYTES).map(pattern).collect();
        segment.write(0, &bytes).expect("as long as the segment");
        let (producer, region) = T::produce(segment);
        let remote = RemoteBytes { base: region.base, rkeys: [region.rkey; MAX_RAILS] };
        Self { producer, remote, start: Instant::now() }
    }

    fn provider(&mut self) -> LocalProvider<T::Transport> {
        // Five lanes a rail, so that a place that is not given back is missed soon.
        let cq_entries = 5 * (DEPTH + 1);
        let config = LocalConfig { rails: 2, sq_entries: DEPTH, cq_entries, ..LocalConfig::default() };
        LocalProvider::start(config).expect("two threads")
    }

    fn connect(&mut self, _: &mut LocalProvider<T::Transport>, _: RailIndex) -> T::Transport {
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

    fn readable(&self, provider: &LocalProvider<T::Transport>) -> Option<bool> {
        let mut fds = [PollFd::new(provider, PollFlags::IN)];
        Some(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1))
    }

    fn wake(&mut self, provider: &LocalProvider<T::Transport>) {
        let waker = provider.waker();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            waker.wake();
        });
    }
}

/// A READ has one piece, and there is no control thread: a worker changes its lanes itself, between
/// READs.
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
    assert_eq!(skipped::<Local<Shm<MAPPED>>>(), SKIPPED);
    assert_eq!(skipped::<Local<Shm<READ_FILE>>>(), SKIPPED);
    assert_eq!(skipped::<Local<Shm<PROCESS>>>(), SKIPPED);
    assert_eq!(skipped::<Local<Tcp>>(), SKIPPED);
}

mod shm {
    kvrail_conformance::conformance_tests!(super::Local<super::Shm<{ super::MAPPED }>>);
}

mod shm_read_file {
    kvrail_conformance::conformance_tests!(super::Local<super::Shm<{ super::READ_FILE }>>);
}

mod shm_process {
    kvrail_conformance::conformance_tests!(super::Local<super::Shm<{ super::PROCESS }>>);
}

mod tcp {
    kvrail_conformance::conformance_tests!(super::Local<super::Tcp>);
}
