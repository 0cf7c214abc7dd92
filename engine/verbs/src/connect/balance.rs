//! Which class the next lane of a rail is made for, where the classes have lanes of their own: the
//! class that has fewer.
//!
//! A dialer makes a rail's lanes one after the other, for one peer. So the lanes of a new peer are
//! urgent and background in turns, and of an odd number one more is urgent. When lanes have failed,
//! the new ones bring back what is missing: a lane counts from the moment when it is begun until
//! the engine fails it, which the engine does before it requests another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvrail_core::batch::Class;

/// How many lanes of each class a rail of one dialer has.
#[derive(Debug, Default)]
pub(super) struct Balance {
    urgent: Arc<AtomicU32>,
    background: Arc<AtomicU32>,
}

/// A lane's part in the balance of its rail. It counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicU32>);

impl Balance {
    /// The class of the next lane, which counts from now on.
    pub(super) fn next(&self) -> (Class, Counted) {
        let live = |of: &AtomicU32| of.load(Ordering::Relaxed);
        let (class, of) = if live(&self.background) < live(&self.urgent) {
            (Class::Background, &self.background)
        } else {
            (Class::Urgent, &self.urgent)
        };
        of.fetch_add(1, Ordering::Relaxed);
        (class, Counted(Arc::clone(of)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URGENT: Class = Class::Urgent;
    const BACKGROUND: Class = Class::Background;

    fn make(balance: &Balance, lanes: usize) -> Vec<(Class, Counted)> {
        (0..lanes).map(|_| balance.next()).collect()
    }

    fn classes(lanes: &[(Class, Counted)]) -> Vec<Class> {
        lanes.iter().map(|&(class, _)| class).collect()
    }

    #[test]
    fn the_classes_take_turns_and_the_urgent_one_begins() {
        let lanes = make(&Balance::default(), 5);
        assert_eq!(classes(&lanes), [URGENT, BACKGROUND, URGENT, BACKGROUND, URGENT]);
    }

    #[test]
    fn whichever_lanes_are_lost_the_new_ones_bring_their_classes_back() {
        for lost in 0_u32..1 << 6 {
            let balance = Balance::default();
            let lanes = make(&balance, 6);
            let all = classes(&lanes);
            let (gone, kept): (Vec<_>, Vec<_>) =
                lanes.into_iter().enumerate().partition(|(at, _)| lost >> at & 1 != 0);
            let mut missing: Vec<_> = gone.iter().map(|&(at, _)| all[at]).collect();
            drop(gone);
            for (class, _) in &make(&balance, missing.len()) {
                let at = missing.iter().position(|missing| missing == class);
                missing.swap_remove(at.expect("no class gets more than it had"));
            }
            drop(kept);
        }
    }

    #[test]
    fn a_lane_that_was_begun_and_not_made_does_not_count() {
        let balance = Balance::default();
        let kept = balance.next();
        drop(balance.next());
        assert_eq!((kept.0, balance.next().0), (URGENT, BACKGROUND));
    }
}
