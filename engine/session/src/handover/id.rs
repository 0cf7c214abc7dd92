//! How a producer's owner calls its hand-overs and sessions.

use std::fmt;

/// A hand-over of a producer. No two of one `Handovers` have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandoverId(pub(super) u64);

impl fmt::Display for HandoverId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hand-over #{}", self.0)
    }
}

/// A session of a producer. The owner numbers its sessions and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);
