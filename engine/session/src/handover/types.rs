//! The words of a hand-over: what the two sides say to each other about the pages of one request.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use kvrail_core::batch::Class;
use kvrail_core::table::EntryValue;

use crate::pool::PoolId;

/// The most blocks that one [`HandoverMessage::Blocks`] carries.
pub const MAX_MESSAGE_BLOCKS: usize = 1024;
/// The most numbers that one [`HandoverMessage::Renew`] carries.
pub const MAX_MESSAGE_RENEWALS: usize = 1024;
/// The longest time for which a reader may let a producer wait for a request that it does not know.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// The longest lease.
pub const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest time between two renewals that a producer may ask for.
pub const MIN_RENEW_EVERY: Duration = Duration::from_millis(100);
/// [`Block::ready`] of a page whose parts are all ready, however many parts it has.
pub const WHOLE_PAGE: u32 = u32::MAX;

/// A request, as the engines on both sides call it: a number of 64 bits, or a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    /// A number below 2^64 in decimal digits, any other in the form of a UUID.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(number) = u64::try_from(self.0) {
            return write!(f, "{number}");
        }
        let n = self.0;
        let (a, b, c) = (n >> 96, n >> 80 & 0xFFFF, n >> 64 & 0xFFFF);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", n >> 48 & 0xFFFF, n & 0xFFFF_FFFF_FFFF)
    }
}

/// A hand-over in one session. The reader chooses the number; the numbers of a session rise, so
/// that both sides can tell a number that was used from one that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandoverNumber(pub NonZeroU32);

impl fmt::Display for HandoverNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One page of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The pool that holds the page.
    pub pool: PoolId,
    /// The page's slot in that pool.
    pub slot: u32,
    /// What the slot's table entry must hold after the bytes were read, apart from the parts that
    /// are ready: `ready` says these, and rises while the page grows.
    pub expected: EntryValue,
    /// How many parts of the page may be read, from the first on; [`WHOLE_PAGE`]: all.
    pub ready: u32,
}

/// What one side of a hand-over says to the other.
///
/// A session carries its messages in order, and each once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandoverMessage {
    /// Reader to producer: the reader wants the pages of a request.
    Take {
        /// Higher than each earlier one of the session.
        number: HandoverNumber,
        /// The request.
        request: RequestId,
        /// Which hand-overs of the session come first.
        class: Class,
        /// How long to wait for a request that the producer does not know yet, at most
        /// [`MAX_WAIT`].
        wait: Duration,
    },
    /// Reader to producer: the leases of these hand-overs begin anew.
    Renew {
        /// At most [`MAX_MESSAGE_RENEWALS`].
        numbers: Vec<HandoverNumber>,
    },
    /// Reader to producer: the reader has what it wants, and reads no more of these pages.
    Done {
        /// Which hand-over.
        number: HandoverNumber,
    },
    /// Reader to producer: the reader wants no more of these pages.
    GiveUp {
        /// Which hand-over.
        number: HandoverNumber,
        /// Why.
        reason: GiveUpReason,
    },
    /// Producer to reader: the hand-over is the reader's from now on.
    Taken {
        /// Which hand-over.
        number: HandoverNumber,
        /// How long the pages stay after a renewal, at most [`MAX_LEASE`].
        lease: Duration,
        /// How often the reader should renew, at least [`MIN_RENEW_EVERY`] and less than the lease.
        renew_every: Duration,
    },
    /// Producer to reader: the next blocks of the list.
    Blocks {
        /// Which hand-over.
        number: HandoverNumber,
        /// The place in the list of the first of them: how many blocks came before.
        first: u32,
        /// 1 to [`MAX_MESSAGE_BLOCKS`].
        blocks: Vec<Block>,
    },
    /// Producer to reader: more parts of some blocks may be read.
    Ready {
        /// Which hand-over.
        number: HandoverNumber,
        /// The place in the list of the first of these blocks.
        first: u32,
        /// How many blocks, at least 1.
        count: u32,
        /// How many parts of each may be read; not fewer than before.
        ready: u32,
    },
    /// Producer to reader: the list grows no more, and neither does a block of it.
    Complete {
        /// Which hand-over.
        number: HandoverNumber,
        /// How long the list is.
        blocks: u32,
    },
    /// Producer to reader: the hand-over is over. The pages may be overwritten from now on.
    Ended {
        /// Which hand-over.
        number: HandoverNumber,
        /// Why.
        reason: EndReason,
    },
}

impl HandoverMessage {
    /// The name of the message, for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Take { .. } => "Take",
            Self::Renew { .. } => "Renew",
            Self::Done { .. } => "Done",
            Self::GiveUp { .. } => "GiveUp",
            Self::Taken { .. } => "Taken",
            Self::Blocks { .. } => "Blocks",
            Self::Ready { .. } => "Ready",
            Self::Complete { .. } => "Complete",
            Self::Ended { .. } => "Ended",
        }
    }
}

/// Why a producer ended a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The producer stopped computing the request.
    Aborted,
    /// The producer does not compute the request.
    Rejected,
    /// The producer learned of no such request within the time that the reader let it wait.
    Unknown,
    /// The lease ran out.
    Expired,
    /// Another taker has the request.
    TakenByOther,
    /// The session waits for as many unknown requests as the producer allows.
    TooMany,
    /// The producer is stopping.
    Stopping,
    /// A reason that this version does not know.
    Other(u16),
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aborted => "the producer aborted the request",
            Self::Rejected => "the producer rejected the request",
            Self::Unknown => "the producer learned of no such request in time",
            Self::Expired => "the lease ran out",
            Self::TakenByOther => "another taker has the request",
            Self::TooMany => "the session waits for too many requests",
            Self::Stopping => "the producer is stopping",
            Self::Other(reason) => return write!(f, "reason {reason}, which this version does not know"),
        })
    }
}

/// Why a reader gave a hand-over up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// The client that made the request has gone.
    ClientGone,
    /// The reader has no room for the pages, or for their list.
    NoRoom,
    /// Reading the pages failed.
    Failed,
    /// A reason that this version does not know.
    Other(u16),
}

impl fmt::Display for GiveUpReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientGone => "the client has gone",
            Self::NoRoom => "the reader has no room",
            Self::Failed => "reading failed",
            Self::Other(reason) => return write!(f, "reason {reason}, which this version does not know"),
        })
    }
}
