//! Readers that read late, or never.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kvrail_host::reactor::Flow;
use kvrail_session::{
    Cause, LaneNumber, OfferChange, PeerKeys, PoolId, ServerConfig, ServerEvent, Session, SessionEvent,
    connect,
};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::rig::*;

/// An established session that reads when a test says so.
struct SlowReader {
    session: Session,
    tcp: TcpStream,
    changes: Vec<OfferChange>,
}

impl SlowReader {
    fn connect(rig: &Rig) -> Self {
        // A small buffer, so that the socket takes less than it would by itself.
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, 8 << 10).unwrap();
        rustix::net::connect(&socket, &rig.address()).unwrap();
        let tcp = TcpStream::from(socket);
        tcp.set_nonblocking(true).unwrap();
        let (keys, now) = (PeerKeys::one(key(5)), Instant::now());
        let session = Session::new("p:1".into(), &keys, 0, reader(), soon(), now).unwrap();
        let mut this = Self { session, tcp, changes: Vec::new() };
        until("the session is established", || {
            this.write();
            this.read();
            this.session.offer().is_some()
        });
        this
    }

    fn write(&mut self) {
        let mut out = Vec::new();
        self.session.fill(Instant::now(), &mut out, 64 << 10);
        self.tcp.set_nonblocking(false).unwrap();
        // Fails if the producer has ended the session.
        let _ = self.tcp.write_all(&out);
        self.tcp.set_nonblocking(true).unwrap();
    }

    /// Says something, so that the producer hears that this reader lives.
    fn say(&mut self) {
        self.session.release(&[LaneNumber(NonZeroU32::MAX)]);
        self.write();
    }

    /// Reads what the socket has.
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match self.tcp.read(&mut bytes) {
                Ok(0) => panic!("the producer has closed the connection"),
                Ok(got) => assert_eq!(self.session.received(Instant::now(), &bytes[..got]), Flow::GoOn),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        while let Some(event) = self.session.next_event() {
            match event {
                SessionEvent::Established(_) => {}
                SessionEvent::OfferChanged(change) => self.changes.push(change),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The changes of the pools while a reader does not read: 54 MB, if all of them were sent.
const CHANGES: u32 = 300;

#[test]
fn a_reader_that_reads_late_skips_what_is_over_and_delays_no_other() {
    let rig = Rig::with(ServerConfig::default(), vec![pool(1, 1, 1000)]);
    let mut slow = SlowReader::connect(&rig);
    let mut quick = {
        let reader = kvrail_session::ReaderDescription { layouts: vec![layout(2)], ..reader() };
        connect(&rig.address().into(), key(5), reader, soon()).unwrap()
    };
    for id in 2..2 + CHANGES {
        assert!(rig.server.remove_pool(PoolId(id - 1)));
        rig.server.add_pool(pool(id, 1, 1000)).unwrap();
        if id % 10 == 0 {
            slow.say();
            // The other reader learns of its pools meanwhile.
            let other = 1000 + id;
            rig.server.add_pool(pool(other, 2, 1)).unwrap();
            until("the other reader is told", || {
                quick.next_change().is_some_and(|c| matches!(c, OfferChange::Came(p) if p.id().0 == other))
            });
        }
    }
    let last = pool(1 + CHANGES, 1, 1000);
    until("the slow reader has caught up", || {
        slow.write();
        slow.read();
        slow.session.offer().unwrap().pools == [last.clone()]
    });
    // Each pool that it was told of came once, and all but the last one went.
    let came = slow.changes.iter().filter(|change| matches!(change, OfferChange::Came(_))).count();
    let gone = slow.changes.iter().filter(|change| matches!(change, OfferChange::Gone(_))).count();
    assert_eq!(came, gone);
    assert!(came < CHANGES as usize, "everything was kept for it: {came}");
    assert!(quick.is_alive());
}

#[test]
fn a_reader_that_never_reads_is_ended_however_much_it_says() {
    let silence = Duration::from_millis(300);
    let config = ServerConfig { silence, ..ServerConfig::default() };
    let rig = Rig::with(config, vec![pool(1, 1, 1)]);
    let mut slow = SlowReader::connect(&rig);
    assert!(matches!(rig.event(), ServerEvent::Opened { .. }));
    // More than the sockets hold.
    for id in 2..100 {
        rig.server.add_pool(pool(id, 2, 1)).unwrap();
    }
    let mut id = 100;
    until("the session has ended", || {
        slow.say();
        rig.server.add_pool(pool(id, 1, 1000)).unwrap();
        rig.server.remove_pool(PoolId(id));
        id += 1;
        rig.server.sessions() == 0
    });
    let why = rig.closed();
    assert!(matches!(why.cause, Cause::Silence(time) if time == silence), "{why}");
}
