//! Producers of pages that are known in advance, and a reader that gives back every byte.
#![allow(dead_code, reason = "each test file uses a part")]

use std::time::Duration;

use kvrail::core::remote::RemotePage;
use kvrail::layouts::Plan;
use kvrail::session::PoolId;
use kvrail::{
    Batch, Config, KeyTag, Location, PageError, PageLayout, Peer, PeerKey, Publisher, PublisherConfig,
    PublisherTransport, Reader, ReaderTransport, Slot, clock, memory,
};

use super::image::{Page, UNTOUCHED, regions};

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

/// A publisher of one pool for each of `layouts`, with `slots` slots each.
pub(crate) fn publisher(layouts: &[PageLayout], slots: u32, over: impl PublisherTransport) -> Publisher {
    let config = PublisherConfig::new("producer".parse().unwrap());
    let config = layouts.iter().fold(config, |config, layout| config.pool(*layout, slots));
    Publisher::start_pools(config, &"127.0.0.1:0".parse().unwrap(), key(), over).unwrap()
}

/// Publishes a page in a slot of a pool.
pub(crate) fn publish(publisher: &Publisher, pool: u32, slot: u32, bytes: &[u8]) -> Location {
    let pool = publisher.pool(PoolId(pool)).unwrap();
    pool.write(slot, KeyTag(slot.into()), |page| page.copy_from_slice(bytes)).unwrap()
}

/// A producer of pages of one layout.
pub(crate) struct Producer {
    pub(crate) publisher: Publisher,
    pub(crate) layout: PageLayout,
    pub(crate) locations: Vec<Location>,
}

impl Producer {
    /// One page for each of `pages`: its number, and the block that it is.
    pub(crate) fn of(layout: PageLayout, pages: &[(u64, u64)], over: impl PublisherTransport) -> Self {
        let publisher = publisher(&[layout], pages.len() as u32, over);
        let locations = (0..).zip(pages).map(|(slot, &(number, block))| {
            let page = Page { layout: layout.geometry(), number, block };
            publish(&publisher, 0, slot, &page.bytes())
        });
        Self { locations: locations.collect(), publisher, layout }
    }
}

/// A reader with slots of one layout.
pub(crate) struct Reads<N: ReaderTransport> {
    pub(crate) reader: Reader<N>,
    pub(crate) layout: PageLayout,
    free: Vec<Slot>,
}

impl<N: ReaderTransport> Reads<N> {
    /// Two slots for pages of `layout`.
    pub(crate) fn of(layout: PageLayout, rails: N) -> Self {
        let mut reader = Reader::start(layout, rails, Config::default()).unwrap();
        let free = slots(&mut reader, &layout);
        Self { reader, layout, free }
    }

    /// Connects to a producer, for pages of its layout.
    pub(crate) fn connect(&mut self, producer: &Producer) -> Peer {
        let address = producer.publisher.local_addr().into();
        self.reader.connect_to(&address, key(), &producer.layout).unwrap()
    }

    /// Fills one slot from several pages, each by a plan, and returns its bytes, region behind
    /// region.
    pub(crate) fn gather(&mut self, parts: &[(RemotePage, Plan)]) -> Result<Vec<u8>, PageError> {
        let mut slot = self.free.pop().unwrap();
        clear(&self.reader, &mut slot);
        let mut batch = self.reader.batch().unwrap();
        let ((first, plan), others) = parts.split_first().unwrap();
        let plan = self.reader.add_plan(plan).unwrap();
        batch.read_with(*first, slot, plan).map_err(|(error, _)| error).unwrap();
        for (page, plan) in others {
            let plan = self.reader.add_plan(plan).unwrap();
            batch.read_also_with(*page, plan).unwrap();
        }
        let (slot, result) = run(&mut self.reader, batch).remove(0);
        let bytes = bytes_of(&self.reader, &slot, &self.layout);
        self.free.push(slot);
        result.map(|()| bytes)
    }
}

/// Two slots for pages of `layout`.
pub(crate) fn slots<N: ReaderTransport>(reader: &mut Reader<N>, layout: &PageLayout) -> Vec<Slot> {
    let memory = memory::leaked(2 * layout.page_bytes() as usize).unwrap();
    let slots = reader.register_for(layout, memory).unwrap();
    assert_eq!(slots.total(), 2);
    slots.collect()
}

/// Fills all regions of a slot with the byte of what is untouched.
pub(crate) fn clear<N: ReaderTransport>(reader: &Reader<N>, slot: &mut Slot) {
    let mut region = 0;
    while let Some(bytes) = reader.slot_bytes_mut(slot, region) {
        bytes.fill(UNTOUCHED);
        region += 1;
    }
}

/// The bytes of a slot, region behind region.
pub(crate) fn bytes_of<N: ReaderTransport>(reader: &Reader<N>, slot: &Slot, layout: &PageLayout) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(layout.page_bytes() as usize);
    for (region, range) in (0..).zip(regions(layout.geometry())) {
        let some = reader.slot_bytes(slot, region).unwrap();
        assert_eq!(some.len(), range.len(), "region {region}");
        bytes.extend_from_slice(some);
    }
    assert_eq!(reader.slot_bytes(slot, layout.regions()), None);
    bytes
}

/// Compares all bytes, and names the first that differs.
pub(crate) fn assert_bytes(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    if found != expected {
        let at = found.iter().zip(expected).position(|(found, expected)| found != expected).unwrap();
        panic!("{what}: byte {at} is {:#04x}, not {:#04x}", found[at], expected[at]);
    }
}

/// Reads the pages of a batch, and returns their slots and results in its order.
pub(crate) fn run<N: ReaderTransport>(
    reader: &mut Reader<N>,
    batch: Batch<'static>,
) -> Vec<(Slot, Result<(), PageError>)> {
    let until = clock::within(LIMIT);
    reader.submit(batch, until).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(until),
        }
        assert!(clock::now() < until, "nothing is done: {reader:?}");
    };
    done.pages().map(|page| (page.slot, page.result)).collect()
}
