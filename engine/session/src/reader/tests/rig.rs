//! A session, the producer that it talks to, and the time.

use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_host::reactor::Flow;

use crate::channel::Channel;
use crate::hello::Answering;
use crate::{
    Epoch, Fingerprint, LaneAnswer, LaneAnswers, LaneAsk, LaneBlob, Layout, Message, Name, OfferHead,
    OfferedRegion, PeerKey, PeerKeys, PoolHead, PoolId, PoolRegions, RailAddress, RailDescription, RailPair,
    ReaderDescription, Session, SessionError, SessionEvent, TransportKind, parse,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// How long a session may take to be established.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
pub(super) const SILENCE: Duration = Duration::from_secs(10);

pub(super) fn key(byte: u8) -> PeerKey {
    PeerKey::from_bytes([byte; 32])
}

pub(super) fn layout(byte: u8) -> Layout {
    in_parts(byte, 1)
}

/// A layout of so many parts, of 4096 bytes each.
fn in_parts(byte: u8, parts: u32) -> Layout {
    Layout {
        name: "mla-61x64".parse().unwrap(),
        fingerprint: Fingerprint::from_bytes([byte; 16]),
        any_rank: Fingerprint::from_bytes([byte; 16]),
        page_bytes: NonZeroU64::new(4096 * u64::from(parts)).unwrap(),
        parts: NonZeroU16::new(parts as u16).unwrap(),
    }
}

pub(super) fn region(index: u32) -> OfferedRegion {
    OfferedRegion::new(RegionOffer {
        base: 0x7f00_0000_0000 + (u64::from(index) << 20),
        page_bytes: 4096,
        stride: 8192,
        slots: 16,
        keys: [index; MAX_RAILS],
        table: (index == 0).then_some(TableOffer { base: 0, keys: [0; MAX_RAILS] }),
    })
    .unwrap()
    .of_part(index as u16)
}

pub(super) fn head() -> Message {
    let rail = |index| RailDescription {
        name: Name::lossy(&format!("mlx5_{index}")),
        kind: TransportKind::Verbs,
        address: RailAddress([index; 64]),
        nominal_bytes_per_sec: 49_000_000_000,
        numa: None,
        lanes: 0,
    };
    let node = "prefill-1".parse().unwrap();
    Message::Offer(OfferHead { node, epoch: Epoch(NonZeroU64::MIN), rails: (0..2).map(rail).collect() })
}

pub(super) fn pool(id: u32, regions: u32) -> Message {
    Message::Pool(PoolHead { id: PoolId(id), layout: in_parts(1, regions), regions })
}

pub(super) fn regions(pool: u32, first: u32, count: u32) -> Message {
    let regions = (first..first + count).map(region).collect();
    Message::Regions(PoolRegions { pool: PoolId(pool), first, regions })
}

/// A whole first offer of two pools and an unknown layout.
pub(super) fn offer() -> Vec<Message> {
    vec![
        head(),
        pool(1, 70),
        regions(1, 0, 64),
        regions(1, 64, 6),
        pool(2, 1),
        regions(2, 0, 1),
        Message::Unknown(layout(9)),
        Message::Offered,
    ]
}

pub(super) fn pair() -> RailPair {
    RailPair { rail: RailIndex(0), remote_rail: RailIndex(1) }
}

/// The answer to `ask` as a producer that can do everything gives it.
pub(super) fn answer(exchange: u32, ask: &LaneAsk) -> Message {
    let LaneAsk { number, rail, remote_rail, .. } = *ask;
    let lane = LaneAnswer { number, rail, remote_rail, result: Ok(LaneBlob([7; 64])) };
    Message::LanesReady(LaneAnswers { exchange, lanes: [lane].into_iter().collect() })
}

pub(super) fn reader() -> ReaderDescription {
    let layouts = [1, 2, 70].map(|parts| in_parts(1, parts)).to_vec();
    let reader = ReaderDescription::new("decode-3".parse().unwrap(), layout(1));
    ReaderDescription { silence: SILENCE, layouts, ..reader }
}

/// What a producer has of a connection.
pub(super) struct Producer {
    keys: PeerKeys,
    answering: Answering,
    channel: Option<Channel>,
    /// The messages that came.
    pub(super) heard: Vec<Message>,
}

impl Producer {
    pub(super) fn new(keys: PeerKeys) -> Self {
        Self { keys, answering: Answering::new(), channel: None, heard: Vec::new() }
    }

    /// Takes bytes, and returns the answer to a greeting.
    pub(super) fn hear(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            if let Some(channel) = &mut self.channel {
                let Some(message) = channel.open(&mut bytes).expect("the reader's frames open") else {
                    break;
                };
                self.heard.push(parse(&message).expect("the reader's messages are valid"));
                continue;
            }
            match self.answering.received(&self.keys, &mut bytes, &mut out) {
                Ok(channel) => self.channel = channel,
                Err(_) => break,
            }
        }
        out
    }

    pub(super) fn channel(&mut self) -> &mut Channel {
        self.channel.as_mut().expect("a channel")
    }

    pub(super) fn seal(&mut self, message: &Message) -> Vec<u8> {
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        message.encode(&mut plain);
        self.channel().seal(&plain, &mut out).unwrap();
        out
    }
}

/// The two sides of a connection, and the time.
pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) producer: Producer,
    pub(super) now: Instant,
    pub(super) events: Vec<SessionEvent>,
}

impl Rig {
    /// A session whose connection is being made.
    pub(super) fn connecting() -> Self {
        Self::with(reader(), PeerKeys::one(key(5)), PeerKeys::one(key(5)))
    }

    pub(super) fn with(reader: ReaderDescription, readers: PeerKeys, producers: PeerKeys) -> Self {
        let now = Instant::now();
        let session = Session::new("p:1".into(), &readers, 0, reader, now + LIMIT, now).unwrap();
        Self { session, producer: Producer::new(producers), now, events: Vec::new() }
    }

    /// A session whose introduction the producer has.
    pub(super) fn introduced() -> Self {
        let mut rig = Self::connecting();
        let welcome = rig.flush();
        assert_eq!(rig.bytes(&welcome), Flow::GoOn);
        rig.flush();
        assert!(matches!(rig.producer.heard[..], [Message::Introduction(_)]), "{:?}", rig.producer.heard);
        rig.producer.heard.clear();
        rig
    }

    /// An established session.
    pub(super) fn established() -> Self {
        let mut rig = Self::introduced();
        for message in offer() {
            assert_eq!(rig.say(&message), Flow::GoOn);
        }
        assert!(matches!(rig.events[..], [SessionEvent::Established(_)]), "{:?}", rig.events);
        rig.events.clear();
        rig
    }

    /// Passes to the producer what the session has to say, and returns the producer's greeting.
    pub(super) fn flush(&mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        loop {
            let mut out = Vec::new();
            self.session.fill(self.now, &mut out, 64 << 10);
            self.take_events();
            if out.is_empty() {
                return answer;
            }
            answer.extend(self.producer.hear(&out));
        }
    }

    /// Passes bytes to the session.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Flow {
        let flow = self.session.received(self.now, bytes);
        self.take_events();
        flow
    }

    /// The producer says something.
    pub(super) fn say(&mut self, message: &Message) -> Flow {
        let bytes = self.producer.seal(message);
        self.bytes(&bytes)
    }

    /// What the producer has heard since the last call.
    pub(super) fn heard(&mut self) -> Vec<Message> {
        self.flush();
        std::mem::take(&mut self.producer.heard)
    }

    /// Lets time pass until the session is due, and ticks.
    pub(super) fn tick(&mut self) -> Flow {
        self.now = self.now.max(self.session.due());
        self.tick_now()
    }

    pub(super) fn tick_now(&mut self) -> Flow {
        let flow = self.session.tick(self.now);
        self.take_events();
        flow
    }

    pub(super) fn ask(&mut self, until: Instant) -> crate::LaneNumber {
        self.session.ask(pair(), LaneBlob([3; 64]), until).unwrap()
    }

    fn take_events(&mut self) {
        while let Some(event) = self.session.next_event() {
            self.events.push(event);
        }
    }

    /// Why the session ended: its last event says so, and no call changes that.
    pub(super) fn ended(&mut self) -> Arc<SessionError> {
        let before = self.events.len();
        let Some(SessionEvent::Ended(why)) = self.events.last() else { panic!("{:?}", self.events) };
        let why = Arc::clone(why);
        let ends = self.events.iter().filter(|event| matches!(event, SessionEvent::Ended(_)));
        assert_eq!(ends.count(), 1, "{:?}", self.events);
        self.session.bye(crate::ByeReason::Finished);
        self.session.received(self.now, &[1; 100]);
        self.session.tick(self.now + LIMIT);
        self.session.ended(self.now, None);
        self.session.release(&[crate::LaneNumber(std::num::NonZeroU32::MIN)]);
        let error = self.session.ask(pair(), LaneBlob::EMPTY, self.now).unwrap_err();
        assert_eq!(error.to_string(), why.to_string());
        self.take_events();
        assert_eq!(self.events.len(), before, "{:?}", self.events);
        assert_eq!(why.peer, "p:1");
        why
    }
}
