//! What an engine must never do, as the model saw it.

use core::fmt;

use heapless::Vec;
use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{MemoryRange, ProviderEvent};

use super::handle::LaneHandle;

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// More wrs posted than the send queue holds. Places are given back by polled completions only.
    #[error("{lane:?} got {wanted} wrs where its send queue had room for {room}: post only with credits")]
    SqOverrun {
        /// Whose send queue.
        lane: LaneHandle,
        /// How many were to be posted.
        wanted: u32,
        /// How many would have fitted.
        room: u32,
    },
    /// A completion came to a queue of which every entry waited to be polled. It is lost.
    #[error("rail {} overran its completion queue of {entries}: attach fewer lanes, or shallower ones", rail.0)]
    CqOverrun {
        /// Whose completion queue.
        rail: RailIndex,
        /// Its size.
        entries: u32,
    },
    /// More descriptors in one commit than `Provider::CHAIN`. Those beyond are dropped.
    #[error("a commit on {lane:?} is longer than Provider::CHAIN ({chain})")]
    ChainTooLong {
        /// On which lane.
        lane: LaneHandle,
        /// The most.
        chain: usize,
    },
    /// A READ of no bytes.
    #[error("{wr_id:?} reads no bytes")]
    EmptyRead {
        /// Which.
        wr_id: WrId,
    },
    /// Pieces that are not the READ's bytes, no more and no less, or more than `Provider::sges` of
    /// them.
    #[error("{wr_id:?} reads {len} bytes into {pieces} pieces of {bytes} bytes together")]
    Pieces {
        /// Which.
        wr_id: WrId,
        /// How many pieces.
        pieces: usize,
        /// Their bytes.
        bytes: u64,
        /// The READ's bytes.
        len: u32,
    },
    /// A wr, or a call, named another lane than the one it was made on, or another life of it.
    #[error("{lane:?} is {expected:?}, and was called {found:?}")]
    WrongLaneId {
        /// On which lane.
        lane: LaneHandle,
        /// What the engine called it first.
        expected: LaneId,
        /// What it called it now.
        found: LaneId,
    },
    /// A drain was posted to a lane that is not in the error state: it proves nothing.
    #[error("a drain was posted to {lane:?}, which is not in the error state: wait for LaneFailed")]
    DrainTooEarly {
        /// On which lane.
        lane: LaneHandle,
    },
    /// Memory was deregistered while a wr that writes into it had not completed.
    #[error("{} bytes at {:#x} were deregistered while {wr_id:?} of {lane:?} may write there", range.len, range.addr)]
    DeregisteredInUse {
        /// The memory.
        range: MemoryRange,
        /// A lane with such a wr.
        lane: LaneHandle,
        /// Its oldest.
        wr_id: WrId,
    },
    /// Memory was deregistered that is not registered, or not with these keys.
    #[error("{} bytes at {:#x} were deregistered and are not registered with these keys", range.len, range.addr)]
    NotRegistered {
        /// The memory.
        range: MemoryRange,
    },
    /// Bytes came to memory that was protected, or from a lane that was drained or closed. They
    /// were not written.
    #[error("{wr_id:?} of {lane:?} would write {} bytes at {:#x} after they were given back", range.len, range.addr)]
    WriteAfterRelease {
        /// Whose bytes.
        lane: LaneHandle,
        /// Of which wr.
        wr_id: WrId,
        /// Where to.
        range: MemoryRange,
    },
    /// Events piled up unread until one was lost.
    #[error("{event:?} was lost: events are to be read at every poll")]
    EventLost {
        /// The one that found no room.
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

/// How many violations are kept; the rest are counted.
const KEPT: usize = 16;

/// What has been recorded, in order of model time.
#[derive(Clone)]
pub struct Violations {
    first: Vec<Violation, KEPT>,
    count: u64,
}

impl Violations {
    pub(super) const NONE: Self = Self { first: Vec::new(), count: 0 };

    pub(super) fn record(&mut self, violation: Violation) {
        // Those that find no room are only counted.
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

    /// The first sixteen of them.
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
