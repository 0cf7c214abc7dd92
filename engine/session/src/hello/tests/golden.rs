//! The bytes of one handshake, made by another implementation: `hello/golden/golden.py`.

use super::*;
use crate::noise::fixed;

/// The bytes in a `.hex` file.
fn bytes(text: &str) -> Vec<u8> {
    let digits = text.lines().flat_map(|line| line.split(' ').skip(1));
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

macro_rules! sample {
    ($name:literal) => {
        bytes(include_str!(concat!("../golden/", $name, ".hex")))
    };
}

fn golden_keys() -> PeerKeys {
    let mut key = [0; 32];
    key.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
    PeerKeys::one(PeerKey::from_bytes(key))
}

#[test]
fn the_handshake_has_the_bytes_of_another_implementation() {
    let keys = golden_keys();
    let (key, psk) = keys.attempt(0);
    let (hello, welcome) = (sample!("hello"), sample!("welcome"));
    let head: &[u8; HEAD_BYTES] = hello.first_chunk().unwrap();
    assert_eq!(dial(&keys, 0).1[..HEAD_BYTES], *head);

    let mut noise = fixed::reader(&psk, head, &[0x11; 32]);
    let message = noise.write().unwrap();
    assert_eq!([&head[..], &message].concat(), hello);

    assert_eq!(answer(&keys, &hello).1[..HEAD_BYTES], welcome[..HEAD_BYTES]);
    let echo = welcome[8..HEAD_BYTES].first_chunk().unwrap();
    let producer = fixed::producer(&psk, head, &message, &[0x22; 32]).unwrap();
    let (message, transport) = producer.write(echo).unwrap();
    assert_eq!(message, welcome[HEAD_BYTES..]);

    let mut there = Channel::new(transport);
    let mut dialling = Dialling { key, greeting: GreetingBytes::new(), noise: Some(noise) };
    let mut here = dialling.received(&mut &welcome[..]).unwrap().unwrap();
    let mut frames = Vec::new();
    here.seal(b"the reader's first message", &mut frames).unwrap();
    here.seal(b"", &mut frames).unwrap();
    assert_eq!(frames, sample!("reader"));
    let mut left = &frames[..];
    assert_eq!(there.open(&mut left).unwrap().unwrap(), b"the reader's first message");
    assert_eq!(there.open(&mut left).unwrap().unwrap(), b"");
    let mut frame = Vec::new();
    there.seal(b"the producer's first message", &mut frame).unwrap();
    assert_eq!(frame, sample!("producer"));
    assert_eq!(here.open(&mut &frame[..]).unwrap().unwrap(), b"the producer's first message");
}

#[test]
fn a_refusal_has_the_bytes_of_another_implementation() {
    let mut out = Vec::new();
    refuse(&golden_keys(), Refusal::TooManySessions { limit: 1024 }, &mut out);
    assert_eq!(out, sample!("refused"));
}
