//! Lanes: the first, later ones, failures, and which side frees what.

use std::time::{Duration, Instant};

use kvrail_session::{
    Attached, ByeReason, Cause, ConnectedSession, LaneBlob, LaneRefusalCode, PeerKeys, ServerConfig,
    SessionLaneError, connect, pair,
};

use super::proxy::{Change, Way, proxy};
use super::rig::*;

fn attach(
    session: &mut ConnectedSession,
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
    let wanted = pair(&kvrail_session::LaneDialer::rails(&dial), &session.offer().rails).unwrap();
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
    session.release(&[kept.number, kept.number]);
    attach(&mut session, &mut dial, &[(0, 0)]).remove(0).unwrap();
    until("it is freed, once", || rig.server.lanes() == [1, 0]);
}

#[test]
fn lanes_beyond_one_message_take_several_messages_up_to_the_sessions_limit() {
    let rig = Rig::with(ServerConfig { max_lanes: 150, ..ServerConfig::default() }, Vec::new());
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
    // A lane that is given back makes room at once.
    session.release(&[lanes[3].as_ref().unwrap().number]);
    attach(&mut session, &mut Dial::new(&Ends::default()), &[]);
    let mut dial = Dial::new(&rig.ends);
    dial.producer_fails = true;
    let again = attach(&mut session, &mut dial, &[(1, 0), (1, 0)]);
    let code = |lane: &Result<_, SessionLaneError>| match lane {
        Err(SessionLaneError::Refused(refusal)) => refusal.code,
        other => panic!("{:?}", other.as_ref().err()),
    };
    assert_eq!(
        again.iter().map(code).collect::<Vec<_>>(),
        [LaneRefusalCode::Transport, LaneRefusalCode::TooMany]
    );
}

#[test]
fn the_end_of_a_stopped_producer_is_found() {
    let mut rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    attach(&mut session, &mut dial, &[(0, 0)]).remove(0).unwrap();
    assert_eq!(rig.server.stop(soon()), 0);
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
    let (address, cut) = proxy(rig.address(), Way::ToReader, Change::Nothing);
    let mut session = connect(&address.into(), key(5), reader(), soon()).unwrap();
    attach(&mut session, &mut Dial::new(&rig.ends), &[(0, 0)]).remove(0).unwrap();
    // Without `Bye`, as when a process is killed.
    rustix::net::shutdown(&session, rustix::net::Shutdown::Write).unwrap();
    let why = rig.closed();
    assert!(matches!(why.cause, Cause::Closed), "{why}");
    assert_eq!(rig.server.lanes(), [0, 0]);
    until("the reader finds the end", || !session.is_alive());
    let why = session.closed().unwrap();
    assert!(matches!(why.cause, Cause::Closed | Cause::Io(_)), "{why}");
    cut.join().unwrap();
}

fn slow_rig(ends: Ends) -> Rig {
    Rig::start(PeerKeys::one(key(5)), ServerConfig::default(), Vec::new(), ends)
}

#[test]
fn a_lane_that_is_made_too_late_is_given_back_and_the_session_goes_on() {
    let rig = slow_rig(Ends { accept_takes: Duration::from_millis(500), ..Ends::default() });
    let mut session = rig.connect().unwrap();
    let deadline = Instant::now() + Duration::from_millis(100);
    let lane = session.attach(&mut Dial::new(&rig.ends), &pairs(&[(0, 0)]), deadline).remove(0);
    assert!(matches!(lane, Err(SessionLaneError::Late)), "{lane:?}");
    assert!(session.is_alive());
    until("the late end was made", || !rig.ends.ready.lock().unwrap().is_empty());
    until("it is given back", || session.is_alive() && rig.ends.ready.lock().unwrap().is_empty());
    let lanes = attach(&mut session, &mut Dial::new(&rig.ends), &[(0, 0), (1, 1)]);
    assert!(lanes.iter().all(Result::is_ok), "{lanes:?}");
    assert_eq!(rig.server.lanes(), [1, 1]);
}

#[test]
fn a_slow_rail_delays_neither_other_rails_lanes_nor_the_end() {
    let rig = slow_rig(Ends { rail_1_refuses_after: Some(Duration::from_secs(1)), ..Ends::default() });
    let mut session = rig.connect().unwrap();
    // In turn, as a reader with many lanes per rail asks.
    let wanted: Vec<_> = (0..24).map(|i| (i % 2, i % 2)).collect();
    let deadline = Instant::now() + Duration::from_millis(2500);
    let lanes = session.attach(&mut Dial::new(&rig.ends), &pairs(&wanted), deadline);
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
    assert_eq!(rig.server.lanes(), [12, 0]);
    // Lanes that no thread has begun are not made after the session's end.
    drop(session);
    until("the session has ended", || rig.server.sessions() == 0);
    assert!(rig.ends.ready.lock().unwrap().is_empty());
}
