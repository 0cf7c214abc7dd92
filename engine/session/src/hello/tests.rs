use super::*;
use crate::key::PeerKey;

fn keys(byte: u8) -> PeerKeys {
    PeerKeys::one(PeerKey::from_bytes([byte; 32]))
}

#[test]
fn both_sides_get_a_channel() {
    let (mut hello, mut answer) = (Vec::new(), Vec::new());
    let mut reader = Dialling::begin(&keys(1), 0, &mut hello).unwrap();
    let mut producer = Answering::new();
    let mut there = producer.received(&keys(1), &mut &hello[..], &mut answer).unwrap().unwrap();
    let mut here = reader.received(&mut &answer[..]).unwrap().unwrap();
    assert_eq!((hello.len(), answer.len()), (80, 104));
    let mut frame = Vec::new();
    here.seal(b"ping", &mut frame).unwrap();
    assert_eq!(there.open(&mut &frame[..]).unwrap().unwrap(), b"ping");
}
