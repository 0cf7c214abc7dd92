//! Memory that readers refuse, or do not answer for.
#![allow(unsafe_code, reason = "foreign memory, on the word of the test")]

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use kvrail::shm;
use kvrail_core::memory::{Access, DestinationRegion};
use kvrail_core::provider::MemoryRange;
use kvrail_node::{Destinations, Node, RegisterMemoryError, UnregisterMemoryError};

use crate::directory::TestDirectory;
use crate::group::*;

/// More than a reader has places for regions.
const MANY: usize = 600;

#[test]
fn memory_for_which_no_reader_answers_is_released_when_one_goes_on() {
    let directory = Arc::new(TestDirectory::default());
    let config = config("driven", &directory).register_within(Duration::from_millis(1));
    let (node, mut driver) = Node::start_driven(config, shm::publish(1), shm::rails(1).unwrap()).unwrap();
    let memory = kvrail::memory::leaked(BYTES).unwrap();
    let range = MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: BYTES as u64 };
    let region = DestinationRegion { range, stride: BYTES as u64 };
    for round in 0..MANY {
        // SAFETY: the memory was leaked, and nothing is read into it.
        let error = unsafe { node.register_foreign(&PAGE, &[region], Access::Host, None) }.unwrap_err();
        assert!(matches!(error, RegisterMemoryError::NoAnswer { .. }), "round {round}: {error}");
        // It obeys: it registers the memory, and releases it, or its places would run out.
        driver.poll();
    }
    let places = std::thread::scope(|scope| {
        // The driver answers at once now, but perhaps not within a millisecond.
        let registering = scope.spawn(|| {
            loop {
                // SAFETY: as above, and the destinations alone have it from now on.
                match unsafe { node.register_foreign(&PAGE, &[region], Access::Host, None) } {
                    Ok(places) => return places,
                    Err(error) => assert!(matches!(error, RegisterMemoryError::NoAnswer { .. }), "{error}"),
                }
            }
        });
        let limit = Instant::now() + Duration::from_secs(60);
        while !registering.is_finished() {
            assert!(Instant::now() < limit, "the driver answers");
            driver.poll();
        }
        registering.join().unwrap()
    });
    assert_eq!(places.free(), 1);
}

#[test]
fn memory_that_readers_refuse_is_registered_with_none() {
    let directory = Arc::new(TestDirectory::default());
    let node = start(config("reader", &directory).readers(2));
    let memory = kvrail::memory::leaked(4 * BYTES).unwrap();
    let addr = memory.as_mut_ptr().expose_provenance() as u64;
    let region = |stride: usize| DestinationRegion {
        range: MemoryRange { addr, len: 4 * BYTES as u64 },
        stride: stride as u64,
    };
    for _ in 0..MANY {
        // Places that overlap.
        // SAFETY: the memory was leaked, and nothing is read into it.
        let error = unsafe { node.register_foreign(&PAGE, &[region(BYTES / 2)], Access::Host, None) };
        assert!(matches!(error, Err(RegisterMemoryError::Region(_))), "{error:?}");
    }
    // SAFETY: as above.
    let places = unsafe { node.register_foreign(&PAGE, &[region(BYTES)], Access::Host, None) }.unwrap();
    assert_eq!(places.free(), 4);
    node.unregister(&places).unwrap();
}

/// What four threads are told that release the same memory at once.
fn release_together(node: &Node, places: &Destinations) -> Vec<Result<(), UnregisterMemoryError>> {
    const THREADS: usize = 4;
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let release = || {
            start.wait();
            node.unregister(places)
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(release)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_a_release_answers_depends_on_no_race() {
    let directory = Arc::new(TestDirectory::default());
    let (node, other) = (start(config("reader", &directory)), start(config("other", &directory)));
    for round in 0..50 {
        let places = places(&node, 70);
        assert_eq!(other.unregister(&places), Err(UnregisterMemoryError::OtherNode));
        let held = places.take(round + 3).unwrap();
        for told in release_together(&node, &places) {
            assert_eq!(told, Err(UnregisterMemoryError::Busy { index: round + 3 }));
        }
        assert_eq!(places.free(), 69, "a refused release changes nothing");
        drop(held);
        let told = release_together(&node, &places);
        assert_eq!(told.iter().filter(|told| told.is_ok()).count(), 1, "{told:?}");
        let released = |told: &&Result<_, _>| **told == Err(UnregisterMemoryError::Released);
        assert_eq!(told.iter().filter(released).count(), told.len() - 1, "{told:?}");
    }
}

#[test]
fn memory_that_no_reader_releases_stays_so() {
    let directory = Arc::new(TestDirectory::default());
    let config = config("driven", &directory).register_within(Duration::from_millis(50));
    let (node, mut driver) = Node::start_driven(config, shm::publish(1), shm::rails(1).unwrap()).unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    let places = std::thread::scope(|scope| {
        let registering = scope.spawn(|| {
            loop {
                if let Ok(places) = node.register(&PAGE, kvrail::memory::leaked(BYTES).unwrap()) {
                    return places;
                }
            }
        });
        while !registering.is_finished() {
            assert!(Instant::now() < limit, "the driver answers");
            driver.poll();
        }
        registering.join().unwrap()
    });
    assert_eq!(node.unregister(&places), Err(UnregisterMemoryError::NotReleased));
    // The driver goes on and releases it, but the caller was told that it must keep the memory.
    driver.poll();
    assert_eq!(node.unregister(&places), Err(UnregisterMemoryError::NotReleased));
    assert!(places.take(0).is_none());
}
