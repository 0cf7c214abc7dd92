//! Faults that a test scripts for one lane.

use heapless::vec::VecView;
use kvrail_core::verbs_abi::WcStatus;

use super::handle::LaneHandle;

/// A fault of one lane. `nth` counts the lane's accepted wrs, or its commits, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// The nth wr completes with `status` at its time, or after the retry time if the status means
    /// that retries have ended. `SUCCESS` changes nothing.
    Status {
        /// The wr.
        nth: u64,
        /// Its status.
        status: WcStatus,
    },
    /// The nth wr succeeds without a completion, though it is signaled.
    Lost {
        /// The wr.
        nth: u64,
    },
    /// The nth wr succeeds while bytes of it are missing, and its lane moves to the error state at
    /// once, as [`Faults::incomplete`](super::Faults::incomplete) says. One of at most
    /// [`Faults::PACKET`](super::Faults::PACKET) bytes arrives whole.
    Incomplete {
        /// The wr.
        nth: u64,
    },
    /// The nth commit that is not empty accepts only `accepted` wrs, if it has more.
    Prefix {
        /// The commit.
        nth: u64,
        /// How many wrs it accepts.
        accepted: u32,
        /// The errno of the commit.
        errno: i32,
    },
    /// The nth commit that is not empty queues `queued` wrs, or all if it has fewer, and its error
    /// does not say how many.
    Unknown {
        /// The commit.
        nth: u64,
        /// How many wrs are queued; `u32::MAX` for all, as the driver rxe does.
        queued: u32,
        /// The errno of the commit.
        errno: i32,
    },
    /// Drain wrs give no completion.
    DrainLost,
    /// Drain wrs are refused.
    DrainRefused {
        /// The errno.
        errno: i32,
    },
    /// The lane cannot be destroyed: no `LaneClosed` follows, and the lane goes on as before.
    CloseHangs,
}

/// All scripted fates, in the order in which they were added.
#[derive(Debug)]
pub(super) struct Scripts<'m> {
    held: &'m mut VecView<(LaneHandle, Fate)>,
}

impl<'m> Scripts<'m> {
    pub(super) fn new(held: &'m mut VecView<(LaneHandle, Fate)>) -> Self {
        held.clear();
        Self { held }
    }

    /// Adds a fate. Returns `false` if there is no room.
    pub(super) fn add(&mut self, lane: LaneHandle, fate: Fate) -> bool {
        self.held.push((lane, fate)).is_ok()
    }

    /// What `pick` gives for the first fate of `lane` for which it gives something.
    #[inline]
    pub(super) fn find<T>(&self, lane: LaneHandle, pick: impl Fn(Fate) -> Option<T>) -> Option<T> {
        self.held.iter().filter(|(l, _)| *l == lane).find_map(|(_, fate)| pick(*fate))
    }
}
