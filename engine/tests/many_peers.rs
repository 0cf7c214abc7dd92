//! A process with many peers has as many threads as one with a few, connects to a thousand of them
//! at once, and reads from all of them over a few lanes. This test has a process of its own,
//! because it counts threads; its parts run one after the other.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use kvrail::core::config::EngineConfig;
use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::local::LocalConfig;
use kvrail::local::shm::{ShmPeer, ShmProvider};
use kvrail::{
    Config, MakeLanes, PageLayout, PeerKey, Publisher, ReaderEvent, ReaderTransport, Storage, clock, engine,
    memory, shm,
};

const PEERS: usize = 200;
const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();

engine! { Many { page: VllmFp8DsMla, max_rails: 1, max_peers: 200, max_depth: 32, max_batch: 200, max_batches: 2 } }

/// A rail over shared memory whose completion queue has room for a lane to each peer.
struct Rail(ShmProvider);

const RAIL: LocalConfig = LocalConfig {
    rails: 1,
    sq_entries: 31,
    cq_entries: 8_192,
    nominal_bytes_per_sec: 1_000_000_000,
    own_bytes: 0,
    copy_while_waiting: false,
};

impl ReaderTransport for Rail {
    type Provider = ShmProvider;
    type UnopenedLane = ShmPeer;
    type Dialer = <shm::ShmRails as ReaderTransport>::Dialer;
    type DialerSeed = LocalConfig;
    const LABEL: &'static str = "shm with short queues";

    fn engine_config(&self) -> EngineConfig {
        shm::ENGINE_CONFIG
    }

    fn split(self) -> (ShmProvider, LocalConfig) {
        (self.0, RAIL)
    }

    fn dialer(seed: &LocalConfig) -> Self::Dialer {
        shm::ShmRails::dialer(seed)
    }

    fn depth(_: &ShmPeer) -> u32 {
        RAIL.sq_entries + 1
    }
}

/// How many threads of each name this process has.
fn threads() -> BTreeMap<String, usize> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // A thread may have ended since.
        if let Ok(name) = std::fs::read_to_string(task.unwrap().path().join("comm")) {
            *threads.entry(name.trim_end().into()).or_default() += 1;
        }
    }
    threads
}

#[test]
fn many_peers_cost_no_thread_each_and_all_are_read() {
    two_hundred_peers_with_lanes();
    a_thousand_producers_of_one_reader();
}

fn two_hundred_peers_with_lanes() {
    static STORAGE: Storage<Many> = Storage::new();
    let key = PeerKey::from_bytes([6; 32]);
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let publisher = Publisher::start(name, LAYOUT, 1, &listen, &key, shm::publish(1)).unwrap();
    let location = publisher.write(0, KeyTag(1), |page| page.fill(3)).unwrap();
    let address = publisher.local_addr().into();
    let rail = Rail(ShmProvider::start(RAIL).unwrap());
    let mut reader = Many::start(STORAGE.take().unwrap(), rail, Config::default()).unwrap();
    let peers: Vec<_> = (0..PEERS).map(|_| reader.connect(&address, &key).unwrap()).collect();
    let begun = Instant::now();
    while publisher.readers() < PEERS {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} readers", publisher.readers());
        std::thread::sleep(Duration::from_millis(1));
    }

    let threads = threads();
    let count = |name: &str| threads.get(name).copied().unwrap_or(0);
    assert_eq!(count("kvrail-peers"), 1, "{threads:?}");
    // Two for the rail, two that pair rails, and none that resolve names.
    assert!((1..=4).contains(&count("kvrail-dialers")), "{threads:?}");
    // The producer's threads, the rail's, shared memory's and the test's: none for each peer.
    assert!(threads.values().sum::<usize>() < 30, "{threads:?}");

    let bytes = PEERS * LAYOUT.page_bytes() as usize;
    let slots = reader.register(memory::leaked(bytes).unwrap()).unwrap();
    let mut batch = reader.batch().unwrap();
    for (peer, slot) in peers.iter().zip(slots) {
        batch.read(peer.page(location).unwrap(), slot).unwrap();
    }
    let deadline = clock::within(Duration::from_secs(20));
    reader.submit(batch, deadline).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(deadline),
        }
    };
    assert_eq!(done.pages().filter(|page| page.result() == Ok(())).count(), PEERS);
    assert!(reader.next_event().is_none(), "a peer was lost");
}

const THOUSAND: usize = 1_000;
/// Producers, each of which the reader connects to many times: each connect is a session.
const PRODUCERS: usize = 8;
/// Lanes of the reader, far fewer than peers.
const LANES: usize = 48;

engine! {
    Thousand { page: VllmFp8DsMla, max_rails: 1, max_peers: 1000, max_depth: 128, max_batch: 8, max_batches: 128 }
}

/// Every connect is begun before the first is done, and every page is submitted while at most
/// [`LANES`] peers have a lane.
fn a_thousand_producers_of_one_reader() {
    static STORAGE: Storage<Thousand> = Storage::new();
    let key = PeerKey::from_bytes([7; 32]);
    let listen = "127.0.0.1:0".parse().unwrap();
    let publishers: Vec<_> = (0..PRODUCERS)
        .map(|at| {
            let name = format!("producer-{at}").parse().unwrap();
            Publisher::start(name, LAYOUT, 1, &listen, &key, shm::publish(1)).unwrap()
        })
        .collect();
    let locations: Vec<_> = (0..PRODUCERS)
        .map(|at| publishers[at].write(0, KeyTag(1), |page| page.fill(at as u8 + 1)).unwrap())
        .collect();
    let config = Config {
        lanes: MakeLanes::OnDemand,
        lanes_budget: LANES,
        connect: Duration::from_secs(60),
        ..Config::default()
    };
    let mut reader = Thousand::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), config).unwrap();
    let mut connecting = HashMap::new();
    for at in 0..THOUSAND {
        let address = publishers[at % PRODUCERS].local_addr().into();
        connecting.insert(reader.begin_connect(&address, &key, &[LAYOUT]).unwrap(), at % PRODUCERS);
    }
    let address = publishers[0].local_addr().into();
    let error = reader.begin_connect(&address, &key, &[LAYOUT]).unwrap_err();
    assert!(error.to_string().contains("1000 peers"), "{error}");
    let mut peers = Vec::new();
    while !connecting.is_empty() {
        reader.poll();
        while let Some(event) = reader.next_event() {
            let ReaderEvent::Connected { connecting: of, peer } = event else { panic!("{event:?}") };
            assert_eq!(reader.lanes_to(&peer), 0, "nothing has been read from it");
            peers.push((peer, connecting.remove(&of).unwrap()));
        }
        reader.wait(clock::within(Duration::from_millis(100)));
    }
    assert_eq!(peers.len(), THOUSAND);
    // Of each producer three and those that make lanes, of the reader at most seven.
    let threads = threads();
    assert!(threads.values().sum::<usize>() < 30 + 7 * PRODUCERS, "{threads:?}");

    let slots = reader.register(memory::leaked(100 * LAYOUT.page_bytes() as usize).unwrap()).unwrap();
    let (mut slots, mut flying): (Vec<_>, _) = (slots.collect(), HashMap::new());
    let (mut next, mut arrived) = (peers.iter().peekable(), 0);
    while arrived < THOUSAND {
        while let (Some(&&(ref peer, at)), Some(slot)) = (next.peek(), slots.pop()) {
            let mut batch = reader.batch().unwrap();
            batch.read(peer.page(locations[at]).unwrap(), slot).unwrap();
            let ticket = reader.submit(batch, clock::within(Duration::from_secs(60))).unwrap();
            flying.insert(ticket, at);
            next.next();
        }
        reader.poll();
        while let Some(mut done) = reader.next_done() {
            let at = flying.remove(&done.ticket()).unwrap();
            for page in done.pages() {
                assert_eq!(page.result(), Ok(()));
                assert!(page.slot.bytes().unwrap().iter().all(|&byte| byte == at as u8 + 1));
                slots.push(page.slot);
                arrived += 1;
            }
        }
        let lanes: usize = peers.iter().map(|(peer, _)| reader.lanes_to(peer)).sum();
        assert!(lanes <= LANES, "{lanes} lanes");
        reader.wait(clock::within(Duration::from_millis(20)));
    }
    let stats = reader.rail_stats(0).unwrap();
    assert_eq!(stats.lanes_failed, 0, "{stats:?}");
    assert!(reader.next_event().is_none(), "a peer was lost");
}
