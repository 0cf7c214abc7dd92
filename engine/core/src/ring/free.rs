//! Which of up to 64 things are free: one word per group of batches, shared by all threads.

use crate::sync::{AtomicU64, Ordering};

/// A set of numbers below 64 that threads claim and release without locks.
///
/// Claiming acquires what the releasing thread did before: the memory behind the number changes
/// hands with it.
#[derive(Debug)]
pub(crate) struct FreeSet(AtomicU64);

impl FreeSet {
    /// Exactly the numbers below `n` are free.
    pub(crate) fn below(n: usize) -> Self {
        Self(AtomicU64::new(if n >= 64 { u64::MAX } else { (1 << n) - 1 }))
    }

    /// Takes a free number, if there is one. At most 64 steps: where other threads are faster that
    /// often, there is as good as none.
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
        debug_assert_eq!(before & (1 << number), 0, "released twice");
    }

    /// How many are free, at some moment. Acquires what those did that released them: who finds all
    /// of them free may free the memory behind them.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire).count_ones() as usize
    }
}
