//! Lanes: who makes them, who frees them, and who waits for whom.

use std::time::{Duration, Instant};

use super::reader::{FakeReader, LIMIT, ask, asks, lane_number};
use super::rig::{Mood, Rig, layout, reversed, until};
use crate::error::Cause;
use crate::message::{ByeReason, LaneAnswer, LaneAnswers, LaneRefusalCode, Message};
use crate::server::ServerConfig;

fn code(answer: &LaneAnswer) -> (u32, Result<(), LaneRefusalCode>) {
    (answer.number.0.get(), answer.result.map(drop).map_err(|refusal| refusal.code))
}

fn bye(mut reader: FakeReader) {
    reader.say(&Message::Bye(ByeReason::Finished));
}

#[test]
fn answered_lanes_are_ready_and_the_sessions_end_frees_them() {
    let rig = Rig::new();
    let mut reader = rig.reader();
    let lanes = [ask(1, 0), ask(2, 1), ask(3, 1), ask(4, 2)];
    let answers = reader.answers(&asks(1, lanes));
    let ends: Vec<_> = answers.iter().map(|answer| answer.result.unwrap()).collect();
    assert_eq!(ends, lanes.map(|ask| reversed(&ask.blob)));
    assert_eq!((rig.server.lanes(), rig.ends.ready()), (vec![1, 2, 1], 4));
    // A later reader gets their number in its offer.
    let mut other = rig.dial();
    let (_, offer) = other.introduce(&[layout(1)]);
    assert_eq!(offer.rails.iter().map(|rail| rail.lanes).collect::<Vec<_>>(), [1, 2, 1]);
    bye(reader);
    let why = rig.closed();
    assert!(matches!(why.cause, Cause::Bye(ByeReason::Finished)), "{why}");
    assert_eq!((rig.server.lanes(), rig.ends.ready()), (vec![0; 3], 0));
    assert_eq!(rig.server.sessions(), 1);
}

#[test]
fn lanes_that_are_given_back_are_freed_once() {
    let rig = Rig::new();
    let mut reader = rig.reader();
    reader.answers(&asks(1, [ask(1, 0), ask(2, 0)]));
    let [one, two, never] = [1, 2, 9].map(lane_number);
    reader.say(&Message::Release(vec![one, one, never]));
    until("one is freed", || rig.server.lanes() == [1, 0, 0]);
    assert_eq!(rig.ends.ready(), 1);
    // The number can be used again.
    let again = reader.answers(&asks(2, [ask(1, 2)]));
    assert!(again[0].result.is_ok());
    reader.say(&Message::Release(vec![one, two]));
    until("all are freed", || rig.ends.ready() == 0);
    assert_eq!(rig.server.sessions(), 1);
}

#[test]
fn invalid_requests_are_refused_one_by_one() {
    let rig = Rig::new();
    let mut reader = rig.reader();
    let twice = crate::LaneAsk { blob: ask(77, 1).blob, ..ask(1, 1) };
    let answers = reader.answers(&asks(99, [ask(1, 0), twice, ask(2, 3), ask(3, 15), ask(4, 1)]));
    let codes: Vec<_> = answers.iter().map(code).collect();
    let (in_use, no_rail) = (Err(LaneRefusalCode::NumberInUse), Err(LaneRefusalCode::NoSuchRail));
    assert_eq!(codes, [(1, Ok(())), (1, in_use), (2, no_rail), (3, no_rail), (4, Ok(()))]);
    assert_eq!(answers[2].result.unwrap_err().text.as_str(), "no rail 3: there are 3, from 0");
    assert_eq!(rig.server.lanes(), [1, 1, 0]);
}

#[test]
fn a_lane_that_cannot_be_made_leaves_the_other_lanes_alone() {
    let rig = Rig::new();
    let mut reader = rig.reader();
    rig.ends.set(0, Mood::Fails);
    rig.ends.set(1, Mood::PanicsInAccept);
    let answers = reader.answers(&asks(1, [ask(1, 0), ask(2, 1), ask(3, 2)]));
    let texts: Vec<_> = answers[..2].iter().map(|a| a.result.unwrap_err()).collect();
    assert!(texts.iter().all(|refusal| refusal.code == LaneRefusalCode::Transport));
    assert!(texts[0].text.as_str().starts_with("rail 0: QP 7 did not reach RTR: no route"), "{}", texts[0]);
    assert_eq!(texts[1].text.as_str(), "the producer's transport panicked");
    assert!(answers[2].result.is_ok());
    assert_eq!(rig.server.lanes(), [0, 0, 1]);
    // The numbers are free, and the rails work again.
    (0..2).for_each(|rail| rig.ends.set(rail, Mood::Works));
    let answers = reader.answers(&asks(2, [ask(1, 0), ask(2, 1)]));
    assert!(answers.iter().all(|answer| answer.result.is_ok()));
}

#[test]
fn a_release_that_panics_concerns_its_lane_alone() {
    let rig = Rig::new();
    let mut reader = rig.reader();
    reader.answers(&asks(1, (1..=6).map(|number| ask(number, number as u8 % 2))));
    rig.ends.set(0, Mood::PanicsInRelease);
    reader.say(&Message::Release(vec![lane_number(2), lane_number(4)]));
    until("both are freed", || rig.ends.ready() == 4);
    assert_eq!(rig.server.lanes(), [1, 3, 0]);
    bye(reader);
    rig.closed();
    assert_eq!((rig.server.lanes(), rig.ends.ready()), (vec![0; 3], 0));
}

#[test]
fn a_session_has_as_many_lanes_as_its_limit() {
    let rig = Rig::limited(ServerConfig { max_lanes: 150, ..ServerConfig::default() });
    let mut reader = rig.reader();
    let mut answers = Vec::new();
    for (exchange, numbers) in [(1, 1..=64), (2, 65..=128), (3, 129..=160)] {
        answers.extend(reader.answers(&asks(exchange, numbers.map(|number| ask(number, 1)))));
    }
    assert!(answers[..150].iter().all(|answer| answer.result.is_ok()));
    for answer in &answers[150..] {
        let refusal = answer.result.unwrap_err();
        let said = (refusal.code, refusal.text.as_str());
        assert_eq!(said, (LaneRefusalCode::TooMany, "a session may have 150 lanes"));
    }
    reader.say(&Message::Release((1..=50).map(lane_number).collect()));
    let answers = reader.answers(&asks(4, (200..250).map(|number| ask(number, 0))));
    assert!(answers.iter().all(|answer| answer.result.is_ok()));
}

#[test]
fn a_rail_that_hangs_delays_its_own_lanes_alone() {
    let rig = Rig::new();
    rig.ends.set(1, Mood::Hangs);
    let mut readers: Vec<_> = (0..4).map(|_| rig.reader()).collect();
    for (i, reader) in readers.iter_mut().enumerate() {
        let numbers = 1 + 10 * i as u32..11 + 10 * i as u32;
        reader.say(&asks(1, numbers.map(|number| ask(number, number as u8 % 3))));
    }
    let mut waits = vec![0; 4];
    for (i, reader) in readers.iter_mut().enumerate() {
        let numbers = 1 + 10 * i as u32..11 + 10 * i as u32;
        waits[i] = numbers.clone().filter(|number| number % 3 == 1).count();
        let mut made = 0;
        while made < 10 - waits[i] {
            let Message::LanesReady(LaneAnswers { lanes, .. }) = reader.hear() else { panic!("an answer") };
            assert!(lanes.iter().all(|lane| lane.result.is_ok() && lane.remote_rail.0 != 1));
            made += lanes.len();
        }
    }
    // One lane of a session and rail is being made at a time, and two of a rail.
    let mut hanging = Vec::new();
    while hanging.len() < 2 {
        let number = rig.accepting.recv_timeout(LIMIT).unwrap().0[0];
        hanging.extend(Some(number).filter(|number| number % 3 == 1));
    }
    assert!(rig.accepting.try_iter().all(|blob| blob.0[0] % 3 != 1));
    let of = |number: &u8| usize::from((number - 1) / 10);
    let idle = (0..4).find(|i| !hanging.iter().map(of).any(|of| of == *i)).unwrap();
    // A session of which no lane is being made ends at once, and its other lanes are freed.
    let before = rig.server.lanes().iter().sum::<u32>();
    bye(readers.remove(idle));
    rig.closed();
    let left = before - (10 - waits.remove(idle) as u32);
    assert_eq!(rig.server.lanes().iter().sum::<u32>(), left);
    rig.ends.set(1, Mood::Works);
    for (reader, waiting) in readers.iter_mut().zip(waits) {
        let mut made = 0;
        while made < waiting {
            let Message::LanesReady(answers) = reader.hear() else { panic!("an answer") };
            made += answers.lanes.len();
        }
    }
}

#[test]
fn rails_that_hang_leave_threads_to_every_other_rail() {
    let rig = Rig::new();
    (0..2).for_each(|rail| rig.ends.set(rail, Mood::Hangs));
    let mut readers = [rig.reader(), rig.reader()];
    for (reader, first) in readers.iter_mut().zip([1, 11]) {
        reader.say(&asks(1, [ask(first, 0), ask(first + 1, 1)]));
    }
    // Each rail has two threads, and all of those of the two rails hang.
    for _ in 0..4 {
        rig.accepting.recv_timeout(LIMIT).unwrap();
    }
    for (reader, number) in readers.iter_mut().zip([3, 13]) {
        let answers = reader.answers(&asks(2, [ask(number, 2)]));
        assert_eq!(code(&answers[0]), (number, Ok(())));
    }
    (0..2).for_each(|rail| rig.ends.set(rail, Mood::Works));
}

#[test]
fn a_reader_with_many_requests_does_not_keep_the_others_waiting() {
    let rig = Rig::new();
    rig.ends.set(0, Mood::Hangs);
    let (mut greedy, mut modest) = (rig.reader(), rig.reader());
    greedy.say(&asks(1, (1..=64).map(|number| ask(number, 0))));
    rig.accepting.recv_timeout(LIMIT).unwrap();
    modest.say(&asks(1, [ask(1001, 0)]));
    // The second of the two threads of the rail: no other request of the first reader has it.
    let begun = rig.accepting.recv_timeout(LIMIT).unwrap();
    assert_eq!(begun, ask(1001, 0).blob);
    rig.ends.set(0, Mood::Works);
    assert!(matches!(modest.hear(), Message::LanesReady(_)));
}

#[test]
fn a_lane_that_is_given_back_while_it_is_being_made_is_freed() {
    let rig = Rig::new();
    rig.ends.set(0, Mood::Hangs);
    let mut reader = rig.reader();
    reader.say(&asks(1, [ask(1, 0)]));
    rig.accepting.recv_timeout(LIMIT).unwrap();
    reader.say(&Message::Release(vec![lane_number(1)]));
    // The answer shows that the release before it was read.
    let answers = reader.answers(&asks(2, [ask(1, 0)]));
    assert_eq!(code(&answers[0]), (1, Err(LaneRefusalCode::NumberInUse)));
    rig.ends.set(0, Mood::Works);
    let Message::LanesReady(answers) = reader.hear() else { panic!("an answer") };
    let refusal = answers.lanes[0].result.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.text.as_str()),
        (LaneRefusalCode::Transport, "given back before it was made")
    );
    until("it is freed", || rig.ends.ready() == 0);
    assert_eq!(rig.server.lanes(), [0, 0, 0]);
}

#[test]
fn a_lane_that_is_made_after_the_sessions_end_is_freed() {
    let rig = Rig::new();
    rig.ends.set(0, Mood::Hangs);
    let mut reader = rig.reader();
    reader.say(&asks(1, [ask(1, 0), ask(2, 0), ask(3, 1)]));
    rig.accepting.recv_timeout(LIMIT).unwrap();
    assert!(matches!(reader.hear(), Message::LanesReady(_)));
    bye(reader);
    until("the other rail's lane is freed", || rig.server.lanes() == [0, 0, 0]);
    assert_eq!(rig.server.sessions(), 1, "a lane is being made");
    rig.ends.set(0, Mood::Works);
    rig.closed();
    assert_eq!((rig.server.sessions(), rig.ends.ready()), (0, 0));
    // The second one was not made any more.
    let begun: Vec<_> = rig.accepting.try_iter().collect();
    assert!(!begun.contains(&ask(2, 0).blob), "{begun:?}");
}

#[test]
fn stopping_frees_all_lanes_and_waits_for_no_rail_that_hangs() {
    let mut rig = Rig::new();
    let mut reader = rig.reader();
    reader.answers(&asks(1, (1..=30).map(|number| ask(number, number as u8 % 3))));
    let mut other = rig.reader();
    other.answers(&asks(1, (31..=33).map(|number| ask(number, 0))));
    rig.ends.set(1, Mood::Hangs);
    let begun = Instant::now();
    until("one session has lanes that hang", || {
        rig.server.stop(Instant::now() + Duration::from_millis(100)) == 1
    });
    assert!(begun.elapsed() < LIMIT);
    until("the other rails' lanes are freed", || rig.ends.ready() == 10);
    assert_eq!(rig.server.sessions(), 1);
    for reader in [&mut reader, &mut other] {
        assert_eq!(reader.until_end(), [Message::Bye(ByeReason::Stopping)]);
    }
    rig.ends.set(1, Mood::Works);
    assert_eq!(rig.server.stop(Instant::now() + LIMIT), 0);
    assert_eq!(rig.ends.ready(), 0);
}

#[test]
fn a_dropped_server_frees_its_lanes() {
    let rig = Rig::new();
    let mut reader = rig.reader();
    reader.answers(&asks(1, [ask(1, 0), ask(2, 1)]));
    drop(rig.server);
    assert_eq!(rig.ends.ready(), 0);
}
