//! One message of each kind; every field has a value of its own.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_layouts::Fingerprint;

use super::super::*;
use crate::handover::{Block, Class, EndReason, GiveUpReason, HandoverMessage, HandoverNumber, RequestId};
use crate::offer::{Epoch, LaneBlob, Layout, OfferedRegion, RailAddress, RailDescription, TransportKind};
use crate::pool::PoolId;
use crate::refusal::Refusal;
use crate::service::{
    AskNumber, ServiceAnswer, ServiceAsk, ServiceNumber, ServiceRefusal, ServiceRefusalCode,
};

fn layout(name: &str) -> Layout {
    Layout {
        name: name.parse().unwrap(),
        fingerprint: Fingerprint::from_bytes(*b"0123456789abcdef"),
        any_rank: Fingerprint::from_bytes(*b"ABCDEFGHIJKLMNOP"),
        page_bytes: NonZeroU64::new(0x0102_0304_0506).unwrap(),
        parts: NonZeroU16::new(0x0708).unwrap(),
    }
}

fn rail(name: &str, numa: Option<u8>, lanes: u32) -> RailDescription {
    let mut address = [0; 64];
    address[..name.len()].copy_from_slice(name.as_bytes());
    address[63] = 0xff;
    RailDescription {
        name: name.parse().unwrap(),
        kind: TransportKind::Verbs,
        address: RailAddress(address),
        nominal_bytes_per_sec: 49_000_000_000,
        numa,
        lanes,
    }
}

fn region(index: u32) -> OfferedRegion {
    let keys = std::array::from_fn(|rail| 0x100 * index + rail as u32);
    let table_keys: [u32; MAX_RAILS] = std::array::from_fn(|rail| 0x1000 * index + rail as u32);
    let table = TableOffer { base: 0x10_0000 + 0x100 * u64::from(index), keys: table_keys };
    OfferedRegion::new(RegionOffer {
        base: 0x7f00_0000_0000 + (u64::from(index) << 20),
        page_bytes: 4096,
        stride: 8192,
        slots: 16,
        keys,
        table: index.is_multiple_of(2).then_some(table),
    })
    .unwrap()
}

fn block(index: u8, ready: u32) -> Block {
    let generation = Generation(0x1122_3344_0000_0001 + 2 * u64::from(index));
    let tag = KeyTag(u128::from_le_bytes([0xc0 + index; 16]));
    let expected = EntryValue { generation, ready: Ready(ready), tag };
    Block { pool: PoolId(3 + u32::from(index)), slot: 0x0a0b_0c00 + u32::from(index), expected, ready }
}

fn handovers() -> [HandoverMessage; 9] {
    let number = |n| HandoverNumber(NonZeroU32::new(n).unwrap());
    let first = 0x0102_0304;
    [
        HandoverMessage::Take {
            number: number(first),
            request: RequestId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            class: Class::Background,
            wait: Duration::from_millis(2500),
        },
        HandoverMessage::Renew { numbers: vec![number(first), number(7)] },
        HandoverMessage::Done { number: number(first) },
        HandoverMessage::GiveUp { number: number(first), reason: GiveUpReason::NoRoom },
        HandoverMessage::Taken {
            number: number(first),
            lease: Duration::from_secs(30),
            renew_every: Duration::from_millis(5001),
        },
        HandoverMessage::Blocks {
            number: number(first),
            first: 0x0506_0708,
            blocks: vec![block(0, 5), block(1, crate::handover::WHOLE_PAGE)],
        },
        HandoverMessage::Ready { number: number(first), first: 0x0506_0708, count: 0x090a_0b0c, ready: 61 },
        HandoverMessage::Complete { number: number(first), blocks: 0x0506_0708 },
        HandoverMessage::Ended { number: number(first), reason: EndReason::TakenByOther },
    ]
}

fn lanes() -> [Message; 3] {
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
    [
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
        Message::Release(vec![number(2), number(0x0102_0304)]),
    ]
}

fn services() -> [Message; 2] {
    let number = AskNumber(NonZeroU32::new(0x0102_0304).unwrap());
    let content = (0..19).map(|byte| 0xd0 + byte).collect();
    let text = "service 7 is not here".parse().unwrap();
    let refusal = ServiceRefusal { code: ServiceRefusalCode::NoSuchService, text };
    [
        Message::Ask(ServiceAsk { number, service: ServiceNumber(0x0506), content }),
        Message::Answer(ServiceAnswer { number, result: Err(refusal) }),
    ]
}

/// One message of each kind, in the order of [`MessageKind::ALL`].
pub(super) fn samples() -> Vec<Message> {
    let pool = PoolId(0x0102_0304);
    let mut samples = vec![
        Message::Introduction(Introduction {
            node: "decode-3".parse().unwrap(),
            layouts: vec![layout("mla-61x64"), layout("gqa")],
        }),
        Message::Offer(OfferHead {
            node: "prefill-1".parse().unwrap(),
            epoch: Epoch(NonZeroU64::new(0x1122_3344_5566_7788).unwrap()),
            rails: [rail("mlx5_0:1", Some(1), 0), rail("mlx5_1:1", None, 5)].into_iter().collect(),
        }),
        Message::Pool(PoolHead { id: pool, layout: layout("mla-61x64"), regions: 0x0301 }),
        Message::Regions(PoolRegions {
            pool,
            first: 0x0102,
            regions: vec![region(1), region(2).of_part(0x0102)],
        }),
        Message::Unknown(layout("gqa")),
        Message::Offered,
        Message::Gone(pool),
        Message::Refused(Refusal::TooManySessions { limit: 0x0102_0304_0506_0708 }),
    ];
    samples.extend(lanes());
    samples.extend([Message::Bye(ByeReason::Stopping), Message::Alive]);
    samples.extend(handovers().map(Message::Handover));
    samples.extend(services());
    samples
}
