//! What comes in pieces, or is not what it should be.

use kvrail_host::reactor::Flow;

use super::rig::*;
use crate::{ByeReason, Cause, Message, ParseError, PoolId, SessionEvent, Step};

/// Everything that a producer sends until a lane is made, byte by byte, and what the session says.
#[test]
fn bytes_may_come_one_by_one() {
    let mut rig = Rig::connecting();
    let drip = |rig: &mut Rig, bytes: &[u8]| {
        for byte in bytes {
            assert_eq!(rig.bytes(&[*byte]), Flow::GoOn);
        }
    };
    let welcome = rig.flush();
    drip(&mut rig, &welcome);
    assert!(matches!(rig.heard()[..], [Message::Introduction(_)]));
    for message in offer() {
        let frame = rig.producer.seal(&message);
        drip(&mut rig, &frame);
    }
    assert!(matches!(rig.events[..], [SessionEvent::Established(_)]));
    let number = rig.ask(rig.now + SECOND);
    let [Message::Lanes(asks)] = &rig.heard()[..] else { panic!("no request") };
    let frame = rig.producer.seal(&answer(asks.exchange, &asks.lanes[0]));
    drip(&mut rig, &frame);
    assert!(matches!(rig.events[1], SessionEvent::Lane(of, Ok(_)) if of == number));
}

#[test]
fn messages_may_come_many_at_a_time() {
    let mut rig = Rig::introduced();
    let mut bytes: Vec<u8> = offer().iter().flat_map(|message| rig.producer.seal(message)).collect();
    bytes.extend(rig.producer.seal(&Message::Gone(PoolId(2))));
    bytes.extend(rig.producer.seal(&Message::Bye(ByeReason::Stopping)));
    bytes.extend(rig.producer.seal(&Message::Gone(PoolId(1))));
    rig.bytes(&bytes);
    let [SessionEvent::Established(_), SessionEvent::OfferChanged(_), SessionEvent::Ended(_)] =
        rig.events[..]
    else {
        panic!("{:?}", rig.events)
    };
}

#[test]
fn a_changed_byte_ends_the_session_wherever_it_is() {
    for way in 0..3 {
        let at = [0, 2, 17][way];
        let mut rig = Rig::established();
        let mut frame = rig.producer.seal(&Message::Alive);
        frame[at] ^= 1;
        // A length that is longer than the frame is found out by what follows.
        frame.extend(rig.producer.seal(&Message::Alive));
        let flow = rig.bytes(&frame);
        assert!(matches!(flow, Flow::Finish { .. }), "byte {at}");
        let why = rig.ended();
        assert!(matches!(why.cause, Cause::Forged), "byte {at}: {why}");
        assert_eq!(rig.heard(), [Message::Bye(ByeReason::Protocol)]);
    }
}

#[test]
fn frames_that_are_repeated_left_out_or_reordered_end_the_session() {
    let orders: [(&[usize], usize); 3] = [(&[0, 0], 1), (&[1], 0), (&[0, 2, 1], 1)];
    for (order, good) in orders {
        let mut rig = Rig::established();
        let frames: Vec<_> = (10..13).map(|id| rig.producer.seal(&Message::Unknown(layout(id)))).collect();
        for &frame in order {
            rig.bytes(&frames[frame]);
        }
        let why = rig.ended();
        assert!(matches!(why.cause, Cause::Forged), "{order:?}: {why}");
        let told = rig.events.iter().filter(|event| matches!(event, SessionEvent::OfferChanged(_)));
        assert_eq!(told.count(), good, "{order:?}");
    }
}

#[test]
fn bytes_that_are_no_message_end_the_session() {
    let mut rig = Rig::established();
    let mut frame = Vec::new();
    rig.producer.channel().seal(&[16, 0, 0], &mut frame).unwrap();
    rig.bytes(&frame);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Parse(ParseError::Header { .. })), "{why}");
    assert_eq!(rig.heard(), [Message::Bye(ByeReason::Protocol)]);
}

#[test]
fn a_connection_that_closes_within_a_frame_is_truncated() {
    let mut rig = Rig::connecting();
    let welcome = rig.flush();
    rig.bytes(&welcome[..40]);
    rig.session.ended(rig.now, None);
    rig.bytes(&[]);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Truncated { got: 40, want: 104 }), "{why}");
    assert_eq!(why.step, Step::Handshake);

    let mut rig = Rig::established();
    let frame = rig.producer.seal(&Message::Alive);
    rig.bytes(&frame[..5]);
    rig.session.ended(rig.now, None);
    rig.bytes(&[]);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Truncated { got: 5, want } if want == frame.len()), "{why}");
    assert_eq!(why.step, Step::Established);
}

#[test]
fn another_protocol_is_recognised() {
    let mut rig = Rig::connecting();
    rig.flush();
    let flow = rig.bytes(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(flow, Flow::Close);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Greeting(_)), "{why}");
    assert!(why.to_string().contains("something else uses this port"), "{why}");
    assert_eq!(why.step, Step::Handshake);
}
