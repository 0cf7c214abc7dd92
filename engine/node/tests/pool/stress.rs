//! Peers read pages by their records while threads put, evict, replace and remove them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use kvrail::PageError;
use kvrail_node::{PagePool, Put, PutError, PutPlace, Record};

use crate::rig::{Chance, How, LIMIT, PAGE, Reads, fill, is_page_of, key, pool};

const SLOTS: u32 = 12;
/// More keys than slots, so that pages are evicted all the time.
const KEYS: u64 = 30;
const THREADS: u64 = 4;

/// What the threads did.
#[derive(Debug, Default)]
struct Churn {
    stored: AtomicU64,
    already: AtomicU64,
    underway: AtomicU64,
    refused: AtomicU64,
    given_up: AtomicU64,
    removed: AtomicU64,
    local: AtomicU64,
}

impl Churn {
    /// Puts, replaces, gives up, removes, pins and reads pages until `stop`.
    fn run(&self, pool: &PagePool, seed: u64, stop: &AtomicBool) {
        let mut chance = Chance(seed);
        let one = |count: &AtomicU64| _ = count.fetch_add(1, Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) {
            let page = key(chance.below(KEYS).into());
            match chance.below(16) {
                0..=8 => self.count(pool.put_with(page, |bytes| fill(page, bytes))),
                9 => {
                    let mut bytes = vec![0; PAGE];
                    fill(page, &mut bytes);
                    self.count(pool.replace(page, &bytes));
                }
                10 | 11 => {
                    if let Ok(PutPlace::Fill(mut guard)) = pool.put_in_place(page) {
                        // Bytes of no key, which must never be seen.
                        guard.bytes().fill(0xEE);
                        drop(guard);
                        one(&self.given_up);
                    }
                }
                12 | 13 => {
                    if pool.remove(page) {
                        one(&self.removed);
                    }
                }
                14 => {
                    if let Some(read) = pool.local(page) {
                        assert!(is_page_of(read.key(), &read), "a local reader has other bytes");
                        std::thread::yield_now();
                        assert!(is_page_of(page, &read), "they changed while they were held");
                        one(&self.local);
                    }
                }
                _ => {
                    let pin = pool.pin(page);
                    std::thread::yield_now();
                    drop(pin);
                }
            }
        }
    }

    fn count(&self, outcome: Result<Put, PutError>) {
        let count = match outcome {
            Ok(Put::Stored(_)) => &self.stored,
            Ok(Put::Already(_)) => &self.already,
            Ok(Put::Underway) => &self.underway,
            Err(PutError::AllHeld { .. } | PutError::Removed { .. }) => &self.refused,
            Err(error) => panic!("{error}"),
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the reader found.
#[derive(Debug, Default)]
struct Found {
    reads: u64,
    right: u64,
    wrong: u64,
    missed: u64,
}

/// Reads while four threads change what is there, until `enough` says so. A tenth of the records
/// are old ones.
fn read_under_churn(how: How, enough: impl Fn(&Found) -> bool) -> (Found, Churn) {
    let (publisher, pool) = pool(SLOTS);
    let mut reads = Reads::of(&publisher);
    let (stop, churn, mut found) = (AtomicBool::new(false), Churn::default(), Found::default());
    std::thread::scope(|scope| {
        for seed in 1..=THREADS {
            let (pool, churn, stop) = (&pool, &churn, &stop);
            scope.spawn(move || churn.run(pool, seed, stop));
        }
        // The threads end, however this one does.
        let stop = StopAtEnd(&stop);
        let (mut chance, until) = (Chance(99), Instant::now() + LIMIT);
        let mut old: Vec<Record> = Vec::new();
        while !enough(&found) && Instant::now() < until {
            let mut records = Vec::new();
            for _ in 0..Reads::MOST {
                match pool.record(key(chance.below(KEYS).into())) {
                    Some(record) => records.push(record),
                    None if !old.is_empty() => records.push(old[chance.below(old.len() as u64) as usize]),
                    None => {}
                }
            }
            if records.is_empty() {
                continue;
            }
            for result in reads.read(&records, how) {
                found.reads += 1;
                match result {
                    Ok(true) => found.right += 1,
                    Ok(false) => found.wrong += 1,
                    Err(PageError::Miss(_)) => found.missed += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            old.extend(records);
            let more = old.len().saturating_sub(64);
            old.drain(..more);
        }
        drop(stop);
    });
    // Nothing is left behind.
    let counts = pool.statistics();
    assert_eq!((counts.written, counts.held), (0, 0), "{counts:?}");
    for number in 0..KEYS {
        if let Some(record) = pool.record(key(number.into())) {
            assert_eq!(reads.read_one(record), Ok(true), "{record:?}");
        }
    }
    let stored = churn.stored.load(Ordering::Relaxed);
    assert_eq!(counts.puts, stored, "each page that was put was told to one writer");
    (found, churn)
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn every_page_that_arrives_has_the_bytes_of_its_key() {
    let enough = |found: &Found| found.reads >= 5_000 && found.right >= 100 && found.missed >= 100;
    let (found, churn) = read_under_churn(How::Validated, enough);
    println!("{found:?}, {churn:?}");
    assert_eq!(found.wrong, 0, "{found:?}");
    assert_eq!(found.right + found.missed, found.reads);
    assert!(enough(&found), "{found:?}");
    let happened = [&churn.stored, &churn.already, &churn.given_up, &churn.removed, &churn.local];
    assert!(happened.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{churn:?}");
}

/// The check that the test above relies on: without it the same churn gives wrong pages.
#[test]
fn without_validation_the_same_churn_gives_wrong_pages() {
    let (found, _) = read_under_churn(How::Unvalidated, |found| found.wrong > 0 || found.reads >= 2_000_000);
    println!("{found:?}");
    assert!(found.wrong > 0, "{found:?}");
}
