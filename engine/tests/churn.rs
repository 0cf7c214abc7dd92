//! A producer whose pools come and go without end costs a reader that does not poll no memory.

mod served;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::core::id::MAX_RAILS;
use kvrail::core::remote::{RegionOffer, TableOffer};
use kvrail::core::table::{EntryValue, Generation};
use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::local::shm::{ExportedMemory, Segment, ShmExporter};
use kvrail::session::handover::{Block, Class, RequestId, TakingEvent};
use kvrail::session::{
    Layout, Name, OfferedRegion, Pool, PoolId, ProducerDescription, RailAddress, RailDescription, Server,
    ServerConfig, TransportKind,
};
use kvrail::{Bf16, Config, KvLayout, PageLayout, PeerKey, Reader, shm};

use served::Served;

const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();

/// A page with a region for each of 1024 layers.
#[derive(KvLayout)]
#[kv(order(regions(layer), token), layers = 1024, tokens = 1)]
#[allow(dead_code, reason = "a declaration")]
struct Many {
    key: [Bf16; 8],
}

const LIMIT: Duration = Duration::from_secs(60);
/// Pools that come and go, each of 1024 regions of some 170 bytes.
const POOLS: u32 = 300;

fn key() -> PeerKey {
    PeerKey::from_bytes([4; 32])
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// Pool `id` of pages of `Many`, all at the place of `offer`.
fn many(id: u32, offer: &RegionOffer) -> Pool {
    let layout = Layout::of::<Many>().unwrap();
    let parts = layout.parts.get();
    let page_bytes = layout.page_bytes.get() / u64::from(parts);
    let mut regions = Vec::new();
    for part in 0..parts {
        let table = if part == 0 { offer.table } else { None };
        let region = RegionOffer { page_bytes, stride: page_bytes, table, ..*offer };
        regions.push(OfferedRegion::new(region).unwrap().of_part(part));
    }
    Pool::new(PoolId(id), layout, regions).unwrap()
}

#[test]
fn pools_that_come_and_go_cost_a_reader_that_does_not_poll_no_memory() {
    let exporter = ShmExporter::start().unwrap();
    let export = exporter.export(ExportedMemory::segment(Arc::new(Segment::new(1 << 20).unwrap()))).unwrap();
    let region = export.region();
    let (keys, page_bytes) = ([region.rkey; MAX_RAILS], u64::from(LAYOUT.page_bytes()));
    let table = Some(TableOffer { base: region.base, keys });
    let offer = RegionOffer { base: region.base, page_bytes, stride: page_bytes, slots: 4, keys, table };
    let first = vec![OfferedRegion::new(offer).unwrap()];
    let first = Pool::new(PoolId(0), Layout::of::<VllmFp8DsMla>().unwrap(), first).unwrap();
    let pool = |id| many(id, &offer);
    let rail = RailDescription {
        name: Name::lossy("shm0"),
        kind: TransportKind::Shm,
        address: RailAddress(exporter.address().to_bytes()),
        nominal_bytes_per_sec: 1_000_000_000,
        numa: None,
        lanes: 0,
    };
    let producer = ProducerDescription { node: "producer".parse().unwrap(), pools: vec![first] };
    let served = Served { rail, _exporter: (export, exporter) };
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(&listen, key(), producer, served, ServerConfig::default()).unwrap();
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap();
    let layouts = [LAYOUT, PageLayout::of::<Many>()];
    let peer = reader.connect_for(&server.local_addr().into(), key(), &layouts).unwrap();

    let owner = server.handovers();
    let id = owner.open(RequestId(1)).unwrap();
    let taking = reader.take(&peer, RequestId(1), Class::Urgent, LIMIT).unwrap();
    let until = Instant::now() + LIMIT;
    while reader.next_taking_event().is_none_or(|(_, event)| !matches!(event, TakingEvent::Taken { .. })) {
        assert!(Instant::now() < until, "nothing was taken");
        reader.poll();
    }
    // From here on the reader is not polled. A block comes after the changes before it, and the
    // reader's blocks can be seen without a poll.
    let expected = EntryValue { generation: Generation(1), ..EntryValue::default() };
    let mut blocks = 0..0;
    let mut all_have_come = || {
        owner.append(id, &[Block { pool: PoolId(0), slot: 0, expected, ready: 0 }]).unwrap();
        blocks = blocks.end..blocks.end + 1;
        while reader.blocks(&taking, blocks.clone()).is_empty() {
            assert!(Instant::now() < until, "{blocks:?} have not come");
            std::thread::yield_now();
        }
    };
    let mut before = 0;
    for number in 1..=POOLS {
        server.add_pool(pool(number)).unwrap();
        all_have_come();
        assert!(server.remove_pool(PoolId(number)));
        all_have_come();
        if number == 10 {
            before = resident();
        }
    }
    let more = resident().saturating_sub(before);
    assert!(more < 16 << 20, "{more} bytes more after {POOLS} pools");
}
