//! Many threads, few readers; and the end of a node in the middle of gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvrail_node::GetBatch;

use crate::directory::TestDirectory;
use crate::group::*;

#[test]
fn sixty_four_threads_get_what_they_asked_for() {
    let directory = Arc::new(TestDirectory::default());
    let owner = producer("owner", &directory, 64);
    let reader = reader(&directory);
    put(&owner, 0..64);
    let places = places(&reader, 64 * 16);
    std::thread::scope(|scope| {
        for thread in 0..64_u64 {
            let (reader, places) = (&reader, &places);
            scope.spawn(move || {
                for round in 0..10 {
                    let keys = (0..16).map(|n| (thread + 5 * n + round) % 64);
                    let results = get(reader, places, keys, 20_000);
                    assert!(results.iter().all(Result::is_ok), "{results:?}");
                }
            });
        }
    });
    assert_eq!(places.free(), 64 * 16);
    let statistics = reader.statistics().get;
    assert_eq!(statistics.gets, 640);
    assert_eq!(statistics.hits_cache + statistics.hits_directory, 640 * 16);
    assert_eq!(statistics.late_destinations, 0);
}

#[test]
fn small_gets_of_many_threads_and_owners_all_come() {
    let directory = Arc::new(TestDirectory::default());
    let owners: Vec<_> = (0..6).map(|n| producer(&format!("owner-{n}"), &directory, 8)).collect();
    for (n, owner) in (0..).zip(&owners) {
        put(owner, n * 8..n * 8 + 8);
    }
    let reader = reader(&directory);
    let places = places(&reader, 64);
    std::thread::scope(|scope| {
        for thread in 0..16_u64 {
            let (reader, places) = (&reader, &places);
            scope.spawn(move || {
                for round in 0..60 {
                    // One key of one owner, or three of three.
                    let keys = (0..1 + 2 * (round % 2)).map(|n| (thread * 3 + round + 8 * n) % 48);
                    let results = get(reader, places, keys, 20_000);
                    assert!(results.iter().all(Result::is_ok), "{results:?}");
                }
            });
        }
    });
    assert_eq!(places.free(), 64);
}

#[test]
fn more_owners_than_places_for_peers_take_turns() {
    // A reader has places for 64 peers.
    const OWNERS: u64 = 70;
    let directory = Arc::new(TestDirectory::default());
    let owners: Vec<_> = (0..OWNERS).map(|n| producer(&format!("owner-{n}"), &directory, 1)).collect();
    for (n, owner) in (0..).zip(&owners) {
        put(owner, n..=n);
    }
    let reader = reader(&directory);
    let places = places(&reader, OWNERS as usize);
    for round in 0..2 {
        let results = get(&reader, &places, 0..OWNERS, 30_000);
        let missed = results.iter().find_map(|result| result.as_ref().err());
        assert!(missed.is_none(), "round {round}: {missed:?}, {:?}", labels(&results));
    }
}

#[test]
fn a_node_that_ends_settles_its_gets_and_gives_their_destinations_back() {
    let directory = Arc::new(TestDirectory::default());
    let owner = producer("owner", &directory, 64);
    put(&owner, 0..64);
    for round in 0..5 {
        let reader = reader(&directory);
        let places = places(&reader, 256);
        assert!(get(&reader, &places, 0..8, 5_000).iter().all(Result::is_ok));
        let mut handles: Vec<_> =
            (0..4).map(|n| reader.begin_get(batch(&places, n * 8..n * 8 + 8), within(20_000))).collect();
        std::thread::sleep(Duration::from_micros(100 * round));
        let began = Instant::now();
        drop(reader);
        assert!(began.elapsed() < Duration::from_secs(15));
        for handle in &mut handles {
            assert!(handle.poll(), "every request is settled when the node is gone");
        }
        drop(handles);
        assert_eq!(places.free(), 256);
    }
}

#[test]
fn an_unready_batch_and_an_empty_one_are_harmless() {
    let directory = Arc::new(TestDirectory::default());
    let reader = reader(&directory);
    let places = places(&reader, 2);
    let mut empty = GetBatch::default();
    assert_eq!(reader.get(&mut empty, within(100)).hits, 0);
    let mut unread = batch(&places, [1]);
    assert!(unread.result(0).is_none() && unread.result(1).is_none());
    assert!(unread.take_pages().all(|page| page.result.is_err()));
    let passed = get(&reader, &places, [1, 2], 0);
    assert_eq!(labels(&passed), ["deadline"; 2]);
    assert_eq!(places.free(), 2);
}

#[test]
fn a_busy_caller_does_not_starve_the_others() {
    let directory = Arc::new(TestDirectory::default());
    let owner = producer("owner", &directory, 64);
    let reader = reader(&directory);
    put(&owner, 0..64);
    let places = places(&reader, 1_024);
    let (stop, large) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            // Twelve requests of 64 keys are always under way.
            let mut under_way = std::collections::VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                while under_way.len() < 12 {
                    under_way.push_back(reader.begin_get(batch(&places, 0..64), within(20_000)));
                }
                let mut first: kvrail_node::GetHandle = under_way.pop_front().unwrap();
                assert!(first.wait(within(25_000)));
                let (got, counts) = first.finish().unwrap();
                assert_eq!(counts.misses, 0, "{:?}", got.results().find_map(Result::err));
                large.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut least = u64::MAX;
        for n in 0..50 {
            let before = large.load(Ordering::Relaxed);
            let results = get(&reader, &places, [n], 20_000);
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            // It waits for those that were before it, and for not many more.
            least = least.min(large.load(Ordering::Relaxed) - before);
        }
        stop.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        assert!(least <= 24, "each small get waited for {least} large ones at least");
    });
}
