use super::*;

fn head(kind: GreetingKind) -> GreetingHead {
    let chosen = if kind == GreetingKind::Welcome { 2 } else { 0 };
    GreetingHead { kind, versions: Versions::SUPPORTED, chosen, key: KeyId(*b"the  key") }
}

const KINDS: [GreetingKind; 3] = [GreetingKind::Hello, GreetingKind::Welcome, GreetingKind::Refused];

#[test]
fn a_head_has_the_bytes_of_the_protocol() {
    assert_eq!(
        &head(GreetingKind::Hello).encode(),
        b"kvrail\r\n\x01\0\x30\0\x02\0\x02\0\0\0\0\0\0\0\0\0the  key"
    );
    assert_eq!(&head(GreetingKind::Welcome).encode()[8..18], b"\x02\0\x48\0\x02\0\x02\0\x02\0");
    assert_eq!(&head(GreetingKind::Refused).encode()[8..18], b"\x03\0\x18\0\x02\0\x02\0\0\0");
    for kind in KINDS {
        assert_eq!(GreetingHead::parse(&head(kind).encode()), Ok(head(kind)));
    }
}

/// The error of a Hello whose bytes from `at` on are `bytes`.
fn changed(kind: GreetingKind, at: usize, bytes: &[u8]) -> GreetingError {
    let mut changed = head(kind).encode();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    GreetingHead::parse(&changed).unwrap_err()
}

#[test]
fn a_field_that_cannot_be_is_named() {
    use GreetingKind::{Hello, Refused, Welcome};
    let bytes = |number: u16| number.to_le_bytes();
    assert_eq!(changed(Hello, 0, b"SSH-2.0-"), GreetingError::Magic { got: *b"SSH-2.0-" });
    assert_eq!(changed(Hello, 6, b"\n"), GreetingError::Magic { got: *b"kvrail\n\n" });
    for got in [0, 4, 0x101, u16::MAX] {
        assert_eq!(changed(Hello, 8, &bytes(got)), GreetingError::UnknownKind { got });
    }
    for kind in KINDS {
        let want = kind.rest();
        assert_eq!(changed(kind, 10, &bytes(u16::MAX)), GreetingError::Rest { kind, got: u16::MAX, want });
        assert_eq!(changed(kind, 12, &bytes(0)), GreetingError::Versions { kind, min: 0, max: 2 });
        assert_eq!(changed(kind, 12, &bytes(3)), GreetingError::Versions { kind, min: 3, max: 2 });
        for at in 18..24 {
            assert_eq!(changed(kind, at, &[9]), GreetingError::Stray { kind, at, got: 9 });
        }
    }
    for (kind, got) in [(Hello, 2), (Refused, 1), (Welcome, 0), (Welcome, 1), (Welcome, 3)] {
        assert_eq!(changed(kind, 16, &bytes(got)), GreetingError::Chosen { kind, got });
    }
}

#[test]
fn a_refusal_has_the_bytes_of_the_protocol() {
    let rest = RefusedRest { reason: 2, number: 0x0807_0605_0403_0201, key: KeyId(*b"your key") };
    let bytes = rest.encode();
    assert_eq!(&bytes, b"\x02\0\0\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08your key");
    assert_eq!(RefusedRest::parse(&bytes), Ok(rest));
    for at in 2..8 {
        let mut bytes = bytes;
        bytes[at] = 1;
        let stray = GreetingError::Stray { kind: GreetingKind::Refused, at: 32 + at, got: 1 };
        assert_eq!(RefusedRest::parse(&bytes), Err(stray));
    }
}

#[test]
fn errors_have_codes_of_their_own_and_name_the_kind() {
    let kind = GreetingKind::Welcome;
    let all = [
        (GreetingError::Magic { got: [0; 8] }, 0),
        (GreetingError::UnknownKind { got: 9 }, 9),
        (GreetingError::Rest { kind, got: 0, want: 72 }, 2),
        (GreetingError::Versions { kind, min: 2, max: 1 }, 2),
        (GreetingError::Chosen { kind, got: 9 }, 2),
        (GreetingError::Stray { kind, at: 18, got: 1 }, 2),
        (GreetingError::Turn { got: kind, want: GreetingKind::Hello }, 2),
    ];
    let mut codes: Vec<_> = all.iter().map(|(error, _)| error.code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [4002, 4083, 4084, 4085, 4086, 4087, 4088]);
    assert!(all.iter().all(|(error, kind)| error.kind() == *kind));
}
