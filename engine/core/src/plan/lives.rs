//! Which plans have been forgotten, as the threads that fill batches see it.
//!
//! The number of a forgotten plan is given to another one. A page that was put into a batch by the
//! forgotten plan must not be posted by the other: its slot may be shorter than that plan writes.
//! So time is counted in *epochs*, one more with each plan that is forgotten. A plan notes in which
//! epoch it was added, a batch in which epoch its pages were checked, and the table in which epoch
//! each number was forgotten last. A number is what it was if it has not been forgotten since.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::limits::PLANS;

/// A count of forgotten plans. It wraps after 2^32 of them, which no program reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u32);

impl Epoch {
    pub(crate) const FIRST: Self = Self(0);
    /// The epoch of a plan that is never forgotten.
    pub(crate) const LAST: Self = Self(u32::MAX);
}

/// The epoch, and for each number the one in which it was forgotten last; 0 for never. The engine's
/// thread writes it.
#[derive(Debug)]
pub(crate) struct PlanLives {
    now: AtomicU32,
    forgotten: [AtomicU32; PLANS],
}

impl PlanLives {
    pub(crate) fn new() -> Self {
        Self { now: AtomicU32::new(0), forgotten: [const { AtomicU32::new(0) }; PLANS] }
    }

    /// The present epoch. What was forgotten in it or before is seen by a later call of
    /// [`is_same`](Self::is_same): the load synchronises with the store in
    /// [`forget`](Self::forget).
    #[inline]
    pub(crate) fn now(&self) -> Epoch {
        Epoch(self.now.load(Ordering::Acquire))
    }

    /// Whether number `plan` is the plan that it was in epoch `since`.
    #[inline]
    pub(crate) fn is_same(&self, plan: u16, since: Epoch) -> bool {
        let forgotten = self.forgotten.get(usize::from(plan));
        forgotten.is_some_and(|epoch| epoch.load(Ordering::Relaxed) <= since.0)
    }

    /// Notes that number `plan` is forgotten. It is called on the engine's thread alone.
    pub(super) fn forget(&self, plan: u16) {
        let epoch = self.now.load(Ordering::Relaxed).wrapping_add(1);
        self.forgotten[usize::from(plan)].store(epoch, Ordering::Relaxed);
        self.now.store(epoch, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_it_was_until_it_is_forgotten() {
        let lives = std::boxed::Box::new(PlanLives::new());
        let first = lives.now();
        assert!(lives.is_same(3, first));
        lives.forget(7);
        assert!(lives.is_same(3, first) && !lives.is_same(7, first));
        let second = lives.now();
        assert!(second > first && lives.is_same(7, second));
        lives.forget(7);
        assert!(!lives.is_same(7, second) && lives.is_same(7, lives.now()));
    }
}
