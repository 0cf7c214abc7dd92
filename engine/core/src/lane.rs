//! A lane: one QP, and what is outstanding on it.

use crate::abi::WcStatus;
use crate::id::{LaneId, WrId};
use crate::page::{NIL, PageRef, VALIDATE};
use crate::table::ENTRY_BYTES;
use crate::time::Time;

/// No lane, in links.
pub(crate) const NO_LANE: u16 = u16::MAX;

/// wrs that the lane has, one after the other, `len` bytes each: chunk `chunk` of `count` pages in a row, or
/// `count` chunks of one page ([`Run::Chunks`]), or one wr that has the entries of several pages in a row.
///
/// It stands in the ring at the first of them; what stands at the others' places means nothing. More
/// than one only while the lane is up, and then several pages are of one plain segment.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(crate) struct Record {
    pub(crate) page: PageRef,
    /// The chunk's number, or `VALIDATE`.
    pub(crate) chunk: u32,
    pub(crate) len: u32,
    pub(crate) count: u16,
    pub(crate) run: Run,
}

/// What is known of all pages of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Run {
    /// Nothing.
    Any,
    /// When their wrs have completed they have arrived.
    Bare,
    /// When their wrs have completed they are to be validated.
    Checked,
    /// Their wrs read their entries.
    Validating,
    /// It is one page, and the wrs are its chunks from `chunk` on.
    Chunks,
}

impl Record {
    pub(crate) const EMPTY: Self = Self { page: NIL, chunk: 0, len: 0, count: 0, run: Run::Any };

    /// What is left of it behind its first `n` wrs; less than all.
    #[inline]
    pub(crate) fn behind(self, n: u32) -> Self {
        // Less than it was, a u16.
        let count = self.count - n as u16;
        match self.run {
            Run::Chunks => Self { chunk: self.chunk + n, count, ..self },
            _ => Self { page: PageRef(self.page.0 + n), count, ..self },
        }
    }

    /// How many pages (or chunks, of one page) `wrs` of its wrs are.
    #[inline]
    pub(crate) fn covers(&self, wrs: u32) -> u32 {
        if self.chunk == VALIDATE { wrs * (self.len / ENTRY_BYTES as u32) } else { wrs }
    }

    /// Of one chunk.
    #[inline]
    pub(crate) fn one(page: PageRef, chunk: u32, len: u32) -> Self {
        Self { page, chunk, len, count: 1, run: Run::Any }
    }
}

/// Where the record of wr `seq` of a lane is among those of all lanes, a power of two for each.
#[inline]
pub(crate) fn place(lane: usize, seq: u32, depth: u32) -> usize {
    lane * depth as usize + (seq & (depth - 1)) as usize
}

/// Why nothing is posted on a lane that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold(u8);

impl Hold {
    pub(crate) const NONE: Self = Self(0);
    /// Nothing has completed for longer than it should take; what is outstanding does not count
    /// against the rail's caps.
    pub(crate) const SILENT: Self = Self(1);
    /// It is kept for wrs that are suspected of killing lanes.
    pub(crate) const KEPT: Self = Self(2);
    /// One of them, alone, has been posted on it.
    pub(crate) const TRYING: Self = Self(4);

    pub(crate) fn has(self, reason: Self) -> bool {
        self.0 & reason.0 != 0
    }

    pub(crate) fn set(&mut self, reason: Self) {
        self.0 |= reason.0;
    }

    /// Says whether it was set.
    pub(crate) fn clear(&mut self, reason: Self) -> bool {
        let was = self.has(reason);
        self.0 &= !reason.0;
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
    /// The next lane of the same peer and rail, in a circle; of the carcasses, or of the suspects,
    /// of the peer when quiet.
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
        hold: Hold::NONE,
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
        if self.hold != Hold::NONE { 0 } else { self.credits - self.outstanding() }
    }

    /// How many wrs, from the oldest outstanding one, a completion of `seq` covers: 1 for the oldest.
    #[inline]
    pub(crate) fn covered(&self, seq: u32) -> u32 {
        (seq.wrapping_sub(self.tail) % WrId::SEQUENCES) + 1
    }
}
