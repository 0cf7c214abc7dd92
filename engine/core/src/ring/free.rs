//! A set of up to 64 free numbers that all threads share: one word for each group of batches.

use crate::sync::{AtomicU64, Ordering};

/// A set of numbers below 64 that threads claim and release without locks.
///
/// Claiming a number acquires the writes of the thread that released it, so the memory that the
/// number stands for moves to the claiming thread with it.
#[derive(Debug)]
pub(crate) struct FreeSet(AtomicU64);

impl FreeSet {
    /// A set in which exactly the numbers below `n` are free.
    pub(crate) fn below(n: usize) -> Self {
        Self(AtomicU64::new(if n >= 64 { u64::MAX } else { (1 << n) - 1 }))
    }

    /// Takes a free number, if there is one. It gives up after 64 steps: if other threads were
    /// faster each time, the set is as good as empty.
    #[inline]
    pub(crate) fn claim(&self) -> Option<u32> {
        for _ in 0..64 {
            let free = self.0.load(Ordering::Relaxed);
            if free == 0 {
                return None;
            }
            let bit = free & free.wrapping_neg();
            if self.0.fetch_and(!bit, Ordering::Acquire) & bit != 0 {
                return Some(bit.trailing_zeros());
            }
        }
        None
    }

    /// Gives a claimed number back.
    #[inline]
    pub(crate) fn release(&self, number: u32) {
        let before = self.0.fetch_or(1 << number, Ordering::Release);
        debug_assert_eq!(before & (1 << number), 0, "a number was released twice");
    }

    /// How many numbers are free. Other threads may claim and release some meanwhile. It acquires
    /// the writes of the threads that released them, so a thread that finds all numbers free may
    /// free the memory that they stand for.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire).count_ones() as usize
    }
}
