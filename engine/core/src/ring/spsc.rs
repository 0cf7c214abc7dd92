//! A wait-free ring between two threads, of which one puts items in and the other takes them out.
//!
//! Each end owns an index and publishes it with one release store. Each keeps a copy of the other's
//! index, and loads that index again only when the ring looks full (or empty). Both indices keep
//! counting and are not reduced to the capacity, so that a full ring differs from an empty one.
//!
//! The slots are an array ([`Ring`]), or memory that the ring's user has allocated ([`RingOver`]):
//! this crate uses no allocator.
#![allow(unsafe_code, reason = "items move between the two ends")]

use core::fmt;
use core::mem::MaybeUninit;

use crate::sync::{AtomicUsize, Cell, Ordering};

/// Keeps a value that one thread writes 128 bytes apart from others, since x86 fetches cache lines
/// in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

/// Room for one item of a ring.
pub struct RingSlot<T>(Cell<MaybeUninit<T>>);

// SAFETY: only the two ends of a ring reach the content of its slots. They hand each item from one
// thread to the other, and never to two threads at a time, so T: Send is enough.
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

// SAFETY: the slots are the array itself, which only its owner can lend.
unsafe impl<T, const N: usize> RingSlots for [RingSlot<T>; N] {
    type Item = T;

    fn slots(&self) -> &[RingSlot<T>] {
        self
    }
}

/// A ring with room for `N` items, `N` a power of two.
pub type Ring<T, const N: usize> = RingOver<[RingSlot<T>; N]>;

/// A ring over the slots `S`.
pub struct RingOver<S: RingSlots> {
    /// How many items have been taken out, modulo 2^64.
    head: Padded<AtomicUsize>,
    /// How many items have been published, modulo 2^64.
    tail: Padded<AtomicUsize>,
    slots: S,
}

impl<T, const N: usize> Ring<T, N> {
    /// An empty ring.
    #[cfg(not(loom))]
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a ring is a part of a storage, not a temporary value")]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two(), "a ring's capacity must be a power of two") };
        Self {
            head: Padded(AtomicUsize::new(0)),
            tail: Padded(AtomicUsize::new(0)),
            slots: [const { RingSlot::empty() }; N],
        }
    }

    /// An empty ring, made in place: its slots, which may be many, are not written.
    #[cfg(not(loom))]
    pub(crate) fn in_place(room: &mut MaybeUninit<Self>) -> &mut Self {
        const { assert!(N.is_power_of_two(), "a ring's capacity must be a power of two") };
        let this = room.as_mut_ptr();
        // SAFETY: `this` points at `room`, which is as large and aligned as a ring.
        let head = unsafe { &raw mut (*this).head };
        // SAFETY: as above.
        let tail = unsafe { &raw mut (*this).tail };
        // SAFETY: within `room`, which is borrowed exclusively.
        unsafe { head.write(Padded(AtomicUsize::new(0))) };
        // SAFETY: as above.
        unsafe { tail.write(Padded(AtomicUsize::new(0))) };
        // SAFETY: both indices have just been written, and the slots are cells of `MaybeUninit`,
        // which any bytes are.
        unsafe { room.assume_init_mut() }
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
    /// If the number of slots is not a power of two.
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

/// The end that puts items in.
pub struct Producer<'r, T> {
    head: &'r AtomicUsize,
    tail: &'r AtomicUsize,
    slots: &'r [RingSlot<T>],
    next: usize,
    seen: usize,
}

/// The end that takes items out.
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

    /// Puts an item in, which the consumer sees only after [`publish`](Self::publish). If the
    /// producer is dropped before that, the item is leaked.
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
        // Only this end writes `tail`.
        let published = self.tail.load(Ordering::Relaxed);
        while self.next != published {
            self.next = self.next.wrapping_sub(1);
            self.slots[self.next & (self.slots.len() - 1)].0.with_mut(|slot| {
                // SAFETY: the producer owns slots tail..next.
                let slot = unsafe { &mut *slot };
                // SAFETY: `stage` filled it, and `next` has just been set back: dropped once.
                unsafe { slot.assume_init_drop() };
            });
        }
    }

    /// The most items that the ring holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }
}

impl<'r, T> Producer<'r, T> {
    /// A new consumer of the ring, in place of one that has ended.
    ///
    /// # Safety
    ///
    /// The ring's consumer is not used any more, and everything that it did happens before this
    /// call.
    pub(crate) unsafe fn take_over(&self) -> Consumer<'r, T> {
        let Self { head, tail, slots, .. } = *self;
        let (next, seen) = (head.load(Ordering::Relaxed), tail.load(Ordering::Relaxed));
        Consumer { head, tail, slots, next, seen }
    }
}

impl<T> Consumer<'_, T> {
    /// How many items the consumer has seen and not taken.
    #[cfg(not(loom))]
    pub(crate) fn len(&self) -> usize {
        self.seen.wrapping_sub(self.next)
    }

    /// Whether there is no item. It loads the producer's index only if it has taken all items that
    /// it has seen.
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

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
