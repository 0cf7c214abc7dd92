//! A wait-free ring from one thread to one other.
//!
//! The producer stages any number of items and shows them all with one store, as a NIC's doorbell
//! does. Indices count upwards without end and are reduced modulo the capacity, a power of two, on
//! access; `tail - head` is the number of items shown and not yet taken.
#![allow(unsafe_code, reason = "slots change hands between two threads; the indices say whose they are")]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// On its own pair of cache lines: adjacent lines are prefetched together on x86.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(crate) struct Padded<T>(pub(crate) T);

struct Ring<T> {
    /// Items taken. Written by the consumer.
    head: Padded<AtomicUsize>,
    /// Items shown. Written by the producer.
    tail: Padded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is accessed by one thread at a time. Slots `head..tail` are the consumer's, all
// others the producer's; a slot changes sides by a Release store of an index that the other side
// loads with Acquire. There is one producer and one consumer: neither end can be cloned. Items move
// between the threads, hence T: Send.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, index: usize) -> *mut MaybeUninit<T> {
        self.slots[index & (self.slots.len() - 1)].get()
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let (head, tail) = (*self.head.0.get_mut(), *self.tail.0.get_mut());
        let mut at = head;
        while at != tail {
            // SAFETY: both ends are gone, so the access is exclusive.
            let slot = unsafe { &mut *self.slot(at) };
            // SAFETY: slots head..tail hold items that were shown and never taken.
            unsafe { slot.assume_init_drop() };
            at = at.wrapping_add(1);
        }
    }
}

/// The end that gives.
pub(crate) struct Producer<T> {
    ring: Arc<Ring<T>>,
    /// Items shown.
    tail: usize,
    /// Items shown or staged.
    staged: usize,
    /// `head` as last seen.
    head: usize,
}

/// The end that takes.
pub(crate) struct Consumer<T> {
    ring: Arc<Ring<T>>,
    /// Items taken.
    head: usize,
    /// `tail` as last seen.
    tail: usize,
}

/// A ring of at least `capacity` items.
pub(crate) fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let slots = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit()));
    let ring = Arc::new(Ring { head: Padded::default(), tail: Padded::default(), slots: slots.collect() });
    (Producer { ring: Arc::clone(&ring), tail: 0, staged: 0, head: 0 }, Consumer { ring, head: 0, tail: 0 })
}

impl<T> Producer<T> {
    /// Puts an item behind the others, not shown yet. A full ring gives it back.
    #[inline]
    pub(crate) fn stage(&mut self, item: T) -> Result<(), T> {
        if self.staged.wrapping_sub(self.head) == self.ring.slots.len() {
            self.head = self.ring.head.0.load(Ordering::Acquire);
            if self.staged.wrapping_sub(self.head) == self.ring.slots.len() {
                return Err(item);
            }
        }
        let slot = self.ring.slot(self.staged);
        // SAFETY: staged - head < capacity, so the slot is outside head..tail: the producer's. What
        // it held has been taken (head was loaded with Acquire), nothing is overwritten undropped.
        unsafe { slot.write(MaybeUninit::new(item)) };
        self.staged = self.staged.wrapping_add(1);
        Ok(())
    }

    /// Shows everything staged, with one store.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.tail = self.staged;
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }

    /// Drops everything staged.
    #[inline]
    pub(crate) fn discard(&mut self) {
        while self.staged != self.tail {
            self.staged = self.staged.wrapping_sub(1);
            // SAFETY: slots tail..staged are the producer's.
            let slot = unsafe { &mut *self.ring.slot(self.staged) };
            // SAFETY: `stage` filled it, and `staged` has just been set back: dropped once.
            unsafe { slot.assume_init_drop() };
        }
    }

    /// Shows one item, and what was staged before it. A full ring gives it back.
    #[inline]
    pub(crate) fn push(&mut self, item: T) -> Result<(), T> {
        self.stage(item)?;
        self.publish();
        Ok(())
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.discard();
    }
}

impl<T> Consumer<T> {
    /// The oldest item shown, if any.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let slot = self.ring.slot(self.head);
        // SAFETY: head < tail, so the slot is the consumer's (tail was loaded with Acquire).
        let slot = unsafe { slot.read() };
        // SAFETY: it was filled before it was shown; head moves on, so it is taken once.
        let item = unsafe { slot.assume_init() };
        self.head = self.head.wrapping_add(1);
        self.ring.head.0.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Whether nothing is there to take. Looks at the producer's index only when what was seen of it
    /// is used up.
    #[inline]
    pub(crate) fn is_empty(&mut self) -> bool {
        if self.head == self.tail {
            self.tail = self.ring.tail.0.load(Ordering::Acquire);
        }
        self.head == self.tail
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_staged_is_shown_at_once_or_never() {
        let (mut tx, mut rx) = ring::<u32>(4);
        tx.stage(1).unwrap();
        tx.stage(2).unwrap();
        assert_eq!(rx.pop(), None);
        tx.publish();
        assert_eq!((rx.pop(), rx.pop(), rx.pop()), (Some(1), Some(2), None));
        tx.stage(3).unwrap();
        tx.discard();
        tx.push(4).unwrap();
        assert_eq!((rx.pop(), rx.pop()), (Some(4), None));
    }

    #[test]
    fn a_full_ring_gives_the_item_back() {
        let (mut tx, mut rx) = ring::<u32>(2);
        tx.push(1).unwrap();
        tx.stage(2).unwrap();
        assert_eq!(tx.stage(3), Err(3));
        tx.publish();
        assert_eq!(rx.pop(), Some(1));
        tx.push(3).unwrap();
        assert_eq!((rx.pop(), rx.pop()), (Some(2), Some(3)));
    }

    #[test]
    fn every_item_is_dropped_once() {
        let count = Arc::new(());
        let (mut tx, mut rx) = ring::<Arc<()>>(8);
        for _ in 0..5 {
            tx.push(Arc::clone(&count)).unwrap();
        }
        drop(rx.pop());
        tx.stage(Arc::clone(&count)).unwrap();
        tx.discard();
        tx.stage(Arc::clone(&count)).unwrap();
        assert_eq!(Arc::strong_count(&count), 1 + 4 + 1);
        drop(tx);
        assert_eq!(Arc::strong_count(&count), 1 + 4);
        drop(rx);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn two_threads_see_every_item_in_order() {
        const N: u64 = 20_000;
        let (mut tx, mut rx) = ring::<Box<u64>>(16);
        let consumer = std::thread::spawn(move || {
            let mut expected = 0;
            while expected < N {
                match rx.pop() {
                    Some(item) => {
                        assert_eq!(*item, expected);
                        expected += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        for i in 0..N {
            let mut item = Box::new(i);
            while let Err(back) = tx.stage(item) {
                tx.publish();
                item = back;
                std::thread::yield_now();
            }
            if i % 3 == 0 {
                tx.publish();
            }
        }
        tx.publish();
        consumer.join().unwrap();
    }
}
