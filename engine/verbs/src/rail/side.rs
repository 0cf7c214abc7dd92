//! Whether a rail belongs to a reader or to a producer.

use std::fmt;

/// What a rail is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a lane has two ends")]
pub enum Side {
    /// READs are posted here: a completion queue of full length with a channel to sleep on.
    Reader,
    /// Peers read from here: no completion ever comes.
    Producer,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Producer => "producer",
        })
    }
}
