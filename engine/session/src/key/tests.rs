use super::*;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

#[test]
fn hex_is_64_digits() {
    let key = PeerKey::from_hex(&format!(" {HEX}\n")).unwrap();
    assert!((0..32).eq(key.0));
    assert!(matches!(PeerKey::from_hex(&HEX[1..]), Err(KeyError::Length { len: 63 })));
    assert!(matches!(PeerKey::from_hex(&format!("{HEX}0")), Err(KeyError::Length { len: 65 })));
    assert!(matches!(PeerKey::from_hex(&HEX.replace('A', "g")), Err(KeyError::Digit { at: 53 })));
    assert!(matches!(PeerKey::from_hex(&HEX.replace('A', "é")), Err(KeyError::Digit { at: 53 })));
}

#[test]
fn neither_debug_output_nor_errors_contain_the_key() {
    let key = PeerKey::from_hex(HEX).unwrap();
    let shown = format!("{key:?}");
    assert!(!shown.contains("0001") && shown.contains(&key.id().to_string()), "{shown}");
    let error = PeerKey::from_hex(&HEX[1..]).unwrap_err().to_string();
    assert!(!error.contains("010203"), "{error}");
}

/// Python: `hashlib.pbkdf2_hmac("sha256", words, salt, 1000)`.
#[test]
fn passphrases_are_stretched_by_pbkdf2() {
    assert!(matches!(PeerKey::from_passphrase("too short"), Err(KeyError::Passphrase { len: 9 })));
    let key = PeerKey::stretch("correct horse battery staple", 1000);
    let hex: String = key.0.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, PBKDF2_1000);
}

const PBKDF2_1000: &str = "a582513ba71a5f03172b554f856e3a508eafac2ed9d25542d390a5228aec211e";

/// Python: `hmac.new(bytes(range(32)), b"kvrail/2 key id ", "sha256")`.
#[test]
fn ids_and_pre_shared_keys_are_made_under_labels_of_their_own() {
    let key = PeerKey::from_hex(HEX).unwrap();
    assert_eq!(key.id().to_string(), "66eeecd2f44d4168");
    let psk = key.psk();
    assert_ne!(*psk, key.0);
    assert_ne!(psk[..8], key.id().0);
}

#[test]
fn keys_are_found_by_their_ids() {
    let [first, other] = [PeerKey::from_bytes([1; 32]), PeerKey::from_bytes([2; 32])];
    let both = PeerKeys::rotating(first.clone(), other.clone());
    assert_eq!(both.ids().collect::<Vec<_>>(), [first.id(), other.id()]);
    assert_eq!((both.attempts(), both.is_none()), (2, false));
    for (attempt, key) in [(0, &first), (1, &other), (2, &other)] {
        assert_eq!(both.id(attempt), key.id());
        assert_eq!(both.attempt(attempt), (key.id(), key.psk()));
        assert_eq!(both.named(key.id()), Some(key.psk()));
    }
    assert_eq!(both.named(KeyId::NONE), None);
    assert_eq!(PeerKeys::one(first).named(other.id()), None);
}

#[test]
fn two_equal_keys_are_one() {
    let key = PeerKey::from_bytes([1; 32]);
    let keys = PeerKeys::rotating(key.clone(), key.clone());
    assert_eq!((keys.attempts(), keys.ids().count()), (1, 1));
    assert_eq!(PeerKeys::from(key.clone()).id(0), key.id());
}

#[test]
fn no_key_has_an_id_of_zeros_and_a_public_key_of_zeros() {
    let none = PeerKeys::none();
    assert_eq!((none.is_none(), none.attempts(), none.ids().count()), (true, 1, 0));
    assert_eq!(none.attempt(0), (KeyId::NONE, no_key()));
    assert_eq!(none.named(KeyId::NONE), Some(no_key()));
    assert_eq!(none.named(PeerKey::from_bytes([0; 32]).id()), None);
    // A key of zero bytes is another thing than no key.
    assert_ne!(*PeerKey::from_bytes([0; 32]).psk(), [0; 32]);
}

#[test]
fn keys_print_as_their_ids() {
    let [a, b] = [PeerKey::from_bytes([1; 32]), PeerKey::from_bytes([2; 32])];
    let (ids, keys) = ([a.id(), b.id()], PeerKeys::rotating(a, b));
    assert_eq!(format!("{keys:?}"), format!("PeerKeys[{}, {}]", ids[0], ids[1]));
    assert_eq!(format!("{:?}", PeerKeys::none()), "PeerKeys[]");
}
