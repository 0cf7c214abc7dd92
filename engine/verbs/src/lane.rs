//! A lane: a connected QP as the engine's thread has it, and a commit being built on it.
#![allow(unsafe_code, reason = "ibv_post_send")]

use std::fmt;
use std::ptr;

use kvrail_core::id::{LaneId, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{Commit, Ends, Piece, Post, Read, UniformReads};
use kvrail_core::verbs_abi::{IBV_SEND_SIGNALED, Posting, SendWr, Sge};
use rdma_mummy_sys as sys;

use crate::device::PostSend;
use crate::progress::Progress;
use crate::templates::{CHAIN, SGES};

/// A lane of [`Verbs`](crate::Verbs). Dropping one does not close it:
/// [`Provider::close`](kvrail_core::provider::Provider::close) does, or the end of the rails.
pub struct Lane {
    pub(crate) qp: *mut sys::ibv_qp,
    pub(crate) post_send: PostSend,
    /// Whose it is, and what it was opened as.
    pub(crate) provider: ProviderId,
    pub(crate) id: LaneId,
    pub(crate) rail: RailIndex,
    pub(crate) slot: u16,
    pub(crate) depth: u32,
}

// SAFETY: the QP may be posted to from any thread, by one at a time: that is what owning the lane means.
unsafe impl Send for Lane {}

impl Lane {
    /// Send queue entries, the drain's included.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// Posts a chain. `bad_wr` is null unless the driver sets it.
    ///
    /// # Safety
    ///
    /// The provider that opened the lane lives and has not closed it; `head` is a chain of live wrs.
    #[inline]
    unsafe fn post(&mut self, head: *mut SendWr) -> (i32, *mut SendWr) {
        let mut bad_wr = ptr::null_mut();
        // SAFETY: the QP is alive by the caller's promise, and this is its context's function; a SendWr is an
        // ibv_send_wr byte for byte (abi.rs); nobody else posts, since `self` is borrowed mutably.
        let errno = unsafe { (self.post_send)(self.qp, head.cast(), &raw mut bad_wr) };
        (errno, bad_wr.cast())
    }

    /// Posts a signaled READ of nothing.
    ///
    /// # Safety
    ///
    /// As for [`post`](Self::post).
    pub(crate) unsafe fn drain(&mut self, wr_id: WrId) -> Result<(), i32> {
        let mut sge = Sge::default();
        let mut wr = SendWr {
            wr_id: wr_id.0,
            sg_list: &raw mut sge,
            // No piece of memory: a length of 0 means 2^31 to some devices.
            num_sge: 0,
            send_flags: IBV_SEND_SIGNALED,
            ..SendWr::EMPTY
        };
        // SAFETY: the caller's promise; a chain of one local wr.
        let (errno, _) = unsafe { self.post(&raw mut wr) };
        if errno == 0 { Ok(()) } else { Err(errno) }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("rail", &self.rail)
            .field("id", &self.id)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// A commit being built.
#[derive(Debug)]
pub struct VerbsPost<'a> {
    pub(crate) posting: Posting<'a, 'static, CHAIN, SGES>,
    pub(crate) lane: &'a mut Lane,
    pub(crate) progress: &'a mut Progress,
}

impl Post for VerbsPost<'_> {
    #[inline]
    fn read(&mut self, read: Read) {
        self.posting.push(&read);
    }

    #[inline]
    fn read_uniform(&mut self, alike: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        self.posting.push_uniform(&alike, ends);
    }

    #[inline]
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        self.posting.push_scattered(&read, pieces);
    }

    #[inline]
    fn commit(self) -> Commit {
        let Self { posting, lane, progress } = self;
        progress.posted(lane.rail, posting.len());
        // SAFETY: `begin` borrowed provider and lane for as long as this commit lives, so neither is gone; the
        // head of the chain's live templates. That the memory may be written was promised to `begin`.
        posting.post(|head| unsafe { lane.post(head) })
    }
}

#[cfg(test)]
mod tests;
