//! GPU memory as destination.
#![allow(unsafe_code, reason = "memory that a handle stands for")]

use kvrail_core::memory::{Access, RegionError, Slots};
use kvrail_core::provider::RegisterError;
use kvrail_verbs::gpu::DeviceMemory;

use super::Reader;
use crate::network::Network;

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
pub(super) struct Registered(DeviceMemory);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl<N: Network> Reader<N> {
    /// Makes destination slots, one per page, of a GPU's memory. They have an address and no bytes.
    ///
    /// It is registered as a dmabuf, else as peer memory. A handle is kept until [`unregister`](Self::unregister),
    /// or until nothing writes into it any more. That a page has arrived makes it visible to kernels that are launched
    /// after; it says nothing to one that runs already.
    ///
    /// # Errors
    ///
    /// Memory that is registered already, that holds no page, or that the rails do not take, with what is missing.
    pub fn register_device(&mut self, memory: &DeviceMemory) -> Result<Slots, DeviceError> {
        if !memory.claim() {
            return Err(DeviceError::Registered);
        }
        let registered = Registered(memory.clone());
        let known = self.engine.add_layout(self.layout.identity(), 0).map_err(RegionError::from)?;
        let slots = super::register::of_layout(self.register_claimed(memory)?, known);
        self.devices.push((slots.region(), registered));
        Ok(slots)
    }

    fn register_claimed(&mut self, memory: &DeviceMemory) -> Result<Slots, DeviceError> {
        let (range, numa) = (memory.range(), memory.numa());
        let slot_bytes = self.layout.page_bytes().into();
        if let Some(dmabuf) = memory.dmabuf() {
            // SAFETY: claimed, so it is the slots' alone, and it stays while `devices` has a handle: until it is
            // unregistered, or the engine is gone. Whoever made a handle of memory of their own promised the rest.
            match unsafe { self.engine.register_dmabuf(range, dmabuf, slot_bytes, numa) } {
                Err(RegionError::Provider(error)) if memory.is_peer_memory() => {
                    tracing::info!(%error, "not as a dmabuf: by nvidia-peermem");
                }
                Err(RegionError::Provider(error)) => return Err(DeviceError::Refused(error)),
                other => return Ok(other?),
            }
        }
        // SAFETY: as above.
        Ok(unsafe { self.engine.register_foreign(range, slot_bytes, Access::Device, numa) }?)
    }
}
