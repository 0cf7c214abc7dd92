//! READ descriptors, and the commit that hands them to a provider together.

use crate::id::WrId;

/// The descriptor of a one-sided READ: `len` bytes at `remote_addr` of the peer's memory go to
/// `local_addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The name that comes back in the completion.
    pub wr_id: WrId,
    /// Address in the peer's memory.
    pub remote_addr: u64,
    /// Address in local registered memory.
    pub local_addr: u64,
    /// Bytes, at least 1.
    pub len: u32,
    /// The peer's key for the remote region on the peer's rail.
    pub rkey: u32,
    /// The local key of the destination region on this rail.
    pub lkey: u32,
    /// Whether a success must be reported. A failure always is.
    pub signaled: bool,
}

/// A piece of local registered memory: where some of a READ's bytes go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Address in local registered memory.
    pub addr: u64,
    /// Bytes, at least 1.
    pub len: u32,
}

/// The common fields of READs of one length from one remote region into one local region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniformReads {
    /// The name of the first READ; the names of the others follow it ([`WrId::nth`]).
    pub wr_id: WrId,
    /// Bytes of each READ, at least 1.
    pub len: u32,
    /// The peer's key for the remote region on the peer's rail.
    pub rkey: u32,
    /// The local key of the destination region on this rail.
    pub lkey: u32,
}

impl UniformReads {
    /// READ number `i`, from 0, between the addresses in `ends`.
    #[inline]
    #[must_use]
    pub const fn read(&self, i: u32, ends: Ends, signaled: bool) -> Read {
        let (Self { wr_id, len, rkey, lkey }, Ends { remote_addr, local_addr }) = (*self, ends);
        Read { wr_id: wr_id.nth(i), remote_addr, local_addr, len, rkey, lkey, signaled }
    }
}

/// The two addresses of a READ: where its bytes come from, and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Address in the peer's memory.
    pub remote_addr: u64,
    /// Address in local registered memory.
    pub local_addr: u64,
}

/// The common fields of READs of one length, each between regions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedReads {
    /// The name of the first READ; the names of the others follow it ([`WrId::nth`]).
    pub wr_id: WrId,
    /// Bytes of each READ, at least 1.
    pub len: u32,
    /// How many there are.
    pub count: u32,
    /// Whether the last one is signaled. The others are not.
    pub signaled: bool,
}

impl KeyedReads {
    /// READ number `i`, from 0, between `ends`.
    #[inline]
    #[must_use]
    pub const fn read(&self, i: u32, ends: KeyedEnds) -> Read {
        let Self { wr_id, len, count, signaled } = *self;
        let KeyedEnds { remote_addr, rkey, local_addr, lkey } = ends;
        let signaled = signaled && i + 1 == count;
        Read { wr_id: wr_id.nth(i), remote_addr, local_addr, len, rkey, lkey, signaled }
    }
}

/// The two addresses of a READ, each with the key of its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedEnds {
    /// Address in the peer's memory.
    pub remote_addr: u64,
    /// The peer's key for the remote region on the peer's rail.
    pub rkey: u32,
    /// Address in local registered memory.
    pub local_addr: u64,
    /// The local key of the destination region on this rail.
    pub lkey: u32,
}

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "what was accepted decides whose the memory is: each must be answered"
)]
pub enum Commit {
    /// Every descriptor was accepted.
    All,
    /// Only the first `accepted` descriptors were accepted. The engine fails the lane.
    Prefix {
        /// How many descriptors were accepted.
        accepted: u32,
        /// The provider's errno.
        errno: i32,
    },
    /// The error does not say how many descriptors were accepted, so the engine counts all of them
    /// as posted, and fails the lane.
    Unknown {
        /// The provider's errno.
        errno: i32,
    },
}

/// A commit that is being built on one lane. Dropping it posts nothing.
pub trait Post {
    /// Adds one descriptor. The engine adds at most [`Provider::CHAIN`](super::Provider::CHAIN) to
    /// a commit.
    fn read(&mut self, read: Read);

    /// Adds descriptors that differ only in their addresses and names, in this order. The last one
    /// is signaled. An encoder may implement this method to encode the common fields once.
    #[inline]
    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        let mut left = ends.len();
        for (i, ends) in (0..).zip(ends) {
            left -= 1;
            self.read(reads.read(i, ends, left == 0));
        }
    }

    /// Adds `reads.count` descriptors of one length, in this order: the first as many of `ends`,
    /// which has as many. An encoder may implement this method to encode them in a loop of its own.
    #[inline]
    fn read_keyed(&mut self, reads: KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        for (i, ends) in (0..reads.count).zip(ends) {
            self.read(reads.read(i, ends));
        }
    }

    /// Adds one descriptor whose bytes are scattered over `pieces`, in their order. There are 2 to
    /// [`Provider::sges`](super::Provider::sges) pieces, all registered under `read.lkey`; their
    /// lengths add up to `read.len`, and `read.local_addr` is the address of the first. Pieces of
    /// one READ may overlap where [`Provider::read_overhead`](super::Provider::read_overhead) is
    /// not 0: nothing reads what lies there.
    ///
    /// It counts as one descriptor of the commit. The engine calls it only if `sges` is greater
    /// than 1.
    ///
    /// # Panics
    ///
    /// The default panics: a provider whose `sges` is greater than 1 implements this method.
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        let _ = (read, pieces);
        unreachable!("a provider whose `sges` is greater than 1 implements `scatter`");
    }

    /// Posts the descriptors, and rings the doorbell once.
    #[must_use]
    fn commit(self) -> Commit;
}
