//! Why a page was not put, and why there is no pool.

use kvrail::WriteError;
use kvrail::session::PoolId;

use crate::key::Key;

/// Why a publisher's pool cannot be managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPoolError {
    /// The publisher has no such pool.
    #[error("the publisher has no {pool}: it never had, or has withdrawn it")]
    NoPool {
        /// The pool.
        pool: PoolId,
    },
    /// The pages are another owner's memory.
    #[error("{pool} has pages that another owner writes: open it as an EnginePool")]
    Foreign {
        /// The pool.
        pool: PoolId,
    },
    /// The pages are the publisher's memory.
    #[error("{pool} has pages in the publisher's own memory: open it as a PagePool")]
    Own {
        /// The pool.
        pool: PoolId,
    },
}

impl OpenPoolError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoPool { .. } => 7100,
            Self::Foreign { .. } => 7101,
            Self::Own { .. } => 7102,
        }
    }
}

/// Why a page was not put. The pool has no page of the key then, unless the text says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The bytes are not those of a page.
    #[error("{given} bytes for a page of {pool}, whose pages have {page}: give whole pages of its layout")]
    Length {
        /// The pool.
        pool: PoolId,
        /// How many bytes were given.
        given: usize,
        /// Bytes of a page.
        page: usize,
    },
    /// No slot can be taken: every one is written, pinned or read now.
    #[error(
        "none of the {slots} slots of {pool} can be taken: {written} are being written, and {held} have pages that are \
         pinned or read in this process. End some of these, or make the pool larger"
    )]
    AllHeld {
        /// The pool.
        pool: PoolId,
        /// How many slots there are.
        slots: u32,
        /// How many are being written.
        written: u32,
        /// How many have pins or local readers.
        held: u32,
    },
    /// The key was removed, or the pool was cleared, while the page was written.
    #[error("the page of key {key:?} was removed from {pool} while it was written, and is not there")]
    Removed {
        /// The pool.
        pool: PoolId,
        /// The key.
        key: Key,
    },
    /// The publisher has withdrawn the pool.
    #[error("{pool} is withdrawn, and takes no pages")]
    Withdrawn {
        /// The pool.
        pool: PoolId,
    },
    /// The publisher refused the slot.
    #[error("{pool}: {source}")]
    Write {
        /// The pool.
        pool: PoolId,
        /// Why.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: WriteError,
    },
}

impl PutError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Length { .. } => 7110,
            Self::AllHeld { .. } => 7111,
            Self::Removed { .. } => 7112,
            Self::Withdrawn { .. } => 7113,
            Self::Write { source, .. } => source.code(),
        }
    }
}

/// Why a slot of an engine's pool was not published or taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineSlotError {
    /// There is no such slot.
    #[error("slot {slot} of {pool}, which has {slots}: the last is {}", slots - 1)]
    Slot {
        /// The pool.
        pool: PoolId,
        /// The requested slot.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// The slot has a page that peers may read.
    #[error(
        "slot {slot} of {pool} has the page of key {key:?}, which peers may be reading: call overwrite_slot or \
         withdraw_slot before its bytes change"
    )]
    Published {
        /// The pool.
        pool: PoolId,
        /// The slot.
        slot: u32,
        /// The key of the page that is there.
        key: Key,
    },
    /// The slot is being written under a guard.
    #[error("slot {slot} of {pool} is being written under a guard: publish by that one, or drop it first")]
    BeingWritten {
        /// The pool.
        pool: PoolId,
        /// The slot.
        slot: u32,
    },
    /// The page in the slot is pinned.
    #[error(
        "slot {slot} of {pool} has a page that is pinned {pins} times: overwrite another slot, or call withdraw_slot \
         first if it has to go"
    )]
    Pinned {
        /// The pool.
        pool: PoolId,
        /// The slot.
        slot: u32,
        /// How many pins its page has.
        pins: u32,
    },
    /// The slot was withdrawn, or the pool was cleared, while the page was written.
    #[error("slot {slot} of {pool} was withdrawn while its page was written, and has no page")]
    Removed {
        /// The pool.
        pool: PoolId,
        /// The slot.
        slot: u32,
    },
    /// The publisher has withdrawn the pool.
    #[error("{pool} is withdrawn, and takes no pages")]
    Withdrawn {
        /// The pool.
        pool: PoolId,
    },
    /// The publisher refused the slot.
    #[error("{pool}: {source}")]
    Write {
        /// The pool.
        pool: PoolId,
        /// Why.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: WriteError,
    },
}

impl EngineSlotError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Slot { .. } => 7120,
            Self::Published { .. } => 7121,
            Self::BeingWritten { .. } => 7122,
            Self::Pinned { .. } => 7123,
            Self::Removed { .. } => 7124,
            Self::Withdrawn { .. } => 7125,
            Self::Write { source, .. } => source.code(),
        }
    }
}
