//! Tests of the heap, of the turns of peers, and of requests by class.

use super::*;
use crate::test_seeds as seeds;
use crate::time::Nanos;
use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

const URGENT: Class = Class::Urgent;

/// A request for an urgent lane of a peer between its first rail and ours.
fn request(peer: u16) -> Request {
    Request { peer, rail: 0, remote_rail: 0, class: URGENT }
}

/// Room for `n` peers, each with as many paths as there can be.
struct Rooms {
    peers: Vec<Paths>,
    paths: Vec<Path>,
    entries: Vec<Lost>,
    heap: Vec<u16>,
}

impl Rooms {
    fn new(n: usize) -> Self {
        let lanes = (n * MAX_RAILS).min(65_534);
        Self {
            peers: (0..n).map(|_| Paths::NEW).collect(),
            paths: vec![Path::NEW; lanes],
            entries: vec![Lost::FREE; lanes],
            heap: vec![0; n],
        }
    }

    fn repairs(&mut self, limit: u16, rails: usize) -> Repairs<'_> {
        let Self { peers, paths, entries, heap } = self;
        Repairs::new(peers, (paths, entries), heap, &mut [], limit, rails)
    }
}

#[test]
fn the_heap_gives_the_peer_with_the_least_key() {
    seeds::each("the_heap_gives_the_peer_with_the_least_key", 7..8, |seed| {
        let mut state: u64 = seed;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut rooms = Rooms::new(20);
        let mut repairs = rooms.repairs(1_000, 2);
        let mut now = Time(1);
        for _ in 0..20_000 {
            now = now + Nanos(random(3));
            let (peer, rail) = (random(20) as u16, random(2) as usize);
            let class = Class::ALL[random(2) as usize];
            match random(7) {
                0 | 1 => repairs.lane_lost(peer, rail, 3, class, now + Nanos(random(50))),
                2 if repairs.is_requested(peer, rail, 3, class) => {
                    repairs.request_failed(peer, rail, 3, class, now + Nanos(random(50)));
                }
                2 => {}
                3 => repairs.attached(peer, rail, 3, class),
                4 => repairs.forget(peer),
                5 if random(20) == 0 => repairs.rail_down(rail),
                5 => repairs.rail_up(rail, now),
                _ => {
                    let want = (0..20).filter_map(|peer| repairs.key_of(peer)).min();
                    let want = want.filter(|&(at, _)| at <= now && repairs.requested < repairs.limit);
                    let got = repairs.next(now);
                    assert_eq!(got.is_some(), want.is_some());
                }
            }
            let least = (0..20).filter_map(|peer| repairs.key_of(peer)).min();
            assert_eq!((repairs.len > 0).then(|| repairs.key_at(0)), least);
            for at in 0..repairs.len {
                assert_eq!(usize::from(repairs.peers[usize::from(repairs.heap[at])].heap), at);
                assert_eq!(Some(repairs.key_at(at)), repairs.key_of(repairs.heap[at]));
            }
            let paths = (0..20).flat_map(|peer| repairs.places(peer).collect::<Vec<_>>());
            let entries: Vec<_> =
                paths.flat_map(|path| repairs.entries_of(path).collect::<Vec<_>>()).collect();
            let lost = || entries.iter().map(|&at| repairs.entries[at]);
            let missing: u32 = lost().map(|lost| u32::from(lost.missing)).sum();
            let requested: u32 = lost().map(|lost| u32::from(lost.requested)).sum();
            assert_eq!((missing, requested), (repairs.missing, repairs.requested));
            assert!(lost().all(|lost| lost.missing > 0 && lost.requested <= lost.missing));
            // An entry is of one path, or free.
            let mut free = 0;
            let mut at = repairs.free_entry;
            while at != NO_ENTRY {
                (free, at) = (free + 1, repairs.entries[usize::from(at)].next);
            }
            assert_eq!(entries.len() + free, repairs.entries.len());
        }
    });
}

/// Peers that have lost `lanes` lanes each at the same time, attempts that take 5 s and fail:
/// the longest time from one attempt of a peer to its next, and a peer's fair share.
fn longest_wait(n: usize, lanes: usize, at_once: u16) -> (Nanos, Nanos) {
    const ATTEMPT: Nanos = Nanos::from_secs(5);
    let mut rooms = Rooms::new(n);
    let mut repairs = rooms.repairs(at_once, 8);
    for peer in 0..n as u16 {
        (0..lanes).for_each(|lane| repairs.lane_lost(peer, lane % 8, lane % 2, URGENT, Time(1)));
    }
    let share = Nanos(ATTEMPT.0 * n as u64 / u64::from(at_once));
    let mut last = vec![Time(1); n];
    let mut longest = Nanos(0);
    let mut running = VecDeque::new();
    let end = Time(1) + Nanos(share.0 * 5);
    let mut now = Time(1);
    while now < end {
        while let Some(request) = repairs.next(now) {
            let peer = request.peer;
            let waited = now.since(last[usize::from(peer)]);
            longest = longest.max(waited);
            last[usize::from(peer)] = now;
            running.push_back((now + ATTEMPT, request));
        }
        let Some((at, Request { peer, rail, remote_rail, class })) = running.pop_front() else { break };
        now = at;
        repairs.request_failed(peer, rail, remote_rail, class, now + Nanos::from_millis(2_000));
    }
    let waits = last.iter().map(|&last| end.since(last));
    (waits.fold(longest, Nanos::max), share)
}

#[test]
fn of_more_lanes_than_are_counted_as_many_come_back_as_are_counted() {
    let mut rooms = Rooms::new(1);
    let mut repairs = rooms.repairs(1_000, 1);
    (0..300).for_each(|_| repairs.lane_lost(0, 0, 0, URGENT, Time(1)));
    assert_eq!(repairs.missing, 255);
    let mut requests = 0;
    while repairs.next(Time(2)).is_some() {
        requests += 1;
    }
    assert_eq!((requests, repairs.requested), (255, 255));
    (0..300).for_each(|_| repairs.attached(0, 0, 0, URGENT));
    assert_eq!((repairs.missing, repairs.requested), (0, 0));
}

#[test]
fn with_slow_attempts_no_peer_waits_longer_than_twice_its_fair_share() {
    for (peers, lanes, at_once) in [(48, 1, 8), (48, 16, 8), (48, 16, 16), (10_000, 4, 8)] {
        let (longest, share) = longest_wait(peers, lanes, at_once);
        assert!(longest <= Nanos(2 * share.0), "{peers} peers: {longest:?}, fair is {share:?}");
    }
}

#[test]
fn the_rails_of_a_peer_take_turns_even_if_no_lane_can_be_connected() {
    let mut rooms = Rooms::new(1);
    let mut repairs = rooms.repairs(1, 1);
    (0..3).for_each(|remote| repairs.lane_lost(0, 0, remote, URGENT, Time(1)));
    let mut requested = Vec::new();
    for now in 1..7 {
        let Request { peer, rail, remote_rail, class } = repairs.next(Time(now)).unwrap();
        requested.push(remote_rail);
        repairs.request_failed(peer, rail, remote_rail, class, Time(now + 1));
    }
    assert_eq!(requested, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_lane_that_becomes_due_is_a_reason_to_wake_and_one_that_was_left_out_is_not() {
    let mut rooms = Rooms::new(3);
    let mut repairs = rooms.repairs(2, 1);
    repairs.lane_lost(0, 0, 0, URGENT, Time(10));
    repairs.poll(Time(9));
    assert_eq!((repairs.next(Time(9)), repairs.next_at()), (None, Time(10)));
    // Also after that time has come; once.
    repairs.poll(Time(12));
    assert_eq!(repairs.next_at(), Time::NEVER, "it was due at the last poll");
    assert_eq!(repairs.next(Time(12)), Some(request(0)));
    (1..3).for_each(|peer| repairs.lane_lost(peer, 0, 0, URGENT, Time(11)));
    assert_eq!(repairs.next(Time(12)), Some(request(1)));
    assert_eq!((repairs.next(Time(12)), repairs.next_at()), (None, Time::NEVER), "two are being made");
    repairs.request_failed(0, 0, 0, URGENT, Time(90));
    assert_eq!(repairs.next_at(), Time(11), "there is room for another");
    assert_eq!(repairs.next(Time(12)), Some(request(2)));
    repairs.poll(Time(13));
    repairs.lane_lost(0, 0, 1, URGENT, Time(12));
    assert_eq!(repairs.next_at(), Time::NEVER, "two are being made");
    repairs.forget(2);
    assert_eq!(repairs.next_at(), Time(12), "one of them is not needed any more");
}

#[test]
fn a_request_names_the_class_of_the_lost_lane_and_the_classes_take_turns() {
    let mut rooms = Rooms::new(1);
    let mut repairs = rooms.repairs(1, 1);
    for class in [Class::Background, Class::Urgent, Class::Urgent] {
        repairs.lane_lost(0, 0, 2, class, Time(1));
    }
    let mut requested = Vec::new();
    for now in 1..5 {
        let Request { peer, rail, remote_rail, class } = repairs.next(Time(now)).unwrap();
        requested.push(class);
        assert!(repairs.is_requested(0, 0, 2, class));
        repairs.request_failed(peer, rail, remote_rail, class, Time(now + 1));
    }
    let [urgent, background] = Class::ALL;
    assert_eq!(requested, [urgent, background, urgent, background], "a class that fails keeps none waiting");
}

#[test]
fn a_lane_of_the_other_class_leaves_no_request_open() {
    let mut rooms = Rooms::new(1);
    let mut repairs = rooms.repairs(1, 1);
    let [urgent, background] = Class::ALL;
    repairs.lane_lost(0, 0, 0, background, Time(1));
    repairs.lane_lost(0, 0, 0, urgent, Time(1));
    // A background lane comes in answer to the request for an urgent one: the urgent one is still
    // missing.
    assert_eq!(repairs.next(Time(1)), Some(request(0)));
    repairs.attached(0, 0, 0, background);
    assert_eq!((repairs.missing, repairs.requested), (1, 0));
    assert_eq!(repairs.next(Time(2)), Some(request(0)));
    // Another background lane: the peer has as many lanes as before, and none is requested.
    repairs.attached(0, 0, 0, background);
    assert_eq!((repairs.missing, repairs.requested), (0, 0));
    assert_eq!(repairs.next(Time(3)), None);
}

#[test]
fn a_lane_for_which_there_is_no_entry_is_not_made_again_and_harms_no_other() {
    let mut rooms = Rooms::new(2);
    rooms.entries.truncate(2);
    let mut repairs = rooms.repairs(1_000, 1);
    (0..3).for_each(|remote| repairs.lane_lost(0, 0, remote, URGENT, Time(1)));
    assert_eq!(repairs.missing, 2);
    let requested: Vec<_> = core::iter::from_fn(|| repairs.next(Time(2))).map(|r| r.remote_rail).collect();
    assert_eq!(requested, [0, 1]);
    repairs.request_failed(0, 0, 2, URGENT, Time(9));
    assert_eq!(repairs.requested, 2, "it was not requested");
    repairs.attached(0, 0, 2, URGENT);
    assert_eq!(repairs.missing, 2, "it was not missed");
    repairs.attached(0, 0, 0, URGENT);
    repairs.lane_lost(1, 0, 5, URGENT, Time(3));
    assert_eq!(
        repairs.next(Time(3)).map(|r| (r.peer, r.remote_rail)),
        Some((1, 5)),
        "an entry is free again"
    );
}
