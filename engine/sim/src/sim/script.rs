//! Faults that a test asks for by name.

use heapless::vec::VecView;
use kvrail_core::verbs_abi::WcStatus;

use super::handle::LaneHandle;

/// What is to happen to one lane. `nth` counts what the lane accepted, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The nth wr completes with `status`, at the time at which it would have completed, or after
    /// the retry time for a status that means one. `SUCCESS` changes nothing.
    Status {
        /// Which wr.
        nth: u64,
        /// With what.
        status: WcStatus,
    },
    /// The nth wr succeeds without a completion, though it is signaled.
    Lost {
        /// Which wr.
        nth: u64,
    },
    /// The nth commit that is not empty accepts so many wrs, if it has more.
    Prefix {
        /// Which commit.
        nth: u64,
        /// How many.
        accepted: u32,
        /// Why no more.
        errno: i32,
    },
    /// The nth commit that is not empty queues so many wrs, if it has as many, and does not say so.
    Unknown {
        /// Which commit.
        nth: u64,
        /// How many; `u32::MAX` for all, as rxe does.
        queued: u32,
        /// Why.
        errno: i32,
    },
    /// Drain wrs complete without a word.
    DrainLost,
    /// Drain wrs are refused.
    DrainRefused {
        /// Why.
        errno: i32,
    },
    /// The lane cannot be destroyed: no `LaneClosed`, and it goes on as it was.
    CloseHangs,
}

/// All fates, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Scripts<'m> {
    held: &'m mut VecView<(LaneHandle, Fate)>,
}

impl<'m> Scripts<'m> {
    pub(super) fn new(held: &'m mut VecView<(LaneHandle, Fate)>) -> Self {
        held.clear();
        Self { held }
    }

    /// `false` when there is no room.
    pub(super) fn add(&mut self, lane: LaneHandle, fate: Fate) -> bool {
        self.held.push((lane, fate)).is_ok()
    }

    /// The first fate of `lane` in which `pick` finds what it looks for.
    #[inline]
    pub(super) fn find<T>(&self, lane: LaneHandle, pick: impl Fn(Fate) -> Option<T>) -> Option<T> {
        self.held.iter().filter(|(l, _)| *l == lane).find_map(|(_, fate)| pick(*fate))
    }
}
