//! How a producer's owner calls its hand-overs and sessions.

use std::fmt;

/// A hand-over of a producer. No two of one `Handovers` have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandoverId(pub(super) u64);

impl HandoverId {
    /// The hand-over as a number, for callers in other languages.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The hand-over that [`to_bits`](Self::to_bits) gave as a number. A number that no hand-over
    /// has is refused by each call that it is given to.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for HandoverId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hand-over #{}", self.0)
    }
}

/// A session of a producer. The owner numbers its sessions and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);
