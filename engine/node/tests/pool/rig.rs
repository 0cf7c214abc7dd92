//! What the tests share: a publisher with a pool, pages whose bytes tell their keys, and a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvrail::core::provider::MemoryRange;
use kvrail::session::PoolId;
use kvrail::shm::ShmRails;
use kvrail::{
    Bf16, Config, ForeignMemory, ForeignPool, ForeignRegion, KeyTag, KvLayout, PageError, PageLayout, Peer,
    PeerKey, Publisher, PublisherConfig, Reader, Slot, clock, memory, shm,
};
use kvrail_node::{Key, PagePool, Record};

/// A page of 16 KiB.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 64)]
#[allow(dead_code, reason = "a declaration")]
pub(crate) struct Latent {
    latent: [Bf16; 32],
}

pub(crate) const LAYOUT: PageLayout = PageLayout::of::<Latent>();
pub(crate) const PAGE: usize = LAYOUT.page_bytes() as usize;
/// How long anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn soon() -> Instant {
    Instant::now() + LIMIT
}

pub(crate) fn peer_key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

/// A publisher of one pool of `slots` slots.
pub(crate) fn publisher(slots: u32) -> Arc<Publisher> {
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    Arc::new(Publisher::start(name, LAYOUT, slots, &listen, peer_key(), shm::publish(1)).unwrap())
}

/// The same, opened as a pool of pages.
pub(crate) fn pool(slots: u32) -> (Arc<Publisher>, PagePool) {
    let publisher = publisher(slots);
    let pool = PagePool::open(Arc::clone(&publisher), PoolId(0)).unwrap();
    (publisher, pool)
}

pub(crate) const fn key(number: u128) -> Key {
    Key(KeyTag(number))
}

/// Word number `at` of the page of `key`.
pub(crate) fn word(key: Key, at: usize) -> u64 {
    let KeyTag(tag) = key.0;
    (tag as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(at as u64)
}

/// Writes the page of `key`.
pub(crate) fn fill(key: Key, page: &mut [u8]) {
    for (bytes, at) in page.chunks_exact_mut(8).zip(0..) {
        bytes.copy_from_slice(&word(key, at).to_le_bytes());
    }
}

/// The bytes of the page of `key`.
pub(crate) fn bytes_of(key: Key) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    fill(key, &mut page);
    page
}

/// Whether all bytes are those of the page of `key`.
pub(crate) fn is_page_of(key: Key, page: &[u8]) -> bool {
    let words = page.chunks_exact(8).zip(0..);
    page.len() == PAGE && words.into_iter().all(|(bytes, at)| bytes == word(key, at).to_le_bytes())
}

/// Numbers that look random, the same in each run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// How the pages of a batch are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    Validated,
    /// Whatever bytes the slots have.
    Unvalidated,
}

/// A reader with slots, connected to a publisher.
pub(crate) struct Reads {
    reader: Reader<ShmRails>,
    peer: Peer,
    free: Vec<Slot>,
}

impl Reads {
    /// The most pages of one batch.
    pub(crate) const MOST: usize = 8;

    pub(crate) fn of(publisher: &Publisher) -> Self {
        let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap();
        let memory = memory::leaked(Self::MOST * PAGE).unwrap();
        let free = reader.register(memory).unwrap().collect();
        let peer = reader.connect(&publisher.local_addr().into(), peer_key()).unwrap();
        Self { reader, peer, free }
    }

    /// Reads pages, and says of each whether it has the bytes of its key, or why it was not read.
    pub(crate) fn read(&mut self, records: &[Record], how: How) -> Vec<Result<bool, PageError>> {
        let mut batch = self.reader.batch().unwrap();
        for record in records {
            let page = match how {
                How::Validated => self.peer.page(record.location()).unwrap(),
                How::Unvalidated => self.peer.pools()[0].unvalidated(record.slot).unwrap(),
            };
            batch.read(page, self.free.pop().unwrap()).unwrap();
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
        let mut results = Vec::new();
        for (page, record) in done.pages().zip(records) {
            let bytes = page.slot.bytes().unwrap();
            results.push(page.result.map(|()| is_page_of(Key(record.tag), bytes)));
            self.free.push(page.slot);
        }
        assert_eq!(results.len(), records.len(), "each page has one result");
        results
    }

    pub(crate) fn read_one(&mut self, record: Record) -> Result<bool, PageError> {
        self.read(&[record], How::Validated).remove(0)
    }
}

/// Memory of an inference engine, which it writes itself: pages of `LAYOUT`, one after another.
pub(crate) struct EngineMemory {
    /// Atomic, since peers read while the engine writes. It lives for ever, so it is mapped for as
    /// long as it is published.
    words: &'static [AtomicU64],
}

impl EngineMemory {
    pub(crate) fn of(slots: usize) -> Self {
        let words = (0..slots * PAGE / 8).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>();
        Self { words: Box::leak(words) }
    }

    /// A publisher of this memory.
    pub(crate) fn publisher(&self) -> Arc<Publisher> {
        let addr = self.words.as_ptr().expose_provenance() as u64;
        let range = MemoryRange { addr, len: (self.words.len() * 8) as u64 };
        // SAFETY: the memory lives for ever. The tests write a page under the guard of its slot,
        // but for the one that shows what happens otherwise, in which only the kernel reads it.
        let memory = unsafe { ForeignMemory::host(range) };
        let pool = ForeignPool::new(LAYOUT).region(ForeignRegion::new(&memory));
        let config = PublisherConfig::new("engine".parse().unwrap()).foreign_pool(pool);
        let listen = "127.0.0.1:0".parse().unwrap();
        Arc::new(Publisher::start_pools(config, &listen, peer_key(), shm::publish(1)).unwrap())
    }

    /// The engine writes the page of `key` into `slot`.
    pub(crate) fn fill(&self, slot: usize, key: Key) {
        let words = &self.words[slot * PAGE / 8..][..PAGE / 8];
        for (to, at) in words.iter().zip(0..) {
            to.store(word(key, at).to_le(), Ordering::Relaxed);
        }
    }
}
