//! Why one peer refuses the other: a reason that both sides can print.

use std::fmt;

use crate::key::KeyId;
use crate::name::NodeName;
use crate::offer::Layout;

/// The protocol versions that a side speaks: a range, so that a release can work with the one
/// before.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Versions {
    min: u16,
    max: u16,
}

impl Versions {
    /// The versions that this crate speaks.
    pub const SUPPORTED: Self = Self { min: crate::wire::VERSION, max: crate::wire::VERSION };

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

/// Whether a side is a reader or a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a session has two ends")]
pub enum Role {
    /// It pulls pages.
    Reader,
    /// It owns pages.
    Producer,
}

impl Role {
    /// The role with this number on the wire.
    #[must_use]
    pub const fn from_wire(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Reader),
            2 => Some(Self::Producer),
            _ => None,
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Reader => 1,
            Self::Producer => 2,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Producer => "producer",
        })
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

/// A refusal, as one of the two sides sees it. `ours` is always the side that holds the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The names of the two sides, as far as known.
    pub nodes: Both<Option<NodeName>>,
    /// Why.
    pub reason: Reason,
}

/// Why a side refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No protocol version in common.
    Version(Both<Versions>),
    /// The keys differ.
    Key(Both<KeyId>),
    /// The layouts differ: in fingerprint, bytes of a page or parts. Their names may differ.
    Layout(Both<Layout>),
    /// The two roles do not go together: both are readers, or both are producers.
    Role(Both<Role>),
    /// A message's MAC is wrong although the keys are the same: it was changed on its way, replayed
    /// or reflected.
    Forged {
        /// The number of the message's kind.
        kind: u16,
    },
    /// A message was malformed or came out of turn.
    Malformed {
        /// The number of the message's kind, as far as known.
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

impl Reason {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 4100,
            Self::Key(_) => 4101,
            Self::Layout(_) => 4102,
            Self::Role(_) => 4103,
            Self::Forged { .. } => 4104,
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
        let reason = match self.reason {
            Reason::Version(pair) => Reason::Version(pair.flip()),
            Reason::Key(pair) => Reason::Key(pair.flip()),
            Reason::Layout(pair) => Reason::Layout(pair.flip()),
            Reason::Role(pair) => Reason::Role(pair.flip()),
            same => same,
        };
        Self { nodes: self.nodes.flip(), reason }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &Option<NodeName>| node.map_or("(unnamed)".into(), |n| format!("`{n}`"));
        let (us, them) = (name(&self.nodes.ours), name(&self.nodes.theirs));
        match self.reason {
            Reason::Version(Both { ours, theirs }) => write!(
                f,
                "no common protocol version: {us} (this side) speaks {ours}, {them} (the peer) speaks {theirs}; upgrade the older one"
            ),
            Reason::Key(Both { ours, theirs }) => write!(
                f,
                "the peer keys differ: {us} (this side) has the key with id {ours}, {them} (the peer) the key with id {theirs}; give both the same key"
            ),
            Reason::Layout(Both { ours, theirs }) => {
                let differences = [
                    (ours.fingerprint != theirs.fingerprint, "fingerprint"),
                    (ours.page_bytes != theirs.page_bytes, "page size"),
                    (ours.parts != theirs.parts, "parts"),
                ];
                let differs: Vec<_> = differences.iter().filter(|d| d.0).map(|d| d.1).collect();
                write!(
                    f,
                    "the layouts differ in {}: {us} (this side) has {ours}, {them} (the peer) has {theirs}; build both with the same layout, or have the reader connect for the producer's layout (`Reader::connect_to`) and read by a plan",
                    differs.join(" and ")
                )
            }
            Reason::Role(Both { ours, theirs }) => write!(
                f,
                "{us} (this side) is a {ours} and {them} (the peer) a {theirs}: a reader connects to a producer"
            ),
            Reason::Forged { kind } => write!(
                f,
                "message {kind} between {us} (this side) and {them} (the peer) does not carry the MAC of their key: changed on its way, or replayed"
            ),
            Reason::Malformed { kind } => write!(
                f,
                "message {kind} between {us} (this side) and {them} (the peer) is malformed or out of turn: do both run the same release?"
            ),
            Reason::TooManyHandshakes { limit } => {
                write!(f, "the producer has {limit} other handshakes under way, its limit; try again shortly")
            }
            Reason::TooManySessions { limit } => {
                write!(f, "the producer has {limit} sessions, its limit; raise max_sessions or use another")
            }
            Reason::Stopping => write!(f, "the producer is stopping"),
            Reason::Other { code } => {
                write!(
                    f,
                    "{us} (this side) and {them} (the peer) cannot have a session, for reason {code}, which this version does not know"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins() {
        let range = |min, max| Versions::new(min, max).unwrap();
        for (a, b, common) in [
            (range(1, 1), range(1, 1), Some(1)),
            (range(1, 3), range(2, 5), Some(3)),
            (range(2, 2), range(1, 9), Some(2)),
            (range(1, 1), range(2, 3), None),
            (range(4, 6), range(1, 3), None),
        ] {
            assert_eq!(a.common(b), common);
            assert_eq!(b.common(a), common);
        }
        assert_eq!((Versions::new(0, 3), Versions::new(3, 2)), (None, None));
    }
}
