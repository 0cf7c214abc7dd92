//! How a hand-over ended.

use super::super::id::HandoverId;
use super::super::types::{Block, EndReason, GiveUpReason, RequestId};

/// How a hand-over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandoverOutcome {
    /// The reader has what it wanted.
    Done,
    /// The reader wants no more of it.
    GivenUp(GiveUpReason),
    /// The owner aborted it.
    Aborted,
    /// No reader took it, or the reader did not renew, for the time of a lease.
    Expired,
    /// The reader's session was lost.
    SessionLost,
    /// The producer stopped.
    Stopped,
}

impl HandoverOutcome {
    /// What the taker is told; `None` if the taker ended the hand-over itself, or has gone.
    pub(super) const fn told(self) -> Option<EndReason> {
        match self {
            Self::Aborted => Some(EndReason::Aborted),
            Self::Expired => Some(EndReason::Expired),
            Self::Stopped => Some(EndReason::Stopping),
            Self::Done | Self::GivenUp(_) | Self::SessionLost => None,
        }
    }
}

/// A hand-over that has ended. Its blocks are the owner's again: the owner invalidates the table
/// entry of each, and only then overwrites a slot. READs of the reader may still be under way;
/// their validation misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedHandover {
    /// The hand-over.
    pub id: HandoverId,
    /// Its request, which may be opened anew.
    pub request: RequestId,
    /// How it ended.
    pub outcome: HandoverOutcome,
    /// The list of blocks, each with the parts that were ready at the end.
    pub blocks: Vec<Block>,
}
