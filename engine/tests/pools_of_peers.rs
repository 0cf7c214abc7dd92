//! A reader of several layouts: the pages of one key in two pools are had together or not at all;
//! pools that come and go; pages that are told before their batch is done.

use std::time::{Duration, Instant};

use kvrail::core::batch::Class;
use kvrail::core::error::FlightError;
use kvrail::core::remote::OfferError;
use kvrail::session::PoolId;
use kvrail::session::handover::{Block, WHOLE_PAGE};
use kvrail::{
    BlockError, Config, ConnectError, Done, KeyTag, KvLayout, Location, PageError, PageLayout, Peer, PeerKey,
    Publisher, PublisherConfig, Reader, ReaderEvent, Slot, Storage, clock, engine, memory, shm,
};

/// The pages of a latent pool, a region a layer.
#[derive(KvLayout)]
#[kv(order(regions(layer), token), layers = 3, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Latent {
    latent: [u8; 576],
}

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 3, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Index {
    key: [u8; 132],
}

const LATENT: PageLayout = PageLayout::of::<Latent>();
const INDEX: PageLayout = PageLayout::of::<Index>();

fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

fn publisher(layouts: &[PageLayout]) -> Publisher {
    let config = PublisherConfig::new("producer".parse().unwrap());
    let config = layouts.iter().fold(config, |config, layout| config.pool(*layout, 8));
    Publisher::start_pools(config, &"127.0.0.1:0".parse().unwrap(), key(), shm::publish(1)).unwrap()
}

fn write(publisher: &Publisher, pool: PoolId, slot: u32, byte: u8) -> Location {
    let pool = publisher.pool(pool).unwrap();
    let mut guard = pool.overwrite(slot, KeyTag(u128::from(slot) + 1)).unwrap();
    let regions = pool.layout().regions() as usize;
    let each = guard.bytes().len() / regions;
    for (region, bytes) in (0..).zip(guard.bytes().chunks_mut(each)) {
        bytes.fill(byte + region);
    }
    guard.publish()
}

struct Both {
    reader: Reader<shm::ShmRails>,
    latent: Vec<Slot>,
    index: Vec<Slot>,
}

impl Both {
    fn start() -> Self {
        let mut reader = Reader::start(LATENT, shm::rails(1).unwrap(), Config::default()).unwrap();
        reader.add_layout(&INDEX).unwrap();
        let mut slots = |layout: &PageLayout| {
            let memory = memory::leaked(8 * layout.page_bytes() as usize).unwrap();
            reader.register_for(layout, memory).unwrap().collect()
        };
        let (latent, index) = (slots(&LATENT), slots(&INDEX));
        Self { reader, latent, index }
    }

    fn connect(&mut self, publisher: &Publisher) -> Peer {
        self.reader.connect(&publisher.local_addr().into(), key()).unwrap()
    }

    fn done(&mut self) -> Done<'static> {
        let until = clock::within(Duration::from_secs(20));
        loop {
            self.reader.poll();
            if let Some(done) = self.reader.next_done() {
                return done;
            }
            assert!(clock::now() < until, "nothing is done");
            self.reader.wait(until);
        }
    }

    fn event(&mut self) -> ReaderEvent {
        let until = clock::within(Duration::from_secs(20));
        loop {
            self.reader.poll();
            if let Some(event) = self.reader.next_event() {
                return event;
            }
            assert!(clock::now() < until, "no event");
            self.reader.wait(clock::within(Duration::from_millis(10)));
        }
    }

    fn is_latent(&self, slot: &Slot, byte: u8) -> bool {
        (0..3).all(|layer| {
            let bytes = self.reader.slot_bytes(slot, layer).unwrap();
            bytes.len() == 16 * 576 && bytes.iter().all(|&b| b == byte + layer as u8)
        })
    }
}

#[test]
fn the_pages_of_one_key_in_two_pools_are_had_together_or_not_at_all() {
    let publisher = publisher(&[LATENT, INDEX]);
    let [latent, index] = [PoolId(0), PoolId(1)];
    let mut both = Both::start();
    let peer = both.connect(&publisher);
    let [latents, indices] = [&LATENT, &INDEX].map(|layout| peer.pool_of(layout).unwrap().clone());
    assert_eq!((latents.id(), indices.id(), latents.slots()), (latent, index, 8));
    for stale in [None, Some(latent), Some(index)] {
        let locations = [write(&publisher, latent, 2, 10), write(&publisher, index, 5, 40)];
        match stale {
            Some(PoolId(0)) => drop(write(&publisher, latent, 2, 20)),
            Some(_) => drop(write(&publisher, index, 5, 50)),
            None => {}
        }
        let mut batch = both.reader.batch().unwrap();
        let (slot, other) = (both.latent.pop().unwrap(), both.index.pop().unwrap());
        batch.read(latents.page(locations[0]).unwrap(), slot).unwrap();
        batch.join(indices.page(locations[1]).unwrap(), other).unwrap();
        both.reader.submit(batch, clock::within(Duration::from_secs(10))).unwrap();
        let pages: Vec<_> = both.done().pages().collect();
        let good = stale.is_none();
        assert_eq!(pages.iter().map(|page| page.result.is_ok()).collect::<Vec<_>>(), [good; 2], "{stale:?}");
        if good {
            assert!(both.is_latent(&pages[0].slot, 10));
            assert!(pages[1].slot.bytes().unwrap().iter().all(|&b| b == 40));
        }
    }
}

#[test]
fn a_location_of_another_pool_or_beyond_is_refused_by_name() {
    let publisher = publisher(&[LATENT, INDEX]);
    let mut both = Both::start();
    let peer = both.connect(&publisher);
    let latents = peer.pool_of(&LATENT).unwrap();
    let location = write(&publisher, PoolId(1), 3, 1);
    let block =
        Block { pool: PoolId(1), slot: location.slot, expected: location.expected, ready: WHOLE_PAGE };
    assert!(peer.block(&block).is_ok());
    let error = latents.block(&block).unwrap_err();
    assert_eq!(error, BlockError::OtherPool { pool: PoolId(1), asked: PoolId(0), slot: 3 });
    let beyond = latents.page(Location { slot: 8, ..location }).unwrap_err();
    assert_eq!(beyond, BlockError::Slot { pool: PoolId(0), slot: 8, slots: 8 });
    // Without the pool's name it is another page, which misses.
    let mut batch = both.reader.batch().unwrap();
    batch.read(latents.page(location).unwrap(), both.latent.pop().unwrap()).unwrap();
    both.reader.submit(batch, clock::within(Duration::from_secs(10))).unwrap();
    assert!(matches!(both.done().result(0), Some(Err(PageError::Miss(_)))));
}

#[test]
fn pools_that_come_are_read_and_those_that_go_are_not() {
    let publisher = publisher(&[LATENT]);
    let mut both = Both::start();
    let peer = both.connect(&publisher);
    assert!(matches!(peer.pool_of(&INDEX), Err(BlockError::Layout { .. })));
    let id = publisher.add_pool(INDEX, 4).unwrap();
    let ReaderEvent::PoolCame { peer: of, pool } = both.event() else { panic!("another event") };
    assert_eq!((of, pool.id(), pool.slots()), (peer.id(), id, 4));
    let location = write(&publisher, id, 1, 77);
    let read = |both: &mut Both| {
        let mut batch = both.reader.batch().unwrap();
        batch.read(pool.page(location).unwrap(), both.index.pop().unwrap()).unwrap();
        both.reader.submit(batch, clock::within(Duration::from_secs(10))).unwrap();
        let page = both.done().pages().next().unwrap();
        page.result.map(|()| page.slot.bytes().unwrap()[7])
    };
    assert_eq!(read(&mut both), Ok(77));
    publisher.withdraw(id, Instant::now() + Duration::from_secs(10)).unwrap();
    let ReaderEvent::PoolGone { pool: gone, .. } = both.event() else { panic!("another event") };
    assert_eq!(gone, id);
    assert_eq!(read(&mut both), Err(PageError::PoolGone));
    // The other pool of the peer is read as before.
    let location = write(&publisher, PoolId(0), 0, 5);
    let mut batch = both.reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), both.latent.pop().unwrap()).unwrap();
    both.reader.submit(batch, clock::within(Duration::from_secs(10))).unwrap();
    let page = both.done().pages().next().unwrap();
    assert!(page.result.is_ok() && both.is_latent(&page.slot, 5));
}

#[test]
fn pages_are_told_as_they_come_and_a_batch_can_be_withdrawn() {
    let publisher = publisher(&[LATENT, INDEX]);
    let mut both = Both::start();
    let peer = both.connect(&publisher);
    let pool = peer.pool_of(&INDEX).unwrap();
    let locations: Vec<_> = (0..4).map(|slot| write(&publisher, PoolId(1), slot, 60 + slot as u8)).collect();
    let mut batch = both.reader.batch().unwrap();
    batch.report_pages();
    for location in &locations {
        batch.read(pool.page(*location).unwrap(), both.index.pop().unwrap()).unwrap();
    }
    let ticket = both.reader.submit(batch, clock::within(Duration::from_secs(10))).unwrap();
    let until = clock::within(Duration::from_secs(20));
    let mut told = Vec::new();
    while told.len() < 4 {
        both.reader.poll();
        while let Some(arrival) = both.reader.next_arrival() {
            assert_eq!((arrival.ticket, arrival.result), (ticket, Ok(())));
            told.push(arrival.page);
        }
        assert!(clock::now() < until, "{told:?}");
    }
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2, 3], "each once");
    let mut done = both.done();
    both.index.extend(done.pages().map(|page| page.slot));
    assert_eq!(both.reader.withdraw(ticket), Err(FlightError::NotInFlight(ticket)));

    let mut batch = both.reader.batch().unwrap();
    for location in &locations {
        batch.read(pool.page(*location).unwrap(), both.index.pop().unwrap()).unwrap();
    }
    let ticket = both.reader.submit(batch, clock::within(Duration::from_secs(10))).unwrap();
    assert_eq!(both.reader.set_class(ticket, Class::Background), Ok(()));
    let beyond = both.reader.withdraw_page(ticket, 4).unwrap_err();
    assert_eq!(beyond, FlightError::NoPage { ticket, page: 4, pages: 4 });
    let given_up = both.reader.withdraw(ticket).unwrap();
    let results: Vec<_> = both.done().pages().map(|page| page.result).collect();
    let withdrawn = results.iter().filter(|result| **result == Err(PageError::Withdrawn)).count();
    assert_eq!((withdrawn, results.len()), (given_up, 4));
}

/// Places of pools that are gone are free when their producer's session ends. A producer whose
/// pools come and go takes none that another producer needs.
#[test]
fn pools_that_come_and_go_take_no_places_of_another_producer() {
    let publisher = publisher(&[INDEX]);
    let mut both = Both::start();
    let peer = both.connect(&publisher);
    let mut told = 0;
    // The reader says which pool it has no places for, once.
    let refused = loop {
        let id = publisher.add_pool(LATENT, 1).unwrap();
        match both.event() {
            ReaderEvent::PoolCame { pool, .. } => assert_eq!(pool.id(), id),
            ReaderEvent::PoolRefused { peer: of, pool, why } => {
                assert!(matches!(why, OfferError::Full { needed: 3, .. }), "{why}");
                assert_eq!((of, pool), (peer.id(), id));
                break id;
            }
            event => panic!("{event:?}"),
        }
        publisher.withdraw(id, Instant::now() + Duration::from_secs(10)).unwrap();
        told += 1;
        assert!(matches!(both.event(), ReaderEvent::PoolGone { .. }));
    };
    assert!((20..100).contains(&told), "{told} pools");
    // A pool of one region has a place, and the other one is still known to have none.
    let small = publisher.add_pool(INDEX, 1).unwrap();
    let ReaderEvent::PoolCame { pool, .. } = both.event() else { panic!("another event") };
    assert_eq!(pool.id(), small);
    publisher.withdraw(refused, Instant::now() + Duration::from_secs(10)).unwrap();
    publisher.withdraw(small, Instant::now() + Duration::from_secs(10)).unwrap();
    assert!(matches!(both.event(), ReaderEvent::PoolGone { pool, .. } if pool == small));
    let other = PublisherConfig::new("other".parse().unwrap()).pool(INDEX, 8);
    let other =
        Publisher::start_pools(other, &"127.0.0.1:0".parse().unwrap(), key(), shm::publish(1)).unwrap();
    both.connect(&other);
    // With a session of its own the first one begins anew.
    both.reader.disconnect(&peer);
    both.connect(&publisher);
    publisher.add_pool(LATENT, 1).unwrap();
    assert!(matches!(both.event(), ReaderEvent::PoolCame { .. }));
}

/// A program that takes its events late still learns of every pool that there is, however many have
/// come and gone, and of no others.
#[test]
fn pools_that_have_gone_displace_no_event_of_those_that_stay() {
    let publisher = publisher(&[INDEX]);
    let mut both = Both::start();
    let peer = both.connect(&publisher);
    let poll = |both: &mut Both, times| {
        for _ in 0..times {
            both.reader.poll();
            both.reader.wait(clock::within(Duration::from_millis(1)));
        }
    };
    let stays = publisher.add_pool(INDEX, 1).unwrap();
    poll(&mut both, 20);
    for _ in 0..200 {
        let id = publisher.add_pool(INDEX, 1).unwrap();
        poll(&mut both, 2);
        publisher.withdraw(id, Instant::now() + Duration::from_secs(10)).unwrap();
        poll(&mut both, 2);
    }
    let last = publisher.add_pool(LATENT, 1).unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&last) {
        match both.event() {
            ReaderEvent::PoolCame { peer: of, pool } if of == peer.id() => told.push(pool.id()),
            ReaderEvent::PoolRefused { pool, .. } => told.push(pool),
            ReaderEvent::PoolGone { pool, .. } => told.retain(|told| *told != pool),
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(told, [stays, last]);
}

/// The table of a pool that is gone is not read: its memory is not exported any more, and a READ of
/// it kills a lane.
#[test]
fn the_table_of_a_pool_that_is_gone_is_not_read() {
    let publisher = publisher(&[LATENT, INDEX]);
    let mut both = Both::start();
    let peer = both.connect(&publisher);
    write(&publisher, PoolId(1), 3, 1);
    let region = (0..peer.regions().len()).find(|&at| peer.regions()[at].regions() == 1).unwrap();
    let list = |both: &mut Both| both.reader.published(&peer, region, clock::within(Duration::from_secs(5)));
    assert_eq!(list(&mut both).unwrap().len(), 1);
    publisher.withdraw(PoolId(1), Instant::now() + Duration::from_secs(10)).unwrap();
    assert!(matches!(both.event(), ReaderEvent::PoolGone { .. }));
    let error = list(&mut both).unwrap_err();
    assert!(matches!(error, kvrail::TableError::Page(PageError::PoolGone)), "{error:?}");
}

engine! {
    /// Pages of both layouts, and two pools in all.
    Declared { page: Latent, pages: [Index], max_rails: 1, max_peers: 2, max_batch: 4, max_batches: 2, max_pools: 2, max_plans: 2 }
}

/// What is declared is what the reader takes: both layouts, and no more pools.
#[test]
fn a_declared_reader_of_two_layouts_reads_both_from_a_static() {
    static STORAGE: Storage<Declared> = Storage::new();
    let publisher = publisher(&[LATENT, INDEX]);
    let mut reader =
        Declared::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), Config::default()).unwrap();
    let mut slots = [&LATENT, &INDEX].map(|layout| {
        let memory = memory::leaked(2 * layout.page_bytes() as usize).unwrap();
        reader.register_for(layout, memory).unwrap()
    });
    let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
    let locations = [write(&publisher, PoolId(0), 3, 10), write(&publisher, PoolId(1), 6, 40)];
    let mut batch = reader.batch().unwrap();
    for (at, layout) in [&LATENT, &INDEX].into_iter().enumerate() {
        let page = peer.pool_of(layout).unwrap().page(locations[at]).unwrap();
        let slot = slots[at].next().unwrap();
        match at {
            0 => batch.read(page, slot).unwrap(),
            _ => batch.join(page, slot).unwrap(),
        }
    }
    let until = clock::within(Duration::from_secs(20));
    reader.submit(batch, until).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(until),
        }
        assert!(clock::now() < until, "nothing is done");
    };
    let pages: Vec<_> = done.pages().map(|page| (page.result, page.slot)).collect();
    assert!(pages.iter().all(|(result, _)| result.is_ok()));
    for layer in 0..3 {
        let bytes = reader.slot_bytes(&pages[0].1, layer).unwrap();
        assert!(bytes.len() == 16 * 576 && bytes.iter().all(|&b| b == 10 + layer as u8));
    }
    assert!(pages[1].1.bytes().unwrap().iter().all(|&b| b == 40));
    // The pools of a second peer are more than were declared.
    let second = reader.connect(&publisher.local_addr().into(), key()).unwrap_err();
    assert!(matches!(second, ConnectError::TooManyRegions { .. }), "{second}");
}
