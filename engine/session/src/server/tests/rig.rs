//! What the tests share: pools, a transport, and a server with its events.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};

use super::reader::{FakeReader, LIMIT};
use crate::error::SessionError;
use crate::key::{PeerKey, PeerKeys};
use crate::lane::{LaneAcceptor, LaneEndError};
use crate::offer::{LaneBlob, Layout, OfferedRegion, RailAddress, RailDescription, RailList, TransportKind};
use crate::pool::{Pool, PoolId};
use crate::server::{ProducerDescription, Server, ServerConfig, ServerEvent};

pub(super) fn key() -> PeerKey {
    PeerKey::from_bytes([0x5a; 32])
}

pub(super) fn keys() -> PeerKeys {
    PeerKeys::one(key())
}

/// A layout of one part, another for each number.
pub(super) fn layout(number: u8) -> Layout {
    in_parts(number, 1)
}

/// The numbers of parts of the layouts that [`known`] has.
pub(super) const PARTS: [u32; 7] = [1, 2, 70, 130, 200, 300, 1024];

/// The layouts of this number, in all of [`PARTS`].
pub(super) fn known(number: u8) -> Vec<Layout> {
    PARTS.iter().map(|&parts| in_parts(number, parts)).collect()
}

/// A layout of so many parts, of 4096 bytes each.
fn in_parts(number: u8, parts: u32) -> Layout {
    Layout {
        name: format!("layout-{number}").parse().unwrap(),
        fingerprint: crate::Fingerprint::from_bytes([number; 16]),
        any_rank: crate::Fingerprint::from_bytes([0x11; 16]),
        page_bytes: NonZeroU64::new(4096 * u64::from(parts)).unwrap(),
        parts: NonZeroU16::new(parts as u16).unwrap(),
    }
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
        table: (index == 0).then_some(table),
    })
    .unwrap()
    .of_part(index as u16)
}

/// Pool `id` of `regions` regions that hold the parts of pages of layout `number`.
pub(super) fn pool(id: u32, number: u8, regions: u32) -> Pool {
    Pool::new(PoolId(id), in_parts(number, regions), (0..regions).map(region).collect()).unwrap()
}

pub(super) fn rails(count: usize) -> RailList {
    let rail = |i: usize| RailDescription {
        name: format!("mlx5_{i}").parse().unwrap(),
        kind: TransportKind::Verbs,
        address: RailAddress([i as u8; 64]),
        nominal_bytes_per_sec: 49_000_000_000,
        numa: Some(i as u8 % 2),
        lanes: 0,
    };
    (0..count).map(rail).collect()
}

/// What a transport does on a rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Works,
    /// Calls wait until the mood changes.
    Hangs,
    Fails,
    PanicsInAccept,
    PanicsInRelease,
}

/// The producer's side of a transport with three rails. An end is the reader's end, reversed.
#[derive(Clone)]
pub(super) struct Ends(Arc<EndsState>);

struct EndsState {
    moods: Mutex<[Mood; 3]>,
    changed: Condvar,
    /// The ends that were made and not freed.
    ready: Mutex<HashSet<LaneBlob>>,
    /// The calls of `accept`, as they begin.
    accepting: Sender<LaneBlob>,
}

impl Ends {
    fn new(accepting: Sender<LaneBlob>) -> Self {
        Self(Arc::new(EndsState {
            moods: Mutex::new([Mood::Works; 3]),
            changed: Condvar::new(),
            ready: Mutex::default(),
            accepting,
        }))
    }

    pub(super) fn set(&self, rail: usize, mood: Mood) {
        self.0.moods.lock().unwrap()[rail] = mood;
        self.0.changed.notify_all();
    }

    /// How many ends were made and not freed.
    pub(super) fn ready(&self) -> usize {
        self.0.ready.lock().unwrap().len()
    }

    /// The mood of a rail, once it does not hang.
    fn mood(&self, rail: RailIndex) -> Mood {
        let moods = self.0.moods.lock().unwrap();
        let hangs = |moods: &mut [Mood; 3]| moods[rail.get()] == Mood::Hangs;
        self.0.changed.wait_while(moods, hangs).unwrap()[rail.get()]
    }
}

pub(super) fn reversed(blob: &LaneBlob) -> LaneBlob {
    let mut bytes = blob.0;
    bytes.reverse();
    LaneBlob(bytes)
}

impl LaneAcceptor for Ends {
    type Lane = (RailIndex, LaneBlob);

    fn rails(&self) -> RailList {
        rails(3)
    }

    fn accept(
        &self,
        rail: RailIndex,
        remote: &LaneBlob,
    ) -> Result<((RailIndex, LaneBlob), LaneBlob), LaneEndError> {
        // Fails in a test that does not look.
        let _ = self.0.accepting.send(*remote);
        match self.mood(rail) {
            Mood::Fails => {
                let text = "QP 7 did not reach RTR:\nno route to the GID, says the driver";
                return Err(LaneEndError::new(rail, text));
            }
            Mood::PanicsInAccept => panic!("a transport panics"),
            Mood::Works | Mood::Hangs | Mood::PanicsInRelease => {}
        }
        let end = reversed(remote);
        assert!(self.0.ready.lock().unwrap().insert(end));
        Ok(((rail, end), end))
    }

    fn release(&self, (rail, end): (RailIndex, LaneBlob)) {
        let mood = self.mood(rail);
        assert!(self.0.ready.lock().unwrap().remove(&end), "released twice");
        assert!(mood != Mood::PanicsInRelease, "a transport panics");
    }
}

/// A producer that listens on loopback, and its events.
pub(super) struct Rig {
    pub(super) server: Server,
    pub(super) ends: Ends,
    pub(super) events: Receiver<ServerEvent>,
    pub(super) accepting: Receiver<LaneBlob>,
}

/// A transport, and the calls of its `accept`.
pub(super) fn ends() -> (Ends, Receiver<LaneBlob>) {
    let (accepting, calls) = channel();
    (Ends::new(accepting), calls)
}

/// A configuration whose events come out of a channel.
pub(super) fn observed(mut config: ServerConfig) -> (ServerConfig, Receiver<ServerEvent>) {
    let (tell, events) = channel();
    config.observer = Some(Arc::new(move |event| drop(tell.send(event))));
    (config, events)
}

impl Rig {
    /// A producer of pool 0, with layout 1 and three regions.
    pub(super) fn new() -> Self {
        Self::with(ServerConfig::default(), vec![pool(0, 1, 1)])
    }

    pub(super) fn limited(config: ServerConfig) -> Self {
        Self::with(config, vec![pool(0, 1, 1)])
    }

    pub(super) fn with(config: ServerConfig, pools: Vec<Pool>) -> Self {
        let (config, events) = observed(config);
        let (ends, accepting) = ends();
        let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools };
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&listen, keys(), producer, ends.clone(), config).unwrap();
        Self { server, ends, events, accepting }
    }

    /// The server's next event.
    pub(super) fn event(&self) -> ServerEvent {
        self.events.recv_timeout(LIMIT).expect("an event")
    }

    /// Why the next connection that ends without a session ends.
    pub(super) fn failure(&self) -> SessionError {
        loop {
            match self.event() {
                ServerEvent::Failed { why, .. } => return why,
                ServerEvent::Opened { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Why the next session that ends ended.
    pub(super) fn closed(&self) -> SessionError {
        loop {
            if let ServerEvent::Closed { why, .. } = self.event() {
                return why;
            }
        }
    }

    /// A reader that has the key and has introduced nothing.
    pub(super) fn dial(&self) -> FakeReader {
        FakeReader::dial(self.server.local_addr(), &keys()).unwrap()
    }

    /// A reader of layout 1 in a session.
    pub(super) fn reader(&self) -> FakeReader {
        let mut reader = self.dial();
        reader.introduce(&[layout(1)]);
        reader
    }
}

/// Waits until `holds`.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Random numbers: SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `end`, which is small and not 0.
    pub(super) const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}
