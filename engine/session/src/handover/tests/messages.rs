//! What a producer says, in which order, and how little of it.

use super::*;

/// A hand-over of `REQUEST` that session `A` has taken as number 1, and that has told so.
fn taken_one() -> (Handovers, Instant, HandoverId) {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    take(&mut producer, now);
    assert_eq!(said(&mut producer, A, now), [taken(1)]);
    (producer, now, id)
}

fn ready(first: u32, count: u32, ready: u32) -> HandoverMessage {
    HandoverMessage::Ready { number: number(1), first, count, ready }
}

#[test]
fn a_list_goes_in_messages_of_1024_blocks_with_the_parts_ready_at_that_time() {
    let (mut producer, now, id) = taken_one();
    producer.append(id, &blocks(0..2500, 0)).unwrap();
    producer.set_ready(id, 0..1500, 2).unwrap();
    producer.complete(id).unwrap();
    let messages = said(&mut producer, A, now);
    let mut list = Vec::new();
    for (message, length) in messages.iter().zip([1024, 1024, 452]) {
        let HandoverMessage::Blocks { first, blocks, .. } = message else { panic!("{message:?}") };
        assert_eq!((*first as usize, blocks.len()), (list.len(), length));
        list.extend(blocks.iter().copied());
    }
    assert!(list.iter().enumerate().all(|(at, block)| block.ready == if at < 1500 { 2 } else { 0 }));
    assert_eq!(messages[3..], [HandoverMessage::Complete { number: number(1), blocks: 2500 }]);
}

#[test]
fn a_slow_session_gets_the_newest_parts_in_one_message() {
    let (mut producer, now, id) = taken_one();
    producer.append(id, &blocks(0..65_536, 0)).unwrap();
    assert_eq!(said(&mut producer, A, now).len(), 64);
    for layer in 1..=61 {
        producer.set_ready(id, 0..65_536, layer).unwrap();
    }
    assert_eq!(said(&mut producer, A, now), [ready(0, 65_536, 61)]);
}

#[test]
fn neighbours_with_equal_parts_are_one_message_and_others_are_not_repeated() {
    let (mut producer, now, id) = taken_one();
    producer.append(id, &blocks(0..10, 1)).unwrap();
    said(&mut producer, A, now);
    producer.set_ready(id, 0..2, 5).unwrap();
    producer.set_ready(id, 4..6, 5).unwrap();
    assert_eq!(said(&mut producer, A, now), [ready(0, 2, 5), ready(4, 2, 5)]);
    producer.set_ready(id, 2..4, 5).unwrap();
    assert_eq!(said(&mut producer, A, now), [ready(0, 6, 5)]);
    producer.set_ready(id, 0..10, 4).unwrap();
    assert_eq!(said(&mut producer, A, now), [ready(6, 4, 4)]);
    producer.set_ready(id, 0..10, 4).unwrap();
    assert_eq!(said(&mut producer, A, now), []);
}

#[test]
fn parts_of_blocks_that_were_not_sent_come_with_the_blocks() {
    let (mut producer, now, id) = taken_one();
    producer.append(id, &blocks(0..1, 0)).unwrap();
    said(&mut producer, A, now);
    producer.append(id, &blocks(1..2, 0)).unwrap();
    producer.set_ready(id, 0..2, 3).unwrap();
    let messages = said(&mut producer, A, now);
    let HandoverMessage::Blocks { first: 1, blocks, .. } = &messages[0] else { panic!("{messages:?}") };
    assert_eq!(blocks[0].ready, 3);
    // The run of equal parts is told whole: the second block's count is repeated, and one message
    // is enough.
    assert_eq!(messages[1..], [ready(0, 2, 3)]);
}

#[test]
fn a_reader_that_takes_late_gets_everything() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    producer.append(id, &blocks(0..3, 0)).unwrap();
    producer.set_ready(id, 0..3, 2).unwrap();
    producer.complete(id).unwrap();
    take(&mut producer, now);
    let list = blocks(0..3, 2);
    assert_eq!(
        said(&mut producer, A, now),
        [
            taken(1),
            HandoverMessage::Blocks { number: number(1), first: 0, blocks: list },
            HandoverMessage::Complete { number: number(1), blocks: 3 },
        ]
    );
}

/// `count` hand-overs of a class for session `A`, numbered from `first` on, each with more to say
/// than a test fetches.
fn busy(producer: &mut Handovers, first: u32, count: u32, class: Class, now: Instant) {
    for n in first..first + count {
        let id = producer.open(RequestId(n.into()), now).unwrap();
        producer.take(A, number(n), RequestId(n.into()), class, secs(1), now).unwrap();
        producer.append(id, &blocks(0..65_536, 0)).unwrap();
    }
}

fn turns(producer: &mut Handovers, now: Instant, count: usize) -> Vec<u32> {
    (0..count)
        .map(|_| match producer.next_message(A, now) {
            Some(HandoverMessage::Taken { number, .. } | HandoverMessage::Blocks { number, .. }) => {
                number.0.get()
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn hand_overs_of_one_class_take_turns() {
    let (mut producer, now) = producer();
    busy(&mut producer, 1, 3, URGENT, now);
    assert_eq!(turns(&mut producer, now, 9), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
}

#[test]
fn the_background_has_one_turn_of_sixteen_and_all_when_nothing_is_urgent() {
    let (mut producer, now) = producer();
    busy(&mut producer, 1, 2, URGENT, now);
    busy(&mut producer, 3, 2, Class::Background, now);
    let turns = turns(&mut producer, now, 64);
    for sixteen in turns.chunks(16) {
        assert_eq!(sixteen.iter().filter(|&&number| number > 2).count(), 1, "{turns:?}");
        assert!(sixteen[15] > 2);
    }
    assert_eq!([turns[15], turns[31], turns[47], turns[63]], [3, 4, 3, 4]);
    producer.give_up(A, number(1), GiveUpReason::ClientGone, now).unwrap();
    producer.give_up(A, number(2), GiveUpReason::ClientGone, now).unwrap();
    assert_eq!(self::turns(&mut producer, now, 4), [3, 4, 3, 4]);
}

#[test]
fn an_end_comes_before_everything_else() {
    let (mut producer, now) = producer();
    busy(&mut producer, 1, 2, URGENT, now);
    turns(&mut producer, now, 5);
    let id = producer.of_request(RequestId(2)).unwrap();
    producer.abort(id, now).unwrap();
    assert_eq!(producer.next_message(A, now), Some(ended(2, EndReason::Aborted)));
    assert_eq!(turns(&mut producer, now, 3), [1, 1, 1]);
}
