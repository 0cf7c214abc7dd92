//! What can become of a page, and why a submission is refused.

use core::fmt;

use crate::layout::LayoutMismatch;
use crate::table::Miss;
use crate::time::Time;
use crate::verbs_abi::WcStatus;

/// Why a page did not arrive. Its slot's bytes are unspecified then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// It arrived and is not, or no longer, the page that was asked for.
    #[error("miss: {0}")]
    Miss(#[from] Miss),
    /// The request was wrong on every path.
    #[error(
        "READ of {len} bytes at {remote_addr:#x} with key {rkey:#x} over rail {rail}: {status} (vendor error {vendor_err:#x})"
    )]
    Fault {
        /// What the completion said.
        status: WcStatus,
        /// The vendor's code, for its support line.
        vendor_err: u32,
        /// The local rail.
        rail: u8,
        /// Where what was asked for is in the peer's memory: a chunk of the page, or its table
        /// entry and those of its neighbours in the batch, which were asked for together and fail
        /// together.
        remote_addr: u64,
        /// Its length.
        len: u32,
        /// The peer's key that was used.
        rkey: u32,
    },
    /// The batch's deadline passed first.
    #[error(
        "the deadline ({} ns) passed {}",
        deadline.0,
        Unfinished { missing: *missing, chunks: *chunks }
    )]
    Deadline {
        /// The deadline.
        deadline: Time,
        /// Chunks that had not arrived; 0: all had, and what was missing is the owner's table entry
        /// that proves them.
        missing: u32,
        /// Chunks of the page.
        chunks: u32,
    },
    /// The peer was removed.
    #[error("the peer was removed")]
    PeerGone,
    /// It was not read: READs of it, or of other pages of its region, have killed their lanes just
    /// before.
    #[error(
        "not read before {} ns, since {} {status}, last at {remote_addr:#x}: the peer's memory there must be looked at",
        until.0,
        if *whole_region { "pages of its region fail one after the other with" } else { "it has failed with" }
    )]
    SetAside {
        /// Where in the peer's memory the READ was that failed last.
        remote_addr: u64,
        /// What its completion said.
        status: WcStatus,
        /// The whole region is set aside, not this page alone.
        whole_region: bool,
        /// It may be read again from then on.
        until: Time,
    },
}

impl PageError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Miss(miss) => miss.code(),
            Self::Fault { .. } => 2051,
            Self::Deadline { .. } => 2052,
            Self::PeerGone => 2053,
            Self::SetAside { .. } => 2054,
        }
    }
}

/// What a page lacked when its deadline passed.
struct Unfinished {
    missing: u32,
    chunks: u32,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { missing: 0, chunks: 1 } => {
                f.write_str("when the page had arrived and was not yet validated")
            }
            Self { missing: 0, chunks } => {
                write!(f, "when all {chunks} chunks had arrived and the page was not yet validated")
            }
            Self { missing, chunks: 1 } => write!(f, "with {missing} of 1 chunk missing"),
            Self { missing, chunks } => write!(f, "with {missing} of {chunks} chunks missing"),
        }
    }
}

/// Why a page cannot join a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The batch holds as many pages as it can.
    #[error("the batch is full: {capacity} pages")]
    Full {
        /// Its capacity.
        capacity: usize,
    },
    /// The page does not fit its slot.
    #[error("a page of {page_bytes} bytes does not fit a slot of {slot_bytes}")]
    SlotTooSmall {
        /// The page.
        page_bytes: u32,
        /// The slot.
        slot_bytes: usize,
    },
    /// The page ends beyond the slot that it shares.
    #[error("a page of {page_bytes} bytes at byte {offset} of a slot of {slot_bytes} ends beyond it")]
    BeyondSlot {
        /// The page.
        page_bytes: u32,
        /// Where in the slot it was to land.
        offset: u32,
        /// The slot.
        slot_bytes: usize,
    },
    /// There is no slot to share.
    #[error("no page of the batch has a slot yet: begin with one that does")]
    NoSlot,
    /// The plan reads beyond the page.
    #[error(
        "the plan reads up to byte {plan_bytes} of a page of {page_bytes} bytes: it is made for another layout"
    )]
    PageTooSmall {
        /// The page.
        page_bytes: u32,
        /// What the plan needs.
        plan_bytes: u32,
    },
    /// Bytes of one layout do not belong where another one's are.
    #[error(transparent)]
    Layout(#[from] LayoutMismatch),
    /// Page, slot and batch must be of one engine.
    #[error("the {0} belongs to another engine than the batch")]
    OtherEngine(&'static str),
    /// More chunks than a page may have.
    #[error(
        "a page of {page_bytes} bytes in chunks of {chunk_bytes} is {chunks} chunks, at most {max} go: raise chunk_bytes"
    )]
    TooManyChunks {
        /// The page.
        page_bytes: u32,
        /// The configured chunk.
        chunk_bytes: u32,
        /// How many that makes.
        chunks: u32,
        /// The most.
        max: u32,
    },
}

impl ReadError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Full { .. } => 2070,
            Self::SlotTooSmall { .. } => 2071,
            Self::BeyondSlot { .. } => 2072,
            Self::NoSlot => 2073,
            Self::PageTooSmall { .. } => 2074,
            Self::Layout(error) => error.code(),
            Self::OtherEngine(..) => 2075,
            Self::TooManyChunks { .. } => 2076,
        }
    }
}

/// Why a batch was refused. It comes back untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Nothing to read.
    #[error("the batch holds no page")]
    Empty,
    /// Too late already.
    #[error("the deadline ({} ns) is not after now ({} ns)", deadline.0, now.0)]
    DeadlinePassed {
        /// The deadline.
        deadline: Time,
        /// The time of the call.
        now: Time,
    },
    /// A page's peer has been removed since.
    #[error("page {page} reads from peer {peer}, which has been removed")]
    PeerGone {
        /// The page's position in the batch.
        page: usize,
        /// The peer's place.
        peer: usize,
    },
    /// The batch was taken from another engine.
    #[error("the batch belongs to another engine")]
    OtherEngine,
    /// The engine ended before it took the batch from its submitter.
    #[error("the reader is gone: nothing that is sent is read any more")]
    EngineGone,
}

impl SubmitError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Empty => 2090,
            Self::DeadlinePassed { .. } => 2091,
            Self::PeerGone { .. } => 2092,
            Self::OtherEngine => 2093,
            Self::EngineGone => 2094,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_page_that_had_arrived_is_not_told_to_have_lacked_nothing() {
        let late = |missing, chunks| PageError::Deadline { deadline: Time(7), missing, chunks }.to_string();
        assert_eq!(
            late(0, 1),
            "the deadline (7 ns) passed when the page had arrived and was not yet validated"
        );
        assert_eq!(
            late(0, 35),
            "the deadline (7 ns) passed when all 35 chunks had arrived and the page was not yet validated"
        );
        assert_eq!(late(1, 1), "the deadline (7 ns) passed with 1 of 1 chunk missing");
        assert_eq!(late(3, 35), "the deadline (7 ns) passed with 3 of 35 chunks missing");
    }
}
