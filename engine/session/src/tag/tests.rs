use super::*;
use crate::PeerKey;

fn secret() -> TagSecret {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
    TagSecret::from_bytes(bytes)
}

/// Python: `hmac.new(bytes(range(32)), b"kvrail key tag 1" + b"prompt", "sha256")`. These bytes
/// never change: another tag would empty every cache.
#[test]
fn a_tag_is_the_beginning_of_an_hmac() {
    assert_eq!(secret().tag(b"prompt").to_string(), "af6ea54184178668ec7a830a1c1f5ea4");
    assert_eq!(secret().id().to_string(), "c30fed9f66770bca");
}

#[test]
fn tags_differ_by_key_and_by_secret() {
    let other = TagSecret::from_bytes([1; 32]);
    assert_ne!(secret().tag(b"a"), secret().tag(b"b"));
    assert_ne!(secret().tag(b""), secret().tag(b"\0"));
    assert_ne!(secret().tag(b"a"), other.tag(b"a"));
    assert_ne!(secret().id(), other.id());
}

#[test]
fn the_same_bytes_as_a_peer_key_have_another_id() {
    assert_ne!(TagSecret::from_bytes([1; 32]).id(), PeerKey::from_bytes([1; 32]).id());
}

#[test]
fn a_secret_prints_as_its_id() {
    assert_eq!(format!("{:?}", secret()), "TagSecret(c30fed9f66770bca)");
}
