//! GPU memory as destination: who has it, and why it cannot be read into.

use kvrail_core::memory::RegionError;
use kvrail_core::provider::RegisterError;
use kvrail_verbs::gpu::DeviceMemory;

/// Why a GPU's memory cannot be read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Somebody has it.
    #[error("this device memory is registered already: unregister it there first")]
    Registered,
    /// The rails know only one way, and it is closed.
    #[error(
        "the rails do not take device memory as a dmabuf ({0}), and nvidia-peermem is not loaded. Either is enough: a NIC whose driver knows dmabufs (mlx5, with Linux 5.12 and rdma-core 34), or `modprobe nvidia-peermem`"
    )]
    Refused(RegisterError),
    /// As any memory.
    #[error(transparent)]
    Region(#[from] RegionError),
}

/// Memory that is registered: it lives, and is nobody else's, as long as this does.
#[derive(Debug)]
pub(super) struct Registered(pub(super) DeviceMemory);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.release();
    }
}
