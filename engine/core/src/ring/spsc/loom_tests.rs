//! The ring and the free set under every interleaving of two threads, which loom tries.

use super::*;
use crate::ring::free::FreeSet;
use loom::sync::Arc;
use loom::thread;
use std::boxed::Box;

#[test]
fn items_arrive_once_and_in_order() {
    loom::model(|| {
        let ring: &'static mut Ring<Box<u32>, 2> = Box::leak(Box::new(Ring::new()));
        let (mut put, mut take) = ring.split();
        let producer = thread::spawn(move || {
            for i in 0..3 {
                let mut item = Box::new(i);
                while let Err(back) = put.push(item) {
                    item = back;
                    thread::yield_now();
                }
            }
        });
        for i in 0..3 {
            let item = loop {
                match take.pop() {
                    Some(item) => break item,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*item, i);
        }
        producer.join().unwrap();
    });
}

/// A submitter claims a buffer, writes a slot of it and sends it through the ring; the engine reads
/// the slot and releases the buffer; the submitter claims it again.
#[test]
fn a_thread_that_gets_a_buffer_sees_what_the_last_owner_wrote() {
    loom::model(|| {
        let free = Arc::new(FreeSet::below(1));
        let bytes = Arc::new(Cell::new(0_u32));
        let ring: &'static mut Ring<u32, 2> = Box::leak(Box::new(Ring::new()));
        let (mut put, mut take) = ring.split();
        let (free2, bytes2) = (free.clone(), bytes.clone());
        let submitter = thread::spawn(move || {
            for round in 1..=2 {
                let buffer = loop {
                    match free2.claim() {
                        Some(buffer) => break buffer,
                        None => thread::yield_now(),
                    }
                };
                bytes2.with_mut(|at| {
                    // SAFETY: the claim made this thread the only owner; loom checks it.
                    unsafe { at.write(round) }
                });
                put.push(buffer).unwrap();
            }
        });
        for round in 1..=2 {
            let buffer = loop {
                match take.pop() {
                    Some(buffer) => break buffer,
                    None => thread::yield_now(),
                }
            };
            let seen = bytes.with_mut(|at| {
                // SAFETY: the buffer came through the ring: this thread owns it; loom checks
                // it.
                unsafe { at.read() }
            });
            assert_eq!(seen, round);
            free.release(buffer);
        }
        submitter.join().unwrap();
    });
}

/// The consumer sets a flag as it ends. The producer then takes the items that are left, each once.
#[test]
fn a_producer_takes_the_items_that_an_ended_consumer_left() {
    loom::model(|| {
        let ring: &'static mut Ring<Box<u32>, 2> = Box::leak(Box::new(Ring::new()));
        let gone = Arc::new(crate::sync::AtomicUsize::new(0));
        let (mut put, mut take) = ring.split();
        let over = gone.clone();
        let consumer = thread::spawn(move || {
            let taken = take.pop().map(|item| *item);
            over.store(1, Ordering::Release);
            taken
        });
        put.push(Box::new(1)).unwrap();
        put.push(Box::new(2)).unwrap();
        while gone.load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        // SAFETY: the consumer's thread has said that it ends, which was acquired; loom checks
        // it.
        let mut rest = unsafe { put.take_over() };
        let mut all: std::vec::Vec<_> = consumer.join().unwrap().into_iter().collect();
        all.extend(core::iter::from_fn(|| rest.pop().map(|item| *item)));
        assert_eq!(all, [1, 2]);
    });
}

/// How a hub tells a submitter a page and then its batch: each goes into the ring, and the sleeper
/// is woken once behind both. The submitter sleeps when it finds nothing, and gets the slot, whose
/// bytes the other thread has written, before the batch.
#[test]
fn a_page_comes_before_its_batch_and_wakes_a_sleeper() {
    use crate::ring::sleeper::Sleeper;
    use core::task::Waker;

    struct Woken(crate::sync::AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }

    /// A page with its slot, or the end of a batch.
    #[derive(Debug)]
    enum News {
        Page(Box<u32>),
        Done,
    }

    loom::model(|| {
        let ring: &'static mut Ring<News, 2> = Box::leak(Box::new(Ring::new()));
        let (mut put, mut take) = ring.split();
        let sleeper = Arc::new(Sleeper::new());
        let other = sleeper.clone();
        let hub = thread::spawn(move || {
            // One turn tells the page, the next one the batch.
            for news in [News::Page(Box::new(7)), News::Done] {
                put.push(news).unwrap();
                other.wake();
            }
        });
        let woken = std::sync::Arc::new(Woken(crate::sync::AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let mut told = 0;
        loop {
            match take.pop() {
                Some(News::Page(slot)) => told += *slot,
                Some(News::Done) => break,
                None => {
                    let before = woken.0.load(Ordering::Acquire);
                    if sleeper.prepare(&waker) {
                        if take.is_empty() {
                            while woken.0.load(Ordering::Acquire) == before {
                                thread::yield_now();
                            }
                        } else {
                            sleeper.stay_awake();
                        }
                    } else {
                        thread::yield_now();
                    }
                }
            }
        }
        assert_eq!(told, 7, "the page came before its batch");
        hub.join().unwrap();
    });
}

/// As a submitter ends while a page and its batch are on their way: each slot is there once, with
/// the submitter or with the hub.
#[test]
fn slots_told_early_are_in_one_place_when_the_submitter_ends() {
    loom::model(|| {
        let ring: &'static mut Ring<Box<u32>, 2> = Box::leak(Box::new(Ring::new()));
        let gone = Arc::new(crate::sync::AtomicUsize::new(0));
        let (mut put, mut take) = ring.split();
        let over = gone.clone();
        let submitter = thread::spawn(move || {
            let taken = take.pop().map(|slot| *slot);
            over.store(1, Ordering::Release);
            taken
        });
        let (mut own, mut taken_over) = (std::vec::Vec::new(), false);
        // In each turn the hub looks whether the submitter has ended, and then delivers.
        for slot in 1..=2 {
            if !taken_over && gone.load(Ordering::Acquire) == 1 {
                taken_over = true;
                // SAFETY: the submitter's last access came before the flag, which was acquired;
                // loom checks it.
                let mut rest = unsafe { put.take_over() };
                own.extend(core::iter::from_fn(|| rest.pop().map(|slot| *slot)));
            }
            if taken_over {
                own.push(slot);
            } else {
                put.push(Box::new(slot)).unwrap();
            }
        }
        let mut all: std::vec::Vec<_> = submitter.join().unwrap().into_iter().collect();
        if !taken_over {
            // SAFETY: as above.
            let mut rest = unsafe { put.take_over() };
            own.extend(core::iter::from_fn(|| rest.pop().map(|slot| *slot)));
        }
        all.extend(own);
        assert_eq!(all, [1, 2]);
    });
}

/// A thread that finds all numbers free may free the memory that they stand for.
#[test]
fn memory_of_a_number_that_counts_as_free_is_no_longer_used() {
    loom::model(|| {
        let free = Arc::new(FreeSet::below(1));
        let bytes = Arc::new(Cell::new(0_u32));
        let number = free.claim().unwrap();
        let (free2, bytes2) = (free.clone(), bytes.clone());
        let user = thread::spawn(move || {
            bytes2.with_mut(|at| {
                // SAFETY: this thread has the number; loom checks it.
                unsafe { at.write(7) }
            });
            free2.release(number);
        });
        while free.count() == 0 {
            thread::yield_now();
        }
        let seen = bytes.with_mut(|at| {
            // SAFETY: no thread has a number any more; loom checks it.
            unsafe { at.read() }
        });
        assert_eq!(seen, 7);
        user.join().unwrap();
    });
}

#[test]
fn two_threads_never_claim_the_same() {
    loom::model(|| {
        let free = Arc::new(FreeSet::below(2));
        let other = free.clone();
        let thread = thread::spawn(move || other.claim());
        let (a, b) = (free.claim(), thread.join().unwrap());
        assert!(a.is_some() && b.is_some() && a != b, "{a:?} {b:?}");
    });
}
