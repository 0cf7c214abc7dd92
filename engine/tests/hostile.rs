//! Producers that offer regions and tables which do not exist.

mod served;

use std::sync::Arc;
use std::time::Duration;

use kvrail::core::id::MAX_RAILS;
use kvrail::core::remote::{RegionOffer, TableOffer};
use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::local::shm::{ExportedMemory, Segment, ShmExporter};
use kvrail::session::{
    Layout, Name, OfferedRegion, Pool, PoolId, ProducerDescription, RailAddress, RailDescription, Server,
    ServerConfig, TransportKind,
};
use kvrail::{
    Config, ConnectError, MAX_LISTED, PageLayout, PeerKey, Publisher, Reader, TableError, clock, shm,
};

use served::Served;

const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();

fn key() -> PeerKey {
    PeerKey::from_bytes([4; 32])
}

/// A producer of one small segment, which it offers `times` over as pools of `slots` slots.
fn producer(times: usize, slots: u32) -> Server {
    let segment = Arc::new(Segment::new(1 << 20).unwrap());
    let exporter = ShmExporter::start().unwrap();
    let export = exporter.export(ExportedMemory::segment(segment)).unwrap();
    let region = export.region();
    let keys = [region.rkey; MAX_RAILS];
    let page_bytes = u64::from(LAYOUT.page_bytes());
    let offer = RegionOffer {
        base: region.base,
        page_bytes,
        stride: page_bytes,
        slots,
        keys,
        table: Some(TableOffer { base: region.base, keys }),
    };
    let (layout, region) = (Layout::of::<VllmFp8DsMla>().unwrap(), OfferedRegion::new(offer).unwrap());
    let pools = (0..times).map(|id| Pool::new(PoolId(id as u32), layout, vec![region]).unwrap());
    let producer = ProducerDescription { node: "producer".parse().unwrap(), pools: pools.collect() };
    let rail = RailDescription {
        name: Name::lossy("shm0"),
        kind: TransportKind::Shm,
        address: RailAddress(exporter.address().to_bytes()),
        nominal_bytes_per_sec: 1_000_000_000,
        numa: None,
        lanes: 0,
    };
    let served = Served { rail, _exporter: (export, exporter) };
    let listen = "127.0.0.1:0".parse().unwrap();
    Server::start(&listen, key(), producer, served, ServerConfig::default()).unwrap()
}

fn reader() -> Reader<shm::ShmRails> {
    Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap()
}

#[test]
fn a_producer_that_claims_too_many_slots_has_its_table_listed_in_parts_only() {
    let (server, mut reader) = (producer(1, 120_000_000), reader());
    let peer = reader.connect(&server.local_addr().into(), key()).unwrap();
    let until = || clock::within(Duration::from_secs(10));
    let error = reader.published(&peer, 0, until()).unwrap_err();
    assert!(matches!(error, TableError::Slots { slots: 120_000_000, .. }), "{error}");
    for word in ["120000000", &MAX_LISTED.to_string(), "published_in"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(reader.published_in(&peer, 0, 0..5000, until()).unwrap(), []);
    for (first, end) in [(5, 5), (0, MAX_LISTED + 1), (120_000_000, 120_000_001)] {
        let error = reader.published_in(&peer, 0, first..end, until()).unwrap_err();
        assert!(matches!(error, TableError::Slots { .. }), "{error}");
    }
    // Slots beyond the memory that the producer really has fail as READs.
    let error = reader.published_in(&peer, 0, 100_000_000..100_000_100, until()).unwrap_err();
    assert!(matches!(error, TableError::Page(_)), "{error}");
}

#[test]
fn a_part_of_a_table_lists_the_pages_of_its_slots() {
    let listen = "127.0.0.1:0".parse().unwrap();
    let name = "producer".parse().unwrap();
    let publisher = Publisher::start(name, LAYOUT, 20, &listen, key(), shm::publish(1)).unwrap();
    let all: Vec<_> = (0..20).map(|slot| publisher.write(slot, KeyTag(1), |_| ()).unwrap()).collect();
    let mut reader = reader();
    let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
    let until = clock::within(Duration::from_secs(10));
    assert_eq!(reader.published_in(&peer, 0, 3..17, until).unwrap(), all[3..17]);
}

#[test]
fn one_producer_leaves_the_others_places_for_their_regions() {
    let mut reader = reader();
    for times in [256, 66] {
        let server = producer(times, 4);
        let error = reader.connect(&server.local_addr().into(), key()).unwrap_err();
        // 64 peers, and 256 places of which each of the other 63 can have two.
        assert!(
            matches!(error, ConnectError::TooManyRegions { offered, places: 130, .. } if offered == 2 * times),
            "{error}"
        );
    }
    let servers = [(); 64].map(|()| producer(65, 4));
    let first = reader.connect(&servers[0].local_addr().into(), key()).unwrap();
    assert_eq!(first.regions().len(), 65);
    let error = reader.connect(&servers[1].local_addr().into(), key()).unwrap_err();
    assert!(matches!(error, ConnectError::TooManyRegions { places: 2, .. }), "{error}");
    // A disconnected peer's places are free again.
    reader.disconnect(&first);
    let begun = std::time::Instant::now();
    while reader.connect(&servers[1].local_addr().into(), key()).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        reader.poll();
        reader.wait(clock::within(Duration::from_millis(1)));
    }
}
