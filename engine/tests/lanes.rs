//! A reader makes failed lanes again by itself, and no page is lost. An overdue batch is told once,
//! comes back when its READ has ended, and lets no loop spin until then.
#![allow(unsafe_code, reason = "a transport of its own publishes a segment")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::{
    Config, Exporter, MakeLanes, OpenRails, PageLayout, PeerKey, Publisher, PublisherTransport, Reader,
    TableError, TransportError, clock, memory, tcp,
};

const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The connections of the lanes, so that a test can cut them or hold up their bytes.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<Vec<TcpStream>>>, Arc<AtomicBool>);

impl Wires {
    /// Cuts all of them.
    fn cut(&self) {
        let wires = std::mem::take(&mut *self.0.lock().unwrap());
        wires.iter().for_each(|wire| drop(wire.shutdown(Shutdown::Both)));
    }

    /// Starts a proxy that passes all bytes on to `to`, and returns its address.
    fn proxy(&self, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let wires = self.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(to).unwrap());
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                for (mut from, mut to) in
                    [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())]
                        .map(|(a, b)| (a.unwrap(), b.unwrap()))
                {
                    let held = Arc::clone(&wires.1);
                    std::thread::spawn(move || {
                        let mut bytes = [0; 1 << 16];
                        while let Ok(n @ 1..) = from.read(&mut bytes) {
                            while held.load(Ordering::Relaxed) {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                            if to.write_all(&bytes[..n]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                wires.0.lock().unwrap().push(near);
            }
        });
        address
    }
}

/// TCP rails behind a proxy.
struct Through(Wires);

// SAFETY: memory goes to TCP's exporter, which makes the promise.
unsafe impl PublisherTransport for Through {
    type Acceptor = OpenRails;

    fn start(self) -> Result<(OpenRails, Box<dyn Exporter>), TransportError> {
        let (OpenRails(mut rails), exporter) = tcp::publish(LOCALHOST, 2).start()?;
        // The port is at bytes 8 and 9 of an address.
        let port = |bytes: &[u8; 64]| u16::from_le_bytes([bytes[8], bytes[9]]);
        let proxy = self.0.proxy((LOCALHOST, port(&rails[0].address.0)).into());
        for rail in &mut rails {
            rail.address.0[8..10].copy_from_slice(&proxy.port().to_le_bytes());
        }
        Ok((OpenRails(rails), exporter))
    }
}

#[test]
fn lanes_that_are_cut_come_back_and_pages_arrive() {
    for lanes in [MakeLanes::AtConnect, MakeLanes::OnDemand] {
        cut_and_come_back(Config { lanes, ..Config::default() });
    }
}

fn cut_and_come_back(config: Config) {
    let wires = Wires::default();
    let key = PeerKey::from_bytes([7; 32]);
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let publisher = Publisher::start(name, LAYOUT, 32, &listen, key.clone(), Through(wires.clone())).unwrap();
    let locations: Vec<_> =
        (0..32).map(|slot| publisher.write(slot, KeyTag(1), |page| page.fill(slot as u8)).unwrap()).collect();
    let mut reader = Reader::start(LAYOUT, tcp::rails(2).unwrap(), config).unwrap();
    let mut slots: Vec<_> =
        reader.register(memory::leaked(32 * LAYOUT.page_bytes() as usize).unwrap()).unwrap().collect();
    let peer = reader.connect(&publisher.local_addr().into(), &key).unwrap();

    let lanes_failed = |reader: &Reader<_>| -> u64 {
        (0..2).filter_map(|rail| reader.rail_stats(rail)).map(|stats| stats.lanes_failed).sum()
    };
    let until = clock::within(Duration::from_secs(30));
    // There were two lanes, so of six failed ones at least four were made anew.
    while lanes_failed(&reader) < 6 {
        assert!(clock::now() < until, "{} lanes failed", lanes_failed(&reader));
        let mut batch = reader.batch().unwrap();
        for &location in &locations {
            batch.read(peer.page(location).unwrap(), slots.pop().unwrap()).unwrap();
        }
        let deadline = clock::within(Duration::from_secs(20));
        reader.submit(batch, deadline).unwrap();
        wires.cut();
        let mut done = loop {
            reader.poll();
            match reader.next_done() {
                Some(done) => break done,
                None => reader.wait(deadline),
            }
        };
        for page in done.pages() {
            assert_eq!(page.result(), Ok(()));
            assert!(page.slot.bytes().unwrap().iter().all(|&b| b == page.index as u8));
            slots.push(page.slot);
        }
    }
    assert!(reader.next_event().is_none(), "the peer was never lost");
}

#[test]
fn an_overdue_batch_ends_one_wait_and_no_other() {
    let wires = Wires::default();
    let key = PeerKey::from_hex(&"5a".repeat(32)).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let publisher =
        Publisher::start("p".parse().unwrap(), LAYOUT, 1, &listen, key.clone(), Through(wires.clone()))
            .unwrap();
    let location = publisher.write(0, KeyTag(1), |page| page.fill(7)).unwrap();
    let mut reader = Reader::start(LAYOUT, tcp::rails(1).unwrap(), Config::default()).unwrap();
    let memory = memory::leaked(LAYOUT.page_bytes() as usize).unwrap();
    let mut slots = reader.register(memory).unwrap();
    let peer = reader.connect(&publisher.local_addr().into(), &key).unwrap();

    // Posted, and held up on the wire until long after its deadline.
    wires.1.store(true, Ordering::Relaxed);
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), slots.next().unwrap()).unwrap();
    let ticket = reader.submit(batch, clock::within(Duration::from_millis(20))).unwrap();
    let (start, mut waits) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(400) {
        reader.poll();
        assert!(reader.next_done().is_none(), "the batch is under way");
        reader.wait(clock::within(Duration::from_millis(50)));
        waits += 1;
    }
    // With a READ under way that does not complete, the engine wakes up every few milliseconds to
    // look for silent lanes.
    assert!(waits < 200, "{waits} waits in 400 ms: it spins");
    // A late call of `next_overdue` still gets the ticket, once.
    assert_eq!((reader.next_overdue(), reader.next_overdue()), (Some(ticket), None));
    wires.1.store(false, Ordering::Relaxed);
    let mut done = loop {
        reader.poll();
        if let Some(done) = reader.next_done() {
            break done;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the batch never comes back");
        reader.wait(clock::within(Duration::from_millis(50)));
    };
    assert_eq!((done.ticket(), done.pages().count()), (ticket, 1));
}

#[test]
fn a_loop_that_waits_for_a_deadline_does_not_spin_once_it_has_passed() {
    let wires = Wires::default();
    let key = PeerKey::from_hex(&"5b".repeat(32)).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let over = Through(wires.clone());
    let publisher = Publisher::start("p".parse().unwrap(), LAYOUT, 1, &listen, key.clone(), over).unwrap();
    let location = publisher.write(0, KeyTag(1), |page| page.fill(7)).unwrap();
    let mut reader = Reader::start(LAYOUT, tcp::rails(1).unwrap(), Config::default()).unwrap();
    let memory = memory::leaked(LAYOUT.page_bytes() as usize).unwrap();
    let mut slots = reader.register(memory).unwrap();
    let peer = reader.connect(&publisher.local_addr().into(), &key).unwrap();

    // Held up on the wire until the loop has gone round a few dozen times after the deadline.
    wires.1.store(true, Ordering::Relaxed);
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), slots.next().unwrap()).unwrap();
    let deadline = clock::within(Duration::from_millis(20));
    reader.submit(batch, deadline).unwrap();
    let (mut rounds, start) = (0_u32, Instant::now());
    while reader.in_flight() > 0 {
        reader.poll();
        while let Some(mut done) = reader.next_done() {
            assert_eq!(done.pages().count(), 1);
        }
        reader.wait(deadline);
        rounds += 1;
        if start.elapsed() > Duration::from_millis(400) {
            wires.1.store(false, Ordering::Relaxed);
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the batch never comes back");
    }
    assert!(rounds < 400, "{rounds} rounds in {:?}: it spins", start.elapsed());
}

#[test]
fn a_table_that_did_not_come_in_time_leaves_no_notice_and_no_batch_to_the_caller() {
    let wires = Wires::default();
    let key = PeerKey::from_hex(&"5c".repeat(32)).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let over = Through(wires.clone());
    let publisher = Publisher::start("p".parse().unwrap(), LAYOUT, 1, &listen, key.clone(), over).unwrap();
    let location = publisher.write(0, KeyTag(1), |page| page.fill(7)).unwrap();
    let mut reader = Reader::start(LAYOUT, tcp::rails(1).unwrap(), Config::default()).unwrap();
    let peer = reader.connect(&publisher.local_addr().into(), &key).unwrap();
    // Posted, and held up on the wire until long after its deadline.
    wires.1.store(true, Ordering::Relaxed);
    let error = reader.published(&peer, 0, clock::within(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(error, TableError::Deadline), "{error}");
    assert_eq!(reader.next_overdue(), None);
    wires.1.store(false, Ordering::Relaxed);
    let start = Instant::now();
    while reader.in_flight() > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "the batch never comes back");
        reader.poll();
        assert!(reader.next_done().is_none() && reader.next_overdue().is_none());
        reader.wait(clock::within(Duration::from_millis(20)));
    }
    let listed = reader.published(&peer, 0, clock::within(Duration::from_secs(20))).unwrap();
    assert_eq!(listed, [location]);
}
