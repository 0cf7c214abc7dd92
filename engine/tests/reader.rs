//! A reader and a publisher over shared memory and TCP, in one process; all else is as in
//! production.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use kvrail::core::batch::Done;
use kvrail::core::error::PageError;
use kvrail::core::memory::Slot;
use kvrail::core::remote::Location;
use kvrail::core::table::{KeyTag, Miss};
use kvrail::layouts::Bf16;
use kvrail::layouts::catalogue::{Opaque, VllmFp8DsMla};
use kvrail::session::Address;
use kvrail::{
    Config, ConnectError, KvLayout, PageLayout, Peer, PeerKey, Publisher, PublisherTransport, Reader,
    ReaderEvent, ReaderTransport, TableError, clock, memory, shm, tcp,
};

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 3, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Mla {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

const MLA: PageLayout = PageLayout::of::<Mla>();
const SLOTS: u32 = 300;
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn key(byte: &str) -> PeerKey {
    PeerKey::from_hex(&byte.repeat(32)).unwrap()
}

fn publisher(over: impl PublisherTransport) -> Publisher {
    let listen: Address = "127.0.0.1:0".parse().unwrap();
    Publisher::start("producer".parse().unwrap(), MLA, SLOTS, &listen, key("5a"), over).unwrap()
}

/// The byte that fills `slot` in its publication number `count`.
fn byte(slot: u32, count: u32) -> u8 {
    (slot * 7 + count * 31) as u8
}

fn write(publisher: &Publisher, slot: u32) -> Location {
    let count = publisher.publications(slot).unwrap() + 1;
    publisher.write(slot, KeyTag(slot.into()), |page| page.fill(byte(slot, count))).unwrap()
}

struct Fixture<N: ReaderTransport> {
    publisher: Option<Publisher>,
    reader: Reader<N>,
    peer: Peer,
    slots: Vec<Slot>,
}

fn fixture<N: ReaderTransport>(over: impl PublisherTransport, rails: N) -> Fixture<N> {
    configured(over, rails, Config::default())
}

fn configured<N: ReaderTransport>(over: impl PublisherTransport, rails: N, config: Config) -> Fixture<N> {
    let publisher = publisher(over);
    let mut reader = Reader::start(MLA, rails, config).unwrap();
    let memory = memory::leaked(64 * MLA.page_bytes() as usize).unwrap();
    let slots = reader.register(memory).unwrap().collect();
    let peer = reader.connect(&publisher.local_addr().into(), key("5a")).unwrap();
    Fixture { publisher: Some(publisher), reader, peer, slots }
}

impl<N: ReaderTransport> Fixture<N> {
    fn publisher(&self) -> &Publisher {
        self.publisher.as_ref().unwrap()
    }

    fn submit(&mut self, locations: &[Location], within: Duration) {
        let mut batch = self.reader.batch().unwrap();
        for &location in locations {
            batch.read(self.peer.page(location).unwrap(), self.slots.pop().unwrap()).unwrap();
        }
        self.reader.submit(batch, clock::within(within)).unwrap();
    }

    fn next_done(&mut self) -> Done<'static> {
        let until = clock::within(Duration::from_secs(20));
        loop {
            self.reader.poll();
            if let Some(done) = self.reader.next_done() {
                return done;
            }
            assert!(clock::now() < until, "nothing is done: {:?}", self.reader);
            self.reader.wait(until);
        }
    }

    /// Reads pages, and returns the result of each. A page that arrived is checked to the last
    /// byte.
    fn read(&mut self, locations: &[Location]) -> Vec<Result<(), PageError>> {
        self.submit(locations, Duration::from_secs(10));
        let mut done = self.next_done();
        let results = done.pages().map(|page| {
            let (location, result) = (locations[page.index], page.result());
            if result.is_ok() {
                let want = byte(location.slot, location.expected.generation.count());
                assert!(page.slot.bytes().unwrap().iter().all(|&b| b == want), "{location:?}");
            }
            self.slots.push(page.slot);
            result
        });
        results.collect()
    }
}

/// Pages in bulk: each lands in the slot of its place, stale ones are told, and the slots come back
/// as the range that they were.
#[test]
fn pages_arrive_in_bulk() {
    let mut f = fixture(shm::publish(2), shm::rails(2).unwrap());
    let mut locations: Vec<_> = (0..40).map(|slot| write(f.publisher(), slot)).collect();
    write(f.publisher(), 17);
    let memory = memory::leaked(40 * MLA.page_bytes() as usize).unwrap();
    let mut slots = f.reader.register(memory).unwrap();
    let mut range = slots.take_range(40).unwrap();
    assert!(slots.take_range(1).is_none());
    for round in 0..3 {
        let mut batch = f.reader.batch().unwrap();
        batch.read_many(&f.peer.regions()[0], &locations, range).unwrap();
        f.reader.submit(batch, clock::within(Duration::from_secs(10))).unwrap();
        let mut done = f.next_done();
        let failures: Vec<_> = done.failures().collect();
        let stale = |at: usize| round == 0 && at == 17;
        assert_eq!(done.failed_bits(0), u64::from(round == 0) << 17);
        assert_eq!(failures.len(), usize::from(round == 0), "{failures:?}");
        let back = done.take_range().unwrap();
        assert_eq!((back.first, back.slots.len(), back.slots.first()), (0, 40, 0));
        assert!(done.take_range().is_none() && done.pages().next().is_none());
        range = back.slots;
        for (at, location) in locations.iter().enumerate().filter(|(at, _)| !stale(*at)) {
            let want = byte(location.slot, location.expected.generation.count());
            assert!(range.bytes(at).unwrap().iter().all(|&b| b == want), "page {at} of round {round}");
        }
        // The order of the pages is the caller's.
        locations[17] = write(f.publisher(), 17);
        locations.reverse();
        locations.swap(17, 22);
    }
    slots.put_range(range).unwrap();
    assert_eq!(slots.out(), 0);
    f.reader.unregister(slots).unwrap();
}

fn pages_arrive<N: ReaderTransport>(mut f: Fixture<N>) {
    let locations: Vec<_> = (0..SLOTS).map(|slot| write(f.publisher(), slot)).collect();
    // The table lists every page, and is longer than one READ of it.
    assert_eq!(f.reader.published(&f.peer, 0, clock::within(Duration::from_secs(5))).unwrap(), locations);
    for some in locations.chunks(50) {
        assert!(f.read(some).iter().all(Result::is_ok));
    }
    // A page that was rewritten, one that was taken back and one of another key are misses, each
    // with its reason; their neighbours arrive.
    let fresh = write(f.publisher(), 7);
    f.publisher().invalidate(8).unwrap();
    let mut forged = locations[9];
    forged.expected.tag = KeyTag(1);
    let results = f.read(&[locations[6], locations[7], locations[8], forged, fresh]);
    assert!(matches!(
        results[..],
        [
            Ok(()),
            Err(PageError::Miss(Miss::Generation { .. })),
            Err(PageError::Miss(Miss::Overwriting { .. })),
            Err(PageError::Miss(Miss::Key { .. })),
            Ok(())
        ]
    ));
    assert_eq!(f.reader.peer_stats(&f.peer).unwrap().misses, 3);
    assert!(f.reader.published(&f.peer, 1, clock::within(Duration::from_secs(1))).is_err());
}

#[test]
fn pages_arrive_over_shm() {
    pages_arrive(fixture(shm::publish(2), shm::rails(2).unwrap()));
}

#[test]
fn pages_arrive_over_tcp() {
    pages_arrive(fixture(tcp::publish(LOCALHOST, 1), tcp::rails(2).unwrap()));
}

fn a_lost_producer_is_an_event<N: ReaderTransport>(mut f: Fixture<N>) {
    let location = write(f.publisher(), 0);
    assert_eq!(f.read(&[location]), [Ok(())]);
    f.submit(&[location; 50], Duration::from_secs(10));
    f.publisher = None;
    // The pages were read already or failed, and no slot is missing.
    let mut done = f.next_done();
    assert_eq!(done.pages().count(), 50);
    drop(done);
    let until = Instant::now() + Duration::from_secs(10);
    let event = loop {
        f.reader.poll();
        if let Some(event) = f.reader.next_event() {
            break event;
        }
        assert!(Instant::now() < until, "the loss goes unnoticed");
        f.reader.wait(clock::within(Duration::from_secs(1)));
    };
    let ReaderEvent::Lost { peer, producer, .. } = event else { panic!("{event:?}") };
    assert_eq!((peer, producer.as_str()), (f.peer.id(), "producer"));
    let mut batch = f.reader.batch().unwrap();
    batch.read(f.peer.page(location).unwrap(), f.slots.pop().unwrap()).unwrap();
    let refused = f.reader.submit(batch, clock::within(Duration::from_secs(1))).unwrap_err();
    assert!(refused.error.to_string().contains("has been removed"), "{refused}");
}

#[test]
fn a_lost_producer_is_an_event_over_shm() {
    a_lost_producer_is_an_event(fixture(shm::publish(1), shm::rails(2).unwrap()));
}

#[test]
fn a_lost_producer_is_an_event_over_tcp() {
    a_lost_producer_is_an_event(fixture(tcp::publish(LOCALHOST, 1), tcp::rails(1).unwrap()));
}

#[test]
fn one_reader_reads_from_several_producers_and_leaves_them() {
    let mut f = fixture(shm::publish(1), shm::rails(2).unwrap());
    let other = publisher(shm::publish(1));
    let peer = f.reader.connect(&other.local_addr().into(), key("5a")).unwrap();
    let (here, there) = (write(f.publisher(), 1), write(&other, 2));
    let mut batch = f.reader.batch().unwrap();
    batch.read(f.peer.page(here).unwrap(), f.slots.pop().unwrap()).unwrap();
    batch.read(peer.page(there).unwrap(), f.slots.pop().unwrap()).unwrap();
    f.reader.submit(batch, clock::within(Duration::from_secs(5))).unwrap();
    assert!(f.next_done().pages().all(|page| page.result().is_ok()));

    f.reader.disconnect(&peer);
    assert_eq!(f.read(&[here]), [Ok(())], "disconnecting one peer leaves the other");
    let until = Instant::now() + Duration::from_secs(10);
    while other.readers() > 0 {
        assert!(Instant::now() < until, "the session outlives its end");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(f.reader.next_event().is_none(), "leaving is no loss");
}

#[test]
fn two_connections_to_one_producer_are_two_peers() {
    let mut f = fixture(shm::publish(2), shm::rails(2).unwrap());
    let location = write(f.publisher(), 3);
    let address = f.publisher().local_addr().into();
    let again = f.reader.connect(&address, key("5a")).unwrap();
    assert!(again.id() != f.peer.id() && again.epoch() == f.peer.epoch());
    let first = std::mem::replace(&mut f.peer, again);
    assert_eq!(f.read(&[location]), [Ok(())]);
    // Both peers use one mapping, which must outlive the first.
    f.reader.disconnect(&first);
    assert_eq!(f.read(&[location; 20]), [Ok(()); 20]);
}

#[test]
fn a_restarted_producer_is_another_and_its_old_pages_are_misses() {
    let mut f = fixture(shm::publish(1), shm::rails(1).unwrap());
    let old = write(f.publisher(), 0);
    let listen: Address = f.publisher().local_addr().into();
    f.publisher = None;
    let over = shm::publish(1);
    let again = Publisher::start("producer".parse().unwrap(), MLA, SLOTS, &listen, key("5a"), over);
    f.publisher = Some(again.unwrap());
    let new = write(f.publisher(), 0);
    let peer = f.reader.connect(&listen, key("5a")).unwrap();
    assert_ne!(peer.epoch(), f.peer.epoch());
    f.peer = peer;
    let results = f.read(&[old, new]);
    assert!(matches!(results[..], [Err(PageError::Miss(Miss::Generation { .. })), Ok(())]), "{results:?}");
}

#[test]
fn a_reader_with_nothing_in_flight_sleeps_until_an_event() {
    let mut f = fixture(shm::publish(1), shm::rails(2).unwrap());
    let start = Instant::now();
    f.reader.wait(clock::within(Duration::from_millis(60)));
    assert!(start.elapsed() >= Duration::from_millis(59), "{:?}", start.elapsed());
    assert!(f.reader.next_done().is_none());
    // It would sleep for ever if the loss of the producer did not wake it.
    let publisher = f.publisher.take();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(publisher);
    });
    let event = loop {
        f.reader.wait(kvrail::core::time::Time::NEVER);
        f.reader.poll();
        if let Some(event) = f.reader.next_event() {
            break event;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "woken for nothing, again and again");
    };
    assert!(matches!(event, ReaderEvent::Lost { .. }));
    thread.join().unwrap();
}

#[test]
fn connecting_sleeps_although_batches_are_done_and_keeps_the_batches() {
    let config = Config { connect: Duration::from_millis(600), ..Config::default() };
    let mut f = configured(shm::publish(1), shm::rails(1).unwrap(), config);
    let location = write(f.publisher(), 0);
    for _ in 0..3 {
        f.submit(&[location; 4], Duration::from_secs(10));
    }
    // This listener accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cpu = || duration(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime));
    let (start, began) = (Instant::now(), cpu());
    let error = f.reader.connect(&silent.local_addr().unwrap().into(), key("5a")).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(500), "{error}");
    assert!(cpu() - began < Duration::from_millis(150), "it spins: {:?}", cpu() - began);
    for _ in 0..3 {
        let mut done = f.next_done();
        assert_eq!(done.pages().filter(|page| page.result().is_ok()).count(), 4);
    }
}

fn duration(time: rustix::time::Timespec) -> Duration {
    Duration::from_nanos((time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned())
}

#[test]
fn memory_that_holds_no_page_is_refused_by_its_numbers() {
    let mut reader = Reader::start(MLA, shm::rails(1).unwrap(), Config::default()).unwrap();
    let bytes = MLA.page_bytes() as usize;
    for len in [1, bytes - 1] {
        let error = reader.register(memory::leaked(len).unwrap()).unwrap_err().to_string();
        assert!(error.contains(&len.to_string()) && error.contains(&bytes.to_string()), "{error}");
    }
    assert_eq!(reader.register(memory::leaked(2 * bytes - 1).unwrap()).unwrap().count(), 1);
}

#[test]
fn a_read_of_a_table_that_ends_too_late_is_not_given_to_the_user() {
    let mut f = fixture(tcp::publish(LOCALHOST, 1), tcp::rails(1).unwrap());
    let location = write(f.publisher(), 0);
    assert_eq!(f.reader.published(&f.peer, 0, clock::within(Duration::from_secs(5))).unwrap(), [location]);
    // Of these deadlines some are too short to post anything and some long enough for the answer;
    // between them lie deadlines that pass after the READ was posted.
    let mut late = 0;
    for micros in (5..400).step_by(5).cycle().take(4000) {
        match f.reader.published(&f.peer, 0, clock::within(Duration::from_micros(micros))) {
            Err(TableError::Deadline) => late += 1,
            Err(TableError::Page(_) | TableError::Submit(_)) | Ok(_) => {}
            Err(other) => panic!("{other}"),
        }
        f.reader.poll();
        assert!(f.reader.next_done().is_none(), "the table's batch");
        if late == 20 {
            break;
        }
    }
    assert!(late > 0, "never too late");
    let until = Instant::now() + Duration::from_secs(10);
    while f.reader.in_flight() > 0 {
        f.reader.poll();
        assert!(f.reader.next_done().is_none(), "the table's batch");
        assert!(Instant::now() < until, "{:?}", f.reader);
        f.reader.wait(clock::within(Duration::from_millis(10)));
    }
    assert_eq!(f.reader.published(&f.peer, 0, clock::within(Duration::from_secs(5))).unwrap(), [location]);
}

#[test]
fn the_reason_why_two_peers_do_not_connect_is_named() {
    let publisher = publisher(shm::publish(1));
    let address: Address = publisher.local_addr().into();
    let start = |layout| Reader::start(layout, shm::rails(1).unwrap(), Config::default()).unwrap();

    let error = start(MLA).connect(&address, key("5b")).unwrap_err().to_string();
    assert!(
        error.contains(&key("5a").id().to_string()) && error.contains(&key("5b").id().to_string()),
        "{error}"
    );

    let other = PageLayout::of::<VllmFp8DsMla>();
    let error = start(other).connect(&address, key("5a")).unwrap_err().to_string();
    for word in [MLA.name(), other.name(), &MLA.fingerprint().to_string(), &other.fingerprint().to_string()] {
        assert!(error.contains(word), "{error}");
    }

    let mut reader = Reader::start(MLA, tcp::rails(1).unwrap(), Config::default()).unwrap();
    let error = reader.connect(&address, key("5a")).unwrap_err();
    assert!(matches!(error, ConnectError::Transport { .. }), "{error}");
    assert!(error.to_string().contains("tcp0 (tcp)") && error.to_string().contains("shm0 (shm)"), "{error}");

    drop(publisher);
    let error = start(MLA).connect(&address, key("5a")).unwrap_err().to_string();
    assert!(error.contains("refused") && error.contains(&address.to_string()), "{error}");
}

#[test]
fn numbers_that_cannot_work_are_refused() {
    let none = Config { lanes_per_rail: 0, ..Config::default() };
    let error = Reader::start(MLA, shm::rails(1).unwrap(), none).unwrap_err().to_string();
    assert!(error.contains("lanes_per_rail"), "{error}");
    for rails in [0, 17] {
        let error = shm::rails(rails).unwrap_err().to_string();
        assert!(error.contains(&rails.to_string()), "{error}");
    }
    let listen: Address = "127.0.0.1:0".parse().unwrap();
    let start = |slots, rails| {
        Publisher::start("p".parse().unwrap(), MLA, slots, &listen, key("5a"), shm::publish(rails))
            .unwrap_err()
    };
    assert!(start(0, 1).to_string().contains("0 slots"));
    assert!(start(1, 0).to_string().contains("no rails"));
    assert!(start(1, 17).to_string().contains("17"));
    let publisher = publisher(shm::publish(1));
    let error = publisher.write(SLOTS, KeyTag(0), |_| ()).unwrap_err().to_string();
    assert!(error.contains("slot 300 of a pool that has 300"), "{error}");
}

#[test]
fn a_page_whose_writer_panics_stays_a_miss() {
    let publisher = publisher(shm::publish(1));
    write(&publisher, 0);
    let write = std::panic::AssertUnwindSafe(|| publisher.write(0, KeyTag(1), |_| panic!("half way")));
    std::panic::catch_unwind(write).unwrap_err();
    assert_eq!(publisher.location(0), Ok(None));
    assert!(publisher.write(0, KeyTag(1), |_| ()).unwrap().expected.generation.is_valid());
}

#[test]
fn a_reader_ends_with_reads_in_flight_and_batches_outside() {
    let mut f = fixture(shm::publish(1), shm::rails(2).unwrap());
    let location = write(f.publisher(), 0);
    f.submit(&[location; 50], Duration::from_secs(10));
    let batch = f.reader.batch().unwrap();
    let start = Instant::now();
    drop(f.reader);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // The batch lies in the reader's storage, which must outlive it.
    assert!(batch.is_empty());
    drop(batch);
}

#[test]
fn synthetic_layouts_say_so() {
    let opaque = PageLayout::of::<Opaque<131_072>>();
    assert!(opaque.synthetic() && !MLA.synthetic());
    assert_eq!(opaque.page_bytes(), 131_072);
    assert_eq!((MLA.page_bytes(), MLA.tokens()), (3 * 16 * 1152, 16));
}
