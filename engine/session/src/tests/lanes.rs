//! Lanes: the first, later ones, failures, and who frees what.

use std::time::{Duration, Instant};

use super::rig::*;
use crate::{
    Attached, ByeReason, Cause, LaneBlob, LaneError, LaneRefusalCode, Producer, Server, ServerConfig,
    Session, pair,
};

fn attach(
    session: &mut Session,
    dial: &mut Dial,
    list: &[(u8, u8)],
) -> Vec<Result<Attached<LaneBlob>, LaneError>> {
    session.attach(dial, &pairs(list), soon())
}

#[test]
fn lanes_are_ready_when_they_are_told_and_freed_with_the_session() {
    let rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    let wanted = pair(&crate::Fabric::rails(&dial), &session.offer().rails).unwrap();
    assert_eq!(wanted, pairs(&[(0, 0), (1, 1)]));
    let first = session.attach(&mut dial, &wanted, soon());
    let more = attach(&mut session, &mut dial, &[(0, 1), (1, 1)]);
    let lanes: Vec<_> = first.into_iter().chain(more).map(Result::unwrap).collect();
    let names: Vec<_> = lanes.iter().map(|l| (l.number.0.get(), l.rail.0, l.remote_rail.0)).collect();
    assert_eq!(names, [(1, 0, 0), (2, 1, 1), (3, 0, 1), (4, 1, 1)]);
    assert_eq!(rig.server.lanes(), [1, 3]);
    // A later reader learns of them, and can stay away.
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
fn a_lane_that_cannot_be_made_takes_no_other_with_it() {
    let rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    let lanes = attach(&mut session, &mut dial, &[(0, 0), (0, 2), (1, 1)]);
    assert!(lanes[0].is_ok() && lanes[2].is_ok());
    let error = lanes[1].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "the producer has 2 rails, and no rail 2");

    dial.producer_fails = true;
    let lanes = attach(&mut session, &mut dial, &[(0, 0)]);
    let Err(LaneError::Refused(refusal)) = &lanes[0] else { panic!("{lanes:?}") };
    assert_eq!(refusal.code, LaneRefusalCode::Fabric);
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
fn an_end_that_the_reader_cannot_use_is_given_back() {
    let rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    dial.fail_connect = true;
    let lanes = attach(&mut session, &mut dial, &[(0, 0), (1, 1)]);
    assert!(lanes.iter().all(|lane| matches!(lane, Err(LaneError::Fabric(_)))));
    dial.fail_connect = false;
    // Messages are handled in order: when this is answered, the others are gone.
    let kept = attach(&mut session, &mut dial, &[(0, 1)]).remove(0).unwrap();
    assert_eq!(rig.server.lanes(), [0, 1]);
    session.release(&[kept.number, kept.number], soon()).unwrap();
    attach(&mut session, &mut dial, &[(0, 0)]).remove(0).unwrap();
    assert_eq!(rig.server.lanes(), [1, 0]);
}

#[test]
fn more_lanes_than_one_exchange_holds_take_several_up_to_the_sessions_limit() {
    let rig = Rig::with(ServerConfig { max_lanes: 150, ..ServerConfig::default() }, 0);
    let mut session = rig.connect().unwrap();
    let lanes = attach(&mut session, &mut Dial::new(&rig.ends), &[(1, 0); 160]);
    assert!(lanes[..150].iter().all(Result::is_ok));
    for lane in &lanes[150..] {
        let Err(LaneError::Refused(refusal)) = lane else { panic!("{lane:?}") };
        assert_eq!((refusal.code, refusal.text.as_str()), (LaneRefusalCode::TooMany, "150 is the most"));
    }
}

#[test]
fn a_producer_that_goes_away_is_noticed() {
    let mut rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let mut dial = Dial::new(&rig.ends);
    attach(&mut session, &mut dial, &[(0, 0)]).remove(0).unwrap();
    rig.server.stop(soon());
    let lanes = attach(&mut session, &mut dial, &[(0, 0), (1, 1)]);
    for lane in lanes {
        let Err(LaneError::Session(why)) = lane else { panic!("{lane:?}") };
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
    // Without a word, as when a process is killed.
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

#[test]
fn a_slow_producer_meets_the_readers_deadline_and_the_session_is_over() {
    let ends = Ends { accept_takes: Duration::from_millis(500), ..Ends::default() };
    let producer = Producer { node: "prefill-1".parse().unwrap(), layout: layout(), regions: Vec::new() };
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(&listen, key(), producer, ends.clone(), ServerConfig::default()).unwrap();
    let mut session = crate::connect(&server.local_addr().into(), &key(), hello(), soon()).unwrap();
    let deadline = Instant::now() + Duration::from_millis(100);
    let lane = session.attach(&mut Dial::new(&ends), &pairs(&[(0, 0)]), deadline).remove(0);
    let Err(LaneError::Session(why)) = lane else { panic!("{lane:?}") };
    assert!(matches!(why.cause, Cause::Deadline), "{why}");
    assert!(!session.is_alive());
    drop(session);
    drop(server);
    assert!(ends.ready.lock().unwrap().is_empty(), "the late end was freed");
}
