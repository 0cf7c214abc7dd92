//! A producer and a reader, from the handshake to the last byte of a page: session, engine, real
//! rails.
#![allow(missing_docs, unsafe_code, reason = "a test that lays a publication table into shared memory")]

use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::config::EngineConfig;
use kvrail_core::engine::{Engine, LaneSpec};
use kvrail_core::error::PageError;
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{Location, RegionOffer, TableOffer};
use kvrail_core::storage::EngineStorage;
use kvrail_core::table::{ENTRY_BYTES, Entry, KeyTag};
use kvrail_core::time::{Nanos, Time};
use kvrail_local::shm::{ExportedMemory, Segment, ShmExporter};
use kvrail_local::{ExportedRegion, LaneTransport, LocalProvider, shm, tcp};
use kvrail_session::{
    Fingerprint, LaneAcceptor, LaneBlob, LaneDialer, LaneEndError, Layout, Name, OfferedRegion, PeerKey,
    Pool, PoolId, ProducerDescription, RailAddress, RailDescription, RailList, ReaderDescription, Server,
    ServerConfig, TransportKind, connect, pair,
};

const PAGE: usize = 20_000;
const SLOTS: usize = 12;

struct Clock(Instant);

impl Clock {
    fn now(&self) -> Time {
        Time(self.0.elapsed().as_nanos() as u64)
    }
}

/// Pages, and behind them the table.
struct PageMemory {
    segment: Arc<Segment>,
    table_at: usize,
}

impl PageMemory {
    fn new() -> Self {
        let table_at = (SLOTS * PAGE).next_multiple_of(ENTRY_BYTES as usize);
        let segment = Segment::new(table_at + SLOTS * ENTRY_BYTES as usize).unwrap();
        Self { segment: Arc::new(segment), table_at }
    }

    fn entry(&self, slot: usize) -> &Entry {
        assert!(slot < SLOTS);
        let at = self.segment.as_ptr().wrapping_add(self.table_at + slot * ENTRY_BYTES as usize);
        // SAFETY: the segment is alive, zeroed (an Entry of zeros is one that was never published),
        // long enough and aligned to pages; its owner writes to the table through entries only.
        unsafe { &*at.cast::<Entry>() }
    }

    fn publish(&self, slot: usize, fill: u8) -> Location {
        let entry = self.entry(slot);
        entry.invalidate();
        self.segment.write(slot * PAGE, &[fill; PAGE]).unwrap();
        entry.publish(KeyTag(fill.into()), 0x5eed + slot as u32);
        Location { slot: slot as u32, expected: entry.snapshot() }
    }
}

fn rails(count: usize, kind: TransportKind, address: [u8; 64]) -> RailList {
    let rail = |index| RailDescription {
        name: Name::lossy(&format!("{kind}{index}")),
        kind,
        address: RailAddress(address),
        nominal_bytes_per_sec: 7_000_000_000,
        numa: None,
        lanes: 0,
    };
    (0..count).map(rail).collect()
}

/// Two rails of a reader. A lane is one more user of the producer's address.
struct Dialer<T> {
    kind: TransportKind,
    reach: fn(&[u8; 64]) -> T,
}

impl<T> LaneDialer for Dialer<T> {
    type UnopenedLane = T;
    type Pending = T;

    fn rails(&self) -> RailList {
        rails(2, self.kind, [0; 64])
    }

    fn prepare(&mut self, _: RailIndex, remote: &RailDescription) -> Result<(T, LaneBlob), LaneEndError> {
        Ok(((self.reach)(&remote.address.0), LaneBlob::EMPTY))
    }

    fn connect(&mut self, pending: T, _: &RailDescription, _: &LaneBlob) -> Result<T, LaneEndError> {
        Ok(pending)
    }
}

/// What a producer serves, at one address.
struct Served<S> {
    _server: S,
    kind: TransportKind,
    address: [u8; 64],
    region: ExportedRegion,
}

impl<S: Send + Sync + 'static> LaneAcceptor for Served<S> {
    type Lane = ();

    fn rails(&self) -> RailList {
        rails(1, self.kind, self.address)
    }

    fn accept(&self, _: RailIndex, _: &LaneBlob) -> Result<((), LaneBlob), LaneEndError> {
        Ok(((), LaneBlob::EMPTY))
    }

    fn release(&self, (): ()) {}
}

fn pages_travel<S, T>(reach: fn(&[u8; 64]) -> T, serve: impl FnOnce(Arc<Segment>) -> Served<S>)
where
    S: Send + Sync + 'static,
    T: LaneTransport,
{
    let key = PeerKey::from_bytes([9; 32]);
    let layout = Layout {
        name: "opaque".parse().unwrap(),
        fingerprint: Fingerprint::from_bytes([1; 16]),
        any_rank: Fingerprint::from_bytes([2; 16]),
        page_bytes: NonZeroU64::new(PAGE as u64).unwrap(),
        parts: NonZeroU16::MIN,
    };

    // The producer.
    let memory = PageMemory::new();
    let mut locations: Vec<_> = (0..SLOTS).map(|slot| memory.publish(slot, slot as u8 + 1)).collect();
    let served = serve(Arc::clone(&memory.segment));
    let (kind, region) = (served.kind, served.region);
    let keys = [region.rkey; MAX_RAILS];
    let offer = RegionOffer {
        base: region.base,
        page_bytes: PAGE as u64,
        stride: PAGE as u64,
        slots: SLOTS as u32,
        keys,
        table: Some(TableOffer { base: region.base + memory.table_at as u64, keys }),
    };
    let pool = Pool::new(PoolId(1), layout, vec![OfferedRegion::new(offer).unwrap()]).unwrap();
    let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools: vec![pool] };
    assert_eq!(served.rails().len(), 1);
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(&listen, key.clone(), producer, served, ServerConfig::default()).unwrap();

    // The reader.
    let config =
        kvrail_local::LocalConfig { rails: 2, sq_entries: 31, cq_entries: 1024, ..Default::default() };
    let mut dialer = Dialer { kind, reach };
    let deadline = Instant::now() + Duration::from_secs(20);
    let reader = ReaderDescription::new("decode-3".parse().unwrap(), layout);
    let mut session = connect(&server.local_addr().into(), key, reader, deadline).unwrap();
    assert_eq!(session.offer().epoch, server.epoch());

    let clock = Clock(Instant::now());
    let storage = Box::leak(Box::new(EngineStorage::<2, 2, 8, 32, 2, 16>::new()));
    let rails = LocalProvider::<T>::start(config).unwrap();
    let mut engine = Engine::start(storage, rails, EngineConfig::DEFAULT).unwrap();
    let mut slots =
        engine.register(Box::leak(vec![0; SLOTS * PAGE].into_boxed_slice()), PAGE as u64).unwrap();
    let peer = engine.add_peer().unwrap();
    let remote = engine.add_region(peer, session.offer().pools[0].regions()[0].offer()).unwrap();
    let wanted = pair(&dialer.rails(), &session.offer().rails).unwrap();
    assert_eq!(wanted.len(), 2, "both rails of the reader go to the producer's one");
    for lane in session.attach(&mut dialer, &wanted, deadline) {
        let lane = lane.unwrap();
        let spec =
            LaneSpec { rail: lane.rail, remote_rail: lane.remote_rail.0, depth: config.sq_entries + 1 };
        engine.attach(peer, spec, lane.lane, clock.now()).unwrap();
    }
    assert_eq!(server.lanes(), [2]);

    // One page is overwritten after its location was given away.
    let current = memory.publish(5, 0xee);
    let stale = std::mem::replace(&mut locations[5], current);
    let mut batch = engine.batch().unwrap();
    let mut asked = locations.clone();
    asked[7] = stale;
    for location in &asked {
        batch.read(remote.page(*location).unwrap(), slots.next().unwrap()).unwrap();
    }
    let late = clock.now() + Nanos::from_secs(20);
    engine.submit(batch, clock.now(), late).unwrap();
    let mut done = loop {
        engine.poll(clock.now());
        if let Some(done) = engine.next_done() {
            break done;
        }
        assert!(clock.now() < late);
        engine.wait(clock.now(), late);
    };
    let mut hits = 0;
    for page in done.pages() {
        if page.index == 7 {
            assert!(matches!(page.result(), Err(PageError::Miss(_))), "{:?}", page.result());
            continue;
        }
        page.result().unwrap();
        let fill = if page.index == 5 { 0xee } else { page.index as u8 + 1 };
        assert!(page.slot.bytes().unwrap().iter().all(|&byte| byte == fill), "page {}", page.index);
        hits += 1;
    }
    assert_eq!(hits, SLOTS - 1);

    assert!(session.is_alive());
    drop(done);
    drop(engine);
    drop(session);
    while server.sessions() > 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(server.lanes(), [0]);
}

#[test]
fn pages_travel_over_shared_memory() {
    let reach =
        |address: &[u8; 64]| shm::ShmPeer::connect(&shm::ShmAddress::parse(address).unwrap()).unwrap();
    pages_travel(reach, |segment| {
        let server = ShmExporter::start().unwrap();
        let export = server.export(ExportedMemory::segment(segment)).unwrap();
        let (address, region) = (server.address().to_bytes(), export.region());
        Served { _server: (export, server), kind: TransportKind::Shm, address, region }
    });
}

#[test]
fn pages_travel_over_tcp() {
    let reach =
        |address: &[u8; 64]| tcp::TcpConnection::open(&tcp::TcpAddress::parse(address).unwrap()).unwrap();
    pages_travel(reach, |segment| {
        let bind = "127.0.0.1:0".parse().unwrap();
        let server = tcp::TcpServer::start(bind).unwrap();
        let export = server.export(ExportedMemory::segment(segment)).unwrap();
        let (address, region) = (server.address().to_bytes(), export.region());
        Served { _server: (export, server), kind: TransportKind::Tcp, address, region }
    });
}
