//! How long pages stay, and for whom.

use super::*;

#[test]
fn an_opened_request_that_no_reader_takes_ends_with_its_lease() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    producer.append(id, &blocks(0..3, 0)).unwrap();
    producer.complete(id).unwrap();
    assert_eq!(producer.due(), Some(now + secs(30)));
    producer.tick(now + secs(30) - Duration::from_nanos(1));
    assert_eq!(outcomes(&mut producer), []);
    producer.tick(now + secs(30));
    assert_eq!(outcomes(&mut producer), [(id, HandoverOutcome::Expired, 3)]);
}

#[test]
fn a_taken_one_lives_while_it_is_renewed_complete_or_not() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    take(&mut producer, now + secs(20));
    producer.complete(id).unwrap();
    assert_eq!(producer.due(), Some(now + secs(50)), "the lease begins anew when it is taken");
    for at in (40..400).step_by(20) {
        producer.renew(A, &[number(1)], now + secs(at)).unwrap();
        assert_eq!(producer.due(), Some(now + secs(at + 30)));
    }
    // A call with an earlier time, from a thread that waited for the lock, shortens nothing.
    producer.renew(A, &[number(1)], now + secs(370)).unwrap();
    producer.tick(now + secs(409));
    assert_eq!(outcomes(&mut producer), []);
    said(&mut producer, A, now + secs(409));
    producer.tick(now + secs(410));
    assert_eq!(outcomes(&mut producer), [(id, HandoverOutcome::Expired, 0)]);
    assert_eq!(said(&mut producer, A, now + secs(410)), [ended(1, EndReason::Expired)]);
}

#[test]
fn a_renewal_after_the_lease_finds_it_expired_though_no_tick_came_between() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    take(&mut producer, now);
    said(&mut producer, A, now);
    let late = now + secs(30);
    producer.renew(A, &[number(1)], late).unwrap();
    assert_eq!(said(&mut producer, A, late), [ended(1, EndReason::Expired)]);
    assert_eq!(outcomes(&mut producer), [(id, HandoverOutcome::Expired, 0)]);
    // So does one after that: it was under way when the reader was told.
    producer.renew(A, &[number(1)], late).unwrap();
    assert_eq!((said(&mut producer, A, late), outcomes(&mut producer)), (vec![], vec![]));
}

#[test]
fn a_reader_renews_all_takings_in_one_message() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig::default());
    for request in 0..3 {
        reader.take(RequestId(request), URGENT, secs(1), now).unwrap();
    }
    while reader.next_message(now).is_some() {}
    reader.received(taken(1), now).unwrap();
    reader.received(taken(2), now + secs(1)).unwrap();
    assert_eq!(reader.next_message(now + secs(4)), None);
    assert_eq!(reader.due(), Some(now + secs(5)));
    let renewal = HandoverMessage::Renew { numbers: vec![number(1), number(2)] };
    for at in [5, 10, 15] {
        assert_eq!(reader.next_message(now + secs(at)), Some(renewal.clone()));
        assert_eq!(reader.next_message(now + secs(at)), None);
    }
    reader.done(number(1)).unwrap();
    reader.give_up(number(2), GiveUpReason::ClientGone).unwrap();
    while reader.next_message(now + secs(15)).is_some() {}
    assert_eq!(reader.next_message(now + secs(25)), None, "nothing to renew");
}

#[test]
fn more_takings_than_a_message_holds_are_renewed_by_several() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig { max_takings: 3000, ..TakingsConfig::default() });
    for n in 1..=2100 {
        reader.take(RequestId(n.into()), URGENT, secs(1), now).unwrap();
        assert!(matches!(reader.next_message(now), Some(HandoverMessage::Take { .. })));
        reader.received(taken(n), now).unwrap();
    }
    let at = now + secs(5);
    let mut renewed = Vec::new();
    while let Some(HandoverMessage::Renew { numbers }) = reader.next_message(at) {
        assert!(numbers.len() <= MAX_MESSAGE_RENEWALS);
        renewed.extend(numbers);
    }
    assert!(renewed.iter().copied().eq((1..=2100).map(number)));
    assert_eq!(reader.due(), Some(at + secs(5)));
}

#[test]
fn a_reader_says_that_its_lease_ran_out_and_renews_all_the_same() {
    let now = Instant::now();
    let mut reader = Takings::new(TakingsConfig::default());
    reader.take(REQUEST, URGENT, secs(1), now).unwrap();
    reader.next_message(now).unwrap();
    reader.received(taken(1), now).unwrap();
    assert_eq!(reader.next_event(), Some(TakingEvent::Taken { number: number(1) }));
    let late = now + secs(31);
    assert_eq!(reader.next_message(late), Some(HandoverMessage::Renew { numbers: vec![number(1)] }));
    assert_eq!(reader.next_event(), Some(TakingEvent::LeaseRanOut { number: number(1) }));
    assert_eq!(reader.next_event(), None, "once");
    reader.received(ended(1, EndReason::Expired), late).unwrap();
    let over = TakingEvent::Ended { number: number(1), reason: EndReason::Expired };
    assert_eq!((reader.next_event(), reader.next_event()), (Some(over), None));
    assert_eq!((reader.open_count(), reader.due().is_some_and(|at| at > late + secs(5))), (0, false));
}
