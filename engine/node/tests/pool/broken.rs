//! The order is broken on purpose, and readers get wrong pages: so the tests that find none would
//! find them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kvrail::session::PoolId;
use kvrail_node::{EnginePool, Key, Published, Record};

use crate::rig::{EngineMemory, How, LIMIT, Reads, fill, key, pool};

const MOST_READS: u64 = 2_000_000;

/// Reads by `read` until a page is wrong, `most` times at most, while `churn` runs in another
/// thread until it is told to stop. Returns how many pages were right, wrong, and missed.
fn read_under(
    churn: impl Fn(&AtomicBool) + Sync,
    most: u64,
    mut read: impl FnMut() -> Option<bool>,
) -> [u64; 3] {
    let stop = AtomicBool::new(false);
    let [mut right, mut wrong, mut missed] = [0; 3];
    std::thread::scope(|scope| {
        scope.spawn(|| churn(&stop));
        let until = Instant::now() + LIMIT;
        while wrong == 0 && right + missed < most && Instant::now() < until {
            match read() {
                Some(true) => right += 1,
                Some(false) => wrong += 1,
                None => missed += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    [right, wrong, missed]
}

/// An engine that keeps the order, and one that writes pages without a guard: their entries stay
/// valid, as if the entry of one page were used again for the next.
fn an_engine_overwrites(with_guard: bool) -> [u64; 3] {
    let memory = EngineMemory::of(1);
    let publisher = memory.publisher();
    let mut reads = Reads::of(&publisher);
    let pool = EnginePool::open(publisher, PoolId(0)).unwrap();
    let publish = |key: Key| {
        memory.fill(0, key);
        match pool.publish_slot(0, key) {
            Ok(Published::Here(record)) => record,
            other => panic!("{other:?}"),
        }
    };
    let record = std::sync::Mutex::new(publish(key(0)));
    let churn = |stop: &AtomicBool| {
        for number in (1..).take_while(|_| !stop.load(Ordering::Relaxed)) {
            if with_guard {
                let guard = pool.overwrite_slot(0).unwrap();
                memory.fill(0, key(number));
                let Ok(Published::Here(new)) = guard.publish(key(number)) else { panic!("not published") };
                *record.lock().unwrap() = new;
            } else {
                memory.fill(0, key(number));
            }
        }
    };
    let most = if with_guard { 3_000 } else { MOST_READS };
    read_under(churn, most, || {
        let record = *record.lock().unwrap();
        reads.read_one(record).ok()
    })
}

#[test]
fn an_engine_that_overwrites_without_a_guard_is_found() {
    let [right, wrong, missed] = an_engine_overwrites(false);
    println!("{right} right, {wrong} wrong, {missed} missed");
    assert_eq!((wrong, missed), (1, 0), "{right} right");
}

#[test]
fn an_engine_that_overwrites_under_guards_gives_no_wrong_page() {
    let [right, wrong, missed] = an_engine_overwrites(true);
    println!("{right} right, {wrong} wrong, {missed} missed");
    assert_eq!((wrong, right + missed), (0, 3_000));
    assert!(missed > 0, "none of {right} pages was overwritten while it was read");
}

/// A reader that looks at the entry before it reads the bytes, and not after them.
#[test]
fn a_page_that_is_validated_before_its_last_byte_is_found_to_be_wrong() {
    let (publisher, pool) = pool(1);
    let mut reads = Reads::of(&publisher);
    let of = publisher.pool(PoolId(0)).unwrap();
    let churn = |stop: &AtomicBool| {
        for number in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
            let page = key(number);
            pool.put_with(page, |bytes| fill(page, bytes)).map(|_| ()).unwrap();
        }
    };
    let valid_now = || {
        let location = of.location(0).unwrap()?;
        let kvrail::core::table::EntryValue { generation, tag, .. } = location.expected;
        Some(Record { tag, owner: publisher.epoch(), pool: PoolId(0), slot: 0, generation })
    };
    let [right, wrong, missed] = read_under(churn, MOST_READS, || {
        let record = valid_now()?;
        Some(reads.read(&[record], How::Unvalidated)[0].unwrap())
    });
    println!("{right} right, {wrong} wrong, {missed} missed");
    assert_eq!(wrong, 1, "{right} right, {missed} missed");
}
