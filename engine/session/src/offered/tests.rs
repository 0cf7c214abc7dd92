//! What an offer may be made of, and in which order.

use std::num::{NonZeroU16, NonZeroU64};

use kvrail_core::id::MAX_RAILS;
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_layouts::Fingerprint;
use proptest::prelude::*;

use super::*;
use crate::message::{MESSAGE_REGIONS, MessageKind, arbitrary};
use crate::offer::{Epoch, MAX_REGIONS, RailList};

/// A layout of pages of 4096 bytes in one part; `name` does not matter to `same_bytes`.
fn layout(fingerprint: u8, name: &str) -> Layout {
    in_parts(fingerprint, name, 1)
}

/// A layout of pages of so many parts of 4096 bytes each.
fn in_parts(fingerprint: u8, name: &str, parts: u16) -> Layout {
    Layout {
        name: name.parse().unwrap(),
        fingerprint: Fingerprint::from_bytes([fingerprint; 16]),
        any_rank: Fingerprint::from_bytes([7; 16]),
        page_bytes: NonZeroU64::new(4096 * u64::from(parts)).unwrap(),
        parts: NonZeroU16::new(parts).unwrap(),
    }
}

/// Layout 2, and layout 1 in some numbers of parts.
fn known() -> Vec<Layout> {
    let ones = [1, 2, 3, MAX_REGIONS as u16].map(|parts| in_parts(1, "one", parts));
    ones.into_iter().chain([layout(2, "two")]).collect()
}

fn reader() -> OfferReader {
    OfferReader::new(known())
}

fn region(page_bytes: u64, part: u16) -> OfferedRegion {
    let keys = [0; MAX_RAILS];
    let table = (part == 0).then_some(TableOffer { base: 0, keys });
    let offer = RegionOffer { base: 0, page_bytes, stride: page_bytes, slots: 1, keys, table };
    OfferedRegion::new(offer).unwrap().of_part(part)
}

fn head() -> Message {
    let epoch = Epoch(NonZeroU64::new(9).unwrap());
    Message::Offer(OfferHead { node: "prefill-1".parse().unwrap(), epoch, rails: RailList::new() })
}

fn pool(id: u32, regions: u32) -> Message {
    let layout = in_parts(1, "the producer's", regions.max(1) as u16);
    Message::Pool(PoolHead { id: PoolId(id), layout, regions })
}

fn regions(pool: u32, first: u32, count: usize) -> Message {
    let regions = (0..count).map(|at| region(4096, first as u16 + at as u16)).collect();
    Message::Regions(PoolRegions { pool: PoolId(pool), first, regions })
}

fn unknown(fingerprint: u8) -> Message {
    Message::Unknown(layout(fingerprint, "theirs"))
}

fn gone(id: u32) -> Message {
    Message::Gone(PoolId(id))
}

/// The news of the last of `messages`. None of the others brings an error.
#[track_caller]
fn news(reader: &mut OfferReader, messages: Vec<Message>) -> Result<Option<OfferNews>, Cause> {
    let mut last = Ok(None);
    for message in messages {
        assert!(last.is_ok(), "{last:?}");
        last = reader.received(message);
    }
    last
}

#[track_caller]
fn change(reader: &mut OfferReader, messages: Vec<Message>) -> OfferChange {
    match news(reader, messages) {
        Ok(Some(OfferNews::Change(change))) => change,
        other => panic!("{other:?}"),
    }
}

/// A reader whose first offer, without a pool, is complete.
fn established() -> OfferReader {
    let mut reader = reader();
    let complete = news(&mut reader, vec![head(), Message::Offered]);
    assert!(matches!(complete, Ok(Some(OfferNews::Complete(_)))), "{complete:?}");
    reader
}

#[test]
fn an_offer_has_the_pools_of_known_layouts_and_each_other_layout_once() {
    let messages = vec![
        head(),
        pool(5, 3),
        regions(5, 0, 2),
        regions(5, 2, 1),
        unknown(3),
        pool(0, 1),
        regions(0, 0, 1),
        unknown(4),
        unknown(3),
        Message::Offered,
    ];
    let Ok(Some(OfferNews::Complete(offer))) = news(&mut reader(), messages) else { panic!("no offer") };
    assert_eq!(offer.producer.as_str(), "prefill-1");
    assert_eq!(offer.epoch, Epoch(NonZeroU64::new(9).unwrap()));
    let pools: Vec<_> = offer.pools.iter().map(|pool| (pool.id().0, pool.regions().len())).collect();
    assert_eq!(pools, [(5, 3), (0, 1)]);
    assert_eq!(offer.pools[0].layout().name.as_str(), "the producer's");
    assert_eq!(offer.unknown, [layout(3, "theirs"), layout(4, "theirs")]);
}

#[test]
fn a_session_goes_on_with_pools_that_come_and_go() {
    let mut reader = established();
    let came = change(&mut reader, vec![pool(5, 2), regions(5, 0, 1), regions(5, 1, 1)]);
    let OfferChange::Came(pool_5) = came else { panic!("{came:?}") };
    assert_eq!((pool_5.id(), pool_5.regions().len()), (PoolId(5), 2));
    assert_eq!(change(&mut reader, vec![unknown(3)]), OfferChange::Unknown(layout(3, "theirs")));
    assert!(matches!(reader.received(unknown(3)), Ok(None)), "each layout once");
    let one = change(&mut reader, vec![pool(6, 1), regions(6, 0, 1)]);
    assert!(matches!(one, OfferChange::Came(pool) if pool.regions().len() == 1));
    assert_eq!(change(&mut reader, vec![gone(5)]), OfferChange::Gone(PoolId(5)));
    assert_eq!(reader.regions, 1);
}

#[test]
fn a_pool_that_goes_before_the_offer_is_complete_is_not_in_it() {
    let messages =
        vec![head(), pool(5, 1), regions(5, 0, 1), pool(6, 1), regions(6, 0, 1), gone(5), Message::Offered];
    let Ok(Some(OfferNews::Complete(offer))) = news(&mut reader(), messages) else { panic!("no offer") };
    assert_eq!(offer.pools.iter().map(Pool::id).collect::<Vec<_>>(), [PoolId(6)]);
}

#[test]
fn messages_out_of_their_order_end_the_session() {
    let unexpected = [Message::Offered, pool(1, 1), gone(1), unknown(3)];
    for message in unexpected {
        let got = message.kind().unwrap();
        let result = reader().received(message);
        assert!(matches!(result, Err(Cause::Unexpected { got: kind }) if kind == got), "{result:?}");
    }
    let result = news(&mut reader(), vec![head(), Message::Alive]);
    assert!(matches!(result, Err(Cause::Unexpected { got: MessageKind::Alive })), "{result:?}");
    for (messages, text) in [
        (vec![regions(1, 0, 1)], "regions came that no pool announced"),
        (vec![head(), head()], "a second offer came"),
        (vec![head(), Message::Offered, head()], "a second offer came"),
        (vec![head(), Message::Offered, Message::Offered], "the first offer was complete already"),
        (vec![head(), pool(1, 1), pool(2, 1)], "another message of the offer came before all regions"),
        (vec![head(), pool(1, 1), Message::Offered], "another message of the offer came before all"),
        (vec![head(), pool(1, 1), unknown(3)], "another message of the offer came before all regions"),
        (vec![head(), pool(1, 1), gone(1)], "another message of the offer came before all regions"),
        (vec![head(), pool(1, 1), regions(1, 0, 1), regions(1, 1, 1)], "regions came that no pool announced"),
        (vec![head(), pool(1, 1), regions(2, 0, 1)], "regions came that are of another pool"),
        (vec![head(), pool(1, 2), regions(1, 1, 1)], "regions of a pool came out of their order"),
        (vec![head(), pool(1, 3), regions(1, 0, 1), regions(1, 0, 1)], "regions of a pool came out of"),
        (vec![head(), pool(1, 2), regions(1, 0, 3)], "a pool has more regions than it announced"),
        (vec![head(), gone(1)], "a pool has gone that was not offered"),
        (
            vec![head(), pool(1, 1), regions(1, 0, 1), gone(1), gone(1)],
            "a pool has gone that was not offered",
        ),
        (vec![head(), unknown(2)], "a layout that this side introduced came as an unknown one"),
        (
            vec![head(), Message::Pool(PoolHead { id: PoolId(1), layout: layout(3, "one"), regions: 1 })],
            "a pool came whose layout this side does not know",
        ),
    ] {
        let result = news(&mut reader(), messages);
        assert!(
            matches!(result, Err(Cause::Contradiction(got)) if got.starts_with(text)),
            "{result:?}, {text}"
        );
    }
}

#[test]
fn a_layout_is_known_by_its_bytes_and_not_by_its_name_or_its_ranks() {
    let with = |change: &dyn Fn(&mut Layout)| {
        let mut layout = layout(1, "another name");
        change(&mut layout);
        let regions = layout.parts.get().into();
        let pool = Message::Pool(PoolHead { id: PoolId(1), layout, regions });
        news(&mut reader(), vec![head(), pool])
    };
    assert!(with(&|_| ()).is_ok());
    assert!(with(&|layout| layout.any_rank = Fingerprint::from_bytes([8; 16])).is_ok());
    assert!(with(&|layout| layout.page_bytes = NonZeroU64::new(4097).unwrap()).is_err());
    assert!(with(&|layout| layout.parts = NonZeroU16::new(4).unwrap()).is_err());
}

#[test]
fn a_pool_whose_regions_cannot_hold_its_pages_ends_the_session() {
    let small = PoolRegions { pool: PoolId(1), first: 0, regions: vec![region(4095, 0)] };
    let result = news(&mut reader(), vec![head(), pool(1, 1), Message::Regions(small)]);
    let page = PoolError::Page { parts: 1, sum: 4095, layout: 4096 };
    assert!(matches!(result, Err(Cause::Pool(error)) if error == page), "{result:?}");
}

#[test]
fn a_pool_whose_pieces_are_not_whole_ends_the_session() {
    for count in [0, 1, 3, 1023] {
        let layout = in_parts(1, "the producer's", 2);
        let head_of = Message::Pool(PoolHead { id: PoolId(1), layout, regions: count });
        let result = news(&mut reader(), vec![head(), head_of]);
        let Err(Cause::Pool(error)) = result else { panic!("{result:?}") };
        let wrong = PoolError::Regions { count: count as usize, parts: 2 };
        assert_eq!((error, error.code()), (wrong, 4057));
    }
}

#[test]
fn a_pool_comes_in_pieces() {
    let layout = in_parts(1, "the producer's", 2);
    let head_of = Message::Pool(PoolHead { id: PoolId(1), layout, regions: 4 });
    let with = |parts: [u16; 4]| {
        let regions = |first: u32| PoolRegions {
            pool: PoolId(1),
            first,
            regions: parts[first as usize..][..2].iter().map(|&part| region(4096, part)).collect(),
        };
        let mut reader = reader();
        let messages = [head(), head_of.clone(), Message::Regions(regions(0)), Message::Regions(regions(2))];
        news(&mut reader, messages.into()).map(|_| reader)
    };
    let last = with([0, 1, 0, 1]).and_then(|mut reader| reader.received(Message::Offered));
    let Ok(Some(OfferNews::Complete(offer))) = last else { panic!("{last:?}") };
    let pieces: Vec<_> = offer.pools[0].pieces().map(|piece| [piece[0].part(), piece[1].part()]).collect();
    assert_eq!(pieces, [[0, 1], [0, 1]]);
    let result = with([0, 0, 1, 1]);
    let wrong = PoolError::Part { index: 1, part: 0, parts: 2 };
    assert!(matches!(result, Err(Cause::Pool(error)) if error == wrong), "{result:?}");
}

#[test]
fn a_number_names_one_pool_of_a_session() {
    for messages in [
        vec![head(), pool(4, 1), regions(4, 0, 1), pool(4, 1)],
        vec![head(), pool(4, 1), regions(4, 0, 1), gone(4), pool(4, 1)],
        vec![head(), pool(4, 1), regions(4, 0, 1), Message::Offered, gone(4), pool(4, 1)],
    ] {
        let result = news(&mut reader(), messages);
        let Err(Cause::Pool(error)) = result else { panic!("{result:?}") };
        assert_eq!((error, error.code()), (PoolError::DuplicateId { id: PoolId(4) }, 4054));
        assert!(error.to_string().starts_with("the number of pool 4 was used before"), "{error}");
    }
}

/// A session may live for months, and its pools come and go.
#[test]
fn the_numbers_of_gone_pools_take_bounded_memory() {
    let mut reader = established();
    let newest = 3 * MAX_GONE as u32;
    for id in 0..=newest {
        change(&mut reader, vec![pool(id, 1), regions(id, 0, 1)]);
        change(&mut reader, vec![gone(id)]);
        assert!(reader.gone.len() <= MAX_GONE);
    }
    assert!(reader.received(pool(newest, 1)).is_err(), "used a moment ago");
}

#[test]
fn pools_and_unknown_layouts_are_bounded() {
    let mut reader = established();
    for id in 0..MAX_POOLS as u32 {
        change(&mut reader, vec![pool(id, 1), regions(id, 0, 1)]);
    }
    let result = reader.received(pool(900, 1));
    let Err(Cause::Pool(error)) = result else { panic!("{result:?}") };
    assert_eq!((error, error.code()), (PoolError::TooManyPools { id: PoolId(900) }, 4055));
    assert!(error.to_string().contains("pool 900 is one more than the 256 pools"), "{error}");

    let mut reader = established();
    let one_of = |number: u64| {
        let page_bytes = NonZeroU64::new(number + 1).unwrap();
        Message::Unknown(Layout { page_bytes, ..layout(3, "theirs") })
    };
    for number in 0..MAX_POOLS as u64 {
        change(&mut reader, vec![one_of(number)]);
    }
    assert!(matches!(reader.received(one_of(3)), Ok(None)), "a repetition is none more");
    assert!(matches!(reader.received(one_of(256)), Err(Cause::Contradiction(_))));
}

#[test]
fn the_regions_of_all_pools_are_bounded() {
    let mut reader = established();
    let full = |id| {
        let pieces = MAX_REGIONS / MESSAGE_REGIONS;
        let mut messages = vec![pool(id, MAX_REGIONS as u32)];
        messages.extend((0..pieces).map(|i| regions(id, (i * MESSAGE_REGIONS) as u32, MESSAGE_REGIONS)));
        messages
    };
    let pools = (MAX_OFFERED_REGIONS / MAX_REGIONS) as u32;
    for id in 0..pools {
        change(&mut reader, full(id));
    }
    change(&mut reader, vec![gone(3)]);
    change(&mut reader, full(100));
    let result = reader.received(pool(102, 1));
    let Err(Cause::Pool(error)) = result else { panic!("{result:?}") };
    let too_many = PoolError::TooManyOffered { id: PoolId(102), count: MAX_OFFERED_REGIONS + 1 };
    assert_eq!((error, error.code()), (too_many, 4056));
    assert!(error.to_string().contains("with pool 102, all pools have 16385 regions"), "{error}");
}

#[test]
fn an_announced_number_of_regions_reserves_no_room() {
    let mut reader = reader();
    news(&mut reader, vec![head(), pool(1, MAX_REGIONS as u32)]).unwrap();
    assert_eq!(reader.next.as_ref().map(|next| next.regions.capacity()), Some(0));
    reader.received(regions(1, 0, 3)).unwrap();
    assert!(reader.next.is_some_and(|next| next.regions.capacity() <= 8));
}

proptest! {
    /// However a pool is cut into messages, it is the same pool.
    #[test]
    fn a_pool_comes_in_pieces_of_any_size(
        pieces in prop::collection::vec(1..=MESSAGE_REGIONS, 1..16),
    ) {
        let total: usize = pieces.iter().sum();
        let mut messages = vec![pool(1, total as u32)];
        let mut first = 0;
        for piece in pieces {
            messages.push(regions(1, first, piece));
            first += piece as u32;
        }
        let mut reader = OfferReader::new(vec![in_parts(1, "one", total as u16)]);
        news(&mut reader, vec![head(), Message::Offered]).unwrap();
        let OfferChange::Came(pool) = change(&mut reader, messages) else { panic!("no pool") };
        prop_assert_eq!(pool.regions().len(), total);
    }

    /// Any messages in any order leave a reader within its bounds, or end the session.
    #[test]
    fn arbitrary_messages_keep_the_bounds(
        messages in prop::collection::vec(
            prop_oneof![
                4 => (0..8_u32, 1..4_u32).prop_map(|(id, count)| pool(id, count)),
                8 => (0..8_u32, 0..4_u32, 0..3_usize).prop_map(|(id, first, n)| regions(id, first, n + 1)),
                2 => (0..8_u32).prop_map(gone),
                1 => (1..6_u8).prop_map(unknown),
                1 => Just(Message::Offered),
                1 => arbitrary::message(),
            ],
            0..40,
        ),
    ) {
        let mut reader = reader();
        reader.received(head()).unwrap();
        for message in messages {
            // A peer's error is not the end of this test: the bounds hold after it, too.
            let _ = reader.received(message);
            let announced = reader.next.as_ref().map_or(0, |next| next.head.regions as usize);
            prop_assert_eq!(reader.pools.values().sum::<usize>() + announced, reader.regions);
            prop_assert!(reader.regions <= MAX_OFFERED_REGIONS);
            prop_assert!(reader.pools.keys().all(|id| !reader.gone.contains(id)));
        }
    }
}
