//! The contract of encoders: the calls that the provider makes, and the promises that it relies on.
#![allow(unsafe_code, reason = "an unsafe trait: memory is written on an encoder's word")]

use std::fmt;

use kvrail_core::id::{RailIndex, WrId};
use kvrail_core::provider::Post;
use kvrail_core::verbs_abi::Wc;

use crate::cq::CqHandle;
use crate::error::VerbsLaneError;
use crate::qp::handle::QpHandle;

/// Puts work requests into send queues, in the form that a device or its library takes.
///
/// A [`Verbs<E>`](crate::Verbs) has one encoder, for all lanes of its engine's thread: what commits
/// share (templates, scratch memory) belongs into the encoder and stays hot in that thread's cache.
/// What belongs to one lane is the [`Queue`](Self::Queue), which the provider keeps in the lane. An
/// encoder can be implemented in this crate only: the types of its arguments are not public.
///
/// | call | when |
/// |---|---|
/// | [`open`](Self::open) | once per lane, on a QP in RTS, before the first commit |
/// | [`begin`](Self::begin), `read` and its like, `commit` | for each commit |
/// | [`drain`](Self::drain) | once per lane, when it is in the error state |
/// | [`close`](Self::close) | once per lane, before its QP is destroyed |
/// | [`poll`](Self::poll), [`arm`](Self::arm) | for each rail's completion queue |
///
/// All calls come from one thread at a time. `read`, `read_uniform`, `scatter` and `commit` are
/// those of [`Post`].
///
/// The provider never has more wrs outstanding on a lane than the QP was made for, the drain
/// included, and adds at most [`CHAIN`](Self::CHAIN) to a commit. An encoder therefore need not
/// look for room.
///
/// # Safety
///
/// An encoder keeps those of the [promises of a provider](kvrail_core::provider::Provider#safety)
/// that rest on posting and polling:
///
/// - A committed READ writes to its descriptor's local range, or to its pieces, and nowhere else
///   (promise 1). It is executed and completes in the order of posting, and its success is
///   reported only when its data is in memory (2).
/// - The wr of [`drain`](Self::drain) is signaled and stands behind all wrs of the lane that were
///   posted before (3).
/// - [`Commit::Prefix`](kvrail_core::provider::Commit::Prefix) names exactly the wrs that the
///   device will execute. An encoder that cannot tell returns
///   [`Commit::Unknown`](kvrail_core::provider::Commit::Unknown) (6). A commit that is dropped
///   posts nothing.
/// - A [`Queue`](Self::Queue) posts to the QP that it was opened on and to no other (7). It keeps
///   neither the QP nor the encoder alive: it may be dropped after both, since an engine drops its
///   provider before its lanes, and a closed lane's QP is destroyed on another thread. So the drop
///   of a queue touches neither.
pub unsafe trait Encoder: fmt::Debug + Send + Sized + 'static {
    /// The most READs in one commit, at least 1.
    const CHAIN: usize;
    /// The most pieces of local memory that one READ may write, at least 1.
    const SGES: usize;
    /// The state that the encoder keeps for a lane: where it posts, and how far it has got.
    type Queue: fmt::Debug + Send;
    /// A commit being encoded.
    type Post<'a>: EncoderPost;

    /// Takes a lane's QP into use. The QP leads to its rail, and so to its context and its
    /// completion queue.
    ///
    /// # Errors
    ///
    /// The device or its library does not let this encoder post.
    fn open(&mut self, qp: &QpHandle) -> Result<Self::Queue, VerbsLaneError>;

    /// Begins a commit on a lane.
    ///
    /// # Safety
    ///
    /// The queue was opened by this encoder, and its QP has not been destroyed and is not while the
    /// commit lives. Each READ that is added and committed may be executed, as
    /// [`Provider::begin`](kvrail_core::provider::Provider::begin) has it.
    unsafe fn begin<'a>(&'a mut self, queue: &'a mut Self::Queue) -> Self::Post<'a>;

    /// Posts a signaled wr that moves no byte.
    ///
    /// # Errors
    ///
    /// The driver's errno; nothing was posted.
    ///
    /// # Safety
    ///
    /// The queue was opened by this encoder, and its QP has not been destroyed.
    unsafe fn drain(&mut self, queue: &mut Self::Queue, wr_id: WrId) -> Result<(), i32>;

    /// Gives a queue up. Its QP is destroyed afterwards. A queue may also be dropped without this
    /// call, when the provider ends.
    fn close(&mut self, queue: Self::Queue) {
        drop(queue);
    }

    /// Takes completions of `rail`, oldest first, into the front of `out`, and says how many.
    ///
    /// The default is the library's `ibv_poll_cq`, which finds the `wr_id` of what `ibv_post_send`
    /// has posted. An encoder that writes send queue entries by itself reads completion queue
    /// entries by itself, too.
    ///
    /// # Errors
    ///
    /// The driver reports that the queue has failed. Completions of the rail are lost from now on.
    #[inline]
    fn poll(&mut self, rail: RailIndex, cq: &CqHandle, out: &mut [Wc]) -> Result<usize, i32> {
        let _ = rail;
        cq.poll(out)
    }

    /// Arms the rail's queue, so that its next completion makes the rail's channel readable, and
    /// returns whether that worked. The default is `ibv_req_notify_cq`.
    fn arm(&mut self, rail: RailIndex, cq: &CqHandle) -> bool {
        let _ = rail;
        cq.arm()
    }
}

/// A commit being encoded on one lane. Dropping it posts nothing.
pub trait EncoderPost: Post {
    /// How many wrs it holds.
    fn wrs(&self) -> usize;
}
