//! Every interleaving of two threads, by loom.

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

/// A slot's bytes travel with the buffer that holds it: claimed, written, sent through the
/// ring, read by the engine, released, claimed again by the other thread.
#[test]
fn a_slot_handed_over_is_seen_whole() {
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

/// A consumer says that it ends; the producer then takes the items that it left, each once.
#[test]
fn what_a_consumer_leaves_is_taken_by_who_put_it_in() {
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

/// Who sees all of them free may free what they stand for.
#[test]
fn what_is_counted_free_is_no_longer_used() {
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
