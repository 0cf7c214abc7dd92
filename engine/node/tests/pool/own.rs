//! Pages in the publisher's own memory.

use std::time::Instant;

use kvrail::session::PoolId;
use kvrail::{PageError, WriteError};
use kvrail_node::{EnginePool, Key, OpenPoolError, PagePool, Put, PutError, PutPlace, Record};

use crate::rig::{PAGE, Reads, bytes_of, fill, is_page_of, key, pool, publisher};

fn put(pool: &PagePool, number: u128) -> Record {
    match pool.put(key(number), &bytes_of(key(number))) {
        Ok(Put::Stored(record)) => record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_that_was_put_is_read_by_its_record_and_not_written_again() {
    let (publisher, pool) = pool(4);
    let mut reads = Reads::of(&publisher);
    let record = put(&pool, 1);
    assert_eq!((record.tag, record.owner, record.pool), (key(1).0, publisher.epoch(), PoolId(0)));
    assert_eq!(reads.read_one(record), Ok(true));
    assert_eq!(pool.put(key(1), &[0; PAGE]), Ok(Put::Already(record)));
    assert_eq!(pool.put_with(key(1), |_| panic!("not called")), Ok(Put::Already(record)));
    assert_eq!(reads.read_one(record), Ok(true), "its bytes stayed");
    assert!(pool.contains(key(1)) && pool.record(key(1)) == Some(record) && !pool.contains(key(2)));

    let Ok(Put::Stored(again)) = pool.replace(key(1), &bytes_of(key(1))) else { panic!("not replaced") };
    assert_ne!(again.generation, record.generation);
    assert!(matches!(reads.read_one(record), Err(PageError::Miss(_))));
    assert_eq!(reads.read_one(again), Ok(true));

    assert!(pool.remove(key(1)) && !pool.remove(key(1)));
    assert!(matches!(reads.read_one(again), Err(PageError::Miss(_))));
    let counts = pool.statistics();
    assert_eq!((counts.puts, counts.already, counts.removed, counts.pages), (2, 2, 1, 0));
}

#[test]
fn bytes_that_are_no_page_are_refused() {
    let (_publisher, pool) = pool(1);
    let length = PutError::Length { pool: PoolId(0), given: 3, page: PAGE };
    assert_eq!(pool.put(key(1), &[1, 2, 3]), Err(length));
    assert_eq!(pool.replace(key(1), &[1, 2, 3]), Err(length));
    assert_eq!(pool.statistics().abandoned, 0, "no slot was taken");
}

#[test]
fn an_evicted_page_is_a_miss() {
    let (publisher, pool) = pool(2);
    let mut reads = Reads::of(&publisher);
    let records: Vec<_> = (0..10).map(|number| put(&pool, number)).collect();
    let counts = pool.statistics();
    assert_eq!((counts.pages, counts.evictions, counts.page_bytes), (2, 8, 2 * PAGE as u64));
    let results: Vec<_> =
        records.iter().map(|&record| (pool.contains(Key(record.tag)), reads.read_one(record))).collect();
    for (is_there, result) in &results {
        match result {
            Ok(right) => assert!(*right && *is_there),
            Err(error) => assert!(matches!(error, PageError::Miss(_)) && !is_there, "{error}"),
        }
    }
    assert_eq!(results.iter().filter(|(is_there, _)| *is_there).count(), 2);
}

#[test]
fn a_key_that_leads_nowhere_is_a_miss_also_while_its_page_is_being_evicted() {
    const KEYS: u128 = 100_000;
    let (publisher, pool) = pool(1);
    let at = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=KEYS {
                // Each put evicts the page of the one before.
                if let Ok(PutPlace::Fill(guard)) = pool.put_in_place(key(number)) {
                    _ = guard.commit();
                }
                at.store(number as u64, std::sync::atomic::Ordering::Release);
            }
        });
        let of = publisher.pool(PoolId(0)).unwrap();
        loop {
            let number = u128::from(at.load(std::sync::atomic::Ordering::Acquire));
            if number == KEYS {
                break;
            }
            // No key is put twice, so from now on no entry may have it.
            pool.remove(key(number));
            let location = of.location(0).unwrap();
            let tag = location.map(|location| location.expected.tag);
            assert_ne!(tag, Some(key(number).0), "removed, and still there for every reader");
        }
    });
}

#[test]
fn bytes_that_another_call_put_into_a_slot_are_not_given_out_for_its_key() {
    let (publisher, pool) = pool(1);
    put(&pool, 1);
    assert!(pool.local(key(1)).is_some());
    // Against the rule: the slots are the pool's alone.
    let of = publisher.pool(PoolId(0)).unwrap();
    of.write(0, key(2).0, |page| fill(key(2), page)).unwrap();
    assert!(pool.local(key(1)).is_none());
}

#[test]
fn a_place_that_is_given_up_is_never_seen_and_its_slot_comes_back() {
    let (publisher, pool) = pool(1);
    let mut reads = Reads::of(&publisher);
    let first = put(&pool, 1);
    let Ok(PutPlace::Fill(mut guard)) = pool.put_in_place(key(2)) else { panic!("no place") };
    assert!(matches!(reads.read_one(first), Err(PageError::Miss(_))), "the slot's earlier page is a miss");
    fill(key(2), guard.bytes());
    assert!(!pool.contains(key(2)) && pool.local(key(2)).is_none() && pool.pin(key(2)).is_none());
    let of = publisher.pool(PoolId(0)).unwrap();
    assert_eq!(of.location(0).unwrap(), None);
    drop(guard);
    assert_eq!((of.location(0).unwrap(), pool.contains(key(2))), (None, false));
    // And where filling panics.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pool.put_with(key(3), |_| std::panic::resume_unwind(Box::new("on purpose")))
    }));
    assert!(panicked.is_err() && !pool.contains(key(3)) && of.location(0).unwrap().is_none());
    let record = put(&pool, 3);
    assert_eq!(reads.read_one(record), Ok(true));
    assert_eq!(pool.statistics().abandoned, 2);
}

#[test]
fn of_two_writers_of_a_key_one_wins_and_both_are_told() {
    let (_publisher, pool) = pool(4);
    let Ok(PutPlace::Fill(mut first)) = pool.put_in_place(key(1)) else { panic!("no place") };
    assert_eq!(pool.put(key(1), &bytes_of(key(1))), Ok(Put::Underway));
    assert!(matches!(pool.replace_in_place(key(1)), Ok(PutPlace::Underway)));
    fill(key(1), first.bytes());
    let record = first.commit().unwrap();
    assert_eq!(pool.put(key(1), &bytes_of(key(1))), Ok(Put::Already(record)));
    assert_eq!(pool.statistics().underway, 2);

    // Eight threads at once: each key is stored once, and every other thread is told so.
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (100..103)
                        .map(|number| pool.put_with(key(number), |page| fill(key(number), page)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let stored = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Put::Stored(_)))).count();
    let told =
        outcomes.iter().filter(|outcome| matches!(outcome, Ok(Put::Already(_) | Put::Underway))).count();
    assert_eq!((stored, told), (3, 21), "{outcomes:?}");
}

#[test]
fn a_put_that_finds_all_slots_held_fails_at_once_with_numbers() {
    let (publisher, pool) = pool(3);
    let mut reads = Reads::of(&publisher);
    let record = put(&pool, 1);
    put(&pool, 2);
    let (pin, read) = (pool.pin(key(1)).unwrap(), pool.local(key(2)).unwrap());
    let Ok(PutPlace::Fill(guard)) = pool.put_in_place(key(3)) else { panic!("no place") };
    let all_held = PutError::AllHeld { pool: PoolId(0), slots: 3, written: 1, held: 2 };
    assert_eq!(pool.put(key(4), &bytes_of(key(4))), Err(all_held));
    assert_eq!(pool.statistics().all_held, 1);
    assert_eq!((reads.read_one(record), is_page_of(key(2), &read)), (Ok(true), true));
    assert_eq!((pin.key(), pin.record(), read.key()), (key(1), record, key(2)));
    drop(guard);
    put(&pool, 4);
    assert_eq!(pool.put(key(5), &bytes_of(key(5))).map(|_| pool.contains(key(4))), Ok(false));
    drop((pin, read));
    assert_eq!(pool.statistics().held, 0);
    put(&pool, 6);
}

#[test]
fn a_page_that_is_removed_keeps_its_bytes_for_local_readers_and_is_a_miss_for_peers() {
    let (publisher, pool) = pool(1);
    let mut reads = Reads::of(&publisher);
    let record = put(&pool, 1);
    let read = pool.local(key(1)).unwrap();
    assert!(pool.remove(key(1)));
    assert!(matches!(reads.read_one(record), Err(PageError::Miss(_))));
    assert!(matches!(pool.put(key(2), &bytes_of(key(2))), Err(PutError::AllHeld { held: 1, .. })));
    assert!(is_page_of(key(1), &read));
    drop(read);
    let record = put(&pool, 2);
    assert_eq!(reads.read_one(record), Ok(true));
}

#[test]
fn pages_that_are_written_while_the_pool_is_cleared_do_not_come() {
    let (publisher, pool) = pool(4);
    let mut reads = Reads::of(&publisher);
    let records = [put(&pool, 1), put(&pool, 2)];
    let Ok(PutPlace::Fill(mut guard)) = pool.put_in_place(key(3)) else { panic!("no place") };
    assert_eq!(pool.clear(), 3);
    for record in records {
        assert!(matches!(reads.read_one(record), Err(PageError::Miss(_))));
    }
    fill(key(3), guard.bytes());
    let slot = {
        assert_eq!(guard.key(), key(3));
        guard.commit()
    };
    assert_eq!(slot, Err(PutError::Removed { pool: PoolId(0), key: key(3) }));
    let of = publisher.pool(PoolId(0)).unwrap();
    assert!((0..4).all(|slot| of.location(slot).unwrap().is_none()));
    put(&pool, 3);
    assert_eq!(pool.statistics().pages, 1);
}

#[test]
fn touching_a_prompt_counts_the_pages_without_a_gap() {
    let (_publisher, pool) = pool(8);
    [1, 2, 4].into_iter().for_each(|number| _ = put(&pool, number));
    assert_eq!(pool.touch(&[1, 2, 3, 4].map(key)), 2);
    assert_eq!((pool.touch(&[key(3)]), pool.touch(&[])), (0, 0));
}

#[test]
fn a_pool_is_opened_as_what_it_is_and_ends_with_its_handle() {
    let (publisher, pool) = pool(2);
    let open = EnginePool::open(publisher.clone(), PoolId(0)).err();
    assert_eq!(open, Some(OpenPoolError::Own { pool: PoolId(0) }));
    let missing = PagePool::open(publisher.clone(), PoolId(7)).err();
    assert_eq!(missing, Some(OpenPoolError::NoPool { pool: PoolId(7) }));
    put(&pool, 1);
    let pin = pool.pin(key(1)).unwrap();
    drop(pool);
    assert_eq!(publisher.pool(PoolId(0)).unwrap().location(0).unwrap(), None);
    drop(pin);
}

#[test]
fn a_withdrawn_pool_says_so_and_a_slot_that_others_read_is_refused() {
    let publisher = publisher(2);
    let id = publisher.add_pool(crate::rig::LAYOUT, 1).unwrap();
    let pool = PagePool::open(publisher.clone(), id).unwrap();
    let record = put(&pool, 1);
    // Another reader than the pool's own: the pool is told by the publisher.
    let page = publisher.pool(id).unwrap().page(record.slot).unwrap();
    let refused = PutError::Write { pool: id, source: WriteError::BeingRead { slot: 0 } };
    assert_eq!(pool.put(key(2), &bytes_of(key(2))), Err(refused));
    assert!(!pool.contains(key(1)) && !pool.contains(key(2)));
    assert_eq!(
        publisher.pool(id).unwrap().location(0).unwrap(),
        None,
        "it is a miss, since no key leads there"
    );
    drop(page);
    put(&pool, 2);
    publisher.withdraw(id, Instant::now()).unwrap();
    assert_eq!(pool.put(key(3), &bytes_of(key(3))), Err(PutError::Withdrawn { pool: id }));
    assert!(pool.local(key(2)).is_none() && pool.remove(key(2)));
}
