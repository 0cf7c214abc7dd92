//! The encoder that the configuration chooses, at run time.
#![allow(unsafe_code, reason = "passes on the promises of two encoders")]

use std::sync::Arc;

use kvrail_core::id::{RailIndex, WrId};
use kvrail_core::provider::{Commit, Ends, KeyedEnds, KeyedReads, Piece, Post, Read, UniformReads};
use kvrail_core::verbs_abi::Wc;

use super::contract::{Encoder, EncoderPost};
use super::mlx5::{Mlx5Encoder, Mlx5Post, Mlx5Queue};
use super::send_wr::{SendWrEncoder, SendWrPost, SendWrQueue};
use super::templates::{CHAIN, SGES};
use crate::config::EncoderChoice;
use crate::cq::CqHandle;
use crate::error::VerbsLaneError;
use crate::qp::handle::QpHandle;
use crate::rail::Rail;

/// One encoder or the other, for all lanes of an engine: a commit costs a branch for each call.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "it cannot be made outside of this crate")]
pub enum ChosenEncoder {
    /// By `ibv_post_send`.
    SendWr(SendWrEncoder),
    /// By mlx5 work queue entries.
    Mlx5(Box<Mlx5Encoder>),
}

/// The queue of a [`ChosenEncoder`].
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "it cannot be made outside of this crate")]
pub enum ChosenQueue {
    /// By `ibv_post_send`.
    SendWr(SendWrQueue),
    /// By mlx5 work queue entries.
    Mlx5(Mlx5Queue),
}

/// A commit of a [`ChosenEncoder`].
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "it cannot be made outside of this crate")]
pub enum ChosenPost<'a> {
    /// By `ibv_post_send`.
    SendWr(SendWrPost<'a>),
    /// By mlx5 work queue entries.
    Mlx5(Mlx5Post<'a>),
    /// On a queue of another encoder: posts nothing.
    Nothing,
}

impl ChosenEncoder {
    /// The encoder that the configuration of the rails asks for, or `ibv_post_send`, with the
    /// reason in the log.
    pub(crate) fn new(rails: &[Arc<Rail>]) -> Self {
        let wanted = rails.first().map(|rail| rail.config().encoder);
        if wanted != Some(EncoderChoice::Mlx5) {
            return Self::SendWr(SendWrEncoder::new());
        }
        match Mlx5Encoder::new(rails) {
            Ok(encoder) => {
                tracing::warn!("READs are posted by mlx5 entries: this encoder has met no ConnectX yet");
                Self::Mlx5(Box::new(encoder))
            }
            Err(reason) => {
                tracing::warn!(%reason, "READs are posted by ibv_post_send, not by mlx5 entries");
                Self::SendWr(SendWrEncoder::new())
            }
        }
    }
}

// SAFETY: the promises are those of the encoder inside, which gets its own queues only.
unsafe impl Encoder for ChosenEncoder {
    const CHAIN: usize = CHAIN;
    const SGES: usize = SGES;
    type Queue = ChosenQueue;
    type Post<'a> = ChosenPost<'a>;

    fn open(&mut self, qp: &QpHandle) -> Result<ChosenQueue, VerbsLaneError> {
        Ok(match self {
            Self::SendWr(encoder) => ChosenQueue::SendWr(encoder.open(qp)?),
            Self::Mlx5(encoder) => ChosenQueue::Mlx5(encoder.open(qp)?),
        })
    }

    #[inline]
    unsafe fn begin<'a>(&'a mut self, queue: &'a mut ChosenQueue) -> ChosenPost<'a> {
        match (self, queue) {
            (Self::SendWr(encoder), ChosenQueue::SendWr(queue)) => {
                // SAFETY: our caller's promise.
                ChosenPost::SendWr(unsafe { encoder.begin(queue) })
            }
            (Self::Mlx5(encoder), ChosenQueue::Mlx5(queue)) => {
                // SAFETY: our caller's promise.
                ChosenPost::Mlx5(unsafe { encoder.begin(queue) })
            }
            _ => ChosenPost::Nothing,
        }
    }

    unsafe fn drain(&mut self, queue: &mut ChosenQueue, wr_id: WrId) -> Result<(), i32> {
        match (self, queue) {
            // SAFETY: our caller's promise.
            (Self::SendWr(encoder), ChosenQueue::SendWr(queue)) => unsafe { encoder.drain(queue, wr_id) },
            // SAFETY: our caller's promise.
            (Self::Mlx5(encoder), ChosenQueue::Mlx5(queue)) => unsafe { encoder.drain(queue, wr_id) },
            _ => Err(libc::EINVAL),
        }
    }

    fn close(&mut self, queue: ChosenQueue) {
        match (self, queue) {
            (Self::SendWr(encoder), ChosenQueue::SendWr(queue)) => encoder.close(queue),
            (Self::Mlx5(encoder), ChosenQueue::Mlx5(queue)) => encoder.close(queue),
            _ => {}
        }
    }

    #[inline]
    fn poll(&mut self, rail: RailIndex, cq: &CqHandle, out: &mut [Wc]) -> Result<usize, i32> {
        match self {
            Self::SendWr(encoder) => encoder.poll(rail, cq, out),
            Self::Mlx5(encoder) => encoder.poll(rail, cq, out),
        }
    }

    fn arm(&mut self, rail: RailIndex, cq: &CqHandle) -> bool {
        match self {
            Self::SendWr(encoder) => encoder.arm(rail, cq),
            Self::Mlx5(encoder) => encoder.arm(rail, cq),
        }
    }
}

impl Post for ChosenPost<'_> {
    #[inline]
    fn read(&mut self, read: Read) {
        match self {
            Self::SendWr(post) => post.read(read),
            Self::Mlx5(post) => post.read(read),
            Self::Nothing => {}
        }
    }

    #[inline]
    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        match self {
            Self::SendWr(post) => post.read_uniform(reads, ends),
            Self::Mlx5(post) => post.read_uniform(reads, ends),
            Self::Nothing => {}
        }
    }

    #[inline]
    fn read_keyed(&mut self, reads: KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        match self {
            Self::SendWr(post) => post.read_keyed(reads, ends),
            Self::Mlx5(post) => post.read_keyed(reads, ends),
            Self::Nothing => {}
        }
    }

    #[inline]
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        match self {
            Self::SendWr(post) => post.scatter(read, pieces),
            Self::Mlx5(post) => post.scatter(read, pieces),
            Self::Nothing => {}
        }
    }

    #[inline]
    fn commit(self) -> Commit {
        match self {
            Self::SendWr(post) => post.commit(),
            Self::Mlx5(post) => post.commit(),
            Self::Nothing => Commit::Prefix { accepted: 0, errno: libc::EINVAL },
        }
    }
}

impl EncoderPost for ChosenPost<'_> {
    #[inline]
    fn wrs(&self) -> usize {
        match self {
            Self::SendWr(post) => post.wrs(),
            Self::Mlx5(post) => post.wrs(),
            Self::Nothing => 0,
        }
    }
}
