//! A rail that is slow, on either side, costs its own lanes and nothing else; so does a peer to
//! which lanes cannot be made.
#![allow(unsafe_code, reason = "a transport of its own publishes a segment")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kvrail::core::id::RailIndex;
use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::local::tcp::{TcpConnection, TcpProvider};
use kvrail::session::{LaneAcceptor, LaneBlob, LaneDialer, LaneEndError, PoolId, RailDescription, RailList};
use kvrail::{
    Config, ConnectError, Exporter, MakeLanes, OpenRails, PageLayout, PeerKey, Publisher, PublisherTransport,
    Reader, ReaderEvent, ReaderTransport, TransportError, clock, memory, tcp,
};

const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The behaviour of a slow side on rail 1.
#[derive(Clone, Copy)]
enum Slow {
    RefusesAfter(Duration),
    AgreesAfter(Duration),
    /// On every rail, as long as this is true and for a minute at most, if the producer's rails are
    /// called [`HANGS`].
    HangsWhile(&'static AtomicBool),
    /// On every rail, at once, to a producer's rail that is called [`UNREACHABLE`].
    Reaches,
    /// On every rail, at once, while the first is set; to find another rail, while the second is.
    Chooses(&'static [AtomicBool; 2]),
}

const HANGS: &str = "hangs";
const UNREACHABLE: &str = "unreachable";

impl Slow {
    fn delay(self, rail: RailIndex) -> Result<(), LaneEndError> {
        match self {
            Self::HangsWhile(_) | Self::Reaches => Ok(()),
            Self::Chooses([refuses, _]) if refuses.load(Ordering::Relaxed) => {
                Err(LaneEndError::new(rail, "no route yet"))
            }
            Self::Chooses(_) => Ok(()),
            _ if rail.0 != 1 => Ok(()),
            Self::RefusesAfter(time) => {
                std::thread::sleep(time);
                Err(LaneEndError::new(rail, "no route to the switch"))
            }
            Self::AgreesAfter(time) => {
                std::thread::sleep(time);
                Ok(())
            }
        }
    }
}

fn hang(hangs: &AtomicBool) {
    let begun = Instant::now();
    while hangs.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// TCP rails of a reader, the second of which is slow to dial.
struct SlowRails(tcp::TcpRails, Slow);

struct SlowDialer(<tcp::TcpRails as ReaderTransport>::Dialer, Slow);

impl LaneDialer for SlowDialer {
    type UnopenedLane = TcpConnection;
    type Pending = TcpConnection;

    fn rails(&self) -> RailList {
        self.0.rails()
    }

    fn instead(&self, _: RailIndex, tried: &[RailIndex], producer: &[RailDescription]) -> Option<RailIndex> {
        if let Slow::Chooses([_, hangs]) = self.1 {
            hang(hangs);
        }
        let mut rails = (0..producer.len() as u8).map(RailIndex);
        matches!(self.1, Slow::Reaches).then(|| rails.find(|rail| !tried.contains(rail)))?
    }

    fn prepare(
        &mut self,
        rail: RailIndex,
        remote: &RailDescription,
    ) -> Result<(TcpConnection, LaneBlob), LaneEndError> {
        if let Slow::HangsWhile(hangs) = self.1
            && remote.name.as_str() == HANGS
        {
            hang(hangs);
            return Err(LaneEndError::new(rail, "hung"));
        }
        if remote.name.as_str() == UNREACHABLE {
            return Err(LaneEndError::new(rail, "no route"));
        }
        self.1.delay(rail)?;
        self.0.prepare(rail, remote)
    }

    fn connect(
        &mut self,
        pending: TcpConnection,
        remote: &RailDescription,
        end: &LaneBlob,
    ) -> Result<TcpConnection, LaneEndError> {
        self.0.connect(pending, remote, end)
    }
}

impl ReaderTransport for SlowRails {
    type Provider = TcpProvider;
    type UnopenedLane = TcpConnection;
    type Dialer = SlowDialer;
    type DialerSeed = (<tcp::TcpRails as ReaderTransport>::DialerSeed, Slow);
    const LABEL: &'static str = "slow";

    fn engine_config(&self) -> kvrail::core::config::EngineConfig {
        self.0.engine_config()
    }

    fn split(self) -> (TcpProvider, Self::DialerSeed) {
        let (provider, seed) = self.0.split();
        (provider, (seed, self.1))
    }

    fn dialer((seed, slow): &Self::DialerSeed) -> SlowDialer {
        SlowDialer(tcp::TcpRails::dialer(seed), *slow)
    }

    fn depth(lane: &TcpConnection) -> u32 {
        tcp::TcpRails::depth(lane)
    }
}

/// Lanes that a producer has made, and lanes that it has been given back.
#[derive(Clone, Default)]
struct Counts(Arc<[[AtomicU32; 2]; 2]>);

impl Counts {
    fn made(&self, rail: usize) -> u32 {
        self.0[rail][0].load(Ordering::Relaxed)
    }

    fn released(&self, rail: usize) -> u32 {
        self.0[rail][1].load(Ordering::Relaxed)
    }
}

/// Two TCP rails of a producer.
struct Counted(Counts, Slow);

struct CountedRails(OpenRails, Counts, Slow);

// SAFETY: memory goes to TCP's exporter, which makes the promise.
unsafe impl PublisherTransport for Counted {
    type Acceptor = CountedRails;

    fn start(self) -> Result<(CountedRails, Box<dyn Exporter>), TransportError> {
        let (acceptor, exporter) = tcp::publish(LOCALHOST, 2).start()?;
        Ok((CountedRails(acceptor, self.0, self.1), exporter))
    }
}

impl LaneAcceptor for CountedRails {
    type Lane = RailIndex;

    fn rails(&self) -> RailList {
        self.0.rails()
    }

    fn accept(&self, rail: RailIndex, end: &LaneBlob) -> Result<(RailIndex, LaneBlob), LaneEndError> {
        self.2.delay(rail)?;
        let ((), end) = self.0.accept(rail, end)?;
        self.1.0[rail.get()][0].fetch_add(1, Ordering::Relaxed);
        Ok((rail, end))
    }

    fn release(&self, rail: RailIndex) {
        self.1.0[rail.get()][1].fetch_add(1, Ordering::Relaxed);
    }
}

const FAST: Slow = Slow::AgreesAfter(Duration::ZERO);

struct Fixture {
    publisher: Publisher,
    counts: Counts,
    reader: Reader<SlowRails>,
    took: Duration,
    peer: kvrail::Peer,
}

/// Connects with twelve lanes per rail.
fn connected(dialer: Slow, acceptor: Slow) -> Fixture {
    let key = PeerKey::from_bytes([3; 32]);
    let counts = Counts::default();
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let over = Counted(counts.clone(), acceptor);
    let publisher = Publisher::start(name, LAYOUT, 4, &listen, key.clone(), over).unwrap();
    let config = Config { lanes_per_rail: 12, ..Config::default() };
    let rails = SlowRails(tcp::rails(2).unwrap(), dialer);
    let mut reader = Reader::start(LAYOUT, rails, config).unwrap();
    let begun = Instant::now();
    let peer = reader.connect(&publisher.local_addr().into(), &key).unwrap();
    Fixture { publisher, counts, reader, took: begun.elapsed(), peer }
}

impl Fixture {
    /// Reads four pages, and checks that they arrive.
    fn read_pages(&mut self) {
        let memory = memory::leaked(4 * LAYOUT.page_bytes() as usize).unwrap();
        let slots = self.reader.register(memory).unwrap();
        let mut batch = self.reader.batch().unwrap();
        for (slot, to) in (0..4).zip(slots) {
            let location = self.publisher.write(slot, KeyTag(1), |page| page.fill(slot as u8 + 1)).unwrap();
            batch.read(self.peer.page(location).unwrap(), to).unwrap();
        }
        let deadline = clock::within(Duration::from_secs(20));
        self.reader.submit(batch, deadline).unwrap();
        let mut done = loop {
            self.reader.poll();
            match self.reader.next_done() {
                Some(done) => break done,
                None => self.reader.wait(deadline),
            }
        };
        for page in done.pages() {
            assert_eq!(page.result(), Ok(()));
            assert!(page.slot.bytes().unwrap().iter().all(|&b| b == page.index as u8 + 1));
        }
    }

    /// Polls until the counts are as wanted.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Counts) -> bool) {
        let begun = Instant::now();
        while !holds(&self.counts) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            self.reader.poll();
            assert!(self.reader.next_event().is_none(), "the peer was lost");
            self.reader.wait(clock::within(Duration::from_millis(20)));
        }
    }
}

#[test]
fn a_rail_that_is_slow_to_refuse_does_not_make_connecting_fail() {
    let second = Slow::RefusesAfter(Duration::from_secs(1));
    for (dialer, acceptor) in [(second, FAST), (FAST, second)] {
        let mut f = connected(dialer, acceptor);
        // Twelve seconds are more than connecting may take.
        assert!(f.took < Duration::from_secs(9), "{:?}", f.took);
        f.read_pages();
        f.until("all lanes of the good rail are made", |counts| counts.made(0) == 12);
        assert_eq!((f.counts.made(1), f.counts.released(0)), (0, 0));
    }
}

#[test]
fn a_lane_that_comes_after_connecting_is_used() {
    let mut f = connected(FAST, Slow::AgreesAfter(Duration::from_millis(1500)));
    f.read_pages();
    f.until("the slow rail's lanes come one by one", |counts| counts.made(0) == 12 && counts.made(1) >= 2);
    assert_eq!(f.counts.released(1), 0);
    f.read_pages();
}

#[test]
fn a_lane_that_comes_too_late_is_given_back_and_the_peer_is_not_lost() {
    let mut f = connected(FAST, Slow::AgreesAfter(Duration::from_secs(6)));
    f.read_pages();
    f.until("the late lane is given back", |counts| counts.released(1) >= 1);
    f.read_pages();
    assert_eq!((f.counts.made(0), f.counts.released(0)), (12, 0));
    assert!(f.reader.next_event().is_none());
}

#[test]
fn a_rail_that_hangs_for_longer_than_connecting_may_take_costs_its_own_lanes() {
    let mut f = connected(Slow::RefusesAfter(Duration::from_secs(14)), FAST);
    // Connecting waits for a second after the first lane; the slow lane's own time is five.
    assert!(f.took < Duration::from_millis(4500), "{:?}", f.took);
    f.read_pages();
    f.until("all lanes of the good rail are made", |counts| counts.made(0) == 12);
    assert_eq!(f.counts.made(1), 0);
}

/// Two TCP rails of a producer, the first of these names being the first rail's.
struct Named([&'static str; 2], Counts);

// SAFETY: memory goes to TCP's exporter, which makes the promise.
unsafe impl PublisherTransport for Named {
    type Acceptor = CountedRails;

    fn start(self) -> Result<(CountedRails, Box<dyn Exporter>), TransportError> {
        let (OpenRails(mut rails), exporter) = tcp::publish(LOCALHOST, 2).start()?;
        rails.iter_mut().zip(self.0).for_each(|(rail, name)| rail.name = name.parse().unwrap());
        Ok((CountedRails(OpenRails(rails), self.1, FAST), exporter))
    }
}

#[test]
fn a_rail_that_no_lane_can_be_made_of_is_connected_to_another_rail_of_the_producer() {
    let key = PeerKey::from_bytes([3; 32]);
    let (counts, listen) = (Counts::default(), "127.0.0.1:0".parse().unwrap());
    let over = Named([UNREACHABLE, "good"], counts.clone());
    let publisher = Publisher::start("producer".parse().unwrap(), LAYOUT, 4, &listen, &key, over).unwrap();
    let rails = SlowRails(tcp::rails(1).unwrap(), Slow::Reaches);
    let config = Config { lanes_per_rail: 5, ..Config::default() };
    let mut reader = Reader::start(LAYOUT, rails, config).unwrap();
    let peer = reader.connect(&publisher.local_addr().into(), &key).unwrap();
    let mut f = Fixture { publisher, counts, reader, took: Duration::ZERO, peer };
    f.read_pages();
    f.until("all lanes lead to the other rail", |counts| counts.made(1) == 5);
    assert_eq!(f.counts.made(0), 0);
}

/// Where no lane can be made the search for another rail may not end either. The lanes are made
/// anew none the less when a page is asked for.
#[test]
fn lanes_on_demand_are_made_anew_after_a_search_for_another_rail_that_hangs() {
    static REFUSES_AND_HANGS: [AtomicBool; 2] = [AtomicBool::new(true), AtomicBool::new(true)];
    let key = PeerKey::from_bytes([3; 32]);
    let (counts, listen) = (Counts::default(), "127.0.0.1:0".parse().unwrap());
    let over = Counted(counts.clone(), FAST);
    let publisher = Publisher::start("producer".parse().unwrap(), LAYOUT, 4, &listen, &key, over).unwrap();
    let rails = SlowRails(tcp::rails(1).unwrap(), Slow::Chooses(&REFUSES_AND_HANGS));
    let config = Config { lanes: MakeLanes::OnDemand, ..Config::default() };
    let mut reader = Reader::start(LAYOUT, rails, config).unwrap();
    let peer = reader.connect(&publisher.local_addr().into(), &key).unwrap();
    let location = publisher.write(0, KeyTag(1), |page| page.fill(1)).unwrap();
    let slot =
        reader.register(memory::leaked(LAYOUT.page_bytes() as usize).unwrap()).unwrap().next().unwrap();
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), slot).unwrap();
    reader.submit(batch, clock::within(Duration::from_millis(500))).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(clock::within(Duration::from_millis(100))),
        }
    };
    assert!(done.pages().all(|page| page.result().is_err()));
    REFUSES_AND_HANGS[0].store(false, Ordering::Relaxed);
    let mut f = Fixture { publisher, counts, reader, took: Duration::ZERO, peer };
    f.read_pages();
    REFUSES_AND_HANGS[1].store(false, Ordering::Relaxed);
}

#[test]
fn a_peer_whose_lanes_hang_does_not_stop_those_of_another_peer() {
    static HANGING: AtomicBool = AtomicBool::new(true);
    let key = PeerKey::from_bytes([3; 32]);
    let listen = "127.0.0.1:0".parse().unwrap();
    let hanging = Publisher::start(
        "hanging".parse().unwrap(),
        LAYOUT,
        1,
        &listen,
        &key,
        Named([HANGS; 2], Counts::default()),
    )
    .unwrap();
    let good = tcp::publish(LOCALHOST, 2);
    let good = Publisher::start("good".parse().unwrap(), LAYOUT, 4, &listen, &key, good).unwrap();
    let rails = SlowRails(tcp::rails(2).unwrap(), Slow::HangsWhile(&HANGING));
    let config = Config { connect: Duration::from_secs(2), lanes_per_rail: 3, ..Config::default() };
    let mut reader = Reader::start(LAYOUT, rails, config).unwrap();
    let error = reader.connect(&hanging.local_addr().into(), &key).unwrap_err();
    assert!(matches!(error, ConnectError::NoLane { .. }), "{error}");

    // One thread of each rail hangs; the other one makes the lanes of the other peer.
    let peer = reader.connect(&good.local_addr().into(), &key).unwrap();
    let location = good.write(0, KeyTag(1), |page| page.fill(9)).unwrap();
    let memory = memory::leaked(LAYOUT.page_bytes() as usize).unwrap();
    let mut slots = reader.register(memory).unwrap();
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), slots.next().unwrap()).unwrap();
    let deadline = clock::within(Duration::from_secs(20));
    reader.submit(batch, deadline).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(deadline),
        }
    };
    assert_eq!(done.pages().next().unwrap().result(), Ok(()));
    drop(done);
    assert!(HANGING.swap(false, Ordering::Relaxed), "the threads hung all the time");
}

/// The reader is told of the session with the offer as it is when the first lanes are settled. A
/// pool that comes before that, and another one behind it, while the reader is not polled: both are
/// known when it is.
#[test]
fn a_pool_that_comes_while_a_reader_is_about_to_be_told_of_the_session_is_not_missed() {
    static HANGING: AtomicBool = AtomicBool::new(true);
    let key = PeerKey::from_bytes([3; 32]);
    let (counts, listen) = (Counts::default(), "127.0.0.1:0".parse().unwrap());
    let over = Named(["good", HANGS], counts.clone());
    let publisher = Publisher::start("producer".parse().unwrap(), LAYOUT, 1, &listen, &key, over).unwrap();
    let rails = SlowRails(tcp::rails(2).unwrap(), Slow::HangsWhile(&HANGING));
    let mut reader = Reader::start(LAYOUT, rails, Config::default()).unwrap();
    reader.begin_connect(&publisher.local_addr().into(), &key, &[LAYOUT]).unwrap();
    let begun = Instant::now();
    let wait = |what: &str, holds: &mut dyn FnMut() -> bool| {
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    // The second rail hangs, so the session stands and the reader is not told of it yet.
    wait("a lane is made", &mut || counts.made(0) == 1);
    let mut pools = vec![PoolId(0), publisher.add_pool(LAYOUT, 1).unwrap()];
    wait("there are news of the pool", &mut || reader.arm().is_none());
    HANGING.store(false, Ordering::Relaxed);
    // Nothing tells when the reader could be told of the session, but the time decides only whether
    // the next pool is the one that could be missed.
    std::thread::sleep(Duration::from_millis(300));
    pools.push(publisher.add_pool(LAYOUT, 1).unwrap());
    std::thread::sleep(Duration::from_millis(100));

    let mut known = Vec::new();
    while known.len() < pools.len() {
        assert!(begun.elapsed() < Duration::from_secs(30), "of {pools:?} {known:?} are known");
        reader.poll();
        match reader.next_event() {
            Some(ReaderEvent::Connected { peer, .. }) => {
                known.extend(peer.pools().iter().map(|pool| pool.id()));
            }
            Some(ReaderEvent::PoolCame { pool, .. }) => known.push(pool.id()),
            Some(event) => panic!("{event:?}"),
            None => reader.wait(clock::within(Duration::from_millis(20))),
        }
    }
    assert_eq!(known, pools);
}
