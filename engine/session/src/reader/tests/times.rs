//! Deadlines, silence, and the beat.

use std::time::Duration;

use kvrail_host::reactor::Flow;

use super::rig::*;
use crate::{BEAT, Cause, LULL, Layout, MAX_LAYOUTS, Message, PeerKeys, ReaderDescription, Session, Step};

impl Rig {
    /// Lets time pass until the session ends, calls `step` after every tick, and returns how long
    /// it took.
    fn run(&mut self, mut step: impl FnMut(&mut Self)) -> Duration {
        let begun = self.now;
        for _ in 0..10_000 {
            if self.tick() != Flow::GoOn {
                return self.now - begun;
            }
            step(self);
        }
        panic!("the session does not end");
    }

    /// Lets one second pass.
    fn second(&mut self) -> Flow {
        let until = self.now + SECOND;
        for _ in 0..100 {
            if self.session.due() > until {
                self.now = until;
                return Flow::GoOn;
            }
            let flow = self.tick();
            if flow != Flow::GoOn {
                return flow;
            }
        }
        panic!("the session is due again and again");
    }
}

#[test]
fn a_connection_that_is_not_made_ends_at_the_deadline() {
    let mut rig = Rig::connecting();
    assert_eq!(rig.run(|_| ()), LIMIT);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Deadline), "{why}");
    assert_eq!(why.step, Step::Connecting);
}

#[test]
fn a_producer_that_does_not_answer_the_greeting_is_silent() {
    let mut rig = Rig::connecting();
    // The connection takes longer than a peer may be silent.
    rig.now += 2 * SILENCE;
    rig.flush();
    assert_eq!(rig.run(|rig| drop(rig.flush())), SILENCE);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Silence(SILENCE)), "{why}");
    assert_eq!(why.step, Step::Handshake);
}

#[test]
fn a_greeting_that_drips_meets_the_deadline() {
    let mut rig = Rig::connecting();
    let (begun, welcome) = (rig.now, rig.flush());
    for byte in welcome {
        rig.now += SILENCE - SECOND;
        if rig.now - begun >= LIMIT {
            break;
        }
        assert_eq!(rig.tick_now(), Flow::GoOn);
        assert_eq!(rig.bytes(&[byte]), Flow::GoOn);
    }
    assert_eq!(rig.session.due(), begun + LIMIT);
    assert_eq!(rig.tick_now(), Flow::Close);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Deadline), "{why}");
    assert_eq!(why.step, Step::Handshake);
}

#[test]
fn a_producer_that_makes_no_offer_is_silent_and_hears_that_the_reader_lives() {
    let mut rig = Rig::introduced();
    assert_eq!(rig.run(|rig| drop(rig.flush())), SILENCE);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Silence(SILENCE)), "{why}");
    assert_eq!(why.step, Step::Offer);
    let alive = SILENCE.as_secs() / BEAT.as_secs();
    assert!(rig.producer.heard.iter().all(|message| *message == Message::Alive));
    assert!((alive - 1..=alive).contains(&(rig.producer.heard.len() as u64)), "{:?}", rig.producer.heard);
}

#[test]
fn an_offer_without_end_meets_the_deadline() {
    let mut rig = Rig::introduced();
    let begun = rig.now;
    rig.say(&head());
    for id in 0.. {
        if rig.second() != Flow::GoOn {
            break;
        }
        assert_eq!(rig.say(&pool(id, 1)), Flow::GoOn);
        assert_eq!(rig.say(&regions(id, 0, 1)), Flow::GoOn);
        rig.flush();
    }
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Deadline), "{why}");
    assert_eq!((why.step, rig.now - begun), (Step::Offer, LIMIT));
}

#[test]
fn an_established_session_outlives_its_deadline_and_ends_by_a_lull() {
    let mut rig = Rig::established();
    let begun = rig.now;
    while rig.now < begun + 2 * LIMIT {
        for _ in 0..LULL.as_secs() - 1 {
            assert_eq!(rig.second(), Flow::GoOn);
            rig.flush();
        }
        assert_eq!(rig.say(&Message::Alive), Flow::GoOn);
    }
    rig.producer.heard.clear();
    assert_eq!(rig.run(|rig| drop(rig.flush())), LULL);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Silence(LULL)), "{why}");
    assert_eq!(why.step, Step::Established);
    let alive = (LULL.as_secs() / BEAT.as_secs()) as usize;
    assert!((alive - 1..=alive).contains(&rig.producer.heard.len()), "{:?}", rig.producer.heard);
}

#[test]
fn bytes_of_a_message_that_never_becomes_whole_do_not_keep_a_session() {
    let mut rig = Rig::established();
    let (begun, frame) = (rig.now, rig.producer.seal(&regions(1, 0, 64)));
    for byte in frame {
        if rig.second() != Flow::GoOn {
            break;
        }
        rig.flush();
        assert_eq!(rig.bytes(&[byte]), Flow::GoOn);
    }
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Silence(LULL)), "{why}");
    assert_eq!(rig.now - begun, LULL);
}

#[test]
fn a_message_takes_no_longer_than_a_peer_may_be_silent() {
    let short = 3 * SECOND;
    let reader = ReaderDescription { silence: short, ..reader() };
    let mut rig = Rig::with(reader, PeerKeys::one(key(5)), PeerKeys::one(key(5)));
    let welcome = rig.flush();
    rig.bytes(&welcome);
    rig.flush();
    for message in offer() {
        rig.say(&message);
    }
    rig.second();
    let frame = rig.producer.seal(&Message::Alive);
    rig.bytes(&frame[..1]);
    assert_eq!(rig.run(|rig| drop(rig.flush())), short);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Silence(time) if time == short), "{why}");
}

#[test]
fn a_producer_that_takes_nothing_ends_the_session() {
    for asks in [false, true] {
        let mut rig = Rig::established();
        let begun = rig.now;
        if asks {
            rig.ask(rig.now + LIMIT);
        }
        while rig.second() == Flow::GoOn {
            assert_eq!(rig.say(&Message::Alive), Flow::GoOn);
            assert!(rig.now < begun + LIMIT);
        }
        let why = rig.ended();
        assert!(matches!(why.cause, Cause::Silence(SILENCE)), "{why}");
        assert!(rig.now - begun <= BEAT + SILENCE, "{:?}", rig.now - begun);
    }
}

#[test]
fn a_session_that_slept_reads_before_it_gives_the_producer_up() {
    let mut rig = Rig::established();
    rig.now += 1000 * SECOND;
    assert_eq!(rig.tick_now(), Flow::GoOn);
    assert_eq!(rig.say(&Message::Alive), Flow::GoOn);
    assert_eq!(rig.tick_now(), Flow::GoOn);
    assert!(rig.events.is_empty() && rig.session.due() > rig.now - LULL);
    rig.flush();
    rig.now += 1000 * SECOND;
    assert_eq!(rig.tick_now(), Flow::GoOn);
    assert_eq!(rig.tick_now(), Flow::Close);
    let why = rig.ended();
    assert!(matches!(why.cause, Cause::Silence(LULL)), "{why}");
}

#[test]
fn a_session_that_has_something_to_say_sends_no_alive() {
    let mut rig = Rig::established();
    for _ in 0..20 {
        rig.second();
        rig.say(&Message::Alive);
        rig.ask(rig.now + LIMIT);
        let heard = rig.heard();
        assert!(matches!(heard[..], [Message::Lanes(_)]), "{heard:?}");
    }
}

#[test]
fn a_reader_has_no_more_layouts_than_a_session_carries() {
    let new = |count: usize| {
        let layouts: Vec<Layout> = (0..count).map(|i| layout(i as u8)).collect();
        let reader = ReaderDescription { layouts, ..reader() };
        let now = std::time::Instant::now();
        Session::new("p:1".into(), &PeerKeys::none(), 0, reader, now, now)
    };
    let error = new(MAX_LAYOUTS + 1).unwrap_err();
    assert!(matches!(error.cause, Cause::Layouts { count } if count == MAX_LAYOUTS + 1), "{error}");
    assert_eq!(error.code(), 4090);
    // Without any layout it asks services alone.
    for count in [0, 1, MAX_LAYOUTS] {
        new(count).unwrap();
    }
}
