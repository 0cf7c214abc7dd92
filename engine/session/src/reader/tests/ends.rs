//! How sessions end, and what is said then.

use std::io;

use kvrail_host::reactor::Flow;

use super::rig::*;
use crate::{
    By, ByeReason, Cause, Message, PeerKeys, Refusal, Session, SessionEvent, SessionLaneError, Step,
};

/// A way for a session to end, and how its error begins.
type End = (fn(&mut Rig), &'static str);

const ENDS: [End; 6] = [
    (|rig| _ = rig.say(&Message::Bye(ByeReason::Finished)), "p:1, in session: the peer ended the session"),
    (|rig| rig.session.ended(rig.now, None), "p:1, in session: the peer closed the connection"),
    (
        |rig| rig.session.ended(rig.now, Some(io::ErrorKind::ConnectionReset.into())),
        "p:1, in session: connection reset",
    ),
    (|rig| _ = rig.session.bye(ByeReason::Stopping), "p:1, in session: this side is stopping"),
    (|rig| _ = rig.say(&Message::Offered), "p:1, in session: the peer broke the protocol"),
    (
        |rig| {
            rig.now += LIMIT;
            rig.tick_now();
            rig.tick_now();
        },
        "p:1, in session: the peer sent or took no byte for 8.0 s",
    ),
];

#[test]
fn the_end_answers_every_open_request_once_and_comes_last() {
    for (end, text) in ENDS {
        let mut rig = Rig::established();
        let late = rig.ask(rig.now + SECOND);
        rig.now += SECOND;
        rig.tick_now();
        let sent = rig.ask(rig.now + 2 * LIMIT);
        rig.flush();
        let unsent = rig.ask(rig.now + 2 * LIMIT);
        end(&mut rig);
        rig.bytes(&[]);
        let why = rig.ended();
        assert!(why.to_string().starts_with(text), "{why}");
        let [
            SessionEvent::Lane(first, Err(SessionLaneError::Late)),
            SessionEvent::Lane(second, Err(SessionLaneError::Session(one))),
            SessionEvent::Lane(third, Err(SessionLaneError::Session(other))),
            SessionEvent::Ended(last),
        ] = &rig.events[..]
        else {
            panic!("{:?}", rig.events)
        };
        assert_eq!([*first, *second, *third], [late, sent, unsent]);
        assert_eq!([one.to_string(), other.to_string()], [last.to_string(), last.to_string()]);
        assert!(rig.session.offer().is_some(), "the offer stays known");
    }
}

#[test]
fn goodbye_is_said_once_and_nothing_after_it() {
    let mut rig = Rig::established();
    rig.ask(rig.now + SECOND);
    let flow = rig.session.bye(ByeReason::NoPool);
    assert!(matches!(flow, Flow::Finish { .. }));
    assert_eq!(rig.session.bye(ByeReason::Finished), flow);
    assert_eq!(rig.heard(), [Message::Bye(ByeReason::NoPool)]);
    assert_eq!(rig.heard(), []);
}

#[test]
fn before_the_introduction_no_goodbye_is_said() {
    let mut connecting = Rig::connecting();
    assert_eq!(connecting.session.bye(ByeReason::Finished), Flow::Close);
    assert_eq!(connecting.heard(), []);
    let why = connecting.ended();
    assert!(matches!(why.cause, Cause::Stopped), "{why}");
    assert_eq!(why.step, Step::Connecting);

    let mut rig = Rig::connecting();
    let welcome = rig.flush();
    rig.bytes(&welcome);
    assert_eq!(rig.session.bye(ByeReason::Finished), Flow::Close);
    assert_eq!(rig.heard(), []);

    let mut rig = Rig::introduced();
    assert!(matches!(rig.session.bye(ByeReason::Finished), Flow::Finish { .. }));
    assert_eq!(rig.heard(), [Message::Bye(ByeReason::Finished)]);
    assert_eq!(rig.ended().step, Step::Offer);
}

/// The end of a dial to a producer with other keys.
fn dial(readers: PeerKeys, producers: PeerKeys) -> std::sync::Arc<crate::SessionError> {
    let mut rig = Rig::with(reader(), readers, producers);
    let refused = rig.flush();
    rig.bytes(&refused);
    rig.ended()
}

#[test]
fn another_key_is_dialled_only_if_the_first_one_is_unknown() {
    let two = PeerKeys::rotating(key(1), key(2));
    let why = dial(two.clone(), PeerKeys::one(key(2)));
    let Cause::Refused { by: By::Peer, refusal: Refusal::Key(ids), verified: false } = &why.cause else {
        panic!("{why}")
    };
    assert_eq!((ids.ours, ids.theirs), (key(1).id(), key(2).id()));
    assert!(why.to_string().contains("not authenticated"), "{why}");
    assert_eq!(Session::next_attempt(&two, 0, &why), Some(1));
    assert_eq!(Session::next_attempt(&two, 1, &why), None);
    assert_eq!(Session::next_attempt(&PeerKeys::one(key(1)), 0, &why), None);
    assert_eq!(Session::next_attempt(&PeerKeys::none(), 0, &why), None);
    // Not for another reason.
    let mut rig = Rig::connecting();
    rig.session.ended(rig.now, Some(io::ErrorKind::ConnectionRefused.into()));
    rig.bytes(&[]);
    let why = rig.ended();
    assert_eq!(why.step, Step::Connecting);
    assert_eq!(Session::next_attempt(&two, 0, &why), None);
}

#[test]
fn a_reader_without_a_key_and_a_producer_with_one_refuse_each_other() {
    for (reader, producer) in
        [(PeerKeys::none(), PeerKeys::one(key(1))), (PeerKeys::one(key(1)), PeerKeys::none())]
    {
        let why = dial(reader, producer);
        assert!(matches!(why.cause, Cause::Refused { refusal: Refusal::Key(_), .. }), "{why}");
        assert!(why.to_string().contains("no key"), "{why}");
    }
    let mut rig = Rig::with(reader(), PeerKeys::none(), PeerKeys::none());
    let welcome = rig.flush();
    rig.bytes(&welcome);
    assert!(matches!(rig.heard()[..], [Message::Introduction(_)]));
}
