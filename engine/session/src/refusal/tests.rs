use super::*;

fn versions() -> Both<Versions> {
    Both { ours: Versions::new(2, 2).unwrap(), theirs: Versions::new(3, 5).unwrap() }
}

fn ids() -> Both<KeyId> {
    Both { ours: KeyId([0x11; 8]), theirs: KeyId([0x22; 8]) }
}

fn all() -> [Refusal; 7] {
    [
        Refusal::Version(versions()),
        Refusal::Key(ids()),
        Refusal::Malformed { kind: 3 },
        Refusal::TooManyHandshakes { limit: 256 },
        Refusal::TooManySessions { limit: 1024 },
        Refusal::Stopping,
        Refusal::Other { code: 77 },
    ]
}

#[test]
fn a_refusal_goes_over_the_wire() {
    for refusal in all() {
        let (reason, number) = refusal.to_wire();
        let seen = Refusal::from_wire(reason, number, versions().flip(), ids().flip());
        assert_eq!(seen, refusal.flip());
        assert_eq!(seen.flip(), refusal);
        assert_eq!(seen.code(), refusal.code());
    }
    // Reasons of kvrail/1 that are none any more keep their numbers.
    for code in [0, 3, 4, 5] {
        assert_eq!(Refusal::from_wire(code, 0, versions(), ids()), Refusal::Other { code });
    }
    let kind = Refusal::from_wire(6, 0x1_0000, versions(), ids());
    assert_eq!(kind, Refusal::Malformed { kind: 0 });
}

#[test]
fn both_sides_read_both_values_and_what_to_do() {
    let text = Refusal::Version(versions()).to_string();
    assert_eq!(
        text,
        "no common protocol version: this side speaks version 2, the peer speaks versions 3 to 5; \
         upgrade the older one"
    );
    let text = Refusal::Key(ids()).flip().to_string();
    assert_eq!(
        text,
        "the peer keys differ: this side has the key with id 2222222222222222, the peer has the key \
         with id 1111111111111111; compare the key files of the two hosts, and give both the same one"
    );
    let text = Refusal::Key(Both { theirs: KeyId::NONE, ..ids() }).to_string();
    assert_eq!(
        text,
        "the peer keys differ: this side has the key with id 1111111111111111, the peer has no key; \
         give both sides the same key file, or neither a key"
    );
}

#[test]
fn refusals_name_their_numbers() {
    let named = ["", "", "kind 3", "256 other handshakes", "1024 sessions", "stopping", "reason 77"];
    for (refusal, number) in all().into_iter().zip(named) {
        assert!(refusal.to_string().contains(number), "{refusal}");
    }
    assert!(Refusal::Malformed { kind: 0 }.to_string().contains("does something else use this port?"));
}
