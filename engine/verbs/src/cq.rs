//! Completion queues, and the channel on which an engine sleeps until one has an entry.
//!
//! A queue keeps its library's lock. `IBV_CREATE_CQ_ATTR_SINGLE_THREADED` would remove it from
//! `ibv_start_poll` alone: in libmlx5 (`providers/mlx5/cq.c`) `ibv_poll_cq` takes it whatever the
//! flag says, and so does the removal of a destroyed QP's entries. A queue that is polled without
//! the lock could not be polled while one of its QPs is destroyed, which takes milliseconds. The
//! lock is uncontended at all other times and costs some ten nanoseconds a poll.
#![allow(unsafe_code, reason = "libibverbs")]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};

use kvrail_core::verbs_abi::Wc;
use rdma_mummy_sys as sys;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::device::context::{Context, PollCq};
use crate::error::{Errno, RailError};

/// A completion channel: readable when a queue that was armed has got an entry.
pub(crate) struct Channel {
    raw: NonNull<sys::ibv_comp_channel>,
}

// SAFETY: libibverbs allows the use of a channel from any thread.
unsafe impl Send for Channel {}
// SAFETY: as above; reading events is atomic in the kernel.
unsafe impl Sync for Channel {}

impl Channel {
    pub(crate) fn new(context: &Context) -> Result<Self, RailError> {
        // SAFETY: an open context.
        let raw = unsafe { sys::ibv_create_comp_channel(context.as_ptr()) };
        let this = Self { raw: context.some("ibv_create_comp_channel", raw)? };
        // Events are taken when the descriptor is readable. If it is not, the call must not block.
        let flags =
            fcntl_getfl(this.as_fd()).and_then(|flags| fcntl_setfl(this.as_fd(), flags | OFlags::NONBLOCK));
        flags.map_err(|e| RailError::System {
            what: "non-blocking completion channel",
            errno: Errno(e.raw_os_error()),
        })?;
        Ok(this)
    }

    /// Takes one event, if there is one. It must be acknowledged before the queue is destroyed.
    ///
    /// # Errors
    ///
    /// The channel reports no more events: its device is gone.
    pub(crate) fn take(&self) -> Result<bool, Errno> {
        let (mut cq, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a live channel, and two locals to write to.
        if unsafe { sys::ibv_get_cq_event(self.raw.as_ptr(), &raw mut cq, &raw mut context) } == 0 {
            return Ok(true);
        }
        match Errno::last() {
            Errno(libc::EAGAIN | libc::EINTR) => Ok(false),
            errno => Err(errno),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: a live channel.
        let fd = unsafe { (*self.raw.as_ptr()).fd };
        // SAFETY: the channel's own descriptor, open as long as the channel lives.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: made in `new`; the queue on it was destroyed before (the order of Rail's fields).
        unsafe { sys::ibv_destroy_comp_channel(self.raw.as_ptr()) };
    }
}

/// A completion queue.
pub struct CqHandle {
    raw: NonNull<sys::ibv_cq>,
    poll: PollCq,
    entries: u32,
}

// SAFETY: libibverbs allows a completion queue to be used from any thread, and from several at a
// time.
unsafe impl Send for CqHandle {}
// SAFETY: as above.
unsafe impl Sync for CqHandle {}

impl CqHandle {
    pub(crate) fn new(context: &Context, channel: Option<&Channel>, entries: u32) -> Result<Self, RailError> {
        let poll = context.poll_cq().ok_or_else(|| context.error("ibv_poll_cq", Errno(libc::EOPNOTSUPP)))?;
        let on = channel.map_or(ptr::null_mut(), |channel| channel.raw.as_ptr());
        let count = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: an open context, and a channel of it or none.
        let raw = unsafe { sys::ibv_create_cq(context.as_ptr(), count, ptr::null_mut(), on, 0) };
        let raw = context.some("ibv_create_cq", raw)?;
        // SAFETY: a live queue.
        let got = unsafe { (*raw.as_ptr()).cqe };
        let entries = u32::try_from(got).unwrap_or(entries).max(entries);
        Ok(Self { raw, poll, entries })
    }

    pub(crate) const fn as_ptr(&self) -> *mut sys::ibv_cq {
        self.raw.as_ptr()
    }

    #[cfg(feature = "mlx5")]
    pub(crate) const fn raw(&self) -> NonNull<sys::ibv_cq> {
        self.raw
    }

    pub(crate) const fn entries(&self) -> u32 {
        self.entries
    }

    /// Takes completions into the front of `out`, and says how many, or the driver's error.
    #[inline]
    pub(crate) fn poll(&self, out: &mut [Wc]) -> Result<usize, i32> {
        let room = i32::try_from(out.len()).unwrap_or(i32::MAX);
        // SAFETY: a live queue of the context whose function this is; `out` has `room` places, and
        // a Wc is an ibv_wc byte for byte (abi.rs) of which every value is valid. Its provider
        // library locks the queue.
        let n = unsafe { (self.poll)(self.as_ptr(), room, out.as_mut_ptr().cast()) };
        usize::try_from(n).map(|n| n.min(out.len())).map_err(|_| n)
    }

    /// Arms the queue: its next completion makes the channel readable. Returns whether that worked.
    pub(crate) fn arm(&self) -> bool {
        // SAFETY: a live queue. Arming writes to words of its own, and may be done while others
        // poll.
        unsafe { sys::ibv_req_notify_cq(self.as_ptr(), 0) == 0 }
    }

    /// Acknowledges events of the channel.
    pub(crate) fn acknowledge(&self, events: u32) {
        // SAFETY: a live queue; as many events as were taken.
        unsafe { sys::ibv_ack_cq_events(self.as_ptr(), events) };
    }
}

impl fmt::Debug for CqHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "completion queue of {} entries", self.entries)
    }
}

impl Drop for CqHandle {
    fn drop(&mut self) {
        // SAFETY: made in `new`; QPs on it hold an Arc of the rail, so they are gone, and events of
        // it have been acknowledged by the RailQueue that took them.
        let errno = unsafe { sys::ibv_destroy_cq(self.as_ptr()) };
        if errno != 0 {
            tracing::warn!(errno, "a completion queue was not destroyed");
        }
    }
}
