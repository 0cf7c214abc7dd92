//! Why there is no publisher, and why a page was not written.

use kvrail_core::remote::OfferError;
use kvrail_core::table::GrowError;
use kvrail_host::secret::RandomError;
use kvrail_host::segment::SegmentError;
use kvrail_session::{PoolError, ServeError};

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
            Self::Grow { source, .. } => source.code(),
        }
    }
}
