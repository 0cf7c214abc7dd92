//! The handle of a queue pair, in any state.
#![allow(unsafe_code, reason = "libibverbs")]

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mummy_sys as sys;
use sys::ibv_qp_attr_mask as bits;

use super::reclaim::QpReclaimer;
use super::tag::LaneTag;
use crate::error::{Errno, VerbsLaneError};
use crate::rail::{Rail, Side};

/// A QP in any state, with the tag and the rail that it was made with. Dropping the handle destroys
/// the QP, which blocks in the kernel.
pub struct QpHandle {
    raw: NonNull<sys::ibv_qp>,
    /// The tag and the rail. Taken once, by `destroy` or by `drop`.
    reclaimer: ManuallyDrop<QpReclaimer>,
}

// SAFETY: libibverbs allows a QP to be changed and destroyed from any thread. Only its owner posts
// to it.
unsafe impl Send for QpHandle {}
// SAFETY: what `&QpHandle` does (read the number, move to the error state) libibverbs allows from
// several threads at a time.
unsafe impl Sync for QpHandle {}

impl QpHandle {
    pub(super) fn create(rail: &Arc<Rail>) -> Result<Self, VerbsLaneError> {
        let reclaimer = QpReclaimer::new(rail);
        let (send_wr, send_sge) = match rail.side() {
            Side::Reader => (rail.depth(), rail.sges()),
            Side::Producer => (1, 1),
        };
        // SAFETY: integers, pointers and an Option-free struct, for which zero is a value.
        let mut init: sys::ibv_qp_init_attr_ex = unsafe { mem::zeroed() };
        init.qp_context = Arc::as_ptr(reclaimer.tag()).cast_mut().cast();
        init.send_cq = rail.cq().as_ptr();
        init.recv_cq = rail.cq().as_ptr();
        init.cap.max_send_wr = send_wr;
        init.cap.max_send_sge = send_sge;
        init.qp_type = sys::ibv_qp_type::IBV_QPT_RC;
        init.pd = rail.qp_domain();
        let pd = sys::ibv_qp_init_attr_mask::IBV_QP_INIT_ATTR_PD.0;
        // A QP for READs alone: mlx5 then keeps 64 bytes per wr instead of 256.
        init.comp_mask = pd | sys::ibv_qp_init_attr_mask::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.0;
        init.send_ops_flags = sys::ibv_qp_create_send_ops_flags::IBV_QP_EX_WITH_RDMA_READ.0.into();
        let context = rail.context();
        // SAFETY: an open context, and a local that names a domain and queues of it.
        let raw = unsafe { sys::ibv_create_qp_ex(context.as_ptr(), &raw mut init) };
        let raw = match NonNull::new(raw) {
            Some(raw) => raw,
            None => {
                init.comp_mask = pd;
                init.send_ops_flags = 0;
                // SAFETY: as above.
                let raw = unsafe { sys::ibv_create_qp_ex(context.as_ptr(), &raw mut init) };
                context.some("ibv_create_qp", raw)?
            }
        };
        Ok(Self { raw, reclaimer: ManuallyDrop::new(reclaimer) })
    }

    pub(crate) const fn as_ptr(&self) -> *mut sys::ibv_qp {
        self.raw.as_ptr()
    }

    #[cfg(feature = "mlx5")]
    pub(crate) const fn raw(&self) -> NonNull<sys::ibv_qp> {
        self.raw
    }

    pub(crate) fn rail(&self) -> &Arc<Rail> {
        self.reclaimer.rail()
    }

    pub(crate) fn tag(&self) -> &Arc<LaneTag> {
        self.reclaimer.tag()
    }

    pub(crate) fn number(&self) -> u32 {
        // SAFETY: a live QP; its number does not change.
        unsafe { (*self.as_ptr()).qp_num }
    }

    pub(super) fn modify(
        &self,
        attr: &mut sys::ibv_qp_attr,
        fields: bits,
        to: &'static str,
    ) -> Result<(), VerbsLaneError> {
        // The C signature takes the mask as an int.
        // SAFETY: a live QP and a local; libibverbs serialises changes of a QP's state in the
        // kernel.
        let errno = unsafe { sys::ibv_modify_qp(self.as_ptr(), attr, fields.0.cast_signed()) };
        if errno == 0 {
            return Ok(());
        }
        Err(VerbsLaneError::Step { rail: self.rail().name().into(), to, errno: Errno(errno.abs()) })
    }

    /// Moves the QP to the error state: nothing new is executed, and outstanding wrs are flushed.
    /// Blocks in the kernel.
    pub(crate) fn fail(&self) -> Result<(), VerbsLaneError> {
        let mut attr = attr(sys::ibv_qp_state::IBV_QPS_ERR);
        self.modify(&mut attr, bits::IBV_QP_STATE, "error")
    }

    /// Destroys the QP now. It writes no more when this returns `Ok`. Blocks in the kernel.
    pub(crate) fn destroy(self) -> Result<(), Errno> {
        ManuallyDrop::new(self).destroy_once()
    }

    /// Called once, by an owner that does not use the handle any more.
    fn destroy_once(&mut self) -> Result<(), Errno> {
        // SAFETY: `destroy` and `drop` each end the handle, and only one of them runs: `reclaimer`
        // is taken once.
        let reclaimer = unsafe { ManuallyDrop::take(&mut self.reclaimer) };
        // SAFETY: made by `create` with what `reclaimer` holds, and destroyed once, as above.
        // Nothing posts to it: a lane does only while its provider has the handle, and the provider
        // gives the handle away when the lane is closed.
        unsafe { reclaimer.reclaim(self.raw) }
    }
}

impl Drop for QpHandle {
    fn drop(&mut self) {
        // `reclaim` has logged a failure.
        let _ = self.destroy_once();
    }
}

impl fmt::Debug for QpHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QP {:#x} of {}", self.number(), self.rail().name())
    }
}

/// Attributes that name a state and nothing else.
pub(super) fn attr(state: sys::ibv_qp_state::Type) -> sys::ibv_qp_attr {
    // SAFETY: integers, for which zero is a value.
    let mut attr: sys::ibv_qp_attr = unsafe { mem::zeroed() };
    attr.qp_state = state;
    attr
}
