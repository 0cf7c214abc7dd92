//! Hits, each reason of a miss, and what is looked up how often.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kvrail::shm;
use kvrail_node::{GetMiss, Node, NodeConfig};

use crate::directory::TestDirectory;
use crate::group::*;

#[test]
fn a_page_is_got_after_it_was_put_and_then_by_its_cached_record() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 64), reader(&directory));
    put(&owner, 0..40);
    let places = places(&reader, 64);
    let results = get(&reader, &places, 0..41, 5_000);
    assert_eq!(labels(&results[..40]), ["directory"; 40]);
    assert!(matches!(results[40], Err(GetMiss::NoOwner)), "{:?}", results[40]);
    assert_eq!(directory.looked_up(), (1, 41), "one look-up for the whole batch");
    assert_eq!(labels(&get(&reader, &places, 0..40, 5_000)), ["cache"; 40]);
    assert_eq!(directory.looked_up(), (1, 41));
    assert_eq!(places.free(), 64);
    let statistics = reader.statistics().get;
    assert_eq!((statistics.gets, statistics.hits_directory, statistics.hits_cache), (2, 40, 40));
    assert_eq!(statistics.misses.iter().sum::<u64>(), 1);
    assert_eq!(reader.statistics().reading, 0);
}

#[test]
fn the_own_pool_is_copied_from_and_needs_no_directory() {
    let config = NodeConfig::new("alone".parse().unwrap(), peer_key()).pool(PAGE, 8);
    let node = start(config);
    let _ = node.put(&PAGE, key(1), &page_of(key(1), BYTES)).unwrap();
    let places = places(&node, 4);
    assert_eq!(labels(&get(&node, &places, [1, 2], 1_000)), ["own_pool", "not_stored"]);
    assert!(node.remove(key(1)) && !node.remove(key(1)));
    assert_eq!(labels(&get(&node, &places, [1], 1_000)), ["not_stored"]);
}

#[test]
fn a_stale_cached_record_is_looked_up_once_more_and_found_at_its_new_place() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 4), reader(&directory));
    put(&owner, 0..4);
    let places = places(&reader, 8);
    assert_eq!(labels(&get(&reader, &places, 0..4, 5_000)), ["directory"; 4]);
    // The page moves to another slot: evicted by others, and put again.
    assert!(owner.remove(key(0)) && owner.remove(key(1)));
    put(&owner, [9, 0]);
    let before = directory.looked_up();
    let results = get(&reader, &places, 0..4, 5_000);
    assert_eq!(labels(&results), ["directory", "no_owner", "cache", "cache"]);
    let after = directory.looked_up();
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 2), "both stale keys in one look-up");
    assert_eq!(reader.statistics().get.keys_renewed, 2);
    assert_eq!(labels(&get(&reader, &places, [0], 5_000)), ["cache"]);
}

#[test]
fn pages_whose_deadline_has_passed_are_misses_and_their_destinations_are_free() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 40), reader(&directory));
    put(&owner, 0..40);
    let places = places(&reader, 40);
    assert_eq!(labels(&get(&reader, &places, 0..40, 20_000)), ["directory"; 40]);
    // The records are cached and the owner is connected, so that only the READs are too late.
    for _ in 0..100 {
        assert_eq!(labels(&get(&reader, &places, 0..40, 0)), ["deadline"; 40]);
        assert_eq!(places.free(), 40);
    }
    assert_eq!(labels(&get(&reader, &places, 0..40, 20_000)), ["cache"; 40]);
    assert_eq!(reader.statistics().reading, 0);
}

#[test]
fn a_restarted_owner_is_found_by_its_new_records() {
    let directory = Arc::new(TestDirectory::default());
    let reader = reader(&directory);
    let places = places(&reader, 8);
    for round in 0..3 {
        let owner = producer("owner", &directory, 4);
        put(&owner, 0..4);
        let results = get(&reader, &places, 0..4, 5_000);
        assert!(results.iter().all(Result::is_ok), "round {round}: {results:?}");
        drop(owner);
    }
    let results = get(&reader, &places, 0..4, 2_000);
    assert!(results.iter().all(Result::is_err), "{results:?}");
}

#[test]
fn a_dead_owner_is_passed_over_for_the_next_one_within_the_same_deadline() {
    let directory = Arc::new(TestDirectory::default());
    let reader = reader(&directory);
    let places = places(&reader, 16);
    let (dead, alive) = (producer("dead", &directory, 16), producer("alive", &directory, 16));
    put(&dead, 0..16);
    put(&alive, 0..16);
    let kept: Vec<_> = (0..16).map(|n| directory.of(key(n).0)).collect();
    drop(dead);
    // The directory has not heard of it, and never lets the dead one's lease run out.
    (0..16).for_each(|n| directory.set(key(n as u64).0, &kept[n]));
    let began = Instant::now();
    let results = get(&reader, &places, 0..16, 10_000);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    // The cache names the living one now.
    assert_eq!(labels(&get(&reader, &places, 0..16, 5_000)), ["cache"; 16]);
}

#[test]
fn a_stale_owner_is_passed_over_for_the_next_one() {
    let directory = Arc::new(TestDirectory::default());
    let reader = reader(&directory);
    let places = places(&reader, 16);
    let (stale, fresh) = (producer("stale", &directory, 8), producer("fresh", &directory, 8));
    put(&stale, 0..8);
    put(&fresh, 0..8);
    let kept: Vec<_> = (0..8).map(|n| directory.of(key(n).0)).collect();
    assert_eq!(stale.clear(), 8);
    announced(&stale);
    (0..8).for_each(|n| directory.set(key(n as u64).0, &kept[n]));
    let results = get(&reader, &places, 0..8, 5_000);
    assert_eq!(labels(&results), ["directory"; 8]);
    assert_eq!(directory.looked_up().0, 1);
}

#[test]
fn an_unreachable_owner_is_a_miss_with_its_reason_and_is_not_asked_again_at_once() {
    let directory = Arc::new(TestDirectory::default());
    let reader = reader(&directory);
    let places = places(&reader, 4);
    let owner = producer("owner", &directory, 4);
    put(&owner, [1]);
    let records = directory.of(key(1).0);
    drop(owner);
    directory.set(key(1).0, &records);
    for round in 0..2 {
        let results = get(&reader, &places, [1], 3_000);
        assert_eq!(labels(&results), ["unreachable"], "round {round}");
    }
    // An owner that no directory knows the address of.
    let other = producer("other", &directory, 4);
    put(&other, [2]);
    let records = directory.of(key(2).0);
    directory.forget_owner(records[0].owner);
    let results = get(&reader, &places, [2], 3_000);
    assert!(
        matches!(&results[0], Err(GetMiss::Unreachable { why, .. }) if why.contains("address")),
        "{results:?}"
    );
}

#[test]
fn a_frozen_directory_is_a_miss_by_the_deadline_and_cached_keys_are_served_meanwhile() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 8), reader(&directory));
    put(&owner, 0..8);
    let places = places(&reader, 16);
    assert!(get(&reader, &places, 0..4, 5_000).iter().all(Result::is_ok));
    directory.frozen.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let results = get(&reader, &places, 4..8, 300);
    assert_eq!(labels(&results), ["directory"; 4]);
    assert!(results.iter().all(|result| matches!(result, Err(GetMiss::Directory(Some(_))))));
    assert!(began.elapsed() < Duration::from_secs(5), "the deadline was 0.3 s");
    assert_eq!(labels(&get(&reader, &places, 0..4, 5_000)), ["cache"; 4]);
    directory.frozen.store(false, Ordering::SeqCst);
    assert_eq!(labels(&get(&reader, &places, 4..8, 5_000)), ["directory"; 4]);
}

#[test]
fn a_destination_of_another_layout_or_node_is_refused() {
    let directory = Arc::new(TestDirectory::default());
    let owner = producer("owner", &directory, 4);
    let one = start(config("one", &directory).layout(INDEX));
    let two = reader(&directory);
    put(&owner, [1]);
    let memory = kvrail::memory::leaked(4 * INDEX.page_bytes() as usize).unwrap();
    let other_layout = one.register(&INDEX, memory).unwrap();
    let mut batch = kvrail_node::GetBatch::default();
    batch.read(key(1), other_layout.take_any().unwrap());
    batch.read(key(1), places(&two, 1).take_any().unwrap());
    batch.read(key(1), places(&one, 1).take_any().unwrap());
    one.get(&mut batch, within(5_000));
    let results: Vec<_> = batch.take_pages().map(|page| page.result).collect();
    assert_eq!(labels(&results), ["layout", "destination", "directory"]);
    let unknown = two.register(&INDEX, kvrail::memory::leaked(4_096).unwrap()).unwrap_err();
    assert_eq!(unknown.code(), 7230, "{unknown}");
}

#[test]
fn a_group_is_had_as_a_whole_or_not_at_all() {
    let directory = Arc::new(TestDirectory::default());
    let owner = start(config("owner", &directory).pool(PAGE, 8).pool(INDEX, 8));
    let reader = start(config("reader", &directory).layout(INDEX));
    let index = |number: u64| space(&INDEX).key(&number.to_le_bytes()).unwrap();
    let index_bytes = INDEX.page_bytes() as usize;
    for number in 0..3 {
        let _ = owner.put(&PAGE, key(number), &page_of(key(number), BYTES)).unwrap();
        if number != 1 {
            let _ = owner.put(&INDEX, index(number), &page_of(index(number), index_bytes)).unwrap();
        }
    }
    announced(&owner);
    let pages = places(&reader, 8);
    let indices = reader.register(&INDEX, kvrail::memory::leaked(8 * index_bytes).unwrap()).unwrap();
    let mut batch = kvrail_node::GetBatch::default();
    for number in 0..3 {
        batch.read(key(number), pages.take_any().unwrap());
        batch.join(index(number), indices.take_any().unwrap());
    }
    let counts = reader.get(&mut batch, within(5_000));
    assert_eq!((counts.hits, counts.misses), (4, 2));
    let results: Vec<_> = batch.results().map(|result| result.map_err(Clone::clone)).collect();
    assert_eq!(labels(&results), ["directory", "directory", "group", "no_owner", "directory", "directory"]);
    let to = batch.destination(5).unwrap();
    assert_eq!(to.bytes(0), Some(&page_of(index(2), index_bytes)[..]));
}

#[test]
fn what_exists_is_told_for_each_pool_by_one_look_up() {
    use kvrail_node::hybrid::{PoolPages, Rule, longest_prefix};
    let directory = Arc::new(TestDirectory::default());
    let owner = start(config("owner", &directory).pool(PAGE, 8).pool(INDEX, 8));
    let reader = reader(&directory);
    let index = |number: u64| space(&INDEX).key(&number.to_le_bytes()).unwrap();
    put(&owner, [0, 1, 2, 4]);
    for number in [1, 2, 3] {
        let _ =
            owner.put(&INDEX, index(number), &page_of(index(number), INDEX.page_bytes() as usize)).unwrap();
    }
    announced(&owner);
    let (pages, indices) = ((0..5).map(key).collect::<Vec<_>>(), (0..5).map(index).collect::<Vec<_>>());
    let found = reader.exists_in_pools(&[&pages, &indices], within(5_000));
    let bits = |pool: usize| (0..5).map(|at| found[pool].present.get(at)).collect::<Vec<_>>();
    assert_eq!(bits(0), [true, true, true, false, true]);
    assert_eq!(bits(1), [false, true, true, true, false]);
    assert_eq!(directory.looked_up(), (1, 10));
    let rules = [
        PoolPages::new(Rule::All, &found[0].present),
        PoolPages::new(Rule::Window { blocks: 2 }, &found[1].present),
    ];
    assert_eq!(longest_prefix(&rules, 5), 3);
    let own = owner.exists(&pages, within(5_000));
    assert_eq!((own.present.count(), own.unknown.count()), (4, 0));
    directory.frozen.store(true, Ordering::SeqCst);
    let nothing = reader.exists(&pages, within(50));
    assert_eq!((nothing.present.count(), nothing.unknown.count()), (0, 5));
}

#[test]
fn the_polled_form_gives_the_same_and_wakes_its_caller() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 8), reader(&directory));
    put(&owner, 0..4);
    let places = places(&reader, 16);
    let mut used_again = kvrail_node::GetBatch::default();
    for expected in ["directory", "cache", "cache"] {
        (0..4).for_each(|number| used_again.read(key(number), places.take_any().unwrap()));
        let mut handle = reader.begin_get(used_again, within(5_000));
        assert!(handle.wait(within(6_000)));
        let (mut got, counts) = handle.finish().unwrap();
        assert_eq!((counts.hits, counts.misses), (4, 0));
        assert_eq!(labels(&checked(&[0, 1, 2, 3], &mut got)), [expected; 4]);
        used_again = got;
    }
    // A stale record is looked up again by the look-up thread.
    owner.clear();
    put(&owner, [3, 2, 1, 0]);
    let mut handle = reader.begin_get(batch(&places, 0..4), within(5_000));
    assert!(handle.wait(within(6_000)));
    let (mut got, _) = handle.finish().unwrap();
    assert_eq!(labels(&checked(&[0, 1, 2, 3], &mut got)), ["directory"; 4]);
    assert_eq!(reader.statistics().get.keys_renewed, 4);
    // A handle that is dropped gives its destinations back.
    directory.frozen.store(true, Ordering::SeqCst);
    let handle = reader.begin_get(batch(&places, 10..14), within(300));
    drop(handle);
    let mut handle = reader.begin_get(batch(&places, 14..16), within(300));
    assert!(handle.wait(within(5_000)), "no longer than its deadline");
    let (mut got, _) = handle.finish().unwrap();
    assert!(checked(&[14, 15], &mut got).iter().all(Result::is_err));
    directory.frozen.store(false, Ordering::SeqCst);
    let until = within(5_000);
    while places.free() < 16 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(places.free(), 16);
}

#[test]
fn a_node_that_its_caller_drives_gets_pages_too() {
    let directory = Arc::new(TestDirectory::default());
    let owner = producer("owner", &directory, 8);
    put(&owner, 0..4);
    let (node, mut driver) =
        Node::start_driven(config("driven", &directory), shm::publish(1), shm::rails(1).unwrap()).unwrap();
    // Registering is answered by the driver, so another thread asks.
    let memory = kvrail::memory::leaked(8 * BYTES).unwrap();
    let places = std::thread::scope(|scope| {
        let registering = scope.spawn(|| node.register(&PAGE, memory).unwrap());
        while !registering.is_finished() {
            driver.poll();
            driver.wait(within(10));
        }
        registering.join().unwrap()
    });
    let mut handle = node.begin_get(batch(&places, 0..4), within(5_000));
    while !handle.poll() {
        driver.poll();
        driver.wait(within(10));
    }
    let (mut got, _) = handle.finish().unwrap();
    assert_eq!(labels(&checked(&[0, 1, 2, 3], &mut got)), ["directory"; 4]);
    assert_eq!(driver.connected(), 1);
    // A get that no one drives is a miss soon after its deadline.
    let began = Instant::now();
    assert_eq!(labels(&get(&node, &places, [0], 100)), ["deadline"]);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(places.free() < 8, "its destination is still with the driver");
    driver.poll();
    assert_eq!(places.free(), 8);
}

#[test]
fn several_readers_share_the_work_and_the_destinations() {
    let directory = Arc::new(TestDirectory::default());
    let owner = producer("owner", &directory, 64);
    let reader = start(config("reader", &directory).readers(3));
    put(&owner, 0..64);
    let places = places(&reader, 256);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (reader, places) = (&reader, &places);
            scope.spawn(move || {
                for round in 0..50 {
                    let first = (thread * 7 + round) % 40;
                    let results = get(reader, places, first..first + 20, 10_000);
                    assert!(results.iter().all(Result::is_ok), "{results:?}");
                }
            });
        }
    });
    assert_eq!(places.free(), 256);
    reader.unregister(&places).unwrap();
    assert!(places.take_any().is_none(), "no place is given out any more");
}
