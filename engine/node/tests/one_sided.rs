//! Look-ups from tables that a reader has read, of a producer that takes no part in them.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail::{Bf16, Config, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, Reader, clock, memory, shm};
use kvrail_node::directory::one_sided::{OneSidedConfig, OneSidedTables};
use kvrail_node::{
    Directory, Found, GetBatch, Key, KeySpace, Namespace, Node, NodeConfig, NodeError, Owner, Put,
};

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 2, tokens = 16)]
struct Latent {
    latent: [Bf16; 64],
}

const LATENT: PageLayout = PageLayout::of::<Latent>();
const SLOTS: u32 = 16;

#[test]
fn what_a_producer_has_published_is_found_and_read() {
    let key = PeerKey::from_bytes([0x5a; 32]);
    let (name, listen) = ("prefill-0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let producer = Publisher::start(name, LATENT, SLOTS, &listen, key.clone(), shm::publish(1)).unwrap();
    for slot in 0..4 {
        producer.write(slot, KeyTag(100 + u128::from(slot)), |page| page.fill(slot as u8 + 1)).unwrap();
    }
    let mut reader = Reader::start(LATENT, shm::rails(1).unwrap(), Config::default()).unwrap();
    let mut slots = reader.register(memory::leaked(4 * LATENT.page_bytes() as usize).unwrap()).unwrap();
    let address = producer.local_addr().into();
    let peer = reader.connect(&address, &key).unwrap();
    let owner = Owner { epoch: peer.epoch(), node: name, address, zone: "?".parse().unwrap() };

    let config = OneSidedConfig { refresh: Duration::from_millis(1), ..OneSidedConfig::default() };
    let tables = OneSidedTables::new(config);
    let pool = peer.pools()[0].id();
    tables.add(&owner, pool, SLOTS).unwrap();
    // Reads the tables that are wanted, as a node's reading thread does. Returns how many.
    let feed = |reader: &mut Reader<_>| {
        let mut read = 0;
        while let Some(wanted) = tables.wanted(Instant::now()) {
            let soon = clock::within(Duration::from_secs(10));
            let published = reader.published_in(&peer, 0, 0..wanted.slots, soon).unwrap();
            tables.publish(wanted.owner, wanted.pool, published, Instant::now());
            read += 1;
        }
        read
    };
    let look_up = |tag| {
        let mut found = Found::default();
        tables.look_up(&[KeyTag(tag)], Instant::now(), &mut found);
        found.records(0).unwrap().to_vec()
    };
    assert_eq!(look_up(102), [], "nothing was read yet");
    assert!(feed(&mut reader) > 0);
    let records = look_up(102);
    assert_eq!((records.len(), records[0].owner, records[0].pool), (1, owner.epoch, pool));
    assert_eq!(look_up(99), []);
    assert_eq!(tables.owners(&[owner.epoch], Instant::now()).unwrap(), [Some(owner)]);

    // The location that was found is that of the page.
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(records[0].location()).unwrap(), slots.next().unwrap()).map_err(drop).unwrap();
    let deadline = clock::within(Duration::from_secs(10));
    assert!(reader.submit(batch, deadline).is_ok());
    let mut bytes = None;
    while bytes.is_none() {
        reader.poll();
        if let Some(mut done) = reader.next_done() {
            for page in done.pages() {
                page.result().unwrap();
                bytes = page.slot.bytes().map(<[u8]>::to_vec);
            }
        }
        if bytes.is_none() {
            reader.wait(deadline);
        }
    }
    assert!(bytes.unwrap().iter().all(|&byte| byte == 3));

    // A page that was written anew has another key: the next image says so.
    producer.write(2, KeyTag(777), |page| page.fill(9)).unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while look_up(777).is_empty() {
        assert!(Instant::now() < limit, "the table is read again");
        feed(&mut reader);
    }
    assert_eq!(look_up(102), []);
    assert_eq!(look_up(777)[0].slot, 2);
}

fn node_key(number: u8) -> Key {
    let namespace = Namespace { model: "m".into(), layout: LATENT.fingerprint(), shape: "tp 1".into() };
    let secret = kvrail::session::TagSecret::from_bytes([7; 32]);
    KeySpace::new(&secret, &namespace).unwrap().key(&[number]).unwrap()
}

fn config(name: &str) -> NodeConfig {
    NodeConfig::new(name.parse().unwrap(), PeerKey::from_bytes([0x5a; 32]))
}

fn start(config: NodeConfig) -> Node {
    Node::start(config, shm::publish(1), || shm::rails(1)).unwrap()
}

/// A node whose pool has the pages of these keys, each filled with its number.
fn owner(name: &str, numbers: std::ops::Range<u8>) -> Node {
    let node = start(config(name).pool(LATENT, SLOTS));
    for number in numbers {
        let page = vec![number; LATENT.page_bytes() as usize];
        assert!(matches!(node.put(&LATENT, node_key(number), &page), Ok(Put::Stored(_))));
    }
    node
}

/// Which of the keys are hits, and what their pages begin with.
fn get(node: &Node, numbers: std::ops::Range<u8>) -> Vec<Option<u8>> {
    let bytes = numbers.len() * LATENT.page_bytes() as usize;
    let places = node.register(&LATENT, memory::leaked(bytes).unwrap()).unwrap();
    let mut batch = GetBatch::default();
    for number in numbers {
        batch.read(node_key(number), places.take_any().unwrap());
    }
    node.get(&mut batch, Instant::now() + Duration::from_secs(30));
    let page =
        |page: kvrail_node::GotPage| page.result.ok().map(|_| page.destination.unwrap().bytes(0).unwrap()[0]);
    let pages = batch.take_pages().map(page).collect();
    node.unregister(&places).unwrap();
    pages
}

#[test]
fn a_node_reads_the_tables_of_several_owners_by_itself() {
    let (one, two) = (owner("one", 0..4), owner("two", 4..8));
    // A candidate at which nothing listens.
    let nothing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let candidates = vec![one.address().unwrap(), two.address().unwrap(), nothing.into()];
    let caps = OneSidedConfig { refresh: Duration::from_millis(5), ..OneSidedConfig::default() };
    let reader = start(config("reader").layout(LATENT).one_sided(candidates, caps));
    // The first look-up waits for the first tables.
    let expected: Vec<_> = (0..8).map(Some).chain([None]).collect();
    assert_eq!(get(&reader, 0..9), expected);
    // Pages that come and go later are seen at a later reading.
    assert!(one.remove(node_key(0)));
    let page = vec![8; LATENT.page_bytes() as usize];
    assert!(matches!(two.put(&LATENT, node_key(8), &page), Ok(Put::Stored(_))));
    let limit = Instant::now() + Duration::from_secs(60);
    while get(&reader, 0..9) != (1..9).map(Some).fold(vec![None], |all, one| [all, vec![one]].concat()) {
        assert!(Instant::now() < limit, "the tables are read again");
    }
    // An owner that has gone takes its pages along, and no others.
    drop(one);
    let left = [vec![None; 4], (4..9).map(Some).collect()].concat();
    while get(&reader, 0..9) != left {
        assert!(Instant::now() < limit, "the owner is forgotten");
    }
}

#[test]
fn a_table_that_the_caps_leave_out_is_not_read_and_others_are() {
    let (one, two) = (owner("one", 0..4), owner("two", 4..8));
    let candidates = vec![one.address().unwrap(), two.address().unwrap()];
    let caps = OneSidedConfig { max_slots: SLOTS.into(), ..OneSidedConfig::default() };
    let reader = start(config("reader").layout(LATENT).one_sided(candidates, caps));
    let hits = get(&reader, 0..8).iter().flatten().count();
    assert_eq!(hits, 4, "the pages of the owner that was reached first");
    let driven = config("driven").layout(LATENT).one_sided(Vec::new(), caps);
    let error = Node::start_driven(driven, shm::publish(1), shm::rails(1).unwrap()).unwrap_err();
    assert!(matches!(error, NodeError::OneSidedDriven) && error.code() == 7226);
}

/// With these caps a table is due as soon as another one has been read, so the thread that reads
/// them never has nothing to do.
#[test]
fn look_ups_begin_where_some_table_is_always_due() {
    let one = owner("one", 0..4);
    let candidates = vec![one.address().unwrap()];
    let caps =
        OneSidedConfig { refresh: Duration::ZERO, slots_per_second: u64::MAX, ..OneSidedConfig::default() };
    let reader = start(config("reader").layout(LATENT).one_sided(candidates, caps));
    assert_eq!(get(&reader, 0..4), (0..4).map(Some).collect::<Vec<_>>());
}

/// Another address of a node: what connects to it is connected to the node.
struct OtherAddress {
    at: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl OtherAddress {
    fn of(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (streams, closed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, is_closed) = (Arc::clone(&streams), Arc::clone(&closed));
        let thread = std::thread::spawn(move || {
            for caller in listener.incoming().map(Result::unwrap) {
                let mut kept = kept.lock().unwrap();
                // Looked at under the lock, so that no stream is kept after all were closed.
                if is_closed.load(Ordering::SeqCst) {
                    return;
                }
                let called = TcpStream::connect(node).unwrap();
                for (from, to) in [(&caller, &called), (&called, &caller)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // One that was closed says so, which is its end.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                kept.extend([caller, called]);
            }
        });
        Self { at, streams, closed, thread: Some(thread) }
    }
}

impl Drop for OtherAddress {
    /// Nothing listens there any more, and all connections are closed.
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // It is woken by a last connection.
        drop(TcpStream::connect(self.at));
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn an_owner_with_two_addresses_is_counted_once_and_stays_while_one_is_left() {
    for first in [0, 1] {
        let one = owner("one", 0..4);
        let own = one.publisher().unwrap().local_addr();
        let other = OtherAddress::of(own);
        let mut candidates = vec![one.address().unwrap(), other.at.into()];
        candidates.swap(0, first);
        // A second pool would be one too many.
        let caps =
            OneSidedConfig { max_pools: 1, refresh: Duration::from_millis(5), ..OneSidedConfig::default() };
        let reader = start(config("reader").layout(LATENT).one_sided(candidates, caps));
        assert_eq!(get(&reader, 0..4), (0..4).map(Some).collect::<Vec<_>>());
        let limit = Instant::now() + Duration::from_secs(60);
        let sessions = |count: usize| {
            while one.statistics().connected_readers != count {
                assert!(Instant::now() < limit, "{:?}", one.statistics());
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        // The tables are read over two of the sessions, pages over the third.
        sessions(3);
        drop(other);
        // The session over the address that has gone is no more. That of the pages was another one,
        // or is made again.
        while get(&reader, 0..4).iter().flatten().count() < 4 || one.statistics().connected_readers != 2 {
            assert!(
                Instant::now() < limit,
                "the owner is found at its other address: {:?}",
                one.statistics()
            );
        }
        // Images would be too old by now, were no table read any more.
        let page = vec![9; LATENT.page_bytes() as usize];
        assert!(matches!(one.put(&LATENT, node_key(9), &page), Ok(Put::Stored(_))));
        while get(&reader, 9..10) != [Some(9)] {
            assert!(Instant::now() < limit, "its tables are read over its other address");
        }
    }
}
