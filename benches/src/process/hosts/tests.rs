//! Clocks that differ, workers that are late, and messages that are none.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kvrail::clock;

use super::leader::{Leader, Member};
use super::link::{HostStream, Meeting, Message, PATIENCE, Round, Settings, VERSION, differences};
use super::{Follower, Hosts};
use crate::measure::window::Span;
use crate::process::stop::Stop;

/// The clock of the other host is so much ahead, in nanoseconds.
const AHEAD: u64 = 3_600_000_000_000;
const MS: u64 = 1_000_000;

/// A leader, and the connection of a host whose clock is ahead.
fn pair() -> (Leader, HostStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (here, _) = listener.accept().unwrap();
    let link = HostStream::new("there".into(), here).unwrap();
    let leader = Leader { members: vec![Member { link, workers: 1, ahead: 0, error: 0 }] };
    (leader, HostStream::new("leader".into(), there).unwrap())
}

/// A host that answers as one does whose worker is late by `late` nanoseconds. It returns the
/// window that it is told.
fn answer(mut link: HostStream, late: u64) -> Option<Span> {
    let mut ran = None;
    loop {
        match link.receive(PATIENCE, None).unwrap() {
            Message::Ask => link.send(&Message::Time(clock::now().0 + AHEAD)).unwrap(),
            Message::Round(round) => {
                let end = round.start + round.warmup + round.duration;
                let began = round.start + late;
                ran = (began < end).then_some(Span { from: began, to: end });
                link.send(&Message::Ran(ran)).unwrap();
            }
            Message::Window(window) => {
                let inside = |window: Span| ran.is_some_and(|r| r.from <= window.from && window.to <= r.to);
                assert!(window.is_none_or(inside), "{window:?} is not within {ran:?}");
                return window;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The common window, less the start of the round, where the other host is late.
fn common(late: u64) -> (Option<(u64, u64)>, Vec<String>, Option<Span>) {
    let (mut leader, link) = pair();
    let other = thread::spawn(move || answer(link, late));
    let round = Round { lap: 0, start: 0, warmup: 0, duration: 1000 * MS };
    let start = leader.begin(Duration::from_millis(1), round).unwrap();
    let own = Span { from: start, to: start + 1000 * MS };
    let (window, hosts) = leader.common(Some(own), Duration::ZERO).unwrap();
    let window = window.map(|window| (window.from - start, window.to - start));
    (window, hosts, other.join().unwrap())
}

#[test]
fn times_are_converted_from_clock_to_clock() {
    let (window, late, theirs) = common(0);
    assert_eq!((window, late), (Some((0, 1000 * MS)), vec![]));
    let theirs = theirs.unwrap();
    assert_eq!(theirs.to - theirs.from, 1000 * MS);
    assert!(theirs.from > AHEAD, "it is a time of the other host's clock");
}

#[test]
fn a_late_worker_of_another_host_shortens_the_window_of_all() {
    assert_eq!(common(400 * MS).0, Some((400 * MS, 1000 * MS)));
}

#[test]
fn a_worker_that_is_two_seconds_late_leaves_no_window_and_is_named() {
    let (window, late, theirs) = common(2000 * MS);
    assert_eq!((window, late, theirs), (None, vec!["there".to_owned()], None));
}

#[test]
fn a_message_that_is_none_is_an_error() {
    let (mut leader, mut link) = pair();
    link.stream.get_mut().write_all(b"GET / HTTP/1.1\n").unwrap();
    let error = leader.members[0].link.receive(PATIENCE, None).unwrap_err().to_string();
    assert!(error.contains("something else than kvrail-bench"), "{error}");
    drop(link);
    let error = leader.members[0].link.receive(PATIENCE, None).unwrap_err().to_string();
    assert!(error.contains("does not take part any more"), "{error}");
}

#[test]
fn bytes_that_never_end_a_message_do_not_keep_a_host_beyond_its_patience() {
    let (mut leader, mut link) = pair();
    let began = Instant::now();
    let other = thread::spawn(move || {
        while began.elapsed() < Duration::from_secs(20) && link.stream.get_mut().write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    let error = leader.members[0].link.receive(Duration::from_millis(200), None).unwrap_err().to_string();
    assert!(error.contains("did not answer for 200ms"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(leader);
    other.join().unwrap();
}

#[test]
fn a_host_that_goes_and_comes_again_while_others_are_waited_for_is_one_host() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let meeting = Meeting { at: at.to_string().parse().unwrap(), hosts: 3 };
    let until = Instant::now() + Duration::from_secs(60);
    let leader = thread::spawn(move || {
        Leader::gather(&listener, &meeting, &Settings::new(), until, &Stop::catch().unwrap())
    });
    let come = |host: &str| {
        let mut link = HostStream::new("leader".into(), TcpStream::connect(at).unwrap()).unwrap();
        let (host, settings) = (host.to_owned(), Settings::new());
        link.send(&Message::Hello { version: VERSION, host, settings, workers: 1 }).unwrap();
        assert!(matches!(link.receive(PATIENCE, None).unwrap(), Message::Welcome));
        link
    };
    let stopped = come("b");
    drop(stopped);
    let (b, c) = (come("b"), come("c"));
    let leader = leader.join().unwrap().unwrap();
    let own: Vec<_> = [&b, &c].map(|link| link.stream.get_ref().local_addr().unwrap()).into();
    let members: Vec<_> =
        leader.members.iter().map(|member| member.link.stream.get_ref().peer_addr().unwrap()).collect();
    assert_eq!(members, own, "the two that are there");
}

#[test]
fn a_round_that_begins_years_from_now_is_none() {
    let (mut leader, link) = pair();
    let mut follower = Follower { leader: link, partial: false };
    let stop = Stop::catch().unwrap();
    let mut order = |start| {
        let round = Round { lap: 0, start, warmup: 0, duration: MS };
        leader.members[0].link.send(&Message::Round(round)).unwrap();
        follower.next(&stop)
    };
    assert!(order(clock::now().0 + 1000 * MS).unwrap().is_some());
    let error = order(u64::MAX).unwrap_err().to_string();
    assert!(error.contains("a message that does not fit"), "{error}");
}

#[test]
fn hosts_that_expect_different_numbers_of_hosts_do_not_measure() {
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let meet = |hosts: usize| {
        let meeting = Meeting { at: at.parse().unwrap(), hosts };
        thread::spawn(move || {
            let stop = Stop::catch().unwrap();
            Hosts::meet(Some(&meeting), &Settings::new(), 1, &stop).map(drop).unwrap_err().to_string()
        })
    };
    for host in [meet(2), meet(3)] {
        let error = host.join().unwrap();
        assert!(error.contains("hosts is "), "{error}");
    }
}

#[test]
fn settings_that_differ_are_named_with_both_values() {
    let of = |all: &[(&str, &str)]| -> Settings {
        all.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let own = of(&[("batch", "8"), ("layout", "a of 4096 bytes"), ("op", "read")]);
    let other = of(&[("batch", "8"), ("layout", "a of 131072 bytes\u{1b}[2J"), ("rate", "1")]);
    let told = differences(&own, &other);
    assert_eq!(
        told,
        [
            "layout is a of 4096 bytes here and a of 131072 bytes[2J there",
            "op is read here and nothing there",
            "rate is nothing here and 1 there"
        ]
    );
    assert!(differences(&own, &own).is_empty());
}
