//! Lanes: the first, later ones, failures, and who frees what.

use std::time::{Duration, Instant};

use super::rig::*;
use crate::{
    Attached, ByeReason, Cause, LaneBlob, LaneRefusalCode, ProducerDescription, Server, ServerConfig,
    Session, SessionLaneError, pair,
};

fn attach(
    session: &mut Session,
    dial: &mut Dial,
    list: &[(u8, u8)],
) -> Vec<Result<Attached<LaneBlob>, SessionLaneError>> {
    session.attach(dial, &pairs(list), soon())
}

#[test]
fn answered_lanes_are_ready_and_the_sessions_end_frees_them() {
    let rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    let wanted = pair(&crate::LaneDialer::rails(&dial), &session.offer().rails).unwrap();
    assert_eq!(wanted, pairs(&[(0, 0), (1, 1)]));
    let first = session.attach(&mut dial, &wanted, soon());
    let more = attach(&mut session, &mut dial, &[(0, 1), (1, 1)]);
    let lanes: Vec<_> = first.into_iter().chain(more).map(Result::unwrap).collect();
    let names: Vec<_> = lanes.iter().map(|l| (l.number.0.get(), l.rail.0, l.remote_rail.0)).collect();
    assert_eq!(names, [(1, 0, 0), (2, 1, 1), (3, 0, 1), (4, 1, 1)]);
    assert_eq!(rig.server.lanes(), [1, 3]);
    // A later reader gets their number in its offer.
    let other = rig.connect().unwrap();
    let loads: Vec<_> = other.offer().rails.iter().map(|rail| rail.lanes).collect();
    assert_eq!(loads, [1, 3]);
    drop(other);
    drop(session);
    rig.closed();
    rig.closed();
    assert_eq!(rig.server.lanes(), [0, 0]);
    assert!(rig.ends.ready.lock().unwrap().is_empty());
}

#[test]
fn a_lane_that_cannot_be_made_leaves_the_other_lanes_alone() {
    let rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    let lanes = attach(&mut session, &mut dial, &[(0, 0), (0, 2), (1, 1)]);
    assert!(lanes[0].is_ok() && lanes[2].is_ok());
    let error = lanes[1].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "the producer has 2 rails, and no rail 2");

    dial.producer_fails = true;
    let lanes = attach(&mut session, &mut dial, &[(0, 0)]);
    let Err(SessionLaneError::Refused(refusal)) = &lanes[0] else { panic!("{lanes:?}") };
    assert_eq!(refusal.code, LaneRefusalCode::Transport);
    let text = lanes[0].as_ref().unwrap_err().to_string();
    assert!(text.contains("rail 0: QP 7 did not reach RTR: no route"), "{text}");

    dial.producer_fails = false;
    dial.fail_prepare = true;
    let lanes = attach(&mut session, &mut dial, &[(1, 0)]);
    assert!(lanes[0].as_ref().unwrap_err().to_string().contains("rail 1: no QP left"));
    assert_eq!(rig.server.lanes(), [1, 1]);
    assert!(session.is_alive());
}

#[test]
fn a_producers_end_that_the_reader_cannot_connect_is_given_back() {
    let rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    dial.fail_connect = true;
    let lanes = attach(&mut session, &mut dial, &[(0, 0), (1, 1)]);
    assert!(lanes.iter().all(|lane| matches!(lane, Err(SessionLaneError::Transport(_)))));
    dial.fail_connect = false;
    let kept = attach(&mut session, &mut dial, &[(0, 1)]).remove(0).unwrap();
    until("the others are freed", || rig.server.lanes() == [0, 1]);
    session.release(&[kept.number, kept.number]).unwrap();
    attach(&mut session, &mut dial, &[(0, 0)]).remove(0).unwrap();
    until("it is freed, once", || rig.server.lanes() == [1, 0]);
}

#[test]
fn lanes_beyond_one_message_take_several_messages_up_to_the_sessions_limit() {
    let rig = Rig::with(ServerConfig { max_lanes: 150, ..ServerConfig::default() }, 0);
    let mut session = rig.connect().unwrap();
    let lanes = attach(&mut session, &mut Dial::new(&rig.ends), &[(1, 0); 160]);
    assert!(lanes[..150].iter().all(Result::is_ok));
    for lane in &lanes[150..] {
        let Err(SessionLaneError::Refused(refusal)) = lane else { panic!("{lane:?}") };
        assert_eq!(
            (refusal.code, refusal.text.as_str()),
            (LaneRefusalCode::TooMany, "a session may have 150 lanes")
        );
    }
}

#[test]
fn the_end_of_a_stopped_producer_is_found() {
    let mut rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    attach(&mut session, &mut dial, &[(0, 0)]).remove(0).unwrap();
    rig.server.stop(soon());
    let lanes = attach(&mut session, &mut dial, &[(0, 0), (1, 1)]);
    for lane in lanes {
        let Err(SessionLaneError::Session(why)) = lane else { panic!("{lane:?}") };
        assert!(matches!(why.cause, Cause::Bye(ByeReason::Stopping)), "{why}");
    }
    assert!(rig.ends.ready.lock().unwrap().is_empty());
}

#[test]
fn a_connection_that_breaks_ends_the_session_on_both_sides() {
    let rig = Rig::new();
    let (address, cut) = middle(rig.server.local_addr(), None);
    let mut session = crate::connect(&address.into(), &key(), hello(), soon()).unwrap();
    attach(&mut session, &mut Dial::new(&rig.ends), &[(0, 0)]).remove(0).unwrap();
    // Without `Bye`, as when a process is killed.
    rustix::net::shutdown(&session, rustix::net::Shutdown::Write).unwrap();
    let why = rig.closed();
    assert!(matches!(why.cause, Cause::Closed), "{why}");
    assert_eq!(rig.server.lanes(), [0, 0]);
    let begun = Instant::now();
    while session.is_alive() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(session.closed().unwrap().cause, Cause::Closed));
    cut.join().unwrap();
}

fn server(ends: &Ends) -> Server {
    let producer =
        ProducerDescription { node: "prefill-1".parse().unwrap(), layout: layout(), regions: Vec::new() };
    let listen = "127.0.0.1:0".parse().unwrap();
    Server::start(&listen, key(), producer, ends.clone(), ServerConfig::default()).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_lane_that_is_made_too_late_is_given_back_and_the_session_goes_on() {
    let ends = Ends { accept_takes: Duration::from_millis(500), ..Ends::default() };
    let server = server(&ends);
    let mut session = crate::connect(&server.local_addr().into(), &key(), hello(), soon()).unwrap();
    let deadline = Instant::now() + Duration::from_millis(100);
    let lane = session.attach(&mut Dial::new(&ends), &pairs(&[(0, 0)]), deadline).remove(0);
    assert!(matches!(lane, Err(SessionLaneError::Late)), "{lane:?}");
    assert!(session.is_alive());
    until("the late end was made", || !ends.ready.lock().unwrap().is_empty());
    until("it is given back", || session.is_alive() && ends.ready.lock().unwrap().is_empty());
    let lanes = attach(&mut session, &mut Dial::new(&ends), &[(0, 0), (1, 1)]);
    assert!(lanes.iter().all(Result::is_ok), "{lanes:?}");
    assert_eq!(server.lanes(), [1, 1]);
}

#[test]
fn a_slow_rail_delays_neither_other_rails_lanes_nor_the_end() {
    let ends = Ends { rail_1_refuses_after: Some(Duration::from_secs(1)), ..Ends::default() };
    let server = server(&ends);
    let mut session = crate::connect(&server.local_addr().into(), &key(), hello(), soon()).unwrap();
    // In turn, as a reader with many lanes per rail asks.
    let wanted: Vec<_> = (0..24).map(|i| (i % 2, i % 2)).collect();
    let deadline = Instant::now() + Duration::from_millis(2500);
    let lanes = session.attach(&mut Dial::new(&ends), &pairs(&wanted), deadline);
    for (i, lane) in lanes.iter().enumerate() {
        match lane {
            Ok(lane) => assert_eq!(lane.rail.0, 0),
            Err(SessionLaneError::Refused(_) | SessionLaneError::Late) => assert_eq!(i % 2, 1),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(lanes.iter().filter(|lane| lane.is_ok()).count(), 12);
    assert!(lanes.iter().any(|lane| matches!(lane, Err(SessionLaneError::Late))), "12 s did not pass");
    assert!(session.is_alive());
    assert_eq!(server.lanes(), [12, 0]);
    // Lanes that no thread has begun are not made after the session's end.
    drop(session);
    until("the session has ended", || server.sessions() == 0);
    assert!(ends.ready.lock().unwrap().is_empty());
}

#[test]
fn a_lane_that_is_given_back_while_it_is_being_made_is_freed() {
    let ends = Ends { accept_takes: Duration::from_millis(300), ..Ends::default() };
    let server = server(&ends);
    let mut session = crate::connect(&server.local_addr().into(), &key(), hello(), soon()).unwrap();
    let pair = pairs(&[(0, 0)])[0];
    let number = session.ask(pair, LaneBlob([7; 64]), soon()).unwrap();
    session.release(&[number]).unwrap();
    let mut answer = None;
    until("an answer", || {
        answer = session.next_answer();
        answer.is_some()
    });
    let Some((of, Err(SessionLaneError::Refused(refusal)))) = answer else { panic!("{answer:?}") };
    assert_eq!((of, refusal.code), (number, LaneRefusalCode::Transport));
    until("it is freed", || session.is_alive() && ends.ready.lock().unwrap().is_empty());
    assert_eq!(server.lanes(), [0, 0]);
}

#[test]
fn a_producer_that_never_answers_gets_a_bounded_number_of_requests() {
    let ends = Ends { accept_takes: Duration::from_secs(1), ..Ends::default() };
    let server = server(&ends);
    let mut session = crate::connect(&server.local_addr().into(), &key(), hello(), soon()).unwrap();
    let pair = pairs(&[(0, 0)])[0];
    let asked = (0..1000_u16).map_while(|i| {
        let mut blob = [0; 64];
        blob[62..].copy_from_slice(&i.to_le_bytes());
        session.ask(pair, LaneBlob(blob), soon()).ok()
    });
    assert!(asked.count() <= 256);
    let error = session.ask(pair, LaneBlob([0; 64]), soon()).unwrap_err();
    assert!(matches!(error, SessionLaneError::Unanswered { .. }), "{error}");
    assert!(session.is_alive());
}
