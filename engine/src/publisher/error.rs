//! Why there is no publisher or no pool, and why a page was not written.

use kvrail_core::remote::OfferError;
use kvrail_core::table::GrowError;
use kvrail_host::secret::RandomError;
use kvrail_host::segment::SegmentError;
use kvrail_session::{MAX_REGIONS, PoolError, PoolId, ServeError};

use crate::transport::TransportError;

/// Why there is no publisher.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublisherError {
    /// There are no slots, or too many.
    #[error(
        "{slots} slots of {page_bytes} bytes cannot be published: give 1 or more, and less than 2^63 bytes in all"
    )]
    Slots {
        /// How many.
        slots: u32,
        /// Of one page.
        page_bytes: u32,
    },
    /// There is no pool.
    #[error("a publisher of no pool has nothing to publish: name 1 or more by PublisherConfig::pool")]
    NoPool,
    /// The publisher is another process's.
    #[error(transparent)]
    Process(#[from] OtherProcess),
    /// A foreign pool's memory is not what its pages need.
    #[error("{pool}: {source}")]
    Foreign {
        /// The number that the pool would have.
        pool: PoolId,
        /// Why not.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: ForeignPoolError,
    },
    /// The system gives no memory for the slots.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The transport cannot make the slots readable for peers.
    #[error("the pages cannot be made readable: {0}")]
    Transport(TransportError),
    /// The region cannot be offered.
    #[error(transparent)]
    Region(#[from] OfferError),
    /// The slots cannot be a pool of the layout.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A slot is longer than one registration may be.
    #[error(
        "a slot of {slot_bytes} bytes, in whole pages of the host, does not fit a registration of {limit} bytes: raise \
         PublisherConfig::piece_bytes, or VerbsConfig::max_mr_bytes, or use devices that register more at once"
    )]
    Piece {
        /// Bytes of the slot, or from slot to slot.
        slot_bytes: u64,
        /// The most bytes of one registration.
        limit: u64,
    },
    /// The pool would have more pieces than can be offered.
    #[error(
        "registrations of {limit} bytes cut the pool into {pieces} pieces of {parts} regions, and a pool has at most \
         {MAX_REGIONS} regions: raise PublisherConfig::piece_bytes, or make several pools"
    )]
    Pieces {
        /// How many pieces.
        pieces: u32,
        /// Regions of each.
        parts: u32,
        /// The most bytes of one registration.
        limit: u64,
    },
    /// Readers cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl PublisherError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Slots { .. } => 6060,
            Self::Transport(_) => 6061,
            Self::NoPool => 6062,
            Self::Piece { .. } => 6064,
            Self::Pieces { .. } => 6065,
            Self::Process(source) => source.code(),
            Self::Foreign { source, .. } => source.code(),
            Self::Segment(source) => source.code(),
            Self::Region(source) => source.code(),
            Self::Pool(source) => source.code(),
            Self::Serve(source) => source.code(),
        }
    }
}

/// Why a page was not written, or not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no such slot.
    #[error("slot {slot} of a pool that has {slots}: the last is {}", slots - 1)]
    Slot {
        /// The requested slot.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// The system gave no random numbers, and a generation must not be foreseeable.
    #[error("a page's generation needs random numbers, and the system gave none: {0}")]
    Random(RandomError),
    /// Another guard of the slot exists, which may write its bytes.
    #[error("slot {slot} is being written by another guard: wait until that one ends, or take another slot")]
    BeingWritten {
        /// The slot.
        slot: u32,
    },
    /// The bytes of the slot are being read in this process.
    #[error("slot {slot} is being read in this process: drop its LocalPage first, or take another slot")]
    BeingRead {
        /// The slot.
        slot: u32,
    },
    /// The pages of the pool are somebody else's memory, so the publisher has no bytes to give out.
    #[error("{pool} has pages that another owner writes: take its slots by PublisherPool::foreign")]
    ForeignBytes {
        /// The pool.
        pool: PoolId,
    },
    /// The pool has been withdrawn, or is being withdrawn.
    #[error("slot {slot}: {pool} is withdrawn or about to be, and publishes nothing")]
    Withdrawn {
        /// The pool.
        pool: PoolId,
        /// The slot.
        slot: u32,
    },
    /// The publisher is another process's.
    #[error(transparent)]
    Process(#[from] OtherProcess),
    /// The slot has no page that grows, or more of it is ready already.
    #[error("slot {slot}: {source}")]
    Grow {
        /// The slot.
        slot: u32,
        /// The entry's reason.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: GrowError,
    },
}

impl WriteError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Slot { .. } => 6070,
            Self::Random(_) => 6071,
            Self::BeingWritten { .. } => 6072,
            Self::BeingRead { .. } => 6073,
            Self::ForeignBytes { .. } => 6074,
            Self::Withdrawn { .. } => 6075,
            Self::Process(source) => source.code(),
            Self::Grow { source, .. } => source.code(),
        }
    }
}

/// The publisher was made by another process, of which this one is a fork. Everything that it
/// publishes is that process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the publisher belongs to process {owner}, and this is process {here}, which was forked from it: publish there, or \
     start a publisher here"
)]
pub struct OtherProcess {
    /// The process that made the publisher.
    pub owner: u32,
    /// The calling process.
    pub here: u32,
}

impl OtherProcess {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        6063
    }
}

/// Why a pool was not withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WithdrawError {
    /// There is no such pool, or no longer.
    #[error("there is no {pool} to withdraw: it never was, or has been withdrawn")]
    NoPool {
        /// The pool.
        pool: PoolId,
    },
    /// Guards of the pool's slots exist. The pool is as it was.
    #[error(
        "{pool} was not withdrawn by the deadline: {held} of its {slots} slots have guards, slot {slot} for one. End \
         them, and withdraw it again"
    )]
    Guarded {
        /// The pool.
        pool: PoolId,
        /// How many slots have guards, or are read in this process.
        held: u32,
        /// How many slots there are.
        slots: u32,
        /// One that has a guard.
        slot: u32,
    },
    /// Another thread is withdrawing the pool, or is still adding it.
    #[error("another thread is withdrawing {pool}, or is still adding it: wait for that one")]
    Underway {
        /// The pool.
        pool: PoolId,
    },
    /// The publisher is another process's.
    #[error(transparent)]
    Process(#[from] OtherProcess),
}

impl WithdrawError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoPool { .. } => 6100,
            Self::Guarded { .. } => 6101,
            Self::Underway { .. } => 6102,
            Self::Process(source) => source.code(),
        }
    }
}

/// Why memory cannot be a pool of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignPoolError {
    /// There are fewer regions than the layout has, or more.
    #[error(
        "{given} regions were given for pages of {layout} regions: give one ForeignRegion for each, in the layout's order"
    )]
    Regions {
        /// How many were given.
        given: usize,
        /// How many the layout has.
        layout: usize,
    },
    /// The memory is empty, or ends beyond the address space.
    #[error("region {region}: its memory of {len} bytes at {addr:#x} is empty or ends beyond 2^64")]
    Range {
        /// Which region.
        region: usize,
        /// Where the memory begins.
        addr: u64,
        /// Its bytes.
        len: u64,
    },
    /// The bytes are none, or not all within the memory.
    #[error("region {region}: bytes {from}..{to} are none, or beyond its memory of {memory} bytes")]
    Outside {
        /// Which region.
        region: usize,
        /// The first byte.
        from: u64,
        /// The first byte behind them.
        to: u64,
        /// Bytes of the memory.
        memory: u64,
    },
    /// Pages are closer together than they are long.
    #[error(
        "region {region}: its stride of {stride} bytes is below its {page} bytes of each page, so slots would overlap"
    )]
    Stride {
        /// Which region.
        region: usize,
        /// Bytes from slot to slot.
        stride: u64,
        /// The region's bytes of a page.
        page: u64,
    },
    /// The page leaves its stride.
    #[error(
        "region {region}: {page} bytes of a page at offset {offset} end beyond its stride of {stride} bytes: lower the \
         offset, or begin the region later"
    )]
    Offset {
        /// Which region.
        region: usize,
        /// Where the page begins in each stride.
        offset: u64,
        /// The region's bytes of a page.
        page: u64,
        /// Bytes from slot to slot.
        stride: u64,
    },
    /// The last stride is not whole.
    #[error(
        "region {region}: {bytes} bytes are no multiple of its stride of {stride} bytes: leave out the last {tail} bytes \
         by ForeignRegion::bytes, or correct the stride"
    )]
    Tail {
        /// Which region.
        region: usize,
        /// The region's bytes.
        bytes: u64,
        /// Bytes from slot to slot.
        stride: u64,
        /// The bytes that are left over.
        tail: u64,
    },
    /// There are more slots than can be numbered.
    #[error("region {region} has {slots} slots: a pool has at most 4294967295, so make several of it")]
    TooManySlots {
        /// Which region.
        region: usize,
        /// How many.
        slots: u64,
    },
    /// Two regions have different numbers of slots.
    #[error(
        "region {region} has {slots} slots, and region 0 has {first}: each slot has bytes in every region, so all have as \
         many"
    )]
    Slots {
        /// Which region.
        region: usize,
        /// How many slots it has.
        slots: u32,
        /// How many the first region has.
        first: u32,
    },
    /// Two pages share bytes.
    #[error(
        "slot {} of region {} of {} at {at:#x} shares bytes with slot {} of region {} of {} at {other_at:#x}: a byte that \
         two tables speak for could be served wrong, so it may be in one slot alone",
        page.2, page.1, page.0, other.2, other.1, other.0
    )]
    Overlap {
        /// The pool, region and slot of the one page.
        page: (PoolId, usize, u32),
        /// Its address.
        at: u64,
        /// The pool, region and slot of the other page.
        other: (PoolId, usize, u32),
        /// Its address.
        other_at: u64,
    },
}

impl ForeignPoolError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Regions { .. } => 6110,
            Self::Range { .. } => 6111,
            Self::Outside { .. } => 6112,
            Self::Stride { .. } => 6113,
            Self::Offset { .. } => 6114,
            Self::Tail { .. } => 6115,
            Self::TooManySlots { .. } => 6116,
            Self::Slots { .. } => 6117,
            Self::Overlap { .. } => 6118,
        }
    }
}
