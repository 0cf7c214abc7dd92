//! What a model refuses.

use kvrail_core::id::RailIndex;

use super::config::SimLaneSpec;
use super::handle::PeerHandle;
use super::limits::{PLANS, PROTECTIONS};

/// The rails do not fit the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimConfigError {
    /// None, or too many.
    #[error("{rails} rails in a storage for 1 to {room}")]
    Rails {
        /// Asked for.
        rails: usize,
        /// The storage's.
        room: usize,
    },
    /// No completion queue entries, or too many.
    #[error("rail {rail} asks for {entries} completion queue entries in a storage for 1 to {room}")]
    CqEntries {
        /// Which rail.
        rail: usize,
        /// Asked for.
        entries: u32,
        /// The storage's.
        room: usize,
    },
}

impl SimConfigError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Rails { .. } => 9000,
            Self::CqEntries { .. } => 9001,
        }
    }
}

/// No room for one more peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage's {room} peers are in use: make it a larger SimStorage")]
pub struct SimPeerError {
    /// The storage's.
    pub room: usize,
}

impl SimPeerError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self { .. } => 9010,
        }
    }
}

/// Memory that cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimMemoryError {
    /// The peer publishes as much as it may.
    #[error("{peer:?} publishes 4 memories already: revoke one first")]
    Full {
        /// Which.
        peer: PeerHandle,
    },
    /// The end is beyond 2^64.
    #[error("{len} bytes at {base:#x} do not fit a 64-bit address space")]
    Range {
        /// First byte.
        base: u64,
        /// Bytes.
        len: u64,
    },
}

impl SimMemoryError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Full { .. } => 9020,
            Self::Range { .. } => 9021,
        }
    }
}

/// A lane that cannot be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimConnectError {
    /// No such local rail.
    #[error("rail {} of {rails}", rail.0)]
    NoRail {
        /// Asked for.
        rail: RailIndex,
        /// How many there are.
        rails: usize,
    },
    /// A rail between the two is down.
    #[error("no path from rail {} to rail {} of {peer:?}: one of the two is down", rail.0, remote_rail.0)]
    Unreachable {
        /// Ours.
        rail: RailIndex,
        /// Whom to.
        peer: PeerHandle,
        /// Theirs.
        remote_rail: RailIndex,
    },
    /// Every lane of the storage is in use, or hangs in its close.
    #[error("the storage's {lanes} lanes are in use: close some, or make it a larger SimStorage")]
    Full {
        /// The storage's.
        lanes: usize,
    },
    /// A send queue of nothing, or deeper than the storage's, or no READ in flight.
    #[error("{spec:?} in a storage for send queues of 1 to {depth} entries; rd_atomic is at least 1")]
    Spec {
        /// Asked for.
        spec: SimLaneSpec,
        /// The storage's.
        depth: usize,
    },
}

impl SimConnectError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoRail { .. } => 9030,
            Self::Unreachable { .. } => 9031,
            Self::Full { .. } => 9032,
            Self::Spec { .. } => 9033,
        }
    }
}

/// No room for one more plan of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a model remembers {room} {what} at a time")]
pub struct SimFull {
    what: &'static str,
    room: usize,
}

impl SimFull {
    pub(super) const SCRIPTS: Self = Self { what: "scripted fates", room: PLANS };
    pub(super) const PLANS: Self = Self { what: "planned actions", room: PLANS };
    pub(super) const PROTECTIONS: Self = Self { what: "protected ranges", room: PROTECTIONS };

    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self { .. } => 9040,
        }
    }
}
