//! The limits of time and number, and the addresses at which a server listens.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::rig::*;
use crate::stream::LULL;
use crate::{
    ByeReason, Cause, Hello, Message, MessageKind, OfferedRegionError, ProducerDescription, Reason,
    ServeError, Server, ServerConfig, ServerEvent, Step, connect,
};
use kvrail_host::wake::poll_timeout;

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_silent_peer_is_an_error_that_says_for_how_long() {
    let rig = Rig::with(ServerConfig { silence: SHORT, ..ServerConfig::default() }, 0);
    let silent = rig.raw();
    let begun = Instant::now();
    let error = rig.failure();
    assert!(matches!(error.cause, Cause::Silence(SHORT)), "{error}");
    assert_eq!(error.step, Step::Awaiting(MessageKind::Hello));
    assert!(error.to_string().contains("0.2 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // The same in the middle of a message.
    let mut half = rig.raw();
    half.write_all(&raw_hello(|_| ())).unwrap();
    let error = rig.failure();
    assert_eq!(error.step, Step::Awaiting(MessageKind::Propose));
    drop(silent);
}

#[test]
fn a_silent_producer_is_an_error_for_the_reader() {
    let (address, thread) = impostor(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
    });
    let hello = Hello { silence: SHORT, ..hello() };
    let error = connect(&address.into(), &key(), hello, soon()).unwrap_err();
    assert!(matches!(error.cause, Cause::Silence(SHORT)), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_reader_that_sends_slowly_meets_the_handshakes_deadline() {
    let limit = 3 * SHORT;
    let config = ServerConfig { silence: SHORT, handshake: limit, ..ServerConfig::default() };
    let rig = Rig::with(config, 0);
    let mut slow = rig.raw();
    let begun = Instant::now();
    let drip = std::thread::spawn(move || {
        for byte in raw_hello(|_| ()) {
            if slow.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(SHORT / 10);
        }
    });
    let error = rig.failure();
    assert!(matches!(error.cause, Cause::Deadline), "{error}");
    assert!(begun.elapsed() >= limit);
    drip.join().unwrap();
}

#[test]
fn a_producer_that_sends_slowly_meets_the_readers_deadline() {
    let (address, thread) = impostor(|mut stream| {
        for byte in crate::handshake::unauthenticated_refusal("drip".parse().unwrap(), Reason::Stopping) {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(SHORT / 10);
        }
    });
    let begun = Instant::now();
    let error = connect(&address.into(), &key(), hello(), begun + SHORT).unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    thread.join().unwrap();
}

#[test]
fn a_connection_closed_within_a_message_is_an_error_of_its_own() {
    let rig = Rig::new();
    rig.raw().write_all(&raw_hello(|_| ())[..64]).unwrap();
    assert!(matches!(rig.failure().cause, Cause::Truncated { got: 64, want: 128 }));
    rig.raw().write_all(&raw_hello(|_| ())[..3]).unwrap();
    assert!(matches!(rig.failure().cause, Cause::Truncated { got: 3, want: 16 }));
    drop(rig.raw());
    assert!(matches!(rig.failure().cause, Cause::Closed));
    let (address, thread) = impostor(|mut stream| {
        let (_, mut frame) = read_message(&mut stream);
        frame.truncate(40);
        stream.write_all(&frame).unwrap();
    });
    let error = connect(&address.into(), &key(), hello(), soon()).unwrap_err();
    assert!(matches!(error.cause, Cause::Truncated { got: 40, want: 128 }), "{error}");
    thread.join().unwrap();
}

#[test]
fn ninety_nine_silent_peers_delay_no_other_peer() {
    let rig = Rig::new();
    let silent: Vec<TcpStream> = (0..99).map(|_| rig.raw()).collect();
    let begun = Instant::now();
    let session = rig.connect().unwrap();
    // They may be silent for ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(session.offer().regions.len(), 3);
    drop(silent);
}

#[test]
fn silent_connections_do_not_keep_a_reader_out() {
    let rig = Rig::new();
    let limit = ServerConfig::default().max_handshakes;
    let mut silent: Vec<TcpStream> = (0..limit + 64).map(|_| rig.raw()).collect();
    let session = rig.connect().unwrap();
    assert_eq!(session.offer().regions.len(), 3);
    // The youngest connections of one address have half of the places; the oldest one was
    // displaced, and got the reason.
    let mut told = Vec::new();
    silent[0].read_to_end(&mut told).unwrap();
    let refusal = crate::parse(&told).unwrap();
    let Message::Refused(refusal) = refusal else { panic!("{refusal:?}") };
    assert_eq!(refusal.reason, Reason::TooManyHandshakes { limit: limit as u64 });
    let why = loop {
        match rig.event() {
            ServerEvent::Failed { why, .. } => break why,
            ServerEvent::Opened { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(why.cause, Cause::SentAway { limit: l } if l == limit), "{why}");
    drop(silent);
}

#[test]
fn connections_without_end_do_not_keep_a_reader_out() {
    let rig = Rig::with(ServerConfig { max_handshakes: 8, ..ServerConfig::default() }, 0);
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
        // Some 500 connections a second compete for four places: a handshake of a few round trips
        // succeeds at least once in several tries.
        let mut tries = 0;
        while let Err(error) = rig.connect() {
            tries += 1;
            assert!(begun.elapsed() < Duration::from_secs(20), "{error} at try {tries}");
        }
        flood.store(false, Ordering::Relaxed);
    });
}

#[test]
fn a_connection_that_has_sent_a_hello_stays_longer_than_a_silent_one() {
    let rig = Rig::with(ServerConfig { max_handshakes: 4, ..ServerConfig::default() }, 0);
    let mut spoken = rig.raw();
    spoken.write_all(&raw_hello(|_| ())).unwrap();
    let (challenge, _) = read_message(&mut spoken);
    assert!(matches!(challenge, Message::Challenge(..)));
    let silent: Vec<_> = (0..6).map(|_| rig.raw()).collect();
    for _ in 0..5 {
        assert!(matches!(rig.failure().cause, Cause::SentAway { limit: 4 }));
    }
    spoken.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let still = spoken.read(&mut [0]).unwrap_err();
    assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock);
    drop(silent);
}

#[test]
fn a_session_beyond_the_limit_is_refused() {
    let rig = Rig::with(ServerConfig { max_sessions: 1, ..ServerConfig::default() }, 0);
    let first = rig.connect().unwrap();
    let error = rig.connect().unwrap_err();
    assert_eq!(error.refusal().unwrap().reason, Reason::TooManySessions { limit: 1 });
    drop(first);
    let closed = loop {
        if let ServerEvent::Closed { why, .. } = rig.event() {
            break why;
        }
    };
    assert!(matches!(closed.cause, Cause::Bye(ByeReason::Finished)), "{closed}");
    rig.connect().unwrap();
}

#[test]
fn stopping_sends_bye_and_does_not_wait_for_peers() {
    let mut rig = Rig::new();
    let mut session = rig.connect().unwrap();
    let silent = rig.raw();
    assert!(session.is_alive());
    let begun = Instant::now();
    assert_eq!(rig.server.stop(soon()), 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let error = rig.connect().unwrap_err();
    assert_eq!(error.step, Step::Connecting);
    let mut fds = [PollFd::new(&session, PollFlags::IN)];
    assert_eq!(
        poll(&mut fds, Some(&poll_timeout(soon()))),
        Ok(1),
        "readable when there is something to learn"
    );
    let why = session.closed().unwrap();
    assert!(matches!(why.cause, Cause::Bye(ByeReason::Stopping)), "{why}");
    assert!(!session.is_alive() && session.as_fd().try_clone_to_owned().is_ok());
    drop(silent);
}

#[test]
fn each_start_has_another_epoch() {
    let (one, two) = (Rig::new(), Rig::new());
    assert_eq!(one.connect().unwrap().offer().epoch, one.server.epoch());
    assert_ne!(one.server.epoch(), two.server.epoch());
}

#[test]
fn the_error_of_a_port_in_use_says_what_to_do() {
    let rig = Rig::new();
    let address = rig.server.local_addr();
    let start = |producer| {
        Server::start(&address.into(), key(), producer, Ends::default(), ServerConfig::default()).unwrap_err()
    };
    let producer =
        ProducerDescription { node: "prefill-2".parse().unwrap(), layout: layout(), regions: Vec::new() };
    let error = start(producer.clone());
    assert!(matches!(error, ServeError::Listen { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("another process has that port"), "{text}");
    let other = crate::Layout { page_bytes: std::num::NonZeroU64::new(512).unwrap(), ..layout() };
    let error = start(ProducerDescription { layout: other, regions: vec![region(0)], ..producer });
    assert_eq!(
        error.to_string(),
        "the regions hold 1 of 1 parts, 4096 bytes of each page, but the layout's pages have 512"
    );
}

#[test]
fn the_error_of_an_address_without_an_interface_says_so() {
    let producer =
        ProducerDescription { node: "prefill-2".parse().unwrap(), layout: layout(), regions: Vec::new() };
    // TEST-NET-1 of RFC 5737.
    let address = "192.0.2.1:0".parse().unwrap();
    let error =
        Server::start(&address, key(), producer, Ends::default(), ServerConfig::default()).unwrap_err();
    assert!(error.to_string().contains("no interface of this host"), "{error}");
}

#[test]
fn ipv6_loopback_works_where_there_is_one() {
    let producer = ProducerDescription {
        node: "prefill-6".parse().unwrap(),
        layout: layout(),
        regions: vec![region(1)],
    };
    let listen = "[::1]:0".parse().unwrap();
    match Server::start(&listen, key(), producer, Ends::default(), ServerConfig::default()) {
        Ok(server) => {
            let address = format!("[::1]:{}", server.local_addr().port()).parse().unwrap();
            let session = connect(&address, &key(), hello(), soon()).unwrap();
            assert_eq!(session.producer().as_str(), "prefill-6");
        }
        Err(ServeError::Listen { source, .. }) => eprintln!("SKIPPED: this host has no ::1 ({source})"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn regions_beyond_one_message_arrive_in_order_and_too_many_are_refused() {
    let rig = Rig::with(ServerConfig::default(), 40);
    let session = rig.connect().unwrap();
    let all: Vec<_> = (0..40).map(region).collect();
    assert_eq!(session.offer().regions, all);
    rig.server.publish((0..1024).map(region).collect()).unwrap();
    assert_eq!(rig.connect().unwrap().offer().regions.len(), 1024);
    let error = rig.server.publish(vec![region(0); 1025]).unwrap_err();
    assert_eq!(error, OfferedRegionError::TooMany { count: 1025 });
    rig.server.publish(Vec::new()).unwrap();
    assert!(rig.connect().unwrap().offer().regions.is_empty());
}

/// A proxy stops passing bytes on and keeps the connection open, as a child of a fork does with the
/// connection of a dead process.
#[test]
fn a_peer_that_sends_nothing_is_gone_and_an_idle_one_is_not() {
    let rig = Rig::new();
    let mut idle = rig.connect().unwrap();
    let frozen = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, producer) = (listener.local_addr().unwrap(), rig.server.local_addr());
    let still = Arc::clone(&frozen);
    let middle = std::thread::spawn(move || {
        let (near, far) = (listener.accept().unwrap().0, raw(producer));
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        }
        while !still.load(Ordering::Relaxed) {
            for (mut from, mut to) in [(&near, &far), (&far, &near)] {
                let mut bytes = [0; 4096];
                if let Ok(got) = from.read(&mut bytes) {
                    to.write_all(&bytes[..got]).unwrap();
                }
            }
        }
        [near, far]
    });
    let mut session = connect(&address.into(), &key(), hello(), soon()).unwrap();
    frozen.store(true, Ordering::Relaxed);
    let _open = middle.join().unwrap();
    let begun = Instant::now();
    let gone = loop {
        if let Some(why) = session.closed() {
            break Arc::clone(why);
        }
        assert!(idle.is_alive());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(matches!(gone.cause, Cause::Silence(LULL)), "{gone}");
    let closed = rig.closed();
    assert!(matches!(closed.cause, Cause::Silence(LULL)), "{closed}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(idle.is_alive(), "idle for as long, and alive");
    assert_eq!(rig.server.sessions(), 1);
}
