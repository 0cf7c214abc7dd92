//! What the owner of the pages may say, and what it gets back.

use super::*;

#[test]
fn a_request_is_open_once_and_may_be_opened_again_after_its_end() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    let again = producer.open(REQUEST, now).unwrap_err();
    assert_eq!(again, HandoverError::AlreadyOpen { request: REQUEST, id });
    assert_eq!(again.to_string(), "request 7 is open as hand-over #0: abort that hand-over first");
    producer.append(id, &blocks(0..5, 0)).unwrap();
    producer.abort(id, now).unwrap();
    assert_eq!(outcomes(&mut producer), [(id, HandoverOutcome::Aborted, 5)]);
    assert_eq!(outcomes(&mut producer), []);
    assert_ne!(producer.open(REQUEST, now).unwrap(), id);
}

#[test]
fn an_ended_or_complete_hand_over_takes_nothing_more() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    producer.append(id, &blocks(0..2, 0)).unwrap();
    producer.complete(id).unwrap();
    let complete = Err(HandoverError::Completed { id, blocks: 2 });
    assert_eq!(producer.append(id, &blocks(2..3, 0)), complete);
    assert_eq!(producer.set_ready(id, 0..1, 1), complete);
    assert_eq!(producer.complete(id), complete);
    producer.abort(id, now).unwrap();
    let over = Err(HandoverError::NotOpen { id });
    assert_eq!(producer.append(id, &[]), over);
    assert_eq!(producer.set_ready(id, 0..0, 1), over);
    assert_eq!(producer.complete(id), over);
    assert_eq!(producer.abort(id, now), over);
    assert_eq!(outcomes(&mut producer).len(), 1);
}

#[test]
fn blocks_and_places_and_hand_overs_have_limits() {
    let (mut producer, now) =
        producer_of(HandoverConfig { max_blocks: 4, max_open: 2, ..HandoverConfig::default() });
    let id = producer.open(REQUEST, now).unwrap();
    producer.append(id, &blocks(0..3, 0)).unwrap();
    let long = HandoverError::TooManyBlocks { id, have: 3, more: 2, max: 4 };
    assert_eq!(producer.append(id, &blocks(0..2, 0)), Err(long));
    assert_eq!(producer.blocks(id).unwrap().len(), 3, "nothing was added");
    let beyond = HandoverError::Places { id, start: 1, end: 4, blocks: 3 };
    assert_eq!(producer.set_ready(id, 1..4, 1), Err(beyond));
    #[allow(clippy::reversed_empty_ranges, reason = "what a caller may get wrong")]
    let backwards = producer.set_ready(id, 2..1, 1);
    assert_eq!(backwards, Err(HandoverError::Places { id, start: 2, end: 1, blocks: 3 }));
    let second = producer.open(RequestId(8), now).unwrap();
    producer.abort(second, now).unwrap();
    // One whose outcome was not fetched still counts, so the outcomes are bounded, too.
    let many = HandoverError::TooManyOpen { request: RequestId(9), open: 1, unfetched: 1, max: 2 };
    assert_eq!(producer.open(RequestId(9), now), Err(many));
    assert_eq!(outcomes(&mut producer).len(), 1);
    assert!(producer.open(RequestId(9), now).is_ok());
}

#[test]
fn parts_that_are_ready_never_become_fewer_and_come_back_with_the_outcome() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    producer.append(id, &blocks(0..2, WHOLE_PAGE)).unwrap();
    producer.append(id, &blocks(2..6, 0)).unwrap();
    producer.set_ready(id, 0..5, 3).unwrap();
    producer.set_ready(id, 0..3, 2).unwrap();
    producer.abort(id, now).unwrap();
    let ready: Vec<_> = producer.next_outcome().unwrap().blocks.iter().map(|block| block.ready).collect();
    assert_eq!(ready, [WHOLE_PAGE, WHOLE_PAGE, 3, 3, 3, 0]);
}

#[test]
fn a_rejected_request_is_told_to_takers_that_wait_and_for_one_lease_to_later_ones() {
    let (mut producer, now) = producer();
    take(&mut producer, now);
    producer.reject(REQUEST, now).unwrap();
    assert_eq!(said(&mut producer, A, now), [ended(1, EndReason::Rejected)]);
    let late = now + secs(29);
    producer.take(B, number(1), REQUEST, URGENT, secs(10), late).unwrap();
    assert_eq!(said(&mut producer, B, late), [ended(1, EndReason::Rejected)]);
    let later = now + secs(30);
    producer.take(B, number(2), REQUEST, URGENT, secs(10), later).unwrap();
    assert_eq!(said(&mut producer, B, later), [], "it waits");
    let id = producer.open(REQUEST, later).unwrap();
    assert_eq!(said(&mut producer, B, later), [taken(2)]);
    assert_eq!(producer.reject(REQUEST, later), Err(HandoverError::AlreadyOpen { request: REQUEST, id }));
}

#[test]
fn a_request_that_was_aborted_or_expired_untaken_is_told_at_once_and_can_be_opened_again() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    producer.abort(id, now).unwrap();
    take(&mut producer, now);
    assert_eq!(said(&mut producer, A, now), [ended(1, EndReason::Aborted)]);
    let expired = producer.open(RequestId(8), now).unwrap();
    let late = now + secs(30);
    producer.take(A, number(2), RequestId(8), URGENT, secs(10), late).unwrap();
    assert_eq!(said(&mut producer, A, late), [ended(2, EndReason::Expired)]);
    assert_eq!(
        outcomes(&mut producer),
        [(id, HandoverOutcome::Aborted, 0), (expired, HandoverOutcome::Expired, 0)]
    );
    producer.open(RequestId(8), late).unwrap();
    producer.take(A, number(3), RequestId(8), URGENT, secs(10), late).unwrap();
    assert_eq!(said(&mut producer, A, late), [taken(3)]);
}

#[test]
fn as_many_ended_requests_are_remembered_as_the_limit_says_and_none_for_ever() {
    let (mut producer, now) = producer_of(HandoverConfig { max_remembered: 3, ..HandoverConfig::default() });
    for request in 0..5 {
        producer.reject(RequestId(request), now + secs(request as u64)).unwrap();
    }
    assert_eq!(producer.remembered_count(), 3);
    producer.take(A, number(1), RequestId(1), URGENT, Duration::ZERO, now).unwrap();
    producer.take(A, number(2), RequestId(2), URGENT, Duration::ZERO, now).unwrap();
    assert_eq!(said(&mut producer, A, now), [ended(1, EndReason::Unknown), ended(2, EndReason::Rejected)]);
    assert_eq!(producer.due(), Some(now + secs(32)));
    producer.tick(now + secs(34));
    assert_eq!((producer.remembered_count(), producer.due()), (0, None));
}

#[test]
fn stopping_ends_everything_and_takers_are_told() {
    let (mut producer, now) = producer();
    let id = producer.open(REQUEST, now).unwrap();
    let untaken = producer.open(RequestId(8), now).unwrap();
    take(&mut producer, now);
    producer.take(B, number(1), RequestId(9), URGENT, secs(10), now).unwrap();
    producer.stop(now);
    assert_eq!(
        outcomes(&mut producer),
        [(id, HandoverOutcome::Stopped, 0), (untaken, HandoverOutcome::Stopped, 0)]
    );
    assert_eq!(said(&mut producer, A, now), [ended(1, EndReason::Stopping)]);
    producer.take(B, number(2), REQUEST, URGENT, secs(10), now).unwrap();
    assert_eq!(said(&mut producer, B, now), [ended(1, EndReason::Stopping), ended(2, EndReason::Stopping)]);
    assert_eq!(producer.open(REQUEST, now), Err(HandoverError::Stopping { request: REQUEST }));
    assert_eq!((producer.open_count(), producer.waiting_count(), producer.due()), (0, 0, None));
}

#[test]
fn limits_are_those_that_the_docs_name_unless_set() {
    let HandoverConfig { lease, renew_every, max_open, max_blocks, max_waiting, .. } =
        HandoverConfig::default();
    assert_eq!((lease, renew_every), (secs(30), secs(5)));
    assert_eq!((max_open, max_blocks, max_waiting), (4096, 65_536, 1024));
}

#[test]
fn limits_that_cannot_work_are_refused() {
    let lease = |lease, renew_every| HandoverConfig { lease, renew_every, ..HandoverConfig::default() };
    let code = |config| Handovers::new(config).map_err(|error| error.code()).map(drop);
    assert_eq!(code(HandoverConfig::default()), Ok(()));
    assert_eq!(code(lease(secs(30), secs(16))), Err(4200));
    assert_eq!(code(lease(secs(30), Duration::from_millis(99))), Err(4200));
    assert_eq!(code(lease(secs(86_401), secs(5))), Err(4200));
    assert_eq!(code(HandoverConfig { max_open: 0, ..HandoverConfig::default() }), Err(4200));
}

#[test]
fn a_request_is_shown_as_a_number_or_as_a_uuid() {
    assert_eq!(RequestId(42).to_string(), "42");
    let uuid = RequestId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    assert_eq!(uuid.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
}

#[test]
fn a_block_that_names_no_published_page_is_refused_and_nothing_is_added() {
    let (mut producer, now) = producer();
    let id = producer.open(RequestId(1), now).unwrap();
    let mut three = blocks(4..7, 0);
    three[1].expected.generation = Generation(6);
    let refused = producer.append(id, &three).unwrap_err();
    let (pool, generation) = (PoolId(3), Generation(6));
    assert_eq!(refused, HandoverError::NotPublished { id, place: 1, pool, slot: 5, generation });
    assert!(producer.blocks(id).unwrap().is_empty());
}
