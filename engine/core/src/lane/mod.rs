//! A lane: one QP, and what is outstanding on it.

pub(crate) mod lanes;
pub(crate) mod record;

use bitflags::bitflags;

use crate::id::{LaneId, WrId};
use crate::time::Time;
use crate::verbs_abi::WcStatus;

/// No lane, in links.
pub(crate) const NO_LANE: u16 = u16::MAX;

bitflags! {
    /// Why nothing is posted on a lane that is up.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Hold: u8 {
        /// Nothing has completed for longer than it should take; what is outstanding does not count
        /// against the rail's caps.
        const SILENT = 1;
        /// It is kept for wrs that are suspected of killing lanes.
        const KEPT = 2;
        /// One of them, alone, has been posted on it.
        const TRYING = 4;
    }
}

impl Hold {
    /// Takes a reason away, and says whether it was there.
    pub(crate) fn clear(&mut self, reason: Self) -> bool {
        let was = self.contains(reason);
        *self -= reason;
        was
    }
}

/// Where a lane is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneState {
    /// The place is free.
    Free,
    /// In use.
    Up,
    /// The provider has been asked to move it to the error state.
    Failing,
    /// In the error state; the drain wr has been posted and has not come back.
    Draining,
    /// The provider has been asked to destroy it before the flush was seen to end.
    Closing,
    /// It is known to write no more. What it had is being posted elsewhere; the place becomes free
    /// when that is done and the QP has been destroyed.
    Quiet,
}

/// The completion that killed a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fatal {
    pub(crate) seq: u32,
    pub(crate) status: WcStatus,
    pub(crate) vendor_err: u32,
}

/// wrs of a lane that have completed: those from number `from` on, before `to`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completed {
    pub(crate) peer: u16,
    pub(crate) rail: u8,
    /// Nothing had completed on the lane before.
    pub(crate) first: bool,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// One lane's place.
// What posting and completing touch is in its first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Lane<L> {
    /// In use, or in its next use.
    pub(crate) id: LaneId,
    pub(crate) state: LaneState,
    pub(crate) rail: u8,
    pub(crate) remote_rail: u8,
    /// Nothing has completed on it yet.
    pub(crate) fresh: bool,
    /// Why nothing more is posted, a bit for each reason.
    pub(crate) hold: Hold,
    pub(crate) peer: u16,
    /// Of a quiet lane: the last of its wrs is the one that killed it.
    pub(crate) suspect: bool,
    /// The next lane of the same peer and rail, in a circle. Of a quiet lane: the next one of the
    /// peer's dead lanes, or of its suspects.
    pub(crate) next: u16,
    /// wrs that may be outstanding; the drain wr's place is not counted.
    pub(crate) credits: u32,
    /// Sequence number of the next wr.
    pub(crate) head: u32,
    /// Sequence number of the oldest wr that is not known to have completed.
    pub(crate) tail: u32,
    /// Bytes outstanding.
    pub(crate) bytes: u64,
    /// When something last completed, or was posted to the idle lane; since when it is dying.
    pub(crate) since: Time,
    pub(crate) handle: Option<L>,
    /// Never of a lane that is up.
    pub(crate) fatal: Option<Fatal>,
    /// The provider has said that the QP is destroyed.
    pub(crate) closed: bool,
}

impl<L> Lane<L> {
    pub(crate) const EMPTY: Self = Self {
        id: LaneId::new(0, 0),
        state: LaneState::Free,
        peer: 0,
        rail: 0,
        remote_rail: 0,
        fresh: true,
        hold: Hold::empty(),
        suspect: false,
        next: NO_LANE,
        credits: 0,
        head: 0,
        tail: 0,
        bytes: 0,
        since: Time::ZERO,
        handle: None,
        fatal: None,
        closed: false,
    };

    /// wrs outstanding.
    #[inline]
    pub(crate) fn outstanding(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// wrs that may be posted now.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        if !self.hold.is_empty() { 0 } else { self.credits - self.outstanding() }
    }

    /// The `n` oldest outstanding wrs have completed.
    #[inline]
    pub(crate) fn complete(&mut self, n: u32, now: Time) -> Completed {
        let (from, to) = (self.tail, self.tail.wrapping_add(n));
        self.tail = to;
        self.since = now;
        let first = self.fresh;
        self.fresh = false;
        Completed { peer: self.peer, rail: self.rail, first, from, to }
    }

    /// How many wrs, from the oldest outstanding one, a completion of `seq` covers: 1 for the
    /// oldest.
    #[inline]
    pub(crate) fn covered(&self, seq: u32) -> u32 {
        (seq.wrapping_sub(self.tail) % WrId::SEQUENCES) + 1
    }
}
