//! READ descriptors, and a commit of them.

use crate::id::WrId;

/// One one-sided READ: `len` bytes at `remote_addr` of the peer's memory into `local_addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Comes back in the completion.
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
    /// Whether success must be told. Failure always is.
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

/// What READs have in common that go from one remote region into one local one, with one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniformReads {
    /// Of the first of them; the others' follow it ([`WrId::nth`]).
    pub wr_id: WrId,
    /// Bytes of each, at least 1.
    pub len: u32,
    /// The peer's key for the remote region on the peer's rail.
    pub rkey: u32,
    /// The local key of the destination region on this rail.
    pub lkey: u32,
}

impl UniformReads {
    /// The READ number `i` of them, between these addresses.
    #[inline]
    #[must_use]
    pub const fn read(&self, i: u32, ends: Ends, signaled: bool) -> Read {
        let (Self { wr_id, len, rkey, lkey }, Ends { remote_addr, local_addr }) = (*self, ends);
        Read { wr_id: wr_id.nth(i), remote_addr, local_addr, len, rkey, lkey, signaled }
    }
}

/// Where the bytes of a READ come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Address in the peer's memory.
    pub remote_addr: u64,
    /// Address in local registered memory.
    pub local_addr: u64,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Every descriptor was accepted.
    All,
    /// Only the first `accepted` were. The lane is done for: the engine fails it.
    Prefix {
        /// How many were accepted.
        accepted: u32,
        /// The provider's errno.
        errno: i32,
    },
    /// An error that does not say what was accepted: all of it counts as posted.
    Unknown {
        /// The provider's errno.
        errno: i32,
    },
}

/// A commit being built on one lane. Dropping it posts nothing.
pub trait Post {
    /// Adds one descriptor. The engine adds at most [`Provider::CHAIN`](super::Provider::CHAIN) to
    /// a commit.
    fn read(&mut self, read: Read);

    /// Adds descriptors that have all but their addresses in common, in this order. The last is
    /// signaled.
    ///
    /// What is the same for all of them is worked out once by an encoder that does this by itself.
    #[inline]
    fn read_uniform(&mut self, reads: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        let mut left = ends.len();
        for (i, ends) in (0..).zip(ends) {
            left -= 1;
            self.read(reads.read(i, ends, left == 0));
        }
    }

    /// One descriptor with the bytes scattered over `pieces`, in their order: 2 to
    /// [`Provider::sges`](super::Provider::sges) of them, all by the key of `read`, together as
    /// long as it. `read.local_addr` is the first one's.
    ///
    /// Counts as one descriptor of the commit. Called on providers that take several pieces only.
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        let _ = (read, pieces);
        unreachable!("who says that a READ may have several pieces takes them");
    }

    /// Rings the doorbell, once.
    #[must_use]
    fn commit(self) -> Commit;
}
