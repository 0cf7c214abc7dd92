//! How bytes are parsed: any bytes are refused with an error that names the field, or are a message
//! that encodes to the same bytes.

use proptest::prelude::*;

use super::golden::samples;
use crate::{Message, MessageKind, ParseError, Reason, parse};

fn frame(kind: MessageKind) -> Vec<u8> {
    samples().iter().find(|message| message.kind() == kind).unwrap().encode()
}

#[test]
fn every_truncation_is_short_and_every_excess_long() {
    for message in samples() {
        let frame = message.encode();
        let full = frame.len();
        for got in 0..full {
            let want = if got < 16 { 16 } else { full };
            assert_eq!(parse(&frame[..got]), Err(ParseError::Short { got, want }));
        }
        for extra in [1, 16, 5000] {
            let mut longer = frame.clone();
            longer.resize(full + extra, 0);
            assert_eq!(parse(&longer), Err(ParseError::Long { got: full + extra, want: full }));
        }
    }
}

#[test]
fn a_header_is_checked_field_by_field() {
    let with = |at: usize, byte: u8| {
        let mut bytes = frame(MessageKind::Propose);
        bytes[at] = byte;
        parse(&bytes).unwrap_err()
    };
    assert_eq!(with(0, b'K'), ParseError::Magic { got: *b"Kvrail\r\n" });
    // What a text mode makes of CR LF.
    assert_eq!(with(6, b'\n'), ParseError::Magic { got: *b"kvrail\n\n" });
    assert_eq!(with(8, 99), ParseError::UnknownKind { got: 99 });
    assert_eq!(with(9, 1), ParseError::UnknownKind { got: 0x110 });
    assert_eq!(with(10, 2), ParseError::Version { kind: MessageKind::Propose, got: 2, want: 1 });
    assert_eq!(
        with(15, 0xff),
        ParseError::Size { kind: MessageKind::Propose, got: 0xff00_0000 + 144, want: 144 }
    );
}

/// A value at an offset of a message, and what the error says.
#[test]
fn fields_out_of_range_are_named() {
    for (kind, at, bytes, text) in [
        (MessageKind::Hello, 16, &[0, 0][..], "Hello.versions is 0"),
        (MessageKind::Hello, 16, &[4, 0], "Hello.versions is 4"),
        (MessageKind::Hello, 20, &[1, 0], "Hello has 0x01 at byte 20"),
        (MessageKind::Hello, 22, &[3], "Hello.role is 3"),
        (MessageKind::Hello, 23, &[1], "Hello has 0x01 at byte 23"),
        (MessageKind::Hello, 64, &[0; 64], "Hello.node: a name is empty"),
        (MessageKind::Hello, 64, &[0xff], "Hello.node: a name is not UTF-8: only its first 0 bytes are"),
        (MessageKind::Hello, 64, b"\x1b[2J", "Hello.node: a name has a control character at byte 0"),
        (MessageKind::Hello, 127, b"x", "Hello.node: a name ends at byte 8 of its field"),
        (MessageKind::Propose, 96, &[0; 8], "Propose.page_bytes is 0"),
        (MessageKind::Propose, 104, &[0; 2], "Propose.parts is 0"),
        (MessageKind::Offer, 112, &[0; 8], "Offer.epoch is 0"),
        (MessageKind::Offer, 120, &[1, 4, 0, 0], "Offer.regions is 1025"),
        (MessageKind::Offer, 120, &[0xff; 4], "Offer.regions is 4294967295"),
        (MessageKind::Offer, 124, &[17], "Offer.count is 17"),
        (MessageKind::Offer, 124, &[1], "Offer has 0x6d at byte 240, which must be 0x00"),
        (MessageKind::Offer, 128 + 32, &[0], "Offer.rail.kind is 0"),
        (MessageKind::Offer, 128 + 33, &[2], "Offer.rail.numa_known is 2"),
        (MessageKind::Offer, 128 + 33, &[0], "Offer has 0x01 at byte 162"),
        (MessageKind::Regions, 20, &[17], "Regions.count is 17"),
        (MessageKind::Regions, 24 + 24, &[0; 4], "Regions.region[0]: the peer offers a region of 0 slots"),
        (MessageKind::Regions, 24 + 28, &[2], "Regions.region.has_table is 2"),
        (
            MessageKind::Regions,
            24 + 168 + 16,
            &[0xff, 0x0f, 0],
            "Regions.region[1]: the peer offers slots 4095 bytes",
        ),
        (
            MessageKind::Regions,
            24 + 16 + 7,
            &[0xff],
            "Regions.region[0]: the peer offers 16 slots, 18374686479671631872 bytes",
        ),
        (MessageKind::Lanes, 20, &[65], "Lanes.count is 65"),
        (MessageKind::Lanes, 24, &[0; 4], "Lanes.number is 0"),
        (MessageKind::Lanes, 28, &[16], "Lanes.rail is 16"),
        (MessageKind::Lanes, 29, &[255], "Lanes.rail is 255"),
        (MessageKind::Lanes, 30, &[1], "Lanes has 0x01 at byte 30"),
        (MessageKind::LanesReady, 24 + 6, &[1], "LanesReady.text: a name is not UTF-8"),
        (MessageKind::Release, 16, &[65], "Release.count is 65"),
        (MessageKind::Release, 16, &[3], "Release.number is 0"),
        (MessageKind::Refused, 18, &[1], "Refused has 0x01 at byte 18"),
    ] {
        let mut frame = frame(kind);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        let error = parse(&frame).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}, not {text}");
    }
}

/// From a later version: kept as a number.
#[test]
fn unknown_reasons_are_values() {
    let mut bytes = frame(MessageKind::Bye);
    bytes[16] = 77;
    assert_eq!(parse(&bytes), Ok(Message::Bye(crate::ByeReason::Other(77))));
    let mut bytes = frame(MessageKind::Refused);
    bytes[16..18].copy_from_slice(&[0x39, 0x30]);
    let Ok(Message::Refused(refusal)) = parse(&bytes) else { panic!("not parsed") };
    assert_eq!(refusal.reason, Reason::Other { code: 12345 });
    assert!(refusal.to_string().contains("reason 12345"));
}

/// Either an error, or canonical.
fn check(bytes: &[u8]) {
    if let Ok(message) = parse(bytes) {
        let again = message.encode();
        let body = message.kind().mac_at().unwrap_or(again.len());
        let unknown = matches!(&message, Message::Refused(r) if matches!(r.reason, Reason::Other { .. }));
        assert!(unknown || again[..body] == bytes[..body]);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        check(&bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        kind in prop::sample::select(MessageKind::ALL.to_vec()),
        body in prop::collection::vec(any::<u8>(), 4664),
    ) {
        let mut bytes = frame(kind);
        let len = bytes.len();
        bytes[16..].copy_from_slice(&body[..len - 16]);
        check(&bytes);
    }

    #[test]
    fn changed_messages_never_panic(
        kind in prop::sample::select(MessageKind::ALL.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = frame(kind);
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        check(&bytes);
    }
}
