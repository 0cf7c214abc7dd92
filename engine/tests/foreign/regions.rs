//! Pages of several regions: keys apart from values, in memory of an engine and of the publisher.

use std::time::Duration;

use kvrail::session::PoolId;
use kvrail::{
    Bf16, Config, ForeignPool, ForeignPoolError, ForeignRegion, KeyTag, KvLayout, Location, PageLayout,
    Publisher, PublisherConfig, PublisherError, Reader, clock, memory, shm,
};

use super::rig::{EngineMemory, key, publisher};

/// Keys in one region, wider values in another.
#[derive(KvLayout)]
#[kv(order(regions(planes), layer, token), layers = 4, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Apart {
    k: [Bf16; 32],
    #[kv(plane)]
    v: [Bf16; 48],
}

const APART: PageLayout = PageLayout::of::<Apart>();
const KEYS: u64 = 4 * 16 * 64;
const VALUES: u64 = 4 * 16 * 96;

/// Reads the pages at `locations`, and returns the first bytes of the keys and of the values of
/// each, of which all bytes are equal.
fn read(publisher: &Publisher, locations: &[Location]) -> Vec<[u8; 2]> {
    let mut reader = Reader::start(APART, shm::rails(2).unwrap(), Config::default()).unwrap();
    let memory = memory::leaked(locations.len() * APART.page_bytes() as usize).unwrap();
    let mut slots = reader.register(memory).unwrap();
    let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
    let pool = peer.pool_of(&APART).unwrap();
    let mut batch = reader.batch().unwrap();
    for &location in locations {
        batch.read(pool.page(location).unwrap(), slots.next().unwrap()).unwrap();
    }
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
    let landed: Vec<_> = done
        .pages()
        .map(|page| {
            page.result.unwrap();
            page.slot
        })
        .collect();
    let half = |slot, region, len| {
        let bytes = reader.slot_bytes(slot, region).unwrap();
        assert!(bytes.len() as u64 == len && bytes.iter().all(|&byte| byte == bytes[0]), "a mixture");
        bytes[0]
    };
    landed.iter().map(|slot| [half(slot, 0, KEYS), half(slot, 1, VALUES)]).collect()
}

#[test]
fn keys_and_values_in_two_objects_are_read_as_one_page() {
    const SLOTS: u64 = 5;
    // Keys one after another; values at a stride of their own.
    let stride = VALUES + 256;
    let (keys, values) = (EngineMemory::of_bytes(SLOTS * KEYS), EngineMemory::of_bytes(SLOTS * stride));
    let pool = ForeignPool::new(APART)
        .region(ForeignRegion::new(&keys.foreign()))
        .region(ForeignRegion::new(&values.foreign()).stride(stride).offset(64));
    let publisher = publisher(&[pool], shm::publish(2)).unwrap();
    let slots = publisher.pool(PoolId(0)).unwrap().foreign().unwrap();
    let locations = (0..SLOTS as u8).map(|slot| {
        let guard = slots.overwrite(slot.into(), KeyTag(slot.into())).unwrap();
        keys.fill_at(u64::from(slot) * KEYS, KEYS, slot + 1);
        values.fill_at(u64::from(slot) * stride + 64, VALUES, slot + 101);
        guard.publish()
    });
    let locations: Vec<_> = locations.collect();
    let expected: Vec<_> = (0..SLOTS as u8).map(|slot| [slot + 1, slot + 101]).collect();
    assert_eq!(read(&publisher, &locations), expected);
}

#[test]
fn a_publishers_own_page_has_its_regions_one_behind_the_other() {
    let config = PublisherConfig::new("producer".parse().unwrap()).pool(APART, 3);
    let listen = "127.0.0.1:0".parse().unwrap();
    let publisher = Publisher::start_pools(config, &listen, key(), shm::publish(1)).unwrap();
    let locations = (0..3_u8).map(|slot| {
        let fill = |page: &mut [u8]| {
            let (keys, values) = page.split_at_mut(KEYS as usize);
            keys.fill(slot + 1);
            values.fill(slot + 11);
        };
        publisher.write(slot.into(), KeyTag(1), fill).unwrap()
    });
    let locations: Vec<_> = locations.collect();
    assert_eq!(read(&publisher, &locations), [[1, 11], [2, 12], [3, 13]]);
}

#[test]
fn every_region_of_the_layout_is_given_once_and_none_overlaps() {
    let engine = EngineMemory::of_bytes(8 * (KEYS + VALUES));
    let foreign = engine.foreign();
    let block = KEYS + VALUES;
    let keys = ForeignRegion::new(&foreign).stride(block);
    let values = ForeignRegion::new(&foreign).stride(block).offset(KEYS);
    let refusal = |regions: &[&ForeignRegion]| {
        let pool = ForeignPool::new(APART);
        let pool = regions.iter().fold(pool, |pool, &region| pool.region(region.clone()));
        match publisher(&[pool], shm::publish(1)) {
            Err(PublisherError::Foreign { source, .. }) => Some(source),
            other => {
                other.unwrap();
                None
            }
        }
    };
    assert_eq!(refusal(&[&keys]), Some(ForeignPoolError::Regions { given: 1, layout: 2 }));
    assert_eq!(refusal(&[&keys, &values, &keys]), Some(ForeignPoolError::Regions { given: 3, layout: 2 }));
    let fewer = values.clone().bytes(0..7 * block);
    let slots = ForeignPoolError::Slots { region: 1, slots: 7, first: 8 };
    assert_eq!(refusal(&[&keys, &fewer]), Some(slots));
    let into_keys = values.clone().offset(KEYS - 1);
    let overlap = refusal(&[&keys, &into_keys]).unwrap();
    assert_eq!(overlap.code(), 6118, "{overlap}");
    assert_eq!(refusal(&[&keys, &values]), None, "side by side in one block");
}
