//! How bytes are parsed, value by value: errors name the field and the number.

use super::super::*;
use super::samples::samples;
use super::{bytes, check};
use crate::handover::{HandoverMessage, WHOLE_PAGE};
use crate::refusal::Refusal;

fn sample(kind: MessageKind) -> Vec<u8> {
    bytes(samples().iter().find(|message| message.kind() == Some(kind)).unwrap())
}

/// `bytes` with additions at their end.
fn with_additions(mut bytes: Vec<u8>, additions: &[u8]) -> Vec<u8> {
    bytes.extend_from_slice(additions);
    bytes[4..6].copy_from_slice(&u16::try_from(additions.len()).unwrap().to_le_bytes());
    bytes
}

#[test]
fn every_truncation_is_short_and_every_excess_long() {
    for message in samples() {
        let kind = message.kind().unwrap();
        let whole = bytes(&message);
        let want = whole.len();
        for got in 0..want {
            let error =
                if got < 8 { ParseError::Header { got } } else { ParseError::Short { kind, got, want } };
            assert_eq!(parse(&whole[..got]), Err(error));
        }
        for extra in [1, 16, 5000] {
            let mut longer = whole.clone();
            longer.resize(want + extra, 0);
            assert_eq!(parse(&longer), Err(ParseError::Long { kind, got: want + extra, want }));
        }
    }
}

#[test]
fn a_kind_that_is_not_known_is_an_error_or_passed_over_by_its_high_bit() {
    for got in [0, 1, 2, 3, 15, 23, 63, 68, 77, 79, 82, 0x110, 0x7fff] {
        let bytes = [&u16::to_le_bytes(got)[..], &[0; 6]].concat();
        assert_eq!(parse(&bytes), Err(ParseError::UnknownKind { got }));
        assert_eq!(MessageKind::from_wire(got), None);
    }
    for kind in [0x8000, 0x8010, 0xffff] {
        // Whatever the content: another version knows it.
        for content in [&[0; 6][..], &[0xff; 6], &[7; 90]] {
            let bytes = [&u16::to_le_bytes(kind)[..], content].concat();
            assert_eq!(parse(&bytes), Ok(Message::PassedOver(kind)));
            check(&bytes);
        }
        assert_eq!(Message::PassedOver(kind).kind(), None);
    }
    // No kind that is known has the bit, which would change its meaning.
    for kind in MessageKind::ALL {
        assert!((kind as u16) < 0x8000);
        assert_eq!(MessageKind::from_wire(kind as u16), Some(kind));
    }
}

#[test]
fn an_addition_is_skipped_or_refused_by_the_high_bit_of_its_tag() {
    for message in samples() {
        let kind = message.kind().unwrap();
        for additions in [
            // Without content; with some; two.
            &[1, 0, 0, 0][..],
            &[0xff, 0x7f, 3, 0, 0xaa, 0xbb, 0xcc],
            &[0, 0, 1, 0, 9, 1, 0, 0, 0],
        ] {
            let bytes = with_additions(bytes(&message), additions);
            assert_eq!(parse(&bytes).as_ref(), Ok(&message), "{additions:?}");
            check(&bytes);
        }
        let bytes = with_additions(bytes(&message), &[5, 0, 1, 0, 1, 0x34, 0x92, 2, 0, 1, 2]);
        assert_eq!(parse(&bytes), Err(ParseError::AdditionUnknown { kind, tag: 0x9234 }));
    }
}

#[test]
fn additions_that_are_cut_off_are_refused() {
    let kind = MessageKind::Gone;
    for (additions, from, want) in [
        (&[1][..], 0, 4),
        (&[1, 0, 0], 0, 4),
        (&[1, 0, 1, 0], 0, 5),
        (&[1, 0, 0xff, 0xff, 1, 2], 0, 4 + 65_535),
        (&[1, 0, 1, 0, 9, 2, 0, 2, 0, 1], 5, 6),
        // What must be understood is cut off first.
        (&[1, 0x80, 1, 0], 0, 5),
    ] {
        let error = parse(&with_additions(sample(kind), additions)).unwrap_err();
        assert_eq!(error, ParseError::AdditionCut { kind, at: 12 + from, got: additions.len() - from, want });
    }
}

#[test]
fn a_message_and_its_additions_fit_a_frame() {
    let room = 65_519 - 8;
    let addition =
        |content: usize| [&[1, 0][..], &(content as u16).to_le_bytes(), &vec![0; content]].concat();
    assert_eq!(parse(&with_additions(sample(MessageKind::Alive), &addition(room - 4))), Ok(Message::Alive));
    let error = parse(&with_additions(sample(MessageKind::Alive), &addition(room - 3))).unwrap_err();
    assert_eq!(error, ParseError::Size { kind: MessageKind::Alive, got: 65_520 });
}

/// The numbers of a header are compared before there is room for one item.
#[test]
fn counts_out_of_their_bounds_are_refused_without_a_list() {
    for (kind, wrong, want) in [
        (MessageKind::Introduction, &[129, 65_535][..], "at most 128 layouts"),
        (MessageKind::Offer, &[17, 65_535], "at most 16 rails"),
        (MessageKind::Pool, &[1, 65_535], "0, for there is no list"),
        (MessageKind::Regions, &[0, 65, 65_535], "1 to 64 regions"),
        (MessageKind::Lanes, &[65, 65_535], "at most 64 lanes"),
        (MessageKind::LanesReady, &[65, 65_535], "at most 64 lanes"),
        (MessageKind::Release, &[65, 65_535], "at most 64 lanes"),
        (MessageKind::Alive, &[1, 65_535], "0, for there is no list"),
        (MessageKind::Renew, &[1025, 65_535], "at most 1024 hand-overs"),
        (MessageKind::Blocks, &[0, 1025, 65_535], "1 to 1024 blocks"),
        (MessageKind::Ask, &[49_089, 65_535], "at most 49088 bytes"),
        (MessageKind::Answer, &[49_089, 65_535], "at most 49088 bytes"),
    ] {
        for &count in wrong {
            let mut bytes = sample(kind);
            bytes[2..4].copy_from_slice(&u16::to_le_bytes(count));
            let error = parse(&bytes).unwrap_err();
            let text = format!("{kind:?}.count is {count}: {want}");
            assert_eq!((error.to_string(), error.code()), (text, 4006));
        }
    }
    // The most items, of which none came.
    let mut bytes = sample(MessageKind::Blocks)[..16].to_vec();
    bytes[2..4].copy_from_slice(&u16::to_le_bytes(1024));
    let error = ParseError::Short { kind: MessageKind::Blocks, got: 16, want: 16 + 1024 * 36 };
    assert_eq!(parse(&bytes), Err(error));
}

#[test]
fn a_list_has_room_for_the_items_that_came() {
    for message in samples() {
        let (room, items) = match parse(&bytes(&message)).unwrap() {
            Message::Introduction(Introduction { layouts, .. }) => (layouts.capacity(), layouts.len()),
            Message::Regions(PoolRegions { regions, .. }) => (regions.capacity(), regions.len()),
            Message::Release(numbers) => (numbers.capacity(), numbers.len()),
            Message::Handover(HandoverMessage::Renew { numbers }) => (numbers.capacity(), numbers.len()),
            Message::Handover(HandoverMessage::Blocks { blocks, .. }) => (blocks.capacity(), blocks.len()),
            _ => continue,
        };
        // The least room of a `Vec` that grows by its items is 4.
        assert!(room <= items.max(4), "{room} for {items}: {message:?}");
    }
}

/// A value at an offset of a message, and what the error says.
#[test]
fn fields_out_of_range_are_named() {
    use MessageKind::*;
    for (kind, at, bytes, text) in [
        (Introduction, 6, &[1][..], "Introduction has 0x01 at byte 6, which must be 0x00"),
        (Introduction, 8, &[0; 64], "Introduction.node: a name is empty"),
        (Introduction, 8, &[0xff], "Introduction.node: a name is not UTF-8: only its first 0 bytes are"),
        (Introduction, 8, b"\x1b[2J", "Introduction.node: a name has a control character at byte 0"),
        (Introduction, 71, b"x", "Introduction.node: a name ends at byte 8 of its field"),
        (Introduction, 72 + 112, &[0; 3], "Introduction.layout[1].name: a name is empty"),
        (Introduction, 72 + 112 + 96, &[0; 8], "Introduction.layout[1].page_bytes is 0: at least 1"),
        (Introduction, 72 + 104, &[0; 2], "Introduction.layout[0].parts is 0: at least 1"),
        (Introduction, 72 + 106, &[1], "Introduction has 0x01 at byte 178"),
        (Offer, 72, &[0; 8], "Offer.epoch is 0: any other number"),
        (Offer, 80 + 112, &[7], "Offer.rail[1].name: a name has a control character at byte 0"),
        (Offer, 80 + 32, &[0], "Offer.rail[0].kind is 0: the number of a transport, at least 1"),
        (Offer, 80 + 33, &[2], "Offer.rail[0].numa_known is 2: 0 or 1"),
        (Offer, 80 + 33, &[0], "Offer has 0x01 at byte 114, which must be 0x00"),
        (Offer, 80 + 35, &[9], "Offer has 0x09 at byte 115"),
        (Pool, 12, &[1, 4, 0, 0], "Pool.regions is 1025: at most 1024"),
        (Pool, 12, &[0xff; 4], "Pool.regions is 4294967295: at most 1024"),
        (Pool, 16, &[0; 64], "Pool.name: a name is empty"),
        (Pool, 16 + 104, &[0; 2], "Pool.parts is 0: at least 1"),
        (Regions, 12, &[0xff, 3], "Regions.first is 1023: at most 1024 less the number of regions"),
        (Regions, 12, &[0xff; 4], "Regions.first is 4294967295: at most 1024 less the number of regions"),
        (Regions, 16 + 24, &[0; 4], "Regions.region[0]: the peer offers a region of 0 slots"),
        (Regions, 16 + 28, &[2], "Regions.region[0].has_table is 2: 0 or 1"),
        (Regions, 16 + 29, &[1], "Regions has 0x01 at byte 45"),
        (Regions, 16 + 96, &[32], "Regions has 0x20 at byte 112"),
        (Regions, 16 + 168 + 16, &[0xff, 0x0f, 0], "Regions.region[1]: the peer offers slots 4095 bytes"),
        (Regions, 16 + 168 + 96, &[1], "Regions.region[1]: the peer offers a publication table at 0x100201"),
        (
            Regions,
            16 + 23,
            &[0xff],
            "Regions.region[0]: the peer offers 16 slots, 18374686479671631872 bytes",
        ),
        (Unknown, 8 + 96, &[0; 8], "Unknown.page_bytes is 0: at least 1"),
        (Refused, 8, &[0], "Refused.reason is 0: one that comes after the handshake, at least 3"),
        (Refused, 8, &[1], "Refused.reason is 1: one that comes after the handshake, at least 3"),
        (Refused, 8, &[2], "Refused.reason is 2: one that comes after the handshake, at least 3"),
        (Refused, 8, &[6], "Refused.number is 72623859790382856: a message's kind, below 65536"),
        (Refused, 8, &[9], "Refused.number is 72623859790382856: 0 for this reason"),
        (Refused, 10, &[1], "Refused has 0x01 at byte 10"),
        (Lanes, 8, &[0; 4], "Lanes.exchange is 0: at least 1"),
        (Lanes, 12, &[0; 4], "Lanes.lane[0].number is 0: at least 1"),
        (Lanes, 16, &[16], "Lanes.lane[0].rail is 16: below 16"),
        (Lanes, 72 + 17, &[255], "Lanes.lane[1].remote_rail is 255: below 16"),
        (Lanes, 18, &[1], "Lanes has 0x01 at byte 18"),
        (LanesReady, 8, &[0; 4], "LanesReady.exchange is 0: at least 1"),
        (LanesReady, 18, &[1], "LanesReady.lane[0].text: a name is not UTF-8"),
        (Release, 12, &[0; 4], "Release.number[1] is 0: at least 1"),
        (Bye, 10, &[1], "Bye has 0x01 at byte 10"),
        (Take, 8, &[0; 4], "Take.number is 0: at least 1"),
        (Take, 12, &[0], "Take.class is 0: 1 (urgent) or 2 (background)"),
        (Take, 12, &[3], "Take.class is 3: 1 (urgent) or 2 (background)"),
        (Take, 13, &[1], "Take has 0x01 at byte 13"),
        (Take, 16, &60_000_000_001_u64.to_le_bytes(), "Take.wait is 60000000001: at most 60 seconds"),
        (Renew, 8, &[0; 4], "Renew.number[0] is 0: at least 1"),
        (Done, 8, &[0; 4], "Done.number is 0: at least 1"),
        (GiveUp, 8, &[0; 4], "GiveUp.number is 0: at least 1"),
        (GiveUp, 14, &[1], "GiveUp has 0x01 at byte 14"),
        (Taken, 12, &[1], "Taken has 0x01 at byte 12"),
        (
            Taken,
            16,
            &86_400_000_000_001_u64.to_le_bytes(),
            "Taken.lease is 86400000000001: 0.1 seconds to 24",
        ),
        (Taken, 16, &[0; 8], "Taken.lease is 0: 0.1 seconds to 24 hours"),
        (Taken, 24, &99_999_999_u64.to_le_bytes(), "Taken.renew_every is 99999999: at least 0.1 seconds"),
        (Taken, 24, &30_000_000_000_u64.to_le_bytes(), "Taken.renew_every is 30000000000: at least 0.1"),
        (Taken, 24, &[0xff; 8], "Taken.renew_every is 18446744073709551615: at least 0.1 seconds and less"),
        (Blocks, 8, &[0; 4], "Blocks.number is 0: at least 1"),
        (Ask, 8, &[0; 4], "Ask.number is 0: at least 1"),
        (Ask, 14, &[1], "Ask has 0x01 at byte 14, which must be 0x00"),
        (Ask, 15, &[9], "Ask has 0x09 at byte 15, which must be 0x00"),
        (Answer, 8, &[0; 4], "Answer.number is 0: at least 1"),
        (Answer, 15, &[1], "Answer has 0x01 at byte 15, which must be 0x00"),
        (Answer, 16, &[0xff], "Answer.text: a name is not UTF-8"),
        (Answer, 16, &[0; 64], "Answer.text: a name is empty"),
        (Blocks, 12, &[0xfe, 0xff, 0xff, 0xff], "Blocks.first is 4294967294: at most 2^32 - 1 less"),
        (
            Blocks,
            16 + 36 + 8,
            &[0x10],
            "Blocks.block[1].generation is 1234605615003729936: that of a published page, an odd number",
        ),
        (Ready, 16, &[0; 4], "Ready.blocks is 0: at least 1"),
        (Ready, 16, &[0xff; 4], "Ready.first is 84281096: at most 2^32 - 1 less the number of blocks"),
        (Complete, 8, &[0; 4], "Complete.number is 0: at least 1"),
        (Ended, 14, &[1], "Ended has 0x01 at byte 14"),
    ] {
        let mut message = sample(kind);
        message[at..at + bytes.len()].copy_from_slice(bytes);
        let error = parse(&message).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}, not {text}");
        assert_eq!(error.kind(), kind as u16);
    }
}

/// From a later version: kept as a number.
#[test]
fn unknown_reasons_are_values() {
    use crate::handover::{EndReason, GiveUpReason};
    let with = |kind, at: usize, reason: u16| {
        let mut bytes = sample(kind);
        bytes[at..at + 2].copy_from_slice(&reason.to_le_bytes());
        check(&bytes);
        parse(&bytes).unwrap()
    };
    assert_eq!(with(MessageKind::Bye, 8, 77), Message::Bye(ByeReason::Other(77)));
    assert_eq!(
        with(MessageKind::Refused, 8, 12_345),
        Message::Refused(Refusal::Other { code: 12_345 }),
        "whatever its number means"
    );
    let Message::Handover(HandoverMessage::Ended { reason, .. }) = with(MessageKind::Ended, 12, 8) else {
        panic!("no Ended")
    };
    assert_eq!(reason, EndReason::Other(8));
    let Message::Handover(HandoverMessage::GiveUp { reason, .. }) = with(MessageKind::GiveUp, 12, 4) else {
        panic!("no GiveUp")
    };
    assert_eq!(reason, GiveUpReason::Other(4));
}

#[test]
fn a_block_expects_the_parts_that_the_producer_says_are_ready() {
    let Ok(Message::Handover(HandoverMessage::Blocks { blocks, .. })) = parse(&sample(MessageKind::Blocks))
    else {
        panic!("no Blocks")
    };
    assert_eq!(blocks.iter().map(|block| block.ready).collect::<Vec<_>>(), [5, WHOLE_PAGE]);
    assert!(blocks.iter().all(|block| block.expected.ready.0 == block.ready));
    // The owner's list may have raised the block and not its entry.
    let behind = blocks.iter().map(|block| {
        let mut block = *block;
        block.expected.ready = kvrail_core::table::Ready::NONE;
        block
    });
    let number = crate::handover::HandoverNumber(std::num::NonZeroU32::MIN);
    let message = Message::Handover(HandoverMessage::Blocks { number, first: 0, blocks: behind.collect() });
    let said = Message::Handover(HandoverMessage::Blocks { number, first: 0, blocks });
    assert_eq!(parse(&bytes(&message)), Ok(said));
}

#[test]
#[should_panic(expected = "Release with 65 items: at most 64 lanes")]
fn a_list_beyond_its_bound_is_not_encoded() {
    let lane = LaneNumber(std::num::NonZeroU32::MIN);
    bytes(&Message::Release(vec![lane; 65]));
}

/// What each kind takes at most, as docs/protocol.md says.
#[test]
fn the_longest_message_leaves_room_for_additions() {
    let longest = MessageKind::ALL.map(wire::Form::of).map(|form| form.bytes(form.max));
    assert_eq!(longest.into_iter().max(), Some(16 + crate::service::MAX_SERVICE_BYTES));
    assert_eq!(wire::MAX_MESSAGE_BYTES, crate::channel::MAX_MESSAGE);
}
