//! Arbitrary messages of every kind, for the property tests of this crate.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::ops::RangeInclusive;
use std::time::Duration;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_layouts::Fingerprint;
use proptest::array::uniform16;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{
    ByeReason, Introduction, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal,
    LaneRefusalCode, MESSAGE_REGIONS, Message, MessageKind, OfferHead, PoolHead, PoolRegions,
};
use crate::handover::{
    Block, Class, EndReason, GiveUpReason, HandoverMessage, HandoverNumber, MAX_LEASE, MAX_MESSAGE_BLOCKS,
    MAX_MESSAGE_RENEWALS, MAX_WAIT, MIN_RENEW_EVERY, RequestId,
};
use crate::name::Name;
use crate::offer::{
    Epoch, LaneBlob, Layout, MAX_LANES, MAX_REGIONS, OfferedRegion, RailAddress, RailDescription,
    TransportKind,
};
use crate::pool::{MAX_LAYOUTS, PoolId};
use crate::refusal::Refusal;
use crate::service::{
    AskNumber, MAX_SERVICE_BYTES, ServiceAnswer, ServiceAsk, ServiceNumber, ServiceRefusal,
    ServiceRefusalCode,
};

/// A message of any kind that this version knows.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    select(MessageKind::ALL.to_vec()).prop_flat_map(message_of)
}

/// A message of a kind.
pub(crate) fn message_of(kind: MessageKind) -> BoxedStrategy<Message> {
    match kind {
        MessageKind::Introduction => {
            let parts = (name(), vec(layout(), 0..=MAX_LAYOUTS));
            parts.prop_map(|(node, layouts)| Message::Introduction(Introduction { node, layouts })).boxed()
        }
        MessageKind::Offer => (name(), any::<NonZeroU64>(), vec(rail(), 0..=MAX_RAILS))
            .prop_map(|(node, epoch, rails)| {
                let epoch = Epoch(epoch);
                Message::Offer(OfferHead { node, epoch, rails: rails.into_iter().collect() })
            })
            .boxed(),
        MessageKind::Pool => (any::<u32>(), layout(), 0..=MAX_REGIONS as u32)
            .prop_map(|(id, layout, regions)| Message::Pool(PoolHead { id: PoolId(id), layout, regions }))
            .boxed(),
        MessageKind::Regions => {
            let first = 0..=(MAX_REGIONS - MESSAGE_REGIONS) as u32;
            (any::<u32>(), first, vec(region(), 1..=MESSAGE_REGIONS))
                .prop_map(|(pool, first, regions)| {
                    Message::Regions(PoolRegions { pool: PoolId(pool), first, regions })
                })
                .boxed()
        }
        MessageKind::Unknown => layout().prop_map(Message::Unknown).boxed(),
        MessageKind::Offered => Just(Message::Offered).boxed(),
        MessageKind::Gone => any::<u32>().prop_map(|id| Message::Gone(PoolId(id))).boxed(),
        MessageKind::Refused => refusal().prop_map(Message::Refused).boxed(),
        MessageKind::Lanes => (1_u32.., vec(lane_ask(), 0..=MAX_LANES))
            .prop_map(|(exchange, lanes)| {
                Message::Lanes(LaneAsks { exchange, lanes: lanes.into_iter().collect() })
            })
            .boxed(),
        MessageKind::LanesReady => (1_u32.., vec(lane_answer(), 0..=MAX_LANES))
            .prop_map(|(exchange, lanes)| {
                Message::LanesReady(LaneAnswers { exchange, lanes: lanes.into_iter().collect() })
            })
            .boxed(),
        MessageKind::Release => vec(lane_number(), 0..=MAX_LANES).prop_map(Message::Release).boxed(),
        MessageKind::Bye => any::<u16>().prop_map(|n| Message::Bye(ByeReason::from_wire(n))).boxed(),
        MessageKind::Alive => Just(Message::Alive).boxed(),
        MessageKind::Ask => (any::<NonZeroU32>(), any::<u16>(), content())
            .prop_map(|(number, service, content)| {
                let (number, service) = (AskNumber(number), ServiceNumber(service));
                Message::Ask(ServiceAsk { number, service, content })
            })
            .boxed(),
        MessageKind::Answer => (any::<NonZeroU32>(), service_result())
            .prop_map(|(number, result)| Message::Answer(ServiceAnswer { number: AskNumber(number), result }))
            .boxed(),
        other => handover(other).prop_map(Message::Handover).boxed(),
    }
}

/// A hand-over message of a kind.
fn handover(kind: MessageKind) -> BoxedStrategy<HandoverMessage> {
    let number = || any::<NonZeroU32>().prop_map(HandoverNumber);
    match kind {
        MessageKind::Take => {
            let class = select(vec![Class::Urgent, Class::Background]);
            (number(), any::<u128>(), class, time(Duration::ZERO..=MAX_WAIT))
                .prop_map(|(number, request, class, wait)| {
                    let request = RequestId(request);
                    HandoverMessage::Take { number, request, class, wait }
                })
                .boxed()
        }
        MessageKind::Renew => vec(number(), 0..=MAX_MESSAGE_RENEWALS)
            .prop_map(|numbers| HandoverMessage::Renew { numbers })
            .boxed(),
        MessageKind::Done => number().prop_map(|number| HandoverMessage::Done { number }).boxed(),
        MessageKind::GiveUp => (number(), give_up_reason())
            .prop_map(|(number, reason)| HandoverMessage::GiveUp { number, reason })
            .boxed(),
        MessageKind::Taken => time(MIN_RENEW_EVERY + Duration::from_nanos(1)..=MAX_LEASE)
            .prop_flat_map(move |lease| {
                let every = time(MIN_RENEW_EVERY..=lease - Duration::from_nanos(1));
                (number(), Just(lease), every)
            })
            .prop_map(|(number, lease, renew_every)| HandoverMessage::Taken { number, lease, renew_every })
            .boxed(),
        MessageKind::Blocks => {
            let first = 0..=u32::MAX - MAX_MESSAGE_BLOCKS as u32;
            (number(), first, vec(block(), 1..=MAX_MESSAGE_BLOCKS))
                .prop_map(|(number, first, blocks)| HandoverMessage::Blocks { number, first, blocks })
                .boxed()
        }
        MessageKind::Ready => (number(), 0..u32::MAX, any::<u32>(), any::<u32>())
            .prop_map(|(number, first, count, ready)| {
                let count = count.clamp(1, u32::MAX - first);
                HandoverMessage::Ready { number, first, count, ready }
            })
            .boxed(),
        MessageKind::Complete => (number(), any::<u32>())
            .prop_map(|(number, blocks)| HandoverMessage::Complete { number, blocks })
            .boxed(),
        MessageKind::Ended => (number(), end_reason())
            .prop_map(|(number, reason)| HandoverMessage::Ended { number, reason })
            .boxed(),
        other => unreachable!("{other:?} is no hand-over"),
    }
}

/// The bytes of a question or an answer, most often few.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..100), 1 => vec(any::<u8>(), MAX_SERVICE_BYTES)]
}

fn service_result() -> impl Strategy<Value = Result<Vec<u8>, ServiceRefusal>> {
    let refusal = (1_u16.., name())
        .prop_map(|(code, text)| ServiceRefusal { code: ServiceRefusalCode::from_wire(code).unwrap(), text });
    prop_oneof![3 => content().prop_map(Ok), 1 => refusal.prop_map(Err)]
}

/// A name of 1 to `N` bytes.
fn name<const N: usize>() -> impl Strategy<Value = Name<N>> {
    "\\PC{1,64}".prop_map(|text| Name::lossy(&text))
}

/// A layout.
pub(crate) fn layout() -> impl Strategy<Value = Layout> {
    (name(), any::<[u8; 16]>(), any::<[u8; 16]>(), any::<NonZeroU64>(), any::<NonZeroU16>()).prop_map(
        |(name, fingerprint, any_rank, page_bytes, parts)| Layout {
            name,
            fingerprint: Fingerprint::from_bytes(fingerprint),
            any_rank: Fingerprint::from_bytes(any_rank),
            page_bytes,
            parts,
        },
    )
}

fn rail() -> impl Strategy<Value = RailDescription> {
    (name(), 1..=u8::MAX, blob(), any::<u64>(), option::of(any::<u8>()), any::<u32>()).prop_map(
        |(name, kind, address, nominal_bytes_per_sec, numa, lanes)| RailDescription {
            name,
            kind: TransportKind::from_wire(kind).unwrap(),
            address: RailAddress(address),
            nominal_bytes_per_sec,
            numa,
            lanes,
        },
    )
}

/// A region of any part of pages of any size.
pub(crate) fn region() -> impl Strategy<Value = OfferedRegion> {
    let table = (0..1_u64 << 58, uniform16(any::<u32>()))
        .prop_map(|(base, keys)| TableOffer { base: base * 32, keys });
    let numbers = (0..1_u64 << 62, 1..=u64::from(u32::MAX), 0..1_u64 << 20, 1..1_u32 << 20);
    (numbers, uniform16(any::<u32>()), option::of(table), any::<u16>()).prop_map(
        |((base, page_bytes, gap, slots), keys, table, part)| {
            let stride = page_bytes + gap;
            let offer = RegionOffer { base, page_bytes, stride, slots, keys, table };
            OfferedRegion::new(offer).unwrap().of_part(part)
        },
    )
}

/// A refusal of those that a message can carry.
fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        any::<u16>().prop_map(|kind| Refusal::Malformed { kind }),
        any::<u64>().prop_map(|limit| Refusal::TooManyHandshakes { limit }),
        any::<u64>().prop_map(|limit| Refusal::TooManySessions { limit }),
        Just(Refusal::Stopping),
        (10_u16..).prop_map(|code| Refusal::Other { code }),
    ]
}

fn lane_number() -> impl Strategy<Value = LaneNumber> {
    any::<NonZeroU32>().prop_map(LaneNumber)
}

fn rail_index() -> impl Strategy<Value = RailIndex> {
    (0..MAX_RAILS as u8).prop_map(RailIndex)
}

fn blob() -> impl Strategy<Value = [u8; 64]> {
    any::<[[u8; 32]; 2]>().prop_map(|halves| halves.concat().try_into().unwrap())
}

fn lane_ask() -> impl Strategy<Value = LaneAsk> {
    (lane_number(), rail_index(), rail_index(), blob()).prop_map(|(number, rail, remote_rail, blob)| {
        LaneAsk { number, rail, remote_rail, blob: LaneBlob(blob) }
    })
}

fn lane_answer() -> impl Strategy<Value = LaneAnswer> {
    let refusal = (1_u16.., name())
        .prop_map(|(code, text)| LaneRefusal { code: LaneRefusalCode::from_wire(code).unwrap(), text });
    let result = prop_oneof![blob().prop_map(|blob| Ok(LaneBlob(blob))), refusal.prop_map(Err)];
    (lane_number(), rail_index(), rail_index(), result)
        .prop_map(|(number, rail, remote_rail, result)| LaneAnswer { number, rail, remote_rail, result })
}

fn time(bounds: RangeInclusive<Duration>) -> impl Strategy<Value = Duration> {
    let nanos = |time: &Duration| u64::try_from(time.as_nanos()).unwrap();
    let bounds = nanos(bounds.start())..=nanos(bounds.end());
    // The bounds themselves, too.
    prop_oneof![8 => bounds.clone(), 1 => Just(*bounds.start()), 1 => Just(*bounds.end())]
        .prop_map(Duration::from_nanos)
}

fn give_up_reason() -> impl Strategy<Value = GiveUpReason> {
    prop_oneof![
        select(vec![GiveUpReason::ClientGone, GiveUpReason::NoRoom, GiveUpReason::Failed]),
        (4_u16..).prop_map(GiveUpReason::Other),
    ]
}

fn end_reason() -> impl Strategy<Value = EndReason> {
    prop_oneof![
        select(vec![
            EndReason::Aborted,
            EndReason::Rejected,
            EndReason::Unknown,
            EndReason::Expired,
            EndReason::TakenByOther,
            EndReason::TooMany,
            EndReason::Stopping,
        ]),
        (8_u16..).prop_map(EndReason::Other),
    ]
}

fn block() -> impl Strategy<Value = Block> {
    (any::<u32>(), any::<u32>(), any::<u64>(), any::<u128>(), any::<u32>()).prop_map(
        |(pool, slot, generation, tag, ready)| Block {
            pool: PoolId(pool),
            slot,
            expected: EntryValue {
                generation: Generation(generation | 1),
                ready: Ready(ready),
                tag: KeyTag(tag),
            },
            ready,
        },
    )
}
