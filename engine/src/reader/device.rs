//! GPU memory as destination: its registration, and why it cannot be read into.

use kvrail_core::memory::RegionError;
use kvrail_core::provider::{MemoryRange, RegisterError};
use kvrail_verbs::gpu::DeviceMemory;

/// Why a GPU's memory cannot be read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A reader has registered this memory already.
    #[error("this device memory is registered already: unregister it there first")]
    Registered,
    /// Neither of the two ways to register it is open.
    #[error(
        "the rails do not take device memory as a dmabuf ({0}), and nvidia-peermem is not loaded. Either is enough: a NIC whose driver knows dmabufs (mlx5, with Linux 5.12 and rdma-core 34), or `modprobe nvidia-peermem`"
    )]
    Refused(RegisterError),
    /// A range of a region does not lie within the memory that was named for it.
    #[error(
        "the range of region {region} has {} bytes at {:#x}, and its device memory {} bytes at {:#x}: give a range within the memory",
        range.len, range.addr, memory.len, memory.addr
    )]
    Outside {
        /// The region of the layout.
        region: u32,
        /// The range that was given for it.
        range: MemoryRange,
        /// The range of the memory.
        memory: MemoryRange,
    },
    /// The memory cannot be registered, for a reason that host memory can have as well.
    #[error(transparent)]
    Region(#[from] RegionError),
}

impl DeviceError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Registered => 6080,
            Self::Refused(_) => 6081,
            Self::Outside { .. } => 6082,
            Self::Region(source) => source.code(),
        }
    }
}

/// Memory that is registered. While this value lives the memory is valid, and registered nowhere
/// else.
#[derive(Debug)]
pub(super) struct Registered(pub(super) DeviceMemory);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.release();
    }
}
