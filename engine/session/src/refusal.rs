//! Why one peer refuses the other: a reason that both sides can print.

use std::fmt;

use crate::key::KeyId;

/// The protocol versions that a side speaks: a range, so that a release can work with the one
/// before.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Versions {
    min: u16,
    max: u16,
}

impl Versions {
    /// The versions that this crate speaks.
    pub const SUPPORTED: Self = Self { min: crate::greeting::VERSION, max: crate::greeting::VERSION };

    /// From `min` to `max`, both included; `None` unless `1 <= min <= max`.
    #[must_use]
    pub const fn new(min: u16, max: u16) -> Option<Self> {
        if min == 0 || min > max { None } else { Some(Self { min, max }) }
    }

    /// The lowest.
    #[must_use]
    pub const fn min(self) -> u16 {
        self.min
    }

    /// The highest.
    #[must_use]
    pub const fn max(self) -> u16 {
        self.max
    }

    /// The highest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let highest = self.max.min(other.max);
        (highest >= self.min && highest >= other.min).then_some(highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.min, self.max)
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value of this side and the same value of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both<T> {
    /// This side's value.
    pub ours: T,
    /// The peer's value.
    pub theirs: T,
}

impl<T> Both<T> {
    /// The same, seen from the other side.
    #[must_use]
    pub fn flip(self) -> Self {
        Self { ours: self.theirs, theirs: self.ours }
    }
}

/// Why one side refused the other, as one of the two sees it. `ours` is always the side that holds
/// the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No protocol version in common.
    Version(Both<Versions>),
    /// The keys differ.
    Key(Both<KeyId>),
    /// A message was malformed or came out of turn.
    Malformed {
        /// The number of the message's kind, as far as known; else 0.
        kind: u16,
    },
    /// As many connections are in their handshake as the producer allows. Trying again may help.
    TooManyHandshakes {
        /// Its limit.
        limit: u64,
    },
    /// The producer has as many sessions as it allows.
    TooManySessions {
        /// Its limit.
        limit: u64,
    },
    /// The producer is stopping.
    Stopping,
    /// A reason that this version does not know.
    Other {
        /// Its number.
        code: u16,
    },
}

impl Refusal {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 4100,
            Self::Key(_) => 4101,
            Self::Malformed { .. } => 4105,
            Self::TooManyHandshakes { .. } => 4106,
            Self::TooManySessions { .. } => 4107,
            Self::Stopping => 4108,
            Self::Other { .. } => 4109,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
