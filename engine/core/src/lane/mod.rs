//! The state of one lane: a QP of one peer over one rail, and the wrs that are outstanding on it.

pub(crate) mod circle;
pub(crate) mod lanes;
pub(crate) mod record;

use bitflags::bitflags;

use self::circle::Circle;
use crate::class::Class;
use crate::id::{LaneId, WrId};
use crate::time::Time;
use crate::verbs_abi::WcStatus;

/// In links: no lane.
pub(crate) const NO_LANE: u16 = u16::MAX;

bitflags! {
    /// Why nothing is posted on a lane that is up, and what is known of one that has failed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Hold: u8 {
        /// No wr has completed for longer than it should take. The lane's outstanding work does not
        /// count against the rail's caps.
        const SILENT = 1;
        /// The lane is kept for suspects: wrs whose completion killed a lane.
        const KEPT = 2;
        /// A suspect has been posted on the lane, and nothing else.
        const TRYING = 4;
        /// Of a failed lane on which a suspect was tried: its path has carried other READs
        /// meanwhile, so the suspect is the cause.
        const PATH_FINE = 8;
    }
}

impl Hold {
    /// Removes `reason`, and returns whether it was set.
    pub(crate) fn clear(&mut self, reason: Self) -> bool {
        let was = self.contains(reason);
        *self -= reason;
        was
    }
}

/// The state of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneState {
    /// The place is free.
    Free,
    /// The lane is in use.
    Up,
    /// The provider has been asked to move the lane to the error state.
    Failing,
    /// The lane is in the error state; its drain wr has been posted and has not completed.
    Draining,
    /// The provider has been asked to destroy the lane, whose flush was not seen to end.
    Closing,
    /// The lane is known to write no more. Other lanes take over its wrs; the place becomes free
    /// when they have, and the QP has been destroyed.
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
    pub(crate) circle: Circle,
    /// Nothing had completed on the lane before.
    pub(crate) first: bool,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// The place of a lane.
// The fields that posting and completing touch are in the first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Lane<L> {
    /// The name of the lane, or of the next lane if the place is free.
    pub(crate) id: LaneId,
    pub(crate) state: LaneState,
    pub(crate) rail: u8,
    pub(crate) remote_rail: u8,
    /// No wr has completed on the lane yet.
    pub(crate) fresh: bool,
    /// Why nothing is posted on the lane; empty if wrs may be posted.
    pub(crate) hold: Hold,
    /// The circle of its peer that it is in while it is up: its class and its rail.
    pub(crate) circle: Circle,
    pub(crate) peer: u16,
    /// Of a quiet lane: its last wr is the one whose completion killed the lane.
    pub(crate) suspect: bool,
    /// The next lane of the same peer, rail and class, in a circle. Of a quiet lane: the next in
    /// the peer's list of dead lanes, or of lanes with a suspect.
    pub(crate) next: u16,
    /// The most wrs that may be outstanding, not counting the drain wr.
    pub(crate) credits: u32,
    /// Sequence number of the next wr.
    pub(crate) head: u32,
    /// Sequence number of the oldest wr that is not known to have completed.
    pub(crate) tail: u32,
    /// Bytes outstanding.
    pub(crate) bytes: u64,
    /// When a wr last completed, or was posted to the idle lane. Of a failed lane: when it entered
    /// its state.
    pub(crate) since: Time,
    pub(crate) handle: Option<L>,
    /// The completion that killed the lane; `None` while the lane is up.
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
        circle: Circle::new(Class::Urgent, 0),
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

    /// How many wrs are outstanding.
    #[inline]
    pub(crate) fn outstanding(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// How many wrs may be posted now.
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
        Completed { peer: self.peer, rail: self.rail, circle: self.circle, first, from, to }
    }

    /// How many wrs a completion of `seq` covers, from the oldest outstanding wr on; 1 if it is
    /// that of the oldest.
    #[inline]
    pub(crate) fn covered(&self, seq: u32) -> u32 {
        (seq.wrapping_sub(self.tail) % WrId::SEQUENCES) + 1
    }
}
