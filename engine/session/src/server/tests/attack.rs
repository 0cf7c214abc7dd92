//! Attackers on the way to the producer, and readers with the key that break the protocol.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kvrail_host::reactor::{Connection as _, Flow};

use super::bench::{Bench, Talk, drain};
use super::reader::{ask, asks, frame, greeting, introduction, raw};
use super::rig::{Random, Rig, keys, layout, pool};
use crate::error::{Cause, SessionError, Step};
use crate::handover::{HandoverMessage, HandoverNumber};
use crate::liveness::LINGER;
use crate::message::{ByeReason, Message, PoolRegions};
use crate::pool::PoolId;
use crate::refusal::Refusal;
use crate::server::{ServerConfig, ServerEvent};

fn bench() -> Bench {
    Bench::new(ServerConfig::default(), vec![pool(0, 1, 1)])
}

/// Why the only connection that ended did so.
fn end(bench: &Bench) -> SessionError {
    let ends = bench.events.try_iter().filter_map(|event| match event {
        ServerEvent::Failed { why, .. } | ServerEvent::Closed { why, .. } => Some(why),
        _ => None,
    });
    let mut ends: Vec<_> = ends.collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    ends.remove(0)
}

#[test]
fn no_byte_of_a_greeting_can_be_changed() {
    let (bench, now) = (bench(), Instant::now());
    for at in 0..80 {
        let (mut dialling, mut hello) = greeting(&keys());
        hello[at] ^= 1 << (at % 8);
        let mut connection = bench.connection(now);
        let flow = connection.received(now, &hello);
        let answer = drain(&mut connection, now);
        assert_ne!(flow, Flow::GoOn, "byte {at}");
        assert!(dialling.received(&mut &answer[..]).is_err(), "byte {at}");
        assert_eq!(end(&bench).step, Step::Handshake);
    }
}

/// Changes each byte of each frame in turn.
#[test]
fn no_byte_of_a_frame_can_be_changed() {
    let (bench, now) = (bench(), Instant::now());
    let said = [introduction(&[layout(1)]), asks(1, [ask(1, 9)]), Message::Bye(ByeReason::Finished)];
    for changed in 0..said.len() {
        for at in 0.. {
            let mut talk = bench.greeted(now);
            let frames: Vec<_> = said.iter().map(|message| frame(&mut talk.channel, message)).collect();
            if at == frames[changed].len() {
                drop(talk);
                assert!(matches!(end(&bench).cause, Cause::Stopped));
                break;
            }
            for frame in &frames[..changed] {
                assert_eq!(talk.connection.received(now, frame), Flow::GoOn);
            }
            let mut bytes = frames[changed].clone();
            bytes[at] ^= 1 << (at % 8);
            // A length that became longer waits for its bytes.
            bytes.resize(bytes.len() + if at < 2 { 70_000 } else { 0 }, 0);
            assert_ne!(talk.connection.received(now, &bytes), Flow::GoOn, "byte {at} of {changed}");
            let error = end(&bench);
            assert!(matches!(error.cause, Cause::Forged), "byte {at} of {changed}: {error}");
        }
    }
    assert_eq!(bench.shared().sessions(), 0);
}

#[test]
fn frames_can_be_neither_dropped_nor_repeated_nor_reordered() {
    let (bench, now) = (bench(), Instant::now());
    for order in [&[1][..], &[0, 2], &[0, 0], &[0, 1, 1], &[0, 2, 1]] {
        let mut talk = bench.greeted(now);
        let said = [introduction(&[layout(1)]), asks(1, [ask(1, 9)]), Message::Alive];
        let frames = said.map(|message| frame(&mut talk.channel, &message));
        let flows: Vec<_> = order.iter().map(|&i| talk.connection.received(now, &frames[i])).collect();
        assert!(flows.iter().any(|flow| *flow != Flow::GoOn), "{order:?}");
        assert!(matches!(end(&bench).cause, Cause::Forged), "{order:?}");
    }
}

/// What was said to one producer is said again: it is answered by a greeting, which anyone can have
/// who has seen the first message, and by nothing after that.
#[test]
fn a_replayed_reader_is_told_nothing() {
    let rig = Rig::new();
    let (mut dialling, hello) = greeting(&keys());
    let mut stream = raw(rig.server.local_addr());
    stream.write_all(&hello).unwrap();
    let mut welcome = [0; 104];
    stream.read_exact(&mut welcome).unwrap();
    let mut channel = dialling.received(&mut &welcome[..]).unwrap().unwrap();
    let mut all = frame(&mut channel, &introduction(&[layout(1)]));
    all.extend(frame(&mut channel, &asks(1, [ask(1, 0)])));
    stream.write_all(&all).unwrap();
    assert!(matches!(rig.event(), ServerEvent::Opened { .. }));
    drop(stream);
    rig.closed();

    let mut replay = raw(rig.server.local_addr());
    replay.write_all(&[&hello[..], &all].concat()).unwrap();
    let mut answer = Vec::new();
    let _ = replay.read_to_end(&mut answer);
    assert_eq!(answer.len(), 104, "the greeting, and nothing else");
    let error = rig.failure();
    assert!(matches!(error.cause, Cause::Forged), "{error}");
    assert_eq!(error.step, Step::Offer);
    assert_eq!((rig.server.sessions(), rig.server.lanes()), (0, vec![0; 3]));
}

/// The first frame of another connection, with the same key.
#[test]
fn a_session_cannot_be_taken_over() {
    let (bench, now) = (bench(), Instant::now());
    let (mut one, mut two) = (bench.session(now, &[layout(1)]), bench.session(now, &[layout(1)]));
    let stolen = frame(&mut one.channel, &asks(1, [ask(1, 9)]));
    assert_eq!(two.connection.received(now, &stolen), Flow::Finish { linger: LINGER });
    assert_eq!(two.hear(now), [Message::Bye(ByeReason::Protocol)]);
    assert!(matches!(end(&bench).cause, Cause::Forged));
    assert_eq!(one.connection.received(now, &stolen), Flow::GoOn, "the other one goes on");
    // A producer's own frames sent back.
    assert_eq!(one.connection.tick(now + Duration::from_secs(2)), Flow::GoOn);
    let own = drain(&mut one.connection, now + Duration::from_secs(2));
    assert_ne!(one.connection.received(now, &own), Flow::GoOn);
    assert!(matches!(end(&bench).cause, Cause::Forged));
}

fn rogue(talk: &mut Talk, plain: &[u8]) -> Flow {
    let mut out = Vec::new();
    talk.channel.seal(plain, &mut out).unwrap();
    talk.connection.received(Instant::now(), &out)
}

fn regions() -> Message {
    Message::Regions(PoolRegions { pool: PoolId(0), first: 0, regions: vec![super::rig::region(1)] })
}

#[test]
fn a_first_message_that_is_no_introduction_is_refused() {
    let (bench, now) = (bench(), Instant::now());
    for message in [Message::Alive, asks(1, [ask(1, 0)]), regions(), Message::Offered] {
        let mut talk = bench.greeted(now);
        let got = message.kind().unwrap();
        assert_eq!(talk.say(now, &message), Flow::Finish { linger: LINGER });
        assert_eq!(talk.hear(now), [Message::Refused(Refusal::Malformed { kind: got as u16 })]);
        let error = end(&bench);
        assert!(matches!(error.cause, Cause::Unexpected { got: kind } if kind == got), "{error}");
        assert_eq!(error.step, Step::Offer);
    }
    // A kind that may be passed over, one that no version knows, and no message at all.
    for (plain, kind) in
        [(&[7, 0x80, 0, 0, 0, 0, 0, 0][..], 0x8007), (&[9, 9, 0, 0, 0, 0, 0, 0], 0x909), (&[], 0)]
    {
        let mut talk = bench.greeted(now);
        assert_eq!(rogue(&mut talk, plain), Flow::Finish { linger: LINGER });
        assert_eq!(talk.hear(now), [Message::Refused(Refusal::Malformed { kind })]);
        let cause = end(&bench).cause;
        assert!(matches!(cause, Cause::Contradiction(_) | Cause::Parse(_)), "{cause}");
    }
    assert_eq!(bench.shared().sessions(), 0);
}

#[test]
fn messages_that_a_reader_may_not_send_end_the_session() {
    let (bench, now) = (bench(), Instant::now());
    let refused = Message::Refused(Refusal::Stopping);
    for message in [regions(), Message::Offered, Message::Gone(PoolId(0)), introduction(&[]), refused] {
        let mut talk = bench.session(now, &[layout(1)]);
        let got = message.kind().unwrap();
        assert_eq!(talk.say(now, &message), Flow::Finish { linger: LINGER });
        assert_eq!(talk.hear(now), [Message::Bye(ByeReason::Protocol)]);
        let error = end(&bench);
        assert!(matches!(error.cause, Cause::Unexpected { got: kind } if kind == got), "{error}");
        assert_eq!(error.step, Step::Established);
    }
    let unused = HandoverMessage::Done { number: HandoverNumber(NonZeroU32::MIN) };
    let mut talk = bench.session(now, &[layout(1)]);
    assert_eq!(talk.say(now, &Message::Handover(unused.clone())), Flow::Finish { linger: LINGER });
    assert_eq!(talk.hear(now), [Message::Bye(ByeReason::Protocol)]);
    assert!(matches!(end(&bench).cause, Cause::Handover(_)));
    // A reader without layouts makes no lanes, and takes no request.
    for message in [asks(1, [ask(1, 0)]), Message::Handover(unused)] {
        let mut talk = bench.session(now, &[]);
        let got = message.kind().unwrap();
        assert_eq!(talk.say(now, &message), Flow::Finish { linger: LINGER });
        assert_eq!(talk.hear(now), [Message::Bye(ByeReason::Protocol)]);
        assert!(matches!(end(&bench).cause, Cause::Unexpected { got: kind } if kind == got));
    }
    let mut talk = bench.session(now, &[]);
    assert_eq!(rogue(&mut talk, &[7, 0x80, 0, 0, 0, 0, 0, 0]), Flow::GoOn, "it may be passed over");
    assert_eq!(rogue(&mut talk, &[9, 9, 0, 0, 0, 0, 0, 0]), Flow::Finish { linger: LINGER });
    assert_eq!(talk.hear(now), [Message::Bye(ByeReason::Protocol)]);
    assert!(matches!(end(&bench).cause, Cause::Parse(_)));
}

/// After the end nothing is taken, whatever comes.
#[test]
fn a_session_that_has_ended_takes_and_says_nothing_more() {
    let (bench, now) = (bench(), Instant::now());
    let mut talk = bench.session(now, &[layout(1)]);
    assert_eq!(talk.say(now, &Message::Bye(ByeReason::Finished)), Flow::Finish { linger: LINGER });
    end(&bench);
    assert_ne!(talk.say(now, &asks(1, [ask(1, 0)])), Flow::GoOn);
    talk.connection.notified(now);
    talk.connection.ended(now, None);
    assert!(drain(&mut talk.connection, now + Duration::from_secs(60)).is_empty());
    assert!(bench.events.try_recv().is_err() && bench.accepting.try_recv().is_err());
}

/// Whatever bytes come in whatever pieces: the connection ends with an error or waits, and no
/// session begins.
#[test]
fn random_bytes_end_a_connection_or_wait() {
    let (bench, now) = (bench(), Instant::now());
    let (_, hello) = greeting(&keys());
    let mut random = Random(7);
    let mut random = move |below: u64| random.below(below);
    for _ in 0..2000 {
        let mut bytes = hello[..random(81) as usize].to_vec();
        bytes.extend((0..random(300)).map(|_| random(256) as u8));
        for _ in 0..random(3) {
            let at = random(bytes.len().max(1) as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random(256) as u8;
            }
        }
        let mut connection = bench.connection(now);
        for piece in bytes.chunks(1 + random(100) as usize) {
            connection.received(now, piece);
        }
        connection.ended(now, None);
        assert!(drain(&mut connection, now).len() <= 104 + 56);
    }
    assert!(bench.events.try_iter().all(|event| matches!(event, ServerEvent::Failed { .. })));
}
