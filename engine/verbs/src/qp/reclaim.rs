//! How a QP is destroyed, and the tag and the rail that it was made with are released.
#![allow(unsafe_code, reason = "libibverbs")]

use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mummy_sys as sys;

use super::tag::LaneTag;
use crate::error::Errno;
use crate::rail::Rail;

/// The tag and the rail of a QP, which must outlive it: its context pointer leads to the tag, and
/// its domain and completion queue belong to the rail.
pub(super) struct QpReclaimer {
    tag: Arc<LaneTag>,
    rail: Arc<Rail>,
}

impl QpReclaimer {
    pub(super) fn new(rail: &Arc<Rail>) -> Self {
        Self { tag: Arc::default(), rail: Arc::clone(rail) }
    }

    pub(super) const fn tag(&self) -> &Arc<LaneTag> {
        &self.tag
    }

    pub(super) const fn rail(&self) -> &Arc<Rail> {
        &self.rail
    }

    /// Destroys `qp`, which writes no more when this returns `Ok`. A QP that cannot be destroyed is
    /// leaked, with its tag and its rail. Blocks in the kernel.
    ///
    /// # Safety
    ///
    /// `qp` was made with this tag on this rail and has not been destroyed; nothing posts to it any
    /// more. Its completion queue may be polled meanwhile: libibverbs allows that.
    pub(super) unsafe fn reclaim(self, qp: NonNull<sys::ibv_qp>) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        let errno = unsafe { sys::ibv_destroy_qp(qp.as_ptr()) };
        match errno.abs() {
            // EIO and ENODEV: the device is gone, and the kernel has destroyed the device's QPs.
            0 | libc::EIO | libc::ENODEV => Ok(()),
            errno => {
                tracing::error!(rail = self.rail.name(), errno, "a QP could not be destroyed: it is leaked");
                mem::forget(self);
                Err(Errno(errno))
            }
        }
    }
}
