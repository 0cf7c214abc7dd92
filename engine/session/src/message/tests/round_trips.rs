//! Messages of all kinds there and back, and bytes that are nearly messages.

use proptest::prelude::*;

use super::super::arbitrary::{message, message_of};
use super::super::wire::MAX_MESSAGE_BYTES;
use super::super::{MessageKind, parse};
use super::samples::samples;
use super::{bytes, check};

#[test]
fn every_other_value_of_every_byte_is_refused_or_another_message() {
    for message in samples() {
        let mut changed = bytes(&message);
        for at in 0..changed.len() {
            let byte = changed[at];
            for other in 1..=255 {
                changed[at] = byte ^ other;
                assert_ne!(check(&changed).as_ref(), Some(&message), "byte {at} has no meaning");
            }
            changed[at] = byte;
        }
    }
}

proptest! {
    #[test]
    fn a_message_parses_to_itself(message in message()) {
        let bytes = bytes(&message);
        prop_assert!(bytes.len() <= MAX_MESSAGE_BYTES);
        prop_assert_eq!(parse(&bytes), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        check(&bytes);
    }

    #[test]
    fn arbitrary_content_never_panics(
        kind in prop::sample::select(MessageKind::ALL.to_vec()),
        content in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let sample = samples().into_iter().find(|message| message.kind() == Some(kind)).unwrap();
        let mut bytes = bytes(&sample);
        bytes.iter_mut().skip(8).zip(content).for_each(|(to, from)| *to = from);
        check(&bytes);
    }

    #[test]
    fn changed_messages_never_panic(
        message in prop::sample::select(MessageKind::ALL.to_vec()).prop_flat_map(message_of),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = bytes(&message);
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        check(&bytes);
    }
}
