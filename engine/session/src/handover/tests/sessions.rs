//! What readers may say to a producer.

use super::*;

#[test]
fn a_taker_waits_for_an_unknown_request_and_then_is_told() {
    let (mut producer, now) = producer();
    take(&mut producer, now);
    assert_eq!(said(&mut producer, A, now), []);
    assert_eq!(producer.due(), Some(now + secs(10)));
    let at = now + secs(10);
    producer.tick(at);
    assert_eq!(said(&mut producer, A, at), [ended(1, EndReason::Unknown)]);
    assert_eq!((producer.waiting_count(), producer.due()), (0, None));
}

#[test]
fn one_taker_gets_a_request_and_it_is_the_first_that_waits() {
    let (mut producer, now) = producer();
    producer.take(B, number(1), REQUEST, URGENT, secs(10), now).unwrap();
    take(&mut producer, now);
    producer.open(REQUEST, now).unwrap();
    producer.take(A, number(2), REQUEST, URGENT, secs(10), now).unwrap();
    assert_eq!(said(&mut producer, B, now), [taken(1)]);
    let other = EndReason::TakenByOther;
    assert_eq!(said(&mut producer, A, now), [ended(1, other), ended(2, other)]);
}

#[test]
fn a_session_waits_for_as_many_requests_as_the_limit_says() {
    let (mut producer, now) = producer_of(HandoverConfig { max_waiting: 2, ..HandoverConfig::default() });
    for n in 1..=3 {
        producer.take(A, number(n), RequestId(n.into()), URGENT, secs(10), now).unwrap();
    }
    producer.take(B, number(1), RequestId(1), URGENT, secs(10), now).unwrap();
    assert_eq!(said(&mut producer, A, now), [ended(3, EndReason::TooMany)]);
    assert_eq!(said(&mut producer, B, now), [], "the limit is per session");
    producer.give_up(A, number(1), GiveUpReason::ClientGone, now).unwrap();
    producer.take(A, number(4), RequestId(4), URGENT, secs(10), now).unwrap();
    assert_eq!(said(&mut producer, A, now), []);
    assert_eq!(producer.waiting_count(), 3);
}

#[test]
fn done_and_give_up_end_a_hand_over_and_nothing_more_is_said_of_it() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    producer.append(id, &blocks(0..3, 1)).unwrap();
    take(&mut producer, now);
    assert_eq!(producer.next_message(A, now), Some(taken(1)));
    producer.done(A, number(1), now).unwrap();
    assert_eq!(said(&mut producer, A, now), []);
    assert_eq!(outcomes(&mut producer), [(id, HandoverOutcome::Done, 3)]);
    let id = producer.open(REQUEST, now).unwrap();
    producer.take(A, number(2), REQUEST, URGENT, secs(10), now).unwrap();
    producer.give_up(A, number(2), GiveUpReason::NoRoom, now).unwrap();
    assert_eq!(said(&mut producer, A, now), []);
    assert_eq!(outcomes(&mut producer), [(id, HandoverOutcome::GivenUp(GiveUpReason::NoRoom), 0)]);
    // What was under way for the two when they ended.
    producer.renew(A, &[number(1), number(2)], now).unwrap();
    producer.done(A, number(2), now).unwrap();
    assert_eq!(outcomes(&mut producer), []);
}

#[test]
fn an_abort_leaves_nothing_to_say_but_the_end() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    take(&mut producer, now);
    producer.append(id, &blocks(0..2000, 1)).unwrap();
    producer.next_message(A, now).unwrap();
    producer.next_message(A, now).unwrap();
    producer.set_ready(id, 0..2000, 2).unwrap();
    producer.abort(id, now).unwrap();
    assert_eq!(said(&mut producer, A, now), [ended(1, EndReason::Aborted)]);
}

#[test]
fn a_lost_session_frees_its_hand_overs_at_once_and_no_others() {
    let (mut producer, now) = producer();
    let lost = producer.open(REQUEST, now).unwrap();
    let kept = producer.open(RequestId(8), now).unwrap();
    take(&mut producer, now);
    producer.take(B, number(1), RequestId(8), URGENT, secs(10), now).unwrap();
    producer.take(A, number(2), RequestId(9), URGENT, secs(10), now).unwrap();
    producer.session_lost(A, now);
    assert_eq!(outcomes(&mut producer), [(lost, HandoverOutcome::SessionLost, 0)]);
    assert_eq!(producer.waiting_count(), 0);
    assert_eq!(producer.next_session(), Some(B), "and not the lost one");
    assert_eq!(said(&mut producer, B, now), [taken(1)]);
    // A thread of the lost session that comes late changes nothing.
    producer.take(A, number(3), RequestId(8), URGENT, secs(10), now).unwrap();
    producer.done(A, number(1), now).unwrap();
    assert_eq!(said(&mut producer, A, now), []);
    assert_eq!((producer.open_count(), producer.of_request(RequestId(8))), (1, Some(kept)));
}

#[test]
fn numbers_of_a_session_rise_and_one_that_was_never_used_is_an_error() {
    let (mut producer, now) = producer();
    let never = |message| HandoverProtocolError::NeverUsed { message, number: number(3), last: 2 };
    producer.take(A, number(2), REQUEST, URGENT, secs(10), now).unwrap();
    let reused = HandoverProtocolError::NumberReused { number: number(2), last: 2 };
    assert_eq!(producer.take(A, number(2), REQUEST, URGENT, secs(10), now), Err(reused));
    assert_eq!(producer.take(A, number(1), REQUEST, URGENT, secs(10), now).unwrap_err().code(), 4210);
    assert_eq!(producer.renew(A, &[number(3)], now), Err(never("Renew")));
    assert_eq!(producer.done(A, number(3), now), Err(never("Done")));
    assert_eq!(producer.give_up(A, number(3), GiveUpReason::Failed, now), Err(never("GiveUp")));
    let early = HandoverProtocolError::Order { message: "Done", number: number(2), state: "not taken yet" };
    assert_eq!(producer.done(A, number(2), now), Err(early));
    producer.take(B, number(2), REQUEST, URGENT, secs(10), now).unwrap();
}

#[test]
fn a_readers_messages_have_bounds_and_a_direction() {
    let (mut producer, now) = producer_of(HandoverConfig { max_unread: 3, ..HandoverConfig::default() });
    let wait = producer.take(A, number(1), REQUEST, URGENT, secs(61), now);
    assert_eq!(wait, Err(HandoverProtocolError::Wait { number: number(1), wait: secs(61) }));
    assert_eq!(producer.renew(A, &[number(1); 1025], now).unwrap_err().code(), 4214);
    assert_eq!(producer.received(A, &taken(1), now).unwrap_err().code(), 4208);
    for n in 1..=3 {
        producer.take(A, number(n), REQUEST, URGENT, Duration::ZERO, now).unwrap();
    }
    let unread = HandoverProtocolError::Unread { number: number(4), unread: 3, max: 3 };
    assert_eq!(producer.take(A, number(4), REQUEST, URGENT, Duration::ZERO, now), Err(unread));
    assert_eq!(said(&mut producer, A, now).len(), 3);
    producer.take(A, number(4), REQUEST, URGENT, Duration::ZERO, now).unwrap();
}

#[test]
fn a_session_that_reads_nothing_keeps_no_turns_of_hand_overs_that_have_ended() {
    let (mut producer, now) = producer();
    for n in 1..=5000 {
        let id = producer.open(REQUEST, now).unwrap();
        producer.append(id, &blocks(0..1, 1)).unwrap();
        producer.take(A, number(n), REQUEST, URGENT, secs(10), now).unwrap();
        assert_eq!(producer.queued_count(), 1);
        producer.give_up(A, number(n), GiveUpReason::ClientGone, now).unwrap();
        assert_eq!(outcomes(&mut producer).len(), 1);
    }
    assert_eq!((producer.queued_count(), said(&mut producer, A, now)), (0, vec![]));
}

#[test]
fn a_session_is_announced_once_until_it_has_fetched_all() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    assert_eq!(producer.next_session(), None);
    take(&mut producer, now);
    producer.append(id, &blocks(0..1, 0)).unwrap();
    assert_eq!((producer.next_session(), producer.next_session()), (Some(A), None));
    producer.set_ready(id, 0..1, 1).unwrap();
    assert_eq!(producer.next_session(), None, "its thread is fetching");
    said(&mut producer, A, now);
    producer.set_ready(id, 0..1, 1).unwrap();
    assert_eq!(producer.next_session(), None, "nothing has changed");
    producer.abort(id, now).unwrap();
    assert_eq!((producer.next_session(), producer.next_session()), (Some(A), None));
}
