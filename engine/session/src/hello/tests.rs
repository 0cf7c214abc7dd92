use super::*;
use crate::greeting::{GreetingError, HEAD_BYTES, HELLO_REST, WELCOME_REST};
use crate::key::PeerKey;

mod golden;

/// How many bytes come at a time.
const CHUNKS: [usize; 4] = [1, 7, 33, 4096];

fn key(byte: u8) -> PeerKey {
    PeerKey::from_bytes([byte; 32])
}

fn keys(byte: u8) -> PeerKeys {
    PeerKeys::one(key(byte))
}

fn dial(keys: &PeerKeys, attempt: usize) -> (Dialling, Vec<u8>) {
    let mut hello = Vec::new();
    (Dialling::begin(keys, attempt, &mut hello).unwrap(), hello)
}

/// What a fresh producer makes of `hello`, and its answer.
fn answer(keys: &PeerKeys, hello: &[u8]) -> (Result<Option<Channel>, Cause>, Vec<u8>) {
    let mut answer = Vec::new();
    (Answering::new().received(keys, &mut &hello[..], &mut answer), answer)
}

/// The error of a side that got no channel.
fn failed(result: Result<Option<Channel>, Cause>) -> Cause {
    match result {
        Ok(Some(_)) => panic!("there is a channel"),
        Ok(None) => panic!("the side waits for more"),
        Err(cause) => cause,
    }
}

fn refusal(cause: &Cause) -> (By, Refusal, bool) {
    let Cause::Refused { by, refusal, verified } = cause else { panic!("{cause:?} is no refusal") };
    (*by, *refusal, *verified)
}

/// One message goes each way.
fn talk(reader: &mut Channel, producer: &mut Channel) {
    send(reader, producer);
    send(producer, reader);
}

fn send(from: &mut Channel, to: &mut Channel) {
    let mut frame = Vec::new();
    from.seal(b"message", &mut frame).unwrap();
    assert_eq!(to.open(&mut &frame[..]).unwrap().unwrap(), b"message");
}

fn joined(reader: &PeerKeys, attempt: usize, producer: &PeerKeys) {
    let (mut dialling, hello) = dial(reader, attempt);
    let (there, welcome) = answer(producer, &hello);
    let mut here = dialling.received(&mut &welcome[..]).unwrap().unwrap();
    talk(&mut here, &mut there.unwrap().unwrap());
}

#[test]
fn a_handshake_goes_through_in_pieces_of_any_size() {
    for chunk in CHUNKS {
        let (mut dialling, hello) = dial(&keys(1), 0);
        assert_eq!(hello.len(), HEAD_BYTES + HELLO_REST);
        let (mut answering, mut welcome, mut there) = (Answering::new(), Vec::new(), None);
        for mut piece in hello.chunks(chunk) {
            assert!(there.is_none() && welcome.is_empty() && !answering.named_a_key());
            there = answering.received(&keys(1), &mut piece, &mut welcome).unwrap();
            assert!(piece.is_empty());
        }
        assert!(answering.named_a_key());
        assert_eq!(welcome.len(), HEAD_BYTES + WELCOME_REST);
        let mut here = None;
        for mut piece in welcome.chunks(chunk) {
            assert!(here.is_none());
            here = dialling.received(&mut piece).unwrap();
        }
        talk(&mut here.unwrap(), &mut there.unwrap());
    }
}

#[test]
fn bytes_after_a_greeting_are_left_for_the_channel() {
    let (mut dialling, mut hello) = dial(&keys(1), 0);
    hello.extend(b"frame");
    let (mut left, mut welcome) = (&hello[..], Vec::new());
    Answering::new().received(&keys(1), &mut left, &mut welcome).unwrap().unwrap();
    assert_eq!(left, b"frame");
    welcome.extend(b"other frame");
    let mut left = &welcome[..];
    dialling.received(&mut left).unwrap().unwrap();
    assert_eq!(left, b"other frame");
}

#[test]
fn an_incomplete_greeting_says_how_much_of_it_has_come() {
    let (mut dialling, hello) = dial(&keys(1), 0);
    let mut answering = Answering::new();
    assert_eq!((answering.partial(), dialling.partial()), (None, None));
    for end in 1..hello.len() {
        let part = &mut &hello[end - 1..end];
        assert!(answering.received(&keys(1), part, &mut Vec::new()).unwrap().is_none());
        let want = if end < HEAD_BYTES { HEAD_BYTES } else { hello.len() };
        assert_eq!(answering.partial(), Some((end, want)));
    }
    let (_, welcome) = answer(&keys(1), &hello);
    assert!(dialling.received(&mut &welcome[..103]).unwrap().is_none());
    assert_eq!(dialling.partial(), Some((103, 104)));
}

#[test]
fn sides_with_other_keys_name_both_ids() {
    let (mut dialling, hello) = dial(&keys(1), 0);
    let (there, refused) = answer(&keys(2), &hello);
    let (ours, theirs) = (key(2).id(), key(1).id());
    let there = failed(there);
    assert_eq!(refusal(&there), (By::Us, Refusal::Key(Both { ours, theirs }), true));
    let here = failed(dialling.received(&mut &refused[..]));
    assert_eq!(refusal(&here), (By::Peer, Refusal::Key(Both { ours, theirs }).flip(), false));
    for text in [here.to_string(), there.to_string()] {
        assert!(text.contains(&ours.to_string()) && text.contains(&theirs.to_string()), "{text}");
    }
    assert!(here.to_string().starts_with("(not authenticated) "), "{here}");
}

#[test]
fn sides_of_which_one_has_no_key_say_so() {
    for (reader, producer) in [(PeerKeys::none(), keys(1)), (keys(1), PeerKeys::none())] {
        let (mut dialling, hello) = dial(&reader, 0);
        let (there, refused) = answer(&producer, &hello);
        for cause in [failed(there), failed(dialling.received(&mut &refused[..]))] {
            assert!(matches!(refusal(&cause).1, Refusal::Key(_)));
            let text = cause.to_string();
            assert!(text.contains("no key") && text.contains(&key(1).id().to_string()), "{text}");
        }
    }
}

#[test]
fn sides_without_keys_get_a_channel() {
    joined(&PeerKeys::none(), 0, &PeerKeys::none());
}

#[test]
fn a_rotation_joins_all_who_have_a_key_in_common() {
    let both = PeerKeys::rotating(key(2), key(1));
    joined(&keys(1), 0, &both);
    joined(&keys(2), 0, &both);
    joined(&both, 0, &both);
    joined(&both, 0, &keys(2));
    // A producer that has the old key only: the first attempt is refused, the second one is not.
    let (mut dialling, hello) = dial(&both, 0);
    let (_, refused) = answer(&keys(1), &hello);
    let cause = failed(dialling.received(&mut &refused[..]));
    assert_eq!(refusal(&cause).1, Refusal::Key(Both { ours: key(2).id(), theirs: key(1).id() }));
    assert_eq!(both.attempts(), 2);
    joined(&both, 1, &keys(1));
}

/// `hello` with another range of versions.
fn with_versions(hello: &[u8], min: u16, max: u16) -> Vec<u8> {
    let mut hello = hello.to_vec();
    hello[12..14].copy_from_slice(&min.to_le_bytes());
    hello[14..16].copy_from_slice(&max.to_le_bytes());
    hello
}

#[test]
fn sides_without_a_common_version_name_both_ranges() {
    let later = Versions::new(3, 4).unwrap();
    let (mut dialling, hello) = dial(&keys(1), 0);
    let (there, mut refused) = answer(&keys(1), &with_versions(&hello, 3, 4));
    let both = Both { ours: Versions::SUPPORTED, theirs: later };
    assert_eq!(refusal(&failed(there)), (By::Us, Refusal::Version(both), true));
    // The refusal of a producer of that later version.
    refused = with_versions(&refused, 3, 4);
    let here = failed(dialling.received(&mut &refused[..]));
    assert_eq!(refusal(&here), (By::Peer, Refusal::Version(both), false));
    let text = here.to_string();
    assert!(text.contains("version 2,") && text.contains("versions 3 to 4"), "{text}");
}

#[test]
fn versions_and_keys_cannot_be_changed_on_the_way() {
    let (mut dialling, hello) = dial(&keys(1), 0);
    // A range that still has version 2: Noise hashes the whole head.
    let (there, refused) = answer(&keys(1), &with_versions(&hello, 1, 2));
    assert!(matches!(failed(there), Cause::Forged));
    let here = failed(dialling.received(&mut &refused[..]));
    assert_eq!(refusal(&here).1, Refusal::Malformed { kind: 1 });
    // The head of the Welcome: its encrypted copy differs.
    let (mut dialling, hello) = dial(&keys(1), 0);
    let (_, welcome) = answer(&keys(1), &hello);
    let changed = with_versions(&welcome, 2, 3);
    assert!(matches!(failed(dialling.received(&mut &changed[..])), Cause::Forged));
    // A refusal for a version or a key that this side has not sent.
    let (mut dialling, hello) = dial(&keys(1), 0);
    let (_, refused) = answer(&keys(1), &with_versions(&hello, 3, 3));
    assert!(matches!(failed(dialling.received(&mut &refused[..])), Cause::Forged));
    let (mut dialling, mut hello) = dial(&keys(1), 0);
    hello[24] ^= 1;
    let (_, refused) = answer(&keys(1), &hello);
    assert!(matches!(failed(dialling.received(&mut &refused[..])), Cause::Forged));
}

#[test]
fn a_key_whose_id_alone_is_known_opens_nothing() {
    let (mut dialling, _) = dial(&keys(1), 0);
    let (_, mut hello) = dial(&keys(9), 0);
    hello[24..32].copy_from_slice(&key(1).id().0);
    let mut answering = Answering::new();
    let mut refused = Vec::new();
    let there = answering.received(&keys(1), &mut &hello[..], &mut refused);
    assert!(matches!(failed(there), Cause::Forged));
    assert!(answering.named_a_key());
    let here = failed(dialling.received(&mut &refused[..]));
    assert_eq!(refusal(&here), (By::Peer, Refusal::Malformed { kind: 1 }, false));
    // A producer that knows the id alone: its Welcome does not open.
    let (mut dialling, hello) = dial(&keys(1), 0);
    let head = hello.first_chunk().unwrap();
    let (_, other) = keys(9).attempt(0);
    let message = NoiseReader::new(&other, head).write().unwrap();
    let noise = NoiseProducer::read(&other, head, &message).unwrap();
    let (kind, versions, chosen) = (GreetingKind::Welcome, Versions::SUPPORTED, 2);
    let head = GreetingHead { kind, versions, chosen, key: key(1).id() }.encode();
    let (message, _) = noise.write(head.last_chunk().unwrap()).unwrap();
    let welcome = [&head[..], &message].concat();
    assert!(matches!(failed(dialling.received(&mut &welcome[..])), Cause::Forged));
}

/// A producer that holds the key and answers with another version than the highest common one, or
/// with another key id.
#[test]
fn a_reader_checks_the_version_and_the_key_that_an_authentic_welcome_names() {
    let all = Versions::new(1, 3).unwrap();
    for (versions, chosen, named) in [(all, 2, 1), (all, 1, 1), (all, 3, 1), (all, 2, 4)] {
        let (mut dialling, hello) = dial(&keys(1), 0);
        let (_, psk) = keys(1).attempt(0);
        let (head, rest) = hello.split_first_chunk().unwrap();
        let noise = NoiseProducer::read(&psk, head, rest.first_chunk().unwrap()).unwrap();
        let kind = GreetingKind::Welcome;
        let head = GreetingHead { kind, versions, chosen, key: key(named).id() }.encode();
        let (message, _) = noise.write(head.last_chunk().unwrap()).unwrap();
        let welcome = [&head[..], &message].concat();
        let here = dialling.received(&mut &welcome[..]);
        if (chosen, named) == (2, 1) {
            assert!(here.unwrap().is_some());
        } else {
            assert!(matches!(failed(here), Cause::Contradiction(_)), "version {chosen}, key {named}");
        }
    }
}

#[test]
fn a_replayed_hello_gets_an_answer_and_no_further() {
    let (mut dialling, hello) = dial(&keys(1), 0);
    let (first, welcome) = answer(&keys(1), &hello);
    let mut here = dialling.received(&mut &welcome[..]).unwrap().unwrap();
    let mut frame = Vec::new();
    here.seal(b"introduction", &mut frame).unwrap();
    assert!(first.unwrap().unwrap().open(&mut &frame[..]).unwrap().is_some());
    // The replayer has recorded the Hello and the frame, and gets a Welcome of other keys.
    let (again, other) = answer(&keys(1), &hello);
    let mut again = again.unwrap().unwrap();
    assert_ne!(welcome, other);
    assert!(matches!(again.open(&mut &frame[..]), Err(Cause::Forged)));
}

#[test]
fn any_changed_bit_of_a_hello_ends_the_handshake() {
    let (_, hello) = dial(&keys(1), 0);
    for bit in 0..hello.len() * 8 {
        let (mut dialling, _) = dial(&keys(1), 0);
        let mut changed = hello.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let (there, refused) = answer(&keys(1), &changed);
        let cause = failed(there);
        assert_eq!(refused.len(), 56, "bit {bit}: {cause}");
        failed(dialling.received(&mut &refused[..]));
    }
}

#[test]
fn any_changed_bit_of_a_welcome_ends_the_handshake() {
    for bit in 0..(HEAD_BYTES + WELCOME_REST) * 8 {
        let (mut dialling, hello) = dial(&keys(1), 0);
        let (_, mut welcome) = answer(&keys(1), &hello);
        welcome[bit / 8] ^= 1 << (bit % 8);
        failed(dialling.received(&mut &welcome[..]));
        // It stays at that.
        assert!(matches!(dialling.received(&mut &welcome[..]), Ok(None)));
    }
}

#[test]
fn a_reflected_greeting_is_no_answer() {
    let (mut dialling, hello) = dial(&keys(1), 0);
    let cause = failed(dialling.received(&mut &hello[..]));
    assert!(matches!(cause, Cause::Greeting(GreetingError::Turn { .. })), "{cause}");
    let (mut dialling, hello) = dial(&keys(1), 0);
    // A reflection that claims to be a Welcome.
    let head = GreetingHead::parse(hello.first_chunk().unwrap()).unwrap();
    let head = GreetingHead { kind: GreetingKind::Welcome, chosen: 2, ..head }.encode();
    let welcome = [&head[..], &hello[32..], &[0; 24]].concat();
    assert!(matches!(failed(dialling.received(&mut &welcome[..])), Cause::Forged));
}

#[test]
fn another_protocol_is_refused_once() {
    let http = b"GET / HTTP/1.1\r\nHost: prefill-1\r\n\r\n";
    let tls = [0x16, 3, 1, 0, 0xf8, 1, 0, 0, 0xf4, 3, 3];
    for bytes in [&http[..], &tls] {
        let (mut answering, mut out) = (Answering::new(), Vec::new());
        let cause = failed(answering.received(&keys(1), &mut &bytes[..], &mut out));
        assert!(matches!(cause, Cause::Greeting(GreetingError::Magic { .. })));
        assert!(cause.to_string().contains("something else uses this port"), "{cause}");
        assert_eq!(out.len(), 56);
        let (_, hello) = dial(&keys(1), 0);
        assert!(matches!(answering.received(&keys(1), &mut &hello[..], &mut out), Ok(None)));
        assert_eq!(out.len(), 56);
        assert!(!answering.named_a_key());
        let (mut dialling, _) = dial(&keys(1), 0);
        let cause = failed(dialling.received(&mut &out[..]));
        assert_eq!(refusal(&cause).1, Refusal::Malformed { kind: 0 });
    }
}

#[test]
fn a_length_that_no_greeting_has_is_refused_before_its_bytes_come() {
    let (_, mut hello) = dial(&keys(1), 0);
    for got in [0, 47, 49, 72, u16::MAX] {
        hello[10..12].copy_from_slice(&got.to_le_bytes());
        let (there, refused) = answer(&keys(1), &hello[..HEAD_BYTES]);
        let cause = failed(there);
        assert!(matches!(cause, Cause::Greeting(GreetingError::Rest { want: 48, .. })), "{got}: {cause}");
        assert_eq!(refused.len(), 56);
    }
}

#[test]
fn every_refusal_in_clear_arrives() {
    for told in [
        Refusal::TooManyHandshakes { limit: 256 },
        Refusal::TooManySessions { limit: u64::MAX },
        Refusal::Stopping,
        Refusal::Malformed { kind: 0x8001 },
        Refusal::Other { code: 77 },
    ] {
        for chunk in CHUNKS {
            let (mut dialling, _) = dial(&keys(1), 0);
            let mut out = Vec::new();
            refuse(&keys(1), told, &mut out);
            let last = out.len().div_ceil(chunk) - 1;
            for (i, mut piece) in out.chunks(chunk).enumerate() {
                let result = dialling.received(&mut piece);
                if i < last {
                    assert!(result.unwrap().is_none());
                } else {
                    assert_eq!(refusal(&failed(result)), (By::Peer, told, false));
                }
            }
        }
    }
}
