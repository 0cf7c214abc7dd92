//! Broken promises of an engine, which the model records.

use core::fmt;

use heapless::Vec;
use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{MemoryRange, ProviderEvent};

use super::handle::LaneHandle;

/// A promise to its provider that the engine has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// More wrs were posted than the send queue holds. A place is free again only after a
    /// completion that covers its wr has been polled.
    #[error("{lane:?} got {wanted} wrs where its send queue had room for {room}: post only with credits")]
    SqOverrun {
        /// The lane.
        lane: LaneHandle,
        /// How many wrs were to be posted.
        wanted: u32,
        /// How many there was room for.
        room: u32,
    },
    /// A completion found every entry of its queue taken by one that had not been polled. It is
    /// lost.
    #[error("rail {} overran its completion queue of {entries}: attach fewer lanes, or shallower ones", rail.0)]
    CqOverrun {
        /// The rail.
        rail: RailIndex,
        /// Entries of its completion queue.
        entries: u32,
    },
    /// A commit has more descriptors than `Provider::CHAIN`. Those beyond are dropped.
    #[error("a commit on {lane:?} is longer than Provider::CHAIN ({chain})")]
    ChainTooLong {
        /// The lane.
        lane: LaneHandle,
        /// The most descriptors of a commit.
        chain: usize,
    },
    /// A READ has no bytes.
    #[error("{wr_id:?} reads no bytes: a READ has at least 1")]
    EmptyRead {
        /// The wr.
        wr_id: WrId,
    },
    /// The lengths of a READ's pieces do not add up to its length, or there are more pieces than
    /// `Provider::sges`.
    #[error("{wr_id:?} reads {len} bytes into {pieces} pieces of {bytes} bytes together")]
    Pieces {
        /// The wr.
        wr_id: WrId,
        /// How many pieces there are.
        pieces: usize,
        /// Bytes of the pieces together.
        bytes: u64,
        /// Bytes of the READ.
        len: u32,
    },
    /// A wr or a call on a lane names another lane, or another life of this one.
    #[error("{lane:?} was opened as {expected:?}, and is named {found:?} now")]
    WrongLaneId {
        /// The lane.
        lane: LaneHandle,
        /// The id that the engine used first.
        expected: LaneId,
        /// The id that it used now.
        found: LaneId,
    },
    /// A drain was posted to a lane that is not in the error state, so its completion proves
    /// nothing.
    #[error("a drain was posted to {lane:?}, which is not in the error state: wait for LaneFailed")]
    DrainTooEarly {
        /// The lane.
        lane: LaneHandle,
    },
    /// Memory was deregistered while a wr that writes into it had not completed.
    #[error("{} bytes at {:#x} were deregistered while {wr_id:?} of {lane:?} may write there", range.len, range.addr)]
    DeregisteredInUse {
        /// The memory.
        range: MemoryRange,
        /// A lane with such a wr.
        lane: LaneHandle,
        /// The oldest such wr of the lane.
        wr_id: WrId,
    },
    /// Memory was deregistered that was not registered, or not with these keys.
    #[error("{} bytes at {:#x} were deregistered, and had not been registered with these keys", range.len, range.addr)]
    NotRegistered {
        /// The memory.
        range: MemoryRange,
    },
    /// Bytes arrived for protected memory, or from a lane that had been drained or closed. They
    /// were not written.
    #[error("{wr_id:?} of {lane:?} would write {} bytes at {:#x} after they were given back", range.len, range.addr)]
    WriteAfterRelease {
        /// The lane.
        lane: LaneHandle,
        /// The wr.
        wr_id: WrId,
        /// The memory.
        range: MemoryRange,
    },
    /// An event was lost, since too many had not been read.
    #[error("{event:?} was lost, since too many events had not been read: read them at every poll")]
    EventLost {
        /// The lost event.
        event: ProviderEvent,
    },
}

impl Violation {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::SqOverrun { .. } => 9060,
            Self::CqOverrun { .. } => 9061,
            Self::ChainTooLong { .. } => 9062,
            Self::EmptyRead { .. } => 9063,
            Self::Pieces { .. } => 9064,
            Self::WrongLaneId { .. } => 9065,
            Self::DrainTooEarly { .. } => 9066,
            Self::DeregisteredInUse { .. } => 9067,
            Self::NotRegistered { .. } => 9068,
            Self::WriteAfterRelease { .. } => 9069,
            Self::EventLost { .. } => 9070,
        }
    }
}

/// How many violations are kept; the others are only counted.
const KEPT: usize = 16;

/// The recorded violations, in order of model time.
#[derive(Clone)]
pub struct Violations {
    first: Vec<Violation, KEPT>,
    count: u64,
}

impl Violations {
    pub(super) const NONE: Self = Self { first: Vec::new(), count: 0 };

    pub(super) fn record(&mut self, violation: Violation) {
        // A violation that finds no room is only counted.
        let _ = self.first.push(violation);
        self.count += 1;
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The first sixteen violations.
    pub fn iter(&self) -> impl Iterator<Item = Violation> {
        self.first.iter().copied()
    }
}

impl fmt::Debug for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()?;
        match self.count.checked_sub(KEPT as u64) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}
