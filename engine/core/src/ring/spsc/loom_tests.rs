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
