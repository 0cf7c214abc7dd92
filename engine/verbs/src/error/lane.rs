//! Why a lane could not be made or opened.

use kvrail_host::secret::RandomError;

use super::{Errno, RailError};
use crate::device::gid::GidKind;
use crate::wire::{LinkLayer, WireError};

/// Why a lane could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbsLaneError {
    /// The caller named a rail that this side does not have.
    #[error("there is no rail {rail}: this side has {rails}, counted from 0")]
    NoSuchRail {
        /// The requested rail.
        rail: u8,
        /// How many rails there are.
        rails: usize,
    },
    /// The peer's 64 bytes do not describe a rail or a lane's end.
    #[error("the peer's 64 bytes: {0}")]
    Wire(WireError),
    /// The two ports cannot reach each other.
    #[error("unreachable: {0}")]
    Unreachable(Unreachable),
    /// The rail cannot be used at the moment.
    #[error(transparent)]
    Rail(#[from] RailError),
    /// A QP could not be made or moved to its next state.
    // The session sends the first 64 bytes of this text to the peer.
    #[error("{rail}: QP to {to}: {errno}{}", step_hint(*.errno))]
    Step {
        /// The rail.
        rail: String,
        /// The state to which the QP was to move.
        to: &'static str,
        /// The kernel's or driver's reason.
        errno: Errno,
    },
    /// The rail has as many lanes as its completion queue has room for.
    #[error(
        "rail {rail} has {lanes} lanes, and its completion queue has room for no more: close lanes, or start \
         with a larger cq_entries"
    )]
    RailFull {
        /// The rail.
        rail: u8,
        /// How many lanes it has.
        lanes: usize,
    },
    /// The system gave no random number for the first packet number (PSN).
    #[error("the system gave no random number for a lane's first packet number: {0}")]
    Random(RandomError),
}

impl VerbsLaneError {
    pub(crate) fn no_such_rail(rail: usize, rails: usize) -> Self {
        // Rails are at most 16, so no number above 255 comes from a caller that counts them.
        Self::NoSuchRail { rail: u8::try_from(rail).unwrap_or(u8::MAX), rails }
    }

    /// The code of this error, or of the one inside: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoSuchRail { .. } => 5050,
            Self::Wire(error) => error.code(),
            Self::Unreachable(error) => error.code(),
            Self::Rail(error) => error.code(),
            Self::Step { .. } => 5051,
            Self::RailFull { .. } => 5052,
            Self::Random(_) => 5053,
        }
    }
}

// The text of this error holds the inner error's text, so the inner error is not its `source`: a
// caller that prints the chain of sources prints each text once.
impl From<WireError> for VerbsLaneError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<Unreachable> for VerbsLaneError {
    fn from(error: Unreachable) -> Self {
        Self::Unreachable(error)
    }
}

fn step_hint(errno: Errno) -> &'static str {
    match errno.0 {
        libc::ETIMEDOUT | libc::ENETUNREACH | libc::EHOSTUNREACH => {
            "; the kernel finds no way to the peer's address: check routes and neighbours (ip route get, ip neigh)"
        }
        libc::EINVAL => "; the device refuses the path: MTU, GID index or partition do not fit",
        _ => "",
    }
}

/// Why two ports cannot talk to each other, as far as their addresses tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// One port is InfiniBand, the other Ethernet.
    #[error("this side's port is {ours}, the peer's is {theirs}: name ports of one kind")]
    LinkLayer {
        /// This side's link layer.
        ours: LinkLayer,
        /// The peer's link layer.
        theirs: LinkLayer,
    },
    /// The two ports have no kind of address in common.
    #[error("the ports have no kind of address in common: this side has {ours:?}, the peer has {theirs:?}")]
    Kinds {
        /// The kinds that this side has.
        ours: Vec<GidKind>,
        /// The kinds that the peer has.
        theirs: Vec<GidKind>,
    },
    /// The two ports are not members of one partition, or both are limited members of it.
    #[error(
        "this side is in partition {ours:#06x}, the peer in {theirs:#06x}: set pkey_index to a common one"
    )]
    Partition {
        /// This side's partition key.
        ours: u16,
        /// The peer's partition key.
        theirs: u16,
    },
}

impl Unreachable {
    /// The code of this error: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::LinkLayer { .. } => 5070,
            Self::Kinds { .. } => 5071,
            Self::Partition { .. } => 5072,
        }
    }
}
