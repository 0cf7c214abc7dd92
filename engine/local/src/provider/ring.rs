//! A wait-free ring from one thread to one other.
//!
//! The producer stages any number of items and shows them all with one store, as a NIC's doorbell
//! does. Indices count upwards without end and are reduced modulo the capacity, a power of two, on
//! access; `tail - head` is the number of items shown and not yet taken.
#![allow(unsafe_code, reason = "slots change hands between two threads; the indices say whose they are")]

use std::fmt;
use std::mem::MaybeUninit;

use super::sync::{Arc, AtomicUsize, Cell, Ordering};

/// On its own pair of cache lines: adjacent lines are prefetched together on x86.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(crate) struct Padded<T>(pub(crate) T);

struct Ring<T> {
    /// Items taken. Written by the consumer.
    head: Padded<AtomicUsize>,
    /// Items shown. Written by the producer.
    tail: Padded<AtomicUsize>,
    slots: Box<[Cell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is accessed by one thread at a time. Slots `head..tail` are the consumer's, all
// others the producer's; a slot changes sides by a Release store of an index that the other side
// loads with Acquire. There is one producer and one consumer: neither end can be cloned. Items move
// between the threads, hence T: Send.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    #[inline]
    fn slot(&self, index: usize) -> &Cell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // Both ends are gone, and whoever drops the ring has seen all that they did.
        let (mut at, tail) = (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while at != tail {
            self.slot(at).with_mut(|slot| {
                // SAFETY: `&mut self`: the access is exclusive.
                let slot = unsafe { &mut *slot };
                // SAFETY: slots head..tail hold items that were shown and never taken.
                unsafe { slot.assume_init_drop() };
            });
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
    let slots = (0..capacity.next_power_of_two()).map(|_| Cell::new(MaybeUninit::uninit()));
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
        self.ring.slot(self.staged).with_mut(|slot| {
            // SAFETY: staged - head < capacity, so the slot is outside head..tail: the producer's.
            // What it held has been taken (head was loaded with Acquire), nothing is overwritten
            // undropped.
            unsafe { slot.write(MaybeUninit::new(item)) };
        });
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
            self.ring.slot(self.staged).with_mut(|slot| {
                // SAFETY: slots tail..staged are the producer's.
                let slot = unsafe { &mut *slot };
                // SAFETY: `stage` filled it, and `staged` has just been set back: dropped once.
                unsafe { slot.assume_init_drop() };
            });
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
        let item = self.ring.slot(self.head).with_mut(|slot| {
            // SAFETY: head < tail, so the slot is the consumer's (tail was loaded with Acquire).
            let slot = unsafe { &*slot };
            // SAFETY: it was filled before it was shown; head moves on, so it is taken once.
            unsafe { slot.assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        self.ring.head.0.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Whether nothing is there to take. Looks at the producer's index only when what was seen of
    /// it is used up.
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

#[cfg(all(test, not(loom)))]
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

/// Every interleaving of two threads, by loom, which also sees each access to a slot.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    /// The next item, however long it takes.
    fn next<T>(rx: &mut Consumer<T>) -> T {
        loop {
            match rx.pop() {
                Some(item) => break item,
                None => thread::yield_now(),
            }
        }
    }

    #[test]
    fn items_arrive_once_and_in_order() {
        loom::model(|| {
            let (mut tx, mut rx) = ring::<Box<u32>>(2);
            let producer = thread::spawn(move || {
                for i in 0..3 {
                    let mut item = Box::new(i);
                    while let Err(back) = tx.push(item) {
                        item = back;
                        thread::yield_now();
                    }
                }
            });
            for i in 0..3 {
                assert_eq!(*next(&mut rx), i);
            }
            assert!(rx.is_empty());
            producer.join().unwrap();
        });
    }

    #[test]
    fn what_is_staged_is_shown_together() {
        loom::model(|| {
            let (mut tx, mut rx) = ring::<Box<u32>>(4);
            let producer = thread::spawn(move || {
                tx.stage(Box::new(1)).unwrap();
                tx.stage(Box::new(2)).unwrap();
                tx.publish();
                tx.stage(Box::new(3)).unwrap();
                tx.discard();
                tx.push(Box::new(4)).unwrap();
            });
            assert_eq!(*next(&mut rx), 1);
            // The 2 was shown by the store that showed the 1: there is nothing to wait for.
            assert_eq!(rx.pop().as_deref(), Some(&2));
            assert_eq!(*next(&mut rx), 4);
            producer.join().unwrap();
        });
    }

    #[test]
    fn what_neither_end_has_taken_is_dropped_by_the_last_of_them() {
        loom::model(|| {
            // loom's Arc: one that is not dropped is a leak, and fails the model.
            let item = Arc::new(());
            let (mut tx, mut rx) = ring::<Arc<()>>(2);
            let of_producer = Arc::clone(&item);
            let producer = thread::spawn(move || {
                tx.push(Arc::clone(&of_producer)).unwrap();
                tx.push(Arc::clone(&of_producer)).unwrap();
                // A third is staged where the first was, if that is taken already.
                let _ = tx.stage(of_producer);
            });
            drop(rx.pop());
            drop(rx);
            producer.join().unwrap();
            assert_eq!(Arc::strong_count(&item), 1);
        });
    }
}
