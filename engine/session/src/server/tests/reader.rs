//! A reader without a socket and one with a blocking socket, which do what a test says.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::channel::Channel;
use crate::error::Cause;
use crate::hello::Dialling;
use crate::key::PeerKeys;
use crate::message::{Introduction, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, Message, parse};
use crate::offer::{LaneBlob, Layout};
use crate::offered::{OfferNews, OfferReader};
use crate::pool::Offer;

/// Within this time, whatever is to come has come.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// The bytes of a greeting that a producer with these keys answers, and what reads the answer.
pub(super) fn greeting(keys: &PeerKeys) -> (Dialling, Vec<u8>) {
    let mut bytes = Vec::new();
    let dialling = Dialling::begin(keys, 0, &mut bytes).unwrap();
    (dialling, bytes)
}

pub(super) fn introduction(layouts: &[Layout]) -> Message {
    Message::Introduction(Introduction { node: "decode-3".parse().unwrap(), layouts: layouts.to_vec() })
}

/// The bytes of one frame.
pub(super) fn frame(channel: &mut Channel, message: &Message) -> Vec<u8> {
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    message.encode(&mut plain);
    channel.seal(&plain, &mut out).unwrap();
    out
}

/// The messages in `bytes`.
pub(super) fn messages(channel: &mut Channel, mut bytes: &[u8]) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some(plain) = channel.open(&mut bytes).unwrap() {
        all.push(parse(&plain).unwrap());
    }
    all
}

/// A request for lane `number` from rail 0 to the producer's rail `remote_rail`.
pub(super) fn ask(number: u32, remote_rail: u8) -> LaneAsk {
    let mut blob = [0; 64];
    blob[..4].copy_from_slice(&number.to_le_bytes());
    LaneAsk {
        number: lane_number(number),
        rail: kvrail_core::id::RailIndex(0),
        remote_rail: kvrail_core::id::RailIndex(remote_rail),
        blob: LaneBlob(blob),
    }
}

pub(super) fn lane_number(number: u32) -> LaneNumber {
    LaneNumber(std::num::NonZeroU32::new(number).unwrap())
}

pub(super) fn asks(exchange: u32, lanes: impl IntoIterator<Item = LaneAsk>) -> Message {
    Message::Lanes(LaneAsks { exchange, lanes: lanes.into_iter().collect() })
}

/// A connection that has said nothing.
pub(super) fn raw(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A reader that has the key, over a socket.
pub(super) struct FakeReader {
    pub(super) stream: TcpStream,
    pub(super) channel: Channel,
    /// Bytes that were read and not looked at.
    bytes: Vec<u8>,
}

impl FakeReader {
    /// The greetings over a new connection.
    pub(super) fn dial(address: SocketAddr, keys: &PeerKeys) -> Result<Self, Cause> {
        Self::over(raw(address), keys)
    }

    /// The greetings.
    pub(super) fn over(mut stream: TcpStream, keys: &PeerKeys) -> Result<Self, Cause> {
        let (mut dialling, hello) = greeting(keys);
        stream.write_all(&hello).unwrap();
        let mut part = [0; 256];
        loop {
            let got = stream.read(&mut part).map_err(Cause::Io)?;
            if got == 0 {
                return Err(Cause::Closed);
            }
            let mut bytes = &part[..got];
            if let Some(channel) = dialling.received(&mut bytes)? {
                return Ok(Self { stream, channel, bytes: bytes.to_vec() });
            }
        }
    }

    pub(super) fn say(&mut self, message: &Message) {
        let frame = frame(&mut self.channel, message);
        // The server may have closed the connection: then it says why.
        let _ = self.stream.write_all(&frame);
    }

    /// The next message; an error if the connection has ended.
    pub(super) fn try_hear(&mut self) -> Result<Message, Cause> {
        loop {
            let mut left = &self.bytes[..];
            if let Some(plain) = self.channel.open(&mut left)? {
                self.bytes = left.to_vec();
                return Ok(parse(&plain).unwrap());
            }
            self.bytes.resize(16_384, 0);
            match self.stream.read(&mut self.bytes) {
                Ok(0) => return Err(Cause::Closed),
                Ok(got) => self.bytes.truncate(got),
                Err(error) if error.kind() == ErrorKind::Interrupted => self.bytes.clear(),
                Err(error) => return Err(Cause::Io(error)),
            }
        }
    }

    /// The next message that says more than that the producer lives.
    pub(super) fn hear(&mut self) -> Message {
        loop {
            match self.try_hear().unwrap() {
                Message::Alive => self.say(&Message::Alive),
                other => return other,
            }
        }
    }

    /// Introduces itself as a reader of `layouts`, and reads the offer.
    pub(super) fn introduce(&mut self, layouts: &[Layout]) -> (OfferReader, Offer) {
        self.say(&introduction(layouts));
        let mut reader = OfferReader::new(layouts.to_vec());
        loop {
            if let Some(OfferNews::Complete(offer)) = reader.received(self.hear()).unwrap() {
                return (reader, offer);
            }
        }
    }

    /// Asks for lanes, and returns all answers, by their numbers.
    pub(super) fn answers(&mut self, request: &Message) -> Vec<crate::LaneAnswer> {
        let Message::Lanes(LaneAsks { exchange, lanes }) = request else { panic!("{request:?}") };
        let mut all = Vec::new();
        self.say(request);
        while all.len() < lanes.len() {
            let Message::LanesReady(LaneAnswers { exchange: of, lanes }) = self.hear() else {
                panic!("no answer")
            };
            assert_eq!(of, *exchange);
            all.extend(lanes);
        }
        all.sort_by_key(|answer| (answer.number, answer.result.is_err()));
        all
    }

    /// What the producer says until it ends the connection.
    pub(super) fn until_end(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.try_hear().ok()).filter(|message| *message != Message::Alive).collect()
    }
}
