//! Several pools of several layouts in one publisher.

use std::time::Duration;

use kvrail::session::PoolId;
use kvrail::session::handover::{Class, RequestId, TakingEvent};
use kvrail::{
    Batch, Bf16, Config, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, PublisherConfig, PublisherError,
    Reader, Slot, clock, memory, shm,
};

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Latent {
    latent: [Bf16; 64],
}

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Index {
    key: [Bf16; 17],
}

const LATENT: PageLayout = PageLayout::of::<Latent>();
const INDEX: PageLayout = PageLayout::of::<Index>();
const POOLS: [(PoolId, PageLayout, u32); 2] = [(PoolId(0), LATENT, 300), (PoolId(1), INDEX, 5)];

fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

fn start(pools: &[(PoolId, PageLayout, u32)]) -> Result<Publisher, PublisherError> {
    let config = PublisherConfig::new("producer".parse().unwrap());
    let config = pools.iter().fold(config, |config, &(_, layout, slots)| config.pool(layout, slots));
    Publisher::start_pools(config, &"127.0.0.1:0".parse().unwrap(), key(), shm::publish(1))
}

/// The byte of every page in a slot of a pool.
fn byte(pool: PoolId, slot: u32) -> u8 {
    (pool.0 * 100 + slot % 100 + 1) as u8
}

fn reader(layout: PageLayout) -> Reader<shm::ShmRails> {
    Reader::start(layout, shm::rails(1).unwrap(), Config::default()).unwrap()
}

fn slots(reader: &mut Reader<shm::ShmRails>, layout: &PageLayout, count: u32) -> Vec<Slot> {
    let memory = memory::leaked((count * layout.page_bytes()) as usize).unwrap();
    reader.register_for(layout, memory).unwrap().collect()
}

/// Submits a batch, and waits until all of its pages are read.
fn read(reader: &mut Reader<shm::ShmRails>, batch: Batch<'static>) -> Vec<Slot> {
    let until = clock::within(Duration::from_secs(20));
    reader.submit(batch, until).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(until),
        }
        assert!(clock::now() < until, "nothing is done: {reader:?}");
    };
    let good = done.pages().map(|page| {
        page.result.unwrap();
        page.slot
    });
    good.collect()
}

#[test]
fn a_reader_of_each_layout_reads_its_own_pool() {
    let publisher = start(&POOLS).unwrap();
    for pool in publisher.pools() {
        for slot in 0..5 {
            let fill = |page: &mut [u8]| page.fill(byte(pool.id(), slot));
            pool.write(slot, KeyTag(slot.into()), fill).unwrap();
        }
    }
    for (id, layout, count) in POOLS {
        let pool = publisher.pool(id).unwrap();
        assert_eq!((pool.id(), *pool.layout(), pool.slots()), (id, layout, count));
        let mut reader = reader(layout);
        let mut free = slots(&mut reader, &layout, 5);
        let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
        let offered: Vec<_> = peer.pools().iter().map(|pool| pool.id()).collect();
        assert_eq!(offered, [id], "of the other layout it learns no pool");
        let listed = reader.published(&peer, 0, clock::within(Duration::from_secs(10))).unwrap();
        let own: Vec<_> = (0..5).map(|slot| pool.location(slot).unwrap().unwrap()).collect();
        assert_eq!(listed, own, "each pool has a table of its own");
        let mut batch = reader.batch().unwrap();
        for &location in &listed {
            batch.read(peer.page(location).unwrap(), free.pop().unwrap()).unwrap();
        }
        for (landed, slot) in read(&mut reader, batch).iter().zip(0..) {
            let bytes = landed.bytes().unwrap();
            assert_eq!(bytes.len(), layout.page_bytes() as usize);
            assert!(bytes.iter().all(|&b| b == byte(id, slot)), "{id}, slot {slot}");
        }
    }
}

#[test]
fn pools_do_not_overlap_and_their_slots_are_on_their_own() {
    let publisher = start(&POOLS).unwrap();
    let ends = POOLS.map(|(id, _, count)| [(id, 0), (id, count - 1)]).concat();
    for &(id, slot) in &ends {
        let pool = publisher.pool(id).unwrap();
        pool.write(slot, KeyTag(slot.into()), |page| page.fill(byte(id, slot))).unwrap();
    }
    for &(id, slot) in &ends {
        let pool = publisher.pool(id).unwrap();
        assert!(pool.page(slot).unwrap().iter().all(|&b| b == byte(id, slot)), "{id}, slot {slot}");
        assert_eq!(pool.location(slot).unwrap().unwrap().expected.tag, KeyTag(slot.into()));
    }
    // The same number in another pool is another slot.
    let guards = POOLS.map(|(id, ..)| publisher.pool(id).unwrap().overwrite(0, KeyTag(9)).unwrap());
    drop(guards);
    for (id, _, count) in POOLS {
        let pool = publisher.pool(id).unwrap();
        assert_eq!(pool.overwrite(count, KeyTag(1)).unwrap_err().code(), 6070);
    }
    assert!(publisher.pool(PoolId(2)).is_none());
    assert_eq!((publisher.slots(), publisher.layout()), (300, &LATENT), "the short forms are pool 0's");
}

#[test]
fn a_hand_over_has_blocks_of_two_pools() {
    let publisher = start(&POOLS).unwrap();
    let handovers = publisher.handovers();
    let id = handovers.open(RequestId(7)).unwrap();
    let written = [(PoolId(0), 299), (PoolId(1), 4)];
    let blocks = written.map(|(id, slot)| {
        let pool = publisher.pool(id).unwrap();
        pool.write(slot, KeyTag(slot.into()), |page| page.fill(byte(id, slot))).unwrap();
        pool.block(slot).unwrap().unwrap()
    });
    handovers.append(id, &blocks).unwrap();
    handovers.complete(id).unwrap();

    let mut reader = reader(LATENT);
    let address = publisher.local_addr().into();
    let peers = [LATENT, INDEX].map(|layout| reader.connect_to(&address, key(), &layout).unwrap());
    let wait = Duration::from_secs(10);
    let taking = reader.take(&peers[0], RequestId(7), Class::Urgent, wait).unwrap();
    let until = clock::within(Duration::from_secs(20));
    loop {
        reader.poll();
        match reader.next_taking_event() {
            Some((_, TakingEvent::Complete { .. })) => break,
            Some(_) => {}
            None => reader.wait(clock::within(Duration::from_millis(10))),
        }
        assert!(clock::now() < until, "the request is not complete");
    }
    let taken = reader.blocks(&taking, 0..2).to_vec();
    assert_eq!(taken, blocks);
    let mut batch = reader.batch().unwrap();
    for (block, (peer, layout)) in taken.iter().zip(peers.iter().zip([LATENT, INDEX])) {
        let slot = slots(&mut reader, &layout, 1).remove(0);
        batch.read(peer.block(block).unwrap(), slot).unwrap();
    }
    assert!(peers[0].block(&taken[1]).is_err(), "a peer of one layout has no block of the other");
    for (landed, (id, slot)) in read(&mut reader, batch).iter().zip(written) {
        assert!(landed.bytes().unwrap().iter().all(|&b| b == byte(id, slot)), "{id}, slot {slot}");
    }
    reader.done(&taking).unwrap();
    let ended = loop {
        if let Some(ended) = publisher.next_ended_handover() {
            break ended;
        }
        reader.poll();
        assert!(clock::now() < until, "the hand-over has not ended");
    };
    assert_eq!(ended.blocks, blocks);
    for (id, slot) in written {
        assert_eq!(publisher.pool(id).unwrap().location(slot).unwrap(), None, "{id}: its block is free");
    }
}

#[test]
fn pools_that_cannot_be_are_refused() {
    assert_eq!(start(&[]).unwrap_err().code(), 6062);
    let error = start(&[(PoolId(0), LATENT, 1), (PoolId(1), INDEX, 0)]).unwrap_err();
    assert!(matches!(error, PublisherError::Slots { slots: 0, .. }), "{error}");
    let too_many: Vec<_> = (0..257).map(|id| (PoolId(id), INDEX, 1)).collect();
    let error = start(&too_many).unwrap_err();
    assert!(error.to_string().contains("256 pools"), "{error}");
}
