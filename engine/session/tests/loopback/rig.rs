//! What the tests share: a producer, a reader, and a transport that needs an exchange.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_session::{
    ConnectedSession, Fingerprint, LaneAcceptor, LaneBlob, LaneDialer, LaneEndError, Layout, OfferedRegion,
    PeerKey, PeerKeys, Pool, PoolId, ProducerDescription, RailAddress, RailDescription, RailList, RailPair,
    ReaderDescription, Server, ServerConfig, ServerEvent, SessionError, TransportKind, connect,
};

pub(crate) fn key(byte: u8) -> PeerKey {
    PeerKey::from_bytes([byte; 32])
}

/// A layout of one part, another for each number.
pub(crate) fn layout(byte: u8) -> Layout {
    in_parts(byte, 1)
}

/// The numbers of parts of the layouts that [`known`] has.
pub(crate) const PARTS: [u32; 6] = [1, 3, 65, 70, 1000, 1024];

/// The layouts of this number, in all of [`PARTS`].
pub(crate) fn known(byte: u8) -> Vec<Layout> {
    PARTS.iter().map(|&parts| in_parts(byte, parts)).collect()
}

/// A layout of so many parts, of 4096 bytes each.
fn in_parts(byte: u8, parts: u32) -> Layout {
    Layout {
        name: format!("layout-{byte}").parse().unwrap(),
        fingerprint: Fingerprint::from_bytes([byte; 16]),
        any_rank: Fingerprint::from_bytes([byte ^ 0x80; 16]),
        page_bytes: NonZeroU64::new(4096 * u64::from(parts)).unwrap(),
        parts: NonZeroU16::new(parts as u16).unwrap(),
    }
}

/// A reader that knows layout 1, in any number of parts.
pub(crate) fn reader() -> ReaderDescription {
    let reader = ReaderDescription::new("decode-3".parse().unwrap(), layout(1));
    ReaderDescription { layouts: known(1), ..reader }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn region(index: u32) -> OfferedRegion {
    let mut keys = [0; MAX_RAILS];
    (keys[0], keys[1]) = (0xa1b2_0000 + index, 0xc3d4_0000 + index);
    let table = TableOffer { base: 0x10_0000 + 0x100 * u64::from(index), keys };
    OfferedRegion::new(RegionOffer {
        base: 0x7f00_0000_0000 + (u64::from(index) << 20),
        page_bytes: 4096,
        stride: 8192,
        slots: 16,
        keys,
        table: index.is_multiple_of(1 << 16).then_some(table),
    })
    .unwrap()
    .of_part(index as u16)
}

/// Pool `id` of layout `layout_byte`, with `count` regions.
pub(crate) fn pool(id: u32, layout_byte: u8, count: u32) -> Pool {
    let regions = (0..count).map(|index| region((id << 16) + index)).collect();
    Pool::new(PoolId(id), in_parts(layout_byte, count), regions).unwrap()
}

pub(crate) fn rails(count: usize) -> RailList {
    let rail = |index: usize| {
        let name = format!("mlx5_{index}");
        let mut address = [0; 64];
        address[..name.len()].copy_from_slice(name.as_bytes());
        RailDescription {
            name: name.parse().unwrap(),
            kind: TransportKind::Verbs,
            address: RailAddress(address),
            nominal_bytes_per_sec: 49_000_000_000,
            numa: Some(index as u8 % 2),
            lanes: 0,
        }
    };
    (0..count).map(rail).collect()
}

/// The producer's side of a transport. Its ends are the reader's blob, reversed, and it knows which
/// can receive.
#[derive(Clone, Default)]
pub(crate) struct Ends {
    pub(crate) ready: Arc<Mutex<HashSet<LaneBlob>>>,
    pub(crate) accept_takes: Duration,
    /// How long rail 1 takes to refuse a lane.
    pub(crate) rail_1_refuses_after: Option<Duration>,
}

pub(crate) fn reversed(blob: &LaneBlob) -> LaneBlob {
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
            let why = "QP 7 did not reach RTR:\nno route to the GID, says the driver";
            return Err(LaneEndError::new(rail, why));
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
pub(crate) struct Dial {
    ends: Ends,
    made: u16,
    pub(crate) fail_prepare: bool,
    pub(crate) fail_connect: bool,
    pub(crate) producer_fails: bool,
    /// The session may have ended, and freed the producer's end, before the reader connects its
    /// own.
    pub(crate) races: bool,
}

impl Dial {
    pub(crate) fn new(ends: &Ends) -> Self {
        Self {
            ends: ends.clone(),
            made: 0,
            fail_prepare: false,
            fail_connect: false,
            producer_fails: false,
            races: false,
        }
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
        let mut blob = [0x6d; 64];
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
        let ready = self.races || self.ends.ready.lock().unwrap().contains(end);
        assert!(ready, "the producer answered before it was ready");
        if self.fail_connect {
            return Err(LaneEndError::new(RailIndex(pending.0[0]), "RTR failed"));
        }
        Ok(*end)
    }
}

pub(crate) fn pairs(list: &[(u8, u8)]) -> Vec<RailPair> {
    let pair = |&(a, b): &(u8, u8)| RailPair { rail: RailIndex(a), remote_rail: RailIndex(b) };
    list.iter().map(pair).collect()
}

/// A producer that listens on loopback, and its events.
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) ends: Ends,
    events: Receiver<ServerEvent>,
}

impl Rig {
    /// With one pool of three regions of layout 1.
    pub(crate) fn new() -> Self {
        Self::with(ServerConfig::default(), vec![pool(1, 1, 3)])
    }

    pub(crate) fn with(config: ServerConfig, pools: Vec<Pool>) -> Self {
        Self::start(PeerKeys::one(key(5)), config, pools, Ends::default())
    }

    pub(crate) fn start(keys: PeerKeys, mut config: ServerConfig, pools: Vec<Pool>, ends: Ends) -> Self {
        let (tell, events) = channel();
        config.observer = Some(Arc::new(move |event| drop(tell.send(event))));
        let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools };
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&listen, keys, producer, ends.clone(), config).unwrap();
        Self { server, ends, events }
    }

    /// The server's next event.
    pub(crate) fn event(&self) -> ServerEvent {
        self.events.recv_timeout(Duration::from_secs(20)).expect("an event")
    }

    pub(crate) fn failure(&self) -> SessionError {
        match self.event() {
            ServerEvent::Failed { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    /// Why the open session ended.
    pub(crate) fn closed(&self) -> SessionError {
        loop {
            match self.event() {
                ServerEvent::Opened { .. } => {}
                ServerEvent::Closed { why, .. } => return why,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(crate) fn connect(&self) -> Result<ConnectedSession, SessionError> {
        connect(&self.address().into(), key(5), reader(), soon())
    }

    /// A connection that has not authenticated.
    pub(crate) fn raw(&self) -> TcpStream {
        raw(self.address())
    }
}

pub(crate) fn raw(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A producer that does what `act` does with the one connection that it gets.
pub(crate) fn impostor(act: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || act(listener.accept().unwrap().0));
    (address, thread)
}
