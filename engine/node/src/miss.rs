//! What has become of a key: a hit with its source, or a miss with its reason.

use std::sync::Arc;

use kvrail::PageError;
use kvrail::session::{Epoch, PoolId};
use kvrail_core::table;

use crate::directory::DirectoryError;

/// A page that has arrived, and was found to be the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hit {
    /// Where the page was found.
    pub found: FoundIn,
}

/// Where the location of a page came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundIn {
    /// The node's own pool had the page: it was copied.
    OwnPool,
    /// The reader's cache of records named its owner.
    Cache,
    /// The directory named its owner.
    Directory,
}

impl FoundIn {
    /// A stable name, for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::OwnPool => "own_pool",
            Self::Cache => "cache",
            Self::Directory => "directory",
        }
    }
}

/// Why a key's page did not arrive. Where several owners were tried, it is the reason of the last
/// one. The bytes of the destination are unspecified.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetMiss {
    /// No owner of the key is known.
    #[error("no owner of the key is known")]
    NoOwner,
    /// The node's own pools do not have the key, and it was started without a directory.
    #[error("the key is not in the node's own pools, and the node has no directory")]
    NotStored,
    /// The directory, or the shard that has the key, did not answer.
    #[error("the directory did not answer{}{}", if .0.is_some() { ": " } else { "" }, text(.0.as_deref()))]
    Directory(Option<Arc<DirectoryError>>),
    /// The owner was not reached: it did not answer, refused, or was not reached a moment ago.
    #[error("the owner {owner:?} was not reached: {why}")]
    Unreachable {
        /// The owner.
        owner: Epoch,
        /// Why, as text.
        why: Arc<str>,
    },
    /// The owner was lost while the page was under way.
    #[error("the owner {owner:?} was lost while the page was under way")]
    OwnerLost {
        /// The owner.
        owner: Epoch,
    },
    /// The owner at that address is another one: it was started again, or the record is forged.
    #[error("the owner {owner:?} is no more: {found:?} is at its address")]
    Restarted {
        /// The owner that the record names.
        owner: Epoch,
        /// The one that is there.
        found: Epoch,
    },
    /// The owner's table says that the slot does not hold the page any more, or never did.
    #[error("stale: {0}")]
    Stale(#[from] table::Miss),
    /// The owner has no such pool among the layouts that the node reads: it was withdrawn, or the
    /// record is forged.
    #[error("the owner has no {pool} that this node can read")]
    NoPool {
        /// The pool that the record names.
        pool: PoolId,
    },
    /// The record names a slot beyond the owner's pool: it is forged, or of an earlier pool.
    #[error("the record names slot {slot} of {pool}, which the pool does not have")]
    NoSlot {
        /// The pool.
        pool: PoolId,
        /// The slot.
        slot: u32,
    },
    /// The owner's pool has pages of another layout than the destination.
    #[error("{pool} of the owner has pages of another layout than the destination")]
    Layout {
        /// The pool.
        pool: PoolId,
    },
    /// The deadline passed.
    #[error("the deadline passed before the page had arrived")]
    Deadline,
    /// The READs of the page failed.
    #[error("the page could not be read: {0}")]
    Read(PageError),
    /// Another page of the same group missed.
    #[error("another page of the group is a miss")]
    Group,
    /// Too many requests wait for the node's readers.
    #[error(
        "{limit} requests wait for this reader: read less at a time, or start the node with more readers"
    )]
    Busy {
        /// The most requests that wait.
        limit: usize,
    },
    /// The destination cannot be read into: it is another node's, or the reader has lost its slot.
    #[error("the destination is not this node's, or a failed device may still write there")]
    Destination,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

fn text(error: Option<&DirectoryError>) -> String {
    error.map(ToString::to_string).unwrap_or_default()
}

impl GetMiss {
    /// How many reasons there are.
    pub const REASONS: usize = 16;

    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoOwner => 7200,
            Self::NotStored => 7201,
            Self::Directory(_) => 7202,
            Self::Unreachable { .. } => 7203,
            Self::OwnerLost { .. } => 7204,
            Self::Restarted { .. } => 7205,
            Self::Stale(_) => 7206,
            Self::NoPool { .. } => 7207,
            Self::NoSlot { .. } => 7208,
            Self::Layout { .. } => 7209,
            Self::Deadline => 7210,
            Self::Read(_) => 7211,
            Self::Group => 7212,
            Self::Busy { .. } => 7213,
            Self::Destination => 7214,
            Self::Stopped => 7215,
        }
    }

    /// The reason's number, below [`REASONS`](Self::REASONS).
    #[must_use]
    pub const fn reason(&self) -> usize {
        (self.code() - 7200) as usize
    }

    /// A stable name, for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        LABELS[self.reason()]
    }

    /// Whether the record that named the owner is known to be of no use any more.
    pub(crate) const fn disproves_record(&self) -> bool {
        !matches!(self, Self::Deadline | Self::Group | Self::Busy { .. } | Self::Destination | Self::Stopped)
    }
}

/// The labels of all reasons, by [`GetMiss::reason`].
pub const LABELS: [&str; GetMiss::REASONS] = [
    "no_owner",
    "not_stored",
    "directory",
    "unreachable",
    "owner_lost",
    "restarted",
    "stale",
    "no_pool",
    "no_slot",
    "layout",
    "deadline",
    "read",
    "group",
    "busy",
    "destination",
    "stopped",
];
