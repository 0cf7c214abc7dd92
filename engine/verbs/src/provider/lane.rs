//! A lane, as the engine's thread uses it, and a commit on it.

use std::fmt;

use kvrail_core::id::{LaneId, ProviderId, RailIndex};
use kvrail_core::provider::{Commit, Ends, KeyedEnds, KeyedReads, Piece, Post, Read, UniformReads};

use super::progress::Progress;
use crate::connect::Counted;
use crate::encoder::{DefaultEncoder, Encoder, EncoderPost};

/// A lane of [`Verbs`](crate::Verbs). Dropping one does not close it:
/// [`Provider::close`](kvrail_core::provider::Provider::close) does, or the end of the provider.
pub struct VerbsLane<E: Encoder = DefaultEncoder> {
    pub(super) queue: E::Queue,
    /// The provider that opened it, and the id that the engine gave it.
    pub(super) provider: ProviderId,
    pub(super) id: LaneId,
    pub(super) rail: RailIndex,
    /// Its place in the provider's list of QPs.
    pub(super) slot: u16,
    pub(super) depth: u32,
    /// Its part in the balance of classes, by which its dialer chooses the class of the next lane.
    /// `None` where lanes are of no class, and once the lane has failed.
    pub(super) counted: Option<Counted>,
}

impl<E: Encoder> VerbsLane<E> {
    /// Send queue entries, the drain's included.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }
}

impl<E: Encoder> fmt::Debug for VerbsLane<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerbsLane")
            .field("rail", &self.rail)
            .field("id", &self.id)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// A commit being built by the encoder. Its wrs are counted when it is committed.
pub struct VerbsPost<'a, E: Encoder = DefaultEncoder> {
    pub(super) post: E::Post<'a>,
    pub(super) rail: RailIndex,
    pub(super) progress: &'a mut Progress,
}

impl<E: Encoder> Post for VerbsPost<'_, E> {
    #[inline]
    fn read(&mut self, read: Read) {
        self.post.read(read);
    }

    #[inline]
    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        self.post.read_uniform(reads, ends);
    }

    #[inline]
    fn read_keyed(&mut self, reads: KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        self.post.read_keyed(reads, ends);
    }

    #[inline]
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        self.post.scatter(read, pieces);
    }

    #[inline]
    fn commit(self) -> Commit {
        let Self { post, rail, progress } = self;
        progress.posted(rail, post.wrs());
        post.commit()
    }
}

impl<E: Encoder> fmt::Debug for VerbsPost<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerbsPost").field("rail", &self.rail).field("wrs", &self.post.wrs()).finish()
    }
}
