//! What a reader does with the messages of its producer.

use super::*;

fn events(reader: &mut Takings) -> Vec<TakingEvent> {
    std::iter::from_fn(|| reader.next_event()).collect()
}

/// A reader whose first taking is taken.
fn reader() -> (Takings, Instant) {
    let (mut reader, now) = (Takings::new(TakingsConfig::default()), Instant::now());
    reader.take(REQUEST, URGENT, secs(10), now).unwrap();
    assert!(matches!(reader.next_message(now), Some(HandoverMessage::Take { .. })));
    reader.received(taken(1), now).unwrap();
    assert_eq!(events(&mut reader), [TakingEvent::Taken { number: number(1) }]);
    (reader, now)
}

fn grown(first: u32, blocks: Vec<Block>) -> HandoverMessage {
    HandoverMessage::Blocks { number: number(1), first, blocks }
}

fn ready(first: u32, count: u32, ready: u32) -> HandoverMessage {
    HandoverMessage::Ready { number: number(1), first, count, ready }
}

fn complete(blocks: u32) -> HandoverMessage {
    HandoverMessage::Complete { number: number(1), blocks }
}

#[test]
fn events_say_the_newest_state_of_a_list_that_can_be_read_as_a_slice() {
    let (mut reader, now) = reader();
    let number = number(1);
    assert_eq!(reader.blocks(number), []);
    reader.received(grown(0, blocks(0..2, 1)), now).unwrap();
    reader.received(grown(2, blocks(2..4, 0)), now).unwrap();
    reader.received(ready(0, 4, 2), now).unwrap();
    assert_eq!(events(&mut reader), [TakingEvent::Grown { number, places: 0..4 }]);
    assert_eq!(reader.blocks(number), blocks(0..4, 2));
    reader.received(ready(0, 2, 3), now).unwrap();
    reader.received(ready(0, 4, 5), now).unwrap();
    reader.received(grown(4, blocks(4..5, 0)), now).unwrap();
    reader.received(ready(0, 4, 5), now).unwrap();
    reader.received(ready(4, 1, 9), now).unwrap();
    reader.received(complete(5), now).unwrap();
    assert_eq!(
        events(&mut reader),
        [
            TakingEvent::Grown { number, places: 4..5 },
            TakingEvent::Ready { number, places: 0..4, parts: 5 },
            TakingEvent::Complete { number },
        ]
    );
    assert!(reader.is_complete(number));
    assert_eq!(reader.blocks(number)[4].ready, 9);
}

#[test]
fn a_list_without_its_middle_is_an_error() {
    let (mut reader, now) = reader();
    reader.received(grown(0, blocks(0..2, 1)), now).unwrap();
    for place in [0, 1, 3] {
        let gap = HandoverProtocolError::Gap { message: "Blocks", number: number(1), place, blocks: 2 };
        assert_eq!(reader.received(grown(place, blocks(2..3, 1)), now), Err(gap));
    }
    let short = HandoverProtocolError::Gap { message: "Complete", number: number(1), place: 3, blocks: 2 };
    assert_eq!(reader.received(complete(3), now), Err(short));
    assert_eq!(reader.blocks(number(1)).len(), 2, "nothing has changed");
    reader.received(complete(2), now).unwrap();
}

#[test]
fn ready_parts_never_become_fewer_and_are_of_blocks_that_are_known() {
    let (mut reader, now) = reader();
    reader.received(grown(0, blocks(0..3, 4)), now).unwrap();
    reader.received(ready(1, 1, 6), now).unwrap();
    let fell = HandoverProtocolError::ReadyFell { number: number(1), place: 1, from: 6, to: 5 };
    assert_eq!(reader.received(ready(0, 3, 5), now), Err(fell));
    assert_eq!(
        fell.to_string(),
        "the producer says that 5 parts of block 1 of hand-over 1 are ready, after 6"
    );
    assert_eq!(reader.blocks(number(1))[0].ready, 4, "nothing has changed");
    for (first, count) in [(0, 4), (3, 1), (1, 0), (u32::MAX, u32::MAX)] {
        let range = HandoverProtocolError::ReadyRange { number: number(1), first, count, blocks: 3 };
        assert_eq!(reader.received(ready(first, count, 9), now), Err(range));
    }
}

#[test]
fn messages_come_in_the_order_of_a_hand_over() {
    let (mut reader, now) = reader();
    let mut code = |message| reader.received(message, now).map_err(|error| error.code());
    assert_eq!(code(taken(1)), Err(4212));
    assert_eq!(code(complete(0)), Ok(()));
    assert_eq!(code(grown(0, blocks(0..1, 0))), Err(4212));
    assert_eq!(code(complete(0)), Err(4212));
    assert_eq!(code(HandoverMessage::Done { number: number(1) }), Err(4208));
    reader.take(REQUEST, URGENT, secs(1), now).unwrap();
    let second = HandoverMessage::Complete { number: number(2), blocks: 0 };
    assert_eq!(reader.received(second.clone(), now).unwrap_err().code(), 4209, "not sent yet");
    reader.next_message(now).unwrap();
    assert_eq!(reader.received(second, now).unwrap_err().code(), 4212, "not taken");
    let lease = HandoverMessage::Taken { number: number(2), lease: secs(5), renew_every: secs(5) };
    assert_eq!(reader.received(lease, now).unwrap_err().code(), 4214);
    let unread = reader.received(grown(0, blocks(0..1025, 0)), now).unwrap_err();
    assert_eq!(unread, HandoverProtocolError::Items { message: "Blocks", count: 1025 });
}

#[test]
fn messages_under_way_to_a_taking_that_is_over_are_dropped_and_nonsense_is_an_error() {
    let (mut reader, now) = reader();
    reader.received(grown(0, blocks(0..2, 1)), now).unwrap();
    reader.done(number(1)).unwrap();
    assert_eq!(reader.next_message(now), Some(HandoverMessage::Done { number: number(1) }));
    for message in [grown(2, blocks(2..3, 1)), ready(0, 1, 2), complete(3), ended(1, EndReason::Expired)] {
        assert_eq!(reader.received(message, now), Ok(()));
    }
    assert_eq!((events(&mut reader), reader.next_message(now)), (vec![], None));
    let never = HandoverProtocolError::NeverUsed { message: "Ended", number: number(2), last: 1 };
    assert_eq!(reader.received(ended(2, EndReason::Aborted), now), Err(never));
    assert_eq!(reader.done(number(1)), Err(TakingError::NotOpen { number: number(1) }));
}

#[test]
fn a_list_beyond_the_readers_own_limit_ends_its_taking_alone() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig { max_blocks: 4, ..TakingsConfig::default() });
    for n in 1..=2 {
        reader.take(RequestId(n), URGENT, secs(1), now).unwrap();
        reader.next_message(now).unwrap();
    }
    reader.received(taken(1), now).unwrap();
    reader.received(taken(2), now).unwrap();
    events(&mut reader);
    reader.received(grown(0, blocks(0..3, 1)), now).unwrap();
    reader.received(grown(3, blocks(3..5, 1)), now).unwrap();
    reader.received(complete(5), now).unwrap();
    assert_eq!(events(&mut reader), [TakingEvent::TooLong { number: number(1), blocks: 5, max: 4 }]);
    let no_room = HandoverMessage::GiveUp { number: number(1), reason: GiveUpReason::NoRoom };
    assert_eq!((reader.next_message(now), reader.next_message(now)), (Some(no_room), None));
    assert_eq!(reader.open_count(), 1);
    let other = HandoverMessage::Blocks { number: number(2), first: 0, blocks: blocks(0..4, 1) };
    reader.received(other, now).unwrap();
}

#[test]
fn takings_have_a_limit_and_one_that_the_producer_ended_counts_until_the_owner_knows() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig { max_takings: 1, ..TakingsConfig::default() });
    reader.take(REQUEST, URGENT, secs(1), now).unwrap();
    reader.next_message(now).unwrap();
    reader.received(ended(1, EndReason::Rejected), now).unwrap();
    let full = TakingError::TooMany { request: RequestId(8), open: 1, max: 1 };
    assert_eq!(reader.take(RequestId(8), URGENT, secs(1), now), Err(full));
    let over = TakingEvent::Ended { number: number(1), reason: EndReason::Rejected };
    assert_eq!(reader.next_event(), Some(over));
    assert_eq!(reader.take(RequestId(8), URGENT, secs(1), now), Ok(number(2)));
}

#[test]
fn a_taking_that_was_not_sent_can_be_given_up_without_a_word() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig::default());
    let first = reader.take(REQUEST, URGENT, secs(99), now).unwrap();
    assert_eq!(reader.done(first), Err(TakingError::NotTaken { number: first }));
    reader.give_up(first, GiveUpReason::ClientGone).unwrap();
    assert_eq!(reader.next_message(now), None);
    let second = reader.take(REQUEST, URGENT, secs(99), now).unwrap();
    let take = HandoverMessage::Take { number: second, request: REQUEST, class: URGENT, wait: MAX_WAIT };
    assert_eq!(reader.next_message(now), Some(take), "the wait is cut to what a producer accepts");
    reader.give_up(second, GiveUpReason::ClientGone).unwrap();
    let gone = HandoverMessage::GiveUp { number: second, reason: GiveUpReason::ClientGone };
    assert_eq!((reader.next_message(now), reader.next_message(now)), (Some(gone), None));
    assert_eq!((reader.open_count(), reader.due()), (0, None));
}

#[test]
fn a_taking_without_an_answer_is_given_up_after_its_wait_and_half_a_minute() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig::default());
    let asked = reader.take(REQUEST, URGENT, secs(10), now).unwrap();
    reader.next_message(now).unwrap();
    assert_eq!(reader.due(), Some(now + secs(40)));
    reader.tick(now + secs(40));
    assert_eq!(events(&mut reader), [TakingEvent::Unanswered { number: asked }]);
    let failed = HandoverMessage::GiveUp { number: asked, reason: GiveUpReason::Failed };
    assert_eq!(reader.next_message(now + secs(40)), Some(failed));
    assert_eq!(reader.received(taken(1), now + secs(41)), Ok(()), "an answer that comes late is dropped");
    assert_eq!((reader.open_count(), reader.due()), (0, None));
}

#[test]
fn takings_with_events_take_turns() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig::default());
    for n in 1..=2 {
        reader.take(RequestId(n), URGENT, secs(1), now).unwrap();
        reader.next_message(now).unwrap();
    }
    for n in 1..=2 {
        reader.received(taken(n), now).unwrap();
        let number = number(n);
        reader.received(HandoverMessage::Complete { number, blocks: 0 }, now).unwrap();
    }
    let numbers: Vec<_> = events(&mut reader)
        .iter()
        .map(|event| match event {
            TakingEvent::Taken { number } | TakingEvent::Complete { number } => number.0.get(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(numbers, [1, 2, 1, 2]);
}

/// A `Renew` has at most 1024 numbers, so the renewal of more takings is several messages.
#[test]
fn leases_are_renewed_again_where_the_last_takings_of_a_renewal_are_over() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig { max_takings: 1025, ..TakingsConfig::default() });
    for n in 1..=1025 {
        reader.take(RequestId(n.into()), URGENT, secs(1), now).unwrap();
        reader.next_message(now).unwrap();
        reader.received(taken(n), now).unwrap();
    }
    let renewed = |message| match message {
        Some(HandoverMessage::Renew { numbers }) => numbers.len(),
        other => panic!("{other:?}"),
    };
    let now = now + secs(5);
    assert_eq!(renewed(reader.next_message(now)), MAX_MESSAGE_RENEWALS);
    reader.done(number(1025)).unwrap();
    let done = HandoverMessage::Done { number: number(1025) };
    assert_eq!((reader.next_message(now), reader.next_message(now)), (Some(done), None));
    assert_eq!(reader.due(), Some(now + secs(5)), "the others are renewed when it is time");
    assert_eq!(renewed(reader.next_message(now + secs(5))), MAX_MESSAGE_RENEWALS);
}

#[test]
fn an_answer_may_be_waited_for_as_long_as_the_owner_likes() {
    let now = Instant::now();
    let config = TakingsConfig { answer_within: Duration::MAX, ..TakingsConfig::default() };
    let mut reader = Takings::new(config);
    reader.take(REQUEST, URGENT, secs(1), now).unwrap();
    reader.next_message(now).unwrap();
    reader.tick(now + secs(3600));
    assert_eq!(events(&mut reader), []);
}
