//! Bytes of a connection. A producer answers arbitrary bytes at most once, and opens nothing that
//! no holder of the key has sealed. Two sides of one key understand each other, however the bytes
//! are cut into pieces, until a byte on the way is changed, dropped or repeated: from then on that
//! direction brings nothing any more.

use kvrail_session::fuzzing::{Frames, ProducerGreeting, ReaderGreeting};
use kvrail_session::{PeerKey, PeerKeys};

use crate::bytes::Bytes;

/// Bytes of the longest greeting.
const GREETING: usize = 104;
/// Bytes of the longest message.
const LONGEST: usize = 65_519;

/// Arbitrary bytes, to a producer without a key: the first message of a reader can be recorded and
/// sent again, and what follows it cannot.
fn foreign(mut input: Bytes<'_>) {
    let (keys, mut producer) = (PeerKeys::none(), ProducerGreeting::new());
    let (mut frames, mut out, mut over) = (None::<Frames>, Vec::new(), false);
    while !input.is_empty() {
        let count = usize::from(input.byte()) + 1;
        let mut piece = input.take(count);
        if frames.is_none() {
            let before = out.len();
            match producer.received(&keys, &mut piece, &mut out) {
                Ok(opened) => {
                    assert!(!over || (opened.is_none() && out.len() == before), "one answer");
                    over |= opened.is_some();
                    frames = opened;
                }
                Err(cause) => {
                    assert!(!over && !cause.to_string().is_empty());
                    over = true;
                }
            }
            assert!(out.len() <= GREETING);
        }
        if let Some(frames) = &mut frames {
            match frames.open(&mut piece) {
                Ok(message) => assert!(message.is_none(), "a frame that no reader has sealed was opened"),
                Err(cause) => assert!(!cause.to_string().is_empty()),
            }
        }
    }
}

/// An established connection.
struct Connection {
    reader: Frames,
    producer: Frames,
    /// Whether bytes to the reader, and to the producer, were changed, dropped or repeated.
    spoiled: [bool; 2],
}

/// The two sides after a handshake whose bytes came in pieces.
fn handshake(input: &mut Bytes<'_>, keys: &PeerKeys) -> (Frames, Frames) {
    let (mut to_producer, mut to_reader) = (Vec::new(), Vec::new());
    let mut reader = ReaderGreeting::begin(keys, &mut to_producer).expect("random numbers");
    let mut producer = ProducerGreeting::new();
    let mut cut = |bytes: &[u8]| {
        let at = usize::from(input.byte()) % (bytes.len() + 1);
        let (first, second) = bytes.split_at(at);
        [first.to_vec(), second.to_vec()]
    };
    let mut of_producer = None;
    for piece in cut(&to_producer) {
        let opened = producer.received(keys, &mut &piece[..], &mut to_reader).expect("the reader's Hello");
        of_producer = of_producer.or(opened);
    }
    let mut of_reader = None;
    for piece in cut(&to_reader) {
        of_reader = of_reader.or(reader.received(&mut &piece[..]).expect("the producer's Welcome"));
    }
    (of_reader.expect("the handshake is over"), of_producer.expect("the handshake is over"))
}

/// Gives `frame` to the recipient in pieces of `piece` bytes: the messages that it opens.
fn deliver(frames: &mut Frames, frame: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for mut piece in frame.chunks(piece) {
        while !piece.is_empty() {
            match frames.open(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => assert!(piece.is_empty(), "all bytes are taken"),
                // Nothing comes after an error.
                Err(_) => break,
            }
        }
    }
    messages
}

impl Connection {
    /// Sends a message in one direction, and does something to its frame on the way.
    fn step(&mut self, input: &mut Bytes<'_>) {
        let (way, what) = (usize::from(input.byte() & 1), input.byte());
        let (from, to) = match way {
            0 => (&mut self.producer, &mut self.reader),
            _ => (&mut self.reader, &mut self.producer),
        };
        let message = vec![what; usize::from(input.short()).min(LONGEST)];
        let piece = usize::from(input.byte()) * 16 + 1;
        let mut frame = Vec::new();
        from.seal(&message, &mut frame).expect("few frames");
        let spoiled = &mut self.spoiled[way];
        let at = usize::from(input.short()) % frame.len();
        let got = match what % 5 {
            0 => deliver(to, &frame, piece),
            1 => {
                *spoiled = true;
                frame[at] ^= input.byte() | 1;
                deliver(to, &frame, piece)
            }
            2 => {
                *spoiled = true;
                Vec::new()
            }
            3 => {
                *spoiled = true;
                deliver(to, &frame[..at], piece)
            }
            _ => {
                let once = deliver(to, &frame, piece);
                assert!(deliver(to, &frame, piece).is_empty(), "a repeated frame was opened");
                assert!(*spoiled || once == [message]);
                *spoiled = true;
                return;
            }
        };
        assert_eq!(got, if *spoiled { vec![] } else { vec![message] });
    }
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Bytes::new(bytes);
    if input.byte() == 0 {
        return foreign(input);
    }
    let keys = PeerKeys::one(PeerKey::from_hex(&"5a".repeat(32)).expect("64 digits"));
    let (reader, producer) = handshake(&mut input, &keys);
    let mut connection = Connection { reader, producer, spoiled: [false; 2] };
    while !input.is_empty() {
        connection.step(&mut input);
    }
}
