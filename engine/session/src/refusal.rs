//! Why one peer refuses the other: a reason that both sides can print.

use std::fmt;

use crate::key::KeyId;
use crate::versions::Versions;

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

impl Refusal {
    /// The same refusal, seen from the other side.
    #[must_use]
    pub fn flip(self) -> Self {
        match self {
            Self::Version(both) => Self::Version(both.flip()),
            Self::Key(both) => Self::Key(both.flip()),
            same => same,
        }
    }

    /// The number of the reason on the wire, and the number that belongs to it.
    pub(crate) fn to_wire(self) -> (u16, u64) {
        match self {
            Self::Version(_) => (1, 0),
            Self::Key(_) => (2, 0),
            Self::Malformed { kind } => (6, kind.into()),
            Self::TooManyHandshakes { limit } => (7, limit),
            Self::TooManySessions { limit } => (8, limit),
            Self::Stopping => (9, 0),
            Self::Other { code } => (code, 0),
        }
    }

    /// The refusal with these numbers, for a side that has these versions and keys. A number that
    /// the reason does not use, or cannot have, is passed over.
    pub(crate) fn from_wire(reason: u16, number: u64, versions: Both<Versions>, keys: Both<KeyId>) -> Self {
        match reason {
            1 => Self::Version(versions),
            2 => Self::Key(keys),
            _ => Self::of_message(reason, number),
        }
    }

    /// The refusal with these numbers, in a message: versions and keys agree there.
    pub(crate) fn of_message(reason: u16, number: u64) -> Self {
        match reason {
            6 => Self::Malformed { kind: u16::try_from(number).unwrap_or(0) },
            7 => Self::TooManyHandshakes { limit: number },
            8 => Self::TooManySessions { limit: number },
            9 => Self::Stopping,
            code => Self::Other { code },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Version(Both { ours, theirs }) => write!(
                f,
                "no common protocol version: this side speaks {ours}, the peer speaks {theirs}; upgrade the older one"
            ),
            Self::Key(Both { ours, theirs }) => write!(
                f,
                "the peer keys differ: this side has {}, the peer has {}; {}",
                Named(ours),
                Named(theirs),
                if ours == KeyId::NONE || theirs == KeyId::NONE {
                    "give both sides the same key file, or neither a key"
                } else {
                    "compare the key files of the two hosts, and give both the same one"
                }
            ),
            Self::Malformed { kind: 0 } => {
                write!(
                    f,
                    "one side sent bytes that are no message of kvrail: does something else use this port?"
                )
            }
            Self::Malformed { kind } => write!(
                f,
                "one side sent a message of kind {kind} that is malformed, out of turn or changed on its way: do both sides run the same release?"
            ),
            Self::TooManyHandshakes { limit } => {
                write!(f, "the producer has {limit} other handshakes under way, its limit; try again shortly")
            }
            Self::TooManySessions { limit } => write!(
                f,
                "the producer has {limit} sessions, its limit; raise its max_sessions, or use another producer"
            ),
            Self::Stopping => {
                f.write_str("the producer is stopping; use another producer, or connect again later")
            }
            Self::Other { code } => write!(
                f,
                "the peer refused for reason {code}, which this version does not know; the peer's log has the reason"
            ),
        }
    }
}

/// A key in a sentence.
struct Named(KeyId);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == KeyId::NONE { f.write_str("no key") } else { write!(f, "the key with id {}", self.0) }
    }
}

#[cfg(test)]
mod tests;
