//! The bytes of every message, in golden files. A change of one is another version of the protocol.

use std::fmt::Write;
use std::num::{NonZeroU32, NonZeroU64};

use kvrail_core::id::RailIndex;

use super::rig::*;
use crate::auth::{Direction, Transcript};
use crate::{
    Both, ByeReason, Epoch, Greeting, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneBlob, LaneNumber,
    LaneRefusal, LaneRefusalCode, Message, MessageKind, OfferHead, Reason, Refusal, Role, Versions, parse,
};

/// Lines of 16 bytes with their offset; lines of zeros are left out.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, line) in bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|&b| b != 0)) {
        write!(text, "{:04x}:", i * 16).unwrap();
        line.iter().for_each(|b| write!(text, " {b:02x}").unwrap());
        text.push('\n');
    }
    text
}

/// One message of each kind; every field has a value of its own.
pub(super) fn samples() -> [Message; 11] {
    let greeting = |role, nonce, node: &str| Greeting {
        versions: Versions::new(1, 3).unwrap(),
        role,
        key_id: key().id(),
        nonce: [nonce; 32],
        node: node.parse().unwrap(),
    };
    let number = |n| LaneNumber(NonZeroU32::new(n).unwrap());
    let blob = |byte| LaneBlob([byte; 64]);
    let ask = |n, rail, remote_rail| LaneAsk {
        number: number(n),
        rail: RailIndex(rail),
        remote_rail: RailIndex(remote_rail),
        blob: blob(0xa0 + rail),
    };
    let answer = |n, rail, remote_rail, result| LaneAnswer {
        number: number(n),
        rail: RailIndex(rail),
        remote_rail: RailIndex(remote_rail),
        result,
    };
    let refusal = LaneRefusal { code: LaneRefusalCode::TooMany, text: "64 is the most".parse().unwrap() };
    let other = crate::Layout { name: "gqa".parse().unwrap(), ..layout() };
    [
        Message::Hello(greeting(Role::Reader, 0x11, "decode-3")),
        Message::Challenge(greeting(Role::Producer, 0x22, "prefill-1"), 1),
        Message::Refused(Box::new(Refusal {
            nodes: Both {
                ours: Some("decode-3".parse().unwrap()),
                theirs: Some("prefill-1".parse().unwrap()),
            },
            reason: Reason::Layout(Both { ours: layout(), theirs: other }),
        })),
        Message::Propose(layout()),
        Message::Offer(OfferHead {
            layout: layout(),
            epoch: Epoch(NonZeroU64::new(0x1122_3344_5566_7788).unwrap()),
            regions: 3,
            rails: [rail("mlx5_0:1", Some(1)), crate::RailDescription { lanes: 5, ..rail("mlx5_1:1", None) }]
                .into_iter()
                .collect(),
        }),
        Message::Regions { first: 1, regions: [region(1), region(2).of_part(0x0102)].into_iter().collect() },
        Message::Lanes(LaneAsks {
            exchange: 7,
            lanes: [ask(0x0102_0304, 0, 1), ask(2, 3, 15)].into_iter().collect(),
        }),
        Message::LanesReady(LaneAnswers {
            exchange: 7,
            lanes: [answer(0x0102_0304, 0, 1, Ok(blob(0xb0))), answer(2, 3, 15, Err(refusal))]
                .into_iter()
                .collect(),
        }),
        Message::Release([number(2), number(0x0102_0304)].into_iter().collect()),
        Message::Bye(ByeReason::Stopping),
        Message::Alive,
    ]
}

/// The samples as one exchange: each sealed into the transcript, or the session, after those
/// before.
fn sealed() -> Vec<(MessageKind, Vec<u8>)> {
    let from_reader = |kind| {
        matches!(
            kind,
            MessageKind::Hello
                | MessageKind::Propose
                | MessageKind::Lanes
                | MessageKind::Release
                | MessageKind::Bye
                | MessageKind::Alive
        )
    };
    let mut transcript = Transcript::new(key());
    let mut channels = None;
    samples()
        .iter()
        .map(|message| {
            let kind = message.kind();
            let mut frame = message.encode();
            let direction = if from_reader(kind) { Direction::ToProducer } else { Direction::ToReader };
            match kind {
                MessageKind::Hello => transcript.absorb(&frame),
                MessageKind::Challenge | MessageKind::Propose | MessageKind::Offer | MessageKind::Regions => {
                    transcript.seal(direction, &mut frame);
                }
                // Beside the exchange, not in it.
                MessageKind::Refused => transcript.clone().seal(direction, &mut frame),
                MessageKind::Lanes
                | MessageKind::LanesReady
                | MessageKind::Release
                | MessageKind::Bye
                | MessageKind::Alive => {
                    let (reader, producer) = channels.get_or_insert_with(|| {
                        let finish = |way| transcript.clone().finish(way);
                        (finish(Direction::ToProducer), finish(Direction::ToReader))
                    });
                    let channel = if from_reader(kind) { reader } else { producer };
                    channel.seal(&mut frame);
                }
            }
            (kind, frame)
        })
        .collect()
}

#[test]
fn messages_encode_to_the_golden_bytes() {
    let golden = [
        include_str!("../wire/hello.hex"),
        include_str!("../wire/challenge.hex"),
        include_str!("../wire/refused.hex"),
        include_str!("../wire/propose.hex"),
        include_str!("../wire/offer.hex"),
        include_str!("../wire/regions.hex"),
        include_str!("../wire/lanes.hex"),
        include_str!("../wire/lanes_ready.hex"),
        include_str!("../wire/release.hex"),
        include_str!("../wire/bye.hex"),
        include_str!("../wire/alive.hex"),
    ];
    for ((kind, frame), golden) in sealed().iter().zip(golden) {
        assert_eq!(dump(frame), golden, "{kind:?}");
        assert_eq!(frame.len(), kind.bytes());
    }
}

#[test]
fn an_encoded_message_parses_to_itself() {
    for (message, (kind, frame)) in samples().iter().zip(sealed()) {
        assert_eq!(message.kind(), kind);
        assert_eq!(parse(&frame).as_ref(), Ok(message));
    }
}
