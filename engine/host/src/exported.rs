//! Memory that a producer lets peers read: where it is, and by what a transport can reach it.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvrail_core::provider::{DmaBuf, MemoryRange};

use crate::segment::Segment;

/// Memory that a producer lets peers read. Peers name its bytes by the addresses of
/// [`range`](Self::range), whatever the memory is backed by.
#[derive(Clone, Debug)]
pub struct ExportedMemory {
    range: MemoryRange,
    backing: Backing,
}

/// By what a transport can reach exported memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Backing {
    /// A segment of this process, whole.
    Segment(Arc<Segment>),
    /// Bytes of a file in memory (a memfd) from `offset` on, which the process has mapped at the
    /// range's address.
    File {
        /// The file.
        file: Arc<OwnedFd>,
        /// Where the range begins in it.
        offset: u64,
    },
    /// Host memory of this process that is known by its address alone.
    Host,
    /// A device's memory, exported as a dmabuf.
    Dmabuf {
        /// Keeps the descriptor of `dmabuf` open.
        file: Arc<OwnedFd>,
        /// The descriptor, and where the range begins in it.
        dmabuf: DmaBuf,
    },
    /// A device's memory that is known by its address alone (peer memory).
    Device,
}

impl ExportedMemory {
    /// All of a segment.
    #[must_use]
    pub fn segment(segment: Arc<Segment>) -> Self {
        Self { range: segment.range(), backing: Backing::Segment(segment) }
    }

    /// Memory that somebody else owns, at the addresses of `range`.
    ///
    /// # Safety
    ///
    /// Until no exporter has this value or a copy of it any more, `range` is mapped memory of this
    /// process (or of the device, for device memory), and `backing` describes the same bytes. Who
    /// writes to them, and when, is the owner's affair: a transport only reads.
    #[must_use]
    pub const unsafe fn foreign(range: MemoryRange, backing: Backing) -> Self {
        Self { range, backing }
    }

    /// The addresses by which peers name the bytes.
    #[must_use]
    pub const fn range(&self) -> MemoryRange {
        self.range
    }

    /// By what a transport can reach the bytes.
    #[must_use]
    pub const fn backing(&self) -> &Backing {
        &self.backing
    }
}
