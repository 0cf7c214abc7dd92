//! Pools that are longer than one registration may be: they are cut between pages, and a reader
//! reads them as one.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use kvrail::core::table::Miss;
use kvrail::session::PoolId;
use kvrail::{
    Bf16, Config, ForeignMemory, ForeignPool, ForeignRegion, KeyTag, KvLayout, Location, PageError,
    PageLayout, PeerPool, Publisher, PublisherConfig, PublisherError, PublisherTransport, Reader,
    ReaderTransport, Slot, clock, memory, shm, tcp,
};

use super::rig::{BLOCK, EngineMemory, INDEX, LATENT, key, pool};

/// A page of 64 bytes: two entries of the table.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 1, tokens = 2)]
#[allow(dead_code, reason = "a declaration")]
struct Tiny {
    x: [Bf16; 16],
}

/// Keys in one region, wider values in another.
#[derive(KvLayout)]
#[kv(order(regions(planes), layer, token), layers = 4, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Apart {
    k: [Bf16; 32],
    #[kv(plane)]
    v: [Bf16; 48],
}

const TINY: PageLayout = PageLayout::of::<Tiny>();
const APART: PageLayout = PageLayout::of::<Apart>();
const KEYS: u64 = 4 * 16 * 64;
const VALUES: u64 = 4 * 16 * 96;

/// A multiple of the host's page, so that the numbers of pieces below are those of every host.
const UNIT: u64 = 64 << 10;

fn start(config: PublisherConfig, over: impl PublisherTransport) -> Result<Publisher, PublisherError> {
    Publisher::start_pools(config, &"127.0.0.1:0".parse().unwrap(), key(), over)
}

fn config(piece_bytes: u64) -> PublisherConfig {
    PublisherConfig::new("producer".parse().unwrap()).piece_bytes(piece_bytes).registrations(3)
}

/// A reader of one layout with the peer's pool of it.
struct Reads<N: ReaderTransport> {
    reader: Reader<N>,
    pool: PeerPool,
    free: Vec<Slot>,
}

impl<N: ReaderTransport> Reads<N> {
    fn of(layout: PageLayout, publisher: &Publisher, rails: N) -> Self {
        let mut reader = Reader::start(layout, rails, Config::default()).unwrap();
        let memory = memory::leaked(8 * layout.page_bytes() as usize).unwrap();
        let free = reader.register(memory).unwrap().collect();
        let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
        let pool = peer.pool_of(&layout).unwrap().clone();
        for slot in [0, pool.slots() as u32 - 1] {
            // The peer's own numbering is that of its first pool.
            let [of_peer, of_pool] = [peer.page(empty(slot)).unwrap(), pool.page(empty(slot)).unwrap()];
            assert_eq!(format!("{of_peer:?}"), format!("{of_pool:?}"));
        }
        assert!(peer.page(empty(pool.slots() as u32)).is_err());
        Self { reader, pool, free }
    }

    /// The byte of which all bytes are, in each region of the page, or why not.
    fn read(&mut self, locations: &[Location]) -> Vec<Result<Vec<u8>, PageError>> {
        let mut read = Vec::new();
        for some in locations.chunks(8) {
            let mut batch = self.reader.batch().unwrap();
            for &location in some {
                batch.read(self.pool.page(location).unwrap(), self.free.pop().unwrap()).unwrap();
            }
            let until = clock::within(Duration::from_secs(20));
            self.reader.submit(batch, until).unwrap();
            let mut done = loop {
                self.reader.poll();
                match self.reader.next_done() {
                    Some(done) => break done,
                    None => self.reader.wait(until),
                }
                assert!(clock::now() < until, "nothing is done: {:?}", self.reader);
            };
            let pages: Vec<_> = done.pages().map(|page| (page.result, page.slot)).collect();
            for (result, slot) in pages {
                let regions = (0..).map_while(|region| self.reader.slot_bytes(&slot, region));
                let bytes = regions.map(|bytes| {
                    assert!(bytes.iter().all(|&byte| byte == bytes[0]), "a mixture");
                    bytes[0]
                });
                read.push(result.map(|()| bytes.collect()));
                self.free.push(slot);
            }
        }
        read
    }
}

fn empty(slot: u32) -> Location {
    use kvrail::core::table::{EntryValue, Generation, Ready};
    let expected = EntryValue { generation: Generation::default(), ready: Ready::WHOLE, tag: KeyTag(0) };
    Location { slot, expected }
}

/// The byte of every page in a slot.
fn byte(slot: u32) -> u8 {
    (slot as u8).wrapping_add(1)
}

/// Writes every slot of an own pool of one region, and returns the locations.
fn write_all(publisher: &Publisher) -> Vec<Location> {
    let write = |slot: u32| publisher.write(slot, KeyTag(slot.into()), |page| page.fill(byte(slot)));
    (0..publisher.slots()).map(|slot| write(slot).unwrap()).collect()
}

fn bytes(slots: u32) -> Vec<Result<Vec<u8>, PageError>> {
    (0..slots).map(|slot| Ok(vec![byte(slot)])).collect()
}

#[test]
fn an_own_pool_is_read_across_its_pieces() {
    // 8 pages are a unit, and the table is shorter than one.
    let publisher = start(config(UNIT).pool(LATENT, 29), shm::publish(2)).unwrap();
    let locations = write_all(&publisher);
    let mut reads = Reads::of(LATENT, &publisher, shm::rails(2).unwrap());
    assert_eq!((reads.pool.regions().len(), reads.pool.slots()), (4, 29));
    assert_eq!(reads.read(&locations), bytes(29));
    // A page of a later piece is found out when its slot is overwritten.
    let again = publisher.write(28, KeyTag(28), |page| page.fill(200)).unwrap();
    let read = reads.read(&[locations[27], locations[28], again]);
    assert_eq!((&read[0], &read[2]), (&Ok(vec![28]), &Ok(vec![200])));
    assert!(matches!(read[1], Err(PageError::Miss(Miss::Generation { .. }))), "{read:?}");
    // Each piece has a table of its own.
    let peer = reads.reader.connect(&publisher.local_addr().into(), key()).unwrap();
    let listed = reads.reader.published(&peer, 2, clock::within(Duration::from_secs(10))).unwrap();
    let expected: Vec<_> = locations[16..24].iter().map(|location| location.expected).collect();
    assert_eq!(listed.iter().map(|location| location.expected).collect::<Vec<_>>(), expected);
}

#[test]
fn a_table_that_is_too_long_is_cut_with_its_pages() {
    // Slots of 64 bytes, entries of 32: the table has a unit, and a half.
    let slots = 3 * 1024;
    let publisher = start(config(UNIT).pool(TINY, slots), shm::publish(2)).unwrap();
    let locations = write_all(&publisher);
    let mut reads = Reads::of(TINY, &publisher, shm::rails(2).unwrap());
    assert_eq!(reads.pool.regions().len(), 3);
    let around = [0, 1, 1023, 1024, 1025, 2047, 2048, 2049, 3071];
    let read = reads.read(&around.map(|slot| locations[slot as usize]));
    assert_eq!(read, around.map(|slot| Ok(vec![byte(slot)])));
}

#[test]
fn pieces_go_over_tcp_too() {
    let publisher =
        start(config(UNIT).pool(LATENT, 20), tcp::publish(IpAddr::V4(Ipv4Addr::LOCALHOST), 1)).unwrap();
    let locations = write_all(&publisher);
    let mut reads = Reads::of(LATENT, &publisher, tcp::rails(1).unwrap());
    assert_eq!(reads.pool.regions().len(), 3);
    assert_eq!(reads.read(&locations), bytes(20));
}

#[test]
fn pages_of_several_regions_are_cut_at_the_same_slots() {
    const SLOTS: u32 = 33;
    let stride = VALUES + 2048;
    let keys = EngineMemory::of_bytes(u64::from(SLOTS) * KEYS);
    let values = EngineMemory::of_bytes(u64::from(SLOTS) * stride);
    let memories: [ForeignMemory; 2] = [keys.foreign(), values.foreign()];
    let pool = ForeignPool::new(APART)
        .region(ForeignRegion::new(&memories[0]))
        .region(ForeignRegion::new(&memories[1]).stride(stride).offset(64));
    let publisher = start(config(UNIT).foreign_pool(pool), shm::publish(2)).unwrap();
    let slots = publisher.pool(PoolId(0)).unwrap().foreign().unwrap();
    let locations = (0..SLOTS).map(|slot| {
        let guard = slots.overwrite(slot, KeyTag(slot.into())).unwrap();
        keys.fill_at(u64::from(slot) * KEYS, KEYS, slot as u8 + 1);
        values.fill_at(u64::from(slot) * stride + 64, VALUES, slot as u8 + 101);
        guard.publish()
    });
    let locations: Vec<_> = locations.collect();
    let mut reads = Reads::of(APART, &publisher, shm::rails(2).unwrap());
    // 8 strides of values are a unit, so 8 keys are a piece, too.
    assert_eq!((reads.pool.regions().len(), reads.pool.slots()), (5, 33), "pieces, each of two regions");
    let expected: Vec<_> = (0..SLOTS as u8).map(|slot| Ok(vec![slot + 1, slot + 101])).collect();
    assert_eq!(reads.read(&locations), expected);
}

#[test]
fn pools_side_by_side_are_cut_and_withdrawn_one_by_one() {
    const BLOCKS: u32 = 20;
    let engine = EngineMemory::of(BLOCKS.into());
    let memory = engine.foreign();
    let publisher = start(
        config(UNIT).foreign_pool(pool(LATENT, &memory)).foreign_pool(pool(INDEX, &memory)),
        shm::publish(2),
    );
    let publisher = publisher.unwrap();
    let publish = |id, layout, block: u32| {
        let slots = publisher.pool(PoolId(id)).unwrap().foreign().unwrap();
        let guard = slots.overwrite(block, KeyTag(block.into())).unwrap();
        engine.fill(block, layout, block as u8 + 1);
        guard.publish()
    };
    let latent: Vec<_> = (0..BLOCKS).map(|block| publish(0, &LATENT, block)).collect();
    let index: Vec<_> = (0..BLOCKS).map(|block| publish(1, &INDEX, block)).collect();
    let mut of_latent = Reads::of(LATENT, &publisher, shm::rails(2).unwrap());
    let mut of_index = Reads::of(INDEX, &publisher, shm::rails(2).unwrap());
    let pieces = u64::from(BLOCKS).div_ceil(UNIT / BLOCK) as usize;
    assert!(of_latent.pool.regions().len() >= pieces, "{pieces}");
    assert_eq!(of_latent.read(&latent), bytes(BLOCKS));
    assert_eq!(of_index.read(&index), bytes(BLOCKS));
    publisher.withdraw(PoolId(0), Instant::now() + Duration::from_secs(5)).unwrap();
    assert_eq!(of_index.read(&index), bytes(BLOCKS), "the registrations of the other pool stand");
    assert!(of_latent.read(&latent[..1])[0].is_err());
}

#[test]
fn what_cannot_be_cut_is_refused_before_anything_is_registered() {
    let refused = |config: PublisherConfig| start(config, shm::publish(1)).unwrap_err();
    let page = u64::from(LATENT.page_bytes());
    let error = refused(config(page - 1).pool(LATENT, 9));
    assert!(
        matches!(error, PublisherError::Piece { slot_bytes, limit } if (slot_bytes, limit) == (page, page - 1))
    );
    assert!(error.to_string().contains("raise PublisherConfig::piece_bytes"), "{error}");
    assert_eq!(error.code(), 6064);
    assert_eq!(refused(config(0).pool(LATENT, 9)).code(), 6064);
    let error = refused(config(UNIT).pool(LATENT, 8 * 1024 + 1));
    assert!(matches!(error, PublisherError::Pieces { pieces: 1025, parts: 1, limit: UNIT }), "{error}");
    assert_eq!(error.code(), 6065);
    // Later, too, and the publisher goes on.
    let publisher = start(config(UNIT).pool(LATENT, 9), shm::publish(1)).unwrap();
    assert!(publisher.add_pool(LATENT, 8 * 1024 + 1).is_err());
    assert_eq!(publisher.add_pool(LATENT, 17).unwrap(), PoolId(1));
}
