//! The limits of time and number.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvrail_host::reactor::{Acceptor as _, Connection as _, Flow};
use rustix::net::{AddressFamily, SocketType, connect, sockopt};

use super::bench::{Bench, drain};
use super::reader::{FakeReader, LIMIT, greeting, introduction, raw};
use super::rig::{Rig, ends, keys, known, layout, pool, until};
use crate::error::{Cause, Step};
use crate::liveness::{BEAT, LULL};
use crate::message::{ByeReason, Message};
use crate::pool::PoolId;
use crate::refusal::Refusal;
use crate::server::{Observer, ProducerDescription, Server, ServerConfig, ServerEvent};

#[test]
fn ninety_nine_silent_peers_delay_no_other_peer() {
    let rig = Rig::new();
    let silent: Vec<TcpStream> = (0..99).map(|_| raw(rig.server.local_addr())).collect();
    let begun = Instant::now();
    rig.reader();
    // They may be silent for ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn silent_connections_do_not_keep_a_reader_out() {
    let rig = Rig::new();
    let limit = ServerConfig::default().max_handshakes;
    let mut silent: Vec<TcpStream> = (0..limit + 64).map(|_| raw(rig.server.local_addr())).collect();
    let _reader = rig.reader();
    // The youngest connections of one address have half of the places; the oldest one was
    // displaced, and got the reason.
    let mut told = Vec::new();
    silent[0].read_to_end(&mut told).unwrap();
    let Err(Cause::Refused { refusal, .. }) = greeting(&keys()).0.received(&mut &told[..]) else {
        panic!("{told:?}")
    };
    assert_eq!(refusal, Refusal::TooManyHandshakes { limit: limit as u64 });
    let why = rig.failure();
    assert!(matches!(why.cause, Cause::SentAway { limit: l } if l == limit), "{why}");
}

#[test]
fn connections_without_end_do_not_keep_a_reader_out() {
    let rig = Rig::limited(ServerConfig { max_handshakes: 8, ..ServerConfig::default() });
    let (address, flood) = (rig.server.local_addr(), AtomicBool::new(true));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = std::collections::VecDeque::new();
            while flood.load(Ordering::Relaxed) {
                last.extend(TcpStream::connect(address).ok());
                if last.len() > 64 {
                    last.pop_front();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let begun = Instant::now();
        // Some 500 connections a second compete for four places: a handshake of two round trips
        // succeeds at least once in several tries.
        let in_session = || {
            let mut reader = FakeReader::dial(address, &keys())?;
            reader.say(&introduction(&[layout(1)]));
            reader.try_hear()
        };
        let mut tries = 0;
        while let Err(error) = in_session() {
            tries += 1;
            assert!(begun.elapsed() < LIMIT, "{error} at try {tries}");
        }
        flood.store(false, Ordering::Relaxed);
    });
}

/// A crowd connects while the reactor is busy, which then accepts many connections in each of its
/// rounds, and a displaced one ends a round later.
#[test]
fn a_reader_behind_a_crowd_is_not_turned_away() {
    let (report, events) = channel();
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let observer: Observer = Arc::new(move |event| {
        let busy = matches!(event, ServerEvent::Failed { .. });
        let _ = report.send(event);
        if busy {
            // Until the crowd is there, and no longer than the test lasts.
            let _ = wait.lock().unwrap().recv_timeout(LIMIT);
        }
    });
    let config = ServerConfig { max_handshakes: 8, observer: Some(observer), ..ServerConfig::default() };
    let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools: vec![pool(0, 1, 1)] };
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(&listen, keys(), producer, ends().0, config).unwrap();
    let address = server.local_addr();
    raw(address).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(events.recv_timeout(LIMIT), Ok(ServerEvent::Failed { .. })));
    let crowd: Vec<_> = (0..160).map(|_| raw(address)).collect();
    let mut stream = raw(address);
    let (mut dialling, hello) = greeting(&keys());
    stream.write_all(&hello).unwrap();
    drop(go);
    let mut welcome = [0; 104];
    stream.read_exact(&mut welcome).unwrap();
    assert!(dialling.received(&mut &welcome[..]).unwrap().is_some());
    let turned_away = |event: ServerEvent| matches!(event, ServerEvent::TurnedAway { .. });
    assert!(!events.try_iter().any(turned_away));
    drop(crowd);
}

#[test]
fn a_connection_that_has_sent_a_hello_stays_longer_than_a_silent_one() {
    let rig = Rig::limited(ServerConfig { max_handshakes: 4, ..ServerConfig::default() });
    let mut spoken = rig.dial();
    let silent: Vec<_> = (0..6).map(|_| raw(rig.server.local_addr())).collect();
    for _ in 0..5 {
        assert!(matches!(rig.failure().cause, Cause::SentAway { limit: 4 }));
    }
    spoken.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let still = spoken.stream.read(&mut [0]).unwrap_err();
    assert_eq!(still.kind(), ErrorKind::WouldBlock);
    drop(silent);
}

/// The connections that leave have a bound of their own, and so have those that are turned away.
#[test]
fn connections_beyond_those_that_leave_are_turned_away() {
    let config = ServerConfig { max_handshakes: 4, ..ServerConfig::default() };
    let bench = Bench::new(config, vec![]);
    let mut acceptor = bench.acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    let now = Instant::now();
    // No reactor ends these connections.
    let mut accept = |host: u8| {
        let peer: SocketAddr = ([10, 0, 0, host], 9).into();
        acceptor.accepted(bench.id, peer, &near)
    };
    let mut all: Vec<_> = (0..=255).map_while(&mut accept).collect();
    all.extend((0..=255).map_while(&mut accept));
    assert_eq!(all.len(), 4 + 256 + 64, "admitted, leaving, and turned away");
    let events: Vec<_> = bench.events.try_iter().collect();
    let turned_away =
        |event: &&ServerEvent| matches!(event, ServerEvent::TurnedAway { max_handshakes: 4, .. });
    assert_eq!(events.iter().filter(turned_away).count(), events.len());
    assert_eq!(events.len(), 65);
    let mut last = all.pop().unwrap();
    assert!(last.due() <= Instant::now() && matches!(last.tick(now), Flow::Finish { .. }));
    let mut told = Vec::new();
    last.fill(now, &mut told, 1000);
    let Err(Cause::Refused { refusal, .. }) = greeting(&keys()).0.received(&mut &told[..]) else {
        panic!("{told:?}")
    };
    assert_eq!(refusal, Refusal::TooManyHandshakes { limit: 4 });
    // Places come back.
    all.clear();
    assert!(accept(7).is_some());
}

#[test]
fn a_session_beyond_the_limit_is_refused() {
    let rig = Rig::limited(ServerConfig { max_sessions: 1, ..ServerConfig::default() });
    let mut first = rig.reader();
    let mut second = rig.dial();
    second.say(&introduction(&[layout(1)]));
    let refusal = Refusal::TooManySessions { limit: 1 };
    assert_eq!(second.until_end(), [Message::Refused(refusal)]);
    let why = rig.failure();
    assert_eq!((why.refusal(), why.step), (Some(&refusal), Step::Offer));
    first.say(&Message::Bye(ByeReason::Finished));
    assert!(matches!(rig.closed().cause, Cause::Bye(ByeReason::Finished)));
    rig.reader();
}

#[test]
fn stopping_sends_bye_and_does_not_wait_for_peers() {
    let mut rig = Rig::new();
    let mut reader = rig.reader();
    let (mut silent, mut half) = (raw(rig.server.local_addr()), raw(rig.server.local_addr()));
    let mut greeted = rig.dial();
    half.write_all(&greeting(&keys()).1[..40]).unwrap();
    let begun = Instant::now();
    assert_eq!(rig.server.stop(begun + LIMIT), 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(rig.server.local_addr()).is_err());
    assert_eq!(reader.until_end(), [Message::Bye(ByeReason::Stopping)]);
    assert_eq!(greeted.until_end(), [Message::Refused(Refusal::Stopping)]);
    for stream in [&mut silent, &mut half] {
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        let answer = greeting(&keys()).0.received(&mut &told[..]);
        assert!(matches!(answer, Err(Cause::Refused { refusal: Refusal::Stopping, .. })));
    }
    assert_eq!(rig.server.stop(Instant::now()), 0, "it has stopped");
}

/// A child of a fork keeps the connection of a dead process open.
#[test]
fn a_peer_that_sends_nothing_is_gone_and_an_idle_one_is_not() {
    let (bench, now) = (Bench::new(ServerConfig::default(), vec![pool(0, 1, 1)]), Instant::now());
    let (mut idle, mut dead) = (bench.session(now, &[layout(1)]), bench.session(now, &[layout(1)]));
    let mut at = now;
    while at < now + LULL {
        for talk in [&mut idle, &mut dead] {
            assert_eq!(talk.connection.tick(at), Flow::GoOn);
            drain(&mut talk.connection, at);
        }
        idle.say(at, &Message::Alive);
        at += BEAT;
    }
    assert!(dead.connection.due() <= now + LULL);
    let flows: Vec<_> = (0..2).map(|_| dead.connection.tick(now + LULL)).collect();
    assert_eq!(flows, [Flow::GoOn, Flow::Close]);
    let closed = bench.events.try_iter().find_map(|event| match event {
        ServerEvent::Closed { session, why, .. } => Some((session, why)),
        _ => None,
    });
    let (session, why) = closed.unwrap();
    assert!(session == 2 && matches!(why.cause, Cause::Silence(LULL)), "{session}: {why}");
    (0..2).for_each(|_| assert_eq!(idle.connection.tick(now + LULL), Flow::GoOn));
    assert_eq!(bench.shared().sessions(), 1);
}

/// A connection whose receiver takes a few kilobytes before it is read.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// The pools change all the time, and the reader takes nothing, and says that it lives. Loopback
/// takes some megabytes before it takes no more.
#[test]
fn a_reader_that_takes_nothing_is_ended_although_it_says_that_it_lives() {
    let silence = Duration::from_millis(1500);
    let config = ServerConfig { silence, ..ServerConfig::default() };
    let rig = Rig::with(config, (0..15).map(|id| pool(id, 1, 1024)).collect());
    let mut slow = FakeReader::over(narrow(rig.server.local_addr()), &keys()).unwrap();
    slow.say(&introduction(&known(1)));
    let (mut next, mut why) = (15, None);
    until("the session has ended", || {
        slow.say(&Message::Alive);
        rig.server.add_pool(pool(next, 1, 1024)).unwrap();
        assert!(rig.server.remove_pool(PoolId(next - 15)));
        next += 1;
        why = rig.events.try_iter().find_map(|event| match event {
            ServerEvent::Closed { why, .. } => Some(why),
            _ => None,
        });
        why.is_some()
    });
    let why = why.unwrap();
    assert!(matches!(why.cause, Cause::Silence(time) if time == silence), "{why}");
}

#[test]
fn a_reader_that_takes_its_time_gets_the_whole_offer() {
    let rig = Rig::with(ServerConfig::default(), (0..16).map(|id| pool(id, 1, 1024)).collect());
    let mut reader = FakeReader::over(narrow(rig.server.local_addr()), &keys()).unwrap();
    reader.say(&introduction(&known(1)));
    std::thread::sleep(Duration::from_millis(200));
    let mut regions = 0;
    loop {
        match reader.hear() {
            Message::Regions(of) => regions += of.regions.len(),
            Message::Offered => break,
            _ => {}
        }
    }
    assert_eq!(regions, 16 * 1024);
}
