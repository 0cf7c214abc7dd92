//! Both sides get the same refusal, with both sides' names and numbers.

use std::io::Write;
use std::num::{NonZeroU16, NonZeroU64};
use std::time::Instant;

use super::rig::*;
use crate::auth::{Direction, Transcript};
use crate::{
    Both, By, Cause, Fingerprint, Hello, Layout, Message, MessageKind, OfferHead, ParseError, PeerKey,
    Reason, Role, SessionError, Step, Versions, connect,
};

/// Checks that both sides got the same refusal, each from its own side, and returns its reason.
fn refused(reader: &SessionError, producer: &SessionError) -> Reason {
    let (ours, theirs) = (reader.refusal().unwrap(), producer.refusal().unwrap());
    assert_eq!(*ours, theirs.flip());
    for error in [reader, producer] {
        let text = error.to_string();
        assert!(text.contains("`decode-3`") && text.contains("`prefill-1`"), "{text}");
    }
    ours.reason
}

#[test]
fn layouts_that_differ_are_named_on_both_sides() {
    let rig = Rig::new();
    let good = layout();
    let others = [
        (Layout { fingerprint: Fingerprint::from_bytes([9; 16]), ..good }, "differ in fingerprint:"),
        (Layout { page_bytes: NonZeroU64::new(8192).unwrap(), ..good }, "differ in page size:"),
        (Layout { parts: NonZeroU16::new(61).unwrap(), ..good }, "differ in parts:"),
        (
            Layout {
                name: "gqa".parse().unwrap(),
                fingerprint: Fingerprint::from_bytes([9; 16]),
                page_bytes: NonZeroU64::MIN,
                ..good
            },
            "differ in fingerprint and page size:",
        ),
    ];
    for (other, what) in others {
        let hello = Hello { layout: other, ..hello() };
        let error = connect(&rig.server.local_addr().into(), &key(), hello, soon()).unwrap_err();
        assert!(matches!(error.cause, Cause::Refused { by: By::Peer, verified: true, .. }), "{error}");
        let reason = refused(&error, &rig.failure());
        assert_eq!(reason, Reason::Layout(Both { ours: other, theirs: good }));
        let text = error.to_string();
        assert!(text.contains(what), "{text}");
        for layout in [other, good] {
            assert!(text.contains(&layout.to_string()), "{text}");
        }
    }
    assert_eq!(rig.server.sessions(), 0);
}

#[test]
fn the_same_bytes_under_two_names_are_agreed_on() {
    let rig = Rig::new();
    let other = Layout { name: "our_own_mla".parse().unwrap(), ..layout() };
    assert!(other != layout() && other.same_bytes(&layout()));
    let hello = Hello { layout: other, ..hello() };
    let session = connect(&rig.server.local_addr().into(), &key(), hello, soon()).unwrap();
    // The offer has the producer's name for the layout.
    assert_eq!(session.offer().layout, layout());
}

#[test]
fn differing_keys_are_reported_by_their_ids() {
    let rig = Rig::new();
    let other = PeerKey::from_bytes([0x77; 32]);
    let error = connect(&rig.server.local_addr().into(), &other, hello(), soon()).unwrap_err();
    let reason = refused(&error, &rig.failure());
    assert_eq!(reason, Reason::Key(Both { ours: id_of(0x77), theirs: id_of(0x5a) }));
    let text = error.to_string();
    // Peers with different keys cannot authenticate to each other.
    assert!(matches!(error.cause, Cause::Refused { verified: false, .. }), "{text}");
    assert!(text.contains("not authenticated") && text.contains(&id_of(0x5a).to_string()), "{text}");
}

/// A peer that knows a key's id and not the key is refused.
#[test]
fn a_wrong_key_under_the_right_id_is_a_forgery() {
    let rig = Rig::new();
    let mut stream = rig.raw();
    let hello = raw_hello(|_| ());
    stream.write_all(&hello).unwrap();
    let (_, challenge) = read_message(&mut stream);
    let mut transcript = Transcript::new(PeerKey::from_bytes([0x77; 32]));
    transcript.absorb(&hello);
    transcript.absorb(&challenge);
    let mut propose = Message::Propose(layout()).encode();
    transcript.seal(Direction::ToProducer, &mut propose);
    stream.write_all(&propose).unwrap();
    let (Message::Refused(refusal), _) = read_message(&mut stream) else { panic!("not refused") };
    assert_eq!(refusal.reason, Reason::Forged { kind: MessageKind::Propose as u16 });
    assert!(matches!(rig.failure().cause, Cause::Forged));
}

#[test]
fn disjoint_versions_are_refused_with_a_right_mac() {
    let rig = Rig::new();
    let mut stream = rig.raw();
    let future = Versions::new(2, 3).unwrap();
    let hello = raw_hello(|greeting| greeting.versions = future);
    stream.write_all(&hello).unwrap();
    let (Message::Refused(refusal), frame) = read_message(&mut stream) else { panic!("not refused") };
    assert_eq!(refusal.reason, Reason::Version(Both { ours: future, theirs: Versions::SUPPORTED }));
    let text = refusal.to_string();
    assert!(text.contains("2..=3") && text.contains("1..=1") && text.contains("`prefill-1`"), "{text}");
    let mut transcript = Transcript::new(key());
    transcript.absorb(&hello);
    transcript.open(Direction::ToReader, &frame).expect("its MAC covers our hello");
    drop(stream);
    assert_eq!(*rig.failure().refusal().unwrap(), refusal.flip());
}

#[test]
fn overlapping_versions_use_the_highest_common_one() {
    let rig = Rig::new();
    let mut stream = rig.raw();
    stream.write_all(&raw_hello(|greeting| greeting.versions = Versions::new(1, 7).unwrap())).unwrap();
    let (Message::Challenge(_, chosen), _) = read_message(&mut stream) else { panic!("no challenge") };
    assert_eq!(chosen, 1);
}

#[test]
fn two_producers_refuse_each_other() {
    let rig = Rig::new();
    let mut stream = rig.raw();
    stream.write_all(&raw_hello(|greeting| greeting.role = Role::Producer)).unwrap();
    let (Message::Refused(refusal), _) = read_message(&mut stream) else { panic!("not refused") };
    assert_eq!(refusal.reason, Reason::Role(Both { ours: Role::Producer, theirs: Role::Producer }));
}

/// A producer that has the key, and answers a reader's hello with the greeting that `answer`
/// returns.
fn keyholder(
    answer: impl FnOnce(crate::Greeting) -> Message + Send + 'static,
) -> (Result<crate::Session, SessionError>, Message) {
    let (tell, told) = std::sync::mpsc::channel();
    let (address, thread) = impostor(move |mut stream| {
        let (Message::Hello(hello), frame) = read_message(&mut stream) else { panic!("no hello") };
        let mut transcript = Transcript::new(key());
        transcript.absorb(&frame);
        let mut frame = answer(crate::Greeting { role: Role::Producer, nonce: [8; 32], ..hello }).encode();
        transcript.seal(Direction::ToReader, &mut frame);
        stream.write_all(&frame).unwrap();
        tell.send(read_message(&mut stream).0).unwrap();
    });
    let result = connect(&address.into(), &key(), hello(), soon());
    thread.join().unwrap();
    (result, told.recv().unwrap())
}

#[test]
fn a_reader_refuses_a_version_that_is_not_the_highest_common_one() {
    for (range, chosen) in [((1, 1), 2), ((1, 1), 0), ((2, 3), 2)] {
        let range = Versions::new(range.0, range.1).unwrap();
        let (result, said) = keyholder(move |greeting| {
            Message::Challenge(crate::Greeting { versions: range, ..greeting }, chosen)
        });
        let error = result.unwrap_err();
        let versions = Both { ours: Versions::SUPPORTED, theirs: range };
        assert_eq!(error.refusal().unwrap().reason, Reason::Version(versions));
        let Message::Refused(told) = said else { panic!("{said:?}") };
        assert_eq!(*told, error.refusal().unwrap().flip());
    }
}

#[test]
fn a_reader_refuses_a_producer_with_another_role_or_key() {
    let (result, _) =
        keyholder(|greeting| Message::Challenge(crate::Greeting { role: Role::Reader, ..greeting }, 1));
    let roles = Both { ours: Role::Reader, theirs: Role::Reader };
    assert_eq!(result.unwrap_err().refusal().unwrap().reason, Reason::Role(roles));
    let (result, said) =
        keyholder(|greeting| Message::Challenge(crate::Greeting { key_id: id_of(1), ..greeting }, 1));
    let ids = Both { ours: id_of(0x5a), theirs: id_of(1) };
    assert_eq!(result.unwrap_err().refusal().unwrap().reason, Reason::Key(ids));
    assert!(matches!(said, Message::Refused(told) if told.reason == Reason::Key(ids.flip())));
}

/// A producer with the key sends other regions than its offer announced.
#[test]
fn a_reader_refuses_regions_that_are_not_the_announced_ones() {
    let regions = |first, of: &[u32]| Message::Regions {
        first,
        regions: of.iter().map(|&index| region(index)).collect(),
    };
    let odd = Message::Regions { first: 0, regions: [region(0).of_part(1)].into_iter().collect() };
    for (announced, sent, what) in [
        (2, regions(1, &[1]), "differ from the number and order that its offer announced"),
        (2, regions(0, &[]), "differ from the number and order that its offer announced"),
        (2, regions(0, &[0, 1, 2]), "differ from the number and order that its offer announced"),
        (1, odd, "region 0 holds part 1"),
    ] {
        let (address, thread) = impostor(move |mut stream| {
            let mut transcript = Transcript::new(key());
            let (Message::Hello(hello), frame) = read_message(&mut stream) else { panic!("no hello") };
            transcript.absorb(&frame);
            let mut say = |stream: &mut std::net::TcpStream, message: &Message| {
                let mut frame = message.encode();
                transcript.seal(Direction::ToReader, &mut frame);
                stream.write_all(&frame).unwrap();
                if matches!(message, Message::Challenge(..)) {
                    transcript.absorb(&read_message(stream).1);
                }
            };
            let greeting = crate::Greeting { role: Role::Producer, nonce: [8; 32], ..hello };
            say(&mut stream, &Message::Challenge(greeting, 1));
            let epoch = crate::Epoch::random().unwrap();
            let head = OfferHead { layout: layout(), epoch, regions: announced, rails: rails(2) };
            say(&mut stream, &Message::Offer(head));
            say(&mut stream, &sent);
            let (Message::Refused(told), _) = read_message(&mut stream) else { panic!("not refused") };
            assert_eq!(told.reason, Reason::Malformed { kind: MessageKind::Regions as u16 });
        });
        let error = connect(&address.into(), &key(), hello(), soon()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        thread.join().unwrap();
    }
}

#[test]
fn another_protocol_on_the_port_is_recognised() {
    let (address, thread) = impostor(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        read_message(&mut stream);
    });
    let error = connect(&address.into(), &key(), hello(), soon()).unwrap_err();
    assert!(matches!(error.cause, Cause::Parse(ParseError::Magic { .. })), "{error}");
    assert_eq!(error.step, Step::Awaiting(MessageKind::Challenge));
    assert!(error.to_string().contains("something else uses this port"), "{error}");
    thread.join().unwrap();
    let rig = Rig::new();
    rig.raw().write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(matches!(rig.failure().cause, Cause::Parse(ParseError::Magic { .. })));
}

#[test]
fn a_port_without_a_listener_fails_at_once() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begun = Instant::now();
    let error = connect(&address.into(), &key(), hello(), soon()).unwrap_err();
    assert_eq!(error.step, Step::Connecting);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(begun.elapsed().as_secs() < 5);
    for nowhere in ["127.0.0.1:0", "0.0.0.0:7470", "[::]:7470"] {
        let error = connect(&nowhere.parse().unwrap(), &key(), hello(), soon()).unwrap_err().to_string();
        assert!(error.contains("not connect to it"), "{error}");
    }
}
