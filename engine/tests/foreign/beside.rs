//! An engine that rewrites its memory while peers read it: a page is right, or it is a miss.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kvrail::session::PoolId;
use kvrail::{KeyTag, Location, PageError, shm};

use super::rig::{EngineMemory, LATENT, Reads, pool, publisher};

const LIMIT: Duration = Duration::from_secs(60);

/// Ends the writing thread, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn pages_that_are_rewritten_beside_their_readers_are_right_or_missed() {
    const READS: usize = 3000;
    let memory = EngineMemory::of(1);
    let publisher = publisher(&[pool(LATENT, &memory.foreign())], shm::publish(1)).unwrap();
    let slots = publisher.pool(PoolId(0)).unwrap().foreign().unwrap();
    let (last, over) = (Mutex::new(None::<Location>), AtomicBool::new(false));
    let mut reads = Reads::of(LATENT, &publisher, shm::rails(1).unwrap());
    let (mut right, mut missed) = (0, 0);
    std::thread::scope(|scope| {
        let (memory, last, over) = (&memory, &last, &over);
        let _ends = Ends(over);
        scope.spawn(move || {
            let mut byte = 0_u8;
            while !over.load(Ordering::Relaxed) {
                byte = byte.wrapping_add(1);
                let guard = slots.overwrite(0, KeyTag(byte.into())).unwrap();
                memory.fill(0, &LATENT, byte);
                *last.lock().unwrap() = Some(guard.publish());
                // As long as a page is read, more or less, so that some are.
                std::thread::yield_now();
            }
        });
        let begun = Instant::now();
        while right + missed < READS || right == 0 {
            assert!(begun.elapsed() < LIMIT, "{right} right, {missed} missed");
            let Some(location) = *last.lock().unwrap() else { continue };
            match reads.read(location) {
                Ok(byte) => {
                    assert_eq!(KeyTag(byte.into()), location.expected.tag, "another page's bytes");
                    right += 1;
                }
                Err(PageError::Miss(_)) => missed += 1,
                Err(other) => panic!("{other}"),
            }
        }
    });
    println!("{right} right, {missed} missed");
}

/// The engine takes its memory back and uses it for something else, while a reader reads.
#[test]
fn no_bytes_of_memory_that_was_taken_back_are_taken_for_a_page() {
    const ROUNDS: u8 = 30;
    let memory = EngineMemory::of(1);
    let foreign = memory.foreign();
    let publisher = publisher(&[pool(LATENT, &foreign)], shm::publish(1)).unwrap();
    publisher.withdraw(PoolId(0), Instant::now()).unwrap();
    for round in 1..=ROUNDS {
        let id = publisher.add_foreign_pool(pool(LATENT, &foreign)).unwrap();
        let guard = publisher.pool(id).unwrap().foreign().unwrap().overwrite(0, KeyTag(1)).unwrap();
        memory.fill(0, &LATENT, round);
        let location = guard.publish();
        let mut reads = Reads::of(LATENT, &publisher, shm::rails(1).unwrap());
        let read = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let read = &read;
            scope.spawn(move || {
                let begun = Instant::now();
                // The reads end by an error when the pool has gone.
                while let Ok(byte) = reads.read(location) {
                    assert_eq!(byte, round, "bytes that are no page");
                    read.fetch_add(1, Ordering::Relaxed);
                    assert!(begun.elapsed() < LIMIT, "the pool has gone");
                }
            });
            let begun = Instant::now();
            while read.load(Ordering::Relaxed) < 5 && begun.elapsed() < LIMIT {
                std::thread::yield_now();
            }
            publisher.withdraw(id, Instant::now() + LIMIT).unwrap();
            memory.fill(0, &LATENT, 0xEE);
        });
        assert!(read.into_inner() >= 5);
    }
}
