//! A connection step by step, with a clock that the test moves.

use std::time::{Duration, Instant};

use kvrail_host::reactor::{Connection as _, Flow};

use super::bench::{Bench, drain};
use super::reader::{ask, asks, frame, greeting, introduction, messages};
use super::rig::{keys, layout, pool, until};
use crate::error::{By, Cause, SessionError, Step};
use crate::hello::Dialling;
use crate::liveness::{BEAT, LINGER, LULL};
use crate::message::{ByeReason, LaneAnswers, Message, MessageKind};
use crate::refusal::Refusal;
use crate::server::{ServerConfig, ServerEvent};

const FINISH: Flow = Flow::Finish { linger: LINGER };
const MS: Duration = Duration::from_millis(1);

fn bench() -> Bench {
    Bench::new(ServerConfig::default(), vec![pool(0, 1, 1)])
}

fn failure(bench: &Bench) -> SessionError {
    match bench.events.try_recv() {
        Ok(ServerEvent::Failed { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn closed(bench: &Bench) -> SessionError {
    match bench.events.iter().find(|event| !matches!(event, ServerEvent::Opened { .. })) {
        Some(ServerEvent::Closed { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// The refusal in clear that the bytes are.
fn refusal(bytes: &[u8], dialling: &mut Dialling) -> Refusal {
    match dialling.received(&mut &bytes[..]) {
        Err(Cause::Refused { by: By::Peer, refusal, verified: false }) => refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no refusal"),
    }
}

#[test]
fn nothing_is_told_before_the_first_frame_has_been_opened() {
    let (bench, now) = (bench(), Instant::now());
    let mut talk = bench.greeted(now);
    assert!(drain(&mut talk.connection, now + BEAT).is_empty());
    assert_eq!(bench.shared().sessions(), 0);
    assert!(bench.events.try_recv().is_err());
    // Not even with a part of the frame.
    let first = frame(&mut talk.channel, &introduction(&[layout(1)]));
    let (last, all_but_last) = first.split_last().unwrap();
    assert_eq!(talk.connection.received(now, all_but_last), Flow::GoOn);
    assert!(drain(&mut talk.connection, now).is_empty());
    assert!(bench.events.try_recv().is_err());
    assert_eq!(talk.connection.received(now, &[*last]), Flow::GoOn);
    assert!(matches!(bench.events.try_recv(), Ok(ServerEvent::Opened { session: 1, .. })));
    let Message::Offer(head) = &talk.hear(now)[0] else { panic!("no offer") };
    assert_eq!(head.epoch, bench.epoch());
}

/// The handshake and the session with one byte at a time are the same.
#[test]
fn bytes_may_come_one_by_one() {
    let (bench, now) = (bench(), Instant::now());
    let mut connection = bench.connection(now);
    let (mut dialling, hello) = greeting(&keys());
    for byte in hello {
        assert_eq!(connection.received(now, &[byte]), Flow::GoOn);
    }
    let welcome = drain(&mut connection, now);
    let mut channel = dialling.received(&mut &welcome[..]).unwrap().unwrap();
    for message in [introduction(&[layout(1)]), Message::Alive, asks(7, [ask(1, 9)])] {
        for byte in frame(&mut channel, &message) {
            assert_eq!(connection.received(now, &[byte]), Flow::GoOn);
        }
    }
    let bytes = drain(&mut connection, now);
    let said: Vec<_> = messages(&mut channel, &bytes).iter().map(Message::kind).collect();
    let kinds = [
        MessageKind::Offer,
        MessageKind::Pool,
        MessageKind::Regions,
        MessageKind::Offered,
        MessageKind::LanesReady,
    ];
    assert_eq!(said, kinds.map(Some));
}

/// All that a reader says in one piece: the introduction may come with the next messages.
#[test]
fn several_messages_may_come_at_once() {
    let (bench, now) = (bench(), Instant::now());
    let mut talk = bench.greeted(now);
    let mut all = frame(&mut talk.channel, &introduction(&[layout(1)]));
    all.extend(frame(&mut talk.channel, &asks(1, [ask(1, 9), ask(2, 8)])));
    all.extend(frame(&mut talk.channel, &Message::Alive));
    all.extend(frame(&mut talk.channel, &Message::Bye(ByeReason::Finished)));
    all.extend(frame(&mut talk.channel, &Message::Offered));
    assert_eq!(talk.connection.received(now, &all), FINISH);
    assert!(matches!(closed(&bench).cause, Cause::Bye(ByeReason::Finished)));
    assert!(talk.hear(now).is_empty());
}

#[test]
fn a_silent_peer_is_an_error_that_says_for_how_long() {
    let silence = Duration::from_millis(200);
    let config = ServerConfig { silence, ..ServerConfig::default() };
    let (bench, now) = (Bench::new(config, vec![]), Instant::now());
    let mut connection = bench.connection(now);
    assert_eq!(connection.due(), now + silence);
    assert_eq!(connection.tick(now + silence - MS), Flow::GoOn);
    // What came while the thread slept is read between two looks.
    assert_eq!(connection.tick(now + 2 * silence), Flow::GoOn);
    assert_eq!(connection.received(now + 2 * silence, b"kvr"), Flow::GoOn);
    assert_eq!(connection.tick(now + 3 * silence - MS), Flow::GoOn);
    assert_eq!(connection.tick(now + 3 * silence), Flow::GoOn);
    assert_eq!(connection.tick(now + 3 * silence), FINISH);
    let error = failure(&bench);
    assert!(matches!(error.cause, Cause::Silence(time) if time == silence), "{error}");
    assert_eq!(error.step, Step::Handshake);
    assert!(error.to_string().contains("0.2 s"), "{error}");
    assert!(drain(&mut connection, now).is_empty());
    // The same after the greeting.
    let mut talk = bench.greeted(now);
    let flows = [(); 2].map(|()| talk.connection.tick(now + silence));
    assert_eq!(flows, [Flow::GoOn, FINISH]);
    assert_eq!(failure(&bench).step, Step::Offer);
}

#[test]
fn a_reader_that_sends_slowly_meets_the_handshakes_deadline() {
    let (bench, now) = (bench(), Instant::now());
    let limit = ServerConfig::default().handshake;
    let mut connection = bench.connection(now);
    let (_, hello) = greeting(&keys());
    for (i, byte) in hello[..40].iter().enumerate() {
        let at = now + limit / 41 * i as u32;
        assert_eq!(connection.received(at, &[*byte]), Flow::GoOn);
        assert_eq!(connection.tick(at), Flow::GoOn);
    }
    assert_eq!(connection.due(), now + limit);
    assert_eq!(connection.tick(now + limit), FINISH);
    let error = failure(&bench);
    assert!(matches!(error.cause, Cause::Deadline), "{error}");
}

#[test]
fn a_connection_closed_within_a_message_is_an_error_of_its_own() {
    let (bench, now) = (bench(), Instant::now());
    let (_, hello) = greeting(&keys());
    for (bytes, want) in [(0, None), (3, Some((3, 32))), (40, Some((40, 80)))] {
        let mut connection = bench.connection(now);
        if bytes > 0 {
            connection.received(now, &hello[..bytes]);
        }
        connection.ended(now, None);
        let error = failure(&bench);
        match (&error.cause, want) {
            (Cause::Closed, None) => {}
            (Cause::Truncated { got, want }, Some(expected)) => assert_eq!((*got, *want), expected),
            _ => panic!("{error}"),
        }
    }
    let mut talk = bench.greeted(now);
    let first = frame(&mut talk.channel, &introduction(&[]));
    talk.connection.received(now, &first[..10]);
    talk.connection.ended(now, None);
    let error = failure(&bench);
    assert!(matches!(error.cause, Cause::Truncated { got: 10, want } if want == first.len()), "{error}");
    let mut talk = bench.session(now, &[]);
    let alive = frame(&mut talk.channel, &Message::Alive);
    talk.connection.received(now, &alive[..1]);
    talk.connection.ended(now, None);
    let error = closed(&bench);
    assert!(matches!(error.cause, Cause::Truncated { got: 1, .. }), "{error}");
    let mut talk = bench.session(now, &[]);
    talk.connection.ended(now, Some(std::io::ErrorKind::ConnectionReset.into()));
    assert!(matches!(closed(&bench).cause, Cause::Io(_)));
    assert!(bench.events.try_recv().is_err(), "each end is reported once");
}

#[test]
fn a_session_beats_when_it_has_nothing_else_to_say() {
    let (bench, now) = (bench(), Instant::now());
    let mut talk = bench.session(now, &[layout(1)]);
    assert_eq!(talk.connection.due(), now + BEAT);
    assert!(talk.hear(now + BEAT - MS).is_empty());
    let mut at = now;
    for _ in 0..10 {
        at += BEAT;
        assert_eq!(talk.say(at, &Message::Alive), Flow::GoOn);
        assert_eq!(talk.connection.tick(at), Flow::GoOn);
        assert_eq!(talk.hear(at), [Message::Alive]);
        assert_eq!(talk.connection.due(), at + BEAT);
    }
}

#[test]
fn a_reader_that_takes_nothing_is_gone() {
    let silence = Duration::from_secs(3);
    let config = ServerConfig { silence, ..ServerConfig::default() };
    let (bench, now) = (Bench::new(config, vec![pool(0, 1, 1)]), Instant::now());
    // The socket takes a message and no other one.
    let mut talk = bench.introduced(now, &[layout(1)]);
    assert_eq!(talk.fill(now).len(), 1);
    assert_eq!(talk.connection.due(), now + silence);
    for second in 1..=2 {
        assert_eq!(talk.say(now + Duration::from_secs(second), &Message::Alive), Flow::GoOn);
    }
    assert_eq!(talk.connection.tick(now + silence), Flow::GoOn);
    assert_eq!(talk.connection.tick(now + silence), Flow::Close);
    let error = closed(&bench);
    assert!(matches!(error.cause, Cause::Silence(time) if time == silence), "{error}");
    // The socket has taken everything, and takes no beat.
    let mut talk = bench.session(now, &[layout(1)]);
    let at = now + BEAT;
    assert_eq!(talk.connection.tick(at), Flow::GoOn);
    assert_eq!(talk.connection.due(), at + silence);
    talk.say(at, &Message::Alive);
    let flows = [(); 2].map(|()| talk.connection.tick(at + silence));
    assert_eq!(flows, [Flow::GoOn, Flow::Close]);
    assert!(matches!(closed(&bench).cause, Cause::Silence(time) if time == silence));
    // One that takes a message now and then stays.
    let mut talk = bench.introduced(now, &[layout(1)]);
    let mut at = now;
    for _ in 0..4 {
        assert_eq!(talk.fill(at).len(), 1);
        at += silence - MS;
        talk.say(at, &Message::Alive);
        assert_eq!(talk.connection.tick(at), Flow::GoOn);
    }
}

/// Answers that the reader does not take: the session reads no further request.
#[test]
fn a_reader_that_asks_and_takes_no_answer_is_not_read() {
    let config = ServerConfig { max_lanes: 100, ..ServerConfig::default() };
    let (bench, now) = (Bench::new(config, vec![]), Instant::now());
    let mut talk = bench.session(now, &[layout(1)]);
    let mut asked = 0;
    while talk.connection.takes_bytes() {
        assert!(asked < 200, "as many answers wait as there may be lanes");
        assert_eq!(talk.say(now, &asks(1, (0..32).map(|i| ask(asked + i + 1, 9)))), Flow::GoOn);
        asked += 32;
    }
    assert_eq!(asked, 128);
    // Its bytes lie in the socket, so it is not silent; but it takes nothing.
    let silence = ServerConfig::default().silence;
    assert_eq!(talk.connection.due(), now + silence);
    assert_eq!(talk.connection.tick(now + silence - MS), Flow::GoOn);
    let at = now + silence - MS;
    let said = talk.hear(at);
    let answers = said.iter().map(|message| match message {
        Message::LanesReady(LaneAnswers { lanes, .. }) => lanes.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(answers.collect::<Vec<_>>(), [64, 64]);
    assert!(talk.connection.takes_bytes());
    assert_eq!(talk.connection.tick(at + LULL - MS), Flow::GoOn, "it is heard from here on");
}

#[test]
fn answers_of_one_exchange_share_a_message_and_wait_for_the_offer() {
    let (bench, now) = (bench(), Instant::now());
    let mut talk = bench.introduced(now, &[layout(1)]);
    talk.say(now, &asks(1, [ask(1, 0), ask(2, 1)]));
    talk.say(now, &asks(2, [ask(3, 7), ask(4, 7)]));
    until("the lanes are made", || bench.ends.ready() == 2);
    let mut lanes = 0;
    let mut said = Vec::new();
    until("the lanes are answered", || {
        talk.connection.notified(now);
        let more = talk.hear(now);
        lanes += more.iter().filter(|message| matches!(message, Message::LanesReady(_))).count();
        said.extend(more);
        said.iter()
            .map(|message| if let Message::LanesReady(of) = message { of.lanes.len() } else { 0 })
            .sum::<usize>()
            == 4
    });
    let offered = said.iter().position(|message| *message == Message::Offered).unwrap();
    let first = said.iter().position(|message| matches!(message, Message::LanesReady(_))).unwrap();
    assert!(offered < first);
    assert!((2..=3).contains(&lanes), "{said:?}");
    drop(talk);
    assert!(matches!(closed(&bench).cause, Cause::Stopped));
    assert_eq!(bench.ends.ready(), 0);
}

#[test]
fn each_phase_is_told_that_the_server_stops() {
    let (bench, now) = (bench(), Instant::now());
    let (mut dialling, hello) = greeting(&keys());
    let mut silent = bench.connection(now);
    let mut half = bench.connection(now);
    half.received(now, &hello[..50]);
    let (mut greeted, mut talk) = (bench.greeted(now), bench.session(now, &[layout(1)]));
    bench.shared().stop();
    for connection in [&mut silent, &mut half] {
        assert_eq!(connection.notified(now), FINISH);
        let bytes = drain(connection, now);
        assert_eq!(
            refusal(&bytes, &mut Dialling::begin(&keys(), 0, &mut Vec::new()).unwrap()),
            Refusal::Stopping
        );
    }
    assert_eq!(greeted.connection.notified(now), FINISH);
    assert_eq!(greeted.hear(now), [Message::Refused(Refusal::Stopping)]);
    assert_eq!(talk.connection.notified(now), FINISH);
    assert_eq!(talk.hear(now), [Message::Bye(ByeReason::Stopping)]);
    let mut late = bench.connection(now);
    assert_eq!((late.due(), late.tick(now)), (now, FINISH));
    assert_eq!(refusal(&drain(&mut late, now), &mut dialling), Refusal::Stopping);
    drop((silent, half, greeted, talk, late));
    let stopped = |event: &ServerEvent| match event {
        ServerEvent::Failed { why, .. } | ServerEvent::Closed { why, .. } => {
            matches!(why.cause, Cause::Stopped)
        }
        _ => false,
    };
    assert_eq!(bench.events.try_iter().filter(stopped).count(), 5);
    assert_eq!(bench.shared().sessions(), 0);
}

#[test]
fn an_observer_that_panics_does_no_harm() {
    let observer = std::sync::Arc::new(|_: ServerEvent| panic!("an observer"));
    let config = ServerConfig { observer: Some(observer), ..ServerConfig::default() };
    let mut bench = bench();
    let shared =
        std::sync::Arc::get_mut(&mut bench.shop).and_then(|shop| std::sync::Arc::get_mut(&mut shop.shared));
    shared.unwrap().config = config;
    let now = Instant::now();
    let mut talk = bench.session(now, &[layout(1)]);
    assert_eq!(talk.say(now, &Message::Bye(ByeReason::Finished)), FINISH);
    assert_eq!(bench.shared().sessions(), 0);
}
