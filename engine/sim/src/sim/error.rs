//! Why a model cannot be built, or cannot take a peer, a memory, a lane or a plan.

use kvrail_core::id::RailIndex;

use super::config::SimLaneSpec;
use super::handle::PeerHandle;
use super::limits::{PLANS, PROTECTIONS};

/// Why the rails do not fit the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimConfigError {
    /// There is no rail, or there are too many.
    #[error("the storage has room for 1 to {room} rails, and not for {rails}")]
    Rails {
        /// The requested number of rails.
        rails: usize,
        /// The most rails of the storage.
        room: usize,
    },
    /// A completion queue has no entries, or too many.
    #[error(
        "rail {rail} cannot have {entries} completion queue entries: the storage has room for 1 to {room}"
    )]
    CqEntries {
        /// The rail.
        rail: usize,
        /// The requested entries.
        entries: u32,
        /// The most entries for each rail in the storage.
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

/// The storage has no room for another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {room} peers of the storage are in use: take a larger SimStorage")]
pub struct SimPeerError {
    /// The most peers of the storage.
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

/// Why memory cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimMemoryError {
    /// The peer publishes as many memories as it may.
    #[error("{peer:?} publishes 4 memories already: revoke one first")]
    Full {
        /// The peer.
        peer: PeerHandle,
    },
    /// The end of the memory is beyond 2^64.
    #[error("{len} bytes at {base:#x} do not fit a 64-bit address space")]
    Range {
        /// The address of the first byte.
        base: u64,
        /// How many bytes.
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

/// Why a lane cannot be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimConnectError {
    /// There is no such local rail.
    #[error("there is no rail {}: the model has {rails}, numbered from 0", rail.0)]
    NoRail {
        /// The requested rail.
        rail: RailIndex,
        /// How many rails the model has.
        rails: usize,
    },
    /// The local rail or the peer's rail is down.
    #[error("no path from rail {} to rail {} of {peer:?}: one of the two is down", rail.0, remote_rail.0)]
    Unreachable {
        /// The local rail.
        rail: RailIndex,
        /// The peer.
        peer: PeerHandle,
        /// The peer's rail.
        remote_rail: RailIndex,
    },
    /// Every lane of the storage is in use, or cannot be destroyed.
    #[error("all {lanes} lanes of the storage are in use: close some, or take a larger SimStorage")]
    Full {
        /// The most lanes of the storage.
        lanes: usize,
    },
    /// The send queue has no entries or too many, or no READ could be in flight.
    #[error(
        "{spec:?} does not fit: sq_entries can be 1 to {depth} in this storage, and rd_atomic is at least 1"
    )]
    Spec {
        /// The requested lane.
        spec: SimLaneSpec,
        /// The most entries of a send queue in the storage.
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

/// The model cannot remember another fate, action or range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model remembers {room} {what} already, the most at a time")]
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
