//! A wait-free ring between two threads: one puts in, one takes out.
//!
//! Each end owns its index, keeps a copy of the other's that it refreshes only when the ring looks
//! full (or empty), and publishes its own with one release store. Both indices count on without
//! wrapping to the capacity, so that full and empty differ.
//!
//! The slots are an array ([`Ring`]), or memory that the ring's user has allocated ([`RingOver`]):
//! this crate has no allocator.
#![allow(unsafe_code, reason = "items change hands between the two ends")]

use core::fmt;
use core::mem::MaybeUninit;

use crate::sync::{AtomicUsize, Cell, Ordering};

/// Keeps what two threads write apart: 128 bytes, since x86 fetches lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

/// Room for one item of a ring.
pub struct RingSlot<T>(Cell<MaybeUninit<T>>);

// SAFETY: the content of a slot is reached through the two ends of its ring alone. They hand each
// item from one thread to the other and never to two at a time, hence T: Send.
unsafe impl<T: Send> Sync for RingSlot<T> {}

impl<T> RingSlot<T> {
    /// A slot without an item.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn empty() -> Self {
        Self(Cell::new(MaybeUninit::uninit()))
    }

    /// A slot without an item.
    #[cfg(loom)]
    #[must_use]
    pub fn empty() -> Self {
        Self(Cell::new(MaybeUninit::uninit()))
    }
}

impl<T> fmt::Debug for RingSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RingSlot")
    }
}

/// The slots of a ring.
///
/// # Safety
///
/// [`slots`](Self::slots) returns the same slots at every call, and no other ring uses them.
pub unsafe trait RingSlots {
    /// The items of the ring.
    type Item;

    /// The slots, in their order.
    fn slots(&self) -> &[RingSlot<Self::Item>];
}

// SAFETY: the array itself, which its owner alone can lend.
unsafe impl<T, const N: usize> RingSlots for [RingSlot<T>; N] {
    type Item = T;

    fn slots(&self) -> &[RingSlot<T>] {
        self
    }
}

/// A ring with room for up to `N` items on their way, `N` a power of two.
pub type Ring<T, const N: usize> = RingOver<[RingSlot<T>; N]>;

/// A ring over the slots `S`.
pub struct RingOver<S: RingSlots> {
    /// Items taken out so far.
    head: Padded<AtomicUsize>,
    /// Items put in so far.
    tail: Padded<AtomicUsize>,
    slots: S,
}

impl<T, const N: usize> Ring<T, N> {
    /// An empty ring.
    #[cfg(not(loom))]
    #[must_use]
    #[allow(clippy::new_without_default, reason = "rings live in storage, not in passing")]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two(), "a ring's capacity must be a power of two") };
        Self {
            head: Padded(AtomicUsize::new(0)),
            tail: Padded(AtomicUsize::new(0)),
            slots: [const { RingSlot::empty() }; N],
        }
    }

    /// An empty ring.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self::over(core::array::from_fn(|_| RingSlot::empty()))
    }
}

impl<S: RingSlots> RingOver<S> {
    /// An empty ring over `slots`, which hold no items.
    ///
    /// # Panics
    ///
    /// The number of slots is not a power of two.
    #[must_use]
    pub fn over(slots: S) -> Self {
        assert!(slots.slots().len().is_power_of_two(), "a ring's capacity must be a power of two");
        Self { head: Padded(AtomicUsize::new(0)), tail: Padded(AtomicUsize::new(0)), slots }
    }

    /// Its two ends.
    pub fn split(&mut self) -> (Producer<'_, S::Item>, Consumer<'_, S::Item>) {
        let head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Relaxed);
        let (indices, slots) = ((&self.head.0, &self.tail.0), self.slots.slots());
        (
            Producer { head: indices.0, tail: indices.1, slots, next: tail, seen: head },
            Consumer { head: indices.0, tail: indices.1, slots, next: head, seen: tail },
        )
    }
}

impl<S: RingSlots> Drop for RingOver<S> {
    fn drop(&mut self) {
        let (_, mut rest) = self.split();
        while rest.pop().is_some() {}
    }
}

impl<S: RingSlots> fmt::Debug for RingOver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("capacity", &self.slots.slots().len()).finish_non_exhaustive()
    }
}

/// The end that puts in.
pub struct Producer<'r, T> {
    head: &'r AtomicUsize,
    tail: &'r AtomicUsize,
    slots: &'r [RingSlot<T>],
    next: usize,
    seen: usize,
}

/// The end that takes out.
pub struct Consumer<'r, T> {
    head: &'r AtomicUsize,
    tail: &'r AtomicUsize,
    slots: &'r [RingSlot<T>],
    next: usize,
    seen: usize,
}

impl<T> Producer<'_, T> {
    /// Puts an item in, and publishes it with the items that were staged before it.
    ///
    /// # Errors
    ///
    /// The item, when the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        self.stage(item)?;
        self.publish();
        Ok(())
    }

    /// Puts an item in that the consumer does not see before [`publish`](Self::publish). If the
    /// producer is dropped before, the item is leaked.
    ///
    /// # Errors
    ///
    /// The item, when the ring is full.
    #[inline]
    pub fn stage(&mut self, item: T) -> Result<(), T> {
        let capacity = self.slots.len();
        if self.next.wrapping_sub(self.seen) == capacity {
            self.seen = self.head.load(Ordering::Acquire);
            if self.next.wrapping_sub(self.seen) == capacity {
                return Err(item);
            }
        }
        self.slots[self.next & (capacity - 1)].0.with_mut(|slot| {
            // SAFETY: next - head < capacity, so the consumer has taken this slot's last item (its
            // release store of `head` was acquired) and does not look here before `tail` passes it.
            let slot = unsafe { &mut *slot };
            slot.write(item);
        });
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Shows the consumer all staged items, with one store.
    #[inline]
    pub fn publish(&mut self) {
        self.tail.store(self.next, Ordering::Release);
    }

    /// Drops all staged items.
    #[inline]
    pub fn discard(&mut self) {
        // This end alone writes `tail`.
        let published = self.tail.load(Ordering::Relaxed);
        while self.next != published {
            self.next = self.next.wrapping_sub(1);
            self.slots[self.next & (self.slots.len() - 1)].0.with_mut(|slot| {
                // SAFETY: slots tail..next are the producer's.
                let slot = unsafe { &mut *slot };
                // SAFETY: `stage` filled it, and `next` has just been set back: dropped once.
                unsafe { slot.assume_init_drop() };
            });
        }
    }

    /// How many items it holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }
}

impl<'r, T> Producer<'r, T> {
    /// The other end of the ring, whose own has ended.
    ///
    /// # Safety
    ///
    /// The ring's consumer is not used any more, and what it did happens before this call.
    pub(crate) unsafe fn take_over(&self) -> Consumer<'r, T> {
        let Self { head, tail, slots, .. } = *self;
        let (next, seen) = (head.load(Ordering::Relaxed), tail.load(Ordering::Relaxed));
        Consumer { head, tail, slots, next, seen }
    }
}

impl<T> Consumer<'_, T> {
    /// How many items the consumer knows to be there.
    #[cfg(not(loom))]
    pub(crate) fn len(&self) -> usize {
        self.seen.wrapping_sub(self.next)
    }

    /// Whether there is no item. Reads the producer's index only if all items that were seen have
    /// been taken.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if self.next == self.seen {
            self.seen = self.tail.load(Ordering::Acquire);
        }
        self.next == self.seen
    }

    /// Takes the oldest item out, if there is one.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.next == self.seen {
            self.seen = self.tail.load(Ordering::Acquire);
            if self.next == self.seen {
                return None;
            }
        }
        let item = self.slots[self.next & (self.slots.len() - 1)].0.with_mut(|slot| {
            // SAFETY: next < tail, whose release store after the write was acquired: the slot holds
            // an item, and the producer does not touch it before `head` passes it.
            let slot = unsafe { &*slot };
            // SAFETY: as above; `next` moves on, so the item is read once.
            unsafe { slot.assume_init_read() }
        });
        self.next = self.next.wrapping_add(1);
        self.head.store(self.next, Ordering::Release);
        Some(item)
    }
}

impl<T> fmt::Debug for Producer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("put", &self.next).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("taken", &self.next).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_full_ring_gives_the_item_back() {
        let mut ring = Ring::<u32, 4>::new();
        let (mut put, mut take) = ring.split();
        for round in 0..10 {
            for i in 0..4 {
                assert_eq!(put.push(round + i), Ok(()));
            }
            assert_eq!(put.push(99), Err(99));
            for i in 0..4 {
                assert_eq!(take.pop(), Some(round + i));
            }
            assert_eq!(take.pop(), None);
        }
    }

    #[test]
    fn staged_items_are_published_together_or_dropped() {
        let count = Rc::new(());
        let mut ring = Ring::<Rc<()>, 4>::new();
        let (mut put, mut take) = ring.split();
        put.stage(count.clone()).unwrap();
        put.stage(count.clone()).unwrap();
        assert!(take.is_empty() && take.pop().is_none());
        put.publish();
        assert!(!take.is_empty() && take.pop().is_some());
        for _ in 0..3 {
            put.stage(count.clone()).unwrap();
        }
        assert!(put.stage(count.clone()).is_err(), "staged items take room");
        put.discard();
        assert_eq!(Rc::strong_count(&count), 2, "one item is published, the staged ones are dropped");
        put.push(count.clone()).unwrap();
        assert!(take.pop().is_some() && take.pop().is_some() && take.pop().is_none());
        assert_eq!(Rc::strong_count(&count), 1);
    }

    #[test]
    fn what_is_left_in_a_ring_is_dropped_with_it() {
        let item = Rc::new(());
        let mut ring = Ring::<Rc<()>, 4>::new();
        let (mut put, mut take) = ring.split();
        for _ in 0..3 {
            put.push(item.clone()).unwrap();
        }
        drop(take.pop());
        assert_eq!(Rc::strong_count(&item), 3);
        drop(ring);
        assert_eq!(Rc::strong_count(&item), 1);
    }

    #[test]
    fn indices_wrap_around_the_word() {
        let mut ring = Ring::<u32, 2>::new();
        ring.head.0.store(usize::MAX, Ordering::Relaxed);
        ring.tail.0.store(usize::MAX, Ordering::Relaxed);
        let (mut put, mut take) = ring.split();
        for i in 0..5 {
            put.push(i).unwrap();
            put.push(i).unwrap();
            assert_eq!(put.push(i), Err(i));
            assert_eq!((take.pop(), take.pop(), take.pop()), (Some(i), Some(i), None));
        }
    }
}

/// Every interleaving of two threads, by loom.
#[cfg(all(test, loom))]
mod loom_tests {
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
}
