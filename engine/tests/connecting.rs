//! Connects that do not block, their outcomes, and lanes that are made when a peer is read from.

use std::collections::HashMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::{
    Address, Config, ConnectError, Location, MAX_PEERS, MakeLanes, PageError, PageLayout, Peer, PeerKey,
    Publisher, PublisherTransport, Reader, ReaderEvent, ReaderTransport, Slot, clock, memory, shm, tcp,
};

const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();
/// A time that no test takes.
const LIMIT: Duration = Duration::from_secs(60);

fn key() -> PeerKey {
    PeerKey::from_bytes([9; 32])
}

fn producer(over: impl PublisherTransport) -> (Publisher, Address, Location) {
    let listen = "127.0.0.1:0".parse().unwrap();
    let publisher = Publisher::start("producer".parse().unwrap(), LAYOUT, 1, &listen, key(), over).unwrap();
    let location = publisher.write(0, KeyTag(1), |page| page.fill(3)).unwrap();
    let address = publisher.local_addr().into();
    (publisher, address, location)
}

fn slots<T: ReaderTransport>(reader: &mut Reader<T>, count: usize) -> Vec<Slot> {
    let bytes = memory::leaked(count * LAYOUT.page_bytes() as usize).unwrap();
    reader.register(bytes).unwrap().collect()
}

/// Reads a page, and gives the slot back.
fn read<T: ReaderTransport>(
    reader: &mut Reader<T>,
    peer: &Peer,
    location: Location,
    slot: Slot,
    within: Duration,
) -> (Result<(), PageError>, Slot) {
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), slot).unwrap();
    let deadline = clock::within(within);
    reader.submit(batch, deadline).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(deadline),
        }
    };
    let page = done.pages().next().unwrap();
    (page.result(), page.slot)
}

/// Polls until there is an event.
fn next_event<T: ReaderTransport>(reader: &mut Reader<T>) -> ReaderEvent {
    let begun = Instant::now();
    loop {
        reader.poll();
        if let Some(event) = reader.next_event() {
            return event;
        }
        assert!(begun.elapsed() < LIMIT, "no event comes");
        reader.wait(clock::within(Duration::from_millis(50)));
    }
}

#[test]
fn a_producer_that_does_not_answer_keeps_no_read_waiting_and_is_told_by_the_deadline() {
    let (_publisher, address, location) = producer(shm::publish(1));
    // Connections are made, and nothing answers them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Address::from(silent.local_addr().unwrap());
    let config = Config { connect: Duration::from_millis(1500), ..Config::default() };
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), config).unwrap();
    let mut slot = slots(&mut reader, 1).pop().unwrap();
    let peer = reader.connect(&address, key()).unwrap();
    let connecting = reader.begin_connect(&silent, key(), &[LAYOUT]).unwrap();
    let mut pages = 0;
    let (of, error) = loop {
        let (result, back) = read(&mut reader, &peer, location, slot, LIMIT);
        result.unwrap();
        slot = back;
        pages += 1;
        match reader.next_event() {
            Some(ReaderEvent::NotConnected { connecting, error }) => break (connecting, error),
            Some(event) => panic!("{event:?}"),
            None => {}
        }
    };
    assert_eq!(of, connecting);
    assert!(matches!(error, ConnectError::Session(_)), "{error}");
    assert!(pages > 10, "{pages} pages were read meanwhile");
}

#[test]
fn a_connect_that_is_abandoned_has_no_outcome_whenever_that_was() {
    let (_publisher, address, _) = producer(tcp::publish("127.0.0.1".parse().unwrap(), 1));
    let mut reader = Reader::start(LAYOUT, tcp::rails(1).unwrap(), Config::default()).unwrap();
    let first = reader.begin_connect(&address, key(), &[LAYOUT]).unwrap();
    assert!(reader.abandon(first));
    assert!(!reader.abandon(first), "once");
    // One whose outcome has come and was not taken.
    let second = reader.begin_connect(&address, key(), &[LAYOUT]).unwrap();
    let third = reader.begin_connect(&address, key(), &[LAYOUT]).unwrap();
    let event = next_event(&mut reader);
    let ReaderEvent::Connected { connecting, peer } = event else { panic!("{event:?}") };
    assert!([second, third].contains(&connecting));
    let other = if connecting == second { third } else { second };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        reader.poll();
        reader.wait(clock::within(Duration::from_millis(50)));
    }
    assert!(reader.abandon(other));
    assert!(reader.next_event().is_none());
    assert!(reader.peer_stats(&peer).is_some(), "the other peer is there");
    assert!(!reader.abandon(connecting), "its outcome was taken");
}

#[test]
fn no_outcome_is_lost_and_connects_whose_outcomes_are_not_taken_are_bounded() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Address::from(listener.local_addr().unwrap())
    };
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap();
    let mut connecting = HashMap::new();
    let mut refused = 0;
    let begun = Instant::now();
    while connecting.len() < MAX_PEERS || refused == 0 {
        assert!(begun.elapsed() < LIMIT, "{} begun", connecting.len());
        match reader.begin_connect(&closed, key(), &[LAYOUT]) {
            Ok(new) => assert!(connecting.insert(new, ()).is_none()),
            Err(ConnectError::TooManyConnects { limit }) => {
                assert_eq!(limit, MAX_PEERS);
                refused += 1;
            }
            Err(ConnectError::Peer(_)) => {}
            Err(error) => panic!("{error}"),
        }
        reader.poll();
    }
    assert_eq!(connecting.len(), MAX_PEERS);
    while !connecting.is_empty() {
        let event = next_event(&mut reader);
        let ReaderEvent::NotConnected { connecting: of, error } = event else { panic!("{event:?}") };
        assert!(error.to_string().contains(&closed.to_string()), "{error}");
        connecting.remove(&of).unwrap();
    }
    assert!(reader.begin_connect(&closed, key(), &[LAYOUT]).is_ok(), "they were taken");
}

/// Events that a poll has found, for instance that of a call which blocks, and that the program has
/// not taken: the reader does not sleep over them. A program that takes none is not kept awake.
#[test]
fn a_reader_does_not_sleep_over_events_that_were_not_taken() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Address::from(listener.local_addr().unwrap())
    };
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap();
    let begun = Instant::now();
    let mut seen = false;
    while !seen {
        (0..2).for_each(|_| drop(reader.begin_connect(&closed, key(), &[LAYOUT])));
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
            reader.poll();
        }
        while reader.arm().is_none() {
            assert!(begun.elapsed() < LIMIT, "events that are not taken keep the reader awake for ever");
            reader.poll();
        }
        let first = reader.next_event();
        let sleeps = reader.arm();
        let second = reader.next_event();
        if second.is_some() && first.is_some() {
            assert_eq!(sleeps, None, "over {second:?}");
            seen = true;
        }
        assert!(begun.elapsed() < LIMIT, "no two events came together");
    }
}

#[test]
fn lanes_are_made_when_a_peer_is_read_from_and_given_back_when_it_is_idle() {
    let (publisher, address, location) = producer(shm::publish(2));
    let lane_idle = Duration::from_millis(200);
    let config = Config { lanes: MakeLanes::OnDemand, lanes_per_rail: 2, lane_idle, ..Config::default() };
    let mut reader = Reader::start(LAYOUT, shm::rails(2).unwrap(), config).unwrap();
    let mut slot = slots(&mut reader, 1).pop().unwrap();
    let peer = reader.connect(&address, key()).unwrap();
    for _ in 0..3 {
        assert_eq!(reader.lanes_to(&peer), 0);
        let (result, back) = read(&mut reader, &peer, location, slot, LIMIT);
        result.unwrap();
        slot = back;
        let begun = Instant::now();
        // The first lane carries the page, and the others follow.
        let mut most = 0;
        while most < 4 || reader.lanes_to(&peer) > 0 {
            assert!(begun.elapsed() < LIMIT, "{most} lanes, {} left", reader.lanes_to(&peer));
            reader.poll();
            most = most.max(reader.lanes_to(&peer));
            reader.wait(clock::within(Duration::from_millis(20)));
        }
        assert_eq!(most, 4);
    }
    assert_eq!((reader.rail_stats(0).unwrap().lanes_failed, publisher.readers()), (0, 1));
}

#[test]
fn where_the_budget_is_used_up_the_peer_that_is_idle_the_longest_gives_way() {
    let (_publisher, address, location) = producer(shm::publish(1));
    let config = Config { lanes_budget: 2, ..Config::default() };
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), config).unwrap();
    let mut slot = slots(&mut reader, 1).pop().unwrap();
    let peers: Vec<_> = (0..3).map(|_| reader.connect(&address, key()).unwrap()).collect();
    let lanes = |reader: &Reader<_>| [0, 1, 2].map(|at| reader.lanes_to(&peers[at]));
    assert_eq!(lanes(&reader), [1, 1, 0], "made at connect while there is room");
    for (from, then) in [(1, [1, 1, 0]), (2, [0, 1, 1]), (0, [1, 0, 1]), (1, [1, 1, 0])] {
        let (result, back) = read(&mut reader, &peers[from], location, slot, LIMIT);
        result.unwrap();
        slot = back;
        assert_eq!(lanes(&reader), then);
    }
    let none = Config { lanes_budget: 1, lanes_per_rail: 2, ..Config::default() };
    let error = Reader::start(LAYOUT, shm::rails(1).unwrap(), none).unwrap_err().to_string();
    assert!(error.contains("lanes_budget is 1") && error.contains("2 lanes"), "{error}");
}

/// As many sessions of one producer as sixteen readers can have: each is a peer, and shares its
/// reader's eight lanes. All are begun at once.
#[test]
fn a_producer_serves_a_thousand_sessions_of_sixteen_readers_over_a_few_lanes() {
    const READERS: usize = 16;
    let (publisher, address, location) = producer(shm::publish(1));
    let config = Config { lanes: MakeLanes::OnDemand, lanes_budget: 8, connect: LIMIT, ..Config::default() };
    let start = |_| Reader::start(LAYOUT, shm::rails(1).unwrap(), config.clone()).unwrap();
    let mut readers: Vec<_> = (0..READERS).map(start).collect();
    for reader in &mut readers {
        for _ in 0..MAX_PEERS {
            reader.begin_connect(&address, key(), &[LAYOUT]).unwrap();
        }
    }
    let mut peers: Vec<Vec<Peer>> = vec![Vec::new(); READERS];
    let begun = Instant::now();
    while peers.iter().any(|peers| peers.len() < MAX_PEERS) {
        assert!(begun.elapsed() < LIMIT, "{:?}", peers.iter().map(Vec::len).collect::<Vec<_>>());
        for (reader, peers) in readers.iter_mut().zip(&mut peers) {
            reader.poll();
            while let Some(event) = reader.next_event() {
                let ReaderEvent::Connected { peer, .. } = event else { panic!("{event:?}") };
                peers.push(peer);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    while publisher.readers() < READERS * MAX_PEERS {
        assert!(begun.elapsed() < LIMIT, "{} readers", publisher.readers());
        std::thread::sleep(Duration::from_millis(1));
    }
    for (reader, peers) in readers.iter_mut().zip(&peers) {
        let slots = slots(reader, MAX_PEERS);
        let mut batch = reader.batch().unwrap();
        for (peer, slot) in peers.iter().zip(slots) {
            batch.read(peer.page(location).unwrap(), slot).unwrap();
        }
        reader.submit(batch, clock::within(LIMIT)).unwrap();
    }
    let mut arrived = 0;
    while arrived < READERS * MAX_PEERS {
        for reader in &mut readers {
            reader.poll();
            while let Some(mut done) = reader.next_done() {
                for page in done.pages() {
                    assert_eq!(page.result(), Ok(()));
                    arrived += 1;
                }
            }
        }
        assert!(begun.elapsed() < 2 * LIMIT, "{arrived} pages");
        std::thread::sleep(Duration::from_micros(200));
    }
}
