//! What can be wrong with a call, or with a peer's message.

use std::time::Duration;

use kvrail_core::table::Generation;

use super::id::HandoverId;
use super::types::{
    HandoverNumber, MAX_LEASE, MAX_MESSAGE_BLOCKS, MAX_MESSAGE_RENEWALS, MAX_WAIT, MIN_RENEW_EVERY, RequestId,
};
use crate::pool::PoolId;

/// Why a producer's limits cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverConfigError {
    /// A reader could not keep such a lease.
    #[error(
        "a lease of {lease:?} that is renewed every {renew_every:?}: the lease is at most {MAX_LEASE:?}, and \
         renewals are at least {MIN_RENEW_EVERY:?} and at most half of the lease apart"
    )]
    Lease {
        /// The lease.
        lease: Duration,
        /// The time between two renewals.
        renew_every: Duration,
    },
    /// A limit that would let nothing through.
    #[error("{name} is 0: set it to at least 1")]
    Zero {
        /// The name of the field.
        name: &'static str,
    },
}

impl HandoverConfigError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Lease { .. } | Self::Zero { .. } => 4200,
        }
    }
}

/// Why a producer's call about a hand-over did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The request has a hand-over that is open.
    #[error("request {request} is open as {id}: abort that hand-over first")]
    AlreadyOpen {
        /// The request.
        request: RequestId,
        /// Its hand-over.
        id: HandoverId,
    },
    /// There are as many hand-overs as the producer allows.
    #[error(
        "request {request} cannot be opened: {open} hand-overs are open and {unfetched} have an outcome that was \
         not fetched, of {max}: fetch the outcomes, or raise max_open"
    )]
    TooManyOpen {
        /// The request.
        request: RequestId,
        /// How many are open.
        open: usize,
        /// How many outcomes have not been fetched.
        unfetched: usize,
        /// How many there may be together.
        max: u32,
    },
    /// No such hand-over is open: it has an outcome, or never was.
    #[error("{id} is not open: its outcome says how it ended")]
    NotOpen {
        /// The hand-over.
        id: HandoverId,
    },
    /// The hand-over was completed.
    #[error("{id} is complete with {blocks} blocks: add blocks and parts before that")]
    Completed {
        /// The hand-over.
        id: HandoverId,
        /// The length of its list.
        blocks: u32,
    },
    /// The list would be longer than the producer allows.
    #[error(
        "{id} has {have} blocks, {more} more are too many: a request has at most {max}; raise max_blocks"
    )]
    TooManyBlocks {
        /// The hand-over.
        id: HandoverId,
        /// The length of its list.
        have: u32,
        /// How many were to be added.
        more: usize,
        /// How long a list may be.
        max: u32,
    },
    /// A block names no published page.
    #[error(
        "block {place} of those to be added to {id} names slot {slot} of {pool} with the invalid generation {generation:?}: publish the page first"
    )]
    NotPublished {
        /// The hand-over.
        id: HandoverId,
        /// The block's place among those to be added.
        place: usize,
        /// Its pool.
        pool: PoolId,
        /// Its slot.
        slot: u32,
        /// The generation that it names.
        generation: Generation,
    },
    /// The range is not one of places in the list.
    #[error("places {start}..{end} of {id}: its list has {blocks} blocks; append the others first")]
    Places {
        /// The hand-over.
        id: HandoverId,
        /// The first place.
        start: u32,
        /// The place after the last.
        end: u32,
        /// The length of the list.
        blocks: u32,
    },
    /// The producer is stopping.
    #[error("request {request} cannot be opened: the producer is stopping; use another producer")]
    Stopping {
        /// The request.
        request: RequestId,
    },
}

impl HandoverError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::AlreadyOpen { .. } => 4201,
            Self::TooManyOpen { .. } => 4202,
            Self::NotOpen { .. } => 4203,
            Self::Completed { .. } => 4204,
            Self::TooManyBlocks { .. } => 4205,
            Self::Places { .. } => 4206,
            Self::Stopping { .. } => 4207,
            Self::NotPublished { .. } => 4218,
        }
    }
}

/// How a peer broke the protocol. The session with it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverProtocolError {
    /// The message is one that only this side sends.
    #[error(
        "the peer sent {message}, which only this side sends: is one side a reader and the other a producer?"
    )]
    Direction {
        /// The name of the message.
        message: &'static str,
    },
    /// The message is about a hand-over that was never asked for.
    #[error("the peer sent {message} for hand-over {number}; the highest number used so far is {last}")]
    NeverUsed {
        /// The name of the message.
        message: &'static str,
        /// The number in it.
        number: HandoverNumber,
        /// The highest number used so far, 0 if none was.
        last: u32,
    },
    /// The reader's numbers do not rise.
    #[error("the reader sent Take with number {number} after {last}: the numbers of a session rise")]
    NumberReused {
        /// The number.
        number: HandoverNumber,
        /// The highest number used so far.
        last: u32,
    },
    /// The reader takes more and more, and does not read the answers.
    #[error("the reader sent Take with number {number}, and has {unread} unread answers of at most {max}")]
    Unread {
        /// The number.
        number: HandoverNumber,
        /// How many answers wait.
        unread: usize,
        /// How many may wait.
        max: u32,
    },
    /// The message cannot come in this state of the hand-over.
    #[error("the peer sent {message} for hand-over {number}, which is {state}")]
    Order {
        /// The name of the message.
        message: &'static str,
        /// The number in it.
        number: HandoverNumber,
        /// The state of the hand-over.
        state: &'static str,
    },
    /// The blocks do not follow on the list, or the list has another length than the producer says.
    #[error(
        "the producer sent {message} for hand-over {number} with place {place}; the list has {blocks} blocks"
    )]
    Gap {
        /// The name of the message.
        message: &'static str,
        /// The number in it.
        number: HandoverNumber,
        /// The place at which it goes on or ends.
        place: u32,
        /// The length of the list.
        blocks: u32,
    },
    /// The range of a `Ready` is empty, or goes beyond the list.
    #[error(
        "the producer sent Ready for {count} blocks from {first} on of hand-over {number}, which has {blocks}"
    )]
    ReadyRange {
        /// The number in it.
        number: HandoverNumber,
        /// The place of the first.
        first: u32,
        /// How many.
        count: u32,
        /// The length of the list.
        blocks: u32,
    },
    /// Fewer parts are ready than before.
    #[error(
        "the producer says that {to} parts of block {place} of hand-over {number} are ready, after {from}"
    )]
    ReadyFell {
        /// The number in it.
        number: HandoverNumber,
        /// The block's place.
        place: u32,
        /// How many were ready.
        from: u32,
        /// How many are said to be.
        to: u32,
    },
    /// A message carries more or fewer items than its bounds allow.
    #[error(
        "the peer sent {message} with {count} items: 1 to {MAX_MESSAGE_BLOCKS} blocks, at most \
         {MAX_MESSAGE_RENEWALS} renewals"
    )]
    Items {
        /// The name of the message.
        message: &'static str,
        /// How many it carries.
        count: usize,
    },
    /// A time of a message is out of its bounds.
    #[error("the reader lets hand-over {number} wait for {wait:?}: at most {MAX_WAIT:?}")]
    Wait {
        /// The number.
        number: HandoverNumber,
        /// The time.
        wait: Duration,
    },
    /// The producer gives a lease that a reader cannot keep.
    #[error(
        "the producer gives hand-over {number} a lease of {lease:?}, renewed every {renew_every:?}: at most \
         {MAX_LEASE:?}, renewed at least {MIN_RENEW_EVERY:?} and less than the lease apart"
    )]
    Lease {
        /// The number.
        number: HandoverNumber,
        /// The lease.
        lease: Duration,
        /// The time between two renewals.
        renew_every: Duration,
    },
}

impl HandoverProtocolError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Direction { .. } => 4208,
            Self::NeverUsed { .. } => 4209,
            Self::NumberReused { .. } => 4210,
            Self::Unread { .. } => 4211,
            Self::Order { .. } | Self::Gap { .. } => 4212,
            Self::ReadyRange { .. } | Self::ReadyFell { .. } => 4213,
            Self::Items { .. } | Self::Wait { .. } | Self::Lease { .. } => 4214,
        }
    }
}

/// Why a reader's call about a taking did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TakingError {
    /// The session has as many takings as it may.
    #[error(
        "request {request} cannot be taken: the session has {open} takings of {max} (max_takings); end some of them first"
    )]
    TooMany {
        /// The request.
        request: RequestId,
        /// How many there are.
        open: usize,
        /// How many there may be.
        max: u32,
    },
    /// All numbers of the session have been used.
    #[error(
        "request {request} cannot be taken: the session has used all 4,294,967,295 numbers; make another one"
    )]
    UsedUp {
        /// The request.
        request: RequestId,
    },
    /// No such taking: it is done, given up or ended, or never was.
    #[error("taking {number} is not open")]
    NotOpen {
        /// The number.
        number: HandoverNumber,
    },
    /// The producer has not given the pages yet.
    #[error("taking {number} cannot be done: the producer has not answered; give it up instead")]
    NotTaken {
        /// The number.
        number: HandoverNumber,
    },
}

impl TakingError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::TooMany { .. } | Self::UsedUp { .. } => 4215,
            Self::NotOpen { .. } | Self::NotTaken { .. } => 4216,
        }
    }
}
