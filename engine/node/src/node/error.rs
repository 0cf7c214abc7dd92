//! Why a node does not start, and why memory is not registered.

use std::io;
use std::time::Duration;

use kvrail::{PageLayout, PublisherError, StartError, TransportError};
use kvrail_core::memory::RegionError;
use rustix::io::Errno;

use crate::announce::AnnounceError;
use crate::directory::embedded::EmbeddedError;
use crate::directory::one_sided::OneSidedStartError;
use crate::pool::OpenPoolError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The node would read no layout.
    #[error("the node has no layout to read and no pool: give NodeConfig at least one")]
    NoLayout,
    /// The node would have no reader.
    #[error("{readers} readers: a node has 1 to {max}")]
    Readers {
        /// The configured number.
        readers: usize,
        /// The most.
        max: usize,
    },
    /// The node would have no thread for look-ups.
    #[error("{threads} threads for look-ups: a node has 1 to {max}")]
    LookUpThreads {
        /// The configured number.
        threads: usize,
        /// The most.
        max: usize,
    },
    /// The rails of a reader could not be opened.
    #[error("the rails of a reader could not be opened: {0}")]
    Rails(TransportError),
    /// A reader did not start.
    #[error("a reader did not start: {0}")]
    Reader(#[from] StartError),
    /// A layout cannot be read.
    #[error("the layout cannot be read: {0}")]
    Layout(#[from] kvrail_core::plan::AddPlanError),
    /// The pools could not be published.
    #[error(transparent)]
    Publisher(#[from] PublisherError),
    /// A pool could not be opened.
    #[error(transparent)]
    Pool(#[from] OpenPoolError),
    /// The pages are not announced.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
    /// The embedded directory does not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The tables of owners are not read.
    #[error(transparent)]
    OneSided(#[from] OneSidedStartError),
    /// A node that its caller drives has rails for one reader alone.
    #[error(
        "a node that its caller drives starts no reader of tables: start a OneSidedDirectory, and give it to NodeConfig::directory"
    )]
    OneSidedDriven,
    /// The system has no file descriptor left.
    #[error("no file descriptor for a reader's thread: {0}")]
    Descriptor(#[from] Errno),
    /// The system has no thread left.
    #[error("a thread of the node could not be started: {0}")]
    Thread(io::Error),
}

impl NodeError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoLayout => 7220,
            Self::Readers { .. } => 7221,
            Self::Rails(_) => 7222,
            Self::Reader(source) => source.code(),
            Self::Layout(source) => source.code(),
            Self::Publisher(source) => source.code(),
            Self::Pool(source) => source.code(),
            Self::Announce(source) => source.code(),
            Self::Embedded(source) => source.code(),
            Self::Descriptor(_) => 7223,
            Self::Thread(_) => 7224,
            Self::LookUpThreads { .. } => 7225,
            Self::OneSided(source) => source.code(),
            Self::OneSidedDriven => 7226,
        }
    }
}

/// Why memory was not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterMemoryError {
    /// The node does not read this layout.
    #[error("this node reads no pages of {layout}: give the layout to NodeConfig::layout")]
    Layout {
        /// The layout.
        layout: Box<PageLayout>,
    },
    /// The memory holds no page.
    #[error("{bytes} bytes of memory hold no page of {page} bytes")]
    TooSmall {
        /// Bytes of the memory.
        bytes: u64,
        /// Bytes of a page.
        page: u32,
    },
    /// A reader refused the memory.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A reader did not answer: it is stopped, or not driven. It may have registered the memory,
    /// which must not be used again.
    #[error("a reader did not answer within {within:?}: it is stopped, or its ReadDriver is not polled")]
    NoAnswer {
        /// How long it was waited for.
        within: Duration,
    },
}

impl RegisterMemoryError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Layout { .. } => 7230,
            Self::TooSmall { .. } => 7231,
            Self::Region(source) => source.code(),
            Self::NoAnswer { .. } => 7232,
        }
    }
}

/// Why memory was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnregisterMemoryError {
    /// A place is not free. Nothing has changed.
    #[error(
        "place {index} is not free: a get or a put uses it, or hardware may still write into it; wait for it and try again"
    )]
    Busy {
        /// The number of the first such place.
        index: u32,
    },
    /// The memory is registered with another node of the process.
    #[error("the memory is registered with another node: release it there")]
    OtherNode,
    /// The memory was released before, perhaps by another thread meanwhile.
    #[error("the memory was released before")]
    Released,
    /// A reader did not release it: it is stopped, not driven, or hardware may still write there.
    #[error("a reader did not release the memory: keep it until the process ends, and do not use it")]
    NotReleased,
}

impl UnregisterMemoryError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Busy { .. } => 7233,
            Self::OtherNode => 7234,
            Self::Released => 7235,
            Self::NotReleased => 7236,
        }
    }
}
