//! A wait-free ring between two threads, on the heap, with a capacity that is chosen at run time.
//!
//! The algorithm is [`kvrail_core::ring`]'s. This module adds the memory: the two ends own the ring
//! together, so each end can move to a thread of its own, and the end that is dropped last frees
//! it.
//!
//! The producer stages any number of items and publishes them all with one store, as a NIC's
//! doorbell does.
#![allow(unsafe_code, reason = "two owned ends share memory that neither borrows")]

use std::fmt;
use std::ptr::NonNull;

use kvrail_core::ring::{Consumer, Producer, RingOver, RingSlot, RingSlots};
#[cfg(loom)]
use loom::sync::Arc;
#[cfg(not(loom))]
use std::sync::Arc;

struct HeapSlots<T>(Box<[RingSlot<T>]>);

// SAFETY: the box is never exchanged, so its slots are the same at every call, and it is private to
// one ring.
unsafe impl<T> RingSlots for HeapSlots<T> {
    type Item = T;

    fn slots(&self) -> &[RingSlot<T>] {
        &self.0
    }
}

/// The ring's memory, which both ends keep. It comes from `Box::into_raw`.
struct Memory<T>(NonNull<RingOver<HeapSlots<T>>>);

// SAFETY: it owns the ring, with items that may move between threads (T: Send), and does nothing
// but free it.
unsafe impl<T: Send> Send for Memory<T> {}
// SAFETY: as above; a `&Memory` gives access to nothing.
unsafe impl<T: Send> Sync for Memory<T> {}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw` in `ring`, and is freed once. Both ends,
        // which borrowed the ring, have been dropped: each holds an `Arc` of this value until then.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The end of a ring that puts items in.
pub struct RingProducer<T: Send + 'static> {
    /// Dropped before the memory that it borrows.
    end: Producer<'static, T>,
    _memory: Arc<Memory<T>>,
}

/// The end of a ring that takes items out.
pub struct RingConsumer<T: Send + 'static> {
    /// Dropped before the memory that it borrows.
    end: Consumer<'static, T>,
    _memory: Arc<Memory<T>>,
}

/// Creates a ring with room for `capacity` items, rounded up to a power of two, and returns its two
/// ends.
#[must_use]
pub fn ring<T: Send + 'static>(capacity: usize) -> (RingProducer<T>, RingConsumer<T>) {
    let slots = (0..capacity.next_power_of_two()).map(|_| RingSlot::empty()).collect();
    let ring = Box::into_raw(Box::new(RingOver::over(HeapSlots(slots))));
    // SAFETY: the pointer is a live box's, and this is the only reference that is ever made from
    // it. The ends that borrow it for 'static do not leave their structs, which keep the memory
    // alive.
    let (producer, consumer) = unsafe { &mut *ring }.split();
    // SAFETY: the pointer of a box is not null.
    let memory = Arc::new(Memory(unsafe { NonNull::new_unchecked(ring) }));
    (
        RingProducer { end: producer, _memory: Arc::clone(&memory) },
        RingConsumer { end: consumer, _memory: memory },
    )
}

impl<T: Send + 'static> RingProducer<T> {
    /// Puts an item into the ring. The consumer does not see it before [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// The item, when the ring is full.
    #[inline]
    pub fn stage(&mut self, item: T) -> Result<(), T> {
        self.end.stage(item)
    }

    /// Shows the consumer all staged items, with one store.
    #[inline]
    pub fn publish(&mut self) {
        self.end.publish();
    }

    /// Drops all staged items.
    #[inline]
    pub fn discard(&mut self) {
        self.end.discard();
    }

    /// Puts an item in, and publishes it with the items that were staged before it.
    ///
    /// # Errors
    ///
    /// The item, when the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        self.end.push(item)
    }
}

impl<T: Send + 'static> Drop for RingProducer<T> {
    fn drop(&mut self) {
        self.discard();
    }
}

impl<T: Send + 'static> RingConsumer<T> {
    /// Takes the oldest item out, if there is one.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.end.pop()
    }

    /// Whether there is no item to take.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        self.end.is_empty()
    }
}

impl<T: Send + 'static> fmt::Debug for RingProducer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RingProducer").field(&self.end).finish()
    }
}

impl<T: Send + 'static> fmt::Debug for RingConsumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RingConsumer").field(&self.end).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn staged_items_are_published_together_or_never() {
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
    fn next<T: Send>(rx: &mut RingConsumer<T>) -> T {
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
    fn staged_items_are_published_together() {
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
            // One store published both the 1 and the 2, so the 2 is there.
            assert_eq!(rx.pop().as_deref(), Some(&2));
            assert_eq!(*next(&mut rx), 4);
            producer.join().unwrap();
        });
    }

    #[test]
    fn items_that_were_not_taken_are_dropped_by_the_last_end() {
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
