//! Why a page did not arrive, why a page cannot join a batch, and why a batch is refused.

use core::fmt;

use crate::id::Ticket;
use crate::layout::LayoutMismatch;
use crate::remote::PageRangeError;
use crate::rows::RowsError;
use crate::table::{Miss, Ready};
use crate::time::Time;
use crate::verbs_abi::WcStatus;

/// Why a page did not arrive. The bytes of its slot are unspecified then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The page arrived, but it is not, or no longer, the page that its location names.
    #[error("miss: {0}")]
    Miss(#[from] Miss),
    /// READs of the page failed in a way that another path does not change.
    #[error(
        "READ of {len} bytes at {remote_addr:#x} with key {rkey:#x} over rail {rail}: {status} (vendor error {vendor_err:#x})"
    )]
    Fault {
        /// The status of the completion.
        status: WcStatus,
        /// The device vendor's error code.
        vendor_err: u32,
        /// The local rail.
        rail: u8,
        /// Start of the READ that failed, in the peer's memory. It was a READ of a chunk of the
        /// page, or of table entries: that of the page and those of its neighbours in the batch.
        /// Entries that are read together fail together.
        remote_addr: u64,
        /// Length of that READ, in bytes.
        len: u32,
        /// The peer's key that the READ used.
        rkey: u32,
    },
    /// The batch's deadline passed before the page had arrived and was validated.
    #[error(
        "the deadline ({} ns) passed {}",
        deadline.0,
        Unfinished { missing: *missing, chunks: *chunks }
    )]
    Deadline {
        /// The deadline.
        deadline: Time,
        /// Chunks that had not arrived. 0 means that all chunks had arrived, and that only the
        /// owner's table entry, which proves them, was missing.
        missing: u32,
        /// How many chunks the page has.
        chunks: u32,
    },
    /// The deadline passed before anything of the page had arrived, and no lane to its peer was up
    /// then.
    #[error(
        "the deadline ({} ns) passed without a lane to the peer: look in the log why none was made, or allow more lanes at a time",
        deadline.0
    )]
    NoLane {
        /// The deadline.
        deadline: Time,
    },
    /// The peer was removed.
    #[error("the peer was removed")]
    PeerGone,
    /// The owner has taken the page's pool back.
    #[error("the owner has taken the page's pool back")]
    PoolGone,
    /// The caller withdrew the page, or its batch, before it had arrived and was validated.
    #[error("the page was withdrawn before it had arrived")]
    Withdrawn,
    /// The page was not read, since READs of it, or of other pages of its region, have killed their
    /// lanes within `set_aside`.
    #[error(
        "not read before {} ns, since {} {status}, last at {remote_addr:#x}: check that the peer's memory there is registered and readable",
        until.0,
        if *whole_region { "pages of its region fail one after the other with" } else { "it has failed with" }
    )]
    SetAside {
        /// Start of the READ that failed last, in the peer's memory.
        remote_addr: u64,
        /// The status of that READ's completion.
        status: WcStatus,
        /// Whether the whole region is set aside, not this page alone.
        whole_region: bool,
        /// When the page may be read again.
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
            Self::Withdrawn => 2055,
            Self::PoolGone => 2056,
            Self::NoLane { .. } => 2057,
        }
    }
}

/// How much of a page had arrived when its deadline passed.
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
            Self { chunks: 1, .. } => f.write_str("before the page's only chunk had arrived"),
            Self { missing, chunks } => write!(f, "with {missing} of {chunks} chunks missing"),
        }
    }
}

/// Why a page cannot join a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The batch holds as many pages as it can. Submit it, and go on with another batch.
    #[error("the batch is full, with {capacity} pages: submit it and fill another one")]
    Full {
        /// The most pages of a batch.
        capacity: usize,
    },
    /// The page does not fit its slot.
    #[error("a page of {page_bytes} bytes does not fit a slot of {slot_bytes} bytes")]
    SlotTooSmall {
        /// Bytes of the page.
        page_bytes: u32,
        /// Bytes of the slot.
        slot_bytes: usize,
    },
    /// The page ends beyond the slot that it shares.
    #[error("a page of {page_bytes} bytes at byte {offset} ends beyond its slot of {slot_bytes} bytes")]
    BeyondSlot {
        /// Bytes of the page.
        page_bytes: u32,
        /// The byte of the slot at which the page was to land.
        offset: u32,
        /// Bytes of the slot.
        slot_bytes: usize,
    },
    /// The page was to share the slot of an earlier page, and the batch has no page yet.
    #[error("no page of the batch has a slot that this one could share: read the first page with a slot")]
    NoSlot,
    /// The plan reads beyond the end of the page.
    #[error(
        "the plan reads up to byte {plan_bytes} of a page of {page_bytes} bytes: it is made for another layout"
    )]
    PageTooSmall {
        /// Bytes of the page.
        page_bytes: u32,
        /// The least bytes of a page that the plan reads.
        plan_bytes: u32,
    },
    /// The page was to be joined to an earlier one, and the batch has none.
    #[error("no page of the batch could be joined by this one: read the first page by itself")]
    NoPage,
    /// The plan was forgotten, or the plan of an earlier page of the batch.
    #[error(
        "a plan of this page, or of an earlier page of the batch, was forgotten: clear the batch, and add the plan again"
    )]
    PlanForgotten,
    /// Page or plan have several regions, and the slot has no layout.
    #[error(
        "a page of {regions} regions, or a plan into several, needs a slot of their layout, and this one has none: register the slot for a layout"
    )]
    SlotOfBytes {
        /// How many regions the page has.
        regions: u16,
    },
    /// The layouts of page, slot and plan do not match.
    #[error(transparent)]
    Layout(#[from] LayoutMismatch),
    /// Page, slot and batch are not all of one engine. The field names the odd one.
    #[error("the {0} belongs to another engine than the batch")]
    OtherEngine(&'static str),
    /// The page would have more chunks than a page may have.
    #[error(
        "a page of {page_bytes} bytes in chunks of {chunk_bytes} would have {chunks} chunks, and {max} are the most: raise chunk_bytes"
    )]
    TooManyChunks {
        /// Bytes of the page.
        page_bytes: u32,
        /// The configured size of a chunk.
        chunk_bytes: u32,
        /// How many chunks that makes.
        chunks: u32,
        /// The most chunks of a page.
        max: u32,
    },
    /// The page still grows, and not all parts that would be read have been seen ready.
    #[error(
        "seen ready: {seen}; needed: {needed}: read parts that are ready (`RemotePage::needs`), or look at the owner's entry again"
    )]
    NotReady {
        /// The parts that the READ needs.
        needed: Ready,
        /// The parts that the location has seen ready.
        seen: Ready,
    },
    /// A call has another number of slots than of pages.
    #[error("{pages} pages and {slots} slots in one call: give a slot for each page")]
    SlotCount {
        /// How many pages were to be read.
        pages: usize,
        /// How many slots there were.
        slots: usize,
    },
    /// Rows end beyond the page.
    #[error("row {row} of {row_bytes} bytes ends beyond the page of {page_bytes} bytes")]
    RowsBeyondPage {
        /// The last row.
        row: u64,
        /// Bytes of a row.
        row_bytes: u32,
        /// Bytes of the page.
        page_bytes: u32,
    },
    /// Rows are to be read of a page of several regions.
    #[error("rows are read of pages of one region, and this one has {regions}: read it by a plan")]
    RowsOfRegions {
        /// How many regions the page has.
        regions: u16,
    },
    /// A row is longer than a chunk.
    #[error("rows of {row_bytes} bytes are longer than a chunk of {chunk_bytes}: raise chunk_bytes")]
    RowTooLong {
        /// Bytes of a row.
        row_bytes: u32,
        /// The configured size of a chunk.
        chunk_bytes: u32,
    },
    /// No row is named, or rows have no bytes.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A call has another number of words than the rows of its pages have bits.
    #[error(
        "{words} words name the rows of {pages} pages of {rows} rows: give {} for each page",
        rows.div_ceil(64)
    )]
    RowWords {
        /// How many words there were.
        words: usize,
        /// How many pages.
        pages: usize,
        /// How many rows each page has.
        rows: u32,
    },
    /// The region has no such page.
    #[error(transparent)]
    Page(#[from] PageRangeError),
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
            Self::NotReady { .. } => 2077,
            Self::SlotOfBytes { .. } => 2078,
            Self::NoPage => 2079,
            Self::PlanForgotten => 2080,
            Self::SlotCount { .. } => 2081,
            Self::RowsBeyondPage { .. } => 2082,
            Self::RowsOfRegions { .. } => 2083,
            Self::RowTooLong { .. } => 2084,
            Self::Rows(error) => error.code(),
            Self::RowWords { .. } => 2097,
            Self::Page(error) => error.code(),
        }
    }
}

/// Why a batch was refused. The batch comes back untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The batch has no page.
    #[error("the batch holds no page: read at least one into it")]
    Empty,
    /// The deadline is not in the future.
    #[error("the deadline ({} ns) is not after now ({} ns)", deadline.0, now.0)]
    DeadlinePassed {
        /// The deadline.
        deadline: Time,
        /// The time of the call.
        now: Time,
    },
    /// The peer of a page has been removed since the page joined the batch.
    #[error("page {page} reads from peer {peer}, which has been removed")]
    PeerGone {
        /// The page's position in the batch.
        page: usize,
        /// The peer's place in the engine's table ([`PeerId::index`](crate::id::PeerId::index)).
        peer: usize,
    },
    /// The plan of a page was forgotten after the page had joined the batch.
    #[error(
        "page {page} of the batch follows a plan that was forgotten: clear the batch, and add the plan again"
    )]
    PlanForgotten {
        /// The position of the page in the batch.
        page: usize,
    },
    /// The batch's buffer is another engine's.
    #[error("the batch belongs to another engine: submit it there")]
    OtherEngine,
    /// The engine was dropped before it took the batch from its submitter.
    #[error("the engine is gone: no submitted batch is read any more")]
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
            Self::PlanForgotten { .. } => 2089,
        }
    }
}

/// Why a batch in flight cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlightError {
    /// No such batch is in flight. It is done, or was never submitted to this engine.
    #[error("{0} is not in flight: it is done, or another engine has it")]
    NotInFlight(Ticket),
    /// The batch has fewer pages.
    #[error("{ticket} has {pages} pages, counted from 0: there is no page {page}")]
    NoPage {
        /// The batch.
        ticket: Ticket,
        /// The position that was named.
        page: usize,
        /// How many pages the batch has.
        pages: usize,
    },
}

impl FlightError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NotInFlight(..) => 2095,
            Self::NoPage { .. } => 2096,
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
        assert_eq!(late(1, 1), "the deadline (7 ns) passed before the page's only chunk had arrived");
        assert_eq!(late(3, 35), "the deadline (7 ns) passed with 3 of 35 chunks missing");
    }
}
