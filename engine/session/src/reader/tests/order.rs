//! Which message may come when.

use std::num::NonZeroU32;
use std::time::Duration;

use kvrail_core::batch::Class;
use kvrail_host::reactor::Flow;

use super::rig::*;
use crate::handover::{EndReason, HandoverMessage, HandoverNumber, RequestId};
use crate::{
    By, ByeReason, Cause, Introduction, LaneAnswers, LaneAsks, Message, OfferChange, PoolId, Refusal,
    SessionEvent, Step,
};

/// One message of every kind, and one of an unknown kind that may be passed over.
fn every_kind() -> Vec<Message> {
    let number = HandoverNumber(NonZeroU32::MIN);
    let second = Duration::from_secs(1);
    let mut all = vec![
        Message::Introduction(Introduction { node: "x".parse().unwrap(), layouts: vec![layout(1)] }),
        head(),
        pool(3, 1),
        regions(3, 0, 1),
        Message::Unknown(layout(8)),
        Message::Offered,
        Message::Gone(PoolId(1)),
        Message::Refused(Refusal::TooManySessions { limit: 3 }),
        Message::Lanes(LaneAsks { exchange: 1, lanes: Default::default() }),
        Message::LanesReady(LaneAnswers { exchange: 1, lanes: Default::default() }),
        Message::Release(Vec::new()),
        Message::Bye(ByeReason::Stopping),
        Message::Alive,
        Message::PassedOver(0x8123),
    ];
    let class = Class::default();
    let handovers = [
        HandoverMessage::Take { number, request: RequestId(1), class, wait: second },
        HandoverMessage::Done { number },
        HandoverMessage::Taken { number, lease: second * 30, renew_every: second },
        HandoverMessage::Complete { number, blocks: 1 },
        HandoverMessage::Ended { number, reason: EndReason::Aborted },
    ];
    all.extend(handovers.map(Message::Handover));
    all
}

/// The stages of a session in which messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Introduced,
    /// The head of the offer has come.
    Head,
    /// A pool whose regions have not come.
    Pool,
    Established,
}

impl At {
    fn rig(self) -> Rig {
        let mut rig = match self {
            Self::Introduced | Self::Head | Self::Pool => Rig::introduced(),
            Self::Established => Rig::established(),
        };
        let before: &[Message] = match self {
            Self::Introduced | Self::Established => &[],
            Self::Head => &[head(), pool(1, 1), regions(1, 0, 1)],
            Self::Pool => &[head(), pool(1, 1), regions(1, 0, 1), pool(3, 2)],
        };
        for message in before {
            assert_eq!(rig.say(message), Flow::GoOn);
        }
        rig
    }

    /// What the message does: `Ok` if it may come.
    fn expected(self, message: &Message) -> Result<(), &'static str> {
        let first = self == Self::Introduced;
        match message {
            Message::Alive | Message::PassedOver(_) => Ok(()),
            Message::Bye(_) => Err("the peer ended the session: it is stopping"),
            Message::Refused(_) if self != Self::Established => Err("the producer has 3 sessions"),
            Message::Offer(_) if first => Ok(()),
            Message::Pool(_) | Message::Unknown(_) | Message::Gone(_) | Message::Offered if first => {
                Err("which is not allowed here")
            }
            Message::Regions(_) if self == Self::Pool => Ok(()),
            Message::Regions(_) => Err("regions came that no pool announced"),
            Message::Offer(_)
            | Message::Pool(_)
            | Message::Unknown(_)
            | Message::Gone(_)
            | Message::Offered
                if self == Self::Pool =>
            {
                Err("before all regions of a pool")
            }
            Message::Offer(_) => Err("a second offer came"),
            Message::Offered if self == Self::Established => Err("the first offer was complete already"),
            Message::Pool(_) | Message::Unknown(_) | Message::Gone(_) | Message::Offered => Ok(()),
            Message::LanesReady(_) if self == Self::Established => Ok(()),
            Message::Handover(HandoverMessage::Take { .. } | HandoverMessage::Done { .. })
                if self == Self::Established =>
            {
                Err("which only this side sends")
            }
            Message::Handover(_) if self == Self::Established => Err("the highest number used so far is 0"),
            _ => Err("which is not allowed here"),
        }
    }
}

#[test]
fn every_message_is_taken_where_it_may_come_and_is_an_error_elsewhere() {
    for at in [At::Introduced, At::Head, At::Pool, At::Established] {
        for message in every_kind() {
            let mut rig = at.rig();
            let flow = rig.say(&message);
            match at.expected(&message) {
                Ok(()) => {
                    assert_eq!(flow, Flow::GoOn, "{at:?}: {message:?}: {:?}", rig.events);
                    assert!(!rig.events.iter().any(|event| matches!(event, SessionEvent::Ended(_))));
                }
                Err(text) => {
                    assert!(matches!(flow, Flow::Finish { .. }), "{at:?}: {message:?}: {:?}", rig.events);
                    let why = rig.ended();
                    assert!(why.to_string().contains(text), "{at:?}: {message:?}: {why}");
                    let step = if at == At::Established { Step::Established } else { Step::Offer };
                    assert_eq!(why.step, step);
                    told(&mut rig, &why.cause);
                }
            }
        }
    }
}

/// Checks what the producer is told of an end: why, unless it said so itself.
fn told(rig: &mut Rig, cause: &Cause) {
    let heard = rig.heard();
    if matches!(cause, Cause::Bye(_) | Cause::Refused { .. }) {
        assert_eq!(heard, []);
    } else {
        assert_eq!(heard, [Message::Bye(ByeReason::Protocol)]);
    }
}

#[test]
fn a_refusal_alone_may_come_before_the_introduction_was_sent() {
    for message in every_kind() {
        let mut rig = Rig::connecting();
        let welcome = rig.flush();
        assert_eq!(rig.bytes(&welcome), Flow::GoOn);
        let flow = rig.say(&message);
        let why = rig.ended();
        let refused = matches!(why.cause, Cause::Refused { by: By::Peer, verified: true, .. });
        let contradiction = matches!(why.cause, Cause::Contradiction(_));
        let (right, closes) = match message {
            Message::Refused(_) => (refused, matches!(flow, Flow::Finish { .. })),
            _ => (contradiction, flow == Flow::Close),
        };
        assert!(right && closes, "{message:?}: {why}, {flow:?}");
        assert_eq!(why.step, Step::Offer);
        assert_eq!(rig.heard(), [], "a session that was not introduced does not say why it ends");
    }
}

#[test]
fn a_hand_over_of_a_request_that_was_taken_is_no_error_and_of_another_is_one() {
    let mut rig = Rig::established();
    let number = rig.session.take(RequestId(7), Class::Urgent, SECOND, rig.now).unwrap();
    assert!(matches!(rig.heard()[..], [Message::Handover(HandoverMessage::Take { .. })]));
    let taken = |number| HandoverMessage::Taken { number, lease: 30 * SECOND, renew_every: SECOND };
    assert_eq!(rig.say(&Message::Handover(taken(number))), Flow::GoOn);
    let other = HandoverNumber(number.0.checked_add(1).unwrap());
    rig.say(&Message::Handover(taken(other)));
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Handover(_)), "{why}");
    assert_eq!(rig.heard(), [Message::Bye(ByeReason::Protocol)]);
}

#[test]
fn the_first_offer_is_an_event_and_what_the_session_knows() {
    let mut rig = Rig::introduced();
    for message in offer() {
        assert!(rig.events.is_empty() && rig.session.offer().is_none());
        rig.say(&message);
    }
    let [SessionEvent::Established(offer)] = &rig.events[..] else { panic!("{:?}", rig.events) };
    assert_eq!(rig.session.offer(), Some(offer));
    let pools: Vec<_> = offer.pools.iter().map(|pool| (pool.id().0, pool.regions().len())).collect();
    assert_eq!(pools, [(1, 70), (2, 1)]);
    assert_eq!(offer.unknown, [layout(9)]);
    assert_eq!(offer.producer.as_str(), "prefill-1");
}

#[test]
fn a_change_of_the_offer_is_an_event_and_what_the_session_knows() {
    let mut rig = Rig::established();
    let messages = [
        pool(5, 1),
        regions(5, 0, 1),
        Message::Gone(PoolId(1)),
        Message::Unknown(layout(4)),
        pool(6, 1),
        regions(6, 0, 1),
    ];
    for message in messages {
        assert_eq!(rig.say(&message), Flow::GoOn);
    }
    let changes = rig.events.iter().map(|event| match event {
        SessionEvent::OfferChanged(OfferChange::Came(pool)) => format!("came {}", pool.id()),
        SessionEvent::OfferChanged(OfferChange::Gone(id)) => format!("gone {id}"),
        SessionEvent::OfferChanged(OfferChange::Unknown(layout)) => format!("unknown {}", layout.fingerprint),
        other => panic!("{other:?}"),
    });
    let unknown = format!("unknown {}", layout(4).fingerprint);
    assert_eq!(changes.collect::<Vec<_>>(), ["came pool 5", "gone pool 1", &unknown, "came pool 6"]);
    let offer = rig.session.offer().unwrap();
    assert_eq!(offer.pools.iter().map(|pool| pool.id().0).collect::<Vec<_>>(), [2, 5, 6]);
    assert_eq!(offer.unknown, [layout(9), layout(4)]);
}

#[test]
fn a_refusal_is_verified_if_it_came_encrypted() {
    let mut rig = Rig::introduced();
    let refusal = Refusal::Stopping;
    rig.say(&Message::Refused(refusal));
    let why = rig.ended();
    let Cause::Refused { by: By::Peer, refusal: got, verified: true } = why.cause else { panic!("{why}") };
    assert_eq!(got, refusal);
}
