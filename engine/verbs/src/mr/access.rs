//! What a NIC and its peers may do with registered memory.

use bitflags::bitflags;
use rdma_mummy_sys::ibv_access_flags as header;

bitflags! {
    /// `enum ibv_access_flags`, as far as rails use it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct AccessFlags: u32 {
        /// The device writes READ data into it.
        const LOCAL_WRITE = header::IBV_ACCESS_LOCAL_WRITE.0;
        /// Peers may read it.
        const REMOTE_READ = header::IBV_ACCESS_REMOTE_READ.0;
        /// Before the completion, writes may become visible in another order than they were made
        /// in.
        const RELAXED_ORDERING = header::IBV_ACCESS_RELAXED_ORDERING.0;
    }
}

/// The use for which a region is registered: one of the two, never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rights {
    /// Peers may read it.
    RemoteRead,
    /// The NIC may write into it the bytes that READs bring from peers.
    LocalWrite,
}

impl Rights {
    pub(crate) const fn access(self) -> AccessFlags {
        match self {
            Self::RemoteRead => AccessFlags::REMOTE_READ,
            Self::LocalWrite => AccessFlags::LOCAL_WRITE,
        }
    }
}
