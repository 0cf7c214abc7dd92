//! What the tests have in common: a layout, keys, pages whose bytes their keys tell, nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::session::TagSecret;
use kvrail::{Bf16, KvLayout, PageLayout, PeerKey, shm, tcp};
use kvrail_node::{
    Destinations, Directory, GetBatch, GetMiss, GotPage, Hit, Key, KeySpace, Namespace, Node, NodeConfig, Put,
};

use crate::directory::TestDirectory;

/// 8 tokens of one layer of a small MLA: 2,304 bytes.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code)]
pub(crate) struct Page {
    latent: [Bf16; 128],
    rope: [Bf16; 16],
}
pub(crate) const PAGE: PageLayout = PageLayout::of::<Page>();

/// Another layout of another length.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code)]
pub(crate) struct Index {
    keys: [Bf16; 32],
}
pub(crate) const INDEX: PageLayout = PageLayout::of::<Index>();

pub(crate) const BYTES: usize = PAGE.page_bytes() as usize;

pub(crate) fn peer_key() -> PeerKey {
    PeerKey::from_bytes([4; 32])
}

pub(crate) fn space(layout: &PageLayout) -> KeySpace {
    let secret = TagSecret::from_bytes([7; 32]);
    let namespace = Namespace { model: "m".into(), layout: layout.fingerprint(), shape: "tp 1".into() };
    KeySpace::new(&secret, &namespace).unwrap()
}

pub(crate) fn key(number: u64) -> Key {
    space(&PAGE).key(&number.to_le_bytes()).unwrap()
}

/// The bytes of a key's page: no two keys have the same, and no byte says what its neighbours are.
pub(crate) fn page_of(key: Key, len: usize) -> Vec<u8> {
    let mut state = (key.0.0 as u64) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn config(name: &str, directory: &Arc<TestDirectory>) -> NodeConfig {
    let directory = Arc::clone(directory) as Arc<dyn Directory>;
    NodeConfig::new(name.parse().unwrap(), peer_key()).layout(PAGE).directory(directory)
}

pub(crate) fn start(config: NodeConfig) -> Node {
    Node::start(config, shm::publish(1), || shm::rails(1)).unwrap()
}

pub(crate) fn start_tcp(config: NodeConfig) -> Node {
    let publish = tcp::publish("127.0.0.1".parse().unwrap(), 1);
    Node::start(config, publish, || tcp::rails(1)).unwrap()
}

/// A node with a pool of so many pages.
pub(crate) fn producer(name: &str, directory: &Arc<TestDirectory>, slots: u32) -> Node {
    start(config(name, directory).pool(PAGE, slots))
}

/// A node without a pool.
pub(crate) fn reader(directory: &Arc<TestDirectory>) -> Node {
    start(config("reader", directory))
}

pub(crate) fn put(node: &Node, keys: impl IntoIterator<Item = u64>) {
    for number in keys {
        let put = node.put(&PAGE, key(number), &page_of(key(number), BYTES)).unwrap();
        assert!(matches!(put, Put::Stored(_)), "{put:?}");
    }
    announced(node);
}

pub(crate) fn announced(node: &Node) {
    node.announcer().unwrap().flush(within(5_000)).unwrap();
}

pub(crate) fn within(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

pub(crate) fn places(node: &Node, count: usize) -> Destinations {
    node.register(&PAGE, kvrail::memory::leaked(count * BYTES).unwrap()).unwrap()
}

pub(crate) fn batch(places: &Destinations, keys: impl IntoIterator<Item = u64>) -> GetBatch {
    let mut batch = GetBatch::default();
    for number in keys {
        let mut to = places.take_any().expect("a free place");
        to.bytes_mut(0).unwrap().fill(0xEE);
        batch.read(key(number), to);
    }
    batch
}

/// Gets keys, and checks every byte of every hit.
pub(crate) fn get(
    node: &Node,
    places: &Destinations,
    keys: impl IntoIterator<Item = u64>,
    millis: u64,
) -> Vec<Result<Hit, GetMiss>> {
    let keys: Vec<_> = keys.into_iter().collect();
    let mut batch = batch(places, keys.iter().copied());
    let counts = node.get(&mut batch, within(millis));
    let results = checked(&keys, &mut batch);
    let hits = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!((counts.hits, counts.misses), (hits, keys.len() - hits));
    results
}

/// The results of a batch of keys that was got, every byte of every hit checked.
pub(crate) fn checked(keys: &[u64], batch: &mut GetBatch) -> Vec<Result<Hit, GetMiss>> {
    assert_eq!(batch.len(), keys.len());
    let check = |page: GotPage| {
        if page.result.is_ok() {
            let to = page.destination.expect("a hit has its destination");
            let right = page_of(key(keys[page.index]), BYTES);
            assert!(to.bytes(0) == Some(&right[..]), "key {} has wrong bytes", keys[page.index]);
        }
        page.result
    };
    batch.take_pages().map(check).collect()
}

pub(crate) fn labels(results: &[Result<Hit, GetMiss>]) -> Vec<&'static str> {
    let label = |result: &Result<Hit, GetMiss>| match result {
        Ok(hit) => hit.found.label(),
        Err(miss) => miss.label(),
    };
    results.iter().map(label).collect()
}
