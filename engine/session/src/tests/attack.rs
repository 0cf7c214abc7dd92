//! Attackers between the two peers, or in place of one.

use std::io::Write;

use proptest::prelude::*;

use kvrail_core::id::RailIndex;

use super::rig::*;
use crate::auth::{Channel, Direction, Transcript};
use crate::{
    ByeReason, Cause, LaneAnswer, LaneAsk, LaneAsks, LaneBlob, LaneNumber, LaneRefusalCode, Message,
    MessageKind, Reason, Role, ServerConfig, SessionError, SessionLaneError, Step, connect,
};

/// Connects through the man in the middle and makes a lane: an error if anything went wrong.
fn whole_exchange(rig: &Rig, flip: Option<Flip>) -> (Result<(), String>, [Vec<u8>; 2]) {
    let (address, thread) = middle(rig.server.local_addr(), flip);
    let result = connect(&address.into(), &key(), hello(), soon()).map_err(|e| e.to_string()).and_then(
        |mut session| {
            let lane = session.attach(&mut Dial::new(&rig.ends), &pairs(&[(0, 1)]), soon()).remove(0);
            lane.map(drop).map_err(|e: SessionLaneError| e.to_string())
        },
    );
    (result, thread.join().unwrap())
}

/// The bytes that the reader sends before `Bye`, and the bytes that the producer sends.
fn lengths() -> [usize; 2] {
    let sum = |kinds: &[MessageKind]| kinds.iter().map(|kind| kind.bytes()).sum();
    [
        sum(&[MessageKind::Hello, MessageKind::Propose, MessageKind::Lanes]),
        sum(&[MessageKind::Challenge, MessageKind::Offer, MessageKind::Regions, MessageKind::LanesReady]),
    ]
}

fn refuses(rig: &Rig, flip: Flip) {
    let (result, _) = whole_exchange(rig, Some(flip));
    assert!(result.is_err(), "{flip:?} was accepted");
    // No session and no lane remains.
    while rig.server.sessions() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(rig.server.lanes(), [0, 0], "{flip:?}");
}

#[test]
fn unchanged_bytes_are_accepted_and_have_the_documented_length() {
    let rig = Rig::new();
    let (result, [there, back]) = whole_exchange(&rig, None);
    result.unwrap();
    let [to_producer, to_reader] = lengths();
    assert_eq!(there.len(), to_producer + MessageKind::Bye.bytes());
    assert_eq!(back.len(), to_reader);
}

/// Changes every byte of the first three messages.
#[test]
fn no_byte_of_the_first_messages_can_be_changed() {
    let rig = Rig::new();
    for (way, len) in [
        (Way::ToProducer, MessageKind::Hello.bytes() + MessageKind::Propose.bytes()),
        (Way::ToReader, MessageKind::Challenge.bytes()),
    ] {
        (0..len).for_each(|at| refuses(&rig, Flip { way, at, mask: 1 << (at % 8) }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_of_any_message_can_be_changed(
        to_reader: bool,
        place in any::<prop::sample::Index>(),
        mask in 1_u8..,
    ) {
        let way = if to_reader { Way::ToReader } else { Way::ToProducer };
        let at = place.index(lengths()[way as usize]);
        refuses(&Rig::with(ServerConfig::default(), 3), Flip { way, at, mask });
    }
}

#[test]
fn a_replayed_reader_is_refused() {
    let rig = Rig::new();
    let (result, [there, _]) = whole_exchange(&rig, None);
    result.unwrap();
    rig.closed();
    let mut stream = rig.raw();
    stream.write_all(&there).unwrap();
    assert!(matches!(read_message(&mut stream).0, Message::Challenge(..)));
    let (Message::Refused(refusal), _) = read_message(&mut stream) else { panic!("not refused") };
    assert_eq!(refusal.reason, Reason::Forged { kind: MessageKind::Propose as u16 });
    let error = rig.failure();
    assert!(matches!(error.cause, Cause::Forged), "{error}");
    assert_eq!(rig.server.lanes(), [0, 0]);
}

fn reader_meets(act: impl FnOnce(std::net::TcpStream) + Send + 'static) -> SessionError {
    let (address, thread) = impostor(act);
    let error = connect(&address.into(), &key(), hello(), soon()).unwrap_err();
    thread.join().unwrap();
    error
}

#[test]
fn a_replayed_producer_is_refused() {
    let rig = Rig::new();
    let (result, [_, back]) = whole_exchange(&rig, None);
    result.unwrap();
    let error = reader_meets(move |mut stream| {
        read_message(&mut stream);
        stream.write_all(&back).unwrap();
        let (Message::Refused(told), _) = read_message(&mut stream) else { panic!("not refused") };
        assert_eq!(told.reason, Reason::Forged { kind: MessageKind::Challenge as u16 });
    });
    assert!(matches!(error.cause, Cause::Forged), "{error}");
    assert_eq!(error.step, Step::Awaiting(MessageKind::Challenge));
}

#[test]
fn a_reader_refuses_its_own_messages_sent_back() {
    // Sent back unchanged.
    let error = reader_meets(|mut stream| {
        let (_, frame) = read_message(&mut stream);
        stream.write_all(&frame).unwrap();
        read_message(&mut stream);
    });
    assert!(
        matches!(error.cause, Cause::Instead { want: MessageKind::Challenge, got: MessageKind::Hello }),
        "{error}"
    );
    let text =
        "the peer sent no valid Challenge (message kind 2), but Hello: does something else use this port?";
    assert!(error.to_string().ends_with(text), "{error}");
    // Changed into a challenge.
    let error = reader_meets(|mut stream| {
        let (Message::Hello(own), _) = read_message(&mut stream) else { panic!("no hello") };
        let challenge = Message::Challenge(crate::Greeting { role: Role::Producer, ..own }, 1);
        stream.write_all(&challenge.encode()).unwrap();
        read_message(&mut stream);
    });
    assert!(matches!(error.cause, Cause::Forged), "{error}");
}

/// A relay between a reader and a producer cannot take over the session, since it has no key.
#[test]
fn a_session_cannot_be_taken_over() {
    let rig = Rig::new();
    let (address, thread) = impostor({
        let producer = rig.server.local_addr();
        move |mut reader| {
            let mut producer = raw(producer);
            for from_reader in [true, false, true, false, false] {
                let (from, to) =
                    if from_reader { (&mut reader, &mut producer) } else { (&mut producer, &mut reader) };
                to.write_all(&read_message(from).1).unwrap();
            }
            producer.write_all(&Message::Release(heapless::Vec::default()).encode()).unwrap();
            assert!(matches!(read_message(&mut producer).0, Message::Bye(ByeReason::Protocol)));
        }
    });
    let _session = connect(&address.into(), &key(), hello(), soon()).unwrap();
    thread.join().unwrap();
    let why = rig.closed();
    assert!(matches!(why.cause, Cause::Forged), "{why}");
}

/// A refusal without a right MAC is reported as not authenticated; once the producer is
/// authenticated, such a refusal is a forgery.
#[test]
fn a_forged_refusal_is_reported_as_forged() {
    let error = reader_meets(|mut stream| {
        read_message(&mut stream);
        let refusal = crate::handshake::unauthenticated_refusal("mallory".parse().unwrap(), Reason::Stopping);
        stream.write_all(&refusal).unwrap();
    });
    assert!(matches!(error.cause, Cause::Refused { verified: false, .. }), "{error}");
    assert!(error.to_string().contains("not authenticated"), "{error}");

    let rig = Rig::new();
    let (address, thread) = impostor({
        let producer = rig.server.local_addr();
        move |mut reader| {
            let mut producer = raw(producer);
            producer.write_all(&read_message(&mut reader).1).unwrap();
            reader.write_all(&read_message(&mut producer).1).unwrap();
            read_message(&mut reader);
            let refusal =
                crate::handshake::unauthenticated_refusal("mallory".parse().unwrap(), Reason::Stopping);
            reader.write_all(&refusal).unwrap();
        }
    });
    let error = connect(&address.into(), &key(), hello(), soon()).unwrap_err();
    assert!(matches!(error.cause, Cause::Forged), "{error}");
    thread.join().unwrap();
}

/// A reader that has the key and breaks the protocol in a session.
struct Rogue {
    stream: std::net::TcpStream,
    channel: Channel,
}

impl Rogue {
    fn new(rig: &Rig) -> Self {
        let mut stream = rig.raw();
        let mut transcript = Transcript::new(key());
        let hello = raw_hello(|_| ());
        stream.write_all(&hello).unwrap();
        transcript.absorb(&hello);
        transcript.open(Direction::ToReader, &read_message(&mut stream).1).unwrap();
        let mut propose = Message::Propose(layout()).encode();
        transcript.seal(Direction::ToProducer, &mut propose);
        stream.write_all(&propose).unwrap();
        for _ in [MessageKind::Offer, MessageKind::Regions] {
            transcript.open(Direction::ToReader, &read_message(&mut stream).1).unwrap();
        }
        Self { stream, channel: transcript.finish(Direction::ToProducer) }
    }

    fn ask(&mut self, message: &Message) -> Message {
        let mut frame = message.encode();
        self.channel.seal(&mut frame);
        self.stream.write_all(&frame).unwrap();
        self.hear()
    }

    fn hear(&mut self) -> Message {
        let (answer, frame) = read_message(&mut self.stream);
        self.channel.open(&frame).unwrap();
        answer
    }
}

#[test]
fn invalid_requests_are_refused_one_by_one() {
    let rig = Rig::new();
    let mut rogue = Rogue::new(&rig);
    let ask = |number, remote_rail, end: u8| LaneAsk {
        number: LaneNumber(std::num::NonZeroU32::new(number).unwrap()),
        rail: RailIndex(0),
        remote_rail: RailIndex(remote_rail),
        blob: LaneBlob([end & 0xfe; 64]),
    };
    let lanes =
        [ask(1, 0, 2), ask(1, 1, 4), ask(2, 2, 6), ask(3, 15, 8), ask(4, 1, 10)].into_iter().collect();
    // Each request is answered once, in any order.
    let mut message = rogue.ask(&Message::Lanes(LaneAsks { exchange: 99, lanes }));
    let mut codes = Vec::new();
    loop {
        let Message::LanesReady(answers) = message else { panic!("{message:?}") };
        assert_eq!(answers.exchange, 99);
        let code = |lane: &LaneAnswer| (lane.number.0.get(), lane.result.map(drop).map_err(|r| r.code));
        codes.extend(answers.lanes.iter().map(code));
        if codes.len() == 5 {
            break;
        }
        message = rogue.hear();
    }
    codes.sort_by_key(|&(number, result)| (number, result.is_err()));
    let (in_use, no_rail) = (Err(LaneRefusalCode::NumberInUse), Err(LaneRefusalCode::NoSuchRail));
    assert_eq!(codes, [(1, Ok(())), (1, in_use), (2, no_rail), (3, no_rail), (4, Ok(()))]);
    assert_eq!(rig.server.lanes(), [1, 1]);
    // A message that only a producer sends ends the session.
    let regions = Message::Regions { first: 0, regions: heapless::Vec::default() };
    assert_eq!(rogue.ask(&regions), Message::Bye(ByeReason::Protocol));
    let why = rig.closed();
    assert!(matches!(why.cause, Cause::Unexpected { got: MessageKind::Regions }), "{why}");
    assert_eq!(rig.server.lanes(), [0, 0]);
}
