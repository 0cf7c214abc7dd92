//! The limits of time and number, and the addresses at which a reader connects.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvrail_host::wake::poll_timeout;
use kvrail_session::{
    ByeReason, Cause, LULL, PeerKeys, ProducerDescription, ReaderDescription, Refusal, ServeError, Server,
    ServerConfig, ServerEvent, Step, addresses_of, connect, share_of_time,
};
use rustix::event::{PollFd, PollFlags, poll};

use super::rig::*;

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_silent_producer_is_an_error_for_the_reader_that_says_for_how_long() {
    let (address, thread) = impostor(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 80);
    });
    let reader = ReaderDescription { silence: SHORT, ..reader() };
    let error = connect(&address.into(), key(5), reader, soon()).unwrap_err();
    assert!(matches!(error.cause, Cause::Silence(SHORT)), "{error}");
    assert!(error.to_string().contains("0.2 s"), "{error}");
    assert_eq!(error.step, Step::Handshake);
    thread.join().unwrap();
}

#[test]
fn a_producer_that_sends_slowly_meets_the_readers_deadline() {
    let (address, thread) = impostor(|mut stream| {
        for byte in b"kvrail\r\n\x02\0\x48\0\x02\0\x02\0\x02\0\0\0\0\0\0\0........" {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(SHORT / 10);
        }
    });
    let begun = Instant::now();
    let error = connect(&address.into(), key(5), reader(), begun + SHORT).unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    thread.join().unwrap();
}

#[test]
fn a_connection_closed_within_a_greeting_is_an_error_of_its_own() {
    for (sent, want) in [(40, 104), (20, 32)] {
        let (address, thread) = impostor(move |mut stream| {
            stream.read_exact(&mut [0; 80]).unwrap();
            let mut welcome = b"kvrail\r\n\x02\0\x48\0\x02\0\x02\0\x02\0\0\0\0\0\0\0".to_vec();
            welcome.extend(key(5).id().0);
            welcome.extend([0; 72]);
            stream.write_all(&welcome[..sent]).unwrap();
        });
        let error = connect(&address.into(), key(5), reader(), soon()).unwrap_err();
        assert!(
            matches!(error.cause, Cause::Truncated { got, want: w } if (got, w) == (sent, want)),
            "{error}"
        );
        thread.join().unwrap();
    }
    let (address, thread) = impostor(|mut stream| stream.read_exact(&mut [0; 80]).unwrap());
    let error = connect(&address.into(), key(5), reader(), soon()).unwrap_err();
    assert!(matches!(error.cause, Cause::Closed), "{error}");
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
    assert_eq!(session.offer().pools.len(), 1);
    drop(silent);
}

#[test]
fn connections_without_end_do_not_keep_a_reader_out() {
    let rig = Rig::with(ServerConfig { max_handshakes: 8, ..ServerConfig::default() }, Vec::new());
    let (address, flood) = (rig.address(), AtomicBool::new(true));
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
fn a_session_beyond_the_limit_is_refused() {
    let rig = Rig::with(ServerConfig { max_sessions: 1, ..ServerConfig::default() }, Vec::new());
    let first = rig.connect().unwrap();
    let error = rig.connect().unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::TooManySessions { limit: 1 }));
    assert!(matches!(error.cause, Cause::Refused { verified: true, .. }), "{error}");
    assert_eq!(error.step, Step::Offer);
    drop(first);
    until("the first session has ended", || rig.server.sessions() == 0);
    rig.connect().unwrap();
}

#[test]
fn a_dropped_session_says_goodbye() {
    let rig = Rig::new();
    drop(rig.connect().unwrap());
    let closed = rig.closed();
    assert!(matches!(closed.cause, Cause::Bye(ByeReason::Finished)), "{closed}");
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
    until("the end is found", || !session.is_alive());
    let why = session.closed().unwrap();
    assert!(matches!(why.cause, Cause::Bye(ByeReason::Stopping)), "{why}");
    assert!(!session.is_alive() && session.as_fd().try_clone_to_owned().is_ok());
    assert!(session.due() > Instant::now(), "nothing is due after the end");
    drop(silent);
}

#[test]
fn connections_that_come_while_a_producer_stops_do_not_delay_it() {
    let mut rig = Rig::new();
    let (address, going) = (rig.address(), AtomicBool::new(true));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // They say nothing, and stay open.
                let mut open = Vec::new();
                while going.load(Ordering::Relaxed) && open.len() < 1000 {
                    open.extend(TcpStream::connect(address));
                }
                until("the producer has stopped", || !going.load(Ordering::Relaxed));
            });
        }
        until("connections come", || matches!(rig.event(), ServerEvent::Failed { .. }));
        let begun = Instant::now();
        assert_eq!(rig.server.stop(begun + Duration::from_secs(60)), 0);
        going.store(false, Ordering::Relaxed);
        // Each is told why within a second, and closed.
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    });
}

#[test]
fn each_start_has_another_epoch() {
    let (one, two) = (Rig::new(), Rig::new());
    assert_eq!(one.connect().unwrap().offer().epoch, one.server.epoch());
    assert_ne!(one.server.epoch(), two.server.epoch());
}

#[test]
fn ipv6_loopback_works_where_there_is_one() {
    let producer = ProducerDescription { node: "prefill-6".parse().unwrap(), pools: vec![pool(1, 1, 1)] };
    let listen = "[::1]:0".parse().unwrap();
    match Server::start(&listen, key(5), producer, Ends::default(), ServerConfig::default()) {
        Ok(server) => {
            let address = format!("[::1]:{}", server.local_addr().port()).parse().unwrap();
            let session = connect(&address, key(5), reader(), soon()).unwrap();
            assert_eq!(session.producer().as_str(), "prefill-6");
        }
        Err(ServeError::Listen { source, .. }) => eprintln!("SKIPPED: this host has no ::1 ({source})"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_name_with_several_addresses_is_tried_at_each() {
    let rig = Rig::new();
    let address = format!("localhost:{}", rig.address().port()).parse().unwrap();
    let session = connect(&address, key(5), reader(), soon()).unwrap();
    assert_eq!(session.offer().epoch, rig.server.epoch());
    let found = addresses_of(&address, soon()).unwrap();
    assert!(!found.is_empty() && found.iter().all(|a| a.ip().is_loopback()), "{found:?}");
}

#[test]
fn each_address_gets_its_share_of_the_time() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    assert_eq!(share_of_time(now, now + 4 * second, 4), now + second);
    assert_eq!(share_of_time(now + second, now + 4 * second, 3), now + 2 * second);
    assert_eq!(share_of_time(now, now + 4 * second, 1), now + 4 * second);
    assert_eq!(share_of_time(now + second, now, 2), now + second, "no time is left");
    assert_eq!(share_of_time(now, now + second, 0), now + second);
}

/// A proxy stops passing bytes on and keeps the connection open, as a child of a fork does with the
/// connection of a dead process.
#[test]
fn a_peer_that_sends_nothing_is_gone_and_an_idle_one_is_not() {
    let rig = Rig::new();
    let mut idle = rig.connect().unwrap();
    let frozen = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, producer) = (listener.local_addr().unwrap(), rig.address());
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
    let mut session = connect(&address.into(), PeerKeys::one(key(5)), reader(), soon()).unwrap();
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
    assert!(begun.elapsed() < LULL + Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(idle.is_alive(), "idle for as long, and alive");
    assert_eq!(rig.server.sessions(), 1);
}

#[test]
fn times_that_no_clock_can_hold_count_as_a_day() {
    let config = ServerConfig { silence: Duration::MAX, handshake: Duration::MAX, ..ServerConfig::default() };
    let rig = Rig::with(config, vec![pool(1, 1, 3)]);
    let reader = ReaderDescription { silence: Duration::MAX, ..reader() };
    let session = connect(&rig.address().into(), key(5), reader, soon()).unwrap();
    assert!(matches!(rig.event(), ServerEvent::Opened { .. }));
    assert_eq!(session.offer().pools.len(), 1);
}
