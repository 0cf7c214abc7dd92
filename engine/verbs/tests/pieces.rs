//! Memory that is longer than one region of a device may be, over real verbs: a publisher registers
//! it in pieces, and a page at either side of a cut is right. The limit is the configuration's.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::time::Instant;

use kvrail::core::memory::{RegionError, Slot, Slots};
use kvrail::core::provider::MemoryRange;
use kvrail::core::table::KeyTag;
use kvrail::{Config, Publisher, PublisherConfig, Reader, clock, memory, verbs};
use kvrail_verbs::{MrError, Rights, Side, VerbsConfig, VerbsRegion, rail};
use lane::{Devices, HANGS, LAYOUT, SLOTS, key, page, said};

const SEED: u64 = 7;
/// Slots of the reader.
const ROOM: usize = 100;
/// 24 pages, and less than a page of the host at each end.
const LIMIT: u64 = 1 << 20;

#[test]
fn pages_on_both_sides_of_a_cut_are_right() {
    const TEST: &str = "registered in pieces";
    let Some(fabric) = Devices::find(TEST) else { return };
    let over = verbs::publish_with(&fabric.producer, VerbsConfig { max_mr_bytes: LIMIT, ..verbs::config() });
    let config = PublisherConfig::new("producer".parse().unwrap()).pool(LAYOUT, SLOTS).registrations(4);
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let began = Instant::now();
    let producer = Publisher::start_pools(config, &anywhere, key(), over.unwrap()).unwrap();
    let took = began.elapsed();
    let write = |slot| {
        let fill = |to: &mut [u8]| to.copy_from_slice(&page(SEED, slot));
        producer.write(slot, KeyTag(slot.into()), fill).unwrap()
    };
    let locations: Vec<_> = (0..SLOTS).map(write).collect();

    let mut reader = Reader::start(LAYOUT, verbs::rails(&fabric.reader).unwrap(), Config::default()).unwrap();
    // The reader's memory is registered in pieces of a megabyte, too: 24 slots each at most.
    let room = memory::leaked(ROOM * LAYOUT.page_bytes() as usize).unwrap();
    let mut destinations = reader.register_in_pieces(room, LIMIT).unwrap();
    assert!((ROOM.div_ceil(24)..=ROOM.div_ceil(12)).contains(&destinations.len()), "{destinations:?}");
    // By turns of all pieces.
    let mut free: Vec<Slot> = Vec::new();
    while free.len() < ROOM {
        free.extend(destinations.iter_mut().filter_map(Slots::next));
    }
    let peer = reader.connect(&producer.local_addr().into(), key()).unwrap();
    let pool = peer.pool_of(&LAYOUT).unwrap();
    let pieces = pool.regions().len();
    // A piece has 24 pages at most, and no fewer than half of them.
    assert!((SLOTS.div_ceil(24)..=SLOTS.div_ceil(12)).contains(&(pieces as u32)), "{pieces} pieces");
    let deadline = clock::within(HANGS);
    for some in locations.chunks(ROOM) {
        let mut batch = reader.batch().unwrap();
        for &location in some {
            batch.read(pool.page(location).unwrap(), free.pop().unwrap()).unwrap();
        }
        reader.submit(batch, deadline).unwrap();
        let mut done = loop {
            reader.poll();
            match reader.next_done() {
                Some(done) => break done,
                None => reader.wait(deadline),
            }
        };
        for read in done.pages() {
            let slot = some[read.index].slot;
            read.result.unwrap_or_else(|error| panic!("slot {slot}: {error}"));
            assert!(read.slot.bytes().unwrap() == page(SEED, slot), "slot {slot} has other bytes");
            free.push(read.slot);
        }
    }
    for slot in free {
        // Each piece takes its own slots back, and no others.
        let left = destinations.iter_mut().try_fold(slot, |slot, piece| match piece.put(slot) {
            Ok(()) => Err(()),
            Err(slot) => Ok(slot),
        });
        assert!(left.is_err(), "a slot of no piece");
    }
    let of_reader = destinations.len();
    for slots in destinations {
        reader.unregister(slots).unwrap();
    }
    drop(reader);
    drop(producer);
    said(&format!(
        "{TEST}: {SLOTS} pages, all right, in {pieces} pieces, published in {} ms, into {of_reader} pieces",
        took.as_millis()
    ));
}

#[test]
fn a_range_above_the_limit_is_refused_by_name() {
    const TEST: &str = "ranges above the limit of a device";
    let Some(fabric) = Devices::find(TEST) else { return };
    let config = VerbsConfig { max_mr_bytes: LIMIT, ..verbs::config() };
    let memory = memory::leaked(2 * LIMIT as usize).unwrap();
    let addr = memory.as_mut_ptr().expose_provenance() as u64;
    let rails = rail::open(&fabric.producer, config, Side::Producer).unwrap();
    let register = |len| VerbsRegion::new(&rails, MemoryRange { addr, len }, Rights::RemoteRead);
    assert_eq!(register(LIMIT).unwrap().range().len, LIMIT);
    let error = register(LIMIT + 1).unwrap_err();
    assert!(matches!(error.reason, MrError::TooLong { limit: LIMIT, .. }), "{error}");
    drop(rails);

    let rails = verbs::rails_with(&fabric.reader, config).unwrap();
    let mut reader = Reader::start(LAYOUT, rails, Config::default()).unwrap();
    let (half, rest) = memory.split_at_mut(LIMIT as usize);
    let both = memory::leaked(2 * LIMIT as usize).unwrap();
    let error = reader.register(both).unwrap_err();
    assert_eq!(error, RegionError::TooLong { bytes: slots_of(2 * LIMIT), limit: LIMIT });
    // In parts it is taken.
    reader.register(half).unwrap();
    reader.register(rest).unwrap();
    said(&format!("{TEST}: refused with both numbers, and taken in parts"));
}

/// The bytes of whole pages in so many bytes: what a reader registers of its memory.
fn slots_of(bytes: u64) -> u64 {
    let page = u64::from(LAYOUT.page_bytes());
    bytes / page * page
}
