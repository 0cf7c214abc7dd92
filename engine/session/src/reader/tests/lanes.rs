//! Requests for lanes, their answers, and what is given back.

use kvrail_core::id::RailIndex;
use kvrail_host::reactor::Flow;

use super::rig::*;
use crate::reader::lanes::MAX_ASKED;
use crate::{
    ByeReason, Cause, LaneAnswer, LaneAnswers, LaneAsks, LaneBlob, LaneNumber, LaneRefusal, LaneRefusalCode,
    Message, RailPair, SessionEvent, SessionLaneError,
};

impl Rig {
    /// The one message of requests that the producer has heard since the last call.
    fn asks(&mut self) -> LaneAsks {
        match self.heard().remove(0) {
            Message::Lanes(asks) => asks,
            other => panic!("{other:?}"),
        }
    }

    /// The answers that the session has reported: the number and whether there is a lane.
    fn answers(&mut self) -> Vec<(u32, Result<(), String>)> {
        let one = |event| match event {
            SessionEvent::Lane(number, result) => {
                (number.0.get(), result.map(drop).map_err(|e| e.to_string()))
            }
            other => panic!("{other:?}"),
        };
        std::mem::take(&mut self.events).into_iter().map(one).collect()
    }
}

fn refuse(exchange: u32, asks: &LaneAsks) -> Message {
    let refusal = LaneRefusal { code: LaneRefusalCode::TooMany, text: "no more".parse().unwrap() };
    let lane = |ask: &crate::LaneAsk| LaneAnswer {
        number: ask.number,
        rail: ask.rail,
        remote_rail: ask.remote_rail,
        result: Err(refusal),
    };
    Message::LanesReady(LaneAnswers { exchange, lanes: asks.lanes.iter().map(lane).collect() })
}

#[test]
fn requests_share_a_message_and_each_gets_its_answer() {
    let mut rig = Rig::established();
    let late = rig.now + 5 * SECOND;
    let numbers: Vec<_> = (0..70).map(|_| rig.ask(late).0.get()).collect();
    assert_eq!(numbers, (1..=70).collect::<Vec<_>>());
    let heard = rig.heard();
    let [Message::Lanes(first), Message::Lanes(second)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((first.exchange, first.lanes.len()), (1, 64));
    assert_eq!((second.exchange, second.lanes.len()), (2, 6));
    assert_eq!(first.lanes[0].blob, LaneBlob([3; 64]));
    // In any order, and apart from each other.
    rig.say(&answer(2, &second.lanes[5]));
    rig.say(&refuse(1, first));
    rig.say(&answer(2, &second.lanes[0]));
    let answers = rig.answers();
    assert_eq!(answers.len(), 66);
    assert_eq!(answers[0], (70, Ok(())));
    assert_eq!(answers[1], (1, Err("the session has too many lanes: no more".into())));
    assert_eq!(answers[65], (65, Ok(())));
}

#[test]
fn there_is_a_bounded_number_of_unanswered_requests_late_ones_included() {
    let mut rig = Rig::established();
    let soon = rig.now + SECOND;
    for _ in 0..MAX_ASKED {
        rig.ask(soon);
    }
    let full = |rig: &mut Rig| {
        let error = rig.session.ask(pair(), LaneBlob::EMPTY, soon).unwrap_err();
        assert!(matches!(error, SessionLaneError::Unanswered { asked: MAX_ASKED }), "{error}");
    };
    full(&mut rig);
    let asks = rig.asks();
    full(&mut rig);
    rig.now = soon;
    rig.tick_now();
    assert_eq!(rig.answers().len(), MAX_ASKED);
    full(&mut rig);
    rig.say(&refuse(1, &asks));
    rig.ask(soon);
}

#[test]
fn a_late_lane_is_given_back_and_a_late_refusal_is_nothing() {
    let mut rig = Rig::established();
    let (soon, later) = (rig.now + SECOND, rig.now + 2 * SECOND);
    let [first, second, third] = [soon, soon, later].map(|until| rig.ask(until));
    let asks = rig.asks();
    assert_eq!(rig.session.due(), soon);
    rig.now = soon;
    assert_eq!(rig.tick_now(), Flow::GoOn);
    let late = SessionLaneError::Late.to_string();
    assert_eq!(rig.answers(), [(1, Err(late.clone())), (2, Err(late))]);
    assert_eq!(rig.session.due(), later);
    rig.say(&answer(1, &asks.lanes[0]));
    rig.say(&refuse(1, &LaneAsks { exchange: 1, lanes: asks.lanes[1..2].iter().copied().collect() }));
    rig.say(&answer(1, &asks.lanes[2]));
    assert_eq!(rig.answers(), [(third.0.get(), Ok(()))]);
    assert_eq!(rig.heard(), [Message::Release(vec![first])]);
    // An answer that comes a second time is to nothing.
    rig.say(&answer(1, &asks.lanes[1]));
    assert!(matches!(rig.ended().cause, Cause::Contradiction(_)), "{second:?}");
}

#[test]
fn a_request_that_is_late_before_it_was_sent_is_not_sent() {
    let mut rig = Rig::established();
    let (soon, later) = (rig.now + SECOND, rig.now + 5 * SECOND);
    rig.ask(soon);
    let sent = rig.ask(later);
    rig.ask(soon);
    rig.now = soon;
    rig.tick_now();
    assert_eq!(rig.answers().len(), 2);
    let asks = rig.asks();
    assert_eq!(asks.lanes.iter().map(|ask| ask.number).collect::<Vec<_>>(), [sent]);
    // The two have left no trace.
    for _ in 1..MAX_ASKED {
        rig.ask(later);
    }
    let error = rig.session.ask(pair(), LaneBlob::EMPTY, later).unwrap_err();
    assert!(matches!(error, SessionLaneError::Unanswered { asked: MAX_ASKED }), "{error}");
}

#[test]
fn an_answer_to_a_lane_that_was_not_asked_for_is_a_contradiction() {
    let changes: [fn(&mut LaneAnswers); 5] = [
        |answers| answers.exchange += 1,
        |answers| answers.lanes[0].number = LaneNumber(9.try_into().unwrap()),
        |answers| answers.lanes[0].rail = RailIndex(1),
        |answers| answers.lanes[0].remote_rail = RailIndex(0),
        |answers| {
            let twice = answers.lanes[0];
            answers.lanes.push(twice).unwrap();
        },
    ];
    for (which, change) in changes.into_iter().enumerate() {
        let mut rig = Rig::established();
        let number = rig.ask(rig.now + SECOND);
        let asks = rig.asks();
        let Message::LanesReady(mut answers) = answer(asks.exchange, &asks.lanes[0]) else { panic!() };
        change(&mut answers);
        rig.say(&Message::LanesReady(answers));
        let why = rig.ended();
        assert!(matches!(why.cause, Cause::Contradiction(_)), "{which}: {why}");
        // The request is answered once all the same.
        let [SessionEvent::Lane(of, result), SessionEvent::Ended(_)] = &rig.events[..] else {
            panic!("{which}: {:?}", rig.events)
        };
        assert_eq!((*of, result.is_ok()), (number, which == 4), "{which}");
        assert_eq!(rig.heard(), [Message::Bye(ByeReason::Protocol)]);
    }
}

#[test]
fn an_answer_to_a_request_that_was_not_sent_yet_is_a_contradiction() {
    let mut rig = Rig::established();
    let number = rig.ask(rig.now + SECOND);
    let ask =
        crate::LaneAsk { number, rail: pair().rail, remote_rail: pair().remote_rail, blob: LaneBlob::EMPTY };
    rig.say(&answer(1, &ask));
    assert!(matches!(rig.ended().cause, Cause::Contradiction(_)));
}

#[test]
fn lanes_are_given_back_in_batches_and_before_later_requests() {
    let mut rig = Rig::established();
    let lanes: Vec<_> = (1..=150).map(|number| LaneNumber(number.try_into().unwrap())).collect();
    rig.session.release(&lanes);
    rig.ask(rig.now + SECOND);
    rig.session.release(&lanes[..1]);
    let heard = rig.heard();
    let [
        Message::Release(a),
        Message::Release(b),
        Message::Release(c),
        Message::Lanes(_),
        Message::Release(d),
    ] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!([a.len(), b.len(), c.len(), d.len()], [64, 64, 22, 1]);
    assert_eq!([&a[..], b, c].concat(), lanes);
}

#[test]
fn a_rail_that_is_not_offered_cannot_be_asked_for() {
    let mut rig = Rig::introduced();
    let ask = |rig: &mut Rig, remote: u8| {
        let pair = RailPair { rail: RailIndex(0), remote_rail: RailIndex(remote) };
        rig.session.ask(pair, LaneBlob::EMPTY, rig.now).map_err(|e| e.to_string())
    };
    assert_eq!(ask(&mut rig, 0), Err("the producer has 0 rails, and no rail 0".into()));
    let mut rig = Rig::established();
    assert_eq!(ask(&mut rig, 2), Err("the producer has 2 rails, and no rail 2".into()));
    assert!(ask(&mut rig, 1).is_ok());
}
