//! What the owner of the takings learns.

use std::ops::Range;

use super::super::types::{EndReason, HandoverNumber};

/// What has happened to a taking. Events of one taking are merged until they are fetched: each says
/// the newest state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakingEvent {
    /// The producer knows the request, and keeps its pages while this side renews.
    Taken {
        /// The taking.
        number: HandoverNumber,
    },
    /// The list has grown. `Takings::blocks` has the new blocks; some may have parts that are ready
    /// already, which no other event says.
    Grown {
        /// The taking.
        number: HandoverNumber,
        /// The places of the new blocks.
        places: Range<u32>,
    },
    /// More parts of blocks that an earlier `Grown` named may be read.
    Ready {
        /// The taking.
        number: HandoverNumber,
        /// The places of the blocks.
        places: Range<u32>,
        /// How many parts of each may be read now.
        parts: u32,
    },
    /// The list grows no more, and neither do the parts that are ready.
    Complete {
        /// The taking.
        number: HandoverNumber,
    },
    /// By this side's clock the lease ran out before it was renewed. The pages may have been
    /// overwritten: validation tells. The next renewal is sent all the same, and the producer
    /// answers with the end of the hand-over if it has ended it.
    ///
    /// The contrary cannot be told: while a machine is suspended its monotonic clock may stand
    /// still. So a reader without this event must validate what it reads, too.
    LeaseRanOut {
        /// The taking.
        number: HandoverNumber,
    },
    /// The producer has ended the hand-over. The taking is gone.
    Ended {
        /// The taking.
        number: HandoverNumber,
        /// Why.
        reason: EndReason,
    },
    /// The list got longer than this side allows: the taking was given up, and is gone.
    TooLong {
        /// The taking.
        number: HandoverNumber,
        /// How many blocks the list would have.
        blocks: usize,
        /// How many it may have (`max_blocks`).
        max: u32,
    },
    /// The producer did not answer in time: the taking was given up, and is gone.
    Unanswered {
        /// The taking.
        number: HandoverNumber,
    },
}

impl TakingEvent {
    /// The taking that it is about.
    #[must_use]
    pub const fn number(&self) -> HandoverNumber {
        match *self {
            Self::Taken { number }
            | Self::Grown { number, .. }
            | Self::Ready { number, .. }
            | Self::Complete { number }
            | Self::LeaseRanOut { number }
            | Self::Ended { number, .. }
            | Self::TooLong { number, .. }
            | Self::Unanswered { number } => number,
        }
    }
}
