//! What the tests share: a producer, a reader, a transport that needs an exchange, and a proxy that
//! can change bytes.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};

use crate::message;
use crate::wire::HEADER;
use crate::{
    Fingerprint, Hello, KeyId, LaneAcceptor, LaneBlob, LaneDialer, LaneEndError, Layout, Message,
    MessageKind, OfferedRegion, PeerKey, ProducerDescription, RailAddress, RailDescription, RailList,
    RailPair, Server, ServerConfig, ServerEvent, Session, SessionError, TransportKind, Versions, connect,
};

pub(super) fn key() -> PeerKey {
    PeerKey::from_bytes([0x5a; 32])
}

pub(super) fn layout() -> Layout {
    Layout {
        name: "mla-61x64".parse().unwrap(),
        fingerprint: Fingerprint::from_bytes(*b"0123456789abcdef"),
        page_bytes: NonZeroU64::new(4096).unwrap(),
        parts: NonZeroU16::MIN,
    }
}

pub(super) fn hello() -> Hello {
    Hello::new("decode-3".parse().unwrap(), layout())
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(super) fn region(index: u32) -> OfferedRegion {
    let mut keys = [0; MAX_RAILS];
    (keys[0], keys[1]) = (0x100 + index, 0x200 + index);
    let table = TableOffer { base: 0x10_0000 + 0x100 * u64::from(index), keys };
    OfferedRegion::new(RegionOffer {
        base: 0x7f00_0000_0000 + (u64::from(index) << 20),
        page_bytes: 4096,
        stride: 8192,
        slots: 16,
        keys,
        table: index.is_multiple_of(2).then_some(table),
    })
    .unwrap()
}

pub(super) fn rail(name: &str, numa: Option<u8>) -> RailDescription {
    let mut address = [0; 64];
    address[..name.len()].copy_from_slice(name.as_bytes());
    RailDescription {
        name: name.parse().unwrap(),
        kind: TransportKind::Verbs,
        address: RailAddress(address),
        nominal_bytes_per_sec: 49_000_000_000,
        numa,
        lanes: 0,
    }
}

pub(super) fn rails(count: usize) -> RailList {
    (0..count).map(|i| rail(&format!("mlx5_{i}"), Some(i as u8 % 2))).collect()
}

/// The producer's side of a transport. Its ends are the reader's blob, reversed, and it knows which
/// can receive.
#[derive(Clone, Default)]
pub(super) struct Ends {
    pub(super) ready: Arc<Mutex<HashSet<LaneBlob>>>,
    pub(super) accept_takes: Duration,
    /// How long rail 1 takes to refuse a lane.
    pub(super) rail_1_refuses_after: Option<Duration>,
}

pub(super) fn reversed(blob: &LaneBlob) -> LaneBlob {
    let mut bytes = blob.0;
    bytes.reverse();
    LaneBlob(bytes)
}

/// The value in byte 1 of a reader's end for which the producer fails to make its own end.
const UNWANTED: u8 = 1;

impl LaneAcceptor for Ends {
    type Lane = LaneBlob;

    fn rails(&self) -> RailList {
        rails(2)
    }

    fn accept(&self, rail: RailIndex, remote: &LaneBlob) -> Result<(LaneBlob, LaneBlob), LaneEndError> {
        if remote.0[1] == UNWANTED {
            return Err(LaneEndError::new(
                rail,
                "QP 7 did not reach RTR:\nno route to the GID, says the driver",
            ));
        }
        std::thread::sleep(self.accept_takes);
        if let Some(time) = self.rail_1_refuses_after.filter(|_| rail.0 == 1) {
            std::thread::sleep(time);
            return Err(LaneEndError::new(rail, "no answer from the switch"));
        }
        let end = reversed(remote);
        assert!(self.ready.lock().unwrap().insert(end));
        Ok((end, end))
    }

    fn release(&self, end: LaneBlob) {
        assert!(self.ready.lock().unwrap().remove(&end), "released twice");
    }
}

/// The reader's side. A lane is the producer's end, and must be ready when it is connected.
pub(super) struct Dial {
    pub(super) ends: Ends,
    pub(super) made: u16,
    pub(super) fail_prepare: bool,
    pub(super) fail_connect: bool,
    pub(super) producer_fails: bool,
}

impl Dial {
    pub(super) fn new(ends: &Ends) -> Self {
        Self { ends: ends.clone(), made: 0, fail_prepare: false, fail_connect: false, producer_fails: false }
    }
}

impl LaneDialer for Dial {
    type UnopenedLane = LaneBlob;
    type Pending = LaneBlob;

    fn rails(&self) -> RailList {
        rails(2)
    }

    fn prepare(
        &mut self,
        rail: RailIndex,
        _: &RailDescription,
    ) -> Result<(LaneBlob, LaneBlob), LaneEndError> {
        if self.fail_prepare {
            return Err(LaneEndError::new(rail, "no QP left"));
        }
        let mut blob = [0; 64];
        blob[0] = rail.0;
        blob[1] = if self.producer_fails { UNWANTED } else { 0 };
        blob[62..].copy_from_slice(&self.made.to_le_bytes());
        self.made += 1;
        Ok((LaneBlob(blob), LaneBlob(blob)))
    }

    fn connect(
        &mut self,
        pending: LaneBlob,
        remote: &RailDescription,
        end: &LaneBlob,
    ) -> Result<LaneBlob, LaneEndError> {
        assert!(remote.name.as_str().starts_with("mlx5_"));
        assert_eq!(reversed(&pending), *end);
        assert!(self.ends.ready.lock().unwrap().contains(end), "the producer answered before it was ready");
        if self.fail_connect {
            return Err(LaneEndError::new(RailIndex(pending.0[0]), "RTR failed"));
        }
        Ok(*end)
    }
}

pub(super) fn pairs(list: &[(u8, u8)]) -> Vec<RailPair> {
    let pair = |&(a, b): &(u8, u8)| RailPair { rail: RailIndex(a), remote_rail: RailIndex(b) };
    list.iter().map(pair).collect()
}

/// A producer that listens on loopback, and its events.
pub(super) struct Rig {
    pub(super) server: Server,
    pub(super) ends: Ends,
    events: Receiver<ServerEvent>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(ServerConfig::default(), 3)
    }

    pub(super) fn with(mut config: ServerConfig, regions: u32) -> Self {
        let (tell, events) = channel();
        config.observer = Some(Arc::new(move |event| drop(tell.send(event))));
        let ends = Ends::default();
        let producer = ProducerDescription {
            node: "prefill-1".parse().unwrap(),
            layout: layout(),
            regions: (0..regions).map(region).collect(),
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&listen, key(), producer, ends.clone(), config).unwrap();
        Self { server, ends, events }
    }

    /// The server's next event.
    pub(super) fn event(&self) -> ServerEvent {
        self.events.recv_timeout(Duration::from_secs(20)).expect("an event")
    }

    pub(super) fn failure(&self) -> SessionError {
        match self.event() {
            ServerEvent::Failed { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    /// Why the open session ended.
    pub(super) fn closed(&self) -> SessionError {
        loop {
            match self.event() {
                ServerEvent::Opened { .. } => {}
                ServerEvent::Closed { why, .. } => return why,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) fn connect(&self) -> Result<Session, SessionError> {
        connect(&self.server.local_addr().into(), &key(), hello(), soon())
    }

    /// A connection that has not authenticated.
    pub(super) fn raw(&self) -> TcpStream {
        raw(self.server.local_addr())
    }
}

pub(super) fn raw(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A hello that the producer accepts, as changed by `change`.
pub(super) fn raw_hello(change: impl FnOnce(&mut crate::Greeting)) -> Vec<u8> {
    let mut greeting = crate::Greeting {
        versions: Versions::SUPPORTED,
        role: crate::Role::Reader,
        key_id: key().id(),
        nonce: [3; 32],
        node: "outsider".parse().unwrap(),
    };
    change(&mut greeting);
    Message::Hello(greeting).encode()
}

/// The next message of a stream, unchecked, and its bytes.
pub(super) fn read_message(stream: &mut TcpStream) -> (Message, Vec<u8>) {
    let mut bytes = vec![0; HEADER];
    stream.read_exact(&mut bytes).unwrap();
    let kind: MessageKind = message::header(&bytes).unwrap();
    bytes.resize(kind.bytes(), 0);
    stream.read_exact(&mut bytes[HEADER..]).unwrap();
    (message::parse(&bytes).unwrap(), bytes)
}

/// A producer that does what `act` does with the one connection that it gets.
pub(super) fn impostor(act: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || act(listener.accept().unwrap().0));
    (address, thread)
}

/// The direction of bytes through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToProducer = 0,
    ToReader = 1,
}

/// One byte to be changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flip {
    pub(super) way: Way,
    pub(super) at: usize,
    pub(super) mask: u8,
}

/// Passes one connection on to `producer`, changes the byte that `flip` names, and records both
/// directions.
pub(super) fn middle(producer: SocketAddr, flip: Option<Flip>) -> (SocketAddr, JoinHandle<[Vec<u8>; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let reader = listener.accept().unwrap().0;
        let producer = TcpStream::connect(producer).unwrap();
        reader.set_nodelay(true).unwrap();
        producer.set_nodelay(true).unwrap();
        let pass = |mut from: TcpStream, mut to: TcpStream, way: Way| {
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(got @ 1..) = from.read(&mut buffer) {
                    if let Some(flip) = flip.filter(|f| f.way == way)
                        && let Some(byte) =
                            flip.at.checked_sub(seen.len()).and_then(|at| buffer[..got].get_mut(at))
                    {
                        *byte ^= flip.mask;
                    }
                    seen.extend_from_slice(&buffer[..got]);
                    if to.write_all(&buffer[..got]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Write);
                seen
            })
        };
        let there = pass(reader.try_clone().unwrap(), producer.try_clone().unwrap(), Way::ToProducer);
        let back = pass(producer, reader, Way::ToReader);
        [there.join().unwrap(), back.join().unwrap()]
    });
    (address, thread)
}

pub(super) fn id_of(byte: u8) -> KeyId {
    PeerKey::from_bytes([byte; 32]).id()
}
