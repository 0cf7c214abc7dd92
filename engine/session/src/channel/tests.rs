use proptest::prelude::*;

use super::*;
use crate::key::{PeerKey, PeerKeys};
use crate::noise::{NoiseProducer, NoiseReader};

/// Both ends of a channel.
fn ends() -> (Channel, Channel) {
    let (_, psk) = PeerKeys::one(PeerKey::from_bytes([1; 32])).attempt(0);
    let mut reader = NoiseReader::new(&psk, &[0; 32]);
    let producer = NoiseProducer::read(&psk, &[0; 32], &reader.write().unwrap()).unwrap();
    let (message, there) = producer.write(&[0; 24]).unwrap();
    let (_, here) = reader.read(&message).unwrap();
    (Channel::new(here), Channel::new(there))
}

fn sealed(from: &mut Channel, messages: &[&[u8]]) -> Vec<Vec<u8>> {
    let one = |message: &&[u8]| {
        let mut frame = Vec::new();
        from.seal(message, &mut frame).unwrap();
        frame
    };
    messages.iter().map(one).collect()
}

fn assert_forged(channel: &mut Channel, frame: &[u8]) {
    assert!(matches!(channel.open(&mut &frame[..]), Err(Cause::Forged)));
}

#[test]
fn a_message_arrives_in_both_directions() {
    let (mut here, mut there) = ends();
    for _ in 0..3 {
        let frame = sealed(&mut here, &[b"question"]).concat();
        assert_eq!(frame.len(), 2 + 8 + 16);
        assert_eq!(there.open(&mut &frame[..]).unwrap().unwrap(), b"question");
        let frame = sealed(&mut there, &[b"answer"]).concat();
        assert_eq!(here.open(&mut &frame[..]).unwrap().unwrap(), b"answer");
    }
}

#[test]
fn the_longest_message_arrives() {
    let (mut here, mut there) = ends();
    let message = vec![7; MAX_MESSAGE];
    let frame = sealed(&mut here, &[&message]).concat();
    assert_eq!(frame.len(), 2 + 65_535);
    assert_eq!(there.open(&mut &frame[..]).unwrap().unwrap(), message);
}

#[test]
#[should_panic(expected = "a message of 65520 bytes fits no frame")]
fn a_message_that_fits_no_frame_is_a_mistake_of_the_caller() {
    let _ = ends().0.seal(&vec![0; MAX_MESSAGE + 1], &mut Vec::new());
}

#[test]
fn what_is_not_whole_says_how_much_of_it_has_come() {
    let (mut here, mut there) = ends();
    let frame = sealed(&mut here, &[b"message"]).concat();
    assert_eq!(there.partial(), None);
    for end in 1..frame.len() {
        assert!(there.open(&mut &frame[end - 1..end]).unwrap().is_none());
        // After one byte of the length the least length of a frame is known.
        let want = if end == 1 { 18 } else { frame.len() };
        assert_eq!(there.partial(), Some((end, want)));
    }
    assert!(there.open(&mut &frame[frame.len() - 1..]).unwrap().is_some());
    assert_eq!(there.partial(), None);
}

#[test]
fn frames_out_of_order_repeated_left_out_or_reflected_end_the_channel() {
    let three: [&[u8]; 3] = [b"one", b"two", b"three"];
    for order in [[1, 0, 2], [0, 0, 1], [0, 2, 1]] {
        let (mut here, mut there) = ends();
        let frames = sealed(&mut here, &three);
        // The number of frames that are where they belong.
        let good = order.iter().enumerate().take_while(|(i, frame)| i == *frame).count();
        for &frame in &order[..good] {
            assert_eq!(there.open(&mut &frames[frame][..]).unwrap().unwrap(), three[frame]);
        }
        assert_forged(&mut there, &frames[order[good]]);
        // The frame that would have been the right one comes too late.
        assert_forged(&mut there, &frames[good]);
    }
    let (mut here, _) = ends();
    let frame = sealed(&mut here, &[b"one"]).concat();
    assert_forged(&mut here, &frame);
}

#[test]
fn after_a_forged_frame_the_right_one_does_not_open_either() {
    let (mut here, mut there) = ends();
    let frames = sealed(&mut here, &[b"one", b"two"]);
    assert_forged(&mut there, &frames[1]);
    // The ciphertext alone, as if the forged frame's length were still valid.
    assert_forged(&mut there, &frames[0][2..]);
    assert_forged(&mut there, &frames[0]);
}

#[test]
fn a_frame_of_another_connection_ends_the_channel() {
    let (mut here, _) = ends();
    let (_, mut there) = ends();
    assert_forged(&mut there, &sealed(&mut here, &[b"one"]).concat());
}

#[test]
fn a_length_below_that_of_an_empty_message_ends_the_channel() {
    for length in 0..16_u16 {
        let (_, mut there) = ends();
        assert_forged(&mut there, &length.to_le_bytes());
    }
}

#[test]
fn any_changed_bit_of_a_frame_ends_the_channel() {
    let bits = 8 * (2 + 7 + TAG_BYTES);
    for bit in 0..bits {
        let (mut here, mut there) = ends();
        let mut stream = sealed(&mut here, &[b"message"]).concat();
        stream[bit / 8] ^= 1 << (bit % 8);
        // A length that has grown takes the next frames with it.
        stream.extend(sealed(&mut here, &[&[0; MAX_MESSAGE]]).concat());
        assert_forged(&mut there, &stream);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_messages_arrive_in_any_pieces(
        messages in prop::collection::vec(
            prop_oneof![
                4 => prop::collection::vec(any::<u8>(), 0..200),
                1 => (0..=MAX_MESSAGE).prop_map(|len| vec![5; len]),
            ],
            0..8,
        ),
        pieces in prop::collection::vec(prop_oneof![1..40_usize, 1..70_000_usize], 1..20),
    ) {
        let (mut here, mut there) = ends();
        let mut stream = Vec::new();
        for message in &messages {
            here.seal(message, &mut stream).unwrap();
        }
        let (mut left, mut got) = (&stream[..], Vec::new());
        for piece in pieces.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (mut part, rest) = left.split_at(left.len().min(*piece));
            left = rest;
            while let Some(message) = there.open(&mut part).unwrap() {
                got.push(message);
            }
            prop_assert!(part.is_empty());
        }
        prop_assert_eq!(got, messages);
        prop_assert_eq!(there.partial(), None);
    }
}
