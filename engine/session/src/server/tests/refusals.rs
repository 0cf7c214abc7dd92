//! Peers that are refused, and what both sides learn.

use std::io::{Read as _, Write as _};

use super::reader::{FakeReader, greeting, raw};
use super::rig::{Rig, key, keys, layout, pool};
use crate::error::{By, Cause, SessionError, Step};
use crate::greeting::GreetingError;
use crate::key::{PeerKey, PeerKeys};
use crate::refusal::{Both, Refusal};
use crate::server::{ProducerDescription, Server, ServerConfig};
use crate::versions::Versions;

fn other_key() -> PeerKey {
    PeerKey::from_bytes([0x77; 32])
}

/// Sends a greeting, and returns how the reader of the answer and the producer see its end.
fn greets(rig: &Rig, keys: &PeerKeys, change: impl FnOnce(&mut [u8])) -> (Cause, SessionError) {
    let (mut dialling, mut hello) = greeting(keys);
    change(&mut hello);
    let mut stream = raw(rig.server.local_addr());
    stream.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let cause = match dialling.received(&mut &answer[..]) {
        Err(cause) => cause,
        Ok(channel) => panic!("a channel: {}, {} bytes", channel.is_some(), answer.len()),
    };
    (cause, rig.failure())
}

#[test]
fn differing_keys_are_reported_by_their_ids() {
    let rig = Rig::new();
    let (reader, producer) = greets(&rig, &other_key().into(), |_| ());
    let ids = Both { ours: key().id(), theirs: other_key().id() };
    assert_eq!(producer.refusal(), Some(&Refusal::Key(ids)));
    assert_eq!(producer.step, Step::Handshake);
    let Cause::Refused { by: By::Peer, refusal, verified: false } = reader else { panic!("{reader}") };
    assert_eq!(refusal, Refusal::Key(ids.flip()));
    let text = producer.to_string();
    assert!(text.contains(&key().id().to_string()) && text.contains(&other_key().id().to_string()), "{text}");
    assert_eq!(rig.server.sessions(), 0);
}

/// A peer that knows a key's id and not the key is refused.
#[test]
fn a_wrong_key_under_the_right_id_is_a_forgery() {
    let rig = Rig::new();
    let (reader, producer) = greets(&rig, &other_key().into(), |hello| {
        hello[24..32].copy_from_slice(&key().id().0);
    });
    assert!(matches!(producer.cause, Cause::Forged), "{producer}");
    let malformed = matches!(reader, Cause::Refused { refusal: Refusal::Malformed { kind: 1 }, .. });
    assert!(malformed, "{reader}");
}

#[test]
fn disjoint_versions_are_refused_by_naming_both() {
    let rig = Rig::new();
    let future = Versions::new(3, 4).unwrap();
    let (_, producer) = greets(&rig, &keys(), |hello| {
        hello[12..14].copy_from_slice(&3_u16.to_le_bytes());
        hello[14..16].copy_from_slice(&4_u16.to_le_bytes());
    });
    let both = Both { ours: Versions::SUPPORTED, theirs: future };
    assert_eq!(producer.refusal(), Some(&Refusal::Version(both)));
    let text = producer.to_string();
    assert!(text.contains("versions 3 to 4"), "{text}");
}

#[test]
fn other_protocols_are_recognised_and_answered_once() {
    let rig = Rig::new();
    let tls = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0x55, 0xaa];
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.6\r\n", &tls, &[0; 4000]] {
        let mut stream = raw(rig.server.local_addr());
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A stream with unread bytes is reset when it is closed.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer.len(), 56, "one refusal");
        let error = rig.failure();
        assert!(matches!(error.cause, Cause::Greeting(GreetingError::Magic { .. })), "{error}");
        assert!(error.to_string().contains("something else uses this port"), "{error}");
    }
}

#[test]
fn a_producers_own_answer_sent_back_is_refused() {
    let rig = Rig::new();
    let (_, hello) = greeting(&keys());
    let mut stream = raw(rig.server.local_addr());
    stream.write_all(&hello).unwrap();
    let mut welcome = [0; 104];
    stream.read_exact(&mut welcome).unwrap();
    let mut mirror = raw(rig.server.local_addr());
    mirror.write_all(&welcome).unwrap();
    let mut answer = Vec::new();
    let _ = mirror.read_to_end(&mut answer);
    assert_eq!(answer.len(), 56, "one refusal");
    let error = rig.failure();
    assert!(matches!(error.cause, Cause::Greeting(GreetingError::Turn { .. })), "{error}");
}

#[test]
fn each_of_several_keys_is_accepted() {
    let new = |listen: &str, keys: PeerKeys| {
        let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools: vec![pool(0, 1, 1)] };
        let (ends, _) = super::rig::ends();
        Server::start(&listen.parse().unwrap(), keys, producer, ends, ServerConfig::default()).unwrap()
    };
    let server = new("127.0.0.1:0", PeerKeys::rotating(key(), other_key()));
    for key in [key(), other_key()] {
        let mut reader = FakeReader::dial(server.local_addr(), &key.into()).unwrap();
        assert_eq!(reader.introduce(&[layout(1)]).1.pools.len(), 1);
    }
    let Err(Cause::Refused { refusal, .. }) = FakeReader::dial(server.local_addr(), &PeerKeys::none()) else {
        panic!("a reader without a key was welcomed")
    };
    assert!(matches!(refusal, Refusal::Key(_)), "{refusal:?}");
    // Without a key, every reader without one is served, and no other.
    let server = new("127.0.0.1:0", PeerKeys::none());
    let mut reader = FakeReader::dial(server.local_addr(), &PeerKeys::none()).unwrap();
    assert_eq!(reader.introduce(&[layout(1)]).1.pools.len(), 1);
    assert!(FakeReader::dial(server.local_addr(), &keys()).is_err());
}
