//! What a reader and a producer agree on: keys, layouts, pools.

mod served;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvrail::core::id::MAX_RAILS;
use kvrail::core::remote::{Location, RegionOffer, TableOffer};
use kvrail::core::table::{EntryValue, KeyTag, Ready};
use kvrail::layouts::catalogue::{Opaque, VllmFp8DsMla};
use kvrail::local::shm::{ExportedMemory, Segment, ShmExporter};
use kvrail::session::handover::{Block, WHOLE_PAGE};
use kvrail::session::{
    By, Cause, Layout, Name, OfferedRegion, Pool, PoolId, ProducerDescription, RailAddress, RailDescription,
    Refusal, Server, ServerConfig, ServerEvent, TransportKind,
};
use kvrail::{
    BlockError, Config, ConnectError, PageLayout, Peer, PeerKey, PeerKeys, Publisher, Reader, clock, memory,
    shm,
};

use served::Served;

const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();
const OTHER: PageLayout = PageLayout::of::<Opaque<131_072>>();

fn key(byte: u8) -> PeerKey {
    PeerKey::from_bytes([byte; 32])
}

fn publisher(keys: impl Into<PeerKeys>) -> Publisher {
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    Publisher::start(name, LAYOUT, 4, &listen, keys, shm::publish(1)).unwrap()
}

fn reader() -> Reader<shm::ShmRails> {
    Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap()
}

/// What a producer has reported of its sessions.
type Events = Arc<Mutex<Vec<ServerEvent>>>;

/// A producer with pools of these layouts, each of four slots.
fn server(layouts: &[Layout]) -> (Server, Events) {
    let exporter = ShmExporter::start().unwrap();
    let export = exporter.export(ExportedMemory::segment(Arc::new(Segment::new(1 << 20).unwrap()))).unwrap();
    let exported = export.region();
    let keys = [exported.rkey; MAX_RAILS];
    let region = |layout: &Layout| {
        let page_bytes = layout.page_bytes.get();
        let table = Some(TableOffer { base: exported.base, keys });
        let offer =
            RegionOffer { base: exported.base, page_bytes, stride: page_bytes, slots: 4, keys, table };
        OfferedRegion::new(offer).unwrap()
    };
    let pool = |(layout, id): (&Layout, u32)| Pool::new(PoolId(id), *layout, vec![region(layout)]).unwrap();
    let pools = layouts.iter().zip(0..).map(pool).collect();
    let rail = RailDescription {
        name: Name::lossy("shm0"),
        kind: TransportKind::Shm,
        address: RailAddress(exporter.address().to_bytes()),
        nominal_bytes_per_sec: 1_000_000_000,
        numa: None,
        lanes: 0,
    };
    let events = Events::default();
    let observed = Arc::clone(&events);
    let config = ServerConfig {
        observer: Some(Arc::new(move |event| observed.lock().unwrap().push(event))),
        ..ServerConfig::default()
    };
    let producer = ProducerDescription { node: "producer".parse().unwrap(), pools };
    let listen = "127.0.0.1:0".parse().unwrap();
    let served = Served { rail, _exporter: (export, exporter) };
    (Server::start(&listen, key(1), producer, served, config).unwrap(), events)
}

/// Reads a page, and checks its bytes.
fn arrives(reader: &mut Reader<shm::ShmRails>, page: kvrail::core::remote::RemotePage, byte: u8) {
    let memory = memory::leaked(LAYOUT.page_bytes() as usize).unwrap();
    let mut slots = reader.register(memory).unwrap();
    let mut batch = reader.batch().unwrap();
    batch.read(page, slots.next().unwrap()).unwrap();
    let deadline = clock::within(Duration::from_secs(20));
    reader.submit(batch, deadline).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(deadline),
        }
    };
    let page = done.pages().next().unwrap();
    assert_eq!(page.result(), Ok(()));
    assert!(page.slot.bytes().unwrap().iter().all(|&b| b == byte));
}

#[test]
fn a_reader_with_two_keys_finds_the_one_that_the_producer_knows() {
    let (old, new) = (key(1), key(2));
    let publisher = publisher(&old);
    let address = publisher.local_addr().into();
    let location = publisher.write(1, KeyTag(7), |page| page.fill(9)).unwrap();
    for keys in [PeerKeys::rotating(new.clone(), old.clone()), PeerKeys::rotating(old.clone(), new.clone())] {
        let mut reader = reader();
        let peer = reader.connect(&address, keys).unwrap();
        arrives(&mut reader, peer.page(location).unwrap(), 9);
    }
    // The error is about the key that was tried last, and names the producer's.
    let error = reader().connect(&address, PeerKeys::rotating(new, key(3))).unwrap_err();
    let ConnectError::Session(session) = &error else { panic!("{error}") };
    assert!(matches!(session.cause, Cause::Refused { by: By::Peer, refusal: Refusal::Key(_), .. }));
    for id in [key(3).id(), old.id()] {
        assert!(error.to_string().contains(&id.to_string()), "{error}");
    }
}

#[test]
fn a_producer_with_two_keys_serves_readers_of_either_and_of_no_other() {
    let publisher = publisher(PeerKeys::rotating(key(1), key(2)));
    let address = publisher.local_addr().into();
    for byte in [1, 2] {
        reader().connect(&address, key(byte)).unwrap();
    }
    assert_eq!(reader().connect(&address, key(3)).unwrap_err().code(), 4101);
    assert!(reader().connect(&address, PeerKeys::none()).is_err());
}

#[test]
fn without_a_key_readers_of_this_host_are_served() {
    let publisher = publisher(PeerKeys::none());
    let location = publisher.write(0, KeyTag(7), |page| page.fill(5)).unwrap();
    let mut reader = reader();
    let peer = reader.connect(&publisher.local_addr().into(), PeerKeys::none()).unwrap();
    arrives(&mut reader, peer.page(location).unwrap(), 5);
}

#[test]
fn a_time_to_connect_that_no_clock_can_hold_counts_as_a_day() {
    let publisher = publisher(key(1));
    let config = Config { connect: Duration::MAX, ..Config::default() };
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), config).unwrap();
    reader.connect(&publisher.local_addr().into(), key(1)).unwrap();
}

#[test]
fn a_producer_is_found_by_its_name() {
    let publisher = publisher(key(1));
    let address = format!("localhost:{}", publisher.local_addr().port()).parse().unwrap();
    // The name may stand for an IPv6 address, too, at which no process listens.
    reader().connect(&address, key(1)).unwrap();
    let nowhere = "no-such-host.invalid:7470".parse().unwrap();
    let error = reader().connect(&nowhere, key(1)).unwrap_err();
    assert!(error.to_string().contains("no-such-host.invalid:7470, resolving the name"), "{error}");
    let listening = "0.0.0.0:7470".parse().unwrap();
    let error = reader().connect(&listening, key(1)).unwrap_err();
    assert!(error.to_string().contains("and not connect to it"), "{error}");
}

/// The reason for which the producer's only session has ended.
fn closed(events: &Events) -> String {
    let begun = Instant::now();
    loop {
        let found = events.lock().unwrap().iter().find_map(|event| match event {
            ServerEvent::Closed { reader, why, .. } => Some(format!("{reader}: {why}")),
            _ => None,
        });
        if let Some(found) = found {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", events.lock().unwrap());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn both_sides_learn_that_there_is_no_pool_of_the_wanted_layout() {
    let (ours, theirs) = (Layout::of::<VllmFp8DsMla>().unwrap(), Layout::of::<Opaque<131_072>>().unwrap());
    let (server, events) = server(&[theirs]);
    let address = server.local_addr().into();
    let error = reader().connect(&address, key(1)).unwrap_err();
    let ConnectError::NoPool { wanted, offered, .. } = &error else { panic!("{error}") };
    assert!(
        wanted.iter().all(|wanted| wanted.same_bytes(&ours))
            && offered.iter().all(|offered| offered.same_bytes(&theirs))
    );
    assert_eq!((error.code(), offered.len()), (6035, 1));
    for word in [LAYOUT.name(), OTHER.name(), "same layout", &address.to_string()] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let theirs = closed(&events);
    assert!(theirs.contains("no pool of the producer has a layout that the reader knows"), "{theirs}");
    assert!(theirs.contains(&format!("reader-{}", std::process::id())), "{theirs}");
}

#[test]
fn a_producer_without_pools_is_told_from_one_of_another_layout() {
    let (none, _) = server(&[]);
    let error = reader().connect(&none.local_addr().into(), key(1)).unwrap_err();
    assert!(matches!(&error, ConnectError::NoPool { offered, .. } if offered.is_empty()), "{error}");
    assert!(error.to_string().contains("connect when it has published"), "{error}");
}

fn at(slot: u32, ready: u32) -> (Block, Location) {
    let expected = EntryValue { tag: KeyTag(3), ready: Ready::NONE, ..EntryValue::default() };
    let block = Block { pool: PoolId(2), slot, expected, ready };
    let ready = if ready == WHOLE_PAGE { Ready::WHOLE } else { Ready(ready) };
    (block, Location { slot, expected: EntryValue { ready, ..expected } })
}

/// Two pools of the reader's layout, each of four slots, and one of another layout.
fn peer_of_pools() -> (Server, Reader<shm::ShmRails>, Peer) {
    let [ours, other] = [Layout::of::<VllmFp8DsMla>().unwrap(), Layout::of::<Opaque<131_072>>().unwrap()];
    let (server, _) = server(&[ours, other, ours]);
    let mut reader = reader();
    let peer = reader.connect(&server.local_addr().into(), key(1)).unwrap();
    (server, reader, peer)
}

#[test]
fn a_peer_has_the_pools_of_the_readers_layout() {
    let (_server, _reader, peer) = peer_of_pools();
    let pools: Vec<_> = peer.pools().iter().map(|pool| (pool.id(), pool.regions().len())).collect();
    assert_eq!(pools, [(PoolId(0), 1), (PoolId(2), 1)]);
    assert!(peer.pools().iter().all(|pool| pool.layout().fingerprint == LAYOUT.fingerprint()));
    assert_eq!(peer.regions().len(), 2);
}

#[test]
fn a_block_of_a_hand_over_names_a_page_by_its_slot_in_the_pool() {
    let (_server, _reader, peer) = peer_of_pools();
    let region = &peer.pools()[1].regions()[0];
    for slot in [0, 3] {
        let (block, location) = at(slot, WHOLE_PAGE);
        let page = region.page(location).unwrap();
        assert_eq!(format!("{:?}", peer.block(&block).unwrap()), format!("{page:?}"));
        // Of a page that grows, the ready parts can be read.
        let (block, location) = at(slot, 3);
        let page = region.page(location).unwrap().needs(3);
        assert_eq!(format!("{:?}", peer.block(&block).unwrap()), format!("{page:?}"));
    }
    let beyond = peer.block(&at(4, WHOLE_PAGE).0).unwrap_err();
    assert_eq!(beyond, BlockError::Slot { pool: PoolId(2), slot: 4, slots: 4 });
    assert_eq!(beyond.code(), 6041);
    let unknown = peer.block(&Block { pool: PoolId(1), ..at(0, WHOLE_PAGE).0 }).unwrap_err();
    assert!(matches!(unknown, BlockError::Pool { pool: PoolId(1), slot: 0, .. }), "{unknown}");
    assert!(unknown.to_string().contains("pool 1") && unknown.to_string().contains("producer"), "{unknown}");
}
