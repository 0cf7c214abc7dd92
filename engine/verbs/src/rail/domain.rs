//! Protection domains: the one that memory is registered in, and the one that QPs are made in.
#![allow(unsafe_code, reason = "libibverbs")]

use std::ptr::{self, NonNull};

use rdma_mummy_sys as sys;

use crate::device::context::Context;
use crate::error::RailError;

/// A protection domain. Where the device can, QPs are made in a parent domain of it with a thread
/// domain of its own: then posting takes no lock of the library's.
pub(super) struct Domain {
    context: NonNull<sys::ibv_context>,
    pd: NonNull<sys::ibv_pd>,
    parent: Option<(NonNull<sys::ibv_pd>, NonNull<sys::ibv_td>)>,
}

// SAFETY: libibverbs allows its objects to be used from any thread; what must not be used by two at
// a time (the QPs of a thread domain, posted to) is guarded by their owners.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    pub(super) fn new(context: &Context, own_thread: bool) -> Result<Self, RailError> {
        // SAFETY: an open context.
        let pd = unsafe { sys::ibv_alloc_pd(context.as_ptr()) };
        let pd = context.some("ibv_alloc_pd", pd)?;
        let mut this = Self { context: context.raw(), pd, parent: None };
        if own_thread {
            this.parent = this.parent();
        }
        Ok(this)
    }

    /// A parent domain with its thread domain. `None` where the device has none: posting takes an
    /// uncontended lock then.
    fn parent(&self) -> Option<(NonNull<sys::ibv_pd>, NonNull<sys::ibv_td>)> {
        let mut init = sys::ibv_td_init_attr { comp_mask: 0 };
        // SAFETY: an open context, and a local.
        let td = NonNull::new(unsafe { sys::ibv_alloc_td(self.context.as_ptr(), &raw mut init) })?;
        let mut init = sys::ibv_parent_domain_init_attr {
            pd: self.pd.as_ptr(),
            td: td.as_ptr(),
            comp_mask: 0,
            alloc: None,
            free: None,
            pd_context: ptr::null_mut(),
        };
        // SAFETY: an open context, and a local that names a PD and a TD of it.
        let parent = unsafe { sys::ibv_alloc_parent_domain(self.context.as_ptr(), &raw mut init) };
        match NonNull::new(parent) {
            Some(parent) => Some((parent, td)),
            None => {
                // SAFETY: allocated just now, and in no parent domain.
                unsafe { sys::ibv_dealloc_td(td.as_ptr()) };
                None
            }
        }
    }

    /// The protection domain that memory is registered in.
    pub(super) fn pd(&self) -> *mut sys::ibv_pd {
        self.pd.as_ptr()
    }

    /// Whether posting to QPs of this domain takes no lock of the library's.
    pub(super) const fn has_thread_domain(&self) -> bool {
        self.parent.is_some()
    }

    /// The domain that QPs are made in.
    pub(super) fn for_qps(&self) -> *mut sys::ibv_pd {
        self.parent.map_or(self.pd, |(parent, _)| parent).as_ptr()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        if let Some((parent, td)) = self.parent {
            // SAFETY: allocated in `parent`; the QPs made in it hold an Arc of the rail, so they
            // are gone.
            unsafe { sys::ibv_dealloc_pd(parent.as_ptr()) };
            // SAFETY: allocated in `parent`; the parent domain that it was in is gone.
            unsafe { sys::ibv_dealloc_td(td.as_ptr()) };
        }
        // SAFETY: allocated in `new`; MRs and QPs hold an Arc of the rail, so they are gone.
        let errno = unsafe { sys::ibv_dealloc_pd(self.pd.as_ptr()) };
        if errno != 0 {
            tracing::warn!(errno, "a protection domain was not released");
        }
    }
}
