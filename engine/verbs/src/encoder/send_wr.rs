//! The encoder for every device: it passes chains of `ibv_send_wr` to the driver's `post_send`.
#![allow(unsafe_code, reason = "ibv_post_send")]

use std::fmt;
use std::ptr;

use kvrail_core::id::WrId;
use kvrail_core::provider::{Commit, Ends, KeyedEnds, KeyedReads, Piece, Post, Read, UniformReads};
use kvrail_core::verbs_abi::{Posting, SendFlags, SendWr, Sge};
use rdma_mummy_sys as sys;

use super::contract::{Encoder, EncoderPost};
use super::templates::{CHAIN, SGES, Templates};
use crate::device::context::PostSend;
use crate::error::{Errno, VerbsLaneError};
use crate::qp::handle::QpHandle;

/// Encodes by core's [`Chain`](kvrail_core::verbs_abi::Chain) of work request templates, which all
/// lanes of the thread share.
#[derive(Debug)]
pub struct SendWrEncoder {
    templates: Templates,
}

/// The QP of a lane, and the driver's function that takes its chains.
pub struct SendWrQueue {
    pub(crate) qp: *mut sys::ibv_qp,
    pub(crate) post_send: PostSend,
}

// SAFETY: the QP may be posted to from any thread, by one at a time: the owner of the queue.
unsafe impl Send for SendWrQueue {}

impl SendWrQueue {
    /// Posts a chain. `bad_wr` is null unless the driver sets it.
    ///
    /// # Safety
    ///
    /// The QP has not been destroyed; `head` is a chain of live wrs.
    #[inline]
    unsafe fn post(&mut self, head: *mut SendWr) -> (i32, *mut SendWr) {
        let mut bad_wr = ptr::null_mut();
        // SAFETY: the QP is alive by the caller's promise, and this is its context's function; a
        // SendWr is an ibv_send_wr byte for byte (abi.rs); no other thread posts, since `self` is
        // borrowed mutably.
        let errno = unsafe { (self.post_send)(self.qp, head.cast(), &raw mut bad_wr) };
        (errno, bad_wr.cast())
    }
}

impl fmt::Debug for SendWrQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendWrQueue").field("qp", &self.qp).finish_non_exhaustive()
    }
}

impl SendWrEncoder {
    pub(crate) fn new() -> Self {
        Self { templates: Templates::new() }
    }
}

// SAFETY: the promises of `Encoder`:
// - A READ is one ibv_send_wr with its descriptor's local range as one sge, or its pieces as
//   several. An RC QP executes READs in order and completes them in order, and a completion is in
//   the queue after its data (IBTA vol. 1, 9.5, 10.8.3; libibverbs' ibv_poll_cq).
// - `drain` posts a signaled wr, and a send queue is worked off in the order of posting.
// - The driver's bad_wr is the first wr that was not queued (ibv_post_send's contract). Where it is
//   null, or no wr of the chain, the chain says `Commit::Unknown`. Only `commit` calls the driver.
// - A queue holds the pointer of the QP that it was opened on, and `post` uses no other.
unsafe impl Encoder for SendWrEncoder {
    const CHAIN: usize = CHAIN;
    const SGES: usize = SGES;
    type Queue = SendWrQueue;
    type Post<'a> = SendWrPost<'a>;

    fn open(&mut self, qp: &QpHandle) -> Result<SendWrQueue, VerbsLaneError> {
        let context = qp.rail().context();
        let post_send =
            context.post_send().ok_or_else(|| context.error("ibv_post_send", Errno(libc::EOPNOTSUPP)))?;
        Ok(SendWrQueue { qp: qp.as_ptr(), post_send })
    }

    #[inline]
    unsafe fn begin<'a>(&'a mut self, queue: &'a mut SendWrQueue) -> SendWrPost<'a> {
        SendWrPost { posting: self.templates.chain().begin(), queue }
    }

    unsafe fn drain(&mut self, queue: &mut SendWrQueue, wr_id: WrId) -> Result<(), i32> {
        let mut sge = Sge::default();
        let mut wr = SendWr {
            wr_id: wr_id.0,
            sg_list: &raw mut sge,
            // No piece of memory: some devices take a length of 0 for 2^31.
            num_sge: 0,
            send_flags: SendFlags::SIGNALED,
            ..SendWr::EMPTY
        };
        // SAFETY: the caller's promise; a chain of one local wr.
        let (errno, _) = unsafe { queue.post(&raw mut wr) };
        if errno == 0 { Ok(()) } else { Err(errno) }
    }
}

/// A chain being encoded.
#[derive(Debug)]
pub struct SendWrPost<'a> {
    posting: Posting<'a, 'static, CHAIN, SGES>,
    queue: &'a mut SendWrQueue,
}

impl Post for SendWrPost<'_> {
    #[inline]
    fn read(&mut self, read: Read) {
        self.posting.push(&read);
    }

    #[inline]
    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        self.posting.push_uniform(&reads, ends);
    }

    #[inline]
    fn read_keyed(&mut self, reads: KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        self.posting.push_keyed(&reads, ends);
    }

    #[inline]
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        self.posting.push_scattered(&read, pieces);
    }

    #[inline]
    fn commit(self) -> Commit {
        let Self { posting, queue } = self;
        // SAFETY: the caller of `begin` promised that the QP lives as long as this commit; the head
        // of the chain's live templates. That the memory may be written was promised to `begin`,
        // too.
        posting.post(|head| unsafe { queue.post(head) })
    }
}

impl EncoderPost for SendWrPost<'_> {
    #[inline]
    fn wrs(&self) -> usize {
        self.posting.len()
    }
}
