//! Why one side refuses the other: both can print it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Instant;

use kvrail_session::{Both, By, Cause, GreetingError, PeerKeys, Refusal, Step, Versions, connect};

use super::rig::*;

/// The head of a greeting of `kind`, from a side that speaks `versions`.
fn head(kind: u16, rest: u16, versions: (u16, u16), chosen: u16, id: [u8; 8]) -> Vec<u8> {
    let mut bytes = b"kvrail\r\n".to_vec();
    for number in [kind, rest, versions.0, versions.1, chosen] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([0; 6]);
    bytes.extend(id);
    bytes
}

fn refused(reason: u16, number: u64, versions: (u16, u16), theirs: [u8; 8], ours: [u8; 8]) -> Vec<u8> {
    let mut bytes = head(3, 24, versions, 0, theirs);
    bytes.extend(reason.to_le_bytes());
    bytes.extend([0; 6]);
    bytes.extend(number.to_le_bytes());
    bytes.extend(ours);
    bytes
}

/// What a reader reports that gets `answer` to its greeting.
fn reader_meets(answer: Vec<u8>) -> kvrail_session::SessionError {
    let (address, thread) = impostor(move |mut stream| {
        let mut hello = [0; 80];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(hello[..32], head(1, 48, (2, 2), 0, key(5).id().0));
        stream.write_all(&answer).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = connect(&address.into(), key(5), reader(), soon()).unwrap_err();
    thread.join().unwrap();
    assert_eq!((error.peer.clone(), error.step), (address.to_string(), Step::Handshake));
    error
}

#[test]
fn keys_that_differ_are_reported_by_their_ids_on_both_sides() {
    let rig = Rig::new();
    let error = connect(&rig.address().into(), key(7), reader(), soon()).unwrap_err();
    let ids = Both { ours: key(7).id(), theirs: key(5).id() };
    assert_eq!(error.refusal(), Some(&Refusal::Key(ids)));
    let producers = rig.failure();
    assert_eq!(producers.refusal(), Some(&Refusal::Key(ids.flip())));
    let text = error.to_string();
    // Peers with different keys cannot authenticate to each other.
    assert!(matches!(error.cause, Cause::Refused { by: By::Peer, verified: false, .. }), "{text}");
    for error in [text, producers.to_string()] {
        assert!(error.contains(&key(7).id().to_string()), "{error}");
        assert!(error.contains(&key(5).id().to_string()), "{error}");
    }
    assert_eq!(rig.server.sessions(), 0);
}

#[test]
fn versions_that_have_nothing_in_common_are_named() {
    let id = key(5).id().0;
    let error = reader_meets(refused(1, 0, (3, 4), id, id));
    let future = Versions::new(3, 4).unwrap();
    let versions = Both { ours: Versions::SUPPORTED, theirs: future };
    assert_eq!(error.refusal(), Some(&Refusal::Version(versions)));
    assert!(
        error.to_string().contains("version 2,") && error.to_string().contains("versions 3 to 4"),
        "{error}"
    );
    // The producer says the same to a reader of the future.
    let rig = Rig::new();
    let mut stream = rig.raw();
    let mut hello = head(1, 48, (3, 4), 0, id);
    hello.extend([7; 48]);
    stream.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer[..32], head(3, 24, (2, 2), 0, id));
    assert_eq!(answer[32..34], [1, 0]);
    let theirs = rig.failure();
    assert_eq!(theirs.refusal(), Some(&Refusal::Version(versions)));
}

#[test]
fn limits_of_a_producer_are_named() {
    let id = key(5).id().0;
    let error = reader_meets(refused(7, 256, (2, 2), id, [0; 8]));
    assert_eq!(error.refusal(), Some(&Refusal::TooManyHandshakes { limit: 256 }));
    assert!(error.to_string().contains("not authenticated"), "{error}");
    let error = reader_meets(refused(0x1234, 0, (2, 2), id, [0; 8]));
    assert_eq!(error.refusal(), Some(&Refusal::Other { code: 0x1234 }));
}

#[test]
fn a_welcome_made_without_the_key_is_a_forgery() {
    let mut welcome = head(2, 72, (2, 2), 2, key(5).id().0);
    welcome.extend([9; 72]);
    let error = reader_meets(welcome);
    assert!(matches!(error.cause, Cause::Forged), "{error}");
}

#[test]
fn another_protocol_on_the_port_is_recognised() {
    let error = reader_meets(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec());
    assert!(matches!(error.cause, Cause::Greeting(GreetingError::Magic { .. })), "{error}");
    assert!(error.to_string().contains("something else uses this port"), "{error}");
    let rig = Rig::new();
    rig.raw().write_all(b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\n\r\n").unwrap();
    assert!(matches!(rig.failure().cause, Cause::Greeting(GreetingError::Magic { .. })));
}

#[test]
fn a_port_without_a_listener_fails_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begun = Instant::now();
    let error = connect(&address.into(), key(5), reader(), soon()).unwrap_err();
    assert_eq!(error.step, Step::Connecting);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(begun.elapsed().as_secs() < 5);
    for nowhere in ["127.0.0.1:0", "0.0.0.0:7470", "[::]:7470"] {
        let error = connect(&nowhere.parse().unwrap(), key(5), reader(), soon()).unwrap_err();
        assert!(error.to_string().contains("not connect to it"), "{error}");
    }
    let unknown = "kvrail.invalid:1".parse().unwrap();
    let error = connect(&unknown, PeerKeys::none(), reader(), soon()).unwrap_err();
    assert_eq!(error.step, Step::Resolving);
}
